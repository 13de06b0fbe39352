"""From a video file to the bytes of its features."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yt8m_gat.config import ConfigError
from yt8m_gat.disk import replacing
from yt8m_gat.extraction.ahead import Ahead
from yt8m_gat.extraction.config import FEATURES, ExtractorConfig, extractor_file
from yt8m_gat.extraction.differentiable import DifferentiableExtractor
from yt8m_gat.extraction.extractor_parts import Models, load_parts
from yt8m_gat.extraction.in_graph import GraphExtractor, PicturePart, SoundPart
from yt8m_gat.extraction.loading import KerasEmbedding
from yt8m_gat.extraction.projection import Projection
from yt8m_gat.extraction.reading import BATCH_SIZE, Reading
from yt8m_gat.extraction.sound import SoundModel
from yt8m_gat.video.clips import Clip
from yt8m_gat.video.decoding import VideoError

# Sound that ends a little before the picture is usual.
_SILENT_SECONDS = 1.0


class Extracted(NamedTuple):
    """The features of a clip.

    Attributes:
        features: Name of each feature (`rgb`, `audio`) -> bytes, uint8 [T, size].
        seconds: Time of each frame in the file [T].
        faults: What was damaged or missing, a line each.
        duration: Seconds of the clip that were used, T divided by the rate.
    """

    features: dict[str, np.ndarray]
    seconds: np.ndarray
    faults: tuple[str, ...]
    duration: float


class Values(NamedTuple):
    """What the models give for a clip, before it becomes bytes.

    Attributes:
        arrays: `picture` and `sound` -> float32 or uint8 [T, D].
        seconds: As of `Extracted`.
        faults: As of `Extracted`.
    """

    arrays: dict[str, np.ndarray]
    seconds: np.ndarray
    faults: tuple[str, ...]


class Extractor:
    """Extracts the features of clips: decodes, applies the models, and makes bytes.

    Decoding and resizing run in threads, ahead of the models. The features of a clip depend on the
    clip alone, not on those before it.

    Args:
        config: The configuration.
        models: Its models.
        projections: `picture` and `sound` -> from the model's values to bytes.

    Example:
        >>> from yt8m_gat.extraction import Extractor
        >>> extractor = Extractor.load("records")  # doctest: +SKIP
        >>> extractor("clip.mp4").features["rgb"].shape  # doctest: +SKIP
        (12, 1024)
    """

    def __init__(
        self, config: ExtractorConfig, models: Models, projections: Mapping[str, Projection]
    ) -> None:
        self.config = config
        self._models = models
        self._projections = dict(projections)
        self._silence: np.ndarray | None = None
        self._folder: Path | None = None

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        picture: str | os.PathLike | None = None,
        sound: str | os.PathLike | None = None,
        features: Collection[str] | None = None,
    ) -> Extractor:
        """Loads the extractor that a job or a run kept.

        Each file is looked for beside `extractor.json` first, then where it was when the records
        were made, and has to have the same SHA-256.

        Args:
            path: `extractor.json`, or a folder that holds it.
            picture: File or folder of the picture model's weights, if it is elsewhere by now.
            sound: Likewise of the sound model's.
            features: The features that are needed, `rgb` or `audio` or both; None: all. Models of
                others are not loaded. Where the picture's is not needed, the sound still has a time
                step for each frame, and a file without a picture as many as it lasts.

        Raises:
            ConfigError: A file is missing or is another one; the message names it.
        """
        config, file = ExtractorConfig.load(path), extractor_file(path)
        models, projections = load_parts(
            config, file, {"picture": picture, "sound": sound}, features
        )
        extractor = cls(config, models, projections)
        extractor._folder = file.parent
        return extractor

    def __call__(
        self, path: str | os.PathLike, *, start: float = 0.0, end: float | None = None
    ) -> Extracted:
        """Extracts the features of a file, or of a part of it.

        Args:
            path: The file.
            start: Seconds at which the part begins.
            end: Seconds at which it ends; None: where the file ends.

        Raises:
            VideoError: It cannot be decoded, or has no picture or no sound where there is a model
                for it only.
        """
        [result] = self.many([Clip(os.fspath(path), start=start, end=end)])
        if isinstance(result, VideoError):
            raise result
        return result

    def graph(self, names: Iterable[str]) -> GraphExtractor:
        """Returns the same extractor as operations of a graph.

        Args:
            names: The features that are needed: `rgb`, and perhaps `audio`.

        Raises:
            ConfigError: There are no pictures, or a model is neither Keras' nor `log_mel`; the
                message says which.
        """
        picture, sound = self._graph_parts(names)
        if picture is None:
            raise ConfigError("the features have no pictures")
        return GraphExtractor(picture, sound)

    def differentiable(self, names: Iterable[str]) -> DifferentiableExtractor:
        """Returns the same extractor without rounding, for gradients by pixels and samples.

        Args:
            names: The features that are needed, `rgb` or `audio` or both.

        Raises:
            ConfigError: A model is neither Keras' nor `log_mel`; the message says which.
        """
        return DifferentiableExtractor(*self._graph_parts(names))

    def _graph_parts(self, names: Iterable[str]) -> tuple[PicturePart | None, SoundPart | None]:
        wanted = set(names)
        parts = {name: part for name, part in self.config.parts.items() if FEATURES[name] in wanted}
        picture, sound = self._models.picture, self._models.sound
        fits = {
            "picture": picture is not None and isinstance(picture.call, KerasEmbedding),
            "sound": sound is not None and sound.graph is not None,
        }
        for name, part in parts.items():
            if not fits[name]:
                raise ConfigError(
                    f"the {name} model {part.model} is of the kind {part.kind}; only models of "
                    "Keras, and log_mel, can become a part of a graph, and have gradients"
                )
        of_picture = of_sound = None
        if "picture" in parts and picture is not None:
            of_picture = PicturePart(picture, self._projections["picture"], self.config.crop)
        if "sound" in parts and sound is not None:
            rate = self.config.frames_per_second
            of_sound = SoundPart(sound, self._projections["sound"], rate)
        return of_picture, of_sound

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `extractor.json` and copies its small files, itself last.

        Args:
            folder: An existing folder.

        Raises:
            ConfigError: The extractor was not loaded from files.
            WriteError: A file cannot be written.
        """
        if self._folder is None and self.config.files:
            raise ConfigError("only an extractor that was loaded from files can be saved")
        for name in self.config.files:
            with replacing(Path(folder, name)) as temporary:
                shutil.copyfile(Path(self._folder or "", name), temporary)
        self.config.save(folder)

    def many(self, clips: Iterable[Clip], num_readers: int = 2) -> Iterator[Extracted | VideoError]:
        """Extracts clips one after the other, while the next ones are being decoded.

        Args:
            clips: The clips.
            num_readers: Clips that are decoded at a time.

        Yields:
            For each clip in order its features, or the error in their place.
        """
        with contextlib.closing(self.values(clips, num_readers)) as results:
            for result in results:
                yield result if isinstance(result, VideoError) else self.project(result)

    def values(self, clips: Iterable[Clip], num_readers: int = 2) -> Iterator[Values | VideoError]:
        """Gives the models' own values, for fitting and for `project`; else as `many`."""
        waiting = iter(clips)
        readings: collections.deque[Reading] = collections.deque()
        try:
            while True:
                for clip in itertools.islice(waiting, max(1, num_readers) - len(readings)):
                    readings.append(Reading(clip, self.config, self._models))
                if not readings:
                    return
                try:
                    result = self._values_of(readings[0])
                except VideoError as error:
                    result = error
                readings.popleft().close()
                yield result
        finally:
            for reading in readings:
                reading.close()

    def project(self, values: Values) -> Extracted:
        """Makes bytes of what `values` gave."""
        num_frames = len(values.seconds)
        features = {
            FEATURES[name]: np.concatenate(
                [
                    self._projections[name](array[first : first + BATCH_SIZE])
                    for first in range(0, num_frames, BATCH_SIZE)
                ]
            )
            for name, array in values.arrays.items()
        }
        duration = num_frames / self.config.frames_per_second
        return Extracted(features, values.seconds, values.faults, duration)

    def _values_of(self, reading: Reading) -> Values:
        rate, arrays, extra = self.config.frames_per_second, {}, []
        seconds: list[float] = []
        if reading.pictures is not None:
            parts = []
            for times, frames in reading.pictures:
                seconds += times
                if self._models.picture is not None and frames is not None:
                    parts.append(self._models.picture.call(frames))
            if parts:
                arrays["picture"] = np.concatenate(parts)
        if reading.sound is not None and self._models.sound is not None:
            num_frames = len(seconds) or None  # None: as many as there is sound for.
            arrays["sound"], heard = self._sound_of(reading.sound, self._models.sound, num_frames)
            if num_frames is None:
                seconds = [reading.clip.start + k / rate for k in range(heard)]
            elif heard == 0:
                extra.append("there is no sound: silence stands in for it")
            elif (num_frames - heard) / rate > _SILENT_SECONDS:
                extra.append(f"the sound ends after {heard / rate:.2f} s: silence follows it")
        faults = (*reading.picture_faults, *reading.sound_faults, *extra)
        return Values(arrays, np.array(seconds), tuple(dict.fromkeys(faults)))

    def _sound_of(
        self, batches: Ahead[np.ndarray], model: SoundModel, num_frames: int | None
    ) -> tuple[np.ndarray, int]:
        """Returns values for `num_frames` steps, and for how many of them there was sound."""
        parts, heard = [], 0
        # To its end even where the picture is shorter, so that its faults are always the same.
        for batch in batches:
            wanted = batch if num_frames is None else batch[: num_frames - heard]
            if len(wanted):
                parts.append(model.call(wanted))
                heard += len(wanted)
        missing = 0 if num_frames is None else num_frames - heard
        if missing:
            if self._silence is None:
                self._silence = model.call(np.zeros((1, model.window), np.float32))
            parts.append(np.repeat(self._silence, missing, axis=0))
        return np.concatenate(parts), heard
