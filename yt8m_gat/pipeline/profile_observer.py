"""An observer that collects attention profiles during an evaluation."""

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.explanation.attention_statistics import AttentionProfiles
from yt8m_gat.losses import average_over_heads
from yt8m_gat.pipeline.run_evaluator import Maps


class ProfileObserver:
    """Adds the attention maps of each batch to the profiles of the set."""

    def __init__(self, evaluator: Evaluator, statistics: AttentionProfiles) -> None:
        self.statistics = statistics
        self._maps = tf.function(
            functools.partial(_head_means, evaluator), reduce_retracing=True, autograph=False
        )

    def observe(self, batch: Mapping[str, Any], features: Any, frame_mask: Any) -> None:
        """Adds the maps of a batch; see `Observer`."""
        del batch
        self.statistics.update(self._maps(features, frame_mask), frame_mask)


def _head_means(evaluator: Evaluator, features: Any, frame_mask: Any) -> Maps:
    """Returns maps [B, 1, T, K]: the heads are averaged on the device, so less is copied."""
    maps = evaluator.forward_with_maps(features, frame_mask).attention_maps
    return {
        feature: {level: average_over_heads(a)[:, None] for level, a in levels.items()}
        for feature, levels in maps.items()
    }
