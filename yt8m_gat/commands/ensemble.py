"""Makes one run of several: the mean of their probabilities, or of their weights."""

import argparse
from collections.abc import Sequence

from yt8m_gat.cli import CommandParser, numbers, quiet_tensorflow, reported_errors
from yt8m_gat.config import ConfigError
from yt8m_gat.paths import input_path, output_path, read_paths, required
from yt8m_gat.run_folder import RunFolder

PATHS = {"runs": input_path, "output_dir": required(output_path)}


def _parser() -> CommandParser:
    parser = CommandParser(
        "ensemble",
        "Makes one run of several: a model that returns the mean of their probabilities, or, with "
        "--soup, one whose weights are the mean of theirs. It is a run folder like any other, for "
        "eval, inference, calibrate, export and archive.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders of train")
    parser.add_argument("--output_dir", required=True, help="the run folder to write, a new one")
    parser.add_argument("--weights", default="", help="a number for each run; default: all alike")
    parser.add_argument(
        "--soup",
        choices=("uniform", "greedy"),
        help="the mean of the weights of all runs, or of those that raise the validation GAP",
    )
    parser.add_argument(
        "--eval_data_pattern", default="", help="validation files, for --soup=greedy"
    )
    parser.add_argument(
        "--trust_code",
        action="store_true",
        help="run the code that the runs name: models or losses of somebody's own",
    )
    return parser


def _make(arguments: argparse.Namespace) -> None:
    with quiet_tensorflow():
        from yt8m_gat import pipeline

    folder = RunFolder(arguments.output_dir)
    weights = numbers("weights", arguments.weights) if arguments.weights else ()
    options = {"weights": weights, "trust_code": arguments.trust_code}
    with pipeline.reported_errors():
        if arguments.soup is None:
            if arguments.eval_data_pattern:
                raise ConfigError("--eval_data_pattern is for --soup=greedy")
            pipeline.make_ensemble(folder, arguments.runs, **options)
            print(f"{folder.path}: the mean of {len(arguments.runs)} runs")
        else:
            made = pipeline.make_soup(
                folder,
                arguments.runs,
                method=arguments.soup,
                eval_data_pattern=arguments.eval_data_pattern,
                **options,
            )
            for run, gap in made.get("gap", {}).items():
                print(
                    f"{run}: validation GAP {gap:.4f}{'' if run in made['runs'] else ', left out'}"
                )
            gap = f", validation GAP {made['soup']:.4f}" if "soup" in made else ""
            print(f"{folder.path}: the mean weights of {len(made['runs'])} runs{gap}")


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    arguments = _parser().parse_args(argv)
    with reported_errors():
        read_paths(arguments, PATHS, positional=("runs",))
        _make(arguments)
