"""LogisticModel and MoeModel on video-level features."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.losses import CrossEntropyLoss
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, Objective

SIZES = {"mean_rgb": 12, "mean_audio": 4}
NAMES = ["LogisticModel", "MoeModel"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def videos(rng, count):
    return {name: rng.normal(size=(count, size)).astype("float32") for name, size in SIZES.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # D C + C, with D = 1024 + 128 and C = 3862.
        ("LogisticModel", 1152 * 3862 + 3862),
        # Gates D C (M + 1), experts D C M and their biases C M, with M = 2.
        ("MoeModel", 1152 * 3862 * 3 + 1152 * 3862 * 2 + 3862 * 2),
    ],
)
def test_parameters_at_full_size(name, expected):
    model = build_model(name, {"mean_rgb": 1024, "mean_audio": 128}, 3862)
    assert model.count_params() == expected


def test_logistic_is_an_affine_map_of_the_features_in_order(rng):
    model = build_model("LogisticModel", SIZES, 5)
    kernel, bias = model.head.get_weights()
    inputs = videos(rng, 3)
    joined = np.concatenate([inputs["mean_rgb"], inputs["mean_audio"]], axis=1)
    # Given in another order, the features are still taken in the model's.
    given = {name: inputs[name] for name in reversed(SIZES)}
    np.testing.assert_allclose(model(given), joined @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name, rng):
    """y_c = [x_c > 0] is a linear problem: far below the loss ln 2 = 0.69 of knowing nothing."""
    keras.utils.set_random_seed(0)
    inputs = videos(rng, 256)
    labels = (inputs["mean_rgb"][:, :5] > 0).astype("float32")
    model = AdversarialModel(build_model(name, SIZES, 5), Objective(CrossEntropyLoss("mean")))
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    step = tf.function(model.optimize)
    data = tf.nest.map_structure(tf.constant, (inputs, labels))
    losses = [float(step(data).clean_loss) for _ in range(150)]
    assert losses[0] > 0.5
    assert losses[-1] < 0.15


def test_labels_of_another_size_are_refused(rng):
    model = AdversarialModel(
        build_model("LogisticModel", SIZES, 5), Objective(CrossEntropyLoss("sum"))
    )
    model.compile(optimizer="sgd")
    data = tf.nest.map_structure(tf.constant, (videos(rng, 3), np.zeros((3, 6), "float32")))
    with pytest.raises(ValueError, match=r"`labels` must have the shape of `logits`, \(3, 5\)"):
        model.optimize(data)
