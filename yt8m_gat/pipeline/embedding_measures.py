"""The pass over a few clips that compares hidden layers, clean and under attack."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_gat.evaluation.evaluator import inputs_of
from yt8m_gat.evaluation.first_videos import first_videos
from yt8m_gat.evaluation.record import EvaluationRecord
from yt8m_gat.pipeline.attack_plan import PlannedAttack
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.robustness.embeddings import EmbeddingShift

EMBEDDING_VIDEOS = 200


def add_embeddings(run: EvaluatedRun, record: EvaluationRecord, planned: PlannedAttack) -> None:
    """Measures how far each hidden layer moves under an attack, unless the record has it."""
    identity = {**planned.identity, "num_videos": min(EMBEDDING_VIDEOS, run.num_videos)}
    if identity.items() <= record.section("embeddings").items():
        return
    attack = planned.ready()
    shifts: dict[str, EmbeddingShift] = {}
    hidden = tf.function(hidden_outputs(run.classifier), reduce_retracing=True, autograph=False)
    attacked, seen = None, 0
    for batch in first_videos(run.batches(), EMBEDDING_VIDEOS):
        inputs = inputs_of(batch)
        features, mask = run.evaluator.prepared(inputs)[:2]
        if attacked is None:
            attacked = run.evaluator.traced_attack(attack, inputs)
        moved = hidden(attacked(inputs, tf.constant(seen)).features, mask)
        for layer, clean in hidden(features, mask).items():
            rows = (_rows(value.numpy(), mask.numpy()) for value in (clean, moved[layer]))
            shifts.setdefault(layer, EmbeddingShift()).update(*rows)
        seen += len(batch["labels"])
    layers = [{"layer": layer, **shift.result()} for layer, shift in shifts.items()]
    record.set(embeddings={**identity, "layers": layers})


def hidden_outputs(classifier: Any) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns `(features, frame_mask) -> {layer: output}` of a classifier's own layers.

    They are in the order in which they are called. Of a layer that returns several tensors it is
    the first; further calls of a layer (for another feature) have their number behind its name.
    """

    def forward(features: dict[str, tf.Tensor], frame_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = {}
        with contextlib.ExitStack() as watched:
            for layer in classifier.layers:
                # In inference it changes nothing.
                if not isinstance(layer, keras.layers.Dropout):
                    watched.enter_context(_watched(layer, outputs))
            classifier.forward(features, frame_mask, training=False)
        return outputs

    return forward


@contextlib.contextmanager
def _watched(layer: Any, outputs: dict[str, tf.Tensor]) -> Iterator[None]:
    call = layer.call

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        first = result[0] if isinstance(result, tuple | list) else result
        number = sum(name.partition(" ")[0] == layer.name for name in outputs) + 1
        outputs[layer.name if number == 1 else f"{layer.name} {number}"] = first
        return result

    # Not by Keras' own setters, which would track the function as a part of the layer.
    object.__setattr__(layer, "call", watched)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


def _rows(values: np.ndarray, frame_mask: np.ndarray) -> np.ndarray:
    """Returns the real frames of [B, T, D], or one row a clip."""
    if values.ndim == 3 and values.shape[:2] == frame_mask.shape:
        return values[frame_mask]
    return values.reshape(len(values), -1)
