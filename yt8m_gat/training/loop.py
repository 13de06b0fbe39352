"""The training loop of `train.py`: resumable at any step, validated by exact metrics."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from yt8m_gat.attacks import PIXEL_RANGE
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    Reader,
    RecordSchema,
    Shuffle,
    as_pair,
    no_examples,
)
from yt8m_gat.data.feature_augmentation import augment_features
from yt8m_gat.data.identity import file_changes, identify_files
from yt8m_gat.data.parsing import Batch
from yt8m_gat.models import VideoClassifier
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.adversarial_model import AdversarialModel
from yt8m_gat.training.data_service import read_through
from yt8m_gat.training.distribution import Distribution
from yt8m_gat.training.objective import build_objective
from yt8m_gat.training.optimizer import averaged_weights, build_optimizer
from yt8m_gat.training.overfitting_watch import OverfittingWatch
from yt8m_gat.training.state import TrainingState
from yt8m_gat.training.step import StepResult, TrainingStep
from yt8m_gat.training.step_log import StepMeans
from yt8m_gat.training.stop_request import StopRequest
from yt8m_gat.training.training_log import TrainingLog
from yt8m_gat.weights.checkpoints import Checkpoints, checkpointable, newest_checkpoint
from yt8m_gat.weights.files import checkpoint_prefix
from yt8m_gat.weights.hdf5 import save_weights

Validate = Callable[[], dict[str, float]]
Measure = Callable[..., dict[str, float]]

_REMEDY = "Lower --base_learning_rate, or set --clip_gradient_norm"


MAX_NONFINITE_IN_A_ROW = 10
"""Consecutive steps that `--on_nonfinite=skip` leaves out before it gives up."""


class NonFiniteLossError(ArithmeticError):
    """Loss, gradients or weights were not finite; names the step and, for a loss, the clips."""


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

    Averaged weights: with `ema_momentum`, each validation measures the averages (`gap` and so on),
    which early stopping compares and which are kept as the best weights, and beside them the raw
    weights (`raw_gap` and so on). The moving statistics of batch normalization are those of the raw
    weights in both. The checkpoint holds both kinds; `--checkpoint=last` reads the raw ones.

    Logging: see `TrainingLog`.

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
    ) -> None:
        self.config = config
        self.distribution = distribution or Distribution()
        self.schema = schema
        self.files = list(files)
        self.folder = folder
        self.validate = validate
        self.eval_files = list(eval_files)
        self.state = TrainingState()

        def measure_logits(labels: Any, logits: tf.Tensor, **options: Any) -> dict[str, float]:
            return measure(labels, classifier.probabilities(logits).numpy(), **options)

        self.log = TrainingLog(
            config,
            self.files,
            folder,
            measure_logits,
            log_steps,
            log_seconds,
            self.distribution.is_chief,
        )
        self.ended_by: str | None = None
        with self.distribution.strategy.scope():
            self.model = AdversarialModel(
                classifier,
                build_objective(config.objective, config.data.clips is not None),
                normalize=config.data.normalize,
                regularization_penalty=config.objective.regularization_penalty,
                micro_batch_size=config.training.micro_batch_size or None,
            )
            optimizer = build_optimizer(config.training, self.distribution.num_replicas)
            self.model.compile(optimizer=optimizer)
            self.model.optimizer.build(self.model.trainable_variables)
        self.callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, epochs=config.training.num_epochs, steps=None
        )

        self._watch = None
        if watched_batch is not None:
            bounds = PIXEL_RANGE if config.data.clips is not None else None
            self._watch = OverfittingWatch(
                self.model, config.objective, bounds, watched_batch, measure_logits
            )
        self._state_variable = tf.Variable(self.state.to_json(), dtype=tf.string, trainable=False)
        self._step: TrainingStep | None = None
        self._rate = math.nan
        self._signalled = self._stop_training = False
        self._epoch_means = StepMeans()
        self._validation_logs: dict[str, float] = {}
        self._checkpoints = Checkpoints(
            folder.checkpoints,
            {
                "classifier": checkpointable(classifier),
                "optimizer": checkpointable(self.model.optimizer),
                "state": self._state_variable,
            },
        )

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
        prefix = newest_checkpoint(self.folder.checkpoints) if self.distribution.is_chief else None
        step = -1 if prefix is None else int(prefix.rpartition("-")[2])
        step = int(self.distribution.agree(step))
        if step < 0:
            if self.distribution.is_chief:  # A run killed before its first checkpoint leaves lines.
                self.folder.forget_metrics_after(0, 0)
            self._identify_files()
            return False
        prefix = checkpoint_prefix(self.folder.checkpoints, step)
        if not tf.io.gfile.exists(prefix + ".index"):
            raise ConfigError(
                f"--train_dir={self.folder.path} must be a folder that all workers share. The "
                f"chief goes on at {prefix}, which is not there on this one"
            )
        self._checkpoints.read(prefix)
        self.state = TrainingState.from_json(self._state_variable.numpy().decode())
        self._check_files(accept_new_data)
        if self.state.batch and not (self.state.ordered and self._data_is_ordered):
            logging.warning(
                "The order of the data is not that of a tf.data service: epoch %d begins again, of "
                "which %d batches had been seen.",
                self.state.epoch,
                self.state.batch,
            )
            self.state.batch = 0
        if self.distribution.is_chief:
            kept = self.folder.forget_metrics_after(self.state.step, self.state.epoch)
            times = [line.get("seconds") for line in kept]
            self.log.seconds = max((t for t in times if isinstance(t, int | float)), default=0.0)
        return True

    def _check_files(self, accept_new_data: bool) -> None:
        """Rejects other files than those of the state, or begins a fresh epoch with them."""
        before, state = dataclasses.replace(self.state), self.state
        self._identify_files()
        changes = {
            "train_data_pattern": file_changes(before.train_files, state.train_files),
            "eval_data_pattern": file_changes(before.eval_files, state.eval_files),
        }
        # The chief decides, also for a worker that sees other files than it does.
        new = {flag: self.distribution.agree(float(bool(changes[flag]))) for flag in changes}
        named = [
            f"--{flag} names other files than the run in {self.folder.path} has used: "
            f"{changes[flag] or 'the chief sees others'}"
            for flag in changes
            if new[flag]
        ]
        if named and not accept_new_data:
            raise ConfigError(
                f"{'. '.join(named)}. Name the same files, wherever they lie now; or go on with "
                "these with --accept_new_data: in a fresh epoch, and, if they are for validation, "
                "with the best GAP so far forgotten"
            )
        if new["train_data_pattern"] and state.batch:
            state.epoch += 1
            state.batch = 0
            named.append(f"epoch {state.epoch} begins with these files")
        if new["eval_data_pattern"] and state.best_gap is not None:
            named.append(
                f"the best GAP, {state.best_gap:.4f} at step {state.best_step}, was of other files "
                f"and is forgotten; {self.folder.best_weights} stays until the next validation"
            )
            state.forget_best()
        if before.train_files is None:
            named.append(
                "the run, of an older version, does not say which files it has used: nobody can "
                "tell whether these are the same"
            )
        if named and self.distribution.is_chief:
            logging.warning("%s.", "; ".join(named))

    def _identify_files(self) -> None:
        """Records the files in the state; without validation, its earlier files stay recorded."""
        self.state.train_files = identify_files(self.files)
        if self.eval_files:
            self.state.eval_files = identify_files(self.eval_files)

    def save(self) -> None:
        """Writes a checkpoint, on the chief only.

        Raises:
            NonFiniteLossError: A weight is not finite.
            InUseError: The folder's lock was deleted, and another process trains there now.
        """
        if self.distribution.is_chief:
            self._check_weights()
            self.folder.put_back()
            self._state_variable.assign(self.state.to_json())
            self._checkpoints.write(self.state.step)

    def _check_weights(self) -> None:
        bad = [
            weight.path
            for weight in self.classifier.weights
            if not tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(weight)))
        ]
        if bad:
            raise NonFiniteLossError(
                f"after step {self.state.step} these weights are not finite: {', '.join(bad[:3])}"
                f"; nothing of it was saved. {_REMEDY}"
            )

    def run(self) -> TrainingState:
        """Trains until the configuration, early stopping or a signal ends it.

        Returns:
            The final state. `state.finished(config)` says why training ended; it is None after a
            signal or when a callback stopped training. `ended_by` always gives the reason, and
            `seconds` the duration.

        Raises:
            NonFiniteLossError: A step's loss or gradients were not finite, and such steps are not
                to be left out, or too many were. The newest checkpoint is older.
            WorkerLostError: Another worker ended or cannot be reached.
            BadRecordError: A training record does not fit the schema.
            TooManyBadRecordsError: More bad records were skipped than the configuration allows.
        """
        self.log.start(self.state)
        self.callbacks.on_train_begin()
        with StopRequest() as stop, self.log.bar():
            while not self._ended(stop):
                self._run_epoch(stop)
            self.log.write_steps()
            self.ended_by = self._why_ended(stop)
            if not self._signalled and self.state.last_validation < self.state.step:
                self._run_validation()
            # Without any validation, now or in an earlier call, the last weights are the best.
            if self.validate is None and self.state.best_gap is None:
                with self._averaged():
                    self._save_best()
            self.save()
            if self.state.finished(self.config.training) is not None:
                self.log.fill_bar()
        self.callbacks.on_train_end({**self._epoch_means.means(), **self._validation_logs})
        self.log.end(self.ended_by)
        if self.state.nonfinite:
            logging.warning(
                "%d of %d steps were left out: loss or gradients not finite; %s names their clips.",
                self.state.nonfinite,
                self.state.step,
                self.folder.metrics,
            )
        return self.state

    def _ended(self, stop: StopRequest) -> bool:
        if self.distribution.num_workers == 1:
            self._signalled = stop.signal_name is not None
            self._stop_training = self.model.stop_training
        # With several workers the last step has exchanged the flags: all must end together.
        return (
            self._signalled
            or self._stop_training
            or self.state.finished(self.config.training) is not None
        )

    def _why_ended(self, stop: StopRequest) -> str:
        if self._signalled:
            return f"stopped by {stop.signal_name or 'a signal to another worker'}"
        return self.state.finished(self.config.training) or "stopped by a callback"

    @property
    def _data_is_ordered(self) -> bool:
        return self.config.training.data_service is None

    @property
    def _own_batches(self) -> bool:
        """Whether each worker reads batches that no other one reads."""
        return self.distribution.num_workers > 1 and not self._data_is_ordered

    def _run_epoch(self, stop: StopRequest) -> None:
        state, training = self.state, self.config.training
        batch_size = training.batch_size
        if self._own_batches:
            batch_size //= self.distribution.num_workers
        reader = Reader(
            self.files,
            self.schema,
            batch_size,
            shuffle=Shuffle(
                seed=training.seed,
                epoch=state.epoch,
                buffer=training.shuffle_buffer,
                num_readers=training.num_readers,
            ),
            skip_batches=state.batch,
            # XLA would compile again for each length.
            fixed_num_frames=training.jit_compile,
            segments="rated" if self.config.data.segment_labels else None,
            on_bad_record=training.on_bad_record,
            max_bad_fraction=training.max_bad_fraction,
            check_files=self._data_is_ordered,
        )
        if training.augments_features:
            augmented = functools.partial(
                augment_features,
                seed=training.seed,
                epoch=state.epoch,
                least_share=training.temporal_crop,
                drop_rate=training.frame_dropout,
                mixup_alpha=training.mixup_alpha,
            )
            reader.dataset = reader.dataset.map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
        state.ordered = self._data_is_ordered
        if not self._data_is_ordered:
            reader.dataset = read_through(training.data_service, reader.dataset, self.distribution)
        if self._step is None:
            self._step = TrainingStep(
                self.model,
                self.distribution,
                as_pair(reader.dataset.element_spec),
                skip_nonfinite=training.on_nonfinite == "skip",
                jit_compile=training.jit_compile,
                own_batches=self._own_batches,
            )
        self.callbacks.on_epoch_begin(state.epoch)
        self._epoch_means = StepMeans()
        for batch, has_rows in self._together(iter(reader), reader.dataset.element_spec):
            self._epoch_means.add(self._run_step(batch, has_rows, stop))
            if state.step % training.eval_steps == 0:
                self._run_validation()
            elif state.step % training.checkpoint_steps == 0:
                self.log.write_steps()
                self.save()
            if self._ended(stop):
                return
        if state.batch == 0:
            raise no_examples(self.files, "train_data_pattern", self.config.data.segment_labels)
        if reader.skipped is not None and self.distribution.is_chief:
            self.log.record("bad_records", reader.skipped.as_dict())
            tqdm.write(f"epoch {state.epoch}: {reader.skipped.summary()}")
        steps_of_epoch = state.batch
        state.epoch += 1
        state.batch = 0
        self.log.end_epoch(steps_of_epoch)
        steps_per_epoch = state.step // state.epoch
        if state.step - state.last_validation >= min(training.eval_steps, steps_per_epoch):
            self._run_validation()
        self.callbacks.on_epoch_end(
            state.epoch - 1, {**self._epoch_means.means(), **self._validation_logs}
        )

    def _together(
        self, batches: Iterator[Batch], spec: dict[str, Any]
    ) -> Iterator[tuple[Batch, bool]]:
        """Yields the batches with True, then stand-ins with False while another worker has more."""
        if not self._own_batches:
            yield from ((batch, True) for batch in batches)
            return
        while True:
            batch = next(batches, None)
            if not self.distribution.any(batch is not None):
                return
            if batch is not None:
                yield batch, True
            else:
                yield tf.nest.map_structure(_stand_in, spec), False

    def _run_step(self, batch: Batch, has_rows: bool, stop: StopRequest) -> StepResult:
        state, training = self.state, self.config.training
        self.callbacks.on_train_batch_begin(state.batch)
        rate = state.learning_rate(training)
        if rate != self._rate:
            self.model.optimizer.learning_rate = self._rate = rate
        result = self._step(
            as_pair(batch),
            stop=stop.signal_name is not None,
            stop_training=bool(self.model.stop_training),
            has_rows=has_rows,
        )
        if self.distribution.num_workers > 1:
            self._signalled, self._stop_training = result.stop, result.stop_training
        self._check_finite(result, batch)
        state.step += 1
        state.batch += 1
        state.examples += result.num_examples
        self.callbacks.on_train_batch_end(state.batch - 1, result.terms)
        self.log.add_step(result, batch if has_rows else None, rate)
        return result

    def _check_finite(self, result: StepResult, batch: Batch) -> None:
        """Raises at, or counts, a step whose loss or gradients are not finite."""
        state = self.state
        if result.finite:
            state.nonfinite_in_a_row = 0
            return
        ids = [video_id.decode(errors="replace") for video_id in batch["video_id"].numpy()]
        loss = result.terms["loss"]
        reason = "gradients are not finite" if math.isfinite(loss) else f"loss is {loss}"
        reason = f"at step {state.step + 1} the {reason}; nothing of it was saved"
        clips = f"Clips: {', '.join(ids)}"
        if self.config.training.on_nonfinite == "stop":
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
        if self.distribution.is_chief:
            self.folder.append_metrics(
                {
                    "kind": "nonfinite",
                    "step": state.step + 1,
                    "epoch": state.epoch,
                    "loss": loss if math.isfinite(loss) else None,
                    "video_ids": ids,
                }
            )

    def _run_validation(self) -> None:
        state = self.state
        self.log.write_steps()
        loss = self.log.loss_since_validation()
        if self.validate is None:
            state.last_validation = state.step
            if self.distribution.is_chief:
                tqdm.write(f"step {state.step}: no validation{loss}")
            return
        metrics = {}
        self.callbacks.on_test_begin()
        if self.distribution.is_chief:
            self._check_weights()
            if self._watch is not None:
                metrics |= self._watched()
        with self._averaged() as averaged:
            if self.distribution.is_chief:
                self._check_weights()
                metrics |= self.validate()
            # All workers need the same figure: early stopping and the rate depend on it.
            gap = self.distribution.agree(metrics.get("gap", 0.0))
            if state.record_validation(gap, self.config.training):
                self._save_best()
        if averaged and self.distribution.is_chief:
            metrics |= {f"raw_{name}": value for name, value in self.validate().items()}
        logs = {**metrics, "gap": gap}
        self.callbacks.on_test_end(logs)
        self._validation_logs = {f"val_{name}": value for name, value in logs.items()}
        if self.distribution.is_chief:
            self.log.record("validation", metrics)
            of = f" of averaged weights, {metrics['raw_gap']:.4f} of raw" if averaged else ""
            tqdm.write(
                f"step {state.step}: validation GAP {gap:.4f}{of}"
                f" (best {state.best_gap:.4f} at step {state.best_step}){loss}"
            )
            self.log.show({})
        self.save()
        self.log.restart_speed()

    def _watched(self) -> dict[str, float]:
        """Returns the figures of the watched batch, and warns when only PGD breaks the model."""
        figures, state = self._watch(), self.state
        best = state.best_pgd_gap
        if state.record_watch(figures["fgm_gap"], figures["pgd_gap"]):
            logging.warning(
                "Catastrophic overfitting at step %d: under PGD the GAP of %d validation clips is "
                "%.3f, after %.3f before; under a single step it is %.3f. The model resists single "
                "steps only; train with a lower --epsilon, or with --adversarial=pgd or trades.",
                *(state.step, self._watch.num_clips, figures["pgd_gap"], best, figures["fgm_gap"]),
            )
        return figures

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[bool]:
        """Gives the classifier its averaged weights for a while; yields whether there are any."""
        averages = averaged_weights(self.model.optimizer)
        if averages is None:
            yield False
            return
        variables = self.model.trainable_variables
        raw = [tf.identity(tf.convert_to_tensor(variable)) for variable in variables]
        try:
            for variable, average in zip(variables, averages, strict=True):
                variable.assign(average)
            yield True
        finally:
            for variable, value in zip(variables, raw, strict=True):
                variable.assign(value)

    def _save_best(self) -> None:
        if self.distribution.is_chief:
            self._check_weights()
            self.folder.put_back()
            save_weights(self.classifier, self.folder.best_weights, self.state.step)


def _stand_in(spec: tf.TensorSpec) -> tf.Tensor:
    """Makes a batch of one row, which only stands for a batch and has weight 0."""
    shape = [1 if size is None else size for size in spec.shape]
    value = "" if spec.dtype == tf.string else 1
    return tf.fill(shape, tf.constant(value, spec.dtype))
