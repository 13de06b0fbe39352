"""Exact metrics of a classifier over a whole dataset, clean and attacked."""

import collections
import sys
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from yt8m_gat.attacks import Attack
from yt8m_gat.data.preprocessing import preprocess
from yt8m_gat.metrics import EvaluationMetrics

Classifier = Callable[..., Any]
Loss = Callable[..., Any]
# (attention maps as in `ModelOutputs`, frame_mask) -> {name: [B]}.
AttentionFigures = Callable[[dict[str, dict[str, Any]], Any], dict[str, tf.Tensor]]


class Evaluator:
    """Runs one classifier over datasets, batch by batch.

    Attacks are made against the very classifier under test (white box) on the features that it
    sees, with the true labels. Memory grows with the metrics' own pairs alone.

    Args:
        classifier: A `VideoClassifier`; used as `classifier({**features, "frame_mask": mask})`.
        loss: `(labels, logits) -> [B]`.
        num_classes: C.
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Predictions per video that GAP and MAP count.
        all_scores: Whether to keep every score for `map_all_scores`, 4 bytes times videos times
            classes; without, that metric is None.
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
            videos of the norm really used.

        Raises:
            ValueError: There was nothing to evaluate.
        """
        metrics = EvaluationMetrics(self.num_classes, top_k=self.top_k, all_scores=self.all_scores)
        perturb = tf.function(
            lambda features, frame_mask, labels, seed: attack.attack(
                self.forward if attack.needs_frames else self.logits,
                self.loss,
                features,
                frame_mask,
                labels,
                seed,
            ),
            reduce_retracing=True,
            autograph=False,
        )
        sums: collections.Counter[str] = collections.Counter()
        videos = 0
        with progress_bar(description, total) as bar:
            for batch in batches:
                labels = batch["labels"]
                features, frame_mask = preprocess(
                    batch["features"], batch.get("num_frames"), self.normalize
                )
                if attack is None:
                    losses, probabilities, others = self._classify(features, frame_mask, labels)
                else:
                    # A seed of its own for each batch, the same in every run.
                    result = perturb(features, frame_mask, labels, tf.constant(videos))
                    losses, probabilities = result.loss, tf.sigmoid(result.logits)
                    others = {"norm": result.norm}
                metrics.update(labels.numpy(), probabilities.numpy())
                for name, values in {"loss": losses, **others}.items():
                    sums[name] += float(tf.reduce_sum(values))
                videos += int(labels.shape[0])
                bar.update(int(labels.shape[0]))
        if not videos:
            raise ValueError("there is no record to evaluate: the files hold none")
        means = {name: value / videos for name, value in sums.items()}
        return {"map_all_scores": None, **metrics.result(), **means, "num_videos": videos}

    def _losses_and_probabilities(
        self,
        features: dict[str, tf.Tensor],
        frame_mask: tf.Tensor | None,
        labels: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        if self.attention_figures is None:
            logits, others = self.logits(features, frame_mask), {}
        else:
            outputs = self.classifier.forward(features, frame_mask, training=False)
            logits = outputs.logits
            others = self.attention_figures(outputs.attention_maps, frame_mask)
        return self.loss(labels, logits), tf.sigmoid(logits), others


def progress_bar(description: str, total: int | None) -> tqdm:
    """Progress in videos, with rate and time left; quiet where nobody looks."""
    return tqdm(
        total=total,
        desc=description,
        unit="video",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
