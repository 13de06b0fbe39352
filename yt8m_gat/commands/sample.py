"""Writes a generated sample of records; see `yt8m_gat.acquisition.sample`."""

import dataclasses
from collections.abc import Sequence

from yt8m_gat.acquisition.sample import SampleConfig, generate_sample
from yt8m_gat.cli import CommandParser, start_tensorflow
from yt8m_gat.paths import output_path, read_paths

PATHS = {"output_dir": output_path}


def _parser() -> CommandParser:
    parser = CommandParser(
        "sample", "Writes a seeded sample of frame-level records in the YouTube-8M layout."
    )
    parser.add_argument("--output_dir", required=True, help="folder to write to")
    for field in dataclasses.fields(SampleConfig):
        parser.add_argument(
            f"--{field.name}",
            type=int if field.type == "int" else float,
            default=field.default,
            help=field.metadata["meaning"],
        )
    return parser


def main(argv: Sequence[str]) -> None:
    """Generates the sample."""
    parser = _parser()
    parsed = parser.parse_args(argv)
    try:
        read_paths(parsed, PATHS)
        options = vars(parsed)
        output_dir = options.pop("output_dir")
        config = SampleConfig(**options)
        start_tensorflow()
        generate_sample(output_dir, config, show_progress=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(
        f"{config.num_train} train, {config.num_validate} validate and {config.num_test} test "
        f"clips of {config.num_classes} classes, and label_names.csv, are in {output_dir}"
    )
