"""Exact metrics of a classifier over a whole dataset, clean, attacked and corrupted."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from yt8m_gat.attacks import OBJECTIVE_LOSSES, Attack, DeepFool, Problem, corrupt, margin_loss
from yt8m_gat.attacks.attack import AttackResult, loss_and_gradients
from yt8m_gat.data.preprocessing import normalize_features, preprocess
from yt8m_gat.data.progress import advance, progress_bar
from yt8m_gat.evaluation.measurement import Measurement, PassTotals
from yt8m_gat.evaluation.traced import traced

Loss = Callable[..., Any]
# (attention maps as in `ModelOutputs`, frame_mask) -> {name: [B]}.
AttentionFigures = Callable[[dict[str, dict[str, Any]], Any], dict[str, tf.Tensor]]
# (maps of the clean clips, maps of the perturbed ones, frame_mask) -> {name: [B]}.
AttentionDistances = Callable[
    [dict[str, dict[str, Any]], dict[str, dict[str, Any]], Any], dict[str, tf.Tensor]
]
# (batch, features as the model gets them, frame_mask) -> None; called after each batch.
Observer = Callable[[Mapping[str, Any], dict[str, tf.Tensor], tf.Tensor | None], None]


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A natural corruption at one severity: see `yt8m_gat.attacks.corrupt`."""

    name: str
    severity: int
    per_frame: bool = True


class Evaluator:
    """Runs one classifier over datasets, batch by batch.

    Attacks are made against the classifier under test itself (white box) on the features that it
    takes, with the true labels. Memory grows only with the pairs that the metrics keep.

    In batches with `label_weights` (rated segments) only the rated pairs count: in the loss, in an
    attack's objective and in every metric; see `EvaluationMetrics.update`.

    Args:
        classifier: A `VideoClassifier`; its `forward` is used, and `forward_without_maps` where
            nobody reads attention maps.
        loss: `(labels, logits, label_weights) -> [B]`; the weights are None for whole videos.
        num_classes: C.
        normalize: l2 normalization after dequantizing, as in training.
        top_k: Predictions per video that GAP and MAP count.
        all_scores: Whether to keep every score for `map_all_scores` (4 bytes times videos times
            classes), or for `segment_map` of rated segments; without, that metric is None.
        attention_figures: Computes figures of the attention maps, averaged over the videos.
        attention_distances: Computes how far a perturbation moves the maps; averaged too.
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
        self._clean: dict[tuple[Any, ...], Callable[..., BatchResult]] = {}

    def forward(self, features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None) -> Any:
        """Returns `ModelOutputs` in inference mode, for those who read no attention maps."""
        return self.classifier.forward_without_maps(features, frame_mask, training=False)

    def forward_with_maps(
        self, features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None
    ) -> Any:
        """Returns `ModelOutputs` in inference mode, with the attention maps."""
        return self.classifier.forward(features, frame_mask, training=False)

    @property
    def measures_maps(self) -> bool:
        """Whether rows have figures of the attention maps."""
        return self.attention_figures is not None or self.attention_distances is not None

    @property
    def _measured_forward(self) -> Callable[..., Any]:
        return self.forward_with_maps if self.measures_maps else self.forward

    def evaluate(
        self,
        batches: Iterable[dict[str, Any]],
        attack: Attack | None = None,
        total: int | None = None,
        description: str = "evaluate",
    ) -> dict[str, Any]:
        """Returns the metrics over `batches` as one row: `measure(...).result()`."""
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
        """Measures one pass over `batches` (batch dicts of `yt8m_gat.data`).

        An attack is traced once for all batches. Attacks and corruptions draw from a seed that
        differs for each batch and is the same in every run with that batch size.

        Args:
            batches: The batches to evaluate on; iterated once.
            perturbation: Applied to each batch before it is classified. An attack changes the
                features that the model takes, a corruption the features before the l2
                normalization. None: clean.
            total: Number of videos, for the time left.
            description: Shown beside the progress bar.
            groups: Name -> classes, for metrics over those classes and the videos that have one.
            zero_gradients: Also measure the share of examples at which the gradient of the loss by
                the features is exactly 0, where an attack that follows the gradient is stuck, and
                the mean margin, which attacked rows have too.
            observers: Called after each batch.

        Returns:
            Its `result()` has `gap`, `map`, `map_all_scores`, `perr`, `hit_at_1`, `loss` (mean
            over videos), `num_videos` and the attention figures, and `top_5` and
            `mean_class_accuracy` if every video has one label. For rated segments, means are
            over segments; `segment_map` (None without `all_scores`) replaces `map_all_scores`,
            which it equals up to 100,000 segments, and `num_segments` replaces `num_videos`.

            A perturbed pass also has the attention distances, unless the perturbation changes
            which frames are real. An attack also has `norm` (mean of the norm really used),
            `relative_norm` (mean of ||r||_2 / ||x||_2 over modalities and real frames) and
            `success` (share at which the attack's criterion is met; a class that was not rated is
            no label there).

            DeepFool also has `share_not_flipped`, and the `rho_mean` and `rho_median` of
            rho = ||r||_2 / ||x||_2 over the examples that DID flip: if the steps ran out before
            the arg-max changed, ||r|| is no distance to a decision, so the example counts only in
            the share. Both are None if none flipped.

        Raises:
            ValueError: There was nothing to evaluate.
        """
        totals = PassTotals(
            self.num_classes,
            self.top_k,
            self.all_scores,
            groups or {},
            under_deepfool=isinstance(perturbation, DeepFool),
        )
        measure_batch: Callable[..., BatchResult] | None = None
        last_id = b""
        with progress_bar(description, total) as bar:
            for batch in batches:
                inputs = inputs_of(batch)
                if perturbation is None:
                    result = self._traced_clean(inputs, zero_gradients)(inputs)
                else:
                    if measure_batch is None:
                        measure_batch = self._traced(perturbation, inputs)
                    result = measure_batch(inputs, tf.constant(totals.num_examples))
                figures = {"loss": result.losses, **result.figures}
                if result.comparable.numpy():
                    figures |= result.distances
                if zero_gradients and perturbation is not None:
                    clean = self._traced_clean(inputs, zero_gradients)(inputs)
                    figures["zero_gradient_share"] = clean.figures["zero_gradient_share"]
                weights = inputs.get("label_weights")
                totals.add(
                    inputs["labels"].numpy(),
                    result.probabilities.numpy(),
                    None if weights is None else weights.numpy(),
                    figures,
                )
                for observe in observers:
                    observe(batch, result.features, result.frame_mask)
                last_id = advance(bar, batch, last_id)
        return totals.measurement()

    def _traced(
        self, perturbation: Attack | Corruption, inputs: dict[str, Any]
    ) -> Callable[..., "BatchResult"]:
        if isinstance(perturbation, Attack):
            return self.traced_attack(perturbation, inputs)
        return self._traced_corruption(perturbation, inputs)

    def traced_attack(self, attack: Attack, inputs: dict[str, Any]) -> Callable[..., "BatchResult"]:
        """Returns `(inputs, seed) -> BatchResult`: one graph for batches of any B, T.

        The outputs on the clean clips are the attack's own if it has them, and those on the
        perturbed clips come from the attack's last pass.

        Args:
            attack: The attack.
            inputs: See `inputs_of`.
        """

        def measure_batch(inputs: dict[str, Any], seed: tf.Tensor) -> BatchResult:
            features, frame_mask, labels, loss = self.prepared(inputs)
            attacked = self.attacked(attack, inputs, seed)
            clean = attacked.clean_outputs
            if clean is None and self.attention_distances is not None:
                clean = self.forward_with_maps(features, frame_mask)
            losses = loss(labels, attacked.logits)
            result = self._result(attacked.features, frame_mask, attacked.outputs, losses, clean)
            figures = {
                "norm": attacked.norm,
                "relative_norm": attacked.relative_norm,
                "success": tf.cast(attacked.success, tf.float32),
                "margin": margin_loss(labels, attacked.logits, inputs.get("label_weights")),
                **attacked.figures,
                **result.figures,
            }
            return result._replace(figures=figures)

        return traced(measure_batch, inputs, tf.constant(0))

    def attacked(self, attack: Attack, inputs: Mapping[str, Any], seed: tf.Tensor) -> AttackResult:
        """Attacks the clips of a batch; see `inputs_of`."""
        features, frame_mask, labels, loss = self.prepared(inputs)
        weights = inputs.get("label_weights")
        if attack.objective != "loss":
            other_loss = OBJECTIVE_LOSSES[attack.objective]
            loss = functools.partial(other_loss, label_weights=weights)
        reads_maps = attack.reads_attention_maps
        forward = self.forward_with_maps if reads_maps else self._measured_forward
        return attack.attack(forward, loss, features, frame_mask, labels, seed, weights)

    def _traced_clean(
        self, inputs: dict[str, Any], zero_gradients: bool
    ) -> Callable[..., "BatchResult"]:
        """Returns `inputs -> BatchResult`, with `zero_gradient_share` on request."""
        key = (zero_gradients, *sorted(inputs))
        if key not in self._clean:

            def measure_batch(inputs: dict[str, Any]) -> BatchResult:
                features, frame_mask, labels, loss = self.prepared(inputs)
                if not zero_gradients:
                    outputs = self._measured_forward(features, frame_mask)
                    losses = loss(labels, outputs.logits)
                    return self._result(features, frame_mask, outputs, losses)
                problem = Problem(self._measured_forward, loss, features, frame_mask, labels)
                losses, gradients, outputs = loss_and_gradients(problem, features)
                result = self._result(features, frame_mask, outputs, losses)
                figures = {
                    "zero_gradient_share": _is_zero(gradients, losses),
                    "margin": margin_loss(labels, outputs.logits, inputs.get("label_weights")),
                    **result.figures,
                }
                return result._replace(figures=figures)

            self._clean[key] = traced(measure_batch, inputs)
        return self._clean[key]

    def _traced_corruption(
        self, corruption: Corruption, inputs: dict[str, Any]
    ) -> Callable[..., "BatchResult"]:
        """Returns `(inputs, seed) -> BatchResult`."""

        def measure_batch(inputs: dict[str, Any], seed: tf.Tensor) -> BatchResult:
            features, clean_mask, labels, loss = self.prepared(inputs)
            dequantized, _ = preprocess(inputs["features"], inputs["num_frames"])
            corrupted, frame_mask = corrupt(
                corruption.name,
                corruption.severity,
                dequantized,
                clean_mask,
                seed,
                corruption.per_frame,
            )
            seen = normalize_features(corrupted, self.normalize)
            outputs = self._measured_forward(seen, frame_mask)
            clean = None
            if self.attention_distances is not None:
                clean = self.forward_with_maps(features, clean_mask)
            losses = loss(labels, outputs.logits)
            comparable = tf.reduce_all(frame_mask == clean_mask)
            return self._result(seen, frame_mask, outputs, losses, clean, comparable)

        return traced(measure_batch, inputs, tf.constant(0))

    def prepared(
        self, inputs: dict[str, Any]
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor | None, tf.Tensor, Callable[..., tf.Tensor]]:
        """Returns features and mask as the model takes them, the labels, and the clips' loss."""
        features, frame_mask = preprocess(
            inputs["features"], inputs.get("num_frames"), self.normalize
        )
        weights = inputs.get("label_weights")
        return (
            features,
            frame_mask,
            inputs["labels"],
            lambda labels, logits: self.loss(labels, logits, weights),
        )

    def _result(
        self,
        features: dict[str, tf.Tensor],
        frame_mask: tf.Tensor | None,
        outputs: Any,
        losses: tf.Tensor,
        clean_outputs: Any = None,
        comparable: tf.Tensor | None = None,
    ) -> "BatchResult":
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
        probabilities = self.classifier.probabilities(outputs.logits)
        if comparable is None:
            comparable = tf.constant(True)
        return BatchResult(
            features, frame_mask, losses, probabilities, figures, distances, comparable
        )


class BatchResult(NamedTuple):
    """A batch as the model saw it, with the results on it.

    Attributes:
        features: {name: float [B, T, D] or [B, D]}.
        frame_mask: Bool [B, T]; None at video level.
        losses: [B].
        probabilities: [B, C].
        figures: {name: [B]}.
        distances: {name: [B]}, distances of the attention maps from those of the clean clips.
        comparable: Bool, whether the clean and the perturbed clips have the same real frames.
    """

    features: dict[str, tf.Tensor]
    frame_mask: tf.Tensor | None
    losses: tf.Tensor
    probabilities: tf.Tensor
    figures: dict[str, tf.Tensor]
    distances: dict[str, tf.Tensor]
    comparable: tf.Tensor


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the tensors of a batch dict of `yt8m_gat.data` that the evaluation uses."""
    names = ("features", "num_frames", "labels", "label_weights")
    return {name: batch[name] for name in names if name in batch}


def _is_zero(gradients: Mapping[str, tf.Tensor | None], losses: tf.Tensor) -> tf.Tensor:
    """Returns a float [B], 1 where every entry of the gradients is exactly 0."""
    zero = tf.ones_like(losses, tf.bool)
    for gradient in gradients.values():
        if gradient is not None:
            axes = list(range(1, gradient.shape.rank))
            zero = tf.logical_and(zero, tf.reduce_all(gradient == 0, axis=axes))
    return tf.cast(zero, tf.float32)
