"""Checks, scores, shows and blends submission CSVs; see `yt8m_gat.prediction.kaggle`.

The exit code is 0, or 1 when a rule is broken; every violation is printed with its line.
"""

import csv
import json
import sys
from collections.abc import Sequence

from yt8m_gat.cli import CommandParser, numbers
from yt8m_gat.data.label_space import read_label_names
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import input_path, output_path, read_paths, require_own_files
from yt8m_gat.prediction.blending import METHODS, blend_submissions
from yt8m_gat.prediction.kaggle import (
    check_submission,
    describe_rows,
    score_submission,
    write_sheet,
)
from yt8m_gat.untrusted import print_error

PATHS = {
    "submission": input_path,
    "submissions": input_path,
    "truth": input_path,
    "label_names": input_path,
    "output_file": output_path,
}


def _parser() -> CommandParser:
    parser = CommandParser(
        "kaggle", "Checks a submission CSV before it is uploaded, scores it, and shows its rows."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="print every violation of the format, by line")
    score = commands.add_parser("score", help="GAP and the other metrics of a 2018 submission")
    show = commands.add_parser("show", help="print rows with the names of their labels")
    sheet = commands.add_parser(
        "sheet", help="write a copy for spreadsheets, in which no id is a formula"
    )
    sheet.add_argument("--output_file", required=True, help="the copy")
    blend = commands.add_parser("blend", help="combine 2018 submissions of several models")
    blend.add_argument("submissions", nargs="+", help="the CSVs, about the same videos")
    blend.add_argument("--output_file", required=True, help="the blend")
    blend.add_argument("--weights", default="", help="a number for each CSV; default: all alike")
    blend.add_argument(
        "--method", choices=METHODS, default="mean", help="mean of scores, of ranks, or geometric"
    )
    for command in (check, score, show, sheet):
        command.add_argument("submission", help="the CSV")
    for command in (check, score, show, sheet, blend):
        command.add_argument(
            "--num_classes", type=int, default=3862, help="classes of the label space"
        )
        command.add_argument("--top_k", type=int, default=20, help="most pairs of a 2018 row")
    check.add_argument(
        "--segment_max_pred", type=int, default=100_000, help="most segments of a 2019 row"
    )
    score.add_argument("truth", help="CSV with the header VideoId,Labels; labels space-separated")
    show.add_argument(
        "--label_names",
        help="vocabulary.csv, label_names_2018.csv, class_labels_indices.csv or a label map",
    )
    show.add_argument("--rows", type=int, default=10, help="rows shown")
    show.add_argument("--entries", type=int, default=5, help="labels, or segments, of a row")
    show.add_argument("--keys", default="", help="video ids, or classes, separated by commas")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: The words after the command's name.

    Returns:
        The exit code: 0, or 1 when the submission or the truth breaks a rule.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    max_per_class = options.segment_max_pred if options.command == "check" else 100_000
    try:
        read_paths(options, PATHS, positional=("submission", "submissions", "truth"))
        blends = options.command == "blend"
        submissions = options.submissions if blends else [options.submission]
        if options.command in ("sheet", "blend"):
            inputs = dict.fromkeys(submissions, "a submission that is read")
            require_own_files({"--output_file": options.output_file}, inputs)
        num_violations = 0
        for path in submissions:
            violations = check_submission(path, options.num_classes, options.top_k, max_per_class)
            num_before = num_violations
            for violation in violations:
                print(f"{path}: {violation}" if blends else violation)
                num_violations += 1
            if num_violations > num_before:
                print(f"{path}: {num_violations - num_before} violations", file=sys.stderr)
        if num_violations:
            return 1
        if blends:
            weights = numbers("weights", options.weights) if options.weights else ()
            with only_writer(options.output_file):
                blend_submissions(
                    submissions, options.output_file, weights, options.method, options.top_k
                )
            return 0
        if options.command == "check":
            print(f"{options.submission}: no violation")
            return 0
        if options.command == "show":
            names = {} if options.label_names is None else read_label_names(options.label_names)
            keys = [key for key in options.keys.split(",") if key]
            for text in describe_rows(
                options.submission, names, options.rows, options.entries, keys
            ):
                print(text)
            return 0
        if options.command == "sheet":
            with only_writer(options.output_file):
                write_sheet(options.submission, options.output_file)
            return 0
        result = score_submission(options.submission, options.truth, options.num_classes)
    except (OSError, ValueError, csv.Error) as error:
        print_error(parser.prog, error)
        return 1
    if "perr" not in result:
        print("perr is undefined: a video has more labels than pairs", file=sys.stderr)
    print(json.dumps(result, indent=2))
    return 0
