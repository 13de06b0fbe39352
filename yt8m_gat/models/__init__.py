"""Classifiers, built from plain arguments; one family per file."""

from yt8m_gat.models.clip import ClipClassifier
from yt8m_gat.models.dbof import DbofClassifier
from yt8m_gat.models.feature_identifiers import feature_identifiers
from yt8m_gat.models.frame_level_logistic import FrameLevelLogisticClassifier
from yt8m_gat.models.gru import GruClassifier
from yt8m_gat.models.learnable_pooling import LearnablePoolingClassifier
from yt8m_gat.models.lstm import LstmClassifier
from yt8m_gat.models.mixture_of_experts import GatedMixtureOfExperts, MixtureOfExperts
from yt8m_gat.models.next_vlad import NeXtVladClassifier
from yt8m_gat.models.registry import build_from_config, build_model
from yt8m_gat.models.transformer import TransformerClassifier
from yt8m_gat.models.video_classifier import (
    AUXILIARY_WEIGHT,
    FRAME_MASK,
    ModelOutputs,
    VideoClassifier,
)
from yt8m_gat.models.video_level import VideoLevelClassifier

__all__ = [
    "AUXILIARY_WEIGHT",
    "FRAME_MASK",
    "ClipClassifier",
    "DbofClassifier",
    "FrameLevelLogisticClassifier",
    "GatedMixtureOfExperts",
    "GruClassifier",
    "LearnablePoolingClassifier",
    "LstmClassifier",
    "MixtureOfExperts",
    "ModelOutputs",
    "NeXtVladClassifier",
    "TransformerClassifier",
    "VideoClassifier",
    "VideoLevelClassifier",
    "build_from_config",
    "build_model",
    "feature_identifiers",
]
