"""Training and validation loss of runs on raw clips, in one figure."""

import json
import re

from test_report import write_run

from yt8m_gat.config import CLIP_FEATURE, ClipConfig, DataConfig, ModelConfig, RunConfig
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import read_run


def write(folder, losses, validations, clips=True):
    write_run(folder)
    if clips:
        data = DataConfig(
            feature_names=(CLIP_FEATURE,),
            feature_sizes=(3,),
            num_classes=5,
            max_frames=4,
            labels_key="clip/label/index",
            clips=ClipConfig(num_segments=4, crop_size=32),
        )
        RunConfig(data=data, model=ModelConfig(name="TSM")).save(folder)
    lines = [
        *({"kind": "train", "step": 10 * i, "clean_loss": y} for i, y in enumerate(losses, 1)),
        *({"kind": "validation", "step": 10 * i, "loss": y} for i, y in enumerate(validations, 1)),
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_run(folder)


def test_training_and_validation_loss_share_a_figure(tmp_path):
    runs = [write(tmp_path / "tsm", [4.0, 1.0], [4.0, 2.5]), write(tmp_path / "taf", [3.0], [2.0])]
    figures = build_page(runs)[1]
    assert not {"train_clean_loss", "validation_loss"} & set(figures)
    svg = figures["losses"]
    keys = re.findall(r'class="key"[^>]*>([^<]+)<', svg)
    assert keys == ["tsm, training", "tsm, validation", "taf, training", "taf, validation"]
    lines = re.findall(r'--series-(\d)\)" stroke-dasharray="([^"]+)" points="([^"]+)"', svg)
    assert [(color, dash != "none") for color, dash, _ in lines] == [
        ("0", False), ("0", True), ("1", False), ("1", True)
    ]  # fmt: skip
    # Losses 4 and 1 in training, 4 and 2.5 in validation: half the fall.
    falls = [[float(point.split(",")[1]) for point in line[2].split()] for line in lines[:2]]
    assert abs((falls[0][1] - falls[0][0]) - 2 * (falls[1][1] - falls[1][0])) < 0.3
    assert falls[0][0] == falls[1][0]


def test_runs_of_features_keep_a_figure_for_each(tmp_path):
    figures = build_page([write(tmp_path / "sa", [4.0], [3.0], clips=False)])[1]
    assert {"train_clean_loss", "validation_loss"} <= set(figures) and "losses" not in figures
