"""LstmModel against a loop written from the equations."""

import keras
import numpy as np
import pytest

from yt8m_gat.models import FRAME_MASK, build_model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def last_state(frames, layers):
    """Top state after the last of `frames` [n, D]; gates in Keras' order: input, forget, cell,
    output (Hochreiter and Schmidhuber, 1997, with forget gates)."""
    for kernel, recurrent_kernel, bias in layers:
        h = c = np.zeros(recurrent_kernel.shape[0])
        states = []
        for x in frames:
            i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            states.append(h)
        frames = np.array(states)
    return frames[-1]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return build_model(
        "LstmModel",
        {"a": 3, "b": 2},
        4,
        lstm_cells=6,
        video_level_classifier_model="LogisticModel",
    )


@pytest.mark.parametrize(
    "mask",
    [
        [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]],
        # Frames that were dropped from within a clip.
        [[1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]],
    ],
)
def test_logits_are_the_heads_of_the_state_after_the_last_real_frame(model, mask):
    rng = np.random.default_rng(0)
    mask = np.array(mask, bool)
    a, b = rng.normal(size=(3, 5, 3)), rng.normal(size=(3, 5, 2))
    layers = [lstm.get_weights() for lstm in model.lstms]
    kernel, bias = model.head.get_weights()
    expected = [
        last_state(np.concatenate([a[i, mask[i]], b[i, mask[i]]], axis=1), layers) @ kernel + bias
        for i in range(3)
    ]
    logits = model({"a": a.astype("float32"), "b": b.astype("float32"), FRAME_MASK: mask})
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_forget_gates_start_open(model):
    for lstm in model.lstms:
        _, forget, _, _ = np.split(lstm.get_weights()[2], 4)
        np.testing.assert_array_equal(forget, 1)
