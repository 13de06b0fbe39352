"""ImageNet-C's corruptions over clips, against SciPy, NumPy and values by hand."""

import colorsys

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from yt8m_gat.attacks import corrupt, corruptions_of
from yt8m_gat.attacks.pixel_corruptions import (
    PIXEL_CORRUPTIONS,
    Draws,
    _disk,
    _motion_blur,
    clipped_zoom,
)

SHAPE = (2, 3, 20, 31, 3)


def clips(seed=0):
    return np.random.default_rng(seed).uniform(0, 255, SHAPE).astype(np.float32)


def corrupted(name, severity, x, seed=0, **options):
    mask = np.ones(x.shape[:2], bool)
    found, found_mask = corrupt(name, severity, {"image": x}, mask, seed, **options)
    np.testing.assert_array_equal(found_mask, mask)
    return found["image"].numpy()


def test_they_are_those_of_the_tables():
    names = ["gaussian_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "defocus_blur"]
    assert list(PIXEL_CORRUPTIONS) == [*names, "zoom_blur", "snow", "brightness"]
    assert corruptions_of(pixels=True)[:8] == tuple(PIXEL_CORRUPTIONS)
    with pytest.raises(ValueError, match=r"must be one of gaussian_noise.*Received: 'silent"):
        corrupted("silent_modality", 1, clips())


@pytest.mark.parametrize("name", corruptions_of(pixels=True))
def test_results_are_pixels_that_depend_on_the_seed_alone(name):
    x = clips()
    found = corrupted(name, 3, x, seed=4)
    assert found.shape == SHAPE and found.min() >= 0 and found.max() <= 255
    assert np.abs(found - x).max() > 1
    np.testing.assert_array_equal(found, corrupted(name, 3, x, seed=4))
    # (At severity 3 both frames after the first freeze.)
    drawn = {"gaussian_noise", "impulse_noise", "speckle_noise", "snow", "temporal_shuffle"}
    others = [corrupted(name, 3, x, seed=seed) for seed in (5, 6, 7)]
    assert all(np.array_equal(found, other) for other in others) == (name not in drawn)
    traced = tf.function(lambda x: corrupt(name, 3, {"image": x}, np.ones((2, 3), bool), 4))
    np.testing.assert_allclose(traced(tf.constant(x))[0]["image"], found, atol=1e-3)


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "speckle_noise", "snow"])
def test_frames_draw_alike_or_each_for_itself(name):
    same = np.repeat(np.full((2, 1, 20, 31, 3), 128, np.float32), 3, axis=1)
    own, shared = corrupted(name, 2, same), corrupted(name, 2, same, per_frame=False)
    assert not np.array_equal(own[:, 0], own[:, 1])
    np.testing.assert_array_equal(shared[:, 0], shared[:, 2])
    assert not np.array_equal(shared[0], shared[1])


def test_sizes_of_noise():
    gray = np.full((1, 1, 200, 200, 3), 127.5, np.float32)
    noise = corrupted("gaussian_noise", 2, gray) - gray
    assert noise.std() / 255 == pytest.approx(0.12, rel=0.02)
    speckles = corrupted("speckle_noise", 2, gray) - gray
    assert speckles.std() / 127.5 == pytest.approx(0.2, rel=0.02)
    impulses = corrupted("impulse_noise", 5, gray)
    assert (impulses == 0).mean() == pytest.approx(0.135, rel=0.05)
    assert (impulses == 255).mean() == pytest.approx(0.135, rel=0.05)


@pytest.mark.parametrize(("severity", "sigma"), [(1, 1.0), (3, 3.0), (5, 6.0)])
def test_gaussian_blur_is_scipys(severity, sigma):
    x = clips()
    expected = scipy.ndimage.gaussian_filter(x, (0, 0, sigma, sigma, 0), mode="nearest")
    np.testing.assert_allclose(corrupted("gaussian_blur", severity, x), expected, atol=0.01)


@pytest.mark.parametrize(("severity", "constants"), [(1, (3, 0.1)), (4, (8, 0.5)), (5, (10, 0.5))])
def test_defocus_blur_is_a_disk(severity, constants):
    kernel = _disk(*constants)
    assert kernel.shape == ((17, 17) if severity < 5 else (21, 21))
    # As in ImageNet-C: where the disk touches the edge of its square, the blur mirrors it.
    assert kernel.sum() == pytest.approx({1: 1.0, 4: 1.01298, 5: 1.01079}[severity], abs=1e-5)
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    if severity == 1:  # Hardly blurred: 29 places of a disk of radius 3.
        assert kernel[8, 8] == pytest.approx(1 / 29, rel=1e-6)
        assert kernel[8, 11] == pytest.approx(1 / 29) and kernel[8, 12] < 1e-6
    x = clips()
    # SciPy's mirror does not repeat the outermost pixel either.
    expected = scipy.ndimage.correlate(x, kernel[None, None, :, :, None], mode="mirror")
    np.testing.assert_allclose(corrupted("defocus_blur", severity, x), expected, atol=0.01)


@pytest.mark.parametrize("factor", [1.0, 1.04, 1.3, 2.5, 4.0])
def test_zoom_is_scipys_of_the_middle(factor):
    x = clips()[:1, :1, :, :20]  # A square, as in ImageNet-C.
    cut = int(np.ceil(20 / factor))
    top = (20 - cut) // 2
    middle = x[0, 0, top : top + cut, top : top + cut]
    zoomed = scipy.ndimage.zoom(middle, (factor, factor, 1), order=1)
    trim = (zoomed.shape[0] - 20) // 2
    expected = zoomed[trim : trim + 20, trim : trim + 20]
    np.testing.assert_allclose(clipped_zoom(tf.constant(x), factor)[0, 0], expected, atol=0.01)


def test_zoom_blur_averages_the_enlargements_and_the_picture():
    x = clips()
    factors = np.arange(1, 1.11, 0.01)
    expected = (x + sum(clipped_zoom(tf.constant(x), f) for f in factors)) / (len(factors) + 1)
    np.testing.assert_allclose(corrupted("zoom_blur", 1, x), expected, atol=0.01)
    assert len(PIXEL_CORRUPTIONS["zoom_blur"][1][4]) == 11


def test_motion_blurs_along_its_angle():
    x = np.zeros((1, 1, 21, 21, 1), np.float32)
    x[0, 0, 10, 10] = 1.0
    found = _motion_blur(tf.constant(x), 2, 4.0, tf.constant([[-90.0]])).numpy()[0, 0, :, :, 0]
    weights = np.exp(-0.5 * (np.arange(5) / 4.0) ** 2)
    np.testing.assert_allclose(found[10:15, 10], weights / weights.sum(), rtol=1e-5)
    assert found.sum() == pytest.approx(1.0, rel=1e-5)
    found = _motion_blur(tf.constant(x), 2, 4.0, tf.constant([[-45.0]])).numpy()[0, 0, :, :, 0]
    rows, columns = np.nonzero(found)
    # Half a pixel is rounded up, so that copies 0 to 4 move by 0, 1, 1, 2, 3 places.
    assert rows.tolist() == [10, 11, 12, 13]
    assert (20 - columns).tolist() == [10, 11, 12, 13]


def test_snow_bleaches_and_adds_flakes():
    dark = np.full((1, 2, 24, 24, 3), 51.0, np.float32)
    found = corrupted("snow", 1, dark) / 255
    bleached = 0.8 * 0.2 + 0.2 * (0.2 * 1.5 + 0.5)
    assert found.min() == pytest.approx(bleached, abs=1e-5)
    flakes = found - bleached
    assert flakes.max() > 0.05
    free = found.max(axis=-1) < 0.999
    flipped = flakes[:, :, ::-1, ::-1]
    np.testing.assert_allclose(flakes[free], flipped[free], atol=1e-5)
    angles = Draws(tf.constant([1, 900, 1, 1, 3]), tf.constant([1, 2]), True)
    angles = angles.uniform_of_frames(-135.0, -45.0).numpy()
    assert angles.min() >= -135 and angles.max() <= -45 and angles.std() > 20


def test_brightness_is_of_hue_saturation_and_value():
    x = clips()
    found = corrupted("brightness", 2, x)
    for place in [(0, 0, 0, 0), (1, 2, 5, 7)]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(x[place] / 255))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1))
        np.testing.assert_allclose(found[place] / 255, expected, atol=1e-4)


def test_order_of_frames():
    x = np.arange(8, dtype=np.float32)[None, :, None, None, None] * np.ones((1, 8, 2, 2, 3))

    def order(name, severity):
        return corrupted(name, severity, x)[0, :, 0, 0, 0].astype(int).tolist()

    assert order("temporal_reversal", 5) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert order("temporal_reversal", 2) == [2, 1, 0, 5, 4, 3, 7, 6]
    assert sorted(order("temporal_shuffle", 5)) == list(range(8))
    shuffled = order("temporal_shuffle", 3)
    assert sorted(shuffled[:4]) == [0, 1, 2, 3]
    assert order("frame_freeze", 5).count(0) >= 7
