"""The comparison of an evaluated run with a baseline: class by class, and row by row."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from yt8m_gat.attacks import Attack
from yt8m_gat.evaluation.comparison import accuracy_gains, compare_classes, difference_intervals
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.evaluation.measurement import Measurement
from yt8m_gat.evaluation.record import EvaluationRecord, as_json, attacked_rows
from yt8m_gat.pipeline.attack_plan import PlannedAttack
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.pipeline.evaluation_rows import figures_by_clip
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.pipeline.run_settings import read_schema
from yt8m_gat.robustness.paired_test import paired_test
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.files import weights_digest
from yt8m_gat.weights.load import load_run

EVALUATION_FILE = "evaluation.json"
# Settings by which rows of the two runs are of the same clips and attacks.
_SHARED = (
    *("files", "num_files", "max_videos", "batch_size", "top_k", "segment_labels"),
    *("on_bad_record", "norm_scope", "clip_to_range", "round_to_levels"),
)
_CLEAN = {"attack": None, "epsilon": None}
_IDENTITY = (*_CLEAN, "options", "transfer_weights")
# What a paired test needs of a row.
_TESTED = ("gap", "hit_at_1", "hits", "resampled")


def add_comparison(
    run: EvaluatedRun,
    record: EvaluationRecord,
    clean: Callable[[], Measurement],
    planned: Sequence[PlannedAttack] = (),
) -> None:
    """Compares a run with its baseline: each class, and the clean and attacked rows.

    The baseline is measured clean, and under the same attacks, made on the baseline itself. What
    the record has is not measured again; attacked rows are also taken from the baseline's own
    `evaluation.json`, if that has the same settings.

    Args:
        run: The run and its videos.
        record: The record of the evaluation, with its rows.
        clean: Returns the clean measurement of the run, with the scores that resampling needs.
        planned: The attacks of the evaluation.
    """
    baseline = _Baseline(run)
    earlier = record.section("comparison")
    classes = record.result["classes"]
    accuracy = classes.get("accuracy")
    of_baseline, intervals = None, earlier.get("intervals")
    if _holds_baseline(earlier, baseline.digest, run.options.min_positives, accuracy is not None):
        theirs = np.array(earlier["baseline_ap"], np.float64)
        their_accuracy = earlier.get("baseline_accuracy")
        rows = [*earlier["baseline_rows"]]
    else:
        of_baseline = baseline.measure(None, "baseline")
        theirs = of_baseline.per_class_average_precision()
        their_accuracy = of_baseline.metrics.per_class_accuracy()
        rows = [_row(_CLEAN, of_baseline)]
        if earlier.get("weights") == baseline.digest:
            rows += [row for row in earlier.get("baseline_rows", []) if row["attack"] is not None]
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
    comparison = {
        "baseline": os.fspath(baseline.folder.path),
        "weights": baseline.digest,
        "attack": None,
        **comparison,
        "intervals": intervals,
        "baseline_ap": theirs.tolist(),
        **(accuracy_gains(accuracy, their_accuracy) if accuracy is not None else {}),
    }
    record.set(comparison=comparison | _with_tests(record.result, rows))
    for attack in baseline.comparable(planned):
        identity = as_json(attack.identity)
        if _found(identity, rows) is None:
            row = _found(identity, baseline.stored_rows)
            rows.append(row or _row(identity, baseline.measure(attack.attack, attack.description)))
            record.set(comparison=comparison | _with_tests(record.result, rows))


def _with_tests(
    result: Mapping[str, Any], baseline_rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns `rows`, the paired test of each row that the baseline has too, and its own rows."""
    tests = []
    for ours in (_CLEAN | result["clean"], *result["attacks"]):
        identity = {name: ours[name] for name in _IDENTITY if name in ours}
        theirs = _found(identity, baseline_rows)
        if theirs is not None and "resampled" in ours:
            shown = {name: ours[name] for name in _CLEAN}
            tests.append(shown | paired_test(ours, theirs))
    return {"rows": tests, "baseline_rows": [*baseline_rows]}


def _holds_baseline(
    earlier: dict[str, Any], digest: str | None, min_positives: int, needs_accuracy: bool
) -> bool:
    """Returns whether an earlier comparison has all that one with these weights needs."""
    return (
        earlier.get("weights") == digest
        and earlier.get("min_positives") == min_positives
        and "intervals" in earlier
        and "baseline_rows" in earlier
        and (not needs_accuracy or earlier.get("baseline_accuracy") is not None)
    )


def _row(identity: Mapping[str, Any], measured: Measurement) -> dict[str, Any]:
    """Returns what a paired test needs of the baseline."""
    resampled = measured.metrics.resampled()
    row = {**identity, **measured.result(), **figures_by_clip(measured, resampled)}
    return as_json({name: row[name] for name in (*identity, *_TESTED)})


def _found(identity: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns the row of an attack that has what a paired test needs; None without one."""
    for row in rows:
        if identity.items() <= row.items() and set(_TESTED) <= row.keys():
            return {name: row[name] for name in (*identity, *_TESTED)}
    return None


class _Baseline:
    """The baseline of a comparison; it is loaded when something has to be measured.

    Attributes:
        folder: Its folder.
        digest: The digest of its weights.
    """

    def __init__(self, run: EvaluatedRun) -> None:
        self.folder: RunFolder
        self.folder, self._config = run.baseline
        self.digest = weights_digest(self.folder, "best")
        self._run = run
        self._evaluator: Evaluator | None = None
        self._stored: list[dict[str, Any]] | None = None

    def measure(self, attack: Attack | None, description: str) -> Measurement:
        """Measures it on the videos of the evaluation."""
        evaluator, run = self._loaded_evaluator(), self._run
        if attack is not None:
            description = f"baseline, {description}"
        batches = run.batches(read_schema(self.folder, self._config))
        return evaluator.measure(batches, attack, run.num_videos, description)

    def _loaded_evaluator(self) -> Evaluator:
        if self._evaluator is None:
            run = self._run
            loaded = load_run(self.folder, self._config, trust_code=run.options.trust_code)
            self.digest = loaded.digest
            self._evaluator = build_evaluator(
                loaded.classifier, self._config, top_k=run.options.top_k, all_scores=run.all_scores
            )
        return self._evaluator

    @property
    def stored_rows(self) -> list[dict[str, Any]]:
        """The attacked rows of its own file, if they are of these videos and settings."""
        if self._stored is None:
            settings = self._run.settings()
            shared = {name: settings[name] for name in _SHARED}
            shared |= {"weights": self.digest, "checkpoint": "best"}
            path = self.folder.path / EVALUATION_FILE
            self._stored = attacked_rows(path, shared)
            if self._stored:
                print(
                    f"--compare_to: attacked rows of the baseline are taken from {path} where it "
                    "has them",
                    file=sys.stderr,
                )
        return self._stored

    def comparable(self, planned: Sequence[PlannedAttack]) -> list[PlannedAttack]:
        """Returns the attacks that mean the same on both runs, and says which do not."""
        ours, theirs = self._run.config, self._config
        names = ("sizes", "feature_types", "normalize", "clips")
        if any(getattr(ours.data, name) != getattr(theirs.data, name) for name in names):
            if planned:
                print(
                    f"--compare_to: {self.folder.path} takes other features, so that no radius is "
                    "the same on both runs; only the clean rows are compared",
                    file=sys.stderr,
                )
            return []
        on_maps = [attack for attack in planned if attack.attack.name.startswith("adaptive")]
        if on_maps and "global" not in self._loaded_evaluator().classifier.attention_levels:
            print(
                f"--compare_to: {self.folder.path} has no global attention maps; the attack "
                "adaptive is not compared",
                file=sys.stderr,
            )
            return [attack for attack in planned if attack not in on_maps]
        return list(planned)
