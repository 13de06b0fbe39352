"""From a model's values to bytes: standardized, whitened, or by the official constants."""

from __future__ import annotations

import abc
import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data.quantization import quantize, quantize_as_youtube8m
from yt8m_gat.disk import replacing
from yt8m_gat.extraction.log_mel import NUM_BANDS
from yt8m_gat.extraction.pca import PCA, WHITENING_OFFSET, StreamingMoments

PICTURE_VALUES, PICTURE_SIZE = 2048, 1024
"""YouTube-8M's pictures: values of Inception's pool, and bytes of a frame."""

MEAN_FILE, VALUES_FILE, VECTORS_FILE = "mean.npy", "eigenvals.npy", "eigenvecs.npy"
"""Names of the official constants of pictures."""


class Projection(abc.ABC):
    """Turns values [T, D] into bytes [T, K]."""

    size: int
    """K."""

    @abc.abstractmethod
    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the bytes, uint8 [T, K]."""


@dataclasses.dataclass(frozen=True)
class Bytes(Projection):
    """The values of a model that gives bytes, as they are."""

    size: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """See `Projection`."""
        return values


class Scaled(Projection):
    """`quantize(scaled(x))`. Takes tensors of TensorFlow too, and then gives one."""

    @abc.abstractmethod
    def scaled(self, values: Any) -> Any:
        """Returns what the bytes stand for, before it is rounded and clipped: float64 [T, K]."""

    def __call__(self, values: Any) -> Any:
        """See `Projection`."""
        return quantize(self.scaled(values))


@dataclasses.dataclass(frozen=True)
class Standardize(Scaled):
    """`quantize((x - mean) / deviation)`.

    Attributes:
        mean: Of each value [D].
        deviation: Of each value [D]; a value that never changes has 1.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @property
    def size(self) -> int:
        """K = D."""
        return len(self.mean)

    def scaled(self, values: Any) -> Any:
        """See `Scaled`."""
        return (_as_float64(values) - self.mean) / self.deviation


@dataclasses.dataclass(frozen=True)
class Whiten(Scaled):
    """`quantize` of the whitened principal components."""

    pca: PCA

    @property
    def size(self) -> int:
        """K, the number of components."""
        return len(self.pca.eigenvalues)

    def scaled(self, values: Any) -> Any:
        """See `Scaled`."""
        return self.pca.whiten(_as_float64(values))


def log10_of_mel() -> Standardize:
    """Returns the fixed scale of `log_mel`: `quantize(log10(mel + 0.01))`.

    Silence is -2 and a sine of full amplitude about 2, so the range of the bytes is that of sound;
    a level is 0.3 decibels.
    """
    return Standardize(np.zeros(NUM_BANDS), np.full(NUM_BANDS, math.log(10)))


@dataclasses.dataclass(frozen=True)
class OfficialPicture(Projection):
    """YouTube-8M's PCA of Inception's pool: `E^T (x - mean) / sqrt(eigenvalues + 1e-4)`, rounded.

    Attributes:
        mean: [2048].
        eigenvalues: [1024].
        eigenvectors: [2048, 1024], a component a column.

    Reference: google/youtube-8m, feature_extractor/feature_extractor.py, `_apply_pca`.
    """

    mean: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    size = PICTURE_SIZE

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """See `Projection`."""
        projected = (values - self.mean) @ self.eigenvectors
        return quantize_as_youtube8m(projected / np.sqrt(self.eigenvalues + WHITENING_OFFSET))

    @classmethod
    def load(cls, folder: str | os.PathLike) -> OfficialPicture:
        """Reads `mean.npy`, `eigenvals.npy` and `eigenvecs.npy` of `yt8m_pca.tgz`.

        The first has the shape [2048, 1], the second [1024 or more, 1], and the third
        [1024 or more, 2048], a component a row.

        Raises:
            ConfigError: A file is missing, is no array, or has another shape.
        """
        mean = _array(folder, MEAN_FILE, (PICTURE_VALUES, 1))
        values = _array(folder, VALUES_FILE, (PICTURE_SIZE, 1))
        vectors = _array(folder, VECTORS_FILE, (PICTURE_SIZE, PICTURE_VALUES))
        return cls(mean[:, 0], values[:PICTURE_SIZE, 0], vectors[:PICTURE_SIZE].T)


@dataclasses.dataclass(frozen=True)
class OfficialSound(Projection):
    """VGGish's postprocessing: `matrix @ (x - mean)`, clipped to [-2, 2], the fraction dropped.

    Attributes:
        mean: [128].
        matrix: [128, 128].
    """

    mean: np.ndarray
    matrix: np.ndarray

    @property
    def size(self) -> int:
        """K = D = 128."""
        return len(self.mean)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """See `Projection`."""
        return quantize_as_youtube8m((values - self.mean) @ self.matrix.T, truncate=True)


def _as_float64(values: Any) -> Any:
    return tf.cast(values, tf.float64) if tf.is_tensor(values) else np.asarray(values, np.float64)


def _array(folder: str | os.PathLike, name: str, shape: tuple[int, ...]) -> np.ndarray:
    path = Path(folder, name)
    if not path.is_file():
        raise ConfigError(
            f"--official_dir={folder} must hold {MEAN_FILE}, {VALUES_FILE} and {VECTORS_FILE}, "
            f"from YouTube-8M's yt8m_pca.tgz. Missing: {name}"
        )
    try:
        array = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} must be an array of NumPy. Received: {error}") from error
    # The files may have more components than are used.
    fits = array.ndim == 2 and array.shape[1] == shape[1] and array.shape[0] >= shape[0]
    if not fits or (name == MEAN_FILE and array.shape != shape) or array.dtype.kind != "f":
        raise ConfigError(
            f"{path} must be an array of floats of the shape {list(shape)}. "
            f"Received: {array.dtype} {list(array.shape)}"
        )
    return array


def fitted(moments: StreamingMoments, num_components: int = 0) -> Standardize | Whiten:
    """Returns the projection that was fitted to the frames of `moments`.

    Args:
        moments: Of the frames; with covariance for components.
        num_components: K of a PCA; 0: standardize.

    Raises:
        ConfigError: There are too few frames.
    """
    try:
        if num_components:
            return Whiten(moments.pca(num_components))
        variances = moments.covariance
    except ValueError as error:
        raise ConfigError(
            f"the features cannot be fitted: {error}. Give more videos, or fewer components with "
            "--fit_pca"
        ) from error
    deviation = np.sqrt(variances)
    return Standardize(moments.mean, np.where(deviation > 0, deviation, 1.0))


def save(projection: Standardize | Whiten, path: str | os.PathLike) -> None:
    """Writes the constants of a fitted projection as an `.npz` file."""
    if isinstance(projection, Whiten):
        pca = projection.pca
        arrays = {
            "mean": pca.mean,
            "eigenvalues": pca.eigenvalues,
            "eigenvectors": pca.eigenvectors,
        }
    else:
        arrays = {"mean": projection.mean, "deviation": projection.deviation}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike) -> Standardize | Whiten:
    """Reads what `save` wrote.

    Raises:
        ConfigError: It is not such a file.
    """
    try:
        with np.load(path) as file:
            arrays: Mapping[str, np.ndarray] = {name: file[name] for name in file.files}
        mean, names = arrays["mean"], set(arrays)
        if names == {"mean", "deviation"} and mean.shape == arrays["deviation"].shape:
            return Standardize(mean, arrays["deviation"])
        values, vectors = arrays["eigenvalues"], arrays["eigenvectors"]
        if vectors.shape == (len(values), len(mean)):
            return Whiten(PCA(mean, values, vectors))
        raise ValueError("arrays whose shapes do not fit each other")
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} must hold the constants that yt8m-gat extract fitted. Received: {error}"
        ) from error
