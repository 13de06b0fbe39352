"""AttentionGru against a loop written from the equations."""

import keras
import numpy as np
import pytest

from yt8m_gat.models import FRAME_MASK, build_model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def states_of(frames, gru):
    """States after each of `frames` [n, D]; gates in Keras' order: update, reset, candidate."""
    kernel, recurrent_kernel, (bias, recurrent_bias) = gru.get_weights()
    h = np.zeros(recurrent_kernel.shape[0])
    states = []
    for x in frames:
        of_x = np.split(x @ kernel + bias, 3)
        of_h = np.split(h @ recurrent_kernel + recurrent_bias, 3)
        z, r = (sigmoid(a + b) for a, b in zip(of_x[:2], of_h[:2], strict=True))
        h = z * h + (1 - z) * np.tanh(of_x[2] + r * of_h[2])
        states.append(h)
    return np.array(states)


def pooled(frames, pooling):
    kernel, bias, query = pooling.get_weights()
    scores = [float(np.tanh(x @ kernel + bias) @ query[:, 0]) for x in frames]
    weights = np.exp(scores) / np.exp(scores).sum()
    return sum(weight * x for weight, x in zip(weights, frames, strict=True))


@pytest.mark.parametrize("gru_layers", [1, 2])
def test_logits_are_those_of_the_equations(gru_layers):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = build_model("AttentionGru", {"a": 3, "b": 2}, 4, gru_cells=5, gru_layers=gru_layers)
    model.set_weights([rng.normal(0, 0.7, w.shape) for w in model.get_weights()])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]], bool)
    features = {"a": rng.normal(size=(3, 4, 3)), "b": rng.normal(size=(3, 4, 2))}
    (w, b), (kernel, bias) = model.hidden.get_weights(), model.head.get_weights()
    expected = []
    for clip in range(3):
        parts = []
        for index, (x, pooling) in enumerate(zip(features.values(), model.poolings, strict=True)):
            frames = x[clip, mask[clip]]
            for layer in range(gru_layers):
                ahead, back = model.grus[2 * (index * gru_layers + layer) :][:2]
                frames = np.concatenate(
                    [states_of(frames, ahead), states_of(frames[::-1], back)[::-1]], axis=1
                )
            parts.append(pooled(frames, pooling))
        expected.append(np.maximum(np.concatenate(parts) @ w + b, 0) @ kernel + bias)
    inputs = {name: x.astype("float32") for name, x in features.items()}
    np.testing.assert_allclose(model({**inputs, FRAME_MASK: mask}), expected, atol=1e-4)


def test_parameters_at_full_size(monkeypatch):
    """A GRU of H cells with D inputs has 3 H (D + H + 2) weights (two biases)."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling, "__call__", lambda self, shape, **_: np.zeros(shape)
    )
    monkeypatch.setattr(
        keras.initializers.Orthogonal, "__call__", lambda self, shape, **_: np.zeros(shape)
    )
    grus = sum(2 * 3 * 1024 * (size + 1024 + 2) for size in (1024, 128))
    attention = 2 * (2048 * 2048 + 2048 + 2048)
    model = build_model("AttentionGru", {"rgb": 1024, "audio": 128}, 3862)
    assert model.count_params() == grus + attention + (4096 + 1) * 1024 + (1024 + 1) * 3862


@pytest.mark.parametrize("size", ["gru_cells", "gru_layers"])
def test_sizes_that_cannot_work(size):
    with pytest.raises(ValueError, match=f"`{size}` must be positive. Received: {size}=0"):
        build_model("AttentionGru", {"a": 3}, 4, **{size: 0})
