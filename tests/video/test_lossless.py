"""Files that keep every pixel and sample, read back by our own reader."""

import numpy as np
import pytest

from yt8m_gat.video.decoding import Video
from yt8m_gat.video.lossless import write_lossless


@pytest.mark.parametrize("rate", [1.0, 25.0, 30_000 / 1001, 7.3])
def test_frames_and_samples_come_back(rate, tmp_path):
    """Each frame is shown at its own time, and no sample is cut."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 5, 7, 3), np.uint8)
    wave = np.concatenate([rng.uniform(-1, 1, 20_000), [1.0, -1.0, 3.0]])
    path = tmp_path / "a.nut"
    write_lossless(path, iter(images), rate, wave)
    with Video(path) as video:
        frames = np.stack([frame.image for frame in video.frames(frames_per_second=rate)])
        sound = np.concatenate(list(video.sound()))
    np.testing.assert_array_equal(frames, images)
    levels = np.clip(np.rint(wave * 2**15), -(2**15), 2**15 - 1)
    np.testing.assert_array_equal(sound[: len(wave)], levels.astype(np.float32) / 2**15)


def test_only_sound_and_nothing(tmp_path):
    write_lossless(tmp_path / "sound.nut", (), 1.0, np.full(800, 0.5), 8000)
    with Video(tmp_path / "sound.nut") as video:
        assert not video.info.has_picture
        sound = np.concatenate(list(video.sound(sample_rate=8000)))
    np.testing.assert_array_equal(sound, np.full(800, 0.5, np.float32))
    with pytest.raises(ValueError, match="needs a picture or sound"):
        write_lossless(tmp_path / "nothing.nut", (), 1.0, np.zeros(0))
