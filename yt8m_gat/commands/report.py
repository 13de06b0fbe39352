"""Draws runs and their evaluations as one HTML page."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from yt8m_gat.cli import EXIT_ERROR, CommandParser
from yt8m_gat.commands import explain
from yt8m_gat.commands.page_file import write_page
from yt8m_gat.config import ConfigError
from yt8m_gat.disk import replacing
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import input_path, output_path, read_paths, require_own_files
from yt8m_gat.report.class_gains import MarkedClasses
from yt8m_gat.report.leaderboard import leaderboard
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import EVALUATION_FILE, read_run
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import print_error, printable

PATHS = {
    "train_dirs": input_path,
    "evaluation": input_path,
    "mark_classes": input_path,
    "output_file": output_path,
    "figures_dir": output_path,
    "leaderboard": output_path,
}


def _parser() -> CommandParser:
    parser = CommandParser(
        "report", "Draws runs and their evaluations as one page: yt8m-gat report runs/sa runs/gat"
    )
    parser.add_argument("train_dirs", nargs="+", metavar="RUN", help="run folders of train")
    parser.add_argument(
        "--evaluation",
        nargs="+",
        metavar="FILE",
        help="eval's --output_file of each run, in their order (default: RUN/evaluation.json)",
    )
    parser.add_argument(
        "--mark_classes",
        metavar="FILE",
        help="classes that stand out among the gains over a baseline: a number or name per line",
    )
    parser.add_argument("-o", "--output_file", default="report.html", help="the page")
    parser.add_argument("--figures_dir", help="also write each figure there, as SVG")
    parser.add_argument(
        "--leaderboard",
        metavar="FILE.json",
        help="also write the evaluated runs as entries of a leaderboard: threat models, attacks, "
        "worst cases, cost",
    )
    return parser


def _report(arguments: argparse.Namespace) -> int:
    """Draws the page; files that cannot be read are reported and left out."""
    folders = arguments.train_dirs
    files = arguments.evaluation or [None] * len(folders)
    if len(files) != len(folders):
        raise ConfigError(
            f"--evaluation must name one file per run. Received: {len(files)} for "
            f"{len(folders)} runs"
        )
    inputs: dict[str | os.PathLike | None, str] = {
        arguments.mark_classes: "the file of --mark_classes"
    }
    for folder, file in zip(folders, files, strict=True):
        inputs |= RunFolder(folder).own_files()
        inputs[file or Path(folder, EVALUATION_FILE)] = f"the evaluation of {folder}"
    outputs = {"--output_file": arguments.output_file, "--leaderboard": arguments.leaderboard}
    require_own_files(outputs, inputs)
    names = [printable(Path(folder).resolve().name) for folder in folders]
    # Folders of the same name are shown by their path as typed.
    names = [
        name if names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]
    marked = arguments.mark_classes and MarkedClasses.read(arguments.mark_classes)
    runs, unreadable = [], []
    for of_run in zip(folders, files, names, strict=True):
        try:
            runs.append(read_run(*of_run))
        except (ConfigError, OSError) as error:
            unreadable.append(str(error))
    unreadable += [message for run in runs for message in run.unreadable]
    for message in unreadable:
        print_error(_parser().prog, message)
    if not runs:
        return EXIT_ERROR
    for run in runs:
        if run.warning:
            print(printable(f"warning: {run.warning}"), file=sys.stderr)
    page, figures = build_page(runs, unreadable, arguments.command, marked=marked or None)
    write_page(arguments.output_file, page, figures, arguments.figures_dir)
    if arguments.leaderboard is not None:
        entries = leaderboard(runs)
        with only_writer(arguments.leaderboard), replacing(arguments.leaderboard) as temporary:
            temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        print(f"{arguments.leaderboard}: {len(entries['entries'])} entries")
    return EXIT_ERROR if unreadable else 0


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code. `report explain` is an older name of `explain`."""
    if argv[:1] == ["explain"]:
        return explain.main(argv[1:])
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.command = [*parser.prog.split(), *argv]
    try:
        read_paths(arguments, PATHS, positional=("train_dirs",))
        return _report(arguments)
    except (ConfigError, OSError) as error:
        print_error(parser.prog, error)
        return EXIT_ERROR
