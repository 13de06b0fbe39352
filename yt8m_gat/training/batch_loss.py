"""The loss of one batch: labels, their weights, a teacher, and a replica's share."""

import dataclasses

import tensorflow as tf

from yt8m_gat.models import AUXILIARY_WEIGHT, ModelOutputs
from yt8m_gat.training.objective import Objective
from yt8m_gat.training.step_update import Replica


@dataclasses.dataclass(frozen=True)
class BatchLoss:
    """An objective's loss as a function of logits alone.

    Attributes:
        objective: The objective.
        labels: [B, C].
        label_weights: [B, C], or None.
        targets: A teacher's predictions, if the objective has one.
        replica: The part of a step that these rows are; None: the whole.
    """

    objective: Objective
    labels: tf.Tensor
    label_weights: tf.Tensor | None
    targets: tf.Tensor | None
    replica: Replica | None

    def losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each clip, [B], for these or other labels."""
        losses = self.objective.loss(labels, logits, self.label_weights)
        if self.targets is None:
            return losses
        return self.objective.distillation(losses, self.targets, logits)

    def divergences(self, clean_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the objective's divergence of each clip, [B]."""
        return self.objective.divergence(clean_logits, logits, self.label_weights)

    def loss(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the mean loss, as a term of the step."""
        return self.mean(self.losses(self.labels, logits))

    def auxiliary_loss(self, outputs: ModelOutputs) -> tf.Tensor | float:
        """Returns the weighted loss of an auxiliary head, 0 without one."""
        if outputs.auxiliary_logits is None:
            return 0.0
        return AUXILIARY_WEIGHT * self.loss(outputs.auxiliary_logits)

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the mean of values [B], as a term of the step."""
        return self.share_of(tf.reduce_mean(values))

    def share_of(self, term: tf.Tensor) -> tf.Tensor:
        """Scales a term to the replica's share of the step.

        Each term is scaled, not only their sum: the attack differentiates the clean term.
        """
        if self.replica is None:
            return term
        return tf.cast(self.replica.share, term.dtype) * term
