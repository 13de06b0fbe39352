"""Whether activation and attention lie where a class is shown, for clips where that is known."""

import csv
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from yt8m_gat.untrusted import excerpt, quoted, read_text

_COLUMNS = ("video_id", "label", "start", "end")
_MAX_BYTES = 1 << 30


class TrueSpan(NamedTuple):
    """Where a label is shown in a clip.

    Attributes:
        label: The class, by number or name.
        start: Where it begins, as a share of the clip, in [0, 1).
        end: Where it ends, in (0, 1].
    """

    label: str
    start: float
    end: float


def read_true_spans(path: str | os.PathLike) -> dict[str, list[TrueSpan]]:
    """Reads a CSV of spans: `video_id,label,start,end[,duration]`, a span a line.

    With `duration`, the three are seconds of a clip of that length; without it, `start` and `end`
    are shares of the clip.

    Returns:
        Video id -> its spans.

    Raises:
        ValueError: The file is no such CSV; the message names the line.
        OSError: It cannot be read.
    """
    lines = read_text(path, _MAX_BYTES, "utf-8-sig").splitlines()
    rows = csv.DictReader(lines)
    if rows.fieldnames is None or not set(_COLUMNS) <= set(rows.fieldnames):
        raise ValueError(
            f"{quoted(os.fspath(path))}: the columns must be {', '.join(_COLUMNS)}, and duration "
            f"if times are in seconds. Received: {excerpt(rows.fieldnames)}"
        )
    spans: dict[str, list[TrueSpan]] = {}
    for row in rows:
        place = f"{quoted(os.fspath(path))}, line {rows.line_num}"
        try:
            duration = float(row.get("duration") or 1.0)
            start, end = float(row["start"]) / duration, float(row["end"]) / duration
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{place}: start, end and duration must be numbers") from error
        if not 0 <= start < end or start >= 1:
            raise ValueError(
                f"{place}: a span must begin in the clip and end after that. Received: "
                f"{start:g} to {end:g} of the clip"
            )
        if not row["video_id"] or not row["label"]:
            raise ValueError(f"{place}: video_id and label must not be empty")
        spans.setdefault(row["video_id"], []).append(TrueSpan(row["label"], start, min(end, 1.0)))
    return spans


def overlap_of_frames(span: TrueSpan, num_frames: int) -> np.ndarray:
    """Returns the share of each frame's time that lies in the span, [n].

    Frame t of n is shown from t / n to (t + 1) / n of the clip.

    Examples:
        >>> overlap_of_frames(TrueSpan("cat", 0.25, 0.625), 4)
        array([0. , 1. , 0.5, 0. ])
    """
    edges = np.arange(num_frames + 1) / num_frames
    starts, ends = np.maximum(edges[:-1], span.start), np.minimum(edges[1:], span.end)
    return np.maximum(ends - starts, 0.0) * num_frames


class SpanFigures:
    """How much of some weight over time falls into the true spans, and where its peak lies."""

    def __init__(self) -> None:
        self._shares: list[float] = []
        self._hits: list[bool] = []
        self._even: list[float] = []

    def add(self, shares: np.ndarray, span: TrueSpan) -> None:
        """Adds one clip's weights [n] over its real frames, sum 1, beside one of its spans."""
        overlap = overlap_of_frames(span, len(shares))
        self._shares.append(float(shares @ overlap))
        # The peak hits if it lies in the span for half of its frame or more; a span that is
        # shorter than half a frame is hit by the frame that has most of it.
        needed = min(0.5, overlap.max())
        self._hits.append(bool(overlap[np.argmax(shares)] >= needed))
        self._even.append(float(overlap.mean()))

    def result(self) -> dict[str, Any]:
        """Returns `num_spans`, and means over them; None without a span.

        `share`: of the weight, what falls into the span. `pointing`: whether its peak lies in the
        span (the pointing game). `even_share`: `share` of a weight that is the same at all frames.
        """

        def mean(values: list[float] | list[bool]) -> float | None:
            return float(np.mean(values)) if values else None

        return {
            "num_spans": len(self._shares),
            "share": mean(self._shares),
            "pointing": mean(self._hits),
            "even_share": mean(self._even),
        }


def numbered_spans(
    spans: Mapping[str, list[TrueSpan]], names: Mapping[int, str], num_classes: int
) -> dict[str, list[tuple[int, TrueSpan]]]:
    """Returns video id -> (class, span); labels that are no names are numbers of classes.

    Raises:
        ValueError: A label is neither a name nor a class.
    """
    numbers = {name: index for index, name in names.items()}
    found: dict[str, list[tuple[int, TrueSpan]]] = {}
    for video_id, of_video in spans.items():
        for span in of_video:
            number = numbers.get(span.label)
            if number is None and span.label.isdecimal():
                number = int(span.label)
            if number is None or not number < num_classes:
                raise ValueError(
                    f"the label of a span must be a name or a number of the run's classes. "
                    f"Received: {excerpt(span.label)} for {quoted(video_id)}"
                )
            found.setdefault(video_id, []).append((number, span))
    return found
