"""Certified shares over the radius, of the classifiers smoothed by noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from yt8m_gat.report.drawing.chart import Series, line_chart, padded, shared_heights
from yt8m_gat.report.drawing.markup import (
    Figures,
    interval_of,
    percent,
    plain,
    table,
    with_interval,
)
from yt8m_gat.report.source import ReportedRun, number

_SCOPES = {"joint": "over a clip", "frame": "of each frame"}


def certificate_tables(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a row per smoothed classifier: Hit@1 before any perturbation, and at two radii."""
    rows = []
    for run in runs:
        for of_sigma in run.certificates:
            joint = _curve(of_sigma, "joint")
            near = joint[0] if joint else {}
            # The largest radius at which anything is certified.
            far = next((at for at in reversed(joint) if at["hit_at_1"] > 0), {})
            first = of_sigma["first_class"]
            rows.append(
                [
                    run.title,
                    plain(of_sigma["sigma"]),
                    plain(of_sigma["samples"]),
                    plain(of_sigma["alpha"]),
                    percent(first["wrong"]),
                    percent(first["abstained"]),
                    plain(near.get("epsilon")),
                    with_interval(near, "hit_at_1"),
                    with_interval(near, "recall"),
                    with_interval(near, "precision"),
                    plain(far.get("epsilon")),
                    with_interval(far, "hit_at_1"),
                ]
            )
    heads = [
        *("run", "sigma", "samples", "failure a clip", "wrong, %", "abstained, %"),
        *("radius", "Hit@1", "recall", "precision", "radius", "Hit@1"),
    ]
    return [table(heads, rows)] if rows else []


def certificate_curves(runs: Sequence[ReportedRun]) -> Figures:
    """Returns certified Hit@1 over the radius: a figure per scope, on one height."""
    panels: dict[str, list[Series]] = {}
    for index, run in enumerate(runs):
        for dash, of_sigma in enumerate(run.certificates):
            for scope in _SCOPES:
                curve = _curve(of_sigma, scope)
                if len(curve) > 1:
                    panels.setdefault(scope, []).append(
                        Series(
                            f"{run.title}, sigma {plain(of_sigma['sigma'])}",
                            tuple((at["epsilon"], 100 * at["hit_at_1"]) for at in curve),
                            index,
                            dash=dash,
                            intervals=tuple(
                                (at["epsilon"], 100 * ends[0], 100 * ends[1])
                                for at in curve
                                if (ends := interval_of(at, "hit_at_1")) is not None
                            ),
                        )
                    )
    if not panels:
        return {}
    heights = shared_heights(panels.values(), from_zero=True)
    return {
        f"certified_{scope}": line_chart(
            f"Certified Hit@1, radius {_SCOPES[scope]}",
            "radius",
            "Hit@1, %",
            series,
            y_range=heights,
            x_range=padded([x for line in series for x, _ in line.points], 0.02),
        )
        for scope, series in panels.items()
    }


def _curve(of_sigma: Mapping[str, Any], scope: str) -> list[dict[str, Any]]:
    """Returns the rows of a scope that have both figures, by radius."""
    rows = [
        at
        for at in of_sigma["curve"]
        if at["norm_scope"] == scope
        and number(at["epsilon"]) is not None
        and number(at["hit_at_1"]) is not None
    ]
    return sorted(rows, key=lambda at: at["epsilon"])
