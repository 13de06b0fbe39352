"""Makes frame-level records of videos; see `yt8m_gat.extraction.job`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from yt8m_gat.cli import (
    CommandParser,
    command_to_paste,
    exit_interrupted,
    integers,
    numbers,
    reported_errors,
    start_tensorflow,
)
from yt8m_gat.commands.listed_clips import listed_clips
from yt8m_gat.commands.shard_flags import add_shard_flags, check_shard_flags
from yt8m_gat.config import ConfigError
from yt8m_gat.data.label_space import read_label_names
from yt8m_gat.extraction.config import ExtractorConfig, extractor_file
from yt8m_gat.extraction.settings import ExtractionSettings
from yt8m_gat.extraction.shards import LABEL_NAMES, Summary, parse_splits
from yt8m_gat.paths import expanded, input_path, output_path, read_paths, required
from yt8m_gat.video.clips import Clip, ClipListError
from yt8m_gat.video.decoding import VideoError

if TYPE_CHECKING:
    from yt8m_gat.extraction.extractor import Extractor


def _model(flag: str, value: str) -> str:
    """Checks a flag that is a name of a model or the path of one."""
    return expanded(flag, value)


PATHS = {
    "videos": input_path,
    "labels": input_path,
    "label_names": input_path,
    "extractor": input_path,
    "output_dir": required(output_path),
    "official_dir": input_path,
    "picture": _model,
    "picture_weights": input_path,
    "sound": _model,
}

# Flag -> help; the defaults are those of `ExtractionSettings`.
_SETTINGS = {
    "picture": "a model of keras.applications, a .keras or .tflite file, a SavedModel folder, "
    "youtube8m, or none",
    "picture_weights": "weights of the model of keras.applications, without its top layer, instead "
    "of ImageNet's",
    "picture_output": "layer, output or tensor of a file that is the embedding",
    "picture_size": "height,width of the frames, where the model leaves it open",
    "picture_range": "values of black and white, for files that take floats",
    "sound": "log_mel, vggish, a .keras or .tflite file, a SavedModel folder, or none",
    "sound_output": "layer, output or tensor of a file that is the embedding",
    "official_dir": "folder of the official constants of youtube8m and vggish",
    "fps": "frames a second",
    "max_seconds": "length after which a clip is cut; 0: no clip is",
    "crop": "x,y,width,height of the part of the picture that is used, in pixels",
    "fit_pca": "values that a PCA keeps of the picture, or of picture,sound",
    "fit_videos": "most videos to which mean, deviation and PCA are fitted; 0: fit nothing",
}
_INTEGERS = ("picture_size", "crop", "fit_pca")


def _parser(with_beam: bool = False) -> CommandParser:
    parser = CommandParser(
        "extract",
        "Makes frame-level records of videos, with the models that --picture and --sound name. "
        "Called again, it continues where it stopped.",
        refuses_unknown=not with_beam,
    )
    add = parser.add_argument
    add("videos", nargs="*", help="files, patterns, lists (.csv, .txt), or folders of classes")
    add("--output_dir", required=True, help="folder for the records")
    add("--labels", help="list of clips: path,label[,start,end], one label a line")
    add("--label_names", help="file with the names of all classes, which gives them their numbers")
    add("--extractor", help="extractor.json of other records, to make the same features")
    defaults = ExtractionSettings()
    for name, text in _SETTINGS.items():
        default = getattr(defaults, name)
        if isinstance(default, tuple):
            shown = ",".join(f"{value:g}" for value in default)
            add(f"--{name}", help=f"{text} (default: {shown})" if shown else text)
        elif default is None or isinstance(default, str):
            add(f"--{name}", help=f"{text} (default: {default})" if default else text)
        else:
            add(f"--{name}", type=type(default), help=f"{text} (default: {default:g})")
    add_shard_flags(parser)
    add(
        "--runner",
        help="make the records on this runner of Apache Beam; the flags that are not "
        "listed are Beam's",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Writes the records and prints the next command."""
    on_beam = any(word.partition("=")[0] == "--runner" for word in argv)
    parser = _parser(on_beam)
    arguments, beam_words = parser.parse_known_args(argv)
    if beam_words and not on_beam:
        parser.error(f"unrecognized arguments: {' '.join(beam_words)}")
    with reported_errors(ClipListError, VideoError, ImportError):
        read_paths(arguments, PATHS, positional=("videos",))
        check_shard_flags(arguments, [*arguments.videos, arguments.labels])
        splits = parse_splits(arguments.splits)
        settings = _settings(arguments)
        clips = listed_clips(arguments.videos, arguments.labels)
        names = _names(arguments.label_names, arguments.extractor, clips)
        start_tensorflow()
        from yt8m_gat.extraction.extractor import Extractor
        from yt8m_gat.extraction.job import extract

        distribute = None
        if on_beam:
            try:
                from yt8m_gat.extraction.beam import on_runner
            except ImportError as error:
                raise ConfigError(
                    f"Apache Beam is not installed: pip install 'yt8m-gat[beam]' ({error})"
                ) from error
            distribute = on_runner([f"--runner={arguments.runner}", *beam_words])
        extractor = None if settings is not None else _extractor(arguments, Extractor)
        try:
            summary, config = extract(
                clips,
                arguments.output_dir,
                settings,
                extractor=extractor,
                names=names,
                num_shards=arguments.num_shards,
                splits=splits,
                on_bad_file=arguments.on_bad_file,
                num_readers=arguments.num_readers,
                show_progress=True,
                distribute=distribute,
            )
        except KeyboardInterrupt:
            exit_interrupted(arguments.output_dir, "videos")
    _report(arguments.output_dir, summary, config)


def _settings(arguments: argparse.Namespace) -> ExtractionSettings | None:
    """Returns the settings of the flags; None with --extractor, which has its own."""
    given = {
        name: getattr(arguments, name) for name in _SETTINGS if getattr(arguments, name) is not None
    }
    for name in _INTEGERS:
        if name in given:
            given[name] = integers(name, given[name])
    if "picture_range" in given:
        given["picture_range"] = numbers("picture_range", given["picture_range"])
    if arguments.extractor is None:
        return ExtractionSettings(**given)
    # These say where files are by now, and define nothing.
    defining = sorted(set(given) - {"picture", "sound", "official_dir"})
    if defining:
        raise ConfigError(
            f"--{defining[0]} is set by --extractor={arguments.extractor}: leave out one of the two"
        )
    return None


def _extractor(arguments: argparse.Namespace, extractor: type[Extractor]) -> Extractor:
    config = ExtractorConfig.load(arguments.extractor)
    places = {"picture": arguments.picture, "sound": arguments.sound}
    for name, part in config.parts.items():
        if places[name] is None and part.kind in ("youtube8m", "vggish"):
            places[name] = arguments.official_dir
    return extractor.load(arguments.extractor, **places)


def _names(file: str | None, extractor: str | None, clips: Sequence[Clip]) -> list[str] | None:
    """Returns the names of the classes by number; None: those of the clips' own labels."""
    if file is None and extractor is not None and any(clip.labels for clip in clips):
        beside = extractor_file(extractor).parent / LABEL_NAMES
        file = os.fspath(beside) if beside.is_file() else None
    if file is None:
        return None
    names = read_label_names(file)
    return [names.get(number, "") for number in range(max(names, default=-1) + 1)]


def _report(folder: str, summary: Summary, config: ExtractorConfig) -> None:
    counts = [f"{count} {name or 'videos'}" for name, count in sorted(summary.num_clips.items())]
    print(f"{folder}: {', '.join(counts) or 'no videos'}; {config.description}")
    if summary.num_bad or summary.num_faulty:
        print(
            f"{summary.num_bad} files were left out and {summary.num_faulty} are damaged in part: "
            f"see {os.path.join(folder, 'manifest.csv')}",
            file=sys.stderr,
        )
    if not summary.num_clips:
        return
    sizes = config.feature_sizes
    train = "train" if "train" in summary.num_clips else "videos"
    flags = [f"--train_data_pattern={os.path.join(folder, train)}*.tfrecord"]
    if "validate" in summary.num_clips:
        flags.append(f"--eval_data_pattern={os.path.join(folder, 'validate')}*.tfrecord")
    flags += [
        f"--feature_names={','.join(sizes)}",
        f"--feature_sizes={','.join(map(str, sizes.values()))}",
        f"--max_frames={summary.most_frames}",
    ]
    names_file = os.path.join(folder, LABEL_NAMES)
    if os.path.isfile(names_file):
        flags.append(f"--num_classes={max(read_label_names(names_file)) + 1}")
        print(f"To train:\n  {command_to_paste('train', *flags, '--train_dir=runs/mine')}")
