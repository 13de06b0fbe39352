"""The recipes' own defaults, and the flags that override them."""

import dataclasses

import pytest
from absl import flags

from yt8m_gat.commands import train
from yt8m_gat.config import ConfigError, DataConfig, ObjectiveConfig, TrainingConfig
from yt8m_gat.recipes import RECIPES

SECTIONS = (DataConfig, ObjectiveConfig, TrainingConfig)


def config_of(*arguments):
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train.py", *arguments])
    return train.config_from_flags(values)


@pytest.mark.parametrize("name", RECIPES)
def test_every_default_is_taken(name):
    config = config_of(f"--model={name}")
    taken = {
        **dataclasses.asdict(config.data),
        **dataclasses.asdict(config.objective),
        **dataclasses.asdict(config.training),
    }
    for field, value in RECIPES[name].defaults.items():
        assert taken[field] == value, field


def test_the_sections_of_a_recipe_are_all_of_its_defaults():
    for recipe in RECIPES.values():
        parts = [recipe.defaults_of(section) for section in SECTIONS]
        assert {key: part[key] for part in parts for key in part} == recipe.defaults
        assert sum(map(len, parts)) == len(recipe.defaults)


def test_a_flag_goes_before_the_recipes_default():
    config = config_of(
        "--model=LogisticModel",
        "--normalize=none",
        "--class_reduction=mean",
        "--batch_size=3",
        "--feature_names=mean_rgb",
        "--feature_sizes=1024",
    )
    assert config.data.feature_names == ("mean_rgb",)
    assert config.data.normalize == "none"
    assert config.objective.class_reduction == "mean"
    assert config.training.batch_size == 3
    # Settings without a flag keep the starter code's values.
    assert config.training.base_learning_rate == 0.01


def test_starter_flags_become_options_of_the_model():
    config = config_of(
        "--model=DbofModel", "--iterations=5", "--nodbof_add_batch_norm", "--dbof_activation=relu6"
    )
    assert config.model.options == {
        "iterations": 5,
        "dbof_add_batch_norm": False,
        "dbof_activation": "relu6",
    }


def test_recipes_of_raw_clips_follow_the_loss_the_optimizer_and_the_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    read = train.PATHS["backbone"]
    assert read("--backbone", "nets/own.keras") == str(tmp_path / "nets" / "own.keras")
    assert read("--backbone", "ResNet50") == "ResNet50"
    assert train.PATHS["backbone_weights"]("--backbone_weights", "imagenet") == "imagenet"
    config = config_of("--model=TPN", "--num_classes=5")
    assert config.model.options == {}
    assert (config.training.optimizer, config.training.momentum) == ("SGD", 0.9)
    config = config_of("--model=TSM", "--optimizer=Adam", "--label_loss=CrossEntropyLoss")
    assert config.training.momentum == 0
    assert config.model.options == {"single_label": False}
    options = config_of(
        "--model=TSM", "--adversarial=temporal", "--backbone=ResNet50"
    ).model.options
    assert options == {"backbone": "ResNet50", "dual_normalization": True}
    with pytest.raises(ConfigError, match="--momentum is for --optimizer=SGD"):
        config_of("--model=TSM", "--optimizer=Adam", "--momentum=0.5")
