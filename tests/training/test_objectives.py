"""Each objective on a real Transformer: the gradient against a reference, and its options."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import Ball, Problem, TemporalAugmentation
from yt8m_gat.config import ConfigError, ObjectiveConfig
from yt8m_gat.data import preprocess
from yt8m_gat.losses import (
    CrossEntropyLoss,
    average_over_heads,
    frobenius_distance,
    jensen_shannon_divergence,
)
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, build_objective
from yt8m_gat.weights.copying import copy_weights, without_auxiliary

SIZES = {"rgb": 16, "audio": 8}
OBJECTIVES = ("none", "output", "frobenius", "jensen_shannon", "temporal")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    inputs = {
        name: tf.constant(rng.integers(0, 256, (3, 7, size)).astype(np.uint8))
        for name, size in SIZES.items()
    }
    inputs["num_frames"] = tf.constant([7, 4, 1], tf.int32)
    labels = tf.constant(rng.integers(0, 2, (3, 5)).astype(np.float32))
    return inputs, labels


def make_classifier(name="GMSA", **options):
    keras.utils.set_random_seed(1)
    options = {"num_heads": 4, "hidden_size": 12, "local_masks": ("bd3",), **options}
    classifier = build_model(name, SIZES, 5, 7, **options)
    for variable in classifier.trainable_variables:
        # Fresh biases are 0 and fresh norms the identity: nothing would tell them apart.
        variable.assign_add(0.1 * tf.random.stateless_normal(variable.shape, [3, 4]))
    return classifier


def make_model(adversarial, classifier=None, **options):
    classifier = classifier or make_classifier(dual_normalization=adversarial == "temporal")
    model = AdversarialModel(
        classifier, build_objective(ObjectiveConfig(adversarial=adversarial, **options))
    )
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    return model


def reference_gradients(adversarial, classifier, data, beta):
    """The objective written down anew: the perturbation in a pass of its own, then one tape."""
    inputs, labels = data
    features = {name: inputs[name] for name in SIZES}
    features, mask = preprocess(features, inputs["num_frames"], "none")

    def cross_entropy(outputs):
        z = outputs.logits
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, z), axis=-1)

    moved = None
    if adversarial == "temporal":
        augmentation = TemporalAugmentation()

        def loss(y, z):
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, z), axis=-1)

        moved = augmentation.augment(Problem(classifier.forward, loss, features, mask, labels))
    elif adversarial != "none":
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(cross_entropy(classifier.forward(features, mask)))
        gradients = tape.gradient(total, features)
        moved = {}
        for name, g in gradients.items():
            norm = tf.norm(tf.cast(g, tf.float64), axis=-1, keepdims=True)
            r = 0.5 * tf.math.divide_no_nan(tf.cast(g, tf.float64), norm)
            moved[name] = features[name] + tf.cast(r, tf.float32)
    with tf.GradientTape() as tape:
        clean = classifier.forward(features, mask)
        total = tf.reduce_mean(cross_entropy(clean))
        if moved is not None:
            dual = adversarial == "temporal"
            other = classifier.forward(moved, mask, auxiliary_normalization=dual)
            extra = tf.reduce_mean(cross_entropy(other))
            total = 0.7 * total + 0.3 * extra if dual else total + extra
            distance = {
                "frobenius": frobenius_distance,
                "jensen_shannon": jensen_shannon_divergence,
            }.get(adversarial)
            if distance:
                total += beta * tf.add_n(
                    [
                        tf.reduce_mean(
                            distance(
                                average_over_heads(clean.attention_maps[name]["global"]),
                                average_over_heads(other.attention_maps[name]["global"]),
                                mask,
                            )
                        )
                        for name in SIZES
                    ]
                )
    return tape.gradient(total, classifier.trainable_variables)


@pytest.mark.parametrize(
    ("adversarial", "mode"),
    [
        *((adversarial, "eager") for adversarial in OBJECTIVES),
        *(
            pytest.param(adversarial, mode, marks=pytest.mark.slow)
            for mode in ("graph", "xla")
            for adversarial in OBJECTIVES
        ),
    ],
)
def test_the_shared_pass_gives_the_gradient_of_separate_passes(adversarial, mode, data):
    if mode == "xla" and adversarial == "temporal":
        # XLA draws other random classes than TensorFlow; with one class to draw they agree.
        data = (data[0], tf.one_hot([0, 1, 2], 5))
        data = (data[0], 1.0 - data[1])
    beta = 5.0
    options = {} if adversarial == "none" else {"beta": beta}
    model = make_model(adversarial, **options)
    before = [v.numpy() for v in model.trainable_variables]
    expected = reference_gradients(adversarial, model.classifier, data, beta)
    step = {
        "eager": model.train_step,
        "graph": tf.function(model.train_step),
        "xla": tf.function(model.train_step, jit_compile=True),
    }[mode]
    step(data)
    for variable, old, gradient in zip(model.trainable_variables, before, expected, strict=True):
        gradient = np.zeros_like(old) if gradient is None else np.asarray(gradient)
        np.testing.assert_allclose(
            old - variable.numpy(), gradient, atol=1e-5, err_msg=variable.path
        )


def test_the_adversarial_step_makes_two_forward_passes(data):
    """Counted where the cost is: the classifier's forward."""
    model = make_model("frobenius")
    calls = []
    forward = model.classifier.forward
    model.classifier.forward = lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[
        1
    ]
    model.train_step(data)
    assert len(calls) == 2


def test_levels_are_weighed_as_asked(data):
    logs = {}
    for levels in (("global",), ("bd3",), ("global:2", "bd3:0.5")):
        model = make_model("frobenius", penalized_levels=levels)
        logs[levels] = float(model.train_step(data)["penalty"])
    expected = 2 * logs[("global",)] + 0.5 * logs[("bd3",)]
    assert logs[("global:2", "bd3:0.5")] == pytest.approx(expected, rel=1e-5)
    assert logs[("bd3",)] != pytest.approx(logs[("global",)], rel=1e-2)


def test_uniform_attention_leaves_nothing_to_penalize(data):
    model = make_model("frobenius", make_classifier(attention="uniform"))
    assert float(model.train_step(data)["penalty"]) == 0


def test_alpha_and_beta_default_to_the_papers():
    taf = build_objective(ObjectiveConfig(adversarial="temporal"))
    assert (taf.clean_weight, taf.adversarial_weight) == (0.7, pytest.approx(0.3))
    frobenius = build_objective(ObjectiveConfig(adversarial="frobenius"))
    assert (frobenius.adversarial_weight, frobenius.penalty_weight) == (1.0, 0.001)
    assert build_objective(ObjectiveConfig(adversarial="jensen_shannon")).penalty_weight == 0.01
    assert frobenius.perturbation.ball == Ball("l2", "frame")
    assert frobenius.perturbation.epsilon == 0.5


def test_every_setting_of_the_temporal_objective_arrives():
    config = ObjectiveConfig(
        adversarial="temporal",
        temporal_epsilon=2.0,
        temporal_steps=3,
        temporal_step_size=1.0,
        non_key_frames=4,
        cam_gradient="loss",
        temporal_loss="ce",
        temporal_examples="wrong",
    )
    augmentation = build_objective(config).perturbation.augmentation
    assert (
        dataclasses.asdict(augmentation).items()
        >= {
            "epsilon": 2.0,
            "num_steps": 3,
            "step_size": 1.0,
            "num_non_key": 4,
            "temporal_loss": "ce",
            "examples": "wrong",
        }.items()
    )
    assert isinstance(augmentation.cam_loss, CrossEntropyLoss)
    of_logit = build_objective(ObjectiveConfig(adversarial="temporal"))
    assert of_logit.perturbation.augmentation.cam_loss is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial": "temporal", "alpha": 1.5}, "--alpha is the share"),
        ({"penalized_levels": ("global:much",)}, "NAME or NAME:WEIGHT"),
        ({"penalized_levels": ("global:nan",)}, "a weight of at least 0"),
        ({"penalized_levels": ("global:-1",)}, "a weight of at least 0"),
        ({"temporal_step_size": -1.0}, "--temporal_step_size must be positive"),
        ({"temporal_steps": 0}, "--temporal_steps must be at least 1"),
        ({"epsilon": -1.0}, "--epsilon must be at least 0"),
        ({"epsilon": float("inf")}, "--epsilon must be at least 0, and finite"),
        ({"adversarial": "fgsm"}, "--adversarial must be one of none, output"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**settings)


def test_fine_tuning_starts_from_the_finished_model(data):
    source = make_classifier()
    target = make_classifier(dual_normalization=True)
    for variable in target.variables:
        variable.assign(tf.zeros_like(variable))
    copy_weights(source, target)
    features, mask = preprocess({n: data[0][n] for n in SIZES}, data[0]["num_frames"], "none")
    expected = source.forward(features, mask).logits
    for auxiliary in (False, True):
        logits = target.forward(features, mask, auxiliary_normalization=auxiliary).logits
        np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_the_auxiliary_set_learns_apart_and_is_dropped_for_serving(data):
    model = make_model("temporal")
    for _ in range(3):
        model.train_step(data)
    classifier = model.classifier
    features, mask = preprocess({n: data[0][n] for n in SIZES}, data[0]["num_frames"], "none")
    clean = classifier.forward(features, mask).logits
    other = classifier.forward(features, mask, auxiliary_normalization=True).logits
    assert np.abs(clean - other).max() > 1e-4
    served = without_auxiliary(classifier)
    # Two norms of 2 D weights per modality.
    assert classifier.count_params() - served.count_params() == sum(4 * d for d in SIZES.values())
    np.testing.assert_array_equal(served.forward(features, mask).logits, clean)


def test_another_architecture_is_refused():
    with pytest.raises(ValueError, match=r"rgb_block.*needs shape"):
        copy_weights(make_classifier(local_masks=()), make_classifier())
