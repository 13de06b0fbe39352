"""Steps on one device and on three logical ones, side by side; JSON of how far they differ.

Run as a program: logical devices can be configured only before TensorFlow starts.
"""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError, ObjectiveConfig, TrainingConfig
from yt8m_gat.models import build_model
from yt8m_gat.training import (
    AdversarialModel,
    Distribution,
    build_distribution,
    build_objective,
)
from yt8m_gat.training.optimizer import averaged_weights, build_optimizer
from yt8m_gat.training.step import TrainingStep

CLASSES, DEVICES = 4, 3
# The last is smaller than the number of devices: one of them has no row.
BATCHES = (7, 6, 2)
GMSA = ("GMSA", {"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8, "local_masks": ("bd2",)})
LOGISTIC = ("FrameLevelLogisticModel", {})
DBOF = (
    "DbofModel",
    {
        "dbof_cluster_size": 6,
        "dbof_hidden_size": 5,
        "iterations": 1,
        "dbof_add_batch_norm": False,
        "video_level_classifier_model": "LogisticModel",
    },
)

# Name -> model, objective, training, whether labels have weights.
CASES = {
    "cross-entropy": (LOGISTIC, {"adversarial": "none"}, {"optimizer": "Adam"}, False),
    "clipping": (LOGISTIC, {"adversarial": "none"}, {"clip_gradient_norm": 0.05}, False),
    "label weights": (LOGISTIC, {"adversarial": "none", "class_reduction": "sum"}, {}, True),
    "skip": (LOGISTIC, {"adversarial": "none"}, {"on_nonfinite": "skip"}, False),
    "frobenius": (GMSA, {"adversarial": "frobenius", "beta": 0.5}, {}, False),
    "micro batches": (
        ("Transformer", {"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8}),
        {"adversarial": "frobenius", "beta": 0.5},
        {"micro_batch_size": 2},
        False,
    ),
    "temporal": (
        LOGISTIC,
        {"adversarial": "temporal", "temporal_loss": "ce"},
        {"clip_gradient_norm": 1.0},
        False,
    ),
    "batch normalization": (
        (
            "DbofModel",
            {
                "dbof_cluster_size": 6,
                "dbof_hidden_size": 5,
                "iterations": 5,  # All frames: nothing is drawn.
                "sample_random_frames": False,
            },
        ),
        {"adversarial": "none"},
        {"base_learning_rate": 1e-30},
        False,
    ),
    "averaged weights": (LOGISTIC, {"adversarial": "none"}, {"ema_momentum": 0.5}, False),
    "loss scale": (LOGISTIC, {"adversarial": "none"}, {"mixed_precision": "mixed_float16"}, False),
}


def batches(weighted):
    rng = np.random.default_rng(3)
    for size in BATCHES:
        inputs = {
            "a": tf.constant(rng.integers(0, 256, (size, 5, 4)), tf.uint8),
            "b": tf.constant(rng.integers(0, 256, (size, 5, 6)), tf.uint8),
            "num_frames": tf.constant(rng.integers(1, 6, size), tf.int32),
        }
        labels = tf.constant(rng.integers(0, 2, (size, CLASSES)), tf.float32)
        if weighted:
            yield inputs, labels, tf.constant(rng.integers(0, 2, (size, CLASSES)), tf.float32)
        else:
            yield inputs, labels


def spec_of(data):
    return tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), data)


def make(distribution, model, objective, training, weighted=False):
    """A step and its model; the same weights each time."""
    keras.utils.set_random_seed(0)
    config = TrainingConfig(**{"optimizer": "SGD", "base_learning_rate": 0.3, **training})
    with distribution.strategy.scope():
        classifier = build_model(model[0], {"a": 4, "b": 6}, CLASSES, 5, **model[1])
        trained = AdversarialModel(
            classifier,
            build_objective(ObjectiveConfig(**objective)),
            micro_batch_size=config.micro_batch_size or None,
        )
        trained.compile(optimizer=build_optimizer(config, distribution.num_replicas))
        trained.optimizer.build(trained.trainable_variables)
    skip = config.on_nonfinite == "skip"
    first = next(batches(weighted))
    return trained, TrainingStep(trained, distribution, spec_of(first), skip_nonfinite=skip)


def run(distribution, model, objective, training, weighted):
    trained, step = make(distribution, model, objective, training, weighted)
    results = []
    for index, data in enumerate(batches(weighted)):
        if training.get("on_nonfinite") == "skip" and index == 1:
            # NaN in one replica's rows alone.
            labels = data[1].numpy()
            labels[-1, 0] = np.nan
            data = (data[0], tf.constant(labels))
        results.append(step(data))
    return {
        "terms": [list(result.terms.values()) for result in results],
        "finite": [result.finite for result in results],
        "examples": [result.num_examples for result in results],
        "logits": [result.logits.numpy().tolist() for result in results],
        "moving": {
            v.path.removeprefix(f"{trained.classifier.path}/"): v.numpy().tolist()
            for v in trained.classifier.variables
            if "moving" in v.path
        },
        "weights": [
            weight.numpy().tolist()
            for weight in (
                *trained.classifier.trainable_variables,
                *(averaged_weights(trained.optimizer) or ()),
            )
        ],
    }


def independent_draws(distribution):
    """DBoF draws frames: each device its own, and one seed moves on as on one machine."""
    objective = {"adversarial": "none"}
    trained, step = make(distribution, DBOF, objective, {"base_learning_rate": 1e-30})
    alone, alone_step = make(Distribution(), DBOF, objective, {"base_learning_rate": 1e-30})
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (1, 5, 4)), rng.integers(0, 256, (1, 5, 6))
    inputs = {
        "a": tf.constant(np.repeat(clip[0], DEVICES, 0), tf.uint8),
        "b": tf.constant(np.repeat(clip[1], DEVICES, 0), tf.uint8),
        "num_frames": tf.fill([DEVICES], 5),
    }
    data = inputs, tf.zeros([DEVICES, CLASSES])
    for _ in range(2):
        step(data)
        alone_step(data)
    states = [
        [v.numpy().tolist() for v in model.classifier.variables if "seed" in v.name]
        for model in (trained, alone)
    ]
    # The same clip in each row: without batch normalization only the draws tell rows apart.
    return {"states": states, "logits": step(data).logits.numpy().tolist()}


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * DEVICES
    )
    mirrored = build_distribution("mirrored")
    report = {"devices": mirrored.num_replicas, "cases": {}}
    for name, (model, objective, training, weighted) in CASES.items():
        keras.config.set_dtype_policy(training.get("mixed_precision", "float32"))
        report["cases"][name] = [
            run(distribution, model, objective, training, weighted)
            for distribution in (Distribution(), mirrored)
        ]
    keras.config.set_dtype_policy("float32")
    report["draws"] = independent_draws(mirrored)
    try:
        build_distribution("mirrored", jit_compile=True)
    except ConfigError as error:
        report["jit_compile"] = str(error)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
