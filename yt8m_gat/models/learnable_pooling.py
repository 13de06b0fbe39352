"""The gated network of "Learnable pooling with Context Gating": NetVLAD and the soft bag."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers import ContextGating, DualBatchNormalization, NetVLAD, SoftBagOfFrames
from yt8m_gat.models.mixture_of_experts import GatedMixtureOfExperts, MixtureOfExperts
from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier

# Name -> layer, and by how much fewer clusters the features after the first have, as sound in the
# authors' code.
POOLINGS = {"vlad": (NetVLAD, 2), "soft_bag": (SoftBagOfFrames, 8)}


@keras.saving.register_keras_serializable(package="yt8m_gat")
class LearnablePoolingClassifier(VideoClassifier):
    """Pools each feature over time, gates a hidden layer, and gates the classes of a mixture.

    ```
    x      = BN(concat_m x_m)                       [B, T, sum D_m]
    v_m    = pool_m(x_m)                            NetVLAD [B, K_m D_m], or soft bag [B, K_m]
    h      = ContextGating((concat_m v_m) W + b)    [B, H]
    logits = mixture of experts of h, whose probabilities are gated too
    ```

    The first feature has K clusters; further features have half of them with NetVLAD and an eighth
    with the soft bag (at least 1), as sound in the authors' code. That code pools 300 frames drawn
    with replacement from each clip; this model pools each real frame once.

    Masking: padded frames never count. A clip without any real frame gets the logits of a zero
    vector v.

    Args:
        feature_sizes: Feature name -> D.
        num_classes: C.
        pooling: `vlad` or `soft_bag`.
        cluster_size: K, the clusters of the first feature.
        hidden_size: H.
        moe_num_mixtures: Experts per class.
        moe_prob_gating: Whether the probabilities are gated, which takes C x C weights.
        dual_normalization: Whether there is a second set of batch normalization for an adversarial
            path (TAF).

    Raises:
        ValueError: A size is not positive, or the pooling is unknown.

    Reference: Miech, Laptev and Sivic (2017), figure 2 and section 3; sizes and l2 penalty are
    those of the authors' script for gated NetVLAD (256 clusters, 1024 units, no ReLU). Their gated
    soft bag is read as this network with the other pooling, as in the paper's table 2; their code
    has a variant besides, which gates the bag by its maxima.
    """

    def __init__(
        self,
        feature_sizes: dict[str, int],
        num_classes: int,
        pooling: str = "vlad",
        cluster_size: int = 256,
        hidden_size: int = 1024,
        moe_num_mixtures: int = 2,
        moe_prob_gating: bool = True,
        dual_normalization: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        if pooling not in POOLINGS:
            raise ValueError(
                f"`pooling` must be one of {', '.join(POOLINGS)}. Received: pooling={pooling!r}"
            )
        for name, size in (("cluster_size", cluster_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
        self.pooling = pooling
        self.cluster_size = cluster_size
        self.hidden_size = hidden_size
        self.moe_num_mixtures = moe_num_mixtures
        self.moe_prob_gating = moe_prob_gating
        self.dual_normalization = dual_normalization

        self.input_normalization = DualBatchNormalization(
            dual_normalization, dtype=self.dtype_policy, name="input_normalization"
        )
        layer, divisor = POOLINGS[pooling]
        self.poolings = [
            layer(
                max(1, cluster_size // (1 if index == 0 else divisor)),
                dual_normalization,
                dtype=self.dtype_policy,
                name=f"{identifier}_pooling",
            )
            for index, identifier in enumerate(self.identifiers.values())
        ]
        self.hidden = keras.layers.Dense(
            hidden_size,
            # The authors' deviation.
            kernel_initializer=keras.initializers.RandomNormal(stddev=cluster_size**-0.5),
            dtype=self.dtype_policy,
            name="hidden",
        )
        self.gating = ContextGating(
            dual_normalization=dual_normalization, dtype=self.dtype_policy, name="gating"
        )
        if moe_prob_gating:
            self.head = GatedMixtureOfExperts(
                num_classes, moe_num_mixtures, 1e-6, dual_normalization, name="logits"
            )
        else:
            self.head = MixtureOfExperts(num_classes, moe_num_mixtures, 1e-6, name="logits")
        self.embedding_size = hidden_size
        self.build_all()

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs the model; the `frames` of its outputs are the features [B, T, sum D_m] themselves.

        See `VideoClassifier.forward`.
        """
        path = {"training": training, "auxiliary_normalization": auxiliary_normalization}
        frames = self.concatenate(features, frame_mask)
        parts = self.separate(self.input_normalization(frames, frame_mask=frame_mask, **path))
        pooled = ops.concatenate(
            [
                pool(x, frame_mask=frame_mask, **path)
                for pool, x in zip(self.poolings, parts, strict=True)
            ],
            axis=-1,
        )
        hidden = self.gating(self.hidden(pooled), **path)
        logits = self.head(hidden, **path) if self.moe_prob_gating else self.head(hidden)
        return ModelOutputs(logits, frames, {}, embedding=hidden)

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the values of the first set of normalization layers to the second."""
        heads = (self.head,) if self.moe_prob_gating else ()
        for layer in (self.input_normalization, *self.poolings, self.gating, *heads):
            layer.copy_normalization_to_auxiliary()

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "cluster_size": self.cluster_size,
            "hidden_size": self.hidden_size,
            "moe_num_mixtures": self.moe_num_mixtures,
            "moe_prob_gating": self.moe_prob_gating,
            "dual_normalization": self.dual_normalization,
        }
