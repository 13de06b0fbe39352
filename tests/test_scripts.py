"""The three scripts as a person meets them: flags, help, errors. No training here."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl import flags

from yt8m_gat.commands import train
from yt8m_gat.config import (
    ConfigError,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)

ROOT = Path(__file__).resolve().parents[1]


def parse(*arguments):
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train.py", *arguments])
    return train.config_from_flags(values)


def run_script(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_no_flags_is_the_papers_gat():
    assert parse() == RunConfig(
        model=ModelConfig(name="GAT"), objective=ObjectiveConfig(adversarial="frobenius")
    )


def test_the_recipe_chooses_the_objective_unless_a_flag_does():
    assert parse("--model=Transformer").objective.adversarial == "none"
    assert parse("--model=ART").objective.adversarial == "output"
    assert parse("--model=ART", "--adversarial=none").objective.adversarial == "none"


def test_audioset_flags():
    config = parse("--feature_names=audio_embedding", "--feature_sizes=128", "--num_classes=527")
    assert config.data.sizes == {"audio_embedding": 128}
    assert config.data.num_classes == 527


def test_taf_gets_its_second_normalization_and_its_plan():
    config = parse("--model=Transformer", "--adversarial=temporal", "--finetune_from=runs/sa")
    assert config.model.options["dual_normalization"] is True
    assert (config.training.num_epochs, config.training.drop_epochs) == (15, (10,))
    for model in ("GAT", "DbofModel"):
        config = parse(f"--model={model}", "--adversarial=temporal")
        assert config.model.options["dual_normalization"] is True
    assert parse("--model=LstmModel", "--adversarial=temporal").model.options == {}
    changed = parse("--finetune_from=runs/sa", "--num_epochs=3", "--drop_epochs=1,2")
    assert (changed.training.num_epochs, changed.training.drop_epochs) == (3, (1, 2))


def test_fine_tuning_begins_at_the_rate_at_which_the_run_ended(tmp_path):
    flags = ("--model=Transformer", f"--finetune_from={tmp_path}")
    usual = parse("--model=Transformer").training.base_learning_rate
    assert parse(*flags).training.base_learning_rate == usual
    lines = [{"learning_rate": 0.5}, {"learning_rate": 0.05}, {"val_gap": 0.3}]
    text = "".join(json.dumps({"step": 1, **line}) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert parse(*flags).training.base_learning_rate == 0.05
    assert parse(*flags, "--base_learning_rate=0.2").training.base_learning_rate == 0.2


# A value other than the default for each setting; a new one has to be entered here.
OTHER = {
    DataConfig: {
        "feature_names": ("--feature_names=a,b", ("a", "b")),
        "feature_sizes": ("--feature_sizes=3,4", (3, 4)),
        "num_classes": ("--num_classes=9", 9),
        "max_frames": ("--max_frames=8", 8),
        "normalize": ("--normalize=concat", "concat"),
        "segment_labels": ("--segment_labels", True),
        "feature_types": ("--feature_types= float32 ,uint8", ("float32", "uint8")),
        "labels_key": ("--labels_key=a/b c", "a/b c"),
        "labels_are": ("--labels_are=multi_hot", "multi_hot"),
    },
    ObjectiveConfig: {
        "label_loss": ("--label_loss=HingeLoss", "HingeLoss"),
        "label_loss_options": (
            '--label_loss_options={"label_smoothing": 0.5}',
            {"label_smoothing": 0.5},
        ),
        "class_reduction": ("--class_reduction=sum", "sum"),
        "adversarial": ("--adversarial=output", "output"),
        "epsilon": ("--epsilon=2", 2.0),
        "norm_scope": ("--norm_scope=joint", "joint"),
        "alpha": ("--alpha=0.5", 0.5),
        "clean_weight": ("--clean_weight=0.5", 0.5),
        "beta": ("--beta=0.1", 0.1),
        "class_weights": ("--class_weights=inverse", "inverse"),
        "class_weights_beta": ("--class_weights_beta=0.9", 0.9),
        "teacher": ("--teacher=a,b", ("a", "b")),
        "teacher_temperature": ("--teacher_temperature=3", 3.0),
        "teacher_weight": ("--teacher_weight=0.2", 0.2),
        "adversarial_steps": ("--adversarial_steps=3", 3),
        "adversarial_step_size": ("--adversarial_step_size=2", 2.0),
        "penalized_levels": ("--penalized_levels=global,bd20:2", ("global", "bd20:2")),
        "temporal_loss": ("--temporal_loss=ce", "ce"),
        "temporal_epsilon": ("--temporal_epsilon=16", 16.0),
        "temporal_steps": ("--temporal_steps=3", 3),
        "temporal_step_size": ("--temporal_step_size=2", 2.0),
        "non_key_frames": ("--non_key_frames=8", 8),
        "cam_gradient": ("--cam_gradient=loss", "loss"),
        "cam_normalization": ("--cam_normalization=maximum", "maximum"),
        "temporal_examples": ("--temporal_examples=wrong", "wrong"),
        "regularization_penalty": ("--regularization_penalty=0.5", 0.5),
        "unrated_as_negative": ("--unrated_as_negative", True),
    },
    TrainingConfig: {
        "batch_size": ("--batch_size=7", 7),
        "optimizer": ("--optimizer=SGD", "SGD"),
        "base_learning_rate": ("--base_learning_rate=0.1", 0.1),
        "learning_rate_schedule": ("--learning_rate_schedule=cosine", "cosine"),
        "warmup_steps": ("--warmup_steps=3", 3),
        "learning_rate_decay": ("--learning_rate_decay=0.9", 0.9),
        "learning_rate_decay_examples": ("--learning_rate_decay_examples=10", 10),
        "drop_epochs": ("--drop_epochs=2", (2,)),
        "drop_factor": ("--drop_factor=0.5", 0.5),
        "finetune_from": ("--finetune_from=x", "x"),
        "momentum": ("--momentum=0.9", 0.9),
        "ema_momentum": ("--ema_momentum=0.9", 0.9),
        "clip_gradient_norm": ("--clip_gradient_norm=1", 1.0),
        "clip_global_norm": ("--clip_global_norm=20", 20.0),
        "num_epochs": ("--num_epochs=2", 2),
        "max_steps": ("--max_steps=3", 3),
        "eval_steps": ("--eval_steps=4", 4),
        "watch_overfitting": ("--nowatch_overfitting", False),
        "mixup_alpha": ("--mixup_alpha=0.2", 0.2),
        "frame_dropout": ("--frame_dropout=0.1", 0.1),
        "feature_dropout": ("--feature_dropout=rgb:0.5", ("rgb:0.5",)),
        "temporal_crop": ("--temporal_crop=0.5", 0.5),
        "frame_noise": ("--frame_noise=0.25", 0.25),
        "checkpoint_steps": ("--checkpoint_steps=6", 6),
        "early_stopping_patience": ("--early_stopping_patience=1", 1),
        "plateau_patience": ("--plateau_patience=1", 1),
        "plateau_factor": ("--plateau_factor=0.5", 0.5),
        "shuffle_buffer": ("--shuffle_buffer=2", 2),
        "num_readers": ("--num_readers=2", 2),
        "on_bad_record": ("--on_bad_record=skip", "skip"),
        "max_bad_fraction": ("--max_bad_fraction=0.5", 0.5),
        "seed": ("--seed=5", 5),
        "mixed_precision": ("--mixed_precision=mixed_bfloat16", "mixed_bfloat16"),
        "jit_compile": ("--jit_compile", True),
        "micro_batch_size": ("--micro_batch_size=4", 4),
        "on_nonfinite": ("--on_nonfinite=skip", "skip"),
        "distribute": ("--distribute=mirrored", "mirrored"),
        "data_service": ("--data_service=grpc://host:1", "grpc://host:1"),
        "callbacks": ("--callbacks=a.b:c, d:e", ("a.b:c", "d:e")),
    },
}
SECTIONS = {DataConfig: "data", ObjectiveConfig: "objective", TrainingConfig: "training"}


@pytest.mark.parametrize("section", OTHER)
def test_every_setting_has_a_flag_that_changes_it(section):
    # `frame_features` follows from the model and is tested with the video-level ones;
    # --label_map sets two together (test_label_map.py); digests are read from the teachers' files.
    elsewhere = {"frame_features", "label_map", "num_source_classes", "clips", "teacher_digests"}
    names = {field.name for field in dataclasses.fields(section)} - elsewhere
    assert names <= set(OTHER[section])
    for name, (argument, value) in OTHER[section].items():
        if name in ("feature_names", "feature_sizes"):
            config = parse("--feature_names=a,b", "--feature_sizes=3,4")
        elif name == "momentum":
            config = parse("--optimizer=SGD", argument)
        elif name == "learning_rate_schedule":
            config = parse("--max_steps=9", argument)
        elif name.startswith("adversarial_"):
            config = parse("--adversarial=pgd", argument)
        elif name == "class_weights_beta":
            config = parse("--class_weights=effective", argument)
        elif name.startswith("teacher_"):
            config = parse("--teacher=a", argument)
        elif name == "unrated_as_negative":
            config = parse("--segment_labels", argument)
        elif name.startswith("temporal_") or name in (
            *("non_key_frames", "cam_gradient", "cam_normalization"),
        ):
            config = parse("--adversarial=temporal", argument)
        else:
            config = parse(argument)
        assert getattr(getattr(config, SECTIONS[section]), name) == value, name


def test_names_of_features_are_any_text():
    data = parse("--feature_names= RGB/feature ,1 rgb:0", "--feature_sizes=3,4").data
    assert data.sizes == {"RGB/feature": 3, "1 rgb:0": 4}


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--num_heads=4", "num_heads", 4),
        ("--noglobal_attention", "global_attention", False),
        ("--attention=uniform", "attention", "uniform"),
        ("--hidden_size=9", "hidden_size", 9),
        ("--feed_forward_size=9", "feed_forward_size", 9),
        ("--dropout=0.2", "dropout", 0.2),
        ("--dual_normalization", "dual_normalization", True),
        ("--local_masks=bd10,td60x4", "local_masks", ("bd10", "td60x4")),
    ],
)
def test_model_flags_are_builder_options(argument, name, value):
    assert parse(argument).model.options == {name: value}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--feature_sizes=1024,x", "--feature_sizes must be ints separated by commas"),
        ("--model=Gat", "--model must be one of"),
        ("--drop_epochs=ten", "--drop_epochs must be ints"),
    ],
)
def test_wrong_values_name_the_flag(argument, message):
    with pytest.raises(ConfigError, match=message):
        parse(argument)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model=ART", "--beta=0.5"), "--beta .* --adversarial=output: it is for frobenius"),
        (("--model=ART", "--penalized_levels=global"), "--penalized_levels .* no effect"),
        (("--model=Transformer", "--alpha=3"), "--alpha .* --adversarial=none"),
        (("--adversarial=trades", "--alpha=3"), "--alpha .* --adversarial=trades"),
        (("--adversarial=fast", "--adversarial_steps=3"), "--adversarial_steps .* it is for pgd"),
        (("--label_loss_options=[1]",), "--label_loss_options must be a JSON object"),
        (("--model=Transformer", "--epsilon=0.5"), "--epsilon .* --adversarial=none"),
        (("--adversarial=temporal", "--epsilon=1"), "--epsilon .* --adversarial=temporal"),
        (("--temporal_epsilon=4",), "--temporal_epsilon .* it is for temporal"),
        (("--model=GAT", "--renormalize"), "--renormalize .* it is for GateAtt"),
    ],
)
def test_a_flag_that_the_run_would_not_read_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parse(*arguments)


@pytest.mark.parametrize("script", ["train.py", "eval.py", "inference.py"])
def test_help_needs_no_tensorflow(script):
    """Not timed: what makes it fast is that TensorFlow stays out."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}', '--help']\n"
        "try:\n"
        f"    runpy.run_path('{script}', run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)\n"
    )
    started = time.monotonic()
    finished = run_script("-c", code)
    assert finished.returncode == 0, finished.stderr
    assert "--train_dir" in finished.stdout
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.py", "--model=Gat"), "--model must be one of"),
        (("train.py", "--no_such_flag=1"), "--no_such_flag is not a flag of this command"),
        (("eval.py", "--epsilons=a"), "--epsilons must be floats"),
        (("inference.py",), "--output_file must name the file"),
    ],
)
def test_wrong_flags_end_in_one_line_without_a_traceback(arguments, message):
    finished = run_script(*arguments)
    assert finished.returncode != 0
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
