"""The attack that hurt a run most, among attacks that compare."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from yt8m_gat.report.source import number
from yt8m_gat.report.spec import Ball, ball_of

PAPERS_EPSILON = 0.5

Rows = Sequence[Mapping[str, Any]]


def main_ball(attacks: Sequence[Rows]) -> Ball | None:
    """Returns the ball in which most runs were attacked and, of those, with the most attacks.

    Of several the one at the papers' radius, or else at the smallest.

    Args:
        attacks: The attacked rows of each run.

    Returns:
        None where no attack was run at a radius.
    """
    found: dict[Ball, Counter[int]] = {}
    for run, rows in enumerate(attacks):
        for row in rows:
            if (ball := ball_of(row)) is not None and number(row.get("gap")) is not None:
                found.setdefault(ball, Counter())[run] += 1
    if not found:
        return None

    def rank(ball: Ball) -> tuple[Any, ...]:
        counts = found[ball]
        return -len(counts), -max(counts.values()), ball.epsilon != PAPERS_EPSILON, ball.epsilon

    return min(sorted(found), key=rank)


def strongest(rows: Rows, ball: Ball | None) -> Mapping[str, Any]:
    """Returns the row of a ball with the lowest GAP; empty where there is none."""
    found = [row for row in rows if number(row.get("gap")) is not None]
    found = [row for row in found if ball is not None and ball_of(row) == ball]
    return min(found, key=lambda row: row["gap"], default={})
