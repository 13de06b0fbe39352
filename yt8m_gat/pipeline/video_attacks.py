"""The job that attacks video files in their pixels and sound, through extractor and classifier."""

import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import OBJECTIVE_LOSSES, AttackOptions, build_attack
from yt8m_gat.attacks.attack import Attack, Problem
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data.progress import progress_bar
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.import_path import require_trust
from yt8m_gat.job_settings import VideoAttackSettings
from yt8m_gat.metrics import EvaluationMetrics
from yt8m_gat.pipeline.attacked_pictures import shown_pictures
from yt8m_gat.pipeline.attacked_video import (
    FEATURE_OF,
    PIXELS,
    RANGES,
    SOUND,
    AttackedVideo,
    Judged,
    VideoChain,
    moved_by,
    psnr,
    snr,
    sound_length,
)
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.pipeline.run_extractor import place_of_extractor
from yt8m_gat.pipeline.run_settings import class_names, read_schema
from yt8m_gat.pipeline.smallest_changes import SmallestChanges
from yt8m_gat.provenance import command_line, utc_now
from yt8m_gat.robustness.attack_spec import PIXELS as PIXEL_BOUNDS
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.video.clips import Clip, clip_ids, label_numbers
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import weights_of

PIXEL_ATTACKS = (
    *("fgm", "fgm_linf", "pgd", "pgd_linf", "pgd_margin", "apgd", "apgd_linf", "auto"),
    *("auto_linf", "square", "square_linf", "random_search", "noise", "noise_linf"),
)
"""Attacks that need a loss and at most its gradient."""

SOUND_ATTACKS = ("pgd", "noise")

TOP_LABELS = 3
"""Likeliest labels that the page shows."""


class _Row(NamedTuple):
    """An attacked row: what identifies it in the result, and its attack on a video."""

    part: str
    identity: dict[str, Any]
    build: Callable[[AttackedVideo], Attack]


@dataclasses.dataclass
class _Totals:
    """The metrics of a row, and figures of each of its videos."""

    metrics: EvaluationMetrics
    figures: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, labels: np.ndarray, judged: Judged, **figures: float | None) -> None:
        self.metrics.update(labels, judged.probabilities[np.newaxis])
        for name, value in figures.items():
            values = self.figures.setdefault(name, [])
            if value is not None:
                values.append(value)

    def result(self) -> dict[str, Any]:
        means = {
            name: float(np.mean(values)) if values else None
            for name, values in self.figures.items()
        }
        return {**self.metrics.result(), "intervals": self.metrics.intervals(), **means}


def attack_videos(
    folder: RunFolder,
    clips: Sequence[Clip],
    *,
    label_names: str | os.PathLike | None = None,
    extractor: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    sound: str | os.PathLike | None = None,
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
        **options: See `VideoAttackSettings`.

    Returns:
        The figures: `clean` (of the files), `rewritten` (of files of the same frames and sound,
        written as the attacked ones are), `attacks` (a row for each attack and radius, with the
        metrics and their `intervals`, the means `psnr` or `snr` in dB and `feature_distance`, see
        `yt8m_gat.pipeline.attacked_video`), `smallest_changes` (see `docs/ROBUSTNESS.md`),
        `settings` and `provenance`. And what the page shows, see
        `yt8m_gat.report.attacked_videos.build_attacked_page`.

    Raises:
        ConfigError: The run has no extractor, a model of the extractor has no gradient, a video has
            no label, or an option is wrong.
        VideoError: A video cannot be read.
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
    extract = Extractor.load(place, picture=picture, sound=sound)
    chain = VideoChain(extract, evaluator, schema, parts)
    job = _Job(chain, config, settings, specs, parts, names)
    with progress_bar("attack", len(clips)) as bar:
        for number, (clip, name) in enumerate(zip(clips, clip_ids(clips), strict=True)):
            video = chain.open(clip, name, labels[number])
            for fault in video.faults:
                bar.write(printable(f"warning: {clip.path}: {fault}"), file=sys.stderr)
            job.add(number, video)
            bar.update()
    result = {
        **job.result(),
        "settings": {**dataclasses.asdict(settings), "norm_scope": config.objective.norm_scope},
        "provenance": {
            "measured_at": utc_now(),
            "command": command_line(),
            **weights_of(folder, settings.checkpoint, loaded),
            "model": config.model.name,
            "extractor": extract.config.description,
            "num_videos": len(clips),
        },
    }
    return result, job.shown


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


class _Job:
    """What is measured, video by video.

    Attributes:
        shown: The videos of the page so far.
    """

    def __init__(
        self,
        chain: VideoChain,
        config: RunConfig,
        settings: VideoAttackSettings,
        specs: Sequence[AttackSpec],
        parts: Sequence[str],
        names: Mapping[int, str],
    ) -> None:
        self.chain = chain
        self.settings = settings
        self.names = names
        self.parts = parts
        self.norm_scope = config.objective.norm_scope
        epsilons = settings.feature_epsilons
        epsilons = (config.objective.epsilon,) if epsilons is None else epsilons
        self.changes = SmallestChanges(
            chain, parts, epsilons, self.norm_scope, settings.attack_steps
        )
        self.rows = [*self._pixel_rows(specs), *self._sound_rows()]
        num_classes = config.data.num_classes
        self.totals = [_Totals(EvaluationMetrics(num_classes)) for _ in range(2 + len(self.rows))]
        self.shown: list[dict[str, Any]] = []

    def _pixel_rows(self, specs: Sequence[AttackSpec]) -> Iterator[_Row]:
        shared = AttackOptions(
            steps=self.settings.attack_steps, clip_to_range=PIXEL_BOUNDS.clip_to_range
        )
        for spec in specs:
            for epsilon in spec.radii(self.settings.epsilons):
                attack = spec.build(epsilon, shared)
                identity = {"part": PIXELS, "attack": spec.text, "epsilon": epsilon}
                yield _Row(PIXELS, identity, lambda _, attack=attack: attack)

    def _sound_rows(self) -> Iterator[_Row]:
        options = AttackOptions(
            steps=self.settings.attack_steps, norm_scope="example", clip_to_range=RANGES[SOUND]
        )
        for name, ratio in itertools.product(SOUND_ATTACKS, self.settings.sound_snrs):

            def build(video: AttackedVideo, name: str = name, ratio: float = ratio) -> Attack:
                radius = sound_length(video) * 10 ** (-ratio / 20)
                return build_attack(name, radius, options)

            yield _Row(SOUND, {"part": SOUND, "attack": name, "target_snr": ratio}, build)

    def add(self, number: int, video: AttackedVideo) -> None:
        """Measures one video."""
        is_shown = number < self.settings.num_clips
        sides: list[dict[str, Any]] = []
        labels = video.labels.numpy()
        rewritten = self.chain.judge(video)
        moved = {
            f"{FEATURE_OF[part]}_distance": moved_by(video, rewritten, part, self.norm_scope)
            for part in self.parts
        }
        self.totals[0].add(labels, video.clean)
        self.totals[1].add(labels, rewritten, **moved)
        for row, totals in zip(self.rows, self.totals[2:], strict=True):
            judged, x = self._attacked(video, row, number)
            figures = {} if x is None else self._size_of(video, row.part, x)
            distance = moved_by(video, judged, row.part, self.norm_scope)
            totals.add(labels, judged, **figures, feature_distance=distance)
            if is_shown:
                side = {**row.identity, **figures, "top": self._top(judged)}
                if row.part == PIXELS and x is not None:
                    side |= shown_pictures(
                        video.pictures, self.chain.stored_pictures(video, x), self.chain.cropped
                    )
                sides.append(side)
        if number < (self.settings.distance_videos or math.inf):
            self.changes.add(video, number)
        if is_shown:
            self.shown.append(
                {
                    "video": video.name,
                    "labels": [self._name(k) for k in np.flatnonzero(labels[0])],
                    "top": self._top(video.clean),
                    "sides": sides,
                }
            )

    def _attacked(
        self, video: AttackedVideo, row: _Row, seed: int
    ) -> tuple[Judged, tf.Tensor | None]:
        """Returns what the run says of the attacked video, and the attacked part."""
        if row.part == SOUND and not sound_length(video):
            return video.clean, None  # There is nothing to add noise to.
        start, attack = self.chain.start(video, row.part), row.build(video)
        raised = OBJECTIVE_LOSSES.get(attack.objective, self.chain.evaluator.loss)

        def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            return raised(labels, logits, None)

        def model(point: Mapping[str, tf.Tensor], mask: None) -> tf.Tensor:
            del mask
            return self.chain.logits(video, row.part, point[row.part])

        problem = Problem(model, loss, {row.part: start}, None, video.labels, seed)
        x = attack.perturb(problem).features[row.part]
        return self.chain.judge(video, row.part, x), x

    def _size_of(self, video: AttackedVideo, part: str, x: tf.Tensor) -> dict[str, float | None]:
        """Returns how large a change is, as it is stored."""
        start, stored = self.chain.start(video, part)[0].numpy(), x[0].numpy()
        if part == SOUND:
            return {"snr": snr(start, stored - start)}
        change = np.rint(np.clip(stored, 0, 255)) - start
        return {"linf": float(np.abs(change).max()), "psnr": psnr(change)}

    def _top(self, judged: Judged) -> list[list[Any]]:
        order = np.argsort(-judged.probabilities, kind="stable")[:TOP_LABELS]
        return [[self._name(k), float(judged.probabilities[k])] for k in order]

    def _name(self, number: int) -> str:
        return self.names.get(int(number), str(number))

    def result(self) -> dict[str, Any]:
        """Returns the figures of all videos."""
        clean, rewritten, *attacked = (totals.result() for totals in self.totals)
        return {
            "clean": clean,
            "rewritten": rewritten,
            "attacks": [
                {**row.identity, **result} for row, result in zip(self.rows, attacked, strict=True)
            ],
            "smallest_changes": self.changes.result(),
        }
