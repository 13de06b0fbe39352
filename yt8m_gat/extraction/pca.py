"""Mean, deviation and principal components of frames, in one pass over them."""

from __future__ import annotations

import dataclasses

import numpy as np

WHITENING_OFFSET = 1e-4
"""YouTube-8M's: added to an eigenvalue before its root is divided by."""


@dataclasses.dataclass(frozen=True)
class PCA:
    """Principal components of D values.

    Attributes:
        mean: Mean of each value [D].
        eigenvalues: Variances along the components, descending [K].
        eigenvectors: The components, unit vectors [K, D]. The largest entry of each is positive.
    """

    mean: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    def whiten(self, x: np.ndarray) -> np.ndarray:
        """Projects frames [T, D] on the components: `E (x - mean) / sqrt(eigenvalue + 1e-4)`.

        A float64 tensor of TensorFlow gives one.
        """
        projected = (x - self.mean) @ self.eigenvectors.T
        return projected / np.sqrt(self.eigenvalues + WHITENING_OFFSET)


class StreamingMoments:
    """Count, mean and covariance of frames that come in batches, in float64.

    The batches are merged by the update of Chan, Golub and LeVeque (1983), so that the covariance
    is that of all frames at once up to rounding, even where the mean is far from zero.

    Args:
        size: D, values of a frame.
        with_covariance: Keep the covariance [D, D], else only the variances [D].

    Example:
        >>> moments = StreamingMoments(1)
        >>> moments.update(np.array([[1.0], [2.0]]))
        >>> moments.update(np.array([[6.0]]))
        >>> moments.count, float(moments.mean[0]), float(moments.covariance[0, 0])
        (3, 3.0, 7.0)
    """

    def __init__(self, size: int, *, with_covariance: bool = True) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self._squares = np.zeros((size, size) if with_covariance else size)

    def update(self, x: np.ndarray) -> None:
        """Adds frames [T, D]; T may be 0."""
        x = np.asarray(x, np.float64)
        added = len(x)
        if added == 0:
            return
        mean = x.mean(axis=0)
        centred, shift = x - mean, mean - self.mean
        total = self.count + added
        weight = self.count * added / total
        if self._squares.ndim == 2:
            self._squares += centred.T @ centred + weight * np.outer(shift, shift)
        else:
            self._squares += np.square(centred).sum(axis=0) + weight * np.square(shift)
        self.mean = self.mean + shift * (added / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Covariance [D, D], or variances [D]: sums of squares divided by the count minus 1.

        Raises:
            ValueError: There are fewer than two frames.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 frames. Received: {self.count}")
        return self._squares / (self.count - 1)

    def pca(self, num_components: int) -> PCA:
        """Returns the components of the largest variances.

        Args:
            num_components: K, at most D, and less than the number of frames.

        Raises:
            ValueError: K is too large.
        """
        most = min(len(self.mean), self.count - 1)
        if not 1 <= num_components <= most:
            raise ValueError(
                f"components must be 1 to {most}: {self.count} frames of {len(self.mean)} values. "
                f"Received: {num_components}"
            )
        values, vectors = np.linalg.eigh(self.covariance)
        values, vectors = values[::-1][:num_components], vectors[:, ::-1][:, :num_components].T
        largest = vectors[np.arange(num_components), np.abs(vectors).argmax(axis=1)]
        return PCA(self.mean, np.maximum(values, 0.0), vectors * np.sign(largest)[:, None])
