"""Limits a data set to its first videos."""

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf


def first_videos(batches: Iterable[dict[str, Any]], max_videos: int) -> Iterator[dict[str, Any]]:
    """Yields the batches of the first `max_videos` videos, and cuts the last batch; 0: all.

    With segments, yields all segments of the first videos; a video's segments are consecutive.

    Args:
        batches: Batch dicts of `yt8m_gat.data`.
        max_videos: Maximum number of videos.
    """
    if not max_videos:
        yield from batches
        return
    videos = 0
    last_id = None
    for batch in batches:
        kept = 0
        for video_id in batch["video_id"].numpy():
            # Segments with the same id are one video; whole-video records with the same id are two.
            if last_id != video_id or "segment_start_time" not in batch:
                videos += 1
            if videos > max_videos:
                break
            last_id = video_id
            kept += 1
        if kept:
            yield batch if videos <= max_videos else _first(batch, kept)
        # The segments of the last video may continue in the next batch.
        if videos > max_videos or (videos == max_videos and "segment_start_time" not in batch):
            return


def _first(batch: dict[str, Any], count: int) -> dict[str, Any]:
    return tf.nest.map_structure(lambda values: values[:count], batch)
