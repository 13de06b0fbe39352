"""Attention to other modalities, against Keras' multi-head attention with the same weights."""

import keras
import numpy as np
import pytest

from yt8m_gat.layers import CrossModalAttention
from yt8m_gat.models import build_model


def built(clips, num_heads=2):
    x, frame_mask = clips
    rng = np.random.default_rng(1)
    others = rng.normal(size=(4, 11, 6)).astype("float32")
    layer = CrossModalAttention(num_heads)
    layer(x, others)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer, x, others, frame_mask


def test_it_is_that_of_keras_on_the_real_frames(clips):
    layer, x, others, frame_mask = built(clips)
    theirs = keras.layers.MultiHeadAttention(num_heads=2, key_dim=4, output_shape=8)
    theirs(x, others)
    values = [
        (layer.kernels[name].numpy(), layer.biases[name].numpy())
        for name in ("query", "key", "value")
    ]
    weights = [
        part for kernel, bias in values for part in (kernel.reshape(-1, 2, 4), bias.reshape(2, 4))
    ]
    output = layer.kernels["output"].numpy().reshape(2, 4, 8)
    theirs.set_weights([*weights, output, layer.biases["output"].numpy()])
    expected = x + theirs(x, others, attention_mask=frame_mask[:, None, :])
    expected = np.where(frame_mask[..., None], expected, 0)
    found = layer(x, others, frame_mask=frame_mask)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert not np.any(found[3])  # A clip without a real frame.
    np.testing.assert_allclose(layer(x, others), x + theirs(x, others), atol=2e-5)


@pytest.mark.slow
def test_the_transformer_attends_across_features_and_survives_a_file(tmp_path):
    options = {"num_heads": 2, "hidden_size": 5, "feed_forward_size": 4}
    sizes = {"rgb": 6, "audio": 4}
    model = build_model("Transformer", sizes, 3, cross_modal=True, **options)
    plain = build_model("Transformer", sizes, 3, **options)
    # Q and the output are D x D, K and V D' x D, each with a bias: D = 6, D' = 4, and reversed.
    added = 2 * 6 * 6 + 2 * 4 * 6 + 4 * 6 + 2 * 4 * 4 + 2 * 6 * 4 + 4 * 4
    assert model.count_params() - plain.count_params() == added
    rng = np.random.default_rng(0)
    clip = {name: rng.normal(size=(1, 5, size)).astype("float32") for name, size in sizes.items()}
    mask = np.array([[True, True, True, False, False]])
    frames = model.forward(clip, mask).frames.numpy()
    louder = {**clip, "audio": clip["audio"] + np.arange(5)[:, None].astype("float32") ** 2}
    moved = model.forward(louder, mask).frames.numpy()
    assert np.abs(moved - frames)[0, :3, :6].max() > 1e-3  # The picture hears the sound.
    assert not np.any(frames[0, 3:])
    padded = {**clip, "rgb": np.where(mask[..., None], clip["rgb"], 9).astype("float32")}
    np.testing.assert_array_equal(model.forward(padded, mask).frames, frames)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras").forward(clip, mask)
    np.testing.assert_array_equal(again.frames, frames)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="`cross_modal` needs at least two features"):
        build_model("Transformer", {"rgb": 4}, 3, cross_modal=True, num_heads=2)
    with pytest.raises(ValueError, match="`num_heads` must be positive"):
        CrossModalAttention(0)
