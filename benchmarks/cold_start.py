"""Measures what comes before the work: importing, the first training step, the first request.

python benchmarks/cold_start.py
python benchmarks/cold_start.py --output_file=cold_start.json

Each start is a process of its own, the best of `--repeats`; seconds are processor seconds of all
its threads, since other jobs disturb elapsed time. Bytecode must be compiled (`make env` does it).

- `import yt8m_gat`, which imports no TensorFlow, above an empty interpreter.
- `train.py` until its first step has ended, above importing TensorFlow and Keras: reading flags and
  files, building the model, tracing, compiling.
- The first request to an export over a later one, of one clip of the greatest length: where the
  warm-up requests of the export have been replayed after loading, as TensorFlow Serving does, and
  where not.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from jobs import ROOT, make_run
from machine import describe_machine

USED = "import time; print(time.process_time())"

# A module of callbacks: it writes when the first step has ended.
CALLBACK = """
import time
from pathlib import Path

import keras


class FirstStep(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        Path(__file__).with_name("seconds").write_text(str(time.process_time()))


def make():
    return [FirstStep()]
"""

REQUESTS = """
import sys
import time

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

path, warm_up = sys.argv[1:]
signatures = tf.saved_model.load(path).signatures


def answer(record):
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    inputs = {name: tf.constant(tf.make_ndarray(of)) for name, of in request.inputs.items()}
    started = time.process_time()
    signatures[request.model_spec.signature_name](**inputs)
    return time.process_time() - started


stored = tf.data.TFRecordDataset(path + "/assets.extra/tf_serving_warmup_requests")
records = [record.numpy() for record in stored]
if warm_up == "warm":
    for record in records:
        answer(record)
first = answer(records[0])
print(first, sorted(answer(records[0]) for _ in range(9))[4])
"""


def output_of(repeats, *arguments):
    """Returns the numbers that a process prints last, of each of several processes."""
    return [
        [
            float(number)
            for number in subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
            )
            .stdout.splitlines()[-1]
            .split()
        ]
        for _ in range(repeats)
    ]


def best(repeats, *arguments):
    return min(seconds for (seconds,) in output_of(repeats, *arguments))


def first_step(folder, pattern, repeats):
    """Returns the processor seconds of train.py until its first step has ended."""
    (folder / "first_step.py").write_text(CALLBACK)
    seconds = []
    for number in range(repeats):
        command = [
            *(sys.executable, "train.py", f"--train_dir={folder}/first{number}"),
            *(f"--train_data_pattern={pattern}", "--batch_size=8", "--model=Transformer"),
            *("--max_steps=1", "--callbacks=first_step:make"),
        ]
        paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths}
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
        seconds.append(float((folder / "seconds").read_text()))
    return min(seconds)


def requests(run_folder, repeats):
    """Returns, with and without warm-up, the least ratio of a first request to a later one."""
    from yt8m_gat import pipeline
    from yt8m_gat.config import RunConfig
    from yt8m_gat.weights.load import load_classifier

    config = RunConfig.load(run_folder.path)
    classifier = load_classifier(run_folder, config)
    path = pipeline.export(classifier, config, run_folder.path / "export")
    return {
        state: min(
            ({"first": a, "later": b, "ratio": a / b} for a, b in times),
            key=lambda figures: figures["ratio"],
        )
        for state in ("warm", "cold")
        for times in [output_of(repeats, "-c", REQUESTS, str(path), state)]
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max_frames", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output_file", help="also write the figures here, as JSON")
    options = parser.parse_args()
    repeats = options.repeats
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        run_folder, pattern = make_run(folder, 16, options.max_frames)
        empty = best(repeats, "-c", USED)
        package = best(repeats, "-c", f"import yt8m_gat; {USED}")
        engine = best(repeats, "-c", f"import tensorflow, keras; {USED}")
        step = first_step(folder, pattern, repeats)
        served = requests(run_folder, repeats)
    report = {
        "options": vars(options),
        "machine": describe_machine(),
        "import_seconds": package - empty,
        "tensorflow_import_seconds": engine - empty,
        "first_step_seconds": step - empty,
        "first_step_above_import_seconds": step - engine,
        "first_step_over_import": step / engine,
        "first_request": served,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.output_file:
        Path(options.output_file).write_text(text + "\n")


if __name__ == "__main__":
    main()
