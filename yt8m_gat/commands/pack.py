"""Writes raw clips as MediaSequence records; see `yt8m_gat.extraction.media_sequence`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from yt8m_gat.cli import (
    CommandParser,
    exit_interrupted,
    integers,
    reported_errors,
    start_tensorflow,
)
from yt8m_gat.commands.shard_flags import add_shard_flags, check_shard_flags
from yt8m_gat.extraction.pack_settings import PackSettings
from yt8m_gat.extraction.shards import Summary, parse_splits
from yt8m_gat.paths import input_path, output_path, read_paths, required
from yt8m_gat.video.clips import ClipListError, clips_of
from yt8m_gat.video.decoding import VideoError

PATHS = {"clips": input_path, "output_dir": required(output_path)}

# Flag -> help; the defaults are those of `PackSettings`.
_SETTINGS = {
    "fps": "frames a second; 0, the default: the frames of the file",
    "short_side": "pixels of the shorter side; 0: as it is",
    "quality": "quality of the JPEG files, 1 to 100",
    "max_seconds": "length after which a clip is cut; 0, the default: no clip is",
}


def _parser() -> CommandParser:
    parser = CommandParser(
        "pack",
        "Writes clips of videos as MediaSequence records: JPEG frames, labels and sound. Called "
        "again, it continues where it stopped.",
    )
    add = parser.add_argument
    add(
        "clips",
        nargs="+",
        help="lists (.csv: path,label[,start,end]; .txt: path label), folders of classes, files, "
        "patterns",
    )
    add("--output_dir", required=True, help="folder for the records")
    defaults = PackSettings()
    for name, text in _SETTINGS.items():
        default = getattr(defaults, name)
        add(f"--{name}", type=type(default), default=default, help=text)
    add(
        "--crop",
        default="",
        help="x,y,width,height of the part of the picture that is stored, in pixels; taken first",
    )
    add("--with_sound", action="store_true", help="store the sound too, 16 kHz, one channel")
    add_shard_flags(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """Writes the records."""
    arguments = _parser().parse_args(argv)
    with reported_errors(ClipListError, VideoError, ImportError):
        read_paths(arguments, PATHS, positional=("clips",))
        check_shard_flags(arguments, arguments.clips)
        splits = parse_splits(arguments.splits)
        settings = PackSettings(
            **{name: getattr(arguments, name) for name in _SETTINGS},
            crop=integers("crop", arguments.crop) if arguments.crop else (),
            with_sound=arguments.with_sound,
        )
        clips = clips_of(arguments.clips)
        start_tensorflow()
        from yt8m_gat.extraction.media_sequence import pack

        try:
            summary = pack(
                clips,
                arguments.output_dir,
                settings,
                num_shards=arguments.num_shards,
                splits=splits,
                on_bad_file=arguments.on_bad_file,
                num_readers=arguments.num_readers,
                show_progress=True,
            )
        except KeyboardInterrupt:
            exit_interrupted(arguments.output_dir, "clips")
    _report(arguments.output_dir, summary)


def _report(folder: str, summary: Summary) -> None:
    counts = [f"{count} {name or 'clips'}" for name, count in sorted(summary.num_clips.items())]
    print(f"{folder}: {', '.join(counts) or 'no clips'}, of at most {summary.most_frames} frames")
    if summary.num_bad or summary.num_faulty:
        print(
            f"{summary.num_bad} clips were left out and {summary.num_faulty} are damaged in part: "
            f"see {os.path.join(folder, 'manifest.csv')}",
            file=sys.stderr,
        )
