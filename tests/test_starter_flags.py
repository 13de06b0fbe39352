"""Every flag of the starter code's scripts has a place here, and docs/FLAGS.md says which."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from yt8m_gat.cli import refuse_arguments
from yt8m_gat.commands import train
from yt8m_gat.commands.flag_table import all_flags
from yt8m_gat.config import ClipConfig, ConfigError
from yt8m_gat.recipes import RECIPES
from yt8m_gat.starter_flags import OPTIMIZERS, REPLACED, warn_of_replaced

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("train.py", "eval.py", "inference.py")
RUN = "yt8m_model in the temporary folder"

# google/youtube-8m at e6f6bf6: script -> flag -> default.
STARTER = {
    "train.py": {
        "train_dir": RUN,
        "train_data_pattern": "",
        "feature_names": "mean_rgb",
        "feature_sizes": "1024",
        "frame_features": False,
        "segment_labels": False,
        "model": "LogisticModel",
        "start_new_model": False,
        "num_gpu": 1,
        "batch_size": 1024,
        "label_loss": "CrossEntropyLoss",
        "regularization_penalty": 1.0,
        "base_learning_rate": 0.01,
        "learning_rate_decay": 0.95,
        "learning_rate_decay_examples": 4e6,
        "num_epochs": 5,
        "max_steps": None,
        "export_model_steps": 1000,
        "num_readers": 8,
        "optimizer": "AdamOptimizer",
        "clip_gradient_norm": 1.0,
        "log_device_placement": False,
        "iterations": 30,
        "sample_random_frames": True,
        "dbof_add_batch_norm": True,
        "dbof_cluster_size": 8192,
        "dbof_hidden_size": 1024,
        "dbof_pooling_method": "max",
        "dbof_activation": "sigmoid",
        "lstm_cells": 1024,
        "lstm_layers": 2,
        "moe_num_mixtures": 2,
        "video_level_classifier_model": "MoeModel",
    },
    "eval.py": {
        "train_dir": RUN,
        "eval_data_pattern": "",
        "segment_labels": False,
        "batch_size": 1024,
        "num_readers": 8,
        "run_once": False,
        "top_k": 20,
    },
    "inference.py": {
        "train_dir": RUN,
        "input_data_pattern": "",
        "output_file": "",
        "input_model_tgz": "",
        "untar_model_dir": "",
        "output_model_tgz": "",
        "segment_labels": False,
        "segment_max_pred": 100_000,
        "segment_label_ids_file": "",
        "top_k": 20,
        "batch_size": 512,
        "num_readers": 1,
    },
}


def defined(script):
    """The flags of a script, on a set of their own."""
    values = flags.FlagValues()
    command = script.removesuffix(".py")
    importlib.import_module(f"yt8m_gat.commands.{command}").define_flags(values)
    return values


def parse(*arguments):
    values = defined("train.py")
    rest = values(["train.py", *arguments])
    assert rest == ["train.py"]
    return train.config_from_flags(values)


# --- Warnings and aliases ---------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_replaced_flag_warns_in_one_line_and_only_when_given(script, capsys):
    for flag, replacement in REPLACED[script].items():
        values = defined(script)
        values([script])
        warn_of_replaced(script, values.flag_values_dict(), script)
        assert capsys.readouterr() == ("", "")
        values([script, f"--{flag}=0"])  # 0 is given, too.
        warn_of_replaced(script, values.flag_values_dict(), script)
        line = f"{script}: warning: --{flag} has no effect: {replacement}\n"
        assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_replaces_a_flag_exists(script):
    every_flag = {flag for other in SCRIPTS for flag in defined(other)}
    assert set(REPLACED[script]) <= set(STARTER[script])
    for replacement in REPLACED[script].values():
        assert "\n" not in replacement
        assert set(re.findall(r"--(\w+)", replacement)) <= every_flag


def test_a_replaced_flag_changes_nothing():
    for flag in REPLACED["train.py"]:
        assert parse(f"--{flag}=7") == parse()


def test_the_starters_names_of_optimizers():
    for theirs, ours in OPTIMIZERS.items():
        assert parse(f"--optimizer={theirs}") == parse(f"--optimizer={ours}")
    assert parse("--optimizer=AdamOptimizer").training.optimizer == "Adam"
    with pytest.raises(ConfigError, match=r"one of Adam, .*'MomentumOptimizer'"):
        parse("--optimizer=MomentumOptimizer")


def test_numbers_as_the_starters_commands_write_them():
    config = parse("--learning_rate_decay_examples=4e6", "--clip_gradient_norm=1")
    assert config.training.learning_rate_decay_examples == 4_000_000


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", ["replaced", "leftover"])
def test_the_scripts_warn_and_refuse(script, kind):
    """The command line itself; each ends for want of something before TensorFlow is imported."""
    arguments = {
        "replaced": [f"--{next(iter(REPLACED[script]))}=1"],
        "leftover": ["--train_dir", "here", "there"],
    }[kind]
    wrong = {
        "train.py": "--model=Gat",
        "eval.py": "--epsilons=a",
        "inference.py": "--output_file=",
    }[script]
    finished = subprocess.run(
        [sys.executable, script, *arguments, wrong],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = finished.stderr.splitlines()
    assert finished.returncode == 2
    if kind == "leftover":
        assert len(lines) == 1 and lines[0].endswith("Received: there")
    else:
        assert len(lines) == 2
        assert lines[0].startswith(f"{script}: warning: --")
        assert lines[1].startswith(f"{script}: error: {wrong.partition('=')[0]}")


# --- False is a value ---------------------------------------------------------------------------

# Boolean settings of the model -> recipe that has it, and flags that it needs.
BOOLEAN_OPTIONS = {
    "global_attention": ["--model=GAT"],
    "renormalize": ["--model=GateAtt"],
    "dual_normalization": ["--model=Transformer", "--adversarial=temporal"],
    "temporal_pyramid": ["--model=TSM"],
    "single_label": ["--model=TSM", "--label_loss=CrossEntropyLoss"],
    "sample_random_frames": ["--model=DbofModel"],
    "dbof_add_batch_norm": ["--model=DbofModel"],
    "moe_prob_gating": ["--model=NetVLAD"],
    "pre_norm": ["--model=Transformer"],
    "cross_modal": ["--model=Transformer"],
}
# Booleans of train.py that are false anyway.
FALSE_BY_DEFAULT = {
    "start_new_model",
    "accept_new_data",
    "log_device_placement",
    "trust_code",
    "segment_labels",
    "unrated_as_negative",
    "flip",
}


def off(flag):
    return (f"--no{flag}", f"--{flag}=false", f"--{flag}=False", f"--{flag}=0")


@pytest.mark.parametrize("flag", BOOLEAN_OPTIONS)
def test_false_for_a_boolean_of_the_model_reaches_it(flag):
    for argument in off(flag):
        assert parse(*BOOLEAN_OPTIONS[flag], argument).model.options[flag] is False


def test_false_for_a_boolean_outside_the_model():
    for argument in off("jit_compile"):
        assert parse(argument).training.jit_compile is False
    for argument in off("watch_overfitting"):
        assert parse(argument).training.watch_overfitting is False
    for argument in off("frame_features"):
        assert parse("--model=MoeModel", argument).data.frame_features is False
        with pytest.raises(ConfigError, match="--model=GAT reads frames"):
            parse(argument)


def test_every_boolean_flag_is_among_those():
    values = defined("train.py")
    booleans = {flag for flag in values if values[flag].flag_type() == "bool"}
    tried = set(BOOLEAN_OPTIONS) | {"jit_compile", "frame_features", "watch_overfitting"}
    assert booleans - FALSE_BY_DEFAULT == tried
    config = parse()
    for flag in booleans & FALSE_BY_DEFAULT:
        settings = {**vars(config.data), **vars(config.objective), **vars(ClipConfig())}
        assert settings.get(flag, values[flag].default) is False, flag


def test_false_reaches_the_layers():
    """The starter code's `x = x or FLAGS.x` lost it."""
    from yt8m_gat.models import build_model

    sizes = {"rgb": 4}
    small = {"dbof_cluster_size": 4, "dbof_hidden_size": 4}
    for flag in ("sample_random_frames", "dbof_add_batch_norm"):
        options = {**parse("--model=DbofModel", f"--no{flag}").model.options, **small}
        model = build_model("DbofModel", sizes, 3, **options)
        assert getattr(model, flag) is False
        assert bool(model.normalizations) is (flag != "dbof_add_batch_norm")


def test_a_value_left_behind_is_refused():
    """`--frame_features False` is true to absl, and leaves the word behind."""
    rest = defined("train.py")(["train.py", "--frame_features", "False"])
    with pytest.raises(ConfigError, match=r"after '=' .*Received: False"):
        refuse_arguments(rest[1:])
    refuse_arguments([])


# --- Raw clips ----------------------------------------------------------------------------------


def test_flags_of_raw_clips_reach_a_model_of_ones_own():
    config = parse(
        *("--model=my_models:ClipModel", "--num_segments=4", "--crop_size=64", "--short_side=72"),
        *("--sampling=dense", "--dense_stride=2", "--crop_scales=1,0.8", "--flip"),
        *("--flip_pairs=0:1,4:2", "--num_classes=5", "--augmentation=cutmix,randaugment"),
    ).data
    assert config.clips == ClipConfig(
        num_segments=4,
        crop_size=64,
        short_side=72,
        sampling="dense",
        dense_stride=2,
        crop_scales=(1.0, 0.8),
        flip=True,
        flip_pairs=("0:1", "4:2"),
        augmentation=("cutmix", "randaugment"),
    )
    assert (config.sizes, config.max_frames, config.num_classes) == ({"image": 3}, 4, 5)
    assert (config.labels_key, config.frame_features) == ("clip/label/index", True)
    assert parse("--model=my_models:Mine").data.clips is None
    assert parse("--model=my_models:Mine", "--flip", "--labels_key=y").data.labels_key == "y"


def test_they_are_refused_for_models_of_features():
    for flag in ("--num_segments=4", "--noflip", "--crop_scales=1"):
        with pytest.raises(ConfigError, match=f"{flag.split('=')[0].replace('no', '')} has no"):
            parse("--model=GAT", flag)
    with pytest.raises(ConfigError, match="--max_frames is about features"):
        parse("--model=my_models:ClipModel", "--num_segments=4", "--max_frames=5")


# --- docs/FLAGS.md ------------------------------------------------------------------------------


def shown(value):
    """A value as the tables write it."""
    if value is None or value == "" or value == ():
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.fixture(scope="module")
def defaults():
    """Script -> flag -> what holds without it, as shown; by model where that differs."""
    from yt8m_gat.models.registry import BUILDERS

    by_model = {}  # Flag -> value -> models, the default one first.
    for name in sorted(RECIPES, key=lambda name: name != "GAT"):
        recipe, config = RECIPES[name], parse(f"--model={name}")
        signature = inspect.signature(BUILDERS[recipe.family].__init__).parameters
        settings = {
            **{option: parameter.default for option, parameter in signature.items()},
            **recipe.options,
            **vars(config.data),
            **vars(config.data.clips or ClipConfig()),
            **vars(config.objective),
            **vars(config.training),
        }
        for flag, value in settings.items():
            by_model.setdefault(flag, {}).setdefault(shown(value), []).append(name)

    by_model["model"] = {"GAT": list(RECIPES)}

    def text(script, flag):
        if flag.name == "train_dir":
            return RUN
        if script != "train.py" or flag.config is None:
            first, others = shown(flag.default), []
        else:
            (first, _), *others = by_model[flag.name].items()
        if first == "-" and flag.unset:
            first = flag.unset
        return "; ".join([first, *(f"{value}: {', '.join(names)}" for value, names in others)])

    return {
        script: {name: text(script, flag) for name, flag in table_of(script).items()}
        for script in SCRIPTS
    }


def rows_of_the_page(script):
    """Rows of the tables under a script's heading, as lists of cells: (starter's, ours)."""
    page = (ROOT / "docs" / "FLAGS.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {script}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("| `--")
    ]
    return [row for row in rows if len(row) == 4], [row for row in rows if len(row) == 3]


def table_of(script):
    """Flag -> its entry in the command's table."""
    module = importlib.import_module(f"yt8m_gat.commands.{script.removesuffix('.py')}")
    return {flag.name: flag for flag in all_flags(module.SECTIONS)}


def as_row(*cells):
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_page_has_every_flag_of_the_starter(script, defaults):
    missing = set(STARTER[script]) - set(defaults[script])
    assert not missing, f"{script} accepts no --{', --'.join(sorted(missing))}"
    expected = []
    for flag, theirs in STARTER[script].items():
        ours = "no effect" if flag in REPLACED[script] else defaults[script][flag]
        expected.append([f"`--{flag}`", shown(theirs), ours])
    starters, _ = rows_of_the_page(script)
    found = [row[:3] for row in starters]
    assert found == expected, "expected in docs/FLAGS.md (+ a note):\n" + "\n".join(
        as_row(*row) for row in expected if row not in found
    )
    for flag, theirs, ours, note in starters:
        assert (theirs == ours) or note, f"{flag}: say why it differs"


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_page_has_every_flag_of_ours(script, defaults):
    expected = [
        [f"`--{flag.name}`", defaults[script][flag.name], flag.text]
        for flag in table_of(script).values()
        if flag.name not in STARTER[script]
    ]
    _, found = rows_of_the_page(script)
    assert sorted(found) == sorted(expected), "expected in docs/FLAGS.md:\n" + "\n".join(
        as_row(*row) for row in expected if row not in found
    )
