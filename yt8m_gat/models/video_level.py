"""The starter code's LogisticModel and MoeModel: a head on a video's mean features."""

from typing import Any

import keras

from yt8m_gat.models.classifier_head import build_head
from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier


@keras.saving.register_keras_serializable(package="yt8m_gat")
class VideoLevelClassifier(VideoClassifier):
    """A head on video-level features x_m [B, D_m]: `logits = head(concat_m x_m)`.

    Masking: none; video-level features have no time axis.

    Args:
        feature_sizes: Feature name -> D.
        num_classes: C.
        video_level_classifier_model: The head, `LogisticModel` or `MoeModel`.
        moe_num_mixtures: Experts per class of `MoeModel`; see `MixtureOfExperts`.

    Raises:
        ValueError: The head is unknown, or `moe_num_mixtures` is not positive.
    """

    def __init__(
        self,
        feature_sizes: dict[str, int],
        num_classes: int,
        video_level_classifier_model: str = "MoeModel",
        moe_num_mixtures: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=False, **kwargs)
        self.video_level_classifier_model = video_level_classifier_model
        self.moe_num_mixtures = moe_num_mixtures
        self.head = build_head(video_level_classifier_model, num_classes, moe_num_mixtures)
        self.build_all()

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs the model, ignoring all other arguments; see `VideoClassifier.forward`."""
        del frame_mask, training, auxiliary_normalization
        return ModelOutputs(self.head(self.concatenate(features)), None, {})

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "video_level_classifier_model": self.video_level_classifier_model,
            "moe_num_mixtures": self.moe_num_mixtures,
        }
