"""A classifier of raw clips, for tests: a dense layer on the mean colors of the frames."""

import keras
from keras import ops

from yt8m_gat.models import ModelOutputs, VideoClassifier


class TinyClipModel(VideoClassifier):
    """Its logits depend on the order of the frames."""

    def __init__(self, feature_sizes, num_classes, num_segments=8, crop_size=224, **kwargs):
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        self.num_segments, self.crop_size = num_segments, crop_size
        self.dense = keras.layers.Dense(num_classes, dtype="float32")
        self.build_all()

    def symbolic_inputs(self, num_frames=None):
        size, count = self.crop_size, self.num_segments
        return {
            "image": keras.Input((count, size, size, 3), name="image"),
            "frame_mask": keras.Input((count,), name="frame_mask", dtype="bool"),
        }

    def forward(self, features, frame_mask=None, training=False, auxiliary_normalization=False):
        frames = features["image"] / 255
        colors = ops.reshape(ops.mean(frames, axis=(2, 3)), (-1, self.num_segments * 3))
        return ModelOutputs(self.dense(colors), frames, {})

    def probabilities(self, logits):
        return ops.softmax(logits)
