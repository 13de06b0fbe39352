"""The surrogate of a run under evaluation: a student of its answers on the evaluated clips."""

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks import Ball
from yt8m_gat.evaluation.evaluator import inputs_of
from yt8m_gat.pipeline.attack_plan import first_radius, shared_options
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.robustness.surrogate import Clips, Surrogate

# Up to this number of clips, they are kept in memory (0.35 MB each, as bytes) instead of being read
# again each time that the student has seen them all.
MAX_KEPT_CLIPS = 500


def build_surrogate(run: EvaluatedRun) -> Surrogate | None:
    """Returns the student, not trained yet; None for a run of raw clips or whole videos."""
    if not run.config.data.frame_features or run.config.data.clips is not None:
        return None
    evaluator, shared = run.evaluator, shared_options(run.options, run.config)
    kept: list[dict[str, Any]] = []

    def batches() -> Iterator[Clips]:
        if run.num_videos <= MAX_KEPT_CLIPS and not kept:
            kept.extend(run.batches())
        for batch in kept or run.batches():
            features, frame_mask, labels, _ = evaluator.prepared(inputs_of(batch))
            yield Clips(features, frame_mask, labels)

    def answers(features: Mapping[str, tf.Tensor], frame_mask: tf.Tensor) -> tf.Tensor:
        return evaluator.classifier.probabilities(evaluator.forward(features, frame_mask).logits)

    return Surrogate(
        answers,
        batches,
        Ball("l2", shared.norm_scope),
        first_radius(run.options, run.config),
        run.options.surrogate_steps,
    )
