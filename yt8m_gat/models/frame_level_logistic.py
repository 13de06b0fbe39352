"""The starter code's FrameLevelLogisticModel: logistic regression on the mean frame."""

from typing import Any

import keras

from yt8m_gat.layers import MaskedMeanPooling
from yt8m_gat.models.classifier_head import logistic_head
from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier


@keras.saving.register_keras_serializable(package="yt8m_gat")
class FrameLevelLogisticClassifier(VideoClassifier):
    """Logistic regression: `logits = W (mean over real frames of concat_m x_m) + b`.

    Masking: padded frames do not count; a clip without any real frame gets the logits of a zero
    vector.

    Args:
        feature_sizes: Feature name -> D.
        num_classes: C.
    """

    def __init__(self, feature_sizes: dict[str, int], num_classes: int, **kwargs: Any) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        self.pooling = MaskedMeanPooling(dtype=self.dtype_policy, name="pooling")
        self.head = logistic_head(num_classes)
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
        del training, auxiliary_normalization  # It has neither dropout nor normalization layers.
        frames = self.concatenate(features, frame_mask)
        return ModelOutputs(self.head(self.pooling(frames, frame_mask=frame_mask)), frames, {})
