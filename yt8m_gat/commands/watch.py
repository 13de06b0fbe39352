"""Draws what a run sees in one video: its labels, and the seconds behind them."""

import argparse
from collections.abc import Sequence

from yt8m_gat.cli import EXIT_ERROR, CommandParser, quiet_tensorflow
from yt8m_gat.commands.page_file import write_page
from yt8m_gat.config import ConfigError
from yt8m_gat.paths import input_path, output_path, read_paths, require_own_files
from yt8m_gat.report.watch import build_watch_page
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import print_error

PATHS = {
    "video": input_path,
    "train_dir": input_path,
    "label_names": input_path,
    "extractor": input_path,
    "picture": input_path,
    "sound": input_path,
    "output_file": output_path,
}


def _parser() -> CommandParser:
    parser = CommandParser(
        "watch",
        "Frames, labels, attention and class activation over the seconds of one video, clean and "
        "attacked: yt8m-gat watch holiday.mp4 --train_dir=runs/gat -o holiday.html",
    )
    parser.add_argument("video", metavar="VIDEO", help="the video file")
    parser.add_argument("--train_dir", required=True, help="run folder of train")
    parser.add_argument("-o", "--output_file", default="watch.html", help="the page")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which state of the run"
    )
    parser.add_argument(
        "--top_k", type=int, default=5, help="likeliest labels to show, clean and attacked"
    )
    parser.add_argument("--start", type=float, default=0.0, help="second at which to begin")
    parser.add_argument("--end", type=float, help="second at which to end")
    parser.add_argument(
        "--label_names", metavar="FILE", help="names of the classes (default: the run's)"
    )
    parser.add_argument(
        "--extractor",
        metavar="PATH",
        help="extractor.json of the features, or its folder, for a run that has none",
    )
    for name in ("picture", "sound"):
        parser.add_argument(
            f"--{name}",
            metavar="PATH",
            help=f"weights of the extractor's {name} model, if they are elsewhere by now",
        )
    parser.add_argument(
        "--trust_code",
        action="store_true",
        help="run the code that the run names: a model or loss of somebody's own",
    )
    return parser


def _watch(arguments: argparse.Namespace) -> int:
    if arguments.top_k < 1:
        raise ConfigError(f"--top_k must be at least 1. Received: {arguments.top_k}")
    folder = RunFolder(arguments.train_dir)
    inputs = {**folder.own_files(), arguments.video: "the video"}
    for name in ("label_names", "extractor", "picture", "sound"):
        inputs[getattr(arguments, name)] = f"the file of --{name}"
    require_own_files({"--output_file": arguments.output_file}, inputs)
    with quiet_tensorflow():
        from yt8m_gat import pipeline
        from yt8m_gat.video.decoding import VideoError

    try:
        watched = pipeline.watch(
            folder,
            video=arguments.video,
            label_names=arguments.label_names,
            extractor=arguments.extractor,
            picture=arguments.picture,
            sound=arguments.sound,
            checkpoint=arguments.checkpoint,
            top_k=arguments.top_k,
            start=arguments.start,
            end=arguments.end,
            trust_code=arguments.trust_code,
        )
    except VideoError as error:
        raise ConfigError(str(error)) from error
    write_page(arguments.output_file, build_watch_page(watched, arguments.command), {}, None)
    return 0


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.command = [*parser.prog.split(), *argv]
    try:
        read_paths(arguments, PATHS, positional=("video",))
        return _watch(arguments)
    except (ConfigError, OSError) as error:
        print_error(parser.prog, error)
        return EXIT_ERROR
