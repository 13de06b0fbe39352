"""The adversarial step does no product twice: counted in its graph, not timed."""

import collections
import functools

import keras
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.models import build_model
from yt8m_gat.models.transformer import BLOCKWISE_FRAMES
from yt8m_gat.training import AdversarialModel, build_objective
from yt8m_gat.training.step_update import Replica

pytestmark = pytest.mark.slow

SIZE, CLASSES = 16, 3


@functools.cache
def products(model_name, adversarial, several=False, max_frames=8):
    """Dense products, products in attention maps, and calls, in the graph that TensorFlow runs.

    Its compiler merges what it finds to be alike, which is not all that is: colocation, for one,
    keeps operations apart. The sizes of a batch are unknown, as they are in training.
    """
    replica = Replica(1, 3, tf.constant(0.25)) if several else None
    classifier = build_model(model_name, {"rgb": SIZE}, CLASSES, max_frames, hidden_size=8)
    objective = build_objective(ObjectiveConfig(adversarial=adversarial))
    model = AdversarialModel(classifier, objective)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    model.optimizer.build(model.trainable_variables)
    inputs = {
        "rgb": tf.TensorSpec([None, None, SIZE], tf.uint8),
        "num_frames": tf.TensorSpec([None], tf.int32),
    }

    def optimize(data):
        update = model.update_of(data, replica)
        model.optimizer.apply(update.gradients, model.trainable_variables)

    step = tf.function(
        optimize,
        input_signature=[(inputs, tf.TensorSpec([None, CLASSES]))],
        autograph=False,
    )
    features = {"rgb": tf.zeros([2, 8, SIZE], tf.uint8), "num_frames": tf.constant([8, 5])}
    context.context().enable_run_metadata()
    try:
        step((features, tf.zeros([2, CLASSES])))
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_run_metadata()
    graph = max((g.post_optimization_graph for g in graphs), key=lambda graph: len(graph.node))
    types = collections.Counter(node.op for node in graph.node)
    dense = types["MatMul"] + types["_FusedMatMul"]
    return dense, types["BatchMatMulV2"], types["PartitionedCall"]


@pytest.mark.parametrize(
    ("model_name", "several"),
    [("Transformer", False), ("GMSA", True)],
    ids=["alone", "one of several"],
)
@pytest.mark.parametrize(
    ("adversarial", "more_in_maps"),
    [("output", 0), ("frobenius", 2), ("jensen_shannon", 2), ("embedding", 0)],
)
def test_the_clean_backward_pass_is_shared(model_name, adversarial, more_in_maps, several):
    dense, in_maps, _ = products(model_name, "none", several)
    # Two steps of cross-entropy, the gradient through Q, K, V to the features, and, with a
    # penalty, the gradient of the clean map by Q and by K.
    found = products(model_name, adversarial, several)
    assert found[:2] == (2 * dense + 1, 2 * in_maps + more_in_maps)


@pytest.mark.slow
@pytest.mark.parametrize("model_name", ["GateOp", "GateAtt", "ShareAtt"])
def test_other_models_share_it_too(model_name):
    dense, in_maps, _ = products(model_name, "none")
    assert products(model_name, "output")[:2] == (2 * dense + 1, 2 * in_maps)


def test_the_first_pass_of_taf_is_the_clean_one():
    dense, in_maps, _ = products("Transformer", "none")
    # Two steps of cross-entropy; the slope of the logits through the head, and again through its
    # first layer (for the second derivative of ReLU, which is 0); from the frames through the
    # block to the features. A pass of its own would have 6 and 2 more.
    assert products("Transformer", "temporal")[:2] == (2 * dense + 3 + 4, 2 * in_maps + 4)


def test_long_clips_share_it_without_maps():
    """Passes over blocks of queries are counted as calls: forward and backward of two passes."""
    dense, in_maps, calls = products("Transformer", "none", max_frames=BLOCKWISE_FRAMES + 1)
    assert (in_maps, calls) == (0, 2)
    found = products("Transformer", "output", max_frames=BLOCKWISE_FRAMES + 1)
    assert found == (2 * dense + 1, 0, 4)
