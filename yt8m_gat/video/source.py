"""Opens video files with PyAV, chooses their streams and reads the decoded frames of one."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from yt8m_gat.untrusted import printable, quoted
from yt8m_gat.video.clock import Clock
from yt8m_gat.video.frame_folder import FRAMES_PER_SECOND, frame_pattern

if TYPE_CHECKING:
    import av

MAX_PIXELS = 8192 * 8192
"""Maximal pixels of a picture; a damaged header can state sizes that fill the memory."""

# Pixels of real formats reach from 0.6 to 2.2; a damaged header can state any ratio.
_MAX_PIXEL_ASPECT = 8.0
_SECONDS_TO_OPEN = 120.0
_SECONDS_TO_READ = 120.0
# A picture whose first frame is this close to the start of the file begins there: codecs of sound
# begin some milliseconds before the picture.
_SAME_START = 0.1
# The end of a file may be this far from its stated one.
_MISSING_SECONDS = 0.5
_USUAL_DURATION = 1 / 25  # Seconds of a frame, where nothing states it.
_FRAME_FOLDER = "image2"  # FFmpeg's name of the format.
# These formats state durations; for others FFmpeg guesses them from the bit rate.
_STATES_DURATION = {"mov", "matroska", "avi", "flv", "asf"}


class VideoError(ValueError):
    """A file that gives no frames or no sound: one line with the file, the reason and a remedy."""


def import_av() -> Any:
    """Returns PyAV's module.

    Raises:
        ImportError: PyAV is not installed; the message names the extra.
    """
    try:
        import av
        import av.video.reformatter
    except ImportError as error:
        raise ImportError(
            f"reading videos needs PyAV ({error}): pip install 'yt8m-gat[video]'"
        ) from error
    return av


def error_of(path: str | os.PathLike, rule: str) -> VideoError:
    """Returns the error of a file, on one line."""
    return VideoError(f"{quoted(os.fspath(path))}: {rule}")


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[av.container.InputContainer]:
    """Opens a file for reading; FFmpeg recognizes the format by its content.

    A folder of numbered pictures is a video of `FRAMES_PER_SECOND`. Only local files are opened,
    also those that a playlist names. Reading that blocks for two minutes is an error.

    Raises:
        VideoError: It is no file, cannot be read, or is in no format that FFmpeg knows.
        ImportError: See `import_av`.
    """
    av = import_av()
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise error_of(path, f"cannot be read: {reason}; check its name") from error
    name, options = os.fspath(path), {}
    if stat.S_ISDIR(mode):
        try:
            name, first = frame_pattern(path)
        except (OSError, ValueError) as error:
            raise error_of(path, str(error)) from error
        options = {"framerate": f"{FRAMES_PER_SECOND:g}", "start_number": str(first)}
    elif not stat.S_ISREG(mode):
        raise error_of(path, "must be a video file. Received: a device or a pipe; name a file")
    elif os.stat(path).st_size == 0:
        raise error_of(path, "is empty; copy or download it again")
    try:
        # "file:" keeps FFmpeg from taking a name with a colon for an address.
        container = av.open(
            f"file:{name}",
            format=_FRAME_FOLDER if options else None,
            options=options,
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file"},
            timeout=(_SECONDS_TO_OPEN, _SECONDS_TO_READ),
        )
    except (av.FFmpegError, ValueError, RuntimeError) as error:
        raise error_of(
            path,
            f"cannot be opened as a video: {reason_of(error)}; copy or download it again",
        ) from error
    with container:
        if container.format.name == "tty":  # FFmpeg draws any .txt file as a picture of a terminal.
            raise error_of(path, "must be a video file. Received: text; name a file")
        yield container


def reason_of(error: Exception) -> str:
    """Returns FFmpeg's words for an error, without the number and the name of the file."""
    return printable(getattr(error, "strerror", None) or str(error))


def picture_stream(container: av.container.InputContainer) -> Any:
    """Returns the stream of moving pictures that FFmpeg rates best, or None; no cover picture."""
    return _best(container, "video", None)


def sound_stream(container: av.container.InputContainer) -> Any:
    """Returns the stream of sound that FFmpeg rates best beside the picture, or None."""
    return _best(container, "audio", picture_stream(container))


def _best(container: av.container.InputContainer, kind: str, related: Any) -> Any:
    def usable(stream: Any) -> bool:
        return stream.codec_context is not None and not is_cover(stream)

    best = container.streams.best(kind, related) or container.streams.best(kind)
    if best is not None and usable(best):
        return best
    return next(filter(usable, getattr(container.streams, kind)), None)


def is_cover(stream: Any) -> bool:
    """Returns whether a stream is a cover picture, as music files have."""
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def origin_of(container: av.container.InputContainer, first_frame: float | None) -> float:
    """Returns the time stamp, in seconds, of the file's time 0.

    That is where the file starts, as players have it; if the picture starts within a tenth of a
    second, its first frame.

    Args:
        container: An open file.
        first_frame: The time stamp of the picture's first frame, or None. (That of the stream is
            the file's in Matroska.)
    """
    start = (container.start_time or 0) / 1e6
    if first_frame is not None and 0 <= first_frame - start < _SAME_START:
        return first_frame
    return start


def stated_seconds(container: av.container.InputContainer, stream: Any) -> float | None:
    """Returns how long a stream should be by the header of the file, or None if it does not say."""
    if container.format.name.split(",")[0] not in _STATES_DURATION:
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    with contextlib.suppress(ValueError):  # Matroska: 00:00:06.000000000
        hours, minutes, seconds = map(float, stream.metadata.get("DURATION", "").split(":"))
        return hours * 3600 + minutes * 60 + seconds
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / 1e6
    return None


class Reading:
    """Reads the decoded frames of one stream with their times; damage becomes lines in `faults`.

    Packets that cannot be decoded, and frames that the decoder marks as damaged, are left out.

    Args:
        container: An open file.
        stream: One of its streams.
        num_threads: Threads of the decoder; 0: one a processor.
        origin: The time stamp of the file's time 0, in seconds; see `origin_of`.

    Attributes:
        faults: What was wrong with the stream, one line each; complete when `frames` has ended.
        is_timed: Whether the first frame has a presentation time.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: Any,
        num_threads: int = 1,
        origin: float = 0.0,
    ) -> None:
        import av

        self._container = container
        self._stream = stream
        self._kind = "picture" if stream.type == "video" else "sound"
        self._origin = origin
        rate = (stream.average_rate or stream.guessed_rate) if stream.type == "video" else None
        self._clock = Clock(float(1 / rate) if rate else _USUAL_DURATION)
        self._num_damaged = 0
        self._first_damage = 0.0
        self.faults: list[str] = []
        self.is_timed = False
        for other in container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        stream.codec_context.thread_count = num_threads
        stream.codec_context.thread_type = "SLICE" if num_threads == 1 else "AUTO"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}

    @property
    def pixel_aspect(self) -> float:
        """Width of a stored pixel of the picture over its height; 1 if the file does not say."""
        ratio = float(self._stream.sample_aspect_ratio or 1)
        return ratio if 1 / _MAX_PIXEL_ASPECT <= ratio <= _MAX_PIXEL_ASPECT else 1.0

    @property
    def stated_end(self) -> float | None:
        """Seconds at which the stream ends by the header of the file, or None."""
        seconds = stated_seconds(self._container, self._stream)
        if seconds is None:
            return None
        return (
            float((self._stream.start_time or 0) * self._stream.time_base) - self._origin + seconds
        )

    @property
    def end(self) -> float:
        """Seconds from the file's time 0 at which the last frame ends."""
        return self._clock.expected or 0.0

    def seek(self, seconds: float) -> None:
        """Goes to the last key frame before a time; the next frames may be earlier or later.

        Raises:
            av.FFmpegError: The file cannot be searched.
        """
        ticks = math.floor((self._origin + seconds) / self._stream.time_base)
        self._container.seek(ticks, stream=self._stream)

    def frames(self) -> Iterator[tuple[float, Any]]:
        """Yields (seconds from the file's time 0, frame) in the order of presentation."""
        try:
            yield from self._timed_frames()
        finally:
            if self._num_damaged:
                parts = "part is" if self._num_damaged == 1 else "parts are"
                self._report(
                    f"{self._num_damaged} damaged {parts} left out, the first at "
                    f"{self._first_damage:.2f} s"
                )
            if self._clock.first_wrong is not None:
                self._report(f"the times of frames are wrong from {self._clock.first_wrong:.2f} s")

    def leave_out(self) -> None:
        """Counts a frame that turned out to be damaged."""
        if not self._num_damaged:
            self._first_damage = self.end
        self._num_damaged += 1

    def _report(self, fault: str) -> None:
        self.faults.append(f"{self._kind}: {fault}")

    def _timed_frames(self) -> Iterator[tuple[float, Any]]:
        tick = 0.0
        for frame in self._decoded_frames():
            seconds = frame.time
            if self._clock.expected is None:
                self.is_timed = seconds is not None
                tick = float(frame.time_base or 0)
            if self._kind == "sound":
                duration = frame.samples / frame.sample_rate
            else:
                duration = frame.duration * tick
            in_file = None if seconds is None else seconds - self._origin
            yield self._clock.time_of(in_file, duration), frame

    def _decoded_frames(self) -> Iterator[Any]:
        import av

        packets = self._container.demux(self._stream)
        num_pictures = 0  # Of a folder, up to the last one that FFmpeg read.
        while True:
            try:
                packet = next(packets, None)
            except IndexError:
                # PyAV 18 ends so, after the last packet, if a stream has appeared in the middle.
                packet = None
            except (av.FFmpegError, RuntimeError) as error:
                self._report(f"cannot be read after {self.end:.2f} s: {reason_of(error)}")
                return
            if packet is None:
                break
            num_pictures = max(num_pictures, 0 if packet.pts is None else packet.pts + 1)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.leave_out()
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.leave_out()
                else:
                    yield frame
        stated = self.stated_end
        if stated is not None and self.end < stated - _MISSING_SECONDS:
            self._report(f"ends at {self.end:.2f} s, and the file says {stated:.2f} s")
        # FFmpeg takes a picture that is empty or cut off for the end of the folder.
        stated_pictures = self._stream.duration or 0
        if self._container.format.name == _FRAME_FOLDER and num_pictures < stated_pictures:
            self._report(
                f"file {num_pictures + 1} of the folder's {stated_pictures} cannot be read, and "
                "those after it are left out"
            )
