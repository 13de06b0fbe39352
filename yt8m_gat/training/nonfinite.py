"""Steps and weights that are not finite: when they are left out, and when they end a run."""

import math

import tensorflow as tf
from absl import logging

from yt8m_gat.config import TrainingConfig
from yt8m_gat.data.parsing import Batch
from yt8m_gat.models import VideoClassifier
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.state import TrainingState
from yt8m_gat.training.step import StepResult

_REMEDY = "Lower --base_learning_rate, or set --clip_gradient_norm"

MAX_NONFINITE_IN_A_ROW = 10
"""Consecutive steps that `--on_nonfinite=skip` leaves out before it gives up."""


class NonFiniteLossError(ArithmeticError):
    """Loss, gradients or weights were not finite; names the step and, for a loss, the clips."""


class NonFiniteSteps:
    """Handles the steps whose loss or gradients are not finite, as `--on_nonfinite` says.

    Args:
        config: The training of the run.
        folder: The run folder; a step that is left out is a line of its metrics.
        is_chief: Whether this worker writes there.
    """

    def __init__(self, config: TrainingConfig, folder: RunFolder, is_chief: bool) -> None:
        self.config = config
        self.folder = folder
        self.is_chief = is_chief

    def check(self, result: StepResult, batch: Batch, state: TrainingState) -> None:
        """Counts a step in `state` if it was left out.

        Args:
            result: The result of the step.
            batch: Its batch.
            state: The state before the step is counted.

        Raises:
            NonFiniteLossError: Such steps are not to be left out, or too many were in a row.
        """
        if result.finite:
            state.nonfinite_in_a_row = 0
            return
        ids = [video_id.decode(errors="replace") for video_id in batch["video_id"].numpy()]
        loss = result.terms["loss"]
        reason = "gradients are not finite" if math.isfinite(loss) else f"loss is {loss}"
        reason = f"at step {state.step + 1} the {reason}; nothing of it was saved"
        clips = f"Clips: {', '.join(ids)}"
        if self.config.on_nonfinite == "stop":
            raise NonFiniteLossError(
                f"{reason}. {_REMEDY}, or leave such steps out with --on_nonfinite=skip. {clips}"
            )
        state.nonfinite += 1
        state.nonfinite_in_a_row += 1
        if state.nonfinite_in_a_row >= MAX_NONFINITE_IN_A_ROW:
            raise NonFiniteLossError(
                f"{reason}, and nothing was learnt from the {MAX_NONFINITE_IN_A_ROW - 1} before it "
                f"either. {_REMEDY}. {clips}"
            )
        if self.is_chief:
            self.folder.append_metrics(
                {
                    "kind": "nonfinite",
                    "step": state.step + 1,
                    "epoch": state.epoch,
                    "loss": loss if math.isfinite(loss) else None,
                    "video_ids": ids,
                }
            )

    def warn(self, state: TrainingState) -> None:
        """Says at the end of a run how many of its steps were left out, if any were."""
        if state.nonfinite:
            logging.warning(
                "%d of %d steps were left out: loss or gradients not finite; %s names their clips.",
                state.nonfinite,
                state.step,
                self.folder.metrics,
            )


def check_weights(classifier: VideoClassifier, step: int) -> None:
    """Refuses weights that are not finite.

    Raises:
        NonFiniteLossError: A weight is not finite after `step`.
    """
    bad = [
        weight.path
        for weight in classifier.weights
        if not tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(weight)))
    ]
    if bad:
        raise NonFiniteLossError(
            f"after step {step} these weights are not finite: {', '.join(bad[:3])}"
            f"; nothing of it was saved. {_REMEDY}"
        )
