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
from yt8m_gat.metrics.bootstrap import RankedPairs, intervals_of, resample_counts
from yt8m_gat.robustness.measured_row import ball_of

_ByBall = dict[tuple[str, bool, float], list[Mapping[str, Any]]]


def packed(hits: np.ndarray) -> dict[str, Any]:
    """Packs bool [N] as `{"count": N, "bits"}`, the bits in base 64: 6 clips per character."""
    return {"count": len(hits), "bits": base64.b64encode(np.packbits(hits)).decode()}


def unpacked(hits: Mapping[str, Any]) -> np.ndarray:
    """Returns the bool [N] of `packed`."""
    bits = np.frombuffer(base64.b64decode(hits["bits"]), np.uint8)
    return np.unpackbits(bits, count=hits["count"]).astype(bool)


def packed_values(values: np.ndarray) -> str:
    """Packs float [R] in base 64, in single precision."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def unpacked_values(text: str) -> np.ndarray:
    """Returns the float64 [R] of `packed_values`."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)


def packed_pairs(scores: np.ndarray, hits: np.ndarray, label_counts: np.ndarray) -> dict[str, Any]:
    """Packs the pairs of `EvaluationMetrics.top_pairs`: about 110 characters per clip of 20."""
    return {
        "per_clip": scores.shape[1],
        "positives": int(label_counts.sum()),
        "labels": base64.b64encode(np.asarray(label_counts, "<u2").tobytes()).decode(),
        "scores": base64.b64encode(np.asarray(scores, "<f4").tobytes()).decode(),
        "hits": base64.b64encode(np.packbits(hits)).decode(),
    }


def worst_cases(
    clean: Mapping[str, Any],
    attacks: Iterable[Mapping[str, Any]],
    survivors: Iterable[Mapping[str, Any]] = (),
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
        survivors: Attacks of which each ran on the clips that none before it had broken, in order:
            `attack`, `options`, `epsilon`, and `hits`, which clips are left. They count for Hit@1,
            together with the rows, also where there is one alone.

    Returns:
        A `{"axes", "round", "epsilon", "attacks", "hit_at_1", "intervals"}` for each, and `gap`
        where it is known: the ball (see `ball_of`), the specifications of its attacks, and
        bootstrap intervals over the clips (see `yt8m_gat.metrics.bootstrap`) of the figures.
    """
    rows_of: _ByBall = {}
    for row in attacks:
        if row["epsilon"] is not None and "hits" in row and "hits" in clean:
            rows_of.setdefault(ball_of(row), []).append(row)
    steps_of: _ByBall = {}
    for step in survivors:
        steps_of.setdefault(ball_of(step), []).append(step)
    worst = []
    for ball in sorted({*rows_of, *steps_of}):
        rows, steps = rows_of.get(ball, []), steps_of.get(ball, [])
        if len(rows) < 2 and not steps:
            continue
        measured = [*([clean, *rows] if rows else []), *steps[-1:]]
        survived = np.logical_and.reduce([unpacked(row["hits"]) for row in measured])
        resampled = {"hit_at_1": _resampled_share(survived)}
        names = {row["attack"] for row in rows}
        others = [step for step in steps if step["attack"] not in names]
        case = _case(ball, [*rows, *others], survived)
        if len(rows) > 1 and all("pairs" in row for row in (clean, *rows)):
            case["gap"], of_gap = _worst_gap([clean, *rows])
            if of_gap is not None:
                resampled = {"gap": of_gap, **resampled}
        worst.append({**case, "intervals": intervals_of(resampled)})
    return worst


def _case(
    ball: tuple[str, bool, float], rows: Sequence[Mapping[str, Any]], survived: np.ndarray
) -> dict[str, Any]:
    axes, rounded, epsilon = ball
    return {
        "axes": axes,
        "round": rounded,
        "epsilon": epsilon,
        "attacks": [row["attack"] for row in rows],
        "hit_at_1": int(survived.sum()) / len(survived),
    }


def _resampled_share(survived: np.ndarray) -> np.ndarray:
    counts = resample_counts(len(survived))
    return np.array([survived @ n for n in counts]) / len(survived)


def _worst_gap(rows: Sequence[Mapping[str, Any]]) -> tuple[float, np.ndarray | None]:
    """Returns GAP, and GAP on each resample of the clips, if the rows have what that needs."""
    pairs = [_unpacked(row["pairs"]) for row in rows]
    scores, hits = (np.stack(of_rows) for of_rows in zip(*pairs, strict=True))  # [R, N, k]
    precision = np.cumsum(hits, axis=2) / np.arange(1, hits.shape[2] + 1)
    lowest = np.argmin((precision * hits).sum(axis=2), axis=0)
    clips = np.arange(len(lowest))
    pool = scores[lowest, clips].ravel(), hits[lowest, clips].ravel()
    gap = average_precision(*pool, rows[0]["pairs"]["positives"])
    row = min(rows, key=lambda row: row["gap"])
    if row["gap"] < gap:
        values = row.get("resampled")
        return row["gap"], None if values is None else unpacked_values(values["gap"])
    if "labels" not in rows[0]["pairs"]:  # Of an older version.
        return gap, None
    labels = np.frombuffer(base64.b64decode(rows[0]["pairs"]["labels"]), "<u2").astype(np.int64)
    ranked = RankedPairs.of(*pool, np.repeat(clips, hits.shape[2]))
    return gap, np.array(
        [ranked.average_precision(n, n @ labels) for n in resample_counts(len(labels))]
    )


def _unpacked(pairs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    scores = np.frombuffer(base64.b64decode(pairs["scores"]), "<f4")
    bits = np.frombuffer(base64.b64decode(pairs["hits"]), np.uint8)
    shape = (-1, pairs["per_clip"])
    return scores.reshape(shape), np.unpackbits(bits, count=len(scores)).astype(bool).reshape(shape)
