import numpy as np
import pytest

from yt8m_gat.metrics import SegmentMeanAveragePrecision


def segment_map(labels, weights, scores, top_k=100_000):
    metric = SegmentMeanAveragePrecision(labels.shape[1], top_k)
    metric.update(labels, weights, scores)
    return metric.result()["segment_map"]


def test_by_hand():
    # Class 0, by score: unrated, hit, unrated, miss, hit -> rated list hit, miss, hit; P = 2.
    # Class 1: a positive that is not rated does not count; one rated hit behind one rated miss.
    # Class 2: only rated misses, so it is left out of the mean.
    labels = np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]])
    weights = np.array([[0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]])
    scores = np.array(
        [[0.9, 0.9, 0.9], [0.8, 0.8, 0.8], [0.7, 0.7, 0.7], [0.6, 0.6, 0.6], [0.5, 0.5, 0.5]]
    )
    assert segment_map(labels, weights, scores) == pytest.approx(
        ((1 / 1 + 2 / 3) / 2 + (1 / 2) / 1) / 2
    )
    # Cut after the best 4 segments: class 0 loses its second hit but keeps P = 2.
    assert segment_map(labels, weights, scores, top_k=4) == pytest.approx(
        ((1 / 1) / 2 + (1 / 2) / 1) / 2
    )


def brute_force(labels, weights, scores, top_k):
    values = []
    for c in range(labels.shape[1]):
        rated_positives = [s for s in range(len(labels)) if weights[s, c] and labels[s, c]]
        if not rated_positives:
            continue
        ranked = sorted(range(len(labels)), key=lambda s: -scores[s, c])[:top_k]
        hits, total = 0, 0.0
        for rank, s in enumerate([s for s in ranked if weights[s, c]], start=1):
            if labels[s, c]:
                hits += 1
                total += hits / rank
        values.append(total / len(rated_positives))
    return np.mean(values)


@pytest.mark.parametrize("top_k", [1, 10, 59, 60, 100_000])
def test_brute_force_and_batch_cuts(top_k):
    rng = np.random.default_rng(top_k)
    labels = rng.random((60, 7)) < 0.5
    weights = (rng.random((60, 7)) < 0.4).astype(np.float32)
    scores = rng.permutation(420).reshape(60, 7) / 420
    expected = pytest.approx(brute_force(labels, weights, scores, top_k), abs=1e-12)
    assert segment_map(labels, weights, scores, top_k) == expected
    metric = SegmentMeanAveragePrecision(7, top_k)
    for rows in np.array_split(rng.permutation(60), 7):
        metric.update(labels[rows], weights[rows], scores[rows])
    assert metric.result() == {"segment_map": expected, "num_segments": 60}


def test_brute_force_of_many_segments():
    """So many that a partition does not sort all of them by chance."""
    rng = np.random.default_rng(0)
    labels = rng.random((3000, 2)) < 0.5
    weights = np.ones((3000, 2), np.float32)
    scores = rng.permutation(6000).reshape(3000, 2) / 6000
    expected = brute_force(labels, weights, scores, 37)
    assert segment_map(labels, weights, scores, 37) == pytest.approx(expected, abs=1e-12)


def test_ties_at_the_cut_all_stay():
    labels, weights = np.array([[0], [1]]), np.ones((2, 1))
    assert segment_map(labels, weights, np.full((2, 1), 0.5), top_k=1) == 0.5


def test_no_rated_positive_is_zero():
    assert segment_map(np.ones((2, 3)), np.zeros((2, 3)), np.ones((2, 3))) == 0.0


def test_refusals():
    metric = SegmentMeanAveragePrecision(3)
    with pytest.raises(ValueError, match="at least one segment"):
        metric.result()
    with pytest.raises(ValueError, match=r"shape \[S, 3\]. Received: \(2, 3\), \(2, 3\), \(2, 4\)"):
        metric.update(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="must not contain NaN"):
        metric.update(np.ones((1, 3)), np.ones((1, 3)), np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="`num_classes` must be positive"):
        SegmentMeanAveragePrecision(0)
    with pytest.raises(ValueError, match="`top_k` must be positive"):
        SegmentMeanAveragePrecision(3, top_k=0)
