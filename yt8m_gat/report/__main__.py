"""Makes a report of runs: `python -m yt8m_gat.report runs/sa runs/gat -o report.html`.

`python -m yt8m_gat.report explain --train_dir=...` explains one label of one clip (see its --help).
"""

if __name__ == "__main__":
    from yt8m_gat.interrupt import end_on_interrupt

    end_on_interrupt()

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from yt8m_gat.cli import EXIT_ERROR, quiet_tensorflow, run_command
from yt8m_gat.config import ConfigError
from yt8m_gat.disk import replacing
from yt8m_gat.locks import only_writer, only_writer_in
from yt8m_gat.paths import input_path, output_path, read_paths
from yt8m_gat.report.chart import standalone
from yt8m_gat.report.page import build_explanation, build_page
from yt8m_gat.report.source import read_run
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import print_error, printable

_NAME = "python -m yt8m_gat.report"
PATHS = {
    "train_dirs": input_path,
    "train_dir": input_path,
    "evaluation": input_path,
    "label_names": input_path,
    "output_file": output_path,
    "figures_dir": output_path,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_NAME, description=__doc__)
    parser.add_argument("train_dirs", nargs="+", metavar="RUN", help="run folders of train.py")
    parser.add_argument(
        "--evaluation",
        nargs="+",
        metavar="FILE",
        help="eval.py's --output_file of each run, in their order (default: RUN/evaluation.json)",
    )
    parser.add_argument("-o", "--output_file", default="report.html", help="the page")
    parser.add_argument("--figures_dir", help="also write each figure there, as SVG")
    return parser


def write_page(
    output_file: str | os.PathLike,
    page: str,
    figures: dict[str, str],
    figures_dir: str | os.PathLike | None,
) -> None:
    """Writes the page and, if asked to, each figure as a file of its own."""
    with only_writer(output_file), replacing(output_file) as temporary:
        _write_text(temporary, page)
    print(f"{output_file}: {Path(output_file).stat().st_size / 1e3:.0f} kB, {len(figures)} figures")
    if figures_dir is None:
        return
    taken: set[str] = set()
    with only_writer_in(figures_dir):
        for name, svg in figures.items():
            # Names come from files: nothing of them may leave the folder, or take another's place.
            safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
            while safe.lower() in taken:
                safe += "_"
            taken.add(safe.lower())
            with replacing(Path(figures_dir, f"{safe}.svg")) as temporary:
                _write_text(temporary, standalone(svg))


def _write_text(path: Path, text: str) -> None:
    # JSON may hold halves of characters, which UTF-8 has no bytes for.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _explain_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_NAME} explain",
        description="Saliency, SmoothGrad and Grad-CAM++ of one label over the frames of one clip.",
    )
    parser.add_argument("--train_dir", required=True, help="run folder of train.py")
    parser.add_argument("--input_data_pattern", required=True, help="files that hold the clip")
    parser.add_argument("--video_id", required=True, help="the clip")
    parser.add_argument("--label", required=True, help="the class: its number, or its name")
    parser.add_argument(
        "--label_names",
        metavar="FILE",
        help="names of the classes: vocabulary.csv, label_names_2018.csv, "
        "class_labels_indices.csv, the sample's label_names.csv or a label map",
    )
    parser.add_argument("-o", "--output_file", default="explain.html", help="the page")
    parser.add_argument("--figures_dir", help="also write each figure there, as SVG")
    return parser


def _report(arguments: argparse.Namespace) -> int:
    """A file that cannot be read is named, and the page is of the others."""
    folders = arguments.train_dirs
    files = arguments.evaluation or [None] * len(folders)
    if len(files) != len(folders):
        raise ConfigError(
            f"--evaluation must name one file per run. Received: {len(files)} for "
            f"{len(folders)} runs"
        )
    names = [printable(Path(folder).resolve().name) for folder in folders]
    # Folders of the same name are told apart by their path as given.
    names = [
        name if names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]
    runs, unreadable = [], []
    for of_run in zip(folders, files, names, strict=True):
        try:
            runs.append(read_run(*of_run))
        except (ConfigError, OSError) as error:
            unreadable.append(str(error))
    unreadable += [message for run in runs for message in run.unreadable]
    for message in unreadable:
        print_error(_NAME, message)
    if not runs:
        return EXIT_ERROR
    for run in runs:
        if run.warning:
            print(printable(f"warning: {run.warning}"), file=sys.stderr)
    page, figures = build_page(runs, unreadable, arguments.command)
    write_page(arguments.output_file, page, figures, arguments.figures_dir)
    return EXIT_ERROR if unreadable else 0


def _explain(arguments: argparse.Namespace) -> int:
    # Only here: the rest of the report does without TensorFlow.
    with quiet_tensorflow():
        from yt8m_gat import pipeline

    try:
        explanation = pipeline.explain(
            RunFolder(arguments.train_dir),
            input_data_pattern=arguments.input_data_pattern,
            video_id=arguments.video_id,
            label=arguments.label,
            label_names=arguments.label_names,
        )
    except pipeline.BadRecordError as error:
        raise ConfigError(str(error)) from error
    page, figures = build_explanation(explanation, arguments.command)
    write_page(arguments.output_file, page, figures, arguments.figures_dir)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["explain"]:
        parser, run, argv = _explain_parser(), _explain, argv[1:]
    else:
        parser, run = _parser(), _report
    arguments = parser.parse_args(argv)
    arguments.command = [*parser.prog.split(), *argv]
    try:
        read_paths(arguments, PATHS, positional=("train_dirs",))
        return run(arguments)
    except (ConfigError, OSError) as error:
        print_error(parser.prog, error)
        return EXIT_ERROR


if __name__ == "__main__":
    run_command(main)
