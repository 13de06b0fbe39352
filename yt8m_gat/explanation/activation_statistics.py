"""How evenly class activation lies over the frames of a clip, over a whole set."""

from typing import Any

import numpy as np


def activation_shares(activation: np.ndarray, real: np.ndarray) -> np.ndarray | None:
    """Returns the share of each real frame in the activation that speaks for a class.

    Negative activation, which speaks against the class, counts as 0.

    Args:
        activation: [T], of one class.
        real: Bool [T], True = real frame.

    Returns:
        [n] over the n real frames, sum 1; None if no frame speaks for the class.
    """
    supporting = np.maximum(np.asarray(activation, np.float64)[real], 0.0)
    total = supporting.sum()
    return supporting / total if total > 0 else None


def activation_entropy(shares: np.ndarray) -> float:
    """Returns the entropy of shares [n] over log n: 1 if all frames count alike, 0 if one does."""
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum() / np.log(len(shares)))


def activation_spread(shares: np.ndarray) -> float:
    """Returns the standard deviation in time of shares [n], over that of equal shares.

    It is 0 if one frame has everything, 1 for equal shares, and above 1 where the ends of the clip
    have more than its middle. Unlike the entropy it is small where neighbours share.
    """
    times = np.arange(len(shares))
    deviation = np.sqrt(max(shares @ times**2 - (shares @ times) ** 2, 0.0))
    return float(deviation / np.sqrt((len(shares) ** 2 - 1) / 12))


class ActivationStatistics:
    """Mean entropy and spread of the class activation of one class a clip.

    TAF's central claim is that fine-tuning makes class activation broader and more even (sections
    3.2 and 4.4); the paper shows pictures of it.

    Clips of one real frame have neither figure and are left out.
    """

    def __init__(self) -> None:
        self._figures: list[tuple[float, float]] = []
        self._num_silent = 0

    def update(self, activation: np.ndarray, frame_mask: np.ndarray, chosen: np.ndarray) -> None:
        """Adds a batch.

        Args:
            activation: [B, T], see `class_activation`.
            frame_mask: Bool [B, T].
            chosen: Bool [B], the clips that count.
        """
        for values, real in zip(activation[chosen], frame_mask[chosen], strict=True):
            if real.sum() < 2:
                continue
            shares = activation_shares(values, real)
            if shares is None:
                self._num_silent += 1
            else:
                self._figures.append((activation_entropy(shares), activation_spread(shares)))

    def result(self) -> dict[str, Any]:
        """Returns the statistics.

        Returns:
            `entropy` and `spread`, means over the `num_videos` clips with a frame that speaks for
            the class, and `entropy_deviation` and `spread_deviation` (n - 1; None for one clip);
            `num_silent`, the number of clips without such a frame. Means are None without a clip.
        """
        figures = np.array(self._figures, np.float64).reshape(-1, 2)
        result: dict[str, Any] = {"num_videos": len(figures), "num_silent": self._num_silent}
        for name, values in zip(("entropy", "spread"), figures.T, strict=True):
            result[name] = float(values.mean()) if len(values) else None
            result[f"{name}_deviation"] = float(values.std(ddof=1)) if len(values) > 1 else None
        return result
