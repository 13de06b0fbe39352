"""The frames and the class activation that eval.py stores of shown raw clips."""

import base64
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.pipeline.shown_clips import show_clips
from yt8m_gat.pipeline.shown_frames import frame_pictures
from yt8m_gat.training.objective import build_loss

sys.path.append(str(Path(__file__).parent / "data"))
from tiny_clip_model import TinyClipModel


def decoded(uri):
    start, content = uri.split(",")
    assert start == "data:image/jpeg;base64"
    return tf.io.decode_jpeg(base64.b64decode(content)).numpy()


def test_a_shown_clip_has_its_frames_and_the_activation_of_label_and_prediction():
    model = TinyClipModel({"image": 3}, 3, num_segments=2, crop_size=8)
    weights = np.zeros((2, 3, 3), np.float32)  # [T, channels, classes]
    weights[0, 0], weights[1, 0] = [0.1, 1.0, 0.0], [0.3, -2.0, 0.0]
    model.dense.set_weights([weights.reshape(6, 3), np.array([0.0, 5.0, 0.0], np.float32)])
    frames = np.zeros((2, 2, 8, 8, 3), np.uint8)
    frames[:, 0], frames[:, 1] = [204, 51, 51], [102, 51, 51]
    batch = {
        "video_id": tf.constant(["labelled", "without"]),
        "features": {"image": tf.constant(frames)},
        "num_frames": tf.constant([2, 2]),
        "labels": tf.constant([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    }
    evaluator = Evaluator(model, build_loss(ObjectiveConfig()), 3)
    options = EvaluationOptions(eval_data_pattern="x", num_clips=2)
    shown, without = show_clips(evaluator, options, [batch], None, {1: "b"}, lambda _, maps: maps)
    # The red of the frames is 0.8 and 0.4; the mean over 8 x 8 places of the slope is w / 64.
    label, prediction = shown["clean"]["activation"]
    assert (label["class"], label["name"]) == (0, None)
    np.testing.assert_allclose(label["values"], [0.08 / 64, 0.12 / 64], rtol=1e-5)
    shares = np.array([0.4, 0.6])
    assert label["entropy"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(2))
    assert (prediction["class"], prediction["name"]) == (1, "b")
    np.testing.assert_allclose(prediction["values"], [0.8 / 64, -0.8 / 64], rtol=1e-5)
    assert prediction["entropy"] == 0.0
    assert [entry["class"] for entry in without["clean"]["activation"]] == [1]
    for uri, color in zip(shown["clean"]["frames"], frames[0, :, 0, 0], strict=True):
        picture = decoded(uri)
        assert picture.shape == (8, 8, 3)
        assert np.abs(picture.astype(int) - color).max() <= 3


def test_large_frames_become_96_pixels_and_stay_within_bytes():
    half = np.zeros((1, 192, 192, 3), np.float32)
    half[:, :, 96:] = 300.0
    (picture,) = map(decoded, frame_pictures(half))
    assert picture.shape == (96, 96, 3)
    assert picture[:, :40].max() < 4 and picture[:, 56:].min() > 251
