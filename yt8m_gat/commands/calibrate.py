"""Fits the temperature of a run's probabilities, and the thresholds of its tags."""

import argparse
from collections.abc import Sequence

from yt8m_gat.cli import CommandParser, quiet_tensorflow, reported_errors
from yt8m_gat.paths import input_path, read_paths
from yt8m_gat.run_folder import RunFolder

PATHS = {"train_dir": input_path}


def _parser() -> CommandParser:
    parser = CommandParser(
        "calibrate",
        "Fits one temperature and a threshold for each class on labelled clips, and keeps them in "
        "the run folder, for the tags of inference --format=json, of exports, and for the report.",
    )
    parser.add_argument("--train_dir", required=True, help="run folder of train")
    parser.add_argument(
        "--eval_data_pattern", required=True, help="validation files: globs, separated by commas"
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which weights"
    )
    parser.add_argument("--batch_size", type=int, help="clips at once; default: as in training")
    parser.add_argument("--max_videos", type=int, default=0, help="only the first videos")
    parser.add_argument(
        "--min_positives",
        type=int,
        default=10,
        help="clips of a class from which on it has a threshold of its own",
    )
    parser.add_argument(
        "--on_bad_record",
        choices=("error", "skip"),
        default="error",
        help="what happens at a record that cannot be read",
    )
    parser.add_argument(
        "--trust_code",
        action="store_true",
        help="run the code that the run names: a model or loss of somebody's own",
    )
    return parser


def _calibrate(arguments: argparse.Namespace) -> None:
    with quiet_tensorflow():
        from yt8m_gat import pipeline

    folder = RunFolder(arguments.train_dir)
    with pipeline.reported_errors():
        found = pipeline.calibrate(
            folder,
            eval_data_pattern=arguments.eval_data_pattern,
            checkpoint=arguments.checkpoint,
            batch_size=arguments.batch_size,
            max_videos=arguments.max_videos,
            min_positives=arguments.min_positives,
            on_bad_record=arguments.on_bad_record,
            trust_code=arguments.trust_code,
        )
    print(
        f"{folder.path / found.FILE}: temperature {found.temperature:.4g}; NLL {found.nll[0]:.4g} "
        f"-> {found.nll[1]:.4g}, ECE {found.ece[0]:.4g} -> {found.ece[1]:.4g} on the same "
        f"{found.num_examples} examples; {found.num_own} of {len(found.thresholds)} classes have a "
        f"threshold of their own, the others {found.shared_threshold:.4g}"
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for name, least in (("batch_size", 1), ("max_videos", 0), ("min_positives", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"--{name} must be at least {least}. Received: {value}")
    with reported_errors():
        read_paths(arguments, PATHS)
        _calibrate(arguments)
