"""Records of raw clips, read by TensorFlow's own parser."""

import csv
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_videos

from yt8m_gat.commands.pack import main
from yt8m_gat.config import ConfigError
from yt8m_gat.extraction import media_sequence
from yt8m_gat.extraction.media_sequence import pack
from yt8m_gat.extraction.pack_settings import PackSettings
from yt8m_gat.video.clips import read_clips
from yt8m_gat.video.decoding import Video, VideoError

CONTEXT = {
    "image/format": tf.io.FixedLenFeature((), tf.string),
    "image/channels": tf.io.FixedLenFeature((), tf.int64),
    "image/frame_rate": tf.io.FixedLenFeature((), tf.float32),
    "image/height": tf.io.FixedLenFeature((), tf.int64),
    "image/width": tf.io.FixedLenFeature((), tf.int64),
    "clip/label/index": tf.io.VarLenFeature(tf.int64),
    "clip/label/text": tf.io.VarLenFeature(tf.string),
    "clip/media_id": tf.io.FixedLenFeature((), tf.string),
    "clip/start/timestamp": tf.io.FixedLenFeature((), tf.int64),
    "clip/end/timestamp": tf.io.FixedLenFeature((), tf.int64),
}
LISTS = {
    "image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
    "image/timestamp": tf.io.FixedLenSequenceFeature((), tf.int64),
    "WAVEFORM/feature/floats": tf.io.VarLenFeature(tf.float32),
}


def read(folder, pattern="*.tfrecord"):
    """All records of a folder, as (context, lists)."""
    return [
        tf.io.parse_single_sequence_example(record, CONTEXT, LISTS)[:2]
        for path in sorted(Path(folder).glob(pattern))
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def digests(folder):
    """Name of each file of a finished job -> its SHA-256."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).iterdir())
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three videos, and a list of five clips of them."""
    folder = tmp_path_factory.mktemp("clips")
    sound = np.round(np.sin(np.arange(32_000) / 6) * 12_000)[None]
    tiny_videos.write(folder / "a.mkv", tiny_videos.numbered(20), sound=sound)
    tiny_videos.write(folder / "b.mp4", tiny_videos.numbered(10, height=64, width=48))
    tiny_videos.write(folder / "c.mp4", tiny_videos.numbered(5), fps=5)
    (folder / "clips.csv").write_text(
        "path,label,start,end\na.mkv,run,0.5,1.5\na.mkv,sit,0.5,1.5\nb.mp4,sit,,\nc.mp4,,,\n"
        "a.mkv,walk,,\nb.mp4,run,0.2,0.7\n"
    )
    return folder


def test_records_hold_what_the_clips_show(clips, tmp_path):
    settings = PackSettings(fps=5, short_side=32, with_sound=True)
    summary = pack(read_clips(clips / "clips.csv"), tmp_path / "out", settings)
    assert summary.num_clips == {"": 5} and summary.most_frames == 10
    records = read(tmp_path / "out")
    ids = [context["clip/media_id"].numpy().decode() for context, _ in records]
    assert ids == ["a@0.5-1.5", "b", "c", "a", "b@0.2-0.7"]
    context, lists = records[0]
    assert context["clip/label/index"].values.numpy().tolist() == [0, 1]
    assert context["clip/label/text"].values.numpy().tolist() == [b"run", b"sit"]
    assert context["image/frame_rate"] == 5 and context["image/channels"] == 3
    assert context["image/format"] == b"JPEG"
    assert (context["image/height"], context["image/width"]) == (32, 43)
    times = (context["clip/start/timestamp"], context["clip/end/timestamp"])
    assert times == (500_000, 1_500_000)
    assert lists["image/timestamp"].numpy().tolist() == [k * 200_000 for k in range(5)]
    with Video(clips / "a.mkv", start=0.5, end=1.5) as video:
        frames = [frame.image for frame in video.frames(frames_per_second=5, short_side=32)]
        sound = np.concatenate(list(video.sound()))
    images = [tf.io.decode_jpeg(jpeg).numpy() for jpeg in lists["image/encoded"]]
    np.testing.assert_allclose(np.stack(images), np.stack(frames), atol=2)
    assert lists["WAVEFORM/feature/floats"].shape == (1, 16_000)
    assert np.array_equal(lists["WAVEFORM/feature/floats"].values, sound)
    # A clip without sound, and upright.
    context, lists = records[1]
    assert (context["image/height"], context["image/width"]) == (43, 32)
    assert lists["WAVEFORM/feature/floats"].shape[0] == 0
    assert records[2][0]["clip/label/index"].shape == (0,)
    with (tmp_path / "out/manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frames"] for row in rows] == ["5", "5", "5", "10", "3"]
    assert [row["sound_samples"] for row in rows] == ["16000", "0", "0", "32768", "0"]
    assert (tmp_path / "out/label_names.csv").read_text() == (
        "label_id,label_name\n0,run\n1,sit\n2,walk\n"
    )


def test_a_part_of_the_picture(clips, tmp_path):
    settings = PackSettings(crop=(4, 8, 40, 20), short_side=10)
    pack(read_clips(clips / "clips.csv")[:1], tmp_path / "out", settings)
    [(context, lists)] = read(tmp_path / "out")
    assert (context["image/height"], context["image/width"]) == (10, 20)
    [image, *_] = (tf.io.decode_jpeg(jpeg).numpy() for jpeg in lists["image/encoded"])
    with Video(clips / "a.mkv", start=0.5, end=1.5) as video:
        [frame, *_] = video.frames(crop=(4, 8, 40, 20), short_side=10)
    np.testing.assert_allclose(image, frame.image, atol=2)


def test_frames_of_the_file_and_times_without_a_rate(clips, tmp_path):
    pack(read_clips(clips / "clips.csv"), tmp_path / "out", PackSettings(short_side=0))
    context, lists = read(tmp_path / "out")[4]
    assert context["image/frame_rate"] == 10
    assert lists["image/timestamp"].numpy().tolist() == [k * 100_000 for k in range(5)]
    assert (context["image/height"], context["image/width"]) == (64, 48)


def test_an_interrupted_job_ends_with_the_same_bytes(clips, tmp_path, monkeypatch):
    listed = read_clips(clips / "clips.csv")
    options = {"num_shards": 2, "num_readers": 2}
    pack(listed, tmp_path / "whole", PackSettings(fps=5), **options)
    original = media_sequence.record_of

    def interrupted(task, *rest):
        if task.number == 3:
            raise KeyboardInterrupt
        return original(task, *rest)

    monkeypatch.setattr(media_sequence, "record_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(listed, tmp_path / "again", PackSettings(fps=5), **options)
    made = []
    monkeypatch.setattr(
        media_sequence, "record_of", lambda task, *rest: made.append(task) or original(task, *rest)
    )
    pack(listed, tmp_path / "again", PackSettings(fps=5), **options)
    assert 0 < len(made) < len(listed)
    assert digests(tmp_path / "again") == digests(tmp_path / "whole")
    with pytest.raises(ConfigError, match="holds another job"):
        pack(listed, tmp_path / "again", PackSettings(fps=4), **options)


def test_the_command_leaves_out_bad_files_by_choice(clips, tmp_path, capsys, monkeypatch):
    (tmp_path / "clips.txt").write_text(f"{clips}/b.mp4 walk\nbroken.mp4 run\n")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    monkeypatch.setattr("yt8m_gat.commands.pack.start_tensorflow", lambda: None)
    arguments = [f"{tmp_path}/clips.txt", f"--output_dir={tmp_path}/out", "--fps=2"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "broken.mp4: cannot be opened as a video" in error
    main([*arguments, "--on_bad_file=skip"])
    assert "1 clips, of at most 2 frames" in capsys.readouterr().out
    [(context, _)] = read(tmp_path / "out")
    assert context["clip/label/index"].values.numpy().tolist() == [1]
    manifest = (tmp_path / "out/manifest.csv").read_text()
    assert "cannot be opened as a video" in manifest.splitlines()[2]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--fps=-1", "--fps must be 0 to 1000. Received: -1.0"),
        ("--quality=0", "--quality must be 1 to 100"),
        ("--num_shards=0", "--num_shards must be 1 to 100000"),
        ("--splits=a", "--splits must be names and shares"),
        ("--max_seconds=nan", "--max_seconds must be at least 0. Received: nan"),
        ("--crop=1,2,3", "--crop must be x,y,width,height in pixels"),
        ("--crop=1,2,0,3", "--crop must be x,y,width,height in pixels"),
    ],
)
def test_wrong_flags_are_one_line(clips, tmp_path, capsys, flag, message):
    with pytest.raises(SystemExit) as ended:
        main([f"{clips}/clips.csv", f"--output_dir={tmp_path}/out", flag])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_clip_that_no_record_can_hold(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(media_sequence, "_MAX_BYTES", 2000)
    with pytest.raises(VideoError, match=r"a\.mkv: a clip must have less than 2 GB of JPEG"):
        pack(read_clips(clips / "clips.csv"), tmp_path / "out", PackSettings())


@pytest.mark.slow
def test_a_killed_command_ends_with_the_same_bytes(clips, tmp_path):
    """It is killed as soon as a clip is finished."""
    lines = ["path,label,start,end"]
    lines += [f"{clips}/a.mkv,word{k % 3},{k / 20},{k / 20 + 0.5}" for k in range(24)]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    command = [sys.executable, "-m", "yt8m_gat", "pack", str(tmp_path / "clips.csv"), "--fps=25"]
    command += ["--num_shards=2", "--num_readers=1", "--with_sound"]
    unfinished = tmp_path / "out" / ".unfinished"
    with subprocess.Popen(
        [*command, f"--output_dir={tmp_path}/out"], stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not list(unfinished.glob("*.record")):
            time.sleep(0.001)
        process.kill()
    assert 0 < len(list(unfinished.glob("*.record"))) < 24
    assert not (tmp_path / "out/manifest.csv").exists()
    done = subprocess.run(
        [*command, f"--output_dir={tmp_path}/out"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pack(
        read_clips(tmp_path / "clips.csv"),
        tmp_path / "whole",
        PackSettings(fps=25.0, with_sound=True),
        num_shards=2,
    )
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
