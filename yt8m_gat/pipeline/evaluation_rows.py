"""The rows of an evaluation: clean, under each attack, under each corruption."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yt8m_gat.config import ConfigError
from yt8m_gat.data import no_label
from yt8m_gat.evaluation.evaluator import Corruption, Observer
from yt8m_gat.evaluation.measurement import Measurement
from yt8m_gat.evaluation.record import ROW_KEYS, EvaluationRecord
from yt8m_gat.explanation.attention_statistics import AttentionProfiles
from yt8m_gat.metrics.bootstrap import intervals_of
from yt8m_gat.pipeline.attack_plan import PlannedAttack
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.pipeline.profile_observer import ProfileObserver
from yt8m_gat.pipeline.run_evaluator import MAP_FIGURES, square_maps
from yt8m_gat.robustness.worst_case import packed, packed_pairs, packed_values

# Clips up to which rows keep the pairs of GAP, for its worst case: 110 bytes a clip and row.
MAX_CLIPS_WITH_PAIRS = 2000


class EvaluationRows:
    """Measures rows that the record does not have yet, with the sections measured beside them.

    Args:
        run: The run and its videos.
        record: The record of the evaluation.
        attacked: Whether the evaluation has attacks: rows then keep what their worst case needs.
    """

    def __init__(self, run: EvaluatedRun, record: EvaluationRecord, attacked: bool) -> None:
        self.run = run
        self.record = record
        self.attacked = attacked
        self._clean: Measurement | None = None  # Kept only for a comparison.
        self._measured: set[str] = set()
        # What tests against a baseline, or the worst case, need of each row.
        self._needed: tuple[str, ...] = ("hits",) if attacked else ()
        if run.baseline is not None:
            self._needed = ("hits", "resampled")
        # An earlier call without --attention may have left out the figures of the maps.
        self._figures: tuple[str, ...] = ()
        if run.evaluator.measures_maps and run.classifier.has_costly_maps:
            self._figures = tuple(f"{MAP_FIGURES[0]}_{name}" for name in run.config.data.sizes)

    def add_clean(self) -> None:
        """Measures the clean row, the figures of each class, and attention profiles if asked for.

        Raises:
            ConfigError: No video has a label.
        """
        run = self.run
        classes, attention = self.record.section("classes"), self.record.section("attention")
        profiled = attention.get("profiles") is not None
        needed = ["zero_gradient_share"] if self.attacked else []
        needed += self._needed
        if (
            classes
            and (profiled or not run.options.attention)
            and self.record.take_over("clean", {}, *needed)
        ):
            self.record.set(classes=self._with_names(classes))
            return
        profiles = self._profiles()
        measured = self._measure_clean([profiles.observe] if profiles else [])
        # The files hold labels, but the videos that were measured may not.
        if not measured.positives.any():
            in_segments = run.segments is not None
            raise no_label(run.schema, "eval_data_pattern", in_segments, measured.num_examples)
        if run.baseline is not None:
            self._clean = measured
        sections = {"classes": self._with_names(_class_figures(measured))}
        if profiles:
            sections["attention"] = {**attention, "profiles": profiles.statistics.result()}
        self._add("clean", {}, measured, **sections)

    def clean_measurement(self) -> Measurement:
        """Returns the clean measurement, whose scores the row of an earlier call does not hold."""
        return self._clean or self._measure_clean()

    def _measure_clean(self, observers: Sequence[Observer] = ()) -> Measurement:
        # With attacks, the row says for how many clips they have no gradient to follow.
        return self.run.measure(None, "clean", observers, zero_gradients=self.attacked)

    def add_attack(self, planned: PlannedAttack, with_profiles: bool) -> None:
        """Measures one attack.

        Args:
            planned: The attack.
            with_profiles: Measure attention profiles too, if the options ask for them.
        """
        identity = planned.identity
        needs_profiles = with_profiles and self.run.options.attention
        attention = self.record.section("attention")
        of_attack = {key: identity[key] for key in ("attack", "epsilon")}
        is_profiled = attention.get("attacked_profiles") is not None and all(
            attention.get(key) == value for key, value in of_attack.items()
        )
        if (is_profiled or not needs_profiles) and self.record.take_over(
            "attacks", identity, *self._needed, *self._figures
        ):
            return
        profiles = self._profiles() if needs_profiles else None
        observers = [profiles.observe] if profiles else []
        measured = self.run.measure(planned.ready(), planned.description, observers)
        sections = {}
        if profiles:
            sections["attention"] = {
                **attention,
                **of_attack,
                "attacked_profiles": profiles.statistics.result(),
            }
        passes = planned.attack.cost._asdict()
        self._add("attacks", {**identity, "passes": passes}, measured, **sections)

    def add_corruption(self, corruption: Corruption) -> None:
        """Measures one corruption at one severity."""
        identity = {"corruption": corruption.name, "severity": corruption.severity}
        if not corruption.per_frame:
            identity["draws"] = "clip"
        if not self.record.take_over("corruptions", identity, *self._figures):
            measured = self.run.measure(corruption, f"{corruption.name} {corruption.severity}")
            self._add("corruptions", identity, measured)

    def names_of_earlier(self, result: Mapping[str, Any]) -> list[str]:
        """Returns the names of the rows of `result` that this call has not measured."""
        rows = {**result, "clean": [result["clean"]]}
        names = [_row_name(kind, row) for kind in ROW_KEYS for row in rows[kind]]
        return [name for name in names if name not in self._measured]

    def _add(
        self, kind: str, identity: Mapping[str, Any], measured: Measurement, **sections: Any
    ) -> None:
        partitions = self.run.options.partitions
        try:
            row = measured.result(partitions)
        except ValueError as error:
            raise ConfigError(f"--partitions={partitions}: {error}") from error
        resampled = measured.metrics.resampled()
        row["intervals"] = intervals_of(resampled)
        if self._needed and kind != "corruptions":
            row |= figures_by_clip(measured, resampled)
            if self.attacked and measured.num_examples <= MAX_CLIPS_WITH_PAIRS:
                row["pairs"] = packed_pairs(*measured.metrics.top_pairs)
        self._measured.add(_row_name(kind, identity))
        self.record.add(kind, identity, row, measured.group_results(), **sections)

    def _with_names(self, classes: Mapping[str, Any]) -> dict[str, Any]:
        named = {key: value for key, value in classes.items() if key != "names"}
        if self.run.names:
            num_classes = self.run.config.data.num_classes
            names = {index: name for index, name in self.run.names.items() if index < num_classes}
            named["names"] = {str(index): name for index, name in names.items()}
        return named

    def _profiles(self) -> ProfileObserver | None:
        run = self.run
        if not run.options.attention:
            return None
        return ProfileObserver(run.evaluator, AttentionProfiles(square_maps(run.classifier)))


def figures_by_clip(measured: Measurement, resampled: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns `hits`, a bit per clip, and `resampled`, metrics on each resample, of a row."""
    values = {name: packed_values(of_metric) for name, of_metric in resampled.items()}
    return {"hits": packed(measured.metrics.hits_at_1), "resampled": values}


def _class_figures(measured: Measurement) -> dict[str, Any]:
    classes = {
        "ap": measured.per_class_average_precision().tolist(),
        "positives": measured.positives.tolist(),
    }
    accuracy = measured.metrics.per_class_accuracy()
    if accuracy is not None:
        classes["accuracy"] = accuracy.tolist()
    return classes


def _row_name(kind: str, row: Mapping[str, Any]) -> str:
    """Returns, for example, `clean`, `fgm 0.5` or `frame_drop 3`."""
    values = [row[key] for key in ROW_KEYS[kind]]
    return " ".join(str(value) for value in values if value is not None) or kind
