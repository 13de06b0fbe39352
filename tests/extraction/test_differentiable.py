"""The extractor without rounding: its bytes once rounded, and its gradients by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.data.quantization import quantize
from yt8m_gat.extraction.config import ExtractorConfig, FeatureConfig
from yt8m_gat.extraction.differentiable import HIGHEST, DifferentiableExtractor
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.extraction.extractor_parts import Models
from yt8m_gat.extraction.in_graph import PicturePart, SoundPart, resized
from yt8m_gat.extraction.loading import KerasEmbedding
from yt8m_gat.extraction.pca import PCA
from yt8m_gat.extraction.picture import PictureModel
from yt8m_gat.extraction.projection import Bytes, Standardize, Whiten
from yt8m_gat.extraction.sound import sound_model
from yt8m_gat.video.lossless import write_lossless

SIDE = 8
RATE = 20.0


def picture_model():
    """Frames [8, 8, 3] -> their mean red, green and blue, with a variable that does nothing."""
    layers = keras.layers
    inputs = keras.Input((SIDE, SIDE, 3))
    outputs = layers.Dense(3, kernel_initializer="identity")(
        layers.GlobalAveragePooling2D()(inputs)
    )
    return PictureModel(KerasEmbedding(keras.Model(inputs, outputs)), (SIDE, SIDE), 3)


def extractor(projection, crop=None):
    config = ExtractorConfig(
        picture=FeatureConfig(kind="keras", model="mean.keras", size=projection.size),
        sound=FeatureConfig(kind="log_mel", model="log_mel", size=64),
        frames_per_second=RATE,
        crop=crop,
    )
    sound = sound_model(config.sound, None, RATE)
    scale = Standardize(np.full(64, -3.0), np.full(64, 1.5))
    return Extractor(
        config, Models(picture_model(), sound), {"picture": projection, "sound": scale}
    )


def whitening():
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    return Whiten(PCA(np.full(3, 120.0), np.array([90.0, 20.0]), rotation[:2]))


@pytest.mark.parametrize("with_crop", [False, True])
def test_rounded_features_are_the_extractors_bytes(with_crop, tmp_path):
    """40 frames, which are two batches, of the model's size; and sound that ends early."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 12, 10, 3), np.uint8) // rng.integers(1, 6, (40, 1, 1, 3))
    images = images.astype(np.uint8)
    crop = (1, 3, SIDE, SIDE)
    if not with_crop:
        images, crop = images[:, :SIDE, :SIDE], None
    wave = rng.normal(0, 0.2, 30_000).astype(np.float32)
    write_lossless(tmp_path / "a.nut", images, RATE, wave)
    extract = extractor(whitening(), crop)
    expected = extract(tmp_path / "a.nut").features
    used = images[:, 3 : 3 + SIDE, 1 : 1 + SIDE] if with_crop else images
    chain = extract.differentiable(["rgb", "audio"])
    rgb = chain.of_pictures(tf.constant(used, tf.float32))
    np.testing.assert_array_equal(quantize(rgb).numpy(), expected["rgb"])
    assert expected["rgb"].std() > 20 and expected["rgb"].shape == (40, 2)
    heard = np.rint(np.clip(wave, -1, 1 - 2**-15) * 2**15).astype(np.float32) / 2**15
    audio = quantize(chain.of_sound(tf.constant(heard), 40)).numpy().astype(int)
    # The two log-mel spectra are computed by different libraries.
    assert np.abs(audio - expected["audio"]).max() <= 1
    assert (audio == expected["audio"]).mean() > 0.999 and expected["audio"].std() > 10


def test_larger_pictures_differ_by_the_rounding_of_resizing_alone():
    images = np.random.default_rng(1).integers(0, 256, (3, 30, 20, 3), np.uint8)
    chain = extractor(Standardize(np.full(3, 127.5), np.full(3, 100.0))).differentiable(["rgb"])
    features = chain.of_pictures(tf.constant(images, tf.float32)).numpy()
    small = np.stack([resized(tf.constant(image), (SIDE, SIDE)) for image in images])
    expected = (small.mean(axis=(1, 2)) - 127.5) / 100.0
    # The mean of 64 roundings of at most half a level.
    np.testing.assert_allclose(features, expected, atol=0.5 / 100)
    assert np.abs(features - expected).max() > 1e-5


def test_gradients_by_hand_also_inside_of_other_functions():
    """A pixel is 1/64 of its channel's mean, whose deviation is 50; channel 2 is out of range."""
    scale = Standardize(np.array([100.0, 100.0, -900.0]), np.full(3, 50.0))
    chain = extractor(scale).differentiable(["rgb"])
    pictures = tf.random.stateless_uniform([34, SIDE, SIDE, 3], (0, 1), maxval=200.0)
    weights = tf.random.stateless_uniform([34, 3], (2, 3))
    inner = tf.function(chain.of_pictures)
    outer = tf.function(lambda x: inner(x) * 1.0)
    expected = (weights * [1.0, 1.0, 0.0])[:, None, None] / (64 * 50)
    # First from within another function, whose trace the later call shares.
    for function in (outer, inner, chain.of_pictures):
        with tf.GradientTape() as tape:
            tape.watch(pictures)
            features = function(pictures)
            total = tf.reduce_sum(weights * features)
        gradient = tape.gradient(total, pictures)
        np.testing.assert_allclose(
            gradient, np.broadcast_to(expected, gradient.shape), rtol=1e-4, atol=1e-9
        )
    np.testing.assert_allclose(features[:, 2], HIGHEST, rtol=1e-6)


def test_gradients_of_sound_are_slopes():
    chain = extractor(whitening()).differentiable(["audio"])
    wave = tf.random.stateless_normal([4000], (1, 2), stddev=0.1)

    def energy(wave):
        return tf.reduce_sum(tf.square(chain.of_sound(wave, 5)))

    with tf.GradientTape() as tape:
        tape.watch(wave)
        value = energy(wave)
    gradient = tape.gradient(value, wave)
    step = 3e-4 * gradient / tf.norm(gradient)
    slope = (energy(wave + step) - energy(wave - step)) / 6e-4
    assert float(slope) == pytest.approx(float(tf.norm(gradient)), rel=0.01)


def test_what_has_no_gradient_is_refused():
    with pytest.raises(ValueError, match="without a part of the pictures"):
        DifferentiableExtractor(None, None).of_pictures(tf.zeros([1, 2, 2, 3]))
    with pytest.raises(ValueError, match="without a part of the sound"):
        DifferentiableExtractor(None, None).of_sound(tf.zeros([9]), 1)
    chain = DifferentiableExtractor(PicturePart(picture_model(), Bytes(3)), None)
    with pytest.raises(ValueError, match="Bytes has no unrounded values"):
        chain.of_pictures(tf.zeros([1, SIDE, SIDE, 3]))
    sound = SoundPart(
        sound_model(FeatureConfig(kind="log_mel", model="x"), None, 1.0), Bytes(64), 1.0
    )
    with pytest.raises(ValueError, match="Bytes has no unrounded values"):
        DifferentiableExtractor(None, sound).of_sound(tf.zeros([16_000]), 1)
