"""Each flag that is a path goes through one definition; whatever it names works or is refused."""

import argparse
import importlib
import os

import pytest
from absl import flags

import yt8m_gat
from yt8m_gat.commands import extract as extract_command
from yt8m_gat.commands.table import COMMANDS
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.paths import input_path, output_path, read_paths, saved_model_path
from yt8m_gat.run_folder import RunFolder

# Flags of text that are no paths; patterns of records go through `find_files`. A new flag of text
# has to be entered here, or in the PATHS of its command.
NO_PATHS = {
    "yt8m_gat.commands.train": {
        *("train_data_pattern", "eval_data_pattern", "model", "feature_names", "feature_sizes"),
        *("crop_scales", "cam_normalization", "sampling", "augmentation", "temporal_module"),
        "flip_pairs",
        *("local_masks", "penalized_levels", "drop_epochs", "normalize", "attention"),
        *("dbof_pooling_method", "dbof_activation", "video_level_classifier_model", "label_loss"),
        *("class_reduction", "adversarial", "norm_scope", "temporal_loss", "cam_gradient"),
        *("temporal_examples", "optimizer", "on_bad_record", "mixed_precision", "on_nonfinite"),
        *("distribute", "data_service", "feature_types", "labels_key", "labels_are"),
        *("model_options", "callbacks", "label_loss_options", "learning_rate_schedule", "pooling"),
        *("class_weights", "feature_dropout"),
    },
    "yt8m_gat.commands.eval": {
        *("eval_data_pattern", "clips", "attacks", "epsilons", "sigma", "radii"),
        *("corruptions", "severities"),
    },
    "yt8m_gat.commands.inference": {"input_data_pattern", "input_video_pattern"},
    "yt8m_gat.commands.demo": set(),
    "yt8m_gat.commands.download": {"partition", "shard", "plan_url", "base_url"},
    "yt8m_gat.commands.inspect": {
        *("pattern", "feature_names", "feature_sizes", "feature_types", "labels_key"),
    },
    "yt8m_gat.commands.label_space": set(),
    "yt8m_gat.commands.sample": set(),
    "yt8m_gat.commands.kaggle": {"keys", "weights"},
    "yt8m_gat.commands.report": set(),
    "yt8m_gat.commands.calibrate": {"eval_data_pattern"},
    "yt8m_gat.commands.ensemble": {"weights", "eval_data_pattern"},
    "yt8m_gat.commands.export": set(),
    "yt8m_gat.commands.explain": {"input_data_pattern", "video_id", "label"},
    "yt8m_gat.commands.archive": set(),
    "yt8m_gat.commands.extract": {
        *("picture_output", "picture_size", "picture_range", "sound_output", "crop", "fit_pca"),
        *("splits", "runner"),
    },
}
SCRIPTS = tuple(f"yt8m_gat.commands.{name}" for name in ("train", "eval", "inference"))


def flags_of(script):
    values = flags.FlagValues()
    importlib.import_module(script).define_flags(values)
    return values


def texts_of(parser):
    """Names of the arguments of an argparse parser, and of its commands, that are text."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from texts_of(command)
        elif action.type in (None, str) and action.nargs != 0 and action.choices is None:
            yield action.dest


@pytest.mark.parametrize("command", NO_PATHS)
def test_every_flag_of_text_is_known_as_a_path_or_not(command):
    module = importlib.import_module(command)
    if command in SCRIPTS:
        values = flags_of(command)
        texts = {name for name in values if values[name].flag_type() == "string"}
    else:
        parsers = [getattr(module, name) for name in dir(module) if name.endswith("_parser")]
        assert parsers
        texts = {name for parser in parsers for name in texts_of(parser())}
    assert texts == NO_PATHS[command] | set(module.PATHS)
    assert not NO_PATHS[command] & set(module.PATHS)


@pytest.mark.parametrize(
    ("command", "arguments", "code"),
    [
        ("yt8m_gat.commands.train", ["--train_dir=gs://bucket/run"], 2),
        ("yt8m_gat.commands.train", ["--export_dir=a[1]"], 2),
        ("yt8m_gat.commands.eval", ["--output_file=gs://bucket/f.json"], 2),
        ("yt8m_gat.commands.inference", ["--output_file=gs://bucket/f.csv"], 2),
        ("yt8m_gat.commands.demo", ["--output_dir=gs://bucket/demo"], 2),
        (
            "yt8m_gat.commands.download",
            ["--partition=2/frame/train", "--output_dir=gs://bucket/d"],
            2,
        ),
        ("yt8m_gat.commands.inspect", ["x", "--label_names=gs://bucket/names.csv"], 2),
        (
            "yt8m_gat.commands.label_space",
            ["verticals", "--vocabulary=x", "--output=gs://bucket/map.csv"],
            2,
        ),
        ("yt8m_gat.commands.sample", ["--output_dir=gs://bucket/sample"], 2),
        ("yt8m_gat.commands.kaggle", ["check", "gs://bucket/f.csv"], 1),
        ("yt8m_gat.commands.report", ["gs://bucket/run"], 2),
        ("yt8m_gat.commands.report", ["run", "--output_file=gs://bucket/page.html"], 2),
        ("yt8m_gat.commands.archive", ["unpack", "--input_file=x", "--output_dir=gs://a/b"], 2),
        (
            "yt8m_gat.commands.explain",
            [
                "--train_dir=gs://a/b",
                "--input_data_pattern=x",
                "--video_id=x",
                "--label=1",
            ],
            2,
        ),
    ],
)
def test_every_command_refuses_before_it_works(
    command, arguments, code, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(command)
    try:
        found = module.main(arguments)
    except SystemExit as stopped:
        found = stopped.code
    assert found == code
    printed = capsys.readouterr().err.splitlines()[-1]
    assert "must be a local path. Received: 'gs://" in printed or "must have neither [" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("read", [input_path, output_path, saved_model_path])
def test_the_home_folder(read, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("--x", "~/run") == f"{tmp_path}/run"
    assert read("--x", "./~/run") == "./~/run"
    with pytest.raises(ConfigError, match=r"--x: .* must name a home folder .*no-such-user.*\./~"):
        read("--x", "~no-such-user/run")


@pytest.mark.parametrize("read", [input_path, output_path, saved_model_path])
def test_places_elsewhere_and_names_that_are_no_text_are_refused(read):
    for path in ("gs://bucket/run", "hdfs://host/x", "file:///x", "foo+bar://x"):
        with pytest.raises(ConfigError, match=r"--x must be a local path\. Received: '.*; .*copy"):
            read("--x", path)
    with pytest.raises(ConfigError, match=r"--x must be text in UTF-8\. Received: 'a\\udcff'"):
        read("--x", os.fsdecode(b"a\xff"))
    for path in ("gs:/run", "a/gs://b", "C:\\run"[:2], "run (1)", "a,b", "a;b", "-", "new\nline"):
        assert read("--x", path) == path


@pytest.mark.parametrize("name", ["exp[1]", "back\\slash", "[a", "exp[1]/below"])
def test_a_saved_model_is_not_written_where_it_cannot_be_loaded(name, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"--export_dir must have neither \[ nor .*another"):
        saved_model_path("--export_dir", str(tmp_path / name))
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(ConfigError, match="--export_dir"):
        saved_model_path("--export_dir", "export")


OF_RUN = "--train_dir=run"


@pytest.mark.parametrize(
    ("command", "flag", "words", "inputs"),
    [
        ("watch", "output_file", ["a.mp4", OF_RUN, "--label_names=x.csv"], ["a.mp4", "x.csv"]),
        ("attack_videos", "output_file", ["a.mp4", OF_RUN], ["a.mp4"]),
        ("attack_videos", "page_file", ["a.mp4", OF_RUN, "--output_file=new"], ["a.mp4", "new"]),
        ("inference", "output_file", [OF_RUN, "--input_data_pattern=a.*d"], ["a.tfrecord"]),
        ("inference", "output_file", [OF_RUN, "--input_video_pattern=a.mp4"], ["a.mp4"]),
        (
            *("inference", "output_model_tgz"),
            [OF_RUN, "--input_data_pattern=a.*d", "--output_file=new"],
            ["a.tfrecord", "new"],
        ),
        ("eval", "output_file", [OF_RUN, "--eval_data_pattern=a.*d"], ["a.tfrecord"]),
        ("eval", "output_file", [OF_RUN, "--eval_data_pattern=x.csv", "--compare_to=other"], []),
        (
            *("explain", "output_file"),
            [OF_RUN, "--input_data_pattern=a.*d", "--video_id=v", "--label=0"],
            ["a.tfrecord"],
        ),
        ("archive", "output_file", ["pack", OF_RUN], []),
        ("report", "output_file", ["run"], ["run/evaluation.json"]),
        ("report", "leaderboard", ["run", "--evaluation=x.csv", "-o=new"], ["x.csv", "new"]),
        ("kaggle", "output_file", ["sheet", "scores.csv"], ["scores.csv"]),
        ("kaggle", "output_file", ["blend", "scores.csv", "scores.csv"], ["scores.csv"]),
        ("label_space", "output", ["verticals", "--vocabulary=x.csv"], ["x.csv"]),
    ],
)
def test_an_output_is_a_file_of_its_own(
    command, flag, words, inputs, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "a.tfrecord", "x.csv"):
        (tmp_path / name).write_bytes(b"input")
    (tmp_path / "scores.csv").write_text("VideoId,LabelConfidencePairs\nv,0 0.5\n")
    for run in ("run", "other"):
        RunFolder(run).prepare(RunConfig(), extractor={"extractor.json": b"{}"})
    of_runs = ["run/config.json", "run/extractor/extractor.json", "run/best.weights.h5"]
    if any("train_dir" in word or word == "run" for word in words):
        inputs = [*inputs, *of_runs]
    if "--compare_to=other" in words:
        inputs = ["other/config.json"]
    (tmp_path / "link").symlink_to(inputs[0])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    main = importlib.import_module(f"yt8m_gat.commands.{command}").main
    for output in (*inputs, "link"):
        try:
            code = main([*words, f"--{flag}={output}"])
        except SystemExit as ended:
            code = ended.code
        assert code in (1, 2), output
        message = f"must be a file of its own. Received: {output!r}"
        assert message in capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["extract", "pack"])
def test_a_list_of_clips_is_not_taken_for_the_manifest(command, tmp_path, capsys):
    listed = tmp_path / "manifest.csv"
    listed.write_text("path,label\na.mp4,cat\n")
    main = importlib.import_module(f"yt8m_gat.commands.{command}").main
    with pytest.raises(SystemExit) as ended:
        main([str(listed), f"--output_dir={tmp_path}"])
    assert ended.value.code == 2
    assert f"Received: '{listed}', a list of clips" in capsys.readouterr().err


def test_the_folder_of_a_command_has_a_name(tmp_path, monkeypatch, capsys):
    """An empty one would be the current folder, and its files would be among the user's."""
    monkeypatch.chdir(tmp_path)
    with_folder = set()
    for command in (name for commands in COMMANDS.values() for name in commands):
        module = importlib.import_module(f"yt8m_gat.commands.{command.replace('-', '_')}")
        # `export_dir` of train.py may be left out.
        folders = {"output_dir", "export_dir"} & set(getattr(module, "PATHS", ()))
        if folders and command != "train":
            with_folder.add(command)
            values = argparse.Namespace(**dict.fromkeys(folders, ""))
            with pytest.raises(ConfigError, match=r"_dir must name a folder\. Received: an empty"):
                read_paths(values, module.PATHS)
    assert with_folder == {
        *("archive", "compose", "demo", "download", "ensemble", "export", "extract", "pack"),
        *("repack", "sample"),
    }
    assert "--output_dir must name a folder" in _last_line(extract_command, capsys, "--output_dir=")
    assert not list(tmp_path.iterdir())


def _last_line(command, capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_paths_are_read_in_place(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    values = argparse.Namespace(a="~/x", b=None, c="", d=["~/y", "z"], e="~")
    read_paths(values, dict.fromkeys("abcdf", input_path))
    assert vars(values) == {
        "a": f"{tmp_path}/x",
        "b": None,
        "c": "",
        "d": [f"{tmp_path}/y", "z"],
        "e": "~",
    }
    with pytest.raises(ConfigError, match=r"^RUN must be"):
        read_paths(argparse.Namespace(RUN="gs://x"), {"RUN": input_path}, positional=("RUN",))
    script = flags_of("yt8m_gat.commands.train")
    script(["train.py", "--train_dir=~/run"])
    read_paths(script, importlib.import_module("yt8m_gat.commands.train").PATHS)
    assert script.train_dir == f"{tmp_path}/run"
    assert script.export_dir is None


def test_python_is_held_to_the_same_rules(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="train_dir must be a local path"):
        yt8m_gat.load_run("gs://bucket/run")
    with pytest.raises(ConfigError, match="path must be a local path"):
        yt8m_gat.write_records("gs://bucket/mine.tfrecord", [])
    assert not (tmp_path / "gs:").exists()
    assert RunFolder("~/runs/gat").path == tmp_path / "runs" / "gat"
