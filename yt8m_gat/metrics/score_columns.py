"""Storage for the scores of a whole data set, partly in memory and partly on disk."""

import os
import tempfile
import weakref

import numpy as np


class ScoreColumns:
    """Stores batches of score rows and returns them as columns.

    Above `memory_bytes` the scores are in an unnamed file in the folder for temporary files
    (`TMPDIR`), so that memory does not grow with the data set and no file remains, even if the
    program is killed.

    Args:
        memory_bytes: The size up to which the scores are kept in memory.
    """

    def __init__(self, memory_bytes: int = 16 * 2**20) -> None:
        # One batch after the other, each of them column by column.
        self._file = tempfile.SpooledTemporaryFile(max_size=memory_bytes)  # noqa: SIM115 (kept)
        self._batches: list[tuple[int, tuple[int, int], np.dtype]] = []
        weakref.finalize(self, self._file.close)

    def append(self, scores: np.ndarray) -> None:
        """Adds the rows `[B, C]`.

        Raises:
            OSError: The file cannot be written; the message names its folder and the remedy.
        """
        try:
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(scores.T.tobytes())
        except OSError as error:
            raise OSError(
                error.errno,
                f"The scores of the evaluation cannot be kept in {tempfile.gettempdir()}: "
                f"{error.strerror}. Remedy: free some space there, or name another folder by the "
                "environment variable TMPDIR",
            ) from error
        self._batches.append((start, scores.shape, scores.dtype))

    def extend(self, other: "ScoreColumns") -> None:
        """Adds all rows of `other`."""
        for index, (_, (_, num_columns), _) in enumerate(list(other._batches)):
            self.append(other._read(index, 0, num_columns))

    def columns(self, first: int, last: int) -> np.ndarray:
        """Returns the columns first .. last - 1 of all rows, `[N, last - first]`."""
        return np.concatenate([self._read(i, first, last) for i in range(len(self._batches))])

    def _read(self, index: int, first: int, last: int) -> np.ndarray:
        start, (num_rows, num_columns), dtype = self._batches[index]
        last = min(last, num_columns)
        column_bytes = num_rows * dtype.itemsize
        self._file.seek(start + first * column_bytes)
        read = self._file.read((last - first) * column_bytes)
        return np.frombuffer(read, dtype).reshape(last - first, num_rows).T
