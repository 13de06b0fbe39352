"""`extractor.json`: everything that defines the features of a set of records.

Standard library only, so that commands can compare extractors before TensorFlow is imported.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from yt8m_gat.config import ConfigError, StoredConfig
from yt8m_gat.digests import digest_of, digest_of_files
from yt8m_gat.untrusted import read_text

EXTRACTOR_FILE = "extractor.json"
"""Name of the file that `ExtractorConfig.save` writes."""

OFFICIAL = "youtube8m"
"""`--picture`: the feature extractor of YouTube-8M, from its constants."""

LOG_MEL, VGGISH = "log_mel", "vggish"
"""`--sound`: models that the package has."""

PICTURE_KINDS = ("application", "keras", "saved_model", "tflite", OFFICIAL)
SOUND_KINDS = (LOG_MEL, VGGISH, "keras", "saved_model", "tflite")
PROJECTIONS = ("bytes", "log10", "standardize", "pca", OFFICIAL, VGGISH)
"""How a model's values become bytes: as they are (they are bytes); divided by ln 10 (`log_mel`, on
a scale that needs no fit); standardized with fitted constants; whitened by a fitted PCA; or by the
constants of YouTube-8M's pictures or of VGGish."""

MAX_COPIED_BYTES = 64 << 20
"""Larger weight files stay where they are instead of being copied beside `extractor.json`."""

FEATURES = {"picture": "rgb", "sound": "audio"}
"""Part of the extractor -> name of its feature in the records."""

_VERSION = 1
_MAX_BYTES = 1 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# Where a file was says nothing about the features.
_NOT_COMPARED = {"path", "copy"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """One model, and how its values become bytes.

    Attributes:
        kind: One of `PICTURE_KINDS` or `SOUND_KINDS`.
        model: The name in `keras.applications`, or that of the file or folder.
        path: Where the weights were when the records were made: a file or a folder.
        sha256: SHA-256 of the weights: of the file, of the folder (see `digest_of_path`), or of the
            arrays that `keras.applications` loaded.
        copy: Name of a copy of the weight file beside `extractor.json`; None: there is none.
        output: Name of the tensor, layer or signature output that is the embedding; None: the
            model has one output.
        image_size: Height and width to which frames are resized; None: the model resizes.
        value_range: What black and white become where a model takes floats.
        projection: One of `PROJECTIONS`.
        constants: Name of the file of fitted constants beside `extractor.json`.
        constants_sha256: Its SHA-256.
        size: Bytes of a frame.
    """

    kind: str
    model: str
    path: str | None = None
    sha256: str | None = None
    copy: str | None = None
    output: str | None = None
    image_size: tuple[int, int] | None = None
    value_range: tuple[float, float] = (0.0, 255.0)
    projection: str = "bytes"
    constants: str | None = None
    constants_sha256: str | None = None
    size: int = 0

    def __post_init__(self) -> None:
        if self.projection not in PROJECTIONS:
            raise ConfigError(
                f"the projection must be one of {', '.join(PROJECTIONS)}. "
                f"Received: {self.projection!r}"
            )
        for name in (self.copy, self.constants):
            if name is not None and not _FILE_NAME.fullmatch(name):
                raise ConfigError(
                    f"a file beside {EXTRACTOR_FILE} must have a plain name without folders. "
                    f"Received: {name!r}"
                )

    @property
    def files(self) -> dict[str, str]:
        """Name of each file beside `extractor.json` -> its SHA-256."""
        pairs = ((self.copy, self.sha256), (self.constants, self.constants_sha256))
        return {name: digest or "" for name, digest in pairs if name is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractorConfig(StoredConfig):
    """Everything that defines the features; its JSON is `extractor.json`.

    Attributes:
        picture: The model of the pictures; None: no feature `rgb`.
        sound: The model of the sound; None: no feature `audio`.
        frames_per_second: Frames a second, of both features.
        max_seconds: The length after which a clip is cut; None: nothing is cut.
        crop: x, y, width and height of the part of the picture that is used, in pixels of the
            upright frame; None: all of it.
        version: Version of this file's meaning.
    """

    FILE: ClassVar[str] = EXTRACTOR_FILE

    picture: FeatureConfig | None = None
    sound: FeatureConfig | None = None
    frames_per_second: float = 1.0
    max_seconds: float | None = 360.0
    crop: tuple[int, int, int, int] | None = None
    version: int = _VERSION

    def __post_init__(self) -> None:
        if self.version != _VERSION:
            raise ConfigError(
                f"{EXTRACTOR_FILE} must have version {_VERSION}. Received: {self.version}, of "
                "another version of yt8m_gat"
            )
        if self.picture is None and self.sound is None:
            raise ConfigError("an extractor needs a model: --picture or --sound. Received: none")
        for kinds, part in ((PICTURE_KINDS, self.picture), (SOUND_KINDS, self.sound)):
            if part is not None and part.kind not in kinds:
                raise ConfigError(
                    f"the kind of a model must be one of {', '.join(kinds)}. "
                    f"Received: {part.kind!r}"
                )
        if not 0 < self.frames_per_second <= 1000:
            raise ConfigError(
                f"--fps must be more than 0 and at most 1000. Received: {self.frames_per_second!r}"
            )
        if self.max_seconds is not None and not 0 < self.max_seconds < math.inf:
            raise ConfigError(
                f"--max_seconds must be positive, and finite. Received: {self.max_seconds!r}"
            )
        if self.crop is not None and (min(self.crop[:2]) < 0 or min(self.crop[2:]) < 1):
            raise ConfigError(
                "--crop must be x,y,width,height in pixels, the first two at least 0, the others "
                f"at least 1. Received: {','.join(map(str, self.crop))}"
            )

    @property
    def parts(self) -> dict[str, FeatureConfig]:
        """`picture` and `sound`, those that there are."""
        parts = {"picture": self.picture, "sound": self.sound}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Name of each feature in the records -> bytes of a frame."""
        return {FEATURES[name]: part.size for name, part in self.parts.items()}

    @property
    def files(self) -> dict[str, str]:
        """Name of each file beside `extractor.json` -> its SHA-256."""
        return {name: digest for part in self.parts.values() for name, digest in part.files.items()}

    @property
    def is_youtube8m(self) -> bool:
        """Whether these are YouTube-8M's own features, as far as constants can tell."""
        return (
            (self.frames_per_second, self.crop) == (1.0, None)
            and self.picture is not None
            and self.picture.projection == OFFICIAL
            and (self.sound is None or self.sound.projection == VGGISH)
        )

    @property
    def description(self) -> str:
        """Half a line: `InceptionV3 (pca), log_mel (standardize), 1 frame a second`."""
        parts = [f"{part.model} ({part.projection})" for part in self.parts.values()]
        rate = self.frames_per_second
        return ", ".join([*parts, f"{rate:g} frame{'' if rate == 1 else 's'} a second"])

    def differences(self, other: ExtractorConfig) -> list[str]:
        """Returns what makes the features of two extractors differ, a line each.

        Example:
            >>> sound = FeatureConfig(kind="log_mel", model="log_mel", size=64)
            >>> config = ExtractorConfig(sound=sound)
            >>> config.differences(dataclasses.replace(config, frames_per_second=25.0))
            ['frames_per_second: 1.0 != 25.0']
        """
        ours, theirs = flat(dataclasses.asdict(self)), flat(dataclasses.asdict(other))
        return [
            f"{name}: {ours.get(name)!r} != {theirs.get(name)!r}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name) and name.rpartition(".")[2] not in _NOT_COMPARED
        ]

    @classmethod
    def load(cls, path: str | os.PathLike) -> ExtractorConfig:
        """Reads `extractor.json`.

        Args:
            path: The file, or a folder that holds it.

        Raises:
            ConfigError: There is no such file, or it is not a configuration.
        """
        file = extractor_file(path)
        if not file.is_file():
            raise ConfigError(
                f"{path} must be {EXTRACTOR_FILE}, which yt8m-gat extract writes, or a folder with "
                "it. There is none"
            )
        try:
            return cls.from_json(read_text(file, _MAX_BYTES))
        except ValueError as error:
            raise ConfigError(f"{file}: {error}") from error


def extractor_file(path: str | os.PathLike) -> Path:
    """Returns the path of `extractor.json`, for that path itself or its folder."""
    return Path(path, EXTRACTOR_FILE) if Path(path).is_dir() else Path(path)


def digest_of_path(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file; of a folder, that of its files' names and digests.

    Raises:
        OSError: It cannot be read.
    """
    place = Path(path)
    if not place.is_dir():
        with place.open("rb") as file:
            return digest_of_files([file])
    lines = []
    for name in sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()):
        with (place / name).open("rb") as file:
            lines.append(f"{digest_of_files([file])}  {name}\n".encode())
    return digest_of(lines)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as one mapping, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
