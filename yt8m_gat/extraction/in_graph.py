"""The extractor as operations of a TensorFlow graph, for an exported model that takes pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from yt8m_gat.extraction.config import FEATURES
from yt8m_gat.extraction.log_mel import SAMPLE_RATE
from yt8m_gat.extraction.picture import PictureModel
from yt8m_gat.extraction.projection import Projection
from yt8m_gat.extraction.sound import SoundModel

MAX_PIXELS = 4096 * 4096
"""Maximal pixels of a picture of a request: resizing takes 12 bytes for each."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Its first chunk, with the sides, follows the signature and is 25 bytes long.
_PNG_HEADER = len(_PNG) + 25

BATCH_SIZE = 32
"""Frames that a model takes at once."""

# Of swscale's bicubic interpolation: B = 0, C = 0.6 in Mitchell and Netravali's family.
_SHARPNESS = 0.6
_REACH = 2.0


@dataclasses.dataclass(frozen=True)
class PicturePart:
    """The part of an extractor that makes `rgb`.

    Attributes:
        model: Its `call` is a `KerasEmbedding`.
        projection: From the model's values to bytes; it takes tensors.
        crop: x, y, width and height of the part of each picture that is used; None: all of it.
    """

    model: PictureModel
    projection: Projection
    crop: tuple[int, int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class SoundPart:
    """The part of an extractor that makes `audio`.

    Attributes:
        model: It has a `graph`.
        projection: As of `PicturePart`.
        frames_per_second: The rate of the pictures.
    """

    model: SoundModel
    projection: Projection
    frames_per_second: float


class GraphExtractor:
    """Makes the features of videos inside of a graph, from JPEG or PNG files of their frames.

    The frames are those that `Extractor` would take: at its rate, upright. From PNG files of images
    of the model's size, as `yt8m_gat.video` makes them, the features are equal; docs/SERVING.md
    says what JPEG and another resizing change.

    Args:
        picture: The part of the pictures.
        sound: The part of the sound; None: the features have no `audio`.
    """

    def __init__(self, picture: PicturePart, sound: SoundPart | None = None) -> None:
        self._picture = picture
        self._sound = sound

    @property
    def has_sound(self) -> bool:
        """Whether a waveform is needed beside the pictures."""
        return self._sound is not None

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables of the models."""
        of_sound = [] if self._sound is None else self._sound.model.variables
        return [*self._picture.model.call.variables, *of_sound]

    @property
    def example(self) -> bytes:
        """A JPEG file that is large enough: for the first request to a new model."""
        x, y, width, height = self._picture.crop or (0, 0, 16, 16)
        image = tf.zeros([y + height, x + width, 3], tf.uint8)
        return tf.io.encode_jpeg(image).numpy()

    def __call__(
        self, images: tf.Tensor, waveform: tf.Tensor | None = None
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Returns the features.

        Args:
            images: string [N, T], JPEG or PNG files; empty strings after the last frame of each
                video.
            waveform: float [N, S], 16 kHz, one channel, in [-1, 1], from the time of the first
                frame on; silence follows where it ends. Only used with a part of the sound.

        Returns:
            Name -> uint8 [N, T, D], 0 on padding; and the number of frames, int32 [N].

        Raises:
            tf.errors.InvalidArgumentError: A picture is no such file, too large or smaller than the
                crop, a video has no frame, or one after an empty string; the message says which.
        """
        has_frame = tf.not_equal(images, "")  # [N, T]
        num_frames = tf.reduce_sum(tf.cast(has_frame, tf.int32), axis=1)
        in_order = tf.reduce_all(
            tf.equal(has_frame, tf.sequence_mask(num_frames, tf.shape(images)[1]))
        )
        checks = [
            tf.debugging.Assert(
                tf.reduce_all(num_frames >= 1),
                ["images: each video must have a frame. Received frames:", num_frames],
                summarize=20,
            ),
            tf.debugging.Assert(
                in_order, ["images: empty strings must come after the last frame of a video"]
            ),
        ]
        with tf.control_dependencies(checks):
            places = tf.cast(tf.where(has_frame), tf.int32)  # [M, 2]: video, frame.
        with tf.control_dependencies([self._check(tf.gather_nd(images, places), places)]):
            places = tf.identity(places)

        def picture_of(places: tf.Tensor) -> tf.Tensor:
            frames = self._frames(tf.gather_nd(images, places))
            return self._picture.projection(self._picture.model.call.graph(frames))

        made = {"picture": _in_batches(picture_of, places, self._picture.projection.size)}
        if self._sound is not None and waveform is not None:
            sound, heard = self._sound, waveform

            def sound_of(places: tf.Tensor) -> tf.Tensor:
                windows = windows_at(heard, places, sound.model.window, sound.frames_per_second)
                return sound.projection(sound.model.graph(windows))

            made["sound"] = _in_batches(sound_of, places, sound.projection.size)
        shape = tf.shape(images)
        features = {
            FEATURES[name]: tf.cast(
                # Of 32 bits, because bytes cannot be scattered everywhere.
                tf.scatter_nd(places, tf.cast(x, tf.int32), [shape[0], shape[1], x.shape[-1]]),
                tf.uint8,
            )
            for name, x in made.items()
        }
        return features, num_frames

    def _check(self, files: tf.Tensor, places: tf.Tensor) -> tf.Operation:
        """Fails, with the places, if a picture is no file of its kind or has a wrong size."""
        is_whole = tf.logical_and(_is_png(files), tf.strings.length(files) >= _PNG_HEADER)
        is_known = tf.logical_or(tf.equal(tf.strings.substr(files, 0, len(_JPEG)), _JPEG), is_whole)
        all_known = tf.debugging.Assert(
            tf.reduce_all(is_known),
            [
                "images must be JPEG or PNG files. Received other bytes at [video, frame]:",
                tf.boolean_mask(places, tf.logical_not(is_known)),
            ],
            summarize=20,
        )
        with tf.control_dependencies([all_known]):
            files = tf.identity(files)
        sides = tf.map_fn(_sides_of, files, fn_output_signature=tf.TensorSpec([2], tf.int64))
        x, y, width, height = self._picture.crop or (0, 0, 1, 1)
        fits = tf.reduce_all(sides >= [y + height, x + width], axis=1)
        fits = tf.logical_and(fits, tf.reduce_prod(sides, axis=1) <= MAX_PIXELS)
        return tf.debugging.Assert(
            tf.reduce_all(fits),
            [
                f"images must have at least {x + width} x {y + height} and at most {MAX_PIXELS} "
                "pixels. Received [video, frame], [height, width]:",
                tf.boolean_mask(places, tf.logical_not(fits)),
                tf.boolean_mask(sides, tf.logical_not(fits)),
            ],
            summarize=20,
        )

    def _frames(self, files: tf.Tensor) -> tf.Tensor:
        """Returns decoded, cropped and resized pictures, uint8 [B, height, width, 3]."""
        size = self._picture.model.image_size
        if size is None:
            raise ValueError("a Keras model has a size of pictures. Received: none")

        def frame_of(file: tf.Tensor) -> tf.Tensor:
            image = tf.cond(
                _is_png(file),
                lambda: tf.io.decode_png(file, channels=3),
                lambda: tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE"),
            )
            if self._picture.crop is not None:
                x, y, width, height = self._picture.crop
                image = image[y : y + height, x : x + width]
            return resized(image, size)

        return tf.map_fn(frame_of, files, fn_output_signature=tf.TensorSpec([*size, 3], tf.uint8))


def _is_png(file: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(file, 0, len(_PNG)), _PNG)


def _sides_of(file: tf.Tensor) -> tf.Tensor:
    """Returns height and width of a JPEG or PNG file, from its header: int64 [2]."""

    def of_png() -> tf.Tensor:
        width_height = tf.strings.substr(file, 16, 8)
        sides = tf.io.decode_raw(width_height, tf.int32, little_endian=False)
        return tf.bitwise.bitwise_and(tf.cast(sides[::-1], tf.int64), 0xFFFFFFFF)

    return tf.ensure_shape(
        tf.cond(
            _is_png(file),
            of_png,
            lambda: tf.cast(tf.io.extract_jpeg_shape(file)[:2], tf.int64),
        ),
        [2],
    )


def resized(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes an image as `yt8m_gat.video` does, with swscale's bicubic interpolation.

    Each side is a product with a matrix of weights. When it shrinks, the kernel grows with the
    factor; beyond its edges the image goes on with the pixels of the edge. Of swscale's bytes, of
    the same RGB image, these differ by at most one level nearly everywhere, which is the rounding
    of its weights.

    Args:
        image: uint8 [H, W, 3].
        size: (height, width) of the result.

    Returns:
        uint8 [height, width, 3].

    Example:
        >>> rows = tf.cast(2 * tf.range(48), tf.uint8)[:, tf.newaxis, tf.newaxis]
        >>> image = tf.tile(rows, [1, 4, 3])
        >>> resized(image, (6, 1))[1:-1, 0, 0].numpy().tolist()
        [23, 39, 55, 71]
    """
    [x] = tf.unstack(interpolated(tf.cast(image, tf.float32)[tf.newaxis], size), num=1)
    return tf.cast(tf.clip_by_value(tf.round(x), 0.0, 255.0), tf.uint8)


def interpolated(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes images as `resized` does, without rounding: values may overshoot [0, 255].

    Args:
        images: float32 [T, H, W, 3].
        size: (height, width) of the result.

    Returns:
        float32 [T, height, width, 3].
    """
    shape = tf.shape(images)
    rows = resizing_weights(shape[1], size[0])  # [height, H]
    columns = resizing_weights(shape[2], size[1])  # [width, W]
    x = tf.einsum("vh,thwc->tvwc", rows, images)
    return tf.einsum("uw,tvwc->tvuc", columns, x)


def resizing_weights(length: tf.Tensor, target: int) -> tf.Tensor:
    """Returns the weight of each of `length` pixels in each of `target`: float32 [target, length].

    Reference: FFmpeg, libswscale/utils.c, `initFilter` with SWS_BICUBIC; Mitchell and Netravali,
    Reconstruction Filters in Computer Graphics (1988), B = 0 and C = 0.6.
    """
    factor = tf.cast(length, tf.float64) / target
    stretch = tf.maximum(factor, 1.0)
    centers = (tf.range(target, dtype=tf.float64) + 0.5) * factor - 0.5  # [target]
    reach = tf.math.ceil(_REACH * stretch)
    taps = tf.floor(centers)[:, tf.newaxis] + tf.range(-reach, reach + 2)  # [target, taps]
    x = tf.abs(taps - centers[:, tf.newaxis]) / stretch
    c = _SHARPNESS
    near = ((2 - c) * x + (c - 3)) * x * x + 1
    far = ((5 - x) * x - 8) * c * x + 4 * c
    weights = tf.where(x < 1, near, tf.where(x < _REACH, far, 0.0))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    columns = tf.clip_by_value(tf.cast(taps, tf.int32), 0, length - 1)
    rows = tf.broadcast_to(tf.range(target)[:, tf.newaxis], tf.shape(columns))
    # Weights of one pixel are summed: the pixel of an edge stands for all beyond it.
    return tf.cast(
        tf.scatter_nd(tf.stack([rows, columns], axis=-1), weights, [target, length]), tf.float32
    )


def windows_at(
    waveform: tf.Tensor, places: tf.Tensor, window: int, frames_per_second: float
) -> tf.Tensor:
    """Returns the window of each [video, frame] of `places`, as `sound.windows` cuts it."""
    period = SAMPLE_RATE / frames_per_second
    step = tf.cast(places[:, 1], tf.float64)
    begins = tf.cast(tf.round(step * period + min(0.0, (period - window) / 2)), tf.int32)
    samples = begins[:, tf.newaxis] + np.arange(window, dtype=np.int32)  # [B, window]
    count = tf.shape(waveform)[1]
    # Silence comes before and after the sound.
    inside = tf.logical_and(samples >= 0, samples < count)
    waveform = tf.pad(tf.cast(waveform, tf.float32), [[0, 0], [0, 1]])
    videos = tf.broadcast_to(places[:, :1], tf.shape(samples))
    chosen = tf.stack([videos, tf.where(inside, samples, count)], axis=-1)
    windows = tf.gather_nd(waveform, chosen)
    windows.set_shape([None, window])
    return windows


def _in_batches(
    function: Callable[[tf.Tensor], tf.Tensor], places: tf.Tensor, size: int
) -> tf.Tensor:
    """Applies a function to some places at a time, so that memory is bounded: uint8 [M, size]."""
    num_batches = -(-tf.shape(places)[0] // BATCH_SIZE)
    parts = tf.TensorArray(tf.uint8, num_batches, element_shape=[None, size], infer_shape=False)

    def step(number: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        batch = places[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]
        return number + 1, parts.write(number, function(batch))

    _, parts = tf.while_loop(
        lambda number, _: number < num_batches, step, (0, parts), parallel_iterations=1
    )
    return tf.ensure_shape(parts.concat(), [None, size])
