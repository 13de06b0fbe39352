"""Checks a submission CSV before it is uploaded, scores one, and shows it with label names.

    yt8m-gat kaggle check submission.csv
    yt8m-gat kaggle score submission.csv truth.csv
    yt8m-gat kaggle show submission.csv --label_names=vocabulary.csv
    yt8m-gat kaggle sheet submission.csv --output_file=to_look_at.csv
    yt8m-gat kaggle blend a.csv b.csv --output_file=blend.csv

The exit code is 0, or 1 when a rule is broken; every violation is printed with its line.
"""

import contextlib
import csv
import itertools
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from yt8m_gat.disk import replacing
from yt8m_gat.metrics import (
    average_precision,
    mean_average_precision,
    mean_class_accuracy,
    per_class_average_precision,
)
from yt8m_gat.prediction.submission import SEGMENT_HEADER, VIDEO_HEADER
from yt8m_gat.untrusted import excerpt, printable

TRUTH_HEADER = "VideoId,Labels"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# An unknown or missing video is an error of the whole file; the message names this many.
_NAMED_VIDEOS = 3


def check_submission(
    path: str | os.PathLike,
    num_classes: int = 3862,
    top_k: int = 20,
    max_per_class: int = 100_000,
) -> Iterator[str]:
    """Yields violations of the submission format that the CSV's header names.

    2018 (`VideoId,LabelConfidencePairs`): two fields a row; a distinct, non-empty id; 1 to `top_k`
    pairs `label score` joined by single spaces; labels distinct integers in 0 .. `num_classes` -
    1; scores finite and not ascending. 2019 (`Class,Segments`): two fields a row; a distinct class
    in range; at most `max_per_class` distinct segments `id:start`, start an integer >= 0.

    The file is read row by row; only the ids are kept.

    Args:
        path: The CSV, in UTF-8.
        num_classes: C.
        top_k: Most pairs of a 2018 row.
        max_per_class: Most segments of a 2019 row.

    Yields:
        `line N: the rule, what was received`, in the order of the file, N counted from 1.
    """
    with open(path, encoding="utf-8", newline="") as file, _rows_of_any_length():
        rows = csv.reader(file)
        header = ",".join(next(rows, []))
        if header not in (VIDEO_HEADER, SEGMENT_HEADER):
            yield (
                f"line 1: the header must be {VIDEO_HEADER} (2018) or {SEGMENT_HEADER} (2019), "
                f"received {header!r}"
            )
            return
        seen: dict[str, int] = {}
        for row in rows:
            line = rows.line_num
            if len(row) != 2:
                yield f"line {line}: a row must have 2 fields, received {len(row)}"
                continue
            key, content = row
            if key in seen:
                yield f"line {line}: {key!r} is already in line {seen[key]}"
            seen.setdefault(key, line)
            if header == VIDEO_HEADER:
                violations = _video_row_violations(key, content, num_classes, top_k)
            else:
                violations = _segment_row_violations(key, content, num_classes, max_per_class)
            for violation in violations:
                yield f"line {line}: {violation}"
        if not seen:
            yield "line 2: there must be at least one row, received none"


def score_submission(
    submission_path: str | os.PathLike, truth_path: str | os.PathLike, num_classes: int = 3862
) -> dict[str, float]:
    """Returns metrics of a 2018 submission against known labels.

    Args:
        submission_path: A CSV without violations (see `check_submission`).
        truth_path: A CSV with the header `VideoId,Labels`, a row a video, its labels joined by
            spaces (none is allowed).
        num_classes: C.

    Returns:
        `gap`, `map`, `hit_at_1`, `perr` and `num_videos`, as `EvaluationMetrics` defines them with
        the rows' pairs as the top k, and for videos of one label each `top_5` and
        `mean_class_accuracy`. `perr` is left out if a video has more labels than pairs, and `top_5`
        if one has fewer than five pairs, since the pairs do not determine it then.

    Raises:
        ValueError: If the truth is malformed, or the two files have different videos.
    """
    submission = read_submission(submission_path, VIDEO_HEADER)
    truth = read_submission(truth_path, TRUTH_HEADER)
    _check_truth(truth, truth_path, num_classes)
    submission_ids, truth_ids = submission["VideoId"], truth["VideoId"]
    problems = [
        f"{len(ids)} videos {problem}, as {', '.join(map(repr, ids[:_NAMED_VIDEOS]))}"
        for ids, problem in (
            (truth_ids[~truth_ids.isin(submission_ids)].tolist(), "missing from the submission"),
            (submission_ids[~submission_ids.isin(truth_ids)].tolist(), "unknown to the truth"),
        )
        if ids
    ]
    if problems:
        raise ValueError(
            f"Submission and truth must be about the same videos. Received: {'; '.join(problems)}"
        )
    # From here on a video is identified by its position in the truth.
    labels = truth["Labels"].str.split()
    label_counts = labels.str.len().to_numpy(dtype=np.int64)
    positives = np.fromiter(
        (int(label) for row in labels for label in row), np.int64, count=label_counts.sum()
    )
    label_keys = np.repeat(np.arange(len(truth)), label_counts) * num_classes + positives

    pairs = submission["LabelConfidencePairs"]
    pair_counts = (pairs.str.count(" ").to_numpy(dtype=np.int64) + 1) // 2
    values = np.fromstring(" ".join(pairs), dtype=np.float64, sep=" ")
    classes, scores = values[0::2].astype(np.int64), values[1::2]
    videos = pd.Index(truth_ids).get_indexer(submission_ids)
    hits = np.isin(np.repeat(videos, pair_counts) * num_classes + classes, label_keys)

    starts = np.cumsum(pair_counts) - pair_counts
    counts = label_counts[videos]
    result = {
        "gap": average_precision(scores, hits, max(len(positives), 1)),
        "map": mean_average_precision(
            per_class_average_precision(
                classes, scores, hits, np.bincount(positives, minlength=num_classes)
            )
        ),
        "hit_at_1": float(hits[starts].mean()),
    }
    ranks = np.arange(len(hits)) - np.repeat(starts, pair_counts)
    if (counts == 1).all():
        if (pair_counts >= min(5, num_classes)).all():
            result["top_5"] = float(np.logical_or.reduceat(hits & (ranks < 5), starts).mean())
        result["mean_class_accuracy"] = mean_class_accuracy(positives[videos], hits[starts])
    if (counts <= pair_counts).all():
        among_best = hits & (ranks < np.repeat(counts, pair_counts))
        result["perr"] = float(
            (np.add.reduceat(among_best, starts, dtype=np.int64) / np.maximum(counts, 1)).mean()
        )
    return result | {"num_videos": len(truth)}


def describe_rows(
    path: str | os.PathLike,
    label_names: Mapping[int, str],
    num_rows: int,
    num_entries: int,
    keys: Sequence[str] = (),
) -> Iterator[str]:
    """Yields the rows of a submission in words.

    Args:
        path: A CSV without violations (see `check_submission`).
        label_names: Class -> name; a class without a name is shown by its number.
        num_rows: Most rows shown.
        num_entries: Most predictions (2018) or segments (2019) shown of a row, best first.
        keys: The video ids (2018) or classes (2019) to show; none: the first rows.

    Yields:
        A paragraph a row: the video and its labels with their scores, or the class and its
        segments.

    Raises:
        ValueError: One of `keys` is in no row.
    """

    def named(label: str) -> str:
        name = label_names.get(int(label))
        return label if name is None else f"{label} {name}"

    missing = dict.fromkeys(keys)
    shown = 0
    with open(path, encoding="utf-8", newline="") as file, _rows_of_any_length():
        rows = csv.reader(file)
        of_videos = ",".join(next(rows)) == VIDEO_HEADER
        for key, content in rows:
            if shown == num_rows or (keys and not missing):
                break
            if keys and key not in missing:
                continue
            missing.pop(key, None)
            shown += 1
            fields = content.split()
            if of_videos:
                pairs = list(zip(fields[0::2], fields[1::2], strict=True))[:num_entries]
                lines = [f"  {float(score):.4f}  {named(label)}" for label, score in pairs]
                yield "\n".join([printable(key), *lines])
            else:
                shown_segments = printable(" ".join(fields[:num_entries]))
                yield f"{named(key)} ({len(fields)} segments)\n  {shown_segments}"
    if missing and shown < num_rows:
        raise ValueError(f"{os.fspath(path)} has no row of {', '.join(missing)}")


def write_sheet(path: str | os.PathLike, sheet: str | os.PathLike) -> None:
    """Writes a copy of a submission for spreadsheets, which take some cells for formulas.

    A cell that begins with one of `= + - @`, a tab or a carriage return gets an apostrophe in
    front. The copy is only for reading: Kaggle does not accept such ids.

    Args:
        path: A CSV without violations (see `check_submission`).
        sheet: The copy.
    """
    with (
        replacing(sheet) as temporary,
        open(path, encoding="utf-8", newline="") as file,
        open(temporary, "w", encoding="utf-8", newline="") as copy,
        _rows_of_any_length(),
    ):
        writer = csv.writer(copy, lineterminator="\n")
        for row in csv.reader(file):
            writer.writerow(["'" + cell if cell[:1] in _FORMULA else cell for cell in row])


@contextlib.contextmanager
def _rows_of_any_length() -> Iterator[None]:
    """Lifts csv's limit on a field, which holds for the whole process, and restores it.

    A 2019 row of 100,000 segments is far longer than the 128 KiB that csv takes by default.
    """
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _video_row_violations(
    video_id: str, content: str, num_classes: int, top_k: int
) -> Iterator[str]:
    if not video_id:
        yield "the video id must not be empty"
    fields = content.split(" ")
    if len(fields) % 2 or "" in fields:
        yield (
            "pairs must be `label score` joined by single spaces, "
            f"received {len(content.split())} fields in {content[:40]!r}"
        )
        return
    if len(fields) > 2 * top_k:
        yield f"a row must have 1 to {top_k} pairs, received {len(fields) // 2}"
    yield from _label_violations(fields[0::2], num_classes)
    scores = []
    for field in fields[1::2]:
        try:
            score = float(field)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            yield f"a score must be a finite number, received {excerpt(field)}"
            return
        scores.append(score)
    for before, after in itertools.pairwise(scores):
        if after > before:
            yield f"scores must not ascend, received {before:g} before {after:g}"
            return


def _segment_row_violations(
    class_id: str, content: str, num_classes: int, max_per_class: int
) -> Iterator[str]:
    yield from _label_violations([class_id], num_classes)
    segments = content.split(" ") if content else []
    for segment in segments:
        if not re.fullmatch(r"[^\s:]+:[0-9]+", segment):
            received = excerpt(segment)
            yield f"segments must be `id:start` joined by single spaces, received {received}"
            return
    if len(segments) > max_per_class:
        yield f"a class must have at most {max_per_class} segments, received {len(segments)}"
    yield from _repetitions("segment", segments)


def _label_violations(labels: Sequence[str], num_classes: int) -> Iterator[str]:
    for label in labels:
        is_integer = re.fullmatch("0|[1-9][0-9]*", label)
        if not is_integer or len(label) > 18 or int(label) >= num_classes:
            yield f"a label must be an integer in 0 .. {num_classes - 1}, received {excerpt(label)}"
    yield from _repetitions("label", labels)


def _repetitions(name: str, values: Sequence[str]) -> Iterator[str]:
    seen = set()
    for value in values:
        if value in seen:
            yield f"{name} {value!r} must not be repeated in its row"
        seen.add(value)


def read_submission(path: str | os.PathLike, header: str) -> pd.DataFrame:
    """Returns the CSV as strings; "NA" and the like are ids, not missing values."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if ",".join(table.columns) != header:
        raise ValueError(
            f"The header of {os.fspath(path)!r} must be {header}. "
            f"Received: {','.join(table.columns)}"
        )
    # pandas takes the first of three fields for an index.
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(f"Each row of {os.fspath(path)!r} must have 2 fields. Received: 3 or more")
    return table


def _check_truth(truth: pd.DataFrame, path: str | os.PathLike, num_classes: int) -> None:
    if truth.empty:
        raise ValueError(
            f"The truth must have at least one video. Received: none in {os.fspath(path)!r}"
        )
    repeated = truth["VideoId"][truth["VideoId"].duplicated()]
    if len(repeated):
        raise ValueError(
            f"Each video must be in one row of the truth. Received: {len(repeated)} repeated "
            f"rows, as {repeated.iloc[0]!r}"
        )
    for video_id, labels in zip(truth["VideoId"], truth["Labels"], strict=True):
        for violation in _label_violations(labels.split(), num_classes):
            raise ValueError(f"Truth of video {video_id!r}: {violation}")
