"""Positional encoding and mean pooling."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.layers import MaskedMeanPooling, SinusoidalPositionalEncoding


@pytest.mark.parametrize("size", [1, 7, 8])
def test_encoding_is_that_of_vaswani(size):
    encoding = SinusoidalPositionalEncoding()(np.zeros((2, 300, size), "float32")).numpy()
    for t in (0, 1, 19, 299):
        for i in range(math.ceil(size / 2)):
            angle = t / 10_000 ** (2 * i / size)
            assert encoding[1, t, 2 * i] == pytest.approx(math.sin(angle), abs=5e-5)
            if 2 * i + 1 < size:
                assert encoding[1, t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=5e-5)


def test_encoding_is_added_for_any_number_of_frames_and_has_no_weights():
    layer = SinusoidalPositionalEncoding()
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 5))])
    longest = layer(np.zeros((1, 40, 5), "float32")).numpy()
    for num_frames in (1, 13, 40):
        x = np.full((2, num_frames, 5), 3.0, "float32")
        expected = 3 + np.repeat(longest[:, :num_frames], 2, axis=0)
        np.testing.assert_allclose(graph(x), expected, rtol=0, atol=1e-6)
    assert layer.variables == []


def test_encoding_wavelength():
    layer = SinusoidalPositionalEncoding(max_wavelength=100.0)
    encoding = layer(np.zeros((1, 11, 4), "float32"))
    assert float(encoding[0, 10, 2]) == pytest.approx(math.sin(10 / 100**0.5), abs=1e-6)
    assert type(layer).from_config(layer.get_config()).max_wavelength == 100.0
    with pytest.raises(ValueError, match=r"must be positive.*max_wavelength=0"):
        SinusoidalPositionalEncoding(max_wavelength=0)


def test_mean_over_real_frames(clips):
    x, frame_mask = clips
    pooled = MaskedMeanPooling()(x, frame_mask=frame_mask)
    expected = [
        x[clip, :length].astype("float64").mean(axis=0) if length else np.zeros(8)
        for clip, length in enumerate(frame_mask.sum(axis=1))
    ]
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-6)
    assert (pooled[3].numpy() == 0).all()
    np.testing.assert_allclose(MaskedMeanPooling()(x), x.mean(axis=1), rtol=0, atol=1e-6)


def test_mean_is_summed_in_float32():
    """The sum over 300 frames of 500 is past the largest float16, 65,504; the mean is not."""
    x = np.full((1, 300, 2), 500.0, "float32")
    pooled = MaskedMeanPooling(dtype="mixed_float16")(x, frame_mask=np.ones((1, 300), bool))
    assert pooled.dtype == "float16"
    np.testing.assert_array_equal(pooled, np.full((1, 2), 500.0))


def test_gradient_of_the_mean_is_zero_on_padding(clips):
    x, frame_mask = clips
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(MaskedMeanPooling()(x, frame_mask=frame_mask))
    count = np.maximum(frame_mask.sum(axis=1, keepdims=True), 1)
    expected = (frame_mask / count)[..., None] * np.ones(8)
    np.testing.assert_allclose(tape.gradient(total, x), expected, rtol=1e-6)


def test_saved_and_loaded(clips, tmp_path):
    x, frame_mask = clips
    frames, mask = keras.Input((None, 8)), keras.Input((None,), dtype="bool")
    pooled = MaskedMeanPooling()(SinusoidalPositionalEncoding()(frames), frame_mask=mask)
    assert pooled.shape == (None, 8)
    model = keras.Model([frames, mask], pooled)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded([x, frame_mask]), model([x, frame_mask]), atol=1e-6)
