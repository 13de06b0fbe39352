"""What records of raw clips hold; standard library only."""

from __future__ import annotations

import dataclasses

from yt8m_gat.config import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackSettings:
    """The settings of records of raw clips, named as the flags of `yt8m-gat pack`.

    Attributes:
        fps: Frames a second; 0: the frames of the file.
        short_side: Pixels of the shorter side; 0: as it is.
        quality: Quality of the JPEG files, 1 to 100.
        max_seconds: Longer clips are cut; 0: none is.
        crop: x, y, width and height of the part of the picture that is stored; empty: all of it.
        with_sound: Whether the sound is stored.

    Raises:
        ConfigError: A value is out of its range.
    """

    fps: float = 0.0
    short_side: int = 256
    quality: int = 95
    max_seconds: float = 0.0
    crop: tuple[int, ...] = ()
    with_sound: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (
            ("fps", 0, 1000),
            ("short_side", 0, 8192),
            ("quality", 1, 100),
            ("max_seconds", 0, float("inf")),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                limit = f"{least} to {most}" if most < float("inf") else f"at least {least}"
                raise ConfigError(f"--{name} must be {limit}. Received: {value}")
        crop = self.crop
        if crop and (len(crop) != 4 or min(crop[:2]) < 0 or min(crop[2:]) < 1):
            raise ConfigError(
                "--crop must be x,y,width,height in pixels, the first two at least 0, the others "
                f"at least 1. Received: {','.join(map(str, crop))}"
            )
