"""The SavedModel: the classifier's own outputs, from records and from frames; errors that help."""

import functools
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from exported_model import (
    FRAME_SIZES,
    MAX_FRAMES,
    NUM_CLASSES,
    OPTIONS,
    classifier_of,
    export,
    frame_record,
    records_of_all_lengths,
    schema_of,
    video_record,
)

from yt8m_gat.data import (
    RecordSchema,
    dequantize,
    parse_frame_batch,
    parse_video_batch,
    preprocess,
)
from yt8m_gat.disk import WriteError
from yt8m_gat.explanation.attention_statistics import attention_profile, mean_maps
from yt8m_gat.export import export_saved_model
from yt8m_gat.models import build_model

TRANSFORMERS = {"GAT", "GateAtt", "ShareAtt"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """name -> (classifier, folder, loaded SavedModel), each made when it is first asked for."""
    made = {}

    def get(name, normalize="none"):
        if (name, normalize) not in made:
            folder = tmp_path_factory.mktemp(name)
            classifier, version = export(name, folder, normalize=normalize)
            made[name, normalize] = classifier, version, tf.saved_model.load(str(version))
        return made[name, normalize]

    return get


def in_process(classifier, name, records, normalize="none"):
    """(batch, features, mask, probabilities) of the Keras model."""
    schema = schema_of(name)
    parse = parse_frame_batch if schema.frame_level else parse_video_batch
    batch = parse(tf.constant(records), schema, with_labels=False)
    features, mask = preprocess(batch["features"], batch.get("num_frames"), normalize)
    inputs = features if mask is None else {**features, "frame_mask": mask}
    probabilities = tf.sigmoid(classifier(inputs, training=False)).numpy()
    return batch, features, mask, probabilities


def by_class(outputs):
    """The top predictions at their classes [N, C], NaN elsewhere."""
    dense = np.full((len(outputs["predictions"]), NUM_CLASSES), np.nan, np.float32)
    np.put_along_axis(dense, outputs["class_indexes"].numpy(), outputs["predictions"].numpy(), 1)
    return dense


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_records_of_all_lengths_give_the_classifiers_predictions(exported, name):
    classifier, _, loaded = exported(name)
    records = records_of_all_lengths(name)
    for chosen in (records, records[4:5]):
        batch, *_, expected = in_process(classifier, name, chosen)
        outputs = loaded.signatures["serving_default"](example_bytes=tf.constant(chosen))
        np.testing.assert_array_equal(outputs["video_id"], batch["video_id"])
        assert outputs["class_indexes"].shape == (len(chosen), 20)
        assert (np.diff(outputs["predictions"].numpy()) <= 0).all()
        dense = by_class(outputs)
        top = np.sort(expected, axis=1)[:, -20:]
        np.testing.assert_allclose(np.sort(dense, axis=1)[:, :20], top, rtol=0, atol=1e-6)
        found = ~np.isnan(dense)
        np.testing.assert_allclose(dense[found], expected[found], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "normalize"),
    [
        pytest.param("GAT", "none", marks=pytest.mark.slow),
        ("GAT", "concat"),
        pytest.param("GateAtt", "per_feature", marks=pytest.mark.slow),
        ("LstmModel", "none"),
    ],
)
def test_frames_give_the_classifiers_predictions(exported, name, normalize):
    classifier, _, loaded = exported(name, normalize)
    records = records_of_all_lengths(name)
    batch, *_, expected = in_process(classifier, name, records, normalize)
    frames = tf.concat([dequantize(batch["features"][f]) for f in FRAME_SIZES], axis=-1)
    num_frames = batch["num_frames"][:, tf.newaxis]
    outputs = loaded.signatures["frames"](rgb_and_audio=frames, num_frames=num_frames)
    assert set(outputs) == {"predictions"}
    np.testing.assert_allclose(outputs["predictions"], expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_what_stands_after_a_clips_frames_is_ignored(exported):
    frames_signature = exported("GAT")[2].signatures["frames"]
    frames = np.random.default_rng(0).normal(size=(2, MAX_FRAMES + 5, 12)).astype(np.float32)
    expected = frames_signature(
        rgb_and_audio=tf.constant(frames[:, :MAX_FRAMES]),
        num_frames=tf.constant([[MAX_FRAMES], [4]]),
    )["predictions"]
    frames[0, MAX_FRAMES:] = 7.0
    frames[1, 4:] = np.nan
    longer = frames_signature(
        rgb_and_audio=tf.constant(frames), num_frames=tf.constant([[MAX_FRAMES + 5], [4]])
    )["predictions"]
    np.testing.assert_allclose(longer, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_the_attention_profile_is_that_of_the_evaluation(exported, name):
    classifier, _, loaded = exported(name)
    records = records_of_all_lengths(name)
    batch, features, mask, _ = in_process(classifier, name, records)
    outputs = loaded.signatures["attention"](example_bytes=tf.constant(records))
    served = loaded.signatures["serving_default"](example_bytes=tf.constant(records))
    np.testing.assert_array_equal(outputs["num_frames"], batch["num_frames"])
    np.testing.assert_array_equal(outputs["video_id"], served["video_id"])
    np.testing.assert_allclose(by_class(outputs), by_class(served), rtol=0, atol=1e-6)
    maps = classifier.forward(features, mask).attention_maps
    real = mask.numpy()
    for feature in FRAME_SIZES:
        profile = outputs[f"attention_{feature}"].numpy()
        assert profile.shape == real.shape
        assert (profile[~real] == 0).all()
        np.testing.assert_allclose(profile.sum(axis=1), 1, rtol=0, atol=1e-5)
        globals_alone = {feature: {"global": maps[feature]["global"]}}
        mean = mean_maps(globals_alone, lambda level, laid: laid)[feature]["global"]
        for row, mean_map, is_real in zip(profile, mean, real, strict=True):
            expected = attention_profile(mean_map, is_real)
            np.testing.assert_allclose(row[is_real], expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_each_model_has_the_signatures_that_make_sense(exported, tmp_path):
    expected = {
        **{name: {"serving_default", "frames", "attention"} for name in TRANSFORMERS},
        **{name: {"serving_default", "frames"} for name in ("LstmModel", "DbofModel")},
        **{name: {"serving_default"} for name in ("MoeModel", "LogisticModel")},
    }
    for name, signatures in expected.items():
        assert set(exported(name)[2].signatures) == signatures, name
    _, local = export("GAT", tmp_path, global_attention=False)
    assert set(tf.saved_model.load(str(local)).signatures) == {"serving_default", "frames"}


def test_the_input_of_frames_is_named_after_the_features(tmp_path):
    classifier = type(classifier_of("FrameLevelLogisticModel"))({"my embedding": 4}, 3)
    schema = RecordSchema({"my embedding": 4}, 3, MAX_FRAMES)
    loaded = tf.saved_model.load(str(export_saved_model(classifier, schema, tmp_path)))
    _, inputs = loaded.signatures["frames"].structured_input_signature
    assert inputs["my_embedding"].shape.as_list() == [None, None, 4]
    assert set(inputs) == {"my_embedding", "num_frames"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([b""], "it has none of the ids id, video_id, clip/media_id, clip/data_path"),
        ([], "example_bytes must be .N.: a record or more"),
        ([frame_record(b"v", 0)], "it has no frames of any of the features needed"),
        ([frame_record(b"v", 2, {"rgb": 8})], "feature audio is missing or empty"),
        ([frame_record(b"v", 2, {"rgb": 9, "audio": 4})], "frame 0 has 9 bytes instead of 8"),
        ([frame_record(b"\xff\xfe", 2)], "its id is no UTF-8 text"),
        ([video_record(b"v")], "it has no frames of any of the features needed"),
        ([frame_record(b"v", 2), frame_record(b"w", 0)], "the given batch:record 1"),
    ],
)
@pytest.mark.parametrize("signature", ["serving_default", "attention"])
def test_malformed_records_are_refused_with_the_reason(exported, signature, records, message):
    serve = exported("GAT")[2].signatures[signature]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        serve(example_bytes=tf.constant(records, tf.string))
    good = serve(example_bytes=tf.constant([frame_record(b"v", 2)]))
    assert good["video_id"].numpy().tolist() == [b"v"]


def varint(number):
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


@pytest.mark.parametrize("name", ["GAT", "LogisticModel"])
def test_bytes_that_are_no_record_are_refused(exported, name):
    """Lengths forged inside a record, which end a process that trusts them, among them."""
    serve = exported(name)[2].signatures["serving_default"]
    good = frame_record(b"v", 2) if name == "GAT" else video_record(b"v")
    places = [place for place in range(len(good) - 1) if good[place] == 0x0A]
    forged = [
        good[: place + 1] + varint(length) + good[place + 2 :]
        for place in places
        for length in (2**31 - 1, 2**32, 2**40, 2**63 - 1)
    ]
    for record in [b"no record", b"\xff", good[:-1], *forged]:
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"record 1: the payload is no tf\.Example"
        ):
            serve(example_bytes=tf.constant([good, record]))
    assert serve(example_bytes=tf.constant([good]))["video_id"].numpy().tolist() == [b"v"]


@pytest.mark.parametrize(
    ("shape", "value", "num_frames", "message"),
    [
        ((2, 3, 12), 0.0, [[3], [4]], r"num_frames must be from 1 to the T .*\[3\] \[3 4\]"),
        ((2, 3, 12), 0.0, [[0], [3]], r"num_frames must be from 1 to the T"),
        ((2, 3, 12), 0.0, [[-1], [3]], r"num_frames must be from 1 to the T"),
        ((2, 0, 12), 0.0, [[1], [1]], r"num_frames must be from 1 to the T"),
        ((2, 3, 12), 0.0, [[3]], r"num_frames must have a row for each clip .*\[1\] \[2\]"),
        ((0, 3, 12), 0.0, np.zeros((0, 1)), r"num_frames must have a row for each clip"),
        ((2, 3, 12), np.nan, [[1], [3]], r"rgb_and_audio must be finite. .*\[0 1\]"),
        ((2, 3, 12), np.inf, [[1], [3]], r"rgb_and_audio must be finite"),
        (
            (2, 3, 11),
            0.0,
            [[3], [3]],
            r"must be \[N, T, 12\]: 8 of rgb, then 4 of audio\. Received shape:\] \[2 3 11\]",
        ),
        ((2, 3, 1), 0.0, [[3], [3]], r"must be \[N, T, 12\].*\[2 3 1\]"),
        ((2, 12), 0.0, [[1], [1]], r"must be \[N, T, 12\].*\[2 12\]"),
        ((2, 3, 12, 1), 0.0, [[3], [3]], r"must be \[N, T, 12\].*\[2 3 12 1\]"),
        ((2, 3, 12), 0.0, [3, 3], r"num_frames must be \[N, 1\].*\[2\]"),
        ((2, 3, 12), 0.0, [[3, 1], [3, 1]], r"num_frames must be \[N, 1\].*\[2 2\]"),
    ],
)
def test_malformed_frames_are_refused_with_the_reason(exported, shape, value, num_frames, message):
    frames_signature = exported("GAT")[2].signatures["frames"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){message}"):
        frames_signature(
            rgb_and_audio=tf.fill(shape, np.float32(value)),
            num_frames=tf.constant(num_frames, tf.int32),
        )


@pytest.mark.slow
def test_frames_of_one_feature_are_held_to_its_size(tmp_path):
    """A last axis of 1 would be broadcast by the positional encoding and predict something."""
    classifier = build_model("GAT", {"rgb": 8}, NUM_CLASSES, MAX_FRAMES, **OPTIONS["GAT"])
    schema = RecordSchema({"rgb": 8}, NUM_CLASSES, MAX_FRAMES)
    loaded = tf.saved_model.load(str(export_saved_model(classifier, schema, tmp_path)))
    predict = functools.partial(loaded.signatures["frames"], num_frames=tf.constant([[3]]))
    assert predict(rgb=tf.zeros([1, 3, 8]))["predictions"].shape == (1, NUM_CLASSES)
    for size in (1, 7, 9):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=rf"rgb must be \[N, T, 8\].*\[1 3 {size}\]"
        ):
            predict(rgb=tf.zeros([1, 3, size]))


@pytest.mark.slow
def test_versions_count_up_and_older_ones_stay_as_they_are(exported, tmp_path):
    classifier = exported("FrameLevelLogisticModel")[0]
    schema = schema_of("FrameLevelLogisticModel")

    def everything():
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in tmp_path.rglob("*")
            if path.is_file()
        }

    (tmp_path / "notes").mkdir()
    (tmp_path / "²").mkdir()
    for version in (1, 2):
        before = everything()
        assert export_saved_model(classifier, schema, tmp_path).name == str(version)
        after = everything()
        assert {path: after[path] for path in before} == before
    (tmp_path / "10").mkdir()
    assert export_saved_model(classifier, schema, tmp_path).name == "11"
    assert {path.name for path in tmp_path.iterdir()} == {"notes", "²", "1", "2", "10", "11"}


def test_an_export_that_fails_leaves_nothing(exported, tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yt8m_gat.export.saved_model.write_warm_up", no_space)
    with pytest.raises(WriteError, match=r"No space left on device\. Remedy: free some space"):
        export_saved_model(
            exported("FrameLevelLogisticModel")[0], schema_of("FrameLevelLogisticModel"), tmp_path
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_it(exported, tmp_path):
    classifier, version, _ = exported("GAT")
    tool = Path(sys.executable).with_name("saved_model_cli")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

    def run(command, *options):
        arguments = [tool, command, "--dir", version, *options]
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = run("show", "--all")
    for signature in ("serving_default", "frames", "attention"):
        assert f"signature_def['{signature}']" in shown
    for name, dtype, shape in (
        ("rgb_and_audio", "DT_FLOAT", "(-1, -1, 12)"),
        ("num_frames", "DT_INT32", "(-1, 1)"),
        ("example_bytes", "DT_STRING", "(-1)"),
    ):
        assert re.search(
            rf"inputs\['{name}'\] tensor_info:\s+dtype: {dtype}\s+shape: {re.escape(shape)}", shown
        )
    records = records_of_all_lengths()
    np.save(tmp_path / "records.npy", np.array(records, object))
    run(
        "run",
        *("--tag_set", "serve", "--signature_def", "serving_default", "--overwrite"),
        *("--inputs", f"example_bytes={tmp_path / 'records.npy'}", "--outdir", tmp_path),
    )
    expected = np.sort(in_process(classifier, "GAT", records)[-1], axis=1)[:, :-21:-1]
    found = np.load(io.BytesIO((tmp_path / "predictions.npy").read_bytes()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
