"""From a batch of records to probabilities."""

import numpy as np
import tensorflow as tf

from yt8m_gat.data import dequantize
from yt8m_gat.prediction.inference import probability_function


class FirstChannel:
    """Logits: the sum of the first channel over real frames; another number in training."""

    def __call__(self, inputs, training):
        weights = tf.cast(inputs["frame_mask"], tf.float32)[..., None]
        total = tf.reduce_sum(inputs["rgb"][..., :1] * weights, axis=1)
        return total + (100.0 if training else 0.0)

    def probabilities(self, logits):
        return tf.sigmoid(logits)


def test_it_dequantizes_masks_and_does_not_train():
    frames = np.array([[[10, 0], [200, 0], [255, 0]], [[90, 0], [30, 0], [7, 0]]], np.uint8)
    classify = probability_function(FirstChannel())
    found = classify({"rgb": tf.constant(frames)}, tf.constant([2, 3]))
    values = dequantize(frames)[..., 0]
    logits = np.array([values[0, :2].sum(), values[1].sum()])
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp(-logits)), rtol=1e-5)
