"""The jobs of the command line beside the bare work in them: ratios within one run.

python benchmarks/jobs.py --output_file=jobs.json

Prediction and evaluation of files (CSV and metrics included) stand beside the forward passes alone,
their batches in memory; so do the fast gradient and PGD-20, for which the passes are counted
(forward and backward are one each). Requests to the exported model stand beside the Keras model in
process on the same serialized records; the start of train.py beside importing TensorFlow.

Wall-clock seconds tell something on idle cores alone; processor seconds of all threads tell the
work that was done wherever it ran. The model is SA, untrained, at full size; the clips are those of
`yt8m_gat.data.sample`.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]
NUM_CLASSES = 3862


def timed(function, repeats=3):
    """Medians of (wall-clock, processor) seconds; a first, warming call is left out."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        function()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return tuple(statistics.median(values) for values in zip(*times, strict=True))


def row(what, beside, seconds, other, counted=None, unit="s"):
    return {
        "what": what,
        "beside": beside,
        "seconds": seconds[0],
        "cpu_seconds": seconds[1],
        "beside_seconds": other[0],
        "beside_cpu_seconds": other[1],
        "ratio": seconds[0] / other[0],
        "cpu_ratio": seconds[1] / other[1] if other[1] else None,
        "counted": counted,
        "unit": unit,
    }


def make_run(folder, num_videos, max_frames):
    """Files of clips, and a run of one step: (run folder, pattern of the files)."""
    from yt8m_gat import pipeline
    from yt8m_gat.config import (
        DataConfig,
        ModelConfig,
        ObjectiveConfig,
        RunConfig,
        TrainingConfig,
    )
    from yt8m_gat.data.sample import SampleConfig, generate_sample
    from yt8m_gat.run_folder import RunFolder

    sample = SampleConfig(
        num_train=16, num_validate=16, num_test=num_videos, max_frames=max_frames, num_shards=2
    )
    generate_sample(folder / "sample", sample)
    config = RunConfig(
        data=DataConfig(num_classes=NUM_CLASSES, max_frames=max_frames),
        model=ModelConfig(name="Transformer"),
        objective=ObjectiveConfig(adversarial="none"),
        training=TrainingConfig(batch_size=8, max_steps=1),
    )
    run_folder = RunFolder(folder / "run")
    pipeline.train(run_folder, config, train_data_pattern=str(folder / "sample" / "train*"))
    return run_folder, str(folder / "sample" / "test*")


def files_and_attacks(run_folder, pattern, batch_size, repeats):
    import tensorflow as tf

    from yt8m_gat import pipeline
    from yt8m_gat.attacks import build_attack
    from yt8m_gat.config import RunConfig
    from yt8m_gat.data import find_files, make_dataset, preprocess
    from yt8m_gat.models import load_classifier

    config = RunConfig.load(run_folder.path)
    classifier = load_classifier(run_folder, config)
    schema = pipeline.read_schema(run_folder, config)
    files = find_files(pattern, "pattern")
    batches = list(make_dataset(files, schema, batch_size))

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(features, num_frames):
        features, frame_mask = preprocess(features, num_frames, config.data.normalize)
        return tf.sigmoid(classifier({**features, "frame_mask": frame_mask}, training=False))

    def alone():
        for batch in batches:
            forward(batch["features"], batch["num_frames"]).numpy()

    base = timed(alone, repeats)
    csv = run_folder.path / "predictions.csv"

    def infer():
        pipeline.infer(
            run_folder, input_data_pattern=pattern, output_file=csv, batch_size=batch_size
        )

    evaluator = pipeline.build_evaluator(classifier, config)

    def evaluate(attack=None):
        evaluator.evaluate(iter(batches), attack)

    rows = [
        row("prediction of files", "forward alone", timed(infer, repeats), base),
        row("evaluation, clean", "forward alone", timed(evaluate, repeats), base),
    ]
    for name, passes in (("fgm", 3), ("pgd", 2 * 20 + 1)):
        seconds = timed(lambda name=name: evaluate(build_attack(name, 0.5)), 1)
        rows.append(row(f"evaluation, {name}", "forward alone", seconds, base, counted=passes))
    return rows


def served(run_folder, pattern, repeats):
    import tensorflow as tf

    from yt8m_gat import pipeline
    from yt8m_gat.config import RunConfig
    from yt8m_gat.data import find_files, parse_frame_batch, preprocess
    from yt8m_gat.models import load_classifier

    config = RunConfig.load(run_folder.path)
    classifier = load_classifier(run_folder, config)
    schema = pipeline.read_schema(run_folder, config)
    path = pipeline.export(classifier, config, run_folder.path / "export")
    files = find_files(pattern, "pattern")
    records = [record.numpy() for record in tf.data.TFRecordDataset(files).take(32)]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def in_process(serialized):
        batch = parse_frame_batch(serialized, schema, with_labels=False)
        features, frame_mask = preprocess(
            batch["features"], batch["num_frames"], config.data.normalize
        )
        logits = classifier({**features, "frame_mask": frame_mask}, training=False)
        return tf.math.top_k(tf.sigmoid(logits), 20)

    loading = timed(lambda: tf.saved_model.load(str(path)), 1)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    name = next(iter(serve.structured_input_signature[1]))
    rows = [row("loading the export", "one in-process request of 32", loading, (1, 1))]
    for size in (1, 32):
        request = tf.constant(records[:size])
        started = time.perf_counter(), time.process_time()
        serve(**{name: request})
        first = time.perf_counter() - started[0], time.process_time() - started[1]
        base = timed(lambda request=request: in_process(request), 5 * repeats)
        later = timed(lambda request=request: serve(**{name: request}), 5 * repeats)
        rows.append(row(f"first request of {size}", "Keras in process", first, base))
        rows.append(row(f"later request of {size}", "Keras in process", later, base))
    rows[0].update(beside_seconds=base[0], ratio=loading[0] / base[0])
    rows[0].update(beside_cpu_seconds=base[1], cpu_ratio=loading[1] / base[1])
    return rows


def command_seconds(*command):
    """(wall-clock, processor) seconds of a process, the better of two runs."""
    times = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times.append((wall, cpu))
    return min(times)


def starts(run_folder, pattern):
    """A run of one step from the command line, saving included, and the help."""
    base = command_seconds(sys.executable, "-c", "import tensorflow")
    with tempfile.TemporaryDirectory() as new:
        step = command_seconds(
            sys.executable,
            "train.py",
            f"--train_dir={new}/run",
            "--start_new_model",
            f"--train_data_pattern={pattern}",
            "--max_steps=1",
            "--batch_size=8",
            "--model=Transformer",
        )
    return [
        row("train.py of one step, saving included", "import tensorflow", step, base),
        row(
            "train.py --help",
            "import tensorflow",
            command_seconds(sys.executable, "-c", HELP),
            base,
        ),
    ]


# absl ends --help with 1.
HELP = "import subprocess, sys; subprocess.run([sys.executable, 'train.py', '--help'])"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_videos", type=int, default=64)
    parser.add_argument("--max_frames", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output_file", help="also write the figures here, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        run_folder, pattern = make_run(Path(name), options.num_videos, options.max_frames)
        rows = [
            *files_and_attacks(run_folder, pattern, options.batch_size, options.repeats),
            *served(run_folder, pattern, options.repeats),
            *starts(run_folder, pattern),
        ]
    print(f"{'job':38} {'s':>8} {'CPU s':>8}  {'beside':30} {'ratio':>6} {'CPU':>6} counted")
    for r in rows:
        print(
            f"{r['what']:38} {r['seconds']:8.3f} {r['cpu_seconds']:8.3f}  {r['beside']:30} "
            f"{r['ratio']:6.2f} {r['cpu_ratio']:6.2f} {r['counted'] or '':>7}"
        )
    if options.output_file:
        machine = {"processor": platform.processor(), "cores": os.cpu_count()}
        report = {"options": vars(options), "machine": machine, "rows": rows}
        Path(options.output_file).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
