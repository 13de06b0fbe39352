"""The pass over a few clips that compares a model's gradient with differences of its loss."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks import PGD, Ball, Problem
from yt8m_gat.attacks.attack import loss_and_gradients
from yt8m_gat.attacks.ball import Tensors
from yt8m_gat.evaluation.evaluator import Evaluator, inputs_of
from yt8m_gat.robustness.gradient_check import (
    FACTORS,
    GradientFigures,
    measure_slopes,
    passes_differ,
)


def measure_gradients(
    evaluator: Evaluator,
    batches: Iterable[Mapping[str, Any]],
    ball: Ball,
    epsilon: float,
    steps: int,
    clip_to_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Returns `GradientFigures.result()` at the clean clips and where PGD ends.

    The gradients are those that attacks follow. The differences are of the same model, whose layers
    compute in float64 as far as they can: a layer that casts to float32 itself, as attention does
    for its softmax, still rounds, which `measure_slopes` measures and allows for.

    Args:
        evaluator: Of the classifier.
        batches: The batches; a few hundred clips are enough for shares of a few percent.
        ball: The ball of PGD.
        epsilon: Its radius, above 0.
        steps: Its steps.
        clip_to_range: See `Attack`.
    """
    attack = PGD(ball, epsilon, steps=steps, clip_to_range=clip_to_range)
    forward = evaluator.forward
    precise = _forward_in_float64(evaluator)

    @tf.function(reduce_retracing=True, autograph=False)
    def clean_clips(inputs: Any) -> Any:
        return evaluator.prepared(inputs)[:2]

    @tf.function(reduce_retracing=True, autograph=False)
    def end_of_pgd(inputs: Any) -> Tensors:
        features, mask, labels, loss = evaluator.prepared(inputs)
        return attack.perturb(Problem(forward, loss, features, mask, labels)).features

    @tf.function(reduce_retracing=True, autograph=False)
    def logits_at(features: Tensors, mask: tf.Tensor) -> tf.Tensor:
        return forward(features, mask).logits

    @tf.function(reduce_retracing=True, autograph=False)
    def gradient_at(inputs: Any, point: Tensors) -> tuple[tf.Tensor, Any]:
        _, mask, labels, loss = evaluator.prepared(inputs)
        problem = Problem(forward, loss, point, mask, labels)
        losses, gradients, _ = loss_and_gradients(problem, point)
        return losses, gradients

    @tf.function(reduce_retracing=True, autograph=False)
    def loss_at(inputs: Any, point: Tensors) -> tf.Tensor:
        _, mask, labels, loss = evaluator.prepared(inputs)
        return loss(labels, precise(point, mask).logits)

    @tf.function(reduce_retracing=True, autograph=False)
    def losses_by_factor(inputs: Any, logits: tf.Tensor) -> tf.Tensor:
        _, _, labels, loss = evaluator.prepared(inputs)
        return tf.stack([loss(labels, factor * logits) for factor in FACTORS])

    figures = GradientFigures(epsilon)
    for number, batch in enumerate(batches):
        inputs = inputs_of(batch)
        features, mask = clean_clips(inputs)
        points = {"clean": features, "pgd": end_of_pgd(inputs)}
        slopes = {
            name: measure_slopes(
                lambda point, inputs=inputs: gradient_at(inputs, point),
                lambda point, inputs=inputs: loss_at(inputs, point),
                point,
                mask,
                ball,
                epsilon,
                seed=number,
            )
            for name, point in points.items()
        }
        logits = logits_at(features, mask)
        differ = passes_differ(logits, logits_at(features, mask))
        figures.update(differ, losses_by_factor(inputs, logits).numpy(), slopes)
    return figures.result()


def _forward_in_float64(evaluator: Evaluator) -> Any:
    """Returns `evaluator.forward` with its layers in float64 or, if one refuses, in float32."""

    def forward(features: Tensors, mask: tf.Tensor) -> Any:
        try:
            with _computing_in_float64(evaluator.classifier):
                return evaluator.forward(features, mask)
        # Layers of other packages need not support it; these are the errors of unlike types.
        except (TypeError, ValueError, tf.errors.OpError):
            narrow = {name: tf.cast(value, tf.float32) for name, value in features.items()}
            return evaluator.forward(narrow, mask)

    return forward


@contextlib.contextmanager
def _computing_in_float64(classifier: Any) -> Iterator[None]:
    """Sets the policy of each layer; the weights stay float32, which float64 holds exactly."""
    # Keras has no public way to list the layers within layers.
    layers = classifier._flatten_layers() if hasattr(classifier, "_flatten_layers") else []
    policies = [(layer, layer.dtype_policy) for layer in layers]
    try:
        for layer, _ in policies:
            layer.dtype_policy = "float64"
        yield
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy
