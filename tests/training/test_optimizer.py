"""The fused Adam against Keras'."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import TrainingConfig
from yt8m_gat.training import build_optimizer
from yt8m_gat.training.optimizer import Adam

SHAPES = [(7, 5), (5,), ()]


def after_steps(optimizer, num_steps=6, **compilation):
    """The variables, each of whose gradients spans many orders of magnitude."""
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape)) for shape in SHAPES]
    optimizer.build(variables)
    apply = tf.function(
        lambda gradients: optimizer.apply(gradients, variables), autograph=False, **compilation
    )
    for _ in range(num_steps):
        apply(
            [
                tf.constant(rng.normal(size=shape) * 10 ** rng.uniform(-9, 1, shape), tf.float32)
                for shape in SHAPES
            ]
        )
    return [np.array(variable) for variable in (*variables, *optimizer.variables)]


@pytest.mark.parametrize("compilation", [{}, {"jit_compile": True}], ids=["graph", "XLA"])
@pytest.mark.parametrize(
    "options",
    [{}, {"clipnorm": 0.1}, {"weight_decay": 0.1}, {"amsgrad": True}, {"epsilon": 1e-3}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_variables_and_moments_are_those_of_keras(options, compilation):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    ours = after_steps(Adam(schedule, **options), **compilation)
    theirs = after_steps(keras.optimizers.Adam(schedule, **options))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_scaled_losses_reach_it():
    config = TrainingConfig(optimizer="Adam", mixed_precision="mixed_float16")
    optimizer = build_optimizer(config)
    assert type(optimizer.inner_optimizer) is Adam
    ours = after_steps(optimizer)
    keras_adam = keras.optimizers.Adam(config.base_learning_rate)
    theirs = after_steps(keras.optimizers.LossScaleOptimizer(keras_adam))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_it_comes_back_from_its_config():
    again = keras.optimizers.deserialize(keras.optimizers.serialize(Adam(0.5, beta_1=0.7)))
    assert type(again) is Adam and again.beta_1 == 0.7


def test_momentum_and_the_norm_of_all_gradients():
    config = TrainingConfig(
        optimizer="SGD", base_learning_rate=1.0, momentum=0.5, clip_global_norm=1.0
    )
    optimizer = build_optimizer(config)
    variables = [keras.Variable(0.0), keras.Variable(0.0)]
    optimizer.build(variables)
    gradients = [tf.constant(3.0), tf.constant(4.0)]
    optimizer.apply(gradients)
    np.testing.assert_allclose([v.numpy() for v in variables], [-0.6, -0.8], rtol=1e-6)
    optimizer.apply(gradients)  # v = 0.5 v - g.
    np.testing.assert_allclose([v.numpy() for v in variables], [-1.5, -2.0], rtol=1e-6)
    # Each of two replicas has half of the sum.
    assert build_optimizer(config, num_replicas=2).global_clipnorm == 0.5
