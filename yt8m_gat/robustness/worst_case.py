"""Robust Hit@1: a clip counts where no attack of an evaluation broke it.

The mean of each row hides that the attacks break different clips. Read off the rows that `eval.py`
wrote, as the sanity checks are: clean and attacked ones hold a bit a clip.

Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
Diverse Parameter-free Attacks", 2020: the worst case over the attacks, example by example.
"""

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from yt8m_gat.robustness.sanity import ball_of


def packed(hits: np.ndarray) -> dict[str, Any]:
    """Bool [N] as `{"count": N, "bits"}`, the bits in base 64: 6 clips a letter."""
    return {"count": len(hits), "bits": base64.b64encode(np.packbits(hits)).decode()}


def worst_cases(
    clean: Mapping[str, Any], attacks: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each ball in which two attacks or more were run, with Hit@1 over all of them.

    Args:
        clean: The clean row: `hits`, see `packed`.
        attacks: The attacked rows: `attack`, `options`, `epsilon`, `hits`; those without a radius,
            or without hits (of an older version), are passed over.

    Returns:
        `{"axes", "round", "epsilon", "attacks", "hit_at_1"}` each: the ball (see `ball_of`), the
        specifications of its attacks, and the share of clips whose best-scored class is a label
        clean and under each of them.
    """
    balls: dict[tuple[str, bool, float], list[Mapping[str, Any]]] = {}
    for row in attacks:
        if row["epsilon"] is not None and "hits" in row and "hits" in clean:
            balls.setdefault(ball_of(row), []).append(row)
    found = []
    for (axes, rounded, epsilon), rows in sorted(balls.items()):
        if len(rows) > 1:
            bits = [base64.b64decode(row["hits"]["bits"]) for row in (clean, *rows)]
            survived = np.bitwise_and.reduce([np.frombuffer(value, np.uint8) for value in bits])
            found.append(
                {
                    "axes": axes,
                    "round": rounded,
                    "epsilon": epsilon,
                    "attacks": [row["attack"] for row in rows],
                    "hit_at_1": int(np.unpackbits(survived).sum()) / clean["hits"]["count"],
                }
            )
    return found
