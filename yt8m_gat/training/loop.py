"""The training loop of `train.py`: resumable at any step, validated by exact metrics."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from yt8m_gat.config import RunConfig
from yt8m_gat.data import (
    RecordSchema,
    as_pair,
    estimate_records,
    iterate,
    make_dataset,
    new_skipped,
)
from yt8m_gat.data.parsing import Batch
from yt8m_gat.disk import writing
from yt8m_gat.models import VideoClassifier, checkpointable, save_weights
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.adversarial_model import AdversarialModel, StepTerms
from yt8m_gat.training.objective import build_objective
from yt8m_gat.training.optimizer import build_optimizer
from yt8m_gat.training.state import TrainingState
from yt8m_gat.training.stop_request import StopRequest

Validate = Callable[[], dict[str, float]]
Measure = Callable[..., dict[str, float]]


class NonFiniteLossError(ArithmeticError):
    """The loss of a step was not finite; names the step and the clips."""


class Trainer:
    """Trains one classifier in one run folder.

    The loop is short and its own, because `fit` can neither resume inside an epoch nor run on
    several workers with Keras 3.15: the model's step in one `tf.function`, Keras' callbacks
    through `CallbackList`, all state in one `tf.train.Checkpoint`.

    Resuming: the order of the data is a function of seed and epoch, so a resumed run skips what
    it has seen. Model, optimizer, the layers' random state and `TrainingState` come from the
    newest checkpoint.

    Args:
        config: The run.
        schema: What the records hold.
        classifier: A fresh classifier.
        files: Training files.
        folder: Where everything is kept.
        measure: Gives the metrics of labels and probabilities [B, C], `gap` among them, with
            `label_weights` [B, C] or None by that name; shown for a batch now and then.
        validate: Gives the metrics of the classifier as it stands, `gap` among them; None trains
            without validation, and the last weights are the best.
        callbacks: Keras callbacks, called with the usual methods.
        log_seconds: Least time between two logged steps.
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
        callbacks: Sequence[keras.callbacks.Callback] = (),
        log_seconds: float = 5.0,
    ) -> None:
        self.config = config
        self.schema = schema
        self.files = list(files)
        self.folder = folder
        self.measure = measure
        self.validate = validate
        self.log_seconds = log_seconds
        self.state = TrainingState()
        self.model = AdversarialModel(
            classifier,
            build_objective(config.objective),
            normalize=config.data.normalize,
            regularization_penalty=config.objective.regularization_penalty,
        )
        self.model.compile(optimizer=build_optimizer(config.training))
        self.model.optimizer.build(self.model.trainable_variables)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.model)

        self._state_variable = tf.Variable(self.state.to_json(), dtype=tf.string, trainable=False)
        self._step: Callable[..., StepTerms] | None = None
        self._rate = math.nan
        self._logged, self._logged_examples = time.monotonic(), 0
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                classifier=checkpointable(classifier),
                optimizer=checkpointable(self.model.optimizer),
                state=self._state_variable,
            ),
            str(folder.checkpoints),
            max_to_keep=3,
        )

    @property
    def classifier(self) -> VideoClassifier:
        """The model being trained."""
        return self.model.classifier

    def restore(self) -> bool:
        """Takes up the newest checkpoint of the folder; False when there is none."""
        path = self._manager.latest_checkpoint
        if path is None:
            return False
        self._manager.checkpoint.restore(path).assert_consumed()
        self.state = TrainingState.from_json(self._state_variable.numpy().decode())
        self.folder.forget_metrics_after(self.state.step)
        return True

    def save(self) -> None:
        """Writes a checkpoint (TensorFlow writes aside, then renames)."""
        self._state_variable.assign(self.state.to_json())
        with writing(self.folder.checkpoints, tf.errors.OpError):
            self._manager.save(checkpoint_number=self.state.step)

    def run(self) -> TrainingState:
        """Trains until the configuration, early stopping or a signal ends it.

        Returns:
            The final state. `state.finished(config)` says why training ended; it is None after a
            signal and when a callback asked to stop.

        Raises:
            NonFiniteLossError: A step's loss was not finite. The newest checkpoint is older.
            BadRecordError: A training record is not what the schema says.
            TooManyBadRecordsError: More of them were left out than the configuration allows.
        """
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self._writer = tf.summary.create_file_writer(str(self.folder.events))
        self.callbacks.on_train_begin()
        with StopRequest() as stop, self._progress() as self._bar:
            while not self._ended(stop):
                self._run_epoch(stop)
            if stop.signal_name is None and self.state.last_validation < self.state.step:
                self._run_validation()
            if self.validate is None:
                self._save_best()
            self.save()
        self.callbacks.on_train_end()
        self._writer.close()
        if stop.signal_name is not None:
            logging.warning(
                "Stopped by %s after step %d; the state is saved. Run the same command again to "
                "go on.",
                stop.signal_name,
                self.state.step,
            )
        return self.state

    def _ended(self, stop: StopRequest) -> bool:
        return (
            stop.signal_name is not None
            or self.model.stop_training
            or self.state.finished(self.config.training) is not None
        )

    def _run_epoch(self, stop: StopRequest) -> None:
        state, training = self.state, self.config.training
        skipped = new_skipped(training.on_bad_record, training.max_bad_fraction)
        dataset = make_dataset(
            self.files,
            self.schema,
            training.batch_size,
            shuffle=True,
            seed=training.seed,
            epoch=state.epoch,
            shuffle_buffer=training.shuffle_buffer,
            num_readers=training.num_readers,
            skip_batches=state.batch,
            # XLA compiles anew for each length.
            fixed_num_frames=training.jit_compile,
            segments="rated" if self.config.data.segment_labels else None,
            skipped=skipped,
        )
        if self._step is None:
            # One trace for clips of any length.
            self._step = tf.function(
                self.model.optimize,
                input_signature=[as_pair(dataset.element_spec)],
                jit_compile=training.jit_compile,
                autograph=False,
            )
        self.callbacks.on_epoch_begin(state.epoch)
        self.model.reset_metrics()
        logs: dict[str, float] = {}
        for batch in iterate(dataset, self.files, skipped):
            logs = self._run_step(batch)
            if state.step % training.eval_steps == 0:
                self._run_validation()
            elif state.step % training.checkpoint_steps == 0:
                self.save()
            if self._ended(stop):
                return
        if state.batch == 0:
            raise ValueError(
                "--train_data_pattern matches files that hold no records"
                + (" with rated segments: " if self.config.data.segment_labels else ": ")
                + ", ".join(self.files[:3])
            )
        if skipped is not None:
            self._record("bad_records", skipped.as_dict())
            tqdm.write(f"epoch {state.epoch}: {skipped.summary()}")
        state.epoch += 1
        state.batch = 0
        steps_per_epoch = state.step // state.epoch
        if state.step - state.last_validation >= min(training.eval_steps, steps_per_epoch):
            self._run_validation()
        self.callbacks.on_epoch_end(state.epoch - 1, logs)

    def _run_step(self, batch: dict[str, Any]) -> dict[str, float]:
        state, training = self.state, self.config.training
        self.callbacks.on_train_batch_begin(state.batch)
        rate = state.learning_rate(training)
        if rate != self._rate:
            self.model.optimizer.learning_rate = self._rate = rate
        terms = self._step(as_pair(batch))
        logs = {name: float(value) for name, value in terms._asdict().items() if value.ndim == 0}
        if not math.isfinite(logs["total"]):
            ids = [video_id.decode(errors="replace") for video_id in batch["video_id"].numpy()]
            raise NonFiniteLossError(
                f"the loss of step {state.step + 1} is {logs['total']}; nothing of it was saved. "
                f"Lower --base_learning_rate, or set --clip_gradient_norm. Clips: {', '.join(ids)}"
            )
        state.step += 1
        state.batch += 1
        state.examples += int(batch["labels"].shape[0])
        self.callbacks.on_train_batch_end(state.batch - 1, logs)
        self._bar.update()
        if time.monotonic() - self._logged >= self.log_seconds:
            self._log_step(logs, batch, terms.logits)
        return logs

    def _log_step(self, logs: dict[str, float], batch: Batch, logits: tf.Tensor) -> None:
        """Shows and keeps the figures of one step, its batch's own GAP among them."""
        state, now = self.state, time.monotonic()
        rate = (state.examples - self._logged_examples) / (now - self._logged)
        self._logged, self._logged_examples = now, state.examples
        weights = batch.get("label_weights")
        batch_gap = self.measure(
            batch["labels"].numpy(),
            tf.sigmoid(logits).numpy(),
            label_weights=None if weights is None else weights.numpy(),
        )["gap"]
        record = {
            **{("loss" if name == "total" else name): value for name, value in logs.items()},
            "batch_gap": batch_gap,
            "learning_rate": self._rate,
            "examples_per_second": rate,
        }
        self._record("train", record)
        shown = {"loss": f"{logs['total']:.4g}", "gap": f"{batch_gap:.3f}"}
        if state.best_gap is not None:
            shown["best"] = f"{state.best_gap:.4f}@{state.best_step}"
        shown["clips/s"] = f"{rate:.0f}"
        self._bar.set_postfix(shown, refresh=False)

    def _run_validation(self) -> None:
        if self.validate is None:
            self.state.last_validation = self.state.step
            return
        metrics = self.validate()
        best = self.state.record_validation(metrics["gap"], self.config.training)
        if best:
            self._save_best()
        self._record("validation", metrics)
        tqdm.write(
            f"step {self.state.step}: validation GAP {metrics['gap']:.4f}"
            f" (best {self.state.best_gap:.4f} at step {self.state.best_step})"
        )
        self.save()
        self._logged, self._logged_examples = time.monotonic(), self.state.examples

    def _save_best(self) -> None:
        save_weights(self.classifier, self.folder.best_weights)

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        state = self.state
        self.folder.append_metrics(
            {"kind": kind, "step": state.step, "epoch": state.epoch, **values}
        )
        with self._writer.as_default(state.step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(f"{kind}/{name}", value)
        self._writer.flush()

    def _progress(self) -> tqdm:
        """A bar over all steps; without `--max_steps` their number is estimated from the files.

        How many segments the files hold is not known beforehand.
        """
        training = self.config.training
        total = training.max_steps
        if not self.config.data.segment_labels:
            steps = math.ceil(estimate_records(self.files) / training.batch_size)
            total = min(steps * training.num_epochs, total or sys.maxsize)
        return tqdm(
            total=total,
            initial=self.state.step,
            unit="step",
            desc="train",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
