"""The extractor as a differentiable function: from pixels and samples to unrounded features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from yt8m_gat.data.quantization import OFFSET, STEP
from yt8m_gat.extraction.in_graph import (
    BATCH_SIZE,
    PicturePart,
    SoundPart,
    interpolated,
    windows_at,
)
from yt8m_gat.extraction.projection import Projection, Scaled

LOWEST, HIGHEST = OFFSET, OFFSET + 255 * STEP
"""The features of the bytes 0 and 255."""


class DifferentiableExtractor:
    """Makes features without rounding, so that they have gradients by pixels and samples.

    These are the steps of `Extractor`, from the same definitions, except that neither resized
    pictures nor features are rounded: a feature is what its byte stands for, before it is rounded,
    and still clipped to the range of the bytes. So `quantize` of it is the extractor's byte, where
    the pictures have the model's size; otherwise but for the rounding of resized pictures (see
    `yt8m_gat.extraction.in_graph.resized`), and for sound but for the rounding of float32.

    A gradient by these functions is the exact one of the unrounded features. It is 0 where a
    feature, or a pixel that resizing overshoots, is at an end of its range.

    Memory is that of one batch of frames: backward, each batch is computed again.

    Args:
        picture: The part of the pictures; None: none is needed.
        sound: The part of the sound; None: none is needed.
    """

    def __init__(self, picture: PicturePart | None, sound: SoundPart | None) -> None:
        self._picture = picture
        self._sound = sound

    def of_pictures(self, pictures: tf.Tensor) -> tf.Tensor:
        """Returns the features of frames: float32 [T, K].

        Args:
            pictures: float32 [T, H, W, 3] in [0, 255], RGB, upright, at the extractor's rate and
                already cropped.
        """
        if self._picture is None or self._picture.model.image_size is None:
            raise ValueError("this extractor was made without a part of the pictures")
        part, size = self._picture, self._picture.model.image_size

        def features(pictures: tf.Tensor) -> tf.Tensor:
            frames = tf.clip_by_value(interpolated(pictures, size), 0.0, 255.0)
            frames = tf.ensure_shape(frames, [None, *size, 3])
            return _unrounded(part.projection, part.model.call.graph(frames))

        return _in_batches(features, pictures, part.projection.size)

    def of_sound(self, waveform: tf.Tensor, num_frames: Any) -> tf.Tensor:
        """Returns the features of sound: float32 [T, K].

        Args:
            waveform: float32 [S], 16 kHz, in [-1, 1], from the time of the first frame on; silence
                follows where it ends.
            num_frames: T.
        """
        if self._sound is None or self._sound.model.graph is None:
            raise ValueError("this extractor was made without a part of the sound")
        part, graph = self._sound, self._sound.model.graph
        steps = tf.range(num_frames)
        places = tf.stack([tf.zeros_like(steps), steps], axis=1)
        heard = windows_at(waveform[tf.newaxis], places, part.model.window, part.frames_per_second)
        return _in_batches(
            lambda heard: _unrounded(part.projection, graph(heard)), heard, part.projection.size
        )


def _unrounded(projection: Projection, values: tf.Tensor) -> tf.Tensor:
    if not isinstance(projection, Scaled):
        raise ValueError(f"{type(projection).__name__} has no unrounded values")
    features = tf.clip_by_value(projection.scaled(values), LOWEST, HIGHEST)
    return tf.cast(features, tf.float32)


def _in_batches(function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, size: int) -> tf.Tensor:
    """Applies a function to `BATCH_SIZE` rows of x [T, ...] at a time, forward and backward."""
    total = tf.shape(x)[0]
    batch_size = tf.minimum(total, BATCH_SIZE)
    missing = -total % batch_size

    def split(rows: tf.Tensor) -> tf.Tensor:
        """Returns rows [T, ...] as [batches, batch_size, ...], with rows of 0 at the end."""
        sides = tf.shape(rows)[1:]
        rows = tf.concat([rows, tf.zeros(tf.concat([[missing], sides], 0), rows.dtype)], axis=0)
        batches = tf.reshape(rows, tf.concat([[-1, batch_size], sides], 0))
        return tf.ensure_shape(batches, [None, None, *rows.shape[1:]])

    def over_batches(body: Callable[..., tf.Tensor], rows: Any, shape: list[Any]) -> tf.Tensor:
        """Returns the rows [T, ...] that the body makes, batch by batch."""
        spec = tf.TensorSpec([None, *shape], tf.float32)
        made = tf.map_fn(body, rows, fn_output_signature=spec, parallel_iterations=1)
        return tf.reshape(made, tf.concat([[-1], tf.shape(made)[2:]], 0))[:total]

    # By hand, because TensorFlow keeps what is inside of all batches for the gradient of a loop,
    # and has none of one in which a function reads variables.
    @tf.custom_gradient
    def apply(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        batches = split(x)

        def gradient(upstream: tf.Tensor, variables: Any = None) -> Any:
            def of_batch(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
                batch, upstream = pair
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(batch)
                    made = function(batch)
                return tape.gradient(made, batch, upstream)

            by_x = over_batches(of_batch, (batches, split(upstream)), x.shape[1:])
            return by_x if variables is None else (by_x, [None] * len(variables))

        return over_batches(function, batches, [size]), gradient

    return apply(x)
