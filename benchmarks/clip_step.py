"""Times training steps on raw clips beside their counted operations, TAF's beside plain ones.

python benchmarks/clip_step.py --output_file=clip_step.json
python benchmarks/clip_step.py --backbone=ResNet50 --crop_size=224 --batch_size=2   # full size

Operations are those of the convolutions and products that the graph of the step needs (multiply
and add count as 2), from their static shapes. The share is what they take at the rate of a bare
convolution of the same process, over the time of the step. TAF's least is (4 F + 3 F) / 3 F: the
plain step is 3 F, forward, gradients by activations and by weights; TAF with K = 1 adds a pass
back to the pixels and a whole step on the perturbed clip. Steps of all rows are taken in turn.
"""

import argparse
import json
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from machine import describe_machine

from yt8m_gat.config import ObjectiveConfig, TrainingConfig
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, build_objective, build_optimizer

TAF_FLOOR = 7 / 3
# Operation -> index of the operand with the shape of the product's result, and how its kernel's
# shape is known: an operand's index, or None for the result itself.
_CONVOLUTIONS = {
    "Conv2D": (None, 1),
    "Conv3D": (None, 1),
    "Conv2DBackpropInput": (2, 1),
    "Conv3DBackpropInputV2": (2, 1),
    "Conv2DBackpropFilter": (2, None),
    "Conv3DBackpropFilterV2": (2, None),
    "DepthwiseConv2dNative": (None, 1),
    "DepthwiseConv2dNativeBackpropInput": (2, 1),
    "DepthwiseConv2dNativeBackpropFilter": (2, None),
}


def needed(graph):
    """Returns the operations that run: TensorFlow leaves out those that nothing asks for."""
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    found = set()
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return found


def operations_of(graph):
    """Returns the operations of the convolutions and products of a graph."""
    total = 0
    for operation in needed(graph):
        result = operation.outputs[0].shape if operation.outputs else None
        if operation.type == "MatMul":
            inner = operation.inputs[0].shape[0 if operation.get_attr("transpose_a") else 1]
            total += 2 * math.prod(result) * inner
        elif operation.type in _CONVOLUTIONS:
            output, kernel = _CONVOLUTIONS[operation.type]
            shape = result if output is None else operation.inputs[output].shape
            kernel = result if kernel is None else operation.inputs[kernel].shape
            taps = kernel[:-2] if operation.type.startswith("Depthwise") else kernel[:-1]
            total += 2 * math.prod(shape) * math.prod(taps)
    return total


class Step:
    """One row: a step on a batch of fixed size."""

    def __init__(self, options, name, adversarial):
        keras.utils.set_random_seed(0)
        classifier = build_model(
            name,
            {"image": 3},
            options.num_classes,
            num_segments=options.num_segments,
            crop_size=options.crop_size,
            backbone=options.backbone,
            dual_normalization=adversarial == "temporal",
        )
        settings = ObjectiveConfig(
            label_loss="SoftmaxLoss",
            class_reduction="sum",
            adversarial=adversarial,
            temporal_epsilon=64.0,
        )
        self.model = AdversarialModel(classifier, build_objective(settings, pixels=True))
        training = TrainingConfig(optimizer="SGD", momentum=0.9, clip_global_norm=20.0)
        self.model.compile(optimizer=build_optimizer(training))
        self.model.optimizer.build(self.model.trainable_variables)
        shape = (options.batch_size, options.num_segments, options.crop_size, options.crop_size, 3)
        rng = np.random.default_rng(0)
        inputs = {
            "image": tf.constant(rng.integers(0, 256, shape), tf.uint8),
            "num_frames": tf.fill([options.batch_size], options.num_segments),
        }
        labels = tf.one_hot(rng.integers(0, options.num_classes, shape[0]), options.num_classes)
        self.data = (inputs, labels)
        self.function = tf.function(lambda data: self.model.optimize(data), autograph=False)
        self.operations = operations_of(self.function.get_concrete_function(self.data).graph)
        self.times = []

    def take(self):
        start = time.perf_counter(), time.process_time()
        self.function(self.data)[0].numpy()
        self.times.append((time.perf_counter() - start[0], time.process_time() - start[1]))


def convolution_rate(repeats=20):
    """Returns operations a second of a 3 x 3 convolution of 64 channels, forward."""
    x = tf.random.normal([16, 28, 28, 64])
    kernel = tf.random.normal([3, 3, 64, 64])
    convolve = tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME"))
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        convolve().numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * 16 * 28 * 28 * 64 * 9 * 64 / best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="TSN,TSM,TAM,TPN,GST,GSTLarge")
    parser.add_argument("--backbone", default="ResNet10Small")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--crop_size", type=int, default=96)
    parser.add_argument("--num_segments", type=int, default=8)
    parser.add_argument("--num_classes", type=int, default=174)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--output_file")
    options = parser.parse_args()
    steps = {
        (name, adversarial): Step(options, name, adversarial)
        for name in options.models.split(",")
        for adversarial in ("none", "temporal")
    }
    for number in range(1 + options.steps):
        for step in steps.values():
            step.take()
        if not number:  # The first steps choose kernels.
            for step in steps.values():
                step.times.clear()
    rate = convolution_rate()
    rows = []
    for (name, adversarial), step in steps.items():
        wall, processor = (min(times) for times in zip(*step.times, strict=True))
        row = {
            "model": name,
            "adversarial": adversarial,
            "gigaoperations": step.operations / 1e9,
            "seconds": wall,
            "processor_seconds": processor,
            "share_of_convolution_rate": step.operations / rate / wall,
        }
        if adversarial == "temporal":
            plain = steps[name, "none"]
            times = [min(times) for times in zip(*plain.times, strict=True)]
            row |= {
                "counted_ratio": step.operations / plain.operations,
                "ratio": wall / times[0],
                "processor_ratio": processor / times[1],
                "least_ratio": TAF_FLOOR,
            }
        rows.append(row)
        shown = (f"{k} {v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items())
        print(" | ".join(shown))
    result = {
        "machine": describe_machine(),
        "options": vars(options),
        "convolution_gigaoperations_per_second": rate / 1e9,
        "rows": rows,
    }
    print(f"bare convolution: {rate / 1e9:.1f} gigaoperations a second")
    if options.output_file:
        with open(options.output_file, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
