"""Scores beyond a limit go to disk and come back as they were."""

import errno
import gc
import os
import tempfile
import tracemalloc

import numpy as np
import pytest

from yt8m_gat.metrics import EvaluationMetrics
from yt8m_gat.metrics.score_columns import ScoreColumns


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("memory_bytes", [1, 1000, 2**20], ids=["disk", "both", "memory"])
def test_columns_come_back_bit_for_bit(memory_bytes):
    rng = np.random.default_rng(0)
    batches = [rng.random((rows, 7)).astype(np.float32) for rows in (5, 0, 1, 64)]
    kept, more = ScoreColumns(memory_bytes), ScoreColumns(memory_bytes)
    for batch in batches[:2]:
        kept.append(batch)
    for batch in batches[2:]:
        more.append(batch)
    kept.columns(0, 3)  # Between two batches.
    kept.extend(more)
    whole = np.concatenate(batches)
    for first, last in ((0, 7), (2, 5), (6, 20)):
        np.testing.assert_array_equal(kept.columns(first, last), whole[:, first:last])


def test_wider_scores_are_not_rounded():
    kept = ScoreColumns()
    kept.append(np.array([[1 + 1e-12]]))
    kept.append(np.ones((1, 1), np.float32))
    np.testing.assert_array_equal(kept.columns(0, 1), [[1 + 1e-12], [1.0]])


def test_rows_can_be_added_to_themselves():
    kept = ScoreColumns()
    kept.append(np.arange(6.0).reshape(2, 3))
    kept.extend(kept)
    np.testing.assert_array_equal(kept.columns(1, 2), [[1], [4], [1], [4]])


def test_memory_of_the_metrics_does_not_grow_with_all_scores():
    rng = np.random.default_rng(0)
    labels = rng.random((64, 3862)) < 0.001
    tracemalloc.start()
    metrics = EvaluationMetrics(3862)
    for _ in range(80):  # 79 MB of scores
        metrics.update(labels, rng.random(labels.shape, dtype=np.float32))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 10 * 2**20


def test_the_file_goes_with_the_scores():
    before = open_files()
    kept = ScoreColumns(1)
    kept.append(np.ones((4, 4)))
    assert open_files() == before + 1
    del kept
    gc.collect()
    assert open_files() == before


def test_a_full_disk_names_the_folder_and_the_remedy(monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = ScoreColumns()
    monkeypatch.setattr(kept._file, "write", full)
    with pytest.raises(OSError, match="TMPDIR") as caught:
        kept.append(np.ones((4, 4)))
    assert tempfile.gettempdir() in str(caught.value)
    assert caught.value.errno == errno.ENOSPC
