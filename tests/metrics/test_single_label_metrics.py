"""Top-5 and mean class accuracy, of videos that have one label each."""

import numpy as np
import pytest

from yt8m_gat.metrics import EvaluationMetrics, evaluate

# Six classes: the label's rank among the scores, from 1, is in the comment.
SCORES = np.array(
    [
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],  # 1
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],  # 5
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],  # 6
        [0.1, 0.9, 0.1, 0.1, 0.1, 0.1],  # 6: of equal scores the lower class comes first
        [0.1, 0.9, 0.1, 0.1, 0.1, 0.1],  # 5
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],  # 1
        [0.2, 0.8, 0.7, 0.6, 0.5, 0.4],  # 6
    ]
)
CLASSES = np.array([0, 4, 5, 5, 4, 0, 0])


def test_values_by_hand():
    labels = np.eye(6)[CLASSES]
    for top_k in (20, 1):  # Five classes are ranked even where fewer are kept.
        result = evaluate(labels, SCORES, top_k=top_k)
        assert result["hit_at_1"] == pytest.approx(2 / 7)
        assert result["top_5"] == pytest.approx(4 / 7)
        # Class 0: 2 of 3; classes 4 and 5: none; the others have no video.
        assert result["mean_class_accuracy"] == pytest.approx(2 / 3 / 3)


def test_a_second_label_or_none_leaves_them_out():
    for changed in (1.0, 0.0):
        labels = np.eye(6)[CLASSES]
        labels[3, 5] = changed
        labels[3, 1] = changed
        assert not {"top_5", "mean_class_accuracy"} & evaluate(labels, SCORES).keys()
    silent = EvaluationMetrics(6, single_label_metrics=False)
    silent.update(np.eye(6)[CLASSES], SCORES)
    assert "top_5" not in silent.result()


def test_batches_and_partitions():
    metrics = EvaluationMetrics(6)
    other = EvaluationMetrics(6)
    metrics.update(np.eye(6)[CLASSES[:3]], SCORES[:3])
    other.update(np.eye(6)[CLASSES[3:]], SCORES[3:])
    metrics.merge(other)
    whole = metrics.result()
    assert whole["top_5"] == pytest.approx(4 / 7)
    parts = metrics.partition_result(2)
    # Videos 0, 2, 4, 6 and 1, 3, 5.
    assert parts["mean"]["top_5"] == pytest.approx((2 / 4 + 2 / 3) / 2)
    # Classes 0 (1 of 2), 4, 5, and classes 0 (1 of 1), 4, 5.
    assert parts["mean"]["mean_class_accuracy"] == pytest.approx((0.5 / 3 + 1 / 3) / 2)
    with pytest.raises(ValueError, match="single_label_metrics"):
        metrics.merge(EvaluationMetrics(6, single_label_metrics=False))


def test_the_label_is_in_the_top_five_of_five_classes():
    assert evaluate(np.eye(5)[[0, 4]], np.ones((2, 5)))["top_5"] == 1.0


def test_the_accuracy_of_each_class():
    metrics = EvaluationMetrics(6)
    metrics.update(np.eye(6)[CLASSES], SCORES)
    np.testing.assert_allclose(
        metrics.per_class_accuracy(), [2 / 3, np.nan, np.nan, np.nan, 0.0, 0.0]
    )
    metrics.update(np.zeros((1, 6)), SCORES[:1])
    assert metrics.per_class_accuracy() is None
