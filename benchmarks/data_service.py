"""Measures the processor time of reading through a tf.data service of one to four workers.

    python benchmarks/data_service.py
    python benchmarks/data_service.py --num_workers 1 2 4 8 --output_file=data_service.json

A dispatcher and workers run as processes of their own on this machine, and send batches of official
size (300 frames of 1024 + 128 bytes) to this process, which drops them. Processor time is that of
each process, from the kernel: it does not depend on how many cores there are, or on other load, as
the records a second do. What a machine or a network of workers gives follows from it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from machine import describe_machine
from reader import write_records

from yt8m_gat.data import RecordSchema, Shuffle, make_dataset
from yt8m_gat.data.schema import FRAME_FEATURE_SIZES, MAX_FRAMES, NUM_CLASSES
from yt8m_gat.training import Distribution
from yt8m_gat.training.data_service import read_through

_SERVER = """
import sys, time
import tensorflow as tf
service = tf.data.experimental.service
if len(sys.argv) > 1:
    server = service.WorkerServer(service.WorkerConfig(dispatcher_address=sys.argv[1]))
    print("worker", flush=True)
else:
    server = service.DispatchServer(service.DispatcherConfig(port=0))
    print(server.target.removeprefix("grpc://"), flush=True)
time.sleep(3600)
"""


def start(*arguments):
    """Starts a server and returns its process and the line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, *arguments], stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def processor_seconds(process):
    """Returns the processor seconds of a process, of all threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds(dataset, workers):
    """Returns wall-clock, own and workers' processor seconds of a pass, and its records."""
    before = sum(map(processor_seconds, workers))
    begin, own = time.perf_counter(), time.process_time()
    records = dataset.reduce(
        np.int64(0), lambda n, batch: n + tf.size(batch["num_frames"], tf.int64)
    )
    records = int(records)
    wall, own = time.perf_counter() - begin, time.process_time() - own
    return np.array([wall, own, sum(map(processor_seconds, workers)) - before]), records


def measure(files, schema, batch_size, num_workers, passes):
    """Returns a row for reading in this process, and one for each number of workers."""

    def data(files):
        return make_dataset(
            files, schema, batch_size, shuffle=Shuffle(buffer=64), check_files=False
        )

    rows, processes, workers = [], [], []
    try:
        dispatcher, address = start()
        processes.append(dispatcher)
        for number in (0, *num_workers):
            while len(workers) < number:
                worker, _ = start(address)
                workers.append(worker)
                processes.append(worker)
            once, often = (data(files * count) for count in (1, passes + 1))
            if number:
                once, often = (
                    read_through(f"grpc://{address}", dataset, Distribution())
                    for dataset in (once, often)
                )
            # The difference leaves out what a pass costs at its start.
            (short, few), (long, many) = seconds(once, workers), seconds(often, workers)
            wall, own, theirs = (long - short) / (many - few) * 1e6
            rows.append(
                {
                    "workers": number,
                    "records_per_second": 1e6 / wall,
                    "cpu_microseconds_here": own,
                    "cpu_microseconds_of_workers": theirs,
                }
            )
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num_workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--num_files", type=int, default=8)
    parser.add_argument("--records_per_file", type=int, default=64)
    parser.add_argument("--num_frames", type=int, default=MAX_FRAMES)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_file", help="also write the figures here, as JSON")
    arguments = parser.parse_args(argv)
    schema = RecordSchema(dict(FRAME_FEATURE_SIZES), NUM_CLASSES, arguments.num_frames)
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        files = write_records(
            folder, arguments.num_files, arguments.records_per_file, arguments.num_frames, rng
        )
        rows = measure(files, schema, arguments.batch_size, arguments.num_workers, arguments.passes)
    print(f"cores: {len(os.sched_getaffinity(0))}")
    print(f"{'workers':>7} {'records/s':>10} {'us/record here':>15} {'us/record, workers':>19}")
    for row in rows:
        print(
            f"{row['workers']:>7} {row['records_per_second']:>10.0f} "
            f"{row['cpu_microseconds_here']:>15.0f} {row['cpu_microseconds_of_workers']:>19.0f}"
        )
    if arguments.output_file:
        settings = {k: v for k, v in vars(arguments).items() if k != "output_file"}
        report = {"benchmark": "data_service", "settings": settings, "machine": describe_machine()}
        Path(arguments.output_file).write_text(
            json.dumps({**report, "rows": rows}, indent=2) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
