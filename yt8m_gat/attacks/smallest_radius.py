"""The smallest radius at which something reaches a threshold: doubling, then bisection."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Point = TypeVar("Point")

# A value that never falls short, however small the radius, would be halved for ever.
_LEAST = 2.0**-40


class FoundRadius(NamedTuple, Generic[Point]):
    """A radius at which the threshold was reached.

    Attributes:
        radius: The smallest one that was tried and reached it.
        value: The value there.
        point: What gave the value there.
    """

    radius: float
    value: float
    point: Point


def smallest_radius(
    value_at: Callable[[float], tuple[float, Point]],
    threshold: float,
    *,
    start: float,
    largest: float,
    precision: float = 0.05,
) -> FoundRadius[Point] | None:
    """Searches the smallest radius whose value is at least a threshold.

    The value of an attack grows with its radius. From `start` the radius is doubled, or halved,
    until the threshold lies between two radii; then their geometric mean replaces one of them until
    they are within `precision` of each other. What an attack finds bounds the true smallest radius
    from above: a stronger attack may need less.

    Args:
        value_at: Radius -> the value that an attack reaches there, and its point.
        threshold: The value to reach, above 0.
        start: The first radius, above 0.
        largest: The largest radius to try.
        precision: Relative distance of the two radii at the end.

    Returns:
        The radius, its value and its point; None if the largest one does not reach the threshold.

    Raises:
        ValueError: A number is not positive, or `largest` is below `start`.

    Example:
        >>> found = smallest_radius(
        ...     lambda r: (3 * r, "point"), threshold=6.0, start=0.1, largest=100, precision=0.01
        ... )
        >>> 2.0 <= found.radius <= 2.02
        True
    """
    if not (threshold > 0 and 0 < start <= largest and precision > 0):
        raise ValueError(
            "`threshold`, `start` and `precision` must be positive, `largest` at least `start`. "
            f"Received: threshold={threshold}, start={start}, largest={largest}, "
            f"precision={precision}"
        )
    low, radius, found = 0.0, start, None
    while found is None:
        value, point = value_at(radius)
        if value >= threshold:
            found = FoundRadius(radius, value, point)
        elif radius >= largest:
            return None
        else:
            low, radius = radius, min(2 * radius, largest)
    while not low:
        half = found.radius / 2
        value, point = value_at(half)
        if value < threshold or half < start * _LEAST:
            low = half
        else:
            found = FoundRadius(half, value, point)
    while found.radius > low * (1 + precision):
        radius = (low * found.radius) ** 0.5
        value, point = value_at(radius)
        if value < threshold:
            low = radius
        else:
            found = FoundRadius(radius, value, point)
    return found
