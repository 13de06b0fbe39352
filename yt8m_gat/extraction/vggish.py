"""VGGish, the sound model behind YouTube-8M's and AudioSet's features, as a Keras model.

Reference: Hershey et al. 2017, "CNN Architectures for Large-Scale Audio Classification";
tensorflow/models, research/audioset/vggish.
"""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.extraction.log_mel import HOP, NUM_BANDS, WINDOW

CHECKPOINT = "vggish_model.ckpt"
PCA_FILE = "vggish_pca_params.npz"
"""Names of the official files."""

NUM_FRAMES = 96
"""Log-mel frames of a patch: 0.96 s."""

PATCH_SAMPLES = (NUM_FRAMES - 1) * HOP + WINDOW
"""Samples of a patch: 15,600."""

SIZE = 128
"""Values of an embedding."""

# Keras' layer -> the scope of its variables in the checkpoint.
_SCOPES = {
    "conv1": "conv1",
    "conv2": "conv2",
    "conv3_1": "conv3/conv3_1",
    "conv3_2": "conv3/conv3_2",
    "conv4_1": "conv4/conv4_1",
    "conv4_2": "conv4/conv4_2",
    "fc1_1": "fc1/fc1_1",
    "fc1_2": "fc1/fc1_2",
    "fc2": "fc2",
}


def vggish() -> keras.Model:
    """Returns the model, untrained: log-mel patches [B, 96, 64] -> embeddings [B, 128].

    Six 3 x 3 convolutions (64, 128, 256, 256, 512, 512 channels, ReLU) with four 2 x 2 max pools,
    two dense layers of 4,096 (ReLU), and the embedding, before its activation: 72,141,184
    parameters.
    """
    inputs = keras.Input((NUM_FRAMES, NUM_BANDS), name="log_mel")
    x = keras.layers.Reshape((NUM_FRAMES, NUM_BANDS, 1))(inputs)
    stages = (
        (64, "conv1"),
        (128, "conv2"),
        (256, "conv3_1", "conv3_2"),
        (512, "conv4_1", "conv4_2"),
    )
    for stage, (channels, *names) in enumerate(stages, 1):
        for name in names:
            x = keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=name)(x)
        x = keras.layers.MaxPooling2D(2, padding="same", name=f"pool{stage}")(x)
    x = keras.layers.Flatten()(x)
    for name in ("fc1_1", "fc1_2"):
        x = keras.layers.Dense(4096, activation="relu", name=name)(x)
    return keras.Model(inputs, keras.layers.Dense(SIZE, name="fc2")(x), name="vggish")


def load_checkpoint(model: keras.Model, path: str | os.PathLike) -> None:
    """Loads the official checkpoint, `vggish_model.ckpt`, into a model of `vggish`.

    Raises:
        ConfigError: It is no checkpoint, or a variable is missing or has another shape.
    """
    try:
        reader = tf.train.load_checkpoint(os.fspath(path))
        shapes = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError) as error:
        raise ConfigError(
            f"{path} must be VGGish's checkpoint, as tensorflow/models' research/audioset/vggish "
            f"links to it. Received: {str(error).splitlines()[0]}"
        ) from error
    for layer, scope in _SCOPES.items():
        values = []
        for variable, ending in zip(
            model.get_layer(layer).weights, ("weights", "biases"), strict=True
        ):
            name = f"vggish/{scope}/{ending}"
            if shapes.get(name) != list(variable.shape):
                raise ConfigError(
                    f"{path}: {name} must have the shape {list(variable.shape)}. "
                    f"Received: {shapes.get(name, 'no such variable')}"
                )
            values.append(reader.get_tensor(name))
        model.get_layer(layer).set_weights(values)


def load_pca(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean [128] and the whitening matrix [128, 128] of `vggish_pca_params.npz`.

    The features are `matrix @ (embedding - mean)`.

    Raises:
        ConfigError: It is not that file, or an array has another shape.
    """
    try:
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} must be VGGish's {PCA_FILE}. Received: {error}") from error
    mean, matrix = found.get("pca_means"), found.get("pca_eigen_vectors")
    if mean is None or mean.size != SIZE or matrix is None or matrix.shape != (SIZE, SIZE):
        received = ", ".join(f"{name} {array.shape}" for name, array in found.items()) or "nothing"
        raise ConfigError(
            f"{path} must have pca_means [{SIZE}] and pca_eigen_vectors [{SIZE}, {SIZE}]. "
            f"Received: {received}"
        )
    return mean.reshape(SIZE), matrix


def official_files(folder: str | os.PathLike) -> tuple[Path, Path]:
    """Returns the paths of the checkpoint and of the PCA in the folder of the official files.

    Raises:
        ConfigError: One of them is missing.
    """
    checkpoint, pca = Path(folder, CHECKPOINT), Path(folder, PCA_FILE)
    # A checkpoint of the second version is several files with this beginning.
    has_checkpoint = checkpoint.is_file() or Path(f"{checkpoint}.index").is_file()
    missing = [
        path.name
        for path, found in ((checkpoint, has_checkpoint), (pca, pca.is_file()))
        if not found
    ]
    if missing:
        raise ConfigError(
            f"--official_dir={folder} must hold {CHECKPOINT} and {PCA_FILE} for --sound=vggish. "
            f"Missing: {', '.join(missing)}; the page of VGGish in tensorflow/models links to "
            "them, and --sound=log_mel needs no file"
        )
    return checkpoint, pca
