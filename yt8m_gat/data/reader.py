"""Reading records in batches, with errors that name the record."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from yt8m_gat.config import MAX_BAD_FRACTION
from yt8m_gat.data.dataset import make_dataset
from yt8m_gat.data.diagnosis import bad_record_from
from yt8m_gat.data.parsing import Batch
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.data.skipping import new_skipped
from yt8m_gat.paths import is_remote


class Reader:
    """One pass over the records of some files; iterating it yields their batches.

    Args:
        files: Paths of TFRecord files, see `find_files`.
        schema: The schema of their records.
        batch_size: B; the last batch may be smaller.
        on_bad_record: `error`: a record that cannot be read ends the pass; `skip`: it is left out
            and counted.
        max_bad_fraction: With `skip`: the largest share that may be bad, see `SkippedRecords`.
        **options: The other arguments of `make_dataset`.

    Attributes:
        files: The files.
        dataset: The dataset that is iterated, from `make_dataset`; it may be replaced by a dataset
            mapped from it.
        skipped: The records that this pass has left out; None with `on_bad_record="error"`.

    Raises:
        ConfigError: `on_bad_record` or `max_bad_fraction` has an invalid value.
        ValueError: See `make_dataset`.
    """

    def __init__(
        self,
        files: Sequence[str],
        schema: RecordSchema,
        batch_size: int,
        *,
        on_bad_record: str = "error",
        max_bad_fraction: float = MAX_BAD_FRACTION,
        **options: Any,
    ) -> None:
        self.files = list(files)
        self.skipped = new_skipped(on_bad_record, max_bad_fraction)
        self.dataset: tf.data.Dataset = make_dataset(
            self.files, schema, batch_size, skipped=self.skipped, **options
        )

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches.

        Raises:
            BadRecordError: A record cannot be read; the message names file, record, byte offset,
                fault and remedy.
            TooManyBadRecordsError: See `SkippedRecords`.
            FileNotFoundError: A file was removed since it was listed.
        """
        iterator = iter(self.dataset)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                if self.skipped is not None:
                    self.skipped.check(at_end=True)
                return
            except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
                bad = bad_record_from(error, self.files)
                if bad is None:
                    raise
                raise bad from None
            except (tf.errors.UnknownError, tf.errors.NotFoundError) as error:
                for path in self.files:
                    if not is_remote(path) and not os.path.exists(path):
                        raise FileNotFoundError(
                            errno.ENOENT, "the file was removed while it was read", path
                        ) from error
                raise
            if self.skipped is not None:
                self.skipped.check()
            yield batch
