"""The progress bar and the logs of a run in training."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tqdm import tqdm

import yt8m_gat
from yt8m_gat.config import RunConfig
from yt8m_gat.data import estimate_records
from yt8m_gat.data.parsing import Batch
from yt8m_gat.provenance import command_line, utc_now
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training.adversarial_model import LOSS_PARTS
from yt8m_gat.training.state import TrainingState
from yt8m_gat.training.step import StepResult
from yt8m_gat.training.step_log import Speed, StepMeans

Measure = Callable[..., dict[str, float]]


class TrainingLog:
    """The progress bar, `metrics.jsonl` and TensorBoard's events; only the chief writes them.

    A line of `metrics.jsonl` holds means over the steps since the line before. One is written at
    every `log_steps`th step, `log_seconds` after the line before, and at each validation, each
    checkpoint and the end, so that short runs have lines too, and a resumed run has those of an
    uninterrupted one.

    Args:
        config: The run.
        files: Training files, for the number of steps.
        folder: The run folder, where the lines and the events are kept.
        measure: Returns the metrics of labels and logits [B, C], including `gap`; takes the
            label weights by name.
        log_steps: A line is logged every `log_steps` steps.
        log_seconds: A line is also logged this many seconds after the last one.
        is_chief: Whether this worker shows the bar and writes.

    Attributes:
        seconds: Duration of training so far, including the time before a resumption.
    """

    def __init__(
        self,
        config: RunConfig,
        files: Sequence[str],
        folder: RunFolder,
        measure: Measure,
        log_steps: int,
        log_seconds: float,
        is_chief: bool,
    ) -> None:
        self.config = config
        self.files = files
        self.folder = folder
        self.measure = measure
        self.log_steps = log_steps
        self.log_seconds = log_seconds
        self.is_chief = is_chief
        self.seconds = 0.0
        self._state = TrainingState()
        self._rate = math.nan
        self._steps_per_epoch: int | None = None
        self._speed = Speed()
        self._since_logged, self._since_validation = StepMeans(), StepMeans()
        self._last_batch: dict[str, Any] = {}
        self._shown: dict[str, str] = {}

    def forget_after(self, state: TrainingState) -> None:
        """Drops the lines that a run resumed from `state` writes again; takes up its duration."""
        if self.is_chief:
            kept = self.folder.forget_metrics_after(state.step, state.epoch)
            times = [line.get("seconds") for line in kept]
            self.seconds = max((t for t in times if isinstance(t, int | float)), default=0.0)

    def start(self, state: TrainingState) -> None:
        """Starts writing.

        Args:
            state: The state of the run; it is read at each write.
        """
        self._state = state
        if self.is_chief:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self._writer = tf.summary.create_file_writer(str(self.folder.events))
            self.folder.append_metrics(
                {
                    "kind": "start",
                    "step": state.step,
                    "epoch": state.epoch,
                    "time": utc_now(),
                    "command": command_line(),
                    "version": yt8m_gat.__version__,
                }
            )
        self._clock = time.monotonic()

    @contextlib.contextmanager
    def bar(self) -> Iterator[None]:
        """Shows the progress bar."""
        with tqdm(
            total=self._total_steps(),
            initial=self._state.step,
            unit="step",
            desc="train",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10,
            disable=not self.is_chief,
        ) as self._bar:
            yield

    def fill_bar(self) -> None:
        """Fills the bar, since the run is finished: its total becomes the steps done."""
        self._bar.total = self._bar.n

    def add_step(self, result: StepResult, batch: Batch | None, rate: float) -> None:
        """Adds a step that has just ended, and writes a line if one is due.

        Args:
            result: The step's result.
            batch: Its batch; None: a stand-in.
            rate: Its learning rate.
        """
        self._rate = rate
        self._bar.update()
        self._speed.add(result.num_examples)
        self._since_logged.add(result)
        self._since_validation.add(result)
        if batch is not None and result.finite:
            self._last_batch = {
                "labels": batch["labels"],
                "label_weights": batch.get("label_weights"),
                "logits": result.logits,
            }
        if self._state.step % self.log_steps == 0 or self._speed.seconds >= self.log_seconds:
            self.write_steps()

    def write_steps(self) -> None:
        """Shows and writes the means over the steps since the line before, if there were any."""
        since, self._since_logged = self._since_logged, StepMeans()
        if since.num_steps == 0 or not self.is_chief:
            return
        self._count_time()
        means, speed = since.means(), self._speed.clips_per_second
        line = {
            "steps": since.num_steps,
            **{name: means.get(name) for name in ("loss", *LOSS_PARTS)},
            "batch_gap": self._batch_gap(),
            "learning_rate": self._rate,
            "examples_per_second": speed,
            "seconds": round(self.seconds, 1),
        }
        self.record("train", line)
        self.show(
            {
                "loss": _text(line["loss"], ".4g"),
                "gap": _text(line["batch_gap"], ".3f"),
                "clips/s": _text(speed, ".0f"),
            }
        )
        self._speed.restart()

    def loss_since_validation(self) -> str:
        """Returns the mean loss since the last call, in words."""
        since, self._since_validation = self._since_validation, StepMeans()
        loss = _text(since.means().get("loss"), ".4f")
        return f"; loss {loss} over {since.num_steps} step{'' if since.num_steps == 1 else 's'}"

    def restart_speed(self) -> None:
        """Excludes the time until now from the speed, for example a validation."""
        self._speed.restart()

    def end_epoch(self, num_steps: int) -> None:
        """Records that an epoch has `num_steps` steps, and updates the bar's total."""
        self._steps_per_epoch = num_steps
        self._bar.total = self._total_steps()

    def record(self, kind: str, values: dict[str, Any]) -> None:
        """Writes one line, and its figures to TensorBoard."""
        state = self._state
        self.folder.append_metrics(
            {"kind": kind, "step": state.step, "epoch": state.epoch, **values}
        )
        with self._writer.as_default(state.step):
            for name, value in values.items():
                if value is not None:
                    # In float64: a rate of 1e36 overflows to infinity instead of raising an error.
                    tf.summary.scalar(f"{kind}/{name}", tf.constant(value, tf.float64))
        self._writer.flush()

    def show(self, figures: dict[str, str]) -> None:
        """Shows figures beside the bar, replacing those of the same names, and the best GAP."""
        self._shown |= figures
        if self._state.best_gap is not None:
            self._shown["best"] = f"{self._state.best_gap:.4f}@{self._state.best_step}"
        self._bar.set_postfix(self._shown, refresh=False)

    def end(self, reason: str) -> None:
        """Writes the reason for the end and the duration of training."""
        self._count_time()
        if self.is_chief:
            self._writer.close()
            self.folder.append_metrics(
                {
                    "kind": "end",
                    "step": self._state.step,
                    "epoch": self._state.epoch,
                    "reason": reason,
                    "seconds": round(self.seconds, 1),
                    "best_gap": self._state.best_gap,
                    "best_step": self._state.best_step,
                }
            )

    def _count_time(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def _batch_gap(self) -> float | None:
        """Returns the last batch's GAP; with several workers, on the chief's rows, the first."""
        if not self._last_batch:
            return None
        logits, weights = self._last_batch["logits"], self._last_batch["label_weights"]
        num_rows = len(logits)
        return self.measure(
            self._last_batch["labels"].numpy()[:num_rows],
            logits,
            label_weights=None if weights is None else weights.numpy()[:num_rows],
        )["gap"]

    def _total_steps(self) -> int | None:
        """Returns the steps of the whole run if nothing ends it earlier; None if unknown.

        After the first epoch, all epochs are taken to have as many steps; before it the number is
        estimated from the files. The number of segments in them is not known beforehand.
        """
        state, training = self._state, self.config.training
        before = state.step - state.batch
        steps_per_epoch = self._steps_per_epoch
        if steps_per_epoch is None and state.epoch:
            steps_per_epoch = before / state.epoch
        elif steps_per_epoch is None and self.config.data.segment_labels:
            return training.max_steps
        elif steps_per_epoch is None:
            steps_per_epoch = math.ceil(estimate_records(self.files) / training.batch_size)
        total = before + round(steps_per_epoch * (training.num_epochs - state.epoch))
        return min(total, training.max_steps or total)


def _text(value: float | None, how: str) -> str:
    return "?" if value is None else format(value, how)
