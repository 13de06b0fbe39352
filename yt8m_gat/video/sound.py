"""Turns decoded sound into one channel at one rate, on a time axis without holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from yt8m_gat.video.source import import_av

# FFmpeg's own limit (`min_hard_comp` of aresample): smaller steps of the times are jitter.
_MIN_GAP = 0.1


def resampled(
    frames: Iterable[tuple[float, Any]], sample_rate: int, leave_out: Callable[[], None]
) -> Iterator[tuple[int, np.ndarray]]:
    """Resamples decoded frames of sound.

    Args:
        frames: (seconds, frame of PyAV) in order.
        sample_rate: Samples a second of the result.
        leave_out: Called for a frame that cannot be converted.

    Yields:
        (number of the first sample, samples of one channel, float32 [N] in [-1, 1]). Sample n is at
        `n / sample_rate` seconds; the numbers leap where the times of the frames do.
    """
    av = import_av()
    segment = None
    for seconds, frame in frames:
        layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        if segment is None or segment.layout != layout or abs(seconds - segment.end) > _MIN_GAP:
            if segment is not None:
                yield from segment.samples_of(None)
            frame, padding = _on_the_grid(seconds, frame, sample_rate)
            seconds -= padding
            segment = _Segment(layout, seconds, sample_rate)
        try:
            yield from segment.samples_of(frame)
        except (av.FFmpegError, ValueError):
            leave_out()
    if segment is not None:
        yield from segment.samples_of(None)


def _on_the_grid(seconds: float, frame: Any, sample_rate: int) -> tuple[Any, float]:
    """Puts silence before a frame, so that its beginning is a whole sample of the result too.

    So the samples do not depend on where the decoding began.

    Returns:
        The frame, and the seconds of silence.
    """
    rate = frame.sample_rate
    padding = round(seconds * rate) % (rate // math.gcd(rate, sample_rate))
    if padding == 0:
        return frame, 0.0
    samples = frame.to_ndarray()
    per_sample = 1 if frame.format.is_planar else frame.layout.nb_channels
    middle = 128 if samples.dtype == np.uint8 else 0
    silence = np.full((len(samples), padding * per_sample), middle, samples.dtype)
    return _with_samples(frame, np.concatenate([silence, samples], axis=1)), padding / rate


def trimmed(frames: Iterable[tuple[float, Any]], end: float | None) -> Iterator[tuple[float, Any]]:
    """Cuts the last frame at `end`, if that lies in it; codecs fill up the last block of samples.

    Args:
        frames: (seconds, frame of PyAV) in order.
        end: Seconds at which the sound ends by the header of the file, or None.
    """
    last = None
    for pair in frames:
        if last is not None:
            yield last
        last = pair
    if last is None:
        return
    seconds, frame = last
    count = 0 if end is None else round((end - seconds) * frame.sample_rate)
    if 0 < count < frame.samples:
        per_sample = 1 if frame.format.is_planar else frame.layout.nb_channels
        frame = _with_samples(frame, frame.to_ndarray()[:, : count * per_sample])
    yield seconds, frame


def _with_samples(frame: Any, samples: np.ndarray) -> Any:
    """Returns a frame like another one, with other samples in the layout of its `to_ndarray`."""
    other = type(frame).from_ndarray(
        np.ascontiguousarray(samples), frame.format.name, frame.layout.name
    )
    other.sample_rate = frame.sample_rate
    return other


class _Segment:
    """A stretch of sound in one format, without a gap."""

    def __init__(self, layout: tuple[str, str, int], start: float, sample_rate: int) -> None:
        self.layout = layout
        self.end = start
        self._position = round(start * sample_rate)
        # Sixteen bits, because FFmpeg then mixes with weights that add up to 1: nothing clips.
        self._resampler = import_av().AudioResampler("s16", "mono", sample_rate)

    def samples_of(self, frame: Any) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the samples that a frame completes; None: the rest."""
        if frame is not None:
            self.end += frame.samples / frame.sample_rate
            frame.pts = None  # The filter would move samples by it.
        for part in self._resampler.resample(frame):
            if part is None:  # What the flush of a resampler with nothing to do returns.
                continue
            samples = part.to_ndarray()[0].astype(np.float32) / 2**15
            yield self._position, samples
            self._position += len(samples)


def laid_out(
    pieces: Iterable[tuple[int, np.ndarray]], start: int, end: float, max_chunk: int
) -> Iterator[np.ndarray]:
    """Yields the samples from `start` to `end` without holes or overlaps.

    Args:
        pieces: (number of the first sample, samples [N]) in order.
        start: Number of the first sample to yield.
        end: Number after the last one, at most.
        max_chunk: Maximal samples of silence in a chunk.
    """
    position = start
    for first, samples in pieces:
        while position < min(first, end):
            silence = int(min(max_chunk, first - position, end - position))
            yield np.zeros(silence, np.float32)
            position += silence
        samples = samples[max(0, position - first) :]
        if position + len(samples) > end:
            samples = samples[: int(end - position)]
        if len(samples):
            yield samples
            position += len(samples)
        if position >= end:
            return
