"""Class activation over time: the frames, and the seconds, that speak for a class."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import frame_activation

CARRYING_SHARE = 0.5
"""A frame carries a label if its activation is at least this share of the clip's highest one."""


class Activations(NamedTuple):
    """One forward pass, with the class activations of some classes.

    Attributes:
        outputs: The model's outputs.
        activation: Float32 [B, K, T]; None for a model whose logits do not depend on its frames.
    """

    outputs: Any
    activation: tf.Tensor | None


def class_activation(
    forward: Callable[[Mapping[str, tf.Tensor], Any], Any],
    features: Mapping[str, tf.Tensor],
    frame_mask: tf.Tensor,
    choose: Callable[[tf.Tensor], tf.Tensor],
) -> Activations:
    """Computes the class activation of each frame, for chosen classes.

    With F [B, T, D] the contextual frames before pooling, or [B, T, H, W, C] the last
    convolutional map, and z the logits:

    ```
    C_ki = sum over channels of (d z_k / d F_i) * F_i        of a map: the mean over H and W
    ```

    A positive C_ki speaks for class k, a negative one against it; it is exactly 0 on padding.

    Args:
        forward: `(features, frame_mask) -> outputs` with `logits` [B, C] and `frames`.
        features: {name: float [B, T, D]}.
        frame_mask: Bool [B, T], True = real frame.
        choose: `logits [B, C] -> classes [B, K]`, K known when it is traced.

    Reference: TAF, eq. 2, with the logit's gradient (Grad-CAM), as in
    `yt8m_gat.attacks.TemporalAugmentation`.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.models import ModelOutputs
        >>> def forward(features, frame_mask):
        ...     frames = features["x"]
        ...     return ModelOutputs(tf.reduce_sum(frames, axis=1), frames, attention_maps={})
        >>> clip = {"x": tf.constant([[[4.0, 1.0], [2.0, 3.0]]])}
        >>> both = lambda logits: tf.constant([[0, 1]])
        >>> class_activation(forward, clip, tf.constant([[True, True]]), both).activation.numpy()
        array([[[4., 2.],
                [1., 3.]]], dtype=float32)
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(features)
        outputs = forward(features, frame_mask)
    logits, frames = outputs.logits, outputs.frames
    activations = []
    for classes in tf.unstack(choose(logits), axis=1):
        one_class = tf.one_hot(classes, tf.shape(logits)[-1], dtype=logits.dtype)
        slope = tape.gradient(logits, frames, output_gradients=one_class)
        if slope is None:
            return Activations(outputs, None)
        activations.append(tf.cast(frame_activation(slope, frames), tf.float32))
    activation = tf.stack(activations, axis=1)
    return Activations(outputs, tf.where(frame_mask[:, tf.newaxis], activation, 0.0))


def best_label(labels: Any, logits: tf.Tensor) -> tf.Tensor:
    """Returns the label of each clip that scores highest, int64 [B]; of a clip without any, 0.

    Args:
        labels: [B, C], above 0 where the class is a label.
        logits: [B, C].
    """
    return tf.argmax(tf.where(labels > 0, logits, logits.dtype.min), axis=1)


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of a video that carries a label.

    Attributes:
        start: Its first second.
        end: Where it ends, in seconds.
    """

    start: float
    end: float


def frame_edges(seconds: Sequence[float], duration: float) -> np.ndarray:
    """Returns where each frame begins, and where the last one ends: [T + 1], in seconds.

    A frame lasts until the next one; the last lasts as long as the one before it, but not beyond
    the end of the video.

    Args:
        seconds: [T], the time of each frame, ascending; at least one.
        duration: Of the video, in seconds.

    Examples:
        >>> frame_edges([0.0, 1.0, 2.0], duration=2.5)
        array([0. , 1. , 2. , 2.5])
    """
    times = np.asarray(seconds, np.float64)
    step = times[-1] - times[-2] if len(times) > 1 else 1.0
    end = times[-1] + step
    if times[-1] < duration < end:
        end = duration
    return np.append(times, end)


def carrying_spans(activation: Sequence[float], edges: Sequence[float]) -> list[Span]:
    """Returns the seconds that carried a label, in the order of time.

    They are the frames with at least half of the clip's highest class activation; neighbours are
    joined. A clip without positive activation has none.

    Args:
        activation: [T], of one class.
        edges: [T + 1], see `frame_edges`.

    Examples:
        >>> carrying_spans([1.0, 4.0, 2.0, -1.0, 3.0], [0, 1, 2, 3, 4, 5])
        [Span(start=1.0, end=3.0), Span(start=4.0, end=5.0)]
    """
    values = np.asarray(activation, np.float64)
    highest = values.max(initial=0.0)
    carries = (values > 0) & (values >= CARRYING_SHARE * highest)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], carries, [0]])))
    return [
        Span(float(edges[begin]), float(edges[end]))
        for begin, end in zip(changes[::2], changes[1::2], strict=True)
    ]
