"""Measures the reader of raw clips beside the decoding of the frames that it takes.

    python benchmarks/clip_reader.py --output_file=clip_reader.json

It writes clips of 40 frames of smooth noise, 256 x 340 pixels, into a temporary folder
(`--data_pattern` takes existing files), then takes 8 frames of each with every reader in turn, so
that other load on the machine affects all alike. `decoding only` finds the same frames by
TensorFlow's own parser and decodes them, without a check, crop or resize. The figures are
processor time of all threads; the fixed cost of a pass (tracing and building the graph) is
separated: each reader reads the files once and several times, and the difference is its rate.

    python benchmarks/clip_reader.py --training --crop_size=96

also trains a TSM (`--backbone`) on these clips: steps on batches of the reader, and as many on one
batch that stays in memory. The ratio of their wall-clock times is what the reader costs a
training that it runs beside; 1 means that it hides behind the steps.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from machine import describe_machine
from reader import seconds

from yt8m_gat.config import CLIP_LABELS_KEY, ClipConfig, ObjectiveConfig, TrainingConfig
from yt8m_gat.data import (
    RecordSchema,
    Shuffle,
    SkippedRecords,
    as_pairs,
    find_files,
    make_dataset,
)
from yt8m_gat.data.clip_record import clip_record
from yt8m_gat.data.record_files import count_records
from yt8m_gat.data.schema import ENCODED_KEY
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, build_objective, build_optimizer

NUM_FRAMES, HEIGHT, WIDTH = 40, 256, 340


def write_clips(path, num_clips, rng):
    """All clips have the same frames: only their bytes matter here."""
    noise = rng.integers(0, 256, (NUM_FRAMES, 16, 22, 3)).astype(np.float32)
    pictures = tf.cast(tf.image.resize(noise, [HEIGHT, WIDTH]), tf.uint8)
    jpegs = [tf.io.encode_jpeg(picture, quality=90).numpy() for picture in pictures]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(num_clips):
            writer.write(
                clip_record(
                    f"clip{number}".encode(),
                    jpegs,
                    [frame / 10 for frame in range(NUM_FRAMES)],
                    [0],
                    ["noise"],
                    height=HEIGHT,
                    width=WIDTH,
                    frame_rate=10.0,
                    seconds=NUM_FRAMES / 10,
                )
            )


def readers(schema, batch_size):
    """Returns name -> a function from files to a dataset."""
    count = schema.clips.num_segments

    def decode(record):
        frames = tf.io.FixedLenSequenceFeature([], tf.string)
        _, lists = tf.io.parse_single_sequence_example(
            record, sequence_features={ENCODED_KEY: frames}
        )
        files = lists[ENCODED_KEY]
        places = (2 * tf.range(count) + 1) * tf.size(files) // (2 * count)
        return tf.map_fn(
            lambda file: tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE"),
            tf.gather(files, places),
            fn_output_signature=tf.uint8,
        )

    def decoding_only(files):
        return tf.data.TFRecordDataset(files).map(decode, num_parallel_calls=tf.data.AUTOTUNE)

    return {
        "decoding only": decoding_only,
        "evaluation": lambda files: make_dataset(files, schema, batch_size),
        "training": lambda files: make_dataset(files, schema, batch_size, shuffle=Shuffle()),
        "training, skip": lambda files: make_dataset(
            files, schema, batch_size, shuffle=Shuffle(), skipped=SkippedRecords()
        ),
    }


def measure(files, schema, batch_size, repeats, passes):
    """Returns a row for each reader."""
    num_clips = count_records(files)
    rates = {}
    for turn in range(repeats + 1):  # The first turn warms up.
        for name, make in readers(schema, batch_size).items():
            (_, once), (_, often) = seconds(make(files)), seconds(make(files * passes))
            if turn:
                rates.setdefault(name, []).append((often - once) / (passes - 1) / num_clips)
    medians = {name: float(np.median(rate)) for name, rate in rates.items()}
    floor = medians["decoding only"]
    return [
        {"reader": name, "cpu_ms_per_clip": 1e3 * rate, "ratio_to_decoding": rate / floor}
        for name, rate in medians.items()
    ]


def training(files, schema, options):
    """Returns the seconds of a training step on batches of the reader, and on one from memory."""
    keras.utils.set_random_seed(0)
    clips = schema.clips
    classifier = build_model(
        "TSM",
        schema.sizes,
        schema.num_classes,
        num_segments=clips.num_segments,
        crop_size=clips.crop_size,
        backbone=options.backbone,
    )
    settings = ObjectiveConfig(label_loss="SoftmaxLoss", class_reduction="sum", adversarial="none")
    model = AdversarialModel(classifier, build_objective(settings, pixels=True))
    model.compile(optimizer=build_optimizer(TrainingConfig(optimizer="SGD", momentum=0.9)))
    step = tf.function(model.optimize, autograph=False, reduce_retracing=True)
    passes = -(-(options.steps + 1) * options.batch_size // count_records(files))
    dataset = as_pairs(make_dataset(files * passes, schema, options.batch_size, shuffle=Shuffle()))
    in_memory = next(iter(dataset))
    step(in_memory)
    times = {"reader": [], "memory": []}
    for _ in range(options.repeats):
        # One kind after the other: the reader must not work while steps from memory are timed.
        for name, source in (("reader", dataset), ("memory", itertools.repeat(in_memory))):
            batches = iter(source)
            next(batches)  # Fills the shuffle buffer.
            start = time.perf_counter()
            for batch in itertools.islice(batches, options.steps):
                step(batch)[0].numpy()
            times[name].append((time.perf_counter() - start) / options.steps)
            del batches
    return {name: float(np.median(of_kind)) for name, of_kind in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_pattern", help="existing files of raw clips")
    parser.add_argument("--num_clips", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--crop_size", type=int, default=224)
    parser.add_argument("--training", action="store_true", help="also time steps of training")
    parser.add_argument("--backbone", default="ResNet10Small", help="of --training")
    parser.add_argument("--steps", type=int, default=10, help="of --training")
    parser.add_argument("--output_file")
    arguments = parser.parse_args()
    schema = RecordSchema(
        {"image": 3},
        1000,
        labels_key=CLIP_LABELS_KEY,
        clips=ClipConfig(crop_size=arguments.crop_size),
    )
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data_pattern:
            files = find_files(arguments.data_pattern, "data_pattern")
        else:
            files = [str(Path(folder) / "clips.tfrecord")]
            write_clips(files[0], arguments.num_clips, np.random.default_rng(0))
        rows = measure(files, schema, arguments.batch_size, arguments.repeats, arguments.passes)
        steps = training(files, schema, arguments) if arguments.training else None
    for row in rows:
        print(
            f"{row['reader']:<16} {row['cpu_ms_per_clip']:7.2f} ms a clip "
            f"{row['ratio_to_decoding']:6.2f} x decoding"
        )
    if steps is not None:
        ratio = steps["reader"] / steps["memory"]
        print(
            f"step of training  {1e3 * steps['reader']:.0f} ms with the reader, "
            f"{1e3 * steps['memory']:.0f} ms from memory: {ratio:.2f} x"
        )
    if arguments.output_file:
        result = {"machine": describe_machine(), "settings": vars(arguments), "rows": rows}
        if steps is not None:
            result["training_seconds"] = steps
        Path(arguments.output_file).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
