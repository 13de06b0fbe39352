"""Writers of the Kaggle submission CSVs of 2018 (videos) and 2019 (segments).

Both write to a temporary file in the folder of the result and rename it at the end, so that the
final name always holds a complete file or the previous one. The CSV of 2018 can be continued where
a killed program left it. Only one program at a time writes a CSV.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from yt8m_gat.data.schema import SEGMENT_ID_BREAKS
from yt8m_gat.disk import put_in_place, replacing, unfinished_path, writing
from yt8m_gat.locks import only_writer
from yt8m_gat.metrics import top_k_indices
from yt8m_gat.untrusted import fits, quoted, read_json

VIDEO_HEADER = "VideoId,LabelConfidencePairs"
SEGMENT_HEADER = "Class,Segments"

_COUNTS = ("bytes", "batches", "rows")

SYNC_SECONDS = 1.0
"""Shortest time between two states from which an unfinished CSV can be continued after a kill."""


class _WholeFile:
    """A text file that one program at a time writes, and that gets its name when it is complete.

    Entering the context locks `path` and opens a temporary file in the same folder. Leaving it
    without an exception renames that to `path`; with one, deletes it. (`yt8m_gat.disk.replacing`
    would take all errors inside the block for errors of writing.)
    """

    def __init__(self, path: str | os.PathLike):
        # A link is followed: the file it names is replaced, not the link.
        self._path = Path(os.path.realpath(path))
        folder = self._path.parent
        if not folder.is_dir():
            raise FileNotFoundError(
                f"The folder of --output_file must exist. Received: {os.fspath(path)!r}, and "
                f"there is no folder {str(folder)!r}; create it or name another"
            )
        if self._path.exists() and not self._path.is_file():
            raise IsADirectoryError(
                "--output_file must name a regular file, which is created or replaced. "
                f"Received: {os.fspath(path)!r}, which exists and is none"
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(
                "The folder of --output_file must be writable. "
                f"Received: {os.fspath(path)!r}; name a file in another folder"
            )
        self._file: IO[str] | None = None
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, writing(self._path):
            stack.enter_context(only_writer(self._path))
            self._file = self._opened()
            self._lock = stack.pop_all()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        temporary = Path(self._file.name)
        try:
            with self._lock, writing(self._path), self._file:
                try:
                    if exception_type is None:
                        self._finish()
                        self._file.flush()
                        put_in_place(temporary, self._path)
                finally:
                    self._clean(temporary)
        finally:
            self._file = None

    def _opened(self) -> IO[str]:
        return unfinished_path(self._path).open("w", encoding="utf-8", newline="\n")

    def _clean(self, temporary: Path) -> None:
        """Removes temporary files, with or without an exception."""
        temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Writes the content that is only known at the end."""

    def _open_file(self) -> IO[str]:
        if self._file is None:
            raise ValueError(
                "Rows can only be written inside `with`, while the file is open. "
                "Received: write() outside it"
            )
        return self._file


def partial_file(path: str | os.PathLike) -> Path:
    """Returns the path of an unfinished CSV's rows, see `SubmissionWriter`."""
    real = Path(os.path.realpath(path))
    return real.with_name(f".{real.name}.partial")


class _ResumableRows(_WholeFile):
    """A text file of rows that a later program can continue.

    With `settings` the rows survive the program: they are in `.<name>.partial` in the same folder,
    and about once a second, after a sync to the disk, `.<name>.partial.json` records the number of
    batches and rows. A writer with the same settings continues after the last batch that is known
    to be complete; one with other settings prints the difference and starts again. Only one program
    at a time writes them.

    Args:
        path: The file, created or replaced when the context is left without an exception.
        settings: The settings on which the rows depend, for JSON; None: rows do not survive the
            program.
        earlier_settings: Other settings that give the same rows.

    Attributes:
        num_batches: Calls of `write` whose rows are in the file, including an earlier program's.
        num_rows: Number of their rows.

    Raises:
        OSError: At once, if the folder is missing or not writable, or `path` is no regular file;
            inside the context, if another program writes the same file or the disk is full.
    """

    _header = ""

    def __init__(
        self,
        path: str | os.PathLike,
        settings: Mapping[str, Any] | None = None,
        earlier_settings: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__(path)
        self.settings = settings
        self.earlier_settings = earlier_settings
        self.num_batches = 0
        self.num_rows = 0
        self._progress = partial_file(self._path).with_suffix(".partial.json")
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        super().__enter__()
        if self.num_batches == 0 and self._header:
            self._file.write(self._header + "\n")
        return self

    def _opened(self) -> IO[str]:
        if self.settings is None:
            return super()._opened()
        partial = partial_file(self._path)
        file = partial.open("a", encoding="utf-8", newline="\n")
        try:
            os.ftruncate(file.fileno(), self._continued_bytes(os.fstat(file.fileno()).st_size))
        except BaseException:
            file.close()
            raise
        return file

    def _continued_bytes(self, size: int) -> int:
        """Returns how many of the `size` bytes of an earlier program's rows are kept."""
        kept = self._known_bytes(size)
        if kept == 0:
            self._progress.unlink(missing_ok=True)
        return kept

    def _known_bytes(self, size: int) -> int:
        if size == 0:
            return 0
        try:
            progress = read_json(self._progress)
        except (OSError, ValueError):
            return 0
        if not fits(progress, {"settings": dict, "counts": dict.fromkeys(_COUNTS, int)}):
            return 0
        stored = progress["settings"]
        num_bytes, num_batches, num_rows = (progress["counts"][name] for name in _COUNTS)
        # In the form that they have after a round trip through JSON.
        accepted = [json.loads(json.dumps(s)) for s in (self.settings, *self.earlier_settings)]
        counts_can_be = 0 < num_bytes <= size and num_batches > 0 and num_rows >= 0
        if stored not in accepted or not counts_can_be:
            differing = sorted(
                quoted(name)
                for name in {*accepted[0], *stored}
                if stored.get(name) != accepted[0].get(name)
            )
            print(
                f"{self._path}: the rows of an unfinished run are dropped, "
                + (f"it had other {', '.join(differing)}" if differing else "some are missing"),
                file=sys.stderr,
            )
            return 0
        self.num_batches, self.num_rows = num_batches, num_rows
        return num_bytes

    def _sync(self) -> None:
        """Syncs the rows to the disk, then records how many they are."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()
        counts = {
            "bytes": os.fstat(self._file.fileno()).st_size,
            "batches": self.num_batches,
            "rows": self.num_rows,
        }
        with replacing(self._progress) as temporary:
            temporary.write_text(
                json.dumps({"settings": self.settings, "counts": counts}), encoding="utf-8"
            )

    def _clean(self, temporary: Path) -> None:
        if self.settings is None:
            super()._clean(temporary)
        # The rows and their count stay, so that a later program can continue.
        elif not (temporary.exists() and self._progress.exists()):
            temporary.unlink(missing_ok=True)
            self._progress.unlink(missing_ok=True)
        unfinished_path(self._progress).unlink(missing_ok=True)

    def _write_batch(self, rows: Sequence[str]) -> None:
        """Writes rows, without their line breaks, as one batch."""
        file = self._open_file()
        with writing(self._path):
            file.writelines(row + "\n" for row in rows)
            self.num_batches += 1
            self.num_rows += len(rows)
            if self.settings is not None and time.monotonic() - self._synced >= SYNC_SECONDS:
                self._sync()


class SubmissionWriter(_ResumableRows):
    """Writes the 2018 CSV: one row a video, in the order of the calls.

    Header `VideoId,LabelConfidencePairs`; a row is `id,` and min(top_k, C) pairs `label score`
    joined by single spaces, by descending score, `%i %g`: `twu2,6 0.527231 16 0.282346`. Of equal
    scores the lower class comes first. An id with a comma or a quote is quoted by the rules of
    CSV (RFC 4180), so that pandas reads it back; an id that is empty, has a line break or is not
    UTF-8 is refused. Repeated ids are written as they come (`yt8m_gat.prediction.kaggle check`
    finds them).

        with SubmissionWriter("submission.csv") as writer:
            writer.write(video_ids, probabilities)

    With `settings` it can be continued, see `_ResumableRows`.

    Args:
        path: The CSV.
        top_k: Pairs of a row.
        settings: See `_ResumableRows`.
        earlier_settings: See `_ResumableRows`.

    Raises:
        ValueError: If `top_k` is not positive.
        OSError: See `_ResumableRows`.
    """

    _header = VIDEO_HEADER

    def __init__(
        self,
        path: str | os.PathLike,
        top_k: int = 20,
        settings: Mapping[str, Any] | None = None,
        earlier_settings: Sequence[Mapping[str, Any]] = (),
    ):
        if top_k < 1:
            raise ValueError(f"`top_k` must be positive. Received: top_k={top_k}")
        super().__init__(path, settings, earlier_settings)
        self.top_k = top_k

    def write(self, video_ids: Sequence[bytes | str], probabilities: np.ndarray) -> None:
        """Writes a batch of rows.

        Args:
            video_ids: `[B]`, bytes in UTF-8 or str.
            probabilities: `[B, C]`, finite.

        Raises:
            ValueError: If the shapes do not match, a probability is not finite or an id is refused.
        """
        self._open_file()  # Before anything else: outside the context there is none.
        classes, scores = best_classes(video_ids, probabilities, self.top_k)
        self.write_ranked(video_ids, classes, scores)

    def write_ranked(
        self, video_ids: Sequence[bytes | str], classes: np.ndarray, scores: np.ndarray
    ) -> None:
        """Writes a batch of rows whose classes are chosen already, see `best_classes`.

        Args:
            video_ids: `[B]`; none for a batch without rows.
            classes: `[B, K]`, by descending score.
            scores: `[B, K]`, of those classes.
        """
        self._write_batch(video_rows(video_ids, classes, scores))


class JsonLinesWriter(_ResumableRows):
    """Writes one JSON object a line. With `settings` it can be continued, see `_ResumableRows`."""

    def write(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Writes a batch of lines.

        Raises:
            ValueError: A number is not finite.
        """
        self._write_batch([json.dumps(value, allow_nan=False) for value in objects])


def best_classes(
    video_ids: Sequence[bytes | str], probabilities: np.ndarray, top_k: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the most probable classes of each video; of equal scores the lower class comes first.

    Args:
        video_ids: `[B]`, for the errors.
        probabilities: `[B, C]`, finite.
        top_k: How many, at most C; None: all.

    Returns:
        Classes and their scores, `[B, min(top_k, C)]` each, by descending score.

    Raises:
        ValueError: If the shapes do not fit or a probability is not finite.
    """
    probabilities = _checked_probabilities(video_ids, probabilities)
    num_classes = probabilities.shape[1]
    classes = top_k_indices(
        probabilities, num_classes if top_k is None else min(top_k, num_classes)
    )
    return classes, np.take_along_axis(probabilities, classes, axis=1)


def video_rows(
    video_ids: Sequence[bytes | str], classes: np.ndarray, scores: np.ndarray
) -> list[str]:
    """Returns the rows of the 2018 CSV, without line breaks; see `SubmissionWriter`.

    Args:
        video_ids: `[B]`, bytes in UTF-8 or str.
        classes: `[B, K]`, in the order of the row.
        scores: `[B, K]`, of those classes.

    Raises:
        ValueError: If an id is refused.
    """
    num_rows, top_k = classes.shape
    pairs = np.empty((num_rows, 2 * top_k))
    pairs[:, 0::2] = classes
    pairs[:, 1::2] = scores
    row_format = "%s," + " ".join(["%i %g"] * top_k)
    return [
        row_format % (quoted_field(_decoded(video_id)), *row)
        for video_id, row in zip(video_ids, pairs.tolist(), strict=True)
    ]


class SegmentSubmissionWriter(_WholeFile):
    """Writes the 2019 CSV: one row a class, its best segments.

    Header `Class,Segments`; a row is `class,` and up to `max_per_class` segments `id:start` joined
    by single spaces, by descending score (which is not written). Of equal scores the segment
    written first comes first. The rows are those of `class_ids`, in order, also without segments.
    An id that is empty, not UTF-8 or has whitespace, a colon, a comma or a quote is refused.

    Memory does not grow with the number of segments seen. It takes 8 bytes for each of classes x
    `max_per_class` kept segments (0.8 GB at 1,000 classes and 100,000), three times that while a
    buffer of at most `max_per_class` new segments is merged in, and the ids of the kept segments.

    Args:
        path: The CSV, created or replaced when the context is left without an exception.
        class_ids: Distinct columns of the probabilities that are ranked (the challenge lists
            1,000 of the 3,862 classes).
        max_per_class: Most segments of a row, the flag `--segment_max_pred`.

    Raises:
        ValueError: If `class_ids` are none, repeated or negative, or `max_per_class` is not
            positive.
        OSError: At once, if the folder is missing or not writable, or `path` is no regular file.
    """

    def __init__(
        self, path: str | os.PathLike, class_ids: Sequence[int], max_per_class: int = 100_000
    ):
        self.class_ids = np.asarray(class_ids, dtype=np.int64)
        if (
            self.class_ids.ndim != 1
            or self.class_ids.size == 0
            or self.class_ids.min() < 0
            or np.unique(self.class_ids).size != self.class_ids.size
        ):
            raise ValueError(
                "`class_ids` must be distinct and not negative, at least one. "
                f"Received: {self.class_ids.tolist()}"
            )
        if max_per_class < 1:
            raise ValueError(
                f"`max_per_class` must be positive. Received: max_per_class={max_per_class}"
            )
        super().__init__(path)
        self.max_per_class = max_per_class
        # The best so far, [classes, kept], by descending score: scores, and rows of _segments.
        self._best_scores = np.zeros((self.class_ids.size, 0), np.float32)
        self._best_segments = np.zeros((self.class_ids.size, 0), np.int32)
        self._segments = np.zeros(0, dtype=object)
        self._new_scores: list[np.ndarray] = []
        self._new_segments: list[str] = []

    def write(
        self,
        video_ids: Sequence[bytes | str],
        start_times: Sequence[int],
        probabilities: np.ndarray,
    ) -> None:
        """Adds a batch of segments.

        Args:
            video_ids: `[S]`, bytes in UTF-8 or str: the video of each segment.
            start_times: `[S]`, first second of each segment.
            probabilities: `[S, C]` over ALL classes, finite; the columns `class_ids` are used.

        Raises:
            ValueError: If the shapes do not fit, a probability is not finite or an id is refused.
        """
        self._open_file()
        probabilities = _checked_probabilities(video_ids, probabilities)
        if probabilities.shape[1] <= self.class_ids.max():
            raise ValueError(
                "`probabilities` must have a column for each class id. Received: "
                f"{probabilities.shape[1]} columns, class id {self.class_ids.max()}"
            )
        names = [
            f"{_segment_video_id(video_id)}:{int(start)}"
            for video_id, start in zip(video_ids, start_times, strict=True)
        ]
        scores = probabilities[:, self.class_ids].astype(np.float32)
        for first in range(0, len(names), self.max_per_class):
            rows = slice(first, first + self.max_per_class)
            if len(self._new_segments) + len(names[rows]) > self.max_per_class:
                self._merge()
            self._new_scores.append(scores[rows])
            self._new_segments += names[rows]

    def _merge(self) -> None:
        """Merges the buffered segments into the best of each class."""
        if not self._new_segments:
            return
        new_scores = np.concatenate(self._new_scores)
        num_known = len(self._segments)
        segments = np.concatenate([self._segments, np.array(self._new_segments, dtype=object)])
        new_rows = np.arange(num_known, len(segments), dtype=np.int32)
        num_kept = min(self.max_per_class, self._best_scores.shape[1] + len(new_scores))
        best_scores = np.empty((self.class_ids.size, num_kept), np.float32)
        best_segments = np.empty((self.class_ids.size, num_kept), np.int32)
        # Class by class, so that the sort's own memory stays that of one class.
        for index in range(self.class_ids.size):
            scores = np.concatenate([self._best_scores[index], new_scores[:, index]])
            # Kept segments come before new ones: of equal scores the lower index is the earlier.
            chosen = top_k_indices(scores[np.newaxis], num_kept)[0]
            best_scores[index] = scores[chosen]
            best_segments[index] = np.concatenate([self._best_segments[index], new_rows])[chosen]
        referenced = np.zeros(len(segments), dtype=bool)
        referenced[best_segments.ravel()] = True
        self._segments = segments[referenced]
        self._best_scores = best_scores
        self._best_segments = (np.cumsum(referenced, dtype=np.int32) - 1)[best_segments]
        self._new_scores, self._new_segments = [], []

    def _finish(self) -> None:
        self._merge()
        self._file.write(SEGMENT_HEADER + "\n")
        for class_id, segments in zip(self.class_ids, self._best_segments, strict=True):
            self._file.write(f"{class_id},{' '.join(self._segments[segments])}\n")


def _checked_probabilities(
    video_ids: Sequence[bytes | str], probabilities: np.ndarray
) -> np.ndarray:
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or len(probabilities) != len(video_ids):
        raise ValueError(
            "`probabilities` must have the shape [B, C], a row for each video id. "
            f"Received: shape={probabilities.shape}, {len(video_ids)} ids"
        )
    infinite = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if infinite.size:
        raise ValueError(
            "Probabilities must be finite. Received: NaN or infinity for "
            f"{infinite.size} rows, the first of video {_decoded(video_ids[infinite[0]])!r}; "
            "check the checkpoint for NaN weights"
        )
    return probabilities


def _decoded(video_id: bytes | str) -> str:
    if isinstance(video_id, bytes):
        try:
            video_id = video_id.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"A video id must be UTF-8. Received: {video_id!r}") from error
    if not video_id or "\n" in video_id or "\r" in video_id:
        raise ValueError(
            f"A video id must not be empty nor have a line break. Received: {video_id!r}"
        )
    return str(video_id)


def _segment_video_id(video_id: bytes | str) -> str:
    text = _decoded(video_id)
    if not set(text).isdisjoint(SEGMENT_ID_BREAKS):
        raise ValueError(
            "A video id of a segment must not have whitespace, a colon, a comma or a quote. "
            f"Received: {text!r}"
        )
    return text


def quoted_field(text: str) -> str:
    """Returns a field of a CSV, quoted if it has a comma or a quote."""
    if "," in text or '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return text
