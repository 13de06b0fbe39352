"""The progress of a run, other than its weights."""

from __future__ import annotations

import dataclasses
import json
import math

from yt8m_gat.config import ConfigError, TrainingConfig, from_dict
from yt8m_gat.data.identity import FileIdentity
from yt8m_gat.untrusted import parse_json


@dataclasses.dataclass
class TrainingState:
    """The loop's own state; lives as JSON in a string variable inside the checkpoint.

    Attributes:
        step: Steps done.
        epoch: Epochs finished.
        batch: Batches done in the current epoch.
        examples: Clips seen.
        best_gap: Best validation GAP so far (a fraction), None before the first validation.
        best_step: The step at which it was reached.
        since_best: Validations since then.
        since_reduction: Validations since the later of the best one and the last reduction of the
            learning rate.
        rate_factor: Product of the reductions so far.
        last_validation: Step of the last validation.
        nonfinite: Steps so far whose loss or gradients were not finite and that were left out;
            they count as steps, and their clips as seen.
        nonfinite_in_a_row: Number of consecutive such steps up to the last step.
        best_pgd_gap: Best GAP of the watched batch under PGD so far; None: never measured.
        fgm_gap_then: Its GAP under a single step at that validation.
        ordered: Whether the batches of the current epoch came in the order that is a function of
            seed and epoch.
        train_files: The files of the latest training; None: an older version, which did not record
            them, wrote the checkpoint.
        eval_files: The files on which the best GAP was measured; None as above, or without any.
    """

    interrupted = False  # Without annotation it is no field: it is not stored.
    """Whether Ctrl-C or SIGTERM ended the latest call of training."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    examples: int = 0
    best_gap: float | None = None
    best_step: int = 0
    since_best: int = 0
    since_reduction: int = 0
    rate_factor: float = 1.0
    last_validation: int = 0
    nonfinite: int = 0
    nonfinite_in_a_row: int = 0
    best_pgd_gap: float | None = None
    fgm_gap_then: float = 0.0
    ordered: bool = True
    train_files: tuple[FileIdentity, ...] | None = None
    eval_files: tuple[FileIdentity, ...] | None = None

    def to_json(self) -> str:
        """Returns this state as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainingState:
        """Reads the state that `to_json` wrote.

        Raises:
            ConfigError: The text is no such state.
        """
        try:
            values = parse_json(text)
        except ValueError as error:
            raise ConfigError(f"a checkpoint's state of training is not JSON: {error}") from error
        state = from_dict(cls, values, "state.")
        for name, value in vars(state).items():
            if isinstance(value, int) and value < 0:
                raise ConfigError(f"state.{name} must be at least 0. Received: {value}")
        return state

    def record_validation(self, gap: float, config: TrainingConfig) -> bool:
        """Counts one validation for early stopping and for the plateau (GAT section 4.1).

        Returns:
            Whether `gap` is the best so far.
        """
        self.last_validation = self.step
        if self.best_gap is None or gap > self.best_gap:
            self.best_gap, self.best_step = gap, self.step
            self.since_best = self.since_reduction = 0
            return True
        self.since_best += 1
        self.since_reduction += 1
        if config.plateau_patience and self.since_reduction >= config.plateau_patience:
            self.rate_factor *= config.plateau_factor
            self.since_reduction = 0
        return False

    def record_watch(self, fgm_gap: float, pgd_gap: float) -> bool:
        """Compares the watched batch with the validation at which PGD did least harm.

        Returns:
            Whether PGD has come to break the model while a single step has not: the GAP under PGD
            is less than half of its best (and less by 0.02, so that nothing is said of noise),
            and that under a single step at least nine tenths of what it was then.
        """
        if self.best_pgd_gap is None or pgd_gap > self.best_pgd_gap:
            self.best_pgd_gap, self.fgm_gap_then = pgd_gap, fgm_gap
            return False
        collapsed = pgd_gap < min(0.5 * self.best_pgd_gap, self.best_pgd_gap - 0.02)
        return collapsed and fgm_gap >= 0.9 * self.fgm_gap_then

    def forget_best(self) -> None:
        """Restarts the comparison of validations, since the next ones use other files."""
        self.best_gap = self.best_pgd_gap = None
        self.best_step = self.last_validation = self.since_best = self.since_reduction = 0

    def finished(self, config: TrainingConfig) -> str | None:
        """Returns why training has ended under `config`; None while it continues.

        The reason is not stored: a run resumed with more steps, epochs or patience continues.
        """
        if config.max_steps is not None and self.step >= config.max_steps:
            return f"--max_steps={config.max_steps} reached"
        if self.epoch >= config.num_epochs:
            return f"--num_epochs={config.num_epochs} done"
        if config.early_stopping_patience and self.since_best >= config.early_stopping_patience:
            return f"no better validation GAP in {self.since_best} validations (early stopping)"
        return None

    def learning_rate(self, config: TrainingConfig) -> float:
        """Returns the next step's rate: schedule, warm-up and plateaus multiplied."""
        rate = config.base_learning_rate * self.rate_factor
        if config.learning_rate_schedule == "cosine":
            start = config.warmup_steps
            done = max(0.0, min((self.step - start) / (config.max_steps - start), 1.0))
            rate *= 0.5 * (1.0 + math.cos(math.pi * done))
        else:
            stairs = self.examples // config.learning_rate_decay_examples
            drops = sum(self.epoch >= epoch for epoch in config.drop_epochs)
            rate *= config.learning_rate_decay**stairs * config.drop_factor**drops
        if self.step < config.warmup_steps:
            rate *= (self.step + 1) / config.warmup_steps
        return rate
