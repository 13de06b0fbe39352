"""Input from a tf.data service, in which other processes read, shuffle and batch."""

import random
import socket
import sys
import time

import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.training.distribution import Distribution

SECONDS_TO_ANSWER = 30.0
"""How long a dispatcher may take to start: a job may start it together with the training."""

_SECONDS_TO_CONNECT = 5.0


def wait_for_dispatcher(address: str) -> None:
    """Returns when the dispatcher accepts a connection; TensorFlow waits for it without a word.

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
                    f"waiting up to {SECONDS_TO_ANSWER:g} s for the tf.data service at {address}: "
                    f"{error}",
                    file=sys.stderr,
                    flush=True,
                )
                told = True
        time.sleep(min(1.0, SECONDS_TO_ANSWER))


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
    return dataset.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=address,
            job_name=job_name,
        )
    )
