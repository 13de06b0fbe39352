"""The jobs on raw clips, with a model of one's own: training, evaluation, CSV, bad records."""

import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import yt8m_gat
from yt8m_gat import pipeline
from yt8m_gat.commands import watch as watch_command
from yt8m_gat.config import (
    ClipConfig,
    ConfigError,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.data import BadRecordError, read
from yt8m_gat.run_folder import RunFolder

sys.path.append(str(Path(__file__).parent / "data"))
import raw_clips as raw
from handmade_records import write

pytestmark = pytest.mark.slow  # Whole jobs.
SKIP = {"on_bad_record": "skip", "max_bad_fraction": 0.5}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """24 clips of two colors, the order of which is the class; and with every fourth one bad."""
    folder = tmp_path_factory.mktemp("records")
    dark, bright = raw.flat(40), raw.flat(200)
    good = [
        raw.record(f"clip{i}", [dark, bright] if i % 2 else [bright, dark], [i % 2])
        for i in range(24)
    ]
    bad = [
        raw.record("bad", [b"\xff\xd8\xff"]),
        raw.record("bad", []),
        raw.record("bad", [dark], [2]),
    ]
    mixed = [*good[:8], bad[0], *good[8:16], bad[1], *good[16:], bad[2]]
    return write(folder / "good.tfrecord", good), write(folder / "mixed.tfrecord", mixed)


def config(**training):
    return RunConfig(
        data=DataConfig(
            feature_names=("image",),
            feature_sizes=(3,),
            num_classes=2,
            max_frames=2,
            labels_key="clip/label/index",
            clips=ClipConfig(num_segments=2, crop_size=8),
        ),
        model=ModelConfig(name="tiny_clip_model:TinyClipModel"),
        objective=ObjectiveConfig(label_loss="SoftmaxLoss", class_reduction="sum"),
        training=TrainingConfig(
            **{"batch_size": 6, "base_learning_rate": 0.1, "num_epochs": 5, **training}
        ),
    )


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    state = pipeline.train(folder, config(), train_data_pattern=files[0])
    assert state.step == 20
    return folder


def test_a_trained_run_evaluates_and_predicts(trained, files, tmp_path):
    clean = pipeline.evaluate(trained, eval_data_pattern=files[0], trust_code=True)["clean"]
    assert clean["hit_at_1"] == 1.0 and clean["num_videos"] == 24
    pipeline.infer(
        trained, input_data_pattern=files[0], output_file=tmp_path / "s.csv", trust_code=True
    )
    table = pd.read_csv(tmp_path / "s.csv")
    best = [int(pairs.split()[0]) for pairs in table["LabelConfidencePairs"]]
    assert best == [int(video_id.removeprefix("clip")) % 2 for video_id in table["VideoId"]]
    run = yt8m_gat.load_run(trained.path, trust_code=True)
    predicted = run.predict(files[0], top_k=1)
    assert predicted["label"].tolist() == best
    pixels = next(iter(read(files[0], run.schema, batch_size=24, as_stored=True)))[0]["image"]
    of_arrays = run.predict({"image": list(pixels.numpy())}, top_k=1)
    np.testing.assert_array_equal(of_arrays["probability"], predicted["probability"])


def test_gains_in_accuracy_over_a_baseline(trained, files, tmp_path):
    untrained = RunFolder(tmp_path / "baseline")
    untrained_config = config(max_steps=1, base_learning_rate=1e-6)
    pipeline.train(untrained, untrained_config, train_data_pattern=files[0])
    options = {"eval_data_pattern": files[0], "trust_code": True, "output_file": tmp_path / "e"}
    result = pipeline.evaluate(trained, compare_to=untrained.path, **options)
    comparison = result["comparison"]
    assert result["classes"]["accuracy"] == [1.0, 1.0]
    theirs = comparison["baseline_accuracy"]
    of_baseline = pipeline.evaluate(untrained, eval_data_pattern=files[0], trust_code=True)
    assert theirs == of_baseline["classes"]["accuracy"] and min(theirs) < 1.0
    assert comparison["accuracy_gains"] == [1.0 - value for value in theirs]
    again = pipeline.evaluate(trained, compare_to=untrained.path, **options)
    assert again["comparison"] == comparison


def test_bad_records_are_named_or_left_out_by_every_job(trained, files, tmp_path, capsys):
    job = {"trust_code": True}
    pattern = files[1]
    for run in (
        lambda: pipeline.train(RunFolder(tmp_path), config(), train_data_pattern=pattern),
        lambda: pipeline.evaluate(trained, eval_data_pattern=pattern, **job),
        lambda: pipeline.infer(
            trained, input_data_pattern=pattern, output_file=tmp_path / "a.csv", **job
        ),
    ):
        with pytest.raises(BadRecordError, match=r"record (8|17) .*(no JPEG file|no frames)"):
            run()
    folder = RunFolder(tmp_path / "skipped")
    pipeline.train(folder, config(num_epochs=1, **SKIP), train_data_pattern=files[1])
    assert "3 of 27 records" in capsys.readouterr().out
    results = [
        pipeline.evaluate(trained, eval_data_pattern=path, **options, **job)["clean"]
        for path, options in ((files[0], {}), (files[1], SKIP))
    ]
    assert results[0] == results[1]
    paths = [tmp_path / "good.csv", tmp_path / "mixed.csv"]
    pipeline.infer(trained, input_data_pattern=files[0], output_file=paths[0], **job)
    pipeline.infer(trained, input_data_pattern=files[1], output_file=paths[1], **SKIP, **job)
    # Without its labels, which inference does not read, the last bad record is a good one.
    good, mixed = (path.read_text().splitlines() for path in paths)
    assert mixed[:-1] == good and mixed[-1].startswith("bad,")
    assert capsys.readouterr().err.count("3 of 27 records") == 1


def test_a_softmax_is_trained_on_one_label_a_clip(files, tmp_path):
    lists = {"one": [1], "two": [0, 1]}
    records = [raw.record(name, [raw.flat(40)], labels) for name, labels in lists.items()]
    path = write(tmp_path / "two.tfrecord", records)
    with pytest.raises(BadRecordError, match=r"record 1 .*it has 2 labels instead of one .*Remedy"):
        pipeline.train(RunFolder(tmp_path / "run"), config(), train_data_pattern=path)


def test_a_resumed_run_is_the_run(files, tmp_path):
    """Also where it was stopped in the middle of an epoch."""
    weights = []
    for name, stops in (("whole", (6,)), ("parts", (2, 5, 6))):
        folder = RunFolder(tmp_path / name)
        for max_steps in stops:
            pipeline.train(folder, config(max_steps=max_steps), train_data_pattern=files[0])
        weights.append(yt8m_gat.load_run(folder.path, trust_code=True).model.get_weights())
    for whole, parts in zip(*weights, strict=True):
        np.testing.assert_array_equal(whole, parts)


def test_a_run_keeps_the_network_of_its_backbone(files, tmp_path):
    """Evaluation, export, resuming and fine-tuning do without the file of `--backbone`."""
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3)(keras.layers.Rescaling(1 / 255)(pixels))
    branch = keras.layers.Conv2D(8, 3, padding="same")(x)
    file = tmp_path / "own.keras"
    keras.Model(pixels, keras.layers.Add()([x, branch])).save(file)
    model = ModelConfig(name="TSM", options={"backbone": str(file)})

    def run(name, max_steps, **training):
        folder = RunFolder(tmp_path / name)
        settings = dataclasses.replace(config(max_steps=max_steps, **training), model=model)
        pipeline.train(folder, settings, train_data_pattern=files[0])
        return folder

    run("parts", 1)
    file.unlink()
    parts = run("parts", 2)
    assert pipeline.evaluate(parts, eval_data_pattern=files[0])["clean"]["num_videos"] == 24
    classifier = yt8m_gat.load_run(parts.path).model
    pipeline.export(classifier, RunConfig.load(parts.path), tmp_path / "export")
    run("tuned", 1, finetune_from=str(parts.path))
    with pytest.raises(ConfigError, match=r"`backbone` .*own\.keras must be a file"):
        run("new", 1)
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.saving.load_model(tmp_path / "classifier.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], classifier.get_weights()[0])


def test_a_video_is_shown_without_an_extractor(trained, tmp_path):
    """A second of a dark picture and one of a bright one: class 1 of the records."""
    dark, bright = (b"FRAME\n" + bytes([luma] * 256 + [128] * 128) for luma in (50, 200))
    video = tmp_path / "in_order.y4m"
    video.write_bytes(b"YUV4MPEG2 W16 H16 F5:1 C420\n" + 5 * dark + 5 * bright)
    watched = pipeline.watch(trained, video=video, top_k=1, trust_code=True)
    likeliest = watched["labels"][0]
    assert likeliest["label"] == 1
    assert likeliest["clean"]["probability"] > max(0.5, likeliest["attacked"]["probability"])
    assert watched["edges"] == [0.0, 1.0, 2.0]
    assert [frame["second"] for frame in watched["frames"]] == [0.4, 1.4]
    for film, tolerance in (("frames", 2), ("attacked_frames", 4)):
        colors = [tf.io.decode_jpeg(frame["jpeg"]).numpy().mean() for frame in watched[film]]
        # Limited range: 16 is black, 235 white.
        expected = [255 * (luma - 16) / 219 for luma in (50, 200)]
        np.testing.assert_allclose(colors, expected, atol=tolerance)
    assert watched["extractor"] == "2 of 10 frames, the middle frame, 8 x 8 pixels"
    # The same words of the command.
    words = [str(video), f"--train_dir={trained.path}", "-o", str(tmp_path / "page.html")]
    assert watch_command.main([*words, "--trust_code"]) == 0
    assert "2 of 10 frames" in (tmp_path / "page.html").read_text()


def test_a_run_of_raw_clips_has_no_extractor(trained, tmp_path, capsys):
    words = ["x.mp4", f"--train_dir={trained.path}", "--extractor=records", "--trust_code"]
    assert watch_command.main(words) == 2
    assert "--extractor must be left out" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="videos are predicted by runs of features"):
        yt8m_gat.load_run(trained.path, trust_code=True).predict_video("x.mp4")


def test_segments_of_raw_clips_are_refused(trained, files, tmp_path):
    with pytest.raises(ConfigError, match="--segment_labels needs a frame-level run of features"):
        pipeline.infer(
            trained,
            input_data_pattern=files[0],
            output_file=tmp_path / "s.csv",
            segment_labels=True,
            trust_code=True,
        )
