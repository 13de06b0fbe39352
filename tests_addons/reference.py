"""What the older stack is to agree with, made by the stack of today: the exports of the recipes
and their outputs, and what Keras 3 makes of inputs that tensorflow-addons has a twin for.

python tests_addons/reference.py --output_dir=build/addons
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "export"))

import keras
import numpy as np
import tensorflow as tf
from exported_model import FRAME_SIZES, OPTIONS, export, records_of_all_lengths, schema_of

from yt8m_gat.data import dequantize, parse_frame_batch

NUM_STEPS = 20


def write_exports(folder):
    """`<name>/1`, the SavedModel, and `<name>/1.npz`: `<signature>/<input or output>`."""
    for name in OPTIONS:
        _, version = export(name, folder / name)
        signatures = tf.saved_model.load(str(version)).signatures
        records = np.array(records_of_all_lengths(name), object)
        arrays = {}
        for signature_name, signature in signatures.items():
            inputs = {"example_bytes": tf.constant(list(records))}
            if signature_name == "frames":
                inputs = _frames(records, schema_of(name))
            outputs = signature(**inputs)
            for key, tensor in {**inputs, **outputs}.items():
                arrays[f"{signature_name}/{key}"] = tensor.numpy()
        np.savez(folder / name / "1.npz", **arrays)
        print(f"{name}: {', '.join(signatures)}; {len(records)} records", flush=True)


def _frames(records, schema):
    batch = parse_frame_batch(tf.constant(list(records)), schema, with_labels=False)
    frames = tf.concat([dequantize(batch["features"][name]) for name in FRAME_SIZES], axis=-1)
    return {"rgb_and_audio": frames, "num_frames": batch["num_frames"][:, tf.newaxis]}


def write_twins(folder):
    """`twins.npz`: inputs, and what Keras 3 gives for them."""
    generator = np.random.default_rng(0)
    labels = (generator.random((40, 6)) < 0.3).astype(np.float32)
    probabilities = generator.random((40, 6)).astype(np.float32)
    logits = generator.normal(0, 3, (40, 6)).astype(np.float32)
    frames = generator.normal(1, 2, (5, 7, 12)).astype(np.float32)
    weights = generator.normal(size=(4, 3)).astype(np.float32)
    gradients = generator.normal(size=(NUM_STEPS, 4, 3)).astype(np.float32)
    arrays = {
        "recipes": np.array(sorted(OPTIONS)),
        "labels": labels,
        "probabilities": probabilities,
        "logits": logits,
        "frames": frames,
        "weights": weights,
        "gradients": gradients,
    }
    for average in ("micro", "macro", "weighted", None):
        metric = keras.metrics.F1Score(average=average, threshold=0.5)
        metric.update_state(labels[:25], probabilities[:25])
        metric.update_state(labels[25:], probabilities[25:])
        arrays[f"f1/{average}"] = metric.result().numpy()
    focal = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, alpha=0.25, gamma=2.0, from_logits=True, reduction="none"
    )
    arrays["focal"] = focal(labels, logits).numpy()
    arrays["group_normalization"] = keras.layers.GroupNormalization(4)(frames).numpy()
    variable = keras.Variable(weights)
    optimizer = keras.optimizers.Lamb(0.01, epsilon=1e-6)
    steps = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        steps.append(variable.numpy())
    arrays["lamb"] = np.stack(steps)
    np.savez(folder / "twins.npz", **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", type=Path, required=True)
    output_dir = parser.parse_args().output_dir
    output_dir.mkdir(parents=True)
    write_exports(output_dir)
    write_twins(output_dir)
