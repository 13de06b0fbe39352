"""The train step against steps worked out by hand, on a linear model."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from yt8m_gat.attacks import Ball
from yt8m_gat.config import ObjectiveConfig, TrainingConfig
from yt8m_gat.losses import CrossEntropyLoss, frobenius_distance
from yt8m_gat.models import ModelOutputs, VideoClassifier, build_model
from yt8m_gat.training import (
    AdversarialModel,
    GradientPerturbation,
    Objective,
    build_objective,
    build_optimizer,
)

EPSILON, ALPHA, BETA, RATE = 0.5, 0.7, 0.3, 0.1
LEVEL_STEP, LEVEL_OFFSET = 4 / 255, 4 / 512 - 2


@keras.saving.register_keras_serializable(package="tests")
class LinearClassifier(VideoClassifier):
    """z = mean over real frames of x, times W, plus b; its 'attention map' is s * X X^T."""

    def __init__(self, feature_sizes, num_classes, **kwargs):
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        size = sum(feature_sizes.values())
        self.kernel = self.add_weight(shape=(size, num_classes), name="kernel")
        self.bias = self.add_weight(shape=(num_classes,), initializer="zeros", name="bias")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.build_all()

    @property
    def attention_levels(self):
        return ("global",)

    def forward(self, features, frame_mask=None, training=False, auxiliary_normalization=False):
        frames = ops.concatenate(list(features.values()), axis=-1)
        mask = ops.cast(frame_mask, frames.dtype)[..., None]
        frames = frames * mask
        mean = ops.sum(frames, axis=1) / ops.sum(mask, axis=1)
        maps = self.scale * ops.einsum("btd,bsd->bts", frames, frames)[:, None]
        # Keras warns of variables without a gradient: the scale has one, 0, in every objective.
        logits = ops.matmul(mean, self.kernel) + self.bias + 0.0 * self.scale
        return ModelOutputs(logits, frames, {"x": {"global": maps}})


@pytest.fixture
def batch(rng):
    """Two clips of 4 and 2 frames, two features of 3 and 2 numbers, as stored."""
    inputs = {
        "a": rng.integers(0, 256, (2, 4, 3)).astype(np.uint8),
        "b": rng.integers(0, 256, (2, 4, 2)).astype(np.uint8),
        "num_frames": np.array([4, 2], np.int32),
    }
    labels = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.float32)
    return inputs, labels


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_model(objective, rng, **options):
    classifier = LinearClassifier({"a": 3, "b": 2}, 4)
    classifier.kernel.assign(rng.normal(size=(5, 4)))
    classifier.scale.assign(1.5)
    model = AdversarialModel(classifier, objective, **options)
    model.compile(optimizer=keras.optimizers.SGD(RATE))
    return model


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def hand_step(inputs, labels, kernel, bias, scale, alpha, beta):
    """Gradients of L by kernel, bias and scale, worked out on paper.

    With p = sigmoid(z), the mean over C classes gives dl/dz = (p - y) / C. Each real frame of
    clip b moves z by W^T x / n, so dl/dx_t = W (p - y) / (C n), the same for each real frame;
    per modality R_t = epsilon * g_m / ||g_m|| with g = W (p - y). R is a constant, so
    dl(X + R)/dW = xbar_adv (p_adv - y)^T / C. ||s K - s K_adv||_F grows with s by
    sign(s) ||K - K_adv||_F.
    """
    x = np.concatenate([inputs["a"], inputs["b"]], axis=-1) * LEVEL_STEP + LEVEL_OFFSET
    num_classes = labels.shape[1]
    gradients = [np.zeros_like(kernel), np.zeros_like(bias), 0.0]
    terms = {"clean_loss": 0.0, "adversarial_loss": 0.0, "penalty": 0.0}

    def bce(z, y):
        return np.mean(np.logaddexp(0, z) - y * z)

    for frames, n, y in zip(x, inputs["num_frames"], labels, strict=True):
        frames = frames[:n]
        z = frames.mean(0) @ kernel + bias
        g = kernel @ (sigmoid(z) - y)
        r = np.concatenate([g[:3] / np.linalg.norm(g[:3]), g[3:] / np.linalg.norm(g[3:])])
        moved = frames + EPSILON * r
        z_adv = moved.mean(0) @ kernel + bias
        for weight, points, logits, name in (
            (1, frames, z, "clean_loss"),
            (alpha, moved, z_adv, "adversarial_loss"),
        ):
            delta = (sigmoid(logits) - y) / num_classes / len(labels)
            gradients[0] += weight * np.outer(points.mean(0), delta)
            gradients[1] += weight * delta
            terms[name] += bce(logits, y) / len(labels)
        distance = np.linalg.norm(frames @ frames.T - moved @ moved.T)
        gradients[2] += beta * np.sign(scale) * distance / len(labels)
        terms["penalty"] += abs(scale) * distance / len(labels)
    return gradients, terms


def objective_for(kind):
    loss = CrossEntropyLoss("mean")
    if kind == "ce":
        return Objective(loss), 0.0, 0.0
    perturbation = GradientPerturbation(Ball("l2", "frame"), EPSILON)
    if kind == "output":
        return Objective(loss, perturbation=perturbation, adversarial_weight=ALPHA), ALPHA, 0.0
    return (
        Objective(
            loss,
            perturbation=perturbation,
            adversarial_weight=ALPHA,
            penalty=frobenius_distance,
            penalty_weight=BETA,
        ),
        ALPHA,
        BETA,
    )


@pytest.mark.parametrize("kind", ["ce", "output", "frobenius"])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_updated_weights_are_those_worked_out_by_hand(kind, mode, batch, rng):
    inputs, labels = batch
    objective, alpha, beta = objective_for(kind)
    model = make_model(objective, rng)
    weights = [w.numpy().astype(np.float64) for w in model.trainable_variables]
    gradients, _ = hand_step(inputs, labels, *weights, alpha, beta)

    data = tf.nest.map_structure(tf.constant, (inputs, labels))
    step = {
        "eager": model.train_step,
        "graph": tf.function(model.train_step),
        "xla": tf.function(model.train_step, jit_compile=True),
    }[mode]
    step(data)
    for variable, before, gradient in zip(
        model.trainable_variables, weights, gradients, strict=True
    ):
        np.testing.assert_allclose(variable.numpy(), before - RATE * gradient, atol=2e-6)


def test_reported_terms_are_those_worked_out_by_hand(batch, rng):
    inputs, labels = batch
    objective, alpha, beta = objective_for("frobenius")
    model = make_model(objective, rng)
    weights = [w.numpy().astype(np.float64) for w in model.trainable_variables]
    _, expected = hand_step(inputs, labels, *weights, alpha, beta)
    logs = model.train_step(tf.nest.map_structure(tf.constant, (inputs, labels)))
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5)
    total = expected["clean_loss"] + alpha * expected["adversarial_loss"]
    np.testing.assert_allclose(logs["loss"], total + beta * expected["penalty"], rtol=1e-5)


def test_epsilon_zero_is_the_clean_loss_twice_without_penalty(batch, rng):
    inputs, labels = batch
    objective = Objective(
        CrossEntropyLoss("mean"),
        perturbation=GradientPerturbation(Ball("l2", "frame"), 0.0),
        adversarial_weight=1.0,
        penalty=frobenius_distance,
        penalty_weight=1.0,
    )
    model = make_model(objective, rng)
    logs = model.train_step(tf.nest.map_structure(tf.constant, (inputs, labels)))
    assert float(logs["penalty"]) == 0
    assert float(logs["adversarial_loss"]) == float(logs["clean_loss"])
    assert all(np.all(np.isfinite(w.numpy())) for w in model.trainable_variables)


def test_padding_changes_no_update(batch, rng):
    inputs, labels = batch
    objective, _, _ = objective_for("frobenius")
    model = make_model(objective, np.random.default_rng(1))
    padded = make_model(objective, np.random.default_rng(1))
    longer = {
        name: np.pad(value, [(0, 0), (0, 5), (0, 0)], constant_values=77)
        if value.ndim == 3
        else value
        for name, value in inputs.items()
    }
    model.train_step(tf.nest.map_structure(tf.constant, (inputs, labels)))
    padded.train_step(tf.nest.map_structure(tf.constant, (longer, labels)))
    for a, b in zip(model.trainable_variables, padded.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


def test_a_penalty_without_maps_says_what_to_choose(rng):
    objective, _, _ = objective_for("frobenius")
    # One that is missing is enough: it would be left out of the sum without a word.
    object.__setattr__(objective, "level_weights", {"global": 1.0, "bd20": 1.0})
    with pytest.raises(ValueError, match="needs a model that attends at global, bd20; "):
        make_model(objective, rng)


def test_means_over_an_epoch_are_over_clips(batch, rng):
    """A smaller last batch does not count as much as a full one."""
    inputs, labels = batch
    model = make_model(Objective(CrossEntropyLoss("mean")), rng)
    clips = tf.data.Dataset.from_tensor_slices((inputs, labels)).repeat(2).take(3)
    at_once = model.evaluate(clips.batch(3), verbose=0, return_dict=True)["loss"]
    in_two = model.evaluate(clips.batch(2), verbose=0, return_dict=True)["loss"]
    assert in_two == pytest.approx(at_once, rel=1e-6)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    history = model.fit(clips.batch(2), verbose=0, shuffle=False).history
    assert history["loss"][0] == pytest.approx(at_once, rel=1e-6)


@pytest.mark.parametrize("clean_weight", [0.0, -1.0])
def test_without_a_clean_loss_the_clips_are_attacked_all_the_same(batch, rng, clean_weight):
    """Adversarial training alone (clean_weight 0) is an objective too."""
    inputs, labels = tf.nest.map_structure(tf.constant, batch)
    perturbation = GradientPerturbation(Ball("l2", "frame"), EPSILON)
    losses = []
    for weight in (1.0, clean_weight):
        objective = Objective(
            CrossEntropyLoss("mean"), weight, perturbation, adversarial_weight=1.0
        )
        model = make_model(objective, np.random.default_rng(0))
        losses.append(model.update_of((inputs, labels)).terms)
    expected, found = losses
    assert float(found.adversarial_loss) == pytest.approx(
        float(expected.adversarial_loss), rel=1e-6
    )
    assert found.adversarial_loss > found.clean_loss


def as_floats(inputs):
    """The same clips, dequantized, with NaN on padding."""
    real = np.arange(4) < inputs["num_frames"][:, None]
    return {
        name: np.where(real[..., None], value * LEVEL_STEP + LEVEL_OFFSET, np.nan)
        if value.ndim == 3
        else value
        for name, value in inputs.items()
    }


def with_a_mask(inputs):
    """The same clips, said by a mask; backwards in time, so that padding comes first."""
    frame_mask = np.arange(4) < inputs["num_frames"][:, None]
    frames = {name: value[:, ::-1] for name, value in inputs.items() if value.ndim == 3}
    return {**frames, "frame_mask": frame_mask[:, ::-1]}


@pytest.mark.parametrize("change", [as_floats, with_a_mask])
def test_fit_steps_as_worked_out_by_hand_whatever_says_what_is_real(change, batch, rng):
    inputs, labels = batch
    objective, alpha, beta = objective_for("frobenius")
    model = make_model(objective, rng)
    weights = [w.numpy().astype(np.float64) for w in model.trainable_variables]
    gradients, _ = hand_step(inputs, labels, *weights, alpha, beta)
    model.fit(change(inputs), labels, batch_size=2, verbose=0)
    for variable, before, gradient in zip(
        model.trainable_variables, weights, gradients, strict=True
    ):
        np.testing.assert_allclose(variable.numpy(), before - RATE * gradient, atol=2e-6)


@pytest.mark.parametrize("micro_batch_size", [None, 1])
def test_one_batch_of_arrays_is_a_step_too(micro_batch_size, batch, rng):
    inputs, labels = batch
    objective, alpha, beta = objective_for("frobenius")
    model = make_model(objective, rng, micro_batch_size=micro_batch_size)
    weights = [w.numpy().astype(np.float64) for w in model.trainable_variables]
    gradients, _ = hand_step(inputs, labels, *weights, alpha, beta)
    model.train_on_batch(inputs, labels)
    np.testing.assert_allclose(
        model.trainable_variables[0].numpy(), weights[0] - RATE * gradients[0], atol=2e-6
    )


def test_what_is_real_is_to_be_said_once(batch, rng):
    inputs, labels = batch
    model = make_model(objective_for("ce")[0], rng)
    frames = {name: inputs[name] for name in ("a", "b")}
    with pytest.raises(ValueError, match=r"say which frames are real.* Received: a, b"):
        model.fit({**frames, "mask": np.ones((2, 4), bool)}, labels, verbose=0)
    with pytest.raises(ValueError, match="`num_frames` and `frame_mask` both say"):
        model.fit({**inputs, "frame_mask": np.ones((2, 4), bool)}, labels, verbose=0)


def test_the_objective_is_the_only_loss(batch, rng):
    inputs, labels = batch
    model = make_model(objective_for("ce")[0], rng)
    model.compile("sgd", loss="binary_crossentropy")
    with pytest.raises(ValueError, match="`compile` must be given no loss: the objective is what"):
        model.fit(inputs, labels, verbose=0)


def test_metrics_of_compile_see_probabilities_and_label_weights(batch, rng):
    inputs, labels = batch
    objective, _, _ = objective_for("frobenius")
    model = make_model(objective, rng)
    probabilities = sigmoid(model(tf.nest.map_structure(tf.constant, inputs)).numpy())
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), model(inputs))
    rated = np.array([[1, 0, 1, 1], [0, 0, 2, 0]], np.float32)

    def chance(labels, probabilities):
        return probabilities

    model.compile(
        keras.optimizers.SGD(0.0),
        metrics=[keras.metrics.BinaryAccuracy(), "mse", keras.metrics.AUC(multi_label=True)],
        weighted_metrics=[chance],
    )
    expected = {
        "binary_accuracy": np.mean((probabilities > 0.5) == labels),
        "mse": np.mean((probabilities - labels) ** 2),
        "chance": np.sum(rated * probabilities) / rated.sum(),
    }
    assert not np.isclose(expected["chance"], probabilities.mean())
    data = tf.data.Dataset.from_tensors((inputs, labels, rated)).repeat(2)
    history = model.fit(data, verbose=0, shuffle=False).history
    evaluated = model.evaluate(data, verbose=0, return_dict=True)
    for name, value in expected.items():
        assert history[name][0] == pytest.approx(value, rel=1e-5)
        assert evaluated[name] == pytest.approx(value, rel=1e-5)
    assert 0 <= evaluated["auc"] <= 1
    # There is no adversarial pass in `evaluate`: no 0 that says so.
    assert {*evaluated} == {*expected, "loss", "auc"}
    assert {*history} >= {"clean_loss", "adversarial_loss", "penalty"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_classifiers_dtype_policy_is_the_models(policy, rng):
    """And features are not rounded before they are preprocessed."""

    class Sum(VideoClassifier):
        def __init__(self):
            super().__init__({"a": 3}, 1, frame_level=True, dtype=policy)
            self.build_all()

        def forward(self, features, frame_mask=None, training=False, auxiliary_normalization=False):
            return ModelOutputs(ops.sum(features["a"], axis=(1, 2))[:, None], features["a"], {})

    model = AdversarialModel(Sum(), objective_for("ce")[0])
    model.compile("sgd")
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    frames = rng.normal(size=(2, 4, 3))
    logits = model({"a": tf.constant(frames), "num_frames": tf.constant([4, 4])})
    np.testing.assert_allclose(logits[:, 0], frames.sum((1, 2)), rtol=1e-5)


OBJECTIVES = {
    "none": ObjectiveConfig(),
    "output": ObjectiveConfig(adversarial="output", alpha=0.3, norm_scope="joint", epsilon=0.2),
    "frobenius": ObjectiveConfig(adversarial="frobenius", label_loss="HingeLoss"),
    "jensen_shannon": ObjectiveConfig(adversarial="jensen_shannon", unrated_as_negative=True),
    "embedding": ObjectiveConfig(adversarial="embedding", beta=2.0),
    "temporal": ObjectiveConfig(adversarial="temporal", cam_gradient="loss", temporal_steps=2),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_comes_back_from_what_keras_stores(name):
    """The same settings all the way down, and functions that are the same."""

    def settings(value):
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return type(value), {f.name: settings(getattr(value, f.name)) for f in fields}
        return (type(value), value.get_config()) if hasattr(value, "get_config") else value

    objective = build_objective(OBJECTIVES[name])
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(objective)))
    loaded = keras.saving.deserialize_keras_object(stored)
    assert settings(loaded) == settings(objective)


FRESH_PROCESS = """
import sys
import keras, numpy as np
import yt8m_gat.training
model = keras.saving.load_model(sys.argv[1])
batch = dict(np.load(sys.argv[2]))
labels = batch.pop("labels")
logits = model(batch)
metrics = model.train_on_batch(batch, labels, return_dict=True)
np.savez(sys.argv[3], logits, *model.get_weights(), **metrics)
"""


@pytest.mark.slow
def test_a_keras_file_goes_on_in_another_process_as_here(tmp_path, rng):
    """Weights, Adam's moments, averages, seeds, objective, metrics: the next step is the same."""
    sizes = {"iterations": 2, "dbof_cluster_size": 6, "dbof_hidden_size": 4}
    classifier = build_model("DbofModel", {"a": 8}, 3, **sizes, seed=1)
    objective = build_objective(ObjectiveConfig(adversarial="output", alpha=0.3))
    model = AdversarialModel(classifier, objective, normalize="per_feature")
    optimizer = build_optimizer(TrainingConfig(base_learning_rate=0.01))
    model.compile(optimizer, metrics=[keras.metrics.BinaryAccuracy()])
    batch = {
        "a": rng.integers(0, 256, (4, 5, 8)).astype(np.uint8),
        "frame_mask": np.arange(5) < np.array([5, 3, 1, 4])[:, None],
    }
    labels = rng.integers(0, 2, (4, 3)).astype(np.float32)
    for _ in range(2):
        model.train_on_batch(batch, labels)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "batch.npz", labels=labels, **batch)
    arguments = [tmp_path / name for name in ("model.keras", "batch.npz", "found.npz")]
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *arguments], check=True)

    logits = model(batch)
    model.reset_metrics()
    metrics = model.train_on_batch(batch, labels, return_dict=True)
    with np.load(tmp_path / "found.npz") as found:
        for index, value in enumerate([logits, *model.get_weights()]):
            np.testing.assert_array_equal(found[f"arr_{index}"], value)
        assert {name: float(found[name]) for name in metrics} == metrics
        assert {"binary_accuracy", "adversarial_loss"} < {*metrics}


def test_works_under_fit_and_evaluate(batch, rng):
    inputs, labels = batch
    objective, _, _ = objective_for("frobenius")
    model = make_model(objective, rng)
    dataset = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(2).repeat(20)
    history = model.fit(dataset, epochs=2, verbose=0, shuffle=False).history
    assert history["clean_loss"][1] < history["clean_loss"][0]
    evaluated = model.evaluate(dataset.take(1), verbose=0, return_dict=True)
    assert evaluated["loss"] < history["clean_loss"][0]


def test_both_passes_share_dropout_and_only_the_clean_pass_moves_averages(rng):
    """With epsilon 0 both passes must agree exactly, whatever dropout drops."""

    class Stochastic(VideoClassifier):
        def __init__(self):
            super().__init__({"a": 3}, 2, frame_level=True)
            self.drop = keras.layers.Dropout(0.5, seed=3)
            self.norm = keras.layers.BatchNormalization(momentum=0.5)
            self.dense = keras.layers.Dense(2)
            self.build_all()

        def forward(self, features, frame_mask=None, training=False, auxiliary_normalization=False):
            frames = self.norm(features["a"], training=training)
            mean = self.drop(ops.mean(frames, axis=1), training=training)
            return ModelOutputs(self.dense(mean), frames, {})

    classifier = Stochastic()
    objective = Objective(
        CrossEntropyLoss("mean"),
        perturbation=GradientPerturbation(Ball("l2", "frame"), 0.0),
        adversarial_weight=1.0,
    )
    model = AdversarialModel(classifier, objective)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    inputs = {
        "a": rng.integers(0, 256, (4, 6, 3)).astype(np.uint8),
        "num_frames": np.full(4, 6, np.int32),
    }
    data = tf.nest.map_structure(tf.constant, (inputs, np.ones((4, 2), np.float32)))
    step = tf.function(model.optimize)
    first, second = step(data), step(data)
    assert float(first.clean_loss) == float(first.adversarial_loss)
    # A new mask each step: the clean pass's seed update is kept.
    assert float(first.clean_loss) != float(second.clean_loss)
    # Two steps, each counted once: (1 - 0.5^2) of the batch mean.
    mean = (inputs["a"] * LEVEL_STEP + LEVEL_OFFSET).mean((0, 1))
    np.testing.assert_allclose(classifier.norm.moving_mean.numpy(), 0.75 * mean, rtol=1e-4)
