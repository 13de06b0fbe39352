"""Tables and figures of attention, clean and attacked: over the set, and of single clips."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yt8m_gat.report.drawing.chart import MOST_MARKERS, Series, line_chart, shared_heights
from yt8m_gat.report.drawing.heat_map import Matrix, heat_maps, shared_scale
from yt8m_gat.report.drawing.markup import (
    Cell,
    Figures,
    gallery,
    mean_and_deviation,
    note,
    percent,
    shown,
    table,
)
from yt8m_gat.report.film import FILM_NOTE, film_figures
from yt8m_gat.report.results import class_name, heading
from yt8m_gat.report.source import ReportedRun, RunGroup, number
from yt8m_gat.report.spec import spec_title

Profiles = Mapping[str, Mapping[str, Sequence[Any]]]


def attention_table(groups: Sequence[RunGroup]) -> list[str]:
    """Returns a table of entropy and distance to uniform of the clean maps."""
    prefixes = {"attention_entropy_": "entropy / log n", "distance_to_uniform_": "to uniform"}
    keys: dict[str, None] = {}
    for group in groups:
        for run in group.runs:
            keys.update(dict.fromkeys(k for k in run.clean if k.startswith(tuple(prefixes))))
    rows = [
        [
            group.title,
            *(mean_and_deviation([run.clean.get(k) for run in group.runs], False) for k in keys),
        ]
        for group in groups
        if any(key in run.clean for run in group.runs for key in keys)
    ]
    heads = ["run"]
    for key in keys:
        prefix = next(p for p in prefixes if key.startswith(p))
        heads.append(f"{prefixes[prefix]}, {key.removeprefix(prefix)}")
    return [table(heads, rows)] if rows else []


def activation_table(groups: Sequence[RunGroup]) -> list[str]:
    """Returns a table of the class activation's entropy and spread, one run's over its clips."""
    rows = []
    for group in groups:
        measured = [run.class_activation for run in group.runs if run.class_activation]
        if not measured:
            continue
        cells: list[Cell] = []
        for name in ("entropy", "spread"):
            text = mean_and_deviation([figures[name] for figures in measured], in_percent=False)
            if len(measured) == 1 and number(measured[0][f"{name}_deviation"]) is not None:
                text += f"±{measured[0][f'{name}_deviation']:.2g}"
            cells.append(text)
        clips = ", ".join(shown(figures["num_videos"]) for figures in measured)
        silent = ", ".join(shown(figures["num_silent"]) for figures in measured)
        rows.append([group.title, *cells, clips, silent])
    if not rows:
        return []
    text = (
        "Of the activation that speaks for a clip's label (of several, the one that scores "
        "highest): its entropy over log n, 1 if all n frames count alike, and its standard "
        "deviation in time, 1 as for equal shares. TAF's claim is that both are higher after it "
        "(sections 3.2 and 4.4). Clips without a frame that speaks for the label are left out."
    )
    heads = ["run", "entropy / log n", "spread", "clips", "left out"]
    return [heading("Class activation over time"), note(text), table(heads, rows)]


def true_spans_table(groups: Sequence[RunGroup]) -> list[str]:
    """Returns a table of how much activation and attention lies where labels are shown."""
    rows = []
    for group in groups:
        names = dict.fromkeys(name for run in group.runs for name in run.true_spans)
        for name in names:
            measured = [run.true_spans[name] for run in group.runs if name in run.true_spans]
            cells = [
                mean_and_deviation([figures[key] for figures in measured], in_percent=True)
                for key in ("share", "even_share", "pointing")
            ]
            spans = ", ".join(shown(figures["num_spans"]) for figures in measured)
            rows.append([group.title, name, *cells, spans])
    if not rows:
        return []
    text = (
        "Share, in percent, of the activation that speaks for a label, and of the attention that "
        "frames receive, that falls where the label is shown; the share of equal weights; and how "
        "often the highest frame lies there (the pointing game)."
    )
    heads = ["run", "of", "inside", "if even", "peak inside", "spans"]
    return [heading("Inside of the true spans"), note(text), table(heads, rows)]


def sensitivity_table(groups: Sequence[RunGroup]) -> list[str]:
    """Returns a table of mean local sensitivity; the deviation of one run is over its videos."""
    features = dict.fromkeys(
        feature
        for group in groups
        for run in group.runs
        for feature in run.attention.get("sensitivity", {})
    )
    if not features:
        return []
    rows, details = [], {}
    for group in groups:
        cells = []
        for feature in features:
            of_runs = [run.attention.get("sensitivity", {}).get(feature) for run in group.runs]
            measured = [figures for figures in of_runs if figures]
            text = mean_and_deviation([figures["S"] for figures in measured], in_percent=False)
            if len(measured) == 1 and number(measured[0].get("deviation")) is not None:
                text += f"±{measured[0]['deviation']:.2g}"
            cells.append(text)
            for figures in measured:
                details[shown(figures.get("neighbourhood")), shown(figures.get("num_videos"))] = 0
        rows.append([group.title, *cells])
    about = "; ".join(f"{frames} to each side, {videos} videos" for frames, videos in details)
    text = (
        "Share of an output frame's gradient norm that is due to the frames around it (eq. 14 of "
        "the local-context paper): 1/2 where near and far frames count alike, 1 where only near "
        f"ones do. Frames that count as near: {about}."
    )
    heads = ["run", *features]
    return [heading("Local sensitivity"), note(text), table(heads, rows)]


@dataclasses.dataclass(frozen=True)
class _Panel:
    """A chart of profiles before its y axis is known."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]


def _drawn(panels: Mapping[str, _Panel]) -> Figures:
    """Returns the charts, on one y axis so that they can be compared."""
    if not panels:
        return {}
    heights = shared_heights([panel.series for panel in panels.values()], from_zero=True)
    return {
        name: line_chart(panel.title, panel.x_label, panel.y_label, panel.series, y_range=heights)
        for name, panel in panels.items()
    }


def profile_figures(groups: Sequence[RunGroup]) -> Figures:
    """Returns a figure per run, feature and level of the mean profile, clean and attacked."""
    panels = {}
    for group in groups:
        run = group.runs[0]
        clean = run.attention.get("profiles", {})
        attacked = run.attention.get("attacked_profiles", {})
        for feature, level in _places(clean):
            lines = {"clean": clean[feature][level]}
            if level in attacked.get(feature, {}):
                lines[_attack_words(run.attention)] = attacked[feature][level]
            num_parts = len(lines["clean"])
            series = [
                Series(name, points, kind, markers=num_parts <= MOST_MARKERS, dash=kind)
                for kind, (name, values) in enumerate(lines.items())
                if (points := _points(values, offset=0.5, scale=1.0 / max(num_parts, 1)))
            ]
            if series:
                panels[f"profile_{run.name}_{feature}_{level}"] = _Panel(
                    f"{run.title}: {feature}, {level}",
                    "position in the clip",
                    "attention / uniform",
                    series,
                )
    return _drawn(panels)


def clip_parts(groups: Sequence[RunGroup], colors: Mapping[str, int]) -> tuple[list[str], Figures]:
    """Returns tables and figures of the chosen clips by each kind of model, clip by clip.

    Args:
        groups: The runs by kind; the first of each is shown.
        colors: Name of a run -> index of its colour.
    """
    parts: list[str] = []
    figures: Figures = {}
    runs = [group.runs[0] for group in groups]
    for video_id in dict.fromkeys(clip["video_id"] for run in runs for clip in run.clips):
        shows = [(run, clip) for run in runs for clip in run.clips if clip["video_id"] == video_id]
        labels = {entry[0]: entry[1] for entry in shows[0][1]["labels"] if len(entry) == 2}
        words = ", ".join(class_name(index, name) for index, name in labels.items())
        parts += [heading(f"Clip {video_id}"), note(f"Labels: {words or 'none'}.")]
        of_runs = [(run, colors[run.name], clip) for run, clip in shows]
        films = film_figures(video_id, of_runs, _attack_words)
        parts += gallery(films)
        figures |= films
        panels = {name: panel for run, clip in shows for name, panel in _profiles(run, clip)}
        profiles = _drawn(panels)
        maps = {name: panel for run, clip in shows for name, panel in _maps(run, clip)}
        scale = shared_scale(
            (matrix, num_frames)
            for _, matrices, num_frames in maps.values()
            for matrix in matrices.values()
        )
        for run, clip in shows:
            drawn = {name: profiles[name] for name, _ in _profiles(run, clip)}
            for name, (title, matrices, num_frames) in _maps(run, clip):
                drawn[name] = heat_maps(title, matrices, num_frames, scale)
            parts += [_top_table(run, clip, set(labels)), *gallery(drawn)]
            figures |= drawn
    if any(name.startswith("clip_frames_") for name in figures):
        parts.insert(0, note(FILM_NOTE))
    return parts, figures


def _attack_words(side: Mapping[str, Any]) -> str:
    epsilon = number(side.get("epsilon"))
    words = spec_title(str(side.get("attack", "attacked")))
    return words if epsilon is None else f"{words}, epsilon {epsilon:g}"


def _top_table(run: ReportedRun, clip: Mapping[str, Any], labels: set[Any]) -> str:
    """Returns a table of the top classes, clean beside attacked; true ones have a tick."""
    sides = [clip["clean"], *([clip["attacked"]] if "attacked" in clip else [])]
    heads: list[str | Cell] = [run.title, Cell("clean", "name"), "%"]
    if len(sides) > 1:
        heads += [Cell(_attack_words(sides[1]), "name"), "%"]
    rows = []
    for place in range(max(len(side["top"]) for side in sides)):
        row: list[str | Cell] = [f"{place + 1}."]
        for side in sides:
            entry = side["top"][place] if place < len(side["top"]) else []
            if len(entry) != 3:
                row += ["", ""]
                continue
            index, name, probability = entry
            true = index in labels
            text = class_name(index, name) + ("\u00a0✓" if true else "")
            row += [Cell(text, "name true" if true else "name"), percent(probability)]
        rows.append(row)
    return table(heads, rows)


def _sides(clip: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {kind: clip[kind] for kind in ("clean", "attacked") if kind in clip}


def _profiles(run: ReportedRun, clip: Mapping[str, Any]) -> Iterator[tuple[str, _Panel]]:
    """Yields name and chart of each of a clip's profiles."""
    for feature, level in _places(clip["clean"].get("profiles", {})):
        series = []
        for index, (kind, side) in enumerate(_sides(clip).items()):
            points = _points(side.get("profiles", {}).get(feature, {}).get(level, []))
            if points:
                markers = len(points) <= MOST_MARKERS
                series.append(Series(kind, points, index, markers=markers, dash=index))
        if series:
            yield (
                f"clip_profile_{clip['video_id']}_{run.name}_{feature}_{level}",
                _Panel(
                    f"{run.title}: profile, {feature}, {level}",
                    "frame",
                    "attention received",
                    series,
                ),
            )


def _maps(
    run: ReportedRun, clip: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[str, dict[str, Matrix], int]]]:
    """Yields the name of each figure of a clip's maps, with its title, maps and frames."""
    profiles = clip["clean"].get("profiles", {})
    for feature in clip["clean"].get("maps", {}):
        maps = {
            kind: rows
            for kind, side in _sides(clip).items()
            if _is_square(rows := side.get("maps", {}).get(feature, {}).get("global", []))
        }
        if maps:
            # A map is cut to blocks; its profile has a number per frame.
            of_frames = profiles.get(feature, {}).get("global", maps[next(iter(maps))])
            name = f"clip_map_{clip['video_id']}_{run.name}_{feature}"
            yield name, (f"{run.title}: map, {feature}", maps, max(len(of_frames), 1))


def _is_square(rows: Sequence[Sequence[Any]]) -> bool:
    return bool(rows) and all(
        len(row) == len(rows) and all(number(value) is not None for value in row) for row in rows
    )


def _places(profiles: Profiles) -> list[tuple[str, str]]:
    return [(feature, level) for feature, levels in profiles.items() for level in levels]


def _points(
    values: Sequence[Any], offset: float = 0.0, scale: float = 1.0
) -> tuple[tuple[float, float], ...]:
    return tuple(
        ((place + offset) * scale, y)
        for place, value in enumerate(values)
        if (y := number(value)) is not None
    )
