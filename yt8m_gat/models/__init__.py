"""Classifiers: builders from plain arguments, one family a file."""

from yt8m_gat.models.load import build_from_config, load_classifier
from yt8m_gat.models.registry import build_model
from yt8m_gat.models.transformer import TransformerClassifier
from yt8m_gat.models.video_classifier import FRAME_MASK, ModelOutputs, VideoClassifier

__all__ = [
    "FRAME_MASK",
    "ModelOutputs",
    "TransformerClassifier",
    "VideoClassifier",
    "build_from_config",
    "build_model",
    "load_classifier",
]
