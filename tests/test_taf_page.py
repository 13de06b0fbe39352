"""The commands of docs/TAF.md, from lists of clips to figures, on a small generated set."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from yt8m_gat.acquisition.motion import MotionConfig, generate_motion_sample

ROOT = Path(__file__).resolve().parents[1]
# The page trains ResNet-50 on 174 classes.
SMALL = [
    *("--num_classes=8", "--backbone=ResNet10Small", "--num_segments=4", "--crop_size=32"),
    *("--batch_size=16", "--num_epochs=1", "--drop_epochs="),
]
REPLACED = ("--num_classes", "--num_segments", "--backbone_weights")


def commands():
    """The page's own commands, each a list of words, in order."""
    text = (ROOT / "docs" / "TAF.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    ((?:python|yt8m-gat) .*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def write_frames(records, folder, list_name):
    """Writes the clips of records as folders of JPEG files, and a list `folder count label`."""
    lines = []
    for path in sorted(records):
        for record in tf.data.TFRecordDataset(str(path)):
            example = tf.train.SequenceExample.FromString(record.numpy())
            name = example.context.feature["clip/media_id"].bytes_list.value[0].decode()
            label = example.context.feature["clip/label/index"].int64_list.value[0]
            frames = example.feature_lists.feature_list["image/encoded"].feature
            (folder / name).mkdir()
            for number, frame in enumerate(frames, start=1):
                image = folder / name / f"{number:05d}.jpg"
                image.write_bytes(frame.bytes_list.value[0])
            lines.append(f"{name} {len(frames)} {label}")
    (folder / list_name).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_from_lists_to_figures(tmp_path):
    generate_motion_sample(
        tmp_path / "motion", MotionConfig(num_train=32, num_validate=16, num_test=8)
    )
    for split, name in (("train", "train_videofolder.txt"), ("validate", "val_videofolder.txt")):
        write_frames((tmp_path / "motion").glob(f"{split}*.tfrecord"), tmp_path, name)
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ran = []
    for words in commands():
        if words[:2] == ["yt8m-gat", "pack"]:
            words = [word.replace("num_shards=64", "num_shards=2") for word in words]
        if words[0] == "yt8m-gat":
            words = [sys.executable, "-m", "yt8m_gat", *words[1:]]
        else:
            script = words[1]
            words = [sys.executable, str(ROOT / script), *words[2:]]
            if script == "train.py":
                words = [word for word in words if not word.startswith(REPLACED)] + SMALL
        finished = subprocess.run(
            words, cwd=tmp_path, env={**os.environ, **paths}, capture_output=True, text=True
        )
        assert finished.returncode == 0, (words, finished.stderr[-2000:])
        ran.append(words)
    assert len(ran) >= 6
    with (tmp_path / "ssv1/train/manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32 and {row["split"] for row in rows} == {""}
    figures = json.loads((tmp_path / "runs/tsm_taf/evaluation.json").read_text(encoding="utf-8"))
    assert figures["clean"]["num_videos"] == 16
    assert 0 <= figures["clean"]["hit_at_1"] <= figures["clean"]["top_5"] <= 1
    assert 0 < figures["class_activation"]["entropy"] <= 1
    for name, adversarial in (("tsm", "none"), ("tsm_taf", "temporal"), ("tsm_longer", "none")):
        config = json.loads((tmp_path / f"runs/{name}/config.json").read_text(encoding="utf-8"))
        assert config["objective"]["adversarial"] == adversarial
        assert config["training"]["base_learning_rate"] == 0.01
