"""The recipes: what `--model=NAME` stands for.

They are here and not beside their builders because the commands need their names and defaults
before Keras is imported. Standard library only.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What `--model=NAME` stands for: an architecture, its defaults and its default objective.

    Attributes:
        family: Key of the builder in `yt8m_gat.models.registry.BUILDERS`.
        options: Arguments of that builder that define this recipe.
        adversarial: Default of `--adversarial`.
        frame_level: Whether the model reads frames (or a video's mean features); None: as
            `DataConfig.frame_features` is set.
        clips: Whether it reads raw clips, not features.
        defaults: The recipe's own defaults of fields of `DataConfig`, `ObjectiveConfig` and
            `TrainingConfig`; flags override them.
        source: The paper, and the place in it, that the recipe comes from.
    """

    family: str
    source: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    adversarial: str = "none"
    frame_level: bool | None = True
    clips: bool = False
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dual_normalization(self) -> bool:
        """Whether the builder has this option, because the architecture normalizes."""
        return self.family in ("transformer", "dbof", "learnable_pooling", "next_vlad", "clip")

    def defaults_of(self, section: type) -> dict[str, Any]:
        """Returns those of `defaults` that are fields of the configuration class `section`."""
        names = {field.name for field in dataclasses.fields(section)}
        return {name: value for name, value in self.defaults.items() if name in names}


# The starter code's flags: its l2 normalization, loss and clipping, and its learning rate.
_STARTER: dict[str, Any] = {
    "normalize": "concat",
    "class_reduction": "sum",
    "base_learning_rate": 0.01,
    "learning_rate_decay": 0.95,
    "clip_gradient_norm": 1.0,
}
# What the authors' scripts of NetVLAD and NeXtVLAD change: the batch is that of one device.
_KAGGLE: dict[str, Any] = {
    **_STARTER,
    "base_learning_rate": 2e-4,
    "learning_rate_decay": 0.8,
    "batch_size": 80,
}
_WILLOW = "Learnable pooling with Context Gating (Miech, Laptev and Sivic, 2017)"
# Also its batch size, where a video is one vector. (Frame-level models keep 64: the features of
# 1024 clips of 300 frames take 1.4 GB.)
_STARTER_VIDEO: dict[str, Any] = {
    **_STARTER,
    "feature_names": ("mean_rgb", "mean_audio"),
    "batch_size": 1024,
}

# TSN's protocol for Something-Something, as TSM, TAF and the others use it: softmax cross-entropy
# ("sum" is its usual reduction) and SGD by a schedule. TAF's perturbations are in levels of pixels;
# an l2 norm of 400 is about one level a value at 224 x 224. The shuffle buffer holds whole clips,
# of 1 MB and more.
_CLIPS: dict[str, Any] = {
    "label_loss": "SoftmaxLoss",
    "class_reduction": "sum",
    "epsilon": 400.0,
    "temporal_epsilon": 64.0,
    "optimizer": "SGD",
    "momentum": 0.9,
    "base_learning_rate": 0.01,
    "num_epochs": 50,
    "drop_epochs": (20, 40),
    "clip_global_norm": 20.0,
    "early_stopping_patience": 0,
    "plateau_patience": 0,
    "shuffle_buffer": 256,
}


def _clip_recipe(source: str, **options: Any) -> Recipe:
    return Recipe("clip", source, options, clips=True, defaults=_CLIPS)


ENSEMBLE = "Ensemble"
"""The model of a run of `yt8m-gat ensemble`, which cannot be trained and so is no recipe."""

RECIPES: dict[str, Recipe] = {
    "Transformer": Recipe("transformer", "GAT, eq. 1 (SA); Non-ART; Baseline"),
    "ART": Recipe("transformer", "A-ART, eq. 2", adversarial="output"),
    "AART": Recipe("transformer", "A-ART, section 2.2", adversarial="frobenius"),
    "GMSA": Recipe("transformer", "GAT, section 3.1", {"local_masks": ("bd20",)}),
    "GAT": Recipe(
        "transformer", "GAT, Algorithm 1", {"local_masks": ("bd20",)}, adversarial="frobenius"
    ),
    "GateOp": Recipe("transformer", "local temporal, eq. 9-13", {"local_masks": ("tp30",)}),
    "GateAtt": Recipe(
        "transformer", "local temporal, eq. 7", {"fusion": "maps", "local_masks": ("bd20",)}
    ),
    "ShareAtt": Recipe(
        "transformer",
        "local temporal, section 2.2",
        {"fusion": "heads", "local_masks": ("bd10", "bd20", "bd30", "bd60")},
    ),
    "FrameLevelLogisticModel": Recipe(
        "frame_level_logistic", "YouTube-8M starter code", defaults=_STARTER
    ),
    # At the starter code's rate of 0.01 its validation GAP on the sample oscillates and ends at
    # 0.49; at this rate it reaches 0.66 in as many steps.
    "DbofModel": Recipe(
        "dbof", "YouTube-8M starter code", defaults={**_STARTER, "base_learning_rate": 0.001}
    ),
    # Without l2 normalization: `LstmClassifier` explains why it does not learn with it.
    "LstmModel": Recipe(
        "lstm",
        "YouTube-8M starter code",
        defaults={**_STARTER, "normalize": "none", "base_learning_rate": 0.001},
    ),
    # Not normalized, and at that rate, for the reasons of the LSTM's gates.
    "AttentionGru": Recipe(
        "gru",
        "Temporal Modeling Approaches (Li et al., 2017), two-stream sequence model",
        defaults={**_STARTER, "normalize": "none", "base_learning_rate": 0.001},
    ),
    "NetVLAD": Recipe("learnable_pooling", _WILLOW, defaults=_KAGGLE),
    "GatedSoftDbof": Recipe(
        "learnable_pooling",
        _WILLOW,
        {"pooling": "soft_bag", "cluster_size": 4096},
        defaults=_KAGGLE,
    ),
    "NeXtVLAD": Recipe(
        "next_vlad",
        "NeXtVLAD (Lin, Xiao and Fan, 2018)",
        defaults={**_KAGGLE, "learning_rate_decay_examples": 2e6},
    ),
    "LogisticModel": Recipe(
        "video_level",
        "YouTube-8M starter code",
        {"video_level_classifier_model": "LogisticModel"},
        frame_level=False,
        defaults=_STARTER_VIDEO,
    ),
    "MoeModel": Recipe(
        "video_level",
        "YouTube-8M starter code",
        {"video_level_classifier_model": "MoeModel"},
        frame_level=False,
        defaults=_STARTER_VIDEO,
    ),
    "TSN": _clip_recipe("Temporal Segment Networks (Wang et al., 2016)"),
    "TSM": _clip_recipe("Temporal Shift Module (Lin et al., 2019)", temporal_module="shift"),
    "TAM": _clip_recipe("More Is Less (Fan et al., 2019)", temporal_module="aggregation"),
    "TPN": _clip_recipe(
        "Temporal Pyramid Network (Yang et al., 2020), on TSM",
        temporal_module="shift",
        temporal_pyramid=True,
    ),
    "GST": _clip_recipe("GST (Luo and Yuille, 2019)", temporal_module="group"),
    "GSTLarge": _clip_recipe("GST (Luo and Yuille, 2019), beta = 1", temporal_module="group_large"),
}
