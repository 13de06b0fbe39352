"""Writes the model of a run as a SavedModel for TensorFlow Serving."""

from collections.abc import Sequence

from yt8m_gat.cli import CommandParser, quiet_tensorflow, reported_errors
from yt8m_gat.paths import input_path, read_paths, required, saved_model_path
from yt8m_gat.run_folder import RunFolder

PATHS = {"train_dir": input_path, "export_dir": required(saved_model_path)}


def _parser() -> CommandParser:
    parser = CommandParser(
        "export", "Writes the model of a run as the next version of a SavedModel."
    )
    parser.add_argument("--train_dir", required=True, help="run folder of train or ensemble")
    parser.add_argument(
        "--export_dir", required=True, help="the folder that TensorFlow Serving is pointed at"
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which weights"
    )
    parser.add_argument(
        "--trust_code",
        action="store_true",
        help="run the code that the run names: a model or loss of somebody's own",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    arguments = _parser().parse_args(argv)
    with reported_errors():
        read_paths(arguments, PATHS)
        with quiet_tensorflow():
            from yt8m_gat import pipeline

        with pipeline.reported_errors():
            version = pipeline.export_run(
                RunFolder(arguments.train_dir),
                arguments.export_dir,
                arguments.checkpoint,
                arguments.trust_code,
            )
        print(f"SavedModel: {version}")
