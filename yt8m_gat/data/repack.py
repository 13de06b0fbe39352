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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from yt8m_gat.config import ConfigError
from yt8m_gat.data.array_archive import add_array
from yt8m_gat.data.dataset import batch_parser, fault_finder
from yt8m_gat.data.diagnosis import read_good_records
from yt8m_gat.data.errors import TooManyBadRecordsError
from yt8m_gat.data.frame_arrays import ENDING, INDEX, About, FrameArrays
from yt8m_gat.data.identity import identify_files
from yt8m_gat.data.record_files import require_tfrecord_files
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.data.skipping import SkippedRecords
from yt8m_gat.data.tfrecord import file_size
from yt8m_gat.disk import remove_unfinished, replacing
from yt8m_gat.locks import only_writer_in

_ALL_FRAMES = 1 << 30
"""All frames are kept, however many a run reads; no record has as many as this."""

_USUAL_FRAMES = 10_000
"""Records of at most as many frames are checked in one piece, by tables of all lengths, which takes
a fifth of the time."""


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
    require_tfrecord_files(files, "repack reads")
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
    schema = dataclasses.replace(schema, max_frames=_USUAL_FRAMES)
    with only_writer_in(folder):
        remove_unfinished(folder, *(target.name for target in targets.values()))
        progress = tqdm(targets.items(), unit="file", desc="repack", disable=not show_progress)
        return _repack_each(progress, schema, skipped)


def _repack_each(
    targets: Iterable[tuple[str, Path]], schema: RecordSchema, skipped: SkippedRecords | None
) -> Summary:
    """Writes the targets that are not there; see `repack`."""
    summary, with_gaps = Summary(), []
    try:
        for path, target in targets:
            about = _about(path, schema)
            if target.exists():
                arrays = _made_earlier(target, about, path)
                summary.num_kept += 1
            else:
                _write(target, path, schema, about, skipped)
                arrays = FrameArrays(str(target))
                summary.num_written += 1
                if arrays.about.left_out:
                    with_gaps.append(target)
            summary.num_records += len(arrays)
            summary.left_out += arrays.about.left_out
            summary.source_bytes += file_size(path)
            summary.num_bytes += target.stat().st_size
        if skipped is not None:
            skipped.check(at_end=True)
    except TooManyBadRecordsError:
        for target in with_gaps:  # The next call would keep them without counting their gaps.
            target.unlink()
        raise
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
    contents = _Contents([], [], {name: [] for name in schema.feature_names})
    for _, payloads in read_good_records(path, *_checks(schema), counts):
        if skipped is None and counts.first:
            raise counts.first[0]
        for payload in payloads:
            record = tf.train.SequenceExample.FromString(payload)
            for name in schema.feature_names:
                contents.frames[name].append(_frames(record, name, schema))
            record.ClearField("feature_lists")
            contents.contexts.append(record.SerializeToString(deterministic=True))
            contents.record_sizes.append(len(payload))
    # What ended the file, or the reading of it before its end.
    if skipped is None and counts.first:
        raise counts.first[0]
    counts.check()
    return contents


def _checks(
    schema: RecordSchema,
) -> tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[tf.Tensor], Any]]:
    """Returns `find_faults` and `check` of `read_good_records`, which see all frames."""
    # With its types named, a record is parsed frame by frame, and so has no longest length.
    types = tuple(schema.types.values())
    of_all = dataclasses.replace(schema, max_frames=_ALL_FRAMES, feature_types=types)
    smallest = min(schema.stored_size(name)[0] for name in schema.feature_names)

    def find(serialized: tf.Tensor) -> tf.Tensor:
        # A shorter record has no frame after the usual ones whose predecessors have the right size.
        is_usual = tf.reduce_max(tf.strings.length(serialized)) <= _USUAL_FRAMES * smallest
        return fault_finder(schema if is_usual else of_all, None, with_labels=False)(serialized)

    return find, batch_parser(of_all, with_labels=False)


def _frames(record: tf.train.SequenceExample, name: str, schema: RecordSchema) -> np.ndarray:
    """Returns a feature of a good record, [T, D]."""
    frames, dtype = record.feature_lists.feature_list[name].feature, _dtype(schema, name)
    if schema.types[name] == "float_list":
        values = np.array([value for frame in frames for value in frame.float_list.value], dtype)
    else:
        values = np.frombuffer(b"".join(frame.bytes_list.value[0] for frame in frames), dtype)
    return values.reshape(-1, schema.sizes[name])


def _dtype(schema: RecordSchema, name: str) -> np.dtype:
    return np.dtype("uint8" if schema.types[name] == "uint8" else "<f4")
