import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError, DataConfig
from yt8m_gat.data import RecordSchema, dequantize, quantize
from yt8m_gat.data import schema as schemas
from yt8m_gat.data.quantization import MAX_VALUE, MIN_VALUE, STEP


def test_schema_keeps_order_and_is_hashable():
    schema = RecordSchema({"b": 2, "a": 1}, 5)
    assert schema.feature_names == ("b", "a")
    assert schema.sizes == {"b": 2, "a": 1}
    assert schema == RecordSchema((("b", 2), ("a", 1)), 5)
    assert hash(schema) == hash(RecordSchema({"b": 2, "a": 1}, 5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        schema.num_classes = 6


def test_schema_from_config_takes_every_field():
    config = DataConfig(
        feature_names=("x",),
        feature_sizes=(3,),
        num_classes=9,
        max_frames=7,
        frame_features=False,
    )
    assert RecordSchema.from_config(config) == RecordSchema({"x": 3}, 9, 7, frame_level=False)


def test_official_layout_is_the_default_configuration():
    schema = RecordSchema.from_config(DataConfig())
    assert schema.sizes == schemas.FRAME_FEATURE_SIZES
    assert (schema.num_classes, schema.max_frames) == (schemas.NUM_CLASSES, schemas.MAX_FRAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, 5), "--feature_names must name at least one"),
        (({"": 3}, 5), "--feature_names must name at least one"),
        (((("a", 1), ("a", 2)), 5), "--feature_names must differ"),
        (({"labels": 3}, 5), r"--feature_names must not use \['labels'\]"),
        (({"num_frames": 3}, 5), r"--feature_names must not use \['num_frames'\]"),
        (({"a": 0}, 5), "--feature_sizes must be positive. Received: 0 for feature 'a'"),
        (({"a": 1}, 0), "--num_classes must be positive. Received: 0"),
        (({"a": 1}, 5, 0), "--max_frames must be positive. Received: 0"),
    ],
)
def test_schema_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RecordSchema(*arguments)


BYTES = np.arange(256, dtype=np.uint8)


def test_dequantize_at_the_ends():
    values = dequantize(BYTES)
    assert values.dtype == np.float32
    assert values[0] == -1.9921875
    assert values[255] == 2.0078125


def test_dequantize_is_the_published_formula_in_both_libraries():
    expected = BYTES.astype(np.float64) * (4 / 255) + (4 / 512 - 2)
    np.testing.assert_allclose(dequantize(BYTES), expected, rtol=0, atol=3e-7)
    tensor = dequantize(tf.constant(BYTES))
    assert tensor.dtype == tf.float32
    np.testing.assert_allclose(tensor, expected, rtol=0, atol=3e-7)


def test_quantize_inverts_dequantize():
    np.testing.assert_array_equal(quantize(dequantize(BYTES)), BYTES)
    np.testing.assert_array_equal(quantize(dequantize(tf.constant(BYTES))), BYTES)


@pytest.mark.parametrize("convert", [np.float32, tf.constant])
def test_quantize_rounds_to_the_nearest_level_and_clips(convert):
    levels = dequantize(BYTES)
    inner = levels[1:-1]
    for shift in (-0.49, 0.49):
        moved = quantize(convert(inner + np.float32(shift * STEP)))
        np.testing.assert_array_equal(moved, BYTES[1:-1])
    np.testing.assert_array_equal(quantize(convert(levels[:-1] + 0.51 * STEP)), BYTES[1:])
    ends = quantize(convert(np.float32([-100.0, MIN_VALUE, MAX_VALUE, 100.0])))
    np.testing.assert_array_equal(ends, [0, 0, 255, 255])


def test_quantize_gives_bytes():
    assert quantize(np.float32([0.0])).dtype == np.uint8
    assert quantize(tf.constant([0.0])).dtype == tf.uint8
