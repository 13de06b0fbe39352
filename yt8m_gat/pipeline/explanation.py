"""The job that explains one label of one clip."""

import difflib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import Reader, find_files, preprocess
from yt8m_gat.import_path import require_trust
from yt8m_gat.pipeline.run_extractor import check_extractor
from yt8m_gat.pipeline.run_settings import class_names, read_schema
from yt8m_gat.pipeline.shown_clips import TOP_LABELS
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import weights_of


def explain(
    folder: RunFolder,
    *,
    input_data_pattern: str,
    video_id: str,
    label: int | str,
    label_names: str | os.PathLike | None = None,
    checkpoint: str = "best",
    trust_code: bool = False,
) -> dict[str, Any]:
    """Explains why a run gives a clip a label, by curves over the clip's real frames.

    Args:
        folder: The run, a frame-level one.
        input_data_pattern: Files that hold the clip.
        video_id: The clip.
        label: The class, or its name in `label_names`.
        label_names: File that names the classes, see `yt8m_gat.data.read_label_names`; None: the
            run's label map, if any.
        checkpoint: `best` or `last`.
        trust_code: Run the code that the run names, see `yt8m_gat.weights.load.load_run`.

    Returns:
        `{"video_id", "labels", "label", "name", "probability", "top", "model", "options", "files",
        "provenance", "curves": {kind: {feature: [value per frame]}}, "num_frames",
        "similarity": {feature: rows}, "heads": {feature: [rows of each head]}}`: rows of frames,
        or of blocks of them (`downsample_map`); `labels` the true classes,
        `[[class, name]]`, `top` the likeliest ones, `[[class, name, probability]]`; a name is None
        where it is not known. `provenance` says which weights were used, see `weights_of`.

    Raises:
        ConfigError: The run is video-level, or there is no such class or clip.
    """
    # Imported here, since it is slow to import and only this job needs it.
    from yt8m_gat.explanation.attention_statistics import downsample_map
    from yt8m_gat.explanation.explain import explain as explain_clip

    config = RunConfig.load(folder.path)
    require_trust(config, trust_code, folder.path)
    if not config.data.frame_features:
        raise ConfigError(f"explaining needs a frame-level run; {folder.path} is video-level")
    schema = read_schema(folder, config)
    names = class_names(folder, schema, label_names)
    label = _label_index(label, names, config.data.num_classes)
    files = find_files(input_data_pattern, "input_data_pattern")
    check_extractor(folder, files, "input_data_pattern")
    for batch in Reader(files, schema, config.training.batch_size):
        places = [i for i, key in enumerate(batch["video_id"].numpy()) if key == video_id.encode()]
        if places:
            break
    else:
        raise ConfigError(f"--video_id={video_id!r} is in no file of {input_data_pattern}")
    features, mask = preprocess(batch["features"], batch["num_frames"], config.data.normalize)
    place = places[0]
    real = mask[place].numpy()
    loaded = load_run(folder, config, checkpoint, trust_code)
    clip = {name: value[place].numpy() for name, value in features.items()}
    explanation = explain_clip(loaded.classifier, clip, real, label)
    kinds = {
        "Saliency": explanation.saliency,
        "SmoothGrad": explanation.smooth_grad,
        "Grad-CAM++": {}
        if explanation.grad_cam is None
        else {"all features": explanation.grad_cam},
        "Attention profile": explanation.attention,
    }
    return {
        "video_id": video_id,
        "labels": [
            [int(index), names.get(int(index))]
            for index in np.flatnonzero(batch["labels"][place].numpy() > 0)
        ],
        "label": label,
        "name": names.get(label),
        "probability": float(explanation.probabilities[label]),
        "top": [
            [int(index), names.get(int(index)), float(explanation.probabilities[index])]
            for index in np.argsort(-explanation.probabilities, kind="stable")[:TOP_LABELS]
        ],
        "model": config.model.name,
        "options": config.model.options,
        "files": input_data_pattern,
        "provenance": weights_of(folder, checkpoint, loaded),
        "curves": {
            kind: {name: curve[real].tolist() for name, curve in curves.items()}
            for kind, curves in kinds.items()
        },
        "num_frames": int(real.sum()),
        "similarity": {
            name: downsample_map(rows).round(4).tolist()
            for name, rows in explanation.similarity.items()
        },
        "heads": {
            name: [downsample_map(head).round(6).tolist() for head in maps]
            for name, maps in explanation.maps.items()
        },
    }


def _label_index(label: int | str, names: Mapping[int, str], num_classes: int) -> int:
    """Returns the class of a number or a name, whose letter case may differ.

    Raises:
        ConfigError: There is no such class, or several have that name.
    """
    text = str(label).strip()
    matches = [index for index, name in names.items() if name == text]
    if not matches:
        matches = [index for index, name in names.items() if name.lower() == text.lower()]
    if not matches and text.removeprefix("-").isdecimal():
        matches = [int(text)]
    if not matches:
        if not names:
            raise ConfigError(
                f"--label must be a number, or a name with --label_names. Received: {text!r}"
            )
        near = difflib.get_close_matches(text, names.values())
        remedy = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"--label={text!r} is no name of --label_names{remedy}")
    if len(matches) > 1:
        raise ConfigError(
            f"--label={text!r} is the name of several classes: {', '.join(map(str, matches))}; "
            "give the number"
        )
    if not 0 <= matches[0] < num_classes:
        raise ConfigError(f"--label must be in 0 .. {num_classes - 1}. Received: {matches[0]}")
    return matches[0]
