"""The starter code's mixture of experts, with logits as its output."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers import DualBatchNormalization

L2_PENALTY = 1e-8
"""The starter code's weight w of the penalty w * ||W||^2 / 2 on a head's kernels."""


@keras.saving.register_keras_serializable(package="yt8m_gat")
class MixtureOfExperts(keras.Layer):
    """M logistic experts per class, and a gate that may also choose none of them.

    ```
    g = softmax over m = 0 .. M of (x V)        [B, C, M + 1], the last a dummy expert with p = 0
    e = sigmoid(x W + b)                        [B, C, M]
    p = sum over m < M of g_m e_m               [B, C]
    ```

    The output is the logit `log p - log(1 - p)`, with `1 - p = g_M + sum over m < M of
    g_m (1 - e_m)`; both logarithms are log-sum-exps of `log softmax` and `log sigmoid`, so that the
    logit stays exact where p rounds to 0 or 1. It is computed in float32 under every dtype policy.
    The gates have no bias, as in the starter code.

    Masking: none; the input has no time axis.

    Args:
        num_classes: C.
        moe_num_mixtures: M.
        l2_penalty: Weight w of the penalty w * ||W||^2 / 2 on the kernels.

    Call arguments:
        x: float [B, D].

    Returns:
        Logits, float32 [B, C].

    Raises:
        ValueError: `moe_num_mixtures` is not positive.

    Reference: YouTube-8M (Abu-El-Haija et al., 2016), section 5; Jordan and Jacobs, 1994.
    """

    def __init__(
        self,
        num_classes: int,
        moe_num_mixtures: int = 2,
        l2_penalty: float = L2_PENALTY,
        **kwargs: Any,
    ) -> None:
        # float32, so that mixed precision never rounds a logit.
        super().__init__(**{**kwargs, "dtype": "float32"})
        if moe_num_mixtures < 1:
            raise ValueError(
                "`moe_num_mixtures` must be positive. "
                f"Received: moe_num_mixtures={moe_num_mixtures}"
            )
        self.num_classes = num_classes
        self.moe_num_mixtures = moe_num_mixtures
        self.l2_penalty = l2_penalty
        self.gates = self._dense(moe_num_mixtures + 1, use_bias=False, name="gates")
        self.experts = self._dense(moe_num_mixtures, use_bias=True, name="experts")

    def _dense(self, mixtures: int, use_bias: bool, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            self.num_classes * mixtures,
            use_bias=use_bias,
            kernel_regularizer=keras.regularizers.L2(self.l2_penalty / 2),
            dtype="float32",
            name=name,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights of gates and experts."""
        self.gates.build(input_shape)
        self.experts.build(input_shape)

    def call(self, x: Any) -> Any:
        """Computes the logits; see the class."""
        positive, negative = self.log_probabilities(x)
        return positive - negative

    def log_probabilities(self, x: Any) -> tuple[Any, Any]:
        """Returns log p and log(1 - p), each float32 [B, C]."""
        gates = ops.reshape(self.gates(x), (-1, self.num_classes, self.moe_num_mixtures + 1))
        experts = ops.reshape(self.experts(x), (-1, self.num_classes, self.moe_num_mixtures))
        log_gates = ops.log_softmax(gates, axis=-1)
        chosen, dummy = log_gates[..., :-1], log_gates[..., -1:]
        positive = ops.logsumexp(chosen + ops.log_sigmoid(experts), axis=-1)
        negative = ops.logsumexp(
            ops.concatenate([chosen + ops.log_sigmoid(-experts), dummy], axis=-1), axis=-1
        )
        return positive, negative

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output, [B, C]."""
        return (input_shape[0], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "moe_num_mixtures": self.moe_num_mixtures,
            "l2_penalty": self.l2_penalty,
        }


@keras.saving.register_keras_serializable(package="yt8m_gat")
class GatedMixtureOfExperts(MixtureOfExperts):
    """A mixture of experts whose probabilities pass through context gating.

    ```
    p' = sigmoid(z) p,   z = BN(p U)        [B, C], U [C, C]
    ```

    A gate can lower the probability of a class that the others contradict. The output is again the
    logit `log p' - log(1 - p')`, with `1 - p' = (1 - p) + (1 - sigmoid(z)) p`, from logarithms.

    Masking: none; the input has no time axis.

    Args:
        num_classes: C.
        moe_num_mixtures: M.
        l2_penalty: Weight w of the penalty w * ||W||^2 / 2 on the kernels of gates and experts.
        dual_normalization: Whether there is a second set of normalization weights for an auxiliary
            (adversarial) path.

    Call arguments:
        x: float [B, D].
        training: Whether batch normalization uses the moments of the batch.
        auxiliary_normalization: Whether to use the second set of normalization weights.

    Returns:
        Logits, float32 [B, C].

    Raises:
        ValueError: `moe_num_mixtures` is not positive.

    Reference: "Learnable pooling with Context Gating" (Miech, Laptev and Sivic, 2017), section 3.2;
    the batch normalization is that of the authors' code (`moe_prob_gating`).
    """

    def __init__(
        self,
        num_classes: int,
        moe_num_mixtures: int = 2,
        l2_penalty: float = L2_PENALTY,
        dual_normalization: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, moe_num_mixtures, l2_penalty, **kwargs)
        self.dual_normalization = dual_normalization
        self.class_normalization = DualBatchNormalization(
            dual_normalization, dtype="float32", name="class_normalization"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights of the mixture and those of the class gates."""
        super().build(input_shape)
        self.class_kernel = self.add_weight(
            shape=(self.num_classes, self.num_classes),
            initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal"),
            name="class_kernel",
        )
        self.class_normalization.build((input_shape[0], self.num_classes))

    def call(
        self, x: Any, training: bool | None = None, auxiliary_normalization: bool = False
    ) -> Any:
        """Computes the logits; see the class."""
        positive, negative = self.log_probabilities(x)
        gates = self.class_normalization(
            ops.matmul(ops.exp(positive), self.class_kernel),
            training=training,
            auxiliary_normalization=auxiliary_normalization,
        )
        closed = positive + ops.log_sigmoid(-gates)
        return positive + ops.log_sigmoid(gates) - ops.logaddexp(negative, closed)

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the first set of normalization weights to the second, if there is one."""
        self.class_normalization.copy_normalization_to_auxiliary()

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "dual_normalization": self.dual_normalization}
