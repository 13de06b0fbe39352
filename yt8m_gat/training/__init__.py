"""Training: the overridden `train_step`, and the loop around it."""

from yt8m_gat.training.adversarial_model import AdversarialModel
from yt8m_gat.training.distribution import (
    Distribution,
    WorkerLostError,
    build_distribution,
)
from yt8m_gat.training.follow import follow, read_state
from yt8m_gat.training.imported_callbacks import ImportedCallbacks
from yt8m_gat.training.loop import Trainer
from yt8m_gat.training.nonfinite import NonFiniteLossError
from yt8m_gat.training.objective import (
    AscentPerturbation,
    GradientPerturbation,
    Objective,
    build_objective,
    check_objective,
)
from yt8m_gat.training.optimizer import build_optimizer
from yt8m_gat.training.state import TrainingState
from yt8m_gat.training.step_update import StepTerms

__all__ = [
    "AdversarialModel",
    "AscentPerturbation",
    "Distribution",
    "GradientPerturbation",
    "ImportedCallbacks",
    "NonFiniteLossError",
    "Objective",
    "StepTerms",
    "Trainer",
    "TrainingState",
    "WorkerLostError",
    "build_distribution",
    "build_objective",
    "build_optimizer",
    "check_objective",
    "follow",
    "read_state",
]
