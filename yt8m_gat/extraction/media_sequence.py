"""Packs raw clips as MediaSequence records, which other video code of TensorFlow reads.

`yt8m_gat.data.clip_record` lists their keys.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from yt8m_gat.data.clip_record import clip_record
from yt8m_gat.extraction.pack_settings import PackSettings
from yt8m_gat.extraction.shards import (
    Made,
    Summary,
    Task,
    one_by_one,
    tasks_of,
    write_shards,
)
from yt8m_gat.video.clips import Clip, label_names
from yt8m_gat.video.decoding import Frame, Video
from yt8m_gat.video.source import error_of

SAMPLE_RATE = 16_000

# A serialized record must be below 2 GB (protobuf).
_MAX_BYTES = 2_000_000_000


def pack(
    clips: Sequence[Clip],
    folder: str | os.PathLike,
    settings: PackSettings,
    *,
    names: Sequence[str] | None = None,
    num_shards: int = 1,
    splits: Sequence[tuple[str, int]] = (),
    on_bad_file: str = "error",
    num_readers: int = 2,
    show_progress: bool = False,
) -> Summary:
    """Writes one record a clip, or continues where it was interrupted.

    The files are those of `yt8m_gat.extraction.shards`.

    Args:
        clips: The clips.
        folder: The output folder, created if needed.
        settings: What the records hold.
        names: Names of the classes, in order; by default those of the clips' labels.
        num_shards: Files of each split.
        splits: See `shards.split_of`.
        on_bad_file: See `write_shards`.
        num_readers: Files that are decoded at a time.
        show_progress: Show clips, rate and time left on the standard error.

    Raises:
        ConfigError: The folder holds another job.
        VideoError: A file cannot be read, and `on_bad_file` is `error`.
        ClipListError: A clip is there twice, or a label has no name.
        WriteError: A file cannot be written.
    """
    names = label_names(clips) if names is None else list(names)

    stored = dataclasses.asdict(settings)
    if not settings.crop:
        del stored["crop"]  # As in jobs from before it could be given.

    def make(task: Task) -> Made:
        return record_of(task, settings, names)

    return write_shards(
        folder,
        tasks_of(clips, names, splits),
        one_by_one(make, num_readers),
        names=names,
        settings={"pack": stored},
        num_shards=num_shards,
        on_bad_file=on_bad_file,
        show_progress=show_progress,
    )


def record_of(task: Task, settings: PackSettings, names: Sequence[str]) -> Made:
    """Returns the record of a clip, and its line of the manifest.

    Raises:
        VideoError: The clip has no picture, cannot be decoded, or is too long for a record.
    """
    clip = task.clip
    with Video(
        clip.path, start=clip.start, end=clip.end, max_seconds=settings.max_seconds or None
    ) as video:
        frames = video.frames(
            frames_per_second=settings.fps or None,
            crop=settings.crop or None,
            short_side=settings.short_side or None,
        )
        jpegs, times = _encoded(clip, frames, settings.quality)
        sound = None
        if settings.with_sound and video.info.has_sound:
            sound = np.concatenate(list(video.sound(sample_rate=SAMPLE_RATE)))
        faults = tuple(video.faults)
        rate = settings.fps or video.info.frames_per_second or 0.0
    height, width, channels = tf.io.decode_jpeg(jpegs[0]).shape
    seconds = times[-1] - clip.start + (1 / rate if rate else 0.0)
    record = clip_record(
        task.clip_id.encode("utf-8", "surrogateescape"),
        jpegs,
        [time - clip.start for time in times],
        task.labels,
        names,
        height=height,
        width=width,
        channels=channels,
        frame_rate=rate,
        start=clip.start,
        seconds=seconds,
        sound=sound,
        sample_rate=SAMPLE_RATE,
    )
    columns = {
        "frames": len(jpegs),
        "seconds": round(seconds, 3),
        "faults": "; ".join(faults),
        "height": height,
        "width": width,
        "sound_samples": 0 if sound is None else len(sound),
    }
    return Made(record, columns)


def _encoded(clip: Clip, frames: Iterable[Frame], quality: int) -> tuple[list[bytes], list[float]]:
    """Returns the JPEG files of frames, and their times."""
    jpegs: list[bytes] = []
    times: list[float] = []
    num_bytes = 0
    image = None
    for frame in frames:
        if frame.image is not image:  # A frame that is shown for long comes several times.
            image = frame.image
            jpeg = tf.io.encode_jpeg(image, "rgb", quality).numpy()
        jpegs.append(jpeg)
        times.append(frame.seconds)
        num_bytes += len(jpeg)
        if num_bytes > _MAX_BYTES:
            raise error_of(
                clip.path,
                f"a clip must have less than 2 GB of JPEG. It has more after {frame.seconds:.0f} "
                "s; cut it by start and end or --max_seconds, or lower --fps or --short_side",
            )
    if not jpegs:
        raise error_of(clip.path, f"has no frame from start={clip.start:g} to end={clip.end}")
    return jpegs, times
