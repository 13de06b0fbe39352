"""The neck of TPN: two levels of a residual network, fused over space and time."""

import math
from typing import Any

import keras
from keras import ops

from yt8m_gat.layers.neighbouring_frames import next_frames, previous_frames
from yt8m_gat.layers.seeding import derive_seed

Tensor = Any

# PyTorch's batch normalization, which the authors use, has these.
_MOMENTUM, _EPSILON = 0.9, 1e-5


@keras.saving.register_keras_serializable(package="yt8m_gat")
class TemporalPyramid(keras.Layer):
    """Fuses the last two levels of a residual network, top down and bottom up.

    With res4 [B, T, 2 H, 2 W, C / 2], res5 [B, T, H, W, C] and N(x) = relu(BN(x)):

        s4, s5   = N(conv_{3 x 3, stride 2}(res4)), res5          spatial modulation, C channels
        m_i      = max pool over time(conv_{3 x 1 x 1}(s_i))      temporal modulation, C / 2
        m4       = m4 + m5                                        top down
        top      = fuse(m4, m5)
        m5       = m5 + conv_{3 x 1 x 1}(m4)                      bottom up
        bottom   = fuse'(m4, m5)
        y        = N(conv_{1 x 1}(concat(top, bottom)))

    where fuse(a, b) = N(conv_{1 x 1}(concat(N(conv_{1 x 1}(a)), N(conv_{1 x 1}(b))))). The
    convolutions of the temporal modulation, and the first ones of a fusion, are in groups. The
    bottom-up flow starts from the result of the top-down flow, as in the authors' code. (The
    paper's figure shows them side by side.)

    An auxiliary head on res4 helps in training and is dropped afterwards:

        z = dense(dropout(mean over T, H, W of N(conv_{3 x 3, stride 2}(res4))))

    Masking: there is none; every frame counts as real.

    Args:
        groups: Groups of the convolutions in groups.
        temporal_pool: Frames that the temporal modulation pools. The last group of frames may be
            smaller.
        auxiliary_classes: Number of outputs of the auxiliary head; None: there is no such head.
        dropout: Dropout rate of the auxiliary head.
        dual_normalization: Whether there is a second set of normalization layers for an auxiliary
            (adversarial) path that shares everything else.
        kernel_regularizer: Regularizer of all kernels.
        seed: Integer for the dropout; None: the global seed of Keras.

    Call arguments:
        levels: (res4, res5), float [B, T, H_4, W_4, C_4] and [B, T, H, W, C] of the same T. C must
            be C_4 times a power of two, one stride-2 convolution for each.
        training: Whether to use batch statistics and dropout.
        auxiliary_normalization: Whether to use the second set of normalization layers.
        return_auxiliary_logits: Whether to return those of the auxiliary head too.

    Returns:
        float [B, ceil(T / temporal_pool), H, W, C]; with `return_auxiliary_logits` also float32
        [B, auxiliary_classes].

    Raises:
        ValueError: An argument is out of its range, the levels do not fit, or something is
            requested that the layer was not constructed with.

    Reference:
        "Temporal Pyramid Network for Action Recognition" (Yang et al., 2020), and the authors'
        configuration of TSM + TPN for Something-Something.

    Examples:
        >>> import numpy as np
        >>> from yt8m_gat.layers import TemporalPyramid
        >>> levels = np.zeros((1, 8, 4, 4, 32), "float32"), np.zeros((1, 8, 2, 2, 64), "float32")
        >>> TemporalPyramid()(levels).shape
        TensorShape([1, 1, 2, 2, 64])
    """

    def __init__(
        self,
        groups: int = 32,
        temporal_pool: int = 8,
        auxiliary_classes: int | None = None,
        dropout: float = 0.5,
        dual_normalization: bool = False,
        kernel_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        sizes = {"groups": groups, "temporal_pool": temporal_pool}
        if auxiliary_classes is not None:
            sizes["auxiliary_classes"] = auxiliary_classes
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}")
        self.groups = groups
        self.temporal_pool = temporal_pool
        self.auxiliary_classes = auxiliary_classes
        self.dropout = dropout
        self.dual_normalization = dual_normalization
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed

    def build(self, input_shape: tuple[tuple[int | None, ...], ...]) -> None:
        """Creates all parts; the names follow the formulas of the class."""
        (_, num_frames, *_, below), (_, _, *_, channels) = input_shape
        width = channels // 2
        if num_frames is None:
            raise ValueError("the number of frames must be known. Received: levels [B, None, ...]")
        if channels % below or (channels // below) & (channels // below - 1):
            raise ValueError(
                "the channels of the last level must be those of the one before it times a power "
                f"of two. Received: {below} and {channels}. Take a network whose stages double "
                "their channels"
            )
        if width % self.groups:
            raise ValueError(
                "`groups` must divide half the channels of the last level. Received: "
                f"groups={self.groups}, {channels} channels. Take a network whose last map has a "
                f"multiple of {2 * self.groups} channels, or other `groups`"
            )
        self.normalizations: dict[str, keras.layers.BatchNormalization] = {}
        self.auxiliary_normalizations: dict[str, keras.layers.BatchNormalization] = {}
        self.spatial = [
            self._spatial_conv(below * 2**i, f"spatial_{i}")
            for i in range(int(math.log2(channels // below)))
        ]
        self.temporal = [
            self._pointwise(channels, width, f"temporal_{level}", self.groups, taps=3)
            for level in ("res4", "res5")
        ]
        self.bottom_up = self._pointwise(width, width, "bottom_up", taps=3)
        self.level_convs: dict[str, list[_PointwiseConv]] = {}
        self.fusion_convs: dict[str, _PointwiseConv] = {}
        for flow in ("top_down", "bottom_up"):
            self.level_convs[flow] = [
                self._pointwise(width, width, f"{flow}_{level}", self.groups)
                for level in ("res4", "res5")
            ]
            self.fusion_convs[flow] = self._pointwise(2 * width, channels, f"{flow}_fusion")
            for level in ("res4", "res5"):
                self._add_normalization(f"{flow}_{level}", width)
            self._add_normalization(f"{flow}_fusion", channels)
        self.pyramid_fusion = self._pointwise(2 * channels, channels, "pyramid_fusion")
        self._add_normalization("pyramid_fusion", channels)
        if self.auxiliary_classes is not None:
            self._build_auxiliary_head(below)

    def _build_auxiliary_head(self, channels: int) -> None:
        self.auxiliary_conv = self._spatial_conv(channels, "auxiliary_head")
        self._auxiliary_dropout = keras.layers.Dropout(
            self.dropout,
            seed=derive_seed(self.seed, "auxiliary_head_dropout"),
            dtype=self.dtype_policy,
            name="auxiliary_head_dropout",
        )
        self.auxiliary_dense = keras.layers.Dense(
            self.auxiliary_classes,
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=0.01, seed=derive_seed(self.seed, "auxiliary_head_logits")
            ),
            kernel_regularizer=self.kernel_regularizer,
            dtype="float32",
            name="auxiliary_head_logits",
        )
        self.auxiliary_dense.build((None, 2 * channels))

    def _spatial_conv(self, channels: int, name: str) -> keras.layers.Conv2D:
        """Makes a 3 x 3 convolution of stride 2 that doubles the channels, and its BN."""
        conv = keras.layers.Conv2D(
            2 * channels,
            3,
            strides=2,
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=keras.initializers.GlorotUniform(derive_seed(self.seed, name)),
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=name,
        )
        conv.build((None, None, None, channels))
        self._add_normalization(name, 2 * channels)
        return conv

    def _pointwise(
        self, channels: int, filters: int, name: str, groups: int = 1, taps: int = 1
    ) -> "_PointwiseConv":
        conv = _PointwiseConv(
            filters,
            groups,
            taps,
            kernel_initializer=keras.initializers.GlorotUniform(derive_seed(self.seed, name)),
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=name,
        )
        conv.build((None, None, None, None, channels))
        return conv

    def _add_normalization(self, name: str, channels: int) -> None:
        sets = [("normalization", self.normalizations)]
        if self.dual_normalization:
            sets.append(("auxiliary_normalization", self.auxiliary_normalizations))
        for suffix, normalizations in sets:
            normalizations[name] = keras.layers.BatchNormalization(
                momentum=_MOMENTUM,
                epsilon=_EPSILON,
                dtype=self.dtype_policy,
                name=f"{name}_{suffix}",
            )
            normalizations[name].build((None, None, None, None, channels))

    def call(
        self,
        levels: tuple[Tensor, Tensor],
        training: bool | None = None,
        auxiliary_normalization: bool = False,
        return_auxiliary_logits: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Fuses the levels; see the class."""
        if auxiliary_normalization and not self.dual_normalization:
            raise ValueError(
                "`auxiliary_normalization` needs a layer with a second set of normalization "
                "layers. Received: dual_normalization=False; construct it with "
                "dual_normalization=True"
            )
        if return_auxiliary_logits and self.auxiliary_classes is None:
            raise ValueError(
                "`return_auxiliary_logits` needs an auxiliary head. Received: "
                "auxiliary_classes=None; construct it with their number"
            )
        normalizations = (
            self.auxiliary_normalizations if auxiliary_normalization else self.normalizations
        )

        def normalize(x: Tensor, name: str) -> Tensor:
            return ops.relu(normalizations[name](x, training=training))

        def convolve(conv: keras.layers.Conv2D, x: Tensor) -> Tensor:
            """Convolves the pictures of [B, T, H, W, C], padded alike on all sides."""
            pictures = ops.reshape(x, (-1, *ops.shape(x)[2:]))
            y = conv(ops.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0))))
            return normalize(ops.reshape(y, (-1, ops.shape(x)[1], *ops.shape(y)[1:])), conv.name)

        def fuse(flow: str, *levels: Tensor) -> Tensor:
            parts = [
                normalize(conv(level), conv.name)
                for conv, level in zip(self.level_convs[flow], levels, strict=True)
            ]
            fused = self.fusion_convs[flow](ops.concatenate(parts, axis=-1))
            return normalize(fused, f"{flow}_fusion")

        res4, res5 = levels
        modulated = res4
        for conv in self.spatial:
            modulated = convolve(conv, modulated)
        res4_level, res5_level = (
            self._pool(conv(level))
            for conv, level in zip(self.temporal, (modulated, res5), strict=True)
        )
        res4_level = res4_level + res5_level
        top = fuse("top_down", res4_level, res5_level)
        res5_level = res5_level + self.bottom_up(res4_level)
        bottom = fuse("bottom_up", res4_level, res5_level)
        fused = self.pyramid_fusion(ops.concatenate([top, bottom], axis=-1))
        fused = normalize(fused, "pyramid_fusion")
        if not return_auxiliary_logits:
            return fused
        pooled = ops.mean(convolve(self.auxiliary_conv, res4), axis=(1, 2, 3))
        return fused, self.auxiliary_dense(self._auxiliary_dropout(pooled, training=training))

    def _pool(self, x: Tensor) -> Tensor:
        """Takes the largest of each `temporal_pool` frames in a row; x: [B, T, H, W, C]."""
        num_frames, size = x.shape[1], min(self.temporal_pool, x.shape[1])
        missing = -num_frames % size
        if missing:  # Repeated, the last frame does not change the maximum of its group.
            x = ops.concatenate([x, *[x[:, -1:]] * missing], axis=1)
        groups = (num_frames + missing) // size
        return ops.max(ops.reshape(x, (-1, groups, size, *ops.shape(x)[2:])), axis=2)

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the values of the first set of normalization layers to the second."""
        for name, auxiliary in self.auxiliary_normalizations.items():
            auxiliary.set_weights(self.normalizations[name].get_weights())

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "groups": self.groups,
            "temporal_pool": self.temporal_pool,
            "auxiliary_classes": self.auxiliary_classes,
            "dropout": self.dropout,
            "dual_normalization": self.dual_normalization,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }


class _PointwiseConv(keras.Layer):
    """A 1 x 1 x 1 (one tap) or 3 x 1 x 1 (three taps) convolution in groups, without bias.

    It is a product of matrices: TensorFlow has no convolutions in groups on CPUs.
    """

    def __init__(
        self,
        filters: int,
        groups: int,
        taps: int,
        kernel_initializer: Any,
        kernel_regularizer: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.groups = groups
        self.taps = taps
        self.kernel_initializer = kernel_initializer
        self.kernel_regularizer = kernel_regularizer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the kernel [taps, C / groups, filters], in the layout of Keras' Conv1D."""
        self.kernel = self.add_weight(
            shape=(self.taps, input_shape[-1] // self.groups, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )

    def call(self, x: Tensor) -> Tensor:
        """Convolves [B, T, H, W, C] to [B, T, H, W, filters]."""
        taps = [previous_frames(x), x, next_frames(x)] if self.taps == 3 else [x]
        shape = ops.shape(x)[:-1]
        size = x.shape[-1] // self.groups
        # [B, T, H, W, groups, taps * C / groups]
        grouped = ops.concatenate(
            [ops.reshape(tap, (*shape, self.groups, size)) for tap in taps], axis=-1
        )
        kernel = ops.reshape(
            self.kernel, (self.taps * size, self.groups, self.filters // self.groups)
        )
        y = ops.einsum("bthwgc,cgf->bthwgf", grouped, kernel)
        return ops.reshape(y, (*shape, self.filters))
