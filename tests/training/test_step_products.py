"""The adversarial step does no product twice: counted in its graph, not timed."""

import collections

import keras
import pytest
import tensorflow as tf

from yt8m_gat.config import ObjectiveConfig
from yt8m_gat.models import build_model
from yt8m_gat.training import AdversarialModel, build_objective

SIZE, CLASSES = 16, 3


def distinct_products(model_name, adversarial):
    """Products in the step's graph that differ in what they compute; those alike run once.

    TensorFlow merges nodes of equal operation, attributes and inputs before it runs a graph, but
    never two readings of a weight.
    """
    classifier = build_model(model_name, {"rgb": SIZE}, CLASSES, 8, hidden_size=8)
    objective = build_objective(ObjectiveConfig(adversarial=adversarial))
    model = AdversarialModel(classifier, objective)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    model.optimizer.build(model.trainable_variables)
    inputs = {
        "rgb": tf.TensorSpec([None, None, SIZE], tf.uint8),
        "num_frames": tf.TensorSpec([None], tf.int32),
    }
    step = tf.function(
        model.optimize,
        input_signature=[(inputs, tf.TensorSpec([None, CLASSES]))],
        autograph=False,
    )
    graph = step.get_concrete_function().graph
    live = operations_behind(graph)
    numbers, number_of = {}, {}
    products = collections.defaultdict(set)
    for operation in graph.get_operations():
        # What a node computes: its operation, attributes, and the numbers of its inputs.
        what = (
            operation.type,
            operation.name
            if operation.op_def.is_stateful or operation.type == "Placeholder"
            else None,
            tuple((number_of[tensor.op.name], tensor.value_index) for tensor in operation.inputs),
            tuple(
                (name, value.SerializeToString(deterministic=True))
                for name, value in sorted(operation.node_def.attr.items())
                if name != "_class"
            ),
        )
        number_of[operation.name] = numbers.setdefault(what, len(numbers))
        if operation.name in live:
            products[operation.type].add(number_of[operation.name])
    return len(products["MatMul"]), len(products["BatchMatMulV2"])


def operations_behind(graph):
    """Names of the operations that the outputs or a change of some variable need."""
    waiting = [tensor.op for tensor in graph.outputs]
    waiting += [o for o in graph.get_operations() if "Assign" in o.type or "Apply" in o.type]
    live = set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in live:
            live.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
    return live


@pytest.mark.parametrize("model_name", ["Transformer", "GMSA"])
@pytest.mark.parametrize(
    ("adversarial", "more_in_maps"), [("output", 0), ("frobenius", 2), ("jensen_shannon", 2)]
)
def test_the_clean_backward_pass_is_shared(model_name, adversarial, more_in_maps):
    dense, in_maps = distinct_products(model_name, "none")
    # Two steps of cross-entropy, the gradient through Q, K, V to the features, and, with a
    # penalty, the gradient of the clean map by Q and by K.
    assert distinct_products(model_name, adversarial) == (2 * dense + 1, 2 * in_maps + more_in_maps)


def test_the_first_pass_of_taf_is_the_clean_one():
    dense, in_maps = distinct_products("Transformer", "none")
    # Two steps of cross-entropy; the slope of the logits through the head, and again through its
    # first layer (for the second derivative of ReLU, which is 0); from the frames through the
    # block to the features. A pass of its own would have 6 and 2 more.
    assert distinct_products("Transformer", "temporal") == (2 * dense + 3 + 4, 2 * in_maps + 4)
