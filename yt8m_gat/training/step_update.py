"""What a training step would change, for a batch, a replica's part of it, or a micro batch."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class StepTerms(NamedTuple):
    """The parts of the objective on one batch; the losses and the penalty are means over it."""

    total: tf.Tensor
    clean_loss: tf.Tensor
    adversarial_loss: tf.Tensor
    penalty: tf.Tensor
    logits: tf.Tensor


class StepUpdate(NamedTuple):
    """The changes that a step would make, before any is applied.

    Attributes:
        terms: The objective and its parts.
        gradients: Gradient by each trainable variable (times the optimizer's loss scale), or None.
        state: New value of each non-trainable variable of the classifier (moving averages,
            seeds); None if unchanged.
        finite: Boolean: whether loss and gradients are finite. (With a loss scale only the loss
            is checked: the optimizer lowers the scale when gradients overflow.)
    """

    terms: StepTerms
    gradients: list[tf.Tensor | None]
    state: list[tf.Tensor | None]
    finite: tf.Tensor


class Replica(NamedTuple):
    """The part of a step that one replica computes, when replicas share its batch.

    The micro batches of a step count as replicas too, one after another.

    Attributes:
        index: Number of this replica, from 0.
        count: Number of replicas.
        share: This replica's rows as a share of the batch. The sum of all replicas' terms, and of
            their gradients, then equals that of one machine with the whole batch.
    """

    index: int | tf.Tensor
    count: int | tf.Tensor
    share: tf.Tensor


def sum_of_parts(
    update_of_part: Callable[[tf.Tensor], StepUpdate], num_parts: tf.Tensor
) -> StepUpdate:
    """Adds the parts' updates, computed one after another; keeps the seeds of the first."""

    def add(ours: StepUpdate, theirs: StepUpdate) -> StepUpdate:
        logits = tf.concat([ours.terms.logits, theirs.terms.logits], axis=0)
        return StepUpdate(
            StepTerms(
                *(a + b for a, b in zip(ours.terms[:-1], theirs.terms[:-1], strict=True)), logits
            ),
            [
                None if a is None else a + b
                for a, b in zip(ours.gradients, theirs.gradients, strict=True)
            ],
            [
                a + b if a is not None and a.dtype.is_floating else a
                for a, b in zip(ours.state, theirs.state, strict=True)
            ],
            tf.logical_and(ours.finite, theirs.finite),
        )

    first = update_of_part(tf.constant(0))

    def values_of(update: StepUpdate) -> list[tf.Tensor]:
        return [value for value in tf.nest.flatten(update) if value is not None]

    def update_from(values: list[tf.Tensor]) -> StepUpdate:
        left = iter(values)
        return tf.nest.map_structure(lambda value: None if value is None else next(left), first)

    # The second part waits for the first; otherwise both could be in memory at once.
    with tf.control_dependencies(values_of(first)):
        second = tf.constant(1)
    _, *values = tf.while_loop(
        lambda index, *_: index < num_parts,
        lambda index, *values: (
            index + 1,
            *values_of(add(update_from(values), update_of_part(index))),
        ),
        (second, *values_of(first)),
        shape_invariants=(
            tf.TensorShape([]),
            *(
                tf.TensorShape([None, *value.shape[1:]])
                if value is first.terms.logits
                else value.shape
                for value in values_of(first)
            ),
        ),
        parallel_iterations=1,
    )
    return update_from(values)
