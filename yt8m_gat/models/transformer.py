"""The papers' classifier: Transformer blocks per modality, late fusion, mean over time."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from yt8m_gat.layers import (
    CrossModalAttention,
    GatedMapAttention,
    GatedMultiLevelAttention,
    MaskedMeanPooling,
    SharedHeadsAttention,
    SinusoidalPositionalEncoding,
    TransformerBlock,
)
from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier

FUSIONS = ("operations", "maps", "heads")
ATTENTIONS = ("learned", "uniform")

BLOCKWISE_FRAMES = 1000
"""Clips of more frames have attention without global maps, where nobody reads or drops out any.

A map of 8 heads then has 32 MB a clip and feature, and more with the square of the frames. Below, a
step with maps is faster; see docs/PERFORMANCE.md. The graph does not know a clip's length, and a
choice in the graph would keep the passes of an adversarial step apart: hence by `max_frames`.
"""


@keras.saving.register_keras_serializable(package="yt8m_gat")
class TransformerClassifier(VideoClassifier):
    """Positional encoding and Transformer blocks per modality, then late fusion.

    ```
    F_m    = Block_m(X_m + PE)                    [B, T, D_m]   `num_layers` per modality m
    F      = concat_m F_m                         [B, T, sum D_m]
    logits = Dense(relu(Dense(mean over real frames of F)))
    ```

    `fusion` chooses how global and local attention are combined:

    * `operations`: `GatedMultiLevelAttention`, gates on the outputs (GMSA, GateOp). Without local
      masks it is plain self-attention (SA).
    * `maps`: `GatedMapAttention`, gates on the attention maps (GateAtt); its weights are T x T, so
      the model pads (or cuts) all clips to `max_frames` frames.
    * `heads`: `SharedHeadsAttention`, half of the heads local (ShareAtt).

    Masking: padded frames are never attended to, are zero in the block's output, and are not
    counted in the mean. A clip without any real frame gets the logits of a zero vector.

    Args:
        feature_sizes: Feature name -> D; each must be divisible by `num_heads`.
        num_classes: C.
        max_frames: T of `fusion="maps"`; the others accept any T. Where it is above
            `BLOCKWISE_FRAMES`, attention is `blockwise` (see `attend`).
        num_heads: Attention heads per modality.
        local_masks: Local levels in flag form (`bd20`, `tp30`, `td60x4`), or `global` for a
            second global expert.
        global_attention: Whether there is a global level before the local ones.
        fusion: See above.
        renormalize: With `fusion="maps"`: whether to divide gated maps by their row sums.
        attention: `learned`, or `uniform`, which fixes every map to the uniform one: the ablation
            that shows what an attention penalty adds to a map that cannot move.
        hidden_size: Units of the hidden layer.
        feed_forward_size: Width of the blocks' feed-forward layers; None: D of each modality.
        dropout: Dropout rate inside the blocks and after the hidden layer. The papers give none.
        dual_normalization: Whether each block has a second set of normalization layers (TAF).
        num_layers: Blocks of each modality, one after another; the papers have one. The attention
            maps of the outputs, which penalties and reports read, are those of the last.
        pre_norm: Whether the blocks normalize before attention and feed-forward, and once at the
            end, not after each.
        cross_modal: Whether each F_m then attends to the frames of the other modalities
            (`CrossModalAttention`), all from the outputs of the blocks. It has no maps among the
            outputs.

    Reference: GAT section 3 and 4.1; local temporal section 2 and 3. Layer sizes that the papers
    do not give follow from the model sizes they report (12,824,342 parameters for SA).
    """

    def __init__(
        self,
        feature_sizes: dict[str, int],
        num_classes: int,
        max_frames: int = 300,
        num_heads: int = 8,
        local_masks: Sequence[str] = (),
        global_attention: bool = True,
        fusion: str = "operations",
        renormalize: bool = False,
        attention: str = "learned",
        hidden_size: int = 1280,
        feed_forward_size: int | None = None,
        dropout: float = 0.0,
        dual_normalization: bool = False,
        num_layers: int = 1,
        pre_norm: bool = False,
        cross_modal: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        if num_layers < 1:
            raise ValueError(f"`num_layers` must be positive. Received: num_layers={num_layers}")
        if fusion not in FUSIONS:
            raise ValueError(f"`fusion` must be one of {FUSIONS}. Received: fusion={fusion!r}")
        if attention not in ATTENTIONS:
            raise ValueError(
                f"`attention` must be one of {ATTENTIONS}. Received: attention={attention!r}"
            )
        if hidden_size < 1:
            raise ValueError(f"`hidden_size` must be positive. Received: hidden_size={hidden_size}")
        self.max_frames = max_frames
        self.num_heads = num_heads
        self.local_masks = tuple(local_masks)
        self.global_attention = global_attention
        self.fusion = fusion
        self.renormalize = renormalize
        self.attention = attention
        self.hidden_size = hidden_size
        self.feed_forward_size = feed_forward_size
        self.dropout = dropout
        self.dual_normalization = dual_normalization
        self.num_layers = num_layers
        self.pre_norm = pre_norm
        self.cross_modal = cross_modal
        if cross_modal and len(self.feature_sizes) < 2:
            raise ValueError(
                "`cross_modal` needs at least two features, one to attend to the other. "
                f"Received: feature_sizes={self.feature_sizes}"
            )
        if not global_attention and fusion != "operations":
            raise ValueError(
                f"`fusion={fusion!r}` needs the global level. Received: global_attention=False"
            )
        if fusion == "maps" and attention == "uniform":
            raise ValueError("`attention='uniform'` leaves nothing to gate with `fusion='maps'`")
        if not global_attention and not self.local_masks:
            raise ValueError("without `global_attention` at least one of `local_masks` is needed")

        self.positional_encoding = SinusoidalPositionalEncoding(
            dtype=self.dtype_policy, name="positional_encoding"
        )
        self.blocks = [
            TransformerBlock(
                self._attention_layer(),
                feed_forward_size=feed_forward_size,
                dropout=dropout,
                dual_normalization=dual_normalization,
                pre_norm=pre_norm,
                normalize_output=pre_norm and layer == num_layers - 1,
                dtype=self.dtype_policy,
                name=f"{identifier}_block" + (f"_{layer + 1}" if layer else ""),
            )
            for identifier in self.identifiers.values()
            for layer in range(num_layers)
        ]
        self.cross_modal_layers = [
            CrossModalAttention(
                num_heads,
                dropout,
                blockwise=max_frames > BLOCKWISE_FRAMES,
                dtype=self.dtype_policy,
                name=f"{identifier}_cross_modal",
            )
            for identifier in (self.identifiers.values() if cross_modal else ())
        ]
        self.pooling = MaskedMeanPooling(dtype=self.dtype_policy, name="pooling")
        self.hidden = keras.layers.Dense(
            hidden_size, activation="relu", dtype=self.dtype_policy, name="hidden"
        )
        self.hidden_dropout = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="hidden_dropout"
        )
        # float32, so that mixed precision never rounds a logit.
        self.output_layer = keras.layers.Dense(num_classes, dtype="float32", name="logits")
        # Checked here, since Keras would wrap the layers' message into many lines of its own.
        if any(size % num_heads for size in self.feature_sizes.values()):
            raise ValueError(
                "`num_heads` must divide the size of each feature; change --num_heads or "
                f"--feature_sizes. Received: num_heads={num_heads}, "
                f"feature_sizes={self.feature_sizes}"
            )
        self.embedding_size = hidden_size
        self.build_all(max_frames if fusion == "maps" else None)

    def _attention_layer(self) -> keras.Layer:
        uniform = self.attention == "uniform"
        shared = {"dropout": self.dropout, "dtype": self.dtype_policy, "name": "attention"}
        if self.fusion == "maps":
            if len(self.local_masks) != 1:
                raise ValueError(
                    "`fusion='maps'` gates one local map against the global one. "
                    f"Received: local_masks={self.local_masks}"
                )
            return GatedMapAttention(
                self.num_heads,
                self.local_masks[0],
                max_frames=self.max_frames,
                renormalize=self.renormalize,
                **shared,
            )
        shared |= {"uniform": uniform, "blockwise": self.max_frames > BLOCKWISE_FRAMES}
        if self.fusion == "heads":
            return SharedHeadsAttention(self.num_heads, self.local_masks, **shared)
        levels = (("global",) if self.global_attention else ()) + self.local_masks
        return GatedMultiLevelAttention(self.num_heads, levels, **shared)

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
        return_attention_maps: bool = True,
    ) -> ModelOutputs:
        """Runs the model; the `frames` of its outputs are F. See `VideoClassifier.forward`.

        Without `return_attention_maps` there are none, and a `blockwise` attention keeps none.
        """
        encode = self._encode
        if self.fusion == "maps":
            encode, frame_mask = self._encode_fixed, frame_mask[:, : self.max_frames]
        frames, attention_maps = encode(
            features, frame_mask, training, auxiliary_normalization, return_attention_maps
        )
        embedding = self.embed(frames, frame_mask)
        logits = self._logits(embedding, training)
        return ModelOutputs(logits, frames, attention_maps, embedding=embedding)

    def forward_without_maps(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs the model without returning attention maps; see `VideoClassifier`."""
        return self.forward(
            features, frame_mask, training, auxiliary_normalization, return_attention_maps=False
        )

    def _encode_fixed(
        self,
        features: dict[str, Any],
        frame_mask: Any,
        training: bool,
        auxiliary_normalization: bool,
        return_attention_maps: bool,
    ) -> tuple[Any, dict[str, dict[str, Any]]]:
        """Encodes clips padded to (or cut at) `max_frames`, and cuts the outputs back to T."""
        batch_size, num_frames = ops.shape(frame_mask)

        def fixed(x: Any) -> Any:
            rest = ops.zeros((ops.shape(x)[0], self.max_frames, *x.shape[2:]), x.dtype)
            longer = ops.concatenate([x, rest], axis=1)[:, : self.max_frames]
            return ops.reshape(longer, (-1, self.max_frames, *x.shape[2:]))

        frames, attention_maps = self._encode(
            {name: fixed(value) for name, value in features.items()},
            fixed(frame_mask),
            training,
            auxiliary_normalization,
            return_attention_maps,
        )
        maps = {
            name: {level: a[..., :num_frames, :num_frames] for level, a in levels.items()}
            for name, levels in attention_maps.items()
        }
        # Not frames[:, :T]: its gradient is many times slower than that of slice.
        return ops.slice(frames, (0, 0, 0), (batch_size, num_frames, frames.shape[2])), maps

    def _encode(
        self,
        features: dict[str, Any],
        frame_mask: Any,
        training: bool,
        auxiliary_normalization: bool,
        return_attention_maps: bool,
    ) -> tuple[Any, dict[str, dict[str, Any]]]:
        """Computes contextual frames F [B, T, sum D_m] and attention maps; see `ModelOutputs`."""
        frames, attention_maps = [], {}
        options = {
            "frame_mask": frame_mask,
            "training": training,
            "auxiliary_normalization": auxiliary_normalization,
        }
        for index, name in enumerate(self.feature_sizes):
            encoded = self.positional_encoding(features[name])
            *earlier, last = self.blocks[index * self.num_layers :][: self.num_layers]
            for block in earlier:
                encoded = block(encoded, **options)
            encoded = last(encoded, return_attention_maps=return_attention_maps, **options)
            if return_attention_maps:
                encoded, maps = encoded
                attention_maps[name] = dict(zip(self.attention_levels, maps, strict=True))
            frames.append(encoded)
        if self.cross_modal:
            frames = [
                layer(
                    own,
                    ops.concatenate([other for other in frames if other is not own], axis=-1),
                    frame_mask=frame_mask,
                    training=training,
                )
                for layer, own in zip(self.cross_modal_layers, frames, strict=True)
            ]
        frames = frames[0] if len(frames) == 1 else ops.concatenate(frames, axis=-1)
        return frames, attention_maps

    def classify(self, frames: Any, frame_mask: Any, training: bool = False) -> Any:
        """Computes logits [B, C] from contextual frames F [B, T, sum D_m]."""
        return self._logits(self.embed(frames, frame_mask), training)

    def embed(self, frames: Any, frame_mask: Any) -> Any:
        """Computes the clips' embeddings [B, hidden size] from contextual frames."""
        return self.hidden(self.pooling(frames, frame_mask=frame_mask))

    def _logits(self, embedding: Any, training: bool) -> Any:
        return self.output_layer(self.hidden_dropout(embedding, training=training))

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the values of the first set of normalization layers to the second."""
        for block in self.blocks:
            block.copy_normalization_to_auxiliary()

    @property
    def has_square_maps(self) -> bool:
        """True with `fusion="maps"`, whose gates mix maps of the [T, T] form."""
        return self.fusion == "maps"

    @property
    def has_costly_maps(self) -> bool:
        """True where attention is blockwise and has global maps that no gate needs."""
        is_blockwise = self.max_frames > BLOCKWISE_FRAMES and self.fusion != "maps"
        return is_blockwise and "global" in self.attention_levels

    @property
    def attention_levels(self) -> tuple[str, ...]:
        """See `VideoClassifier`; all features have the same levels."""
        return self.blocks[0].attention.map_names

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "max_frames": self.max_frames,
            "num_heads": self.num_heads,
            "local_masks": list(self.local_masks),
            "global_attention": self.global_attention,
            "fusion": self.fusion,
            "renormalize": self.renormalize,
            "attention": self.attention,
            "hidden_size": self.hidden_size,
            "feed_forward_size": self.feed_forward_size,
            "dropout": self.dropout,
            "dual_normalization": self.dual_normalization,
            "num_layers": self.num_layers,
            "pre_norm": self.pre_norm,
            "cross_modal": self.cross_modal,
        }
