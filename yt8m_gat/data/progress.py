"""Progress of a pass over the data, in videos."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


def progress_bar(description: str, total: int | None) -> tqdm:
    """Makes a bar of videos with rate and time left; without a terminal it updates rarely."""
    return tqdm(
        total=total,
        desc=description,
        unit="video",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )


def advance(bar: tqdm, batch: Mapping[str, Any], last_id: bytes) -> bytes:
    """Advances the bar by the videos of a batch; for segments, by the videos that begin in it.

    Args:
        bar: The bar.
        batch: A batch of `yt8m_gat.data`.
        last_id: The result of the call for the previous batch; empty for the first.

    Returns:
        The last id of the batch.
    """
    ids = batch["video_id"].numpy()
    if "segment_start_time" in batch:
        before = [last_id, *ids[:-1]]
        bar.update(sum(video_id != other for video_id, other in zip(ids, before, strict=True)))
    else:
        bar.update(len(ids))
    return ids[-1]
