"""Raw clips: from MediaSequence records of JPEG files to batches of T squares each.

A clip is cut into T segments of equal length. Training takes a random frame of each, cuts the same
random rectangle out of all of them and may mirror them; evaluation takes the middle frames and the
square in the center. Only the frames that are taken are decoded.

Every random choice is a function of the seed, the epoch and the id of the clip, so that the order
of the records, the batch size and resuming do not change it.

Reference: TSN (Wang et al., 2016), sections 3.2 and 4.1: sparse sampling, corner cropping and scale
jittering; `GroupMultiScaleCrop` of the code that TSN and TSM share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from yt8m_gat.config import CLIP_FEATURE, ClipConfig
from yt8m_gat.data.augmentation import augment
from yt8m_gat.data.errors import Fault
from yt8m_gat.data.parsing import (
    RUN_REMEDY,
    Batch,
    Checks,
    check_context,
    class_labels,
    context_types,
    default_names,
    read_context,
    video_id_of,
)
from yt8m_gat.data.schema import ENCODED_KEY, RecordSchema
from yt8m_gat.data.wire_format import first_true, read_records

_MOST_DISTORTION = 1
"""Height and width are at most this many steps of `crop_scales` apart (TSN's `max_distort`)."""

_PLACES = (
    *((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)),
    *((0.5, 0.0), (0.5, 1.0), (1.0, 0.5), (0.0, 0.5)),
    *((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)),
)
"""Where a rectangle lies, as shares of the room above it and to its left: TSN's corners and center,
and its `more_fix_crop`."""

_REMEDY = (
    f"pack the clip again by `yt8m-gat pack`, or leave such records out by --on_bad_record=skip; "
    f"{RUN_REMEDY}"
)


class Crops(NamedTuple):
    """Which part of its frames each clip of a batch shows.

    Attributes:
        extents: float32 [B, 2], height and width as shares of a frame's short side.
        places: float32 [B, 2], shares of the room that is left that lie above and to the left.
        mirrored: bool [B], whether left and right are exchanged.
    """

    extents: tf.Tensor
    places: tf.Tensor
    mirrored: tf.Tensor


def uniform_draws(ids: tf.Tensor, seed: tf.Tensor, count: int) -> tf.Tensor:
    """Draws numbers that depend on nothing but the seed and each clip's id.

    Args:
        ids: string [B].
        seed: int32 [2].
        count: Numbers for each clip.

    Returns:
        float32 [B, count], uniform in [0, 1).
    """
    fingerprints = tf.bitcast(tf.fingerprint(ids), tf.int64)  # [B]

    def draw(fingerprint: tf.Tensor) -> tf.Tensor:
        of_clip = tf.random.experimental.stateless_fold_in(seed, fingerprint, alg="philox")
        return tf.random.stateless_uniform([count], of_clip, alg="philox")

    return tf.map_fn(draw, fingerprints, fn_output_signature=tf.TensorSpec([count], tf.float32))


def sample_frames(
    num_frames: tf.Tensor, clips: ClipConfig, draws: tf.Tensor | None = None
) -> tf.Tensor:
    """Chooses T frames of each clip; a clip of fewer frames repeats some.

    `segments`: frame i is `floor((i + u_i) n / T)`, with u_i = 1/2 without draws. `dense`: frames
    `start + i * dense_stride`, or the nearest frame that exists, with all possible starts equally
    likely, or the middle one.

    Args:
        num_frames: int32 [B], n.
        clips: The settings.
        draws: float32 [B, T] in [0, 1), u; None: the frames of evaluation.

    Returns:
        int32 [B, T], ascending, from 0 to n - 1; 0 where n is 0.
    """
    count = tf.maximum(num_frames, 1)[:, tf.newaxis]
    steps = tf.range(clips.num_segments)[tf.newaxis]
    if clips.sampling == "segments":
        if draws is None:
            return (2 * steps + 1) * count // (2 * clips.num_segments)
        # In whole numbers, because (i + u) n / T may round up to the next segment's first frame.
        inside = tf.minimum(tf.cast(draws * tf.cast(count, tf.float32), tf.int32), count - 1)
        return (steps * count + inside) // clips.num_segments
    room = count - ((clips.num_segments - 1) * clips.dense_stride + 1)  # [B, 1]
    if draws is None:
        start = room // 2
    else:
        width = tf.abs(room) + 1
        chosen = tf.cast(draws[:, :1] * tf.cast(width, tf.float32), tf.int32)
        start = tf.minimum(room, 0) + tf.minimum(chosen, width - 1)
    return tf.clip_by_value(start + steps * clips.dense_stride, 0, count - 1)


def random_crops(clips: ClipConfig, draws: tf.Tensor) -> Crops:
    """Draws TSN's multi-scale crops: a pair of scales, one of 13 places, and a flip.

    Args:
        clips: The settings.
        draws: float32 [B, 3] in [0, 1).
    """
    scales = clips.crop_scales
    pairs = [
        (height, width)
        for i, height in enumerate(scales)
        for j, width in enumerate(scales)
        if abs(i - j) <= _MOST_DISTORTION
    ]
    return Crops(
        _choose(pairs, draws[:, 0]),
        _choose(_PLACES, draws[:, 1]),
        draws[:, 2] < (0.5 if clips.flip else 0.0),
    )


def _choose(values: Sequence[tuple[float, float]], draws: tf.Tensor) -> tf.Tensor:
    """Returns one of `values` for each of `draws` [B], which are in [0, 1), as [B, 2]."""
    places = tf.cast(draws * len(values), tf.int32)
    return tf.gather(tf.constant(values, tf.float32), tf.minimum(places, len(values) - 1))


def central_crops(clips: ClipConfig, num_clips: tf.Tensor) -> Crops:
    """Returns the squares in the center."""
    return Crops(
        tf.fill([num_clips, 2], clips.central_share),
        tf.fill([num_clips, 2], 0.5),
        tf.fill([num_clips], False),
    )


def decode(jpeg: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG file to uint8 [H, W, 3]; gray and CMYK ones become RGB.

    The decoder also reads PNG, WebP and GIF files of one frame.

    Raises:
        tf.errors.InvalidArgumentError: It is no picture, a moving one, or a truncated one.
    """
    image = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    # A graph assumes three axes, but a WebP file has four, with its frames.
    image = tf.raw_ops.PlaceholderWithDefault(input=image, shape=tf.TensorShape(None))
    return tf.reshape(image, tf.shape(image)[-3:])


def crop_and_resize(
    image: tf.Tensor, extent: tf.Tensor, place: tf.Tensor, crop_size: int
) -> tf.Tensor:
    """Cuts a rectangle out of a frame and resizes it to a square in one interpolation.

    The interpolation is bilinear with antialiasing, as `tf.image.resize(antialias=True)`; at the
    rectangle's border it also uses the pixels beyond.

    Args:
        image: uint8 [H, W, 3].
        extent: float32 [2], see `Crops`.
        place: float32 [2], see `Crops`.
        crop_size: S.

    Returns:
        uint8 [S, S, 3].
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    extent = extent * tf.reduce_min(sides)
    scale = crop_size / extent
    square = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=[crop_size, crop_size],
        scale=scale,
        translation=-scale * place * (sides - extent),
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.saturate_cast(tf.round(tf.ensure_shape(square, [crop_size, crop_size, 3])), tf.uint8)


def _map_files(
    function: Callable[..., tf.Tensor],
    jpegs: tf.Tensor,
    *arguments: tf.Tensor,
    nothing: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies a function to each of some files and its arguments, in parallel.

    Args:
        function: Maps a file and its arguments to a tensor; may fail.
        jpegs: string [N].
        *arguments: Tensors [N, ...].
        nothing: A result that stands for that of a file for which it failed.

    Returns:
        Whether it succeeded, bool [N]; and the results, [N, ...].
    """

    # An operation fails on bytes that are no JPEG file; a dataset can continue after that.
    files = tf.data.Dataset.from_tensor_slices((jpegs, *arguments)).enumerate()
    results = files.map(
        lambda number, parts: (tf.cast(number, tf.int32), function(*parts)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).ignore_errors()
    first = tf.data.Dataset.from_tensors((tf.constant(-1), nothing))
    results = first.concatenate(results).batch(tf.size(jpegs, tf.int64) + 1)
    numbers, values = results.get_single_element()
    places = tf.scatter_nd(numbers[1:, tf.newaxis], tf.range(1, tf.size(numbers)), tf.shape(jpegs))
    good = places > 0
    # Of a batch without bad files, this is a view and not a copy.
    values = tf.cond(tf.reduce_all(good), lambda: values[1:], lambda: tf.gather(values, places))
    return good, values


def undecodable(jpegs: tf.Tensor) -> tf.Tensor:
    """Returns whether each file, string [N], cannot be decoded, as bool [N]."""

    def check(jpeg: tf.Tensor) -> tf.Tensor:
        # The decoder must not be optimized away.
        return tf.reduce_max(decode(jpeg))

    good, _ = _map_files(check, jpegs, nothing=tf.constant(0, tf.uint8))
    return tf.logical_not(good)


class _ChosenFrames(NamedTuple):
    """The frames of a batch that were taken, and the record's contents around them.

    Attributes:
        checks: The checks of everything but the pictures.
        context: Lists of the context, by name.
        ids: string [B].
        draws: float32 [B, T + 3], or None for evaluation.
        frames: int32 [B, T], the numbers of the frames.
        jpegs: string [B, T], their files; empty where a record has no frames.
    """

    checks: Checks
    context: dict[str, tf.RaggedTensor]
    ids: tf.Tensor
    draws: tf.Tensor | None
    frames: tf.Tensor
    jpegs: tf.Tensor


def _choose_frames(
    serialized: tf.Tensor,
    schema: RecordSchema,
    names: tf.Tensor | None,
    seed: tf.Tensor | None,
    with_labels: bool,
) -> _ChosenFrames:
    if schema.clips is None:
        raise ValueError("parse_clip_batch needs a schema of raw clips; see parse_frame_batch")
    checks = Checks(default_names(serialized, names))
    records = read_records(serialized, tf.constant(False))
    context = read_context(records, checks, context_types(schema, with_labels))
    check_context(context, checks, schema, with_labels)
    files, wrong = records.frames(ENCODED_KEY, tf.string)
    num_frames = tf.cast(files.row_lengths(), tf.int32)
    checks.require(
        Fault.NO_FRAMES,
        num_frames > 0,
        lambda _: f"it has no frames under {ENCODED_KEY}, which are what a raw clip is made of",
        "records of raw clips are made by `yt8m-gat pack`; records of features need a --model that "
        f"reads features, such as GAT; {RUN_REMEDY}",
    )
    checks.require(
        Fault.WRONG_TYPE,
        wrong < 0,
        lambda record: tf.strings.join(
            [
                "frame ",
                tf.strings.as_string(wrong[record]),
                f" of {ENCODED_KEY} is not one value of bytes",
            ]
        ),
        _REMEDY,
    )
    ids = video_id_of(context)
    draws = None
    if seed is not None:
        draws = uniform_draws(ids, seed, schema.clips.num_segments + 3)
    taken = None if draws is None else draws[:, : schema.clips.num_segments]
    frames = sample_frames(num_frames, schema.clips, taken)
    starts = tf.cast(files.row_starts(), tf.int32)[:, tf.newaxis]
    # A record without frames takes the first file of the next one, or "".
    jpegs = tf.gather(tf.concat([files.flat_values, [""]], axis=0), starts + frames)
    return _ChosenFrames(checks, context, ids, draws, frames, jpegs)


def _require_images(chosen: _ChosenFrames, good: tf.Tensor) -> None:
    """Adds the check that all frames could be decoded; `good` is bool [B, T]."""
    bad = first_true(tf.logical_not(good))  # [B]

    def describe(record: tf.Tensor) -> tf.Tensor:
        column = tf.maximum(bad[record], 0)
        return tf.strings.join(
            [
                "frame ",
                tf.strings.as_string(chosen.frames[record][column]),
                f" of {ENCODED_KEY} (",
                tf.strings.as_string(tf.strings.length(chosen.jpegs[record][column])),
                " bytes) is no JPEG file, or a broken one",
            ]
        )

    chosen.checks.require(Fault.IMAGE, bad < 0, describe, _REMEDY)


def parse_clip_batch(
    serialized: tf.Tensor,
    schema: RecordSchema,
    names: tf.Tensor | None = None,
    *,
    seed: tf.Tensor | None = None,
    with_labels: bool = True,
) -> Batch:
    """Parses records of raw clips, and decodes T frames of each.

    Frames that are not taken are not looked at: a broken one among them is no fault.

    Args:
        serialized: string [B], serialized `tf.SequenceExample`s.
        schema: What to read; `clips` must be set.
        names: string [B], see `record_names`; by default the numbers in the batch.
        seed: int32 [2], the seed of the epoch: the clips are read for training, at random, and the
            labels of a mirrored one are exchanged by `flip_pairs`; with labels, the batch is
            augmented. None: for evaluation.
        with_labels: Whether to read the labels; a record without any has a row of zeros.

    Returns:
        `video_id` string [B]; `features` `{"image": uint8 [B, T, S, S, 3]}`; `num_frames` int32
        [B], all T; `labels` float32 [B, C], shares of mixed clips included.

    Raises:
        tf.errors.InvalidArgumentError: A record is not a `tf.SequenceExample`, lacks an id or
            frames, has a frame that cannot be decoded, or a label outside the vocabulary. The
            message names the file, the record and the remedy.
        ValueError: The schema is one of features.
    """
    chosen = _choose_frames(serialized, schema, names, seed, with_labels)
    clips = schema.clips
    num_clips, num_segments, size = tf.shape(serialized)[0], clips.num_segments, clips.crop_size
    if chosen.draws is None:
        crops = central_crops(clips, num_clips)
    else:
        crops = random_crops(clips, chosen.draws[:, num_segments:])
    good, squares = _map_files(
        lambda jpeg, extent, place: crop_and_resize(decode(jpeg), extent, place, size),
        tf.reshape(chosen.jpegs, [-1]),
        tf.repeat(crops.extents, num_segments, axis=0),
        tf.repeat(crops.places, num_segments, axis=0),
        nothing=tf.zeros([size, size, 3], tf.uint8),
    )
    _require_images(chosen, tf.reshape(good, [num_clips, num_segments]))
    with tf.control_dependencies([chosen.checks.enforce()]):
        batch: Batch = {"video_id": tf.identity(chosen.ids)}
        frames = tf.reshape(squares, [num_clips, num_segments, size, size, 3])
        if with_labels:
            batch["labels"] = class_labels(chosen.context[schema.labels_key].to_sparse(), schema)
    if clips.flip and seed is not None:
        mirrored = crops.mirrored
        frames = tf.where(mirrored[:, None, None, None, None], tf.reverse(frames, axis=[3]), frames)
        if with_labels:
            seen = [clips.flipped_classes.get(c, c) for c in range(schema.num_classes)]
            flipped = tf.gather(batch["labels"], seen, axis=1)
            batch["labels"] = tf.where(mirrored[:, None], flipped, batch["labels"])
    if clips.augmentation and seed is not None and with_labels:
        frames = tf.ensure_shape(frames, [None, num_segments, size, size, 3])
        frames, batch["labels"] = augment(
            clips.augmentation, frames, batch["labels"], batch["video_id"], seed
        )
    batch["num_frames"] = tf.fill([num_clips], num_segments)
    batch["features"] = {CLIP_FEATURE: frames}
    return batch


def find_clip_faults(
    serialized: tf.Tensor,
    schema: RecordSchema,
    *,
    seed: tf.Tensor | None = None,
    with_labels: bool = True,
) -> tf.Tensor:
    """Returns the kind of fault for which `parse_clip_batch` would refuse each record.

    It decodes the frames that the parser would take, with the same seed.

    Returns:
        string [B], each a `yt8m_gat.data.errors.Fault`, or empty for a good record.
    """
    chosen = _choose_frames(serialized, schema, None, seed, with_labels)
    good = tf.logical_not(undecodable(tf.reshape(chosen.jpegs, [-1])))
    _require_images(chosen, tf.reshape(good, tf.shape(chosen.jpegs)))
    return chosen.checks.first_faults()
