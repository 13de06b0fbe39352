import itertools
import threading

import numpy as np
import pytest

from yt8m_gat.extraction.ahead import Ahead
from yt8m_gat.extraction.config import FeatureConfig
from yt8m_gat.extraction.log_mel import log_mel
from yt8m_gat.extraction.sound import sound_model, window_start, windows


def by_hand(waveform, window, rate):
    """Each window by its definition, from a waveform with silence around it."""
    padded = np.concatenate([np.zeros(20_000), waveform, np.zeros(40_000)]).astype(np.float32)
    steps = itertools.takewhile(lambda k: k * 16_000 / rate < len(waveform), itertools.count())
    period = 16_000 / rate
    starts = [round(k * period + min(0, (period - window) / 2)) + 20_000 for k in steps]
    return np.stack([padded[start : start + window] for start in starts])


@pytest.mark.parametrize("rate", [1.0, 25.0, 29.97, 0.5])
@pytest.mark.parametrize("window", [400, 880, 15_600])
@pytest.mark.parametrize("chunk", [100, 1600, 100_000])
def test_windows_do_not_depend_on_the_chunks(rate, window, chunk):
    waveform = np.random.default_rng(1).normal(size=33_333).astype(np.float32)
    chunks = np.split(waveform, range(chunk, len(waveform), chunk))
    found = list(windows(chunks, window, rate))
    np.testing.assert_array_equal(np.stack(found), by_hand(waveform, window, rate))


def test_a_window_begins_with_its_second_or_is_in_its_middle():
    # YouTube-8M: 0.96 s of log-mel frames, 15,600 samples, from each second on.
    assert [window_start(k, 15_600, 1.0) for k in (0, 1, 2)] == [0, 16_000, 32_000]
    # Longer than the 640 samples of a period at 25 Hz.
    assert [window_start(k, 880, 25.0) for k in (0, 1, 2)] == [-120, 520, 1160]
    assert window_start(0, 640, 25.0) == 0


def test_no_sound_has_no_windows():
    assert list(windows([], 400, 1.0)) == []
    assert list(windows([np.zeros(0, np.float32)], 400, 1.0)) == []


@pytest.mark.parametrize(("rate", "frames"), [(1.0, 100), (25.0, 4), (100.0, 1), (1000.0, 1)])
def test_log_mel_is_the_mean_of_the_frames_of_a_period(rate, frames):
    model = sound_model(FeatureConfig(kind="log_mel", model="log_mel"), None, rate)
    assert (model.window, model.size) == (400 + 160 * (frames - 1), 64)
    x = np.random.default_rng(0).normal(0, 0.1, (2, model.window)).astype(np.float32)
    assert log_mel(x).shape == (2, frames, 64)
    np.testing.assert_allclose(model.call(x), log_mel(x).mean(axis=1), rtol=1e-6)


def test_items_are_made_ahead_and_an_error_comes_after_them():
    def items():
        yield 1
        yield 2
        raise ValueError("at the third")

    ahead = Ahead(items)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ValueError, match="at the third"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


def test_only_a_few_items_are_made_ahead_and_closing_ends_the_thread():
    made, closed = [], threading.Event()

    def items():
        try:
            for number in itertools.count():
                made.append(number)
                yield number
        finally:
            closed.set()

    ahead = Ahead(items, depth=2)
    assert next(ahead) == 0
    ahead.close()
    assert closed.is_set()
    assert len(made) <= 4
    assert list(ahead) == []
