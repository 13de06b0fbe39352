"""Keras layers: attention over and pooling of frame features, temporal modules of raw clips."""

from yt8m_gat.layers.across_frames import AcrossFrames
from yt8m_gat.layers.attention import (
    attend,
    attend_dense,
    dense_attention_map,
    expand_attention_map,
)
from yt8m_gat.layers.attention_level import AttentionLevel
from yt8m_gat.layers.attention_pooling import AttentionPooling
from yt8m_gat.layers.context_gating import ContextGating
from yt8m_gat.layers.cross_modal_attention import CrossModalAttention
from yt8m_gat.layers.dual_batch_normalization import DualBatchNormalization
from yt8m_gat.layers.gated_map_attention import GatedMapAttention
from yt8m_gat.layers.gated_multi_level_attention import GatedMultiLevelAttention
from yt8m_gat.layers.grouped_spatiotemporal_conv import GroupedSpatiotemporalConv
from yt8m_gat.layers.masked_local_attention import MaskedLocalAttention
from yt8m_gat.layers.masked_mean import MaskedMeanPooling
from yt8m_gat.layers.net_vlad import NetVLAD
from yt8m_gat.layers.next_vlad import NeXtVLAD
from yt8m_gat.layers.normalization import LayerNormalization
from yt8m_gat.layers.positional_encoding import SinusoidalPositionalEncoding
from yt8m_gat.layers.shared_heads_attention import SharedHeadsAttention
from yt8m_gat.layers.soft_assignment import SoftAssignment
from yt8m_gat.layers.soft_bag_of_frames import SoftBagOfFrames
from yt8m_gat.layers.temporal_aggregation import TemporalAggregation
from yt8m_gat.layers.temporal_pyramid import TemporalPyramid
from yt8m_gat.layers.temporal_shift import TemporalShift
from yt8m_gat.layers.transformer_block import TransformerBlock

__all__ = [
    "AcrossFrames",
    "AttentionLevel",
    "AttentionPooling",
    "ContextGating",
    "CrossModalAttention",
    "DualBatchNormalization",
    "GatedMapAttention",
    "GatedMultiLevelAttention",
    "GroupedSpatiotemporalConv",
    "LayerNormalization",
    "MaskedLocalAttention",
    "MaskedMeanPooling",
    "NeXtVLAD",
    "NetVLAD",
    "SharedHeadsAttention",
    "SinusoidalPositionalEncoding",
    "SoftAssignment",
    "SoftBagOfFrames",
    "TemporalAggregation",
    "TemporalPyramid",
    "TemporalShift",
    "TransformerBlock",
    "attend",
    "attend_dense",
    "dense_attention_map",
    "expand_attention_map",
]
