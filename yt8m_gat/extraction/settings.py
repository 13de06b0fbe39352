"""What a job of extraction is asked for; standard library only."""

from __future__ import annotations

import dataclasses

from yt8m_gat.config import ConfigError

NONE = "none"
"""`--picture` and `--sound`: without this feature."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionSettings:
    """The settings of an extractor, named as the flags of `yt8m-gat extract`.

    Attributes:
        picture: A model of `keras.applications`, a `.keras` or `.tflite` file, the folder of a
            SavedModel, `youtube8m`, or `none`.
        picture_weights: File of the weights of a model of `keras.applications`, without its top
            layer; None: ImageNet's, which Keras downloads.
        picture_output: The layer, output or tensor of a file that is the embedding.
        picture_size: Height and width of the frames, for models that leave it open.
        picture_range: What black and white become for a file that takes floats.
        sound: `log_mel`, `vggish`, a `.keras` or `.tflite` file, the folder of a SavedModel, or
            `none`.
        sound_output: As `picture_output`.
        official_dir: Folder of the official constants, of `youtube8m` and `vggish`.
        fps: Frames a second.
        max_seconds: Longer clips are cut; 0: none is.
        crop: x, y, width and height of the part of the picture that is used; empty: all of it.
        fit_pca: Components of the picture, and of the sound if there is a second number; 0 or
            empty: no PCA.
        fit_videos: Most videos to which the constants are fitted; 0: fit nothing.
    """

    picture: str = "EfficientNetV2B0"
    picture_weights: str | None = None
    picture_output: str | None = None
    picture_size: tuple[int, ...] = ()
    picture_range: tuple[float, ...] = (0.0, 255.0)
    sound: str = "log_mel"
    sound_output: str | None = None
    official_dir: str | None = None
    fps: float = 1.0
    max_seconds: float = 360.0
    crop: tuple[int, ...] = ()
    fit_pca: tuple[int, ...] = ()
    fit_videos: int = 1000

    def __post_init__(self) -> None:
        size, values = self.picture_size, self.picture_range
        if len(size) not in (0, 1, 2) or any(side < 1 for side in size):
            raise ConfigError(
                "--picture_size must be one number, or height,width, of at least 1. "
                f"Received: {','.join(map(str, size))}"
            )
        if len(values) != 2 or not values[0] < values[1]:
            raise ConfigError(
                "--picture_range must be the values of black and of white, as in -1,1. "
                f"Received: {','.join(f'{value:g}' for value in values)}"
            )
        if len(self.crop) not in (0, 4):
            raise ConfigError(
                "--crop must be x,y,width,height in pixels. "
                f"Received: {','.join(map(str, self.crop))}"
            )
        if len(self.fit_pca) > 2 or any(number < 0 for number in self.fit_pca):
            raise ConfigError(
                "--fit_pca must be the components of the picture, or of picture,sound; 0 for no "
                f"PCA. Received: {','.join(map(str, self.fit_pca))}"
            )
        if self.fit_videos < 0:
            raise ConfigError(f"--fit_videos must be at least 0. Received: {self.fit_videos}")
        if self.fit_videos == 0 and any(self.fit_pca):
            raise ConfigError("--fit_pca needs videos to fit to: give no --fit_videos=0")

    @property
    def components(self) -> dict[str, int]:
        """`picture` and `sound` -> components of its PCA; 0: none."""
        return dict(zip(("picture", "sound"), (*self.fit_pca, 0, 0), strict=False))
