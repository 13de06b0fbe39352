import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.extraction.config import FeatureConfig
from yt8m_gat.extraction.log_mel import log_mel
from yt8m_gat.extraction.sound import sound_model
from yt8m_gat.extraction.vggish import CHECKPOINT, PCA_FILE, load_checkpoint, vggish

# Name in the checkpoint -> channels in and out, or values in and out.
CONVOLUTIONS = {
    "conv1": (1, 64),
    "conv2": (64, 128),
    "conv3/conv3_1": (128, 256),
    "conv3/conv3_2": (256, 256),
    "conv4/conv4_1": (256, 512),
    "conv4/conv4_2": (512, 512),
}
# Four pools halve 96 x 64 to 6 x 4.
DENSE = {"fc1/fc1_1": (6 * 4 * 512, 4096), "fc1/fc1_2": (4096, 4096), "fc2": (4096, 128)}


def by_hand(patches, weights):
    """The model of vggish_slim.py, written with TensorFlow's operations."""
    x = tf.reshape(patches, [-1, 96, 64, 1])
    for scope in CONVOLUTIONS:
        x = tf.nn.conv2d(x, weights[f"vggish/{scope}/weights"], 1, "SAME")
        x = tf.nn.relu(x + weights[f"vggish/{scope}/biases"])
        if scope in ("conv1", "conv2", "conv3/conv3_2", "conv4/conv4_2"):
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    x = tf.reshape(x, [-1, 6 * 4 * 512])
    for scope in DENSE:
        x = x @ weights[f"vggish/{scope}/weights"] + weights[f"vggish/{scope}/biases"]
        x = x if scope == "fc2" else tf.nn.relu(x)
    return x.numpy()


def write_checkpoint(path, weights):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, value.shape) for name, value in weights.items()
        }
        for name, value in weights.items():
            variables[name].load(value, session)
        tf.compat.v1.train.Saver(variables).save(
            session, str(path), write_meta_graph=False, write_state=False
        )


@pytest.mark.slow
def test_vggish_is_the_official_model(tmp_path):
    model = vggish()
    shapes = {name: (3, 3, *channels) for name, channels in CONVOLUTIONS.items()} | DENSE
    parameters = sum(np.prod(shape) + shape[-1] for shape in shapes.values())
    assert model.count_params() == parameters == 72_141_184
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        weights[f"vggish/{name}/weights"] = scale * rng.standard_normal(shape, np.float32)
        weights[f"vggish/{name}/biases"] = rng.normal(0, 0.1, shape[-1]).astype(np.float32)
    write_checkpoint(tmp_path / CHECKPOINT, weights)
    load_checkpoint(model, tmp_path / CHECKPOINT)
    waveforms = rng.normal(0, 0.1, (2, 15_600)).astype(np.float32)
    patches = log_mel(waveforms)
    expected = by_hand(patches, weights)
    np.testing.assert_allclose(model(patches).numpy(), expected, rtol=1e-3, atol=1e-3)
    # The same from the folder of the official files, by --sound=vggish.
    np.savez(tmp_path / PCA_FILE, pca_means=np.zeros(128), pca_eigen_vectors=np.eye(128))
    loaded = sound_model(FeatureConfig(kind="vggish", model="vggish"), tmp_path, 1.0)
    assert (loaded.window, loaded.size) == (15_600, 128)
    np.testing.assert_allclose(loaded.call(waveforms), expected, rtol=1e-3, atol=1e-3)


def test_what_is_no_checkpoint_of_vggish_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be VGGish's checkpoint"):
        load_checkpoint(None, tmp_path / CHECKPOINT)
    write_checkpoint(tmp_path / CHECKPOINT, {"vggish/conv1/weights": np.zeros((3, 3, 1, 32), "f4")})

    class OneLayer:
        """In place of the model, which has 288 MB."""

        def get_layer(self, name):
            self.weights = [np.zeros((3, 3, 1, 64)), np.zeros(64)]
            return self

    with pytest.raises(
        ConfigError, match=r"conv1/weights must have the shape \[3, 3, 1, 64\]\. Received: .*32\]"
    ):
        load_checkpoint(OneLayer(), tmp_path / CHECKPOINT)
