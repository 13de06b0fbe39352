"""Explaining one clip."""

from typing import Any

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    find_files,
    iterate,
    make_dataset,
    preprocess,
)
from yt8m_gat.models import load_classifier
from yt8m_gat.pipeline.run_settings import read_schema
from yt8m_gat.run_folder import RunFolder


def explain(
    folder: RunFolder,
    *,
    input_data_pattern: str,
    video_id: str,
    label: int,
    checkpoint: str = "best",
) -> dict[str, Any]:
    """Why a run gives a clip a label, over the clip's real frames.

    Args:
        folder: The run, a frame-level one.
        input_data_pattern: Files that hold the clip.
        video_id: The clip.
        label: The class.
        checkpoint: `best` or `last`.

    Returns:
        `{"video_id", "label", "probability", "curves": {kind: {feature: [value per frame]}}}`.

    Raises:
        ConfigError: The run has no frames, there is no such class, or no such clip.
    """
    # Not needed, and slow to import, for anything else.
    from yt8m_gat.evaluation.explain import explain as explain_clip

    config = RunConfig.load(folder.path)
    if not config.data.frame_features:
        raise ConfigError(f"explaining needs a frame-level run; {folder.path} is video-level")
    if not 0 <= label < config.data.num_classes:
        raise ConfigError(
            f"--label must be in 0 .. {config.data.num_classes - 1}. Received: {label}"
        )
    files = find_files(input_data_pattern, "input_data_pattern")
    schema = read_schema(folder, config)
    for batch in iterate(make_dataset(files, schema, config.training.batch_size), files):
        places = [i for i, key in enumerate(batch["video_id"].numpy()) if key == video_id.encode()]
        if places:
            break
    else:
        raise ConfigError(f"--video_id={video_id!r} is in no file of {input_data_pattern}")
    features, mask = preprocess(batch["features"], batch["num_frames"], config.data.normalize)
    place = places[0]
    real = mask[place].numpy()
    classifier = load_classifier(folder, config, checkpoint)
    clip = {name: value[place].numpy() for name, value in features.items()}
    found = explain_clip(classifier, clip, real, label)
    kinds = {
        "Saliency": found.saliency,
        "SmoothGrad": found.smooth_grad,
        "Grad-CAM++": {} if found.grad_cam is None else {"all features": found.grad_cam},
        "Attention profile": found.attention,
    }
    return {
        "video_id": video_id,
        "label": label,
        "probability": found.probability,
        "curves": {
            kind: {name: curve[real].tolist() for name, curve in curves.items()}
            for kind, curves in kinds.items()
        },
    }
