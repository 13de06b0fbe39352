"""Predictions for every video of a dataset, in input order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.data.preprocessing import preprocess
from yt8m_gat.evaluation.evaluator import progress_bar


def predict(
    classifier: Callable[..., Any],
    batches: Iterable[dict[str, Any]],
    normalize: str = "none",
    total: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields `(video_ids [B] bytes, probabilities [B, C] float32)`, a batch at a time.

    Args:
        classifier: A `VideoClassifier`.
        batches: Batch dicts of `yt8m_gat.data`.
        normalize: l2 normalization after dequantizing, as in training.
        total: Number of videos, for the time left.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def classify(features: dict[str, tf.Tensor], num_frames: tf.Tensor | None) -> tf.Tensor:
        features, frame_mask = preprocess(features, num_frames, normalize)
        inputs = features if frame_mask is None else {**features, "frame_mask": frame_mask}
        return tf.sigmoid(classifier(inputs, training=False))

    with progress_bar("predict", total) as bar:
        for batch in batches:
            probabilities = classify(batch["features"], batch.get("num_frames")).numpy()
            yield batch["video_id"].numpy(), probabilities
            bar.update(len(probabilities))
