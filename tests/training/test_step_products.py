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

    TensorFlow merges nodes of equal operation, attributes and inputs before it runs a graph.
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
    numbers, number_of = {}, {}
    products = collections.defaultdict(set)
    for operation in step.get_concrete_function().graph.get_operations():
        node = operation.node_def
        # What a node computes: its operation, attributes, and the numbers of its inputs.
        what = (
            operation.type,
            operation.name if operation.type in ("Placeholder", "VarHandleOp") else None,
            tuple((number_of[tensor.op.name], tensor.value_index) for tensor in operation.inputs),
            tuple(
                (name, value.SerializeToString(deterministic=True))
                for name, value in sorted(node.attr.items())
                if not name.startswith("_")
            ),
        )
        number_of[operation.name] = numbers.setdefault(what, len(numbers))
        products[operation.type].add(number_of[operation.name])
    return len(products["MatMul"]), len(products["BatchMatMulV2"])


@pytest.mark.parametrize("model_name", ["Transformer", "GMSA"])
@pytest.mark.parametrize(
    ("adversarial", "more_in_maps"), [("output", 0), ("frobenius", 2), ("jensen_shannon", 2)]
)
def test_the_clean_backward_pass_is_shared(model_name, adversarial, more_in_maps):
    dense, in_maps = distinct_products(model_name, "none")
    # Two steps of cross-entropy, the gradient through Q, K, V to the features, and, with a
    # penalty, the gradient of the clean map by Q and by K.
    assert distinct_products(model_name, adversarial) == (2 * dense + 1, 2 * in_maps + more_in_maps)
