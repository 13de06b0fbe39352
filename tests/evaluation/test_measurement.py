"""Totals of a pass, batch by batch."""

import numpy as np

from yt8m_gat.evaluation.measurement import PassTotals


def test_rated_positives_are_pairs_with_a_label_and_a_weight():
    totals = PassTotals(num_classes=3, top_k=3, all_scores=False, groups={})
    labels = np.array([[1, 0, 1], [1, 0, 0]], np.float32)
    weights = np.array([[1, 1, 0], [1, 0, 1]], np.float32)
    totals.add(labels, np.full((2, 3), 0.5, np.float32), weights, {})
    totals.add(labels, np.full((2, 3), 0.5, np.float32), weights, {})
    measurement = totals.measurement()
    np.testing.assert_array_equal(measurement.positives, [4, 0, 0])
    assert (measurement.num_examples, measurement.rated) == (4, True)


def test_positives_of_whole_clips_are_their_labels():
    totals = PassTotals(num_classes=3, top_k=3, all_scores=False, groups={})
    labels = np.array([[1, 0, 1], [1, 0, 0]], np.float32)
    totals.add(labels, np.full((2, 3), 0.5, np.float32), None, {})
    np.testing.assert_array_equal(totals.measurement().positives, [2, 0, 1])


def test_a_group_counts_its_rated_pairs():
    totals = PassTotals(num_classes=3, top_k=3, all_scores=False, groups={"g": [0], "none": [2]})
    labels = np.array([[1, 0, 1], [0, 0, 0]], np.float32)
    weights = np.array([[1, 1, 0], [1, 0, 1]], np.float32)
    totals.add(labels, np.full((2, 3), 0.5, np.float32), weights, {})
    results = totals.measurement().group_results()
    assert results["none"] is None
    assert (results["g"]["num_videos"], results["g"]["gap"]) == (1, 1.0)
