"""Classifies the features of video files, and finds the seconds that carried each label."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.calibration import Calibration
from yt8m_gat.data import RecordSchema, preprocess
from yt8m_gat.data.arrays import array_batches
from yt8m_gat.data.parsing import Batch
from yt8m_gat.explanation.class_activation import (
    Span,
    carrying_spans,
    class_activation,
    frame_edges,
)
from yt8m_gat.export.saved_model import calibrated
from yt8m_gat.extraction.extractor import Extracted
from yt8m_gat.prediction.submission import best_classes


@dataclasses.dataclass(frozen=True)
class VideoPrediction:
    """What a run says about one video.

    Attributes:
        video_id: Its id.
        duration: Seconds of it that were used.
        faults: What was wrong with it, a line each; what came before the damage is classified.
        edges: [T + 1], where each frame that the model saw begins, and the last one ends, in
            seconds.
        labels: [K], the likeliest classes, by descending probability.
        probabilities: [K], of those.
        activation: [K, T], their class activations; None for a model that has none.
        tags: Class -> calibrated probability of the classes that are tags, by descending
            probability; None: the run is not calibrated.
    """

    video_id: str
    duration: float
    faults: tuple[str, ...]
    edges: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    activation: np.ndarray | None
    tags: dict[int, float] | None = None

    def spans(self, place: int) -> list[Span]:
        """Returns the seconds that carried the label at a place of `labels`."""
        if self.activation is None:
            return []
        return carrying_spans(self.activation[place], self.edges)


class VideoClassification:
    """Classifies extracted videos, one at a time.

    Args:
        classifier: A frame-level `VideoClassifier`.
        schema: The schema of the run's records.
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Classes per video; None: all.
        with_activation: Whether to compute class activations.
        calibration: Gives the tags; None: there are none.
    """

    def __init__(
        self,
        classifier: Any,
        schema: RecordSchema,
        normalize: str,
        top_k: int | None,
        with_activation: bool = True,
        calibration: Calibration | None = None,
    ) -> None:
        self.schema = schema
        self.top_k = schema.num_classes if top_k is None else min(top_k, schema.num_classes)
        self._classify = _traced(
            classifier, normalize, self.top_k if with_activation else 0, calibration
        )

    def __call__(self, extracted: Extracted, name: str) -> VideoPrediction:
        """Classifies one video, whose id is `name`."""
        batch = batch_of_video(extracted, self.schema, name)
        probabilities, activation, tagged = self._classify(batch["features"], batch["num_frames"])
        classes, scores = best_classes([name], probabilities.numpy(), self.top_k)
        num_frames = int(batch["num_frames"][0])
        return VideoPrediction(
            name,
            extracted.duration,
            extracted.faults,
            frame_edges(extracted.seconds[:num_frames], extracted.duration),
            classes[0],
            scores[0],
            None if activation is None else activation[0].numpy(),
            None if tagged is None else _tags(*(values[0].numpy() for values in tagged)),
        )


def _tags(probabilities: np.ndarray, is_tag: np.ndarray) -> dict[int, float]:
    """Returns class -> calibrated probability of the tags of a video, from its [C] and [C]."""
    order = np.argsort(-probabilities, kind="stable")
    return {int(index): float(probabilities[index]) for index in order[is_tag[order]]}


def _traced(
    classifier: Any, normalize: str, num_activations: int, calibration: Calibration | None
) -> Callable[..., tuple[tf.Tensor, tf.Tensor | None, tuple[tf.Tensor, tf.Tensor] | None]]:
    """Returns a function from a batch's `features` and `num_frames` to three results, one graph.

    Those are the probabilities [B, C]; the class activations [B, K, T] of the K likeliest classes
    in their order, None for K = 0 and for a model that has none; and what `calibrated` returns,
    None without a calibration.
    """

    def likeliest(logits: tf.Tensor) -> tf.Tensor:
        return tf.math.top_k(logits, num_activations).indices

    @tf.function(reduce_retracing=True, autograph=False)
    def classify(
        features: Mapping[str, tf.Tensor], num_frames: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None, tuple[tf.Tensor, tf.Tensor] | None]:
        features, frame_mask = preprocess(features, num_frames, normalize)
        if num_activations:
            outputs, activation = class_activation(
                classifier.forward, features, frame_mask, likeliest
            )
        else:
            outputs, activation = classifier.forward(features, frame_mask), None
        tagged = None
        if calibration is not None:
            tagged = calibrated(classifier, outputs.logits, calibration)
        return classifier.probabilities(outputs.logits), activation, tagged

    return classify


def batch_of_video(extracted: Extracted, schema: RecordSchema, name: str) -> Batch:
    """Returns a batch of one video, like those of the reader."""
    features = {feature: [extracted.features[feature]] for feature in schema.feature_names}
    return next(array_batches(features, schema, 1, [name]))
