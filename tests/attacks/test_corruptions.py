import numpy as np
import pytest
import tensorflow as tf
from attack_models import assert_padding_is_zero

from yt8m_gat.attacks import CORRUPTIONS, SEVERITIES, corrupt

LENGTHS = [40, 25, 1, 0]
ENTRY_NOISE = ("gaussian_noise", "impulse_noise", "speckle_noise")


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    features = {
        "rgb": tf.constant(rng.uniform(-1.9, 1.9, size=(4, 40, 200)), tf.float32),
        "audio": tf.constant(rng.uniform(-1.9, 1.9, size=(4, 40, 20)), tf.float32),
    }
    return features, tf.sequence_mask(LENGTHS, 40)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_padding_stays_zero_and_the_seed_decides(name, clips):
    features, mask = clips
    first, first_mask = corrupt(name, 3, features, mask, seed=1)
    again, _ = corrupt(name, 3, features, mask, seed=1)
    other, _ = corrupt(name, 3, features, mask, seed=2)
    assert_padding_is_zero(first, first_mask)
    np.testing.assert_array_equal(first["rgb"], again["rgb"])
    drawn = name not in ("temporal_blur", "constant_offset")
    assert (np.abs(first["rgb"] - other["rgb"]).max() > 0) == drawn
    clean = np.where(mask.numpy()[..., None], features["rgb"], 0)
    assert np.abs(first["rgb"] - clean)[:2].max() > 0.1
    if name != "frame_drop":
        np.testing.assert_array_equal(first_mask, mask)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "frame_drop"])
def test_severity_grows(name, clips):
    features, mask = clips
    real = mask.numpy()[..., None]
    sizes = []
    for severity in SEVERITIES:
        corrupted, _ = corrupt(name, severity, features, mask, seed=1)
        change = sum(
            np.abs((corrupted[k].numpy() - v) * real)[0].sum() for k, v in features.items()
        )
        sizes.append(change)
    if name in ("temporal_shuffle", "silent_modality"):
        assert sizes[-1] > sizes[0]
    else:
        assert np.all(np.diff(sizes) > 0)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_statistics(severity, clips):
    features, mask = clips
    real = mask.numpy()
    clean = features["rgb"].numpy()[real]

    def change(name):
        return corrupt(name, severity, features, mask, seed=3)[0]["rgb"].numpy()[real] - clean

    # 13,200 entries: the standard error of a deviation is 0.6 %, of a share 0.4 points at most.
    share = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    noise = change("gaussian_noise")
    np.testing.assert_allclose(noise.std(), 4 * share, rtol=0.03)
    assert abs(noise.mean()) < 0.1 * noise.std()

    share = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    relative = change("speckle_noise") / clean
    relative = relative[np.abs(clean) > 1e-2]
    np.testing.assert_allclose(relative.std(), share, rtol=0.03)

    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    values = change("impulse_noise") + clean
    high, low = (np.abs(values - extreme) < 1e-5 for extreme in (2, -2))
    np.testing.assert_allclose([high.mean(), low.mean()], share / 2, atol=0.012)
    np.testing.assert_allclose(values[~(high | low)], clean[~(high | low)], atol=1e-6)

    np.testing.assert_allclose(change("constant_offset"), 0.4 * severity, rtol=1e-5)


def test_noise_of_the_modalities_is_independent(clips):
    _, mask = clips
    same = {"a": tf.ones([4, 40, 50]), "b": tf.ones([4, 40, 50])}
    real = mask.numpy()
    for name in ENTRY_NOISE:
        noisy, _ = corrupt(name, 3, same, mask, seed=1)
        a, b = (noisy[k].numpy()[real].ravel() - 1 for k in ("a", "b"))
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_blur_equals_a_loop_over_real_frames(clips):
    features, mask = clips
    blurred, _ = corrupt("temporal_blur", 2, features, mask)
    for clip, length in enumerate(LENGTHS):
        for frame in range(length):
            weights = np.exp(-0.5 * ((np.arange(length) - frame) / 2.0) ** 2)
            row = weights @ features["audio"].numpy()[clip, :length] / weights.sum()
            np.testing.assert_allclose(blurred["audio"][clip, frame], row, atol=1e-5)


def indexed(clips):
    """Clips whose frames say which they are, counted from 1."""
    _, mask = clips
    index = tf.range(1.0, 41.0)[None, :, None]
    return {"rgb": tf.tile(index, [4, 1, 2]), "audio": tf.tile(index, [4, 1, 1])}, mask


@pytest.mark.parametrize(
    ("severity", "share"), zip(SEVERITIES, (0.1, 0.25, 0.5, 0.75, 0.9), strict=True)
)
def test_frame_drop_shortens_and_keeps_the_order(severity, share, clips):
    features, mask = indexed(clips)
    dropped, shorter = corrupt("frame_drop", severity, features, mask, seed=2)
    for clip, length in enumerate(LENGTHS):
        kept = max(length - round(share * length), min(length, 1))
        assert shorter.numpy()[clip].sum() == kept
        assert shorter.numpy()[clip, :kept].all()
        frames = dropped["rgb"].numpy()[clip, :kept, 0]
        assert np.all(np.diff(frames) > 0) and set(frames) <= set(range(1, length + 1))
        np.testing.assert_array_equal(dropped["audio"].numpy()[clip, :kept, 0], frames)


@pytest.mark.parametrize(
    ("severity", "share"), zip(SEVERITIES, (0.1, 0.25, 0.5, 0.75, 0.9), strict=True)
)
def test_frame_freeze_repeats_the_last_frame_that_arrived(severity, share, clips):
    features, mask = indexed(clips)
    frozen, _ = corrupt("frame_freeze", severity, features, mask, seed=2)
    for clip, length in enumerate(LENGTHS):
        frames = frozen["rgb"].numpy()[clip, :length, 0].astype(int)
        times = np.arange(1, length + 1)
        repeated = frames != times
        assert repeated.sum() == min(round(share * length), max(length - 1, 0))
        for time in range(length):
            expected = frames[time - 1] if repeated[time] else time + 1
            assert frames[time] == expected
        np.testing.assert_array_equal(frozen["audio"].numpy()[clip, :length, 0], frames)


@pytest.mark.parametrize(("severity", "window"), zip(SEVERITIES, (2, 5, 15, 60, 60), strict=True))
def test_temporal_shuffle_permutes_within_stretches(severity, window, clips):
    features, mask = indexed(clips)
    shuffled, _ = corrupt("temporal_shuffle", severity, features, mask, seed=2)
    for clip, length in enumerate(LENGTHS):
        frames = shuffled["rgb"].numpy()[clip, :length, 0]
        np.testing.assert_array_equal(np.sort(frames), np.arange(1, length + 1))
        np.testing.assert_array_equal((frames - 1) // window, np.arange(length) // window)
        np.testing.assert_array_equal(shuffled["audio"].numpy()[clip, :length, 0], frames)
    assert np.any(shuffled["rgb"].numpy()[0, :, 0] != np.arange(1, 41))


@pytest.mark.parametrize(
    ("severity", "share"), zip(SEVERITIES, (0.2, 0.4, 0.6, 0.8, 1.0), strict=True)
)
def test_silent_modality_is_one_run_of_one_modality(severity, share):
    features = {"rgb": tf.ones([60, 10, 2]), "audio": tf.ones([60, 10, 1])}
    mask = tf.ones([60, 10], tf.bool)
    silent, _ = corrupt("silent_modality", severity, features, mask, seed=2)
    rgb, audio = ((silent[k].numpy() == 0).all(-1) for k in ("rgb", "audio"))
    assert np.all((rgb.any(1)) ^ (audio.any(1)))
    assert 15 < rgb.any(1).sum() < 45
    for row in rgb | audio:
        places = np.flatnonzero(row)
        assert len(places) == round(10 * share)
        assert places[-1] - places[0] + 1 == len(places)


def test_a_silence_begins_at_any_frame_that_leaves_room_for_it():
    features = {"rgb": tf.ones([400, 6, 1]), "audio": tf.ones([400, 6, 1])}
    mask = tf.sequence_mask([5] * 400, 6)  # A share of 0.4 is 2 frames of 5.
    silent, _ = corrupt("silent_modality", 2, features, mask, seed=1)
    gone = (silent["rgb"].numpy() * silent["audio"].numpy())[:, :5, 0] == 0
    begins, counts = np.unique(gone.argmax(axis=1), return_counts=True)
    np.testing.assert_array_equal(begins, range(4))
    # 100 expected of each, with a standard deviation of 8.7.
    assert counts.min() > 60


def test_works_in_a_function_of_unknown_shape(clips):
    features, mask = clips

    @tf.function(
        input_signature=[
            {k: tf.TensorSpec([None, None, v.shape[-1]]) for k, v in features.items()},
            tf.TensorSpec([None, None], tf.bool),
        ]
    )
    def everything(features, mask):
        return {name: corrupt(name, 2, features, mask, seed=1) for name in CORRUPTIONS}

    for name, (got, got_mask) in everything(features, mask).items():
        want, want_mask = corrupt(name, 2, features, mask, seed=1)
        np.testing.assert_array_equal(got_mask, want_mask)
        for key, value in want.items():
            np.testing.assert_allclose(got[key], value, atol=1e-5)


def test_unknown_names_and_severities_are_errors(clips):
    with pytest.raises(ValueError, match=r"one of gaussian_noise, .*Received: 'fog'"):
        corrupt("fog", 1, *clips)
    with pytest.raises(ValueError, match=r"must be 1, 2, 3, 4 or 5. Received: severity=6"):
        corrupt("frame_drop", 6, *clips)
