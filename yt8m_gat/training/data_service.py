"""Input from a tf.data service, in which other processes read, shuffle and batch."""

import random

import tensorflow as tf

from yt8m_gat.training.distribution import Distribution


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
