"""Blends the submissions of several models into one.

yt8m-gat kaggle blend a.csv b.csv --weights=2,1 --method=rank --output_file=blend.csv
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from yt8m_gat.disk import replacing
from yt8m_gat.prediction.kaggle import read_submission
from yt8m_gat.prediction.submission import VIDEO_HEADER, quoted_field

METHODS = ("mean", "rank", "geometric")
LEAST_SCORE = 1e-6
"""What `geometric` takes a lower score, and a pair that a submission does not have, for."""

_NAMED_VIDEOS = 3


class _Pairs(NamedTuple):
    """The pairs of a submission, video by video in the order of the first submission.

    Attributes:
        videos: int [N], the video's row in the first submission.
        classes: int [N].
        scores: float64 [N].
    """

    videos: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def blend_submissions(
    paths: Sequence[str | os.PathLike],
    output_file: str | os.PathLike,
    weights: Sequence[float] = (),
    method: str = "mean",
    top_k: int = 20,
) -> None:
    """Writes the blend of several 2018 submissions about the same videos.

    | method | blended score of a pair | a pair that a submission does not have |
    |---|---|---|
    | `mean` | sum_i w_i s_i | has score 0 |
    | `rank` | sum_i w_i r_i, r the rank from the lowest pair / the number of pairs | has r = 0 |
    | `geometric` | prod_i max(s_i, 1e-6)^w_i | has score 1e-6 |

    with weights that are divided by their sum. Ranks are over all pairs of a submission, as GAP
    ranks them, so that models of different confidence count alike; ties have their mean rank.

    Args:
        paths: CSVs without violations (see `check_submission`), at least two.
        output_file: The blend; its rows have the order of the first CSV, and its pairs that of
            `SubmissionWriter`.
        weights: A weight of at least 0 for each CSV; empty: all count alike.
        method: One of `METHODS`.
        top_k: Most pairs of a row.

    Raises:
        ValueError: If the CSVs are not 2018 submissions about the same videos, the weights do not
            fit, or `geometric` gets a negative score.
    """
    if len(paths) < 2:
        raise ValueError(f"A blend needs at least two submissions. Received: {len(paths)}")
    if method not in METHODS:
        raise ValueError(f"--method must be one of {', '.join(METHODS)}. Received: {method!r}")
    shares = _shares(weights, len(paths))
    tables = [read_submission(path, VIDEO_HEADER) for path in paths]
    ids = tables[0]["VideoId"]
    for path, table in zip(paths[1:], tables[1:], strict=True):
        _check_same_videos(paths[0], ids, path, table["VideoId"])
    keys, scores = [], []
    pairs = [_pairs_of(table, ids) for table in tables]
    num_classes = 1 + max(int(part.classes.max()) for part in pairs)
    for path, share, part in zip(paths, shares, pairs, strict=True):
        keys.append(part.videos * num_classes + part.classes)
        scores.append(share * _contribution(method, part.scores, path))
    unique, places = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(places, np.concatenate(scores))
    if method == "geometric":
        total = LEAST_SCORE * np.exp(total)
    videos, classes = unique // num_classes, unique % num_classes
    order = np.lexsort((classes, -total, videos))
    starts = np.searchsorted(videos, np.arange(len(ids) + 1))
    with replacing(output_file) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(VIDEO_HEADER + "\n")
        for row, video_id in enumerate(ids):
            best = order[starts[row] : starts[row + 1]][:top_k]
            words = [f"{classes[pair]} {total[pair]:g}" for pair in best]
            file.write(f"{quoted_field(video_id)},{' '.join(words)}\n")


def _shares(weights: Sequence[float], count: int) -> np.ndarray:
    """Returns the weights divided by their sum."""
    if not len(weights):
        return np.full(count, 1 / count)
    values = np.asarray(weights, np.float64)
    if len(values) != count or not (values >= 0).all() or not 0 < values.sum() < np.inf:
        raise ValueError(
            f"--weights must be {count} numbers of at least 0, one for each submission and not all "
            f"0. Received: {', '.join(f'{value:g}' for value in values)}"
        )
    return values / values.sum()


def _contribution(method: str, scores: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Returns what is added for each pair; a pair that is not there adds 0."""
    if method == "mean":
        return scores
    if method == "rank":
        return pd.Series(scores).rank(pct=True).to_numpy()
    if (scores < 0).any():
        raise ValueError(
            "--method=geometric needs scores of at least 0; blend others by rank. Received: "
            f"{scores.min():g} in {os.fspath(path)!r}"
        )
    return np.log(np.maximum(scores, LEAST_SCORE) / LEAST_SCORE)


def _pairs_of(table: pd.DataFrame, ids: pd.Series) -> _Pairs:
    pairs = table["LabelConfidencePairs"]
    counts = (pairs.str.count(" ").to_numpy(dtype=np.int64) + 1) // 2
    values = np.fromstring(" ".join(pairs), dtype=np.float64, sep=" ")
    videos = pd.Index(ids).get_indexer(table["VideoId"])
    return _Pairs(np.repeat(videos, counts), values[0::2].astype(np.int64), values[1::2])


def _check_same_videos(
    first: str | os.PathLike, ids: pd.Series, path: str | os.PathLike, others: pd.Series
) -> None:
    problems = [
        f"{len(only)} videos are only in {os.fspath(name)!r}, as "
        f"{', '.join(map(repr, only[:_NAMED_VIDEOS]))}"
        for name, only in (
            (first, ids[~ids.isin(others)].tolist()),
            (path, others[~others.isin(ids)].tolist()),
        )
        if only
    ]
    if problems:
        raise ValueError(
            f"Submissions must be about the same videos to be blended. Received: "
            f"{'; '.join(problems)}"
        )
