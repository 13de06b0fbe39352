"""Distances between attention maps (the regularizers of A-ART and GAT) and statistics of a map.

The maps must be averaged over the heads first. Everything is computed in at least float32, and
every result has a finite gradient for any maps.
"""

from keras import KerasTensor, backend, ops, saving

# Keeps the logarithm and its gradient finite at an attention weight of 0; it is far below any
# weight that a float32 softmax gives next to a weight near 1.
_WEIGHT_FLOOR = 1e-30


def average_over_heads(maps: KerasTensor) -> KerasTensor:
    """Averages the attention maps over the heads.

    Args:
        maps: `[B, N, T, S]`, or `[B, N, ..., S]` for a local level in compact form.

    Returns:
        `[B, T, S]` or `[B, ..., S]`.

    Raises:
        ValueError: If `maps` has a lower rank.

    Reference: A of GAT, section 3.2.1.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.losses import average_over_heads
        >>> average_over_heads(np.array([[[[1.0, 0.0]], [[0.0, 1.0]]]], "float32")).numpy()
        array([[[0.5, 0.5]]], dtype=float32)
    """
    if len(maps.shape) < 4:
        raise ValueError(
            f"`maps` must have the shape [B, N, ..., S]. Received: shape={tuple(maps.shape)}"
        )
    # The gradient of `mean` would be copied to every head first and divided there, at full size.
    return ops.sum(maps, axis=1) / maps.shape[1]


@saving.register_keras_serializable(package="yt8m_gat")
def frobenius_distance(
    clean: KerasTensor, adversarial: KerasTensor, frame_mask: KerasTensor | None = None
) -> KerasTensor:
    """Computes the Frobenius norm of the difference of two attention maps.

        d_i = || A_i - A_i^adv ||_F = sqrt(sum over real rows t and keys s of (A - A^adv)_its^2)

    Gradient: flows through both maps; where the maps are equal it is exactly 0 (the plain square
    root would give NaN).

    Masking: rows of padded frames contribute 0.

    Args:
        clean: A, `[B, T, S]`, or `[B, ..., S]` for a local level in compact form.
        adversarial: A^adv, same shape.
        frame_mask: Bool, the maps' shape without the last axis (`[B, T]`), True = real frame;
            None if every row counts.

    Returns:
        `[B]`, float32 or wider.

    Raises:
        ValueError: If the shapes do not fit.

    Reference: GAT, section 3.2.1, L_advFr, and Algorithm 1's L_F (which prints get_att(X) twice;
    the second is get_att(X_adv)). The mean over the batch, the sum over the modalities and
    beta_Fr = 0.001 are the caller's.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.losses import frobenius_distance
        >>> clean = np.array([[[1.0, 0.0], [0.5, 0.5]]], "float32")
        >>> adversarial = np.array([[[0.0, 1.0], [0.5, 0.5]]], "float32")
        >>> frobenius_distance(clean, adversarial).numpy().round(4)
        array([1.4142], dtype=float32)
    """
    clean, adversarial = _comparable(clean, adversarial)
    squares = ops.square(clean - adversarial)
    rows = _row_weights(clean, frame_mask)
    if rows is not None:
        squares = squares * rows[..., None]
    total = ops.sum(squares, axis=tuple(range(1, len(squares.shape))))
    differs = total > 0
    return ops.where(
        differs, ops.sqrt(ops.where(differs, total, ops.ones_like(total))), ops.zeros_like(total)
    )


@saving.register_keras_serializable(package="yt8m_gat")
def jensen_shannon_divergence(
    clean: KerasTensor, adversarial: KerasTensor, frame_mask: KerasTensor | None = None
) -> KerasTensor:
    """Computes the Jensen-Shannon divergence (natural logarithm) of the rows of two attention maps.

        JSD(P, Q) = 1/2 sum_s P_s log(P_s / M_s) + 1/2 sum_s Q_s log(Q_s / M_s),  M = (P + Q) / 2
        d_i = mean over the real rows t of JSD(A_it, A_it^adv), in [0, ln 2]

    with 0 log 0 = 0.

    Gradient: flows through both maps; where a weight is 0 in one map only, the true derivative is
    infinite and this one is large and finite, with the right sign. The gradient is exact, but must
    not be differentiated again: the derivatives that cancel in it would be missing.

    Masking: rows of padded frames contribute 0 and are not counted. Without a mask, rows that are
    all 0 in the clean map (a query with nothing to attend to gives them) are not counted.

    Args:
        clean: A, `[B, T, S]`, or `[B, ..., S]` for a local level in compact form.
        adversarial: A^adv, same shape.
        frame_mask: Bool, the maps' shape without the last axis (`[B, T]`), True = real frame; or
            None.

    Returns:
        `[B]`, float32 or wider; 0 for an example without a real row.

    Raises:
        ValueError: If the shapes do not fit.

    Reference: GAT, section 3.2.1, L_advJS, but with a mean over the real rows instead of its sum
    over all T. The mean over the batch and beta_JS = 0.01 are the caller's.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.losses import jensen_shannon_divergence
        >>> clean = np.array([[[1.0, 0.0]]], "float32")
        >>> jensen_shannon_divergence(clean, clean[..., ::-1]).numpy().round(4)
        array([0.6931], dtype=float32)
    """
    clean, adversarial = _comparable(clean, adversarial)
    rows = _row_weights(clean, frame_mask)
    if rows is None:
        rows = ops.cast(ops.sum(clean, axis=-1) > 0, clean.dtype)
    middle = ops.maximum((clean + adversarial) / 2, _WEIGHT_FLOOR)
    # Held constant, since their own derivatives add up to 0: this saves four passes.
    by_clean, by_adversarial = (
        ops.stop_gradient(ops.log(ops.maximum(weights, _WEIGHT_FLOOR) / middle))
        for weights in (clean, adversarial)
    )
    terms = clean * by_clean + adversarial * by_adversarial
    # Rounding can leave a row of nearly equal maps a little below 0.
    divergence = ops.maximum(ops.sum(terms, axis=-1) / 2, 0.0)
    return _mean_over_rows(divergence, rows)


def normalized_entropy(maps: KerasTensor, frame_mask: KerasTensor | None = None) -> KerasTensor:
    """Computes the entropy of an attention map's rows, divided by that of uniform attention.

        h_i = mean over the real rows t of (-sum_s A_its log A_its) / log n_i

    with n real frames: 1 for uniform attention, 0 for rows that look at one frame. Defined as 1
    for n <= 1, where the only map is the uniform one. Reports show it next to every A-ART or GAT
    figure, since the cheapest map that never moves is a uniform one.

    Masking: rows of padded frames are not counted, and n counts the real frames.

    Args:
        maps: A, `[B, T, T]`, averaged over the heads.
        frame_mask: Bool `[B, T]`, True = real frame; None if all T are real.

    Returns:
        `[B]`, float32 or wider.

    Raises:
        ValueError: If the shapes do not fit.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.losses import normalized_entropy
        >>> normalized_entropy(np.full((1, 4, 4), 0.25, "float32")).numpy()
        array([1.], dtype=float32)
    """
    maps, mask = _self_attention(maps, frame_mask)
    row_entropy = -ops.sum(maps * ops.log(ops.maximum(maps, _WEIGHT_FLOOR)), axis=-1)
    num_frames = ops.sum(mask, axis=-1)
    entropy = _mean_over_rows(row_entropy, mask)
    several = num_frames > 1
    largest = ops.log(ops.where(several, num_frames, 2.0 * ops.ones_like(num_frames)))
    return ops.where(several, entropy / largest, ops.ones_like(entropy))


def distance_to_uniform(maps: KerasTensor, frame_mask: KerasTensor | None = None) -> KerasTensor:
    """Computes the Frobenius norm of the difference between an attention map and uniform attention.

        u_i = || A_i - U_i ||_F, U_its = 1 / n_i where t and s are real frames, else 0

    Masking: rows of padded frames contribute 0; U has no weight on padded frames.

    Args:
        maps: A, `[B, T, T]`, averaged over the heads.
        frame_mask: Bool `[B, T]`, True = real frame; None if all T are real.

    Returns:
        `[B]`, float32 or wider, from 0 (uniform) to sqrt(n - 1) (each row looks at one frame).

    Raises:
        ValueError: If the shapes do not fit.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.losses import distance_to_uniform
        >>> distance_to_uniform(np.full((1, 4, 4), 0.25, "float32")).numpy()
        array([0.], dtype=float32)
    """
    maps, mask = _self_attention(maps, frame_mask)
    keys = ops.divide_no_nan(mask, ops.sum(mask, axis=-1, keepdims=True))
    uniform = mask[:, :, None] * keys[:, None, :]
    return frobenius_distance(maps, uniform, mask)


def _comparable(clean: KerasTensor, adversarial: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    clean, adversarial = ops.convert_to_tensor(clean), ops.convert_to_tensor(adversarial)
    if len(clean.shape) < 2 or not _shapes_fit(clean.shape, adversarial.shape):
        raise ValueError(
            "The maps must have the same shape [B, ..., S]. "
            f"Received: clean {tuple(clean.shape)}, adversarial {tuple(adversarial.shape)}"
        )
    dtype = backend.result_type(clean.dtype, adversarial.dtype, "float32")
    return ops.cast(clean, dtype), ops.cast(adversarial, dtype)


def _row_weights(maps: KerasTensor, frame_mask: KerasTensor | None) -> KerasTensor | None:
    """Returns 1 for a real row and 0 for padding, in the maps' dtype."""
    if frame_mask is None:
        return None
    frame_mask = ops.convert_to_tensor(frame_mask)
    if not _shapes_fit(frame_mask.shape, maps.shape[:-1]):
        raise ValueError(
            "`frame_mask` must have the shape of the maps without the last axis, "
            f"{tuple(maps.shape[:-1])}. Received: {tuple(frame_mask.shape)}"
        )
    return ops.cast(frame_mask, maps.dtype)


def _self_attention(
    maps: KerasTensor, frame_mask: KerasTensor | None
) -> tuple[KerasTensor, KerasTensor]:
    maps = ops.convert_to_tensor(maps)
    if len(maps.shape) != 3 or not _shapes_fit(maps.shape[1:2], maps.shape[2:]):
        raise ValueError(f"`maps` must have the shape [B, T, T]. Received: {tuple(maps.shape)}")
    maps = ops.cast(maps, backend.result_type(maps.dtype, "float32"))
    rows = _row_weights(maps, frame_mask)
    return maps, ops.ones_like(maps[..., 0]) if rows is None else rows


def _mean_over_rows(values: KerasTensor, rows: KerasTensor) -> KerasTensor:
    axes = tuple(range(1, len(values.shape)))
    return ops.divide_no_nan(ops.sum(values * rows, axis=axes), ops.sum(rows, axis=axes))


def _shapes_fit(first: tuple, second: tuple) -> bool:
    """Returns whether two static shapes are equal as far as they are known."""
    return len(first) == len(second) and all(
        a is None or b is None or a == b for a, b in zip(first, second, strict=True)
    )
