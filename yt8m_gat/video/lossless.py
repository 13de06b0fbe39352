"""Writes a video file that keeps every pixel and every sample."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from yt8m_gat.video.source import import_av

ENDING = ".nut"
"""The container is NUT, whose times are exact; FFV1 keeps RGB, and PCM of 16 bits the sound."""

_FULL_SCALE = 1 << 15
_MAX_DENOMINATOR = 1_000_000


def write_lossless(
    path: str | os.PathLike,
    images: Iterable[np.ndarray],
    frames_per_second: float,
    waveform: np.ndarray | None = None,
    sample_rate: int = 16_000,
) -> None:
    """Writes frames at a constant rate, and sound, both from time 0 on.

    `Video` reads the same pixels from it at this rate, and the samples rounded to 16 bits.

    Args:
        path: The file; its name ends in `.nut`.
        images: uint8 [H, W, 3], RGB, all of one size; none: only the sound is written.
        frames_per_second: Their rate.
        waveform: Float [S] in [-1, 1], one channel; None: there is no sound.
        sample_rate: Samples a second.

    Raises:
        ValueError: There is neither a picture nor a sample.
        av.FFmpegError: The file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from yt8m_gat.video.decoding import Video
        >>> images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "three.nut")
        ...     write_lossless(path, images, 25.0)
        ...     with Video(path) as video:
        ...         frames = [frame.image for frame in video.frames(frames_per_second=25.0)]
        >>> bool((np.stack(frames) == images).all())
        True
    """
    av = import_av()
    frames = iter(images)
    first = next(frames, None)
    if first is None and (waveform is None or not len(waveform)):
        raise ValueError("a video needs a picture or sound. Received: neither")
    rate = Fraction(frames_per_second).limit_denominator(_MAX_DENOMINATOR)
    with av.open(os.fspath(path), "w") as container:
        picture = sound = None
        if first is not None:
            picture = container.add_stream("ffv1", rate=rate)
            picture.height, picture.width = first.shape[:2]
            picture.pix_fmt = "bgr0"
        if waveform is not None and len(waveform):
            sound = container.add_stream("pcm_s16le", rate=sample_rate, layout="mono")
        if picture is not None and first is not None:
            for number, image in enumerate([first, *frames]):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        if sound is not None:
            levels = np.rint(np.asarray(waveform, np.float64) * _FULL_SCALE)
            levels = np.clip(levels, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(levels[np.newaxis], "s16", "mono")
            samples.sample_rate, samples.pts = sample_rate, 0
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
