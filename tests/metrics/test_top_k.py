import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yt8m_gat.metrics import top_k_indices


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(1, 9), st.sampled_from([2, 1000]))
def test_is_the_head_of_a_sort_by_score_then_index(seed, num_rows, num_columns, distinct):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-distinct, distinct, (num_rows, num_columns)) / 8
    k = int(rng.integers(0, num_columns + 1))
    expected = [sorted(range(num_columns), key=lambda c: (-row[c], c))[:k] for row in scores]
    np.testing.assert_array_equal(
        top_k_indices(scores, k), np.reshape(expected, (num_rows, k)).astype(int)
    )


@pytest.mark.parametrize("extreme", [np.inf, -np.inf])
def test_infinite_scores_are_ordered(extreme):
    np.testing.assert_array_equal(
        top_k_indices(np.array([[0.0, extreme, 1.0]]), 3),
        [[1, 2, 0]] if extreme > 0 else [[2, 0, 1]],
    )
