"""The arithmetic of docs/SCALE.md, and its queue beside closed forms."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import scale


def test_the_tables_of_the_page_are_those_of_the_script():
    text = scale.PAGE.read_text(encoding="utf-8")
    assert scale.filled(text) == text


def exponential(rate, seed):
    rng = np.random.default_rng(seed)
    return lambda: float(rng.exponential(1 / rate))


def birth_death_share(num_readers, places, read_rate, step_rate):
    """The share of time with at least one batch ready; n of `places` batches are ready or in work.

    A further one arrives at the rate min(readers, places - n) * read_rate, so p_n is the product
    of these rates over step_rate, normalized.
    """
    weights = [1.0]
    for ready in range(places):
        weights.append(weights[-1] * min(num_readers, places - ready) * read_rate / step_rate)
    return 1 - weights[0] / sum(weights)


@pytest.mark.parametrize(("readers", "places", "rate"), [(1, 4, 0.8), (3, 5, 0.5), (4, 12, 0.3)])
def test_exponential_times_give_the_closed_form(readers, places, rate):
    share = scale.busy_share(
        20_000, readers, places, exponential(rate, 0), exponential(1.0, 1), in_order=False
    )
    expected = birth_death_share(readers, places, rate, 1.0)
    assert share == pytest.approx(expected, abs=0.02)
    if readers == 1:  # M/M/1/K: 1 - (1 - rho) / (1 - rho^(K + 1))
        assert expected == pytest.approx(1 - (1 - rate) / (1 - rate ** (places + 1)))
        in_order = scale.busy_share(
            20_000, readers, places, exponential(rate, 0), exponential(1.0, 1), in_order=True
        )
        assert in_order == share


def test_constant_times():
    # Two readers of 4 steps each deliver a batch every 2 steps; the first after 4.
    share = scale.busy_share(100, 2, 8, lambda: 4.0, lambda: 1.0, in_order=True)
    assert share == pytest.approx(100 / (4 + 49 * 4 + 2))
    # One place: a batch is read after the step on the one before.
    assert scale.busy_share(10, 3, 1, lambda: 4.0, lambda: 1.0, in_order=True) == 1 / 5


def test_a_slow_read_holds_up_those_behind_it():
    # In order, all three steps follow the first read. Else a step ends at 2, 3 and 4.
    for in_order, expected in ((True, 3 / 13), (False, 3 / 4)):
        times = iter([10.0, 1.0, 1.0, 1.0, 1.0])
        share = scale.busy_share(3, 3, 3, times.__next__, lambda: 1.0, in_order=in_order)
        assert share == expected


def test_the_operations_are_those_that_the_benchmark_counts():
    from train_step import least_operations

    assert least_operations(scale.FRAMES, 3862) == scale.STEP_OPERATIONS


def test_one_row_by_hand():
    # 0.973 s of 16 clips are 60.8 ms a clip, and 3,888,919 of them 65.7 hours.
    row = next(line for line in scale.epoch_table().splitlines() if line.startswith("| SA, CE"))
    assert row.split(" | ")[1:3] == ["61", "66"]
    assert math.isclose(scale.TRAIN_CLIPS * 0.973 / 16 / 3600, 65.69, abs_tol=0.01)
    with pytest.raises(ValueError, match=r"must have one row '\| nobody \|'. Received: 0"):
        scale.performance("nobody")
