"""Attacks in pixels and sound through extractor and classifier: closed forms, figures, the page."""

import base64
import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_videos

from yt8m_gat import pipeline
from yt8m_gat.commands import attack_videos as command
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.extraction.config import ExtractorConfig, FeatureConfig, digest_of_path
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.extraction.projection import Standardize, save
from yt8m_gat.job_settings import VideoAttackSettings
from yt8m_gat.models import build_from_config
from yt8m_gat.pipeline import attacked_video, video_attacks
from yt8m_gat.pipeline.attacked_pictures import shown_pictures
from yt8m_gat.pipeline.attacked_video import (
    PIXELS,
    SOUND,
    VideoChain,
    feature_distance,
    psnr,
    snr,
    with_part,
)
from yt8m_gat.pipeline.kept_videos import KeptVideos
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.pipeline.run_settings import read_schema
from yt8m_gat.pipeline.video_measures import VideoMeasures
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.video.clips import Clip
from yt8m_gat.video.decoding import VideoError
from yt8m_gat.weights.hdf5 import save_weights
from yt8m_gat.weights.load import load_run

SIDE, RATE, SCALE = 16, 4, 60.0
NAMES = ["red", "green", "blue"]
COLORS = [(140, 110, 110), (110, 140, 110), (110, 110, 140)]


def test_distances_of_features_by_hand():
    change = tf.constant([[[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]])
    assert float(feature_distance(change, "frame")[0]) == pytest.approx((5 + 0 + 1) / 3)
    for scope in ("example", "joint"):
        assert float(feature_distance(change, scope)[0]) == pytest.approx(math.sqrt(26))
    with tf.GradientTape() as tape:
        tape.watch(change)
        distance = feature_distance(change, "frame")
    # A frame that has not moved has no direction, and no NaN.
    expected = np.array([[[0.6, 0.8], [0, 0], [0, 1]]]) / 3
    np.testing.assert_allclose(tape.gradient(distance, change), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="Received: 'all'"):
        feature_distance(change, "all")


def test_attacked_pixels_become_bytes_in_their_place():
    pictures = np.full((1, 3, 4, 3), 7, np.uint8)
    pixels = np.array([[[[0.6, 1.4, -3.0], [254.5, 254.6, 300.0]]]])
    changed = with_part(pictures, (slice(2, 3), slice(1, 3)), pixels)
    assert changed[0, 2, 1:3].tolist() == [[1, 1, 0], [254, 255, 255]]
    assert (changed[0, :2] == 7).all() and (changed[0, 2, [0, 3]] == 7).all()
    assert (pictures == 7).all() and changed.dtype == np.uint8


def test_decibels_by_hand():
    assert psnr(np.full((2, 3), 2.55)) == pytest.approx(40.0)
    assert psnr(np.zeros((2, 3))) is None
    assert snr(np.full(10, 0.5), np.full(10, 0.05)) == pytest.approx(20.0)
    assert snr(np.zeros(10), np.ones(10)) is None and snr(np.ones(10), np.zeros(10)) is None


def test_files_of_attacked_videos_are_removed_also_those_of_a_killed_process(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "yt8m_gat-killed").mkdir()
    (tmp_path / "yt8m_gat-killed" / "attacked.nut").touch()

    class Extractor:
        config = SimpleNamespace(frames_per_second=4.0)

        def __call__(self, path):
            assert path.is_file()
            return list(tmp_path.glob("*/attacked.nut"))

    chain = SimpleNamespace(extractor=Extractor(), _judged=lambda extracted, name: (extracted, 1))
    video = SimpleNamespace(name="v", pictures=np.zeros((2, 8, 8, 3), np.uint8), waveform=None)
    assert len(VideoChain.judge(chain, video)) == 1 and not list(tmp_path.iterdir())


def test_pictures_show_the_difference_amplified():
    clean = np.full((12, 10, 8, 3), 100, np.uint8)
    attacked = clean.copy()
    attacked[:, 2:6, 1:5, 0] += 3
    shown = shown_pictures(clean, attacked, (slice(2, 6), slice(1, 7)))
    assert shown["amplification"] == 127 // 3 and len(shown["clean"]) == 6
    difference = tf.io.decode_png(base64.b64decode(shown["difference"][0])).numpy()
    assert difference.shape == (4, 6, 3)
    assert (difference[:, :4, 0] == 128 + 42 * 3).all() and (difference[..., 1:] == 128).all()
    # Of large pictures the middle is shown, pixel by pixel.
    wide = np.arange(300, dtype=np.uint8)[np.newaxis, np.newaxis, :, np.newaxis]
    wide = np.broadcast_to(wide, (1, 4, 300, 3))
    middle = shown_pictures(wide, wide, (slice(None), slice(None)))["clean"]
    assert (tf.io.decode_png(base64.b64decode(middle[0])).numpy() == wide[0, :, 30:270]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilons": (0.0,)}, "--epsilons must be positive"),
        ({"epsilons": ()}, "--attacks needs radii"),
        ({"attacks": ()}, "name --attacks on the pixels, or --sound_snrs"),
        ({"sound_snrs": (1e3,)}, "--sound_snrs must be decibels"),
        ({"feature_epsilons": (-1.0,)}, "--feature_epsilons must be positive"),
        ({"attack_steps": 0}, "--attack_steps must be at least 1"),
        ({"num_clips": -1}, "--num_clips must be at least 0"),
        ({"on_bad_file": "fail"}, "--on_bad_file must be error or skip. Received: fail"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        VideoAttackSettings(**options)


def write_video(path, color, tone):
    """Two seconds of a colour with a little texture, and a tone."""
    rng = np.random.default_rng(tone)
    images = np.clip(np.array(color) + rng.integers(-9, 10, (8, 32, 32, 3)), 0, 255)
    wave = 8000 * np.sin(2 * np.pi * tone * np.arange(32_000) / 16_000)
    sound = wave.astype(np.int16)[np.newaxis]
    tiny_videos.write(
        path, images.astype(np.uint8), fps=RATE, sound=sound, sound_codec="pcm_s16le", crf="2"
    )


def write_extractor(folder, sound=True, tflite=False):
    """The mean color of frames, and log-mel, both standardized."""
    folder.mkdir(parents=True)
    pixels = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))
    name = "picture.tflite" if tflite else "picture.keras"
    if tflite:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        (folder / name).write_bytes(converter.convert())
    else:
        model.save(folder / name)
    save(Standardize(np.full(3, 120.0), np.full(3, SCALE)), folder / "picture.npz")
    save(Standardize(np.full(64, -2.0), np.full(64, 2.0)), folder / "sound.npz")
    parts = {
        "picture": FeatureConfig(
            kind="tflite" if tflite else "keras",
            model=name,
            copy=name,
            sha256=digest_of_path(folder / name),
            projection="standardize",
            constants="picture.npz",
            constants_sha256=digest_of_path(folder / "picture.npz"),
            size=3,
        ),
        "sound": FeatureConfig(
            kind="log_mel",
            model="log_mel",
            projection="standardize",
            constants="sound.npz",
            constants_sha256=digest_of_path(folder / "sound.npz"),
            size=64,
        ),
    }
    ExtractorConfig(frames_per_second=RATE, crop=(4, 6, SIDE, SIDE), **parts).save(folder)


def write_run(path, features, with_extractor=True, tflite=False, normalize="none"):
    """A run whose logits of colours are 40 times the features of red, green and blue."""
    sizes = {"rgb": 3, "audio": 64}
    config = RunConfig(
        data=DataConfig(
            num_classes=3,
            feature_names=tuple(features),
            feature_sizes=tuple(sizes[name] for name in features),
            max_frames=7,
            normalize=normalize,
        ),
        model=ModelConfig(name="FrameLevelLogisticModel"),
    )
    folder = RunFolder(path)
    folder.prepare(config)
    (folder.path / "extractor").mkdir(exist_ok=True)
    if with_extractor:
        (folder.path / "extractor").rmdir()
        write_extractor(folder.path / "extractor", tflite=tflite)
    classifier = build_from_config(config)
    kernel, bias = classifier.trainable_weights
    values = np.random.default_rng(0).normal(0, 0.05, kernel.shape)
    if "rgb" in features:
        values[:3] = 40 * np.eye(3)
    kernel.assign(values)
    bias.assign(np.zeros(3))
    save_weights(classifier, folder.best_weights, step=0)
    lines = ["label_id,label_name", *(f"{number},{name}" for number, name in enumerate(NAMES))]
    (folder.path / "extractor" / "label_names.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    lines = ["path,label"]
    for number, (name, color) in enumerate(zip(NAMES, COLORS, strict=True)):
        write_video(folder / f"{name}.mkv", color, 300 * (number + 1))
        lines.append(f"{name}.mkv,{name}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    write_run(folder / "both", ("rgb", "audio"))
    return folder


def run(place, *words):
    command.main([f"--labels={place}/clips.csv", *words])


@pytest.mark.slow
@pytest.mark.parametrize("normalize", ["none", "concat"])
def test_the_chain_with_gradients_is_the_way_of_files_but_for_rounding(
    normalize, place, tmp_path, monkeypatch
):
    folder = write_run(tmp_path / "run", ("rgb", "audio"), normalize=normalize)
    config = RunConfig.load(folder.path)
    evaluator = build_evaluator(load_run(folder, config).classifier, config)
    schema = read_schema(folder, config)
    chain = VideoChain(Extractor.load(folder.extractor), evaluator, schema, [PIXELS, SOUND])
    video = chain.open(Clip(f"{place}/red.mkv"), "red", np.array([1, 0, 0]))
    assert video.num_frames == 7 and video.pictures.shape == (7, 32, 32, 3)
    for part, feature in ((PIXELS, "rgb"), (SOUND, "audio")):
        x = chain.start(video, part)
        # Bytes, and samples of 16 bits, so that nothing but features is rounded.
        changed = x + 5.0 if part == PIXELS else tf.round(x * 2**14) / 2**15
        judged = chain.judge(video, part, changed)
        inputs = chain.inputs(video, part, changed)
        # Half of a level of a byte, and of the frames' norm.
        tolerance = 2 / 255 * 1.01 if normalize == "none" else 0.002
        np.testing.assert_allclose(inputs, judged.inputs[feature], atol=tolerance)
        assert np.abs(judged.inputs[feature] - video.clean.inputs[feature]).max() > 0.005
        logits = chain.logits(video, part, changed)
        probabilities = evaluator.classifier.probabilities(logits)[0]
        np.testing.assert_allclose(probabilities, judged.probabilities, atol=0.05)
    # 7 frames of 32 x 32 take 21,504 bytes; their attacked part is a quarter, in floats.
    monkeypatch.setattr(attacked_video, "MAX_BYTES", 21_503)
    with pytest.raises(VideoError, match="within the first 7 of 7 frames; name shorter parts"):
        chain.open(Clip(f"{place}/red.mkv"), "red", np.array([1, 0, 0]))


@pytest.mark.slow
def test_figures_of_attacks_and_the_smallest_changes_by_hand(place, tmp_path, capsys):
    output, page = tmp_path / "attacked.json", tmp_path / "page.html"
    run(
        place,
        *(f"--train_dir={place}/both", "--attacks=pgd_linf:steps=5,noise_linf", "--epsilons=1,30"),
        *("--attack_steps=12", "--sound_snrs=30", "--feature_epsilons=0.25", "--num_clips=1"),
        *(f"--output_file={output}", f"--page_file={page}"),
    )
    result = json.loads(output.read_text())
    # The video is 10 to 30 levels in its favour: 1 level changes nothing, 30 everything.
    assert result["clean"]["hit_at_1"] == result["rewritten"]["hit_at_1"] == 1
    rows = {(row["attack"], row.get("epsilon")): row for row in result["attacks"]}
    hits = {key: row["hit_at_1"] for key, row in rows.items()}
    pgd = "pgd_linf:steps=5"
    assert (hits[pgd, 1.0], hits[pgd, 30.0], hits["noise_linf", 30.0]) == (1, 0, 1)
    assert rows[pgd, 30.0]["linf"] == 30 and rows[pgd, 30.0]["gap"] < 0.5
    assert rows[pgd, 30.0]["psnr"] == pytest.approx(20 * math.log10(255 / 30), abs=0.02)
    # All pixels of a channel move by 30: each of the 3 features by 30 / 60.
    assert rows[pgd, 30.0]["feature_distance"] == pytest.approx(math.sqrt(3) / 2, abs=0.02)
    sound = rows["pgd", None]
    assert sound["target_snr"] == 30 and sound["snr"] >= 29.9 and sound["feature_distance"] > 0.1
    # Nothing but bytes lies between the file and the same frames and samples written anew.
    assert result["rewritten"]["rgb_distance"] <= math.sqrt(3) * 4 / 255
    assert result["rewritten"]["audio_distance"] <= 0.01
    changes = {(row["part"], row["norm"]): row for row in result["smallest_changes"]}
    # r / 60 in each of 3 channels; and r = ||d||_2 of a frame spread evenly over it.
    radius = 0.25 * SCALE / math.sqrt(3)
    linf, l2 = changes["pixels", "linf"], changes["pixels", "l2"]
    assert linf["median"]["radius"] == pytest.approx(radius, rel=0.06)
    assert l2["median"]["radius"] == pytest.approx(0.25 * SCALE * SIDE, rel=0.06)
    for row in changes.values():
        assert row["num_unreached"] == 0 and len(row["videos"]) == 3
        assert 0.25 <= row["median"]["distance"] <= 0.25 * 1.06
        assert row["median"]["stored_distance"] == pytest.approx(0.25, abs=0.03)
    assert l2["median"]["psnr"] == pytest.approx(20 * math.log10(255 / radius), abs=0.6)
    assert 30 < changes["sound", "l2"]["median"]["snr"] < 90
    printed = capsys.readouterr().out
    assert re.search(r"^pixels, pgd_linf:steps=5, 30 levels +0\.\d+ +0\.0000$", printed, re.M)
    text = page.read_text(encoding="utf-8")
    # 4 attacks on pixels, 6 frames of 7, each clean, attacked and as a difference.
    assert text.count("data:image/png;base64,") == 4 * 6 * 3
    assert "difference, 4 times" in text and "sound, pgd, 30 dB" in text
    assert result["provenance"]["num_videos"] == 3 and result["left_out"] == []
    # A row of a table that benchmarks/results.py makes.
    assert (result["model"], result["adversarial"]) == ("FrameLevelLogisticModel", "none")
    assert result["seed"] == 0


@pytest.mark.slow
def test_runs_of_one_feature_and_wrong_input(place, tmp_path, capsys):
    output = f"--output_file={tmp_path}/x.json"
    write_run(tmp_path / "sound", ("audio",))
    quick = ("--attack_steps=2", "--feature_epsilons=", output)
    run(place, f"--train_dir={tmp_path}/sound", "--attacks=", "--sound_snrs=20", *quick)
    result = json.loads((tmp_path / "x.json").read_text())
    assert [row["attack"] for row in result["attacks"]] == ["pgd", "noise"]
    assert result["smallest_changes"] == []
    # A file of sound alone is enough for it; in bytes and 16 bits, so that nothing changes.
    wave = (8000 * np.sin(np.arange(32_000) / 9)).astype(np.int16)
    tiny_videos.write(tmp_path / "tone.wav", sound=wave[np.newaxis], sound_codec="pcm_s16le")
    (tmp_path / "tone.csv").write_text("path,label\ntone.wav,red\n")
    words = (f"--train_dir={tmp_path}/sound", "--attacks=", "--sound_snrs=20", *quick)
    command.main([f"--labels={tmp_path}/tone.csv", *words])
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["rewritten"]["audio_distance"] == 0
    assert result["attacks"][0]["snr"] == pytest.approx(20, abs=0.2)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        command.main([f"--labels={tmp_path}/tone.csv", f"--train_dir={place}/both", output])
    assert "tone.wav: has no picture that can be decoded" in capsys.readouterr().err
    write_run(tmp_path / "tflite", ("rgb",), tflite=True)
    write_run(tmp_path / "bare", ("rgb",), with_extractor=False)
    both = f"--train_dir={place}/both"
    (tmp_path / "unlabelled.csv").write_text(f"path\n{place}/red.mkv\n")
    (tmp_path / "other.csv").write_text(f"path,label\n{place}/red.mkv,pink\n")
    wrong = {
        (f"--train_dir={tmp_path}/tflite",): "picture.tflite is of the kind tflite; only models of",
        (f"--train_dir={tmp_path}/bare",): "Name one with --extractor",
        (f"--train_dir={tmp_path}/sound",): "takes audio: leave it out (--attacks=)",
        (both, "--attacks=temporal"): "--attacks on pixels must be of fgm,",
        (both, "--attacks=pgd:epsilon_rgb=1"): "have one radius",
        (both, f"--labels={tmp_path}/unlabelled.csv"): "red.mkv has no label",
        (both, f"--labels={tmp_path}/other.csv"): "no class has the name 'pink'",
        (both, "--labels=missing.csv"): "missing.csv",
        (both, "--epsilons=a"): "--epsilons must be floats",
    }
    capsys.readouterr()
    for words, message in wrong.items():
        with pytest.raises(SystemExit) as ended:
            run(place, *words, output)
        printed = capsys.readouterr().err
        assert ended.value.code == 2 and message in printed, (words, printed)
        assert len(printed.strip().splitlines()) == 1, printed


def test_what_is_kept_of_videos_is_that_of_the_same_job(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(b"frames")
    clips, folder = [Clip(str(path), ("red",)) for path in paths], tmp_path / "kept"
    measured = {"rows": [0.1, None, float(np.float32(0.3))]}
    kept = KeptVideos(folder, clips, {"epsilons": (1.0,), "weights": "abc"})
    assert kept.read(0) is None and not folder.exists()
    kept.keep(0, measured)
    again = KeptVideos(folder, clips, {"epsilons": [1.0], "weights": "abc"})
    assert (again.num_kept, again.read(0), again.read(1)) == (1, measured, None)
    for settings, videos, message in (
        ({"epsilons": (2.0,), "weights": "abc"}, clips, r"epsilons: \[1.0\] != \[2.0\]\nGive"),
        ({"epsilons": (1.0,), "weights": "d"}, clips, r"weights: 'abc' != 'd'\n.* remove that"),
        ({"epsilons": (1.0,), "weights": "abc"}, clips[:1], r"  other videos, parts or labels"),
    ):
        with pytest.raises(ConfigError, match=rf"kept holds another job .*:\n(?s:.*){message}"):
            KeptVideos(folder, videos, settings)
    paths[0].write_bytes(b"other frames")
    assert again.read(0) is None  # The file is another one by now.
    # A job that has kept nothing yet does not stand in the way of another.
    (folder / "00000000.json").unlink()
    KeptVideos(folder, clips, {"epsilons": (3.0,)}).keep(1, measured)
    assert KeptVideos(folder, clips, {"epsilons": (3.0,)}).read(1) == measured


@pytest.mark.slow
def test_killed_anywhere_the_same_command_ends_with_the_same_bytes(
    place, tmp_path, monkeypatch, capfd
):
    words = [f"--labels={place}/clips.csv", f"--train_dir={place}/both", "--attacks=noise_linf"]
    words += ["--epsilons=8", "--attack_steps=2", "--sound_snrs=30", "--distance_videos=2"]
    words += ["--output_file=a.json", "--page_file=a.html"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    monkeypatch.setattr(video_attacks, "utc_now", lambda: "now")
    monkeypatch.chdir(whole)
    command.main(words)
    for number, ending in enumerate((signal.SIGKILL, signal.SIGINT)):
        process = subprocess.Popen(
            [sys.executable, "-m", "yt8m_gat", "attack-videos", *words],
            cwd=killed,
            stderr=subprocess.PIPE,
        )
        piece = killed / ".a.json.partial" / f"{number:08d}.json"
        while not piece.is_file() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(ending)
        _, error = process.communicate(timeout=300)
        assert process.returncode == (-signal.SIGKILL if ending == signal.SIGKILL else 130)
    assert b"the same command goes on after the videos in" in error
    monkeypatch.chdir(killed)
    num_kept = len(list(killed.glob(".a.json.partial/0*.json")))
    assert num_kept >= 1
    with pytest.raises(SystemExit):
        command.main([*words, "--sound_snrs=20"])
    assert "sound_snrs: [30.0] != [20.0]" in capfd.readouterr().err
    measured, measure = [], VideoMeasures.measure
    monkeypatch.setattr(
        VideoMeasures,
        "measure",
        lambda job, number, *rest: measured.append(number) or measure(job, number, *rest),
    )
    command.main(words)
    assert measured == list(range(num_kept, 3))
    assert f"going on after {num_kept} of 3 videos" in capfd.readouterr().err
    contents = [
        {path.name: re.sub(r"Written \S+", "", path.read_text()) for path in folder.iterdir()}
        for folder in (whole, killed)
    ]
    assert contents[0].keys() == {"a.json", "a.html"} and contents[0] == contents[1]


@pytest.mark.slow
def test_bad_videos_are_left_out_by_name(place, tmp_path, capsys):
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(b"nothing that could be decoded")
    good = [f"{place}/red.mkv,red", f"{place}/green.mkv,green"]
    (tmp_path / "good.csv").write_text("\n".join(["path,label", *good]) + "\n")
    (tmp_path / "all.csv").write_text(
        "\n".join(["path,label", good[0], f"{bad},blue", good[1]]) + "\n"
    )
    words = [f"--train_dir={place}/both", "--attacks=fgm_linf", "--epsilons=8"]
    words += ["--feature_epsilons="]
    listed = [*words, f"--labels={tmp_path}/all.csv", f"--output_file={tmp_path}/all.json"]
    listed += [f"--page_file={tmp_path}/all.html"]
    with pytest.raises(SystemExit) as ended:
        command.main(listed)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "bad.mkv" in error and "--on_bad_file=skip" in error
    assert not (tmp_path / "all.json").exists()
    # What was measured before the bad one is kept.
    command.main([*listed, "--on_bad_file=skip"])
    error = capsys.readouterr().err
    assert "going on after 1 of 3 videos" in error and "left out: " in error
    assert f"1 of 3 videos were left out: see left_out in {tmp_path}/all.json" in error
    command.main([*words, f"--labels={tmp_path}/good.csv", f"--output_file={tmp_path}/good.json"])
    result, expected = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("all", "good"))
    [left_out] = result["left_out"]
    assert (left_out["video_id"], left_out["file"]) == ("bad", str(bad))
    assert "bad.mkv" in left_out["reason"] and "bad.mkv" in (tmp_path / "all.html").read_text()
    assert result["provenance"]["num_videos"] == 2 and expected["left_out"] == []
    for name in ("clean", "rewritten", "attacks"):
        assert result[name] == expected[name]
    (tmp_path / "none.csv").write_text(f"path,label\n{bad},red\n")
    with pytest.raises(SystemExit):
        command.main(
            [
                *(*words, "--on_bad_file=skip", f"--labels={tmp_path}/none.csv"),
                f"--output_file={tmp_path}/none.json",
            ]
        )
    assert "none of 1 videos could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "name", "problem"),
    [
        ("page_file", "none/page.html", "cannot be written"),
        ("page_file", "both", "a folder"),
        ("page_file", "figures.json", "the --output_file"),
        ("output_file", "", "an empty name"),
        ("output_file", "clips.csv", "the file of --labels"),
        ("page_file", "red.mkv", "a video"),
    ],
)
def test_files_that_cannot_be_written_are_refused_first(
    tmp_path, monkeypatch, capsys, flag, name, problem
):
    (tmp_path / "both").mkdir()
    (tmp_path / "red.mkv").touch()
    (tmp_path / "clips.csv").write_text("path,label\nred.mkv,red\n")
    monkeypatch.setattr(pipeline, "attack_videos", lambda *args, **options: pytest.fail("too late"))
    files = {"output_file": f"{tmp_path}/figures.json", flag: name and f"{tmp_path}/{name}"}
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, "--train_dir=x", *(f"--{name}={path}" for name, path in files.items()))
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "figures.json").exists()
