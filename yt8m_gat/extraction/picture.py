"""Models of pictures: frames to vectors."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.digests import digest_of
from yt8m_gat.extraction.config import OFFICIAL, FeatureConfig
from yt8m_gat.extraction.loading import KerasEmbedding, LoadedModel, load_embedding
from yt8m_gat.extraction.projection import PICTURE_VALUES
from yt8m_gat.untrusted import printable

GRAPH_FILE = "classify_image_graph_def.pb"
"""Name of the official Inception graph, of `inception-2015-12-05.tgz`."""

_GRAPH_INPUT, _GRAPH_OUTPUT = "DecodeJpeg:0", "pool_3/_reshape:0"

# Height and width that models of keras.applications were trained at; the others: 224.
_SIZES = {
    **dict.fromkeys(("InceptionV3", "InceptionResNetV2", "Xception"), 299),
    **{"NASNetLarge": 331, "EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480},
    **{"EfficientNetB1": 240, "EfficientNetB2": 260, "EfficientNetB3": 300, "EfficientNetB4": 380},
    **{"EfficientNetB5": 456, "EfficientNetB6": 528, "EfficientNetB7": 600},
    **{"EfficientNetV2B1": 240, "EfficientNetV2B2": 260, "EfficientNetV2B3": 300},
}
_DEFAULT_SIZE = 224


@dataclasses.dataclass(frozen=True)
class PictureModel:
    """A model of frames.

    Attributes:
        call: Frames uint8 [N, H, W, 3] -> values [N, D], float32 or uint8; a `KerasEmbedding` of
            a Keras model.
        image_size: H and W; None: it takes frames of any size, all of one video's being equal.
        size: D.
        gives_bytes: Whether the values are bytes.
        sha256: SHA-256 of weights that are in no file that the user named.
    """

    call: Callable[[np.ndarray], np.ndarray]
    image_size: tuple[int, int] | None
    size: int
    gives_bytes: bool = False
    sha256: str | None = None


def applications() -> dict[str, Callable[..., keras.Model]]:
    """Returns the models of `keras.applications` by name."""
    return {
        name: value
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and callable(value)
    }


def picture_model(config: FeatureConfig, path: str | os.PathLike | None) -> PictureModel:
    """Returns the model of a configuration.

    Args:
        config: The kind, model, output, image size and range of values are used.
        path: The file or folder of the weights; None: ImageNet's, which Keras downloads.

    Raises:
        ConfigError: It cannot be loaded or does not fit; the message says why.
    """
    if config.kind == OFFICIAL:
        return _official(path or "")
    if config.kind == "application":
        return _application(config, path)
    return _of_file(load_embedding(config.kind, path or "", config.output), config, path or "")


def _application(config: FeatureConfig, path: str | os.PathLike | None) -> PictureModel:
    build = applications().get(config.model)
    if build is None:
        raise ConfigError(
            "--picture must be a .keras or .tflite file, the folder of a SavedModel, youtube8m, or "
            f"one of keras.applications: {', '.join(sorted(applications()))}. "
            f"Received: {printable(config.model)!r}"
        )
    side = _SIZES.get(config.model, _DEFAULT_SIZE)
    image_size = config.image_size or (side, side)
    preprocess_input = sys.modules[build.__module__].preprocess_input
    weights = "imagenet" if path is None else None
    try:
        model = build(
            include_top=False, weights=weights, pooling="avg", input_shape=(*image_size, 3)
        )
        if path is not None:
            model.load_weights(path)
    except Exception as error:
        what = f"--picture_weights={path}" if path else "their download"
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(
            f"--picture={config.model} got no weights from {what}: {printable(lines[0])[:300]}. "
            "Remedy: give --picture_weights=FILE, the weights without the top layer, or another "
            "model as --picture=FILE"
        ) from error
    digest = None
    if path is None:  # Nobody says which version of them Keras has.
        digest = digest_of(np.ascontiguousarray(array).tobytes() for array in model.get_weights())
    size = model.output_shape[-1]
    embedding = KerasEmbedding(model, preprocess_input)
    return PictureModel(embedding, image_size, size, sha256=digest)


def _of_file(model: LoadedModel, config: FeatureConfig, path: str | os.PathLike) -> PictureModel:
    shape, kind = model.input_shape, model.input_type
    if len(shape) != 3 or shape[-1] not in (3, None):
        raise ConfigError(
            f"--picture={path} must take frames [height, width, 3]. Received: {list(shape)}"
        )
    asked = config.image_size or (None, None)
    # What is open in the model, the configuration or else the usual size decides.
    image_size = tuple(
        own or wanted or _DEFAULT_SIZE for own, wanted in zip(shape[:2], asked, strict=True)
    )
    if config.image_size not in (None, image_size):
        raise ConfigError(
            f"--picture_size must be that of --picture={path}, {list(image_size)}. "
            f"Received: {list(config.image_size or ())}"
        )
    low, high = config.value_range

    def scaled(frames: Any) -> Any:
        return frames * np.float32((high - low) / 255) + np.float32(low)

    def call(frames: np.ndarray) -> np.ndarray:
        if kind == np.uint8:
            return model.call(frames)
        if kind == np.int8:
            return model.call((frames.astype(np.int16) - 128).astype(np.int8))
        return model.call(scaled(frames.astype(np.float32)).astype(kind))

    if isinstance(model.call, KerasEmbedding):
        call = model.call.after(scaled)
    trial = _trial(call, np.zeros((1, *image_size, 3), np.uint8), path)
    return PictureModel(call, image_size, trial.shape[1], trial.dtype == np.uint8)


def _trial(
    call: Callable[[np.ndarray], np.ndarray], example: np.ndarray, path: str | os.PathLike
) -> np.ndarray:
    """Returns the values of one example, which show their number and type."""
    try:
        values = call(example)
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{path} cannot be applied to an input {list(example.shape)}: "
            f"{printable(lines[0])[:300]}"
        ) from error
    if values.ndim != 2 or values.shape[0] != 1:
        raise ConfigError(f"{path} must give one vector. Received: {list(values.shape)}")
    return values


def _official(folder: str | os.PathLike) -> PictureModel:
    """Loads Inception's graph of 2015, which takes a frame of any size and resizes it itself."""
    path = Path(folder, GRAPH_FILE)
    if not path.is_file():
        raise ConfigError(
            f"--official_dir={folder} must hold {GRAPH_FILE}, from TensorFlow's "
            "inception-2015-12-05.tgz, for --picture=youtube8m. There is none"
        )
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())

        def import_graph() -> None:
            tf.graph_util.import_graph_def(graph_def, name="")

        wrapped = tf.compat.v1.wrap_function(import_graph, [])
        pool = wrapped.prune(_GRAPH_INPUT, _GRAPH_OUTPUT)
    except Exception as error:
        raise ConfigError(
            f"{path} must be Inception's graph, with {_GRAPH_INPUT} and {_GRAPH_OUTPUT}. "
            f"Received: {printable(str(error).splitlines()[0] if str(error) else '')[:300]}"
        ) from error

    def call(frames: np.ndarray) -> np.ndarray:
        return np.concatenate([pool(tf.constant(frame)).numpy() for frame in frames])

    trial = _trial(call, np.zeros((1, 299, 299, 3), np.uint8), path)
    if trial.shape[1] != PICTURE_VALUES:
        raise ConfigError(
            f"{path}: {_GRAPH_OUTPUT} must have {PICTURE_VALUES} values. Received: {trial.shape[1]}"
        )
    return PictureModel(call, None, PICTURE_VALUES)
