import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from yt8m_gat.metrics import EvaluationMetrics, evaluate, restrict_to_classes

KEYS = ["gap", "map", "map_all_scores", "perr", "hit_at_1"]


def heap_average_precision(pairs, num_positives):
    """AP as the starter code does it: pop the best pair off a heap, add precision at each hit."""
    heap = [(-score, hit) for score, hit in pairs]
    heapq.heapify(heap)
    hits, total = 0, 0.0
    for rank in range(1, len(heap) + 1):
        _, hit = heapq.heappop(heap)
        if hit:
            hits += 1
            total += hits / rank
    return total / num_positives


def brute_force(labels, scores, top_k):
    """The definitions of the five metrics, for scores without ties."""
    num_videos, num_classes = labels.shape
    ranked = [sorted(range(num_classes), key=lambda c: -scores[v, c]) for v in range(num_videos)]
    pooled, per_class = [], {c: [] for c in range(num_classes)}
    perr, hit_at_1 = [], []
    for video, order in enumerate(ranked):
        for c in order[:top_k]:
            pooled.append((scores[video, c], labels[video, c]))
            per_class[c].append((scores[video, c], labels[video, c]))
        n = int(labels[video].sum())
        perr.append(sum(labels[video, c] for c in order[:n]) / n if n else 0.0)
        hit_at_1.append(labels[video, order[0]])
    classes = [c for c in range(num_classes) if labels[:, c].any()]
    return {
        "gap": heap_average_precision(pooled, labels.sum()),
        "map": np.mean([heap_average_precision(per_class[c], labels[:, c].sum()) for c in classes]),
        "map_all_scores": np.mean(
            [
                heap_average_precision(
                    zip(scores[:, c], labels[:, c], strict=True), labels[:, c].sum()
                )
                for c in classes
            ]
        ),
        "perr": np.mean(perr),
        "hit_at_1": np.mean(hit_at_1),
    }


def untied(rng, num_videos, num_classes):
    scores = rng.permutation(num_videos * num_classes).reshape(num_videos, num_classes)
    return scores / scores.size


def test_by_hand():
    # Video 0: top 2 are classes 0 (.9, label) and 1 (.8, miss); its label 2 is outside them.
    # Video 1: top 2 are classes 1 (.7, label) and 2 (.6, miss).
    labels = np.array([[1, 0, 1], [0, 1, 0]])
    scores = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.6]])
    result = evaluate(labels, scores, top_k=2)
    assert list(result) == KEYS
    # Pool: .9 hit, .8 miss, .7 hit, .6 miss; P = 3, the label outside included.
    assert result["gap"] == pytest.approx((1 / 1 + 2 / 3) / 3)
    # Class 0: only a hit -> 1. Class 1: .8 miss, .7 hit -> 1/2. Class 2: .6 miss, P = 1 -> 0.
    assert result["map"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    # Class 2 over all scores: .6 miss, .1 hit -> 1/2.
    assert result["map_all_scores"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    # Video 0 has 2 labels, 1 of them in its top 2; video 1 has 1, in its top 1.
    assert result["perr"] == pytest.approx((1 / 2 + 1) / 2)
    assert result["hit_at_1"] == 1.0


@pytest.mark.parametrize("top_k", [1, 3, 20, 50])
@pytest.mark.parametrize("label_rate", [0.05, 0.5])
def test_brute_force(top_k, label_rate):
    rng = np.random.default_rng(top_k)
    labels = rng.random((40, 30)) < label_rate
    labels[0] = False
    scores = untied(rng, 40, 30)
    expected = brute_force(labels, scores, top_k)
    assert evaluate(labels, scores, top_k=top_k) == pytest.approx(expected, abs=1e-12)


def test_all_scores_map_with_ties_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.random((200, 40)) < 0.1
    scores = rng.integers(0, 8, (200, 40)) / 8
    expected = average_precision_score(labels, scores, average="macro")
    assert labels.any(axis=0).all()
    assert evaluate(labels, scores)["map_all_scores"] == pytest.approx(expected, abs=1e-12)


def test_tied_pairs_are_one_threshold():
    # One pair of each of 4 videos, all scored 0.5, 1 hit: precision 1/4 for any place of the hit.
    for position in range(4):
        labels = np.zeros((4, 1))
        labels[position] = 1
        assert evaluate(labels, np.full((4, 1), 0.5))["gap"] == 0.25


def test_tied_classes_of_a_video_go_lower_index_first():
    scores = np.array([[0.5, 0.7, 0.7, 0.7]])
    for label, hit_at_1, gap in [(1, 1.0, 1 / 2), (2, 0.0, 1 / 2), (3, 0.0, 0.0)]:
        labels = np.zeros((1, 4))
        labels[0, label] = 1
        result = evaluate(labels, scores, top_k=2)
        # The pool is classes 1 and 2, tied at .7.
        assert (result["hit_at_1"], result["gap"]) == (hit_at_1, gap)


@st.composite
def predictions(draw):
    num_videos, num_classes = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.random((num_videos, num_classes)) < draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    # Few distinct values: ties within videos and between them.
    scores = rng.integers(0, draw(st.sampled_from([1, 3, 1000])), labels.shape) / 1000
    return labels, scores.astype(draw(st.sampled_from([np.float16, np.float32, np.float64]))), rng


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(1, 10))
def test_batch_cuts_record_order_and_merging_change_nothing(data, top_k):
    labels, scores, rng = data
    whole = EvaluationMetrics(labels.shape[1], top_k)
    whole.update(labels, scores)
    cuts = np.sort(rng.integers(0, len(labels) + 1, 3))
    parts = [EvaluationMetrics(labels.shape[1], top_k) for _ in range(2)]
    for index, rows in enumerate(np.split(rng.permutation(len(labels)), cuts)):
        parts[index % 2].update(labels[rows], scores[rows])
    parts[0].merge(parts[1])
    assert parts[0].result() == pytest.approx(whole.result(), abs=1e-12)
    assert parts[0].result()["num_videos"] == len(labels)


@settings(max_examples=40, deadline=None)
@given(predictions())
def test_gap_of_all_pairs_with_ties_is_scikit_learns_micro_average(data):
    labels, scores, _ = data
    result = evaluate(labels, scores, top_k=labels.shape[1])
    if not labels.any():
        assert result == dict.fromkeys(KEYS, 0.0)
        return
    expected = average_precision_score(labels.ravel(), scores.ravel())
    assert result["gap"] == pytest.approx(expected, abs=1e-12)


def test_perfect_scores_give_one_and_unlabelled_videos_count_as_misses():
    rng = np.random.default_rng(3)
    labels = np.zeros((50, 10))
    labels[np.arange(50), rng.integers(0, 10, 50)] = 1
    scores = labels * 0.5 + untied(rng, 50, 10) * 0.4
    assert evaluate(labels, scores) == dict.fromkeys((*KEYS, "top_5", "mean_class_accuracy"), 1.0)
    labels[:10] = 0
    result = evaluate(labels, np.where(labels > 0, scores, scores / 10))
    assert (result["perr"], result["hit_at_1"]) == (0.8, 0.8)


def test_labels_are_positive_above_zero_in_any_dtype():
    rng = np.random.default_rng(4)
    labels = rng.random((20, 6)) < 0.3
    scores = untied(rng, 20, 6)
    expected = evaluate(labels, scores)
    assert evaluate(labels * 0.25, scores) == expected
    assert evaluate(labels.astype(np.int64), scores) == expected
    assert evaluate(np.where(labels, 1, -1), scores) == expected


def test_float64_scores_are_not_rounded_to_ties():
    scores = np.array([[0.5 + 1e-12], [0.5]])
    assert evaluate(np.array([[1], [0]]), scores)["gap"] == 1.0


def test_the_callers_buffer_may_be_reused():
    rng = np.random.default_rng(5)
    labels, scores = rng.random((8, 4)) < 0.5, rng.random((8, 4), dtype=np.float32)
    metrics = EvaluationMetrics(4)
    buffer = scores.copy()
    metrics.update(labels, buffer)
    buffer[:] = 0
    assert metrics.result()["map_all_scores"] == evaluate(labels, scores)["map_all_scores"]


def test_without_all_scores_the_others_are_the_same():
    rng = np.random.default_rng(6)
    labels, scores = rng.random((30, 300)) < 0.1, rng.random((30, 300))
    metrics = EvaluationMetrics(300, all_scores=False)
    metrics.update(labels, scores)
    expected = {**evaluate(labels, scores), "num_videos": 30}
    del expected["map_all_scores"]
    assert metrics.result() == expected
    with pytest.raises(ValueError, match="all_scores=True"):
        metrics.per_class_average_precision(all_scores=True)


def test_per_class_average_precision():
    labels = np.array([[1, 0, 1, 0], [0, 1, 0, 0]])
    scores = np.array([[0.9, 0.8, 0.1, 0.0], [0.2, 0.7, 0.6, 0.0]])
    metrics = EvaluationMetrics(4, top_k=2)
    metrics.update(labels, scores)
    np.testing.assert_allclose(metrics.per_class_average_precision(), [1, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(
        metrics.per_class_average_precision(all_scores=True), [1, 1 / 2, 1 / 2, np.nan]
    )


def test_partitions_are_every_nth_video():
    rng = np.random.default_rng(7)
    labels, scores = rng.random((52, 9)) < 0.3, rng.random((52, 9))
    metrics = EvaluationMetrics(9, top_k=4)
    for rows in np.array_split(np.arange(52), 6):
        metrics.update(labels[rows], scores[rows])
    parts = [evaluate(labels[i::5], scores[i::5], top_k=4) for i in range(5)]
    result = metrics.partition_result(5)
    for name in KEYS:
        values = [part[name] for part in parts]
        assert result["mean"][name] == pytest.approx(np.mean(values), abs=1e-12)
        assert result["deviation"][name] == pytest.approx(np.std(values, ddof=1), abs=1e-12)


@pytest.mark.parametrize("num_partitions", [0, 1, 4])
def test_partitions_refused(num_partitions):
    metrics = EvaluationMetrics(2)
    metrics.update(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match=rf"\(3\).*num_partitions={num_partitions}"):
        metrics.partition_result(num_partitions)


def test_restriction_to_classes():
    rng = np.random.default_rng(8)
    labels, scores = rng.random((30, 12)) < 0.15, untied(rng, 30, 12)
    classes = [7, 2, 9]
    subset_labels, subset_scores = restrict_to_classes(labels, scores, classes)
    rows = [v for v in range(30) if any(labels[v, c] for c in classes)]
    assert 0 < len(rows) < 30
    np.testing.assert_array_equal(subset_labels, [[labels[v, c] for c in classes] for v in rows])
    np.testing.assert_array_equal(subset_scores, [[scores[v, c] for c in classes] for v in rows])
    empty = restrict_to_classes(np.zeros_like(labels), scores, classes)
    metrics = EvaluationMetrics(3)
    metrics.update(*empty)
    metrics.update(subset_labels, subset_scores)
    assert metrics.result()["num_videos"] == len(rows)


@pytest.mark.parametrize("classes", [[], [1, 1], [-1], [3]])
def test_restriction_refused(classes):
    with pytest.raises(ValueError, match=r"distinct and in 0 \.\. 2"):
        restrict_to_classes(np.ones((2, 3)), np.ones((2, 3)), classes)
    with pytest.raises(ValueError, match="same shape"):
        restrict_to_classes(np.ones((2, 3)), np.ones((2, 4)), [0])


@pytest.mark.parametrize("scores_shape", [(4, 3), (3, 4), (4,)])
def test_shape_mismatch_refused(scores_shape):
    with pytest.raises(ValueError, match=r"shape \[B, 4\]. Received: labels \(4, 4\)"):
        evaluate(np.ones((4, 4)), np.ones(scores_shape))


def test_labels_as_indices_refused():
    with pytest.raises(ValueError, match=r"\[N, C\]. Received: shape=\(4,\)"):
        evaluate(np.ones(4), np.ones((4, 4)))


def test_nan_refused():
    scores = np.ones((3, 4))
    scores[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"`probabilities`.*1 NaN, .*video 2 .*class 1"):
        evaluate(np.ones((3, 4)), scores)
    with pytest.raises(ValueError, match="`labels` must not contain NaN"):
        evaluate(scores, np.ones((3, 4)))


def test_no_videos_refused():
    with pytest.raises(ValueError, match="at least one video"):
        evaluate(np.zeros((0, 4)), np.zeros((0, 4)))


def test_merge_of_different_metrics_refused():
    with pytest.raises(ValueError, match=r"Received: \(4, 10, True, True\), expected"):
        EvaluationMetrics(4).merge(EvaluationMetrics(4, top_k=10))


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"num_classes": 3, "top_k": 0}])
def test_constructor_refusals(arguments):
    with pytest.raises(ValueError, match=r"must be positive. Received: .*=0"):
        EvaluationMetrics(**arguments)
