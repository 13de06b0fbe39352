"""Metrics of segments, of which only some (segment, class) pairs were rated."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from yt8m_gat.metrics import EvaluationMetrics, SegmentMeanAveragePrecision, evaluate


@pytest.fixture
def segments():
    """40 segments of 30 classes, up to 4 rated, some of them none; labels, weights, scores."""
    rng = np.random.default_rng(5)
    weights = np.zeros((40, 30), np.float32)
    for row in weights:
        row[rng.permutation(30)[: rng.integers(0, 5)]] = 1
    labels = (rng.random((40, 30)) < 0.5) * weights
    return labels, weights, rng.random((40, 30), np.float32)


def test_gap_is_the_average_precision_of_the_rated_pairs(segments):
    labels, weights, scores = segments
    rated = weights > 0
    result = evaluate(labels, scores, label_weights=weights)
    expected = average_precision_score(labels[rated], scores[rated])
    assert result["gap"] == pytest.approx(expected, abs=1e-12)
    per_class = [
        average_precision_score(labels[rated[:, c], c], scores[rated[:, c], c])
        for c in range(30)
        if labels[:, c].any()
    ]
    assert result["map"] == pytest.approx(np.mean(per_class), abs=1e-12)
    assert result["map_all_scores"] == pytest.approx(np.mean(per_class), abs=1e-12)
    segment_map = SegmentMeanAveragePrecision(30)
    segment_map.update(labels, weights, scores)
    assert segment_map.result()["segment_map"] == pytest.approx(np.mean(per_class), abs=1e-12)


def test_pairs_that_were_not_rated_and_segments_without_any_do_not_count(segments):
    labels, weights, scores = segments
    expected = evaluate(labels, scores, label_weights=weights)
    rated = weights > 0
    other_labels = np.where(rated, labels, 1)
    other_scores = np.where(rated, scores, 1 - scores)
    assert evaluate(other_labels, other_scores, label_weights=weights) == expected
    some = rated.any(axis=1)
    assert not some.all()
    assert evaluate(labels[some], scores[some], label_weights=weights[some]) == expected
    assert evaluate(labels, scores) != expected


def test_by_hand():
    labels = [[1, 0, 0, 0], [0, 0, 0, 1]]
    weights = [[1, 1, 0, 0], [0, 0, 1, 1]]
    scores = [[0.6, 0.3, 0.9, 0.8], [0.9, 0.9, 0.4, 0.2]]
    result = evaluate(labels, scores, label_weights=weights)
    # Rated pairs by score: 0.6 hit, 0.4 miss, 0.3 miss, 0.2 hit.
    assert result["gap"] == pytest.approx((1 + 2 / 4) / 2)
    assert result["map"] == pytest.approx(1.0)  # Class 3 has one rated pair, its positive.
    assert result["perr"] == result["hit_at_1"] == 0.5


def test_weights_of_another_shape_are_refused():
    metrics = EvaluationMetrics(3)
    with pytest.raises(ValueError, match=r"`label_weights` must have the shape of `labels`"):
        metrics.update(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 1)))
