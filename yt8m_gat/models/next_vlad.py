"""NeXtVLAD's classifier: one pooled vector for each feature, a gated hidden layer, logistic."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers import ContextGating, DualBatchNormalization, NeXtVLAD
from yt8m_gat.models.classifier_head import build_head
from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier


@keras.saving.register_keras_serializable(package="yt8m_gat")
class NeXtVladClassifier(VideoClassifier):
    """NeXtVLAD of each feature, a hidden layer with squeeze-and-excitation gates, and a head.

    ```
    v_m    = NeXtVLAD_m(x_m)                        [B, K_m E D_m / G_m]   one per feature m
    h      = BN(Dropout(concat_m v_m) W)            [B, H]
    logits = head(ContextGating(h))                 with the reduction r
    ```

    The first feature has K clusters and G groups, each further one half of both (at least 1), as
    sound in the authors' code. Unlike that code the model has no reverse whitening: the eigenvalues
    of the official features' PCA are not in the records.

    Masking: padded frames never count. A clip without any real frame gets the logits of a constant.

    Args:
        feature_sizes: Feature name -> D.
        num_classes: C.
        cluster_size: K, the clusters of the first feature.
        expansion: E, by which the features are expanded before they are cut into groups.
        groups: G, the groups of the first feature.
        hidden_size: H.
        gating_reduction: r.
        dropout: Dropout rate of the pooled vector.
        video_level_classifier_model: The head, `LogisticModel` or `MoeModel`.
        moe_num_mixtures: Experts per class of `MoeModel`.
        dual_normalization: Whether there is a second set of batch normalization for an adversarial
            path (TAF).

    Raises:
        ValueError: A size is not positive, `groups` does not divide E D, `dropout` is not in
            [0, 1), or the head is unknown.

    Reference: NeXtVLAD (Lin, Xiao and Fan, 2018), section 3 and 4; the sizes are those of its
    single model, the head and its l2 penalty those of the authors' script.
    """

    def __init__(
        self,
        feature_sizes: dict[str, int],
        num_classes: int,
        cluster_size: int = 128,
        expansion: int = 2,
        groups: int = 8,
        hidden_size: int = 2048,
        gating_reduction: int = 8,
        dropout: float = 0.5,
        video_level_classifier_model: str = "LogisticModel",
        moe_num_mixtures: int = 2,
        dual_normalization: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        for name, size in (
            ("cluster_size", cluster_size),
            ("expansion", expansion),
            ("groups", groups),
            ("hidden_size", hidden_size),
            ("gating_reduction", gating_reduction),
        ):
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
        if gating_reduction > hidden_size:
            raise ValueError(
                "`gating_reduction` must be at most `hidden_size`. Received: "
                f"gating_reduction={gating_reduction}, hidden_size={hidden_size}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}")
        self.cluster_size = cluster_size
        self.expansion = expansion
        self.groups = groups
        self.hidden_size = hidden_size
        self.gating_reduction = gating_reduction
        self.dropout = dropout
        self.video_level_classifier_model = video_level_classifier_model
        self.moe_num_mixtures = moe_num_mixtures
        self.dual_normalization = dual_normalization

        self.vlads = []
        for index, (feature, identifier) in enumerate(self.identifiers.items()):
            share = 1 if index == 0 else 2
            feature_groups = max(1, groups // share)
            # Checked here, since Keras would wrap the layer's message into many lines of its own.
            if expansion * feature_sizes[feature] % feature_groups:
                raise ValueError(
                    f"{feature_groups} groups of {feature} must divide its expanded size; change "
                    f"--groups, --expansion or --feature_sizes. Received: groups={groups}, "
                    f"expansion={expansion}, feature_sizes={self.feature_sizes}"
                )
            self.vlads.append(
                NeXtVLAD(
                    max(1, cluster_size // share),
                    expansion,
                    feature_groups,
                    dual_normalization,
                    dtype=self.dtype_policy,
                    name=f"{identifier}_vlad",
                )
            )
        self.vlad_dropout = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="vlad_dropout"
        )
        self.hidden = keras.layers.Dense(
            hidden_size,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_in"),
            dtype=self.dtype_policy,
            name="hidden",
        )
        self.hidden_normalization = DualBatchNormalization(
            dual_normalization, dtype=self.dtype_policy, name="hidden_normalization"
        )
        self.gating = ContextGating(
            gating_reduction, dual_normalization, dtype=self.dtype_policy, name="gating"
        )
        self.head = build_head(
            video_level_classifier_model, num_classes, moe_num_mixtures, l2_penalty=1e-5
        )
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

        The expanded features differ from these by a linear map, and so does a class activation:
        by its bias. See `VideoClassifier.forward`.
        """
        path = {"training": training, "auxiliary_normalization": auxiliary_normalization}
        frames = self.concatenate(features, frame_mask)
        pooled = ops.concatenate(
            [
                vlad(x, frame_mask=frame_mask, **path)
                for vlad, x in zip(self.vlads, self.separate(frames), strict=True)
            ],
            axis=-1,
        )
        hidden = self.hidden(self.vlad_dropout(pooled, training=training))
        hidden = self.gating(self.hidden_normalization(hidden, **path), **path)
        return ModelOutputs(self.head(hidden), frames, {}, embedding=hidden)

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the values of the first set of normalization layers to the second."""
        for layer in (*self.vlads, self.hidden_normalization, self.gating):
            layer.copy_normalization_to_auxiliary()

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "cluster_size": self.cluster_size,
            "expansion": self.expansion,
            "groups": self.groups,
            "hidden_size": self.hidden_size,
            "gating_reduction": self.gating_reduction,
            "dropout": self.dropout,
            "video_level_classifier_model": self.video_level_classifier_model,
            "moe_num_mixtures": self.moe_num_mixtures,
            "dual_normalization": self.dual_normalization,
        }
