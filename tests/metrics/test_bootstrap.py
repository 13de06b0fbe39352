"""Bootstrap intervals: exact for any counts of the clips, and as wide as theory says."""

import numpy as np
import pytest

from yt8m_gat.metrics import EvaluationMetrics, SegmentMeanAveragePrecision, average_precision
from yt8m_gat.metrics.bootstrap import NUM_RESAMPLES, RankedPairs, interval, resample_counts


def clips(seed, count=12, num_classes=5):
    """Labels and scores of which many are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, num_classes)) < 0.3
    scores = rng.integers(0, 4, (count, num_classes)) / 4 + labels * rng.integers(0, 2) / 8
    return labels, scores.astype(np.float32)


def repeated(labels, scores, counts, all_scores):
    metrics = EvaluationMetrics(labels.shape[1], top_k=3, all_scores=all_scores)
    metrics.update(np.repeat(labels, counts, axis=0), np.repeat(scores, counts, axis=0))
    return metrics


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("all_scores", [True, False])
def test_a_resample_is_the_metric_of_the_clips_repeated(monkeypatch, seed, all_scores):
    labels, scores = clips(seed)
    counts = np.random.default_rng(seed).integers(0, 4, len(labels)).astype(np.uint8)
    monkeypatch.setattr(
        "yt8m_gat.metrics.evaluation_metrics.resample_counts", lambda n: [counts] * NUM_RESAMPLES
    )
    metrics = repeated(labels, scores, np.ones_like(counts), all_scores)
    expected = repeated(labels, scores, counts, all_scores)
    found, ratio = metrics.intervals(), counts.sum() / len(labels)
    assert found["gap"] == pytest.approx([expected.result()["gap"]] * 2, abs=1e-12)
    # The means are over N, which the counts of a true resample sum to.
    assert found["perr"] == pytest.approx([ratio * expected.result()["perr"]] * 2, abs=1e-12)
    assert found["hit_at_1"] == pytest.approx(
        [ratio * expected.result()["hit_at_1"]] * 2, abs=1e-12
    )
    of_classes = metrics.resampled_average_precision([4, 1, 0])
    np.testing.assert_allclose(
        of_classes[0], expected.per_class_average_precision(all_scores)[[4, 1, 0]], atol=1e-12
    )


def test_counts_of_one_are_the_average_precision():
    labels, scores = clips(3, 40)
    pairs = RankedPairs.of(scores[:, 0], labels[:, 0], np.arange(40))
    positives = labels[:, 0].sum()
    assert pairs.average_precision(np.ones(40, np.uint8), positives) == pytest.approx(
        average_precision(scores[:, 0], labels[:, 0], positives), abs=1e-15
    )
    assert np.isnan(pairs.average_precision(np.zeros(40, np.uint8), 0))


def test_the_interval_of_a_share_is_as_wide_as_the_binomials():
    # 100 of 400 clips hit: p = 1/4, deviation sqrt(3/16/400) = 0.0217, 1.96 of them to each side.
    labels = np.ones((400, 1), bool)
    labels[:300] = False
    metrics = EvaluationMetrics(1)
    metrics.update(labels, np.full((400, 1), 0.5))
    low, high = metrics.intervals()["hit_at_1"]
    assert low == pytest.approx(0.25 - 0.0424, abs=0.01)
    assert high == pytest.approx(0.25 + 0.0424, abs=0.01)


def test_resamples_draw_as_many_clips_and_are_the_same_each_time():
    first, second = list(resample_counts(30)), list(resample_counts(30))
    assert len(first) == NUM_RESAMPLES and all(counts.sum() == 30 for counts in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[1])


def test_the_resamples_of_a_number_of_clips_are_those_of_every_version():
    first = next(iter(resample_counts(6, 1)))
    np.testing.assert_array_equal(first, [1, 2, 0, 2, 0, 1])


def test_an_interval_needs_most_of_its_resamples():
    values = np.arange(201.0)
    assert interval(values) == pytest.approx([5.0, 195.0])
    values[:101] = np.nan
    assert interval(values) is None
    assert interval(np.full(9, np.nan)) is None


def test_resampled_segments_are_the_segments_repeated(monkeypatch):
    labels, scores = clips(7, 20)
    rated = np.random.default_rng(1).random(labels.shape) < 0.6
    counts = np.random.default_rng(2).integers(0, 3, 20)
    monkeypatch.setattr(
        "yt8m_gat.metrics.segment_map.resample_counts", lambda n: [counts] * NUM_RESAMPLES
    )
    ours, expected = SegmentMeanAveragePrecision(5), SegmentMeanAveragePrecision(5)
    for part in (slice(0, 8), slice(8, 20)):
        ours.update(labels[part], rated[part], scores[part])
    expected.update(*(np.repeat(x, counts, axis=0) for x in (labels, rated, scores)))
    np.testing.assert_allclose(
        ours.resampled_average_precision(range(5))[0],
        expected.per_class_average_precision(),
        atol=1e-12,
    )
    few = SegmentMeanAveragePrecision(5, top_k=19)
    few.update(labels, rated, scores)
    assert np.isnan(few.resampled_average_precision([0])).all()
