"""One device, several devices of one machine, or several machines (`--distribute`)."""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.untrusted import excerpt, fits, parse_json

_EXAMPLE = (
    """TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]}, """
    """"task": {"type": "worker", "index": 0}}'"""
)


class WorkerLostError(RuntimeError):
    """Another worker ended or cannot be reached, so this one cannot start or continue."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The replicas that train together.

    Attributes:
        strategy: TensorFlow's strategy; the default one for a single device.
        num_workers: Number of processes.
        worker: Number of this process; only 0, the chief, writes the run folder.
    """

    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    num_workers: int = 1
    worker: int = 0

    @property
    def num_replicas(self) -> int:
        """The number of devices of all workers together."""
        return self.strategy.num_replicas_in_sync

    @property
    def is_chief(self) -> bool:
        """Whether this process writes, validates and decides."""
        return self.worker == 0

    def agree(self, value: float) -> float:
        """Returns the chief's `value` on every worker. All have to call it; it is also a barrier.

        Raises:
            WorkerLostError: A worker did not respond.
        """
        return self._sum(value if self.is_chief else 0.0)

    def any(self, value: bool) -> bool:
        """Checks whether `value` is true on any worker; all have to call it.

        Raises:
            WorkerLostError: A worker did not respond.
        """
        return self._sum(float(value)) > 0

    def _sum(self, value: float) -> float:
        if self.num_workers == 1:
            return value
        with self.lost_workers():
            return float(self._reduce(tf.constant(value, tf.float64)))

    @tf.function(autograph=False)
    def _reduce(self, value: tf.Tensor) -> tf.Tensor:
        local = self.num_replicas // self.num_workers

        def on_replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group % local, 0)
            mine = tf.where(first, value, tf.zeros_like(value))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        return self.strategy.experimental_local_results(self.strategy.run(on_replica))[0]

    @contextlib.contextmanager
    def lost_workers(self) -> Iterator[None]:
        """Turns TensorFlow's errors inside into `WorkerLostError`, if there are other workers.

        Raises:
            WorkerLostError: TensorFlow reported an error.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.num_workers == 1:
                raise
            raise WorkerLostError(
                "another worker has ended or cannot be reached: see its own output for why. Start "
                "all workers again with the same commands; they go on at the newest checkpoint. "
                f"(TensorFlow: {_reason(error)})"
            ) from error


def _reason(error: tf.errors.OpError) -> str:
    """Returns the line with the cause; an error inside a graph begins with its location."""
    lines = [line.strip() for line in error.message.splitlines()]
    return next((line for line in lines if "aborted by" in line), type(error).__name__)


def build_distribution(name: str, jit_compile: bool = False) -> Distribution:
    """Builds what `--distribute=name` names; must precede any other use of TensorFlow.

    Args:
        name: `none`, `mirrored` (all GPUs that TensorFlow sees, else its logical CPUs), or
            `multi_worker` (the machines in the environment variable TF_CONFIG, all their GPUs).
        jit_compile: Whether the step is to be compiled with XLA.

    Raises:
        ConfigError: TF_CONFIG is missing or wrong, or XLA does not support several devices.
        WorkerLostError: Not all workers connected.
    """
    if name == "none":
        return Distribution()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        distribution = Distribution(_mirrored(tuple(device.name for device in devices)))
    else:
        cluster, job, index = read_tf_config(os.environ.get("TF_CONFIG"))
        workers = [("chief", 0)] * len(cluster.get("chief", ()))
        workers += [("worker", number) for number in range(len(cluster.get("worker", ())))]
        if (job, index) not in workers:
            raise ConfigError(
                f"TF_CONFIG's task must be one of its cluster's workers. Received: {job} {index} "
                f"of {cluster}"
            )
        print(
            f"listening at {cluster[job][index]}, and on all other addresses of this machine, "
            "without password or encryption: that port must be reachable only for the other "
            "workers (docs/DISTRIBUTED.md)",
            file=sys.stderr,
            flush=True,
        )
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise WorkerLostError(
                f"the workers of TF_CONFIG did not come together: {cluster}. All have to be "
                "started within minutes of each other, each at its own address, on a free port. "
                f"(TensorFlow: {str(error.message).partition(chr(10))[0]})"
            ) from error
        distribution = Distribution(strategy, len(workers), workers.index((job, index)))
    if jit_compile and distribution.num_replicas > 1:
        raise ConfigError(
            "--jit_compile works only on one device: XLA does not compile the exchange between "
            f"devices. Received: --distribute={name} with {distribution.num_replicas} devices; "
            "remove one of the two"
        )
    return distribution


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """Makes the strategy of some devices, once: each counts its exchanges from the same number, so
    that those of a second one in a process would be taken for the first one's."""
    return tf.distribute.MirroredStrategy(list(devices))


def read_tf_config(text: str | None) -> tuple[dict[str, Any], str, int]:
    """Returns the cluster, and the job and index of this process.

    Raises:
        ConfigError: `text` is empty, or is no cluster with a task.
    """
    if not text:
        raise ConfigError(
            "--distribute=multi_worker needs the environment variable TF_CONFIG, on each machine "
            f"with an index of its own, for example {_EXAMPLE}"
        )
    try:
        value = parse_json(text)
        cluster, task = value["cluster"], value["task"]
        job, index = task["type"], int(task["index"])
        if not fits(cluster, {str: [str]}):
            raise TypeError("its cluster's values are no lists of addresses")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"TF_CONFIG does not read as a cluster ({type(error).__name__}: {error}). It must be "
            f"like {_EXAMPLE}. Received: {excerpt(text)}"
        ) from error
    others = sorted(set(cluster) - {"chief", "worker"})
    if others or len(cluster.get("chief", ())) > 1:
        raise ConfigError(
            f"TF_CONFIG's cluster must have only workers and at most one chief. Received: {cluster}"
        )
    return cluster, job, index
