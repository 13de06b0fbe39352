"""Clean and attacked frames of a video, and their difference, as PNG files in base64."""

import base64
from typing import Any

import numpy as np
import tensorflow as tf

SHOWN_FRAMES = 6
"""Frames of a video that are shown."""

SHOWN_SIDE = 240
"""Longest side of a shown picture; of a larger one the middle is shown, so that pixels stay."""

_GRAY = 128


def shown_pictures(
    clean: np.ndarray, attacked: np.ndarray, crop: tuple[slice, slice]
) -> dict[str, Any]:
    """Returns frames at equal distances.

    Args:
        clean: uint8 [T, H, W, 3].
        attacked: Likewise.
        crop: Rows and columns of the part that is attacked.

    Returns:
        `clean`, `attacked` and `difference`, PNG files of each frame, in base64; and
        `amplification`, the whole number by which the difference, shown around gray, is multiplied.
    """
    num = len(clean)
    chosen = list(dict.fromkeys(int((k + 0.5) * num / SHOWN_FRAMES) for k in range(SHOWN_FRAMES)))
    before, after = (_middle(frames[chosen][(slice(None), *crop)]) for frames in (clean, attacked))
    change = after.astype(np.int32) - before
    amplification = max(1, (_GRAY - 1) // max(1, int(np.abs(change).max())))
    difference = np.clip(_GRAY + amplification * change, 0, 255).astype(np.uint8)
    return {
        "clean": [_png(frame) for frame in before],
        "attacked": [_png(frame) for frame in after],
        "difference": [_png(frame) for frame in difference],
        "amplification": amplification,
    }


def _middle(frames: np.ndarray) -> np.ndarray:
    _, height, width, _ = frames.shape
    top, left = (max(0, side - SHOWN_SIDE) // 2 for side in (height, width))
    return frames[:, top : top + SHOWN_SIDE, left : left + SHOWN_SIDE]


def _png(frame: np.ndarray) -> str:
    return base64.b64encode(tf.io.encode_png(frame).numpy()).decode("ascii")
