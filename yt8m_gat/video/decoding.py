"""Reads video files: frames by presentation time, and sound, through FFmpeg's libraries (PyAV)."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from yt8m_gat.video import sampling
from yt8m_gat.video.picture import ImageMaker, upright_size
from yt8m_gat.video.sound import laid_out, resampled, trimmed
from yt8m_gat.video.source import (
    Reading,
    VideoError,
    error_of,
    import_av,
    opened,
    origin_of,
    picture_stream,
    sound_stream,
)

__all__ = ["Frame", "Video", "VideoError", "VideoInfo", "probe"]

# Files are read from their beginning up to this start; searching costs about as much.
_NEAR = 3.0
# Decoders of sound need some of what comes before.
_SOUND_BEFORE = 1.0


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file holds.

    Attributes:
        seconds: Its duration by its header, or None.
        width: Stored pixels, after rotation; 0 without a picture.
        height: Likewise.
        frames_per_second: The mean rate by the header, or None.
        has_picture: Whether it has a moving picture; a cover is none.
        has_sound: Whether it has sound.
        picture_codec: FFmpeg's name of the codec, or an empty string.
        sound_codec: Likewise.
    """

    seconds: float | None
    width: int
    height: int
    frames_per_second: float | None
    has_picture: bool
    has_sound: bool
    picture_codec: str
    sound_codec: str


class Frame(NamedTuple):
    """One frame.

    Attributes:
        seconds: When it is shown, from time 0 of the file.
        image: uint8 [H, W, 3], RGB, upright.
    """

    seconds: float
    image: np.ndarray


class Video:
    """Frames and sound of a file, or of a part of it.

    Time 0 is where the file starts, for picture and sound alike (`source.origin_of`). Each call of
    `frames` and `sound` reads the file by itself, with memory that does not grow with its length;
    several may be in progress, in several threads.

    Args:
        path: A local file of any format that FFmpeg reads.
        start: Seconds at which the part begins.
        end: Seconds at which it ends; None: where the file ends.
        max_seconds: Maximal duration of the part.
        num_threads: Threads of the picture's decoder; 0: one a processor. Over many files, one
            thread for each of several files at a time is faster.

    Attributes:
        info: What the file holds.
        faults: What was damaged, one line each, of what has been read so far.

    Raises:
        VideoError: The file cannot be opened, holds neither picture nor sound, or the times are
            no part of a file.
        ImportError: PyAV is not installed.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "two_seconds.y4m")
        >>> _ = path.write_bytes(b"YUV4MPEG2 W4 H2 F5:1 C420\\n" + 10 * (b"FRAME\\n" + bytes(12)))
        >>> with Video(path) as video:
        ...     frames = list(video.frames(frames_per_second=2))
        >>> [frame.seconds for frame in frames], frames[0].image.shape
        ([0.0, 0.5, 1.0, 1.5], (2, 4, 3))
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        start: float = 0.0,
        end: float | None = None,
        max_seconds: float | None = None,
        num_threads: int = 1,
    ) -> None:
        if not 0 <= start < math.inf:
            raise error_of(path, f"start must be at least 0 seconds. Received: {start}")
        if end is not None and not end > start:
            raise error_of(path, f"end must be after start. Received: start={start}, end={end}")
        if max_seconds is not None and not max_seconds > 0:
            raise error_of(path, f"max_seconds must be positive. Received: {max_seconds}")
        self.path = path
        self.start = start
        self.end = min(
            math.inf if end is None else end,
            math.inf if max_seconds is None else start + max_seconds,
        )
        self.info, self._origin = _probed(path)
        self.faults: list[str] = []
        self._num_threads = num_threads
        self._iterators: list[Iterator] = []

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; iterators that are not exhausted end."""
        for iterator in self._iterators:
            iterator.close()
        self._iterators.clear()

    def frames(
        self,
        *,
        frames_per_second: float | None = None,
        crop: Sequence[int] | None = None,
        short_side: int | None = None,
        size: Sequence[int] | None = None,
    ) -> Iterator[Frame]:
        """Yields frames of the picture.

        With a rate, frame k is the one shown at `start + k / frames_per_second`: of the frames
        whose presentation time is not later, the last one, or the file's first one before it
        begins. That is also its `seconds`. A frame that is shown for long comes several times, as
        the same array. Without a rate, each frame whose presentation time is in [start, end) comes
        once.

        Args:
            frames_per_second: The rate, or None.
            crop: See `picture.ImageMaker`, as for the following ones.
            short_side: Pixels of the shorter side, as players show the picture.
            size: (height, width).

        Raises:
            ValueError: An argument is wrong, or the crop is not inside the picture.
            VideoError: The file has no picture, none of its frames can be decoded, or it ends
                before `start`; raised by the first step of the iterator.
        """
        if frames_per_second is not None and not 0 < frames_per_second <= 1000:
            raise ValueError(
                f"frames_per_second must be in (0, 1000]. Received: {frames_per_second}"
            )
        maker = ImageMaker(crop, short_side, size)
        return self._tracked(self._frames(frames_per_second, maker))

    def sound(self, *, sample_rate: int = 16_000) -> Iterator[np.ndarray]:
        """Yields the sound as chunks of samples, float32 [N] in [-1, 1], one channel.

        The samples are those of `ffmpeg -ac 1 -ar 16000 sound.wav`, divided by 2^15: several
        channels are mixed with FFmpeg's weights. Sample n is at `start + n / sample_rate` on the
        picture's time axis: silence fills what comes before the sound begins, and gaps. (Matroska
        and WebM round times to milliseconds: with a late start they can be off by half of one.)

        Args:
            sample_rate: Samples a second.

        Raises:
            ValueError: The rate is not positive.
            VideoError: The file has no sound, none of it can be decoded, or it ends before `start`;
                raised by the first step of the iterator.
        """
        if not 1 <= sample_rate <= 384_000:
            raise ValueError(f"sample_rate must be in [1, 384000]. Received: {sample_rate}")
        return self._tracked(self._sound(sample_rate))

    def _tracked(self, iterator: Iterator) -> Iterator:
        self._iterators.append(iterator)
        return iterator

    def _frames(self, rate: float | None, maker: ImageMaker) -> Iterator[Frame]:
        av = import_av()
        with self._reading(picture_stream, "picture") as (reading, frames):
            if rate is None:
                chosen = sampling.between(frames, self.start, self.end)
            else:
                chosen = sampling.at_rate(frames, self.start, self.end, rate, lambda: reading.end)
            converted = None
            image = None
            for seconds, frame in chosen:
                if frame is not converted:
                    converted = frame
                    try:
                        image = maker(frame, reading.pixel_aspect)
                    except av.FFmpegError:
                        reading.leave_out()  # The image before it is shown on.
                    except ValueError as error:
                        raise error_of(self.path, str(error)) from error
                if image is not None:
                    yield Frame(seconds, image)
            if image is None:
                raise self._nothing(reading, "no frame of its picture")

    def _sound(self, sample_rate: int) -> Iterator[np.ndarray]:
        with self._reading(sound_stream, "sound", _SOUND_BEFORE) as (reading, frames):
            frames = trimmed(frames, reading.stated_end)
            pieces = resampled(frames, sample_rate, reading.leave_out)
            start = round(self.start * sample_rate)
            end = math.inf if self.end == math.inf else round(self.end * sample_rate)
            chunks = laid_out(pieces, start, end, max_chunk=sample_rate)
            is_empty = True
            for chunk in chunks:
                is_empty = False
                yield chunk
            if is_empty:
                raise self._nothing(reading, "nothing of its sound")

    def _nothing(self, reading: Reading, what: str) -> VideoError:
        if reading.end > 0 and reading.end <= self.start:
            return error_of(
                self.path,
                f"ends at {reading.end:.2f} s, before start={self.start:g}; name an earlier start",
            )
        return error_of(self.path, f"{what} can be decoded; copy or download it again")

    @contextlib.contextmanager
    def _reading(
        self, choose: Callable[[Any], Any], kind: str, seconds_before: float = 0.0
    ) -> Iterator[tuple[Reading, Iterator[tuple[float, Any]]]]:
        """Opens a stream at `start`, or at its beginning if the file cannot be searched.

        Args:
            choose: Returns the stream of an open container.
            kind: Its name for messages.
            seconds_before: Seconds before `start` from which the decoder needs the packets.

        Yields:
            The reading, and (seconds, frame) from the frame shown at `start` or an earlier one.
        """
        av = import_av()
        sought = self.start - seconds_before
        for searches in (True, False) if sought > _NEAR else (False,):
            with opened(self.path) as container:
                stream = choose(container)
                if stream is None:
                    raise error_of(self.path, f"has no {kind} that can be decoded")
                reading = Reading(container, stream, self._num_threads, self._origin)
                if searches:
                    try:
                        reading.seek(sought)
                    except av.FFmpegError:
                        continue
                frames = reading.frames()
                first = next(frames, None)
                if searches and (first is None or not reading.is_timed or first[0] > self.start):
                    continue
                try:
                    yield reading, itertools.chain([] if first is None else [first], frames)
                finally:
                    frames.close()
                    self.faults += reading.faults
                return


def probe(path: str | os.PathLike) -> VideoInfo:
    """Returns what a file holds; it decodes one frame, which may be turned.

    Args:
        path: A local file of any format that FFmpeg reads.

    Raises:
        VideoError: The file cannot be opened, or holds neither picture nor sound.
        ImportError: PyAV is not installed.
    """
    return _probed(path)[0]


def _probed(path: str | os.PathLike) -> tuple[VideoInfo, float]:
    """Returns what a file holds, and the time stamp of its time 0."""
    with opened(path) as container:
        picture = picture_stream(container)
        sound = sound_stream(container)
        if picture is None and sound is None:
            raise error_of(
                path, "has neither a picture nor sound that can be decoded; name a video file"
            )
        width = height = 0
        rate = None
        if picture is not None:
            rate = picture.average_rate or picture.guessed_rate
            width, height = picture.width, picture.height
        info = VideoInfo(
            seconds=None if container.duration is None else container.duration / 1e6,
            width=width,
            height=height,
            frames_per_second=None if rate is None else float(rate),
            has_picture=picture is not None,
            has_sound=sound is not None,
            picture_codec="" if picture is None else picture.codec_context.codec.canonical_name,
            sound_codec="" if sound is None else sound.codec_context.codec.canonical_name,
        )
        first_time = None
        if picture is not None:
            reading = Reading(container, picture)
            frames = reading.frames()
            for seconds, frame in frames:
                width, height = upright_size(frame)
                first_time = seconds if reading.is_timed else None
                frames.close()
        info = dataclasses.replace(info, width=width, height=height)
        return info, origin_of(container, first_time)
