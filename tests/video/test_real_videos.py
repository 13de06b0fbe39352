"""The ordinary and odd files of ../shared/data/videos, against lists of FFmpeg's own times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from yt8m_gat.video.decoding import Video, VideoError, probe

FOLDER = Path(__file__).resolve().parents[3] / "shared/data/videos"
KINDS = av.video.reformatter.Interpolation
EXACT = KINDS.BICUBIC | KINDS.ACCURATE_RND | KINDS.FULL_CHR_H_INT | KINDS.BITEXACT

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"needs the video files of {FOLDER}, which are not in this checkout"
)


def times_of_packets(path, kind="video"):
    """The presentation times that FFmpeg's demuxer lists, sorted, from the first one on."""
    with av.open(str(path)) as container:
        stream = container.streams.best(kind)
        times = sorted(p.pts * p.time_base for p in container.demux(stream) if p.pts is not None)
    return [time - times[0] for time in times]


WHOLE = {
    "small.mp4": (144, 6.0),
    "small.ts": (144, 6.0),
    "small_h264.mkv": (144, 6.0),
    "small_mjpeg_pcm.avi": (72, 3.0),
    "small_anim.gif": (16, 2.01),
    "small_rot90.mov": (144, 6.0),
    "small_vfr.mp4": (107, 6.0),
    "small_noaudio.mp4": (144, 6.0),
    "small_mono.mp4": (144, 6.0),
    "small_51.mp4": (144, 6.0),
    "small_1frame.mp4": (1, 1 / 24),
    "nasa_13013.mp4": (390, 13.013),
    "av1_video.mkv": (125, 5.0),
    "h265_10bits.mp4": (30, 1.0),
    "bbb_432_433.webm": (24, 1.0),
}
"""File: frames and duration, as FFmpeg counts them."""


@pytest.mark.parametrize("name", WHOLE)
def test_times_of_frames_are_those_that_ffmpeg_lists(name):
    listed = times_of_packets(FOLDER / name)
    count, seconds = WHOLE[name]
    assert len(listed) == count
    with Video(FOLDER / name) as video:
        frames = [frame.seconds for frame in video.frames(size=(8, 8))]
        np.testing.assert_allclose(frames, np.array(listed, float), atol=1e-6)
        assert not video.faults
        shown = [frame.seconds for frame in video.frames(frames_per_second=10, size=(8, 8))]
    assert len(shown) == len([k for k in range(200) if k / 10 < seconds - 0.001])


@pytest.mark.parametrize("name", ["small_vfr.mp4", "small.ts", "nasa_13013.mp4"])
def test_images_at_a_rate_are_those_of_ffmpegs_list(name):
    listed = times_of_packets(FOLDER / name)
    with av.open(str(FOLDER / name)) as container:
        decoded = container.decode(container.streams.best("video"))
        images = [
            frame.reformat(40, 30, "rgb24", interpolation=EXACT).to_ndarray() for frame in decoded
        ]
    assert len(images) == len(listed)
    rate = Fraction(7, 2)
    frames = list(Video(FOLDER / name).frames(frames_per_second=3.5, size=(30, 40)))
    for k, frame in enumerate(frames):
        place = max(n for n, time in enumerate(listed) if time <= k / rate)
        assert np.array_equal(frame.image, images[place])
    assert (len(frames) - 1) / rate <= listed[-1] + Fraction(1, 24) <= len(frames) / rate


def test_a_rotated_video_is_upright():
    turned = list(Video(FOLDER / "small_rot90.mov", end=1.0).frames(frames_per_second=4))
    plain = list(Video(FOLDER / "small.mp4", end=1.0).frames(frames_per_second=4))
    with av.open(str(FOLDER / "small_rot90.mov")) as container:
        assert next(container.decode(video=0)).rotation == 90  # Counterclockwise, says PyAV.
    assert [frame.image.shape for frame in turned] == [(320, 180, 3)] * 4
    for one, other in zip(turned, plain, strict=True):
        assert np.array_equal(one.image, np.rot90(other.image))


def test_the_better_of_two_streams_is_read():
    info = probe(FOLDER / "nasa_13013.mp4")
    assert (info.width, info.height) == (480, 270)
    assert info.frames_per_second == pytest.approx(30000 / 1001)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("small.mp4", 96_000),
        ("small_51.mp4", 96_000),
        ("small_mono.mp4", 96_000),
        ("small_audioonly.m4a", 96_000),
        ("small_mjpeg_pcm.avi", 48_000),
        ("nasa_13013.mp4", 208_896),
        ("bbb_1080p_5s.mp4", 80_000),
    ],
)
def test_sound_has_the_length_that_the_file_states(name, count):
    with Video(FOLDER / name) as video:
        sound = np.concatenate(list(video.sound()))
        assert len(sound) == count and np.abs(sound).max() <= 1 and not video.faults
        part = np.concatenate(list(video.sound()))[16_000:32_000]
    with Video(FOLDER / name, start=1.0, end=2.0) as video:
        assert np.array_equal(np.concatenate(list(video.sound())), part)


def test_a_truncated_file_gives_the_frames_before_the_cut():
    with av.open(str(FOLDER / "small_truncated.mkv")) as container:
        before = [frame.time for frame in container.decode(video=0)]
    with Video(FOLDER / "small_truncated.mkv") as video:
        frames = [frame.seconds for frame in video.frames(size=(8, 8))]
        assert len(before) == 85
        np.testing.assert_allclose(frames, before, atol=1e-6)
        sound = np.concatenate(list(video.sound()))
    assert video.faults == [
        "picture: ends at 3.54 s, and the file says 6.00 s",
        "sound: ends at 3.46 s, and the file says 6.02 s",
    ]
    whole = np.concatenate(list(Video(FOLDER / "small_h264.mkv").sound()))
    assert np.array_equal(sound[:-2000], whole[: len(sound) - 2000])


def test_damage_in_the_middle_keeps_what_is_good():
    """PyAV's own loop ends with an error after 60 frames."""
    with Video(FOLDER / "small_bitflips.ts") as video:
        frames = list(video.frames(size=(18, 32)))
        assert len(frames) >= 100 and frames[-1].seconds > 5.5
        assert any("damaged parts are left out, the first at" in fault for fault in video.faults)
    whole = list(Video(FOLDER / "small.ts").frames(size=(18, 32)))
    for frame, same in zip(frames[:10], whole, strict=False):
        assert np.array_equal(frame.image, same.image)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("small_empty.mp4", "is empty"),
        ("small_garbage.mp4", "cannot be opened as a video: Invalid data"),
        ("small_truncated_nomoov.mp4", "cannot be opened as a video: Invalid data"),
        ("README.md", "cannot be opened as a video"),
    ],
)
def test_files_that_give_nothing_say_so_in_one_line(name, message):
    with pytest.raises(VideoError, match=message) as caught:
        Video(FOLDER / name)
    assert "\n" not in str(caught.value)


def test_no_file_is_left_out():
    """Each file gives frames, or sound, or one line."""
    known = {*WHOLE, "small_empty.mp4", "small_garbage.mp4", "small_truncated_nomoov.mp4"}
    for path in FOLDER.iterdir():
        if path.name in known or path.suffix == ".md":
            continue
        with Video(path, max_seconds=1) as video:
            read = video.frames(size=(8, 8)) if video.info.has_picture else video.sound()
            assert next(read) is not None
