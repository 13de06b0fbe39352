"""A forward pass that is differentiated by its features, twice if need be."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks.attack import Model


class RecordedPass:
    """Runs a model once and keeps what its derivatives by the features need.

    One pass then serves whoever else would run the model on the same features: a second one is
    a second one to TensorFlow too, which never merges two readings of a weight.

    Each of the two gradients is taken once.

    Args:
        model: `(features, frame_mask) -> outputs` with `logits` and `frames`.
        features: {name: float [B, T, D]}.
        frame_mask: Bool [B, T], True = real frame.

    Attributes:
        features: As given.
        outputs: All that the model gave.
        logits: [B, C].
        frames: [B, T, D], before pooling.
    """

    def __init__(self, model: Model, features: Mapping[str, tf.Tensor], frame_mask: Any) -> None:
        self.features = features
        self._tape = tf.GradientTape(watch_accessed_variables=False)
        # Within the other: what it gives is differentiated by that one.
        self._head_tape = tf.GradientTape(watch_accessed_variables=False)
        with self._tape, self._head_tape:
            self._tape.watch(features)
            self._head_tape.watch(features)
            self.outputs = model(features, frame_mask)
        self.logits, self.frames = self.outputs.logits, self.outputs.frames

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Within it, what is computed from the logits and the frames belongs to the pass."""
        with self._tape:
            yield

    def gradient(self, value: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gradient of what was computed in `recording()` by the features, 0 where there is none."""
        return self._tape.gradient(
            value, self.features, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def slope(self, score_fn: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor | None:
        """Gradient of `score_fn(logits)` by the frames, itself part of the pass in `recording()`.

        None where the logits do not depend on these frames.
        """
        with self._head_tape:
            score = score_fn(self.logits)
        return self._head_tape.gradient(score, self.frames)
