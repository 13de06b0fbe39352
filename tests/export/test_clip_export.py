"""The SavedModel of a model of raw clips: from records and from pixels."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ClipConfig
from yt8m_gat.data import RecordSchema, arrays, parse_clip_batch, preprocess
from yt8m_gat.export import export_saved_model
from yt8m_gat.export.saved_model import ServingModule
from yt8m_gat.export.warm_up import longest_record

sys.path.append(str(Path(__file__).parents[1] / "data"))
import raw_clips as raw
from tiny_clip_model import TinyClipModel

SETTINGS = ClipConfig(num_segments=4, crop_size=8)
SCHEMA = RecordSchema({"image": 3}, 5, 4, labels_key="clip/label/index", clips=SETTINGS)
RECORDS = [
    raw.record(f"clip{i}", [raw.flat((30 * i + 9 * frame) % 256) for frame in range(3 + i)])
    for i in range(3)
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    tf.keras.utils.set_random_seed(0)
    classifier = TinyClipModel({"image": 3}, 5, 4, 8)
    folder = export_saved_model(classifier, SCHEMA, tmp_path_factory.mktemp("clips"))
    return classifier, folder, tf.saved_model.load(str(folder)).signatures


def test_records_and_pixels_give_the_classifiers_probabilities(exported):
    classifier, _, signatures = exported
    assert set(signatures) == {"serving_default", "clips"}
    batch = parse_clip_batch(tf.constant(RECORDS), SCHEMA, with_labels=False)
    features, mask = preprocess(batch["features"], batch["num_frames"])
    expected = tf.nn.softmax(classifier({**features, "frame_mask": mask})).numpy()
    pixels = batch["features"]["image"]
    found = signatures["clips"](clips=pixels)["predictions"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    outputs = signatures["serving_default"](example_bytes=tf.constant(RECORDS))
    assert outputs["video_id"].numpy().tolist() == [b"clip0", b"clip1", b"clip2"]
    dense = np.zeros_like(expected)
    np.put_along_axis(dense, outputs["class_indexes"].numpy(), outputs["predictions"].numpy(), 1)
    np.testing.assert_allclose(dense, expected, rtol=0, atol=1e-6)
    (same,) = arrays.array_batches({"image": list(pixels.numpy())}, SCHEMA, 8)
    np.testing.assert_array_equal(same["features"]["image"], pixels)


def test_bad_requests_are_refused_in_words(exported):
    signatures = exported[2]
    module = ServingModule(exported[0], SCHEMA)
    for shape in ((1, 3, 8, 8, 3), (0, 4, 8, 8, 3), (4, 8, 8, 3)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"clips must be \[N, 4, 8, 8, 3"):
            module.clips(tf.zeros(shape, tf.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"record 1: frame 0 .* no JPEG"):
        signatures["serving_default"](
            example_bytes=tf.constant([RECORDS[0], raw.record("x", [b"\xff\xd8\xff"])])
        )
    with pytest.raises(ValueError, match=r"must be uint8 of the shape \(4, 8, 8, 3\).*\(4, 9, 9"):
        arrays.array_batches({"image": [np.zeros((4, 9, 9, 3), np.uint8)]}, SCHEMA, 8)
    with pytest.raises(ValueError, match="yt8m-gat pack"):
        arrays.write_records("x.tfrecord", [], SCHEMA)


def test_warm_up_requests_are_clips_of_full_size(exported):
    _, folder, signatures = exported
    assert (folder / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0
    outputs = signatures["serving_default"](example_bytes=tf.constant([longest_record(SCHEMA)]))
    assert outputs["video_id"].numpy().tolist() == [b"warm-up"]
    parsed = parse_clip_batch(tf.constant([longest_record(SCHEMA)]), SCHEMA, with_labels=False)
    assert (parsed["features"]["image"].numpy() == 128).all()
