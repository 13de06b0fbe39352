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

from yt8m_gat.attacks import AttackOptions, Ball, build_attack
from yt8m_gat.attacks.attack import Attack, Problem
from yt8m_gat.attacks.pgd import PGD
from yt8m_gat.attacks.smallest_radius import FoundRadius, smallest_radius
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
    feature_distance,
    psnr,
    snr,
)
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.pipeline.run_extractor import place_of_extractor
from yt8m_gat.pipeline.run_settings import class_names, read_schema
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

# The first radius of a search: a level of each pixel, and noise at 40 dB.
_FIRST_LEVEL, _FIRST_NOISE = 1.0, 0.01
# Changes beyond these are no longer the same video: all of the range, and noise as loud as 20 dB
# above the sound.
_LAST_LEVEL, _LAST_NOISE = 255.0, 10.0


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
        self.feature_epsilons = (config.objective.epsilon,) if epsilons is None else epsilons
        self.rows = [*self._pixel_rows(specs), *self._sound_rows()]
        num_classes = config.data.num_classes
        self.totals = [_Totals(EvaluationMetrics(num_classes)) for _ in range(2 + len(self.rows))]
        self.changes: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
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
                radius = _length(video) * 10 ** (-ratio / 20)
                return build_attack(name, radius, options)

            yield _Row(SOUND, {"part": SOUND, "attack": name, "target_snr": ratio}, build)

    def add(self, number: int, video: AttackedVideo) -> None:
        """Measures one video."""
        is_shown = number < self.settings.num_clips
        sides: list[dict[str, Any]] = []
        labels = video.labels.numpy()
        rewritten = self.chain.judge(video)
        moved = {
            f"{FEATURE_OF[part]}_distance": self._moved(video, rewritten, part)
            for part in self.parts
        }
        self.totals[0].add(labels, video.clean)
        self.totals[1].add(labels, rewritten, **moved)
        for row, totals in zip(self.rows, self.totals[2:], strict=True):
            judged, x = self._attacked(video, row, number)
            figures = {} if x is None else self._size_of(video, row.part, x)
            distance = self._moved(video, judged, row.part)
            totals.add(labels, judged, **figures, feature_distance=distance)
            if is_shown:
                side = {**row.identity, **figures, "top": self._top(judged)}
                if row.part == PIXELS and x is not None:
                    side |= shown_pictures(
                        video.pictures, self.chain.stored(video, PIXELS, x), self.chain.cropped
                    )
                sides.append(side)
        if number < (self.settings.distance_videos or math.inf):
            self._add_smallest_changes(video, number)
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
        if row.part == SOUND and not _length(video):
            return video.clean, None  # There is nothing to add noise to.
        start = self.chain.start(video, row.part)

        def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            return self.chain.evaluator.loss(labels, logits, None)

        def model(point: Mapping[str, tf.Tensor], mask: None) -> tf.Tensor:
            del mask
            return self.chain.logits(video, row.part, point[row.part])

        problem = Problem(model, loss, {row.part: start}, None, video.labels, seed)
        x = row.build(video).perturb(problem).features[row.part]
        return self.chain.judge(video, row.part, x), x

    def _size_of(self, video: AttackedVideo, part: str, x: tf.Tensor) -> dict[str, float | None]:
        """Returns how large a change is, as it is stored."""
        start, stored = self.chain.start(video, part)[0].numpy(), x[0].numpy()
        if part == SOUND:
            return {"snr": snr(start, stored - start)}
        change = np.rint(np.clip(stored, 0, 255)) - start
        return {"linf": float(np.abs(change).max()), "psnr": psnr(change)}

    def _moved(self, video: AttackedVideo, judged: Judged, part: str) -> float:
        """Returns how far the features of a file are from those of the clean one."""
        name = FEATURE_OF[part]
        change = judged.inputs[name] - video.clean.inputs[name]
        return float(feature_distance(change, self.norm_scope)[0])

    def _add_smallest_changes(self, video: AttackedVideo, seed: int) -> None:
        for part, epsilon in itertools.product(self.parts, self.feature_epsilons):
            for norm in ("linf", "l2") if part == PIXELS else ("l2",):
                found = None
                if part == PIXELS or _length(video):
                    found = self._smallest_change(video, part, norm, epsilon, seed)
                of_video: dict[str, Any] = {"video": video.name, "radius": None}
                if found is not None:
                    x = found.point
                    change = (x - self.chain.start(video, part))[0].numpy()
                    of_video |= {"radius": found.radius, "distance": found.value}
                    if part == PIXELS:
                        of_video["psnr"] = psnr(change)
                    else:
                        of_video["snr"] = snr(video.waveform, change)
                    judged = self.chain.judge(video, part, x)
                    of_video["stored_distance"] = self._moved(video, judged, part)
                self.changes.setdefault((part, norm, epsilon), []).append(of_video)

    def _smallest_change(
        self, video: AttackedVideo, part: str, norm: str, epsilon: float, seed: int
    ) -> FoundRadius[tf.Tensor] | None:
        """Returns the smallest change that PGD finds to move the features as far as epsilon."""
        start = self.chain.start(video, part)
        clean = self.chain.inputs(video, part, start)

        def model(point: Mapping[str, tf.Tensor], mask: None) -> tf.Tensor:
            del mask
            return self.chain.inputs(video, part, point[part])

        def distance(labels: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
            del labels
            return feature_distance(inputs - clean, self.norm_scope)

        # Of pixels, each frame has its own ball; sound has no frames.
        ball = Ball(norm, "frame" if part == PIXELS else "example")
        problem = Problem(model, distance, {part: start}, None, video.labels, seed)

        def value_at(radius: float) -> tuple[float, tf.Tensor]:
            # At the clean point a distance has no gradient.
            attack = PGD(
                ball,
                radius,
                steps=self.settings.attack_steps,
                random_start=True,
                clip_to_range=RANGES[part],
            )
            x = attack.perturb(problem).features[part]
            return float(distance(None, self.chain.inputs(video, part, x))[0]), x

        if part == SOUND:
            unit, first, last = _length(video), _FIRST_NOISE, _LAST_NOISE
        else:
            unit, first, last = 1.0, _FIRST_LEVEL, _LAST_LEVEL
            if norm == "l2":
                unit = math.sqrt(math.prod(start.shape[2:]))
        return smallest_radius(value_at, epsilon, start=first * unit, largest=last * unit)

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
            "smallest_changes": [
                {
                    **{"part": part, "norm": norm, "feature_epsilon": epsilon},
                    "norm_scope": self.norm_scope,
                    "median": _medians(videos),
                    "num_unreached": sum(video["radius"] is None for video in videos),
                    "videos": videos,
                }
                for (part, norm, epsilon), videos in self.changes.items()
            ],
        }


def _length(video: AttackedVideo) -> float:
    """Returns the l2 norm of the sound; 0 for silence."""
    return 0.0 if video.waveform is None else float(np.linalg.norm(video.waveform))


def _medians(videos: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    names = dict.fromkeys(name for video in videos for name in video if name != "video")
    values = {
        name: [video[name] for video in videos if video.get(name) is not None] for name in names
    }
    return {name: float(np.median(found)) if found else None for name, found in values.items()}
