"""Shares of activation in true spans, the pointing game, and the file of spans."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.explanation.true_spans import (
    SpanFigures,
    TrueSpan,
    numbered_spans,
    overlap_of_frames,
    read_true_spans,
)
from yt8m_gat.models import ModelOutputs
from yt8m_gat.pipeline.activation_measures import measure_class_activation, measure_true_spans


def test_overlap_of_frames():
    np.testing.assert_allclose(overlap_of_frames(TrueSpan("a", 0.0, 1.0), 3), [1, 1, 1])
    np.testing.assert_allclose(overlap_of_frames(TrueSpan("a", 0.1, 0.2), 2), [0.2, 0])
    np.testing.assert_allclose(overlap_of_frames(TrueSpan("a", 0.3, 0.9), 2), [0.4, 0.8])


def test_share_and_pointing():
    figures = SpanFigures()
    span = TrueSpan("a", 0.25, 0.75)
    figures.add(np.array([0.1, 0.6, 0.2, 0.1]), span)  # .8 inside, the peak too
    figures.add(np.array([0.7, 0.1, 0.2, 0.0]), span)  # .3 inside, the peak not
    figures.add(np.array([0.6, 0.4]), TrueSpan("a", 0.3, 0.4))  # .2 of frame 0: its best frame
    figures.add(np.array([0.6, 0.4]), TrueSpan("a", 0.45, 0.9))  # .1 of frame 0, .8 of frame 1
    assert figures.result() == {
        "num_spans": 4,
        "share": pytest.approx((0.8 + 0.3 + 0.12 + 0.6 * 0.1 + 0.4 * 0.8) / 4),
        "pointing": 0.5,
        "even_share": pytest.approx((0.5 + 0.5 + 0.1 + 0.45) / 4),
    }
    assert SpanFigures().result()["share"] is None


def test_the_file(tmp_path):
    path = tmp_path / "spans.csv"
    path.write_text(
        "video_id,label,start,end,duration\nx,bin,1,2,4\nx,7,0,9,4\ny,blue,0.5,0.75,\n",
        encoding="utf-8",
    )
    spans = read_true_spans(path)
    assert spans == {
        "x": [TrueSpan("bin", 0.25, 0.5), TrueSpan("7", 0.0, 1.0)],
        "y": [TrueSpan("blue", 0.5, 0.75)],
    }
    numbered = numbered_spans(spans, {2: "bin", 3: "blue"}, 8)
    assert [number for number, _ in numbered["x"]] == [2, 7]
    for names, num_classes in (({3: "blue"}, 8), ({2: "bin", 3: "blue"}, 7)):
        with pytest.raises(ValueError, match="must be a name or a number"):
            numbered_spans(spans, names, num_classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,label,start\nx,1,2", "the columns must be video_id, label, start, end"),
        ("", "the columns must be"),
        ("video_id,label,start,end\nx,1,a,1", "line 2: start, end and duration must be numbers"),
        ("video_id,label,start,end\nx,1,0.5,0.5", "line 2: a span must begin in the clip"),
        ("video_id,label,start,end\nx,1,1,2", "line 2: a span must begin in the clip"),
        ("video_id,label,start,end,duration\nx,1,1,2,0", "line 2: start, end and duration"),
        ("video_id,label,start,end\n,1,0,1", "line 2: video_id and label must not be empty"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "spans.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_true_spans(path)


class FrameSums:
    """An evaluator whose class activations are the features: C_ki is channel k of frame i."""

    normalize = "none"
    classifier = None

    def forward_with_maps(self, features, frame_mask):
        frames = features["x"]
        uniform = tf.ones([tf.shape(frames)[0], 1, 4, 4]) / 4.0
        return ModelOutputs(tf.reduce_sum(frames, axis=1), frames, {"x": {"global": uniform}})

    def forward(self, features, frame_mask):
        return self.forward_with_maps(features, frame_mask)._replace(attention_maps={})


def test_passes_over_a_set():
    clip = np.zeros((2, 4, 2), np.float32)
    clip[0, :, 0] = [0, 3, 1, 0]
    clip[0, :, 1] = [1, 1, 1, 1]
    clip[1, :, 0] = -1
    batch = {
        "video_id": tf.constant(["a", "b"]),
        "features": {"x": tf.constant(clip)},
        "num_frames": tf.constant([4, 4]),
        "labels": tf.constant([[1.0, 1.0], [0.0, 0.0]]),
    }
    spans = {
        "a": [(0, TrueSpan("0", 0.25, 0.5)), (1, TrueSpan("1", 0.0, 0.25))],
        "b": [(0, TrueSpan("0", 0.0, 1.0))],
        "c": [(0, TrueSpan("0", 0.0, 1.0))],
    }
    measured = measure_true_spans(FrameSums(), [batch], 2, spans)
    activation = measured["activation"]
    assert activation["num_spans"] == 2 and activation["num_silent"] == 1
    assert activation["share"] == pytest.approx((0.75 + 0.25) / 2)
    assert activation["pointing"] == 1.0
    attention = measured["attention"]["x"]
    assert attention["num_spans"] == 3
    assert attention["share"] == attention["even_share"] == pytest.approx((0.25 + 0.25 + 1) / 3)
    # Both labels of the first clip score 4, and the lower one counts; the second has no label.
    evenness = measure_class_activation(FrameSums(), [batch], 2)
    assert evenness["num_videos"] == 1
    shares = np.array([0.75, 0.25])
    assert evenness["entropy"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(4))
