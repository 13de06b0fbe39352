"""Packs the best model of a run into one file, and unpacks it; see `yt8m_gat.export.archive`."""

from collections.abc import Sequence

from yt8m_gat.cli import CommandParser, quiet_tensorflow, reported_errors
from yt8m_gat.paths import input_path, output_path, read_paths, required
from yt8m_gat.run_folder import RunFolder

PATHS = {
    "train_dir": input_path,
    "input_file": input_path,
    "output_file": output_path,
    "output_dir": required(output_path),
}


def _parser() -> CommandParser:
    parser = CommandParser("archive", "Packs the best model of a run into one file, or unpacks it.")
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="write the archive, for --input_model_tgz of inference")
    pack.add_argument("--train_dir", required=True, help="run folder of train")
    pack.add_argument("--output_file", required=True, help="the archive, NAME.tgz")
    unpack = commands.add_parser("unpack", help="make a run folder of an archive")
    unpack.add_argument("--input_file", required=True, help="the archive")
    unpack.add_argument("--output_dir", required=True, help="a new or empty folder")
    return parser


def main(argv: Sequence[str]) -> None:
    """Packs or unpacks an archive."""
    values = _parser().parse_args(argv)
    with reported_errors():
        read_paths(values, PATHS)
        with quiet_tensorflow():
            from yt8m_gat.export import read_archive, write_archive

        if values.command == "pack":
            write_archive(RunFolder(values.train_dir), values.output_file)
            print(f"{values.output_file}: the best model of {values.train_dir}")
        else:
            folder = read_archive(values.input_file, values.output_dir)
            print(f"{folder.path}: the model of {values.input_file}")
