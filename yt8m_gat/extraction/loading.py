"""Loads models of pictures and sound: `.keras` files, SavedModel folders and `.tflite` files."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import queue
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.untrusted import printable

# Each takes one example at a time, and has memory of its own for what is inside the model.
_MOST_INTERPRETERS = 8


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model that gives a vector for each example.

    Attributes:
        input_shape: Shape of one example; None: any size.
        input_type: Type of the values that it takes.
        call: Examples [N, ...] of that type -> embeddings [N, D], float32 or uint8.
    """

    input_shape: tuple[int | None, ...]
    input_type: np.dtype
    call: Callable[[np.ndarray], np.ndarray]


def kind_of_path(path: str) -> str | None:
    """Returns `keras`, `tflite` or `saved_model`; None for what is none of these."""
    if path.endswith((".keras", ".tflite")):
        return path.rpartition(".")[2]
    return "saved_model" if Path(path, "saved_model.pb").is_file() else None


def load_embedding(kind: str, path: str | os.PathLike, output: str | None = None) -> LoadedModel:
    """Loads a model; see `kind_of_path`.

    Args:
        kind: `keras`, `saved_model` or `tflite`.
        path: The file, or the folder of a SavedModel.
        output: The layer of a Keras model, the output of a SavedModel's `serving_default`, or the
            tensor of a `.tflite` file (its name, or the end of it) that is the embedding; None: the
            model's only output.

    Raises:
        ConfigError: It cannot be loaded, or has no such output; the message names it.
    """
    load = {"keras": _load_keras, "saved_model": _load_saved_model, "tflite": _load_tflite}[kind]
    if not Path(path).exists():
        raise ConfigError(f"{path} must be a model. There is no such file")
    return load(os.fspath(path), output)


def pooled(x: np.ndarray) -> np.ndarray:
    """Returns the mean over all axes between the first and the last."""
    return x if x.ndim == 2 else x.reshape(x.shape[0], -1, x.shape[-1]).mean(axis=1)


class KerasEmbedding:
    """Applies a Keras model to batches of any size, as a compiled function or inside of a graph.

    Args:
        model: The model, with one input and one output; maps are averaged.
        prepare: Is applied to the input, as float32, first.
    """

    def __init__(
        self, model: keras.Model, prepare: Callable[[tf.Tensor], tf.Tensor] = lambda x: x
    ) -> None:
        self._model = model
        self._prepare = prepare
        self._compiled = tf.function(self.graph, reduce_retracing=True)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns the embeddings, float32 [N, D], of examples [N, ...]."""
        return self._compiled(tf.constant(x)).numpy()

    def graph(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the embeddings as operations of the graph that is being made."""
        values = self._model(self._prepare(tf.cast(x, tf.float32)), training=False)
        values = tf.cast(values, tf.float32)
        axes = range(1, values.shape.rank - 1)
        return tf.reduce_mean(values, axis=list(axes)) if axes else values

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables of the model."""
        return [variable.value for variable in self._model.variables]

    def after(self, prepare: Callable[[tf.Tensor], tf.Tensor]) -> KerasEmbedding:
        """Returns the same model with other preparation."""
        return KerasEmbedding(self._model, prepare)


def _load_keras(path: str, output: str | None) -> LoadedModel:
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise _unreadable(path, error) from error
    if output is not None:
        names = [layer.name for layer in model.layers]
        if output not in names:
            raise _no_output(path, "layers", output, names)
        model = keras.Model(model.inputs, model.get_layer(output).output)
    inputs, outputs = getattr(model, "inputs", None) or (), getattr(model, "outputs", None) or ()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConfigError(
            f"{path} must be a model with one input and one output. Received: {len(inputs)} and "
            f"{len(outputs)}"
        )
    return LoadedModel(tuple(inputs[0].shape[1:]), np.dtype(np.float32), KerasEmbedding(model))


def _load_saved_model(path: str, output: str | None) -> LoadedModel:
    try:
        loaded = tf.saved_model.load(path)
        signature = loaded.signatures["serving_default"]
    except KeyError:
        raise ConfigError(f"{path} must have the signature serving_default") from None
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise _unreadable(path, error) from error
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if output is None and len(outputs) == 1:
        [output] = outputs
    if output not in outputs:
        raise _no_output(path, "outputs", output, list(outputs))
    if len(inputs) != 1:
        raise ConfigError(f"{path} must have one input. Received: {', '.join(inputs)}")
    [(name, spec)] = inputs.items()

    def call(x: np.ndarray) -> np.ndarray:
        # By way of `loaded`: the signature by itself does not keep its variables alive.
        result = loaded.signatures["serving_default"](**{name: tf.constant(x)})[output]
        return pooled(result.numpy())

    kind = np.dtype(spec.dtype.as_numpy_dtype)
    return LoadedModel(tuple(spec.shape[1:]), kind, call)


def _load_tflite(path: str, output: str | None) -> LoadedModel:
    interpreter = _interpreter(path, output)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1:
        raise ConfigError(f"{path} must have one input. Received: {len(inputs)}")
    if output is None:
        if len(outputs) != 1:
            raise _no_output(path, "outputs", output, [tensor["name"] for tensor in outputs])
        tensor = outputs[0]
    else:
        tensors = interpreter.get_tensor_details()
        found = [tensor for tensor in tensors if tensor["name"].endswith(output)]
        exact = [tensor for tensor in found if tensor["name"] == output] or found
        if len(exact) != 1:
            raise _no_output(path, "tensors", output, [t["name"] for t in found or outputs])
        tensor = exact[0]
    shape, kind = tuple(map(int, inputs[0]["shape"])), np.dtype(inputs[0]["dtype"])
    # YAMNet takes one waveform without an axis for the batch.
    has_batch = len(shape) > 1 and shape[0] == 1
    signed = tensor["dtype"] == np.int8
    num_threads = min(len(os.sched_getaffinity(0)), _MOST_INTERPRETERS)
    idle = queue.SimpleQueue()
    for number in range(num_threads):
        idle.put(interpreter if number == 0 else _interpreter(path, output))
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)

    def vector_of(example: np.ndarray) -> np.ndarray:
        interpreter = idle.get()
        try:
            interpreter.set_tensor(inputs[0]["index"], example[None] if has_batch else example)
            interpreter.invoke()
            value = interpreter.get_tensor(tensor["index"])
        finally:
            idle.put(interpreter)
        # The axes before the last are those of the batch, of time or of space.
        value = value.reshape(-1, value.shape[-1])
        return value[0] if len(value) == 1 else value.mean(axis=0)

    def call(x: np.ndarray) -> np.ndarray:
        stacked = np.stack(list(pool.map(vector_of, x)))
        return (stacked.astype(np.int16) + 128).astype(np.uint8) if signed else stacked

    return LoadedModel(shape[1:] if has_batch else shape, kind, call)


def _interpreter(path: str, output: str | None) -> tf.lite.Interpreter:
    """Returns an interpreter with one thread, so that its values depend on no other setting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the successor of tf.lite, which is another package.
        try:
            interpreter = tf.lite.Interpreter(
                path,
                num_threads=1,
                # Else the memory of tensors inside the model is used again.
                experimental_preserve_all_tensors=output is not None,
            )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _unreadable(path, error) from error
    return interpreter


def _unreadable(path: str, error: Exception) -> ConfigError:
    lines = printable(str(error)).splitlines() or [type(error).__name__]
    return ConfigError(f"{path} cannot be loaded as a model: {lines[0][:300]}")


def _no_output(path: str, what: str, output: Any, names: list[str]) -> ConfigError:
    listed = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
    return ConfigError(
        f"{path}: the embedding must be one of its {what}, {printable(listed)}. "
        f"Received: {output or 'none'}; name it with --picture_output or --sound_output"
    )
