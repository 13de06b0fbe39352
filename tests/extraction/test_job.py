"""The whole way: videos to records, read back by our reader and by TensorFlow's own."""

import csv
import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_models
import tiny_videos

import yt8m_gat
from yt8m_gat.commands import extract as command
from yt8m_gat.config import ConfigError
from yt8m_gat.data.dataset import batch_parser
from yt8m_gat.data.quantization import quantize
from yt8m_gat.extraction import extractor_parts
from yt8m_gat.extraction.config import ExtractorConfig
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.extraction.job import extract
from yt8m_gat.extraction.log_mel import log_mel
from yt8m_gat.extraction.settings import ExtractionSettings
from yt8m_gat.extraction.shards import read_manifest
from yt8m_gat.video.clips import Clip, read_clips
from yt8m_gat.video.decoding import Video, VideoError

FPS = 5.0
NUM_VIDEOS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six videos of 2 to 3.25 s with tones, their list, and a model: the mean color."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for number in range(NUM_VIDEOS):
            length = 8 + number  # Of 0.25 s.
            seconds = np.arange(length * 4000) / 16_000
            tone = 8000 * np.sin(2 * np.pi * (300 + 400 * number) * seconds)
            images = [
                np.full((48, 64, 3), level, np.uint8) for level in rng.integers(20, 230, length)
            ]
            tiny_videos.write(
                folder / f"v{number}.mkv",
                images,
                fps=4,
                sound=tone[None].astype(np.int16),
                sound_codec="pcm_s16le",
            )
            writer.writerow([f"v{number}.mkv", "odd" if number % 2 else "even"])
            writer.writerow([f"v{number}.mkv", "all"])
    tiny_models.saved(tiny_models.mean_color(), folder)
    return folder


def settings(folder, **changes):
    return ExtractionSettings(**{"picture": str(folder / "mean.keras"), "fps": FPS} | changes)


def values_of(path):
    """Mean color of each frame, and mean log-mel of each period, from what is decoded."""
    with Video(path) as video:
        frames = list(video.frames(frames_per_second=FPS, size=(8, 8)))
        sound = np.concatenate(list(video.sound()))
    colors = np.stack([frame.image.mean(axis=(0, 1)) for frame in frames])
    # 20 log-mel frames fit into a period of 3,200 samples: 3,440 samples around its middle.
    padded = np.concatenate([np.zeros(120, np.float32), sound, np.zeros(9000, np.float32)])
    waves = np.stack([padded[3200 * k : 3200 * k + 3440] for k in range(len(frames))])
    return colors, log_mel(waves).mean(axis=1)


def read_with_tensorflow(pattern):
    examples = {}
    for path in sorted(Path(pattern).parent.glob(Path(pattern).name)):
        for payload in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            context, frames = tf.io.parse_single_sequence_example(
                payload,
                {
                    "id": tf.io.FixedLenFeature([], tf.string),
                    "labels": tf.io.VarLenFeature(tf.int64),
                },
                {name: tf.io.FixedLenSequenceFeature([], tf.string) for name in ("rgb", "audio")},
            )
            arrays = {name: tf.io.decode_raw(frames[name], tf.uint8).numpy() for name in frames}
            labels = tf.sparse.to_dense(context["labels"]).numpy().tolist()
            examples[context["id"].numpy().decode()] = (labels, arrays)
    return examples


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_log_mel_has_a_scale_that_needs_no_fit(folder, tmp_path):
    paths = [folder / f"v{number}.mkv" for number in range(2)]
    _, config = extract(
        [Clip(str(path)) for path in paths],
        tmp_path,
        ExtractionSettings(picture="none", fps=FPS, fit_videos=0),
    )
    assert (config.sound.projection, config.files) == ("log10", {})
    extractor = Extractor.load(tmp_path)
    for path in paths:
        sound = extractor(path).features["audio"]
        decades = values_of(path)[1] / np.log(10)
        np.testing.assert_array_equal(sound, quantize(decades)[: len(sound)])
        assert sound.min() < 5 and sound.max() > 150  # Between silence and a tone.


def test_records_hold_the_standardized_values_of_every_frame(folder, tmp_path):
    summary, config = extract(
        read_clips(folder / "clips.csv"), tmp_path, settings(folder), num_shards=2
    )
    assert summary.num_clips == {"": 6}
    # 3.25 s, of which the last frame begins at 3.2.
    assert summary.most_frames == 17
    assert config.feature_sizes == {"rgb": 3, "audio": 64}
    values = {number: values_of(folder / f"v{number}.mkv") for number in range(NUM_VIDEOS)}
    examples = read_with_tensorflow(tmp_path / "videos*.tfrecord")
    assert set(examples) == {f"v{number}" for number in range(NUM_VIDEOS)}
    for part, name in enumerate(("rgb", "audio")):
        frames = np.concatenate([value[part] for value in values.values()]).astype(np.float64)
        mean, deviation = frames.mean(axis=0), frames.std(axis=0, ddof=1)
        for number, value in values.items():
            expected = quantize((value[part] - mean) / deviation)
            found = examples[f"v{number}"][1][name]
            assert found.shape == expected.shape
            # Where a value is between two levels, rounding decides.
            differences = found.astype(int) - expected
            assert np.abs(differences).max() <= 1 and (differences != 0).mean() < 0.01
    # all, even, odd: 0, 1, 2.
    assert [examples[f"v{n}"][0] for n in range(3)] == [[0, 1], [0, 2], [0, 1]]
    rows = read_manifest(tmp_path)
    assert (rows[0]["frames"], rows[0]["seconds"], rows[0]["faults"]) == ("10", "2.0", "")
    # Our own parser, in the order of the shards.
    schema = yt8m_gat.RecordSchema(config.feature_sizes, 3, max_frames=20)
    files = tf.data.TFRecordDataset([str(path) for path in summary.shards])
    batch = batch_parser(schema)(tf.constant(list(files.as_numpy_iterator())))
    for row, number in enumerate((0, 2, 4, 1, 3, 5)):
        expected, arrays = examples[f"v{number}"]
        assert batch["video_id"][row] == f"v{number}".encode()
        assert np.flatnonzero(batch["labels"][row]).tolist() == expected
        num_frames = batch["num_frames"][row]
        np.testing.assert_array_equal(batch["features"]["rgb"][row, :num_frames], arrays["rgb"])
    assert summary.shards == (tmp_path / "videos00.tfrecord", tmp_path / "videos01.tfrecord")


def test_the_kept_extractor_gives_the_same_bytes(folder, tmp_path):
    clips = read_clips(folder / "clips.csv")
    extract(clips, tmp_path / "one", settings(folder), splits=(("train", 1), ("test", 1)))
    examples = read_with_tensorflow(tmp_path / "one" / "*.tfrecord")
    extractor = Extractor.load(tmp_path / "one" / "extractor.json")
    for number in (0, 5):
        extracted = extractor(folder / f"v{number}.mkv")
        for name, array in extracted.features.items():
            np.testing.assert_array_equal(array, examples[f"v{number}"][1][name])
        assert extracted.duration == len(extracted.seconds) / FPS
        np.testing.assert_allclose(extracted.seconds, np.arange(len(extracted.seconds)) / FPS)
    # A part of a file has the frames of that part.
    part = extractor(folder / "v5.mkv", start=1.0, end=2.0)
    np.testing.assert_allclose(part.seconds, [1.0, 1.2, 1.4, 1.6, 1.8])
    np.testing.assert_array_equal(part.features["rgb"], examples["v5"][1]["rgb"][5:10])
    # Other records with the same constants.
    _, config = extract(
        clips[:2], tmp_path / "two", extractor=extractor, names=["all", "even", "odd"]
    )
    assert config == extractor.config
    assert contents(tmp_path / "two")["picture.npz"] == contents(tmp_path / "one")["picture.npz"]
    again = read_with_tensorflow(tmp_path / "two" / "*.tfrecord")
    assert {name: labels for name, (labels, _) in again.items()} == {"v0": [0, 1], "v1": [0, 2]}
    np.testing.assert_array_equal(again["v1"][1]["audio"], examples["v1"][1]["audio"])


def test_constants_are_those_of_the_training_clips(folder, tmp_path):
    clips = read_clips(folder / "clips.csv")
    splits = (("train", 1), ("test", 1))
    summary, _ = extract(clips, tmp_path, settings(folder), splits=splits)
    assert set(summary.num_clips) == {"train", "test"}
    of_training = [row["id"] for row in read_manifest(tmp_path) if row["split"] == "train"]
    colors = np.concatenate([values_of(folder / f"{name}.mkv")[0] for name in of_training])
    with np.load(tmp_path / "picture.npz") as constants:
        np.testing.assert_allclose(constants["mean"], colors.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(constants["deviation"], colors.std(axis=0, ddof=1), rtol=1e-5)


def test_a_fitted_pca(folder, tmp_path):
    clips = read_clips(folder / "clips.csv")
    _, config = extract(clips, tmp_path, settings(folder, fit_pca=(2, 5)))
    assert config.feature_sizes == {"rgb": 2, "audio": 5}
    sound = np.concatenate([values_of(folder / f"v{n}.mkv")[1] for n in range(NUM_VIDEOS)])
    variances = np.linalg.eigvalsh(np.cov(sound.astype(np.float64).T))[::-1]
    with np.load(tmp_path / "sound.npz") as constants:
        np.testing.assert_allclose(constants["eigenvalues"], variances[:5], rtol=1e-4)
    with pytest.raises(ConfigError, match=r"--fit_pca must be at most 3, .*Received: 4"):
        extract(clips, tmp_path / "other", settings(folder, fit_pca=(4,)))


def test_bad_files_are_left_out_or_stop_the_job(folder, tmp_path):
    (tmp_path / "bad.mkv").write_bytes(b"no video")
    clips = [*read_clips(folder / "clips.csv")[:2], Clip(str(tmp_path / "bad.mkv"))]
    with pytest.raises(VideoError, match=r"bad\.mkv"):
        extract(clips, tmp_path / "stopped", settings(folder))
    summary, _ = extract(clips, tmp_path / "skipped", settings(folder), on_bad_file="skip")
    assert (summary.num_clips, summary.num_bad) == ({"": 2}, 1)
    row = read_manifest(tmp_path / "skipped")[2]
    assert row["frames"] == "0" and "bad.mkv" in row["faults"]


def test_silence_stands_in_for_missing_sound(folder, tmp_path):
    images = [np.full((48, 64, 3), level, np.uint8) for level in (40, 90, 140, 200)]
    silent = tiny_videos.write(tmp_path / "silent.mkv", images, fps=2)
    short = tiny_videos.write(
        tmp_path / "short.mkv",
        images,
        fps=1,
        sound=np.full((1, 16_000), 900, np.int16),
        sound_codec="pcm_s16le",
    )
    extract(read_clips(folder / "clips.csv"), tmp_path / "made", settings(folder))
    extractor = Extractor.load(tmp_path / "made")
    without, cut = extractor.many([Clip(silent), Clip(short)])
    assert without.faults == ("there is no sound: silence stands in for it",)
    assert cut.faults == ("the sound ends after 1.00 s: silence follows it",)
    with np.load(tmp_path / "made" / "sound.npz") as constants:
        silence = quantize((np.log(0.01) - constants["mean"]) / constants["deviation"])
    np.testing.assert_array_equal(without.features["audio"], np.tile(silence, (10, 1)))
    np.testing.assert_array_equal(cut.features["audio"][6:], np.tile(silence, (14, 1)))
    assert (cut.features["audio"][:4] != silence).any(axis=1).all()


def test_sound_without_a_picture_and_the_other_way_round(folder, tmp_path):
    path = tiny_videos.write(
        tmp_path / "sound.wav", sound=np.full((1, 24_000), 900, np.int16), sound_codec="pcm_s16le"
    )
    only_sound = settings(folder, picture="none")
    _, config = extract([Clip(path)], tmp_path / "sound", only_sound)
    assert config.feature_sizes == {"audio": 64}
    extracted = Extractor.load(tmp_path / "sound")(path, start=0.5)
    np.testing.assert_allclose(extracted.seconds, [0.5, 0.7, 0.9, 1.1, 1.3])
    assert read_manifest(tmp_path / "sound")[0]["frames"] == "8"
    clips = read_clips(folder / "clips.csv")[:2]
    _, config = extract(clips, tmp_path / "picture", settings(folder, sound="none"))
    assert config.feature_sizes == {"rgb": 3}
    with pytest.raises(VideoError, match="has no picture"):
        Extractor.load(tmp_path / "picture")(path)


def test_sound_alone_of_an_extractor_of_both_needs_no_picture(folder, tmp_path, monkeypatch):
    clips = read_clips(folder / "clips.csv")
    extract(clips, tmp_path / "made", settings(folder))
    expected = Extractor.load(tmp_path / "made")(clips[0].path)
    monkeypatch.setattr(extractor_parts, "picture_model", None)  # It is not loaded.
    extractor = Extractor.load(tmp_path / "made", features=["audio"])
    extracted = extractor(clips[0].path)
    # The frames of the picture are the time steps still, so that nothing else changes.
    np.testing.assert_array_equal(extracted.features.pop("audio"), expected.features["audio"])
    np.testing.assert_array_equal(extracted.seconds, expected.seconds)
    assert extracted.features == {} and extracted.duration == expected.duration
    wave = (3000 * np.sin(np.arange(24_000) / 9)).astype(np.int16)
    path = tmp_path / "sound.wav"
    tiny_videos.write(path, sound=wave[np.newaxis], sound_codec="pcm_s16le")
    of_wave = extractor(path, start=0.5)
    np.testing.assert_allclose(of_wave.seconds, [0.5, 0.7, 0.9, 1.1, 1.3])
    padded = np.concatenate([np.zeros(120), wave[8000:] / 2**15, np.zeros(9000)]).astype("float32")
    windows = np.stack([padded[3200 * k : 3200 * k + 3440] for k in range(5)])
    with np.load(tmp_path / "made" / "sound.npz") as constants:
        scaled = (log_mel(windows).mean(axis=1) - constants["mean"]) / constants["deviation"]
    differences = np.abs(of_wave.features["audio"].astype(int) - quantize(scaled))
    assert differences.max() <= 1 and (differences > 0).mean() < 0.01
    silent = tiny_videos.write(tmp_path / "silent.mkv", tiny_videos.numbered(4), fps=5)
    assert extractor(silent).faults == ("there is no sound: silence stands in for it",)


def test_crop_and_max_seconds(folder, tmp_path):
    halves = np.full((48, 64, 3), 30, np.uint8)
    halves[:, 32:] = 200
    path = tiny_videos.write(tmp_path / "halves.mkv", [halves] * 12, fps=4)
    chosen = settings(folder, sound="none", crop=(40, 8, 16, 16), max_seconds=1.0)
    with pytest.raises(ConfigError, match=r"cannot be fitted"):
        extract([Clip(path, end=0.1)], tmp_path / "few", chosen)
    extract([Clip(path)], tmp_path / "made", chosen)
    with np.load(tmp_path / "made" / "picture.npz") as constants:
        np.testing.assert_allclose(constants["mean"], [200] * 3, atol=3)
    assert read_manifest(tmp_path / "made")[0]["frames"] == "5"


def test_another_file_or_a_missing_one_is_refused(folder, tmp_path):
    extract(read_clips(folder / "clips.csv")[:2], tmp_path, settings(folder))
    assert ExtractorConfig.load(tmp_path).files.keys() == {
        *("picture.keras", "picture.npz", "sound.npz")
    }
    whole = (tmp_path / "sound.npz").read_bytes()
    (tmp_path / "sound.npz").write_bytes(whole[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"sound\.npz must have the SHA-256"):
        Extractor.load(tmp_path)
    (tmp_path / "sound.npz").unlink()
    with pytest.raises(ConfigError, match=r"sound\.npz is missing"):
        Extractor.load(tmp_path)
    (tmp_path / "sound.npz").write_bytes(whole)
    # A model that is not copied is named by its place, and has to be the same one.
    config = ExtractorConfig.load(tmp_path)
    picture = dataclasses.replace(config.picture, copy=None, path=str(tmp_path / "gone.keras"))
    dataclasses.replace(config, picture=picture).save(tmp_path)
    with pytest.raises(ConfigError, match=r"Name their place: --picture=PATH"):
        Extractor.load(tmp_path)
    Extractor.load(tmp_path, picture=folder / "mean.keras")
    (tmp_path / "other.keras").write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"other\.keras must be the model"):
        Extractor.load(tmp_path, picture=tmp_path / "other.keras")


def test_the_official_form(folder, tmp_path):
    official = tmp_path / "official"
    official.mkdir()
    constants = tiny_models.inception(official)
    chosen = settings(
        folder, picture="youtube8m", sound="none", official_dir=str(official), fps=1.0
    )
    clips = read_clips(folder / "clips.csv")[:2]
    _, config = extract(clips, tmp_path / "made", chosen)
    assert config.is_youtube8m and config.feature_sizes == {"rgb": 1024}
    extracted = Extractor.load(tmp_path / "made", picture=official)(clips[0].path)
    with Video(clips[0].path) as video:
        means = [frame.image.mean(axis=(0, 1)) for frame in video.frames(frames_per_second=1)]
    pool = np.stack([np.resize(mean, 2048) for mean in means])
    components = (pool - constants["mean"][:, 0]) @ constants["eigenvecs"].T[:, :1024]
    whitened = components / np.sqrt(constants["eigenvals"][:1024, 0] + 1e-4)
    expected = np.round((np.clip(whitened, -2, 2) + 2) * 255 / 4)
    assert np.abs(extracted.features["rgb"] - expected).max() <= 1
    for name in ("mean.npy", "eigenvals.npy", "eigenvecs.npy", "classify_image_graph_def.pb"):
        (official / name).rename(official / f"{name}.away")
        with pytest.raises(ConfigError, match=rf"must hold .*Missing: {name}"):
            extract(clips, tmp_path / "other", chosen)
        (official / f"{name}.away").rename(official / name)
    with pytest.raises(ConfigError, match="has a PCA of its own"):
        extract(clips, tmp_path / "other", dataclasses.replace(chosen, fit_pca=(8,)))


def run(*arguments):
    command.main([str(argument) for argument in arguments])


def test_the_command_prints_the_next_one(folder, tmp_path, capsys):
    options = [f"--picture={folder / 'mean.keras'}", "--fps=5", f"--labels={folder / 'clips.csv'}"]
    run(*options, f"--output_dir={tmp_path}", "--splits=train:1,validate:1")
    printed = capsys.readouterr().out
    assert "mean.keras (standardize), log_mel (standardize), 5 frames a second" in printed
    last = printed.splitlines()[-1]
    for flag in (
        f"--train_data_pattern={tmp_path}/train*.tfrecord",
        f"--eval_data_pattern={tmp_path}/validate*.tfrecord",
        "--feature_names=rgb,audio --feature_sizes=3,64 --max_frames=17 --num_classes=3",
    ):
        assert flag in last
    # Some of the list's videos, with the numbers of classes of the first records.
    before = contents(tmp_path)
    run(
        folder / "v1.mkv", *options[2:], f"--extractor={tmp_path}", f"--output_dir={tmp_path / 'b'}"
    )
    assert read_manifest(tmp_path / "b")[0]["labels"] == "0 2"
    # Again: nothing changes.
    run(*options, f"--output_dir={tmp_path}", "--splits=train:1,validate:1")
    after = contents_of_files(tmp_path)
    assert after == before


def contents_of_files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name videos: files, patterns, lists or folders; or give --labels"),
        (["gone*.mp4"], "no file has this name or matches this pattern: 'gone*.mp4'"),
        (["V", "--picture=gone.mp4"], "--picture must be a name of keras.applications"),
        (["V", "--picture=gone.keras"], "--picture: there is no gone.keras"),
        (["V", "--picture=youtube8m"], "--picture=youtube8m needs --official_dir"),
        (["V", "--sound=vggish"], "--sound=vggish needs --official_dir"),
        (["V", "--sound=yamnet"], "--sound must be log_mel, vggish"),
        (["V", "--crop=1,2,3"], "--crop must be x,y,width,height in pixels. Received: 1,2,3"),
        (["V", "--crop=1,2,x"], "--crop must be ints separated by commas. Received: 'x'"),
        (["V", "--picture_range=1"], "--picture_range must be the values of black and of white"),
        (["V", "--fps=0"], "--fps must be more than 0 and at most 1000"),
        (["V", "--max_seconds=-1"], "--max_seconds must be positive"),
        (["V", "--fit_pca=4", "--fit_videos=0"], "--fit_pca needs videos to fit to"),
        (["V", "--splits=train"], "--splits must be names and shares"),
        (["V", "--num_shards=0"], "--num_shards must be 1 to 100000. Received: 0"),
        (["V", "--fit_videos=0", "--picture=M"], "--fit_videos must not be 0: the picture model"),
        (["V", "--labels=L"], "must have a line for each video"),
        (["V", "--extractor=gone"], "gone must be extractor.json"),
        (["V", "--extractor=x", "--fps=2"], "--fps is set by --extractor=x"),
    ],
)
def test_wrong_flags_are_one_line(folder, tmp_path, capsys, arguments, message):
    (tmp_path / "list.csv").write_text("path,label\nother.mkv,x\n")
    places = {
        "V": str(folder / "v0.mkv"),
        "--picture=M": f"--picture={folder / 'mean.keras'}",
        "--labels=L": f"--labels={tmp_path / 'list.csv'}",
    }
    words = [places.get(word, word) for word in arguments]
    if not any(word.startswith(("--picture=", "--extractor")) for word in words):
        words.append("--picture=none")
    with pytest.raises(SystemExit) as stopped:
        run(f"--output_dir={tmp_path / 'made'}", *words)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not list(tmp_path.glob("made/*.tfrecord"))


@pytest.mark.slow
def test_killed_anywhere_the_same_command_makes_the_same_bytes(folder, tmp_path):
    words = [f"--labels={folder / 'clips.csv'}", f"--picture={folder / 'mean.keras'}", "--fps=5"]
    words += ["--num_shards=3", "--splits=train:2,validate:1", "--fit_pca=2"]
    run(*words, f"--output_dir={tmp_path / 'whole'}")
    killed = tmp_path / "killed"
    process_words = [sys.executable, "-m", "yt8m_gat", "extract", *words, f"--output_dir={killed}"]
    # While it fits, and while it writes records.
    for pattern, signal_number in (("values/*.npz", signal.SIGKILL), ("*.record", signal.SIGINT)):
        process = subprocess.Popen(process_words, stderr=subprocess.PIPE)
        while not list(killed.glob(f".unfinished/{pattern}")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal_number)
        _, error = process.communicate(timeout=60)
        if process.returncode == 130:
            assert b"the same command goes on after the videos in" in error
        else:
            # It may have come to its end first.
            assert process.returncode in (-signal.SIGKILL, 0)
    run(*words, f"--output_dir={killed}")
    assert contents(killed) == contents(tmp_path / "whole")
