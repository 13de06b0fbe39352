import librosa
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.extraction.log_mel import log_mel, mel_filters, num_frames


def waveform(num_samples=16_000, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 16_000
    return (
        0.3 * np.sin(2 * np.pi * (300 + 900 * time) * time) + rng.normal(0, 0.1, num_samples)
    ).astype(np.float32)


def test_is_librosas_spectrogram_under_tensorflows_filters():
    x = waveform()
    # librosa puts the window of 400 in the middle of 512 samples.
    padded = np.concatenate([np.zeros(56, np.float32), x, np.zeros(56, np.float32)])
    magnitudes = np.abs(
        librosa.stft(padded, n_fft=512, hop_length=160, win_length=400, center=False)
    ).T
    filters = tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7500.0).numpy()
    expected = np.log(magnitudes @ filters + 0.01)
    assert log_mel(x).shape == expected.shape == (98, 64)
    np.testing.assert_allclose(log_mel(x), expected, atol=1e-4)


def test_filters_are_htks_triangles():
    filters = mel_filters(257)
    oracle = tf.signal.linear_to_mel_weight_matrix(
        64, 257, 16_000, 125.0, 7500.0, dtype=tf.float64
    ).numpy()
    np.testing.assert_allclose(filters, oracle, atol=1e-9)
    # Their centres are where librosa has them; its sides are straight in hertz, not in mel.
    centres = librosa.mel_frequencies(66, fmin=125, fmax=7500, htk=True)[1:-1]
    bins = np.linspace(0, 8000, 257)
    wide = filters.max(axis=0) > 0.8
    np.testing.assert_allclose(bins[filters.argmax(axis=0)][wide], centres[wide], atol=16)
    assert not filters[0].any()


def test_silence_is_the_logarithm_of_the_offset():
    np.testing.assert_array_equal(log_mel(np.zeros(400)), np.full((1, 64), np.log(0.01), "f4"))


def test_a_tone_is_in_the_band_of_its_frequency():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    centres = librosa.mel_frequencies(66, fmin=125, fmax=7500, htk=True)[1:-1]
    assert abs(centres[log_mel(tone).mean(axis=0).argmax()] - 1000) < 40


def test_windows_are_independent_and_batches_equal():
    x = np.stack([waveform(1600), waveform(1600, seed=1)])
    assert num_frames(1600) == 8
    both = log_mel(x)
    assert both.shape == (2, 8, 64)
    for row in range(2):
        for frame in range(8):
            one = log_mel(x[row, frame * 160 : frame * 160 + 400])
            np.testing.assert_allclose(both[row, frame], one[0], atol=1e-6)


def test_parameters_are_explicit():
    values = log_mel(
        waveform(8000),
        sample_rate=8000,
        window=256,
        hop=64,
        num_bands=40,
        min_hz=50,
        max_hz=4000,
        offset=1,
    )
    assert values.shape == ((8000 - 256) // 64 + 1, 40)
    assert values.min() >= 0


def test_less_than_a_window_is_refused():
    with pytest.raises(ValueError, match=r"at least 400 samples, one window\. Received: 399"):
        log_mel(np.zeros(399))
