"""Two training workers on loopback, started as someone would start them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 240


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(sample_dir, train_dir, *arguments):
    """Both workers of a run, as someone would start them."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [
            sys.executable,
            "train.py",
            "--distribute=multi_worker",
            "--model=FrameLevelLogisticModel",
            f"--train_data_pattern={sample_dir}/train*.tfrecord",
            f"--eval_data_pattern={sample_dir}/validate*.tfrecord",
            f"--train_dir={train_dir}",
            "--num_classes=8",
            "--max_frames=12",
            "--batch_size=15",
            "--optimizer=SGD",
            "--checkpoint_steps=2",
            "--early_stopping_patience=0",
            *arguments,
        ]
        processes.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": json.dumps(cluster), "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def wait_for(processes):
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=TIMEOUT))
    finally:
        for process in processes:
            process.kill()
    return outputs
