"""Configurations: validation, round trip, and what a resumed run must not change."""

import dataclasses
import json
import math

import pytest

from yt8m_gat.config import (
    ClipConfig,
    ConfigError,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.recipes import RECIPES
from yt8m_gat.run_folder import RunFolder


def test_round_trip_through_json():
    config = RunConfig(
        data=DataConfig(feature_names=("a",), feature_sizes=(3,), num_classes=7),
        model=ModelConfig(name="GMSA", options={"local_masks": ("bd10", "tp30"), "num_heads": 4}),
        objective=ObjectiveConfig(adversarial="frobenius", epsilon=1, beta=None),
        training=TrainingConfig(max_steps=5, drop_epochs=(1, 2), finetune_from="runs/sa"),
    )
    assert RunConfig.from_json(config.to_json()) == config


def test_round_trip_through_a_folder(tmp_path):
    config = RunConfig(model=ModelConfig(name="Transformer"))
    config.save(tmp_path)
    assert RunConfig.load(tmp_path) == config


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_configuration(name):
    recipe = RECIPES[name]
    data = DataConfig(frame_features=recipe.frame_level)
    if recipe.clips:
        data = DataConfig(
            feature_names=("image",), feature_sizes=(3,), max_frames=8, clips=ClipConfig()
        )
    RunConfig(data=data, model=ModelConfig(name=name))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(name="Gat"), r"--model must be one of .*GAT.* Received: 'Gat'"),
        (lambda: DataConfig(feature_names=("rgb",)), "two lists of the same length"),
        (
            lambda: DataConfig(feature_names=("a", "a"), feature_sizes=(1, 1)),
            "--feature_names must differ",
        ),
        (lambda: DataConfig(num_classes=0), "--num_classes must be at least 1"),
        (lambda: DataConfig(normalize="l2"), "--normalize must be one of none"),
        (lambda: TrainingConfig(batch_size=0), "--batch_size must be at least 1"),
        (lambda: TrainingConfig(base_learning_rate=0), "--base_learning_rate must be positive"),
        (lambda: TrainingConfig(plateau_factor=2), r"--plateau_factor must be in \(0, 1\]"),
        (lambda: TrainingConfig(optimizer="adam"), "--optimizer must be one of Adam"),
        (lambda: TrainingConfig(base_learning_rate=math.inf), "--base_learning_rate .* finite"),
        (lambda: TrainingConfig(seed=2**32), "--seed must be at most 4294967295"),
        (lambda: TrainingConfig(max_steps=0), "--max_steps must be at least 1"),
        (lambda: RunFolder(""), "--train_dir must name the run folder"),
        (lambda: RunConfig.load("nowhere", "finetune_from"), "--finetune_from=nowhere holds no"),
        (
            lambda: RunConfig(data=DataConfig(frame_features=False)),
            "--model=GAT reads frames",
        ),
    ],
)
def test_settings_that_cannot_work_name_their_flag(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["data"].update(colour=1), "unknown setting data.colour"),
        (lambda values: values["data"].update(num_classes="7"), "data.num_classes must be int"),
        (lambda values: values["training"].update(seed=True), "training.seed must be int"),
        (lambda values: values.update(data=3), "data. must be a mapping"),
    ],
)
def test_a_tampered_configuration_is_refused(change, message):
    values = json.loads(RunConfig().to_json())
    change(values)
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_json(json.dumps(values))


def test_a_folder_without_a_run_says_what_it_must_be(tmp_path):
    with pytest.raises(ConfigError, match=r"must name the folder that train\.py wrote"):
        RunConfig.load(tmp_path)


def test_differences_name_what_a_resumed_run_must_not_change():
    stored = RunConfig()
    given = RunConfig(
        data=DataConfig(num_classes=5),
        model=ModelConfig(options={"num_heads": 4}),
        objective=ObjectiveConfig(epsilon=1.0),
        training=TrainingConfig(num_epochs=50, batch_size=2),
    )
    assert [line.split(":")[0] for line in stored.differences(given)] == [
        "data.num_classes",
        "model.options",
        "objective.epsilon",
        "training.batch_size",
    ]


def test_every_field_is_read_somewhere():
    """A setting that nothing reads would be a flag that does nothing."""
    from pathlib import Path

    package = Path(__file__).resolve().parents[1] / "yt8m_gat"
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in package.rglob("*.py")
        if path.name != "config.py"
    )
    for section in (DataConfig, ModelConfig, ObjectiveConfig, TrainingConfig):
        for field in dataclasses.fields(section):
            readers = {
                "feature_names": ".sizes",
                "feature_sizes": ".sizes",
                "adversarial_step_size": ".ascent_step_size",
                "adversarial_steps": ".ascent_steps",
                "beta": ".penalty_weight",
                "penalized_levels": ".level_weights",
            }
            assert readers.get(field.name, f".{field.name}") in source, field.name


# --- raw clips ------------------------------------------------------------------------------------


def clip_data(**clips):
    return DataConfig(
        feature_names=("image",),
        feature_sizes=(3,),
        max_frames=clips.get("num_segments", 8),
        clips=ClipConfig(**clips),
    )


def test_settings_of_clips_survive_json():
    data = clip_data(num_segments=4, flip=True, flip_pairs=("0:3",), crop_scales=(1.0, 0.5))
    model = ModelConfig(name="my_models:ClipModel")
    config = RunConfig(data=data, model=model)
    assert RunConfig.from_json(config.to_json()) == config
    assert config.data.clips.flipped_classes == {0: 3, 3: 0}
    assert config.data.has_levels


def test_differences_of_clips_are_named_one_by_one():
    stored, given = (
        RunConfig(
            data=clip_data(num_segments=4, flip=flip), model=ModelConfig(name="my_models:ClipModel")
        )
        for flip in (False, True)
    )
    assert stored.differences(given) == ["data.clips.flip: False != True"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_segments": 0}, "--num_segments must be at least 1"),
        ({"short_side": 200}, "--short_side must be at least --crop_size"),
        ({"sampling": "random"}, "--sampling must be one of segments, dense"),
        ({"crop_scales": (1.1,)}, "--crop_scales must be shares"),
        ({"crop_scales": ()}, "--crop_scales must be shares"),
        ({"flip": True, "flip_pairs": ("1:1",)}, "--flip_pairs takes LEFT:RIGHT"),
        ({"flip": True, "flip_pairs": ("0:1", "1:2")}, "--flip_pairs takes LEFT:RIGHT"),
        ({"flip": True, "flip_pairs": ("left:right",)}, "--flip_pairs takes LEFT:RIGHT"),
        ({"flip_pairs": ("0:1",)}, "--flip_pairs has no effect without --flip"),
        ({"dense_stride": 2}, "--dense_stride has no effect without --sampling=dense"),
        ({"augmentation": ("cutout",)}, "--augmentation must be one of mixup, .*'cutout'"),
        ({"augmentation": ("mixup", "cutmix")}, "--augmentation takes one of .*mixup,cutmix"),
        ({"flip": True, "flip_pairs": ("0:3862",)}, "--flip_pairs must name classes below"),
    ],
)
def test_impossible_settings_of_clips_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        clip_data(**settings)


def test_raw_clips_have_one_feature():
    with pytest.raises(ConfigError, match="single feature image of size 3"):
        DataConfig(clips=ClipConfig())
    with pytest.raises(ConfigError, match=r"--max_frames is about features.* 9 and 8"):
        DataConfig(feature_names=("image",), feature_sizes=(3,), max_frames=9, clips=ClipConfig())
    with pytest.raises(ConfigError, match="--normalize"):
        DataConfig(
            feature_names=("image",), feature_sizes=(3,), clips=ClipConfig(), normalize="concat"
        )


def test_non_key_frames_are_among_those_of_a_raw_clip():
    RunConfig(
        data=clip_data(num_segments=4),
        model=ModelConfig(name="TSM"),
        objective=ObjectiveConfig(adversarial="temporal", non_key_frames=4),
    )
    with pytest.raises(ConfigError, match=r"--non_key_frames .* --num_segments.* 5 and 4"):
        RunConfig(
            data=clip_data(num_segments=4),
            model=ModelConfig(name="TSM"),
            objective=ObjectiveConfig(adversarial="temporal", non_key_frames=5),
        )


def test_a_model_of_features_takes_no_clips():
    with pytest.raises(ConfigError, match="--model=GAT reads features"):
        RunConfig(data=clip_data())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0, "optimizer": "SGD"}, "--momentum must be in"),
        ({"momentum": 0.9}, "--momentum is for --optimizer=SGD"),
        ({"clip_global_norm": -1.0}, "--clip_global_norm must be at least 0"),
        ({"clip_global_norm": 1.0, "clip_gradient_norm": 1.0}, "exclude each other"),
    ],
)
def test_impossible_settings_of_the_optimizer_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**settings)


@pytest.mark.parametrize(
    ("loss", "single_label"), [("CrossEntropyLoss", True), ("SoftmaxLoss", False)]
)
def test_probabilities_are_those_of_the_loss(loss, single_label):
    def config(single_label):
        model = ModelConfig(name="TSM", options={"single_label": single_label})
        return RunConfig(data=clip_data(), model=model, objective=ObjectiveConfig(label_loss=loss))

    with pytest.raises(ConfigError, match=f"single_label and --label_loss={loss} do not fit"):
        config(single_label)
    config(not single_label)
