"""The job that attacks video files in their pixels and sound, through extractor and classifier."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import yt8m_gat
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data.progress import progress_bar
from yt8m_gat.digests import digest_of
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.import_path import require_trust
from yt8m_gat.job_settings import VideoAttackSettings
from yt8m_gat.pipeline.attacked_video import FEATURE_OF, PIXELS, SOUND, VideoChain
from yt8m_gat.pipeline.kept_videos import KeptVideos
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.pipeline.run_extractor import place_of_extractor
from yt8m_gat.pipeline.run_settings import class_names, read_schema
from yt8m_gat.pipeline.video_measures import VideoMeasures
from yt8m_gat.provenance import command_line, utc_now
from yt8m_gat.robustness.attack_spec import PIXELS as PIXEL_BOUNDS
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.video.clips import Clip, clip_ids, label_numbers
from yt8m_gat.video.decoding import VideoError
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import LoadedClassifier, weights_of

PIXEL_ATTACKS = (
    *("fgm", "fgm_linf", "pgd", "pgd_linf", "pgd_margin", "apgd", "apgd_linf", "auto"),
    *("auto_linf", "square", "square_linf", "random_search", "noise", "noise_linf"),
)
"""Attacks that need a loss and at most its gradient."""


def attack_videos(
    folder: RunFolder,
    clips: Sequence[Clip],
    *,
    label_names: str | os.PathLike | None = None,
    extractor: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    sound: str | os.PathLike | None = None,
    kept_in: str | os.PathLike | None = None,
    **options: Any,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Attacks videos in their pixels and sound, and measures what a run says about the result.

    An attack is found by the gradients of the unrounded chain (`VideoChain`), and measured on what
    the extractor makes of a file of the attacked pictures (bytes) and sound (16 bits).

    Args:
        folder: The run, a frame-level one of features.
        clips: The videos, each with its labels.
        label_names: File that names the classes, see `class_names`.
        extractor: See `place_of_extractor`.
        picture: Weights of the extractor's picture model, if they are elsewhere by now.
        sound: Likewise of its sound model.
        kept_in: Folder that keeps what is measured of each video, so that the same call goes on
            after a kill, see `KeptVideos`; the caller removes it. None: nothing is kept.
        **options: See `VideoAttackSettings`.

    Returns:
        The figures: `model`, `adversarial` and `seed` (of the run's configuration), `clean` (of the
        files), `rewritten` (of files of the same frames and sound, written as the attacked ones
        are), `attacks` (a row for each attack and radius, with the metrics and their `intervals`,
        the means `psnr` or `snr` in dB and `feature_distance`, see
        `yt8m_gat.pipeline.attacked_video`), `smallest_changes` (see `docs/ROBUSTNESS.md`),
        `left_out` (`video_id`, `file` and `reason` of each video that could not be read),
        `settings` and `provenance`. And what the page shows, see
        `yt8m_gat.report.attacked_videos.build_attacked_page`.

    Raises:
        ConfigError: The run has no extractor, a model of the extractor has no gradient, a video has
            no label, an option is wrong, no video can be read, or `kept_in` holds another job.
        VideoError: A video cannot be read, with `on_bad_file=error`.
        ClipListError: A label is none of the run's.
    """
    settings = VideoAttackSettings(**options)
    config = RunConfig.load(folder.path)
    require_trust(config, settings.trust_code, folder.path)
    place = place_of_extractor(folder, config, extractor, settings.trust_code)
    schema = read_schema(folder, config)
    names = class_names(folder, schema, label_names)
    labels = _labels(clips, names, config.data.num_classes)
    specs = [_spec(text) for text in settings.attacks]
    parts = _parts(settings, schema.feature_names)
    loaded = load_run(folder, config, settings.checkpoint, settings.trust_code)
    evaluator = build_evaluator(loaded.classifier, config)
    extract = Extractor.load(place, picture=picture, sound=sound, features=schema.feature_names)
    chain = VideoChain(extract, evaluator, schema, parts)
    job = VideoMeasures(chain, config, settings, specs, parts, names)
    kept = KeptVideos(
        kept_in, clips, _settings_of_figures(settings, loaded, config, extract, names)
    )
    left_out = _measure_all(job, kept, clips, labels, settings.on_bad_file)
    result = {
        "model": config.model.name,
        "adversarial": config.objective.adversarial,
        "seed": config.training.seed,
        **job.result(),
        "left_out": left_out,
        "settings": {**dataclasses.asdict(settings), "norm_scope": config.objective.norm_scope},
        "provenance": {
            "measured_at": utc_now(),
            "command": command_line(),
            **weights_of(folder, settings.checkpoint, loaded),
            "model": config.model.name,
            "extractor": extract.config.description,
            "num_videos": len(clips) - len(left_out),
        },
    }
    return result, job.shown


def _settings_of_figures(
    settings: VideoAttackSettings,
    loaded: LoadedClassifier,
    config: RunConfig,
    extract: Extractor,
    names: Mapping[int, str],
) -> dict[str, Any]:
    """Returns what the figures of a video depend on."""
    flags = dataclasses.asdict(settings)
    # What is measured of the videos that can be read depends on neither.
    del flags["on_bad_file"], flags["trust_code"]
    return {
        **flags,
        "weights": loaded.digest,
        "configuration": digest_of([config.to_json().encode()]),
        "extractor": digest_of([extract.config.to_json().encode()]),
        "names": digest_of([repr(sorted(names.items())).encode()]),
        "versions": [yt8m_gat.__version__, tf.__version__, keras.__version__, np.__version__],
    }


def _measure_all(
    job: VideoMeasures,
    kept: KeptVideos,
    clips: Sequence[Clip],
    labels: np.ndarray,
    on_bad_file: str,
) -> list[dict[str, str]]:
    """Measures every video that is not kept; returns those that were left out.

    What is kept goes the same way into the figures as what has just been measured.
    """
    left_out = []
    if kept.num_kept:
        print(f"going on after {kept.num_kept} of {len(clips)} videos", file=sys.stderr)
    with progress_bar("attack", len(clips)) as bar:
        for number, (clip, name) in enumerate(zip(clips, clip_ids(clips), strict=True)):
            measured = kept.read(number)
            if measured is not None:
                bar.initial += 1  # The rate is that of the others.
            else:
                try:
                    measured = job.measure(number, clip, name, labels[number], bar)
                except VideoError as error:
                    if on_bad_file == "error":
                        raise VideoError(
                            f"{error} (--on_bad_file=skip leaves such videos out)"
                        ) from error
                    bar.write(printable(f"left out: {error}"), file=sys.stderr)
                    reason = printable(str(error))
                    left_out.append({"video_id": name, "file": clip.path, "reason": reason})
                else:
                    kept.keep(number, measured)
            if measured is not None:
                job.add(labels[number], measured)
            bar.update()
    if len(left_out) == len(clips):
        raise ConfigError(f"none of {len(clips)} videos could be read; name others")
    return left_out


def _labels(clips: Sequence[Clip], names: Mapping[int, str], num_classes: int) -> np.ndarray:
    """Returns the labels of the clips, [N, C], multi-hot."""
    if not clips:
        raise ConfigError("name videos, or give --labels. Received: none")
    numbers = label_numbers(clips, [names.get(k, str(k)) for k in range(num_classes)])
    labels = np.zeros((len(clips), num_classes), np.float32)
    for clip, row, of_clip in zip(clips, labels, numbers, strict=True):
        if not of_clip:
            raise ConfigError(
                f"{clip.path} has no label, and an attack is measured against labels: list it with "
                "one in --labels"
            )
        row[of_clip] = 1.0
    return labels


def _spec(text: str) -> AttackSpec:
    spec = AttackSpec.parse(text)
    if spec.name not in PIXEL_ATTACKS:
        raise ConfigError(
            f"--attacks on pixels must be of {', '.join(PIXEL_ATTACKS)}. Received: {text!r}"
        )
    if spec.epsilons:
        raise ConfigError(f"--attacks on pixels have one radius. Received: {text!r}")
    return dataclasses.replace(spec, bounds=PIXEL_BOUNDS)


def _parts(settings: VideoAttackSettings, features: Sequence[str]) -> list[str]:
    wanted = {PIXELS: bool(settings.attacks), SOUND: bool(settings.sound_snrs)}
    flags = {PIXELS: "attacks", SOUND: "sound_snrs"}
    for part, is_wanted in wanted.items():
        if is_wanted and FEATURE_OF[part] not in features:
            other = "--sound_snrs" if part == PIXELS else "--attacks"
            raise ConfigError(
                f"--{flags[part]} attacks the {part}, and this run takes {', '.join(features)}: "
                f"leave it out (--{flags[part]}=), and give {other}"
            )
    return [part for part, is_wanted in wanted.items() if is_wanted]
