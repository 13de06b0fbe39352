"""The sum that NetVLAD and NeXtVLAD have in common: residuals of frames to cluster centres."""

from typing import Any

from keras import ops

from yt8m_gat.reduction import sum_over

Tensor = Any

# Smallest squared norm that divides: a cluster without any frame gives 0 with a finite gradient.
_NORM_FLOOR = 1e-12


def l2_normalize(x: Tensor) -> Tensor:
    """Divides by the l2 norm along the last axis, in float32 at least; 0 stays 0."""
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, _NORM_FLOOR))


def pool_residuals(x: Tensor, assignments: Tensor, centres: Tensor) -> Tensor:
    """Pools the residuals of the rows to each centre, and l2-normalizes each of these sums.

        V_k = sum_t a_tk (x_t - c_k) = (a^T x)_k - (sum_t a_tk) c_k

    The second form is one matrix product for each clip; the residuals [B, T, K, D] of the first are
    never in memory.

    Args:
        x: float [B, T, D], the rows; those of padding must be finite.
        assignments: float [B, T, K], a; exactly 0 on padding.
        centres: float [K, D], c.

    Returns:
        float32 [B, K, D]; exactly 0 for a clip without real frames.
    """
    weighted = ops.cast(ops.matmul(ops.transpose(assignments, (0, 2, 1)), x), "float32")
    totals = sum_over(ops.cast(assignments, "float32"), axis=1)
    residuals = weighted - ops.expand_dims(totals, -1) * ops.cast(centres, "float32")
    return l2_normalize(residuals)
