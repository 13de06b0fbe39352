"""Input from a tf.data service, in which other processes read, shuffle and batch."""

import datetime
import random
import socket
import sys
import threading
import time

import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.training.distribution import Distribution

SECONDS_TO_ANSWER = 30.0
"""How long dispatcher and workers may take: a job may start them together with the training."""

SECONDS_OF_SILENCE = 5.0
"""After so many seconds without an element of a worker, a line says what is waited for."""

_SECONDS_TO_CONNECT = 5.0


def wait_for_service(address: str) -> None:
    """Returns when a worker of the service has sent an element.

    TensorFlow waits for dispatcher and workers without a word, and without an end.

    Args:
        address: Address of the dispatcher, `grpc://host:port`.

    Raises:
        ConfigError: There is no such host, nobody answers there in time, or no worker sends
            anything in time.
    """
    wait_for_dispatcher(address)
    _wait_for_worker(address)


def wait_for_dispatcher(address: str) -> None:
    """Returns when the dispatcher accepts a connection.

    The first failure is told at once.

    Args:
        address: Its address, `grpc://host:port`.

    Raises:
        ConfigError: There is no such host, or nobody answers there in time.
    """
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    begin = time.monotonic()
    told = False
    while True:
        try:
            place = (host.strip("[]"), int(port))  # IPv6 has brackets.
            socket.create_connection(place, timeout=_SECONDS_TO_CONNECT).close()
            return
        except (OSError, OverflowError) as error:
            waited = time.monotonic() - begin
            retries = isinstance(error, OSError) and not isinstance(error, socket.gaierror)
            if not retries or waited >= SECONDS_TO_ANSWER:
                raise ConfigError(
                    f"--data_service={address} must be the address of a running dispatcher. It "
                    f"cannot be reached: {error}. Start the dispatcher there "
                    "(docs/DISTRIBUTED.md), correct the address, or leave out --data_service"
                ) from error
            if not told:
                print(
                    f"waiting up to {SECONDS_TO_ANSWER:g} s, since {_now()}, for the tf.data "
                    f"service at {address}: {error}",
                    file=sys.stderr,
                    flush=True,
                )
                told = True
        time.sleep(min(1.0, SECONDS_TO_ANSWER))


def _now() -> str:
    return f"{datetime.datetime.now():%H:%M:%S}"


def _wait_for_worker(address: str) -> None:
    """Reads one element through the service.

    Raises:
        ConfigError: None comes in time, or the service refuses.
    """
    begin, answered, errors = _now(), threading.Event(), []

    def read() -> None:
        try:
            list(_distributed(address, tf.data.Dataset.range(1)))
        except tf.errors.OpError as error:
            errors.append(error)
        answered.set()

    # A read cannot be interrupted; the thread of one that never ends dies with the process.
    threading.Thread(target=read, daemon=True).start()
    if not answered.wait(min(SECONDS_OF_SILENCE, SECONDS_TO_ANSWER)):
        print(
            f"waiting up to {SECONDS_TO_ANSWER:g} s, since {begin}, for a worker of the tf.data "
            f"service at {address}: there is a listener, but no worker has sent anything",
            file=sys.stderr,
            flush=True,
        )
        answered.wait(max(0.0, SECONDS_TO_ANSWER - SECONDS_OF_SILENCE))
    if errors or not answered.is_set():
        reason = f"no worker has sent anything since {begin}"
        if errors:
            reason = str(errors[0]).splitlines()[0]
        raise ConfigError(
            f"--data_service={address} must be the address of a dispatcher with workers. Something "
            f"listens there, but {reason}. Start the workers (docs/DISTRIBUTED.md), correct the "
            "address, or leave out --data_service"
        )


def _distributed(
    address: str, dataset: tf.data.Dataset, job_name: str | None = None
) -> tf.data.Dataset:
    return dataset.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=address,
            job_name=job_name,
            # Quantized features hardly compress, and compressing takes longer than reading.
            compression=None,
        )
    )


def read_through(
    address: str, dataset: tf.data.Dataset, distribution: Distribution
) -> tf.data.Dataset:
    """Reads `dataset` through the workers of a tf.data service; one worker reads each file.

    Every record comes once, in an order that depends on the workers' speed; the last batch of each
    worker may be smaller. If a worker is lost, the records that it had begun are lost for this
    pass. Several training workers get different batches, which together hold all records.

    Args:
        address: Address of the dispatcher, `grpc://host:port`.
        dataset: The data set, made with `check_files=False`.
        distribution: The training workers that read it together; all have to call this.
    """
    job_name = None
    if distribution.num_workers > 1:
        # The name is new for each pass: the dispatcher remembers finished jobs by name.
        job_name = f"yt8m_gat_{distribution.agree(random.getrandbits(50)):.0f}"
    return _distributed(address, dataset, job_name)
