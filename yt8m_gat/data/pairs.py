"""Reading of records as (inputs, labels), the form that `fit` expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from yt8m_gat.data.arrays import YOUTUBE8M_SCHEMA
from yt8m_gat.data.dataset import Shuffle, as_pair, find_files, make_dataset
from yt8m_gat.data.parsing import Batch
from yt8m_gat.data.preprocessing import preprocess
from yt8m_gat.data.record_files import count_records
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.paths import is_remote


def read(
    pattern: str | Sequence[str],
    schema: RecordSchema = YOUTUBE8M_SCHEMA,
    *,
    batch_size: int = 64,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    as_stored: bool = False,
    normalize: str = "none",
    segment_labels: bool = False,
) -> tf.data.Dataset:
    """Reads records as a `tf.data.Dataset` for `fit`, `evaluate` and your own loops.

    An element is `(inputs, labels)`; with `segment_labels` the label weights, float32 [B, C], are a
    third part. `labels` is float32 [B, C], multi-hot. `inputs` is a mapping:

    | | frame level | video level |
    |---|---|---|
    | each feature | float32 [B, T, size], dequantized, 0 on padding | float32 [B, size] |
    | `frame_mask` | bool [B, T], True at real frames | |

    Of raw clips (a schema with `clips`), `image` is float32 [B, T, S, S, 3], pixels from 0 to 255;
    with `shuffle` they are cut and augmented as for training.

    The classifiers of `yt8m_gat.models` and `AdversarialModel` accept this form. With `as_stored`
    frames stay as they are in the records (uint8, a quarter of the memory), and `num_frames`,
    int32 [B], replaces `frame_mask`; only `AdversarialModel` accepts that form.

    With `shuffle` the order is a function of `seed` and `epoch`, and clips of similar length share
    a batch. The dataset repeats that order when it is iterated again: `fit` with several epochs
    sees the same batches in each. Call `read` with another `epoch` for another order. For whole
    clips in local files the number of batches is known (`len`); counting them visits each record.

    Args:
        pattern: Glob patterns, as a list or separated by commas.
        schema: The schema of the records; by default the frame-level layout of YouTube-8M. That of
            a run is `yt8m_gat.load_run(...).schema`.
        batch_size: B; the last batch may be smaller.
        shuffle: Whether files, records and batches are shuffled.
        seed: See above.
        epoch: See above.
        as_stored: See above.
        normalize: L2 normalization of the dequantized features, see `normalize_features`.
        segment_labels: Whether to read the rated segments of 2019 as examples instead of whole
            clips.

    Raises:
        ConfigError: No file matches.
        ValueError: An argument has an invalid value. During iteration, a record that cannot be
            read stops the dataset with a `tf.errors.InvalidArgumentError` that names its file and
            number.
    """
    if as_stored and normalize != "none":
        raise ValueError(
            "`normalize` needs dequantized features: leave out `as_stored`, or give `normalize` to "
            f"AdversarialModel. Received: normalize={normalize!r}"
        )
    files = find_files(pattern, "pattern")
    batches = make_dataset(
        files,
        schema,
        batch_size,
        shuffle=Shuffle(seed=seed, epoch=epoch) if shuffle else None,
        segments="rated" if segment_labels else None,
    )
    # If the number is unknown, `fit` warns that the data ran out. Counting remote records would
    # take a request for each.
    if not segment_labels and not any(map(is_remote, files)):
        num_batches = -(-count_records(files) // batch_size)
        batches = batches.apply(tf.data.experimental.assert_cardinality(num_batches))
    if as_stored:
        return batches.map(as_pair)

    def preprocessed(batch: Batch) -> tuple[Any, ...]:
        features, frame_mask = preprocess(batch["features"], batch.get("num_frames"), normalize)
        _, *targets = as_pair(batch)
        return features if frame_mask is None else {**features, "frame_mask": frame_mask}, *targets

    return batches.map(preprocessed, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
