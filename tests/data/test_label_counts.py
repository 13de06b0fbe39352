"""The number of clips with each class, as the reader sees them."""

import handmade_records as hand
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.data import LabelMap, Reader, RecordSchema
from yt8m_gat.data.label_counts import count_labels


def write(path, *records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return [str(path)]


def record(name, *labels, **lists):
    context = {"id": hand.bytes_feature(name), "labels": hand.ints_feature(*labels), **lists}
    return hand.sequence_example(context, r=[bytes(4)] * 6)


@pytest.mark.slow
def test_the_counts_are_those_of_the_labels_that_are_read(tmp_path):
    files = write(tmp_path / "r", record(b"a", 0, 1), record(b"b", 1, 1), record(b"c", 2, 3))
    (tmp_path / "map.csv").write_text(
        "source_index,target_index,target_name\n0,0,Cat\n1,0,Cat\n2,1,Dog\n"
    )
    label_map = LabelMap.load(tmp_path / "map.csv", 4)
    for schema, expected in (
        (RecordSchema({"r": 4}, 4, 6), [1, 2, 1, 1]),
        (RecordSchema({"r": 4}, 2, 6, label_map=label_map), [2, 1]),
    ):
        [batch] = Reader(files, schema, 4)
        assert batch["labels"].numpy().sum(axis=0).tolist() == expected
        counts = count_labels(files, schema)
        assert counts.dtype == np.int64 and counts.tolist() == expected


@pytest.mark.slow
def test_the_positive_ratings_of_segments_are_counted(tmp_path):
    ratings = {
        "segment_start_times": hand.ints_feature(0, 0, 1, 1),
        "segment_end_times": hand.ints_feature(5, 5, 6, 6),
        "segment_labels": hand.ints_feature(1, 2, 1, 0),
        "segment_scores": hand.floats_feature(1.0, 0.0, 0.5, 0.0),
    }
    files = write(tmp_path / "r", record(b"a", 3, **ratings), record(b"b", 3))
    schema = RecordSchema({"r": 4}, 4, 6)
    [batch] = Reader(files, schema, 4, segments="rated")
    expected = ((batch["labels"] > 0) & (batch["label_weights"] > 0)).numpy().sum(axis=0)
    assert expected.tolist() == [0, 2, 0, 0]
    assert count_labels(files, schema, segments=True).tolist() == [0, 2, 0, 0]
