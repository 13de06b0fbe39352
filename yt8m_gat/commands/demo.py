"""Runs the commands one after the other on a generated sample, as a user would."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from yt8m_gat.cli import CommandParser, reported_errors
from yt8m_gat.interrupt import CONSOLE
from yt8m_gat.paths import read_paths, required, saved_model_path

_SAMPLE = "--num_train=2000 --num_validate=400 --num_test=400 --num_classes=24 --max_frames=30"


PATHS = {"output_dir": required(saved_model_path)}
"""The folder also holds an export of the model, so it needs a path for a SavedModel."""


def _parser() -> CommandParser:
    parser = CommandParser("demo", main.__doc__)
    parser.add_argument("--output_dir", default="runs/demo", help="folder for all that is written")
    return parser


def main(argv: Sequence[str]) -> None:
    """Generates the sample, trains, evaluates, predicts, and prints what came of it."""
    options = _parser().parse_args(argv)
    with reported_errors():
        read_paths(options, PATHS)
    output_dir = Path(options.output_dir).resolve()
    started = time.monotonic()
    sample, run = output_dir / "sample", output_dir / "gat"
    csv, figures = output_dir / "submission.csv", output_dir / "evaluation.json"

    _run(
        "sample",
        f"--output_dir={sample}",
        *_SAMPLE.split(),
        "--num_shards=4",
    )
    _run(
        "train",
        "--model=GAT",
        f"--train_data_pattern={sample}/train*.tfrecord",
        f"--eval_data_pattern={sample}/validate*.tfrecord",
        f"--train_dir={run}",
        f"--export_dir={output_dir}/export",
        "--num_classes=24",
        "--max_frames=30",
        # The data are small: smaller steps, and a local window that fits 30 frames.
        "--local_masks=bd5",
        "--batch_size=32",
        "--base_learning_rate=5e-4",
        "--num_epochs=3",
        "--start_new_model",
    )
    _run(
        "eval",
        f"--train_dir={run}",
        f"--eval_data_pattern={sample}/test*.tfrecord",
        "--attacks=fgm",
        f"--output_file={figures}",
    )
    _run(
        "inference",
        f"--train_dir={run}",
        f"--input_data_pattern={sample}/test*.tfrecord",
        f"--output_file={csv}",
    )

    result = json.loads(figures.read_text(encoding="utf-8"))
    attacked = result["attacks"][0]
    fgm = f"FGM, epsilon {attacked['epsilon']:g}"
    print(f"\nGAT on {result['clean']['num_videos']} generated test clips that it never saw")
    print(f"{'':20}{'clean':>10}{fgm:>20}")
    for key, name in (("gap", "GAP"), ("map", "MAP"), ("perr", "PERR"), ("hit_at_1", "Hit@1")):
        print(f"{name:20}{result['clean'][key]:10.4f}{attacked[key]:20.4f}")
    versions = sorted((output_dir / "export").glob("[0-9]*"), key=lambda path: int(path.name))
    print(f"\nKaggle CSV  {csv}\nSavedModel  {versions[-1]}\nRun folder  {run}")
    print(f"{time.monotonic() - started:.0f} s in all")


def _run(*arguments: str) -> None:
    print(f"\n$ {CONSOLE} {shlex.join(arguments)}", flush=True)
    finished = subprocess.run([sys.executable, "-m", "yt8m_gat", *arguments], check=False)
    if finished.returncode:
        sys.exit(f"demo: {arguments[0]} failed with exit code {finished.returncode}")
