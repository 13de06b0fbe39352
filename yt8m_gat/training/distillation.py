"""Distillation: the predictions of trained classifiers as a part of the labels."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from yt8m_gat.losses import ClassificationLoss
from yt8m_gat.models import VideoClassifier

# (features, frame_mask) -> probabilities [B, C] at the temperature.
Teacher = Callable[[dict[str, tf.Tensor], tf.Tensor | None], tf.Tensor]


@keras.saving.register_keras_serializable(package="yt8m_gat")
@dataclasses.dataclass(frozen=True)
class Distillation:
    """The loss of labels y and of a teacher's tempered probabilities q.

    ```
    l = (1 - w) * label loss(y, z) + w * T^2 * BCE(q, sigmoid(z / T)),   q = sigmoid(z_teacher / T)
    ```

    Hinton et al. have one softmax over exclusive classes. Here each class is a decision of its own,
    a softmax over (z, 0), so that the cross-entropy is binary; with SoftmaxLoss it is theirs. T^2
    keeps the size of its gradient: for small errors d/dz is w (z - z_teacher) / 4, whatever T. The
    teacher predicts every class of every clip, so that its part counts all classes, also those that
    a segment was not rated for.

    The teacher sees the clean clip. Under an adversarial objective this loss takes the place of the
    label loss everywhere: it is ascended by the attack, and its targets on X + R are those of X
    (adversarially robust distillation, Goldblum et al., 2020). Penalties and the divergence of
    TRADES are unchanged.

    Attributes:
        temperature: T.
        weight: w.
        loss: `(targets, logits) -> [B]`, with the class reduction of the label loss.

    Reference: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    section 2.
    """

    temperature: float
    weight: float
    loss: ClassificationLoss

    def __call__(self, label_losses: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each clip, [B].

        Args:
            label_losses: [B], that of the labels.
            targets: [B, C], the teacher's probabilities at this temperature.
            logits: [B, C], the student's.
        """
        logits = tf.cast(logits, label_losses.dtype)
        of_teacher = self.temperature**2 * self.loss(targets, logits / self.temperature)
        return (1.0 - self.weight) * label_losses + self.weight * of_teacher

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        return {
            "temperature": self.temperature,
            "weight": self.weight,
            "loss": keras.saving.serialize_keras_object(self.loss),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Distillation":
        """The distillation that `get_config` described."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def build_teacher(
    classifiers: Sequence[VideoClassifier], temperature: float, exclusive: bool = False
) -> Teacher:
    """Returns a function that computes the mean of the classifiers' tempered probabilities.

    It is a plain function, so that Keras does not take the classifiers for parts of the student.

    Args:
        classifiers: At least one, of the student's features and classes.
        temperature: T.
        exclusive: Whether probabilities are a softmax over the classes.
    """
    squash = tf.nn.softmax if exclusive else tf.sigmoid

    def targets(features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None) -> tf.Tensor:
        logits = [
            classifier.forward_without_maps(features, frame_mask, training=False).logits
            for classifier in classifiers
        ]
        probabilities = [squash(tf.cast(each, tf.float32) / temperature) for each in logits]
        return tf.stop_gradient(tf.add_n(probabilities) / len(probabilities))

    return targets
