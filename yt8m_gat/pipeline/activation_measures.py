"""Passes over a set that measure class activation over time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data import preprocess
from yt8m_gat.data.progress import advance, progress_bar
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.explanation.activation_statistics import ActivationStatistics, activation_shares
from yt8m_gat.explanation.attention_statistics import GLOBAL, attention_profile, mean_maps
from yt8m_gat.explanation.class_activation import best_label, class_activation
from yt8m_gat.explanation.true_spans import SpanFigures, TrueSpan

Batches = Iterable[Mapping[str, Any]]


def measure_class_activation(
    evaluator: Evaluator, batches: Batches, num_videos: int | None
) -> dict[str, Any]:
    """Returns how evenly the class activation of each clip's label lies over time.

    Of several labels it is the one that scores highest; clips without a label are left out. See
    `ActivationStatistics`.
    """
    statistics = ActivationStatistics()

    @tf.function(reduce_retracing=True, autograph=False)
    def of_labels(features: Any, mask: tf.Tensor, labels: tf.Tensor) -> Any:
        return _activation(
            evaluator, features, mask, lambda logits: best_label(labels, logits)[:, tf.newaxis]
        )

    for batch in _with_bar("class activation", batches, num_videos):
        features, mask = preprocess(batch["features"], batch["num_frames"], evaluator.normalize)
        activation = of_labels(features, mask, batch["labels"])
        has_label = batch["labels"].numpy().any(axis=1)
        statistics.update(activation[:, 0].numpy(), mask.numpy(), has_label)
    return statistics.result()


def measure_true_spans(
    evaluator: Evaluator,
    batches: Batches,
    num_videos: int | None,
    spans: Mapping[str, list[tuple[int, TrueSpan]]],
) -> dict[str, Any]:
    """Returns how much class activation and attention fall into the spans where labels are shown.

    Args:
        evaluator: Of the classifier.
        batches: The batches; clips without spans are left out.
        num_videos: For the time left.
        spans: Video id -> (class, span).

    Returns:
        `activation`: figures of the activation that speaks for the span's class (see
        `SpanFigures`), with `num_silent`, the number of spans for whose class no frame speaks;
        `attention`: feature -> figures of the attention that frames receive at the global level,
        which is the same for all classes.
    """
    most = max(map(len, spans.values()), default=1)
    activation_figures, num_silent = SpanFigures(), 0
    attention_figures: dict[str, SpanFigures] = {}

    @tf.function(reduce_retracing=True, autograph=False)
    def of_classes(features: Any, mask: tf.Tensor, classes: tf.Tensor) -> Any:
        return _activation(evaluator, features, mask, lambda _: classes)

    @tf.function(reduce_retracing=True, autograph=False)
    def global_maps(features: Any, mask: tf.Tensor) -> Any:
        maps = evaluator.forward_with_maps(features, mask).attention_maps
        return {name: {GLOBAL: of[GLOBAL]} for name, of in maps.items() if GLOBAL in of}

    for batch in _with_bar("true spans", batches, num_videos):
        ids = [name.decode("utf-8", "replace") for name in batch["video_id"].numpy()]
        of_clips = [spans.get(name, []) for name in ids]
        if not any(of_clips):
            continue
        features, mask = preprocess(batch["features"], batch["num_frames"], evaluator.normalize)
        classes = [
            [number for number, _ in of_clip] + [0] * (most - len(of_clip)) for of_clip in of_clips
        ]
        activation = of_classes(features, mask, tf.ensure_shape(classes, [None, most])).numpy()
        profiles = mean_maps(global_maps(features, mask), lambda _, maps: maps)
        for place, (of_clip, real) in enumerate(zip(of_clips, mask.numpy(), strict=True)):
            if not real.any():
                continue
            for index, (_, span) in enumerate(of_clip):
                shares = activation_shares(activation[place, index], real)
                if shares is None:
                    num_silent += 1
                else:
                    activation_figures.add(shares, span)
                for feature, levels in profiles.items():
                    profile = attention_profile(levels[GLOBAL][place], real)
                    figures = attention_figures.setdefault(feature, SpanFigures())
                    figures.add(profile / profile.sum(), span)
    return {
        "activation": {**activation_figures.result(), "num_silent": num_silent},
        "attention": {name: figures.result() for name, figures in attention_figures.items()},
    }


def _activation(
    evaluator: Evaluator, features: Any, mask: tf.Tensor, choose: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    activation = class_activation(evaluator.forward, features, mask, choose).activation
    if activation is None:
        raise ConfigError(
            "class activation needs a model whose logits depend on the frames that it returns. "
            f"Received: {type(evaluator.classifier).__name__}"
        )
    return activation


def _with_bar(description: str, batches: Batches, total: int | None) -> Batches:
    with progress_bar(description, total) as bar:
        last_id = b""
        for batch in batches:
            yield batch
            last_id = advance(bar, batch, last_id)
