"""The smallest radius of functions whose smallest radius is known."""

import pytest

from yt8m_gat.attacks.smallest_radius import smallest_radius


@pytest.mark.parametrize("start", [1e-3, 1.0, 2.0, 50.0])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_a_power_is_met_from_above(start, power):
    tried = []

    def value_at(radius):
        tried.append(radius)
        return (radius / 2.0) ** power, f"at {radius}"

    found = smallest_radius(value_at, 1.0, start=start, largest=100.0, precision=0.02)
    assert 2.0 <= found.radius <= 2.0 * 1.02
    assert found.value == (found.radius / 2.0) ** power and found.point == f"at {found.radius}"
    assert found.radius == min(radius for radius in tried if radius >= 2.0)
    # And the next smaller one that was tried fell short, within 2 %.
    assert found.radius <= 1.02 * max(radius for radius in tried if radius < 2.0)
    assert len(tried) == len(set(tried)) <= 24


def test_the_largest_radius_bounds_the_search():
    tried = []

    def value_at(radius):
        tried.append(radius)
        return radius, None

    assert smallest_radius(value_at, 9.0, start=1.0, largest=6.0) is None
    assert tried == [1.0, 2.0, 4.0, 6.0]
    assert smallest_radius(value_at, 6.0, start=1.0, largest=6.0).radius == 6.0
    # NaN reaches nothing.
    assert smallest_radius(lambda r: (float("nan"), 0), 1.0, start=1.0, largest=4.0) is None


def test_a_value_that_never_falls_short_ends():
    found = smallest_radius(lambda radius: (1.0, None), 1.0, start=1.0, largest=2.0)
    assert 0 < found.radius < 1e-11


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="`largest` at least `start`"):
        smallest_radius(lambda radius: (radius, None), 1.0, start=2.0, largest=1.0)
    with pytest.raises(ValueError, match="Received: threshold=0"):
        smallest_radius(lambda radius: (radius, None), 0, start=1.0, largest=1.0)
