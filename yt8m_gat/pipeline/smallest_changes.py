"""The smallest change of pixels and of sound that moves features as far as epsilon."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import Ball
from yt8m_gat.attacks.attack import Problem
from yt8m_gat.attacks.pgd import PGD
from yt8m_gat.attacks.smallest_radius import FoundRadius, smallest_radius
from yt8m_gat.pipeline.attacked_video import (
    PIXELS,
    RANGES,
    SOUND,
    AttackedVideo,
    VideoChain,
    feature_distance,
    moved_by,
    psnr,
    snr,
    sound_length,
)

# The first radius of a search: a level of each pixel, and noise at 40 dB.
_FIRST_LEVEL, _FIRST_NOISE = 1.0, 0.01
# Changes beyond these are no longer the same video: all of the range, and noise 20 dB above the
# sound.
_LAST_LEVEL, _LAST_NOISE = 255.0, 10.0


class SmallestChanges:
    """Searches, for each video, the smallest change that PGD finds to move its features by epsilon.

    Args:
        chain: From pixels or samples to features.
        parts: What is changed: `PIXELS`, `SOUND`.
        epsilons: The distances, see `feature_distance`.
        norm_scope: Of the run's ball.
        steps: Steps of PGD at each radius.
    """

    def __init__(
        self,
        chain: VideoChain,
        parts: Sequence[str],
        epsilons: Sequence[float],
        norm_scope: str,
        steps: int,
    ) -> None:
        self._chain = chain
        self._norm_scope = norm_scope
        self._steps = steps
        self._kinds = [
            (part, norm, epsilon)
            for part, epsilon in itertools.product(parts, epsilons)
            for norm in (("linf", "l2") if part == PIXELS else ("l2",))
        ]
        self._found: list[list[dict[str, Any]]] = [[] for _ in self._kinds]

    def search(self, video: AttackedVideo, seed: int) -> list[dict[str, Any]]:
        """Returns the changes of one video, a row for each part, norm and epsilon.

        A silent one has none of its sound.
        """
        rows = []
        for part, norm, epsilon in self._kinds:
            row = {"video": video.name, "radius": None}
            if part == PIXELS or sound_length(video):
                found = self._smallest(video, part, norm, epsilon, seed)
                if found is not None:
                    row |= self._figures(video, part, found)
            rows.append(row)
        return rows

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds what `search` returned for a video."""
        for found, row in zip(self._found, rows, strict=True):
            found.append(row)

    def result(self) -> list[dict[str, Any]]:
        """Returns an entry for each part, norm and epsilon.

        Each has `part`, `norm`, `feature_epsilon`, `norm_scope`, `num_unreached`, `videos`, and
        `median`, of the figures of the videos: `radius` (in levels: of each pixel under linf, of
        the l2 norm of each frame; of sound the l2 norm of all samples; None: not reached),
        `distance` of the unrounded features, `psnr` or `snr` in dB, and `stored_distance`, that of
        the features which the extractor makes of a file with the change.
        """
        return [
            {
                **{"part": part, "norm": norm, "feature_epsilon": epsilon},
                "norm_scope": self._norm_scope,
                "median": _medians(videos),
                "num_unreached": sum(video["radius"] is None for video in videos),
                "videos": videos,
            }
            for (part, norm, epsilon), videos in zip(self._kinds, self._found, strict=True)
            if videos
        ]

    def _figures(
        self, video: AttackedVideo, part: str, found: FoundRadius[tf.Tensor]
    ) -> dict[str, Any]:
        start = self._chain.start(video, part)[0].numpy()
        change = found.point[0].numpy() - start
        decibels = {"psnr": psnr(change)} if part == PIXELS else {"snr": snr(start, change)}
        judged = self._chain.judge(video, part, found.point)
        stored = moved_by(video, judged, part, self._norm_scope)
        return {
            **{"radius": found.radius, "distance": found.value},
            **decibels,
            "stored_distance": stored,
        }

    def _smallest(
        self, video: AttackedVideo, part: str, norm: str, epsilon: float, seed: int
    ) -> FoundRadius[tf.Tensor] | None:
        start = self._chain.start(video, part)
        clean = self._chain.inputs(video, part, start)

        def model(point: Mapping[str, tf.Tensor], mask: None) -> tf.Tensor:
            del mask
            return self._chain.inputs(video, part, point[part])

        def distance(labels: Any, inputs: tf.Tensor) -> tf.Tensor:
            del labels
            return feature_distance(inputs - clean, self._norm_scope)

        # Of pixels, each frame has its own ball; sound has no frames.
        ball = Ball(norm, "frame" if part == PIXELS else "example")
        problem = Problem(model, distance, {part: start}, None, video.labels, seed)

        def value_at(radius: float) -> tuple[float, tf.Tensor]:
            attack = PGD(
                ball,
                radius,
                steps=self._steps,
                random_start=True,  # At the clean point a distance has no gradient.
                clip_to_range=RANGES[part],
            )
            x = attack.perturb(problem).features[part]
            return float(distance(None, self._chain.inputs(video, part, x))[0]), x

        if part == SOUND:
            unit, first, last = sound_length(video), _FIRST_NOISE, _LAST_NOISE
        else:
            unit = 1.0 if norm == "linf" else math.sqrt(math.prod(start.shape[2:]))
            first, last = _FIRST_LEVEL, _LAST_LEVEL
        return smallest_radius(value_at, epsilon, start=first * unit, largest=last * unit)


def _medians(videos: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    names = dict.fromkeys(name for video in videos for name in video if name != "video")
    values = {
        name: [video[name] for video in videos if video.get(name) is not None] for name in names
    }
    return {name: float(np.median(found)) if found else None for name, found in values.items()}
