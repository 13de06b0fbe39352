"""A clip that is decoded in threads, in batches as the models take them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from yt8m_gat.extraction.ahead import Ahead
from yt8m_gat.extraction.config import ExtractorConfig
from yt8m_gat.extraction.extractor_parts import Models
from yt8m_gat.extraction.log_mel import SAMPLE_RATE
from yt8m_gat.extraction.sound import SoundModel, windows
from yt8m_gat.video.clips import Clip
from yt8m_gat.video.decoding import Video, VideoError

BATCH_SIZE = 32
"""Frames, or windows of sound, that a model takes at once."""

# Frames of any size may have six megabytes each.
_BATCH_OF_LARGE_FRAMES = 4


class Reading:
    """A clip that is being decoded in threads: its pictures, and its sound."""

    def __init__(self, clip: Clip, config: ExtractorConfig, models: Models) -> None:
        self.clip = clip
        # Complete when the stream has ended.
        self.picture_faults: list[str] = []
        self.sound_faults: list[str] = []
        self.pictures: Ahead[tuple[list[float], np.ndarray | None]] | None = None
        self.sound: Ahead[np.ndarray] | None = None
        # The frames are the time steps of the sound too, whether or not a model takes them.
        self._has_frames, self._picture_model = config.picture is not None, models.picture
        if self._has_frames:
            self.pictures = Ahead(lambda: self._batches_of_frames(config))
        if models.sound is not None:
            sound = models.sound
            self.sound = Ahead(lambda: self._batches_of_windows(config, sound))

    def _open(self, config: ExtractorConfig) -> Video:
        clip = self.clip
        return Video(clip.path, start=clip.start, end=clip.end, max_seconds=config.max_seconds)

    def _is_timed_by_picture(self, video: Video) -> bool:
        """Returns whether the picture says which time steps there are; else the sound does."""
        return self._has_frames and (self._picture_model is not None or video.info.has_picture)

    def _batches_of_frames(
        self, config: ExtractorConfig
    ) -> Iterator[tuple[list[float], np.ndarray | None]]:
        """Yields the times of frames, and the frames; None in their place without a model."""
        model = self._picture_model
        size = None if model is None else model.image_size
        with self._open(config) as video:
            if not self._is_timed_by_picture(video):
                return
            frames = video.frames(
                frames_per_second=config.frames_per_second,
                crop=None if model is None else config.crop,
                size=size,
            )
            num = BATCH_SIZE if size else _BATCH_OF_LARGE_FRAMES
            while batch := list(itertools.islice(frames, num)):
                images = None if model is None else np.stack([frame.image for frame in batch])
                yield [frame.seconds for frame in batch], images
            self.picture_faults += video.faults

    def _batches_of_windows(
        self, config: ExtractorConfig, model: SoundModel
    ) -> Iterator[np.ndarray]:
        with self._open(config) as video:
            is_timed_by_picture = self._is_timed_by_picture(video)
            if not video.info.has_sound and is_timed_by_picture:
                return
            chunks = video.sound(sample_rate=SAMPLE_RATE)
            cut = windows(chunks, model.window, config.frames_per_second)
            try:
                while batch := list(itertools.islice(cut, BATCH_SIZE)):
                    yield np.stack(batch)
            except VideoError as error:
                if not is_timed_by_picture:
                    raise
                self.sound_faults.append(str(error))
            self.sound_faults += video.faults

    def close(self) -> None:
        """Ends the threads."""
        for stream in (self.pictures, self.sound):
            if stream is not None:
                stream.close()
