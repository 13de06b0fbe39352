"""A batch in parts: the step of the whole batch, up to rounding."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError, ObjectiveConfig, TrainingConfig
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, build_objective
from yt8m_gat.training.step_update import Replica

SIZES = {"rgb": 16, "audio": 8}
CLASSES, ROWS = 5, 7
GMSA = {"num_heads": 4, "hidden_size": 12, "local_masks": ("bd3",)}


def batch(weighted=False):
    rng = np.random.default_rng(0)
    inputs = {
        name: tf.constant(rng.integers(0, 256, (ROWS, 6, size)).astype(np.uint8))
        for name, size in SIZES.items()
    }
    inputs["num_frames"] = tf.constant([6, 4, 1, 6, 5, 2, 6], tf.int32)
    labels = tf.constant(rng.integers(0, 2, (ROWS, CLASSES)).astype(np.float32))
    if not weighted:
        return inputs, labels
    return inputs, labels, tf.constant(rng.integers(0, 2, (ROWS, CLASSES)).astype(np.float32))


def update_of(micro_batch_size, data, adversarial="none", name="GMSA", graph=True, **options):
    """The update of a fresh model, and the model; the same weights each time."""
    keras.utils.set_random_seed(1)
    if adversarial == "temporal":
        options["dual_normalization"] = True
    classifier = build_model(name, SIZES, CLASSES, 6, **(GMSA if name == "GMSA" else {}), **options)
    objective = build_objective(
        ObjectiveConfig(adversarial=adversarial, class_reduction="sum", temporal_loss="ce")
    )
    model = AdversarialModel(classifier, objective, micro_batch_size=micro_batch_size)
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    function = model.update_of
    if graph:
        specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), data)
        function = tf.function(model.update_of, input_signature=[specs], autograph=False)
    return function(data), model


@functools.cache
def whole_update(adversarial, weighted=False):
    return update_of(None, batch(weighted), adversarial)[0]


def assert_same(found, expected, **tolerance):
    tf.nest.map_structure(
        lambda a, b: a is b is None or np.testing.assert_allclose(a, b, **tolerance),
        found._asdict(),
        expected._asdict(),
    )


def test_a_replica_draws_its_own_numbers_and_the_seeds_stay_those_of_one_machine():
    """Else the seeds of several workers would drift apart, and a resumed run with them."""
    keras.utils.set_random_seed(1)
    classifier = build_model("GMSA", SIZES, CLASSES, 6, **GMSA, dropout=0.5)
    model = AdversarialModel(classifier, build_objective(ObjectiveConfig()))
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    seeds = [
        index
        for index, variable in enumerate(classifier.non_trainable_variables)
        if variable.name == "seed_generator_state"
    ]
    assert seeds
    alone = model.update_of(batch())
    updates = [model.update_of(batch(), Replica(i, 3, tf.constant(1.0))) for i in range(3)]
    for update in updates:
        for index in seeds:
            np.testing.assert_array_equal(update.state[index], alone.state[index])
    logits = [update.terms.logits.numpy() for update in (alone, *updates)]
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-5, atol=1e-6)
    assert np.abs(logits[2] - logits[1]).max() > 1e-3
    assert np.abs(logits[3] - logits[2]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("size", "graph"), [(3, True), (1, False), (4, False)])
def test_the_parts_add_up_to_the_batch(size, graph):
    found, _ = update_of(size, batch(), "frobenius", graph=graph)
    assert_same(found, whole_update("frobenius"), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adversarial", "weighted"),
    [
        ("none", True),
        ("output", False),
        ("embedding", True),
        ("jensen_shannon", True),
        ("temporal", False),
        ("temporal", True),
    ],
)
def test_every_objective(adversarial, weighted):
    found, _ = update_of(3, batch(weighted), adversarial)
    assert_same(found, whole_update(adversarial, weighted), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [ROWS, 100])
@pytest.mark.slow
def test_a_batch_that_is_one_part_draws_what_the_batch_draws(size):
    data = batch()
    found, _ = update_of(size, data, "output", graph=False, dropout=0.3)
    expected, _ = update_of(None, data, "output", graph=False, dropout=0.3)
    assert_same(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_parts_draw_numbers_of_their_own_and_move_the_seed_once():
    inputs, labels = batch()
    # One clip in all rows: only what is drawn tells them apart.
    same = {name: tf.repeat(value[:1], ROWS, axis=0) for name, value in inputs.items()}
    data = same, tf.zeros_like(labels)
    found, model = update_of(1, data, dropout=0.5)
    expected, _ = update_of(None, data, dropout=0.5)
    assert len(np.unique(found.terms.logits.numpy().round(5), axis=0)) == ROWS
    variables = model.classifier.non_trainable_variables
    seeds = [
        (ours, theirs)
        for variable, ours, theirs in zip(variables, found.state, expected.state, strict=True)
        if variable.name == "seed_generator_state"
    ]
    assert seeds
    for ours, theirs in seeds:
        np.testing.assert_array_equal(ours, theirs)


def test_moving_averages_are_the_means_of_the_parts():
    options = {"dbof_cluster_size": 6, "dbof_hidden_size": 5, "sample_random_frames": False}
    inputs, labels = batch()
    halves = [
        ({name: value[part] for name, value in inputs.items()}, labels[part])
        for part in (slice(0, 3), slice(3, ROWS))
    ]
    found, model = update_of(4, (inputs, labels), name="DbofModel", **options)
    parts = [update_of(None, half, name="DbofModel", **options)[0] for half in halves]
    moving = [
        index
        for index, variable in enumerate(model.classifier.non_trainable_variables)
        if "moving" in variable.path
    ]
    assert moving
    for index in moving:
        mean = (3 * parts[0].state[index] + 4 * parts[1].state[index]) / ROWS
        np.testing.assert_allclose(found.state[index], mean, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.slow
def test_one_part_that_is_not_finite_is_seen():
    inputs, labels = batch()
    spoiled = labels.numpy()
    spoiled[-1, 0] = np.nan
    assert update_of(2, (inputs, labels))[0].finite
    assert not update_of(2, (inputs, tf.constant(spoiled)))[0].finite


@pytest.mark.slow
def test_no_more_than_one_part_is_at_work():
    """The rows of every forward pass in the graph are those of a part, and parts wait."""
    data = batch()
    seen = []

    class Watched(AdversarialModel):
        def _update_at_once(self, rows, replica):
            seen.append(rows[1])
            return super()._update_at_once(rows, replica)

    keras.utils.set_random_seed(1)
    classifier = build_model("GMSA", SIZES, CLASSES, 6, **GMSA)
    objective = build_objective(ObjectiveConfig(adversarial="none"))
    model = Watched(classifier, objective, micro_batch_size=2)
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    tf.config.run_functions_eagerly(True)
    try:
        model.update_of(data)
    finally:
        tf.config.run_functions_eagerly(False)
    assert [len(labels) for labels in seen] == [1, 2, 2, 2]

    traced = tf.function(model.update_of, autograph=False).get_concrete_function(data)
    (loop,) = [op for op in traced.graph.get_operations() if op.type in ("While", "StatelessWhile")]
    assert loop.get_attr("parallel_iterations") == 1
    starts = [value.op for value in loop.inputs if value.op.control_inputs]
    assert any(start.type == "Const" for start in starts)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="micro_batch_size"):
        update_of(0, batch())
    with pytest.raises(ConfigError, match="--micro_batch_size must be at least 0"):
        TrainingConfig(micro_batch_size=-1)
    with pytest.raises(ConfigError, match=r"--micro_batch_size and --jit_compile.*remove one"):
        TrainingConfig(micro_batch_size=4, jit_compile=True)
