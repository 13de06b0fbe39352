"""How far hidden layers move between two versions of the same clips."""

import numpy as np

# Sizes up to which CKA is computed: it keeps three matrices of size x size numbers.
MAX_CKA_SIZE = 4096


class EmbeddingShift:
    """Compares the outputs x_i of one layer with its outputs y_i on perturbed clips, in a stream.

    ```
    cosine      = mean over i of <x_i, y_i> / (||x_i|| ||y_i||)
    relative_l2 = mean over i of ||y_i - x_i|| / ||x_i||
    cka         = ||Y_c^T X_c||_F^2 / (||X_c^T X_c||_F ||Y_c^T Y_c||_F)
    ```

    X_c [N, D] has the x_i as rows, less their mean. Cosine and distance compare row by row; CKA is
    1 if the rows have kept their similarities to each other, though all were turned or scaled
    alike. It is None for a layer that is constant, or larger than `MAX_CKA_SIZE`. Rows that are
    all 0 do not count in the other two.

    Reference: Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019:
    linear CKA.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self._counted = 0
        self._cosine = self._relative = 0.0
        self._sums: list[np.ndarray] = []
        self._products: list[np.ndarray] = []

    def update(self, clean: np.ndarray, moved: np.ndarray) -> None:
        """Adds rows [N, D] of both versions, in the same order."""
        x, y = clean.astype(np.float64), moved.astype(np.float64)
        if not self.rows:
            self.size = x.shape[1]
            self._sums = [np.zeros(self.size) for _ in range(2)]
            if self.size <= MAX_CKA_SIZE:
                self._products = [np.zeros((self.size, self.size)) for _ in range(3)]
        self.rows += len(x)
        norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
        counts = (norms[0] > 0) & (norms[1] > 0)
        self._counted += int(counts.sum())
        inner = (x * y).sum(axis=1)
        self._cosine += float((inner[counts] / (norms[0] * norms[1])[counts]).sum())
        distance = np.linalg.norm(y - x, axis=1)
        self._relative += float((distance[counts] / norms[0][counts]).sum())
        for total, values in zip(self._sums, (x, y), strict=True):
            total += values.sum(axis=0)
        pairs = ((x, x), (y, y), (x, y)) if self._products else ()
        for total, (left, right) in zip(self._products, pairs, strict=True):
            total += left.T @ right

    def result(self) -> dict[str, float | int | None]:
        """Returns `size`, `rows`, `cka`, `cosine` and `relative_l2`."""
        counted = self._counted
        return {
            "size": self.size,
            "rows": self.rows,
            "cka": self._cka(),
            "cosine": self._cosine / counted if counted else None,
            "relative_l2": self._relative / counted if counted else None,
        }

    def _cka(self) -> float | None:
        if not self._products:
            return None
        x, y = self._sums
        means = np.outer(x, x), np.outer(y, y), np.outer(x, y)
        own, other, cross = (
            np.linalg.norm(product - mean / self.rows)
            for product, mean in zip(self._products, means, strict=True)
        )
        # A sum of squares less its mean is rounding error where the layer is constant.
        floor = 1e-12 * max(np.linalg.norm(product) for product in self._products)
        if min(own, other) <= floor:
            return None
        return float(cross**2 / (own * other))
