"""The training loop of `train.py`: resumable at any step, validated by exact metrics."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from yt8m_gat.attacks import PIXEL_RANGE
from yt8m_gat.config import RunConfig
from yt8m_gat.data import Reader, RecordSchema, as_pair, no_examples
from yt8m_gat.data.parsing import Batch
from yt8m_gat.models import VideoClassifier
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.adversarial_model import AdversarialModel
from yt8m_gat.training.distillation import Teacher
from yt8m_gat.training.distribution import Distribution
from yt8m_gat.training.ending import Ending
from yt8m_gat.training.epoch_data import EpochData
from yt8m_gat.training.nonfinite import NonFiniteSteps
from yt8m_gat.training.objective import build_objective
from yt8m_gat.training.optimizer import averaged, build_optimizer
from yt8m_gat.training.overfitting_watch import OverfittingWatch
from yt8m_gat.training.run_files import RunFiles
from yt8m_gat.training.saved_run import SavedRun
from yt8m_gat.training.state import TrainingState
from yt8m_gat.training.step import StepResult, TrainingStep
from yt8m_gat.training.step_log import StepMeans
from yt8m_gat.training.training_log import TrainingLog
from yt8m_gat.training.validation import Validate, Validation

Measure = Callable[..., dict[str, float]]


class Trainer:
    """Trains one classifier in one run folder.

    With Keras 3.15 `fit` can neither resume inside an epoch nor run on several workers, so this
    class has its own short loop: the model's step in one `tf.function` on every replica, Keras'
    callbacks through `CallbackList`, all state in one `tf.train.Checkpoint`.

    Resuming: the order of the data is a function of seed and epoch, so a resumed run skips what
    it has seen. Model, optimizer, the layers' random state and `TrainingState` come from the
    newest complete checkpoint. (A tf.data service has no such order, and the epoch starts again.)

    Several workers: all run this loop, on the same batches, and call the callbacks; only the chief
    validates, writes the folder and decides what to resume, and it tells the others. A signal to
    any worker, or a callback that stops training, ends the run for all after the next step.

    Averaged weights: with `ema_momentum`, early stopping compares the averages, and these are the
    best weights. The checkpoint holds both kinds; `--checkpoint=last` reads the raw ones.

    The parts have a trade each: `EpochData` reads, `TrainingStep` computes a step, `Validation`
    measures and chooses the best weights, `SavedRun` writes and restores, `RunFiles` compares the
    files of a resumed run, `Ending` knows when to stop, `TrainingLog` shows and writes figures.

    Args:
        config: The run.
        schema: The schema of the records.
        classifier: A fresh classifier.
        files: Training files.
        folder: The run folder, where everything is kept.
        measure: Returns the metrics of labels and probabilities [B, C], including `gap`; takes the
            keyword `label_weights` ([B, C] or None). Used for the batch GAP of each log line.
        validate: Returns the metrics of the classifier's current state, including `gap`; None
            trains without validation, and the last weights are the best.
        eval_files: The files that `validate` reads.
        callbacks: Keras callbacks. They are called as `fit` calls them: `on_train_batch_end` with
            the step's terms, `on_test_end` with a validation's metrics, `on_epoch_end` with the
            means of the epoch and the latest validation's metrics as `val_gap` and so on, and
            `on_train_end` with these too, also after Ctrl-C. A resumed run begins with
            `on_train_begin`, in its current epoch; an interrupted epoch has no end. Nothing is
            called after an exception, as in `fit`.
        log_steps: A line is logged every `log_steps` steps.
        log_seconds: A line is also logged this many seconds after the last one.
        distribution: The replicas that train; `classifier` was made in its strategy's scope. None:
            one device.
        watched_batch: Validation clips that each validation attacks, see `OverfittingWatch`; None:
            nothing is attacked.
        teacher: See `AdversarialModel`.
        class_counts: See `build_objective`.
    """

    def __init__(
        self,
        config: RunConfig,
        schema: RecordSchema,
        classifier: VideoClassifier,
        files: Sequence[str],
        folder: RunFolder,
        measure: Measure,
        validate: Validate | None = None,
        eval_files: Sequence[str] = (),
        callbacks: Sequence[keras.callbacks.Callback] = (),
        log_steps: int = 100,
        log_seconds: float = 10.0,
        distribution: Distribution | None = None,
        watched_batch: Batch | None = None,
        teacher: Teacher | None = None,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.distribution = distribution or Distribution()
        self.state = TrainingState()
        self.ended_by: str | None = None
        self.model = _compiled_model(config, classifier, self.distribution, teacher, class_counts)
        self.callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, epochs=config.training.num_epochs, steps=None
        )

        def measure_logits(labels: Any, logits: tf.Tensor, **options: Any) -> dict[str, float]:
            return measure(labels, classifier.probabilities(logits).numpy(), **options)

        is_chief = self.distribution.is_chief
        self.log = TrainingLog(
            config, list(files), folder, measure_logits, log_steps, log_seconds, is_chief
        )
        watch = None
        if watched_batch is not None:
            bounds = PIXEL_RANGE if config.data.clips is not None else None
            watch = OverfittingWatch(
                self.model, config.objective, bounds, watched_batch, measure_logits
            )
        self._data = EpochData(config, schema, files, self.distribution)
        self._files = RunFiles(files, eval_files, folder, self.distribution)
        self._saved = SavedRun(folder, self.model, self.distribution)
        self._nonfinite = NonFiniteSteps(config.training, folder, is_chief)
        self._ending = Ending(config.training, self.model, self.distribution)
        self._validation = Validation(
            validate,
            watch,
            config.training,
            self.model,
            self._saved,
            self.distribution,
            self.callbacks,
            self.log,
        )
        self._step: TrainingStep | None = None
        self._rate = math.nan
        self._epoch_means = StepMeans()

    @property
    def seconds(self) -> float:
        """Duration of training so far, including the time before a resumption."""
        return self.log.seconds

    @property
    def classifier(self) -> VideoClassifier:
        """The model being trained."""
        return self.model.classifier

    def restore(self, accept_new_data: bool = False) -> bool:
        """Restores the newest complete checkpoint of the folder; returns False if there is none.

        Args:
            accept_new_data: Continue with other files than those of the checkpoint: in a fresh
                epoch, and, if they are for validation, with the best GAP forgotten.

        Raises:
            DamagedCheckpointsError: There are checkpoints, but none is complete.
            ConfigError: The checkpoint is of another model or of other files, or this worker does
                not see the chief's.
            WorkerLostError: Another worker ended.
        """
        restored = self._saved.restore()
        if restored is None:
            if self.distribution.is_chief:  # A run killed before its first checkpoint leaves lines.
                self.folder.forget_metrics_after(0, 0)
            self._files.record(self.state)
            return False
        self.state = restored
        self._files.compare(self.state, accept_new_data)
        if self.state.batch and not (self.state.ordered and self._data.is_ordered):
            logging.warning(
                "The order of the data is not that of a tf.data service: epoch %d begins again, of "
                "which %d batches had been seen.",
                self.state.epoch,
                self.state.batch,
            )
            self.state.batch = 0
        self.log.forget_after(self.state)
        return True

    def run(self) -> TrainingState:
        """Trains until the configuration, early stopping or a signal ends it.

        Returns:
            The final state. `state.finished(config)` says why training ended; it is None after a
            signal, when `state.interrupted` is true, and when a callback stopped training.
            `ended_by` always gives the reason, and `seconds` the duration.

        Raises:
            NonFiniteLossError: A step's loss or gradients were not finite, and such steps are not
                to be left out, or too many were. The newest checkpoint is older.
            WorkerLostError: Another worker ended or cannot be reached.
            BadRecordError: A training record does not fit the schema.
            TooManyBadRecordsError: More bad records were skipped than the configuration allows.
        """
        state = self.state
        self.log.start(state)
        self.callbacks.on_train_begin()
        with self._ending, self.log.bar():
            while not self._ending.is_due(state):
                self._run_epoch()
            self.log.write_steps()
            self.ended_by = self._ending.reason(state)
            unfinished = state.finished(self.config.training) is None
            state.interrupted = unfinished and self._ending.signalled
            if not self._ending.signalled and state.last_validation < state.step:
                self._validation.run(state)
            # Without any validation, now or in an earlier call, the last weights are the best.
            if self._validation.validate is None and state.best_gap is None:
                with averaged(self.model):
                    self._saved.save_best(state.step)
            self._saved.save(state)
            if not state.interrupted:
                self.log.fill_bar()
        self.callbacks.on_train_end(self._means_and_validation())
        self.log.end(self.ended_by)
        self._nonfinite.warn(state)
        return state

    def _run_epoch(self) -> None:
        """Trains to the end of the current epoch, or until the run ends."""
        state, training = self.state, self.config.training
        reader = self._data.reader(state)
        state.ordered = self._data.is_ordered
        if self._step is None:
            self._step = TrainingStep(
                self.model,
                self.distribution,
                as_pair(reader.dataset.element_spec),
                skip_nonfinite=training.on_nonfinite == "skip",
                jit_compile=training.jit_compile,
                own_batches=self._data.own_batches,
            )
        self.callbacks.on_epoch_begin(state.epoch)
        self._epoch_means = StepMeans()
        for batch, has_rows in self._data.batches(reader):
            self._epoch_means.add(self._run_step(batch, has_rows))
            if state.step % training.eval_steps == 0:
                self._validation.run(state)
            elif state.step % training.checkpoint_steps == 0:
                self.log.write_steps()
                self._saved.save(state)
            if self._ending.is_due(state):
                return
        self._end_epoch(reader)

    def _run_step(self, batch: Batch, has_rows: bool) -> StepResult:
        state = self.state
        self.callbacks.on_train_batch_begin(state.batch)
        rate = state.learning_rate(self.config.training)
        if rate != self._rate:
            self.model.optimizer.learning_rate = self._rate = rate
        result = self._step(as_pair(batch), **self._ending.requests(), has_rows=has_rows)
        self._ending.exchange(result)
        self._nonfinite.check(result, batch, state)
        state.step += 1
        state.batch += 1
        state.examples += result.num_examples
        self.callbacks.on_train_batch_end(state.batch - 1, result.terms)
        self.log.add_step(result, batch if has_rows else None, rate)
        return result

    def _end_epoch(self, reader: Reader) -> None:
        """Counts an epoch whose batches have all been seen, and validates where that is due."""
        state = self.state
        if state.batch == 0:
            raise no_examples(
                self._data.files, "train_data_pattern", self.config.data.segment_labels
            )
        if reader.skipped is not None and self.distribution.is_chief:
            self.log.record("bad_records", reader.skipped.as_dict())
            tqdm.write(f"epoch {state.epoch}: {reader.skipped.summary()}")
        steps_of_epoch = state.batch
        state.epoch += 1
        state.batch = 0
        self.log.end_epoch(steps_of_epoch)
        steps_per_epoch = state.step // state.epoch
        due = min(self.config.training.eval_steps, steps_per_epoch)
        if state.step - state.last_validation >= due:
            self._validation.run(state)
        self.callbacks.on_epoch_end(state.epoch - 1, self._means_and_validation())

    def _means_and_validation(self) -> dict[str, float]:
        """Returns the means of the epoch so far, and the figures of the latest validation."""
        return {**self._epoch_means.means(), **self._validation.logs}


def _compiled_model(
    config: RunConfig,
    classifier: VideoClassifier,
    distribution: Distribution,
    teacher: Teacher | None,
    class_counts: Sequence[int] | None,
) -> AdversarialModel:
    """Puts a classifier, the objective of its run and an optimizer, built, into one model."""
    with distribution.strategy.scope():
        model = AdversarialModel(
            classifier,
            build_objective(config.objective, config.data.clips is not None, class_counts),
            normalize=config.data.normalize,
            regularization_penalty=config.objective.regularization_penalty,
            micro_batch_size=config.training.micro_batch_size or None,
            teacher=teacher,
        )
        model.compile(optimizer=build_optimizer(config.training, distribution.num_replicas))
        model.optimizer.build(model.trainable_variables)
    return model
