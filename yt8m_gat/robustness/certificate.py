"""Certificates by randomized smoothing: what no perturbation within a radius can change.

The smoothed classifier decides by the votes of noisy copies x + e, e ~ N(0, sigma^2 I) on each
entry of each real frame of all features together:

```
decision about a label k:  k is shown  <=>  P(p_k(x + e) >= threshold) > 1/2
first class:               the class that the largest share of copies scores highest
```

**Radius.** If a set of outcomes has the probability p at x, it has at least
Phi(Phi^-1(p) - ||r|| / sigma) at x + r, ||r|| the l2 norm over all real frames of all features
(Cohen et al., by the lemma of Neyman and Pearson). So it stays above a share t for all

```
||r|| < sigma (Phi^-1(p_lower) - Phi^-1(t))
```

| statement about a clip | set of outcomes | t |
|---|---|---|
| the decision about label k stays as it is | k is (is not) shown | 1/2, which is Cohen's theorem |
| the first class stays one of the labels | the highest score is in S, of s labels | s / (s + 1) |

The second holds because the best of the s classes then has more than 1 / (s + 1) of the copies,
and any class outside of S less. For s = 1 it is Cohen's theorem again. With several labels that
share the copies no single one need have half of them; S is the set of labels that promises the
largest radius on the copies for selection. (Jia et al. 2020 certify that one given class stays
within the k most voted; here k is 1, and the class may be any of the labels.)

**Failure.** p_lower is the bound of Clopper and Pearson, computed from copies that took no part in
selecting S or the decision. All statements about a clip together hold with a probability of at
least 1 - alpha: that about the first class fails with at most alpha / 2, each of those about the C
(or rated) labels with at most alpha / (2 C), and the union bound adds them. This is about the draw
of the noise, for an ideal normal distribution and exact arithmetic: rounding of float32 and the
pseudo-random generator are not accounted for.

**Budgets of frames.** A radius of epsilon for each real frame of each feature, as attacks have it
by default, allows a norm of epsilon sqrt(M T) over a clip of T real frames and M features. So a
joint radius R certifies any epsilon below R / sqrt(M T).

Reference: Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized
Smoothing", 2019; Jia et al., "Certified Robustness for Top-k Predictions against Adversarial
Perturbations via Randomized Smoothing", 2020.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from yt8m_gat.metrics.bootstrap import LEVEL, NUM_RESAMPLES, interval, resample_counts
from yt8m_gat.robustness.smoothing import Smoothing, Votes

SCOPES = ("joint", "frame")
# Radii of the curves, in units of sigma.
_RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


def lower_bound(successes: Any, samples: int, alpha: float) -> np.ndarray:
    """Computes a lower bound of a probability from a number of successes (Clopper and Pearson).

    Args:
        successes: How many of the draws succeeded, any shape.
        samples: n, the number of draws.
        alpha: Most probability that the bound is above the true probability.

    Returns:
        The bound of each number: the probability at which that many successes or more have a
        probability of alpha; 0 without a success.

    Examples:
        >>> from yt8m_gat.robustness.certificate import lower_bound
        >>> lower_bound([0, 1, 2], 2, 0.25).round(4)  # n successes of n: alpha ** (1 / n).
        array([0.   , 0.134, 0.5  ])
    """
    successes = np.asarray(successes)
    distinct, places = np.unique(successes, return_inverse=True)
    bounds = stats.beta.ppf(alpha, distinct, samples - distinct + 1)
    return np.where(distinct > 0, bounds, 0.0)[places].reshape(successes.shape)


class ClipCertificates(NamedTuple):
    """Joint radii of the statements about each clip.

    A radius is positive where the decision is right (in accord with the labels), negative where it
    is wrong, and 0 where the smoothed classifier abstains.

    Attributes:
        first: Float [B], of the first class.
        labels: Float [B, C], of the decision about each label.
    """

    first: np.ndarray
    labels: np.ndarray


def certify(
    votes: Votes, labels: np.ndarray, smoothing: Smoothing, rated: np.ndarray | None = None
) -> ClipCertificates:
    """Computes the radii of a batch of clips from the votes of their copies.

    Args:
        votes: See `count_votes`.
        labels: [B, C], above 0 at the labels.
        smoothing: The settings by which the copies were made.
        rated: Bool [B, C], the classes that count; None: all.

    Returns:
        The radii; of a class that does not count, 0.
    """
    first, shown = (np.asarray(counts) for counts in votes)
    positive = np.asarray(labels) > 0
    if rated is None:
        rated = np.ones_like(positive)
    positive = positive & rated
    of_first = np.array(
        [
            _radius_of_first(*of_clip, smoothing)
            for of_clip in zip(first[0], first[1], positive, strict=True)
        ]
    )
    of_labels = np.zeros(positive.shape)
    decision = 2 * shown[0] > smoothing.selection_samples
    agreeing = np.where(decision, shown[1], smoothing.samples - shown[1])
    num_rated = rated.sum(axis=1)
    for count in np.unique(num_rated[num_rated > 0]):
        rows = num_rated == count
        bounds = lower_bound(agreeing[rows], smoothing.samples, smoothing.alpha / (2 * count))
        radii = np.maximum(smoothing.sigma * stats.norm.ppf(bounds), 0.0)
        right = decision[rows] == positive[rows]
        of_labels[rows] = np.where(right, radii, -radii) * rated[rows]
    return ClipCertificates(of_first, of_labels)


def _radius_of_first(
    selection: np.ndarray, rest: np.ndarray, positive: np.ndarray, smoothing: Smoothing
) -> float:
    """Returns the signed radius within which the first class of a clip stays (no) label.

    Args:
        selection: [C], how many of the copies for selection score each class highest.
        rest: [C], the same of the other copies.
        positive: Bool [C], the labels.
        smoothing: The settings.
    """
    right = bool(positive[np.argmax(selection)])
    # Sets of labels, or of other classes: those with the most votes first.
    candidates = np.flatnonzero(positive == right)
    candidates = candidates[np.argsort(-selection[candidates], kind="stable")]
    sizes = np.arange(1, len(candidates) + 1)
    needed = stats.norm.ppf(sizes / (sizes + 1))
    # Half a vote more, of one copy more, so that all of the votes promise no infinite radius.
    shares = (np.cumsum(selection[candidates]) + 0.5) / (smoothing.selection_samples + 1)
    best = int(np.argmax(stats.norm.ppf(shares) - needed))
    successes = int(rest[candidates[: best + 1]].sum())
    bound = lower_bound(successes, smoothing.samples, smoothing.alpha / 2)
    radius = max(smoothing.sigma * float(stats.norm.ppf(bound) - needed[best]), 0.0)
    return radius if right else -radius


def largest_radius(smoothing: Smoothing) -> float:
    """Returns the radius of a first class that all copies agree on: no clip can have more."""
    bound = lower_bound(smoothing.samples, smoothing.samples, smoothing.alpha / 2)
    return max(smoothing.sigma * float(stats.norm.ppf(bound)), 0.0)


def default_radii(sigma: float, num_features: int, max_frames: int) -> dict[str, list[float]]:
    """Returns radii for `CertificateTotals`: up to 3 sigma, and what that is for each frame.

    Args:
        sigma: Standard deviation of the noise.
        num_features: M.
        max_frames: T of the longest clips.

    Examples:
        >>> from yt8m_gat.robustness.certificate import default_radii
        >>> radii = default_radii(0.5, num_features=1, max_frames=100)
        >>> radii["joint"][-1], radii["frame"][-1]
        (1.5, 0.15)
    """
    joint = [factor * sigma for factor in _RADII]
    share = math.sqrt(num_features * max_frames)
    return {"joint": joint, "frame": [radius / share for radius in joint]}


class CertificateTotals:
    """Adds up the certificates of the batches of a set, at several radii.

    At a radius r, a perturbation within r can at most do this to the smoothed classifier:

    ```
    hit_at_1   = clips whose first class is certified, at a radius above r, to stay a label / clips
    recall     = labels that are certified to stay shown / labels
    precision  = labels that are certified to stay shown
                 / (these + classes that are no label and not certified to stay unshown)
    ```

    so that Hit@1, recall and precision of the attacked smoothed classifier are at least these
    (precision, because it grows with the labels shown and falls with the other classes shown). With
    `frame`, r is the radius of each real frame of each feature; with `joint`, of the whole clip.

    Args:
        radii: Scope (of `SCOPES`) -> its radii, of each as many.
        num_features: M.
    """

    def __init__(self, radii: Mapping[str, Sequence[float]], num_features: int) -> None:
        self._radii = np.array([radii[scope] for scope in SCOPES], np.float64)  # [2, R]
        self._num_features = num_features
        self._batches: list[tuple[np.ndarray, ...]] = []
        self._first: list[np.ndarray] = []
        self._of_labels: list[np.ndarray] = []

    def add(
        self,
        certificates: ClipCertificates,
        labels: np.ndarray,
        num_frames: np.ndarray,
        rated: np.ndarray | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            certificates: Those of the batch.
            labels: [B, C], above 0 at the labels.
            num_frames: [B], the real frames of each clip; 1 for features of whole videos.
            rated: Bool [B, C], the classes that count; None: all.
        """
        positive = np.asarray(labels) > 0
        others = ~positive
        if rated is not None:
            positive, others = positive & rated, others & rated
        # [2, R, B]: the joint radius that each radius amounts to.
        joint = np.stack(
            [np.ones(len(positive)), np.sqrt(self._num_features * np.asarray(num_frames))]
        )
        needed = joint[:, np.newaxis] * self._radii[..., np.newaxis]
        hits = certificates.first > needed
        shown, possible = np.zeros(hits.shape, np.int64), np.zeros(hits.shape, np.int64)
        for place in np.ndindex(hits.shape[:2]):
            holds = certificates.labels > needed[place][:, np.newaxis]
            shown[place] = (holds & positive).sum(axis=1)
            possible[place] = (~holds & others).sum(axis=1)
        self._batches.append((hits, shown, possible, positive.sum(axis=1)))
        self._first.append(certificates.first)
        self._of_labels.append(certificates.labels[positive])

    def result(self) -> dict[str, Any]:
        """Returns the shares at each radius, with bootstrap intervals over the clips.

        Returns:
            `first_class` and `labels`, the shares of clips, and of their labels, on which the
            smoothed classifier is certified `wrong` or has `abstained`; and `curve`: for each scope
            and radius `norm_scope`, `epsilon`, `hit_at_1`, `recall`, `precision` (None without a
            label, or without a class that may be shown) and `intervals`, see
            `yt8m_gat.metrics.bootstrap`.
        """
        hits, shown, possible, num_labels = (
            np.concatenate(parts, axis=-1) for parts in zip(*self._batches, strict=True)
        )
        first, of_labels = np.concatenate(self._first), np.concatenate(self._of_labels)

        def measure(counts: np.ndarray) -> np.ndarray:
            """Returns [3, 2, R] on clips that occur `counts` [N] times."""
            with np.errstate(invalid="ignore"):
                return np.stack(
                    [
                        hits @ counts / counts.sum(),
                        shown @ counts / np.float64(num_labels @ counts),
                        shown @ counts / ((shown + possible) @ counts),
                    ]
                )

        values = measure(np.ones(len(first)))
        resampled = np.stack(
            [measure(counts.astype(np.float64)) for counts in resample_counts(len(first))]
        )
        names = ("hit_at_1", "recall", "precision")
        curve = [
            {
                "norm_scope": scope,
                "epsilon": float(self._radii[of, place]),
                **{name: _or_none(values[index, of, place]) for index, name in enumerate(names)},
                "intervals": {
                    "level": LEVEL,
                    "resamples": NUM_RESAMPLES,
                    **{
                        name: interval(resampled[:, index, of, place])
                        for index, name in enumerate(names)
                    },
                },
            }
            for of, scope in enumerate(SCOPES)
            for place in range(self._radii.shape[1])
        ]
        return {
            "num_labels": int(num_labels.sum()),
            "first_class": _refusals(first),
            "labels": _refusals(of_labels),
            "curve": curve,
        }


def _refusals(radii: np.ndarray) -> dict[str, float | None]:
    return {
        "wrong": _or_none(np.mean(radii < 0) if radii.size else math.nan),
        "abstained": _or_none(np.mean(radii == 0) if radii.size else math.nan),
    }


def _or_none(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
