"""Choosing frames by time, and times that never go backward, against slow definitions."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from yt8m_gat.video import sampling
from yt8m_gat.video.clock import MAX_GAP, Clock
from yt8m_gat.video.sound import laid_out

ticks = st.lists(st.integers(0, 5000), min_size=1, max_size=20).map(sorted)


@settings(max_examples=200, deadline=None)
@given(ticks, st.integers(0, 3000), st.integers(1, 4000), st.sampled_from([1, 3, 8, 24, 29.97]))
def test_at_rate_shows_the_last_frame_that_has_begun(times, start, length, rate):
    """Times in milliseconds; a frame counts as shown half a millisecond early."""
    frames = [(time / 1000, number) for number, time in enumerate(times)]
    last_end = times[-1] / 1000 + 0.4
    end = (start + length) / 1000
    chosen = list(sampling.at_rate(frames, start / 1000, end, rate, lambda: last_end))
    grid = []
    while (time := start / 1000 + len(grid) / rate) < end and time < last_end - 0.0006:
        grid.append(time)
    expected = [max([n for t, n in frames if t - 0.0006 <= time], default=0) for time in grid]
    assert [time for time, _ in chosen] == grid
    assert [number for _, number in chosen] == expected


def test_at_rate_reads_no_further_than_it_must():
    read = []

    def frames():
        for number in range(100):
            read.append(number)
            yield number / 10, number

    list(sampling.at_rate(frames(), 0.0, 1.0, 5, lambda: 10.0))
    assert read[-1] == 9  # The frame at 0.9 s ends the one shown at 0.8 s.
    read.clear()
    list(sampling.between(frames(), 0.5, 1.0))
    assert read[-1] == 10


def test_a_clock_replaces_missing_and_wrong_times():
    clock = Clock(0.1)
    given_times = [5.0, None, 5.2, 5.2, 4.0, 4.1, 6.0, 6.0 + MAX_GAP * 1.1, None]
    times = [clock.time_of(time) for time in given_times]
    np.testing.assert_allclose(times, [5.0, 5.1, 5.2, 5.2, 5.3, 5.4, 6.0, 6.1, 6.2])
    assert math.isclose(clock.first_wrong, 5.3)
    assert math.isclose(clock.expected, 6.3)


def test_a_clock_uses_the_duration_that_a_frame_states():
    clock = Clock(0.1)
    assert [clock.time_of(None, duration) for duration in (2.0, 0.0, -1.0, 1e9, None)] == [
        0.0,
        2.0,
        2.1,
        2.2,
        2.3000000000000003,
    ]
    assert clock.first_wrong is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=6),
    st.integers(0, 40),
    st.one_of(st.just(math.inf), st.integers(0, 40)),
)
def test_sound_is_laid_out_without_holes(pieces, start, length):
    """The first piece that has a sample gives it; silence is where none has before the last one."""
    end = start + length
    pieces = [
        (first, np.arange(1, size + 1, dtype=np.float32) + 100 * number)
        for number, (first, size) in enumerate(pieces)
    ]
    position, expected = start, []
    for first, samples in pieces:
        while position < min(first, end):
            expected.append(0)
            position += 1
        while first <= position < min(first + len(samples), end):
            expected.append(samples[position - first])
            position += 1
    chunks = list(laid_out(pieces, start, end, max_chunk=7))
    assert np.concatenate([np.zeros(0), *chunks]).tolist() == expected
    assert all(len(chunk) for chunk in chunks)
