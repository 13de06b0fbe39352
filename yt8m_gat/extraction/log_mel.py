"""Log-mel spectrograms as VGGish's, in NumPy, and as operations of a graph.

The spectrogram has magnitudes (not powers) of windows without padding at the ends; the mel
filters are triangles in mel, not in hertz as librosa's are, and leave out the lowest bin.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000
"""Samples a second of all sound."""

WINDOW = 400
"""Samples of a window: 25 ms."""

HOP = 160
"""Samples from one window to the next: 10 ms."""

NUM_BANDS = 64
"""Mel bands."""

MIN_HZ, MAX_HZ = 125.0, 7500.0
"""Lower end of the lowest band, upper end of the highest."""

LOG_OFFSET = 0.01
"""Added before the logarithm."""


def mel_of(hertz: np.ndarray | float) -> np.ndarray | float:
    """Returns HTK's mel of a frequency: `1127 ln(1 + f / 700)`."""
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


def mel_filters(
    num_bins: int,
    *,
    sample_rate: int = SAMPLE_RATE,
    num_bands: int = NUM_BANDS,
    min_hz: float = MIN_HZ,
    max_hz: float = MAX_HZ,
) -> np.ndarray:
    """Returns the weights of the mel bands, float64 [num_bins, num_bands].

    Band b is a triangle over mel, of height 1, that reaches from the centre of band b - 1 to that
    of band b + 1; the centres are evenly spaced in mel.

    Args:
        num_bins: Bins of the spectrogram, from 0 Hz to half the sample rate.
        sample_rate: Samples a second.
        num_bands: Mel bands.
        min_hz: Lower end of the lowest band.
        max_hz: Upper end of the highest band.
    """
    edges = np.linspace(mel_of(min_hz), mel_of(max_hz), num_bands + 2)
    bins = mel_of(np.linspace(0.0, sample_rate / 2, num_bins))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0  # HTK leaves out the mean.
    return weights


def num_frames(num_samples: int, *, window: int = WINDOW, hop: int = HOP) -> int:
    """Returns the number of complete windows in a waveform."""
    return max(0, 1 + (num_samples - window) // hop)


def log_mel(
    waveform: np.ndarray,
    *,
    sample_rate: int = SAMPLE_RATE,
    window: int = WINDOW,
    hop: int = HOP,
    num_bands: int = NUM_BANDS,
    min_hz: float = MIN_HZ,
    max_hz: float = MAX_HZ,
    offset: float = LOG_OFFSET,
) -> np.ndarray:
    """Computes `log(mel + offset)` of the magnitudes of Hann windows.

    Args:
        waveform: Samples in [-1, 1], [..., S].
        sample_rate: Samples a second.
        window: Samples of a window; the Fourier transform has the next power of 2.
        hop: Samples from one window to the next.
        num_bands: Mel bands.
        min_hz: Lower end of the lowest band.
        max_hz: Upper end of the highest band.
        offset: Added before the logarithm.

    Returns:
        float32 [..., frames, num_bands], a frame for each complete window: window t has the
        samples from `t * hop` on.

    Raises:
        ValueError: The waveform is shorter than a window.

    Example:
        >>> import numpy as np
        >>> log_mel(np.zeros(16_000)).shape
        (98, 64)
    """
    waveform = np.asarray(waveform)
    if waveform.shape[-1] < window:
        raise ValueError(
            f"`waveform` must have at least {window} samples, one window. "
            f"Received: {waveform.shape[-1]}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(waveform, window, axis=-1)[..., ::hop, :]
    size = 1 << (window - 1).bit_length()
    magnitudes = np.abs(np.fft.rfft(windows * _hann(window), size))
    weights = _filters(magnitudes.shape[-1], sample_rate, num_bands, min_hz, max_hz)
    return np.log(magnitudes @ weights + offset).astype(np.float32)


def log_mel_of_tensor(waveform: Any) -> Any:
    """Computes `log_mel` as operations of a TensorFlow graph, with VGGish's settings.

    Args:
        waveform: Tensor of samples in [-1, 1], [B, S], S at least a window.

    Returns:
        float32 [B, frames, 64].
    """
    import tensorflow as tf

    windows = tf.signal.frame(tf.cast(waveform, tf.float64), WINDOW, HOP)
    size = 1 << (WINDOW - 1).bit_length()
    magnitudes = tf.abs(tf.signal.rfft(windows * _hann(WINDOW), [size]))
    weights = _filters(size // 2 + 1, SAMPLE_RATE, NUM_BANDS, MIN_HZ, MAX_HZ)
    return tf.cast(tf.math.log(magnitudes @ weights + LOG_OFFSET), tf.float32)


@functools.cache
def _hann(window: int) -> np.ndarray:
    """Returns the periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)


@functools.cache
def _filters(
    num_bins: int, sample_rate: int, num_bands: int, min_hz: float, max_hz: float
) -> np.ndarray:
    return mel_filters(
        num_bins, sample_rate=sample_rate, num_bands=num_bands, min_hz=min_hz, max_hz=max_hz
    )
