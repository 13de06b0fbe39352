"""Models whose values can be told by hand."""

import keras
import numpy as np
import tensorflow as tf


def mean_color(side=8):
    """Frames [side, side, 3] -> their mean red, green and blue."""
    inputs = keras.Input((side, side, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(inputs)
    return keras.Model(inputs, keras.layers.Rescaling(1.0, name="last")(pooled))


def saved(model, folder):
    """Writes a model as a `.keras` file; returns its path."""
    path = str(folder / "mean.keras")
    model.save(path)
    return path


def saved_model(model, folder):
    """Writes a model as a SavedModel; returns its folder."""
    path = str(folder / "saved")
    with tf.device("/CPU:0"):
        model.export(path, format="tf_saved_model", verbose=False)
    return path


def tflite(model, folder, as_bytes=False):
    """Converts a model to a `.tflite` file; returns its path."""
    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="x")
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    if as_bytes:
        shape = (1, *model.input_shape[1:])
        levels = (0, 64, 128, 192, 255)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [np.full(shape, level, np.float32)] for level in levels
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    path = folder / ("bytes.tflite" if as_bytes else "floats.tflite")
    path.write_bytes(converter.convert())
    return str(path)


def inception(folder):
    """Writes a graph with the names of Inception's, and constants of the official shapes.

    The pool of a frame is its mean color, repeated to 2,048 values, after resizing.
    """
    with tf.Graph().as_default() as graph:
        frame = tf.compat.v1.placeholder(tf.uint8, [None, None, 3], name="DecodeJpeg")
        mean = tf.reduce_mean(tf.image.resize(tf.cast(frame, tf.float32)[None], [8, 8]), [1, 2])
        with tf.name_scope("pool_3"):
            tf.identity(tf.tile(mean, [1, 683])[:, :2048], name="_reshape")
    (folder / "classify_image_graph_def.pb").write_bytes(graph.as_graph_def().SerializeToString())
    rng = np.random.default_rng(3)
    constants = {
        "mean": rng.uniform(0, 255, (2048, 1)).astype(np.float32),
        "eigenvals": rng.uniform(1, 9000, (1024, 1)).astype(np.float32),
        # More components than are used, as in the official file.
        "eigenvecs": rng.normal(0, 0.02, (1030, 2048)).astype(np.float32),
    }
    for name, array in constants.items():
        np.save(folder / f"{name}.npy", array)
    return constants
