"""Writes a generated sample of records; see `yt8m_gat.acquisition.sample` and `.motion`."""

import argparse
import dataclasses
from collections.abc import Sequence

from yt8m_gat.acquisition.motion import LABEL_NAMES, MotionConfig, generate_motion_sample
from yt8m_gat.acquisition.sample import SampleConfig, generate_sample
from yt8m_gat.cli import CommandParser, start_tensorflow
from yt8m_gat.paths import output_path, read_paths, required

PATHS = {"output_dir": required(output_path)}
KINDS = {"features": SampleConfig, "motion": MotionConfig}


def _parser() -> CommandParser:
    parser = CommandParser(
        "sample",
        "Writes a seeded sample of records: frame features in the YouTube-8M layout, or raw clips "
        "of moving shapes.",
    )
    parser.add_argument("--output_dir", required=True, help="folder to write to")
    parser.add_argument(
        "--kind",
        choices=tuple(KINDS),
        default="features",
        help="features: frame-level records; motion: raw clips in which only the order of the "
        "frames decides the class",
    )
    fields: dict[str, dict[str, dataclasses.Field]] = {}  # Flag -> kind -> the setting.
    for kind, config in KINDS.items():
        for field in dataclasses.fields(config):
            fields.setdefault(field.name, {})[kind] = field
    for name, of_kinds in fields.items():
        parser.add_argument(
            f"--{name}",
            type=int if next(iter(of_kinds.values())).type == "int" else float,
            default=argparse.SUPPRESS,
            help="; ".join(
                f"{kind}: {field.metadata['meaning']} (default: {field.default})"
                for kind, field in of_kinds.items()
            ),
        )
    return parser


def main(argv: Sequence[str]) -> None:
    """Generates the sample."""
    parser = _parser()
    parsed = parser.parse_args(argv)
    try:
        read_paths(parsed, PATHS)
        options = vars(parsed)
        output_dir, kind = options.pop("output_dir"), options.pop("kind")
        others = options.keys() - {field.name for field in dataclasses.fields(KINDS[kind])}
        if others:
            raise ValueError(f"--{min(others)} is no setting of --kind={kind}: leave it out")
        config = KINDS[kind](**options)
        start_tensorflow()
        if kind == "motion":
            num_classes = len(LABEL_NAMES)
            generate_motion_sample(output_dir, config, show_progress=True)
        else:
            num_classes = config.num_classes
            generate_sample(output_dir, config, show_progress=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(
        f"{config.num_train} train, {config.num_validate} validate and {config.num_test} test "
        f"clips of {num_classes} classes, and label_names.csv, are in {output_dir}"
    )
