"""TensorFlow 2.15 with tensorflow-addons 0.23, in an environment of its own (`make test-addons`).

Our exports load there and predict the same; what tensorflow-addons has a twin for in Keras 3 agrees
with it. AdamW, LAMB with decay and the default gelu differ between the two, and are not compared.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa

FOLDER = Path(os.environ["ADDONS_DIR"])
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/1.npz"))


@pytest.fixture(scope="module")
def twins():
    return dict(np.load(FOLDER / "twins.npz", allow_pickle=True))


def test_this_is_the_older_stack(twins):
    assert tf.__version__.startswith("2.15.")
    assert tfa.__version__ == "0.23.0"
    assert sorted(twins["recipes"]) == NAMES and "GAT" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_export_gives_the_same_there(name):
    loaded = tf.saved_model.load(str(FOLDER / name / "1"))
    by_signature = {}
    for key, array in np.load(FOLDER / name / "1.npz", allow_pickle=True).items():
        signature_name, tensor_name = key.split("/")
        by_signature.setdefault(signature_name, {})[tensor_name] = array
    assert set(by_signature) == set(loaded.signatures) >= {"serving_default"}
    for signature_name, arrays in by_signature.items():
        signature = loaded.signatures[signature_name]
        inputs = {
            key: tf.constant(arrays[key].tolist() if arrays[key].dtype == object else arrays[key])
            for key in signature.structured_input_signature[1]
        }
        outputs = signature(**inputs)
        assert set(outputs) == set(arrays) - set(inputs)
        for key, tensor in outputs.items():
            if tensor.dtype.is_floating:
                np.testing.assert_allclose(tensor, arrays[key], rtol=0, atol=1e-6)
            else:
                np.testing.assert_array_equal(tensor.numpy(), arrays[key])


def test_a_malformed_record_is_refused_there():
    serve = tf.saved_model.load(str(FOLDER / "GAT" / "1")).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"the payload is no tf\.Example"):
        serve(example_bytes=tf.constant([b"no record"]))


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", None])
def test_f1(twins, average):
    metric = tfa.metrics.F1Score(6, average=average, threshold=0.5)
    metric.update_state(twins["labels"][:25], twins["probabilities"][:25])
    metric.update_state(twins["labels"][25:], twins["probabilities"][25:])
    np.testing.assert_allclose(metric.result(), twins[f"f1/{average}"], rtol=1e-6)


def test_focal_loss(twins):
    """Addons sums over the classes, Keras averages."""
    loss = tfa.losses.SigmoidFocalCrossEntropy(from_logits=True, alpha=0.25, gamma=2.0)
    found = loss(twins["labels"], twins["logits"]) / twins["labels"].shape[1]
    np.testing.assert_allclose(found, twins["focal"], rtol=1e-5)


def test_group_normalization(twins):
    found = tfa.layers.GroupNormalization(4)(twins["frames"])
    np.testing.assert_allclose(found, twins["group_normalization"], rtol=0, atol=1e-5)


def test_lamb_without_decay(twins):
    variable = tf.Variable(twins["weights"])
    optimizer = tfa.optimizers.LAMB(0.01, epsilon=1e-6, weight_decay=0.0)
    for gradient, expected in zip(twins["gradients"], twins["lamb"], strict=True):
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        np.testing.assert_allclose(variable, expected, rtol=1e-5, atol=1e-6)
