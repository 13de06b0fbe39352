"""TAF and L_Adv on raw clips, with a residual network: bounds, gradient, second averages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import PIXEL_RANGE, Problem, TemporalAugmentation
from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, build_objective
from yt8m_gat.training.objective import GradientPerturbation

SHAPE = (3, 4, 32, 32, 3)
LABELS = tf.constant(np.eye(4)[[0, 2, 3]], tf.float32)
MASK = tf.ones(SHAPE[:2], tf.bool)


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


@pytest.fixture
def classifier():
    model = build_model(
        "TSM",
        {"image": 3},
        4,
        num_segments=4,
        crop_size=32,
        backbone="ResNet10Small",
        dropout=0.0,
        weight_decay=0.0,
        dual_normalization=True,
        seed=0,
    )
    model.copy_normalization_to_auxiliary()
    # The logits of a fresh network hardly depend on its frames.
    kernel = model.dense.kernel
    kernel.assign(tf.random.stateless_normal(kernel.shape, [1, 2], 0.0, 0.1))
    return model


def objective(adversarial, **options):
    settings = ObjectiveConfig(
        label_loss="SoftmaxLoss", class_reduction="sum", adversarial=adversarial, **options
    )
    return build_objective(settings, pixels=True)


def test_settings_in_pixels():
    large = objective("temporal", temporal_epsilon=64.0).perturbation.augmentation
    assert (large.step_size, large.level_size, large.clip_to_range) == (32.0, 1.0, PIXEL_RANGE)
    small = objective("temporal", temporal_epsilon=6.0, temporal_steps=3).perturbation.augmentation
    assert (small.step_size, small.num_steps) == (2.0, 3)
    other = objective("temporal", temporal_epsilon=10.0, temporal_steps=2).perturbation
    assert other.augmentation.step_size is None  # Radius / K.
    given = objective("temporal", temporal_epsilon=64.0, temporal_step_size=5.0).perturbation
    assert given.augmentation.step_size == 5.0
    step = objective("output", epsilon=300.0).perturbation
    assert step.clip_to_range == PIXEL_RANGE
    assert GradientPerturbation.from_config(step.get_config()) == step
    features = build_objective(ObjectiveConfig(adversarial="temporal"))
    assert features.perturbation.augmentation.clip_to_range is None
    assert features.perturbation.augmentation.level_size == pytest.approx(4 / 255)


@pytest.mark.slow
def test_taf_moves_weights_and_both_sets_of_averages_as_its_two_passes_do(clips, classifier):
    """The update is that of two passes written out, through each path's own normalization."""
    pixels = {"image": tf.cast(clips, tf.float32)}

    def forward(features, mask, auxiliary=False):
        with keras.StatelessScope() as scope:
            outputs = classifier.forward(
                features, mask, training=True, auxiliary_normalization=auxiliary
            )
        return outputs, scope

    def cross_entropy(labels, logits):
        return tf.nn.softmax_cross_entropy_with_logits(labels, logits)

    augmentation = TemporalAugmentation(
        epsilon=64.0, step_size=32.0, level_size=1.0, clip_to_range=PIXEL_RANGE
    )
    problem = Problem(lambda x, m: forward(x, m)[0], cross_entropy, pixels, MASK, LABELS, 0)
    moved = augmentation.augment(problem)
    change = (moved["image"] - pixels["image"]).numpy()
    assert np.abs(change).max() == 32.0 and np.mean(np.abs(change) > 0) > 0.9
    assert moved["image"].numpy().min() >= 0 and moved["image"].numpy().max() <= 255
    with tf.GradientTape() as tape:
        clean, clean_scope = forward(pixels, MASK)
        other, other_scope = forward(moved, MASK, auxiliary=True)
        loss = 0.7 * tf.reduce_mean(cross_entropy(LABELS, clean.logits))
        loss += 0.3 * tf.reduce_mean(cross_entropy(LABELS, other.logits))
    expected = tape.gradient(loss, [v.value for v in classifier.trainable_variables])

    model = AdversarialModel(classifier, objective("temporal", temporal_epsilon=64.0))
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    data = ({"image": tf.constant(clips), "num_frames": tf.constant([4, 4, 4])}, LABELS)
    update = tf.function(model.update_of, autograph=False)(data)
    np.testing.assert_allclose(update.terms.total, loss, rtol=1e-4)
    for variable, ours, theirs in zip(
        classifier.trainable_variables, update.gradients, expected, strict=True
    ):
        scale = max(float(tf.reduce_max(tf.abs(theirs))), 1e-3)
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * scale, err_msg=variable.path)

    kinds = set()
    for variable, new in zip(classifier.non_trainable_variables, update.state, strict=True):
        if "moving" not in variable.path:
            continue
        of_clean = clean_scope.get_current_value(variable)
        scope = other_scope if of_clean is None else clean_scope
        kinds.add(of_clean is None)
        np.testing.assert_allclose(
            new, scope.get_current_value(variable), rtol=1e-3, atol=1e-4, err_msg=variable.path
        )
    assert kinds == {False, True}


def test_the_perturbation_of_l_adv_is_one_of_pixels(clips, classifier):
    model = AdversarialModel(classifier, objective("output", epsilon=300.0))
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    data = ({"image": tf.constant(clips), "num_frames": tf.constant([4, 4, 4])}, LABELS)
    update = model.update_of(data)
    assert float(update.terms.adversarial_loss) > float(update.terms.clean_loss)
    np.testing.assert_allclose(
        update.terms.total, update.terms.clean_loss + update.terms.adversarial_loss, rtol=1e-6
    )
