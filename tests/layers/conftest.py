"""Shared parts of the layers' tests: inputs with padding, slow oracles, the layer contract."""

import keras
import numpy as np
import pytest
import tensorflow as tf

LENGTHS = (11, 7, 1, 0)


@pytest.fixture
def clips():
    """Four clips of 11 frames, of which 11, 7, 1 and 0 are real, with 8 features. The padding is
    noise, so that no test passes only because it is zero."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 11, 8)).astype("float32")
    frame_mask = np.arange(11) < np.array(LENGTHS)[:, None]
    return x, frame_mask


def neighbours(form, frame, num_frames):
    """Returns the frames that `frame` attends to, by the wording of the paper (2.2)."""
    if form == "global":
        return list(range(num_frames))
    if form.startswith("bd"):
        window = int(form[2:])
        first = next(s for s in range(0, num_frames, window) if s <= frame < s + window)
        return list(range(first, min(first + window, num_frames)))
    window, _, dilation = form[2:].partition("x")
    reach = range(-int(window), int(window) + 1)
    steps = [step for step in reach if step % int(dilation or 1) == 0]
    return [frame + step for step in steps if 0 <= frame + step < num_frames]


def slow_map(form, query, key, length):
    """Computes one head's map [T, T] with loops in float64. query, key: [T, H]."""
    num_frames, size = query.shape
    attention_map = np.zeros((num_frames, num_frames))
    for i in range(length):
        reach = [j for j in neighbours(form, i, num_frames) if j < length]
        scores = [float(np.dot(query[i], key[j])) / size**0.5 for j in reach]
        exponentials = [np.exp(score - max(scores)) for score in scores]
        for j, exponential in zip(reach, exponentials, strict=True):
            attention_map[i, j] = exponential / sum(exponentials)
    return attention_map


class SlowHeads:
    """Q, K and V of an attention layer from its weights, one clip and one head at a time."""

    def __init__(self, layer, x, frame_mask):
        self.num_heads = layer.num_heads
        self.lengths = frame_mask.sum(axis=1)
        projected = x.astype("float64") @ layer.projection_kernel.numpy()
        projected += layer.projection_bias.numpy()
        self.query, self.key, self.value = np.split(projected, 3, axis=-1)

    def head(self, tensor, clip, head):
        size = tensor.shape[-1] // self.num_heads
        return tensor[clip, :, head * size : (head + 1) * size]

    def map(self, form, clip, head):
        """[T, T]."""
        query, key = self.head(self.query, clip, head), self.head(self.key, clip, head)
        return slow_map(form, query, key, self.lengths[clip])

    def context(self, forms_of_heads, clip):
        """concat(O_1, ..., O_N) [T, D], each head at its own level."""
        return np.concatenate(
            [
                self.map(form, clip, head) @ self.head(self.value, clip, head)
                for head, form in enumerate(forms_of_heads)
            ],
            axis=-1,
        )


def _randomized(layer):
    """Gives the biases and normalization weights of a built layer values other than 0 and 1."""
    rng = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(variable + rng.normal(size=variable.shape) * 0.5)


@pytest.fixture
def randomize_vectors():
    return _randomized


@pytest.fixture
def check_frame_layer(clips, tmp_path):
    """Checks the contract of every layer from frames to frames; returns the layer's output."""

    def check(layer, *, fixed_num_frames=False):
        x, frame_mask = clips
        num_frames = x.shape[1] if fixed_num_frames else None
        frames = keras.Input((num_frames, x.shape[2]))
        mask = keras.Input((num_frames,), dtype="bool")
        outputs = layer(frames, frame_mask=mask)
        assert outputs.shape == (None, num_frames, x.shape[2])
        _randomized(layer)
        y = keras.ops.convert_to_numpy(layer(x, frame_mask=frame_mask))
        assert y.shape == x.shape
        assert np.isfinite(y).all()

        # Padded rows are 0, and the values of padded frames do not change the real rows.
        assert (y[~frame_mask] == 0).all()
        other_padding = np.where(frame_mask[..., None], x, 50.0)
        other = layer(other_padding, frame_mask=frame_mask)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(other), y)

        # No mask equals a mask of ones.
        np.testing.assert_allclose(
            layer(x), layer(x, frame_mask=np.ones_like(frame_mask)), rtol=0, atol=1e-6
        )

        # A graph with unknown sizes and XLA give the same.
        signature = [tf.TensorSpec((None, num_frames, x.shape[2])), tf.TensorSpec((None, None))]
        graph = tf.function(lambda a, m: layer(a, frame_mask=m), input_signature=signature)
        np.testing.assert_allclose(graph(x, frame_mask.astype("float32")), y, rtol=0, atol=2e-6)
        xla = tf.function(lambda a, m: layer(a, frame_mask=m), jit_compile=True)
        np.testing.assert_allclose(xla(x, frame_mask), y, rtol=0, atol=1e-5)

        # The configuration and a file restore the layer.
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        path = tmp_path / "model.keras"
        keras.Model([frames, mask], outputs).save(path)
        loaded = keras.models.load_model(path)
        np.testing.assert_allclose(loaded([x, frame_mask]), y, rtol=0, atol=2e-6)

        # Mixed precision gives the same function of the same weights, finite, in the narrow type.
        for policy, tolerance in (("mixed_bfloat16", 0.1), ("mixed_float16", 0.02)):
            config = _with_policy(layer.get_config(), policy)
            narrow = type(layer).from_config(config)
            narrow.build(x.shape)
            narrow.set_weights(layer.get_weights())
            output = narrow(x, frame_mask=frame_mask)
            assert output.dtype == policy.removeprefix("mixed_")
            np.testing.assert_allclose(
                tf.cast(output, "float32"), y, rtol=tolerance, atol=tolerance
            )
        return y

    return check


def _with_policy(config, policy):
    config = {**config, "dtype": policy}
    if "attention" in config:
        attention = config["attention"]
        config["attention"] = {
            **attention,
            "config": _with_policy(attention["config"], policy),
        }
    return config


@pytest.fixture
def neighbours_of():
    return neighbours


@pytest.fixture
def slow_attention_map():
    return slow_map


@pytest.fixture
def slow_heads():
    return SlowHeads
