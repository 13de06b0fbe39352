"""Votes of the noisy copies of clips, from which randomized smoothing makes its decisions."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from yt8m_gat.attacks.ball import Tensors, mask_frames, normal_like, seed_pair
from yt8m_gat.config import ConfigError

# (features, frame_mask) -> probabilities [B, C].
Probabilities = Callable[[Tensors, Any], Any]


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """The settings of a smoothed classifier and of the statements about it.

    Args:
        sigma: Standard deviation of the noise on each entry, in units of the features.
        samples: Noisy copies of each clip from which the bounds are computed.
        selection_samples: Other copies, which choose what is to be shown about the clip.
        alpha: Most probability that a statement about a clip is false, see `certificate`.
        threshold: Probability from which a label counts as shown by one copy.

    Raises:
        ConfigError: A value is out of its range.
    """

    sigma: float
    samples: int = 1000
    selection_samples: int = 100
    alpha: float = 0.001
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise ConfigError(f"--sigma must be positive, and finite. Received: {self.sigma:g}")
        for flag, count in (
            ("samples", self.samples),
            ("certify_selection_samples", self.selection_samples),
        ):
            if count < 1:
                raise ConfigError(f"--{flag} must be at least 1. Received: {count}")
        for flag, value in (
            ("certify_alpha", self.alpha),
            ("certify_threshold", self.threshold),
        ):
            if not 0 < value < 1:
                raise ConfigError(f"--{flag} must be between 0 and 1. Received: {value:g}")


class Votes(NamedTuple):
    """How the noisy copies of each clip voted; int32, the axis of 2: selection, then the rest.

    Attributes:
        first: [2, B, C], the copies that score the class highest.
        shown: [2, B, C], the copies that give the class at least the threshold.
    """

    first: Any
    shown: Any


def count_votes(
    probabilities: Probabilities,
    features: Mapping[str, Any],
    frame_mask: Any,
    smoothing: Smoothing,
    seed: Any = 0,
    rated: Any = None,
) -> Votes:
    """Classifies noisy copies of clips and counts their votes.

    Space: the features as the model takes them, as for attacks (`yt8m_gat.attacks.Attack`). Each
    entry of each real frame gets normal noise of its own; padding stays 0. The noise is not cut to
    a range or rounded, which would invalidate the bounds. Cost: `selection_samples + samples`
    forward passes.

    Args:
        probabilities: The classifier, `(features, frame_mask) -> [B, C]`, the same at each call.
        features: {name: float [B, T, D]}, [B, T, H, W, C] for pixels, or [B, D] without a mask.
        frame_mask: Bool [B, T], True = real frame; None where features are [B, D].
        smoothing: See `Smoothing`.
        seed: Integer; the same seed gives the same noise.
        rated: Bool [B, C], the classes that count; None: all. An unrated class gets no vote.

    Returns:
        The votes.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.robustness.smoothing import Smoothing, count_votes
        >>> clip, frame_mask = {"x": tf.constant([[[9.0, -9.0]]])}, tf.constant([[True]])
        >>> def model(features, frame_mask):  # Two classes: the two features.
        ...     return tf.sigmoid(features["x"][:, 0])
        >>> votes = count_votes(model, clip, frame_mask, Smoothing(0.5, 3, 2))
        >>> votes.first.numpy().tolist()
        [[[2, 0]], [[3, 0]]]
    """
    clean = mask_frames(features, frame_mask)

    def add_copy(index: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noise = normal_like(clean, tf.random.fold_in(seed_pair(seed), index))
        noisy = {
            name: value + tf.cast(smoothing.sigma * noise[name], value.dtype)
            for name, value in clean.items()
        }
        scores = tf.cast(probabilities(mask_frames(noisy, frame_mask), frame_mask), tf.float32)
        if rated is not None:
            scores = tf.where(rated, scores, -1.0)
        first = tf.one_hot(tf.argmax(scores, axis=1), tf.shape(scores)[1], dtype=tf.int32)
        shown = tf.cast(scores >= smoothing.threshold, tf.int32)
        part = tf.cast(index >= smoothing.selection_samples, tf.int32)
        of_part = tf.reshape(tf.one_hot(part, 2, dtype=tf.int32), [1, 2, 1, 1])
        counts += of_part * tf.stack([first, shown])[:, tf.newaxis]
        return index + 1, counts

    total = smoothing.selection_samples + smoothing.samples
    # The first copy shows how many classes there are.
    start = add_copy(tf.constant(0), tf.zeros([], tf.int32))
    _, counts = tf.while_loop(
        lambda index, _: index < total,
        add_copy,
        start,
        shape_invariants=(tf.TensorShape([]), start[1].shape),
    )
    return Votes(*tf.unstack(counts))
