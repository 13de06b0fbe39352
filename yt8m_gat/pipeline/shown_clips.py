"""Clips shown with their labels, predictions and attention maps, clean and attacked."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data import preprocess
from yt8m_gat.evaluation.evaluator import Evaluator, inputs_of
from yt8m_gat.explanation.attention_statistics import clip_attention
from yt8m_gat.pipeline.attack_plan import PlannedAttack
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions

# Predictions shown of a clip.
TOP_LABELS = 5

# (level, its map as a layer gives it) -> the [T, T] form.
LayOut = Callable[[str, np.ndarray], np.ndarray]


def show_clips(
    evaluator: Evaluator,
    options: EvaluationOptions,
    batches: Iterable[Mapping[str, Any]],
    attack: PlannedAttack | None,
    names: Mapping[int, str],
    lay_out: LayOut,
) -> list[dict[str, Any]]:
    """The clips asked for, each clean and under an attack, as its row has it.

    Args:
        evaluator: Of the run.
        options: Which clips.
        batches: Batch dicts of `yt8m_gat.data`, all of them.
        attack: The attack; None: clean alone.
        names: Of the classes, by index.
        lay_out: Gives a level's map the [T, T] form.

    Raises:
        ConfigError: A clip asked for is not there.
    """
    wanted = {text.encode(): None for text in options.clips}
    clips: dict[bytes, dict[str, Any]] = {}
    examples = 0
    traced = None

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(features: dict[str, tf.Tensor], mask: tf.Tensor) -> tuple[tf.Tensor, Any]:
        outputs = evaluator.forward(features, mask)
        return outputs.logits, outputs.attention_maps

    first: dict[bytes, None] = {}
    for batch in batches:
        ids = batch["video_id"].numpy()
        for key in ids:
            if len(first) < options.num_clips:
                first[key] = None
        places = {
            key: place
            for place, key in reversed(list(enumerate(ids)))
            if (key in wanted or key in first) and key not in clips
        }
        if places:
            features, mask = preprocess(batch["features"], batch["num_frames"], evaluator.normalize)
            looks = {"clean": (forward(features, mask), mask)}
            if attack is not None:
                inputs = inputs_of(batch)
                if traced is None:
                    traced = evaluator.traced_attack(attack.attack, inputs)
                attacked = traced(inputs, tf.constant(examples))
                looks["attacked"] = (forward(attacked.features, mask), mask)
            for key, place in sorted(places.items(), key=lambda item: item[1]):
                clips[key] = _clip(batch, place, looks, attack, names, lay_out)
        examples += len(ids)
        if set(wanted) <= set(clips) and len(first) >= options.num_clips:
            break
    if missing := [key.decode() for key in wanted if key not in clips]:
        raise ConfigError(
            f"--clips: no such clip in {options.eval_data_pattern}: {', '.join(missing)}"
        )
    return list(clips.values())


def _clip(
    batch: Mapping[str, Any],
    place: int,
    looks: Mapping[str, Any],
    attack: PlannedAttack | None,
    names: Mapping[int, str],
    lay_out: LayOut,
) -> dict[str, Any]:
    labels = np.flatnonzero(batch["labels"][place].numpy() > 0)
    clip: dict[str, Any] = {
        "video_id": batch["video_id"][place].numpy().decode(),
        "labels": [[int(index), names.get(int(index))] for index in labels],
    }
    for name, ((logits, maps), mask) in looks.items():
        probabilities = tf.sigmoid(logits[place]).numpy()
        top = np.argsort(-probabilities, kind="stable")[:TOP_LABELS]
        seen: dict[str, Any] = {
            "top": [
                [int(index), names.get(int(index)), float(probabilities[index])] for index in top
            ],
            "profiles": {},
            "maps": {},
        }
        if bool(tf.reduce_any(mask[place])):
            seen |= clip_attention(maps, mask, place, lay_out)
        if name == "attacked" and attack is not None:
            seen |= {key: attack.identity[key] for key in ("attack", "epsilon")}
        clip[name] = seen
    return clip
