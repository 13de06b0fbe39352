import numpy as np
import pytest
import tensorflow as tf
from attack_models import NUM_CLASSES, SIZES, AttentiveModel, Batch, LinearModel


@pytest.fixture(scope="session")
def linear():
    return LinearModel(np.random.default_rng(1))


@pytest.fixture(scope="session")
def attentive():
    return AttentiveModel(np.random.default_rng(2))


@pytest.fixture(scope="session")
def batch():
    """Five clips of 5, 3, 1, 4 and 0 frames; what lies in the padding is not 0."""
    rng = np.random.default_rng(3)
    features = {
        name: tf.constant(rng.uniform(-2, 2, size=(5, 5, size)), tf.float32)
        for name, size in SIZES.items()
    }
    labels = (rng.random((5, NUM_CLASSES)) < 0.2).astype(np.float32)
    labels[3] = 0
    return Batch(features, tf.sequence_mask([5, 3, 1, 4, 0], 5), tf.constant(labels))
