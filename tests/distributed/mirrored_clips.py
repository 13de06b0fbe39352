"""A run of raw clips on one device and on two logical ones; JSON of its figures and weights.

Run as a program: logical devices can be configured only before TensorFlow starts.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path += [str(Path(__file__).parents[1] / name) for name in ("data",)]

import numpy as np
import raw_clips as raw
import tensorflow as tf
from handmade_records import write

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.config import (
    ClipConfig,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.models import backbones
from yt8m_gat.run_folder import RunFolder

DEVICES = 2
backbones._OWN["Tiny"] = backbones._Stages((1, 1), (8, 8), False)
MODELS = {
    # Without batch normalization, whose averages differ between one device and two.
    "alike": ModelConfig(name="tiny_clip_model:TinyClipModel"),
    "TSM": ModelConfig(name="TSM", options={"backbone": "Tiny"}),
}

OBJECTIVES = {"alike": "output", "TSM": "temporal"}


def config(model, objective, distribute):
    return RunConfig(
        data=DataConfig(
            feature_names=("image",),
            feature_sizes=(3,),
            num_classes=2,
            max_frames=2,
            labels_key="clip/label/index",
            clips=ClipConfig(num_segments=2, crop_size=8),
        ),
        model=model,
        objective=ObjectiveConfig(
            label_loss="SoftmaxLoss", class_reduction="sum", adversarial=objective, epsilon=6.0
        ),
        training=TrainingConfig(
            batch_size=6, base_learning_rate=0.05, num_epochs=1, distribute=distribute
        ),
    )


def main(folder):
    """Trains each model, the first on one device too."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * DEVICES
    tf.config.set_logical_device_configuration(cpu, logical)
    dark, bright = raw.flat(40), raw.flat(200)
    records = [
        raw.record(f"clip{i}", [dark, bright] if i % 2 else [bright, dark], [i % 2])
        for i in range(15)  # The last batch has 3 clips.
    ]
    path = write(folder / "clips.tfrecord", records)
    report = {}
    for name, model in MODELS.items():
        for distribute in ("none", "mirrored") if name == "alike" else ("mirrored",):
            run = RunFolder(folder / f"{name}_{distribute}")
            settings = config(model, OBJECTIVES[name], distribute)
            state = pipeline.train(run, settings, train_data_pattern=path)
            weights = yt8m_gat.load_run(run.path, trust_code=True).model.get_weights()
            report[f"{name}, {distribute}"] = {
                "examples": state.examples,
                "finite": all(np.isfinite(weight).all() for weight in weights),
                "weights": [weight.tolist() for weight in weights] if name == "alike" else [],
            }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
