"""Frames and sound of tiny videos: times, rotation, cropping, samples, damage."""

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tiny_videos
from tiny_videos import numbered, numbers_of

from yt8m_gat.video.decoding import Video, VideoError, probe
from yt8m_gat.video.picture import ImageMaker

KINDS = av.video.reformatter.Interpolation
EXACT = KINDS.BICUBIC | KINDS.ACCURATE_RND | KINDS.FULL_CHR_H_INT | KINDS.BITEXACT

VARIABLE = [0, 40, 80, 400, 410, 900, 1000, 1500]
"""Presentation times in milliseconds."""


def sine(count, rate=16_000, frequency=440, level=0.5):
    return np.round(np.sin(2 * np.pi * frequency / rate * np.arange(count)) * level * 2**15)


def samples_of(video, **options):
    return np.concatenate(list(video.sound(**options)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """20 frames, 10 a second, and two seconds of sound."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    return tiny_videos.write(path, numbered(20), sound=sine(32_000)[None])


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_every_frame_has_its_presentation_time(tmp_path, ending):
    """Also with frames that are stored in another order than they are shown."""
    path = tiny_videos.write(tmp_path / f"a.{ending}", numbered(8), times=VARIABLE, bf="2")
    frames = list(Video(path).frames())
    assert numbers_of(frames) == list(range(8))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.array(VARIABLE) / 1000)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("rate", [1, 7.5, 25, 100])
def test_frames_at_a_rate_are_those_shown_at_that_time(tmp_path, ending, rate):
    path = tiny_videos.write(tmp_path / f"a.{ending}", numbered(8), times=VARIABLE)
    with Video(path, start=0.2, end=1.4) as video:
        frames = list(video.frames(frames_per_second=rate))
    times = [0.2 + k / rate for k in range(int(1.2 * rate) + 2) if 0.2 + k / rate < 1.4 - 1e-9]
    expected = [max(n for n, t in enumerate(VARIABLE) if t / 1000 <= time + 1e-9) for time in times]
    np.testing.assert_allclose([frame.seconds for frame in frames], times)
    assert numbers_of(frames) == expected


def test_a_rate_equal_to_the_files_gives_each_frame_once(tmp_path):
    """Matroska rounds 1/24 s to milliseconds, up and down."""
    path = tiny_videos.write(tmp_path / "a.mkv", numbered(24), fps=24)
    assert numbers_of(Video(path).frames(frames_per_second=24)) == list(range(24))


def test_start_end_and_max_seconds(plain):
    assert numbers_of(Video(plain, start=0.5, end=0.8).frames()) == [5, 6, 7]
    assert numbers_of(Video(plain, start=0.5, max_seconds=0.2).frames()) == [5, 6]
    assert numbers_of(Video(plain, start=1.75).frames(frames_per_second=10)) == [17, 18, 19]
    with pytest.raises(VideoError, match=r"plain\.mp4: ends at 2\.00 s, before start=2\.5"):
        next(Video(plain, start=2.5).frames(frames_per_second=1))
    for wrong in ({"start": -1}, {"start": 2, "end": 2}, {"max_seconds": 0}, {"end": float("nan")}):
        with pytest.raises(VideoError, match="Received"):
            Video(plain, **wrong)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "h264"])
def test_a_late_start_gives_what_reading_from_the_beginning_gives(tmp_path, ending):
    """The others are searched; H.264 without a container has no times, and is read through."""
    images = [np.full((32, 32, 3), 40 + k % 160, np.uint8) for k in range(100)]
    path = tiny_videos.write(tmp_path / f"a.{ending}", images, g="15", bf="2")
    every = list(Video(path).frames(frames_per_second=10))
    late = list(Video(path, start=7.3).frames(frames_per_second=10))
    assert len(every) == 100
    assert len(late) == len(every) - 73
    for frame, same in zip(late, every[73:], strict=True):
        assert abs(frame.seconds - same.seconds) < 1e-9
        assert np.array_equal(frame.image, same.image)


def test_a_late_start_reads_little_of_the_file(tmp_path, monkeypatch):
    path = tiny_videos.write(tmp_path / "a.mp4", numbered(1) * 200, g="10")
    read = []
    time_of = Video.__init__.__globals__["Reading"]._timed_frames

    def counted(reading):
        for pair in time_of(reading):
            read.append(pair[0])
            yield pair

    monkeypatch.setattr("yt8m_gat.video.source.Reading._timed_frames", counted)
    video = Video(path, start=15.0, end=15.5)
    read.clear()
    assert len(list(video.frames())) == 5
    assert min(read) >= 14.0


def shown(image, matrix):
    """Where each pixel goes by FFmpeg's definition of the display matrix, one at a time."""
    a, b, c, d = matrix
    points = {
        (a * x + c * y, b * x + d * y): image[y, x]
        for y in range(image.shape[0])
        for x in range(image.shape[1])
    }
    left, top = (min(p[axis] for p in points) for axis in (0, 1))
    width, height = (max(p[axis] for p in points) - low + 1 for axis, low in ((0, left), (1, top)))
    result = np.zeros((height, width, 3), np.uint8)
    for (x, y), value in points.items():
        result[y - top, x - left] = value
    return result


TURNS = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)]
TURNS += [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def quarters(height=32, width=48):
    """A picture whose four quarters differ."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    image[height // 2 :, width // 2 :] = (255, 255, 255)
    return image


@pytest.mark.parametrize("matrix", TURNS)
def test_pictures_are_turned_upright(tmp_path, matrix):
    a, b, c, d = matrix
    one = 1 << 16
    path = tiny_videos.write(
        tmp_path / "a.mov",
        [quarters()],
        prepare=lambda stream: stream.set_display_matrix(
            [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
        ),
    )
    stored = next(av.open(path).decode(video=0)).to_ndarray(format="rgb24", interpolation=EXACT)
    expected = shown(stored, matrix)
    video = Video(path)
    assert (video.info.height, video.info.width) == expected.shape[:2]
    [frame] = video.frames()
    assert np.array_equal(frame.image, expected)
    height, width = expected.shape[:2]
    [small] = video.frames(short_side=16)
    assert small.image.shape == ((24, 16, 3) if height > width else (16, 24, 3))
    assert np.abs(small.image[2].astype(int) - expected[4, ::2]).mean() < 20
    [part] = video.frames(crop=(3, 5, 10, 8))
    assert np.array_equal(part.image, frame.image[5:13, 3:13])


def test_colors_of_both_ranges(tmp_path):
    for codec, ending in (("libx264", "mp4"), ("mjpeg", "avi")):
        path = tiny_videos.write(tmp_path / f"a.{ending}", [quarters()], codec=codec)
        [frame] = Video(path).frames()
        for y, x in ((4, 4), (4, 40), (28, 4), (28, 40)):
            assert np.abs(frame.image[y, x].astype(int) - quarters()[y, x]).max() <= 8


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_become_so_with_a_short_side(tmp_path, turned):
    """As players show it: 48 x 32 stored pixels, each 4/3 as wide as high, are 2 : 1."""

    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if turned:
            stream.set_display_matrix([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30])

    video = Video(tiny_videos.write(tmp_path / "a.mov", [quarters()], prepare=prepare))
    [frame] = video.frames(short_side=16)
    assert frame.image.shape == ((32, 16, 3) if turned else (16, 32, 3))
    [frame] = video.frames(crop=(0, 0, 24, 24), short_side=12)
    assert frame.image.shape == ((16, 12, 3) if turned else (12, 16, 3))
    # Stored pixels otherwise: a size decides by itself, and the crop is in stored pixels.
    [frame] = video.frames()
    assert frame.image.shape == ((48, 32, 3) if turned else (32, 48, 3))
    [frame] = video.frames(size=(20, 20))
    assert frame.image.shape == (20, 20, 3)


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj422p", "yuv420p10le", "gray", "rgb24", "bgra"])
def test_images_are_swscales_packed_pixels(kind):
    """Planes are the fast way to the same values."""
    y, x = np.mgrid[:66, :98][..., np.newaxis]
    waves = np.rint(127 + 120 * np.sin(x / 5 + y / 3 + np.arange(3))).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(waves, "rgb24")
    frame = frame.reformat(format=kind)
    for size in ((30, 40), (66, 98), (100, 131)):
        expected = frame.reformat(size[1], size[0], "rgb24", interpolation=EXACT).to_ndarray()
        np.testing.assert_array_equal(ImageMaker(size=size)(frame), expected)


def test_cropping_comes_before_resizing(tmp_path):
    path = tiny_videos.write(tmp_path / "a.mp4", [quarters()])
    [frame] = Video(path).frames(crop=(24, 16, 24, 16), size=(5, 9))
    assert frame.image.shape == (5, 9, 3)
    assert frame.image[:, 1:].min() > 220  # Nothing of the blue quarter on its left.
    [corner] = Video(path).frames(crop=(0, 0, 20, 12))
    assert corner.image.shape == (12, 20, 3) and corner.image[:, :, 1:].max() < 40  # Red.
    [whole] = Video(path).frames(size=(20, 10))
    assert whole.image.shape == (20, 10, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames_per_second": 0}, r"frames_per_second must be in \(0, 1000\]. Received: 0"),
        ({"crop": (0, 0, 0, 4)}, "crop must be .*Received"),
        ({"crop": (4, -1, 4, 4)}, "crop must be .*Received"),
        ({"short_side": 0}, "short_side must be at least 1"),
        ({"size": (4, 0)}, "size must be .height, width., both at least 1"),
        ({"size": (4, 4), "short_side": 4}, "only one of short_side and size"),
        ({"crop": (50, 0, 15, 4)}, "the crop must be inside the picture of 64 x 48 pixels"),
        ({"size": (90_000, 90_000)}, "an image must have at most"),
    ],
)
def test_wrong_arguments_of_frames(plain, options, message):
    with pytest.raises(ValueError, match=message):
        next(Video(plain).frames(**options))


def test_a_frame_that_is_shown_for_long_is_converted_once(tmp_path):
    path = tiny_videos.write(tmp_path / "a.mp4", numbered(2), times=[0, 1000])
    frames = list(Video(path, end=1.0).frames(frames_per_second=10))
    assert len(frames) == 10 and all(frame.image is frames[0].image for frame in frames)


def test_sound_is_exact_for_uncompressed_samples(tmp_path):
    samples = sine(20_000)
    path = tiny_videos.write(tmp_path / "a.wav", sound=samples[None], sound_codec="pcm_s16le")
    assert np.array_equal(samples_of(Video(path)), (samples / 2**15).astype(np.float32))
    part = samples_of(Video(path, start=0.5, end=0.75))
    assert np.array_equal(part, (samples[8000:12_000] / 2**15).astype(np.float32))
    assert next(Video(path).sound()).dtype == np.float32
    info = Video(path).info
    assert (info.has_picture, info.has_sound, info.sound_codec) == (False, True, "pcm_s16le")
    with pytest.raises(VideoError, match=r"a\.wav: has no picture"):
        next(Video(path).frames())
    with pytest.raises(VideoError, match=r"ends at 1\.25 s, before start=1\.5"):
        next(Video(path, start=1.5).sound())


def test_sound_after_a_search_has_the_same_samples(tmp_path):
    samples = sine(160_000, frequency=333)
    path = tiny_videos.write(tmp_path / "a.wav", sound=samples[None], sound_codec="pcm_s16le")
    part = samples_of(Video(path, start=7.0, max_seconds=1.5))
    assert np.array_equal(part, (samples[112_000:136_000] / 2**15).astype(np.float32))


def test_resampled_sound_does_not_depend_on_where_the_reading_began(tmp_path):
    """The samples of 16,000 a second fall on every 441st of 44,100 only."""
    path = tiny_videos.write(
        tmp_path / "a.wav",
        sound=sine(441_000, 44_100, 3000)[None],
        sound_rate=44_100,
        sound_codec="pcm_s16le",
    )
    whole = samples_of(Video(path))
    for start in (6.9999, 7.003):
        part = samples_of(Video(path, start=start, max_seconds=1.5))
        first = round(start * 16_000)
        assert np.array_equal(part, whole[first : first + 24_000])


@pytest.mark.parametrize(
    ("layout", "weights"),
    [
        ("mono", [1]),
        ("stereo", [0.5, 0.5]),
        # Left, right, center, low frequencies (left out), two at the back: FFmpeg's matrix.
        ("5.1", np.array([0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5]) / (2 * 0.5**0.5 + 2)),
    ],
)
def test_channels_are_mixed_with_ffmpegs_weights_and_resampled(tmp_path, layout, weights):
    channels = np.stack([sine(44_100, 44_100, 100 * (k + 1), 0.9) for k in range(len(weights))])
    path = tiny_videos.write(
        tmp_path / "a.mkv",
        sound=channels,
        sound_rate=44_100,
        layout=layout,
        sound_codec="pcm_s16le",
    )
    mixed = samples_of(Video(path))
    assert len(mixed) == 16_000
    time = np.arange(16_000) / 16_000
    waves = [0.9 * np.sin(2 * np.pi * 100 * (k + 1) * time) for k in range(len(weights))]
    expected = np.asarray(weights) @ np.stack(waves)
    np.testing.assert_allclose(mixed[50:-50], expected[50:-50], atol=2e-3)


def test_compressed_sound_has_the_length_that_the_file_states(tmp_path):
    """Codecs of sound fill up their last block: 20,000 samples are 19.5 blocks of AAC."""
    path = tiny_videos.write(tmp_path / "a.mp4", numbered(2), sound=sine(20_000)[None])
    heard = samples_of(Video(path))
    assert len(heard) == 20_000
    np.testing.assert_allclose(heard[2000:18_000], sine(20_000)[2000:18_000] / 2**15, atol=0.05)


def test_sound_is_on_the_time_axis_of_the_picture(tmp_path):
    path = tiny_videos.write(
        tmp_path / "a.mkv",
        numbered(20),
        sound=sine(8000)[None],
        sound_codec="pcm_s16le",
        sound_start=1.0,
    )
    heard = samples_of(Video(path))
    assert len(heard) == 24_000 and not heard[:16_000].any()
    np.testing.assert_allclose(heard[16_000:], sine(8000) / 2**15, atol=1e-4)
    assert np.array_equal(samples_of(Video(path, start=0.75)), heard[12_000:])


def test_times_begin_where_the_file_begins(tmp_path):
    """Transport streams begin at 1.4 s, and files cut out of others anywhere."""
    path = tiny_videos.write(
        tmp_path / "a.mkv",
        numbered(3),
        times=[5000, 5100, 5200],
        sound=sine(8000)[None],
        sound_codec="pcm_s16le",
        sound_start=5.0,
    )
    assert [round(f.seconds, 3) for f in Video(path).frames()] == [0, 0.1, 0.2]
    np.testing.assert_allclose(samples_of(Video(path)), sine(8000) / 2**15, atol=1e-4)


def test_time_zero_is_the_first_frame_if_the_sound_begins_a_little_earlier(tmp_path):
    """Codecs of sound do; more than a tenth of a second is meant so."""
    for begin, first in ((5050, 0.0), (5200, 0.2)):
        path = tiny_videos.write(
            tmp_path / f"{begin}.mkv",
            numbered(3),
            times=[begin, begin + 100, begin + 200],
            sound=sine(8000)[None],
            sound_codec="pcm_s16le",
            sound_start=5.0,
        )
        times = [frame.seconds for frame in Video(path).frames()]
        np.testing.assert_allclose(times, [first, first + 0.1, first + 0.2], atol=1e-9)
        skipped = 800 if first == 0 else 0
        np.testing.assert_allclose(samples_of(Video(path)), sine(8000)[skipped:] / 2**15, atol=1e-4)


def test_negative_times_begin_at_zero(tmp_path):
    path = tiny_videos.write(
        tmp_path / "a.mkv",
        numbered(5),
        times=[-250, -150, -50, 50, 150],
        codec="mpeg4",
        container_options={"avoid_negative_ts": "disabled"},
    )
    with av.open(path) as container:
        assert container.start_time == -250_000
    frames = list(Video(path).frames())
    assert numbers_of(frames) == list(range(5))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(5) / 10, atol=1e-9)


def test_gaps_in_the_sound_are_silence(tmp_path):
    path = str(tmp_path / "a.mkv")
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in (0, 24_000):  # Half a second is missing.
            frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), 9000, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
    heard = samples_of(Video(path))
    expected = np.full(40_000, 9000 / 2**15, np.float32)
    expected[16_000:24_000] = 0
    assert np.array_equal(heard, expected)


def test_a_cover_is_no_video(tmp_path):
    path = str(tmp_path / "song.m4a")
    with av.open(path, "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 48, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(quarters(), "rgb24")
        container.mux(cover.encode(picture.reformat(format="yuvj420p")) + cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame) + sound.encode(None))
    assert len(av.open(path).streams.video) == 1
    info = probe(path)
    assert (info.has_picture, info.has_sound, info.width) == (False, True, 0)
    with pytest.raises(VideoError, match="has no picture"):
        next(Video(path).frames())


def test_the_order_of_streams_does_not_matter(tmp_path):
    path = tiny_videos.write(
        tmp_path / "a.mp4", numbered(5), sound=sine(8000)[None], sounds_first=True
    )
    assert numbers_of(Video(path).frames()) == list(range(5))
    assert len(samples_of(Video(path))) == 8000


def test_what_a_probe_says(plain):
    info = probe(plain)
    assert (info.seconds, info.width, info.height, info.frames_per_second) == (2.0, 64, 48, 10.0)
    assert (info.picture_codec, info.sound_codec) == ("h264", "aac")


def test_a_file_that_ends_early_keeps_what_came_before_and_says_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    path = tiny_videos.write(tmp_path / "a.mkv", list(noise), codec="mjpeg")
    whole = [frame.image for frame in Video(path).frames()]
    content = Path(path).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(content[: len(content) // 2])
    with Video(cut) as video:
        frames = list(video.frames())
        assert 12 <= len(frames) <= 16
        for frame, image in zip(frames, whole, strict=False):
            assert np.array_equal(frame.image, image)
        assert len(video.faults) == 1
        assert video.faults[0].startswith(f"picture: ends at {frames[-1].seconds + 0.1:.2f} s, and")
        assert video.faults[0].endswith("the file says 3.00 s")
    with Video(cut, end=0.5) as video:
        assert len(list(video.frames())) == 5 and not video.faults


def test_damage_in_the_middle_is_left_out_and_said_once(tmp_path):
    path = tiny_videos.write(tmp_path / "a.avi", numbered(20), codec="mjpeg")
    content = bytearray(Path(path).read_bytes())
    with av.open(path) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for place, size in packets[7:9]:
        begin = content.index(b"\xff\xd8", place)  # After the header of the chunk.
        content[begin : begin + size] = bytes(size)
    damaged = tmp_path / "damaged.avi"
    damaged.write_bytes(content)
    with Video(damaged) as video:
        assert numbers_of(video.frames()) == [k for k in range(20) if k not in (7, 8)]
        assert video.faults == ["picture: 2 damaged parts are left out, the first at 0.70 s"]
    # At a rate, the last good frame is shown on.
    with Video(damaged) as video:
        assert numbers_of(video.frames(frames_per_second=10))[6:10] == [6, 6, 6, 9]


def test_times_that_leap_are_replaced(tmp_path):
    path = tiny_videos.write(
        tmp_path / "a.mkv", numbered(4), times=[0, 100, 9_000_000, 9_000_100], fps=10
    )
    with Video(path) as video:
        frames = list(video.frames(frames_per_second=10))
        assert 4 <= len(frames) < 100
        assert numbers_of(frames)[:2] == [0, 1]
        assert "picture: the times of frames are wrong from" in video.faults[-1]


def test_files_that_are_no_video(tmp_path):
    cases = {
        "no such": "cannot be read: No such file or directory; check its name",
        ".": "must be a video file, or a folder of numbered pictures",
        "pipe": "must be a video file. Received: a device or a pipe",
        "empty.mp4": "is empty; copy or download it again",
        "noise.mp4": "cannot be opened as a video: Invalid data found when processing input",
        "text.txt": "must be a video file. Received: text",
        "a.srt": "has neither a picture nor sound",
        "list.m3u8": "cannot be opened as a video",
        "odd\nname: x\x1b": r"/odd\\nname: x\\x1b': cannot be opened as a video",
    }
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4096))
    (tmp_path / "text.txt").write_text("a label list\n" * 99)
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n")
    (tmp_path / "odd\nname: x\x1b").write_bytes(b"no")
    for name, message in cases.items():
        with pytest.raises(VideoError, match=message) as caught:
            Video(tmp_path / name)
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_small_file_with_a_picture_that_fills_the_memory(tmp_path):
    """A white PNG of 20,000 x 20,000 pixels in 49 KB."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compress(bytes(1 + 20_000 // 8) * 20_000)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(VideoError, match="no frame of its picture can be decoded"):
        next(Video(path).frames(size=(8, 8)))


def test_names_that_ffmpeg_would_take_for_addresses_or_patterns(tmp_path, plain, monkeypatch):
    content = Path(plain).read_bytes()
    monkeypatch.chdir(tmp_path)
    for name in ("http:x.mp4", "a%03d.mp4", "-i.mp4", "pipe:0", "ü 'x'.mp4"):
        (tmp_path / name).write_bytes(content)
        assert probe(name).has_picture


def test_two_iterators_of_a_file_do_not_disturb_each_other(plain):
    with Video(plain) as video:
        first, second, sound = video.frames(), video.frames(frames_per_second=5), video.sound()
        interleaved = [(next(first), next(second), next(sound)) for _ in range(5)]
    assert numbers_of([frames[0] for frames in interleaved]) == [0, 1, 2, 3, 4]
    assert numbers_of([frames[1] for frames in interleaved]) == [0, 2, 4, 6, 8]
    with pytest.raises(StopIteration):
        next(first)


def test_threads_do_not_change_the_frames(plain):
    one, two = (list(Video(plain, num_threads=n).frames()) for n in (1, 2))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(one, two, strict=True))


def test_without_pyav_the_error_names_the_extra(plain, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'yt8m-gat\[video\]'"):
        Video(plain)
