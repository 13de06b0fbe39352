"""Predictions for every video or segment of a dataset, in input order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.data.preprocessing import preprocess
from yt8m_gat.data.progress import advance, progress_bar


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
        total: Number of videos, for the progress bar.
    """
    for batch, probabilities in predictions(
        probability_function(classifier, normalize), batches, total
    ):
        yield batch["video_id"].numpy(), probabilities


def predict_segments(
    classifier: Callable[..., Any],
    batches: Iterable[dict[str, Any]],
    normalize: str = "none",
    total: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Predicts segments, each separately: the model gets its 5 frames and no others.

    Args:
        classifier: A frame-level `VideoClassifier`, trained on segments or on whole videos.
        batches: Batch dicts of `yt8m_gat.data` made with `segments`.
        normalize: l2 normalization after dequantizing, as in training.
        total: Number of videos, for the progress bar.

    Yields:
        `(video_ids [S] bytes, start_times [S] int32, probabilities [S, C] float32)`, a batch at a
        time.
    """
    for batch, probabilities in predictions(
        probability_function(classifier, normalize), batches, total
    ):
        yield batch["video_id"].numpy(), batch["segment_start_time"].numpy(), probabilities


def probability_function(
    classifier: Any, normalize: str = "none"
) -> Callable[[dict[str, tf.Tensor], tf.Tensor | None], tf.Tensor]:
    """Returns a function from a batch's `features` and `num_frames` to probabilities [B, C].

    It is one graph.

    Args:
        classifier: A `VideoClassifier`.
        normalize: l2 normalization after dequantizing, as in training.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def classify(features: dict[str, tf.Tensor], num_frames: tf.Tensor | None) -> tf.Tensor:
        features, frame_mask = preprocess(features, num_frames, normalize)
        inputs = features if frame_mask is None else {**features, "frame_mask": frame_mask}
        return classifier.probabilities(classifier(inputs, training=False))

    return classify


def embedding_function(
    classifier: Any, normalize: str = "none"
) -> Callable[[dict[str, tf.Tensor], tf.Tensor | None], tf.Tensor]:
    """Returns a function like that of `probability_function`, to float32 embeddings [B, E].

    Args:
        classifier: A `VideoClassifier` that has an `embedding_size`.
        normalize: l2 normalization after dequantizing, as in training.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def embed(features: dict[str, tf.Tensor], num_frames: tf.Tensor | None) -> tf.Tensor:
        features, frame_mask = preprocess(features, num_frames, normalize)
        outputs = classifier.forward(features, frame_mask, training=False)
        return tf.cast(outputs.embedding, tf.float32)

    return embed


def predictions(
    classify: Callable[..., tf.Tensor], batches: Iterable[dict[str, Any]], total: int | None
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yields each batch and its probabilities [B, C], or embeddings, and shows the progress.

    Args:
        classify: From `probability_function` or `embedding_function`.
        batches: Batch dicts of `yt8m_gat.data`.
        total: Number of videos, for the progress bar.
    """
    last_id = b""
    with progress_bar("predict", total) as bar:
        for batch in batches:
            yield batch, classify(batch["features"], batch.get("num_frames")).numpy()
            last_id = advance(bar, batch, last_id)
