"""The job that shows what a run sees in one video: labels, and the seconds behind them."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import AttackOptions, build_attack
from yt8m_gat.config import CLIP_FEATURE, ConfigError, RunConfig
from yt8m_gat.data import RecordSchema, parse_clip_batch, preprocess
from yt8m_gat.data.clips import sample_frames
from yt8m_gat.data.parsing import Batch
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.explanation.attention_statistics import LayOut, clip_attention
from yt8m_gat.explanation.class_activation import (
    Activations,
    carrying_spans,
    class_activation,
    frame_edges,
)
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.extraction.media_sequence import record_of
from yt8m_gat.extraction.pack_settings import PackSettings
from yt8m_gat.extraction.shards import Task
from yt8m_gat.import_path import require_trust
from yt8m_gat.models import VideoClassifier
from yt8m_gat.pipeline.run_evaluator import build_evaluator, square_maps
from yt8m_gat.pipeline.run_extractor import place_of_extractor
from yt8m_gat.pipeline.run_settings import class_names, read_schema
from yt8m_gat.pipeline.video_prediction import batch_of_video
from yt8m_gat.robustness.attack_spec import PIXELS
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.video.clips import Clip, clip_ids
from yt8m_gat.video.decoding import Video
from yt8m_gat.video.source import import_av
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import weights_of

FILM_FRAMES = 12
"""Pictures on the time axis; more would be too small to see."""

MOMENTS = 3
"""Pictures of the seconds of each label."""

PICTURE_SIDE = 216
"""Short side of a picture in pixels, about twice its size on the page."""

JPEG_QUALITY = 80

# Frame -> `{"second", "jpeg", "shape"}`.
Pictures = dict[int, dict[str, Any]]


class _Seen(NamedTuple):
    """What a run takes of a video.

    Attributes:
        name: Its id.
        batch: A batch of one clip, like those of the reader.
        seconds: [T], the time of each frame.
        edges: [T + 1], see `frame_edges`.
        faults: What was wrong with the video, a line each.
        source: How the batch was made, in words.
        pictures: The pictures of some frames.
    """

    name: str
    batch: Batch
    seconds: Sequence[float]
    edges: np.ndarray
    faults: Sequence[str]
    source: str
    pictures: Callable[[set[int]], Pictures]


def watch(
    folder: RunFolder,
    *,
    video: str | os.PathLike,
    label_names: str | os.PathLike | None = None,
    extractor: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    sound: str | os.PathLike | None = None,
    checkpoint: str = "best",
    top_k: int = 5,
    start: float = 0.0,
    end: float | None = None,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Classifies a video, clean and under attack, and says which seconds carried each label.

    The attack is the fast gradient method at the radius of training. It raises the loss of the
    labels that the model itself gives: those of at least 50 %, or the likeliest one. A run of raw
    clips takes the video as `yt8m-gat pack` stores it, and the frames of evaluation.

    Args:
        folder: The run, a frame-level one.
        video: The file.
        label_names: File that names the classes, see `class_names`.
        extractor: See `place_of_extractor`.
        picture: Weights of the extractor's picture model, if they are elsewhere by now.
        sound: Likewise of its sound model.
        checkpoint: `best` or `last`.
        top_k: The likeliest classes that are shown, clean and attacked; those of both once.
        start: Where the video begins, in seconds.
        end: Where it ends; None: at the end of its file.
        trust_code: Run the code that the run names, see `yt8m_gat.weights.load.load_run`, and load
            the extractor of an archive, of any kind.

    Returns:
        What `yt8m_gat.report.watch.build_watch_page` draws: `video` (its id), `edges` (see
        `frame_edges`), `frames` (`{"second", "jpeg"}` or None, at equal distances),
        `attacked_frames` (likewise; None for features, whose attack has no pictures), `shape`
        (width and height of the pictures), `labels`, `attention` (`{feature: {level: {side:
        [T]}}}`, what each frame receives), `epsilon`, `warnings`, `extractor`, `model`, `options`
        and `provenance`. Each entry of `labels` has `label`, `name`, `moments` (the pictures of its
        strongest frames) and, for each side, `clean` and `attacked`, its `probability`,
        `activation` ([T], or None) and `spans` (`[[start, end]]`).

    Raises:
        ConfigError: The run has no extractor and none was named, or it does not fit; or one was
            named for a run of raw clips.
        VideoError: The video cannot be read.
    """
    config = RunConfig.load(folder.path)
    require_trust(config, trust_code, folder.path)
    of_raw_clips = config.data.clips is not None
    clip = Clip(os.fspath(video), start=start, end=end)
    if of_raw_clips:
        _check_no_extractor(extractor=extractor, picture=picture, sound=sound)
    else:
        place = place_of_extractor(folder, config, extractor, trust_code)
    schema = read_schema(folder, config)
    names = class_names(folder, schema, label_names)
    loaded = load_run(folder, config, checkpoint, trust_code)
    if of_raw_clips:
        seen = _seen_as_raw_clip(clip, schema)
    else:
        extract = Extractor.load(place, picture=picture, sound=sound, features=schema.feature_names)
        seen = _seen_as_features(clip, schema, extract)
    features, mask = preprocess(
        seen.batch["features"], seen.batch["num_frames"], config.data.normalize
    )
    evaluator = build_evaluator(loaded.classifier, config)
    sides = _clean_and_attacked(evaluator, loaded.classifier, config, features, mask)
    classes = _likeliest(sides, min(top_k, config.data.num_classes))
    shown = {
        side: class_activation(
            evaluator.forward_with_maps, x, mask, lambda _: tf.constant([classes])
        )
        for side, (x, _) in sides.items()
    }
    probabilities = {
        side: loaded.classifier.probabilities(logits)[0] for side, (_, logits) in sides.items()
    }
    labels = [
        {
            "label": index,
            "name": names.get(index),
            **{
                side: _of_label(probabilities[side][index], shown[side], place, seen.edges)
                for side in sides
            },
        }
        for place, index in enumerate(classes)
    ]
    num_frames = int(seen.batch["num_frames"][0])
    film = [int((place + 0.5) * num_frames / FILM_FRAMES) for place in range(FILM_FRAMES)]
    film = list(dict.fromkeys(film))
    moments = [strongest_frames(entry["clean"]["activation"], MOMENTS) for entry in labels]
    wanted = {*film, *(frame for frames in moments for frame in frames)}
    pictures = seen.pictures(wanted)
    attacked_frames = None
    if of_raw_clips:
        of_attack = pictures_of_pixels(sides["attacked"].features, seen.seconds, {*film})
        attacked_frames = [of_attack[frame] for frame in film]
    for entry, frames in zip(labels, moments, strict=True):
        entry["moments"] = [pictures[frame] for frame in frames if frame in pictures]
    shapes = [picture["shape"] for picture in pictures.values()]
    return {
        "video": seen.name,
        "edges": seen.edges.tolist(),
        "frames": [pictures.get(frame) for frame in film],
        "attacked_frames": attacked_frames,
        "shape": shapes[0] if shapes else (16, 9),
        "labels": labels,
        "attention": _attention(shown, mask, square_maps(loaded.classifier)),
        "epsilon": config.objective.epsilon,
        "warnings": [f"{seen.name}: {fault}" for fault in seen.faults],
        "extractor": seen.source,
        "model": config.model.name,
        "options": config.model.options,
        "provenance": weights_of(folder, checkpoint, loaded),
    }


class _Side(NamedTuple):
    """One of the two versions of a video, clean and attacked."""

    features: dict[str, tf.Tensor]
    logits: tf.Tensor


def _clean_and_attacked(
    evaluator: Evaluator,
    classifier: VideoClassifier,
    config: RunConfig,
    features: dict[str, tf.Tensor],
    mask: tf.Tensor,
) -> dict[str, _Side]:
    """Returns both versions; the attack raises the loss of the model's own labels."""
    objective = config.objective
    options = AttackOptions(
        norm_scope=objective.norm_scope,
        clip_to_range=PIXELS.clip_to_range if config.data.clips is not None else None,
    )
    attack = build_attack("fgm", objective.epsilon, options)

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return evaluator.loss(labels, logits, None)

    clean_logits = evaluator.forward(features, mask).logits
    own = own_labels(classifier.probabilities(clean_logits))
    attacked = attack.attack(evaluator.forward, loss, features, mask, own)
    return {
        "clean": _Side(features, clean_logits),
        "attacked": _Side(attacked.features, attacked.logits),
    }


def _likeliest(sides: Mapping[str, _Side], top_k: int) -> list[int]:
    """Returns the likeliest classes, clean and then attacked, each once."""
    tops = [tf.math.top_k(side.logits[0], top_k).indices for side in sides.values()]
    return list(dict.fromkeys(int(index) for top in tops for index in top))


def _of_label(
    probability: tf.Tensor, shown: Activations, place: int, edges: np.ndarray
) -> dict[str, Any]:
    """Returns what one version of the video says of the label that is shown in this place."""
    activation = shown.activation
    values = None if activation is None else activation[0, place].numpy().tolist()
    spans = [] if values is None else carrying_spans(values, edges)
    return {
        "probability": float(probability),
        "activation": values,
        "spans": [[span.start, span.end] for span in spans],
    }


def _attention(
    shown: Mapping[str, Activations], mask: tf.Tensor, lay_out: LayOut
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns what each frame receives: feature -> level -> side -> [T]."""
    profiles = {
        side: clip_attention(of_side.outputs.attention_maps, mask, 0, lay_out)["profiles"]
        for side, of_side in shown.items()
    }
    return {
        feature: {
            level: {side: profiles[side][feature][level] for side in profiles} for level in levels
        }
        for feature, levels in profiles["clean"].items()
    }


def _check_no_extractor(**places: str | os.PathLike | None) -> None:
    for name, place in places.items():
        if place is not None:
            raise ConfigError(
                f"--{name} must be left out: a run of raw clips takes frames, without an "
                f"extractor. Received: --{name}={os.fspath(place)}"
            )
    try:
        import_av()  # Now, rather than after the model has been loaded.
    except ImportError as error:
        raise ConfigError(str(error)) from error


def _seen_as_features(clip: Clip, schema: RecordSchema, extract: Extractor) -> _Seen:
    """Extracts the features of a video."""
    extracted = extract(clip.path, start=clip.start, end=clip.end)
    [name] = clip_ids([Clip(clip.path)])
    batch = batch_of_video(extracted, schema, name)
    seconds = extracted.seconds[: int(batch["num_frames"][0])]

    def pictures(wanted: set[int]) -> Pictures:
        longest = extract.config.max_seconds
        with Video(clip.path, start=clip.start, end=clip.end, max_seconds=longest) as opened:
            return pictures_of(opened, extract.config.frames_per_second, wanted)

    edges = frame_edges(seconds, extracted.duration)
    source = extract.config.description
    return _Seen(name, batch, seconds, edges, extracted.faults, source, pictures)


def _seen_as_raw_clip(clip: Clip, schema: RecordSchema) -> _Seen:
    """Packs a video as `yt8m-gat pack` does, and reads it as evaluation does.

    A frame that stands for a segment lasts as long as the segment.
    """
    [name] = clip_ids([Clip(clip.path)])
    made = record_of(Task(clip, name, (), "", 0), PackSettings(), [])
    batch = parse_clip_batch(tf.constant([made.record]), schema, [name], with_labels=False)
    lists = tf.train.SequenceExample.FromString(made.record).feature_lists.feature_list
    times = [
        clip.start + time.int64_list.value[0] / 1e6 for time in lists["image/timestamp"].feature
    ]
    clips = schema.clips
    [numbers] = sample_frames(tf.constant([len(times)]), clips).numpy()
    seconds = [times[number] for number in numbers]
    end = clip.start + made.columns["seconds"]
    if clips.sampling == "segments":
        edges = np.linspace(clip.start, end, clips.num_segments + 1)
        taken = "the middle frame"
    else:
        edges = frame_edges(seconds, end)
        taken = f"{clips.dense_stride} apart"
    side = clips.crop_size
    source = f"{clips.num_segments} of {len(times)} frames, {taken}, {side} x {side} pixels"

    def pictures(wanted: set[int]) -> Pictures:
        return pictures_of_pixels(batch["features"], seconds, wanted)

    faults = [made.columns["faults"]] if made.columns["faults"] else []
    return _Seen(name, batch, seconds, edges, faults, source, pictures)


def pictures_of_pixels(
    features: Mapping[str, tf.Tensor], seconds: Sequence[float], wanted: set[int]
) -> Pictures:
    """Returns the pictures of some frames of a raw clip, as the model takes them."""
    pixels = tf.saturate_cast(tf.round(tf.cast(features[CLIP_FEATURE][0], tf.float32)), tf.uint8)
    return {
        frame: {
            "second": seconds[frame],
            "jpeg": tf.io.encode_jpeg(pixels[frame], quality=JPEG_QUALITY).numpy(),
            "shape": (pixels.shape[2], pixels.shape[1]),
        }
        for frame in sorted(wanted)
    }


def own_labels(probabilities: tf.Tensor) -> tf.Tensor:
    """Returns the labels that a model gives, multi-hot float32 [B, C].

    They are the classes of at least 50 %, or the likeliest class if there are none.
    """
    likely = probabilities >= 0.5
    count = tf.shape(probabilities)[-1]
    first = tf.one_hot(tf.argmax(probabilities, axis=-1), count, True, False)
    return tf.cast(tf.logical_or(likely, first), tf.float32)


def strongest_frames(activation: Sequence[float] | None, most: int) -> list[int]:
    """Returns the strongest frames of a label, in the order of time.

    They are the highest frames of separate stretches with positive activation: neighbours look
    alike.
    """
    if activation is None:
        return []
    values = np.asarray(activation)
    spans = carrying_spans(values, np.arange(len(values) + 1))
    peaks = [int(s.start) + int(np.argmax(values[int(s.start) : int(s.end)])) for s in spans]
    return sorted(sorted(peaks, key=lambda frame: -values[frame])[:most])


def pictures_of(video: Video, rate: float, wanted: set[int]) -> Pictures:
    """Returns the pictures of some frames: frame -> `{"second", "jpeg", "shape"}`.

    A video without pictures has none, and one that ends early has fewer.

    Args:
        video: The opened file.
        rate: Frames a second.
        wanted: The frames, counted from 0.
    """
    pictures: Pictures = {}
    if not video.info.has_picture:
        return pictures
    frames = video.frames(frames_per_second=rate, short_side=PICTURE_SIDE)
    for place, frame in enumerate(itertools.islice(frames, max(wanted, default=-1) + 1)):
        if place in wanted:
            height, width, _ = frame.image.shape
            pictures[place] = {
                "second": frame.seconds,
                "jpeg": tf.io.encode_jpeg(frame.image, quality=JPEG_QUALITY).numpy(),
                "shape": (width, height),
            }
    return pictures
