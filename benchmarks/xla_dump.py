"""Writes training steps as XLA programs, which `xla_run.py` times where TensorFlow is missing.

    python benchmarks/xla_dump.py build/xla_step --check
    python benchmarks/xla_dump.py build/xla_step --steps=Transformer:none:mixed_bfloat16:256

A step is MODEL:OBJECTIVE:DTYPE:BATCH. Its program is the whole step as XLA gets it from
`tf.function(jit_compile=True)`: dequantizing, both passes, the attack and Adam. The weights are
parameters of the program. With --check the step is also run here, and its loss and the sums of the
updated weights are kept beside the program, for `xla_run.py` to compare with.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from train_step import FLOORS, MODELS, SIZES, least_operations
from xla_run import parameter_value

from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, build_objective

STEPS = [
    f"{model}:{objective}:{dtype}:64"
    for dtype in ("float32", "mixed_bfloat16")
    for model, objective in (
        ("Transformer", "none"),
        ("Transformer", "output"),
        ("Transformer", "frobenius"),
        ("Transformer", "temporal"),
        ("GMSA", "none"),
        ("GAT", "frobenius"),
    )
]


def write_program(name: str, folder: Path, num_frames: int, num_classes: int, check: bool) -> None:
    """Writes NAME.hlo and NAME.json."""
    model_name, adversarial, dtype, batch = name.split(":")
    batch_size = int(batch)
    keras.mixed_precision.set_global_policy(dtype)
    dual = {"dual_normalization": True} if adversarial == "temporal" else {}
    classifier = build_model(model_name, SIZES, num_classes, num_frames, **dual)
    model = AdversarialModel(classifier, build_objective(ObjectiveConfig(adversarial=adversarial)))
    optimizer = keras.optimizers.Adam(2e-4)
    model.compile(optimizer=optimizer)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True, autograph=False)
    def step(rgb, audio, frames, labels):
        batch = ({"rgb": rgb, "audio": audio, "num_frames": frames}, labels)
        return model.optimize(batch).total

    specs = [
        *(tf.TensorSpec([batch_size, num_frames, size], tf.uint8) for size in SIZES.values()),
        tf.TensorSpec([batch_size], tf.int32),
        tf.TensorSpec([batch_size, num_classes], tf.float32),
    ]
    arguments = [
        tf.constant(parameter_value(index, spec.shape, spec.dtype.as_numpy_dtype, num_frames))
        for index, spec in enumerate(specs)
    ]
    concrete = step.get_concrete_function(*specs)
    started = time.perf_counter()
    program = step.experimental_get_compiler_ir(*arguments)(stage="hlo_serialized")
    path = folder / name.replace(":", "-")
    path.with_suffix(".hlo").write_bytes(program)
    relative = FLOORS[adversarial] * MODELS.get("GMSA" if model_name == "GAT" else model_name, 1.0)
    described = {
        "step": name,
        "batch_size": batch_size,
        "num_frames": num_frames,
        "num_classes": num_classes,
        "num_weights": classifier.count_params(),
        "least_operations": batch_size * relative * least_operations(num_frames, num_classes),
        "lowering_seconds": time.perf_counter() - started,
    }
    by_handle = {id(variable.handle): variable for variable in concrete.graph.variables}
    captured = [by_handle[id(tensor)] for tensor in concrete.captured_inputs]
    numbered = dict(enumerate(captured, start=len(specs)))
    # Adam's second moments are not negative.
    described["unsigned"] = [i for i, v in numbered.items() if "velocity" in v.name]
    if check:
        for i, variable in numbered.items():
            kind = variable.dtype.as_numpy_dtype
            signed = i not in described["unsigned"]
            variable.assign(parameter_value(i, variable.shape, kind, num_frames, signed))
        described["loss"] = float(concrete(*arguments))
        described["updated"] = {
            str(i): float(np.abs(variable.numpy().astype(np.float64)).sum())
            for i, variable in numbered.items()
            if variable.dtype.is_floating
        }
    path.with_suffix(".json").write_text(json.dumps(described), encoding="utf-8")
    print(name, f"{len(program):,} bytes", described.get("loss", ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--max_frames", type=int, default=300)
    parser.add_argument("--num_classes", type=int, default=3862)
    parser.add_argument("--check", action="store_true", help="run each step here as well")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.steps.split(","):
        write_program(name, options.folder, options.max_frames, options.num_classes, options.check)


if __name__ == "__main__":
    main()
