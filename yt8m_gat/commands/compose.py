"""Joins short clips into long ones; see `yt8m_gat.acquisition.compose`."""

from __future__ import annotations

from collections.abc import Sequence

from yt8m_gat.acquisition.compose import FILLS, SPANS, ComposeConfig, compose, read_source_clips
from yt8m_gat.cli import (
    CommandParser,
    comma_separated,
    integers,
    reported_errors,
    start_tensorflow,
)
from yt8m_gat.config import DataConfig
from yt8m_gat.paths import output_path, read_paths, required

PATHS = {"output_dir": required(output_path)}

# Flag -> help; the defaults are those of `ComposeConfig`.
_SETTINGS = {
    "clips_per_video": "places of a composed clip",
    "frames_per_clip": "frames of a place; clips of another length are left out, and counted",
    "num_shards": "files",
    "seed": "fixes which clips are joined, and where",
}


def _parser() -> CommandParser:
    parser = CommandParser(
        "compose",
        "Joins short clips of frame-level records into long ones, and writes which seconds carry "
        "each label.",
    )
    add, defaults = parser.add_argument, ComposeConfig()
    add("pattern", nargs="+", help="files, or patterns such as 'train*.tfrecord'")
    add("--output_dir", required=True, help="folder to write to")
    for name, text in _SETTINGS.items():
        default = getattr(defaults, name)
        add(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    add("--labelled_clips", type=int, help="places whose labels are kept (default: all)")
    add(
        "--fill",
        choices=FILLS,
        default=defaults.fill,
        help="what the other places hold: frames of 0, or clips that have none of --kept_labels",
    )
    add("--kept_labels", default="", help="classes, with commas between them (default: all)")
    data = DataConfig()
    add(
        "--feature_names",
        default=",".join(data.feature_names),
        help="features of the records, of bytes, with commas between them (default: %(default)s)",
    )
    add(
        "--feature_sizes",
        default=",".join(map(str, data.feature_sizes)),
        help="their sizes (default: %(default)s)",
    )
    add(
        "--num_classes",
        type=int,
        default=data.num_classes,
        help="classes of the records (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Composes the clips."""
    arguments = _parser().parse_args(argv)
    with reported_errors(ValueError):
        read_paths(arguments, PATHS)
        config = ComposeConfig(
            **{name: getattr(arguments, name) for name in _SETTINGS},
            labelled_clips=arguments.labelled_clips,
            fill=arguments.fill,
            kept_labels=integers("kept_labels", arguments.kept_labels),
        )
        data = DataConfig(
            feature_names=tuple(comma_separated(arguments.feature_names)),
            feature_sizes=integers("feature_sizes", arguments.feature_sizes),
            num_classes=arguments.num_classes,
        )
        start_tensorflow()
        from yt8m_gat.data.dataset import find_files
        from yt8m_gat.data.schema import RecordSchema

        files = find_files(arguments.pattern, "pattern")
        schema = RecordSchema.from_config(data)
        clips, num_other = read_source_clips(files, schema, config, show_progress=True)
        num_videos = compose(clips, arguments.output_dir, config, show_progress=True, sources=files)
    num_unused = sum(bool(clip.labels) for clip in clips) - num_videos * config.num_labelled
    print(
        f"{num_videos} clips of {config.clips_per_video * config.frames_per_clip} frames, "
        f"and {SPANS} for eval.py --true_spans, are in {arguments.output_dir}"
    )
    print(
        f"Left out: {num_other} source clips that do not have "
        f"{config.frames_per_clip} frames, and {num_unused} that fill no further clip"
    )
