"""TSN, TSM, TAM, TPN and GST: residual networks on the frames of raw clips."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers import MaskedMeanPooling, TemporalPyramid
from yt8m_gat.models.backbones import (
    build_backbone,
    copy_normalization,
    with_auxiliary_normalization,
)
from yt8m_gat.models.video_classifier import FRAME_MASK, ModelOutputs, VideoClassifier


@keras.saving.register_keras_serializable(package="yt8m_gat")
class ClipClassifier(VideoClassifier):
    """Classifies T frames of a raw clip by the mean of their logits.

    ```
    F_t    = backbone(x_1, ..., x_T)_t                        [B, T, H, W, C]
    z_t    = dense(dropout(mean over H and W of F_t))         [B, T, classes]
    logits = mean over t of z_t
    ```

    Frames see each other only through the temporal modules in the backbone: without one, this is
    TSN. With `temporal_pyramid` the map that is averaged is TPN's, which pools 8 frames into one.
    In training TPN has a second, auxiliary head; its logits are in the outputs.

    Input: one feature [B, T, S, S, 3], RGB pixels in [0, 255]; the backbone's own preprocessing is
    inside.

    Masking: logits of padded frames do not count; but the temporal modules take every frame for
    real, and so does the pyramid. The reader fills short clips with real frames.

    Args:
        feature_sizes: One name -> 3, the colors.
        num_classes: Number of classes.
        num_segments: T.
        crop_size: S.
        backbone: Name or file of the network, see `build_backbone`.
        backbone_weights: See `build_backbone`. The configuration of the model does not keep it:
            what is made from that gets its weights elsewhere.
        backbone_architecture: The network of a backbone that was read from a file, as JSON; then
            the file is not needed. The configuration of the model has it.
        temporal_module: `none`, `shift` (TSM), `aggregation` (TAM), `group` (GST) or `group_large`
            (GST-Large); see `build_backbone`.
        temporal_pyramid: Whether there is a `TemporalPyramid` on the last two levels.
        dropout: Rate of the dropout before the dense layer.
        weight_decay: The L2 penalty of all kernels is half of it times their squared norm.
        single_label: Whether probabilities are a softmax over the classes, or sigmoids.
        dual_normalization: Whether there is a second set of normalization layers for an
            adversarial path (TAF), with averages of their own.
        auxiliary_head: Whether a pyramid has its auxiliary head.

    Raises:
        ValueError: An argument is out of its range or unknown.

    Reference: "Temporal Segment Networks" (Wang et al., 2016) and the papers of the layers.
    """

    def __init__(
        self,
        feature_sizes: dict[str, int],
        num_classes: int,
        num_segments: int = 8,
        crop_size: int = 224,
        backbone: str = "ResNet50",
        backbone_weights: str | None = None,
        backbone_architecture: str | None = None,
        temporal_module: str = "none",
        temporal_pyramid: bool = False,
        dropout: float = 0.5,
        weight_decay: float = 5e-4,
        single_label: bool = True,
        dual_normalization: bool = False,
        auxiliary_head: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        if list(feature_sizes.values()) != [3]:
            raise ValueError(
                "`feature_sizes` must be one feature of size 3, the colors. "
                f"Received: feature_sizes={feature_sizes}"
            )
        for name, size in (("num_segments", num_segments), ("crop_size", crop_size)):
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}")
        if weight_decay < 0:
            raise ValueError(
                f"`weight_decay` must be at least 0. Received: weight_decay={weight_decay}"
            )
        self.num_segments = num_segments
        self.crop_size = crop_size
        self.backbone = backbone
        self.temporal_module = temporal_module
        self.temporal_pyramid = temporal_pyramid
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.single_label = single_label
        self.dual_normalization = dual_normalization
        self.auxiliary_head = auxiliary_head

        self.network, self._preprocess, self.backbone_architecture = build_backbone(
            backbone,
            crop_size,
            num_segments,
            temporal_module,
            both_levels=temporal_pyramid,
            weights=backbone_weights,
            weight_decay=weight_decay,
            dtype=self.dtype_policy,
            architecture=backbone_architecture,
        )
        self.auxiliary_network = (
            with_auxiliary_normalization(self.network) if dual_normalization else None
        )
        regularizer = keras.regularizers.L2(weight_decay / 2) if weight_decay else None
        self.pyramid = None
        if temporal_pyramid:
            self.pyramid = TemporalPyramid(
                auxiliary_classes=num_classes if auxiliary_head else None,
                dual_normalization=dual_normalization,
                kernel_regularizer=regularizer,
                dtype=self.dtype_policy,
                name="pyramid",
            )
        self.dropout_layer = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.dense = keras.layers.Dense(
            num_classes,
            # The deviation with which TSN, TSM and TPN's authors draw it.
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            kernel_regularizer=regularizer,
            dtype="float32",
            name="logits",
        )
        self.consensus = MaskedMeanPooling(dtype="float32", name="consensus")
        self.build_all()
        self.embedding_size = self.dense.kernel.shape[0]

    def build_all(self, num_frames: int | None = None) -> None:
        """Creates the weights after the backbone, which has its own; a call would take a second."""
        shapes = [(None, self.num_segments, *map.shape[1:]) for map in self.network.outputs]
        if self.pyramid is not None:
            self.pyramid.build(shapes)
        self.dense.build((None, self.num_segments, shapes[-1][-1]))
        self.built = True

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs the model; the `frames` of its outputs are the backbone's last maps.

        See `VideoClassifier.forward`.
        """
        if auxiliary_normalization and not self.dual_normalization:
            raise ValueError(
                "`auxiliary_normalization` needs a model with a second set of normalization "
                "layers. Received: dual_normalization=False; construct it with "
                "dual_normalization=True"
            )
        network = self.auxiliary_network if auxiliary_normalization else self.network
        [pixels] = (features[name] for name in self.feature_sizes)
        pictures = ops.reshape(pixels, (-1, self.crop_size, self.crop_size, 3))
        maps = network(self._preprocess(pictures), training=training)
        # [B, T, H, W, C] of each level
        levels = [
            ops.reshape(level, (-1, self.num_segments, *level.shape[1:]))
            for level in keras.tree.flatten(maps)
        ]
        frames = fused = levels[-1]
        auxiliary_logits = None
        if self.pyramid is not None:
            with_head = training and self.auxiliary_head
            fused = self.pyramid(
                tuple(levels),
                training=training,
                auxiliary_normalization=auxiliary_normalization,
                return_auxiliary_logits=with_head,
            )
            if with_head:
                fused, auxiliary_logits = fused
            frame_mask = None  # Its frames are no longer those of the clip.
        pooled = ops.mean(fused, axis=(2, 3))
        logits = self.dense(self.dropout_layer(pooled, training=training))
        logits = self.consensus(logits, frame_mask=frame_mask)
        # The mean of the frames' logits is the dense layer's answer to the mean of the frames.
        embedding = self.consensus(pooled, frame_mask=frame_mask)
        return ModelOutputs(logits, frames, {}, auxiliary_logits, embedding)

    @property
    def exclusive_classes(self) -> bool:
        """Whether probabilities are a softmax; see `single_label`."""
        return self.single_label

    def symbolic_inputs(self, num_frames: int | None = None) -> dict[str, keras.KerasTensor]:
        """Returns Keras inputs for this model, whose number of frames is fixed."""
        [name] = self.feature_sizes
        shape = (self.num_segments, self.crop_size, self.crop_size, 3)
        return {
            name: keras.Input(shape, name=self.identifiers[name], dtype="float32"),
            FRAME_MASK: keras.Input((self.num_segments,), name=FRAME_MASK, dtype="bool"),
        }

    @property
    def training_options(self) -> dict[str, Any]:
        """Also the auxiliary head; see `VideoClassifier`."""
        head = self.temporal_pyramid and self.auxiliary_head
        return {**super().training_options, **({"auxiliary_head": False} if head else {})}

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the values of the first set of normalization layers to the second."""
        copy_normalization(self.network, self.auxiliary_network)
        if self.pyramid is not None:
            self.pyramid.copy_normalization_to_auxiliary()

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments but `backbone_weights`."""
        return {
            **super().get_config(),
            "num_segments": self.num_segments,
            "crop_size": self.crop_size,
            "backbone": self.backbone,
            "backbone_architecture": self.backbone_architecture,
            "temporal_module": self.temporal_module,
            "temporal_pyramid": self.temporal_pyramid,
            "dropout": self.dropout,
            "weight_decay": self.weight_decay,
            "single_label": self.single_label,
            "dual_normalization": self.dual_normalization,
            "auxiliary_head": self.auxiliary_head,
        }
