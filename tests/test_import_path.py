"""Code by import path: its faults are said in a line, and code of strangers does not run."""

import json
import sys
import textwrap

import numpy as np
import pytest

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.config import (
    ConfigError,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.export import read_archive, write_archive
from yt8m_gat.import_path import UntrustedCodeError
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import ImportedCallbacks
from yt8m_gat.training.objective import build_loss
from yt8m_gat.weights.copying import copy_weights
from yt8m_gat.weights.hdf5 import save_weights

# A good one, of which each case changes a part.
MODEL = """
from typing import Literal
import keras
from keras import ops
from yt8m_gat.models import ModelOutputs, VideoClassifier, FrameLevelLogisticClassifier

class Model(VideoClassifier):
    def __init__(self, feature_sizes, num_classes, width: int = 4, rates: tuple[float, ...] = (),
                 kind: Literal["a", "b"] = "a", depth=2, side: int | str | None = None, **kwargs):
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        self.options = {"width": width, "rates": rates, "kind": kind, "depth": depth, "side": side}
        self.head = keras.layers.Dense(num_classes, dtype="float32")
        self.build_all()

    def forward(self, features, frame_mask=None, training=False, auxiliary_normalization=False):
        frames = self.concatenate(features, frame_mask)
        return ModelOutputs(self.head(ops.mean(frames, axis=1)), frames, {})

class Child(Model):
    def __init__(self, *args, seed, max_frames, **kwargs):
        self.given = (seed, max_frames)
        super().__init__(*args, **kwargs)

def function(labels, logits):
    return (labels - logits) ** 2
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes the text of the module `own_code` in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text=MODEL, **changes):
        for old, new in changes.values():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "own_code.py").write_text(textwrap.dedent(text), encoding="utf-8")

    yield write
    sys.modules.pop("own_code", None)


def config(name="own_code:Model", label_loss="CrossEntropyLoss", seed=0, frames=True, **options):
    return RunConfig(
        data=DataConfig(
            feature_names=("a",),
            feature_sizes=(2,),
            num_classes=3,
            max_frames=8,
            frame_features=frames,
        ),
        model=ModelConfig(name=name, options=options),
        objective=ObjectiveConfig(label_loss=label_loss),
        training=TrainingConfig(seed=seed),
    )


def refusal(make):
    with pytest.raises(ConfigError) as error:
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_options_arrive_as_the_signature_says(module):
    module()
    options = {"width": 8, "rates": [1, 0.5], "kind": "b", "depth": 3, "side": "x"}
    model = build_from_config(config(**options), trust_code=True)
    assert model.options == {**options, "rates": (1.0, 0.5)}
    child = build_from_config(config("own_code:Child", seed=7, width=5), trust_code=True)
    assert (child.given, child.options["width"]) == ((7, 8), 5)


def test_weights_are_copied_though_the_layers_have_no_names(module):
    """As fine-tuning does; Keras numbers the layers of the second model on."""
    module()
    source, target = (build_from_config(config(seed=n), trust_code=True) for n in (0, 1))
    assert source.weights[0].path.split("/")[1:] != target.weights[0].path.split("/")[1:]
    copy_weights(source, target)
    np.testing.assert_array_equal(target.weights[0], source.weights[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 8}, "widht is no option of --model=own_code:Model; it has depth, kind, "),
        ({"width": "8"}, "--model_options: width must be int. Received: '8'"),
        ({"width": None}, "--model_options: width must be int. Received: None"),
        ({"rates": [1, "x"]}, "--model_options: rates must be float. Received: 'x'"),
        ({"kind": "c"}, "--model_options: kind must be one of 'a', 'b'. Received: 'c'"),
        ({"depth": 2.5}, "--model_options: depth must be int. Received: 2.5"),
        ({"side": 0.5}, "--model_options: side must be str. Received: 0.5"),
        ({"dtype": "x"}, "dtype is no option of --model=own_code:Model"),
    ],
)
def test_options_that_do_not_fit_are_named(module, options, message):
    module()
    assert message in refusal(lambda: build_from_config(config(**options), trust_code=True))


FORWARD = "return ModelOutputs(self.head(ops.mean(frames, axis=1)), frames, {})"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("nowhere:Model", (), "there is no module nowhere. It must be importable from the current"),
        ("own_code:Modle", (), "own_code.py has no Modle; it defines Child, Model, function"),
        ("own_code:function", (), "must be a subclass of yt8m_gat.models.VideoClassifier"),
        ("own_code:Model", ("import keras", "import keras nowhere"), "failed: SyntaxError: "),
        ("own_code:Model", ("import keras", "import kearas"), "own_code needs kearas"),
        ("own_code:Model", ("import keras", "1 / 0"), "ZeroDivisionError: division by zero"),
        (
            "own_code:Model",
            ("width: int = 4", "width: int"),
            """give --model_options='{"width": ...}'""",
        ),
        ("own_code:Model", ("width: int = 4", "width: 'Nothing' = 4"), "cannot be evaluated"),
        (
            "own_code:Model",
            ("None = None, **kwargs", "None = None"),
            "and **kwargs for Keras",
        ),
        ("own_code:Model", ("self.build_all()", ""), "must end with self.build_all()"),
        ("own_code:Model", ('"float32"', '"float16"'), "logits in float32: give the last layer"),
        (
            "own_code:Model",
            ("Dense(num_classes", "Dense(7"),
            "shape [B, 3]. Received: [?, 7]",
        ),
        (
            "own_code:Model",
            (FORWARD, "return frames"),
            "must return ModelOutputs(",
        ),
        ("own_code:Model", ("frames, {})", "None, {})"), "frames of shape [B, T, D], those before"),
        ("own_code:Model", ("frames, {})", "frames, {'a': {'x': 0}})"), "`attention_levels` names"),
        (
            "own_code:Model",
            ("self.build_all()", "self.embedding_size = 4; self.build_all()"),
            "an embedding of shape [B, 4], as `embedding_size` says. Received: None",
        ),
        ("own_code:Model", ("axis=1)), frames", "axis=1) + 1 / 0), frames"), "own_code.py, line"),
    ],
)
def test_a_model_that_cannot_work_is_refused_in_a_line(module, name, change, message):
    module(**({"change": change} if change else {}))
    assert message in refusal(lambda: build_from_config(config(name), trust_code=True))


def test_frames_or_not_is_what_the_class_says(module):
    module()
    told = refusal(lambda: build_from_config(config(frames=False), trust_code=True))
    assert "--model=own_code:Model reads frames: leave out --noframe_features" in told


@pytest.mark.parametrize("path", ["my/models.py:A", "a.b:", ":A", "a b:c", "a:b:c", "a:b.c"])
def test_an_import_path_is_a_module_and_a_name(path):
    assert "must be module:name" in refusal(lambda: ModelConfig(name=path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss = 3", "must be a subclass of yt8m_gat.losses.ClassificationLoss, or a function"),
        ("class loss: pass", "must be a subclass of yt8m_gat.losses.ClassificationLoss"),
        ("def loss(labels): pass", "failed on labels and logits [B, C]: TypeError"),
        ("def loss(labels, logits): return labels[:, 0]", "must have the shape of `logits`"),
        (
            """
            from yt8m_gat.losses import ClassificationLoss
            class loss(ClassificationLoss):
                def class_terms(self, labels, logits): return labels
                def __call__(self, labels, logits, label_weights=None): return logits
            """,
            "must give one loss an example, [B]. Received: [2, 3]",
        ),
    ],
)
def test_a_loss_that_cannot_work_is_refused_in_a_line(module, text, message):
    module(text)
    assert message in refusal(lambda: build_loss(ObjectiveConfig(label_loss="own_code:loss")))


def test_a_loss_of_ones_own_is_reduced_and_weighted_like_ours(module):
    module()
    objective = ObjectiveConfig(label_loss="own_code:function", class_reduction="mean")
    loss = build_loss(objective)
    # Terms 1, 4, 9; then those of weight 1, 1, 0.
    assert loss([[1.0, 0, 0]], [[0.0, 2, 3]]).numpy() == pytest.approx([14 / 3])
    assert loss([[1.0, 0, 0]], [[0.0, 2, 3]], [[1.0, 1, 0]]).numpy() == pytest.approx([2.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("make = 3", "--callbacks=own_code:make must be a function. Received: 3"),
        ("def make(run): pass", "Received: one that also needs run"),
        ("def make(): return [3]", "must return a Keras callback, or a list of them. Received: 3"),
    ],
)
def test_callbacks_that_are_none_are_refused_in_a_line(module, text, message):
    module(text)
    told = refusal(lambda: ImportedCallbacks(["own_code:make"]).make(RunConfig(), "runs/x"))
    assert message in told


def test_callbacks_get_what_they_name(module):
    module(
        """
        from keras.callbacks import Callback, TerminateOnNaN
        class One(Callback):
            def __init__(self, train_dir, more=1):
                super().__init__()
                self.train_dir = train_dir
        def two(config):
            return [TerminateOnNaN(), One(config.model.name)]
        """
    )
    one, nan, of_config = ImportedCallbacks(["own_code:One", "own_code:two"]).make(
        RunConfig(), "runs/x"
    )
    assert (one.train_dir, type(nan).__name__, of_config.train_dir) == (
        *("runs/x", "TerminateOnNaN"),
        "GAT",
    )


@pytest.mark.parametrize("names", ["model", "loss"])
def test_code_of_strangers_does_not_run(module, tmp_path, names):
    """Neither of a folder, nor of an archive, whichever job reads it."""
    module("open('ran', 'w')")
    (tmp_path / "records.tfrecord").touch()
    folder = RunFolder(tmp_path / "run")
    ours = config("FrameLevelLogisticModel")
    folder.path.mkdir()
    (tmp_path / "clean").mkdir()
    save_weights(build_from_config(ours), folder.best_weights)
    stored = json.loads(ours.to_json())
    if names == "model":
        stored["model"]["name"] = "own_code:Model"
    else:
        stored["objective"]["label_loss"] = "own_code:loss"
    (folder.path / "config.json").write_text(json.dumps(stored))
    write_archive(folder, tmp_path / "model.tgz")
    unpacked = read_archive(tmp_path / "model.tgz", tmp_path / "unpacked")
    ours.save(tmp_path / "clean")
    save_weights(build_from_config(ours), RunFolder(tmp_path / "clean").best_weights)
    records = str(tmp_path / "records.tfrecord")

    def evaluate(run, **options):
        return pipeline.evaluate(run, eval_data_pattern=records, **options)

    def predict_with_the_archive():
        with pipeline.model_folder("", tmp_path / "model.tgz"):
            pass

    jobs = [
        predict_with_the_archive,
        lambda: evaluate(folder),
        lambda: evaluate(RunFolder(tmp_path / "clean"), compare_to=folder.path),
        lambda: evaluate(
            RunFolder(tmp_path / "clean"), transfer_from=folder.path, attacks=["transfer"]
        ),
        lambda: pipeline.infer(unpacked, input_data_pattern=records, output_file=tmp_path / "x"),
        lambda: yt8m_gat.load_run(folder.path),
        lambda: pipeline.explain(folder, input_data_pattern=records, video_id="a", label=0),
    ]
    for job in jobs:
        with pytest.raises(UntrustedCodeError, match=r"runs the code of own_code:\w+\. If you tr"):
            job()
    assert not (tmp_path / "ran").exists()
