"""The batches of an epoch of training."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from yt8m_gat.config import RunConfig
from yt8m_gat.data import Reader, RecordSchema, Shuffle
from yt8m_gat.data.feature_augmentation import augment_features
from yt8m_gat.data.parsing import Batch
from yt8m_gat.training.data_service import read_through
from yt8m_gat.training.distribution import Distribution
from yt8m_gat.training.state import TrainingState


class EpochData:
    """Reads the training files, epoch by epoch, from where the run's state stands.

    The order is a function of seed and epoch, so that a resumed run skips what it has seen. A
    tf.data service has no such order.

    Args:
        config: The run.
        schema: The schema of the records.
        files: Training files.
        distribution: The replicas that train.
    """

    def __init__(
        self,
        config: RunConfig,
        schema: RecordSchema,
        files: Sequence[str],
        distribution: Distribution,
    ) -> None:
        self.config = config
        self.schema = schema
        self.files = list(files)
        self.distribution = distribution

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the batches is a function of seed and epoch."""
        return self.config.training.data_service is None

    @property
    def own_batches(self) -> bool:
        """Whether each worker reads batches that no other one reads."""
        return self.distribution.num_workers > 1 and not self.is_ordered

    def reader(self, state: TrainingState) -> Reader:
        """Returns a reader of the rest of the current epoch."""
        training = self.config.training
        batch_size = training.batch_size
        if self.own_batches:
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
            check_files=self.is_ordered,
        )
        if training.augments_features:
            augmented = functools.partial(
                augment_features,
                seed=training.seed,
                epoch=state.epoch,
                least_share=training.temporal_crop,
                drop_rate=training.frame_dropout,
                mixup_alpha=training.mixup_alpha,
                feature_rates=training.feature_dropout_rates,
                noise=training.frame_noise,
            )
            reader.dataset = reader.dataset.map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
        if not self.is_ordered:
            reader.dataset = read_through(training.data_service, reader.dataset, self.distribution)
        return reader

    def batches(self, reader: Reader) -> Iterator[tuple[Batch, bool]]:
        """Yields the batches with True, then stand-ins with False while another worker has more."""
        batches = iter(reader)
        if not self.own_batches:
            yield from ((batch, True) for batch in batches)
            return
        while True:
            batch = next(batches, None)
            if not self.distribution.any(batch is not None):
                return
            if batch is not None:
                yield batch, True
            else:
                yield tf.nest.map_structure(_stand_in, reader.dataset.element_spec), False


def _stand_in(spec: tf.TensorSpec) -> Any:
    """Makes a batch of one row, which only stands for a batch and has weight 0."""
    shape = [1 if size is None else size for size in spec.shape]
    value = "" if spec.dtype == tf.string else 1
    return tf.fill(shape, tf.constant(value, spec.dtype))
