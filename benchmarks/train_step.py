"""Times each objective's step relative to the CE step, and compares with its counted floor.

python benchmarks/train_step.py --output_file=train_step.json
python benchmarks/train_step.py --max_frames=300 --batch_size=16 --num_classes=3862   # full size
python benchmarks/train_step.py --steps_of=Transformer:none    # one row, for its peak memory

The share is the least work (multiply-adds that no implementation can avoid) over the time and over
the rate of a bare matrix product in the same process. Processor seconds of all threads measure the
work even if other programs use the cores.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from machine import describe_machine

from yt8m_gat.config import ObjectiveConfig, TrainingConfig
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, build_objective, build_optimizer

# A forward pass F costs 1; CE = 3 F - P, where P = .45 F is the Q, K, V product, whose gradient by
# the features is not needed. The floors are multiply-adds relative to CE.
FLOORS = {"none": 1.0, "output": 2.18, "frobenius": 2.21, "jensen_shannon": 2.21, "temporal": 2.39}
MODELS = {"Transformer": 1.0, "GMSA": 1.46, "GateOp": 1.48, "ShareAtt": 1.0, "GateAtt": 1.41}
POOLINGS = ("NetVLAD", "GatedSoftDbof", "NeXtVLAD")
SIZES = {"rgb": 1024, "audio": 128}
HIDDEN_SIZE = 1280


def operations(num_frames: int, num_classes: int) -> dict[str, int]:
    """Returns the operations of SA for one clip; multiply and add count as 2.

    Returns:
        `projections`: of Q, K and V; `dense`: all products with weights, including those (output,
        two of the feed-forward network, classifier); `maps`: scores and their values.
    """
    counts = {"projections": 0, "maps": 0}
    counts["dense"] = 2 * (sum(SIZES.values()) * HIDDEN_SIZE + HIDDEN_SIZE * num_classes)
    for size in SIZES.values():
        counts["projections"] += 2 * num_frames * 3 * size**2
        counts["dense"] += 2 * num_frames * (3 + 1 + 2) * size**2
        counts["maps"] += 4 * num_frames**2 * size
    return counts


def least_operations(num_frames: int, num_classes: int) -> float:
    """Returns the operations of a CE step of SA for one clip.

    The backward pass costs twice the forward pass, without the gradient of Q, K, V by the features.
    """
    counts = operations(num_frames, num_classes)
    return 3 * (counts["dense"] + counts["maps"]) - counts["projections"]


def least_operations_of_pooling(name: str, num_frames: int, num_classes: int) -> float:
    """Returns the operations of a CE step of a model that pools frames, for one clip.

    The sizes are the recipes'. The backward pass costs twice the forward pass, without the gradient
    of NeXtVLAD's expansion by the features.
    """
    per_frame, per_clip, avoided = 0, 0, 0
    if name == "NeXtVLAD":
        hidden, expansion = 2048, 2
        for size, clusters, groups in ((1024, 128, 8), (128, 64, 4)):
            expanded = expansion * size
            avoided += num_frames * size * expanded
            # The expansion, the attention over groups, the assignments, and the weighted sum.
            per_frame += expanded * (size + groups + groups * clusters + clusters)
            per_clip += clusters * expanded // groups * hidden
        per_clip += 2 * hidden * hidden // 8 + hidden * num_classes
    else:
        hidden, vlad = 1024, name == "NetVLAD"
        for size, clusters in ((1024, 256), (128, 128)) if vlad else ((1024, 4096), (128, 512)):
            per_frame += size * clusters * (2 if vlad else 1)
            per_clip += (size if vlad else 1) * clusters * hidden
        per_clip += hidden**2 + 5 * hidden * num_classes + num_classes**2
    return 2 * (3 * (num_frames * per_frame + per_clip) - avoided)


def matrix_product_rate(rows: int) -> tuple[float, float]:
    """Returns operations a second of a [rows, 1024] x [1024, 1024] product, wall and processor."""
    left, right = tf.random.normal((rows, 1024)), tf.random.normal((1024, 1024))
    product = tf.function(lambda: tf.matmul(left, right), autograph=False)
    product()
    times = []
    for _ in range(10):
        started = time.perf_counter(), time.process_time()
        product().numpy()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    seconds = np.median(times, axis=0)
    operations = 2 * rows * 1024**2
    return operations / seconds[0], operations / seconds[1]


def make_step(
    model_name: str, adversarial: str, options: argparse.Namespace
) -> Callable[[], tuple[float, float]]:
    """Returns a function that does one optimizer step and returns its wall and CPU seconds."""
    keras.utils.set_random_seed(0)
    dual = {"dual_normalization": True} if adversarial == "temporal" else {}
    classifier = build_model(model_name, SIZES, options.num_classes, options.max_frames, **dual)
    model = AdversarialModel(
        classifier,
        build_objective(ObjectiveConfig(adversarial=adversarial)),
        micro_batch_size=options.micro_batch_size or None,
    )
    model.compile(optimizer=build_optimizer(TrainingConfig(base_learning_rate=1e-5)))
    rng = np.random.default_rng(0)
    shape = (options.batch_size, options.max_frames)
    inputs = {
        name: tf.constant(rng.integers(0, 256, (*shape, size), dtype=np.uint8))
        for name, size in SIZES.items()
    }
    inputs["num_frames"] = tf.fill([options.batch_size], options.max_frames)
    labels = tf.cast(
        tf.constant(rng.random((options.batch_size, options.num_classes)) < 0.01), tf.float32
    )
    # As in training, the sizes of a batch are unknown, except to XLA.
    batch, frames = (None, None) if not options.jit_compile else shape
    specs = {name: tf.TensorSpec([batch, frames, size], tf.uint8) for name, size in SIZES.items()}
    specs["num_frames"] = tf.TensorSpec([batch], tf.int32)
    step = tf.function(
        model.optimize,
        input_signature=[(specs, tf.TensorSpec([batch, options.num_classes]))],
        jit_compile=options.jit_compile,
        autograph=False,
    )

    def timed() -> tuple[float, float]:
        started = time.perf_counter(), time.process_time()
        float(step((inputs, labels)).total)
        return time.perf_counter() - started[0], time.process_time() - started[1]

    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_frames", type=int, default=100)
    parser.add_argument("--num_classes", type=int, default=3862)
    parser.add_argument("--steps", type=int, default=5, help="timed steps, of which the median")
    parser.add_argument("--steps_of", default="", help="model:objective,...; default: all")
    parser.add_argument("--jit_compile", action="store_true", help="compile the step with XLA")
    parser.add_argument(
        "--micro_batch_size", type=int, default=0, help="clips at once; 0: the batch"
    )
    parser.add_argument("--output_file", help="also write the table there, as JSON")
    options = parser.parse_args()

    sizes = (options.max_frames, options.num_classes)
    of_pooling = {
        name: least_operations_of_pooling(name, *sizes) / least_operations(*sizes)
        for name in POOLINGS
    }
    chosen = [name for name in options.steps_of.split(",") if name]
    kinds = [
        (model_name, adversarial, floor)
        for model_name, adversarial, floor in [
            *(("Transformer", name, floor) for name, floor in FLOORS.items()),
            *((name, "none", floor) for name, floor in MODELS.items() if name != "Transformer"),
            *((name, "none", floor) for name, floor in of_pooling.items()),
        ]
        if not chosen or f"{model_name}:{adversarial}" in chosen
    ]
    steps = [make_step(name, adversarial, options) for name, adversarial, _ in kinds]
    for step in steps:
        step()
    # Interleaved, so that other load on the machine affects all of them.
    rounds = np.array([[step() for step in steps] for _ in range(options.steps)])
    medians = np.median(rounds, axis=0)
    rate, cpu_rate = matrix_product_rate(options.batch_size * options.max_frames)
    least = options.batch_size * least_operations(options.max_frames, options.num_classes)
    rows = []
    for (model_name, adversarial, floor), (seconds, cpu_seconds) in zip(
        kinds, medians.tolist(), strict=True
    ):
        base = medians[0]
        rows.append(
            {
                "model": model_name,
                "objective": adversarial,
                "seconds": seconds,
                "over_ce": seconds / base[0],
                "share": least * floor / seconds / rate,
                "cpu_seconds": cpu_seconds,
                "cpu_over_ce": cpu_seconds / base[1],
                "cpu_share": least * floor / cpu_seconds / cpu_rate,
                "counted": floor,
                "product_gflop_per_second": rate / 1e9,
                "product_gflop_per_cpu_second": cpu_rate / 1e9,
            }
        )
        print(
            f"{model_name:12} {adversarial:15} {seconds:8.3f} s  x{rows[-1]['over_ce']:5.2f}  "
            f"share {rows[-1]['share']:.2f}  CPU {cpu_seconds:8.3f} s  "
            f"x{rows[-1]['cpu_over_ce']:5.2f}  share {rows[-1]['cpu_share']:.2f}  "
            f"counted x{floor:.2f}",
            flush=True,
        )
    # With a single row this is the memory that its step needs.
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak memory of this process: {peak_bytes / 2**20:.0f} MiB")
    if options.output_file:
        with open(options.output_file, "w", encoding="utf-8") as file:
            report = {"options": vars(options), "machine": describe_machine(), "rows": rows}
            json.dump({**report, "peak_bytes": peak_bytes}, file, indent=2)


if __name__ == "__main__":
    main()
