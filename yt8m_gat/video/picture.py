"""Turns decoded frames into upright RGB images, cropped and resized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from yt8m_gat.video.source import MAX_PIXELS, import_av


def upright_size(frame: Any) -> tuple[int, int]:
    """Returns (width, height) of a frame after its rotation."""
    return _size_after(frame, _display_matrix(frame))


class ImageMaker:
    """Makes images of decoded frames: turned upright, cropped, then resized.

    Resizing is swscale's bicubic interpolation with exact rounding, which does not depend on the
    processor. When it shrinks, its kernel grows with the factor, so that fine patterns do not
    alias.

    Args:
        crop: (x, y, width, height) of the upright frame to keep; None: all.
        short_side: Pixels of the shorter side of the result, with the proportions that players
            show: pixels that are not square become so.
        size: (height, width) of the result. With neither it keeps its size, in stored pixels.

    Raises:
        ValueError: A size is not positive or the crop negative, or both sizes are named.
    """

    def __init__(
        self,
        crop: Sequence[int] | None = None,
        short_side: int | None = None,
        size: Sequence[int] | None = None,
    ) -> None:
        if crop is not None and (len(crop) != 4 or min(crop[:2]) < 0 or min(crop[2:]) < 1):
            raise ValueError(
                "crop must be (x, y, width, height), x and y at least 0, the others at least 1. "
                f"Received: {tuple(crop)}"
            )
        if short_side is not None and size is not None:
            raise ValueError(
                f"only one of short_side and size can be set. Received: {short_side} and {size}"
            )
        if short_side is not None and short_side < 1:
            raise ValueError(f"short_side must be at least 1. Received: {short_side}")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(
                f"size must be (height, width), both at least 1. Received: {tuple(size)}"
            )
        self._crop = crop
        self._short_side = short_side
        self._size = size
        av = import_av()
        self._reformatter = av.video.reformatter.VideoReformatter()
        kinds = av.video.reformatter.Interpolation
        exact = kinds.ACCURATE_RND | kinds.FULL_CHR_H_INT | kinds.BITEXACT
        self._interpolation = kinds.BICUBIC | exact
        self._frame_of = av.VideoFrame.from_ndarray

    def __call__(self, frame: Any, pixel_aspect: float = 1.0) -> np.ndarray:
        """Returns the image, uint8 [H, W, 3] RGB.

        Args:
            frame: A decoded frame.
            pixel_aspect: Width of a stored pixel over its height.

        Raises:
            ValueError: The crop is not inside the frame, or the image would be too large.
            av.FFmpegError: The frame cannot be converted.
        """
        matrix = _display_matrix(frame)
        width, height = _size_after(frame, matrix)
        if abs(matrix[0]) < abs(matrix[2]):  # A quarter turn.
            pixel_aspect = 1 / pixel_aspect
        if self._crop is not None:
            x, y, crop_width, crop_height = self._crop
            if x + crop_width > width or y + crop_height > height:
                raise ValueError(
                    f"the crop must be inside the picture of {width} x {height} pixels. Received: "
                    f"x={x}, y={y}, width={crop_width}, height={crop_height}"
                )
            # Cropping comes before resizing, so that nothing outside of the crop is mixed in.
            whole = _turned(self._resized(frame, frame.width, frame.height), matrix)
            part = np.ascontiguousarray(whole[y : y + crop_height, x : x + crop_width])
            target = self._target(crop_width, crop_height, pixel_aspect)
            if target == (crop_width, crop_height):
                return part
            return self._resized(self._frame_of(part, "rgb24"), *target)
        width, height = self._target(width, height, pixel_aspect)
        if abs(matrix[0]) < abs(matrix[2]):
            width, height = height, width
        return _turned(self._resized(frame, width, height), matrix)

    def _target(self, width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
        if self._size is not None:
            height, width = self._size
        elif self._short_side is not None:
            shown = width * pixel_aspect
            short = min(shown, height)
            width = max(1, round(shown * self._short_side / short))
            height = max(1, round(height * self._short_side / short))
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"an image must have at most {MAX_PIXELS} pixels. Received: {width} x {height}; "
                "name a smaller size"
            )
        return width, height

    def _resized(self, frame: Any, width: int, height: int) -> np.ndarray:
        # One thread: the caller decodes several files at a time. Planes (of green, blue and red),
        # because swscale has no fast way to packed pixels with exact rounding.
        return self._reformatter.reformat(
            frame, width, height, "gbrp", interpolation=self._interpolation, threads=1
        ).to_ndarray()


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """Returns (a, b, c, d): the pixel (p, q) is shown at (a p + c q, b p + d q), but for shifts.

    Reference: FFmpeg, libavutil/display.h.
    """
    try:
        matrix = frame.side_data["DISPLAYMATRIX"]
    except KeyError:
        return 1, 0, 0, 1
    values = np.frombuffer(matrix, np.int32)
    if len(values) != 9 or not values[[0, 1, 3, 4]].any():
        return 1, 0, 0, 1
    a, b, c, d = values[[0, 1, 3, 4]].tolist()
    return a, b, c, d


def _size_after(frame: Any, matrix: tuple[int, int, int, int]) -> tuple[int, int]:
    """Returns (width, height) of a frame after a display matrix."""
    a, _, c, _ = matrix
    return (frame.width, frame.height) if abs(a) >= abs(c) else (frame.height, frame.width)


def _turned(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Applies a display matrix, rounded to a quarter turn, with or without mirroring."""
    a, b, c, d = matrix
    if abs(a) < abs(c):
        image = image.transpose(1, 0, 2)
        a, d = c, b
    image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)
