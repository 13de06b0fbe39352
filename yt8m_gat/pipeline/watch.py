"""The job that shows what a run sees in one video: labels, and the seconds behind them."""

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import AttackOptions, build_attack
from yt8m_gat.config import RunConfig
from yt8m_gat.data import preprocess
from yt8m_gat.explanation.attention_statistics import clip_attention
from yt8m_gat.explanation.class_activation import carrying_spans, class_activation, frame_edges
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.import_path import require_trust
from yt8m_gat.pipeline.run_evaluator import build_evaluator, square_maps
from yt8m_gat.pipeline.run_extractor import place_of_extractor
from yt8m_gat.pipeline.run_settings import class_names, read_schema
from yt8m_gat.pipeline.video_prediction import batch_of_video
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.video.clips import Clip, clip_ids
from yt8m_gat.video.decoding import Video
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import weights_of

FILM_FRAMES = 12
"""Pictures on the time axis; more would be too small to see."""

MOMENTS = 3
"""Pictures of the seconds of each label."""

PICTURE_SIDE = 216
"""Short side of a picture in pixels, about twice its size on the page."""

JPEG_QUALITY = 80


def watch(
    folder: RunFolder,
    *,
    video: str | os.PathLike,
    label_names: str | os.PathLike | None = None,
    extractor: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    sound: str | os.PathLike | None = None,
    checkpoint: str = "best",
    top_k: int = 5,
    start: float = 0.0,
    end: float | None = None,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Classifies a video, clean and under attack, and says which seconds carried each label.

    The attack is the fast gradient method at the radius of training. It raises the loss of the
    labels that the model itself gives: those of at least 50 %, or the likeliest one.

    Args:
        folder: The run, a frame-level one.
        video: The file.
        label_names: File that names the classes, see `class_names`.
        extractor: See `place_of_extractor`.
        picture: Weights of its picture model, if they are elsewhere by now.
        sound: Likewise of its sound model.
        checkpoint: `best` or `last`.
        top_k: The likeliest classes that are shown, clean and attacked; those of both once.
        start: Where the video begins, in seconds.
        end: Where it ends; None: at the end of its file.
        trust_code: Run the code that the run names, see `yt8m_gat.weights.load.load_run`, and load
            the extractor of an archive, of any kind.

    Returns:
        What `yt8m_gat.report.watch.build_watch_page` draws: `video` (its id), `edges` (see
        `frame_edges`), `frames` (`{"second", "jpeg"}` or None, at equal distances), `shape`
        (width and height of the pictures), `labels`, `attention` (`{feature: {level: {side:
        [T]}}}`, what each frame receives), `epsilon`, `warnings`, `extractor`, `model`, `options`
        and `provenance`. Each entry of `labels` has `label`, `name`, `moments` (the pictures of its
        strongest frames) and, for each side, `clean` and `attacked`, its `probability`,
        `activation` ([T], or None) and `spans` (`[[start, end]]`).

    Raises:
        ConfigError: The run has no extractor and none was named, or it does not fit.
        VideoError: The video cannot be read.
    """
    config = RunConfig.load(folder.path)
    require_trust(config, trust_code, folder.path)
    place = place_of_extractor(folder, config, extractor, trust_code)
    schema = read_schema(folder, config)
    names = class_names(folder, schema, label_names)
    loaded = load_run(folder, config, checkpoint, trust_code)
    extract = Extractor.load(place, picture=picture, sound=sound)
    path = os.fspath(video)
    extracted = extract(path, start=start, end=end)
    [name] = clip_ids([Clip(path)])
    batch = batch_of_video(extracted, schema, name)
    features, mask = preprocess(batch["features"], batch["num_frames"], config.data.normalize)
    num_frames = int(batch["num_frames"][0])
    seconds = extracted.seconds[:num_frames]
    edges = frame_edges(seconds, extracted.duration)

    evaluator = build_evaluator(loaded.classifier, config)
    objective = config.objective
    attack = build_attack("fgm", objective.epsilon, AttackOptions(norm_scope=objective.norm_scope))

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return evaluator.loss(labels, logits, None)

    clean_logits = evaluator.forward(features, mask).logits
    attacked = attack.attack(evaluator.forward, loss, features, mask, own_labels(clean_logits))
    sides = {"clean": (features, clean_logits), "attacked": (attacked.features, attacked.logits)}
    top_k = min(top_k, config.data.num_classes)
    classes = list(
        dict.fromkeys(
            int(index)
            for _, logits in sides.values()
            for index in tf.math.top_k(logits[0], top_k).indices
        )
    )
    shown = {
        side: class_activation(evaluator.forward, x, mask, lambda _: tf.constant([classes]))
        for side, (x, _) in sides.items()
    }
    labels = []
    for place, index in enumerate(classes):
        entry: dict[str, Any] = {"label": index, "name": names.get(index)}
        for side, (_, logits) in sides.items():
            activation = shown[side].activation
            values = None if activation is None else activation[0, place].numpy().tolist()
            spans = [] if values is None else carrying_spans(values, edges)
            entry[side] = {
                "probability": float(loaded.classifier.probabilities(logits)[0, index]),
                "activation": values,
                "spans": [[span.start, span.end] for span in spans],
            }
        labels.append(entry)
    profiles = {
        side: clip_attention(
            of_side.outputs.attention_maps, mask, 0, square_maps(loaded.classifier)
        )["profiles"]
        for side, of_side in shown.items()
    }
    film = [int((place + 0.5) * num_frames / FILM_FRAMES) for place in range(FILM_FRAMES)]
    film = list(dict.fromkeys(film))
    moments = [strongest_frames(entry["clean"]["activation"], MOMENTS) for entry in labels]
    wanted = {*film, *(frame for frames in moments for frame in frames)}
    with Video(path, start=start, end=end, max_seconds=extract.config.max_seconds) as opened:
        pictures = pictures_of(opened, extract.config.frames_per_second, wanted)
    for entry, frames in zip(labels, moments, strict=True):
        entry["moments"] = [pictures[frame] for frame in frames if frame in pictures]
    shapes = [picture["shape"] for picture in pictures.values()]
    return {
        "video": name,
        "edges": edges.tolist(),
        "frames": [pictures.get(frame) for frame in film],
        "shape": shapes[0] if shapes else (16, 9),
        "labels": labels,
        "attention": {
            feature: {
                level: {side: profiles[side][feature][level] for side in profiles}
                for level in levels
            }
            for feature, levels in profiles["clean"].items()
        },
        "epsilon": objective.epsilon,
        "warnings": [f"{name}: {fault}" for fault in extracted.faults],
        "extractor": extract.config.description,
        "model": config.model.name,
        "options": config.model.options,
        "provenance": weights_of(folder, checkpoint, loaded),
    }


def own_labels(logits: tf.Tensor) -> tf.Tensor:
    """Returns the labels that a model gives, multi-hot float32 [B, C].

    They are the classes of at least 50 %, or the likeliest class if there are none.
    """
    likely = logits >= 0.0
    first = tf.one_hot(tf.argmax(logits, axis=-1), tf.shape(logits)[-1], True, False)
    return tf.cast(tf.logical_or(likely, first), tf.float32)


def strongest_frames(activation: Sequence[float] | None, most: int) -> list[int]:
    """Returns the strongest frames of a label, in the order of time.

    They are the highest frames of separate stretches with positive activation: neighbours look
    alike.
    """
    if activation is None:
        return []
    values = np.asarray(activation)
    spans = carrying_spans(values, np.arange(len(values) + 1))
    peaks = [int(s.start) + int(np.argmax(values[int(s.start) : int(s.end)])) for s in spans]
    return sorted(sorted(peaks, key=lambda frame: -values[frame])[:most])


def pictures_of(video: Video, rate: float, wanted: set[int]) -> dict[int, dict[str, Any]]:
    """Returns the pictures of some frames: frame -> `{"second", "jpeg", "shape"}`.

    A video without pictures has none, and one that ends early has fewer.

    Args:
        video: The opened file.
        rate: Frames a second.
        wanted: The frames, counted from 0.
    """
    pictures: dict[int, dict[str, Any]] = {}
    if not video.info.has_picture:
        return pictures
    frames = video.frames(frames_per_second=rate, short_side=PICTURE_SIDE)
    for place, frame in enumerate(itertools.islice(frames, max(wanted, default=-1) + 1)):
        if place in wanted:
            height, width, _ = frame.image.shape
            pictures[place] = {
                "second": frame.seconds,
                "jpeg": tf.io.encode_jpeg(frame.image, quality=JPEG_QUALITY).numpy(),
                "shape": (width, height),
            }
    return pictures
