"""Evaluations as text."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from yt8m_gat.untrusted import printable

_METRICS = {
    "gap": "GAP",
    "map": "MAP",
    "map_all_scores": "MAP (all scores)",
    "segment_map": "segment MAP",
    "perr": "PERR",
    "hit_at_1": "Hit@1",
    "loss": "loss",
}
# Of perturbed rows; of a corruption, where it does not change which frames there are.
_PERTURBATION = {"norm": "norm", "relative_norm": "|r|/|x|", "success": "success"}
_DEEPFOOL = {
    "rho_mean": "rho, mean",
    "rho_median": "rho, median",
    "share_not_flipped": "not flipped",
}
_ATTENTION = {
    "attention_entropy_": "entropy/log n",
    "distance_to_uniform_": "to uniform",
    "attention_frobenius_": "moved by",
    "attention_mse_": "MSE",
}
_GROUP_METRICS = ("gap", "map", "perr", "hit_at_1")
# Beside a row that a failed sanity check puts in doubt.
MARK = " (!)"


def format_evaluation(result: dict[str, Any]) -> str:
    """The text of an evaluation as `eval.py` writes it: a row clean, one per attack, and so on."""
    sanity = result.get("sanity", [])
    failed = [verdict["check"] for verdict in sanity if verdict["verdict"] == "fail"]
    rows = _labelled_rows(result, MARK if failed else "")
    clean = result["clean"]
    names = {name: title for name, title in _METRICS.items() if name in clean}
    perturbation = {
        name: title
        for name, title in _PERTURBATION.items()
        if any(name in row for row in rows.values())
    }
    parts = [_table(rows, {**names, **perturbation})]
    kind = "segments" if "num_segments" in clean else "videos"
    count = f"{clean[f'num_{kind}']} {kind}"
    if "zero_gradient_share" in clean:
        count += f"; gradient exactly 0 at {100 * clean['zero_gradient_share']:.2f} % of them"
    parts.append(count)
    if failed:
        parts.append(
            f"{MARK.strip()} no sound measure of robustness: failed {', '.join(failed)} (below)"
        )
    parts += _worst_cases(result.get("worst_cases", []))
    parts += _partitions(rows)
    parts += _titled("DeepFool, rho of the clips that flipped", rows, _DEEPFOOL)
    features = _features(rows.values())
    parts += _titled(
        "Global attention",
        rows,
        {
            f"{prefix}{feature}": f"{title}, {feature}" if len(features) > 1 else title
            for feature in features
            for prefix, title in _ATTENTION.items()
        },
        float_format="{:.4g}".format,
    )
    parts += _verticals(result.get("verticals", []))
    parts += _comparison(result.get("comparison"))
    parts += _clips(result.get("clips", []))
    if sanity:
        parts.append("\nGradient masking")
        parts += [f"  {v['verdict']:8}{v['check']}: {v['detail']}" for v in sanity]
    return printable("\n".join(parts), keep="\n")


def _labelled_rows(result: Mapping[str, Any], mark: str) -> dict[str, dict[str, Any]]:
    """Label -> row, clean first."""
    rows = {"clean": result["clean"]}
    for attacked in result["attacks"]:
        rows[attack_label(attacked) + mark] = attacked
    for corrupted in result.get("corruptions", []):
        rows[f"{corrupted['corruption']} {corrupted['severity']}"] = corrupted
    return rows


def attack_label(row: Mapping[str, Any]) -> str:
    """How a table calls an attacked row."""
    epsilon = row["epsilon"]
    return row["attack"] + ("" if epsilon is None else f", epsilon {epsilon:g}")


def _table(
    rows: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, str],
    float_format: Any = "{:.4f}".format,
) -> str:
    frame = pd.DataFrame(
        [[row.get(name) for name in columns] for row in rows.values()],
        index=list(rows),
        columns=list(columns.values()),
        dtype=float,
    )
    return frame.to_string(float_format=float_format, na_rep="-")


def _titled(
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, str],
    **options: Any,
) -> list[str]:
    """A table of the rows and columns that have something; nothing where there is nothing."""
    kept = {label: row for label, row in rows.items() if any(name in row for name in columns)}
    present = {
        name: text for name, text in columns.items() if any(name in row for row in kept.values())
    }
    return [f"\n{title}", _table(kept, present, **options)] if kept else []


def _worst_cases(balls: list[dict[str, Any]]) -> list[str]:
    rows = {
        f"{ball['axes']}{', rounded' if ball['round'] else ''}, epsilon {ball['epsilon']:g}"
        f" ({len(ball['attacks'])} attacks)": ball
        for ball in balls
    }
    return _titled("Worst of all attacks, clip by clip", rows, {"hit_at_1": "Hit@1"})


def _partitions(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    of_rows = {label: row["partitions"] for label, row in rows.items() if "partitions" in row}
    if not of_rows:
        return []
    first = next(iter(of_rows.values()))
    names = [name for name in _METRICS if name in first]
    frame = pd.DataFrame(
        [
            [f"{parts[name]['mean']:.4f} ± {parts[name]['deviation']:.4f}" for name in names]
            for parts in of_rows.values()
        ],
        index=list(of_rows),
        columns=[_METRICS[name] for name in names],
    )
    return [f"\nMean ± deviation over {first['count']} disjoint parts", frame.to_string()]


def _features(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    prefix = "attention_entropy_"
    names = [key.removeprefix(prefix) for row in rows for key in row if key.startswith(prefix)]
    return list(dict.fromkeys(names))


def _verticals(verticals: list[dict[str, Any]]) -> list[str]:
    parts = []
    for vertical in verticals:
        title = f"{vertical['vertical']}: {vertical['num_classes']} classes, "
        if vertical["clean"] is None:
            parts.append(f"\n{title}no video has one")
            continue
        columns = {name: _METRICS[name] for name in _GROUP_METRICS}
        parts.append(f"\n{title}{vertical['num_videos']} videos with one")
        parts.append(_table(_labelled_rows(vertical, ""), columns))
    return parts


def _name(entry: list[Any]) -> str:
    return f"{entry[0]}" if entry[1] is None else f"{entry[0]} {entry[1]}"


def _comparison(comparison: dict[str, Any] | None) -> list[str]:
    if comparison is None:
        return []
    parts = [f"\nAverage precision of a class, ours minus that of {comparison['baseline']}"]
    for end in ("top", "bottom"):
        parts += [f"  {entry[2]:+.4f}  {_name(entry)}" for entry in comparison[end]]
        if end == "top":
            parts.append("  ...")
    return parts


def _clips(clips: list[dict[str, Any]]) -> list[str]:
    parts = []
    for clip in clips:
        labels = ", ".join(_name(label) for label in clip["labels"]) or "none"
        parts.append(f"\nClip {clip['video_id']}; labels: {labels}")
        for name in ("clean", "attacked"):
            if name in clip:
                seen = clip[name]
                title = name if name == "clean" else attack_label(seen)
                top = "; ".join(f"{_name(entry)} {entry[2]:.3f}" for entry in seen["top"])
                parts.append(f"  {title}: {top}")
    return parts
