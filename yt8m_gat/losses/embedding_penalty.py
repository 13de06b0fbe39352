"""The distance between a model's embeddings of two versions of a clip."""

from keras import KerasTensor, backend, ops, saving


@saving.register_keras_serializable(package="yt8m_gat")
def embedding_distance(clean: KerasTensor, adversarial: KerasTensor) -> KerasTensor:
    """Computes the squared distance of embeddings, relative to the length of the clean one.

        d_i = ||e_i - e_i^adv||^2 / ||e_i||^2,  e_i a constant

    The division makes it free of scale: otherwise smaller embeddings and a larger head would lower
    it and change no prediction. It is 0 for a clean embedding of zeros. Its square root is the
    `relative_l2` of `eval.py --embeddings`.

    Gradient: flows through `adversarial` alone. The clean embedding is the target, as the clean
    prediction is in virtual adversarial training, so that clean clips do not follow attacked ones,
    and nothing rewards longer clean embeddings. It also saves a backward pass: the clean pass
    needs no other gradient than the attack does.

    Args:
        clean: e, `[B, E]`.
        adversarial: e^adv, same shape.

    Returns:
        `[B]`, float32 or wider.

    Raises:
        ValueError: If the shapes are not one `[B, E]`.

    Reference: the embedding form of stability training (Zheng et al., "Improving the Robustness of
    Deep Neural Networks via Stability Training", 2016, eq. 3), with an adversarial clip for its
    noisy one. Deviations: it is squared and divided by ||e||^2; and e is constant, as in Miyato et
    al., "Virtual Adversarial Training", 2018, where stability training and adversarial logit
    pairing (Kannan et al., 2018) move both.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.losses import embedding_distance
        >>> embedding_distance(np.array([[3.0, 4.0]]), np.array([[3.0, 3.0]])).numpy()
        array([0.04])
    """
    clean, adversarial = ops.convert_to_tensor(clean), ops.convert_to_tensor(adversarial)
    if len(clean.shape) != 2 or clean.shape[1:] != adversarial.shape[1:]:
        raise ValueError(
            "The embeddings must have one shape [B, E]. "
            f"Received: clean {tuple(clean.shape)}, adversarial {tuple(adversarial.shape)}"
        )
    # In float16 a sum of squares overflows at 65,504.
    dtype = backend.result_type(clean.dtype, adversarial.dtype, "float32")
    target = ops.stop_gradient(ops.cast(clean, dtype))
    squares = ops.sum(ops.square(ops.cast(adversarial, dtype) - target), axis=-1)
    return ops.divide_no_nan(squares, ops.sum(ops.square(target), axis=-1))
