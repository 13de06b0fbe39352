"""The job that predicts video files: decoded, extracted and classified in one go."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import find_files
from yt8m_gat.data.identity import files_digest
from yt8m_gat.data.progress import progress_bar
from yt8m_gat.digests import digest_of
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.import_path import require_trust
from yt8m_gat.job_settings import InferenceSettings
from yt8m_gat.paths import require_own_files
from yt8m_gat.pipeline.calibration import calibration_of
from yt8m_gat.pipeline.run_extractor import place_of_extractor
from yt8m_gat.pipeline.run_settings import class_names, read_schema
from yt8m_gat.pipeline.video_prediction import VideoClassification, VideoPrediction
from yt8m_gat.prediction.submission import JsonLinesWriter, SubmissionWriter
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.video.clips import Clip, clip_ids
from yt8m_gat.video.decoding import VideoError
from yt8m_gat.weights.load import load_run

MOST_DIGITS = 6
"""Digits of the probabilities and seconds in JSON; those of the CSV."""


def infer_videos(
    folder: RunFolder,
    *,
    input_video_pattern: str,
    output_file: str | os.PathLike,
    format: str = InferenceSettings.format,
    top_k: int = InferenceSettings.top_k,
    checkpoint: str = InferenceSettings.checkpoint,
    on_bad_record: str = InferenceSettings.on_bad_record,
    extractor: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    sound: str | os.PathLike | None = None,
    label_names: str | os.PathLike | None = None,
    trust_code: bool = False,
) -> int:
    """Writes the predictions of a trained run on video files, with the extractor of the run.

    It is resumable, as `yt8m_gat.pipeline.infer` is, after each video.

    Args:
        folder: The run, a frame-level one.
        input_video_pattern: The video files.
        output_file: The file to write.
        format: `csv`, the Kaggle CSV of 2018; or `json`, one object a line: `video_id`, `file`,
            `duration`, `num_frames`, `faults`, and `labels`, each with its `label`, `name`,
            `probability` and `seconds`, the stretches `[start, end]` that carried it. A calibrated
            run adds `tags`, each with its `label`, `name` and calibrated `probability`.
        top_k: Labels per video.
        checkpoint: `best` or `last`.
        on_bad_record: `error`: stop at a video that cannot be read; or `skip`: report it, and
            leave it out.
        extractor: See `place_of_extractor`.
        picture: Weights of its picture model, if they are elsewhere by now.
        sound: Likewise of its sound model.
        label_names: File that names the classes, see `class_names`.
        trust_code: Run the code that the run names, see `yt8m_gat.weights.load.load_run`, and load
            the extractor of an archive, of any kind.

    Returns:
        The number of videos predicted.

    Raises:
        ConfigError: There is no extractor, it does not fit the run, or no video could be read.
        VideoError: A video cannot be read, with `on_bad_record=error`.
    """
    config = RunConfig.load(folder.path)
    require_trust(config, trust_code, folder.path)
    files = find_files(input_video_pattern, "input_video_pattern")
    require_own_files(
        {"--output_file": output_file},
        {
            **folder.own_files(),
            **dict.fromkeys(files, "a file of --input_video_pattern"),
            **{picture: "the file of --picture", sound: "the file of --sound"},
            label_names: "the file of --label_names",
        },
    )
    place = place_of_extractor(folder, config, extractor, trust_code)
    schema = read_schema(folder, config)
    names = class_names(folder, schema, label_names)
    loaded = load_run(folder, config, checkpoint, trust_code)
    extract = Extractor.load(place, picture=picture, sound=sound, features=schema.feature_names)
    calibration = None
    if format == "json":
        calibration = calibration_of(folder, config.data.num_classes, loaded.digest)
    settings = {
        "weights": loaded.digest,
        "configuration": digest_of([config.to_json().encode()]),
        "videos": files_digest(files),
        "extractor": digest_of([extract.config.to_json().encode()]),
        "top_k": top_k,
        "names": digest_of([repr(sorted(names.items())).encode()]) if format == "json" else None,
        "versions": [tf.__version__, keras.__version__, np.__version__],
        "on_bad_record": on_bad_record,
    }
    if calibration is not None:
        settings["calibration"] = digest_of([calibration.to_json().encode()])
    classify = VideoClassification(
        loaded.classifier,
        schema,
        config.data.normalize,
        top_k,
        with_activation=format == "json",
        calibration=calibration,
    )
    num_bad = 0
    if format == "json":
        writer = JsonLinesWriter(output_file, settings)
    else:
        writer = SubmissionWriter(output_file, top_k, settings)
    with writer:
        done = writer.num_batches
        if done:
            print(f"{output_file}: going on after {done} videos", file=sys.stderr)
        clips = [Clip(path) for path in files]
        ids, clips = clip_ids(clips)[done:], clips[done:]
        with progress_bar("predict", len(clips)) as bar:
            for name, clip, extracted in zip(ids, clips, extract.many(clips), strict=True):
                if not isinstance(extracted, VideoError):
                    for fault in extracted.faults:
                        bar.write(printable(f"warning: {clip.path}: {fault}"), file=sys.stderr)
                    _write(writer, clip.path, classify(extracted, name), names)
                elif on_bad_record == "skip":
                    num_bad += 1
                    bar.write(printable(f"left out: {extracted}"), file=sys.stderr)
                    _write(writer, clip.path, None, names)
                else:
                    raise VideoError(
                        f"{extracted} (--on_bad_record=skip leaves such videos out)"
                    ) from extracted
                bar.update()
        if not writer.num_rows:
            raise ConfigError(f"none of {len(files)} videos could be read: {input_video_pattern}")
    if num_bad:
        print(f"{num_bad} of {len(clips)} videos could not be read", file=sys.stderr)
    return writer.num_rows


def _write(
    writer: SubmissionWriter | JsonLinesWriter,
    path: str,
    predicted: VideoPrediction | None,
    names: Mapping[int, str],
) -> None:
    """Writes one video; None for a bad one, which counts for resuming and has no row."""
    if isinstance(writer, JsonLinesWriter):
        writer.write([] if predicted is None else [json_object(path, predicted, names)])
    elif predicted is None:
        writer.write_ranked([], np.empty((0, 1), int), np.empty((0, 1)))
    else:
        writer.write_ranked(
            [predicted.video_id], predicted.labels[np.newaxis], predicted.probabilities[np.newaxis]
        )


def json_object(path: str, predicted: VideoPrediction, names: Mapping[int, str]) -> dict[str, Any]:
    """Returns the line of a video; see `infer_videos`."""
    return {
        "video_id": predicted.video_id,
        "file": path,
        "duration": _rounded(predicted.duration),
        "num_frames": len(predicted.edges) - 1,
        "faults": list(predicted.faults),
        "labels": [
            {
                "label": int(label),
                "name": names.get(int(label)),
                "probability": _rounded(probability),
                "seconds": [[_rounded(s.start), _rounded(s.end)] for s in predicted.spans(place)],
            }
            for place, (label, probability) in enumerate(
                zip(predicted.labels, predicted.probabilities, strict=True)
            )
        ],
        **_tags(predicted, names),
    }


def _tags(predicted: VideoPrediction, names: Mapping[int, str]) -> dict[str, Any]:
    """Returns the tags of a video under `tags`; nothing for a run that is not calibrated."""
    if predicted.tags is None:
        return {}
    tags = [
        {"label": label, "name": names.get(label), "probability": _rounded(probability)}
        for label, probability in predicted.tags.items()
    ]
    return {"tags": tags}


def _rounded(value: float) -> float:
    return float(f"{float(value):.{MOST_DIGITS}g}")
