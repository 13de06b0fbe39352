"""What attacks on pixels and sound do to each video, and the figures of all."""

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from yt8m_gat.attacks import OBJECTIVE_LOSSES, AttackOptions, build_attack
from yt8m_gat.attacks.attack import Attack, Problem
from yt8m_gat.config import RunConfig
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
from yt8m_gat.pipeline.smallest_changes import SmallestChanges
from yt8m_gat.robustness.attack_spec import PIXELS as PIXEL_BOUNDS
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.untrusted import printable
from yt8m_gat.video.clips import Clip

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

    def add(self, labels: np.ndarray, of_video: Mapping[str, Any]) -> None:
        """Adds what `_of_video` returned; labels [C]."""
        probabilities = np.array(of_video["probabilities"], np.float32)
        self.metrics.update(labels[np.newaxis], probabilities[np.newaxis])
        for name, value in of_video["figures"].items():
            values = self.figures.setdefault(name, [])
            if value is not None:
                values.append(value)

    def result(self) -> dict[str, Any]:
        means = {
            name: float(np.mean(values)) if values else None
            for name, values in self.figures.items()
        }
        return {**self.metrics.result(), "intervals": self.metrics.intervals(), **means}


def _of_video(judged: Judged, **figures: float | None) -> dict[str, Any]:
    """Returns a row's part of one video, as plain values."""
    return {"probabilities": judged.probabilities.tolist(), "figures": figures}


class VideoMeasures:
    """What is measured of each video, and the figures of all.

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

    def measure(
        self, number: int, clip: Clip, name: str, labels: np.ndarray, bar: tqdm
    ) -> dict[str, Any]:
        """Returns what is measured of one video, as plain values.

        They are `rows` (of `clean`, `rewritten` and each attack, see `_of_video`), `changes` (see
        `SmallestChanges.search`; None for a video in which none is searched) and `shown` (what the
        page shows of it; None: it does not).

        Raises:
            VideoError: It cannot be read.
        """
        video = self.chain.open(clip, name, labels)
        for fault in video.faults:
            bar.write(printable(f"warning: {clip.path}: {fault}"), file=sys.stderr)
        rewritten = self.chain.judge(video)
        moved = {
            f"{FEATURE_OF[part]}_distance": moved_by(video, rewritten, part, self.norm_scope)
            for part in self.parts
        }
        rows = [_of_video(video.clean), _of_video(rewritten, **moved)]
        is_shown = number < self.settings.num_clips
        sides: list[dict[str, Any]] = []
        for row in self.rows:
            judged, x = self._attacked(video, row, number)
            figures = {} if x is None else self._size_of(video, row.part, x)
            distance = moved_by(video, judged, row.part, self.norm_scope)
            rows.append(_of_video(judged, **figures, feature_distance=distance))
            if is_shown:
                sides.append(self._side(video, row, judged, x, figures))
        is_searched = number < (self.settings.distance_videos or math.inf)
        shown = {
            "video": video.name,
            "labels": [self._name(k) for k in np.flatnonzero(labels)],
            "top": self._top(video.clean),
            "sides": sides,
        }
        return {
            "rows": rows,
            "changes": self.changes.search(video, number) if is_searched else None,
            "shown": shown if is_shown else None,
        }

    def add(self, labels: np.ndarray, measured: Mapping[str, Any]) -> None:
        """Adds what `measure` returned for a video with labels [C]."""
        for totals, of_video in zip(self.totals, measured["rows"], strict=True):
            totals.add(labels, of_video)
        if measured["changes"] is not None:
            self.changes.add(measured["changes"])
        if measured["shown"] is not None:
            self.shown.append(measured["shown"])

    def _side(
        self,
        video: AttackedVideo,
        row: _Row,
        judged: Judged,
        x: tf.Tensor | None,
        figures: Mapping[str, float | None],
    ) -> dict[str, Any]:
        """Returns what the page shows of an attacked video."""
        side = {**row.identity, **figures, "top": self._top(judged)}
        if row.part == PIXELS and x is not None:
            attacked = self.chain.stored_pictures(video, x)
            side |= shown_pictures(video.pictures, attacked, self.chain.cropped)
        return side

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
