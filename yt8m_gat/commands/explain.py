"""Draws which frames of one clip speak for one label."""

import argparse
from collections.abc import Sequence

from yt8m_gat.cli import EXIT_ERROR, CommandParser, quiet_tensorflow
from yt8m_gat.commands.page_file import write_page
from yt8m_gat.config import ConfigError
from yt8m_gat.paths import input_path, output_path, read_paths, require_own_files
from yt8m_gat.report.page import build_explanation
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import print_error

PATHS = {
    "train_dir": input_path,
    "label_names": input_path,
    "output_file": output_path,
    "figures_dir": output_path,
}


def _parser() -> CommandParser:
    parser = CommandParser(
        "explain", "Saliency, SmoothGrad and Grad-CAM++ of one label over the frames of one clip."
    )
    parser.add_argument("--train_dir", required=True, help="run folder of train")
    parser.add_argument("--input_data_pattern", required=True, help="files that hold the clip")
    parser.add_argument("--video_id", required=True, help="the clip")
    parser.add_argument("--label", required=True, help="the class: its number, or its name")
    parser.add_argument(
        "--label_names",
        metavar="FILE",
        help="names of the classes: vocabulary.csv, label_names_2018.csv, "
        "class_labels_indices.csv, the sample's label_names.csv or a label map",
    )
    parser.add_argument(
        "--trust_code",
        action="store_true",
        help="run the code that the run names: a model or loss of somebody's own",
    )
    parser.add_argument("-o", "--output_file", default="explain.html", help="the page")
    parser.add_argument("--figures_dir", help="also write each figure there, as SVG")
    return parser


def _explain(arguments: argparse.Namespace) -> int:
    with quiet_tensorflow():
        from yt8m_gat import pipeline
        from yt8m_gat.data.dataset import find_files

    folder = RunFolder(arguments.train_dir)
    files = find_files(arguments.input_data_pattern, "input_data_pattern")
    inputs = {
        **folder.own_files(),
        **dict.fromkeys(files, "a file of --input_data_pattern"),
        arguments.label_names: "the file of --label_names",
    }
    require_own_files({"--output_file": arguments.output_file}, inputs)
    try:
        explanation = pipeline.explain(
            folder,
            input_data_pattern=arguments.input_data_pattern,
            video_id=arguments.video_id,
            label=arguments.label,
            label_names=arguments.label_names,
            trust_code=arguments.trust_code,
        )
    except pipeline.BadRecordError as error:
        raise ConfigError(str(error)) from error
    page, figures = build_explanation(explanation, arguments.command)
    write_page(arguments.output_file, page, figures, arguments.figures_dir)
    return 0


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.command = [*parser.prog.split(), *argv]
    try:
        read_paths(arguments, PATHS)
        return _explain(arguments)
    except (ConfigError, OSError) as error:
        print_error(parser.prog, error)
        return EXIT_ERROR
