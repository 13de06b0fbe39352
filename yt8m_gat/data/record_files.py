"""Files of records in either form: TFRecord files, and files of frame arrays (`NAME.npz`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from yt8m_gat.config import ConfigError
from yt8m_gat.data import frame_arrays, tfrecord
from yt8m_gat.data.errors import BadRecordError
from yt8m_gat.data.frame_arrays import is_frame_arrays
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.data.tfrecord import HEADER_BYTES, Frame, file_size
from yt8m_gat.paths import is_remote


def _form_of(path: str) -> ModuleType:
    return frame_arrays if is_frame_arrays(path) else tfrecord


def require_tfrecord_files(files: Iterable[str], reader: str) -> None:
    """Refuses files of frame arrays where only TFRecord files can be read.

    Args:
        files: Paths, local or remote.
        reader: Who reads them, and the verb, for the message: `repack reads`.

    Raises:
        ConfigError: A file holds frame arrays; the message names the first one.
    """
    if arrays := [path for path in files if is_frame_arrays(path)]:
        raise ConfigError(
            f"{reader} TFRecord files. Received frame arrays: {arrays[0]!r}; name the TFRecord "
            "files that they were repacked from"
        )


def hold_frame_arrays(files: Sequence[str], schema: RecordSchema, own_process: bool = True) -> bool:
    """Returns whether these are files of frame arrays rather than TFRecord files.

    Args:
        files: Paths.
        schema: What is read from them.
        own_process: Whether this process reads them, and not a tf.data service.

    Raises:
        ConfigError: Some are and some are not, one is remote, or frame arrays cannot be read so.
    """
    arrays = [path for path in files if is_frame_arrays(path)]
    if not arrays:
        return False
    if not schema.frame_level or schema.clips is not None:
        require_tfrecord_files(arrays, "video-level records and raw clips are read from")
    if not own_process:
        require_tfrecord_files(arrays, "--data_service reads")
    if others := [path for path in files if not is_frame_arrays(path)]:
        raise ConfigError(
            f"files must be of one form. Received frame arrays and TFRecord files: {arrays[0]!r} "
            f"and {others[0]!r}; let the pattern match one of the two"
        )
    if remote := [path for path in arrays if is_remote(path)]:
        raise ConfigError(
            f"frame arrays are read from a disk of this machine. Received: {remote[0]!r}; copy "
            "them here, or read the TFRecord files"
        )
    return True


def source_of(path: str) -> Mapping[str, Any] | None:
    """Returns name and size of the TFRecord file behind frame arrays; None for other files."""
    if not is_frame_arrays(path):
        return None
    try:
        return frame_arrays.FrameArrays(path).about.source
    except BadRecordError:
        return None  # Reading the records reports it.


def walk_frames(path: str) -> Iterator[Frame]:
    """Yields the records of a file without reading them; see the form's own function."""
    return _form_of(path).walk_frames(path)


def check_framing(path: str) -> None:
    """Refuses a damaged file; see the form's own function."""
    _form_of(path).check_framing(path)


def read_payload(path: str, frame: Frame) -> bytes:
    """Reads one record, serialized, and verifies its checksum.

    Raises:
        BadRecordError: A checksum is wrong.
    """
    return _form_of(path).read_payload(path, frame)


def read_records(path: str) -> Iterator[tuple[Frame, bytes | BadRecordError]]:
    """Yields each record, serialized, or the error in its place; continues after a bad one.

    Damage to the file itself ends it: the last item is its error.
    """
    return _form_of(path).read_records(path)


def count_records(files: Iterable[str], *, skip_damage: bool = False) -> int:
    """Counts the records of all files, without reading their payloads.

    Args:
        files: Paths.
        skip_damage: Whether to count the records before any damage instead of raising.

    Raises:
        BadRecordError: See `walk_frames`.
    """
    count = 0
    for path in files:
        try:
            for _ in walk_frames(path):
                count += 1
        except BadRecordError:
            if not skip_damage:
                raise
    return count


def estimate_records(files: Sequence[str]) -> int:
    """Estimates the number of records from the first file's count and the sizes of all files.

    Counting 3,844 shards of the full set would take millions of seeks; the remaining time of a
    training run need not be that exact.
    """
    sizes = [file_size(path) for path in files]
    for path, size in zip(files, sizes, strict=True):
        if num_records := count_records([path], skip_damage=True):
            return round(num_records * sum(sizes) / size)
    return 0


def find_damage(files: Iterable[str], offset: int | None = None) -> BadRecordError | None:
    """Returns the first damaged record of some files, by its framing or else by its payload.

    Args:
        files: Paths.
        offset: Where TensorFlow met damage, in bytes from the start of a file that it does not
            name; the payloads of the records there are verified. None: only framing is checked.
    """
    files = list(files)
    suspects: list[tuple[str, Frame]] = []
    for path in files:
        try:
            frames = list(walk_frames(path))
        except BadRecordError as error:
            return error
        # TensorFlow names a record's start, or its payload's, depending on the damage.
        suspects.extend(
            (path, frame)
            for frame in frames
            if offset in (frame.offset, frame.offset + HEADER_BYTES)
        )
    for path, frame in suspects:
        try:
            read_payload(path, frame)
        except BadRecordError as error:
            return error
    return None
