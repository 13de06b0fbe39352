"""Properties of every registered model: its weights can be copied, and a file restores it."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.models import ModelOutputs, VideoClassifier, build_model
from yt8m_gat.models.registry import BUILDERS
from yt8m_gat.recipes import RECIPES
from yt8m_gat.weights.copying import copy_weights, without_auxiliary

SIZE = 8
OPTIONS = {
    "transformer": {"num_heads": 2, "max_frames": 5, "hidden_size": 6},
    "dbof": {"iterations": 3, "dbof_cluster_size": 6, "dbof_hidden_size": 4},
    "lstm": {"lstm_cells": 4},
    "gru": {"gru_cells": 3},
    "learnable_pooling": {"cluster_size": 8, "hidden_size": 4},
    "next_vlad": {"cluster_size": 4, "groups": 2, "hidden_size": 4, "gating_reduction": 2},
    "ShareAtt": {"local_masks": ("bd3",)},
}
# Recipes that differ only in their objective have the same architecture.
# Those of raw clips have tests of their own (test_clip_classifier.py).
ARCHITECTURES = {
    (r.family, str(r.options)): name for name, r in RECIPES.items() if not r.clips
}.values()
DUAL = [name for name in ARCHITECTURES if RECIPES[name].dual_normalization]


def small(name, seed=0, dual=False, **options):
    """The recipe's architecture with random weights: fresh normalizations would all be equal."""
    recipe = RECIPES[name]
    options = {**OPTIONS.get(recipe.family, {}), **OPTIONS.get(name, {}), **options}
    if dual:
        options["dual_normalization"] = True
    model = BUILDERS[recipe.family]({"rgb": SIZE}, 3, **{**recipe.options, **options})
    randomize(model, seed)
    return model


def randomize(model, seed):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        # Positive, as variances are.
        weight.assign(rng.uniform(0.2, 1, weight.shape))


def logits_of(model, auxiliary=False):
    shape = (2, 5, SIZE) if model.frame_level else (2, SIZE)
    frames = tf.random.stateless_normal(shape, (0, 0))
    mask = tf.sequence_mask([5, 3], 5) if model.frame_level else None
    return model.forward({"rgb": frames}, mask, auxiliary_normalization=auxiliary).logits.numpy()


@pytest.mark.parametrize(
    ("name", "dual"),
    [
        # Each takes a second or two; GAT has their parts.
        pytest.param(name, dual, marks=[pytest.mark.slow] * (name in ("GateOp", "ShareAtt")))
        for name in ARCHITECTURES
        for dual in {False, name in DUAL}
    ],
)
def test_copied_weights_make_the_same_function(name, dual):
    source, target = small(name, 0, dual), small(name, 1, dual)
    for auxiliary in {False, dual}:
        assert np.abs(logits_of(target, auxiliary) - logits_of(source, auxiliary)).max() > 1e-3
    copy_weights(source, target)
    for auxiliary in {False, dual}:
        np.testing.assert_array_equal(logits_of(target, auxiliary), logits_of(source, auxiliary))
    for copied, weight in zip(target.weights, source.weights, strict=True):
        np.testing.assert_array_equal(copied, weight)


@pytest.mark.parametrize(
    "name",
    # GMSA has the parts of the other Transformers.
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("GateOp", "GateAtt", "ShareAtt")))
        for name in ARCHITECTURES
    ],
)
def test_the_head_turns_the_embedding_into_the_logits(name):
    model = small(name)
    frames = tf.random.stateless_normal((2, 5, SIZE) if model.frame_level else (2, SIZE), (0, 0))
    mask = tf.sequence_mask([5, 3], 5) if model.frame_level else None
    outputs = model.forward({"rgb": frames}, mask)
    if name in ("FrameLevelLogisticModel", "LogisticModel", "MoeModel"):  # Features, or their mean.
        assert outputs.embedding is model.embedding_size is None
        return
    assert outputs.embedding.shape == (2, model.embedding_size)
    head = model.head if hasattr(model, "head") else model.output_layer
    np.testing.assert_array_equal(head(outputs.embedding), outputs.logits)


@pytest.mark.parametrize("name", DUAL)
@pytest.mark.slow
def test_a_second_set_of_normalization_layers_comes_and_goes(name):
    source, target = small(name, 0), small(name, 1, dual=True)
    copy_weights(source, target)
    for auxiliary in (False, True):
        np.testing.assert_array_equal(logits_of(target, auxiliary), logits_of(source))
    randomize(target, 2)
    clean = logits_of(target)
    assert np.abs(logits_of(target, auxiliary=True) - clean).max() > 1e-3
    np.testing.assert_array_equal(logits_of(without_auxiliary(target)), clean)


@pytest.mark.parametrize(
    ("name", "source", "target", "message"),
    [
        ("LstmModel", {}, {"lstm_layers": 1}, r"lstm_1/\S+ needs none, found shape \(4, 16\)"),
        ("LstmModel", {"lstm_layers": 1}, {}, r"lstm_1/\S+ needs shape \(4, 16\), found none"),
        ("LstmModel", {"lstm_cells": 5}, {}, r"needs shape \(8, 16\), found shape \(8, 20\)"),
        ("DbofModel", {"dbof_add_batch_norm": False}, {}, "input_normalization/gamma needs shape"),
        ("DbofModel", {}, {"dbof_add_batch_norm": False}, "clusters/bias needs shape"),
    ],
)
def test_models_that_differ_are_refused_before_anything_is_copied(name, source, target, message):
    source, target = small(name, **source), small(name, **target)
    before = target.get_weights()
    with pytest.raises(ValueError, match=f"the two models differ: .*{message}"):
        copy_weights(source, target)
    for weight, expected in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_features_in_another_order_are_refused():
    """The kernels have the same shapes, but other rows belong to the same feature."""
    source, target = (
        build_model("LogisticModel", sizes, 3) for sizes in ({"a": 3, "b": 2}, {"b": 2, "a": 3})
    )
    with pytest.raises(ValueError, match="features b, a needed, a, b found"):
        copy_weights(source, target)


def test_weights_with_one_name_are_refused():

    class Twins(VideoClassifier):
        def __init__(self):
            super().__init__({"rgb": SIZE}, 3, frame_level=False)
            self.twins = [keras.layers.Dense(3, name="logits") for _ in range(2)]
            self.build_all()

        def forward(self, features, *_, **__):
            return ModelOutputs(sum(twin(features["rgb"]) for twin in self.twins), None, {})

    with pytest.raises(ValueError, match=r"two weights of twins\S* have the path logits/kernel"):
        copy_weights(Twins(), Twins())


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match=r"`seed` must be at least 0. Received: seed=-1"):
        build_model("FrameLevelLogisticModel", {"rgb": 4}, 2, seed=-1)


@pytest.mark.parametrize("name", ["DbofModel", "LstmModel", "ShareAtt"])
def test_a_seed_fixes_weights_and_random_state(name):
    recipe = RECIPES[name]
    options = {**OPTIONS.get(recipe.family, {}), **OPTIONS.get(name, {})}

    def build(seed):
        model = build_model(name, {"rgb": SIZE}, 3, **options, seed=seed)
        return {variable.path.partition("/")[2]: variable.numpy() for variable in model.variables}

    expected = build(7)
    random.seed(3)
    before = random.getstate()
    for found, value in zip(build(7).values(), expected.values(), strict=True):
        np.testing.assert_array_equal(found, value)
    assert random.getstate() == before
    other = build(8)
    drawn = [path for path in expected if path.endswith(("kernel", "seed_generator_state"))]
    assert any("seed" in path for path in drawn) == (name != "ShareAtt")
    assert len(drawn) >= 3
    for found, (path, value) in zip(other.values(), expected.items(), strict=True):
        assert np.array_equal(found, value) == (path not in drawn), path


def policies(model):
    """Those of the model and of all its layers except the head, which is in float32 by design."""
    head = next(layer for layer in model._flatten_layers() if layer.name == "logits")
    in_head = {id(layer) for layer in head._flatten_layers()}
    return {
        layer.name: layer.dtype_policy.name
        for layer in model._flatten_layers()
        if id(layer) not in in_head
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_comes_back_from_a_file_with_one_dtype_policy_for_all_layers(name, tmp_path):
    recipe = RECIPES[name]
    options = {**OPTIONS.get(recipe.family, {}), **OPTIONS.get(name, {})}
    if name in DUAL:
        options["dual_normalization"] = True
    model = build_model(name, {"rgb": SIZE}, 3, **options, dtype="mixed_bfloat16")
    randomize(model, 0)
    model.save(tmp_path / "model.keras")
    assert keras.config.dtype_policy().name == "float32"
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    for found in (policies(model), policies(loaded)):
        assert found == dict.fromkeys(found, "mixed_bfloat16")
    logits = logits_of(loaded)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, logits_of(model))
