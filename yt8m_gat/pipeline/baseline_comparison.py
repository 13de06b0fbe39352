"""The comparison of an evaluated run with a baseline, class by class."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from yt8m_gat.evaluation.comparison import accuracy_gains, compare_classes, difference_intervals
from yt8m_gat.evaluation.measurement import Measurement
from yt8m_gat.evaluation.record import EvaluationRecord
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.pipeline.run_settings import read_schema
from yt8m_gat.weights.files import weights_digest
from yt8m_gat.weights.load import load_run


def add_comparison(
    run: EvaluatedRun, record: EvaluationRecord, clean: Callable[[], Measurement]
) -> None:
    """Measures the baseline of a run, unless the record has its figures, and compares classes.

    Args:
        run: The run and its videos.
        record: The record of the evaluation, with its clean row.
        clean: Returns the clean measurement of the run, with the scores that resampling needs.
    """
    folder, _ = run.baseline
    digest = weights_digest(folder, "best")
    earlier = record.section("comparison")
    classes = record.result["classes"]
    accuracy = classes.get("accuracy")
    of_baseline, intervals = None, earlier.get("intervals")
    if _holds_baseline(earlier, digest, run.options.min_positives, accuracy is not None):
        theirs = np.array(earlier["baseline_ap"], np.float64)
        their_accuracy = earlier.get("baseline_accuracy")
    else:
        digest, of_baseline = _measure_baseline(run)
        theirs = of_baseline.per_class_average_precision()
        their_accuracy = of_baseline.metrics.per_class_accuracy()
    comparison = compare_classes(
        np.array(classes["ap"], np.float64),
        theirs,
        run.names,
        np.array(classes["positives"]),
        run.options.min_positives,
    )
    if of_baseline is not None:
        intervals = {}
        if comparison["top"]:
            intervals = difference_intervals(comparison, clean(), of_baseline)
    record.set(
        comparison={
            "baseline": os.fspath(folder.path),
            "weights": digest,
            "attack": None,
            **comparison,
            "intervals": intervals,
            "baseline_ap": theirs.tolist(),
            **(accuracy_gains(accuracy, their_accuracy) if accuracy is not None else {}),
        }
    )


def _holds_baseline(
    earlier: dict[str, Any], digest: str | None, min_positives: int, needs_accuracy: bool
) -> bool:
    """Returns whether an earlier comparison has all that one with these weights needs."""
    return (
        earlier.get("weights") == digest
        and earlier.get("min_positives") == min_positives
        and "intervals" in earlier
        and (not needs_accuracy or earlier.get("baseline_accuracy") is not None)
    )


def _measure_baseline(run: EvaluatedRun) -> tuple[str, Measurement]:
    """Returns the digest of the baseline's weights, and its clean measurement."""
    folder, config = run.baseline
    loaded = load_run(folder, config, trust_code=run.options.trust_code)
    evaluator = build_evaluator(
        loaded.classifier, config, top_k=run.options.top_k, all_scores=run.all_scores
    )
    batches = run.batches(read_schema(folder, config))
    return loaded.digest, evaluator.measure(batches, None, run.num_videos, "baseline")
