"""A forward pass that can be differentiated by its features, once or twice."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks.attack import Model


class RecordedPass:
    """Runs a model once and records it for its derivatives by the features.

    All callers that need the model on the same features can share one pass; TensorFlow would not
    merge two, because it never merges two readings of a weight.

    Each of the two gradients can be taken only once.

    Args:
        model: `(features, frame_mask) -> outputs` with `logits` and `frames`.
        features: {name: float [B, T, D]}.
        frame_mask: Bool [B, T], True = real frame.

    Attributes:
        features: The features as passed.
        outputs: The model's outputs.
        logits: [B, C].
        frames: [B, T, D], before pooling.
    """

    def __init__(self, model: Model, features: Mapping[str, tf.Tensor], frame_mask: Any) -> None:
        self.features = features
        self._tape = tf.GradientTape(watch_accessed_variables=False)
        # This tape is inside the other, which differentiates its gradients.
        self._head_tape = tf.GradientTape(watch_accessed_variables=False)
        with self._tape, self._head_tape:
            self._tape.watch(features)
            self._head_tape.watch(features)
            self.outputs = model(features, frame_mask)
        self.logits, self.frames = self.outputs.logits, self.outputs.frames

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records what is computed from the logits and the frames as part of the pass."""
        with self._tape:
            yield

    def gradient(self, value: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the gradient of a value of `recording()` by the features, 0 if unconnected."""
        return self._tape.gradient(
            value, self.features, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def slope(self, score_fn: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor | None:
        """Returns the gradient of `score_fn(logits)` by the frames; `recording()` records it too.

        None where the logits do not depend on these frames.
        """
        with self._head_tape:
            score = score_fn(self.logits)
        return self._head_tape.gradient(score, self.frames)
