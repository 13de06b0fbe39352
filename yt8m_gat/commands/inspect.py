"""Says what records hold, and which cannot be read; see `yt8m_gat.data.inspect`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from yt8m_gat.cli import CommandParser, command_to_paste, start_tensorflow
from yt8m_gat.config import CLIP_LABELS_KEY, ConfigError, DataConfig
from yt8m_gat.data.label_space import read_label_names
from yt8m_gat.paths import input_path, read_paths
from yt8m_gat.untrusted import print_error

if TYPE_CHECKING:
    from yt8m_gat.data.schema import RecordSchema

# tf.Example stores class indices as int64.
_ANY_CLASS = 2**63 - 1


PATHS = {"label_names": input_path}


def _parser() -> CommandParser:
    parser = CommandParser(
        "inspect", "Says what TFRecord files hold, and which records cannot be read and why."
    )
    parser.add_argument("pattern", nargs="+", help="files, or patterns such as 'train*.tfrecord'")
    parser.add_argument(
        "--feature_names", help="features that each record is to have, with commas between them"
    )
    parser.add_argument("--feature_sizes", help="their sizes, with commas between them")
    parser.add_argument(
        "--num_classes", type=int, help="size of the vocabulary (default: any label is right)"
    )
    parser.add_argument(
        "--video_level",
        action="store_true",
        help="with --feature_names: the records are to be video-level ones",
    )
    parser.add_argument(
        "--feature_types",
        default="",
        help="how the frames of all, or of each, are stored: uint8, float32 or float_list",
    )
    parser.add_argument(
        "--labels_key",
        help=f"name of the list of labels (default: {DataConfig.labels_key}; of raw clips, "
        f"{CLIP_LABELS_KEY})",
    )
    parser.add_argument(
        "--label_names",
        help="file with the labels' names (vocabulary.csv, label_names_2018.csv, "
        "class_labels_indices.csv, or the sample's label_names.csv)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _schema_from(arguments: argparse.Namespace) -> RecordSchema | None:
    if (arguments.feature_names is None) != (arguments.feature_sizes is None):
        raise ConfigError("--feature_names and --feature_sizes go together; give both or neither")
    if arguments.feature_names is None:
        if arguments.feature_types:
            raise ConfigError("--feature_types needs --feature_names and --feature_sizes")
        return None
    names = [name.strip() for name in arguments.feature_names.split(",")]
    try:
        sizes = [int(size) for size in arguments.feature_sizes.split(",")]
    except ValueError as error:
        raise ConfigError(
            "--feature_sizes must be whole numbers with commas between them. Received: "
            f"{arguments.feature_sizes!r}"
        ) from error
    types = [kind.strip() for kind in arguments.feature_types.split(",") if kind.strip()]
    config = DataConfig(
        feature_names=tuple(names),
        feature_sizes=tuple(sizes),
        feature_types=tuple(types),
        num_classes=_ANY_CLASS if arguments.num_classes is None else arguments.num_classes,
        frame_features=not arguments.video_level,
        labels_key=arguments.labels_key or DataConfig.labels_key,
    )
    from yt8m_gat.data.schema import RecordSchema

    return RecordSchema.from_config(config)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        read_paths(arguments, PATHS)
        start_tensorflow()  # Before the imports below load it with all its notices.
        from yt8m_gat.data.dataset import find_files
        from yt8m_gat.data.inspect import Inspection

        files = find_files(arguments.pattern, "pattern")
        names = None if arguments.label_names is None else read_label_names(arguments.label_names)
        inspection = Inspection(
            _schema_from(arguments), arguments.num_classes, names, arguments.labels_key
        )
    except (ValueError, OSError) as error:
        print_error(parser.prog, error)
        return 2
    for path in files:
        inspection.add_file(path)
    print(json.dumps(inspection.as_dict(), indent=2) if arguments.json else inspection.as_text())
    if inspection.holds_clips and inspection.label_counts and not arguments.json:
        num_classes = arguments.num_classes or max(inspection.label_counts) + 1
        flags = ["--model=TSM", f"--num_classes={max(num_classes, len(names or ()))}"]
        if arguments.labels_key not in (None, CLIP_LABELS_KEY):
            flags.append(f"--labels_key={arguments.labels_key}")
        if (inspection.labels.greatest or 0) > 1:
            flags.append("--label_loss=CrossEntropyLoss")  # The model's own is of one label.
        pattern = ",".join(arguments.pattern)
        print(f"train: {command_to_paste('train', *flags, f'--train_data_pattern={pattern}')}")
    return 1 if inspection.bad else 0
