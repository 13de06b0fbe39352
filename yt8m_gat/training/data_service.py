"""Input from tf.data service: other processes read, shuffle and batch."""

import random

import tensorflow as tf

from yt8m_gat.training.distribution import Distribution


def read_through(
    address: str, dataset: tf.data.Dataset, distribution: Distribution
) -> tf.data.Dataset:
    """`dataset` as the workers of a tf.data service produce it, each file's records by one of them.

    Every record comes once, in an order that depends on how fast the workers are; each of them
    ends with a batch that may be smaller. Where a worker is lost in the middle, the records that
    it had begun are lost for this pass. Several training workers get batches of their own, which
    together are the records.

    Args:
        address: Of the dispatcher, `grpc://host:port`.
        dataset: Made with `check_files=False`.
        distribution: Those that read it together; all have to call this.
    """
    job_name = None
    if distribution.num_workers > 1:
        # The dispatcher keeps the names of jobs that are done.
        job_name = f"yt8m_gat_{distribution.agree(random.getrandbits(50)):.0f}"
    return dataset.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=address,
            job_name=job_name,
        )
    )
