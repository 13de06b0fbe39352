"""A model, a loss and callbacks of the user's own: what docs/EXTENDING.md says, done."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import yt8m_gat
from yt8m_gat.config import ADVERSARIAL_OBJECTIVES, ObjectiveConfig, RunConfig
from yt8m_gat.models import build_model
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import AdversarialModel, build_objective

PAGE = Path(__file__).resolve().parents[1] / "docs" / "EXTENDING.md"
SMALL = [
    *("--feature_names=rgb", "--feature_sizes=1024", "--num_classes=8", "--max_frames=12"),
    *("--label_loss=my_losses:focal", "--callbacks=my_callbacks:tracker"),
]


def blocks(language):
    """The page's code blocks in a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def files():
    """Name of a file that the page has the reader save -> its content."""
    pattern = r"`(my_\w+\.py)`[.:]+\s+```python\n(.*?)```"
    return dict(re.findall(pattern, PAGE.read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_dir):
    """The current folder of somebody who follows the page."""
    path = tmp_path_factory.mktemp("user")
    for name, content in files().items():
        (path / name).write_text(content, encoding="utf-8")
    (path / "data").symlink_to(sample_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sys, "path", [*sys.path])
        yield path
    for name in files():
        sys.modules.pop(name.removesuffix(".py"), None)


def run(command, *more):
    """Runs a command of the page in this process, with more flags."""
    script, *arguments = shlex.split(command)[1:]
    name = script.removesuffix(".py")
    importlib.import_module(f"yt8m_gat.commands.{name}").main([*arguments, *more])


def command(word):
    """The first command of the page with a word in it."""
    commands = "".join(blocks("bash")).replace("\\\n", "").splitlines()
    return next(line for line in commands if word in line)


@pytest.fixture(scope="module")
def trained(folder):
    run(command("train.py"), "--eval_data_pattern=", "--max_steps=2", *SMALL)
    return RunFolder("runs/mine")


@pytest.mark.slow
def test_a_model_of_ones_own_is_trained_and_remembered(trained, folder):
    config = RunConfig.load(trained.path)
    assert config.code == ("my_models:MyModel", "my_losses:focal")
    assert config.model.options == {"width": 32}
    model = yt8m_gat.load_run(trained.path, trust_code=True).model
    assert (type(model).__module__, model.width) == ("my_models", 32)
    lines = [json.loads(line) for line in (folder / "runs/mine.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        *[("begin", 0), ("step", 1), ("step", 2), ("end", 2)],
    ]
    assert lines[0]["model"] == "my_models:MyModel"
    (stored,) = (line for line in trained.read_metrics() if line["kind"] == "train")
    assert lines[-1]["loss"] == pytest.approx(stored["loss"])


@pytest.mark.slow
def test_it_is_attacked_and_predicted(trained, folder):
    own = "my_attacks:EOT:samples=2:steps=2"
    run(command("eval.py"), f"--attacks=fgm,{own}", "--output_file=evaluation.json")
    result = json.loads((folder / "evaluation.json").read_text())
    assert [row["attack"] for row in result["attacks"]] == ["fgm", own]
    assert all(row["loss"] > result["clean"]["loss"] for row in result["attacks"])
    run(command("inference.py"))
    config = RunConfig.load(trained.path)
    served = tf.saved_model.load("runs/mine/export/1").signatures["serving_default"]
    record = next(iter(tf.data.TFRecordDataset(sorted(map(str, Path("data").glob("test*"))))))
    outputs = served(example_bytes=record[None])
    row = pd.read_csv("submission.csv").iloc[0]
    assert row["VideoId"] == outputs["video_id"].numpy()[0].decode()
    pairs = row["LabelConfidencePairs"].split()
    assert list(map(int, pairs[::2])) == outputs["class_indexes"].numpy()[0].tolist()
    np.testing.assert_allclose(
        [float(value) for value in pairs[1::2]], outputs["predictions"].numpy()[0], atol=2e-6
    )
    assert config.data.num_classes == len(pairs) // 2


@pytest.mark.parametrize("adversarial", ADVERSARIAL_OBJECTIVES)
def test_every_objective_trains_it(folder, adversarial):
    model = build_model("my_models:MyModel", {"rgb": 8}, 3, width=8, seed=0)
    config = ObjectiveConfig(adversarial=adversarial, label_loss="my_losses:focal", beta=1.0)
    trainer = AdversarialModel(model, build_objective(config))
    trainer.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    frames = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    inputs = {"rgb": tf.constant(frames), "num_frames": tf.constant([5, 3])}
    terms = trainer.optimize((inputs, tf.eye(2, 3)))
    if adversarial != "trades":  # It climbs the divergence, and TAF the activation.
        climbs = adversarial not in ("none", "temporal")
        assert (terms.adversarial_loss > terms.clean_loss) == climbs
    assert (terms.adversarial_loss != 0) == (adversarial != "none")
    penalized = ("frobenius", "jensen_shannon", "embedding", "trades")
    assert (terms.penalty > 0) == (adversarial in penalized)
    assert trainer.optimize((inputs, tf.eye(2, 3))).total < terms.total


def test_the_keras_model_of_the_page_is_attacked(folder):
    names = {}
    exec(compile(blocks("python")[-1], str(PAGE), "exec"), names)
    np.testing.assert_allclose(names["result"].norm, 0.5, rtol=1e-4)
