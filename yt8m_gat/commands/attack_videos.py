"""Attacks video files in their pixels and sound; see `yt8m_gat.pipeline.video_attacks`."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from yt8m_gat.cli import (
    CommandParser,
    comma_separated,
    exit_interrupted,
    numbers,
    quiet_tensorflow,
    reported_errors,
)
from yt8m_gat.commands.listed_clips import listed_clips
from yt8m_gat.commands.page_file import write_page
from yt8m_gat.commands.shard_flags import add_on_bad_file
from yt8m_gat.disk import replacing
from yt8m_gat.job_settings import VideoAttackSettings
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import input_path, output_path, read_paths, require_own_files
from yt8m_gat.report.attacked_videos import attack_words, build_attacked_page
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.video.clips import ClipListError

PATHS = {
    "videos": input_path,
    "labels": input_path,
    "train_dir": input_path,
    "label_names": input_path,
    "extractor": input_path,
    "picture": input_path,
    "sound": input_path,
    "output_file": output_path,
    "page_file": output_path,
}


def _parser() -> CommandParser:
    parser = CommandParser(
        "attack-videos",
        "Attacks the pixels and the sound of video files, through the run's extractor and "
        "classifier, and says how small a change of them moves the features as far as epsilon. "
        "Called again, it continues where it stopped.",
    )
    add, defaults = parser.add_argument, VideoAttackSettings()
    add("videos", nargs="*", help="files, patterns, lists (.csv, .txt), or folders of classes")
    add("--labels", help="list of clips: path,label[,start,end], one label a line")
    add("--train_dir", required=True, help="run folder of train")
    add(
        "--attacks",
        default=",".join(defaults.attacks),
        help="attacks on the pixels, as of eval.py; empty: none",
    )
    add(
        "--epsilons",
        default=",".join(f"{value:g}" for value in defaults.epsilons),
        help="their radii, in levels of 255",
    )
    add("--attack_steps", type=int, default=defaults.attack_steps, help="steps of PGD")
    add(
        "--sound_snrs",
        default="",
        help="signal to noise ratios, in dB, at which the sound is attacked, by PGD and by noise",
    )
    add(
        "--feature_epsilons",
        help="distances of features for which the smallest change of pixels and sound is searched; "
        "empty: none (default: the epsilon of training)",
    )
    add(
        "--distance_videos",
        type=int,
        default=defaults.distance_videos,
        help="first videos for which it is searched; 0: all",
    )
    add("--output_file", default="attacked.json", help="the figures, as JSON")
    add("--page_file", help="a page with the figures, and clean and attacked frames")
    add("--num_clips", type=int, default=defaults.num_clips, help="first videos that it shows")
    add_on_bad_file(parser)
    add("--checkpoint", choices=("best", "last"), default="best", help="which state of the run")
    add("--label_names", metavar="FILE", help="names of the classes (default: the run's)")
    add(
        "--extractor",
        metavar="PATH",
        help="extractor.json of the features, or its folder, for a run that has none",
    )
    for name in ("picture", "sound"):
        add(
            f"--{name}",
            metavar="PATH",
            help=f"weights of the extractor's {name} model, if they are elsewhere by now",
        )
    add(
        "--trust_code",
        action="store_true",
        help="run the code that the run names: a model or loss of somebody's own",
    )
    return parser


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    feature_epsilons = arguments.feature_epsilons
    settings = VideoAttackSettings(
        attacks=comma_separated(arguments.attacks),
        epsilons=numbers("epsilons", arguments.epsilons),
        attack_steps=arguments.attack_steps,
        sound_snrs=numbers("sound_snrs", arguments.sound_snrs),
        feature_epsilons=None
        if feature_epsilons is None
        else numbers("feature_epsilons", feature_epsilons),
        distance_videos=arguments.distance_videos,
        num_clips=arguments.num_clips if arguments.page_file else 0,
        on_bad_file=arguments.on_bad_file,
        checkpoint=arguments.checkpoint,
        trust_code=arguments.trust_code,
    )
    return dict(vars(settings))


def _attack(arguments: argparse.Namespace) -> None:
    settings = _settings(arguments)
    clips = listed_clips(arguments.videos, arguments.labels)
    folder = RunFolder(arguments.train_dir)
    inputs = {**folder.own_files(), **dict.fromkeys([clip.path for clip in clips], "a video")}
    for name in ("labels", "label_names", "extractor", "picture", "sound"):
        inputs[getattr(arguments, name)] = f"the file of --{name}"
    outputs = {"--output_file": arguments.output_file, "--page_file": arguments.page_file}
    require_own_files(outputs, inputs)
    with quiet_tensorflow():
        from yt8m_gat import pipeline

    with (
        pipeline.reported_errors(),
        only_writer(arguments.output_file),
        only_writer(arguments.page_file),
    ):
        kept = pipeline.partial_file(arguments.output_file)
        try:
            result, shown = pipeline.attack_videos(
                folder,
                clips,
                label_names=arguments.label_names,
                extractor=arguments.extractor,
                picture=arguments.picture,
                sound=arguments.sound,
                kept_in=kept,
                **settings,
            )
        except KeyboardInterrupt:
            exit_interrupted(kept, "videos")
        with replacing(arguments.output_file) as temporary:
            text = json.dumps(result, indent=2, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
        _print(result)
        print(f"{arguments.output_file}: {os.path.getsize(arguments.output_file) / 1e3:.0f} kB")
        if arguments.page_file:
            page = build_attacked_page(result, shown, arguments.command)
            write_page(arguments.page_file, page, {}, None)
        shutil.rmtree(kept, ignore_errors=True)  # All that was asked for is written.
        if result["left_out"]:
            print(
                f"{len(result['left_out'])} of {len(clips)} videos were left out: see left_out in "
                f"{arguments.output_file}",
                file=sys.stderr,
            )


def _print(result: Mapping[str, Any]) -> None:
    rows = [("clean", result["clean"]), ("rewritten", result["rewritten"])]
    rows += [(attack_words(row), row) for row in result["attacks"]]
    width = max(len(words) for words, _ in rows)
    print(f"{'':{width}}     gap  hit_at_1")
    for words, row in rows:
        print(printable(f"{words:{width}}  {row['gap']:.4f}    {row['hit_at_1']:.4f}"))


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    arguments.command = [*parser.prog.split(), *argv]
    with reported_errors(ClipListError):
        read_paths(arguments, PATHS, positional=("videos",))
        _attack(arguments)
