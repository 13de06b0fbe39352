"""The watch for catastrophic overfitting in adversarial training."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks import PGD, Ball, Problem
from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.data import as_pair
from yt8m_gat.data.parsing import Batch
from yt8m_gat.training.adversarial_model import AdversarialModel

PGD_STEPS = 10


class OverfittingWatch:
    """Measures one batch of validation clips under a single step and under a short PGD.

    A model that is trained on single steps can come to resist just these: its loss bends so that
    the gradient leads nowhere, and an attack of several steps breaks it at once (catastrophic
    overfitting). The GAP under a single step does not show it; the GAP under PGD falls.

    The attacks have the ball and the radius of training and start at the clean clips, in inference
    mode. Cost of a call: PGD_STEPS + 2 forward and PGD_STEPS + 2 backward passes on the batch.

    Args:
        model: The model in training; its raw weights are measured.
        config: Its objective, for ball and radius.
        bounds: (low, high) of perturbed clips; None: no bounds.
        batch: The clips.
        measure: `(labels, logits, label_weights=...) -> metrics`, with `gap` and `hit_at_1`.

    Reference: Wong et al., "Fast is better than free", 2020, section 5.
    """

    def __init__(
        self,
        model: AdversarialModel,
        config: ObjectiveConfig,
        bounds: tuple[float, float] | None,
        batch: Batch,
        measure: Callable[..., dict[str, float]],
    ) -> None:
        self.model = model
        self.measure = measure
        inputs, self._labels, *weights = as_pair(batch)
        self._weights = weights[0] if weights else None
        self._features, self._frame_mask = model.prepare(inputs)
        ball = Ball("l2", config.norm_scope)
        self._step = PGD(ball, config.epsilon, 1, config.epsilon, clip_to_range=bounds)
        self._pgd = PGD(ball, config.epsilon, PGD_STEPS, clip_to_range=bounds)
        self._look = tf.function(self._logits_and_gradients, autograph=False)

    @property
    def num_clips(self) -> int:
        """Number of clips in the batch."""
        return len(self._labels)

    def __call__(self) -> dict[str, float]:
        """Returns `fgm_gap`, `fgm_hit_at_1`, `pgd_gap` and `pgd_hit_at_1`."""
        figures = {}
        for name, attack in (("fgm", self._step), ("pgd", self._pgd)):
            metrics = self._metrics_under(attack)
            figures |= {f"{name}_{key}": metrics[key] for key in ("gap", "hit_at_1")}
        return figures

    def _metrics_under(self, attack: PGD) -> dict[str, float]:
        problem = Problem(None, None, self._features, self._frame_mask, None)
        point = self._features
        for _ in range(attack.steps):
            _, gradients = self._look(point)
            point = attack.step_from(point, gradients, problem)
        logits, _ = self._look(point)
        weights = None if self._weights is None else self._weights.numpy()
        return self.measure(self._labels.numpy(), logits, label_weights=weights)

    def _logits_and_gradients(self, point: dict[str, tf.Tensor]) -> tuple[tf.Tensor, Any]:
        model = self.model
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            logits = model.classifier.forward_without_maps(point, self._frame_mask).logits
            loss = tf.reduce_mean(model.objective.loss(self._labels, logits, self._weights))
            scaled = model.optimizer.scale_loss(loss)
        return logits, tape.gradient(scaled, point)
