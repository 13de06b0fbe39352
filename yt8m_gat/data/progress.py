"""Progress of a pass over the data, in videos."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


def progress_bar(description: str, total: int | None) -> tqdm:
    """Progress in videos, with rate and time left; quiet where nobody looks."""
    return tqdm(
        total=total,
        desc=description,
        unit="video",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )


def advance(bar: tqdm, batch: Mapping[str, Any], last_id: bytes) -> bytes:
    """Moves the progress on by the videos of a batch; of segments, by those that begin in it.

    Args:
        bar: The progress.
        batch: A batch of `yt8m_gat.data`.
        last_id: What the call for the batch before returned; empty for the first.

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
