"""Attacks on those clips only that no earlier attack has broken."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import Attack
from yt8m_gat.attacks.draws import part_of_batch
from yt8m_gat.data.progress import advance, progress_bar
from yt8m_gat.evaluation.evaluator import Evaluator, inputs_of
from yt8m_gat.evaluation.traced import traced
from yt8m_gat.metrics import EvaluationMetrics


def survivors_of(
    evaluator: Evaluator,
    batches: Iterable[Mapping[str, Any]],
    attack: Attack,
    standing: np.ndarray,
    description: str = "evaluate",
) -> np.ndarray:
    """Attacks the clips that stand, and returns which of them still have a label as top class.

    A clip meets the same points as in `Evaluator.measure` of the whole batches, up to the rounding
    of products over fewer clips: its draws do not depend on the others (`yt8m_gat.attacks.draws`).
    Batches without a standing clip cost nothing.

    Args:
        evaluator: The evaluator of the classifier.
        batches: The batches, see `Evaluator.measure`; of the same size as there.
        attack: The attack. It must treat each clip by itself.
        standing: Bool [N], the clips to attack, in the order of the batches.
        description: Shown beside the progress bar.

    Returns:
        Bool [N], never True where `standing` is not.
    """
    surviving = np.zeros_like(standing)
    run: Callable[..., tf.Tensor] | None = None
    begin, last_id = 0, b""
    with progress_bar(description, int(standing.sum())) as bar:
        for batch in batches:
            inputs = inputs_of(batch)
            size = int(tf.shape(inputs["labels"])[0])
            rows = np.flatnonzero(standing[begin : begin + size])
            if len(rows):
                places = tf.constant(rows)
                run = run or _traced(evaluator, attack, inputs, places)
                probabilities = run(inputs, places, tf.constant(begin))
                surviving[begin + rows] = _hits(evaluator, inputs, rows, probabilities)
                attacked = {**batch, "video_id": tf.gather(batch["video_id"], places)}
                last_id = advance(bar, attacked, last_id)
            begin += size
    return surviving


def _traced(
    evaluator: Evaluator, attack: Attack, inputs: dict[str, Any], places: tf.Tensor
) -> Callable[..., tf.Tensor]:
    """Returns `(inputs, places [n], seed) -> probabilities [n, C]`, one graph for any sizes."""

    def attacked(inputs: dict[str, Any], places: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        size = tf.shape(inputs["labels"])[0]
        part = tf.nest.map_structure(lambda value: tf.gather(value, places), inputs)
        with part_of_batch(places, size):
            result = evaluator.attacked(attack, part, seed)
        return evaluator.classifier.probabilities(result.logits)

    return traced(attacked, inputs, places, tf.constant(0))


def _hits(
    evaluator: Evaluator, inputs: Mapping[str, Any], rows: np.ndarray, probabilities: tf.Tensor
) -> np.ndarray:
    metrics = EvaluationMetrics(
        evaluator.num_classes, evaluator.top_k, all_scores=False, single_label_metrics=False
    )
    weights = inputs.get("label_weights")
    metrics.update(
        inputs["labels"].numpy()[rows],
        probabilities.numpy(),
        None if weights is None else weights.numpy()[rows],
    )
    return metrics.hits_at_1
