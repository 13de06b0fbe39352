"""Folders of numbered pictures are videos of 12 frames a second."""

from fractions import Fraction

import av
import numpy as np
import pytest
import tiny_videos

from yt8m_gat.video.clips import Clip, clip_ids, clips_of, read_clips
from yt8m_gat.video.decoding import Video
from yt8m_gat.video.frame_folder import frame_pattern
from yt8m_gat.video.source import VideoError


def write_frames(folder, numbers, name="{:05d}.jpg", height=16):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in zip(numbers, tiny_videos.numbered(len(numbers), height), strict=True):
        codec = av.CodecContext.create("mjpeg" if name.endswith("jpg") else "png", "w")
        codec.height, codec.width = image.shape[:2]
        codec.pix_fmt = "yuvj420p" if name.endswith("jpg") else "rgb24"
        codec.time_base = Fraction(1, 12)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=codec.pix_fmt)
        packets = [*codec.encode(frame), *codec.encode(None)]
        (folder / name.format(number)).write_bytes(b"".join(map(bytes, packets)))
    return folder


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("{:05d}.jpg", range(1, 8)),
        ("img_{:03d}.png", range(97, 104)),
        ("{}.jpg", range(8, 15)),  # Without leading zeros: 8, 9, 10, ...
    ],
)
def test_frames_in_the_order_of_their_numbers(tmp_path, name, numbers):
    folder = write_frames(tmp_path / "a 100%d clip: 1", numbers, name)
    (folder / "notes.txt").write_text("no frame")
    with Video(folder) as video:
        frames = list(video.frames())
        assert tiny_videos.numbers_of(frames) == list(range(7))
        np.testing.assert_allclose([f.seconds for f in frames], np.arange(7) / 12, atol=1e-6)
        assert video.info.frames_per_second == 12 and not video.info.has_sound
        assert tiny_videos.numbers_of(video.frames(frames_per_second=6)) == [0, 2, 4, 6]
    with Video(folder, start=0.25, end=0.5) as video:
        assert tiny_videos.numbers_of(video.frames()) == [3, 4, 5]
    assert not video.faults


@pytest.mark.parametrize(
    ("kept_bytes", "numbers", "fault"),
    [
        # FFmpeg ends there as if the folder did.
        (0, [0, 1], "file 3 of the folder's 5 cannot be read, and those after it are left out"),
        (300, [0, 1, 3, 4], "1 damaged part is left out, the first at 0.17 s"),
    ],
)
def test_a_picture_that_cannot_be_read_is_told(tmp_path, kept_bytes, numbers, fault):
    folder = write_frames(tmp_path / "frames", range(1, 6), height=64)
    (folder / "00003.jpg").write_bytes((folder / "00003.jpg").read_bytes()[:kept_bytes])
    with Video(folder) as video:
        assert tiny_videos.numbers_of(video.frames()) == numbers
    assert video.faults == [f"picture: {fault}"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "a folder without pictures"),
        (["1.jpg", "3.jpg"], "frame number 2 is missing"),
        (["1.jpg", "2.png"], "whose names differ in their number alone"),
        (["a1.jpg", "b2.jpg"], "whose names differ in their number alone"),
        (["cover.jpg"], "whose names differ in their number alone"),
        (["001.jpg", "02.jpg"], "must have 2 digits"),
        (["01.jpg", "1.jpg"], "must have 1 digits"),
    ],
)
def test_other_folders_are_refused_by_name(tmp_path, names, message):
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    with pytest.raises(VideoError, match=rf"frames'?: .*{message}"):
        Video(folder)
    with pytest.raises(ValueError, match=message):
        frame_pattern(folder)


def test_lists_and_folders_of_classes(tmp_path):
    for name in ("12", "7"):
        write_frames(tmp_path / "frames" / "push" / name, range(1, 3))
    (tmp_path / "list.txt").write_text("frames/push/12 2 105\nframes/push/7 9\n", encoding="utf-8")
    folders = [str(tmp_path / "frames" / "push" / name) for name in ("12", "7")]
    listed = read_clips(tmp_path / "list.txt")
    assert listed == [Clip(folders[0], ("105",)), Clip(folders[1], ("9",))]
    assert clip_ids(listed) == ["12", "7"]
    assert clips_of([str(tmp_path / "frames")]) == [Clip(f, ("push",)) for f in folders]
