"""Measures the reader's records a second, relative to a bare read of the same TFRecord files.

    python benchmarks/reader.py --output_file=reader.json
    taskset -c 0 python benchmarks/reader.py      # on one core
    python benchmarks/reader.py --training        # training from files over training from memory
    python benchmarks/reader.py --rejecting       # bad records over good ones, --on_bad_record=skip

It writes official-size records (300 frames of 1024 + 128 bytes) of random bytes into a temporary
folder (`--data_pattern` takes existing files), then reads them with each reader in turn, so that
other load on the machine affects all alike. The figures are ratios to the bare read, in wall-clock
and in processor time of all threads. The fixed cost of a pass (tracing and building the graph) is
separated: each reader reads the files once and several times, and the difference is its rate.
`frame arrays` reads the same batches from the files that `yt8m-gat repack` makes of them. `skipped`
is what a resumed run does with the batches that it has seen: all but parsing them, one by one.
`float32` reads as `uint8` does, then dequantizes inside the dataset, as a reader of floats would
have to.

All readers run in one process, so that the allocator settings of the reader
(`yt8m_gat.data.allocation`) apply to the bare read too.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from machine import describe_machine

from yt8m_gat.data import RecordSchema, Shuffle, SkippedRecords, make_dataset, preprocess
from yt8m_gat.data.record_files import count_records
from yt8m_gat.data.repack import repack, targets_of
from yt8m_gat.data.schema import FRAME_FEATURE_SIZES, MAX_FRAMES, NUM_CLASSES

_ALL = 1 << 40  # Batches to skip.


def write_records(folder, num_files, num_records, num_frames, rng):
    files = []
    for number in range(num_files):
        path = str(Path(folder) / f"train{number:04}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for record in range(num_records):
                writer.write(one_record(f"{number}-{record}", num_frames, rng))
        files.append(path)
    return files


def one_record(video_id, num_frames, rng):
    def feature(**kind):
        return tf.train.Feature(**kind)

    lists = {}
    for name, size in FRAME_FEATURE_SIZES.items():
        frames = rng.integers(0, 256, (num_frames, size), dtype=np.uint8)
        lists[name] = tf.train.FeatureList(
            feature=[
                feature(bytes_list=tf.train.BytesList(value=[frame.tobytes()])) for frame in frames
            ]
        )
    labels = rng.integers(0, NUM_CLASSES, 3)
    context = {
        "id": feature(bytes_list=tf.train.BytesList(value=[video_id.encode()])),
        "labels": feature(int64_list=tf.train.Int64List(value=labels)),
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    ).SerializeToString()


def readers(schema, batch_size, arrays):
    """Returns name -> a function from files to a dataset; `arrays`: file -> its frame arrays."""

    def bare(files):
        return tf.data.Dataset.from_tensor_slices(files).interleave(
            tf.data.TFRecordDataset,
            cycle_length=8,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def as_floats(batch):
        features, frame_mask = preprocess(batch["features"], batch["num_frames"])
        return features, frame_mask, batch["labels"]

    return {
        "bare TFRecord read": bare,
        "uint8, in order": lambda files: make_dataset(files, schema, batch_size),
        "uint8, in order, skip": lambda files: make_dataset(
            files, schema, batch_size, skipped=SkippedRecords()
        ),
        "uint8, shuffled, by length": lambda files: make_dataset(
            files, schema, batch_size, shuffle=Shuffle(buffer=256)
        ),
        "frame arrays, in order": lambda files: make_dataset(
            [arrays[path] for path in files], schema, batch_size
        ),
        "frame arrays, shuffled": lambda files: make_dataset(
            [arrays[path] for path in files], schema, batch_size, shuffle=Shuffle(buffer=256)
        ),
        "uint8, shuffled, skipped": lambda files: make_dataset(
            files, schema, batch_size, shuffle=Shuffle(buffer=256), skip_batches=_ALL
        ),
        "frame arrays, shuffled, skipped": lambda files: make_dataset(
            [arrays[path] for path in files],
            schema,
            batch_size,
            shuffle=Shuffle(buffer=256),
            skip_batches=_ALL,
        ),
        "float32, in order": lambda files: make_dataset(files, schema, batch_size).map(
            as_floats, num_parallel_calls=tf.data.AUTOTUNE
        ),
    }


def seconds(dataset):
    start, cpu = time.perf_counter(), time.process_time()
    dataset.reduce(np.int64(0), lambda count, *_: count + 1).numpy()
    return time.perf_counter() - start, time.process_time() - cpu


def measure(files, arrays, num_records, schema, batch_size, repeats, passes):
    datasets = {
        name: (make(files), make(files * passes))
        for name, make in readers(schema, batch_size, arrays).items()
    }
    rates, starts = ({name: [] for name in datasets} for _ in range(2))
    for turn in range(repeats + 1):  # the first turn warms up
        for name, (once, often) in datasets.items():
            one, many = np.array(seconds(once)), np.array(seconds(often))
            if turn:
                rates[name].append((many - one) / (passes - 1) / num_records)
                starts[name].append(one[1] - rates[name][-1][1] * num_records)
    rows = []
    for name, seconds_per_record in rates.items():
        wall, cpu = np.median(seconds_per_record, axis=0)
        rows.append(
            {
                "reader": name,
                "records_per_second": 1 / wall,
                "cpu_microseconds_per_record": cpu * 1e6,
                "cpu_seconds_of_start": statistics.median(starts[name]),
            }
        )
    for row in rows:
        row["ratio_to_bare"] = row["records_per_second"] / rows[0]["records_per_second"]
        row["cpu_ratio_to_bare"] = (
            rows[0]["cpu_microseconds_per_record"] / row["cpu_microseconds_per_record"]
        )
    return rows


def rejecting(folder, num_records, num_frames, batch_size, repeats, seed):
    """Compares a file whose records are all bad with one of good ones, both read by skip.

    A bad record lacks one byte of one frame.
    """
    schema = RecordSchema(dict(FRAME_FEATURE_SIZES), NUM_CLASSES, num_frames)
    record = one_record("video", num_frames, np.random.default_rng(seed))
    short = tf.train.SequenceExample.FromString(record)
    frame = short.feature_lists.feature_list["rgb"].feature[num_frames // 2].bytes_list
    frame.value[0] = frame.value[0][:-1]
    files = {}
    for name, payload in {"good": record, "bad": short.SerializeToString()}.items():
        files[name] = str(Path(folder) / f"{name}.tfrecord")
        with tf.io.TFRecordWriter(files[name]) as writer:
            for _ in range(num_records):
                writer.write(payload)
    times = {name: [] for name in files}
    for turn in range(repeats + 1):
        for name, path in files.items():
            skipped = SkippedRecords(max_bad_fraction=1.0)
            dataset = make_dataset([path], schema, batch_size, skipped=skipped)
            measured = seconds(dataset)
            if skipped.num_bad != (num_records if name == "bad" else 0):
                raise RuntimeError(f"{skipped.num_bad} records were rejected in the {name} file")
            if turn:
                times[name].append(np.array(measured) / num_records)
    good, bad = (np.median(times[name], axis=0) for name in ("good", "bad"))
    return {
        "records": num_records,
        "num_frames": num_frames,
        "microseconds_per_record": {"good": good[0] * 1e6, "bad": bad[0] * 1e6},
        "cpu_microseconds_per_record": {"good": good[1] * 1e6, "bad": bad[1] * 1e6},
        "ratio": bad[0] / good[0],
        "cpu_ratio": bad[1] / good[1],
    }


def training(files, schema, batch_size, repeats, passes):
    """Compares steps of CE on SA fed from shuffled files with as many fed from memory."""
    import keras

    from yt8m_gat.config import ObjectiveConfig, TrainingConfig
    from yt8m_gat.data import Reader, as_pair, count_records
    from yt8m_gat.models import build_model
    from yt8m_gat.training import AdversarialModel, build_objective, build_optimizer

    keras.utils.set_random_seed(0)
    classifier = build_model("Transformer", schema.sizes, schema.num_classes, schema.max_frames)
    model = AdversarialModel(classifier, build_objective(ObjectiveConfig(adversarial="none")))
    model.compile(optimizer=build_optimizer(TrainingConfig(base_learning_rate=1e-5)))
    step = tf.function(model.optimize, reduce_retracing=True, autograph=False)
    reader = Reader(files, schema, batch_size, shuffle=Shuffle(buffer=64))
    # Only full batches; a smaller one comes last.
    full = reader.dataset.take(count_records(files) // batch_size)
    batches = list(full)
    reader.dataset = full.repeat(passes)
    step(as_pair(batches[0]))
    # Several passes, so that the start of reading counts once, as in training.
    sources = {
        "from memory": lambda: batches * passes,
        "from files": lambda: reader,
    }
    times = {name: [] for name in sources}
    for turn in range(repeats + 1):
        for name, source in sources.items():
            started = time.perf_counter(), time.process_time()
            for batch in source():
                float(step(as_pair(batch)).total)
            if turn:
                ended = time.perf_counter(), time.process_time()
                times[name].append(np.subtract(ended, started) / (passes * len(batches)))
    memory, read = (np.median(times[name], axis=0) for name in sources)
    return {
        "steps": passes * len(batches),
        "seconds_per_step": dict(zip(("memory", "files"), (memory[0], read[0]), strict=True)),
        "cpu_seconds_per_step": dict(zip(("memory", "files"), (memory[1], read[1]), strict=True)),
        "ratio": memory[0] / read[0],
        "cpu_ratio": memory[1] / read[1],
    }


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num_files", type=int, default=4)
    parser.add_argument("--records_per_file", type=int, default=192)
    parser.add_argument("--num_frames", type=int, default=MAX_FRAMES)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--passes", type=int, default=5, help="of the files, at least 2")
    parser.add_argument("--data_pattern", help="read these files instead of written ones")
    parser.add_argument("--feature_names", default=",".join(FRAME_FEATURE_SIZES))
    parser.add_argument("--feature_sizes", default=",".join(map(str, FRAME_FEATURE_SIZES.values())))
    parser.add_argument("--num_classes", type=int, default=NUM_CLASSES)
    parser.add_argument("--training", action="store_true", help="measure training instead")
    parser.add_argument("--rejecting", action="store_true", help="measure bad records instead")
    parser.add_argument("--bad_records", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_file", help="also write the figures here, as JSON")
    arguments = parser.parse_args(argv)
    sizes = map(int, arguments.feature_sizes.split(","))
    schema = RecordSchema(
        dict(zip(arguments.feature_names.split(","), sizes, strict=True)),
        arguments.num_classes,
        arguments.num_frames,
    )
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        if arguments.rejecting:
            files = []
        elif arguments.data_pattern:
            files = sorted(tf.io.gfile.glob(arguments.data_pattern))
        else:
            files = write_records(
                folder,
                arguments.num_files,
                arguments.records_per_file,
                arguments.num_frames,
                np.random.default_rng(arguments.seed),
            )
        if arguments.rejecting:
            rows = [
                rejecting(
                    folder,
                    arguments.bad_records,
                    arguments.num_frames,
                    arguments.batch_size,
                    arguments.repeats,
                    arguments.seed,
                )
            ]
        elif arguments.training:
            rows = [
                training(files, schema, arguments.batch_size, arguments.repeats, arguments.passes)
            ]
        else:
            arrays = {path: str(target) for path, target in targets_of(files, folder).items()}
            repacked = repack(files, schema, folder)
            print(f"frame arrays: {repacked.num_bytes / repacked.source_bytes:.4f} of the bytes")
            rows = measure(
                files,
                arrays,
                count_records(files),
                schema,
                arguments.batch_size,
                arguments.repeats,
                arguments.passes,
            )
    print(f"cores: {cores}")
    if arguments.training or arguments.rejecting:
        print(json.dumps(rows[0], indent=2))
    else:
        print(
            f"{'reader':<32} {'records/s':>9} {'of bare':>8} {'us/record, CPU':>15} "
            f"{'of bare':>8} {'start, s':>9}"
        )
        for row in rows:
            print(
                f"{row['reader']:<32} {row['records_per_second']:>9.0f} "
                f"{row['ratio_to_bare']:>8.2f} {row['cpu_microseconds_per_record']:>15.0f} "
                f"{row['cpu_ratio_to_bare']:>8.2f} {row['cpu_seconds_of_start']:>9.2f}"
            )
    if arguments.output_file:
        settings = {k: v for k, v in vars(arguments).items() if k != "output_file"}
        report = {
            "benchmark": "reader",
            "settings": settings,
            "machine": describe_machine(),
            "rows": rows,
        }
        Path(arguments.output_file).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
