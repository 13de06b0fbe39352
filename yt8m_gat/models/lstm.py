"""The starter code's LstmModel: stacked LSTMs whose last state goes to a video-level head."""

from typing import Any

import keras
from keras import ops

from yt8m_gat.models.classifier_head import build_head
from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier


@keras.saving.register_keras_serializable(package="yt8m_gat")
class LstmClassifier(VideoClassifier):
    """Stacked LSTMs: the head classifies the top state at the last real frame of the clip.

    ```
    h^1 = LSTM_1(concat_m x_m),  h^l = LSTM_l(h^(l-1))      [B, T, H]
    logits = head(h^L at the last real frame)
    ```

    The forget gates' biases start at 1, as in the starter code. The starter code's L2-normalized
    frames have entries near 0.03, which move the gates by a few hundredths: the state then depends
    on the biases and hardly on the clip, and training makes no progress for a long time. Hence the
    recipe feeds dequantized frames without normalization (entries near 1) and uses a smaller
    learning rate.

    Masking: padded frames do not change the state. A clip without any real frame gets the logits
    of a zero vector.

    Args:
        feature_sizes: Feature name -> D.
        num_classes: C.
        lstm_cells: H, the size of each layer's state.
        lstm_layers: L.
        video_level_classifier_model: The head, `LogisticModel` or `MoeModel`.
        moe_num_mixtures: Experts per class of `MoeModel`.

    Raises:
        ValueError: A size is not positive, or the head is unknown.
    """

    def __init__(
        self,
        feature_sizes: dict[str, int],
        num_classes: int,
        lstm_cells: int = 1024,
        lstm_layers: int = 2,
        video_level_classifier_model: str = "MoeModel",
        moe_num_mixtures: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        for name, size in (("lstm_cells", lstm_cells), ("lstm_layers", lstm_layers)):
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
        self.lstm_cells = lstm_cells
        self.lstm_layers = lstm_layers
        self.video_level_classifier_model = video_level_classifier_model
        self.moe_num_mixtures = moe_num_mixtures
        self.lstms = [
            keras.layers.LSTM(
                lstm_cells, return_sequences=True, dtype=self.dtype_policy, name=f"lstm_{layer}"
            )
            for layer in range(lstm_layers)
        ]
        self.head = build_head(video_level_classifier_model, num_classes, moe_num_mixtures)
        self.embedding_size = lstm_cells
        self.build_all()

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs the model; the `frames` of its outputs are the top LSTM's states [B, T, H].

        The logits depend only on the state at the last real frame. See `VideoClassifier.forward`.
        """
        del auxiliary_normalization  # It has no normalization layers.
        frames = self.concatenate(features, frame_mask)
        for lstm in self.lstms:
            frames = lstm(frames, mask=frame_mask, training=training)
        if frame_mask is None:
            last = frames[:, -1]
            return ModelOutputs(self.head(last), frames, {}, embedding=last)
        frames = frames * ops.cast(ops.expand_dims(frame_mask, -1), frames.dtype)
        # The number of real frames from this one on; among real frames only the last has 1.
        remaining = ops.flip(ops.cumsum(ops.flip(ops.cast(frame_mask, "int32"), 1), axis=1), 1)
        is_last = ops.logical_and(frame_mask, ops.equal(remaining, 1))  # [B, T]
        last = ops.einsum("bth,bt->bh", frames, ops.cast(is_last, frames.dtype))
        return ModelOutputs(self.head(last), frames, {}, embedding=last)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "lstm_cells": self.lstm_cells,
            "lstm_layers": self.lstm_layers,
            "video_level_classifier_model": self.video_level_classifier_model,
            "moe_num_mixtures": self.moe_num_mixtures,
        }
