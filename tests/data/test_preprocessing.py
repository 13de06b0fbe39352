import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.data import normalize_features, preprocess

RNG = np.random.default_rng(0)
NUM_FRAMES = np.array([3, 1, 5], np.int32)
FRAMES = {
    "a": RNG.integers(0, 256, (3, 5, 4), dtype=np.uint8),
    "b": RNG.integers(0, 256, (3, 5, 2), dtype=np.uint8),
}


def expected(normalize):
    """One real frame at a time, in float64."""
    out = {name: np.zeros(x.shape) for name, x in FRAMES.items()}
    for clip, num_frames in enumerate(NUM_FRAMES):
        for t in range(num_frames):
            rows = {n: x[clip, t] * (4 / 255) + (4 / 512 - 2) for n, x in FRAMES.items()}
            if normalize == "per_feature":
                rows = {n: row / np.linalg.norm(row) for n, row in rows.items()}
            elif normalize == "concat":
                norm = np.linalg.norm(np.concatenate(list(rows.values())))
                rows = {n: row / norm for n, row in rows.items()}
            for name, row in rows.items():
                out[name][clip, t] = row
    return out


def tensors():
    return {name: tf.constant(x) for name, x in FRAMES.items()}


@pytest.mark.parametrize("normalize", ["none", "per_feature", "concat"])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_frames_against_numpy(normalize, mode):
    def run(features, num_frames):
        return preprocess(features, num_frames, normalize)

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla")
    features, mask = run(tensors(), tf.constant(NUM_FRAMES))
    np.testing.assert_array_equal(mask, np.arange(5) < NUM_FRAMES[:, None])
    assert mask.dtype == tf.bool
    for name, value in expected(normalize).items():
        assert features[name].dtype == tf.float32
        np.testing.assert_allclose(features[name], value, atol=1e-6)
        np.testing.assert_array_equal(features[name].numpy()[~mask.numpy()], 0.0)


def test_default_does_not_normalize():
    features, _ = preprocess(tensors(), tf.constant(NUM_FRAMES))
    np.testing.assert_allclose(features["a"], expected("none")["a"], atol=1e-6)


def test_padding_bytes_do_not_matter():
    first, _ = preprocess(tensors(), tf.constant(NUM_FRAMES), "concat")
    changed = {name: x.copy() for name, x in FRAMES.items()}
    for x in changed.values():
        x[np.arange(5) >= NUM_FRAMES[:, None]] ^= 0xFF
    second, _ = preprocess(
        {name: tf.constant(x) for name, x in changed.items()}, tf.constant(NUM_FRAMES), "concat"
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_dequantized_already(dtype):
    """NaN on padding does not matter either."""
    values = {name: RNG.normal(size=x.shape).astype(dtype) for name, x in FRAMES.items()}
    real = np.arange(5) < NUM_FRAMES[:, None]
    given = {name: tf.constant(np.where(real[..., None], x, np.nan)) for name, x in values.items()}
    features, mask = preprocess(given, tf.constant(NUM_FRAMES))
    np.testing.assert_array_equal(mask, real)
    for name, x in values.items():
        assert features[name].dtype == tf.float32
        np.testing.assert_array_equal(
            features[name], np.where(real[..., None], x, 0).astype("float32")
        )


def test_a_mask_takes_the_place_of_num_frames():
    """A mask may have any type and any places of real frames."""
    real = RNG.permuted(np.arange(5) < NUM_FRAMES[:, None], axis=1)
    assert not np.array_equal(real, np.arange(5) < NUM_FRAMES[:, None])
    for given in (real, real.astype(np.float32)):
        features, mask = preprocess(tensors(), frame_mask=tf.constant(given))
        assert mask.dtype == tf.bool
        np.testing.assert_array_equal(mask, real)
        for name, x in FRAMES.items():
            values = x * (4 / 255) + (4 / 512 - 2)
            np.testing.assert_allclose(
                features[name], np.where(real[..., None], values, 0), atol=1e-6
            )


@pytest.mark.parametrize("normalize", ["none", "per_feature", "concat"])
def test_video_level_is_normalized_but_not_dequantized(normalize):
    values = {"a": RNG.normal(size=(3, 4)), "b": RNG.normal(size=(3, 2))}
    features, mask = preprocess(
        {name: tf.constant(x, tf.float32) for name, x in values.items()}, None, normalize
    )
    assert mask is None
    joint = np.linalg.norm(np.concatenate(list(values.values()), axis=1), axis=1, keepdims=True)
    for name, x in values.items():
        norm = {
            "none": 1.0,
            "per_feature": np.linalg.norm(x, axis=1, keepdims=True),
            "concat": joint,
        }[normalize]
        np.testing.assert_allclose(features[name], x / norm, atol=1e-6)


@pytest.mark.parametrize("normalize", ["per_feature", "concat"])
def test_a_zero_vector_stays_zero_and_has_a_finite_gradient(normalize):
    x = tf.zeros([1, 3])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = normalize_features({"a": x}, normalize)["a"]
    np.testing.assert_array_equal(y, np.zeros([1, 3]))
    assert np.isfinite(tape.gradient(y, x)).all()


def test_refuses():
    with pytest.raises(ValueError, match=r"--normalize must be one of none.*Received: 'l2'"):
        preprocess(tensors(), tf.constant(NUM_FRAMES), "l2")
    with pytest.raises(ValueError, match=r"must be uint8, .* or floats.* Received: int32 for 'a'"):
        preprocess({"a": tf.zeros([1, 2, 3], tf.int32)}, tf.constant([1]))
    with pytest.raises(ValueError, match=r"for raw clips. Received: shape \(1, 2\) for 'a'"):
        preprocess({"a": tf.zeros([1, 2])}, tf.constant([1]))
    with pytest.raises(ValueError, match="both say which frames are real; give one of them"):
        preprocess(tensors(), tf.constant(NUM_FRAMES), frame_mask=tf.ones([3, 5], tf.bool))
    with pytest.raises(ValueError, match=r"must be floats. Received: uint8 for 'a'"):
        preprocess(tensors())
    with pytest.raises(ValueError, match=r"at least one feature"):
        preprocess({}, tf.constant([1]))


def test_bytes_of_raw_clips_are_the_values_of_their_pixels():
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), np.uint8)
    features, mask = preprocess({"image": tf.constant(clips)}, tf.constant([3, 2]))
    np.testing.assert_array_equal(mask, [[True, True, True], [True, True, False]])
    expected = clips.astype(np.float32)
    expected[1, 2] = 0
    np.testing.assert_array_equal(features["image"], expected)
    with pytest.raises(ValueError, match="raw clips are not l2-normalized"):
        preprocess({"image": tf.constant(clips)}, tf.constant([3, 2]), "concat")
