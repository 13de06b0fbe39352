"""Collects clips to show: labels, predictions and attention maps, clean and attacked.

Of raw clips they hold the frames and the class activation over time too.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import CLIP_FEATURE, ConfigError
from yt8m_gat.data import preprocess
from yt8m_gat.evaluation.evaluator import Evaluator, inputs_of
from yt8m_gat.explanation.attention_statistics import clip_attention
from yt8m_gat.explanation.class_activation import best_label, class_activation
from yt8m_gat.pipeline.attack_plan import PlannedAttack
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.pipeline.shown_frames import frame_pictures, shown_activations

# Predictions shown per clip.
TOP_LABELS = 5

# (level, its map as a layer returns it) -> the [T, T] form.
LayOut = Callable[[str, np.ndarray], np.ndarray]


def show_clips(
    evaluator: Evaluator,
    options: EvaluationOptions,
    batches: Iterable[Mapping[str, Any]],
    attack: PlannedAttack | None,
    names: Mapping[int, str],
    lay_out: LayOut,
) -> list[dict[str, Any]]:
    """Returns the requested clips, each clean and under an attack, as measured in its row.

    Args:
        evaluator: The evaluator of the run.
        options: They say which clips.
        batches: Batch dicts of `yt8m_gat.data`, all of them.
        attack: The attack; None: only clean.
        names: Class index -> name.
        lay_out: Brings a level's map to the [T, T] form.

    Raises:
        ConfigError: A requested clip does not exist.
    """
    wanted = {text.encode(): None for text in options.clips}
    clips: dict[bytes, dict[str, Any]] = {}
    examples = 0
    traced = None

    @tf.function(reduce_retracing=True, autograph=False)
    def look(features: dict[str, tf.Tensor], mask: tf.Tensor, labels: tf.Tensor) -> dict[str, Any]:
        def chosen(logits: tf.Tensor) -> tf.Tensor:
            return tf.stack([best_label(labels, logits), tf.argmax(logits, axis=1)], axis=1)

        if _are_raw_clips(features):
            outputs, activation = class_activation(
                evaluator.forward_with_maps, features, mask, chosen
            )
        else:
            outputs, activation = evaluator.forward_with_maps(features, mask), None
        looks = {
            "probabilities": evaluator.classifier.probabilities(outputs.logits),
            "maps": outputs.attention_maps,
        }
        if activation is not None:
            looks |= {"classes": chosen(outputs.logits), "activation": activation}
        return looks

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
            variants = {"clean": (features, look(features, mask, batch["labels"]))}
            if attack is not None:
                inputs = inputs_of(batch)
                if traced is None:
                    traced = evaluator.traced_attack(attack.ready(), inputs)
                attacked = traced(inputs, tf.constant(examples))
                changed = attacked.features
                variants["attacked"] = (changed, look(changed, mask, batch["labels"]))
            for key, place in sorted(places.items(), key=lambda item: item[1]):
                clips[key] = _clip(batch, place, mask, variants, attack, names, lay_out)
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
    mask: tf.Tensor,
    variants: Mapping[str, Any],
    attack: PlannedAttack | None,
    names: Mapping[int, str],
    lay_out: LayOut,
) -> dict[str, Any]:
    labels = np.flatnonzero(batch["labels"][place].numpy() > 0)
    clip: dict[str, Any] = {
        "video_id": batch["video_id"][place].numpy().decode(),
        "labels": [[int(index), names.get(int(index))] for index in labels],
    }
    for name, (features, looks) in variants.items():
        probabilities = looks["probabilities"][place].numpy()
        top = np.argsort(-probabilities, kind="stable")[:TOP_LABELS]
        shown: dict[str, Any] = {
            "top": [
                [int(index), names.get(int(index)), float(probabilities[index])] for index in top
            ],
            "profiles": {},
            "maps": {},
        }
        if bool(tf.reduce_any(mask[place])):
            shown |= clip_attention(looks["maps"], mask, place, lay_out)
        if _are_raw_clips(features):
            shown["frames"] = frame_pictures(features[CLIP_FEATURE][place])
        if "activation" in looks:
            # A clip without a label has only the prediction's.
            first = 0 if len(labels) else 1
            shown["activation"] = shown_activations(
                looks["classes"][place].numpy()[first:],
                looks["activation"][place].numpy()[first:],
                names,
            )
        if name == "attacked" and attack is not None:
            shown |= {key: attack.identity[key] for key in ("attack", "epsilon")}
        clip[name] = shown
    return clip


def _are_raw_clips(features: Mapping[str, tf.Tensor]) -> bool:
    return CLIP_FEATURE in features and features[CLIP_FEATURE].shape.rank == 5
