"""`yt8m-gat`: the overview, --help with defaults, and the answers to wrong flags."""

import importlib
import inspect
import sys
import tomllib
from pathlib import Path

import pytest

from yt8m_gat import __version__
from yt8m_gat.cli import command_to_paste
from yt8m_gat.commands import console, eval, inference, train
from yt8m_gat.commands.flag_table import all_flags
from yt8m_gat.commands.table import command_names
from yt8m_gat.near_miss import SYNONYMS, near_miss
from yt8m_gat.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]


def ended(call, *arguments):
    """The exit code of a call that ends the process; 0 where it returns nothing."""
    with pytest.raises(SystemExit) as stopped:
        sys.exit(call(*arguments))
    return stopped.value.code or 0


def test_the_overview_has_every_command_on_one_screen(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/bin/yt8m-gat", "--help"])
    assert ended(console.main) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("  ")] == command_names()
    for name in command_names():
        module = importlib.import_module(f"yt8m_gat.commands.{name.replace('-', '_')}")
        assert callable(module.main), name


def test_a_mistyped_command_is_answered(monkeypatch, capsys):
    for typed, answer in {
        "trian": "'trian' is not a command; did you mean train?",
        "label_space": "'label_space' is not a command; did you mean label-space?",
        "xyz": "'xyz' is not a command; --help lists them",
    }.items():
        monkeypatch.setattr(sys, "argv", ["yt8m-gat", typed])
        assert ended(console.main) == 2
        assert capsys.readouterr() == ("", f"yt8m-gat: error: {answer}\n")


def test_the_console_passes_the_words_after_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/x/yt8m_gat/__main__.py", "train", "--lr=0.1"])
    monkeypatch.setattr(console, "run_command", lambda main: sys.exit(main()))
    monkeypatch.setattr(console, "end_on_interrupt", lambda: None)
    assert ended(console.main) == 2
    line = "yt8m-gat train: error: --lr: did you mean --base_learning_rate?\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("command", "arguments", "answer"),
    [
        (train, ["--epochs=3"], "--epochs: did you mean --num_epochs?"),
        (train, ["--batch=3"], "--batch: did you mean --batch_size?"),
        (train, ["--output=x"], "--output: did you mean --train_dir?"),
        (train, ["--weight-decay=1"], "--weight-decay: did you mean --weight_decay?"),
        (train, ["--nojit_compil"], "--nojit_compil: did you mean --jit_compile?"),
        (eval, ["--eps=1"], "--eps: did you mean --epsilons?"),
        (eval, ["--zzz"], "--zzz is not a flag of this command; --help lists its flags"),
        (eval, ["--feature_names=x"], "--feature_names is a flag of train; here the run folder"),
        (inference, ["--output=x"], "--output: did you mean --output_file?"),
        (train, ["--num_epochs=many"], "--num_epochs must be a whole number. Received: 'many'"),
        (train, ["--jit_compile=2"], "--jit_compile must be true or false. Received: '2'"),
        (eval, ["--top_k", "0"], "--top_k must be a whole number of at least 1. Received: '0'"),
        (eval, ["--checkpoint=x"], "--checkpoint must be one of best, last. Received: 'x'"),
        (inference, ["--max_bad_fraction=2"], "must be a number in [0, 1]. Received: '2'"),
    ],
)
def test_a_wrong_flag_is_one_line(command, arguments, answer, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["yt8m-gat", "some"])
    assert ended(command.main, arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("yt8m-gat some: error: ") and answer in line


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("download", ["--output=x"], "--output: did you mean --output_dir?"),
        ("kaggle", ["check", "--topk=3"], "--topk: did you mean --top_k?"),
        ("report", ["run", "--out=x"], "--out: did you mean --output_file?"),
        ("label_space", ["verticals"], "the following arguments are required: --vocabulary"),
        ("archive", ["pack", "--run_dir=x"], "--run_dir: did you mean --train_dir?"),
        ("demo", ["--output_file=x"], "--output_file: did you mean --output_dir?"),
        ("explain", ["--ckpt=x"], "--ckpt is not a flag of this command"),
    ],
)
def test_the_other_commands_answer_alike(name, arguments, answer, capsys):
    command = importlib.import_module(f"yt8m_gat.commands.{name}")
    assert ended(command.main, arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"yt8m-gat {name.replace('_', '-')}") and answer in line


def test_every_synonym_means_a_flag_of_some_command():
    flags = {
        *(flag.name for command in (train, eval, inference) for flag in all_flags(command.SECTIONS))
    }
    of_others = {"output_dir", "num_workers", "output"}
    for synonym, meant in SYNONYMS.items():
        assert set(meant) <= flags | of_others, synonym
    assert near_miss("Learning-Rate", ["base_learning_rate", "seed"]) == "base_learning_rate"


def helped(command, monkeypatch, capsys, *arguments):
    """Flag -> its text in --help; and the whole."""
    monkeypatch.setattr(sys, "argv", ["yt8m-gat", "some"])
    assert ended(command.main, ["--help", *arguments]) == 0
    text = capsys.readouterr().out
    flags, name = {}, None
    for line in text.splitlines():
        if line.startswith("  --"):
            name = line.strip().removeprefix("--").removeprefix("[no]").partition("=")[0]
            flags[name] = ""
        elif line.startswith("        "):
            flags[name] = f"{flags[name]} {line.strip()}".strip()
    return flags, text


@pytest.mark.parametrize("command", [train, eval, inference])
def test_help_has_each_flag_in_its_section(command, monkeypatch, capsys):
    flags, text = helped(command, monkeypatch, capsys)
    assert list(flags) == [flag.name for flag in all_flags(command.SECTIONS)]
    assert [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "] == [
        *command.SECTIONS
    ]
    assert max(map(len, text.splitlines())) <= 100


def test_help_shows_the_defaults_of_the_recipe(monkeypatch, capsys):
    gat, text = helped(train, monkeypatch, capsys)
    assert "Defaults are those of --model=GAT;" in text
    assert gat["batch_size"].endswith("(default: 64)")
    assert gat["local_masks"].endswith("(default: bd20)")
    assert gat["adversarial"].endswith("(default: frobenius)")
    assert gat["lstm_cells"].endswith("(GAT has no such option)")
    moe, text = helped(train, monkeypatch, capsys, "--model=MoeModel", "--batch_size=3")
    assert "Defaults are those of --model=MoeModel;" in text
    assert moe["batch_size"].endswith("(default: 1024)")
    assert moe["base_learning_rate"].endswith("(default: 0.01)")
    assert moe["feature_names"].endswith("(default: mean_rgb,mean_audio)")
    assert moe["moe_num_mixtures"].endswith("(default: 2)")
    assert moe["num_heads"].endswith("(MoeModel has no such option)")
    own, text = helped(train, monkeypatch, capsys, "--model=my.models:Mine")
    assert "Defaults are those of --model=my.models:Mine;" in text
    assert own["num_heads"].endswith("(my.models:Mine has no such option)")


def test_the_defaults_read_from_the_source_are_those_of_the_builders():
    from yt8m_gat.models.registry import BUILDERS

    assert {recipe.family for recipe in RECIPES.values()} == set(BUILDERS)
    for family, builder in BUILDERS.items():
        signature = inspect.signature(builder.__init__).parameters.values()
        expected = {
            p.name: p.default for p in signature if p.default is not inspect.Parameter.empty
        }
        assert train.builder_defaults(family) == expected, family


def test_the_next_command_is_called_as_this_one_was(monkeypatch):
    for called, expected in {
        "some where/train.py": "'some where/eval.py' --x",
        "/not/on the path/yt8m-gat": "'/not/on the path/yt8m-gat' eval --x",
        "/x/yt8m_gat/__main__.py": "-m yt8m_gat eval --x",
    }.items():
        monkeypatch.setattr(sys, "argv", [called])
        assert command_to_paste("eval", "--x").endswith(expected), called


def test_what_a_package_says_of_itself():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["yt8m-gat"].partition(":")
    assert getattr(importlib.import_module(module), function) is console.main
    assert project["license"] == "Apache-2.0"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
