"""Paired tests against SciPy's and against what is known of the difference."""

import numpy as np
import pytest
from scipy import stats

from yt8m_gat.metrics import EvaluationMetrics
from yt8m_gat.robustness.paired_test import bootstrap_p, mcnemar_p, paired_test
from yt8m_gat.robustness.worst_case import packed, packed_values, unpacked, unpacked_values


def row_of(labels, scores):
    metrics = EvaluationMetrics(labels.shape[1], top_k=3)
    metrics.update(labels, scores.astype(np.float32))
    resampled = {name: packed_values(values) for name, values in metrics.resampled().items()}
    return {**metrics.result(), "hits": packed(metrics.hits_at_1), "resampled": resampled}


@pytest.fixture(scope="module")
def rows():
    """Two models on 300 clips, of which the second has noisier scores."""
    rng = np.random.default_rng(0)
    labels = np.eye(5)[rng.integers(5, size=300)]
    signal = labels + 0.7 * rng.normal(size=labels.shape)
    return row_of(labels, signal), row_of(labels, signal + 0.8 * rng.normal(size=labels.shape))


def test_mcnemar_is_the_sign_flip_test_of_the_hits():
    ours, theirs = np.array([1] * 8 + [0] + [1, 0, 1]), np.array([0] * 8 + [1] + [1, 0, 1])
    flipped = stats.permutation_test(
        (ours, theirs), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples"
    )
    assert mcnemar_p(8, 1) == pytest.approx(flipped.pvalue, abs=1e-12) == 20 / 512
    assert mcnemar_p(0, 0) == 1.0 and mcnemar_p(3, 3) == 1.0


def test_the_interval_of_a_difference_is_scipys(rows):
    ours, theirs = rows
    found = paired_test(ours, theirs)["hit_at_1"]
    hits = unpacked(ours["hits"]).astype(float), unpacked(theirs["hits"]).astype(float)
    assert found["difference"] == pytest.approx(hits[0].mean() - hits[1].mean())
    assert found["only_ours"] - found["only_baseline"] == (hits[0] - hits[1]).sum()
    scipys = stats.bootstrap(
        hits,
        lambda a, b, axis: (a - b).mean(axis),
        paired=True,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(1),
    )
    width = scipys.confidence_interval.high - scipys.confidence_interval.low
    # 200 resamples know the ends of an interval to about a tenth of its width.
    np.testing.assert_allclose(found["interval"], scipys.confidence_interval, atol=0.15 * width)
    # Unpaired, with the resamples of one model in another order, it is wider.
    values = unpacked_values(ours["resampled"]["hit_at_1"])
    unpaired = np.roll(values, 1) - unpacked_values(theirs["resampled"]["hit_at_1"])
    low, high = np.percentile(unpaired, [2.5, 97.5])
    assert high - low > 1.15 * (found["interval"][1] - found["interval"][0])


def test_the_test_of_gap_knows_better_and_equal(rows):
    better = paired_test(*rows)["gap"]
    assert better["difference"] == pytest.approx(better["ours"] - better["baseline"])
    low, high = better["interval"]
    assert 0 < low < better["difference"] < high and better["p"] == pytest.approx(2 / 201)
    assert paired_test(*rows[::-1])["gap"]["p"] == better["p"]
    same = paired_test(rows[0], rows[0])
    assert same["gap"]["p"] == same["hit_at_1"]["p"] == 1.0
    assert same["gap"]["interval"] == [0, 0]


def test_p_of_a_normal_difference_is_the_normals():
    # The differences of a metric that is normal about 0.03 with a deviation of 0.02.
    values = stats.norm.ppf((np.arange(9999) + 0.5) / 9999, 0.03, 0.02)
    assert bootstrap_p(values) == pytest.approx(2 * stats.norm.cdf(-1.5), abs=5e-4)
    assert bootstrap_p(np.array([np.nan, np.nan, 1.0])) is None


def test_other_clips_are_refused(rows):
    with pytest.raises(ValueError, match=r"the same clips. Received: 300 and 2 clips"):
        paired_test(rows[0], {**rows[1], "hits": packed(np.array([True, False]))})
