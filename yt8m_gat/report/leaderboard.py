"""Evaluated runs as entries of a leaderboard, in JSON, after the model info of RobustBench.

RobustBench has one threat model a file; here an entry has all that it was attacked in, because a
radius means little without the space and the frames that it counts over. Unknown values are null.

Reference: Croce et al., "RobustBench: a standardized adversarial robustness benchmark", 2021.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from yt8m_gat.report.source import ReportedRun, number
from yt8m_gat.report.spec import Ball, ball_of, options_of

FORMAT = "yt8m_gat leaderboard 1"
_METRICS = ("gap", "map", "perr", "hit_at_1", "segment_map", "top_5")


def leaderboard(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """Returns `{"format", "entries": [entry]}` of the runs that were evaluated.

    | key of an entry | meaning |
    |---|---|
    | `name`, `architecture`, `options` | the run and its model |
    | `training` | objective, its radius, `attention`'s penalty and so on; seed and `step` reached |
    | `parameters` | number of the model's parameters |
    | `weights` | SHA-256 of the bytes that were measured |
    | `data` | digest of the files, their number, the numbers of clips, `unit`: video or segment |
    | `clean` | metrics with `intervals` |
    | `threat_models` | see below, one for each ball that was attacked |
    | `certificates` | rows of `eval.py --certify` |
    | `checks` | name -> verdict on gradient masking |
    | `measured_at`, `version`, `command` | from `provenance` |

    | key of a threat model | meaning |
    |---|---|
    | `norm`, `scope`, `epsilon`, `rounded` | the ball; scope of an l2 norm: frame, example, joint |
    | `epsilon_of` | radii that single features have instead |
    | `space` | the space of epsilon: dequantized or l2-normalized features, pixels |
    | `attacks` | name, options, passes for a batch, metrics with `intervals`, share broken |
    | `worst_case` | Hit@1, and GAP of few clips, over all attacks, clip by clip, with `intervals` |

    With one attack, `worst_case` is that attack's row. Attacks without a radius are left out.
    """
    return {"format": FORMAT, "entries": [_entry(run) for run in runs if run.clean]}


def _entry(run: ReportedRun) -> dict[str, Any]:
    config, provenance, settings = run.config, run.provenance, run.settings
    unit = "segment" if run.on_segments else "video"
    balls: dict[Ball, list[dict[str, Any]]] = {}
    for row in run.attacks:
        if (ball := ball_of(row)) is not None:
            balls.setdefault(ball, []).append(row)
    return {
        "name": run.name,
        "architecture": config.model.name,
        "options": dict(config.model.options),
        "training": {
            "objective": dataclasses.asdict(config.objective),
            "seed": config.training.seed,
            "step": provenance.get("step"),
        },
        "parameters": provenance.get("parameters"),
        "weights": settings.get("weights"),
        "data": {
            "files": settings.get("files"),
            "num_files": settings.get("num_files"),
            "unit": unit,
            "num_clips": run.clean.get(f"num_{unit}s"),
        },
        "clean": _metrics(run.clean),
        "threat_models": [_threat_model(run, ball, rows) for ball, rows in sorted(balls.items())],
        "certificates": run.certificates,
        "checks": {check: row["verdict"] for check, row in run.verdicts.items()},
        **{name: provenance.get(name) for name in ("measured_at", "version", "command")},
    }


def _threat_model(
    run: ReportedRun, ball: Ball, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    data = run.config.data
    space = "dequantized features"
    if data.clips is not None:
        space = "pixels"
    elif data.normalize != "none":
        space = f"features, l2-normalized ({data.normalize})"
    worst: Mapping[str, Any] = rows[0] if len(rows) == 1 else {}
    for case in run.worst_cases:
        same = (case["axes"], case.get("round") is True) == (ball.norm, ball.rounded)
        if same and number(case["epsilon"]) == ball.epsilon:
            worst = case
    scope, *own = ball.norm.split(", ")
    return {
        "norm": "linf" if scope == "linf" else "l2",
        "scope": None if scope == "linf" else scope or None,
        "epsilon": ball.epsilon,
        "epsilon_of": {
            name.removeprefix("epsilon_"): number(value)
            for row in rows
            for name, value in options_of(row).items()
            if own and name.startswith("epsilon_")
        },
        "rounded": ball.rounded,
        "space": space,
        "attacks": [
            {
                "attack": row["attack"],
                "options": dict(options_of(row)),
                "passes": row.get("passes"),
                **_metrics(row),
                "success": row.get("success"),
            }
            for row in rows
        ],
        "worst_case": {
            "attacks": worst.get("attacks", [row["attack"] for row in rows]),
            **{name: worst.get(name) for name in ("hit_at_1", "gap", "intervals")},
        },
    }


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {name: row[name] for name in _METRICS if name in row}
    return {**metrics, "intervals": row.get("intervals")}
