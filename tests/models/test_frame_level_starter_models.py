"""What FrameLevelLogisticModel, DbofModel and LstmModel have in common."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import Ball
from yt8m_gat.losses import CrossEntropyLoss, frobenius_distance
from yt8m_gat.models import FRAME_MASK, build_model
from yt8m_gat.training import AdversarialModel, GradientPerturbation, Objective

SIZES = {"rgb": 6, "audio": 4}
OPTIONS = {
    "FrameLevelLogisticModel": {},
    "DbofModel": {"iterations": 4, "dbof_cluster_size": 16, "dbof_hidden_size": 8},
    "LstmModel": {"lstm_cells": 8},
}
NAMES = list(OPTIONS)


def small(name, **options):
    keras.utils.set_random_seed(0)
    return build_model(name, SIZES, 5, **{**OPTIONS[name], **options})


def clips(rng, lengths, num_frames):
    mask = np.arange(num_frames) < np.asarray(lengths)[:, None]
    features = {
        name: rng.normal(size=(len(lengths), num_frames, size)).astype("float32")
        for name, size in SIZES.items()
    }
    return {**features, FRAME_MASK: mask}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FrameLevelLogisticModel", 1152 * 3862 + 3862),
        # Three batch normalizations of 4 weights a unit; clusters; hidden; the mixture's gates
        # (M + 1 = 3), experts (M = 2) and biases.
        (
            "DbofModel",
            4 * (1152 + 8192 + 1024) + 1152 * 8192 + 8192 * 1024 + 1024 * 3862 * (3 + 2) + 3862 * 2,
        ),
        # A layer of H cells with D inputs has 4 H (D + H + 1) weights.
        (
            "LstmModel",
            4 * 1024 * (1152 + 1024 + 1)
            + 4 * 1024 * (1024 + 1024 + 1)
            + 1024 * 3862 * (3 + 2)
            + 3862 * 2,
        ),
    ],
)
def test_parameters_at_full_size(name, expected):
    assert build_model(name, {"rgb": 1024, "audio": 128}, 3862).count_params() == expected


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_no_logit_whatever_it_holds(name, rng):
    model = small(name)
    inputs = clips(rng, [7, 3], 7)
    longer = {
        key: np.pad(value, [(0, 0), (0, 9), (0, 0)][: value.ndim]) for key, value in inputs.items()
    }
    for key in SIZES:
        longer[key][~longer[FRAME_MASK]] = 1e6
    np.testing.assert_allclose(model(inputs), model(longer), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_repeat(name, rng):
    model = small(name)
    inputs = clips(rng, [9, 2], 9)
    np.testing.assert_array_equal(model(inputs), model(inputs))


@pytest.mark.parametrize("name", NAMES)
def test_no_mask_means_that_all_frames_are_real(name, rng):
    model = small(name)
    inputs = clips(rng, [6, 6], 6)
    unmasked = {key: inputs[key] for key in SIZES}
    np.testing.assert_allclose(model(inputs), model(unmasked), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_without_frames_gives_finite_logits(name, rng):
    assert np.isfinite(small(name)(clips(rng, [0, 4], 6))).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_takes_clips_of_any_length(name, rng):
    model = small(name)
    specs = {key: tf.TensorSpec([None, None, size]) for key, size in SIZES.items()}
    specs[FRAME_MASK] = tf.TensorSpec([None, None], tf.bool)
    graph = tf.function(model, input_signature=[specs])
    for lengths, num_frames in (([5, 2], 5), ([11], 13)):
        inputs = tf.nest.map_structure(tf.constant, clips(rng, lengths, num_frames))
        np.testing.assert_allclose(graph(inputs), model(inputs), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_zero_on_padding_and_carry_the_logits(name, rng):
    """Class activation over frames needs the gradient of the logits by the returned frames."""
    model = small(name)
    inputs = {key: tf.constant(value) for key, value in clips(rng, [6, 3], 6).items()}
    mask = inputs.pop(FRAME_MASK)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        outputs = model.forward(inputs, mask)
        logit = outputs.logits[:, 0]
    assert outputs.attention_maps == {}
    assert outputs.frames.shape[:2] == (2, 6)
    assert not np.any(outputs.frames.numpy()[~mask.numpy()])
    slope = tape.gradient(logit, outputs.frames).numpy()
    assert np.all(np.any(slope != 0, axis=(1, 2)))
    for gradient in tape.gradient(logit, inputs).values():
        reached = np.any(gradient.numpy() != 0, axis=2)
        assert reached.any(axis=1).all()
        assert not reached[~mask.numpy()].any()


def batch(rng, count=64, num_frames=8, num_classes=5):
    """Stored frames, a label for each of the first features: its mean over the clip is above 0."""
    num_real = rng.integers(4, num_frames + 1, count).astype(np.int32)
    real = np.arange(num_frames) < num_real[:, None]
    labels = rng.integers(0, 2, (count, num_classes)).astype("float32")
    inputs = {}
    for name, size in SIZES.items():
        levels = rng.normal(128, 40, (count, num_frames, size))
        if name == "rgb":
            levels[..., :num_classes] += 50 * (2 * labels[:, None] - 1)
        inputs[name] = (np.clip(levels, 0, 255) * real[..., None]).astype(np.uint8)
    return tf.nest.map_structure(tf.constant, ({**inputs, "num_frames": num_real}, labels))


def trained_with(model, rate=0.0, epsilon=None, penalty=None):
    objective = Objective(CrossEntropyLoss("mean"))
    if epsilon is not None:
        objective = Objective(
            CrossEntropyLoss("mean"),
            perturbation=GradientPerturbation(Ball("l2", "frame"), epsilon),
            adversarial_weight=1.0,
            penalty=penalty,
            penalty_weight=1.0 if penalty else 0.0,
        )
    trained = AdversarialModel(model, objective)
    trained.compile(optimizer=keras.optimizers.Adam(rate))
    return trained


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_it_learns(name, rng):
    """Every label is seen in every frame; knowing nothing gives ln 2 = 0.69."""
    model = small(name)
    data = batch(rng)
    step = tf.function(trained_with(model, rate=0.05).optimize)
    losses = [float(step(data).clean_loss) for _ in range(60)]
    assert losses[0] > 0.5
    assert losses[-1] < 0.25


@pytest.mark.parametrize("name", NAMES)
def test_the_adversarial_pass_differs_by_the_perturbation_alone(name, rng):
    """With epsilon 0 both passes agree exactly for any frames drawn; otherwise the loss rises."""
    data = batch(rng, count=8)
    same = trained_with(small(name), epsilon=0.0).optimize(data)
    assert float(same.adversarial_loss) == float(same.clean_loss)
    worse = trained_with(small(name), epsilon=1.0).optimize(data)
    assert float(worse.adversarial_loss) > float(worse.clean_loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_step_compiled_by_xla_is_the_same(name, rng):
    data = batch(rng, count=8)
    plain = trained_with(small(name, **deterministic(name))).optimize
    compiled = tf.function(
        trained_with(small(name, **deterministic(name))).optimize, jit_compile=True
    )
    for term, expected in zip(compiled(data), plain(data), strict=True):
        np.testing.assert_allclose(term, expected, atol=1e-4)


def deterministic(name):
    """Options with which the training pass draws nothing (XLA draws other random numbers), and
    that compile fast."""
    # With at least as many frames in a row as the clips have there is one place to start.
    if name == "DbofModel":
        return {"sample_random_frames": False, "iterations": 8}
    return {"lstm_layers": 1} if name == "LstmModel" else {}


@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_on_attention_says_that_there_is_none(name):
    with pytest.raises(ValueError, match=r"needs a model that attends at global.*at no level"):
        trained_with(small(name), epsilon=0.5, penalty=frobenius_distance)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_keeps_float32_logits(name, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        logits = small(name)(clips(rng, [6, 2], 6))
    finally:
        keras.config.set_dtype_policy("float32")
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("DbofModel", {"iterations": 0}, "`iterations` must be positive. Received: iterations=0"),
        ("DbofModel", {"dbof_cluster_size": 0}, "`dbof_cluster_size` must be positive"),
        ("DbofModel", {"dbof_hidden_size": -1}, "`dbof_hidden_size` must be positive"),
        ("DbofModel", {"dbof_pooling_method": "min"}, "must be one of max, average. .*'min'"),
        ("DbofModel", {"dbof_activation": "gelu"}, "must be one of sigmoid, relu6, .*'gelu'"),
        ("DbofModel", {"video_level_classifier_model": "x"}, "one of LogisticModel, MoeModel"),
        ("LstmModel", {"lstm_cells": 0}, "`lstm_cells` must be positive. Received: lstm_cells=0"),
        ("LstmModel", {"lstm_layers": 0}, "`lstm_layers` must be positive"),
        ("LstmModel", {"moe_num_mixtures": 0}, "`moe_num_mixtures` must be positive"),
        ("LstmModel", {"num_heads": 2}, "--num_heads is no option of --model=LstmModel; .*--lstm"),
        ("FrameLevelLogisticModel", {"iterations": 3}, "--iterations is no option .* has none"),
    ],
)
def test_options_that_cannot_work(name, options, message):
    with pytest.raises(ValueError, match=message):
        small(name, **options)
