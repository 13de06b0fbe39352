"""Predictions of video files: the extractor that a run keeps, CSV, JSON, Python, and the page."""

import base64
import csv
import dataclasses
import json
import re
import shutil
import sys
import wave as wavfile

import av
import keras
import numpy as np
import pytest
import tensorflow as tf

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.commands import inference
from yt8m_gat.commands import watch as watch_command
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.data.schema import RecordSchema
from yt8m_gat.export import read_archive, write_archive
from yt8m_gat.extraction.config import (
    EXTRACTOR_FILE,
    ExtractorConfig,
    FeatureConfig,
    digest_of_path,
)
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.extraction.projection import Standardize, save
from yt8m_gat.import_path import UntrustedCodeError
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline.run_extractor import extractor_to_keep
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.video.decoding import VideoError
from yt8m_gat.weights.hdf5 import save_weights

pytestmark = pytest.mark.slow

NAMES = ["Red", "Green, or nearly", "Blue"]
OPTIONS = {"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8, "local_masks": ("bd4",)}
RATE = 4
SIZES = {"rgb": 6, "audio": 64}


def write_video(path, color, seconds=3, tone=440.0):
    """A video of one colour that turns grey in its last second, with a tone."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=8)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for index in range(8 * seconds):
            shade = (128, 128, 128) if index >= 8 * (seconds - 1) else color
            image = np.broadcast_to(np.array(shade, np.uint8), (48, 64, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        wave = 0.5 * np.sin(2 * np.pi * tone * np.arange(16_000 * seconds) / 16_000)
        samples = av.AudioFrame.from_ndarray(wave[np.newaxis].astype("float32"), "fltp", "mono")
        samples.sample_rate = 16_000
        container.mux(sound.encode(samples))
        container.mux(sound.encode())


def make_extractor(folder):
    """A tiny Keras model of pictures, and log-mel of the sound, both standardized."""
    folder.mkdir()
    keras.utils.set_random_seed(5)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.GlobalAveragePooling2D(), layers.Dense(SIZES["rgb"])]
    )
    model.save(folder / "picture.keras")
    save(Standardize(np.zeros(6), np.full(6, 100.0)), folder / "picture.npz")
    save(Standardize(np.full(64, -2.0), np.full(64, 3.0)), folder / "sound.npz")
    config = ExtractorConfig(
        picture=FeatureConfig(
            kind="keras",
            model="picture.keras",
            copy="picture.keras",
            sha256=digest_of_path(folder / "picture.keras"),
            projection="standardize",
            constants="picture.npz",
            constants_sha256=digest_of_path(folder / "picture.npz"),
            size=SIZES["rgb"],
        ),
        sound=FeatureConfig(
            kind="log_mel",
            model="log_mel",
            projection="standardize",
            constants="sound.npz",
            constants_sha256=digest_of_path(folder / "sound.npz"),
            size=SIZES["audio"],
        ),
        frames_per_second=RATE,
    )
    config.save(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Videos, their records with an extractor and label names beside them, and a trained run."""
    folder = tmp_path_factory.mktemp("videos")
    colors = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    for number, (name, color) in enumerate(colors.items()):
        write_video(folder / f"{name}.mp4", color, tone=300.0 * (number + 1))
    records = folder / "records"
    make_extractor(records)
    extractor = Extractor.load(records)
    examples = [
        {"id": name, "labels": [number], **extractor(folder / f"{name}.mp4").features}
        for number, name in enumerate(colors)
    ]
    schema = RecordSchema(SIZES, num_classes=3)
    for split in ("train", "test"):
        yt8m_gat.write_records(records / f"{split}00.tfrecord", examples, schema)
    lines = ["label_id,label_name", *(f"{i},{name}" for i, name in enumerate(NAMES))]
    (records / "label_names.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    train(folder / "run", records)
    return folder


@pytest.fixture(scope="module")
def gat(place):
    """A run of a GAT that is not trained, with the same extractor."""
    folder = RunFolder(place / "gat")
    make_run(folder, "GAT", extractor_to_keep(folder, [f"{place}/records/train00.tfrecord"], [], 0))
    return folder


def make_run(folder, model, extractor=None, features=SIZES):
    config = config_of(model, features)
    keras.utils.set_random_seed(2)
    folder.prepare(config, extractor=extractor)
    save_weights(build_from_config(config), folder.best_weights, step=0)


def config_of(model="FrameLevelLogisticModel", features=SIZES):
    return RunConfig(
        data=DataConfig(
            num_classes=3, feature_names=tuple(features), feature_sizes=tuple(features.values())
        ),
        model=ModelConfig(name=model, options=OPTIONS if model == "GAT" else {}),
        training=TrainingConfig(batch_size=3, num_epochs=1, max_steps=1),
    )


def train(path, records, **options):
    pipeline.train(
        RunFolder(path),
        config_of(),
        train_data_pattern=f"{records}/train*.tfrecord",
        **options,
    )


def copy_of_records(place, tmp_path, **changes):
    """The same records beside another extractor, or beside none."""
    shutil.copytree(place / "records", tmp_path / "records")
    if changes:
        config = ExtractorConfig.load(tmp_path / "records")
        dataclasses.replace(config, **changes).save(tmp_path / "records")
    else:
        (tmp_path / "records" / EXTRACTOR_FILE).unlink()
    return tmp_path / "records"


def infer(arguments, capsys):
    """Exit code, stdout and stderr of the command."""
    try:
        inference.main(arguments)
        code = 0
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


def test_the_run_keeps_the_extractor_and_what_it_names(place):
    kept = {path.name for path in RunFolder(place / "run").extractor.iterdir()}
    assert kept == {EXTRACTOR_FILE, "picture.keras", "picture.npz", "sound.npz", "label_names.csv"}
    assert yt8m_gat.load_run(place / "run").label_names == dict(enumerate(NAMES))


def test_videos_are_predicted_as_their_records(place, tmp_path, capsys):
    run = ["--train_dir", str(place / "run"), "--top_k=3"]
    of_records, of_videos = tmp_path / "records.csv", tmp_path / "videos.csv"
    pattern = f"--input_data_pattern={place}/records/test*.tfrecord"
    assert infer([*run, pattern, f"--output_file={of_records}"], capsys)[0] == 0
    videos = f"--input_video_pattern={place}/*.mp4"
    code, out, err = infer([*run, videos, f"--output_file={of_videos}"], capsys)
    assert code == 0 and out == f"{of_videos}: 3 videos\n" and "warning" not in err

    def rows(path):
        header, *rest = path.read_text(encoding="utf-8").splitlines()
        assert header == "VideoId,LabelConfidencePairs"
        pairs = (line.split(",") for line in rest)
        return {name: np.array(text.split(), float) for name, text in pairs}

    expected = rows(of_records)
    assert list(rows(of_videos)) == ["blue", "green", "red"]
    for name, values in rows(of_videos).items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-5)


def test_a_run_of_sound_takes_files_of_sound_alone(place, tmp_path, capsys):
    """The extractor has a picture part too, whose model is not even there any more."""
    folder = RunFolder(tmp_path / "run")
    kept = extractor_to_keep(folder, [f"{place}/records/train00.tfrecord"], [], 0)
    make_run(folder, "FrameLevelLogisticModel", kept, {"audio": 64})
    config = ExtractorConfig.load(folder.extractor)
    picture = dataclasses.replace(config.picture, copy=None, path="gone.keras")
    dataclasses.replace(config, picture=picture).save(folder.extractor)
    wave = (8000 * np.sin(np.arange(32_000) / 9)).astype(np.int16)
    with wavfile.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(wave.tobytes())
    run = yt8m_gat.load_run(folder.path)
    table = run.predict_video([tmp_path / "tone.wav", place / "red.mp4"], top_k=3)
    # Of a video the features are those that its records hold.
    extracted = Extractor.load(place / "records")(place / "red.mp4")
    features = yt8m_gat.dequantize(tf.constant(extracted.features["audio"][np.newaxis]))
    logits = run.model.forward({"audio": features}, tf.ones(features.shape[:2], bool)).logits
    expected = np.sort(run.model.probabilities(logits)[0])[::-1]
    np.testing.assert_allclose(table.probability[3:], expected, rtol=2e-5)
    words = [f"--train_dir={folder.path}", f"--input_video_pattern={tmp_path}/*.wav", "--top_k=3"]
    output = tmp_path / "tags.json"
    code, _, err = infer([*words, "--format=json", f"--output_file={output}"], capsys)
    assert code == 0 and "warning" not in err
    tone = json.loads(output.read_text())
    assert (tone["duration"], tone["num_frames"], tone["faults"]) == (2.0, 2 * RATE, [])
    found = [label["probability"] for label in tone["labels"]]
    np.testing.assert_allclose(found, table.probability[:3], rtol=1e-5)
    page = tmp_path / "page.html"
    words = [f"{tmp_path}/tone.wav", f"--train_dir={folder.path}", f"--output_file={page}"]
    assert watch_command.main(words) == 0
    assert "base64," not in page.read_text(encoding="utf-8")


def test_json_names_the_labels_and_their_seconds(place, tmp_path, capsys):
    output = tmp_path / "tags.json"
    arguments = [
        f"--train_dir={place}/run",
        f"--input_video_pattern={place}/red.mp4,{place}/blue.mp4",
        "--format=json",
        "--top_k=2",
        f"--output_file={output}",
    ]
    assert infer(arguments, capsys)[0] == 0
    blue, red = (json.loads(line) for line in output.read_text().splitlines())
    assert (blue["video_id"], blue["file"]) == ("blue", f"{place}/blue.mp4")
    assert (red["duration"], red["num_frames"], red["faults"]) == (3.0, 3 * RATE, [])
    table = yt8m_gat.load_run(place / "run").predict_video(place / "red.mp4", top_k=2)
    assert [label["name"] for label in red["labels"]] == list(table.name)
    for label, row in zip(red["labels"], table.itertuples(), strict=True):
        assert label["label"] == row.label and label["name"] == NAMES[row.label]
        assert label["probability"] == pytest.approx(row.probability, rel=1e-5)
        np.testing.assert_allclose(label["seconds"], row.seconds)
        for start, end in label["seconds"]:
            assert 0 <= start < end <= 3


def test_seconds_are_those_of_the_class_activation(place):
    """By hand: the activation of the same features, at the times of the frames."""
    run = yt8m_gat.load_run(place / "run")
    extracted = run.extractor(place / "green.mp4", start=1.0)
    assert extracted.seconds[0] == 1.0
    features = {
        name: yt8m_gat.dequantize(tf.constant(x)[tf.newaxis])
        for name, x in extracted.features.items()
    }
    mask = tf.ones((1, len(extracted.seconds)), bool)
    with tf.GradientTape() as tape:
        tape.watch(features)
        outputs = run.model.forward(features, mask)
        label = int(np.argmax(outputs.logits))
        score = outputs.logits[0, label]
    activation = tf.reduce_sum(tape.gradient(score, outputs.frames) * outputs.frames, -1)[0]
    carries = (activation > 0) & (activation >= 0.5 * tf.reduce_max(activation))
    table = run.predict_video(place / "green.mp4", start=1.0, top_k=1)
    assert table.label[0] == label
    middles = extracted.seconds + 0.5 / RATE
    inside = [any(start < t < end for start, end in table.seconds[0]) for t in middles]
    assert inside == list(carries.numpy())


def test_a_bad_video_stops_the_command_or_is_left_out(place, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    shutil.copy(place / "red.mp4", tmp_path / "red.mp4")
    output = tmp_path / "tags.csv"
    arguments = [
        f"--train_dir={place}/run",
        f"--input_video_pattern={tmp_path}/*.mp4",
        f"--output_file={output}",
    ]
    code, _, err = infer(arguments, capsys)
    assert code == 2 and not output.exists()
    last = err.splitlines()[-1]
    assert "broken.mp4" in last and "--on_bad_record=skip" in last
    code, out, err = infer([*arguments, "--on_bad_record=skip"], capsys)
    assert code == 0 and out == f"{output}: 1 videos\n"
    assert re.search(r"left out: .*broken\.mp4", err) and "1 of 2 videos could not be read" in err
    with output.open(encoding="utf-8") as file:
        assert [row["VideoId"] for row in csv.DictReader(file)] == ["red"]


def test_after_a_stop_the_same_command_goes_on_after_the_finished_videos(
    place, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "tags.json"
    options = {"input_video_pattern": f"{place}/*.mp4", "format": "json"}
    folder = RunFolder(place / "run")
    pipeline.infer_videos(folder, output_file=tmp_path / "whole.json", **options)
    monkeypatch.setattr("yt8m_gat.prediction.submission.SYNC_SECONDS", 0.0)
    many = Extractor.many

    def stops(self, clips):
        for number, result in enumerate(many(self, clips)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(Extractor, "many", stops)
    with pytest.raises(KeyboardInterrupt):
        pipeline.infer_videos(folder, output_file=output, **options)
    seen = []
    monkeypatch.setattr(
        Extractor, "many", lambda self, clips: many(self, seen.extend(clips) or clips)
    )
    capsys.readouterr()
    assert pipeline.infer_videos(folder, output_file=output, **options) == 3
    assert "going on after 2 videos" in capsys.readouterr().err
    assert [clip.path for clip in seen] == [f"{place}/red.mp4"]
    assert output.read_text() == (tmp_path / "whole.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input_video_pattern=x.mp4", "--batch_size=3"], "--batch_size is about records"),
        (["--input_video_pattern=x.mp4", "--segment_labels"], "--segment_labels is about records"),
        (["--input_data_pattern=x", "--format=json"], "--format is about videos"),
        (["--input_data_pattern=x", "--extractor=x"], "--extractor is about videos"),
        (["--input_video_pattern=x.mp4", "--label_names=x"], "--label_names is for --format=json"),
        (["--input_video_pattern=/no/such.mp4"], "--input_video_pattern: no file matches"),
    ],
)
def test_wrong_flags_are_refused(arguments, message, place, tmp_path, capsys):
    arguments = [f"--train_dir={place}/run", *arguments, f"--output_file={tmp_path}/x"]
    code, _, err = infer(arguments, capsys)
    assert code == 2 and message in err and "Traceback" not in err


def test_records_of_another_extractor_are_refused(place, tmp_path):
    other = copy_of_records(place, tmp_path, frames_per_second=25.0)
    pattern = f"{other}/test*.tfrecord"
    run = RunFolder(place / "run")
    refused = pytest.raises(ConfigError, match=r"frames_per_second: 4.0 != 25.0")
    with refused:
        pipeline.infer(run, input_data_pattern=pattern, output_file=tmp_path / "x.csv")
    with refused:
        pipeline.evaluate(run, eval_data_pattern=pattern)
    with refused:
        yt8m_gat.load_run(run).predict(pattern)
    with refused:
        train(place / "run", other)  # Resuming.
    with refused:
        train(tmp_path / "new", place / "records", eval_data_pattern=pattern)
    with refused:
        pipeline.infer_videos(
            run,
            input_video_pattern=f"{place}/red.mp4",
            output_file=tmp_path / "x.csv",
            extractor=other,
        )


def test_an_archive_brings_models_of_keras_only_unless_it_is_trusted(place, tmp_path):
    """A stranger's .tflite file is a program to TensorFlow's interpreter."""
    write_archive(RunFolder(place / "run"), tmp_path / "model.tgz")
    unpacked = read_archive(tmp_path / "model.tgz", tmp_path / "unpacked")
    assert len(yt8m_gat.load_run(unpacked.path).predict_video(place / "red.mp4", top_k=1)) == 1
    config = ExtractorConfig.load(unpacked.extractor)
    picture = dataclasses.replace(config.picture, kind="tflite", model="evil.tflite")
    dataclasses.replace(config, picture=picture).save(unpacked.extractor)
    message = (
        r"unpacked from an archive.*picture model of the kind tflite, evil\.tflite.*trust_code"
    )
    video = {"input_video_pattern": f"{place}/red.mp4", "output_file": tmp_path / "tags.csv"}
    with pytest.raises(UntrustedCodeError, match=message):
        pipeline.infer_videos(unpacked, **video)
    with pytest.raises(UntrustedCodeError, match=message):
        yt8m_gat.load_run(unpacked.path).predict_video(place / "red.mp4")
    # It is trusted, and then loaded: it is no .tflite file.
    with pytest.raises(ConfigError, match="cannot be loaded as a model"):
        pipeline.infer_videos(unpacked, **video, trust_code=True)


def test_records_without_an_extractor_are_warned_of(place, tmp_path, capsys):
    bare = copy_of_records(place, tmp_path)
    yt8m_gat.load_run(place / "run").predict(f"{bare}/test*.tfrecord")
    err = capsys.readouterr().err
    assert "picture.keras (standardize), log_mel" in err and "there is no extractor.json" in err


def test_a_run_of_youtube8ms_features_is_warned_of_others_by_name(place, tmp_path, capsys):
    bare = copy_of_records(place, tmp_path)
    run = RunFolder(tmp_path / "run")
    make_run(run, "FrameLevelLogisticModel")
    pipeline.infer(
        run,
        input_data_pattern=f"{bare}/test*.tfrecord",
        output_file=tmp_path / "x.csv",
    )
    assert "extractor" not in capsys.readouterr().err
    video = {"input_video_pattern": f"{place}/red.mp4", "output_file": tmp_path / "tags.csv"}
    with pytest.raises(ConfigError, match="Name one with --extractor"):
        pipeline.infer_videos(run, **video)
    assert pipeline.infer_videos(run, **video, extractor=place / "records") == 1
    err = capsys.readouterr().err
    assert f"warning: {tmp_path}/run was trained on records without an extractor.json" in err
    assert "picture.keras (standardize), log_mel (standardize), 4 frames a second" in err


def test_features_of_other_sizes_are_refused(place, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(place / "run", run.path)
    config = ExtractorConfig.load(run.extractor)
    dataclasses.replace(config, picture=None).save(run.extractor)
    with pytest.raises(ConfigError, match=r"takes rgb \[6\], audio \[64\]. .* audio \[64\]"):
        yt8m_gat.load_run(run).predict_video(place / "red.mp4")


def test_without_pyav_the_message_names_the_extra(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'yt8m-gat\[video\]'"):
        yt8m_gat.load_run(place / "run").predict_video(place / "red.mp4")


def test_a_new_model_drops_the_extractor_of_the_old_one(place, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(place / "run", run.path)
    train(run.path, copy_of_records(place, tmp_path), start_new_model=True)
    assert not run.extractor.exists()


def test_a_video_that_cannot_be_read_is_an_error_in_python(place, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        yt8m_gat.load_run(place / "run").predict_video(tmp_path / "broken.mp4")


def test_the_page_shows_the_video_the_run_and_what_the_attack_does(place, gat, tmp_path, capsys):
    output = tmp_path / "page.html"
    arguments = [str(place / "red.mp4"), f"--train_dir={gat.path}", "-o", str(output)]
    assert watch_command.main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{output}: ")
    page = output.read_text(encoding="utf-8")
    table = yt8m_gat.load_run(gat).predict_video(place / "red.mp4")
    for row in table.itertuples():
        assert f"{row.name} ({row.label})</span></th><td>{100 * row.probability:.1f}</td>" in page
    pictures = [base64.b64decode(text) for text in re.findall(r"base64,([^\"]+)", page)]
    film = [tf.io.decode_jpeg(jpeg).numpy() for jpeg in pictures[:12]]
    # A colour for two seconds, then grey: 12 frames at 4 a second.
    reds = [image[..., 0].mean() - image[..., 2].mean() for image in film]
    assert min(reds[:8]) > 80 and max(map(abs, reds[8:])) < 20
    assert "bd4" in page and "FGM, epsilon 0.5" in page


def test_the_attack_of_the_page_is_that_of_training(place, gat):
    watched = pipeline.watch(gat, video=place / "blue.mp4")
    assert watched["edges"] == [k / RATE for k in range(3 * RATE + 1)]
    clean, attacked = (
        np.array([entry[side]["probability"] for entry in watched["labels"]])
        for side in ("clean", "attacked")
    )
    own = clean >= 0.5 if (clean >= 0.5).any() else clean == clean.max()
    loss = [-np.log(np.where(own, p, 1 - p)).mean() for p in (clean, attacked)]
    assert loss[1] > loss[0]
    for levels in watched["attention"].values():
        for sides in levels.values():
            assert len(sides["clean"]) == len(sides["attacked"]) == 3 * RATE
            assert sum(sides["clean"]) == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top_k=0"], "--top_k must be at least 1"),
        (["--extractor=/no/such"], "/no/such must be extractor.json"),
    ],
)
def test_wrong_flags_of_watch_end_in_one_line(arguments, message, place, capsys):
    words = [str(place / "red.mp4"), f"--train_dir={place}/run", *arguments]
    assert watch_command.main(words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
