"""Exact metrics of a classifier over a whole dataset, clean, attacked and corrupted."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import Attack, DeepFool, Problem, corrupt, margin_loss
from yt8m_gat.attacks.attack import loss_and_gradients
from yt8m_gat.config import ConfigError
from yt8m_gat.data.preprocessing import normalize_features, preprocess
from yt8m_gat.data.progress import advance, progress_bar
from yt8m_gat.evaluation.traced import traced
from yt8m_gat.metrics import EvaluationMetrics, SegmentMeanAveragePrecision, restrict_to_classes

Loss = Callable[..., Any]
# (attention maps as in `ModelOutputs`, frame_mask) -> {name: [B]}.
AttentionFigures = Callable[[dict[str, dict[str, Any]], Any], dict[str, tf.Tensor]]
# (maps of the clean clips, maps of the perturbed ones, frame_mask) -> {name: [B]}.
AttentionDistances = Callable[
    [dict[str, dict[str, Any]], dict[str, dict[str, Any]], Any], dict[str, tf.Tensor]
]
# (batch, features as the model gets them, frame_mask): looks on, batch by batch.
Observer = Callable[[Mapping[str, Any], dict[str, tf.Tensor], tf.Tensor | None], None]


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A natural corruption at one severity: see `yt8m_gat.attacks.corrupt`."""

    name: str
    severity: int


@dataclasses.dataclass
class Measurement:
    """What one pass over a data set measured.

    Attributes:
        metrics: Of all videos, or of all rated segments.
        segment_map: Of rated segments alone, and where all scores are kept.
        figures: Means over the videos, and what else a perturbation tells: see
            `Evaluator.measure`.
        num_examples: Videos, or segments.
        rated: Whether they were rated segments.
        positives: Int [C], examples of each class.
        groups: Metrics of each group of classes, over the examples that have one of them.
    """

    metrics: EvaluationMetrics
    segment_map: SegmentMeanAveragePrecision | None
    figures: dict[str, float | None]
    num_examples: int
    rated: bool
    positives: np.ndarray
    groups: dict[str, EvaluationMetrics]

    def result(self, num_partitions: int = 0) -> dict[str, Any]:
        """The metrics and figures as one row.

        Args:
            num_partitions: Above 0: also `partitions`, `{"count": n, metric: {"mean",
                "deviation"}}`, over so many disjoint parts.

        Raises:
            ValueError: There are fewer examples than parts.
        """
        row: dict[str, Any] = {"map_all_scores": None, **self.metrics.result(), **self.figures}
        if self.rated:
            del row["map_all_scores"], row["num_videos"]
            row |= {"segment_map": None, "num_segments": self.num_examples}
            if self.segment_map is not None:
                row |= self.segment_map.result()
        if num_partitions:
            parts = self.metrics.partition_result(num_partitions)
            row["partitions"] = {
                "count": num_partitions,
                **{
                    name: {"mean": mean, "deviation": parts["deviation"][name]}
                    for name, mean in parts["mean"].items()
                },
            }
        return row

    def group_results(self) -> dict[str, dict[str, Any] | None]:
        """Metrics of each group; None where no example has one of its classes."""
        return {
            name: metrics.result() if metrics.num_videos else None
            for name, metrics in self.groups.items()
        }

    def per_class_average_precision(self) -> np.ndarray:
        """Float64 [C], NaN without a positive: over all scores where they are kept, else over the
        pooled best of each video; see `EvaluationMetrics`."""
        if self.segment_map is not None:
            return self.segment_map.per_class_average_precision()
        return self.metrics.per_class_average_precision(self.metrics.all_scores)

    def resampled_average_precision(self, classes: Sequence[int]) -> np.ndarray:
        """The same of some classes on each resample of the examples; see `yt8m_gat.metrics`."""
        return (self.segment_map or self.metrics).resampled_average_precision(classes)


class Evaluator:
    """Runs one classifier over datasets, batch by batch.

    Attacks are made against the very classifier under test (white box) on the features that it
    sees, with the true labels. Memory grows with the metrics' own pairs alone.

    Of batches with `label_weights` (rated segments) the rated pairs alone count, in the loss, in
    what an attack ascends and in every metric; see `EvaluationMetrics.update`.

    Args:
        classifier: A `VideoClassifier`; its `forward` is used.
        loss: `(labels, logits, label_weights) -> [B]`; the weights are None for whole videos.
        num_classes: C.
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Predictions per video that GAP and MAP count.
        all_scores: Whether to keep every score for `map_all_scores`, 4 bytes times videos times
            classes; without, that metric is None. Of rated segments, for `segment_map`.
        attention_figures: Figures of the attention maps, averaged over the videos.
        attention_distances: How far a perturbation moves the maps, averaged over the videos.
    """

    def __init__(
        self,
        classifier: Any,
        loss: Loss,
        num_classes: int,
        normalize: str = "none",
        top_k: int = 20,
        all_scores: bool = True,
        attention_figures: AttentionFigures | None = None,
        attention_distances: AttentionDistances | None = None,
    ) -> None:
        self.classifier = classifier
        self.loss = loss
        self.num_classes = num_classes
        self.normalize = normalize
        self.top_k = top_k
        self.all_scores = all_scores
        self.attention_figures = attention_figures
        self.attention_distances = attention_distances
        self._clean: dict[tuple[Any, ...], Callable[..., Judged]] = {}

    def forward(self, features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None) -> Any:
        """`ModelOutputs` in inference mode: what attacks differentiate, and figures are made of."""
        return self.classifier.forward(features, frame_mask, training=False)

    def evaluate(
        self,
        batches: Iterable[dict[str, Any]],
        attack: Attack | None = None,
        total: int | None = None,
        description: str = "evaluate",
    ) -> dict[str, Any]:
        """`measure(...).result()`: metrics over `batches`, as one row."""
        return self.measure(batches, attack, total, description).result()

    def measure(
        self,
        batches: Iterable[dict[str, Any]],
        perturbation: Attack | Corruption | None = None,
        total: int | None = None,
        description: str = "evaluate",
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        zero_gradients: bool = False,
        observers: Sequence[Observer] = (),
    ) -> Measurement:
        """One pass over `batches` (batch dicts of `yt8m_gat.data`), gone through once.

        An attack is traced once for all batches. Its random choices, and those of a corruption,
        have a seed of their own for each batch, the same in every run with that batch size.

        Args:
            batches: What to evaluate on.
            perturbation: Applied to each batch before it is classified. An attack changes the
                features that the model sees; a corruption those before the l2 normalization. None:
                clean.
            total: Number of videos, for the time left.
            description: Shown beside the progress.
            groups: Name -> classes, for metrics over those classes and the videos that have one.
            zero_gradients: Also measure the share of examples at which the gradient of the loss by
                the features is exactly 0: there an attack that follows it goes nowhere.
            observers: Called after each batch.

        Returns:
            Its `result()` has `gap`, `map`, `map_all_scores`, `perr`, `hit_at_1`, `loss` (mean
            over videos), `num_videos` and the attention figures. Of rated segments, with means
            over segments: `segment_map` (None without `all_scores`) in place of `map_all_scores`,
            which it equals up to 100,000 segments, and `num_segments` in place of `num_videos`.

            Perturbed also the attention distances, except where the perturbation changes which
            frames are real. Attacked also `norm` (mean of the norm really used), `relative_norm`
            (mean of ||r||_2 / ||x||_2 over modalities and real frames) and `success` (share at
            which the attack's criterion is met; a class that was not rated is no label there).

            Under DeepFool also `share_not_flipped`, and of rho = ||r||_2 / ||x||_2 the `rho_mean`
            and `rho_median` over the examples that DID flip: where the steps ran out before the
            arg-max changed, ||r|| is no distance to a decision, so such an example enters the
            share alone. Both are None where none flipped.

        Raises:
            ValueError: There was nothing to evaluate.
        """
        metrics: EvaluationMetrics | None = None
        segment_map: SegmentMeanAveragePrecision | None = None
        group_metrics: dict[str, EvaluationMetrics] = {
            name: EvaluationMetrics(len(classes), self.top_k, all_scores=False)
            for name, classes in (groups or {}).items()
        }
        positives = np.zeros(self.num_classes, np.int64)
        sums: collections.Counter[str] = collections.Counter()
        counts: collections.Counter[str] = collections.Counter()
        judge: Callable[..., Judged] | None = None
        distances = _Distances() if isinstance(perturbation, DeepFool) else None
        examples = 0
        last_id = b""
        rated = False
        with progress_bar(description, total) as bar:
            for batch in batches:
                given = given_of(batch)
                rated = "label_weights" in given
                if metrics is None:
                    metrics = EvaluationMetrics(
                        self.num_classes, self.top_k, all_scores=self.all_scores and not rated
                    )
                    if rated and self.all_scores:
                        segment_map = SegmentMeanAveragePrecision(self.num_classes)
                seed = tf.constant(examples)
                if perturbation is None:
                    judged = self._traced_clean(given, zero_gradients)(given)
                else:
                    if judge is None:
                        judge = self._traced(perturbation, given)
                    judged = judge(given, seed)
                figures = dict(judged.figures)
                if judged.comparable.numpy():
                    figures |= judged.distances
                if zero_gradients and perturbation is not None:
                    clean = self._traced_clean(given, zero_gradients)(given)
                    figures["zero_gradient_share"] = clean.figures["zero_gradient_share"]
                if distances is not None:
                    distances.update(judged.figures["relative_norm"], judged.figures["success"])
                labels = given["labels"].numpy()
                probabilities = judged.probabilities.numpy()
                weights = given["label_weights"].numpy() if rated else None
                metrics.update(labels, probabilities, weights)
                known = labels > 0 if weights is None else (labels > 0) & (weights > 0)
                positives += known.sum(axis=0)
                if segment_map is not None:
                    segment_map.update(labels, weights, probabilities)
                for name, classes in (groups or {}).items():
                    _update_group(group_metrics[name], classes, labels, probabilities, weights)
                for name, values in {"loss": judged.losses, **figures}.items():
                    sums[name] += float(values.numpy().sum(dtype=np.float64))
                    counts[name] += len(labels)
                for observe in observers:
                    observe(batch, judged.features, judged.frame_mask)
                examples += len(labels)
                last_id = advance(bar, batch, last_id)
        if metrics is None:
            raise ConfigError(
                "there is nothing to evaluate: the files hold no records or, of a run on segments, "
                "no rated ones; --nosegment_labels evaluates whole clips"
            )
        # A figure that some batches do not have (frames were dropped there) is none of the set.
        means: dict[str, float | None] = {
            name: value / examples if math.isfinite(value) else None
            for name, value in sums.items()
            if counts[name] == examples
        }
        if distances is not None:
            means |= distances.result()
        return Measurement(metrics, segment_map, means, examples, rated, positives, group_metrics)

    def _traced(
        self, perturbation: Attack | Corruption, given: dict[str, Any]
    ) -> Callable[..., "Judged"]:
        if isinstance(perturbation, Attack):
            return self.traced_attack(perturbation, given)
        return self._traced_corruption(perturbation, given)

    def traced_attack(self, attack: Attack, given: dict[str, Any]) -> Callable[..., "Judged"]:
        """`(given, seed) -> Judged`: one graph for batches of any B, T.

        The model's pass on the clean clips is the attack's own, where it has one, and that on the
        perturbed clips is the attack's last.

        Args:
            attack: What perturbs.
            given: See `given_of`.
        """

        def judge(given: dict[str, Any], seed: tf.Tensor) -> Judged:
            features, frame_mask, labels, loss = self._prepared(given)
            weights = given.get("label_weights")
            objectives = {
                "loss": loss,
                "margin": lambda labels, logits: margin_loss(labels, logits, weights),
            }
            climbed = objectives[attack.objective]
            found = attack.attack(self.forward, climbed, features, frame_mask, labels, seed)
            clean = found.clean_outputs
            if clean is None and self.attention_distances is not None:
                clean = self.forward(features, frame_mask)
            losses = loss(labels, found.logits)
            judged = self._judged(found.features, frame_mask, found.outputs, losses, clean)
            figures = {
                "norm": found.norm,
                "relative_norm": found.relative_norm,
                "success": tf.cast(found.success, tf.float32),
                **judged.figures,
            }
            return judged._replace(figures=figures)

        return traced(judge, given, tf.constant(0))

    def _traced_clean(self, given: dict[str, Any], zero_gradients: bool) -> Callable[..., "Judged"]:
        """`given -> Judged`, with `zero_gradient_share` if asked to."""
        key = (zero_gradients, *sorted(given))
        if key not in self._clean:

            def judge(given: dict[str, Any]) -> Judged:
                features, frame_mask, labels, loss = self._prepared(given)
                if not zero_gradients:
                    outputs = self.forward(features, frame_mask)
                    losses = loss(labels, outputs.logits)
                    return self._judged(features, frame_mask, outputs, losses)
                problem = Problem(self.forward, loss, features, frame_mask, labels)
                losses, gradients, outputs = loss_and_gradients(problem, features)
                judged = self._judged(features, frame_mask, outputs, losses)
                share = {"zero_gradient_share": _is_zero(gradients, losses)}
                return judged._replace(figures={**share, **judged.figures})

            self._clean[key] = traced(judge, given)
        return self._clean[key]

    def _traced_corruption(
        self, corruption: Corruption, given: dict[str, Any]
    ) -> Callable[..., "Judged"]:
        """`(given, seed) -> Judged`."""

        def judge(given: dict[str, Any], seed: tf.Tensor) -> Judged:
            features, clean_mask, labels, loss = self._prepared(given)
            dequantized, _ = preprocess(given["features"], given["num_frames"])
            corrupted, frame_mask = corrupt(
                corruption.name, corruption.severity, dequantized, clean_mask, seed
            )
            seen = normalize_features(corrupted, self.normalize)
            outputs = self.forward(seen, frame_mask)
            clean = None
            if self.attention_distances is not None:
                clean = self.forward(features, clean_mask)
            losses = loss(labels, outputs.logits)
            comparable = tf.reduce_all(frame_mask == clean_mask)
            return self._judged(seen, frame_mask, outputs, losses, clean, comparable)

        return traced(judge, given, tf.constant(0))

    def _prepared(
        self, given: dict[str, Any]
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor | None, tf.Tensor, Callable[..., tf.Tensor]]:
        """Features and mask as the model takes them, the labels, and the loss on these clips."""
        features, frame_mask = preprocess(
            given["features"], given.get("num_frames"), self.normalize
        )
        weights = given.get("label_weights")
        return (
            features,
            frame_mask,
            given["labels"],
            lambda labels, logits: self.loss(labels, logits, weights),
        )

    def _judged(
        self,
        features: dict[str, tf.Tensor],
        frame_mask: tf.Tensor | None,
        outputs: Any,
        losses: tf.Tensor,
        clean_outputs: Any = None,
        comparable: tf.Tensor | None = None,
    ) -> "Judged":
        figures: dict[str, tf.Tensor] = {}
        distances: dict[str, tf.Tensor] = {}
        if self.attention_figures is not None:
            figures = self.attention_figures(outputs.attention_maps, frame_mask)
        if (
            self.attention_distances is not None
            and clean_outputs is not None
            and outputs.attention_maps
        ):
            distances = self.attention_distances(
                clean_outputs.attention_maps, outputs.attention_maps, frame_mask
            )
        probabilities = tf.sigmoid(outputs.logits)
        if comparable is None:
            comparable = tf.constant(True)
        return Judged(features, frame_mask, losses, probabilities, figures, distances, comparable)


class Judged(NamedTuple):
    """A batch as the model saw it, and what it made of it.

    Attributes:
        features: {name: float [B, T, D] or [B, D]}.
        frame_mask: Bool [B, T]; None at video level.
        losses: [B].
        probabilities: [B, C].
        figures: {name: [B]}.
        distances: {name: [B]}, from the maps of the clean clips.
        comparable: Bool, whether the same frames are real in both.
    """

    features: dict[str, tf.Tensor]
    frame_mask: tf.Tensor | None
    losses: tf.Tensor
    probabilities: tf.Tensor
    figures: dict[str, tf.Tensor]
    distances: dict[str, tf.Tensor]
    comparable: tf.Tensor


def given_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Of a batch dict of `yt8m_gat.data` what is computed with."""
    names = ("features", "num_frames", "labels", "label_weights")
    return {name: batch[name] for name in names if name in batch}


def _is_zero(gradients: Mapping[str, tf.Tensor | None], losses: tf.Tensor) -> tf.Tensor:
    """Float [B], 1 where every entry of the gradients is exactly 0."""
    zero = tf.ones_like(losses, tf.bool)
    for gradient in gradients.values():
        if gradient is not None:
            axes = list(range(1, gradient.shape.rank))
            zero = tf.logical_and(zero, tf.reduce_all(gradient == 0, axis=axes))
    return tf.cast(zero, tf.float32)


class _Distances:
    """DeepFool's rho of each example, and whether its decision changed: 5 bytes an example."""

    def __init__(self) -> None:
        self._relative_norms: list[np.ndarray] = []
        self._flipped: list[np.ndarray] = []

    def update(self, relative_norm: tf.Tensor, success: tf.Tensor) -> None:
        self._relative_norms.append(relative_norm.numpy())
        self._flipped.append(success.numpy() > 0)

    def result(self) -> dict[str, float | None]:
        flipped = np.concatenate(self._flipped)
        rho = np.concatenate(self._relative_norms)[flipped]
        return {
            "rho_mean": float(rho.mean(dtype=np.float64)) if rho.size else None,
            "rho_median": float(np.median(rho)) if rho.size else None,
            "share_not_flipped": float(1.0 - flipped.mean()),
        }


def _update_group(
    metrics: EvaluationMetrics,
    classes: Sequence[int],
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray | None,
) -> None:
    if weights is not None:
        labels = np.where(weights > 0, labels, 0.0)
        # The same rows and columns of the weights.
        _, weights = restrict_to_classes(labels, weights, classes)
    labels, probabilities = restrict_to_classes(labels, probabilities, classes)
    if len(labels):
        metrics.update(labels, probabilities, weights)
