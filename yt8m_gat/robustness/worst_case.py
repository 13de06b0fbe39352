"""Robust Hit@1 and GAP: clip by clip, the worst of an evaluation's attacks.

The mean of each row hides that the attacks break different clips. The worst case is computed from
the rows that `eval.py` wrote, as the sanity checks are: clean and attacked rows hold one bit per
clip and, of few clips, the pairs that GAP counts.

Reference: Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of
Diverse Parameter-free Attacks", 2020: the worst case over the attacks, example by example.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from yt8m_gat.metrics import average_precision
from yt8m_gat.robustness.measured_row import ball_of


def packed(hits: np.ndarray) -> dict[str, Any]:
    """Packs bool [N] as `{"count": N, "bits"}`, the bits in base 64: 6 clips per character."""
    return {"count": len(hits), "bits": base64.b64encode(np.packbits(hits)).decode()}


def packed_pairs(scores: np.ndarray, hits: np.ndarray, num_positives: int) -> dict[str, Any]:
    """Packs the pairs of `EvaluationMetrics.top_pairs`: about 110 characters per clip of 20."""
    return {
        "per_clip": scores.shape[1],
        "positives": num_positives,
        "scores": base64.b64encode(np.asarray(scores, "<f4").tobytes()).decode(),
        "hits": base64.b64encode(np.packbits(hits)).decode(),
    }


def worst_cases(
    clean: Mapping[str, Any], attacks: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns, for each ball with two attacks or more, Hit@1 and GAP over all of them.

    ```
    Hit@1: the share of clips whose best-scored class is a label clean and under every attack
    GAP:   each clip takes part with its pairs under the attack (or clean) that leaves its own
           average precision lowest; the GAP of these, or that of a row if one is lower
    ```

    GAP pools the pairs of all clips, so that no clip has a share of it, and the lowest over all
    choices of an attack per clip cannot be found clip by clip: this is an upper bound of it.

    Args:
        clean: The clean row: `hits`, see `packed`, and `pairs`, see `packed_pairs`.
        attacks: The attacked rows: `attack`, `options`, `epsilon`, `hits`; those without a radius,
            or without hits (from an older version), are ignored. Without `pairs` in each row of a
            ball (many clips, or an older version) it has no `gap`.

    Returns:
        A `{"axes", "round", "epsilon", "attacks", "hit_at_1"}` for each, and `gap` where it is
        known: the ball (see `ball_of`) and the specifications of its attacks.
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
            case = {
                "axes": axes,
                "round": rounded,
                "epsilon": epsilon,
                "attacks": [row["attack"] for row in rows],
                "hit_at_1": int(np.unpackbits(survived).sum()) / clean["hits"]["count"],
            }
            if all("pairs" in row for row in (clean, *rows)):
                case["gap"] = _worst_gap([clean, *rows])
            worst.append(case)
    return worst


def _worst_gap(rows: Sequence[Mapping[str, Any]]) -> float:
    pairs = [_unpacked(row["pairs"]) for row in rows]
    scores, hits = (np.stack(of_rows) for of_rows in zip(*pairs, strict=True))  # [R, N, k]
    precision = np.cumsum(hits, axis=2) / np.arange(1, hits.shape[2] + 1)
    lowest = np.argmin((precision * hits).sum(axis=2), axis=0)
    clips = np.arange(len(lowest))
    pool = scores[lowest, clips].ravel(), hits[lowest, clips].ravel()
    gap = average_precision(*pool, rows[0]["pairs"]["positives"])
    return min(gap, *(row["gap"] for row in rows))


def _unpacked(pairs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    scores = np.frombuffer(base64.b64decode(pairs["scores"]), "<f4")
    bits = np.frombuffer(base64.b64decode(pairs["hits"]), np.uint8)
    shape = (-1, pairs["per_clip"])
    return scores.reshape(shape), np.unpackbits(bits, count=len(scores)).astype(bool).reshape(shape)
