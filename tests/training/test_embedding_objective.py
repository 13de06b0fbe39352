"""The embedding penalty: a step worked out by hand on a linear model with an embedding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError, ObjectiveConfig
from yt8m_gat.models import ModelOutputs, VideoClassifier, build_model
from yt8m_gat.training import AdversarialModel, build_objective
from yt8m_gat.training.step_update import Replica

EPSILON, ALPHA, BETA = 0.5, 0.7, 3.0
NUM_FRAMES = np.array([4, 2])
LABELS = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.float32)


class Embedding(VideoClassifier):
    """e = mean over real frames of x, times V; z = e W."""

    def __init__(self):
        super().__init__({"a": 3, "b": 2}, 4, frame_level=True)
        self.projection = self.add_weight(shape=(5, 2), name="projection")
        self.kernel = self.add_weight(shape=(2, 4), name="kernel")
        self.embedding_size = 2
        self.build_all()

    def forward(self, features, frame_mask=None, training=False, auxiliary_normalization=False):
        mask = tf.cast(frame_mask, tf.float32)[..., None]
        frames = tf.concat([features["a"], features["b"]], axis=-1) * mask
        mean = tf.reduce_sum(frames, axis=1) / tf.reduce_sum(mask, axis=1)
        embedding = mean @ self.projection.value
        return ModelOutputs(embedding @ self.kernel.value, frames, {}, embedding=embedding)


@pytest.fixture
def frames():
    return np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)


def make_model(**options):
    rng = np.random.default_rng(1)
    classifier = Embedding()
    for weight in classifier.weights:
        weight.assign(rng.normal(size=weight.shape))
    config = ObjectiveConfig(adversarial="embedding", epsilon=EPSILON, alpha=ALPHA, beta=BETA)
    model = AdversarialModel(classifier, build_objective(config), **options)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    return model


def data_of(frames, rows=slice(None)):
    inputs = {"a": frames[rows, :, :3], "b": frames[rows, :, 3:], "num_frames": NUM_FRAMES[rows]}
    return tf.nest.map_structure(tf.constant, (inputs, LABELS[rows]))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_hand(frames, projection, kernel):
    """The gradients by V and W and the terms of the objective, worked out on paper, in float64.

    With p = sigmoid(z), the mean over C classes gives dl/dz = (p - y) / C =: q. A real frame of a
    clip of n frames moves z by (V W)^T x / n, so each modality's part of R is epsilon times the
    direction of its rows of V W (p - y), the same at each real frame. By W, l gives e q^T, and by
    V xbar (W q)^T. The penalty d = |e' - e|^2 / |e|^2 with e constant gives by V alone
    xbar' (2 (e' - e) / |e|^2)^T.
    """
    gradients = [np.zeros_like(projection), np.zeros_like(kernel)]
    terms = {"clean_loss": 0.0, "adversarial_loss": 0.0, "penalty": 0.0}
    for x, n, y in zip(frames.astype(float), NUM_FRAMES, LABELS, strict=True):
        mean = x[:n].mean(0)
        g = projection @ kernel @ (sigmoid(mean @ projection @ kernel) - y)
        r = np.concatenate([g[:3] / np.linalg.norm(g[:3]), g[3:] / np.linalg.norm(g[3:])])
        moved = mean + EPSILON * r
        e, e_adv = mean @ projection, moved @ projection
        for name, weight, point, embedding in (
            ("clean_loss", 1, mean, e),
            ("adversarial_loss", ALPHA, moved, e_adv),
        ):
            z = embedding @ kernel
            q = (sigmoid(z) - y) / 4 / 2
            gradients[0] += weight * np.outer(point, kernel @ q)
            gradients[1] += weight * np.outer(embedding, q)
            terms[name] += np.mean(np.logaddexp(0, z) - y * z) / 2
        gradients[0] += BETA * np.outer(moved, 2 * (e_adv - e)) / (e @ e) / 2
        terms["penalty"] += (e_adv - e) @ (e_adv - e) / (e @ e) / 2
    return gradients, terms


def weights_of(model):
    return [w.numpy().astype(float) for w in model.trainable_variables]


def test_the_updated_weights_are_those_worked_out_by_hand(frames):
    model = make_model()
    before = weights_of(model)
    gradients, terms = by_hand(frames, *before)
    logs = model.train_step(data_of(frames))
    for variable, old, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose(variable, old - 0.1 * gradient, atol=2e-6)
    total = terms["clean_loss"] + ALPHA * terms["adversarial_loss"] + BETA * terms["penalty"]
    for name, value in {**terms, "loss": total}.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, err_msg=name)


def test_micro_batches_and_replicas_add_up_to_that_step(frames):
    model = make_model(micro_batch_size=1)
    gradients, terms = by_hand(frames, *weights_of(model))
    in_parts = tf.function(model.update_of, autograph=False)(data_of(frames))
    shares = tf.constant(0.5)
    replicas = [
        make_model().update_of(data_of(frames, slice(i, i + 1)), Replica(i, 2, shares))
        for i in range(2)
    ]
    summed = [sum(pair) for pair in zip(*(r.gradients for r in replicas), strict=True)]
    for found in (in_parts.gradients, summed):
        for ours, expected in zip(found, gradients, strict=True):
            np.testing.assert_allclose(ours, expected, atol=2e-6)
    penalties = (in_parts.terms.penalty, sum(r.terms.penalty for r in replicas))
    np.testing.assert_allclose(penalties, [terms["penalty"]] * 2, rtol=1e-5)


def test_a_model_without_embedding_is_refused():
    objective = build_objective(ObjectiveConfig(adversarial="embedding"))
    with pytest.raises(ConfigError, match="FrameLevelLogisticClassifier, which has none"):
        AdversarialModel(build_model("FrameLevelLogisticModel", {"rgb": 4}, 2), objective)


def test_beta_of_the_configuration_arrives():
    assert build_objective(ObjectiveConfig(adversarial="embedding")).penalty_weight == 0.1
    objective = build_objective(ObjectiveConfig(adversarial="embedding", beta=2.0))
    assert (objective.penalty_weight, objective.has_penalty) == (2.0, True)
