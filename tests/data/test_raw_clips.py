"""Batches of raw clips: which frames, which part of them, the same each time; bad records."""

import collections
import dataclasses
import json

import numpy as np
import pytest
import raw_clips as raw
import tensorflow as tf
from handmade_records import bytes_feature, ints_feature, sequence_example, write

from yt8m_gat.commands import inspect
from yt8m_gat.config import ClipConfig, ConfigError
from yt8m_gat.data import (
    BadRecordError,
    Fault,
    Reader,
    RecordSchema,
    Shuffle,
    check_labels,
    clips,
    parse_frame_batch,
)
from yt8m_gat.data.clips import crop_and_resize, find_clip_faults, parse_clip_batch, sample_frames
from yt8m_gat.data.dataset import batch_parser
from yt8m_gat.data.diagnosis import finding_in

SMALL = ClipConfig(num_segments=3, crop_size=8, short_side=12)
BY_PLACE = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


def schema(settings=SMALL, num_classes=4):
    return RecordSchema({"image": 3}, num_classes, 3, labels_key="clip/label/index", clips=settings)


def images(batch):
    return batch["features"]["image"].numpy()


def frames_of(num_frames, *, draws=None, **settings):
    draws = None if draws is None else tf.constant(draws, tf.float32)
    return sample_frames(tf.constant(num_frames), ClipConfig(**settings), draws).numpy().tolist()


# --- Which frames -------------------------------------------------------------------------------


def test_evaluation_takes_the_middle_of_each_segment():
    # TSM's test indices: int(n / T / 2 + n / T * i).
    assert frames_of([10, 45], num_segments=4) == [[1, 3, 6, 8], [5, 16, 28, 39]]
    # Fewer frames than segments: the nearest, each for as long as it lasts.
    assert frames_of([1, 3], num_segments=4) == [[0, 0, 0, 0], [0, 1, 1, 2]]


def test_training_takes_any_frame_of_a_segment_and_no_other():
    draws = np.random.default_rng(0).random((2000, 3), np.float32)
    draws[0], draws[1] = 0, np.nextafter(np.float32(1), np.float32(0))
    taken = np.array(frames_of([8] * 2000, draws=draws, num_segments=3))
    # Segments [0, 8/3), [8/3, 16/3), [16/3, 8): frame 2 begins in the first and ends in the second.
    assert [sorted(set(column)) for column in taken.T.tolist()] == [
        *([0, 1, 2], [2, 3, 4, 5], [5, 6, 7]),
    ]
    assert taken[0].tolist() == [0, 2, 5] and taken[1].tolist() == [2, 5, 7]


def test_dense_sampling_keeps_its_stride_and_repeats_the_ends_of_short_clips():
    dense = {"sampling": "dense", "dense_stride": 2, "num_segments": 3}
    assert frames_of([9, 5, 3, 1], **dense) == [[2, 4, 6], [0, 2, 4], [0, 1, 2], [0, 0, 0]]
    draws = np.linspace(0, 1, 50, endpoint=False)[:, None].repeat(3, 1)
    starts = [frames[0] for frames in frames_of([9] * 50, draws=draws, **dense)]
    assert np.bincount(starts).tolist() == [10] * 5
    assert frames_of([9], draws=draws[-1:], **dense) == [[4, 6, 8]]


# --- Which part of them -------------------------------------------------------------------------


def test_evaluation_resizes_the_short_side_and_takes_the_center():
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    settings = ClipConfig(num_segments=2, crop_size=20, short_side=24)
    batch = parse_clip_batch(
        tf.constant([raw.record("a", [raw.png(image)] * 5, [3])]), schema(settings)
    )
    resized = tf.image.resize(image, [24, 32], antialias=True)[2:22, 6:26]
    assert batch["features"]["image"].shape == (1, 2, 20, 20, 3)
    np.testing.assert_allclose(images(batch)[0, 1], resized, atol=0.51)  # Rounded.
    assert batch["num_frames"].numpy().tolist() == [2]
    np.testing.assert_array_equal(batch["labels"], [[0, 0, 0, 1]])


@pytest.mark.parametrize(("y", "x"), BY_PLACE)
def test_a_crop_shows_its_rectangle(y, x):
    # Bilinear interpolation leaves a ramp a ramp: output i shows start + (i + 0.5) scale - 0.5.
    square = crop_and_resize(tf.constant(raw.RAMP, tf.uint8), [0.5, 0.75], [y, x], 12).numpy()
    rows = y * (48 - 24) + (np.arange(12) + 0.5) * 24 / 12 - 0.5
    columns = x * (64 - 36) + (np.arange(12) + 0.5) * 36 / 12 - 0.5
    inner = slice(1, -1)  # At the border of the picture a filter has only one side.
    np.testing.assert_allclose(square[inner, 5, 1], rows[inner], atol=0.51)
    np.testing.assert_allclose(square[5, inner, 0], 2 * columns[inner], atol=0.51)
    assert (square[..., 2] == 9).all()


def test_heights_and_widths_are_within_one_step_of_each_other():
    draws = np.random.default_rng(0).random((4000, 3), np.float32)
    crops = clips.random_crops(ClipConfig(), tf.constant(draws))
    pairs, counts = np.unique(crops.extents.numpy(), axis=0, return_counts=True)
    scales = np.float32([0.66, 0.75, 0.875, 1])
    expected = [(a, b) for i, a in enumerate(scales) for b in scales[max(0, i - 1) : i + 2]]
    np.testing.assert_array_equal(pairs, expected)
    assert len(pairs) == 10 and counts.min() > 330 and counts.max() < 470
    places = np.unique(crops.places.numpy(), axis=0)
    assert len(places) == 13 and set(places.ravel()) == {0, 0.25, 0.5, 0.75, 1}
    assert not crops.mirrored.numpy().any()
    mirrored = clips.random_crops(ClipConfig(flip=True), tf.constant(draws)).mirrored
    assert 0.47 < mirrored.numpy().mean() < 0.53


def test_a_mirrored_clip_has_the_labels_of_its_mirror_image():
    settings = ClipConfig(
        num_segments=2,
        crop_size=8,
        short_side=8,
        crop_scales=(1.0,),
        flip=True,
        flip_pairs=("1:3",),
    )
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :3] = 200
    payloads = [raw.record(f"{i}", [raw.png(image)] * 4, [i % 4]) for i in range(40)]
    seed = tf.constant([1, 2])
    batch = parse_clip_batch(tf.constant(payloads), schema(settings), seed=seed)
    mirrored = images(batch)[:, 0, 0, 0, 0] == 0
    assert 10 < mirrored.sum() < 30
    for shown, flipped in zip(images(batch), mirrored, strict=True):
        np.testing.assert_array_equal(shown, [image[:, ::-1] if flipped else image] * 2)
    classes = np.arange(40) % 4
    expected = np.where(mirrored, np.array([0, 3, 2, 1])[classes], classes)
    np.testing.assert_array_equal(batch["labels"].numpy().argmax(-1), expected)
    # Evaluation mirrors nothing.
    assert (images(parse_clip_batch(tf.constant(payloads), schema(settings)))[:, 0, 0, 0] > 0).all()


# --- The same each time -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """20 clips of 3 to 12 frames of random pixels, in two files."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    payloads = [
        raw.record(
            f"clip{i}",
            [raw.png(rng.integers(0, 256, (16, 24, 3))) for _ in range(rng.integers(3, 13))],
            [i % 4],
        )
        for i in range(20)
    ]
    return [
        write(folder / "a.tfrecord", payloads[:11]),
        write(folder / "b.tfrecord", payloads[11:]),
    ]


def by_id(batches):
    return {
        video_id: (image.tobytes(), label.argmax())
        for batch in batches
        for video_id, image, label in zip(
            batch["video_id"].numpy(), images(batch), batch["labels"].numpy(), strict=True
        )
    }


@pytest.fixture(scope="module")
def epoch(files):
    """The batches of one epoch of training."""
    return list(Reader(files, schema(), 3, shuffle=Shuffle(seed=1, epoch=2)))


@pytest.mark.slow
def test_a_clip_is_cut_the_same_wherever_it_stands(files, epoch):
    order = Shuffle(seed=1, epoch=2, buffer=0, num_readers=1)
    first = by_id(epoch)
    assert len(first) == 20
    assert first == by_id(Reader(files[::-1], schema(), 7, shuffle=order))
    records = tf.stack(list(tf.data.TFRecordDataset(files)))
    parse = batch_parser(schema())
    for seed in (None, tf.constant([1, 2]), tf.constant([1, 3])):
        found = by_id([parse(records, seed=seed)])
        assert sum(found[key][0] == first[key][0] for key in first) <= 2
        first = found


def test_a_resumed_epoch_has_the_same_batches(files, epoch):
    shuffle = Shuffle(seed=1, epoch=2)
    rest = list(Reader(files, schema(), 3, shuffle=shuffle, skip_batches=2))
    assert len(rest) == len(epoch) - 2 == 5
    for batch, expected in zip(rest, epoch[2:], strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, expected)


def test_a_schema_of_raw_clips_has_one_feature():
    with pytest.raises(ConfigError, match="single feature image of size 3"):
        RecordSchema({"rgb": 1024}, 4, clips=SMALL)


def test_a_model_of_features_says_what_reads_raw_clips():
    record = tf.constant([raw.record("x", [GOOD])])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"raw clips one of theirs \(TSN, TSM"):
        parse_frame_batch(record, RecordSchema({"rgb": 8}, 4), with_labels=False)


def test_segments_are_refused(files):
    with pytest.raises(ValueError, match="not of raw clips"):
        Reader(files, schema(), 4, segments="rated")


# --- Bad records --------------------------------------------------------------------------------

GOOD = raw.jpeg(raw.RAMP, quality=95)
ID = {"clip/media_id": bytes_feature(b"x")}


def moving_gif():
    import io

    from PIL import Image

    pages = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 200)]
    file = io.BytesIO()
    pages[0].save(file, "GIF", save_all=True, append_images=pages[1:])
    return file.getvalue()


BAD = {
    "no frames": (sequence_example(ID), Fault.NO_FRAMES, "no frames under image/encoded"),
    "an empty list": (raw.record("x", []), Fault.NO_FRAMES, "yt8m-gat pack"),
    "features": (
        sequence_example(ID, rgb=[b"abc"]),
        Fault.NO_FRAMES,
        "--model that reads features",
    ),
    "two files in a frame": (
        raw.record("x", [GOOD, bytes_feature(GOOD, GOOD)]),
        *(Fault.WRONG_TYPE, "frame 1 of image/encoded is not one value of bytes"),
    ),
    "numbers": (raw.record("x", [ints_feature(3)]), Fault.WRONG_TYPE, "frame 0 of image/encoded"),
    "an empty frame": (raw.record("x", [GOOD, b"", GOOD]), Fault.IMAGE, r"frame 1 .*\(0 bytes\)"),
    "a cut JPEG": (
        raw.record("x", [GOOD, GOOD, GOOD[: len(GOOD) // 2]]),
        *(Fault.IMAGE, "frame 2 of image/encoded"),
    ),
    "a JPEG without its end": (raw.record("x", [GOOD[:-2]]), Fault.IMAGE, "is no JPEG file, or a"),
    "noise": (raw.record("x", [b"\xff\xd8\xff" + bytes(50)]), Fault.IMAGE, "frame 0"),
    "text": (raw.record("x", [b"no picture"]), Fault.IMAGE, r"\(10 bytes\)"),
    "a moving GIF": (raw.record("x", [moving_gif()]), Fault.IMAGE, "frame 0"),
    "a label too large": (raw.record("x", [GOOD], [4]), Fault.LABEL, "label 4 is outside 0 .. 3"),
    "a negative label": (raw.record("x", [GOOD], [-1]), Fault.LABEL, "label -1 is outside"),
    "no id": (sequence_example({}, **{"image/encoded": [GOOD]}), Fault.VIDEO_ID, "none of the ids"),
    "no record": (b"\xff", Fault.UNDECODABLE, "no tf.Example"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Each bad record behind a good one, in a file."""
    payloads = []
    for number, (bad, *_) in enumerate(BAD.values()):
        payloads += [raw.record(f"good{number}", [GOOD] * 3), bad]
    return write(tmp_path_factory.mktemp("bad") / "mixed.tfrecord", payloads)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_record_is_named(kind):
    """For training and for evaluation alike."""
    bad, fault, words = BAD[kind]
    for seed in (None, tf.constant([1, 2])):
        with pytest.raises(tf.errors.InvalidArgumentError, match=words) as caught:
            batch_parser(schema())(tf.constant([raw.record("good", [GOOD]), bad]), seed=seed)
        finding = finding_in(caught.value)
        assert (finding.fault, finding.record, bool(finding.remedy)) == (fault, 1, True)


def test_an_error_names_file_and_record(mixed):
    with pytest.raises(BadRecordError, match=r"mixed\.tfrecord, record 1 .*Remedy: ") as caught:
        list(Reader([mixed], schema(), 4, shuffle=Shuffle(buffer=0)))
    assert caught.value.fault == Fault.NO_FRAMES


@pytest.mark.slow
def test_bad_records_are_left_out_and_counted(mixed):
    options = {"on_bad_record": "skip", "max_bad_fraction": 1.0}
    reader = Reader([mixed], schema(), 4, shuffle=Shuffle(), **options)
    assert sorted(by_id(reader)) == sorted(f"good{i}".encode() for i in range(len(BAD)))
    assert dict(reader.skipped.counts) == collections.Counter(fault for _, fault, _ in BAD.values())


def test_inspect_names_them_and_says_how_to_train(mixed, files, capsys):
    assert inspect.main([mixed, "--num_classes=4", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    found = [(bad["record"], bad["fault"]) for bad in report["files"][0]["bad_records"]]
    expected = [(2 * number + 1, fault) for number, (_, fault, _) in enumerate(BAD.values())]
    assert (report["level"], found) == ("clip", expected)
    assert inspect.main(files) == 0
    text = capsys.readouterr().out
    assert "raw clips: frames as JPEG files" in text and "labels per record: 1 to 1" in text
    assert f"train --model=TSM --num_classes=4 --train_data_pattern={','.join(files)}" in text


def test_inspect_suggests_the_loss_of_several_labels(tmp_path, capsys):
    path = write(tmp_path / "several.tfrecord", [raw.record("x", [GOOD], [0, 3])])
    assert inspect.main([path]) == 0
    text = capsys.readouterr().out
    assert "train --model=TSM --num_classes=4 --label_loss=CrossEntropyLoss --train_" in text


@pytest.mark.parametrize("form", ["indices", "multi_hot"])
def test_a_softmax_needs_one_label_a_clip(form):
    lists = [[2], [2, 2], [], [0, 3]]  # Of 4 classes; a class listed twice is one label.
    if form == "multi_hot":
        lists = [[0, 0, 1, 0], [0, 0, 1, 0], [0] * 4, [1, 0, 0, 1]]
    records = [raw.record(f"c{n}", [raw.flat(9)] * 2, labels) for n, labels in enumerate(lists)]
    settings = dataclasses.replace(
        schema(ClipConfig(num_segments=2, crop_size=8)), one_label=True, labels_are=form
    )
    batch = parse_clip_batch(tf.constant(records[:2]), settings)
    np.testing.assert_array_equal(batch["labels"], [[0, 0, 1, 0]] * 2)
    for record, count in zip(records[2:], (0, 2), strict=True):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"it has {count} labels instead"):
            parse_clip_batch(tf.constant([record]), settings)
    assert find_clip_faults(tf.constant(records), settings).numpy().tolist() == [
        *(b"", b"", b"label", b"label")
    ]


def test_labels_are_looked_for_where_raw_clips_have_them(files):
    check_labels(files, schema(), "train_data_pattern")
    other = RecordSchema({"image": 3}, 4, 3, clips=SMALL)
    with pytest.raises(ConfigError, match=r"none of 20 .*clip/label/index.*--labels_key"):
        check_labels(files, other, "train_data_pattern")
    with pytest.raises(ConfigError, match=r"--labels_key .*if these are raw clips.*: TSN, TSM"):
        check_labels(files, RecordSchema({"rgb": 8}, 4), "train_data_pattern")


def test_odd_pictures_that_can_be_read():
    square = np.full((12, 16, 3), (200, 100, 0))
    gray = raw.jpeg(square, "L", quality=100)
    payloads = [
        raw.record("rgb", [raw.jpeg(square, quality=100)]),
        raw.record("cmyk", [raw.jpeg(square, "CMYK", quality=100)]),
        raw.record("progressive", [raw.jpeg(square, quality=100, progressive=True)]),
        raw.record("png", [raw.png(square)]),
        raw.record("webp", [raw.jpeg(square, form="WEBP", lossless=True)]),
        raw.record("gray", [gray], ()),
        raw.record("sizes", [raw.flat(0), raw.flat(0, 99, 7), raw.flat(0, 1, 1)]),
    ]
    batch = parse_clip_batch(tf.constant(payloads), schema())
    for image in images(batch)[:5]:
        np.testing.assert_allclose(image, np.broadcast_to([200, 100, 0], image.shape), atol=3)
    luma = round(0.299 * 200 + 0.587 * 100)
    np.testing.assert_allclose(images(batch)[5], np.full((3, 8, 8, 3), luma), atol=2)
    assert not images(batch)[6].any()
    assert batch["labels"].numpy()[5].tolist() == [0, 0, 0, 0]


def test_frames_that_are_not_taken_are_not_looked_at():
    batch = parse_clip_batch(
        tf.constant([raw.record("x", [b"", GOOD, b""] * 3)]), schema()
    )  # Frames 1, 4 and 7 of 9.
    assert images(batch).any()


def test_an_empty_batch():
    batch = parse_clip_batch(tf.zeros([0], tf.string), schema(), seed=tf.constant([1, 2]))
    assert batch["features"]["image"].shape == (0, 3, 8, 8, 3) and batch["labels"].shape == (0, 4)


def test_by_default_the_center_is_seven_eighths_of_the_short_side():
    assert ClipConfig().central_share == 224 / 256
    crops = clips.central_crops(ClipConfig(crop_size=96), 2)
    np.testing.assert_array_equal(crops.extents, np.full((2, 2), 7 / 8))
