"""A seeded sample of raw clips in which only the order of the frames decides the class.

    yt8m-gat sample --kind=motion --output_dir=D --num_train=2000 --seed=0

writes ``train00.tfrecord ...``, ``validate00.tfrecord ...``, ``test00.tfrecord ...`` and
``label_names.csv`` into D: MediaSequence records (`yt8m_gat.data.clip_record`), as those of
``yt8m-gat pack``.

A clip shows a shape that moves, grows or appears in front of a background that stands still, with
another shape in it. The eight classes are four pairs: moves right and left, moves down and up,
grows and shrinks, appears and vanishes. A clip of the second class of a pair is a clip of the first
one, played backwards. The frames of both classes thus have the same distribution, as sets: a model
that averages over time (TSN) cannot tell the two classes of a pair apart, and reaches 50 % at best.

Colors, shapes, places, speeds, sizes, the background and the number of frames are random, and there
is noise in every pixel.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from yt8m_gat.acquisition.sample import SPLITS, check_settings, setting, write_splits

LABEL_NAMES = (
    *("moves right", "moves left", "moves down", "moves up"),
    *("grows", "shrinks", "appears", "vanishes"),
)
FRAME_RATE = 8.0

_QUALITY = 95
# Distances whose balls are a disc, a square and a diamond.
_NORMS = (2, np.inf, 1)


@dataclasses.dataclass(frozen=True)
class MotionConfig:
    """Settings of a sample of moving shapes.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_train: int = setting(2000, 1, 10**8, "clips of the train split")
    num_validate: int = setting(400, 1, 10**8, "clips of the validate split")
    num_test: int = setting(400, 1, 10**8, "clips of the test split")
    max_frames: int = setting(24, 4, 1000, "frames of the longest clip; the shortest has half")
    num_shards: int = setting(4, 1, 10**5, "files per split")
    seed: int = setting(0, 0, 2**63 - 1, "fixes every byte written")
    size: int = setting(48, 16, 1024, "height of the frames in pixels; the width is 4/3 of it")
    noise: float = setting(8.0, 0, 100, "standard deviation of the noise, of levels 0 to 255")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def width(self) -> int:
        """Width of the frames in pixels."""
        return self.size * 4 // 3


@dataclasses.dataclass(frozen=True)
class MotionClip:
    """One generated clip.

    Attributes:
        video_id: Unique over the three splits.
        label: Its class, a place in `LABEL_NAMES`.
        frames: uint8 [T, H, W, 3].
    """

    video_id: str
    label: int
    frames: np.ndarray


def draw_clip(config: MotionConfig, split: str, index: int) -> MotionClip:
    """Draws clip `index` of a split; the same arguments always give the same clip.

    Eight clips in a row have eight classes, in an order that differs from one eight to the next.
    """
    # Without the shift, a file, which has every so many clips, would lack classes.
    label = (index + index // len(LABEL_NAMES)) % len(LABEL_NAMES)
    rng = np.random.default_rng([config.seed, SPLITS.index(split), index])
    return MotionClip(
        f"{split[:2]}{config.seed:x}-{index:07d}", label, draw_frames(config, label, rng)
    )


def draw_frames(config: MotionConfig, label: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the frames of a clip of a class, uint8 [T, H, W, 3]."""
    num_frames = int(rng.integers(-(-config.max_frames // 2), config.max_frames + 1))
    height, width = config.size, config.width
    progress = np.linspace(0.0, 1.0, num_frames)
    radius = rng.uniform(0.12, 0.2) * height
    # A path along each axis; a shape that moves leaves the other at its middle.
    paths = [_path(rng, side, radius, progress) for side in (height, width)]
    kind = label // 2
    y, x = (np.full(num_frames, path.mean()) for path in paths)
    radii, opacity = np.full(num_frames, radius), np.ones(num_frames)
    if kind == 0:
        x = paths[1]
    elif kind == 1:
        y = paths[0]
    elif kind == 2:
        radii = radius * np.linspace(*sorted(rng.uniform((0.4, 1.3), (0.7, 1.6))), num_frames)
    else:
        opacity = np.linspace(rng.uniform(0.0, 0.2), rng.uniform(0.8, 1.0), num_frames)

    background = _background(rng, height, width)
    still = rng.uniform((0, 0), (height, width))
    _paint(background, still, radius, rng.choice(_NORMS), _color(rng), 1.0)
    color, norm = _color(rng), rng.choice(_NORMS)
    frames = np.repeat(background[None], num_frames, axis=0)
    for frame, *place, size, shown in zip(frames, y, x, radii, opacity, strict=True):
        _paint(frame, np.array(place), size, norm, color, shown)
    frames += config.noise * rng.standard_normal(frames.shape)
    frames = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return frames[::-1] if label % 2 else frames


def _path(rng: np.random.Generator, side: int, radius: float, progress: np.ndarray) -> np.ndarray:
    """Draws a straight path of 0.3 to 0.7 of what a shape can move along a side."""
    room = side - 2 * radius
    length = rng.uniform(0.3, 0.7) * room
    return radius + rng.uniform(0, room - length) + progress * length


def _color(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 255, 3)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a smooth picture, [H, W, 3]: a plane between the colors of its corners."""
    corners = rng.uniform(60, 195, (2, 2, 3))
    down, across = np.linspace(0, 1, height), np.linspace(0, 1, width)
    return np.einsum(
        "hi,wj,ijc->hwc", np.stack([1 - down, down], 1), np.stack([1 - across, across], 1), corners
    )


def _paint(
    image: np.ndarray,
    center: np.ndarray,
    radius: float,
    norm: float,
    color: np.ndarray,
    opacity: float,
) -> None:
    """Paints a shape into an image [H, W, 3]; its edge is one pixel wide."""
    grid = np.stack(np.indices(image.shape[:2]), axis=-1) - center  # [H, W, 2]
    inside = np.clip(radius + 0.5 - np.linalg.norm(grid, norm, axis=-1), 0, 1) * opacity
    image += inside[..., None] * (color - image)


def generate_motion_sample(
    output_dir: str | Path, config: MotionConfig, show_progress: bool = False
) -> None:
    """Writes the three splits and ``label_names.csv``, as `generate_sample` does.

    Args:
        output_dir: The folder to write to; created if necessary.
        config: The settings of the sample.
        show_progress: Whether to print clips, rate and time left to the standard error.

    Raises:
        FileExistsError: If the folder holds shards of another sample that would not be replaced.
        NotADirectoryError: If `output_dir` is a file.
        InUseError: If another process is generating a sample there.
        WriteError: If a file cannot be written.
    """
    import tensorflow as tf

    from yt8m_gat.data.clip_record import clip_record

    def record(split: str, index: int) -> bytes:
        clip = draw_clip(config, split, index)
        return clip_record(
            clip.video_id.encode(),
            [tf.io.encode_jpeg(frame, "rgb", _QUALITY).numpy() for frame in clip.frames],
            [number / FRAME_RATE for number in range(len(clip.frames))],
            [clip.label],
            LABEL_NAMES,
            height=config.size,
            width=config.width,
            frame_rate=FRAME_RATE,
            seconds=len(clip.frames) / FRAME_RATE,
        )

    write_splits(output_dir, config, LABEL_NAMES, record, show_progress)
