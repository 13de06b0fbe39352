"""Entropy and spread of class activation over time, by hand."""

import numpy as np
import pytest

from yt8m_gat.explanation.activation_statistics import (
    ActivationStatistics,
    activation_entropy,
    activation_shares,
    activation_spread,
)

REAL = np.array([True, True, True, True, False])


def test_shares_are_of_the_frames_that_speak_for_the_class():
    shares = activation_shares([1.0, -5.0, 3.0, 0.0, 99.0], REAL)
    np.testing.assert_allclose(shares, [0.25, 0.0, 0.75, 0.0])
    assert activation_shares([-1.0, -2.0, 0.0, -1.0, 9.0], REAL) is None


def test_entropy_and_spread():
    equal, single = np.full(4, 0.25), np.array([0.0, 1.0, 0.0, 0.0])
    assert activation_entropy(equal) == pytest.approx(1.0)
    assert activation_spread(equal) == pytest.approx(1.0)
    assert activation_entropy(single) == activation_spread(single) == 0.0
    near, far = np.array([0.0, 0.5, 0.5, 0.0]), np.array([0.5, 0.0, 0.0, 0.5])
    assert activation_entropy(near) == pytest.approx(0.5)
    assert activation_entropy(far) == pytest.approx(0.5)
    # Deviations of 1/2 and 3/2 frames beside that of equal shares, sqrt(15 / 12).
    assert activation_spread(near) == pytest.approx(0.5 / np.sqrt(1.25))
    assert activation_spread(far) == pytest.approx(1.5 / np.sqrt(1.25))


def test_means_over_the_clips_that_count():
    statistics = ActivationStatistics()
    activation = np.array(
        [
            [1.0, 1.0, 1.0, 1.0, 0.0],  # 1, 1
            [0.0, 2.0, 0.0, -1.0, 0.0],  # 0, 0
            [-1.0, -1.0, -1.0, -1.0, 0.0],  # No frame speaks for the label.
            [1.0, 1.0, 1.0, 1.0, 0.0],  # Has no label.
            [1.0, 0.0, 0.0, 0.0, 0.0],  # Has one frame.
        ]
    )
    mask = np.array([REAL, REAL, REAL, REAL, [True, False, False, False, False]])
    chosen = np.array([True, True, True, False, True])
    statistics.update(activation[:1], mask[:1], chosen[:1])
    statistics.update(activation[1:], mask[1:], chosen[1:])
    result = statistics.result()
    deviation = pytest.approx(np.sqrt(0.5))
    assert result == {
        "num_videos": 2,
        "num_silent": 1,
        "entropy": pytest.approx(0.5),
        "entropy_deviation": deviation,
        "spread": pytest.approx(0.5),
        "spread_deviation": deviation,
    }
    empty = ActivationStatistics().result()
    assert (empty["entropy"], empty["spread_deviation"], empty["num_videos"]) == (None, None, 0)
