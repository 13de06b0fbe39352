"""NeXtVLAD and the other models that pool frames: what they have in common, and their sizes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.models import FRAME_MASK, build_model
from yt8m_gat.recipes import RECIPES
from yt8m_gat.training import AdversarialModel, build_objective

SIZES = {"rgb": 8, "audio": 4}
OPTIONS = {
    "AttentionGru": {"gru_cells": 8},
    "NetVLAD": {"cluster_size": 6, "hidden_size": 8},
    "GatedSoftDbof": {"cluster_size": 16, "hidden_size": 8},
    "NeXtVLAD": {"cluster_size": 6, "groups": 4, "hidden_size": 8, "gating_reduction": 4},
}
LENGTHS = (7, 3, 1, 0)
# Batch normalizations whose beta has no effect: the next thing but a product is another one.
SHIFTS = {
    "AttentionGru": (),
    "NetVLAD": (),
    "GatedSoftDbof": ("/input_normalization/",),
    "NeXtVLAD": ("_vlad/normalization/",),
}


def small(name, **options):
    """With random weights: at the initial ones BN is the identity."""
    keras.utils.set_random_seed(0)
    model = build_model(name, SIZES, 5, **{**OPTIONS[name], **options})
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if np.issubdtype(weight.numpy().dtype, np.floating):
            weight.assign(weight + np.abs(rng.normal(0, 0.3, weight.shape)))
    return model


@pytest.fixture(scope="module", params=OPTIONS)
def model(request):
    return small(request.param)


@pytest.fixture
def inputs():
    rng = np.random.default_rng(1)
    mask = np.arange(7) < np.array(LENGTHS)[:, None]
    features = {
        name: rng.normal(size=(len(LENGTHS), 7, size)).astype("float32")
        for name, size in SIZES.items()
    }
    return {**features, FRAME_MASK: mask}


def test_a_clip_has_the_logits_that_it_has_by_itself(model, inputs):
    together = model(inputs).numpy()
    assert np.isfinite(together).all()
    assert np.abs(together[0] - together[1]).max() > 1e-3
    for clip, length in enumerate(LENGTHS):
        if length:
            single = {name: value[clip : clip + 1, :length] for name, value in inputs.items()}
            np.testing.assert_allclose(model(single)[0], together[clip], atol=1e-5)


def test_what_padding_holds_changes_nothing(model, inputs):
    """In training too, where batch normalization takes moments over frames."""
    other = {name: value.copy() for name, value in inputs.items()}
    for name in SIZES:
        other[name][~other[FRAME_MASK]] = 1e6
    mask = inputs.pop(FRAME_MASK)
    del other[FRAME_MASK]
    np.testing.assert_array_equal(
        model.forward(inputs, mask).logits, model(other | {FRAME_MASK: mask})
    )
    before = model.get_weights()
    keras.utils.set_random_seed(0)
    moved = []
    for features in (inputs, other):
        model.set_weights(before)
        model.forward(features, mask, training=True)
        moved.append([w.numpy() for w in model.non_trainable_variables if "moving" in w.path])
    model.set_weights(before)
    assert (len(moved[0]) > 0) == any("moving" in w.path for w in model.weights)
    # Those of the first layer; further ones differ by the dropout's draw.
    for first, second in list(zip(*moved, strict=True))[:2]:
        np.testing.assert_array_equal(first, second)


def test_frames_are_zero_on_padding_and_carry_the_logits(model, inputs):
    features = {name: tf.constant(inputs[name]) for name in SIZES}
    mask = inputs[FRAME_MASK]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(features)
        outputs = model.forward(features, mask)
        logit = outputs.logits[:, 0]
    assert outputs.frames.shape[:2] == (4, 7)
    assert not np.any(outputs.frames.numpy()[~mask])
    assert np.all(np.any(tape.gradient(logit, outputs.frames)[:3] != 0, axis=(1, 2)))
    for gradient in tape.gradient(logit, features).values():
        reached = np.any(gradient.numpy() != 0, axis=2)
        np.testing.assert_array_equal(reached, mask)


def stored_batch(num_frames=7):
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.integers(0, 256, (8, num_frames, size)).astype(np.uint8)
        for name, size in SIZES.items()
    }
    inputs["num_frames"] = rng.integers(1, num_frames + 1, 8).astype(np.int32)
    labels = rng.integers(0, 2, (8, 5)).astype("float32")
    return tf.nest.map_structure(tf.constant, (inputs, labels))


def without_dropout(name):
    return {"dropout": 0.0} if name == "NeXtVLAD" else {}


def trained_step(name, adversarial, learning_rate=0.1, jit_compile=False, **options):
    dual = {}
    if adversarial == "temporal" and RECIPES[name].dual_normalization:
        dual = {"dual_normalization": True}
    model = AdversarialModel(
        small(name, **without_dropout(name) | dual | options),
        build_objective(ObjectiveConfig(adversarial=adversarial)),
    )
    model.compile(optimizer=keras.optimizers.SGD(learning_rate))
    return model, tf.function(model.optimize, jit_compile=jit_compile, autograph=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_weight_moves_in_a_step_of_taf(name):
    """TAF's perturbation is a gradient of a gradient."""
    model, step = trained_step(name, "temporal")
    before = [variable.numpy() for variable in model.trainable_variables]
    terms = step(stored_batch())
    assert np.isfinite(terms.adversarial_loss)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert np.isfinite(variable).all()
        if variable.name != "beta" or not any(part in variable.path for part in SHIFTS[name]):
            assert np.any(variable != old), variable.path


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_step_compiled_by_xla_is_the_same(name):
    data = stored_batch()
    plain, compiled = (trained_step(name, "output", jit_compile=jit)[1](data) for jit in (0, 1))
    assert float(plain.adversarial_loss) > float(plain.clean_loss)
    for term, expected in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(term, expected, atol=1e-4)


def test_mixed_precision_is_close_and_keeps_float32_logits(model, inputs):
    logits = model(inputs)
    config = model.get_config() | {"dtype": "mixed_bfloat16"}
    mixed_model = type(model).from_config(config)
    mixed_model.set_weights(model.get_weights())
    mixed = mixed_model(inputs)
    assert mixed.dtype == tf.float32
    # bfloat16 has 8 significant bits.
    np.testing.assert_allclose(mixed, logits, atol=0.05 * np.abs(logits).max())


@pytest.fixture
def cheap_initializers(monkeypatch):
    """Zeros, since random numbers for a hundred million weights take seconds."""
    monkeypatch.setattr(
        keras.initializers.VarianceScaling,
        "__call__",
        lambda self, shape, dtype=None, **_: tf.zeros(shape, dtype),
    )
    monkeypatch.setattr(keras.initializers, "RandomNormal", lambda **_: "zeros")


def test_next_vlad_has_the_papers_parameters(cheap_initializers):
    """Section 3.2 counts E N (N + G + K (G + (H + 1) / G)) up to the hidden layer.

    With the sizes of the single model for rgb (1024) and half of them for audio (128) that is
    79.8 million, the "less than 80M" of the abstract, which leaves out biases, normalization,
    gates and classifier.
    """

    def counted(n, k, g, e=2, h=2048):
        return e * n * (n + g) + e * n * k * g + e * n * k * (h + 1) // g

    paper = counted(1024, 128, 8) + counted(128, 64, 4)
    assert paper == 79_844_352
    biases = 2 * 1024 + 8 + 2 * 128 + 4
    # gamma, beta and two averages for each assignment, pooled value, hidden unit, and gate unit.
    normalization = 4 * (8 * 128 + 128 * 256 + 4 * 64 + 64 * 64 + 2048 + 2048 // 8)
    gates = 2 * 2048 * 2048 // 8
    head = (2048 + 1) * 3862
    model = build_model("NeXtVLAD", {"rgb": 1024, "audio": 128}, 3862)
    assert model.count_params() == paper + biases + normalization + gates + head


@pytest.mark.parametrize(
    ("name", "pooled", "centres"),
    [
        # 256 clusters of rgb and 128 of audio, each with a centre.
        ("NetVLAD", {1024: 256, 128: 128}, 256 * 1024 + 128 * 128),
        ("GatedSoftDbof", {1024: 4096, 128: 512}, 0),
    ],
)
def test_learnable_poolings_have_the_parameters_of_the_authors_code(
    name, pooled, centres, cheap_initializers
):
    size, hidden, classes = 1152, 1024, 3862
    clusters = sum(d * k for d, k in pooled.items())
    # Of NetVLAD a vector for each cluster, of the bag a number.
    width = clusters if centres else sum(pooled.values())
    normalization = 4 * (size + sum(pooled.values()) + hidden + classes)
    mixture = hidden * classes * (3 + 2) + 2 * classes
    gates = hidden**2 + classes**2
    model = build_model(name, {"rgb": 1024, "audio": 128}, classes)
    assert model.count_params() == (
        clusters + centres + (width + 1) * hidden + gates + mixture + normalization
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("NetVLAD", {"pooling": "max"}, "`pooling` must be one of vlad, soft_bag. .*'max'"),
        ("NetVLAD", {"hidden_size": 0}, "`hidden_size` must be positive"),
        ("NeXtVLAD", {"cluster_size": 0}, "`cluster_size` must be positive. Received: .*=0"),
        ("NeXtVLAD", {"groups": 3}, "3 groups of rgb must divide .*change --groups"),
        ("NeXtVLAD", {"gating_reduction": 9}, "`gating_reduction` must be at most `hidden_size`"),
        ("NeXtVLAD", {"dropout": 1.0}, r"`dropout` must be in \[0, 1\). Received: dropout=1.0"),
    ],
)
def test_options_that_cannot_work(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, SIZES, 5, **{**OPTIONS[name], **options})
