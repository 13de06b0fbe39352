"""Robust Hit@1: a clip counts if it is a hit clean and under every attack of an evaluation.

The mean of each row hides that the attacks break different clips. It is computed from the rows that
`eval.py` wrote, as the sanity checks are: clean and attacked rows hold one bit per clip.

Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
Diverse Parameter-free Attacks", 2020: the worst case over the attacks, example by example.
"""

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from yt8m_gat.robustness.measured_row import ball_of


def packed(hits: np.ndarray) -> dict[str, Any]:
    """Packs bool [N] as `{"count": N, "bits"}`, the bits in base 64: 6 clips per character."""
    return {"count": len(hits), "bits": base64.b64encode(np.packbits(hits)).decode()}


def worst_cases(
    clean: Mapping[str, Any], attacks: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns, for each ball with two attacks or more, the Hit@1 over all of them.

    Args:
        clean: The clean row: `hits`, see `packed`.
        attacks: The attacked rows: `attack`, `options`, `epsilon`, `hits`; those without a radius,
            or without hits (from an older version), are ignored.

    Returns:
        A `{"axes", "round", "epsilon", "attacks", "hit_at_1"}` for each: the ball (see `ball_of`),
        the specifications of its attacks, and the share of clips whose best-scored class is a label
        clean and under each of them.
    """
    balls: dict[tuple[str, bool, float], list[Mapping[str, Any]]] = {}
    for row in attacks:
        if row["epsilon"] is not None and "hits" in row and "hits" in clean:
            balls.setdefault(ball_of(row), []).append(row)
    worst = []
    for (axes, rounded, epsilon), rows in sorted(balls.items()):
        if len(rows) > 1:
            bits = [base64.b64decode(row["hits"]["bits"]) for row in (clean, *rows)]
            survived = np.bitwise_and.reduce([np.frombuffer(value, np.uint8) for value in bits])
            worst.append(
                {
                    "axes": axes,
                    "round": rounded,
                    "epsilon": epsilon,
                    "attacks": [row["attack"] for row in rows],
                    "hit_at_1": int(np.unpackbits(survived).sum()) / clean["hits"]["count"],
                }
            )
    return worst
