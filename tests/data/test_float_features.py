"""Frames stored as floats, in lists or as bytes, give the inputs that quantized ones give."""

import handmade_records as hand
import numpy as np
import pytest
import tensorflow as tf
from handmade_records import bytes_feature, floats_feature, ints_feature

from yt8m_gat.commands.inspect import main
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.data import (
    Reader,
    RecordSchema,
    dequantize,
    describe_record,
    parse_frame_batch,
    preprocess,
)
from yt8m_gat.data.description import find_fault
from yt8m_gat.data.errors import BadRecordError, Fault

SIZES = {"r": 4, "u": 2}
STORED = {
    "uint8": lambda frame: bytes_feature(frame.tobytes()),
    "float32": lambda frame: bytes_feature(dequantize(frame).astype("<f4").tobytes()),
    "float_list": lambda frame: floats_feature(*dequantize(frame)),
}


def schema(*types, **options):
    return RecordSchema(SIZES, 3, feature_types=types, **options)


def clip(video_id, num_frames, types, change=lambda name, frames: frames):
    """The same random bytes for an id, each feature stored as `types` says."""
    rng = np.random.default_rng(len(video_id))
    lists = {}
    for (name, size), kind in zip(SIZES.items(), types, strict=True):
        frames = rng.integers(0, 256, (num_frames, size), np.uint8)
        lists[name] = change(name, [STORED[kind](frame) for frame in frames])
    context = {"id": bytes_feature(video_id.encode()), "labels": ints_feature(1)}
    return hand.sequence_example(context, **lists)


def inputs(types, max_frames=300, fixed=False):
    payloads = [clip("a", 3, types), clip("bb", 5, types), clip("ccc", 1, types)]
    batch = parse_frame_batch(
        tf.constant(payloads), schema(*types, max_frames=max_frames), fixed_num_frames=fixed
    )
    features, mask = preprocess(batch["features"], batch["num_frames"])
    return batch, features, mask


@pytest.mark.parametrize("types", [("float_list",) * 2, ("float32",) * 2, ("uint8", "float_list")])
@pytest.mark.parametrize(("max_frames", "fixed"), [(300, False), (4, False), (7, True)])
def test_the_model_sees_what_it_sees_of_quantized_frames(types, max_frames, fixed):
    batch, features, mask = inputs(types, max_frames, fixed)
    _, expected, expected_mask = inputs(("uint8",) * 2, max_frames, fixed)
    np.testing.assert_array_equal(mask, expected_mask)
    for name, kind in zip(SIZES, types, strict=True):
        assert batch["features"][name].dtype == ("uint8" if kind == "uint8" else "float32")
        np.testing.assert_array_equal(features[name], expected[name])


def test_floats_of_any_range_are_kept():
    frame = floats_feature(-1e30, 0.1, 7.0, 1e-30)
    payload = hand.sequence_example({"id": bytes_feature(b"a")}, r=[frame], u=[b"xy"])
    features = parse_frame_batch([payload], schema("float_list", "uint8"))["features"]
    np.testing.assert_array_equal(
        features["r"][0, 0], np.array([-1e30, 0.1, 7.0, 1e-30], np.float32)
    )


@pytest.mark.parametrize(
    ("types", "stored", "message"),
    [
        (
            ("uint8",) * 2,
            ("float32",) * 2,
            "r, frame 0 has 16 bytes instead of 4: float32.*=float32",
        ),
        (("float32",) * 2, ("uint8",) * 2, "r, frame 0 has 4 bytes instead of 16: uint8.*=uint8"),
        (("uint8",) * 2, ("float_list",) * 2, "--feature_types"),
        (("float_list",) * 2, ("uint8",) * 2, "--feature_types"),
    ],
)
def test_frames_of_another_type_name_the_flag(tmp_path, types, stored, message):
    path = hand.write(tmp_path / "a.tfrecord", [clip("a", 2, stored)])
    with pytest.raises(BadRecordError, match=message):
        list(Reader([path], schema(*types), 1))
    _, reason = find_fault(describe_record(clip("a", 2, stored)), schema(*types))
    assert reason.startswith("feature r")


@pytest.mark.parametrize("kind", ["float32", "float_list"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda frames: [*frames[:2], STORED["float_list"](np.zeros(3, np.uint8))],
            "frame 2 has 3",
        ),
        (lambda frames: frames[:2], "feature u has 3 frames, feature r has 2"),
        (lambda frames: [], "feature r is missing"),
        (
            lambda frames: [frames[0], floats_feature(0, np.nan, 0, 0), frames[2]],
            "feature r has a value that is not finite",
        ),
    ],
)
def test_bad_frames_of_floats(kind, change, message):
    def of_kind(frame):
        if kind == "float_list" or frame.WhichOneof("kind") == "bytes_list":
            return frame
        return bytes_feature(np.array(frame.float_list.value, "<f4").tobytes())

    bad = clip(
        "a",
        3,
        (kind,) * 2,
        lambda name, frames: [of_kind(f) for f in change(frames)] if name == "r" else frames,
    )
    if kind == "float32":
        message = message.replace("frame 2 has 3", "frame 2 has 12 bytes instead of 16")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        parse_frame_batch([clip("bb", 3, (kind,) * 2), bad], schema(kind, kind))
    assert find_fault(describe_record(bad), schema(kind, kind)) is not None
    assert find_fault(describe_record(clip("a", 3, (kind,) * 2)), schema(kind, kind)) is None


def test_settings_of_types():
    two = {"feature_names": ("a", "b"), "feature_sizes": (1, 2)}
    assert DataConfig(**two, feature_types=("float32",)).feature_types == ("float32", "float32")
    assert DataConfig(**two, feature_types=("uint8",)) == DataConfig(**two)
    config = DataConfig(**two, feature_types=("uint8", "float_list"))
    assert RecordSchema.from_config(config).types == {"a": "uint8", "b": "float_list"}
    assert RunConfig.from_json(RunConfig(data=config).to_json()).data == config
    with pytest.raises(ConfigError, match="--feature_types must be one of uint8, float32, float_l"):
        DataConfig(feature_types=("float16",))
    with pytest.raises(ConfigError, match="one type, or one for each of --feature_names"):
        DataConfig(feature_types=("uint8",) * 3)
    with pytest.raises(ConfigError, match="--feature_types is about frames"):
        RunConfig(
            data=DataConfig(frame_features=False, feature_types=("float32",)),
            model=ModelConfig(name="MoeModel"),
        )


def test_inspect_says_what_would_be_read_by_which_flag(tmp_path, capsys):
    def payload(number):
        rng = np.random.default_rng(number)
        context = {"id": bytes_feature(b"a"), "clip/label": ints_feature(*np.eye(4, dtype=int)[1])}
        return hand.sequence_example(
            context,
            lists=[floats_feature(0.5, 2.0)] * 3,
            packed=[bytes_feature(rng.normal(size=8).astype("<f4").tobytes())] * 3,
            quantized=[bytes_feature(rng.integers(100, 156, 32, np.uint8).tobytes())] * 3,
        )

    path = hand.write(tmp_path / "a.tfrecord", [payload(0), payload(1)])
    assert main([path]) == 0
    text = capsys.readouterr().out
    assert "feature lists: 2 floats a frame (--feature_types=float_list) in 2 records" in text
    assert "feature packed: 32 bytes a frame in 2 records\n  float32? 8 values a frame" in text
    assert (
        "feature quantized: 32 bytes a frame in 2 records\nint64 lists: 'clip/label' (4 val" in text
    )
    assert "no record has labels under 'labels': --labels_key names the list" in text
    assert main([path, "--labels_key=clip/label"]) == 0
    assert "the labels look like 0/1 vectors: --labels_are=multi_hot" in capsys.readouterr().out
    arguments = ["--feature_names=packed", "--feature_sizes=8", "--feature_types=float32"]
    assert main([path, *arguments]) == 0
    assert main([path, *arguments[:2]]) == 1


def mediapipe_record(context, rgb, audio):
    """As MediaPipe writes it: floats a frame, and lists that are none of the features."""
    return hand.sequence_example(
        context | {"clip/start/timestamp": ints_feature(0), "RGB/feature/rate": floats_feature(1)},
        **{
            "RGB/feature/floats": [floats_feature(*frame) for frame in rgb],
            "RGB/feature/timestamp": [ints_feature(10**6 * k) for k in range(len(rgb))],
            "AUDIO/feature/floats": [floats_feature(*frame) for frame in audio],
        },
    )


def test_records_of_mediapipe_are_read(tmp_path, capsys):
    """Its ids are `clip/media_id`, or only `clip/data_path`; labels are `clip/label/index`."""
    rng = np.random.default_rng(0)
    rgb, audio = rng.normal(size=(3, 8)), rng.normal(size=(3, 4))
    contexts = [
        {
            "clip/media_id": bytes_feature(b"one"),
            "clip/data_path": bytes_feature(b"/v/one.mp4"),
            "clip/label/index": ints_feature(2, 0),
            "clip/label/string": bytes_feature(b"c", b"a"),
        },
        {"clip/data_path": bytes_feature(b"/v/two.mp4"), "clip/label/index": ints_feature(1)},
    ]
    path = hand.write(
        tmp_path / "a.tfrecord", [mediapipe_record(context, rgb, audio) for context in contexts]
    )
    sizes = {"RGB/feature/floats": 8, "AUDIO/feature/floats": 4}
    schema = RecordSchema(
        sizes, 3, feature_types=("float_list",) * 2, labels_key="clip/label/index"
    )
    [batch] = Reader([path], schema, 2)
    assert batch["video_id"].numpy().tolist() == [b"one", b"/v/two.mp4"]
    assert batch["labels"].numpy().tolist() == [[1, 0, 1], [0, 1, 0]]
    for name, values in zip(sizes, (rgb, audio), strict=True):
        np.testing.assert_array_equal(batch["features"][name][1], values.astype(np.float32))
    assert main([path, "--labels_key=clip/label/index"]) == 0
    text = capsys.readouterr().out
    assert "feature RGB/feature/floats: 8 floats a frame (--feature_types=float_list)" in text
    assert "timestamp" not in text.split("int64 lists")[0]
    description = describe_record(mediapipe_record(contexts[1], rgb, audio))
    assert (description.video_id, description.faults) == ("/v/two.mp4", ())
    wrong = RecordSchema({"RGB/feature/timestamp": 1}, 3, feature_types=("float_list",))
    assert find_fault(description, wrong)[0] == Fault.WRONG_TYPE
    with pytest.raises(BadRecordError, match="RGB/feature/timestamp"):
        list(Reader([path], wrong, 2))
