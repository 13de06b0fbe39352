"""The job that calibrates a run, and the calibration that other jobs use."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.calibration import Calibration
from yt8m_gat.config import MAX_BAD_FRACTION, ConfigError, RunConfig
from yt8m_gat.data import Reader, check_labels, count_records, find_files, no_label, preprocess
from yt8m_gat.data.progress import advance, progress_bar
from yt8m_gat.evaluation.first_videos import first_videos
from yt8m_gat.import_path import require_trust
from yt8m_gat.metrics import calibration as fits
from yt8m_gat.pipeline.run_extractor import check_extractor
from yt8m_gat.pipeline.run_settings import on_segments, read_schema
from yt8m_gat.provenance import command_line
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import LoadedClassifier

MAX_SCORE_BYTES = 4 * 2**30
"""Most memory for logits, 4 bytes times clips times classes."""


def calibrate(
    folder: RunFolder,
    *,
    eval_data_pattern: str,
    checkpoint: str = "best",
    batch_size: int | None = None,
    max_videos: int = 0,
    min_positives: int = 10,
    on_bad_record: str = "error",
    max_bad_fraction: float = MAX_BAD_FRACTION,
    trust_code: bool = False,
) -> Calibration:
    """Fits temperature and thresholds on labelled clips and keeps them in the run folder.

    The temperature has the least negative log-likelihood; the threshold of a class has the
    greatest F1 of its calibrated probabilities. See `yt8m_gat.metrics.calibration`. Of rated
    segments, only the rated pairs count.

    Args:
        folder: The run.
        eval_data_pattern: Records with labels that the run was not trained on.
        checkpoint: `best` or `last`.
        batch_size: Clips at once; None: as in training.
        max_videos: Only the first videos; 0: all.
        min_positives: Clips of a class from which on it has a threshold of its own.
        on_bad_record: `error`, or `skip`: leave out bad records and report them at the end.
        max_bad_fraction: See `yt8m_gat.data.SkippedRecords`.
        trust_code: Run the code that the run names, see `yt8m_gat.weights.load.load_run`.

    Raises:
        ConfigError: No clip has a label, or the logits would not fit in `MAX_SCORE_BYTES`.
        InUseError: The run is in training.
    """
    config = RunConfig.load(folder.path)
    require_trust(config, trust_code, folder.path)
    segments = "rated" if on_segments(config, None) else None
    files = find_files(eval_data_pattern, "eval_data_pattern")
    check_extractor(folder, files, "eval_data_pattern")
    schema = read_schema(folder, config)
    check_labels(files, schema, "eval_data_pattern", segments=segments is not None)
    with folder.only_writer():
        loaded = load_run(folder, config, checkpoint, trust_code)
        num_records = count_records(files, skip_damage=on_bad_record == "skip")
        num_videos = min(num_records, max_videos or num_records)
        most = MAX_SCORE_BYTES // (4 * config.data.num_classes)
        reader = Reader(
            files,
            schema,
            batch_size or config.training.batch_size,
            segments=segments,
            on_bad_record=on_bad_record,
            max_bad_fraction=max_bad_fraction,
        )
        classify = _logits_function(loaded.classifier, config.data.normalize)
        parts: dict[str, list[np.ndarray]] = {"labels": [], "logits": [], "label_weights": []}
        num_examples, last_id = 0, b""
        with progress_bar("calibrate", num_videos) as bar:
            for batch in first_videos(reader, max_videos):
                logits = classify(batch["features"], batch.get("num_frames")).numpy()
                num_examples += len(logits)
                if num_examples > most:
                    raise ConfigError(
                        f"calibration keeps the logits of all clips in memory, at most {most} of "
                        f"{config.data.num_classes} classes. Received: more; give --max_videos"
                    )
                parts["logits"].append(logits)
                parts["labels"].append(batch["labels"].numpy() > 0)
                if "label_weights" in batch:
                    parts["label_weights"].append(batch["label_weights"].numpy())
                last_id = advance(bar, batch, last_id)
        if reader.skipped is not None:
            print(reader.skipped.summary(), file=sys.stderr)
        if not any(labels.any() for labels in parts["labels"]):
            raise no_label(schema, "eval_data_pattern", segments is not None, num_examples)
        labels, logits = np.concatenate(parts["labels"]), np.concatenate(parts["logits"])
        weights = np.concatenate(parts["label_weights"]) if parts["label_weights"] else None
        fields = _fitted(loaded, labels, logits, weights, min_positives, checkpoint)
        calibration = Calibration(
            **fields, pattern=eval_data_pattern, command=tuple(command_line())
        )
        calibration.save(folder.path)
    return calibration


def _fitted(
    loaded: LoadedClassifier,
    labels: np.ndarray,
    logits: np.ndarray,
    weights: np.ndarray | None,
    min_positives: int,
    checkpoint: str,
) -> dict[str, Any]:
    """Returns the fields of a `Calibration` that follow from the outputs."""
    exclusive = loaded.classifier.exclusive_classes
    temperature = fits.fit_temperature(labels, logits, weights, exclusive)
    bins, tops, nll = [], [], []
    for t in (1.0, temperature):
        probabilities = loaded.classifier.probabilities(logits / t).numpy()
        nll.append(fits.negative_log_likelihood(labels, logits, t, weights, exclusive))
        bins.append(fits.reliability(labels, probabilities, weights))
        tops.append(fits.reliability(*fits.likeliest(labels, probabilities, weights)))
    thresholds = fits.fit_thresholds(labels, probabilities, weights, min_positives)
    return {
        "weights": loaded.digest,
        "checkpoint": checkpoint,
        "step": loaded.step,
        "temperature": temperature,
        "thresholds": tuple(thresholds.of_classes.tolist()),
        "shared_threshold": thresholds.shared,
        "min_positives": min_positives,
        "num_own": int(thresholds.has_own.sum()),
        "num_examples": len(labels),
        "nll": tuple(nll),
        "ece": tuple(map(fits.expected_calibration_error, bins)),
        "top_ece": tuple(map(fits.expected_calibration_error, tops)),
        "bins": tuple(map(tuple, bins[0])),
        "calibrated_bins": tuple(map(tuple, bins[1])),
    }


def _logits_function(classifier: Any, normalize: str) -> Callable[..., tf.Tensor]:
    """Returns a function from a batch's `features` and `num_frames` to logits [B, C], one graph."""

    @tf.function(reduce_retracing=True, autograph=False)
    def classify(features: dict[str, tf.Tensor], num_frames: tf.Tensor | None) -> tf.Tensor:
        features, frame_mask = preprocess(features, num_frames, normalize)
        inputs = features if frame_mask is None else {**features, "frame_mask": frame_mask}
        return tf.cast(classifier(inputs, training=False), tf.float32)

    return classify


def calibration_of(folder: RunFolder, num_classes: int, digest: str) -> Calibration | None:
    """Returns the calibration that a run folder keeps of some weights.

    None: there is none, or it belongs to other weights, which a line on the standard error says.

    Args:
        folder: The run.
        num_classes: C.
        digest: That of the weights in use.

    Raises:
        ConfigError: The file is not a calibration, or is one of another number of classes.
    """
    kept = Calibration.load(folder.path)
    if kept is None:
        return None
    if len(kept.thresholds) != num_classes:
        raise ConfigError(
            f"{folder.path / Calibration.FILE} must have {num_classes} thresholds, one for each "
            f"class of the run. Received: {len(kept.thresholds)}; write it again by `yt8m-gat "
            "calibrate`, or delete it"
        )
    if kept.weights == digest:
        return kept
    of = f"the {kept.checkpoint} weights" + ("" if kept.step is None else f" of step {kept.step}")
    print(
        printable(
            f"warning: {folder.path / Calibration.FILE} belongs to other weights ({of}), and there "
            "are no tags. Write it again by `yt8m-gat calibrate`"
        ),
        file=sys.stderr,
    )
    return None
