"""Speed of the reader: records a second, beside a bare read of the same TFRecord files.

    python benchmarks/reader.py --output_file=reader.json

Writes official-size records (300 frames of 1024 + 128 bytes) of random bytes into a temporary
folder, then reads them in each way by turns, so that other load on the machine meets all of them
alike; the figure to look at is the ratio to the bare read. `float32` reads as `uint8` does, and
then dequantizes inside the dataset: what a reader that hands out floats would have to do.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from yt8m_gat.data import RecordSchema, make_dataset, preprocess
from yt8m_gat.data.schema import FRAME_FEATURE_SIZES, MAX_FRAMES, NUM_CLASSES


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


def readers(files, batch_size):
    schema = RecordSchema(FRAME_FEATURE_SIZES, NUM_CLASSES)

    def bare():
        return tf.data.Dataset.from_tensor_slices(files).interleave(
            tf.data.TFRecordDataset,
            cycle_length=8,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def as_floats(batch):
        features, frame_mask = preprocess(batch["features"], batch["num_frames"])
        return features, frame_mask, batch["labels"]

    shuffled = {"shuffle": True, "shuffle_buffer": 256, "bucket_window": 4 * batch_size}
    return {
        "bare TFRecord read": bare,
        "uint8, in order": lambda: make_dataset(files, schema, batch_size),
        "uint8, shuffled": lambda: make_dataset(
            files, schema, batch_size, **{**shuffled, "bucket": False}
        ),
        "uint8, shuffled, by length": lambda: make_dataset(files, schema, batch_size, **shuffled),
        "float32, in order": lambda: make_dataset(files, schema, batch_size).map(
            as_floats, num_parallel_calls=tf.data.AUTOTUNE
        ),
    }


def seconds(dataset):
    start, cpu = time.perf_counter(), time.process_time()
    dataset.reduce(np.int64(0), lambda count, *_: count + 1).numpy()
    return time.perf_counter() - start, time.process_time() - cpu


def measure(files, num_records, batch_size, repeats):
    datasets = {name: make() for name, make in readers(files, batch_size).items()}
    times = {name: [] for name in datasets}
    for turn in range(repeats + 1):  # the first turn warms up
        for name, dataset in datasets.items():
            figures = seconds(dataset)
            if turn:
                times[name].append(figures)
    rows = []
    for name, figures in times.items():
        wall = statistics.median(w for w, _ in figures)
        cpu = statistics.median(c for _, c in figures)
        rows.append(
            {
                "reader": name,
                "records_per_second": num_records / wall,
                "cpu_microseconds_per_record": cpu / num_records * 1e6,
            }
        )
    for row in rows:
        row["ratio_to_bare"] = row["records_per_second"] / rows[0]["records_per_second"]
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num_files", type=int, default=4)
    parser.add_argument("--records_per_file", type=int, default=192)
    parser.add_argument("--num_frames", type=int, default=MAX_FRAMES)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_file", help="also write the figures here, as JSON")
    arguments = parser.parse_args(argv)
    num_records = arguments.num_files * arguments.records_per_file
    with tempfile.TemporaryDirectory() as folder:
        files = write_records(
            folder,
            arguments.num_files,
            arguments.records_per_file,
            arguments.num_frames,
            np.random.default_rng(arguments.seed),
        )
        rows = measure(files, num_records, arguments.batch_size, arguments.repeats)
    print(f"{'reader':<30} {'records/s':>10} {'of bare':>8} {'CPU us/record':>14}")
    for row in rows:
        print(
            f"{row['reader']:<30} {row['records_per_second']:>10.0f} {row['ratio_to_bare']:>8.2f} "
            f"{row['cpu_microseconds_per_record']:>14.0f}"
        )
    if arguments.output_file:
        settings = {k: v for k, v in vars(arguments).items() if k != "output_file"}
        report = {
            "benchmark": "reader",
            "settings": settings,
            "machine": {
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
            },
            "rows": rows,
        }
        Path(arguments.output_file).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
