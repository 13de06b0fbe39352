"""What comes from elsewhere runs no code and fills no memory; Keras' safe mode stays on."""

import ast
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.data import LabelMap, read_label_names
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.load import load_classifier

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*(ROOT / "yt8m_gat").rglob("*.py"), *ROOT.glob("*.py"), *(ROOT / "benchmarks").glob("*")]
# What unpickles, evaluates or deserializes classes by name.
FORBIDDEN = {
    *("eval", "exec", "enable_unsafe_deserialization", "load_model", "model_from_json"),
    *("allow_pickle", "safe_mode", "custom_objects", "extractall"),
}
# The user names these models' files; the safe mode stays on.
ALLOWED = {("loading.py", "load_model"), ("backbones.py", "load_model")}
# A run's own network, which may be a stranger's; the safe mode stays on.
ALLOWED |= {("backbones.py", "model_from_json")}
MODULES = {"pickle", "marshal", "shelve", "yaml", "dill", "joblib"}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.suffix == ".py"], ids=lambda p: p.name)
def test_nothing_here_loads_code_or_turns_safe_mode_off(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            forbidden = name in FORBIDDEN and (path.name, name) not in ALLOWED
            assert not forbidden, f"{path}:{node.lineno}: {name}"
            for keyword in node.keywords:
                assert keyword.arg not in FORBIDDEN, f"{path}:{node.lineno}: {keyword.arg}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names}
            names |= {(getattr(node, "module", None) or "").split(".")[0]}
            assert not MODULES & names, f"{path}:{node.lineno}: {MODULES & names}"


def test_one_module_imports_what_a_file_may_name():
    """It stands behind `require_trust`; the others import modules of ours, and TensorFlow."""
    names = {"import_module", "__import__", "find_spec", "run_path", "run_module"}
    calls = {
        path.relative_to(ROOT / "yt8m_gat").as_posix()
        for path in (ROOT / "yt8m_gat").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute | ast.Name)
        and getattr(node, "attr", getattr(node, "id", "")) in names
    }
    ours = {
        "__init__.py",
        "cli.py",
        "commands/console.py",
        "data/__init__.py",
        "extraction/__init__.py",
    }
    assert calls - ours == {"import_path.py"}


def test_safe_mode_is_on():
    layer = keras.layers.Lambda(lambda x: x)
    with pytest.raises(ValueError, match=r"unsafe|safe_mode"):
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"training": {"batch_size": ' + b"9" * 5000 + b"}}",
        b"\xff\xfe\x00",
        b'{"data": {"num_classes": NaN}}',
        b'{"model": {"name": "os.system"}}',
        b'{"__class__": "Lambda"}',
        b" " * (2 << 20),
    ],
    ids=["deep", "long number", "no text", "nan", "name", "class", "huge"],
)
def test_a_hostile_configuration_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises((ConfigError, UnicodeDecodeError), match=r"config|model|utf-8"):
        RunConfig.load(tmp_path)


def test_weights_of_other_shapes_are_refused(tmp_path):
    config = RunConfig(
        data=DataConfig(
            feature_names=("m",), feature_sizes=(4,), num_classes=3, frame_features=False
        ),
        model=ModelConfig(name="LogisticModel"),
    )
    folder = RunFolder(tmp_path)
    build_from_config(config).save_weights(folder.best_weights)
    load_classifier(folder, config)
    with h5py.File(folder.best_weights, "r+") as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
        del file[found[0]]
        # A terabyte on paper, a few kilobytes in the file.
        file.create_dataset(found[0], (10**6, 10**6), np.uint8, chunks=(1000, 1000))
    with pytest.raises(ValueError, match=r"shape|expected|size"):
        load_classifier(folder, config)


@pytest.mark.parametrize("path", ["/dev/zero", "large.csv"])
def test_a_vocabulary_without_end_is_refused_before_it_fills_memory(tmp_path, path):
    if path == "large.csv":
        path = tmp_path / path
        with path.open("wb") as file:
            file.truncate(10**12)  # A hole, which takes no room on the disk.
    with pytest.raises(ConfigError, match=f"{path} must have at most"):
        read_label_names(path)
    with pytest.raises(ConfigError, match=f"{path} must have at most"):
        LabelMap.load(path)
