"""The strongest attack on a run, among comparable attacks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from yt8m_gat.report.source import number
from yt8m_gat.report.spec import Ball, ball_of

PAPERS_EPSILON = 0.5

Rows = Sequence[Mapping[str, Any]]


def main_ball(attacks: Sequence[Rows]) -> Ball | None:
    """Returns the ball in which most runs were attacked and, of those, with the most attacks.

    Among several such balls it is the one at the papers' radius, else at the smallest.

    Args:
        attacks: The attacked rows of each run.

    Returns:
        The ball; None if no attack was run at a radius.
    """
    by_ball: dict[Ball, Counter[int]] = {}
    for run, rows in enumerate(attacks):
        for row in rows:
            if (ball := ball_of(row)) is not None and number(row.get("gap")) is not None:
                by_ball.setdefault(ball, Counter())[run] += 1
    if not by_ball:
        return None

    def rank(ball: Ball) -> tuple[Any, ...]:
        counts = by_ball[ball]
        return -len(counts), -max(counts.values()), ball.epsilon != PAPERS_EPSILON, ball.epsilon

    return min(sorted(by_ball), key=rank)


def strongest(rows: Rows, ball: Ball | None) -> Mapping[str, Any]:
    """Returns the row of a ball with the lowest GAP; empty if there is none."""
    measured = [row for row in rows if number(row.get("gap")) is not None]
    in_ball = [row for row in measured if ball is not None and ball_of(row) == ball]
    return min(in_ball, key=lambda row: row["gap"], default={})
