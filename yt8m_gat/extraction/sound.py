"""Models of sound: windows of a waveform to vectors, at the rate of the frames."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.extraction.config import LOG_MEL, VGGISH, FeatureConfig
from yt8m_gat.extraction.loading import KerasEmbedding, LoadedModel, load_embedding
from yt8m_gat.extraction.log_mel import (
    HOP,
    NUM_BANDS,
    SAMPLE_RATE,
    WINDOW,
    log_mel,
    log_mel_of_tensor,
)


@dataclasses.dataclass(frozen=True)
class SoundModel:
    """A model of windows of sound.

    Attributes:
        call: Windows float32 [N, window] in [-1, 1] -> values [N, D], float32 or uint8.
        window: Samples of a window, at 16 kHz.
        size: D.
        gives_bytes: Whether the values are bytes.
        graph: `call` as operations of a graph; None: it cannot become a part of one.
        variables: Those of `graph`.
    """

    call: Callable[[np.ndarray], np.ndarray]
    window: int
    size: int
    gives_bytes: bool = False
    graph: Callable[[tf.Tensor], tf.Tensor] | None = None
    variables: Sequence[tf.Variable] = ()


def window_start(step: int, window: int, frames_per_second: float) -> int:
    """Returns the sample at which the window of a time step begins; it may be negative.

    The period of step k reaches from k / fps to (k + 1) / fps. A window that fits into it begins
    with it, as the 0.96 s windows of YouTube-8M begin with each second; a longer one has its middle
    in the middle of the period.
    """
    period = SAMPLE_RATE / frames_per_second
    return round(step * period + min(0.0, (period - window) / 2))


def windows(
    chunks: Iterable[np.ndarray], window: int, frames_per_second: float
) -> Iterator[np.ndarray]:
    """Cuts a waveform into one window for each time step, with silence before and after it.

    Only one window and one chunk are in memory at a time.

    Args:
        chunks: The waveform in consecutive parts, float [S].
        window: Samples of a window.
        frames_per_second: Time steps a second.

    Yields:
        float32 [window], for each step that begins before the end of the sound.
    """
    step = 0
    begin = window_start(0, window, frames_per_second)
    held = np.zeros(max(0, -begin), np.float32)
    first = min(begin, 0)  # The sample that `held` begins with.
    for chunk in chunks:
        held = np.concatenate([held, np.asarray(chunk, np.float32)])
        while first + len(held) >= begin + window:
            yield held[begin - first : begin - first + window]
            step += 1
            begin = window_start(step, window, frames_per_second)
            dropped = min(max(0, begin - first), len(held))
            held, first = held[dropped:], first + dropped
    end = first + len(held)
    held = np.concatenate([held, np.zeros(2 * window, np.float32)])
    while step * SAMPLE_RATE / frames_per_second < end:
        offset = begin - first
        yield np.concatenate([held[offset:], np.zeros(window, np.float32)])[:window]
        step += 1
        begin = window_start(step, window, frames_per_second)


def sound_model(
    config: FeatureConfig, path: str | os.PathLike | None, frames_per_second: float
) -> SoundModel:
    """Returns the model of a configuration.

    Args:
        config: The kind, model and output are used.
        path: The file or folder of the weights, if the kind has any.
        frames_per_second: The rate, on which the window of `log_mel` depends.

    Raises:
        ConfigError: It cannot be loaded or does not fit; the message says why.
    """
    if config.kind == LOG_MEL:
        return _mean_log_mel(frames_per_second)
    if config.kind == VGGISH:
        return _vggish(path or "")
    return _of_file(load_embedding(config.kind, path or "", config.output), path or "")


def _mean_log_mel(frames_per_second: float) -> SoundModel:
    """Returns the mean of the log-mel frames of a period: as many as fit, at least one."""
    frames = max(1, round(SAMPLE_RATE / frames_per_second / HOP))

    def call(waveforms: np.ndarray) -> np.ndarray:
        return log_mel(waveforms).mean(axis=-2)

    def graph(waveforms: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(log_mel_of_tensor(waveforms), axis=-2)

    return SoundModel(call, WINDOW + (frames - 1) * HOP, NUM_BANDS, graph=graph)


def _vggish(folder: str | os.PathLike) -> SoundModel:
    from yt8m_gat.extraction.vggish import (
        PATCH_SAMPLES,
        SIZE,
        load_checkpoint,
        official_files,
        vggish,
    )

    checkpoint, _ = official_files(folder)
    model = vggish()
    load_checkpoint(model, checkpoint)
    on_patches = KerasEmbedding(model)
    return SoundModel(lambda x: on_patches(log_mel(x)), PATCH_SAMPLES, SIZE)


def _of_file(model: LoadedModel, path: str | os.PathLike) -> SoundModel:
    shape = model.input_shape
    patches = len(shape) >= 2 and shape[1] == NUM_BANDS and shape[2:] in ((), (1,))
    if shape[:1] in ((), (None,)) or not (len(shape) == 1 or patches):
        raise ConfigError(
            f"--sound={path} must take waveforms [samples] or log-mel patches "
            f"[frames, {NUM_BANDS}] of a fixed length. Received: {list(shape)}"
        )
    if model.input_type.kind != "f":
        raise ConfigError(f"--sound={path} must take floats. Received: {model.input_type}")
    length = shape[0] or 0

    def call(waveforms: np.ndarray) -> np.ndarray:
        x = log_mel(waveforms).reshape(-1, *shape) if patches else waveforms
        return model.call(x.astype(model.input_type))

    window = WINDOW + (length - 1) * HOP if patches else length
    trial = call(np.zeros((1, window), np.float32))
    made = SoundModel(call, window, trial.shape[1], trial.dtype == np.uint8)
    if not isinstance(model.call, KerasEmbedding):
        return made
    embedding = model.call

    def graph(waveforms: tf.Tensor) -> tf.Tensor:
        if patches:
            waveforms = tf.reshape(log_mel_of_tensor(waveforms), (-1, *shape))
        return embedding.graph(waveforms)

    return dataclasses.replace(made, graph=graph, variables=embedding.variables)
