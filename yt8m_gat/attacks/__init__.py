"""Perturbations of clips: balls, attacks, augmentation and natural corruptions."""

from yt8m_gat.attacks.adaptive import AdaptivePGD
from yt8m_gat.attacks.apgd import APGD
from yt8m_gat.attacks.attack import (
    Attack,
    AttackResult,
    PassCount,
    Problem,
    loss_and_gradients,
    top1_is_label,
    top1_missed,
)
from yt8m_gat.attacks.auto import AutoAttack
from yt8m_gat.attacks.ball import NORMS, SCOPES, Ball, mask_frames
from yt8m_gat.attacks.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corruptions_of
from yt8m_gat.attacks.deepfool import DeepFool
from yt8m_gat.attacks.fast_gradient import FastGradient
from yt8m_gat.attacks.feature_space import PIXEL_LEVELS, PIXEL_RANGE, clip_features
from yt8m_gat.attacks.gradient_free import RandomSearch, SquareSearch
from yt8m_gat.attacks.hop_skip_jump import HopSkipJump
from yt8m_gat.attacks.noise import RandomNoise
from yt8m_gat.attacks.objectives import (
    CRITERIA,
    OBJECTIVE_LOSSES,
    OBJECTIVES,
    Criterion,
    dlr_loss,
    margin_loss,
    normalized_loss,
)
from yt8m_gat.attacks.pgd import PGD
from yt8m_gat.attacks.recorded_pass import RecordedPass
from yt8m_gat.attacks.registry import (
    ATTACKS,
    ATTACKS_OF_ONE_RADIUS,
    ATTACKS_WITHOUT_EPSILON,
    AttackOptions,
    build_attack,
)
from yt8m_gat.attacks.sparse import SparseFrames
from yt8m_gat.attacks.temporal import (
    QUANTIZATION_LEVEL,
    TemporalAugmentation,
    frame_activation,
    target_labels,
)
from yt8m_gat.attacks.transfer import Transfer

__all__ = [
    "APGD",
    "ATTACKS",
    "ATTACKS_OF_ONE_RADIUS",
    "ATTACKS_WITHOUT_EPSILON",
    "CORRUPTIONS",
    "CRITERIA",
    "NORMS",
    "OBJECTIVES",
    "OBJECTIVE_LOSSES",
    "PGD",
    "PIXEL_LEVELS",
    "PIXEL_RANGE",
    "QUANTIZATION_LEVEL",
    "SCOPES",
    "SEVERITIES",
    "AdaptivePGD",
    "Attack",
    "AttackOptions",
    "AttackResult",
    "AutoAttack",
    "Ball",
    "Criterion",
    "DeepFool",
    "FastGradient",
    "HopSkipJump",
    "PassCount",
    "Problem",
    "RandomNoise",
    "RandomSearch",
    "RecordedPass",
    "SparseFrames",
    "SquareSearch",
    "TemporalAugmentation",
    "Transfer",
    "build_attack",
    "clip_features",
    "corrupt",
    "corruptions_of",
    "dlr_loss",
    "frame_activation",
    "loss_and_gradients",
    "margin_loss",
    "mask_frames",
    "normalized_loss",
    "target_labels",
    "top1_is_label",
    "top1_missed",
]
