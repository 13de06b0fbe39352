"""The extractor inside of a graph: its parts are those of the extraction."""

import av
import numpy as np
import pytest
import tensorflow as tf
import tiny_models

from yt8m_gat.extraction.config import LOG_MEL, FeatureConfig
from yt8m_gat.extraction.in_graph import resized, resizing_weights, windows_at
from yt8m_gat.extraction.log_mel import log_mel, log_mel_of_tensor
from yt8m_gat.extraction.sound import sound_model, windows
from yt8m_gat.video.picture import ImageMaker


@pytest.mark.parametrize("size", [(8, 8), (17, 31), (37, 61), (48, 64)])
def test_shrunken_images_are_swscales(size):
    """Gray noise, because swscale mixes the colors of neighbours first."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 1), np.uint8).repeat(3, axis=2)
    expected = ImageMaker(size=size)(av.VideoFrame.from_ndarray(noise, "rgb24"))
    differences = np.abs(resized(tf.constant(noise), size).numpy().astype(int) - expected)
    assert differences.max() <= 1 and differences.mean() < 0.05
    if size == (48, 64):
        assert not differences.any()


def test_enlarged_images_are_swscales():
    y, x = np.mgrid[:30, :40][..., np.newaxis]
    waves = np.rint(127 + 100 * np.sin(x / 4 + y / 5 + np.arange(3))).astype(np.uint8)
    expected = ImageMaker(size=(64, 100))(av.VideoFrame.from_ndarray(waves, "rgb24"))
    differences = np.abs(resized(tf.constant(waves), (64, 100)).numpy().astype(int) - expected)
    assert differences.max() <= 2 and differences.mean() < 0.1


def test_weights_of_resizing_by_hand():
    # Twice as large: the middle of each new pixel is a quarter from that of an old one. With
    # C = 0.6 the kernel is 1.4 t^3 - 2.4 t^2 + 1 up to 1, -0.6 t^3 + 3 t^2 - 4.8 t + 2.4 up to 2.
    kernel = {0.25: 0.871875, 0.75: 0.240625, 1.25: -0.084375, 1.75: -0.028125}
    weights = resizing_weights(tf.constant(8), 16).numpy()
    expected = [kernel[1.75], kernel[0.75], kernel[0.25], kernel[1.25]]
    np.testing.assert_allclose(weights[8, 2:6], np.array(expected) / sum(expected), atol=1e-6)
    # The pixel of the edge stands for those beyond it.
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert weights[0, 0] == pytest.approx((expected[0] + expected[1] + expected[2]) / sum(expected))


@pytest.mark.parametrize(("window", "rate"), [(400, 25.0), (1000, 7.0), (15_600, 1.0)])
def test_windows_of_sound_are_those_of_the_extraction(window, rate):
    sound = np.random.default_rng(1).normal(size=16_000).astype(np.float32)
    expected = np.stack(list(windows([sound[:5000], sound[5000:]], window, rate)))
    places = tf.constant([[1, k] for k in range(len(expected))])
    both = tf.stack([tf.zeros(16_000), tf.constant(sound)])
    np.testing.assert_array_equal(windows_at(both, places, window, rate), expected)
    # Nothing is heard after the end, nor where there is no sound.
    late = tf.constant([[1, len(expected) + 40], [0, 0]])
    assert not windows_at(both, late, window, rate).numpy().any()
    assert not windows_at(tf.zeros([1, 0]), tf.constant([[0, 0]]), window, rate).numpy().any()


def test_log_mel_of_a_tensor_is_that_of_an_array():
    sound = np.random.default_rng(2).normal(0, 0.2, (3, 2000)).astype(np.float32)
    np.testing.assert_allclose(log_mel_of_tensor(tf.constant(sound)), log_mel(sound), atol=2e-6)


def test_sound_models_in_a_graph_are_the_models(tmp_path):
    sound = np.random.default_rng(3).normal(0, 0.2, (3, 560)).astype(np.float32)
    mean = sound_model(FeatureConfig(kind=LOG_MEL, model=LOG_MEL), None, 50.0)
    np.testing.assert_allclose(mean.graph(tf.constant(sound)), mean.call(sound), atol=2e-6)
    layers = tiny_models.keras.layers
    for number, shape in enumerate(((560,), (2, 64))):
        inputs = tiny_models.keras.Input(shape)
        model = tiny_models.keras.Model(inputs, layers.Dense(4)(layers.Flatten()(inputs)))
        path = tmp_path / f"{number}.keras"
        model.save(path)
        loaded = sound_model(FeatureConfig(kind="keras", model=path.name), path, 1.0)
        values = loaded.graph(tf.constant(sound)).numpy()
        np.testing.assert_allclose(values, loaded.call(sound), atol=1e-4)
        assert values.std() > 0 and len(loaded.variables) == 2
