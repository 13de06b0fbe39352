"""Formats evaluations as text."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from yt8m_gat.report.strongest import main_ball, strongest
from yt8m_gat.untrusted import printable

_METRICS = {
    "gap": "GAP",
    "map": "MAP",
    "map_all_scores": "MAP, all",
    "segment_map": "segment MAP",
    "perr": "PERR",
    "hit_at_1": "Hit@1",
    "top_5": "top-5",
    "mean_class_accuracy": "class mean",
    "loss": "loss",
}
# Columns of attacked rows, and of corruptions that do not change the number of frames.
_PERTURBATION = {"relative_norm": "|r|/|x|", "success": "success"}
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
# Appended to a row that a failed sanity check puts in doubt.
MARK = " (!)"


def format_evaluation(result: dict[str, Any]) -> str:
    """Returns the text of an evaluation as `eval.py` writes it, short enough for a screen.

    The verdicts on gradient masking come first, then a clean row and one per attack. Further
    figures (partitions, attention, verticals) are shown clean and under the strongest attack; the
    file has all of them.
    """
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
    parts = _verdicts(sanity)
    parts.append(_table(rows, {**names, **perturbation}))
    kind = "segments" if "num_segments" in clean else "videos"
    count = f"{clean[f'num_{kind}']} {kind}"
    if "zero_gradient_share" in clean:
        share = clean["zero_gradient_share"]
        if share is not None:
            count += f"; gradient exactly 0 at {100 * share:.2f} % of them"
    parts.append(count)
    if failed:
        parts.append(
            f"{MARK.strip()} no sound measure of robustness: failed {', '.join(failed)} (above)"
        )
    ball = main_ball([result["attacks"]])
    worst = strongest(result["attacks"], ball)
    compared = {label: row for label, row in rows.items() if label == "clean" or row is worst}
    parts += _intervals(compared)
    parts += _worst_cases(result.get("worst_cases", []))
    parts += _certificates(result.get("certificates", []))
    parts += _partitions(compared)
    parts += _titled("DeepFool, rho of the clips that flipped", rows, _DEEPFOOL)
    parts += _attention(compared)
    parts += _embeddings(result.get("embeddings"))
    parts += _class_activation(result.get("class_activation"))
    parts += _true_spans(result.get("true_spans"))
    parts += _verticals(result.get("verticals", []), worst)
    parts += _paired_tests(result.get("comparison"), worst)
    parts += _comparison(result.get("comparison"))
    parts += _clips(result.get("clips", []))
    return printable("\n".join(parts), keep="\n")


def _verdicts(sanity: list[dict[str, str]]) -> list[str]:
    """Returns failures and warnings with their numbers, and the names of the other checks."""
    if not sanity:
        return []
    lines = ["Gradient masking"]
    spoken = ("fail", "undertrained", "warning")
    for verdict in dict.fromkeys([*spoken, *(v["verdict"] for v in sanity)]):
        of_kind = [v for v in sanity if v["verdict"] == verdict]
        if verdict in spoken:
            lines += [
                f"  {verdict:8}{' ' * (len(verdict) > 7)}{v['check']}: {v['detail']}"
                for v in of_kind
            ]
        else:
            lines.append(f"  {verdict:8}{', '.join(v['check'] for v in of_kind)}")
    return [*lines, ""]


def _intervals(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns GAP and Hit@1 with their bootstrap intervals."""
    lines = []
    for label, row in rows.items():
        intervals = row.get("intervals") or {}
        figures = [
            f"{_METRICS[name]} {ends[0]:.4f} to {ends[1]:.4f}"
            for name in ("gap", "hit_at_1")
            if (ends := intervals.get(name)) is not None
        ]
        if figures:
            lines.append(f"  {label}: {', '.join(figures)}")
    if not lines:
        return []
    level = 100 * next(row["intervals"]["level"] for row in rows.values() if row.get("intervals"))
    return [f"\n{level:g} % intervals over the choice of the clips", *lines]


def _labelled_rows(result: Mapping[str, Any], mark: str) -> dict[str, dict[str, Any]]:
    """Returns label -> row, clean first."""
    rows = {"clean": result["clean"]}
    for attacked in result["attacks"]:
        rows[attack_label(attacked) + mark] = attacked
    for corrupted in result.get("corruptions", []):
        rows[f"{corrupted['corruption']} {corrupted['severity']}"] = corrupted
    return rows


def attack_label(row: Mapping[str, Any]) -> str:
    """Returns the label of an attacked row in a table."""
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
    """Returns a table of the rows and columns that are not empty; nothing if all are."""
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
    return _titled("Worst of all attacks, clip by clip", rows, {"gap": "GAP", "hit_at_1": "Hit@1"})


def _certificates(certificates: list[dict[str, Any]]) -> list[str]:
    """Returns a table of each smoothed classifier: what it holds at least, at each radius."""
    parts = []
    for row in certificates:
        first = row["first_class"]
        title = (
            f"Certified, smoothed by sigma {row['sigma']:g} ({row['samples']} samples, failure "
            f"{row['alpha']:g} a clip); first class wrong {100 * first['wrong']:.2f} %, abstained "
            f"{100 * first['abstained']:.2f} % of {row['num_clips']}"
        )
        rows = {f"{at['norm_scope']}, radius {at['epsilon']:.4g}": at for at in row["curve"]}
        columns = {"hit_at_1": "Hit@1", "recall": "recall", "precision": "precision"}
        parts += _titled(title, rows, columns)
    return parts


def _embeddings(section: Mapping[str, Any] | None) -> list[str]:
    """Returns a line per hidden layer."""
    if not section:
        return []
    epsilon = "" if section["epsilon"] is None else f", epsilon {section['epsilon']:g}"
    title = (
        f"Layers under {section['attack']}{epsilon} against clean, {section['num_videos']} videos"
    )
    rows = {of["layer"]: of for of in section["layers"]}
    columns = {"cka": "CKA", "cosine": "cosine", "relative_l2": "relative l2"}
    return _titled(title, rows, columns)


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


def _attention(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a line per figure of the global maps, with a column for each of the few rows."""
    figures = {
        f"{title}, {key.removeprefix(prefix)}": [row.get(key) for row in rows.values()]
        for prefix, title in _ATTENTION.items()
        for key in dict.fromkeys(key for row in rows.values() for key in row)
        if key.startswith(prefix)
    }
    if not figures:
        return []
    frame = pd.DataFrame.from_dict(figures, orient="index", columns=list(rows), dtype=float)
    return ["\nGlobal attention", frame.to_string(float_format="{:.4g}".format, na_rep="-")]


def _class_activation(figures: Mapping[str, Any] | None) -> list[str]:
    if not figures or figures["entropy"] is None:
        return []
    return [
        "\nClass activation over time",
        f"  entropy/log n {figures['entropy']:.4f}, spread {figures['spread']:.4f} "
        f"({figures['num_videos']} clips)",
    ]


def _true_spans(figures: Mapping[str, Any] | None) -> list[str]:
    """Returns the share of activation and attention that falls where labels are shown."""
    if not figures:
        return []
    rows = {"class activation": figures["activation"]}
    rows |= {f"attention, {name}": row for name, row in figures["attention"].items()}
    lines = [
        f"  {name}: {row['share']:.4f} of it (even: {row['even_share']:.4f}), peak in "
        f"{100 * row['pointing']:.2f} % of {row['num_spans']}"
        for name, row in rows.items()
        if row["num_spans"]
    ]
    return ["\nInside of the true spans", *lines]


def _verticals(verticals: list[dict[str, Any]], worst: Mapping[str, Any]) -> list[str]:
    """Returns a table of GAP and Hit@1 of each vertical, clean and under the strongest attack."""
    if not verticals:
        return []
    columns = ["classes", "videos", "GAP", "Hit@1"]
    label = attack_label(worst) if worst else ""
    if worst:
        columns += ["GAP, attacked", "Hit@1, attacked"]
    cells = []
    for vertical in verticals:
        sides = [vertical["clean"] or {}]
        if worst:
            key = (worst["attack"], worst["epsilon"])
            same = [r for r in vertical["attacks"] if (r["attack"], r["epsilon"]) == key]
            sides.append(same[0] if same else {})
        figures = [side.get(name) for side in sides for name in ("gap", "hit_at_1")]
        counts = [str(vertical["num_classes"]), str(vertical["num_videos"])]
        cells.append([*counts, *("-" if x is None else f"{x:.4f}" for x in figures)])
    names = [vertical["vertical"] for vertical in verticals]
    frame = pd.DataFrame(cells, index=names, columns=columns)
    title = "Verticals" + (f"; attacked: {label}" if worst else "")
    return [f"\n{title}", frame.to_string()]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _name(entry: list[Any]) -> str:
    return f"{entry[0]}" if entry[1] is None else f"{entry[0]} {entry[1]}"


def _paired_tests(comparison: dict[str, Any] | None, worst: Mapping[str, Any]) -> list[str]:
    """Returns the differences, their intervals and p, clean and under the strongest attack."""
    lines = []
    compared = {(None, None), (worst.get("attack"), worst.get("epsilon"))}
    for test in (comparison or {}).get("rows", []):
        if (test["attack"], test["epsilon"]) not in compared:
            continue
        figures = []
        for name in ("gap", "hit_at_1"):
            if (of_metric := test[name]) is not None:
                ends = of_metric["interval"]
                interval = "" if ends is None else f" ({ends[0]:+.4f} to {ends[1]:+.4f})"
                p = "-" if of_metric["p"] is None else f"{of_metric['p']:.2g}"
                figures.append(f"{_METRICS[name]} {of_metric['difference']:+.4f}{interval}, p {p}")
        label = "clean" if test["attack"] is None else attack_label(test)
        lines.append(f"  {label}: {'; '.join(figures)}")
    if not lines:
        return []
    return [f"\nOurs minus {comparison['baseline']}, on the same clips", *lines]


def _comparison(comparison: dict[str, Any] | None) -> list[str]:
    if comparison is None:
        return []
    parts = [f"\nAverage precision of a class, ours minus that of {comparison['baseline']}"]
    if "min_positives" in comparison:  # Files of older versions have none.
        parts[0] += (
            f"; of {comparison['num_ranked']} classes with {comparison['min_positives']} "
            "positives or more"
        )
    for end in ("top", "bottom"):
        for entry in comparison[end]:
            ends = (comparison.get("intervals") or {}).get(str(entry[0]))
            interval = "" if ends is None else f"  ({ends[0]:+.4f} to {ends[1]:+.4f})"
            parts.append(f"  {entry[2]:+.4f}  {_name(entry)}{interval}")
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
                top = "; ".join(f"{_name(entry)} {_figure(entry[2])}" for entry in seen["top"])
                parts.append(f"  {title}: {top}")
    return parts
