"""Exact metrics of a classifier over a whole dataset, clean and attacked."""

import collections
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from yt8m_gat.attacks import Attack
from yt8m_gat.data.preprocessing import preprocess
from yt8m_gat.metrics import EvaluationMetrics, SegmentMeanAveragePrecision

Classifier = Callable[..., Any]
Loss = Callable[..., Any]
# (attention maps as in `ModelOutputs`, frame_mask) -> {name: [B]}.
AttentionFigures = Callable[[dict[str, dict[str, Any]], Any], dict[str, tf.Tensor]]


class Evaluator:
    """Runs one classifier over datasets, batch by batch.

    Attacks are made against the very classifier under test (white box) on the features that it
    sees, with the true labels. Memory grows with the metrics' own pairs alone.

    Of batches with `label_weights` (rated segments) the rated pairs alone count, in the loss, in
    what an attack ascends and in every metric; see `EvaluationMetrics.update`.

    Args:
        classifier: A `VideoClassifier`; used as `classifier({**features, "frame_mask": mask})`.
        loss: `(labels, logits, label_weights) -> [B]`; the weights are None for whole videos.
        num_classes: C.
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Predictions per video that GAP and MAP count.
        all_scores: Whether to keep every score for `map_all_scores`, 4 bytes times videos times
            classes; without, that metric is None. Of rated segments, for `segment_map`.
        attention_figures: Figures of the clean attention maps, averaged over the videos.
    """

    def __init__(
        self,
        classifier: Classifier,
        loss: Loss,
        num_classes: int,
        normalize: str = "none",
        top_k: int = 20,
        all_scores: bool = True,
        attention_figures: AttentionFigures | None = None,
    ) -> None:
        self.classifier = classifier
        self.loss = loss
        self.num_classes = num_classes
        self.normalize = normalize
        self.top_k = top_k
        self.all_scores = all_scores
        self.attention_figures = attention_figures
        self._classify = tf.function(
            self._losses_and_probabilities, reduce_retracing=True, autograph=False
        )

    def logits(self, features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None) -> tf.Tensor:
        """Logits [B, C] in inference mode; what attacks differentiate."""
        inputs = dict(features) if frame_mask is None else {**features, "frame_mask": frame_mask}
        return self.classifier(inputs, training=False)

    def forward(
        self, features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits [B, C] and frames [B, T, D], for attacks that need class activation maps."""
        outputs = self.classifier.forward(features, frame_mask, training=False)
        return outputs.logits, outputs.frames

    def evaluate(
        self,
        batches: Iterable[dict[str, Any]],
        attack: Attack | None = None,
        total: int | None = None,
        description: str = "evaluate",
    ) -> dict[str, float]:
        """Metrics over `batches` (batch dicts of `yt8m_gat.data`).

        Args:
            batches: What to evaluate on; gone through once.
            attack: Perturbs each batch before it is classified; None evaluates clean.
            total: Number of videos, for the time left.
            description: Shown beside the progress.

        Returns:
            `gap`, `map`, `map_all_scores`, `perr`, `hit_at_1`, `loss` (mean over videos) and
            `num_videos`; clean, also the attention figures; attacked, also `norm`, the mean over
            videos of the norm really used. Of rated segments, with means over segments:
            `segment_map` (None without `all_scores`) in place of `map_all_scores`, which it
            equals up to 100,000 segments, and `num_segments` in place of `num_videos`.

        Raises:
            ValueError: There was nothing to evaluate.
        """
        metrics: EvaluationMetrics | None = None
        segment_map: SegmentMeanAveragePrecision | None = None
        perturb = tf.function(
            lambda features, frame_mask, labels, label_weights, seed: attack.attack(
                self.forward if attack.needs_frames else self.logits,
                lambda labels, logits: self.loss(labels, logits, label_weights),
                features,
                frame_mask,
                labels,
                seed,
            ),
            reduce_retracing=True,
            autograph=False,
        )
        sums: collections.Counter[str] = collections.Counter()
        examples = 0
        last_id = b""
        with progress_bar(description, total) as bar:
            for batch in batches:
                labels, label_weights = batch["labels"], batch.get("label_weights")
                rated = label_weights is not None
                if metrics is None:
                    metrics = EvaluationMetrics(
                        self.num_classes, self.top_k, all_scores=self.all_scores and not rated
                    )
                    if rated and self.all_scores:
                        segment_map = SegmentMeanAveragePrecision(self.num_classes)
                features, frame_mask = preprocess(
                    batch["features"], batch.get("num_frames"), self.normalize
                )
                if attack is None:
                    losses, probabilities, others = self._classify(
                        features, frame_mask, labels, label_weights
                    )
                else:
                    # A seed of its own for each batch, the same in every run.
                    seed = tf.constant(examples)
                    result = perturb(features, frame_mask, labels, label_weights, seed)
                    losses, probabilities = result.loss, tf.sigmoid(result.logits)
                    others = {"norm": result.norm}
                weights = label_weights.numpy() if rated else None
                metrics.update(labels.numpy(), probabilities.numpy(), weights)
                if segment_map is not None:
                    segment_map.update(labels.numpy(), weights, probabilities.numpy())
                for name, values in {"loss": losses, **others}.items():
                    sums[name] += float(tf.reduce_sum(values))
                examples += int(labels.shape[0])
                last_id = advance(bar, batch, last_id)
        if metrics is None:
            raise ValueError(
                "there is nothing to evaluate: the files hold no records, or no rated segments"
            )
        figures = {name: value / examples for name, value in sums.items()}
        if not rated:
            return {"map_all_scores": None, **metrics.result(), **figures}
        figures = {**metrics.result(), "segment_map": None, **figures, "num_segments": examples}
        del figures["num_videos"]
        return figures if segment_map is None else {**figures, **segment_map.result()}

    def _losses_and_probabilities(
        self,
        features: dict[str, tf.Tensor],
        frame_mask: tf.Tensor | None,
        labels: tf.Tensor,
        label_weights: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        if self.attention_figures is None:
            logits, others = self.logits(features, frame_mask), {}
        else:
            outputs = self.classifier.forward(features, frame_mask, training=False)
            logits = outputs.logits
            others = self.attention_figures(outputs.attention_maps, frame_mask)
        return self.loss(labels, logits, label_weights), tf.sigmoid(logits), others


def progress_bar(description: str, total: int | None) -> tqdm:
    """Progress in videos, with rate and time left; quiet where nobody looks."""
    return tqdm(
        total=total,
        desc=description,
        unit="video",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )


def advance(bar: tqdm, batch: Mapping[str, Any], last_id: bytes) -> bytes:
    """Moves the progress on by the videos of a batch; of segments, by those that begin in it.

    Args:
        bar: The progress.
        batch: A batch of `yt8m_gat.data`.
        last_id: What the call for the batch before returned; empty for the first.

    Returns:
        The last id of the batch.
    """
    ids = batch["video_id"].numpy()
    if "segment_start_time" in batch:
        before = [last_id, *ids[:-1]]
        bar.update(sum(video_id != other for video_id, other in zip(ids, before, strict=True)))
    else:
        bar.update(len(ids))
    return ids[-1]
