"""Repacks TFRecord files into files of frame arrays, which are read without parsing.

    yt8m-gat repack 'train*.tfrecord' --output_dir=D

writes D/NAME.npz for each NAME.tfrecord (`yt8m_gat.data.frame_arrays` describes them; a name with
another ending is kept whole), with the records in their order, so that training, evaluation and
inference get the same batches from either. Each file is complete or not there: a command that was
killed continues when it is called again, and makes the same bytes. The frames of one file at a time
are held in memory.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from yt8m_gat.config import ConfigError
from yt8m_gat.data.array_archive import add_array
from yt8m_gat.data.dataset import batch_parser, fault_finder
from yt8m_gat.data.diagnosis import read_good_records
from yt8m_gat.data.frame_arrays import ENDING, INDEX, About, FrameArrays, is_frame_arrays
from yt8m_gat.data.identity import identify_files
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.data.skipping import SkippedRecords
from yt8m_gat.data.tfrecord import file_size
from yt8m_gat.disk import remove_unfinished, replacing
from yt8m_gat.locks import only_writer_in

_ALL_FRAMES = 10_000
"""All frames are kept, however many a run reads; the parser checks this many of a record."""


@dataclasses.dataclass
class Summary:
    """The outcome of a command.

    Attributes:
        num_written: Files written by this call.
        num_kept: Files that an earlier call had written.
        num_records: Records in all of them.
        source_bytes: Bytes of the TFRecord files.
        num_bytes: Bytes of the files of frame arrays.
        left_out: Bad records that are missing.
    """

    num_written: int = 0
    num_kept: int = 0
    num_records: int = 0
    source_bytes: int = 0
    num_bytes: int = 0
    left_out: int = 0


class _Contents(NamedTuple):
    """The contents of one file, record by record."""

    contexts: list[bytes]
    record_sizes: list[int]
    frames: dict[str, list[np.ndarray]]

    def checksums(self, names: Sequence[str]) -> np.ndarray:
        """Returns CRC-32 of contexts and of the frames of each feature, [N, 1 + F]."""
        columns = [self.contexts, *(self.frames[name] for name in names)]
        return np.array([list(map(zlib.crc32, column)) for column in columns], np.uint32).T


def targets_of(files: Sequence[str], output_dir: str | Path) -> dict[str, Path]:
    """Returns where the frame arrays of each TFRecord file belong.

    Raises:
        ConfigError: A file holds frame arrays already, or two files have the same name.
    """
    if packed := [path for path in files if is_frame_arrays(path)]:
        raise ConfigError(f"repack reads TFRecord files. Received frame arrays: {packed[0]!r}")
    # Only this ending is cut off: of `NAME.tfrecord-00003-of-00100` the rest tells shards apart.
    names = {path: Path(path).name.removesuffix(".tfrecord") + ENDING for path in files}
    targets = {path: Path(output_dir, name) for path, name in names.items()}
    name, count = Counter(targets.values()).most_common(1)[0]
    if count > 1:
        first, second = [path for path, target in targets.items() if target == name][:2]
        raise ConfigError(
            f"files must have different names. Received: {first!r} and {second!r}, which would "
            f"both become {name.name}; repack each folder into one of its own"
        )
    return targets


def repack(
    files: Sequence[str],
    schema: RecordSchema,
    output_dir: str | Path,
    skipped: SkippedRecords | None = None,
    show_progress: bool = False,
) -> Summary:
    """Writes the frame arrays of TFRecord files; see the module's description.

    Args:
        files: The TFRecord files, of frame-level records.
        schema: The features to keep; its classes and number of frames do not matter. The contexts
            (ids, labels, ratings and whatever else) are kept whole.
        output_dir: The folder to write to; created if necessary.
        skipped: Counts the bad records, which are left out; None: a bad record is an error.
        show_progress: Whether to print files, rate and time left to the standard error.

    Raises:
        ConfigError: See `targets_of`; also for a schema of video-level records or raw clips, or if
            a file is there that was made of another source or with other features.
        BadRecordError: A record cannot be read.
        TooManyBadRecordsError: See `SkippedRecords`.
        NotADirectoryError: `output_dir` is a file.
        InUseError: Another process writes there.
        WriteError: A file cannot be written.
    """
    if not schema.frame_level or schema.clips is not None:
        raise ConfigError("only frame-level records of features can be repacked")
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--output_dir must be a folder. Received a file: {folder}")
    targets = targets_of(files, folder)
    schema = dataclasses.replace(schema, max_frames=_ALL_FRAMES)
    summary = Summary()
    with only_writer_in(folder):
        remove_unfinished(folder, *(target.name for target in targets.values()))
        progress = tqdm(targets.items(), unit="file", desc="repack", disable=not show_progress)
        for path, target in progress:
            about = _about(path, schema)
            if target.exists():
                arrays = _made_earlier(target, about, path)
                summary.num_kept += 1
            else:
                _write(target, path, schema, about, skipped)
                arrays = FrameArrays(str(target))
                summary.num_written += 1
            summary.num_records += len(arrays)
            summary.left_out += arrays.about.left_out
            summary.source_bytes += file_size(path)
            summary.num_bytes += target.stat().st_size
        if skipped is not None:
            skipped.check(at_end=True)
    return summary


def _about(path: str, schema: RecordSchema) -> About:
    (identity,) = identify_files([path])
    types = tuple(schema.types.values())
    return About(dataclasses.asdict(identity), schema.feature_names, types)


def _made_earlier(target: Path, about: About, path: str) -> FrameArrays:
    """Returns what an earlier call wrote.

    Raises:
        ConfigError: It was made of another source, or with other features.
        BadRecordError: It is damaged.
    """
    arrays = FrameArrays(str(target))
    made = dataclasses.replace(arrays.about, left_out=0)
    if made != about:
        what = "of another file" if made.source != about.source else "with other features"
        raise ConfigError(
            f"{target} was made {what}: {made.to_json()}. Received: {path!r}, "
            f"{about.to_json()}. Remove it, or name another --output_dir"
        )
    return arrays


def _write(
    target: Path, path: str, schema: RecordSchema, about: About, skipped: SkippedRecords | None
) -> None:
    before = 0 if skipped is None else skipped.num_bad
    contents = _read(path, schema, skipped)
    left_out = 0 if skipped is None else skipped.num_bad - before
    about = dataclasses.replace(about, left_out=left_out)
    with (
        replacing(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        add_array(archive, "about", [np.array(about.to_json())])
        num_frames = [len(frames) for frames in contents.frames[schema.feature_names[0]]]
        context_sizes = list(map(len, contents.contexts))
        for name, values in (
            ("num_frames", num_frames),
            ("context_sizes", context_sizes),
            ("record_sizes", contents.record_sizes),
            ("checksums", contents.checksums(schema.feature_names)),
        ):
            add_array(archive, name, [np.array(values, INDEX[name])])
        add_array(archive, "contexts", [np.frombuffer(b"".join(contents.contexts), np.uint8)])
        for name, size in schema.feature_sizes:
            frames = contents.frames[name] or [np.empty((0, size), _dtype(schema, name))]
            add_array(archive, f"frames/{name}", frames)


def _read(path: str, schema: RecordSchema, skipped: SkippedRecords | None) -> _Contents:
    """Reads the good records of a file.

    Raises:
        BadRecordError: A record is bad, and `skipped` is None.
        TooManyBadRecordsError: See `SkippedRecords`.
    """
    counts = SkippedRecords(max_bad_fraction=1.0) if skipped is None else skipped
    find = fault_finder(schema, None, with_labels=False)
    check = batch_parser(schema, with_labels=False)
    contents = _Contents([], [], {name: [] for name in schema.feature_names})
    for numbers, payloads in read_good_records(path, find, check, counts):
        if skipped is None and counts.first:
            raise counts.first[0]
        counts.check()
        for number, payload in zip(numbers.tolist(), payloads, strict=True):
            record = tf.train.SequenceExample.FromString(payload)
            for name in schema.feature_names:
                contents.frames[name].append(_frames(record, name, schema, f"{path}:{number}"))
            record.ClearField("feature_lists")
            contents.contexts.append(record.SerializeToString(deterministic=True))
            contents.record_sizes.append(len(payload))
    if skipped is None and counts.first:  # What ended the file.
        raise counts.first[0]
    return contents


def _frames(
    record: tf.train.SequenceExample, name: str, schema: RecordSchema, place: str
) -> np.ndarray:
    """Returns a feature of a record, [T, D].

    Raises:
        ConfigError: The record is so long that the parser has not seen the frame that does not fit.
    """
    frames, size = record.feature_lists.feature_list[name].feature, schema.sizes[name]
    dtype = _dtype(schema, name)
    if schema.types[name] == "float_list":
        values = np.array([value for frame in frames for value in frame.float_list.value], dtype)
    else:
        stored = b"".join(value for frame in frames for value in frame.bytes_list.value)
        values = np.frombuffer(stored[: len(stored) - len(stored) % dtype.itemsize], dtype)
    if values.size != len(frames) * size:
        raise ConfigError(
            f"{place}: feature {name} has a frame of another size than {size} after frame "
            f"{_ALL_FRAMES}"
        )
    return values.reshape(-1, size)


def _dtype(schema: RecordSchema, name: str) -> np.dtype:
    return np.dtype("uint8" if schema.types[name] == "uint8" else "<f4")
