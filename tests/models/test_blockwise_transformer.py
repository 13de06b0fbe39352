"""A Transformer for long clips computes and trains what one with attention maps does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.layers import attention
from yt8m_gat.layers.recomputation import BlockFunction
from yt8m_gat.models import build_model
from yt8m_gat.models.transformer import BLOCKWISE_FRAMES
from yt8m_gat.training import AdversarialModel, build_objective

SIZES = {"rgb": 8, "audio": 4}
MASK = np.arange(5) < np.array([5, 3, 0])[:, None]


@pytest.fixture
def runs(monkeypatch):
    """Cuts clips of 5 frames into blocks of 3, and lists what passes over blocks."""
    passes = []

    class Recorded(BlockFunction):
        def __init__(self, function, block_length):
            super().__init__(function, block_length)
            passes.append(function)

    monkeypatch.setattr(attention, "BlockFunction", Recorded)
    monkeypatch.setattr(attention, "_BLOCK", 3)
    return passes


def both_forms(runs, name="GMSA", **options):
    """Returns a model with maps and one without, of equal weights."""
    options = {"num_heads": 2, "hidden_size": 6, **options}
    if name != "Transformer":
        options["local_masks"] = ("bd2",)
    models = []
    for max_frames in (BLOCKWISE_FRAMES, BLOCKWISE_FRAMES + 1):
        keras.utils.set_random_seed(0)
        models.append(build_model(name, SIZES, 3, max_frames, **options))
    runs.clear()  # A model runs once when it is built.
    return models


def features():
    rng = np.random.default_rng(0)
    return {
        name: tf.constant(rng.normal(size=(3, 5, size)) * MASK[..., None], tf.float32)
        for name, size in SIZES.items()
    }


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("Transformer", {"num_layers": 2, "cross_modal": True}, 6),
        ("GMSA", {"attention": "uniform"}, 2),
        pytest.param("ShareAtt", {}, 2, marks=pytest.mark.slow),
    ],
)
def test_logits_are_those_with_maps(runs, name, options, expected):
    with_maps, without = both_forms(runs, name, **options)
    outputs = with_maps.forward(features(), MASK)
    assert not runs
    found = without.forward_without_maps(features(), MASK)
    assert len(runs) == expected and found.attention_maps == {}
    np.testing.assert_allclose(found.logits, outputs.logits, atol=1e-5)
    np.testing.assert_allclose(found.frames, outputs.frames, atol=1e-5)
    np.testing.assert_array_equal(without({**features(), "frame_mask": MASK}), found.logits)
    for feature, maps in without.forward(features(), MASK).attention_maps.items():
        for level, of_level in maps.items():
            expected_map = outputs.attention_maps[feature][level]
            np.testing.assert_allclose(of_level, expected_map, atol=1e-5)


@pytest.mark.parametrize(
    ("adversarial", "needs_maps"),
    [
        pytest.param("none", False, marks=pytest.mark.slow),
        ("output", False),
        pytest.param("frobenius", True, marks=pytest.mark.slow),
        pytest.param("temporal", False, marks=pytest.mark.slow),
        pytest.param("trades", False, marks=pytest.mark.slow),
    ],
)
def test_a_step_is_that_with_maps_and_has_none_without_a_penalty(runs, adversarial, needs_maps):
    labels = tf.constant([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    updated = []
    for classifier in both_forms(runs, dual_normalization=adversarial == "temporal"):
        assert not runs
        model = AdversarialModel(
            classifier, build_objective(ObjectiveConfig(adversarial=adversarial))
        )
        model.compile(optimizer=keras.optimizers.SGD(1.0))
        model.train_step(({**features(), "frame_mask": tf.constant(MASK)}, labels))
        updated.append(model.get_weights())
    assert bool(runs) != needs_maps
    for one, other in zip(*updated, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_dropout_of_maps_needs_them(runs):
    model = build_model("Transformer", {"audio": 4}, 3, 1001, num_heads=2, dropout=0.5)
    runs.clear()
    clips = {"audio": features()["audio"]}
    model.forward_without_maps(clips, MASK, training=True)
    assert not runs
    model.forward_without_maps(clips, MASK)
    assert runs
