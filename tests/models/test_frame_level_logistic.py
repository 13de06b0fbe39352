"""FrameLevelLogisticModel in closed form."""

import numpy as np

from yt8m_gat.models import FRAME_MASK, build_model


def test_logits_are_an_affine_map_of_the_mean_real_frame():
    rng = np.random.default_rng(0)
    model = build_model("FrameLevelLogisticModel", {"a": 3, "b": 2}, 4)
    kernel, bias = model.head.get_weights()
    a, b = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 2))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
    expected = [
        np.concatenate([a[i, mask[i]], b[i, mask[i]]], axis=1).mean(axis=0) @ kernel + bias
        for i in range(2)
    ]
    logits = model({"a": a.astype("float32"), "b": b.astype("float32"), FRAME_MASK: mask})
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_fresh_model_has_the_starters_penalty():
    """1e-8 * ||W||^2 / 2, of the kernel only."""
    model = build_model("FrameLevelLogisticModel", {"a": 3}, 4)
    model.head.set_weights([np.full((3, 4), 2.0), np.full(4, 7.0)])
    np.testing.assert_allclose(float(sum(model.losses)), 1e-8 * 12 * 4 / 2, rtol=1e-6)
