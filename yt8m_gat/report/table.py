"""Evaluations as text."""

from typing import Any

import pandas as pd

_METRICS = {
    "gap": "GAP",
    "map": "MAP",
    "map_all_scores": "MAP (all scores)",
    "segment_map": "segment MAP",
    "perr": "PERR",
    "hit_at_1": "Hit@1",
    "loss": "loss",
}


def format_evaluation(result: dict[str, Any]) -> str:
    """A table of an evaluation as `eval.py` writes it: a row clean, a row per attack."""
    rows = {"clean": result["clean"]}
    for attacked in result["attacks"]:
        epsilon = attacked["epsilon"]
        radius = "" if epsilon is None else f", epsilon {epsilon:g}"
        rows[f"{attacked['attack']}{radius}"] = attacked
    clean = result["clean"]
    names = [name for name in _METRICS if name in clean]
    frame = pd.DataFrame(
        [[row[name] for name in names] for row in rows.values()],
        index=list(rows),
        columns=[_METRICS[name] for name in names],
        dtype=float,
    )
    table = frame.to_string(float_format="{:.4f}".format, na_rep="-")
    kind = "segments" if "num_segments" in clean else "videos"
    return f"{table}\n{clean[f'num_{kind}']} {kind}"
