"""Corruptions of pictures at ImageNet-C's severities, over the frames of raw clips.

They are those of TAF's tables 3 and 7, with the constants of Hendrycks and Dietterich's code, which
are meant for pictures of 224 x 224. They are TensorFlow operations, so that they run in the graph
of the evaluation and draw from its seeds; the libraries that have them (imagecorruptions,
corrupt-tta) take one picture at a time and draw from NumPy's global state. Deviations: results are
clipped to [0, 255] and not rounded to bytes or stored as JPEG, and `clipped_zoom` also takes
pictures that are not square.

Reference: Benchmarking Neural Network Robustness to Common Corruptions and Perturbations
(Hendrycks and Dietterich, 2018), `ImageNet-C/create_c/make_imagenet_c.py`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_GRAY = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random numbers of one corruption, for every frame or the same for a clip's frames.

    Attributes:
        shape: Of the clips, int32 [5]: B, T, H, W, C.
        seed: Stateless seed [2].
        per_frame: Whether each frame has its own.
    """

    shape: tf.Tensor
    seed: tf.Tensor
    per_frame: bool

    def _shape(self, *trailing: Any) -> tf.Tensor:
        return tf.stack([self.shape[0], self.shape[1] if self.per_frame else 1, *trailing])

    def normal(self, channels: Any = None) -> tf.Tensor:
        """Returns standard normal numbers, [B, T or 1, H, W, C]; C as the clips by default."""
        channels = self.shape[4] if channels is None else channels
        return tf.random.stateless_normal(
            self._shape(self.shape[2], self.shape[3], channels), self.seed
        )

    def uniform(self) -> tf.Tensor:
        """Returns numbers in [0, 1) of the same shape."""
        return tf.random.stateless_uniform(self._shape(*tf.unstack(self.shape[2:])), self.seed)

    def uniform_of_frames(self, low: float, high: float) -> tf.Tensor:
        """Returns a number in [low, high) for each frame, [B, T or 1]."""
        key = tf.random.fold_in(self.seed, 1)
        return tf.random.stateless_uniform(self._shape(), key, low, high)


# (severity's constants, x [B, T, H, W, C] in [0, 1], draws) -> as x, not yet clipped.
PixelCorruption = Callable[[Any, tf.Tensor, Draws], tf.Tensor]


def corrupt_pixels(
    name: str, severity: int, clips: tf.Tensor, seed: tf.Tensor, per_frame: bool = True
) -> tf.Tensor:
    """Corrupts raw clips.

    Args:
        name: A key of `PIXEL_CORRUPTIONS`.
        severity: 1 to 5.
        clips: Float [B, T, H, W, 3] in [0, 255]; H and W are known.
        seed: Stateless seed [2].
        per_frame: Whether random numbers differ from frame to frame; else all frames of a clip
            have the same.

    Returns:
        Float [B, T, H, W, 3] in [0, 255].
    """
    function, constants = PIXEL_CORRUPTIONS[name]
    draws = Draws(tf.shape(clips), seed, per_frame)
    corrupted = function(constants[severity - 1], clips / 255.0, draws)
    return tf.ensure_shape(tf.clip_by_value(corrupted, 0.0, 1.0) * 255.0, clips.shape)


def gaussian_noise(deviation: float, x: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Adds normal noise."""
    return x + deviation * draws.normal()


def impulse_noise(share: float, x: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Sets a share of the values to 0 or 1, with equal probability."""
    draw = draws.uniform()
    extreme = tf.where(draw < share / 2, 0.0, 1.0)
    return tf.where(draw < share, extreme, x)


def speckle_noise(deviation: float, x: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Multiplies each value by 1 plus normal noise."""
    return x * (1.0 + deviation * draws.normal())


def gaussian_blur(deviation: float, x: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Convolves with a Gaussian, cut at 4 deviations; the edge's pixels go on beyond the edge."""
    del draws
    radius = int(4.0 * deviation + 0.5)
    weights = _gaussian(radius, deviation)
    rows = _filtered(x, weights[:, np.newaxis], _nearest)
    return _filtered(rows, weights[np.newaxis, :], _nearest)


def defocus_blur(constants: tuple[int, float], x: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Convolves with a disk, itself slightly blurred; pictures are mirrored at their edges."""
    del draws
    return _filtered(x, _disk(*constants), _mirrored)


def zoom_blur(factors: tuple[float, ...], x: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Averages the picture and its enlargements by some factors."""
    del draws
    return (x + tf.add_n([clipped_zoom(x, factor) for factor in factors])) / (len(factors) + 1)


def snow(constants: tuple[float, ...], x: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Lays flakes, enlarged and blurred by motion, over a picture that is bleached."""
    mean, deviation, zoom, threshold, radius, blur, kept = constants
    flakes = clipped_zoom(mean + deviation * draws.normal(1), zoom)
    flakes = tf.clip_by_value(tf.where(flakes < threshold, 0.0, flakes), 0.0, 1.0)
    angles = draws.uniform_of_frames(-135.0, -45.0)
    flakes = _motion_blur(flakes, int(radius), blur, angles)
    gray = tf.reduce_sum(x * tf.constant(_GRAY, x.dtype), axis=-1, keepdims=True)
    bleached = kept * x + (1.0 - kept) * tf.maximum(x, gray * 1.5 + 0.5)
    return bleached + flakes + tf.reverse(flakes, axis=[2, 3])


def brightness(amount: float, x: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Adds to the value of hue, saturation and value."""
    del draws
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(x), axis=-1)
    value = tf.clip_by_value(value + amount, 0.0, 1.0)
    return tf.image.hsv_to_rgb(tf.stack([hue, saturation, value], axis=-1))


def _factors(stop: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(1.0, stop, step).tolist())


PIXEL_CORRUPTIONS: dict[str, tuple[PixelCorruption, tuple[Any, ...]]] = {
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": (speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": (gaussian_blur, (1.0, 2.0, 3.0, 4.0, 6.0)),
    "defocus_blur": (defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "zoom_blur": (
        zoom_blur,
        (
            _factors(1.11, 0.01),
            _factors(1.16, 0.01),
            _factors(1.21, 0.02),
            _factors(1.26, 0.02),
            _factors(1.31, 0.03),
        ),
    ),
    "snow": (
        snow,
        (
            (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
            (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
            (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
        ),
    ),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
}


def clipped_zoom(x: tf.Tensor, factor: float) -> tf.Tensor:
    """Enlarges the middle of pictures [B, T, H, W, C] to their size, by linear interpolation."""
    rows, columns = (_zoom_matrix(int(x.shape[axis]), factor) for axis in (2, 3))
    return tf.einsum("hi,btijc,wj->bthwc", rows, x, columns)


def _zoom_matrix(size: int, factor: float) -> np.ndarray:
    """Returns weights [size, size], row by row those of the pixels that an enlarged pixel mixes.

    The middle `ceil(size / factor)` pixels are enlarged with their ends on the ends of the result
    (as `scipy.ndimage.zoom` of order 1), and the middle of that is cut out.
    """
    cut = math.ceil(size / factor)
    enlarged = round(cut * factor)
    top, trim = (size - cut) // 2, (enlarged - size) // 2
    steps = max(enlarged - 1, 1)
    places = top + (np.arange(size) + trim) * (cut - 1) / steps
    lower = np.minimum(np.floor(places).astype(int), size - 1)
    upper = np.minimum(lower + 1, size - 1)
    matrix = np.zeros((size, size), np.float32)
    np.add.at(matrix, (np.arange(size), lower), 1.0 - (places - lower))
    np.add.at(matrix, (np.arange(size), upper), places - lower)
    return matrix


def _gaussian(radius: int, deviation: float) -> np.ndarray:
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    return weights / weights.sum()


def _disk(radius: int, blur: float) -> np.ndarray:
    """Returns a disk's weights, convolved with a Gaussian of 3 x 3 or (radius above 8) 5 x 5."""
    extent, blur_radius = (8, 1) if radius <= 8 else (radius, 2)
    places = np.arange(-extent, extent + 1)
    disk = (places[:, np.newaxis] ** 2 + places[np.newaxis, :] ** 2 <= radius**2).astype(float)
    disk /= disk.sum()
    weights = _gaussian(blur_radius, blur)
    padded = np.pad(disk, blur_radius, mode="reflect")
    size = len(places)
    return sum(
        weights[i] * weights[j] * padded[i : i + size, j : j + size]
        for i in range(len(weights))
        for j in range(len(weights))
    )


def _nearest(places: np.ndarray, size: int) -> np.ndarray:
    return np.clip(places, 0, size - 1)


def _mirrored(places: np.ndarray, size: int) -> np.ndarray:
    """Mirrors at the outermost pixels, which are not repeated."""
    period = max(2 * (size - 1), 1)
    places = np.abs(places) % period
    return np.minimum(places, period - places) if size > 1 else places * 0


def _filtered(
    x: tf.Tensor, kernel: np.ndarray, beyond: Callable[[np.ndarray, int], np.ndarray]
) -> tf.Tensor:
    """Correlates each channel of [B, T, H, W, C] with a kernel of odd sides; `beyond` pads."""
    for axis, side in ((2, kernel.shape[0]), (3, kernel.shape[1])):
        size = int(x.shape[axis])
        places = np.arange(-(side // 2), size + side // 2)
        x = tf.gather(x, beyond(places, size), axis=axis)
    shape = tf.shape(x)
    channels = int(x.shape[-1])
    weights = np.repeat(kernel[:, :, np.newaxis, np.newaxis].astype(np.float32), channels, axis=2)
    frames = tf.reshape(x, [-1, int(x.shape[2]), int(x.shape[3]), channels])
    filtered = tf.nn.depthwise_conv2d(frames, weights, [1, 1, 1, 1], "VALID")
    return tf.reshape(filtered, tf.concat([shape[:2], tf.shape(filtered)[1:]], axis=0))


def _motion_blur(x: tf.Tensor, radius: int, deviation: float, angles: tf.Tensor) -> tf.Tensor:
    """Averages copies of [B, T, H, W, 1] along a line, with half a Gaussian as weights.

    Copy i of 2 radius + 1 is moved by i pixels, rounded, against the angle [B, T] in degrees.

    Reference: ImageMagick's motion blur, which ImageNet-C calls.
    """
    width = 2 * radius + 1
    weights = np.exp(-0.5 * (np.arange(width) / deviation) ** 2)
    weights /= weights.sum()
    height, breadth = int(x.shape[2]), int(x.shape[3])
    shape = tf.shape(x)
    pictures = tf.reshape(x, [-1, height, breadth])
    turn = tf.reshape(angles, [-1, 1]) * (math.pi / 180.0)
    blurred = tf.zeros_like(pictures)
    for i in range(width):
        down = -tf.cast(tf.math.ceil(i * tf.sin(turn) - 0.5), tf.int32)
        right = -tf.cast(tf.math.ceil(i * tf.cos(turn) - 0.5), tf.int32)
        rows = tf.clip_by_value(tf.range(height)[tf.newaxis] - down, 0, height - 1)
        columns = tf.clip_by_value(tf.range(breadth)[tf.newaxis] - right, 0, breadth - 1)
        moved = tf.gather(pictures, rows, axis=1, batch_dims=1)
        blurred += weights[i] * tf.gather(moved, columns, axis=2, batch_dims=1)
    return tf.reshape(blurred, shape)
