"""Datasets of batches from files of records, in an order fixed by the seed and the epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data.allocation import keep_freed_memory
from yt8m_gat.data.clips import find_clip_faults, parse_clip_batch
from yt8m_gat.data.description import UndecodableRecordError, describe_record
from yt8m_gat.data.diagnosis import read_good_records
from yt8m_gat.data.errors import BadRecordError
from yt8m_gat.data.parsing import (
    Batch,
    find_faults,
    parse_frame_batch,
    parse_video_batch,
    quote_file,
    record_names,
)
from yt8m_gat.data.record_files import check_framing, hold_frame_arrays, read_records
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.data.segments import SEGMENT_KINDS, parse_rated_segments, parse_windows
from yt8m_gat.data.skipping import SkippedRecords
from yt8m_gat.data.stored_records import StoredRecords
from yt8m_gat.paths import expanded, is_remote
from yt8m_gat.untrusted import printable

_SECONDS_TO_LIST = 15
"""After so many seconds without an answer of a remote storage, a warning says so."""

SHUFFLE_BUFFER = 1024
"""Number of records; full-size frame-level ones have up to 345 KB, so this is up to 350 MB."""

BUCKET_WINDOW = 512
"""Number of records that are sorted by length to form batches; up to 180 MB at full size."""

_CLIPS_CUT_AT_ONCE = 16
"""Number of clips parsed together to cut segments from them: 5.5 MB of frames at full size."""


def find_files(patterns: str | Sequence[str], flag_name: str) -> list[str]:
    """Returns the matching files, sorted; a file with several spellings is listed once.

    A path that exists is taken literally, even with brackets or commas in it; anything else is a
    glob pattern. Folders that match a glob are left out. A leading `~` is the home folder.

    Args:
        patterns: Glob patterns, as a list or separated by commas.
        flag_name: The flag that they came from, for the error.

    Raises:
        ConfigError: There is no pattern, or one matches no file, names a folder or a file whose
            name is not text, or is a remote address that cannot be listed.
    """
    flag = f"--{flag_name}"
    if isinstance(patterns, str):
        parts = [patterns] if os.path.exists(patterns) else patterns.split(",")
        patterns = [part if os.path.exists(part) else part.strip() for part in parts]
    patterns = [pattern for pattern in patterns if pattern]
    if not patterns:
        raise ConfigError(
            f"{flag} must name the records to read, for example {flag}='train*.tfrecord'. "
            "Received: an empty pattern"
        )
    files: dict[str, str] = {}
    for pattern in patterns:
        pattern = expanded(flag, pattern)
        find = _remote_files if is_remote(pattern) else _local_files
        for path in find(flag, pattern):
            identity = path if is_remote(path) else os.path.realpath(path)
            files[identity] = min(path, files.get(identity, path))
    return sorted(files.values())


def _local_files(flag: str, pattern: str) -> list[str]:
    if os.path.isdir(pattern):
        raise ConfigError(
            f"{flag} must name files. Received a folder: {pattern!r}; name the files in it, "
            f"{os.path.join(pattern, '*.tfrecord')!r} for example"
        )
    if os.path.exists(pattern):
        return [pattern]
    folder = next((parent for parent in Path(pattern).parents if parent.is_dir()), Path())
    names = glob.glob(str(Path(pattern).relative_to(folder)), root_dir=folder)
    matches = [str(folder / name) for name in names]
    files = [path for path in matches if not os.path.isdir(path)]
    if not files:
        matched = "only folders match" if matches else "no file matches"
        raise ConfigError(
            f"{flag}: {matched} {pattern!r}. Check the path, quote the pattern so that the shell "
            "leaves it alone, and write ? for each comma or bracket that is part of a name"
        )
    for path in files:
        expanded(flag, path)
    return files


@contextlib.contextmanager
def _told_after(seconds: float, message: str) -> Iterator[None]:
    """Prints a warning if what is done inside takes longer than `seconds`."""
    timer = threading.Timer(
        seconds, print, [printable(f"warning: {message}")], {"file": sys.stderr, "flush": True}
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _remote_files(flag: str, pattern: str) -> list[str]:
    try:
        with _told_after(
            _SECONDS_TO_LIST,
            f"{flag}: {pattern!r} has not answered for {_SECONDS_TO_LIST} s, and TensorFlow tries "
            "again for many minutes. Check the address, the credentials and the network; press "
            "Ctrl-C twice to stop",
        ):
            files = tf.io.gfile.glob(pattern)
    except tf.errors.OpError as error:
        raise ConfigError(
            f"{flag}: {pattern!r} cannot be looked up: {str(error).splitlines()[0]}. Check the "
            "address and the access to it, or copy the files to this machine"
        ) from error
    if not files:
        raise ConfigError(f"{flag}: no file matches {pattern!r}. Check the address")
    return files


def no_examples(files: Sequence[str], flag_name: str, segment_labels: bool) -> ConfigError:
    """Returns the error for files without any example."""
    problem, remedy = "no records", ""
    if segment_labels:
        problem = "no rated segments"
        remedy = ". Give files of segment-rated records (2019), or leave out --segment_labels"
    more = ", ..." if len(files) > 3 else ""
    return ConfigError(f"--{flag_name}: {problem} in {', '.join(files[:3])}{more}{remedy}")


def _derived_seeds(seed: int, epoch: int) -> np.ndarray:
    """Returns independent int32 seeds: 1 for files, 2 each for buffer, batches and raw clips."""
    return np.random.SeedSequence([seed, epoch]).generate_state(7) & 0x7FFFFFFF


def _shuffle(dataset: tf.data.Dataset, buffer_size: int, seeds: np.ndarray) -> tf.data.Dataset:
    # Dataset.shuffle mixes TensorFlow's global seed into its own; the order must not depend on it.
    spec = dataset.element_spec
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=tf.constant(buffer_size, tf.int64),
        seed=tf.constant(seeds[0], tf.int64),
        seed2=tf.constant(seeds[1], tf.int64),
        output_types=[s.dtype for s in tf.nest.flatten(spec)],
        output_shapes=[s.shape for s in tf.nest.flatten(spec)],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, spec)


def _records_of(path: tf.Tensor, quoted: tf.Tensor) -> tf.data.Dataset:
    """Makes a dataset of (quoted path, record number, serialized) of the records of one file."""
    records = tf.data.TFRecordDataset(path).enumerate()
    return records.map(lambda number, serialized: (quoted, number, serialized))


def _framing_fault(path: bytes, check: Callable[[str], Any] = check_framing) -> bytes:
    """Returns what is wrong with a file's framing, in the parser's form; empty if it is intact."""
    try:
        check(os.fsdecode(path))
    except BadRecordError as error:
        return (
            f"Bad record {quote_file(error.file)}:record {error.record or 0}: {error.reason}. "
            f"Remedy: {error.remedy}. Fault: {error.fault}."
        ).encode()
    return b""


def _checked_records_of(path: tf.Tensor, quoted: tf.Tensor) -> tf.data.Dataset:
    fault = tf.numpy_function(_framing_fault, [path], tf.string)
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(fault, ""), [fault])]):
        return _records_of(tf.identity(path), quoted)


def _stored_records_of(
    stored: StoredRecords,
) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
    """Makes a `_records_of` for frame arrays: (quoted path, record number, bytes of a record)."""

    def records_of(path: tf.Tensor, quoted: tf.Tensor) -> tf.data.Dataset:
        fault = tf.numpy_function(
            functools.partial(_framing_fault, check=stored.opened), [path], tf.string
        )
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(fault, ""), [fault])]):
            sizes = stored.record_sizes(tf.identity(path))
        numbers = tf.range(tf.size(sizes, tf.int64))
        named = tf.fill(tf.shape(sizes), quoted)
        return tf.data.Dataset.from_tensor_slices((named, numbers, sizes))

    return records_of


def _good_records_of(
    find_faults: Callable[[tf.Tensor], tf.Tensor],
    check: Callable[[tf.Tensor], Batch],
    skipped: SkippedRecords,
    stored: StoredRecords | None = None,
) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
    """Makes a `_records_of` that yields the records without a fault and counts the others."""

    def read(path: bytes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        name = os.fsdecode(path)
        for numbers, payloads in read_good_records(name, find_faults, check, skipped):
            if len(numbers):
                yield numbers, payloads if stored is None else stored.sizes_of(name, numbers)

    contents = tf.TensorSpec([None], tf.string if stored is None else tf.int64)

    def good_records_of(path: tf.Tensor, quoted: tf.Tensor) -> tf.data.Dataset:
        chunks = tf.data.Dataset.from_generator(
            read, output_signature=(tf.TensorSpec([None], tf.int64), contents), args=(path,)
        )
        return chunks.unbatch().map(lambda number, serialized: (quoted, number, serialized))

    return good_records_of


def _batches_of_like_length(
    records: tf.data.Dataset, batch_size: int, window: int, seeds: np.ndarray
) -> tf.data.Dataset:
    """Sorts each window by length, cuts it into batches, and shuffles the batches.

    The length of a serialized record is used in place of its number of frames (of frame arrays,
    which are read later, the elements have only that length). An element is a
    window's records and the positions of one batch in it, so that the strings themselves are
    copied only where they are parsed, in parallel.
    """

    def cut(window_number: tf.Tensor, window_records: Any) -> tf.data.Dataset:
        num_records = tf.shape(window_records[0])[0]
        # Cut off before sorting, so that the remainder is random and not the longest clips.
        num_full = num_records // batch_size
        lengths = window_records[2][: num_full * batch_size]
        if lengths.dtype == tf.string:
            lengths = tf.strings.length(lengths)
        order = tf.reshape(tf.argsort(lengths, stable=True), [num_full, batch_size])
        window_seeds = [seeds[0], seeds[1] ^ tf.cast(window_number, tf.int32)]
        order = tf.random.experimental.stateless_shuffle(order, window_seeds)
        batches = tf.data.Dataset.from_tensor_slices(order)
        rest = tf.range(num_full * batch_size, num_records)
        num_rest = tf.cast(tf.size(rest) > 0, tf.int64)
        batches = batches.map(lambda positions: tf.ensure_shape(positions, [None]))
        batches = batches.concatenate(tf.data.Dataset.from_tensors(rest).take(num_rest))
        return batches.map(lambda positions: (window_records, positions))

    windows = records.batch(max(1, window // batch_size) * batch_size)
    return windows.enumerate().flat_map(cut)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shuffle:
    """An order of files, records and batches that is a function of `seed` and `epoch`.

    Attributes:
        seed: The seed, not negative.
        epoch: The epoch, not negative.
        buffer: Number of examples in the shuffle buffer; 0 shuffles only files and batches.
        num_readers: Number of files that are read in parallel.

    Raises:
        ValueError: A value is too small.
    """

    seed: int = 0
    epoch: int = 0
    buffer: int = SHUFFLE_BUFFER
    num_readers: int = 8

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _require_at_least(field.name, getattr(self, field.name), field.name == "num_readers")


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least:d}. Received: {value}")


def make_dataset(
    files: Sequence[str],
    schema: RecordSchema,
    batch_size: int,
    *,
    shuffle: Shuffle | None = None,
    skip_batches: int = 0,
    fixed_num_frames: bool = False,
    with_labels: bool = True,
    segments: str | None = None,
    skipped: SkippedRecords | None = None,
    check_files: bool = True,
) -> tf.data.Dataset:
    """Makes a dataset of one pass over the records, in batches.

    The order, and which records share a batch, is a function of the files, `shuffle` and the
    batch size; the number of cores and TensorFlow's global seed do not change it. A run can
    therefore resume in mid-epoch with `skip_batches`, which reads the skipped records without
    parsing them.

    Without `shuffle` the order is that of the files as listed and of the records in them. With it,
    frame-level clips of similar length share a batch, which saves padding: `BUCKET_WINDOW` records
    are sorted by length at a time, in addition to the shuffle buffer. (Raw clips are not sorted: of
    each T frames are read.)

    Raw clips are read as for evaluation without `shuffle`, and as for training with it: the frames,
    crops and flips are a function of its seed and epoch, and of each clip's id.

    Side effect: the process keeps memory that it frees; see `keep_freed_memory`.

    With `segments` the examples that are shuffled, batched and skipped are segments of 5 frames
    instead of records, so that batches are full and the segments of one clip are far apart. As
    they are cut from the clips first, skipping parses too, and the shuffle buffer holds segments:
    up to 6 KB of frames and 8 C bytes of labels and weights each.

    Args:
        files: Paths of TFRecord files, or of frame arrays (`yt8m_gat.data.frame_arrays`), which
            give the same batches; see `find_files`.
        schema: The schema of their records.
        batch_size: B; the last batch may be smaller.
        shuffle: The order of files, records and batches; None: that of the input.
        skip_batches: The number of batches to leave out at the start.
        fixed_num_frames: Whether to pad to `schema.max_frames` rather than to the batch's longest
            clip. (Segments are always padded to their 5 frames.)
        with_labels: Whether to read the labels.
        segments: `rated`: each rated segment is an example, with labels and label weights;
            `windows`: each window of 5 frames, without labels; None: each record.
        skipped: Counts the bad records of this pass, which are left out; None: a bad record is an
            error. With it each record is read twice, first to run the same checks on it. This
            happens before shuffling and batching, so that the order remains a function of the
            above.
        check_files: Whether to run `check_framing`. It runs in this process, so a dataset that is
            read in another one (tf.data service) needs False, and files that were checked before.

    Returns:
        A dataset of `Batch`es; see `parse_frame_batch`, `parse_video_batch`, `parse_clip_batch`
        and `yt8m_gat.data.segments`, also for the effect of a bad record. `yt8m_gat.data.Reader`
        reads it with errors that name the record.

    Raises:
        ValueError: An argument has an invalid value.
    """
    files = list(files)
    if not files:
        raise ValueError("`files` must name at least one file. Received: []")
    _require_at_least("batch_size", batch_size, 1)
    _require_at_least("skip_batches", skip_batches, 0)
    if segments is not None:
        if schema.clips is not None:
            raise ValueError(
                f"segments are frames of features, not of raw clips. Received: {segments!r}"
            )
        if segments not in SEGMENT_KINDS:
            raise ValueError(
                f"segments must be one of {', '.join(SEGMENT_KINDS)}, or None. "
                f"Received: {segments!r}"
            )
        if not with_labels:
            raise ValueError(
                "with_labels=False is for whole records: it needs segments=None. "
                f"Received: segments={segments!r}"
            )

    keep_freed_memory()
    if shuffle is not None:
        seeds = _derived_seeds(shuffle.seed, shuffle.epoch)
        files = [files[i] for i in np.random.default_rng(int(seeds[0])).permutation(len(files))]
    of_features = schema.frame_level and schema.clips is None
    if of_features:
        schema = dataclasses.replace(schema, other_sizes=_other_sizes(files[0], schema))
    parse = batch_parser(schema, segments, fixed_num_frames, with_labels)
    find = fault_finder(schema, segments, with_labels)
    if schema.clips is not None and shuffle is not None:
        clip_seed = tf.constant(seeds[5:7], tf.int32)
        parse = functools.partial(parse, seed=clip_seed)
        find = functools.partial(find, seed=clip_seed)
    records_of = _checked_records_of if check_files else _records_of
    stored = None
    if hold_frame_arrays(files, schema, own_process=check_files):
        stored = StoredRecords(schema, fixed_num_frames and segments is None)
        records_of = _stored_records_of(stored)
    if skipped is not None:
        records_of = _good_records_of(find, parse, skipped, stored)
    paths = tf.data.Dataset.from_tensor_slices((files, [quote_file(path) for path in files]))
    if shuffle is not None:
        # Of stored records only places are passed on, for which threads would be a detour.
        reads = stored is None or skipped is not None
        records = paths.interleave(
            records_of,
            cycle_length=min(shuffle.num_readers, len(files)),
            num_parallel_calls=tf.data.AUTOTUNE if reads else None,
            deterministic=True if reads else None,
        )
    else:
        records = paths.flat_map(records_of)

    def parse_named(quoted: tf.Tensor, numbers: tf.Tensor, contents: tf.Tensor) -> Batch:
        serialized = contents if stored is None else stored.clips(quoted, numbers)
        return parse(serialized, record_names(quoted, numbers))

    if segments is not None:
        # Batches with any number of segments, possibly none.
        examples = records.batch(_CLIPS_CUT_AT_ONCE).map(
            parse_named, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        if shuffle is not None and shuffle.buffer:
            examples = _shuffle(examples.unbatch(), shuffle.buffer, seeds[1:3])
            batches = examples.batch(batch_size)
        else:
            batches = examples.rebatch(batch_size)
        return _finished(batches.skip(skip_batches))

    if shuffle is not None and shuffle.buffer:
        records = _shuffle(records, shuffle.buffer, seeds[1:3])
    by_length = shuffle is not None and of_features
    if by_length:
        batches = _batches_of_like_length(records, batch_size, BUCKET_WINDOW, seeds[3:5])
    else:
        batches = records.batch(batch_size)
    if skip_batches:
        batches = batches.skip(skip_batches)

    def parse_positions(window: tuple[tf.Tensor, ...], positions: tf.Tensor) -> Batch:
        return parse_named(*(tf.gather(part, positions) for part in window))

    batches = batches.map(
        parse_positions if by_length else parse_named,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return _finished(batches)


def _other_sizes(path: str, schema: RecordSchema) -> tuple[tuple[str, int], ...]:
    """Returns the byte features that a file's first record holds in addition to the schema's."""
    try:
        _, payload = next(read_records(path), (None, b""))
        if isinstance(payload, BadRecordError):
            return ()
        record = describe_record(payload)
    except (UndecodableRecordError, BadRecordError, OSError, tf.errors.OpError):
        return ()  # The reader will report the error.
    others = sorted(set(record.lengths) - {*schema.feature_names, *record.float_lists})
    return tuple((name, *record.sizes[name]) for name in others if len(record.sizes[name]) == 1)


# Tracing a parser takes longer than reading thousands of records, and each epoch is a new dataset.


@functools.lru_cache(maxsize=32)
def batch_parser(
    schema: RecordSchema,
    segments: str | None = None,
    fixed_num_frames: bool = False,
    with_labels: bool = True,
) -> Callable[..., Batch]:
    """Makes the parser of serialized records [B] and optionally their names [B].

    That of raw clips also takes the `seed` of `parse_clip_batch`. See `make_dataset`.
    """
    if schema.clips is not None:

        def parse_clips(
            serialized: tf.Tensor, names: tf.Tensor | None = None, seed: tf.Tensor | None = None
        ) -> Batch:
            return parse_clip_batch(serialized, schema, names, seed=seed, with_labels=with_labels)

        return tf.function(parse_clips, autograph=False, reduce_retracing=True)
    if segments is not None:
        parse = parse_rated_segments if segments == "rated" else parse_windows
    elif schema.frame_level:
        parse = functools.partial(
            parse_frame_batch, fixed_num_frames=fixed_num_frames, with_labels=with_labels
        )
    else:
        parse = functools.partial(parse_video_batch, with_labels=with_labels)

    def parse_records(serialized: tf.Tensor, names: tf.Tensor | None = None) -> Batch:
        return parse(serialized, schema, names)

    return tf.function(parse_records, autograph=False, reduce_retracing=True)


@functools.lru_cache(maxsize=32)
def fault_finder(
    schema: RecordSchema, segments: str | None, with_labels: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes a function that returns each record's kind of fault, string [B], for the parser."""
    if schema.clips is not None:

        def find_in_clips(serialized: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
            return find_clip_faults(serialized, schema, seed=seed, with_labels=with_labels)

        return tf.function(find_in_clips, autograph=False, reduce_retracing=True)

    def find(serialized: tf.Tensor) -> tf.Tensor:
        return find_faults(
            serialized,
            schema,
            with_labels=with_labels and segments is None,
            with_ratings=segments == "rated",
            segment_ids=segments == "windows",
        )

    serialized = tf.TensorSpec([None], tf.string)
    return tf.function(find, input_signature=[serialized], autograph=False)


def _finished(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # They change nothing here, and looking for what to change takes a third of starting a pass.
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(2).with_options(options)


def as_pair(batch: Batch) -> tuple[Any, ...]:
    """Converts one batch to (inputs, labels), the form of `keras.Model.train_step`.

    Returns:
        inputs: each feature under its name, uint8 [B, T, D] (float32 if it is stored as floats;
        raw clips: uint8 [B, T, S, S, 3]; video level: float32 [B, D]), and at frame level
        `num_frames`, int32 [B]; labels: float32 [B, C]. Rated segments have a third part, the
        label weights, float32 [B, C].
    """
    inputs = dict(batch["features"])
    if "num_frames" in batch:
        inputs["num_frames"] = batch["num_frames"]
    if "label_weights" in batch:
        return inputs, batch["labels"], batch["label_weights"]
    return inputs, batch["labels"]


def as_pairs(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Converts a dataset of batches to one of pairs, for `keras.Model.fit`; see `as_pair`."""
    return dataset.map(as_pair)
