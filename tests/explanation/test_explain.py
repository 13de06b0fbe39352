"""Explanations of a clip: closed form on a linear model, exact zeros on padding."""

import inspect
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.spatial import distance

from yt8m_gat.explanation.explain import explain
from yt8m_gat.explanation.frame_similarity import frame_similarity
from yt8m_gat.models.registry import build_model

sys.path.append(str(Path(__file__).parents[1] / "data"))
from tiny_clip_model import TinyClipModel

SIZES = {"rgb": 16, "audio": 8}
REAL = np.array([True, True, True, False, False])


def clip(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(len(REAL), size)).astype("float32") * REAL[:, None]
        for name, size in SIZES.items()
    }


@pytest.fixture(scope="module")
def explanation():
    keras.utils.set_random_seed(1)
    model = build_model("GAT", SIZES, 4, 5, local_masks=("bd2",), hidden_size=8, num_heads=2)
    return explain(model, clip(), REAL, label=2, smooth_samples=3)


def test_padded_frames_are_exactly_zero(explanation):
    for curves in (explanation.saliency, explanation.smooth_grad, explanation.attention):
        assert set(curves) == set(SIZES)
        for curve in curves.values():
            assert curve.shape == (5,)
            assert (curve[~REAL] == 0).all() and (curve[REAL] > 0).all()
    assert (explanation.grad_cam[~REAL] == 0).all()
    assert np.isfinite(explanation.grad_cam).all()


def test_attention_sums_to_one(explanation):
    for curve in explanation.attention.values():
        assert curve.sum() == pytest.approx(1.0, abs=1e-5)


def test_maps_of_single_heads_and_similarity(explanation):
    """The profile is the mean of the heads and rows; of similarities, an oracle in SciPy."""
    for name, maps in explanation.maps.items():
        assert maps.shape == (2, 3, 3)
        np.testing.assert_allclose(maps.sum(axis=2), 1, atol=1e-5)
        np.testing.assert_allclose(
            maps.mean(axis=(0, 1)), explanation.attention[name][REAL], rtol=1e-5
        )
        expected = 1 - distance.squareform(distance.pdist(clip()[name][REAL], "cosine"))
        np.testing.assert_allclose(explanation.similarity[name], expected, atol=1e-6)


def test_a_frame_of_zeros_is_like_no_other():
    similarity = frame_similarity(np.array([[0.0, 0.0], [-2.0, 0.0], [4.0, 0.0]]))
    assert similarity.tolist() == [[0, 0, 0], [0, 1, -1], [0, -1, 1]]


def test_saliency_of_a_mean_of_frames_is_its_weights():
    model = build_model("FrameLevelLogisticModel", SIZES, 4, 5)
    found = explain(model, clip(), REAL, label=1, smooth_samples=2)
    kernel = next(w.numpy() for w in model.weights if w.shape == (24, 4))[:, 1]
    # logit = w . mean of 3 frames: |d logit / d x_t| = |w| / 3 at each real frame, noise or not.
    for name, part in (("rgb", kernel[:16]), ("audio", kernel[16:])):
        expected = np.abs(part).max() / 3 * REAL
        np.testing.assert_allclose(found.saliency[name], expected, rtol=1e-5)
        np.testing.assert_allclose(found.smooth_grad[name], expected, rtol=1e-5)
    assert found.grad_cam is None and found.attention == {}


def test_saliency_of_a_raw_clip_is_one_number_a_frame():
    """Of a linear model on the mean colors of its frames: the largest weight of a frame's three."""
    model = TinyClipModel({"image": 3}, 4, num_segments=5, crop_size=2)
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 2, 2, 3))
    found = explain(model, {"image": pixels}, np.ones(5, bool), label=1, smooth_samples=2)
    weights = model.dense.kernel.numpy()[:, 1].reshape(5, 3)
    expected = np.abs(weights).max(axis=1) / (255 * 2 * 2)
    np.testing.assert_allclose(found.saliency["image"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.smooth_grad["image"], expected, rtol=1e-5)


def test_refuses_what_cannot_be_explained():
    model = build_model("FrameLevelLogisticModel", SIZES, 4, 5)
    with pytest.raises(ValueError, match="Received: label=4"):
        explain(model, clip(), REAL, label=4)
    with pytest.raises(ValueError, match="without real frames"):
        explain(model, clip(), np.zeros(5, bool), label=0)


def test_the_noise_of_smooth_grad_is_a_tenth_of_the_range():
    parameters = inspect.signature(explain).parameters
    assert {name: parameters[name].default for name in ("smooth_samples", "smooth_noise")} == {
        "smooth_samples": 20,
        "smooth_noise": 0.1,
    }
