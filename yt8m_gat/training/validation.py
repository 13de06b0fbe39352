"""The validations of a run in training, by which its best weights are chosen."""

from collections.abc import Callable

import keras
from absl import logging
from tqdm import tqdm

from yt8m_gat.config import TrainingConfig
from yt8m_gat.training.adversarial_model import AdversarialModel
from yt8m_gat.training.distribution import Distribution
from yt8m_gat.training.nonfinite import check_weights
from yt8m_gat.training.optimizer import averaged
from yt8m_gat.training.overfitting_watch import OverfittingWatch
from yt8m_gat.training.saved_run import SavedRun
from yt8m_gat.training.state import TrainingState
from yt8m_gat.training.training_log import TrainingLog

Validate = Callable[[], dict[str, float]]


class Validation:
    """Validates the model, keeps its best weights, and saves a checkpoint.

    Only the chief validates; it tells the others the GAP. With `ema_momentum`, the averages of the
    weights are measured (`gap` and so on), compared and kept, and beside them the raw weights are
    measured (`raw_gap` and so on). The moving statistics of batch normalization are those of the
    raw weights in both.

    Args:
        validate: Returns the metrics of the classifier's current state, including `gap`; None:
            a validation only marks its step.
        watch: Attacks a few validation clips; None: nothing is attacked.
        config: The training of the run.
        model: The model in training.
        saved: Where the weights are kept.
        distribution: The replicas that train.
        callbacks: Their `on_test_begin` and `on_test_end` are called.
        log: Where the figures are shown and written.

    Attributes:
        logs: The latest figures as callbacks see them at the end of an epoch: `val_gap` and so on.
    """

    def __init__(
        self,
        validate: Validate | None,
        watch: OverfittingWatch | None,
        config: TrainingConfig,
        model: AdversarialModel,
        saved: SavedRun,
        distribution: Distribution,
        callbacks: keras.callbacks.CallbackList,
        log: TrainingLog,
    ) -> None:
        self.validate = validate
        self.watch = watch
        self.config = config
        self.model = model
        self.saved = saved
        self.distribution = distribution
        self.callbacks = callbacks
        self.log = log
        self.logs: dict[str, float] = {}

    def run(self, state: TrainingState) -> None:
        """Validates once, and records it in `state`.

        Raises:
            NonFiniteLossError: A weight is not finite.
            InUseError: See `SavedRun.save`.
            WorkerLostError: Another worker ended.
        """
        self.log.write_steps()
        loss = self.log.loss_since_validation()
        if self.validate is None:
            state.last_validation = state.step
            if self.distribution.is_chief:
                tqdm.write(f"step {state.step}: no validation{loss}")
            return
        self.callbacks.on_test_begin()
        metrics, gap = self._measure(state)
        logs = {**metrics, "gap": gap}
        self.callbacks.on_test_end(logs)
        self.logs = {f"val_{name}": value for name, value in logs.items()}
        if self.distribution.is_chief:
            self.log.record("validation", metrics)
            of = ""
            if "raw_gap" in metrics:
                of = f" of averaged weights, {metrics['raw_gap']:.4f} of raw"
            tqdm.write(
                f"step {state.step}: validation GAP {gap:.4f}{of}"
                f" (best {state.best_gap:.4f} at step {state.best_step}){loss}"
            )
            self.log.show({})
        self.saved.save(state)
        self.log.restart_speed()

    def _measure(self, state: TrainingState) -> tuple[dict[str, float], float]:
        """Returns the metrics, on the chief only, and the GAP; keeps the weights if it is best."""
        metrics: dict[str, float] = {}
        is_chief = self.distribution.is_chief
        if is_chief:
            check_weights(self.model.classifier, state.step)
            if self.watch is not None:
                metrics |= self._watched(state)
        with averaged(self.model) as has_averages:
            if is_chief:
                check_weights(self.model.classifier, state.step)
                metrics |= self.validate()
            # All workers need the same figure: early stopping and the rate depend on it.
            gap = self.distribution.agree(metrics.get("gap", 0.0))
            if state.record_validation(gap, self.config):
                self.saved.save_best(state.step)
        if has_averages and is_chief:
            metrics |= {f"raw_{name}": value for name, value in self.validate().items()}
        return metrics, gap

    def _watched(self, state: TrainingState) -> dict[str, float]:
        """Returns the figures of the watched batch, and warns when only PGD breaks the model."""
        figures, best = self.watch(), state.best_pgd_gap
        if state.record_watch(figures["fgm_gap"], figures["pgd_gap"]):
            logging.warning(
                "Catastrophic overfitting at step %d: under PGD the GAP of %d validation clips is "
                "%.3f, after %.3f before; under a single step it is %.3f. The model resists single "
                "steps only; train with a lower --epsilon, or with --adversarial=pgd or trades.",
                *(state.step, self.watch.num_clips, figures["pgd_gap"], best, figures["fgm_gap"]),
            )
        return figures
