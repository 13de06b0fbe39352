"""Compares the jobs of the command line with the bare work in them: ratios within one run.

python benchmarks/jobs.py --output_file=jobs.json
python benchmarks/jobs.py --memory_videos 1000 20000    # minutes: peak memory of both scripts

Prediction and evaluation of files (reading, CSV and metrics included) are compared with the bare
forward passes on batches in memory; so are the fast gradient and PGD-20. The fixed cost of a job
(loading, tracing) is not part of its rate: it is the same in a run of few clips and of many, so
their difference is without it, and it has its own row. Requests to the exported model are compared
with the Keras model in process on the same serialized records; the start of train.py with importing
TensorFlow.

The attacks' count in passes counts a backward pass as a forward one. The count in operations takes
into account that a backward pass to the features costs more: each product with weights has one
product in the backward pass, but each of the two products of an attention map has two.

Wall-clock seconds are meaningful only on idle cores; processor seconds of all threads measure the
work regardless of other load. The model is SA, untrained, at full size; the clips are those of
`yt8m_gat.acquisition.sample`, and more of them are links to the same files.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
NUM_CLASSES = 3862


def timed(function, repeats=3):
    """Returns medians of (wall-clock, processor) seconds, without a first warm-up call."""
    function()
    return medians([seconds_of(function) for _ in range(repeats)])


def seconds_of(function, *arguments):
    """Returns the (wall-clock, processor) seconds of one call."""
    started = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - started[0], time.process_time() - started[1]


def medians(times):
    return tuple(statistics.median(values) for values in zip(*times, strict=True))


def rate_beside(base, job, large, repeats):
    """Returns medians of (wall-clock, processor) seconds, measured alternately.

    Args:
        base: The bare work of one unit.
        job: Called with a number of units.
        large: Number of units, from whose seconds those of one unit are subtracted.

    Returns:
        The seconds of a unit of the job, of its fixed cost, and of the base.
    """
    base()
    job(1)
    units, onces, bases = [], [], []
    for _ in range(repeats):
        bases.append(seconds_of(base))
        one, several = seconds_of(job, 1), seconds_of(job, large)
        unit = [(b - a) / (large - 1) for a, b in zip(one, several, strict=True)]
        units.append(unit)
        onces.append([a - b for a, b in zip(one, unit, strict=True)])
    return medians(units), medians(onces), medians(bases)


def row(what, beside, seconds, other, passes=None, counted=None, reach=None):
    return {
        "what": what,
        "beside": beside,
        "seconds": seconds[0],
        "cpu_seconds": seconds[1],
        "beside_seconds": other[0],
        "beside_cpu_seconds": other[1],
        "ratio": seconds[0] / other[0],
        "cpu_ratio": seconds[1] / other[1] if other[1] else None,
        "passes": passes,
        "counted": counted,
        "reach": reach,
    }


def make_run(folder, num_videos, max_frames):
    """Makes files of clips and a run of one step: (run folder, pattern of the files)."""
    from yt8m_gat import pipeline
    from yt8m_gat.acquisition.sample import SampleConfig, generate_sample
    from yt8m_gat.config import (
        DataConfig,
        ModelConfig,
        ObjectiveConfig,
        RunConfig,
        TrainingConfig,
    )
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


def linked(folder, files, times):
    """Returns the pattern of a new folder that holds `times` links to each file."""
    folder.mkdir()
    for copy in range(times):
        for file in map(Path, files):
            (folder / f"{copy:06d}_{file.name}").symlink_to(file)
    return str(folder / "*")


def files_and_attacks(run_folder, pattern, batch_size, repeats, attacks_only):
    import tensorflow as tf

    from yt8m_gat import pipeline
    from yt8m_gat.attacks import AttackOptions
    from yt8m_gat.config import RunConfig
    from yt8m_gat.data import find_files, make_dataset, preprocess
    from yt8m_gat.robustness.attack_spec import AttackSpec
    from yt8m_gat.weights.load import load_classifier

    config = RunConfig.load(run_folder.path)
    classifier = load_classifier(run_folder, config)
    schema = pipeline.read_schema(run_folder, config)
    files = find_files(pattern, "pattern")
    batches = list(make_dataset(files, schema, batch_size))
    num_videos = sum(len(batch["num_frames"]) for batch in batches)

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(features, num_frames):
        features, frame_mask = preprocess(features, num_frames, config.data.normalize)
        return tf.sigmoid(classifier({**features, "frame_mask": frame_mask}, training=False))

    def forward_only(batches):
        for batch in batches:
            forward(batch["features"], batch["num_frames"]).numpy()

    more_files = 6
    patterns = {1: pattern}
    patterns[more_files] = linked(run_folder.path / "linked", files, more_files)

    def infer(times):
        csv = run_folder.path / "predictions.csv"
        pattern = patterns[times]
        pipeline.infer(
            run_folder, input_data_pattern=pattern, output_file=csv, batch_size=batch_size
        )

    def evaluate(times):
        pipeline.evaluate(run_folder, eval_data_pattern=patterns[times], batch_size=batch_size)

    rows = []
    jobs = (("prediction of files", infer), ("evaluation of files", evaluate))
    for what, job in () if attacks_only else jobs:
        rate, once, base = rate_beside(lambda: forward_only(batches), job, more_files, repeats)
        video, base_video = ([s / num_videos for s in seconds] for seconds in (rate, base))
        batch = [s * batch_size for s in base_video]
        rows += [
            row(f"{what}, a video", "forward alone", video, base_video, reach=1 / 0.9),
            row(f"{what}, once", "forward of a batch", once, batch),
        ]

    evaluator = pipeline.build_evaluator(classifier, config)
    batch = batches[0]
    num_frames = batch["features"]["rgb"].shape[1]
    attacks = [
        # Specification, batches from whose seconds those of one are subtracted, repeats, and passes
        # (forward, backward): PGD evaluates its last point again only if it is not the highest.
        (None, 10, repeats, (1, 0)),
        ("fgm", 5, repeats, (2, 1)),
        ("pgd", 2, 1, (21, 20)),
        ("auto:steps=5:targets=1:queries=12:early_exit=false", 5, repeats, (34, 18)),
    ]
    for name, more_batches, times_measured, (forwards, backwards) in attacks:
        attack = name and AttackSpec.parse(name).build(0.5, AttackOptions())
        rate, _, base = rate_beside(
            lambda: forward_only([batch]),
            lambda times, attack=attack: evaluator.evaluate([batch] * times, attack),
            more_batches,
            times_measured,
        )
        counted = forwards + backwards * backward_over_forward(num_frames)
        rows.append(
            row(
                f"evaluation of a batch, {(name or 'clean').split(':')[0]}",
                "forward alone",
                rate,
                base,
                passes=forwards + backwards,
                counted=counted,
                reach=1.1 * counted,
            )
        )
    return rows


def backward_over_forward(num_frames):
    """Returns the operations of a backward pass to the features over those of a forward one."""
    from train_step import operations

    counted = operations(num_frames, NUM_CLASSES)
    forward = counted["dense"] + counted["maps"]
    return (forward + counted["maps"]) / forward


def served(run_folder, pattern, repeats):
    import tensorflow as tf

    from yt8m_gat import pipeline
    from yt8m_gat.config import RunConfig
    from yt8m_gat.data import find_files, parse_frame_batch, preprocess
    from yt8m_gat.weights.load import load_classifier

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
    """Returns the (wall-clock, processor) seconds of a process, the better of two runs."""
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
    """Measures a run of one step from the command line, saving included, and the help."""
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


def peak_memory(run_folder, pattern, batch_size, counts):
    """Measures peak resident memory, in MiB, of inference.py and eval.py in separate processes."""
    import tensorflow as tf

    from yt8m_gat.data import find_files

    clips_per_file = 8
    file = run_folder.path / "clips.tfrecord"
    with tf.io.TFRecordWriter(str(file)) as writer:
        records = tf.data.TFRecordDataset(find_files(pattern, "pattern"))
        for record in records.take(clips_per_file):
            writer.write(record.numpy())
    peaks = []
    for count in counts:
        linked_pattern = linked(run_folder.path / f"linked{count}", [file], count // clips_per_file)
        csv = run_folder.path / "predictions.csv"
        for job in (
            ["inference.py", f"--input_data_pattern={linked_pattern}", f"--output_file={csv}"],
            ["eval.py", f"--eval_data_pattern={linked_pattern}"],
        ):
            job += [f"--train_dir={run_folder.path}", f"--batch_size={batch_size}"]
            peak = subprocess.run(
                [sys.executable, "-c", PEAK, sys.executable, *job],
                cwd=ROOT,
                check=True,
                stdout=subprocess.PIPE,
            ).stdout
            peaks.append({"job": job[0], "videos": count, "peak_mib": int(peak) / 1024})
    return peaks


# Run by an intermediate process: a child's peak includes the memory of the one that starts it.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--num_videos", type=int, default=64, help="a multiple of the batch size: all are full"
    )
    parser.add_argument("--max_frames", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--attacks_only",
        action="store_true",
        help="measure evaluation in memory, clean and attacked",
    )
    parser.add_argument(
        "--memory_videos",
        type=int,
        nargs="*",
        default=[],
        help="instead of times: peak memory of inference.py and eval.py on these numbers of videos "
        "(multiples of 8)",
    )
    parser.add_argument("--output_file", help="also write the figures here, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        run_folder, pattern = make_run(Path(name), options.num_videos, options.max_frames)
        rows, memory = [], []
        if options.memory_videos:
            memory = peak_memory(run_folder, pattern, options.batch_size, options.memory_videos)
        else:
            rows = files_and_attacks(
                run_folder, pattern, options.batch_size, options.repeats, options.attacks_only
            )
            if not options.attacks_only:
                rows += served(run_folder, pattern, options.repeats)
                rows += starts(run_folder, pattern)
    if rows:
        heads = f"{'ratio':>6} {'CPU':>6} {'passes':>6} {'counted':>7} {'reach':>6}"
        print(f"{'job':42} {'s':>8} {'CPU s':>8}  {'beside':30} {heads}")
    for r in rows:
        counts = [
            f"{'' if r[name] is None else format(r[name], '.2f'):>{width}}"
            for name, width in (("passes", 6), ("counted", 7), ("reach", 6))
        ]
        print(
            f"{r['what']:42} {r['seconds']:8.4f} {r['cpu_seconds']:8.4f}  {r['beside']:30} "
            f"{r['ratio']:6.2f} {r['cpu_ratio']:6.2f} {' '.join(counts)}"
        )
    for m in memory:
        print(f"peak memory of {m['job']} on {m['videos']} videos: {m['peak_mib']:.0f} MiB")
    if options.output_file:
        report = {
            "options": vars(options),
            "machine": describe_machine(),
            "rows": rows,
            "memory": memory,
        }
        Path(options.output_file).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
