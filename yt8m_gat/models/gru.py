"""Bidirectional GRUs of each feature, whose states are pooled by attention."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.layers import AttentionPooling
from yt8m_gat.models.classifier_head import build_head
from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier


@keras.saving.register_keras_serializable(package="yt8m_gat")
class GruClassifier(VideoClassifier):
    """The two-stream sequence model: GRUs in both directions, attention over time, late fusion.

    ```
    s_m    = [GRU_m(x_m); GRU'_m(x_m backwards)], `gru_layers` times     [B, T, 2 H]
    v_m    = AttentionPooling(s_m)                                       [B, 2 H]
    logits = head(relu(W concat_m v_m + b))                              W [2 H M, H]
    ```

    Masking: padded frames change no state in either direction and have the weight 0. A clip without
    any real frame gets the logits of the hidden layer of a zero vector.

    Args:
        feature_sizes: Feature name -> D.
        num_classes: C.
        gru_cells: H, the size of the state of each direction, and of the hidden layer.
        gru_layers: Number of bidirectional layers.
        video_level_classifier_model: The head, `LogisticModel` or `MoeModel`.
        moe_num_mixtures: Experts per class of `MoeModel`.

    Raises:
        ValueError: A size is not positive, or the head is unknown.

    Reference: "Temporal Modeling Approaches for Large-scale Youtube-8M Video Understanding" (Li et
    al., 2017), two-stream sequence model, with GRUs for LSTMs (the paper has both). Its attention
    is read as that of Yang et al. (2016), "the one famous in NLP"; its sizes, which are not
    printed, are those of the starter code's LSTM in one layer.
    """

    def __init__(
        self,
        feature_sizes: dict[str, int],
        num_classes: int,
        gru_cells: int = 1024,
        gru_layers: int = 1,
        video_level_classifier_model: str = "LogisticModel",
        moe_num_mixtures: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        for name, size in (("gru_cells", gru_cells), ("gru_layers", gru_layers)):
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
        self.gru_cells = gru_cells
        self.gru_layers = gru_layers
        self.video_level_classifier_model = video_level_classifier_model
        self.moe_num_mixtures = moe_num_mixtures
        # One list, since Keras stores no layer of a list of lists: by feature, by layer, and both
        # directions.
        self.grus = [
            self._gru(f"{name}_{direction}_gru_{layer}", direction == "backward")
            for name in self.identifiers.values()
            for layer in range(gru_layers)
            for direction in ("forward", "backward")
        ]
        self.poolings = [
            AttentionPooling(dtype=self.dtype_policy, name=f"{name}_pooling")
            for name in self.identifiers.values()
        ]
        self.hidden = keras.layers.Dense(
            gru_cells, activation="relu", dtype=self.dtype_policy, name="hidden"
        )
        self.head = build_head(video_level_classifier_model, num_classes, moe_num_mixtures)
        self.embedding_size = gru_cells
        self.build_all()

    def _gru(self, name: str, backwards: bool) -> keras.layers.GRU:
        return keras.layers.GRU(
            self.gru_cells,
            return_sequences=True,
            go_backwards=backwards,
            dtype=self.dtype_policy,
            name=name,
        )

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs the model; the `frames` of its outputs are the states s of all features, in a row.

        See `VideoClassifier.forward`.
        """
        del auxiliary_normalization  # It has no normalization layers.
        states = []
        grus = iter(self.grus)
        for x in self.separate(self.concatenate(features, frame_mask)):
            for _ in range(self.gru_layers):
                ahead = next(grus)(x, mask=frame_mask, training=training)
                # It returns its states in the order in which it saw the frames.
                back = ops.flip(next(grus)(x, mask=frame_mask, training=training), axis=1)
                x = ops.concatenate([ahead, back], axis=-1)  # [B, T, 2 H]
                if frame_mask is not None:
                    x *= ops.cast(ops.expand_dims(frame_mask, -1), x.dtype)
            states.append(x)
        frames = states[0] if len(states) == 1 else ops.concatenate(states, axis=-1)
        parts = ops.split(frames, len(states), axis=-1)
        pooled = ops.concatenate(
            [pool(x, frame_mask=frame_mask) for pool, x in zip(self.poolings, parts, strict=True)],
            axis=-1,
        )
        embedding = self.hidden(pooled)
        return ModelOutputs(self.head(embedding), frames, {}, embedding=embedding)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "gru_cells": self.gru_cells,
            "gru_layers": self.gru_layers,
            "video_level_classifier_model": self.video_level_classifier_model,
            "moe_num_mixtures": self.moe_num_mixtures,
        }
