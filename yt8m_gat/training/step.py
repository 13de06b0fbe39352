"""One training step as TensorFlow runs it, on one replica or many."""

import functools
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from yt8m_gat.training.adversarial_model import LOSS_PARTS, AdversarialModel
from yt8m_gat.training.distribution import Distribution
from yt8m_gat.training.step_update import Replica, StepUpdate

_TERMS = ("loss", *LOSS_PARTS)


class StepResult(NamedTuple):
    """The result of a step; all but the logits is the same on every worker.

    Attributes:
        terms: `loss` (the objective), `clean_loss`, `adversarial_loss` and `penalty`: means over
            the batch.
        finite: Whether loss and gradients were finite.
        stop: Whether any worker got a signal to stop.
        stop_training: Whether a callback of any worker asked to stop training.
        num_examples: Rows of the batch, over all workers.
        logits: Logits of this worker's rows, [B', C].
    """

    terms: dict[str, float]
    finite: bool
    stop: bool
    stop_training: bool
    num_examples: int
    logits: tf.Tensor


class TrainingStep:
    """The model's step on all replicas, each with its rows of the batch.

    Every worker gets the same batch, and replica i of N computes rows i B / N to
    (i + 1) B / N of it. Its terms and gradients are multiplied by its share of the rows, so that
    their sum equals that of one machine, for any sizes. A replica without rows computes a row of
    another replica with share 0.

    Moving averages are the replicas' mean, weighted by their shares (each normalizes by its own
    rows, as Keras does); seeds are replica 0's.

    Args:
        model: The model to train, created and compiled in the strategy's scope.
        distribution: The replicas.
        batch_spec: `element_spec` of the batches, as `yt8m_gat.data.as_pair` returns them.
        skip_nonfinite: Change nothing in a step whose loss or gradients are not finite. The
            gradients then leave the graph before they are applied.
        jit_compile: Compile with XLA.
        own_batches: Every worker has its own batches, which together form the batch; its replicas
            share the rows of these.
    """

    def __init__(
        self,
        model: AdversarialModel,
        distribution: Distribution,
        batch_spec: Any,
        skip_nonfinite: bool = False,
        jit_compile: bool = False,
        own_batches: bool = False,
    ) -> None:
        self.model = model
        self.distribution = distribution
        self.skip_nonfinite = skip_nonfinite
        self.own_batches = own_batches
        optimizer = model.optimizer
        # Clipping and loss scaling need the sum of the replicas' gradients; Keras adds them later.
        self._sum_first = distribution.num_replicas > 1 and (
            optimizer.clipnorm is not None
            or optimizer.global_clipnorm is not None
            or isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        )
        traced = functools.partial(
            tf.function,
            # One trace for clips of any length.
            input_signature=[batch_spec, tf.TensorSpec([3], tf.float32)],
            jit_compile=jit_compile,
            autograph=False,
        )
        self._update = traced(self._compute)
        self._update_and_apply = traced(self._compute_and_apply)
        self._apply = tf.function(self._apply_all, jit_compile=jit_compile, autograph=False)

    def __call__(
        self, data: Any, stop: bool = False, stop_training: bool = False, has_rows: bool = True
    ) -> StepResult:
        """Takes one step; all workers have to call it.

        Args:
            data: The batch.
            stop: Whether this worker got a signal.
            stop_training: Whether one of its callbacks asked to stop training.
            has_rows: With `own_batches`: False if `data` only stands for a batch.

        Raises:
            WorkerLostError: Another worker did not take part.
        """
        flags = tf.constant([stop, stop_training, has_rows], tf.float32)
        with self.distribution.lost_workers():
            if self.skip_nonfinite:
                gradients, state, figures, logits = self._update(data, flags)
            else:
                figures, logits = self._update_and_apply(data, flags)
            *terms, nonfinite, stops, ends, rows = figures.numpy().tolist()
            if self.skip_nonfinite and not nonfinite:
                self._apply(gradients, state)
        return StepResult(
            terms=dict(zip(_TERMS, terms, strict=True)),
            finite=not nonfinite,
            stop=stops > 0,
            stop_training=ends > 0,
            num_examples=round(rows),
            logits=logits,
        )

    def _compute(self, data: Any, flags: tf.Tensor) -> tuple[Any, ...]:
        gradients, state, figures, logits = self.distribution.strategy.run(
            self._on_replica, args=(data, flags)
        )
        return gradients, self._first(state), self._first(figures), self._rows_of(logits)

    def _compute_and_apply(self, data: Any, flags: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def on_replica(data: Any, flags: tf.Tensor) -> tuple[Any, ...]:
            gradients, *others = self._on_replica(data, flags)
            self._apply_gradients(gradients)
            return tuple(others)

        state, figures, logits = self.distribution.strategy.run(on_replica, args=(data, flags))
        self.model.assign_state(self._first(state))
        return self._first(figures), self._rows_of(logits)

    def _apply_all(self, gradients: Any, state: Any) -> None:
        self.distribution.strategy.run(self._apply_gradients, args=(gradients,))
        self.model.assign_state(state)

    def _apply_gradients(self, gradients: list[tf.Tensor | None]) -> None:
        self.model.optimizer.apply(gradients, self.model.trainable_variables)

    def _first(self, values: Any) -> Any:
        """Takes the first of values that are the same on all replicas."""
        local = self.distribution.strategy.experimental_local_results
        return tf.nest.map_structure(lambda value: local(value)[0], values)

    def _rows_of(self, logits: Any) -> tf.Tensor:
        return tf.concat(self.distribution.strategy.experimental_local_results(logits), axis=0)

    def _on_replica(self, data: Any, flags: tf.Tensor) -> tuple[Any, ...]:
        """Returns gradients to apply, state, figures (alike on all replicas), and its logits."""
        context = tf.distribute.get_replica_context()
        if self.distribution.num_replicas == 1:
            update = self.model.update_of(data)
            num_rows = tf.shape(data[1])[0]
            figures = self._figures(update, flags, num_rows)
            return update.gradients, update.state, figures, update.terms.logits

        def add(values: Any) -> Any:
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        replica, rows, num_rows = self._part(data, flags, context.replica_id_in_sync_group, add)
        update = self.model.update_of(rows, replica)
        gradients, state = update.gradients, update.state
        if self._sum_first:
            # Keras will add these N equal gradients.
            gradients = _map_present(
                lambda values: [value / replica.count for value in add(values)], gradients
            )
        averages = [
            replica.share * value if value is not None and value.dtype.is_floating else None
            for value in state
        ]
        averages = _map_present(add, averages)
        state = [old if new is None else new for old, new in zip(state, averages, strict=True)]
        # The flags count once per worker, not once per replica.
        first = tf.equal(replica.index % self._num_local, 0)
        flags = tf.where(first, flags, tf.zeros_like(flags))
        figures = add(self._figures(update, flags, num_rows))
        return gradients, state, figures, update.terms.logits[:num_rows]

    @property
    def _num_local(self) -> int:
        return self.distribution.num_replicas // self.distribution.num_workers

    def _part(
        self, data: Any, flags: tf.Tensor, index: Any, add: Any
    ) -> tuple[Replica, Any, tf.Tensor]:
        """Returns this replica, its rows (at least one), and how many of them count."""
        count = self.distribution.num_replicas
        position, parts = index, count
        if self.own_batches:
            position, parts = index % self._num_local, self._num_local
        with tf.device("CPU:0"):  # Otherwise each device would get the whole batch.
            total = tf.shape(data[1])[0]
            start, stop = position * total // parts, (position + 1) * total // parts
            num_rows = stop - start
            first = tf.minimum(start, total - 1)
            last = tf.maximum(stop, first + 1)
            rows = tf.nest.map_structure(lambda value: value[first:last], data)
        if self.own_batches:
            num_rows *= tf.cast(flags[2], tf.int32)
            total = add(num_rows)
        share = tf.cast(num_rows, tf.float32) / tf.cast(total, tf.float32)
        return Replica(index, count, share), rows, num_rows

    @staticmethod
    def _figures(update: StepUpdate, flags: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
        terms = update.terms[: len(_TERMS)]
        parts = [*terms, tf.logical_not(update.finite), flags[0], flags[1], num_rows]
        return tf.stack([tf.cast(part, tf.float32) for part in parts])


def _map_present(function: Any, values: list[Any]) -> list[Any]:
    """Applies `function` to the list of values that are not None, and leaves None in place."""
    present = [value for value in values if value is not None]
    changed = iter(function(present) if present else ())
    return [None if value is None else next(changed) for value in values]
