"""The job that evaluates a run, clean and perturbed."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from yt8m_gat.attacks import Attack, Ball
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    Reader,
    RecordSchema,
    check_labels,
    count_records,
    find_files,
    no_label,
    preprocess,
)
from yt8m_gat.data.identity import files_digest
from yt8m_gat.digests import digest_of
from yt8m_gat.evaluation.class_groups import read_class_groups
from yt8m_gat.evaluation.comparison import accuracy_gains, compare_classes, difference_intervals
from yt8m_gat.evaluation.evaluator import Corruption, Observer
from yt8m_gat.evaluation.first_videos import first_videos
from yt8m_gat.evaluation.measurement import Measurement
from yt8m_gat.evaluation.record import ROW_KEYS, EvaluationRecord
from yt8m_gat.explanation.attention_statistics import AttentionProfiles
from yt8m_gat.explanation.local_sensitivity import LocalSensitivity
from yt8m_gat.explanation.true_spans import TrueSpan, numbered_spans, read_true_spans
from yt8m_gat.import_path import require_trust
from yt8m_gat.locks import only_writer
from yt8m_gat.pipeline.activation_measures import (
    measure_class_activation,
    measure_true_spans,
)
from yt8m_gat.pipeline.attack_plan import PlannedAttack, first_radius, plan_attacks, shared_options
from yt8m_gat.pipeline.evaluation_checks import check_options, other_run
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.pipeline.gradient_measures import measure_gradients
from yt8m_gat.pipeline.profile_observer import ProfileObserver
from yt8m_gat.pipeline.run_evaluator import build_evaluator, square_maps, total_map_distance
from yt8m_gat.pipeline.run_extractor import check_extractor
from yt8m_gat.pipeline.run_settings import class_names, on_segments, read_schema
from yt8m_gat.pipeline.shown_clips import show_clips
from yt8m_gat.provenance import command_line
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.robustness.sanity import radius_scale, sanity_checks
from yt8m_gat.robustness.worst_case import packed, packed_pairs, worst_cases
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.weights.files import weights_digest
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import weights_of

# Scores kept for the all-scores MAP, mostly on disk (for the segment MAP, in memory): 4 bytes times
# videos times classes.
MAX_SCORE_BYTES = 4 * 2**30
# Local sensitivity: seconds to each side that count as local (in clips as long as the papers'),
# and output frames per clip.
NEIGHBOURHOOD = 10
SENSITIVITY_FRAMES = 20
# Clips whose gradients are compared with differences of the loss.
GRADIENT_VIDEOS = 200
# Clips up to which rows keep the pairs of GAP, for its worst case: 110 bytes a clip and row.
MAX_CLIPS_WITH_PAIRS = 2000
# Most files that `provenance` names; it also gives their number.
NAMED_FILES = 10


def evaluate(folder: RunFolder, **options: Any) -> dict[str, Any]:
    """Measures a trained run: clean, under attack, corrupted, and what else the options ask for.

    Args:
        folder: The run.
        **options: See `EvaluationOptions`.

    Returns:
        What `EvaluationRecord` describes; with `output_file`, also written there as JSON, row by
        row. A later call with the same settings does not measure the rows in that file again.

    Raises:
        ConfigError: An option is invalid, or impossible for a video-level run; raised before any
            work where that can be known.
        InUseError: Another evaluation writes `output_file`.
    """
    checked = EvaluationOptions(**options)
    with only_writer(checked.output_file):
        return _Evaluation(folder, checked).run()


class _Evaluation:
    """One evaluation of one run: the constructor reads and checks everything, `run` measures."""

    def __init__(self, folder: RunFolder, options: EvaluationOptions) -> None:
        self.folder = folder
        self.options = options
        self.config, self.config_bytes = config, _ = RunConfig.load_with_bytes(folder.path)
        require_trust(config, options.trust_code, folder.path)
        self.segments = "rated" if on_segments(config, options.segment_labels) else None
        self.files = find_files(options.eval_data_pattern, "eval_data_pattern")
        check_extractor(folder, self.files, "eval_data_pattern")
        self.specs = [AttackSpec.parse(text) for text in options.attacks]
        check_options(options, self.specs, config)
        self.batch_size = options.batch_size or config.training.batch_size
        self.groups: dict[str, list[int]] = {}
        if options.vocabulary is not None:
            self.groups = read_class_groups(options.vocabulary, config.data.num_classes)
        trust_code = options.trust_code
        self.source = other_run("transfer_from", options.transfer_from, config, trust_code)
        self.baseline = other_run("compare_to", options.compare_to, config, trust_code)
        self.loaded = load_run(folder, config, options.checkpoint, options.trust_code)
        self.classifier = self.loaded.classifier
        self.schema = read_schema(folder, config)
        self.names = class_names(folder, self.schema, options.label_names)
        self.spans: Mapping[str, list[tuple[int, TrueSpan]]] = {}
        if options.true_spans is not None:
            try:
                read = read_true_spans(options.true_spans)
                self.spans = numbered_spans(read, self.names, config.data.num_classes)
            except (OSError, ValueError) as error:
                raise ConfigError(f"--true_spans: {error}") from error
        check_labels(
            self.files,
            self.schema,
            "eval_data_pattern",
            segments=self.segments is not None,
            num_records=None,
        )
        self.reader: Reader | None = None  # That of the last pass.
        self.clean: Measurement | None = None  # Kept only for the comparison.
        self.measured: set[str] = set()  # Names of the rows that this call measured.
        self.num_records = count_records(self.files, skip_damage=options.on_bad_record == "skip")
        self.num_videos = min(self.num_records, options.max_videos or self.num_records)
        # The number of segments is known only after reading them.
        if self.segments is None and options.partitions > self.num_videos:
            raise ConfigError(
                f"--partitions={options.partitions} needs at least {options.partitions} videos. "
                f"Received: {self.num_videos}"
            )
        # Without all scores there is no segment MAP; all of 2019's rated segments are 3.7 GB.
        score_bytes = 4 * self.num_videos * config.data.num_classes
        self.all_scores = self.segments is not None or score_bytes <= MAX_SCORE_BYTES
        self.evaluator = build_evaluator(
            self.classifier, config, top_k=options.top_k, all_scores=self.all_scores
        )
        map_distance = total_map_distance if self._has_global_maps() else None
        self.planned = plan_attacks(options, self.specs, config, self.source, map_distance)
        self.record = EvaluationRecord(
            self._settings(),
            options.output_file,
            self.groups,
            options.start_over,
            self._provenance(),
        )

    def run(self) -> dict[str, Any]:
        """Measures row by row and returns the record."""
        options = self.options
        if not self.all_scores:
            print(
                "map_all_scores is left out: it would keep more than 4 GiB of scores",
                file=sys.stderr,
            )
        self._clean_row()
        for index, planned in enumerate(self.planned):
            self._attack_row(planned, first=index == 0)
        if options.sanity_checks or options.protocol:
            self._gradients()
        for corruption in options.corruptions_on(self.config.data.clips is not None):
            identity = {"corruption": corruption.name, "severity": corruption.severity}
            if not corruption.per_frame:
                identity["draws"] = "clip"
            description = f"{corruption.name} {corruption.severity}"
            if not self.record.take_over("corruptions", identity):
                measured = self._measure(corruption, description)
                self._add("corruptions", identity, measured)
        if options.attention:
            self._sensitivity()
        if options.class_activation:
            self._class_activation()
        if options.true_spans is not None:
            self._true_spans()
        if options.clips or options.num_clips:
            self.record.show(self._show_clips())
        if self.baseline is not None:
            self._compare()
        # Computed from all rows, including those of earlier calls.
        result = self.record.result
        worst = worst_cases(result["clean"], result["attacks"])
        if worst or "worst_cases" in result:
            self.record.set(worst_cases=worst)
        if options.sanity_checks or options.protocol or "sanity" in result:
            clips = self.config.data.clips
            verdicts = sanity_checks(
                result["clean"],
                result["attacks"],
                max_frames=self.config.data.max_frames,
                num_features=len(self.config.data.sizes),
                can_reach_zero=self.segments is None,
                scale=radius_scale(clips.crop_size if clips else None),
                gradients=result.get("gradients"),
                # Segments are rated for few classes, so frequencies say nothing of them.
                positives=None if self.segments else result["classes"]["positives"],
                top_k=options.top_k,
            )
            self.record.set(sanity=verdicts)
        # Each pass leaves out the same records, so the last pass's summary is enough.
        if self.reader is not None and self.reader.skipped is not None:
            print(self.reader.skipped.summary(), file=sys.stderr)
        result = self.record.finish()
        if earlier := [row for row in _row_names(result) if row not in self.measured]:
            print(
                f"{options.output_file}: these rows are an earlier call's, not measured again: "
                f"{', '.join(map(printable, earlier))} (--start_over measures all again)",
                file=sys.stderr,
            )
        return result

    def _has_global_maps(self) -> bool:
        """Returns whether the model has a global attention map for each feature."""
        return self.config.data.frame_features and "global" in self.classifier.attention_levels

    def _settings(self) -> dict[str, Any]:
        options, config = self.options, self.config
        return {
            "checkpoint": options.checkpoint,
            "weights": self.loaded.digest,
            "config": digest_of([self.config_bytes]),
            "files": files_digest(self.files),
            "num_files": len(self.files),
            "max_videos": options.max_videos,
            "batch_size": self.batch_size,
            "top_k": options.top_k,
            "segment_labels": self.segments is not None,
            "on_bad_record": options.on_bad_record,
            "partitions": options.partitions,
            "norm_scope": options.norm_scope or config.objective.norm_scope,
            "clip_to_range": options.clip_to_range,
            "round_to_levels": options.round_to_levels,
            "verticals": digest_of([repr(self.groups).encode()]) if self.groups else None,
        }

    def _provenance(self) -> dict[str, Any]:
        """Returns where the figures come from, see `EvaluationRecord`; it is for people, whereas
        `_settings` is compared."""
        return {
            "command": command_line(),
            **weights_of(self.folder, self.options.checkpoint, self.loaded),
            "pattern": self.options.eval_data_pattern,
            "files": self.files[:NAMED_FILES],
            "num_files": len(self.files),
            "num_records": self.num_records,
        }

    def _batches(self, schema: RecordSchema | None = None) -> Iterable[dict[str, Any]]:
        self.reader = Reader(
            self.files,
            schema or self.schema,
            self.batch_size,
            segments=self.segments,
            on_bad_record=self.options.on_bad_record,
            max_bad_fraction=self.options.max_bad_fraction,
        )
        return first_videos(self.reader, self.options.max_videos)

    def _measure(
        self,
        perturbation: Attack | Corruption | None,
        description: str,
        observers: Sequence[Observer] = (),
    ) -> Measurement:
        # With attacks, the clean row says for how many clips they have no gradient to follow.
        zero_gradients = perturbation is None and bool(self.planned)
        return self.evaluator.measure(
            self._batches(),
            perturbation,
            self.num_videos,
            description,
            groups=self.groups,
            zero_gradients=zero_gradients,
            observers=observers,
        )

    def _add(
        self, kind: str, identity: Mapping[str, Any], measured: Measurement, **sections: Any
    ) -> None:
        try:
            row = measured.result(self.options.partitions)
        except ValueError as error:
            raise ConfigError(f"--partitions={self.options.partitions}: {error}") from error
        if self.planned and kind != "corruptions":
            row["hits"] = packed(measured.metrics.hits_at_1)
            if measured.num_examples <= MAX_CLIPS_WITH_PAIRS:
                row["pairs"] = packed_pairs(*measured.metrics.top_pairs)
        row["intervals"] = measured.metrics.intervals()
        self.measured.add(_row_name(kind, identity))
        self.record.add(kind, identity, row, measured.group_results(), **sections)

    def _clean_row(self) -> None:
        classes, attention = self.record.section("classes"), self.record.section("attention")
        profiled = attention.get("profiles") is not None
        needed = ["zero_gradient_share", "hits"] if self.planned else []
        if (
            classes
            and (profiled or not self.options.attention)
            and self.record.take_over("clean", {}, *needed)
        ):
            self.record.set(classes=self._with_names(classes))
            return
        profiles = self._profiles()
        measured = self._measure(None, "clean", [profiles.observe] if profiles else [])
        # The files hold labels, but the videos that were measured may not.
        if not measured.positives.any():
            raise no_label(
                self.schema, "eval_data_pattern", self.segments is not None, measured.num_examples
            )
        if self.baseline is not None:
            self.clean = measured
        classes = {
            "ap": measured.per_class_average_precision().tolist(),
            "positives": measured.positives.tolist(),
        }
        accuracy = measured.metrics.per_class_accuracy()
        if accuracy is not None:
            classes["accuracy"] = accuracy.tolist()
        sections = {"classes": self._with_names(classes)}
        if profiles:
            sections["attention"] = {**attention, "profiles": profiles.statistics.result()}
        self._add("clean", {}, measured, **sections)

    def _with_names(self, classes: Mapping[str, Any]) -> dict[str, Any]:
        named = {key: value for key, value in classes.items() if key != "names"}
        if self.names:
            num_classes = self.config.data.num_classes
            names = {index: name for index, name in self.names.items() if index < num_classes}
            named["names"] = {str(index): name for index, name in names.items()}
        return named

    def _attack_row(self, planned: PlannedAttack, first: bool) -> None:
        """Measures one attack; for the first, attention profiles too, if asked for."""
        identity = planned.identity
        needs_profiles = first and self.options.attention
        attention = self.record.section("attention")
        of_attack = {key: identity[key] for key in ("attack", "epsilon")}
        is_profiled = attention.get("attacked_profiles") is not None and all(
            attention.get(key) == value for key, value in of_attack.items()
        )
        if (is_profiled or not needs_profiles) and self.record.take_over(
            "attacks", identity, "hits"
        ):
            return
        profiles = self._profiles() if needs_profiles else None
        observers = [profiles.observe] if profiles else []
        measured = self._measure(planned.attack, planned.description, observers)
        sections = {}
        if profiles:
            sections["attention"] = {
                **attention,
                **of_attack,
                "attacked_profiles": profiles.statistics.result(),
            }
        self._add("attacks", identity, measured, **sections)

    def _profiles(self) -> ProfileObserver | None:
        if not self.options.attention:
            return None
        return ProfileObserver(self.evaluator, AttentionProfiles(square_maps(self.classifier)))

    def _sensitivity(self) -> None:
        """Measures the local sensitivity of the first videos, clean."""
        attention = self.record.section("attention")
        count = min(self.options.sensitivity_videos, self.num_videos)
        if "sensitivity" not in attention or attention.get("sensitivity_videos") != count:
            longest = self.config.data.max_frames
            sensitivity = LocalSensitivity(
                lambda features, mask: self.evaluator.forward(features, mask).frames,
                neighbourhood=min(NEIGHBOURHOOD, max(1, longest // 10)),
                max_frames=SENSITIVITY_FRAMES,
                # A residual network keeps some 0.1 GB a frame of pixels for its gradient.
                copies=4 if self.config.data.clips else 32,
            )
            for batch in first_videos(self._batches(), count):
                sensitivity.update(
                    *preprocess(batch["features"], batch["num_frames"], self.config.data.normalize)
                )
            section = {"sensitivity": sensitivity.result(), "sensitivity_videos": count}
            self.record.set(attention={**attention, **section})

    def _gradients(self) -> None:
        """Compares gradients with differences of the loss at the first radius, for the checks."""
        shared = shared_options(self.options, self.config)
        epsilon = first_radius(self.options, self.config)
        identity = {
            "norm_scope": shared.norm_scope,
            "steps": shared.steps,
            "num_videos": min(GRADIENT_VIDEOS, self.num_videos),
        }
        earlier = self.record.section("gradients")
        same = {**identity, "epsilon": epsilon}.items() <= earlier.items()
        if epsilon > 0 and not same:
            measured = measure_gradients(
                self.evaluator,
                first_videos(self._batches(), GRADIENT_VIDEOS),
                Ball("l2", shared.norm_scope),
                epsilon,
                shared.steps,
                shared.clip_to_range,
            )
            self.record.set(gradients={**identity, **measured})

    def _class_activation(self) -> None:
        if not self.record.section("class_activation"):
            measured = measure_class_activation(self.evaluator, self._batches(), self.num_videos)
            self.record.set(class_activation=measured)

    def _true_spans(self) -> None:
        # Of what was read: the file may have been replaced since.
        identity = {"spans": digest_of([repr(self.spans).encode()])}
        if self.record.section("true_spans").get("spans") != identity["spans"]:
            measured = measure_true_spans(
                self.evaluator, self._batches(), self.num_videos, self.spans
            )
            if not measured["activation"]["num_spans"] + measured["activation"]["num_silent"]:
                raise ConfigError(
                    f"--true_spans={self.options.true_spans}: no id of it is one of "
                    f"{self.options.eval_data_pattern}"
                )
            self.record.set(true_spans={**identity, **measured})

    def _show_clips(self) -> list[dict[str, Any]]:
        attack = self.planned[0] if self.planned else None
        return show_clips(
            self.evaluator,
            self.options,
            self._batches(),
            attack,
            self.names,
            square_maps(self.classifier),
        )

    def _compare(self) -> None:
        folder, config = self.baseline
        digest = weights_digest(folder, "best")
        earlier = self.record.section("comparison")
        min_positives = self.options.min_positives
        classes = self.record.result["classes"]
        accuracy, their_accuracy = classes.get("accuracy"), earlier.get("baseline_accuracy")
        of_baseline = None
        if (
            earlier.get("weights") == digest
            and earlier.get("min_positives") == min_positives
            and "intervals" in earlier
            and (accuracy is None or their_accuracy is not None)
        ):
            theirs = np.array(earlier["baseline_ap"], np.float64)
        else:
            loaded = load_run(folder, config, trust_code=self.options.trust_code)
            digest = loaded.digest
            evaluator = build_evaluator(
                loaded.classifier, config, top_k=self.options.top_k, all_scores=self.all_scores
            )
            batches = self._batches(read_schema(folder, config))
            of_baseline = evaluator.measure(batches, None, self.num_videos, "baseline")
            theirs = of_baseline.per_class_average_precision()
            their_accuracy = of_baseline.metrics.per_class_accuracy()
        comparison = compare_classes(
            np.array(classes["ap"], np.float64),
            theirs,
            self.names,
            np.array(classes["positives"]),
            min_positives,
        )
        intervals = earlier.get("intervals")
        if of_baseline is not None:
            intervals = {}
            if comparison["top"]:
                # The clean row may be an earlier call's, without the scores that resampling needs.
                clean = self.clean or self._measure(None, "clean")
                intervals = difference_intervals(comparison, clean, of_baseline)
        self.record.set(
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


def _row_name(kind: str, row: Mapping[str, Any]) -> str:
    """Returns, for example, `clean`, `fgm 0.5` or `frame_drop 3`."""
    values = [row[key] for key in ROW_KEYS[kind]]
    return " ".join(str(value) for value in values if value is not None) or kind


def _row_names(result: Mapping[str, Any]) -> list[str]:
    rows = {**result, "clean": [result["clean"]]}
    return [_row_name(kind, row) for kind in ROW_KEYS for row in rows[kind]]
