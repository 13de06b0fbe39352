"""Figures of single raw clips: their frames, and the class activation of each run below them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from yt8m_gat.report.drawing.film import Film, Strip, film_chart
from yt8m_gat.report.drawing.markup import Figures
from yt8m_gat.report.results import class_name
from yt8m_gat.report.source import ReportedRun, number

# A run, its colour, and what it stored of the clip.
Show = tuple[ReportedRun, int, Mapping[str, Any]]

FILM_NOTE = (
    "Frames as the models take them, and below, for each run, the class activation of the label, "
    "and of the prediction if that is another class: the share of each frame in what speaks for "
    "the class, on one scale for all of a clip. The thin line is an equal share; a frame below 0 "
    "speaks against the class. The closer to the line, the broader the activation. Entropy is "
    "over log n, 1 if all frames count alike; spread is the deviation in time over that of equal "
    "shares."
)


def film_figures(
    video_id: str, shows: Sequence[Show], attack_words: Callable[[Mapping[str, Any]], str]
) -> Figures:
    """Returns a figure of the clean clip and one of the attacked; none without stored frames.

    Args:
        video_id: The clip.
        shows: The runs that show it.
        attack_words: `side of a clip -> its attack in words`.
    """
    sides = {
        kind: [(run, color, clip[kind]) for run, color, clip in shows if kind in clip]
        for kind in ("clean", "attacked")
    }
    rows = {kind: list(_rows(shown, kind, attack_words)) for kind, shown in sides.items()}
    shares = [
        value
        for of_side in rows.values()
        for row in of_side
        if isinstance(row, Strip)
        for value in (*row.values, row.mark)
    ]
    highest = max(shares, default=1.0)
    scale = max(min(shares, default=0.0), -highest), highest
    titles = {"clean": f"Clip {video_id}", "attacked": f"Clip {video_id}, attacked"}
    return {
        f"clip_frames_{video_id}_{kind}": film_chart(titles[kind], of_side, scale)
        for kind, of_side in rows.items()
        if of_side
    }


def _rows(
    shown: Sequence[Show], kind: str, attack_words: Callable[[Mapping[str, Any]], str]
) -> Iterator[Film | Strip]:
    """Yields the frames, again where a run has others, and each run's activations below them."""
    last: Sequence[str] = ()
    for run, color, side in shown:
        frames = side.get("frames", [])
        if frames and frames != last:
            words = f"{run.title}: {attack_words(side)}" if kind == "attacked" else ""
            yield Film(words or (run.title if last else ""), tuple(frames))
            last = frames
        for place, entry in enumerate(side.get("activation", [])):
            words = f"{run.title}{', prediction' if place else ''}: "
            words += class_name(entry["class"], entry["name"])
            values = [number(value) or 0.0 for value in entry["values"]]
            total = sum(value for value in values if value > 0)
            if total > 0:
                for name in ("entropy", "spread"):
                    if (figure := number(entry[name])) is not None:
                        words += f", {name} {figure:.3f}"
                shares = tuple(value / total for value in values)
                yield Strip(words, shares, color, 1.0 / len(shares))
            else:
                yield Strip(f"{words}; no frame speaks for it", (), color)
