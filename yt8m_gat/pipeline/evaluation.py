"""Evaluating a run, clean and perturbed."""

import dataclasses
import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import CORRUPTIONS, SEVERITIES, Attack, AttackOptions
from yt8m_gat.config import CONFIG_FILE, MAX_BAD_FRACTION, NORM_SCOPES, ConfigError, RunConfig
from yt8m_gat.data import (
    RecordSchema,
    SkippedRecords,
    count_records,
    find_files,
    iterate,
    make_dataset,
    new_skipped,
    preprocess,
)
from yt8m_gat.evaluation.attack_spec import (
    QUANTIZATION_LEVELS,
    QUANTIZED_RANGE,
    AttackSpec,
)
from yt8m_gat.evaluation.attention_statistics import AttentionProfiles, clip_attention
from yt8m_gat.evaluation.class_groups import read_class_groups
from yt8m_gat.evaluation.comparison import compare_classes
from yt8m_gat.evaluation.evaluator import Corruption, Evaluator, Measurement, Observer
from yt8m_gat.evaluation.first_videos import first_videos
from yt8m_gat.evaluation.local_sensitivity import LocalSensitivity
from yt8m_gat.evaluation.protocol import PROTOCOLS, sceptic_attacks
from yt8m_gat.evaluation.record import EvaluationRecord
from yt8m_gat.evaluation.sanity import SWEEP, sanity_checks, sanity_specs, unbounded_epsilon
from yt8m_gat.layers import AttentionLevel, expand_attention_map
from yt8m_gat.losses import (
    average_over_heads,
    distance_to_uniform,
    frobenius_distance,
    get_loss,
    normalized_entropy,
)
from yt8m_gat.models import load_classifier, newest_checkpoint
from yt8m_gat.pipeline.run_settings import class_names, on_segments, read_schema
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import follow

# Scores kept for the all-scores MAP: 4 bytes times videos times classes.
MAX_SCORE_BYTES = 4 * 2**30
# Predictions shown of a clip.
TOP_LABELS = 5
# Local sensitivity: seconds to each side that are local (of clips as long as the papers'), and
# output frames looked at per clip.
NEIGHBOURHOOD = 10
SENSITIVITY_FRAMES = 20

Maps = dict[str, dict[str, Any]]


def attention_figures(attention_maps: Maps, frame_mask: Any) -> dict[str, Any]:
    """What the global maps (averaged over heads) look like, per feature, {name: [B]}.

    An attention penalty is cheapest to satisfy with maps that are uniform and so cannot move: the
    entropy over log n (1 for uniform) and the distance to uniform say whether that happened.
    """
    figures = {}
    for feature, maps in attention_maps.items():
        if "global" in maps:
            mean = average_over_heads(maps["global"])
            figures[f"attention_entropy_{feature}"] = normalized_entropy(mean, frame_mask)
            figures[f"distance_to_uniform_{feature}"] = distance_to_uniform(mean, frame_mask)
    return figures


def attention_distances(clean: Maps, perturbed: Maps, frame_mask: Any) -> dict[str, Any]:
    """How far the global maps (averaged over heads) moved, per feature, {name: [B]}.

    The Frobenius norm of the difference (GAT, 4.3.2), and the mean squared error over the n x n
    entries of real frames (A-ART, 3.2.2), which is that norm's square over n squared.
    """
    num_frames = tf.reduce_sum(tf.cast(frame_mask, tf.float32), axis=1)
    distances = {}
    for feature, distance in _map_distances(clean, perturbed, frame_mask).items():
        squared_error = tf.math.divide_no_nan(tf.square(distance), tf.square(num_frames))
        distances[f"attention_mse_{feature}"] = squared_error
        distances[f"attention_frobenius_{feature}"] = distance
    return distances


def total_map_distance(clean: Maps, perturbed: Maps, frame_mask: Any) -> Any:
    """The Frobenius distances of the global maps, summed over the features: [B]."""
    return tf.add_n(list(_map_distances(clean, perturbed, frame_mask).values()))


def _map_distances(clean: Maps, perturbed: Maps, frame_mask: Any) -> dict[str, Any]:
    return {
        feature: frobenius_distance(
            average_over_heads(maps["global"]),
            average_over_heads(perturbed[feature]["global"]),
            frame_mask,
        )
        for feature, maps in clean.items()
        if "global" in maps
    }


def build_evaluator(classifier: Any, config: RunConfig, **options: Any) -> Evaluator:
    """An evaluator of `classifier` with the loss and the features of its run."""
    frames = config.data.frame_features
    return Evaluator(
        classifier,
        get_loss(config.objective.label_loss, config.objective.class_reduction),
        config.data.num_classes,
        config.data.normalize,
        attention_figures=attention_figures if frames else None,
        attention_distances=attention_distances if frames else None,
        **options,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is evaluated, and how; the flags of `eval.py` by their names.

    Attributes:
        eval_data_pattern: Files to evaluate on.
        attacks: Specifications, see `AttackSpec.parse`.
        epsilons: Their radii; by default that of training.
        attack_steps: Steps of PGD where a specification does not say.
        attack_restarts: Its restarts.
        attack_queries: Budget of the gradient-free searches.
        norm_scope: What an l2 norm is taken over; None: as in training.
        clip_to_range: Perturbed features stay within what dequantization can give.
        round_to_levels: They are rounded to its levels in the end.
        transfer_from: Run folder on whose model the attack `transfer` is made.
        corruptions: Names of natural corruptions, or `all`.
        severities: Their severities.
        protocol: `sceptic`: the attacks of `sceptic_attacks`, and the sanity checks.
        sanity_checks: Verdicts on gradient masking, and the attacks that they need.
        partitions: Above 0: mean and deviation over so many disjoint parts.
        max_videos: The first so many of the files alone; 0: all.
        batch_size: Clips, or segments, at once; None: as in training.
        top_k: Predictions per clip, or segment, that GAP and MAP count.
        checkpoint: `best` or `last`.
        segment_labels: Whether the rated segments are evaluated, each by itself, instead of whole
            clips; None: as in training.
        label_names: File that names the classes; None: the run's label map, if any.
        vocabulary: File that groups them, see `read_class_groups`: metrics per group too.
        compare_to: Run folder of a baseline, evaluated clean on the same videos.
        attention: Attention profiles and local sensitivity.
        sensitivity_videos: Videos that the sensitivity is measured on.
        clips: Ids of clips that are shown with their labels and maps.
        num_clips: So many of the first, besides.
        output_file: Where the result is written too, as JSON, row by row.
        start_over: Evaluate anew what `output_file` already holds.
        on_bad_record: `error`, or `skip`: leave bad records out, and say so at the end.
        max_bad_fraction: See `yt8m_gat.data.SkippedRecords`.
    """

    eval_data_pattern: str
    attacks: Sequence[str] = ()
    epsilons: Sequence[float] = ()
    attack_steps: int = 20
    attack_restarts: int = 1
    attack_queries: int = 100
    norm_scope: str | None = None
    clip_to_range: bool = False
    round_to_levels: bool = False
    transfer_from: str | os.PathLike | None = None
    corruptions: Sequence[str] = ()
    severities: Sequence[int] = SEVERITIES
    protocol: str | None = None
    sanity_checks: bool = False
    partitions: int = 0
    max_videos: int = 0
    batch_size: int | None = None
    top_k: int = 20
    checkpoint: str = "best"
    segment_labels: bool | None = None
    label_names: str | os.PathLike | None = None
    vocabulary: str | os.PathLike | None = None
    compare_to: str | os.PathLike | None = None
    attention: bool = False
    sensitivity_videos: int = 500
    clips: Sequence[str] = ()
    num_clips: int = 0
    output_file: str | os.PathLike | None = None
    start_over: bool = False
    on_bad_record: str = "error"
    max_bad_fraction: float = MAX_BAD_FRACTION

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise ConfigError(
                f"--protocol must be one of {', '.join(PROTOCOLS)}. Received: {self.protocol!r}"
            )
        if self.norm_scope is not None and self.norm_scope not in NORM_SCOPES:
            raise ConfigError(
                f"--norm_scope must be one of {', '.join(NORM_SCOPES)}. "
                f"Received: {self.norm_scope!r}"
            )
        for epsilon in self.epsilons:
            if not epsilon >= 0:
                raise ConfigError(f"--epsilons must be at least 0. Received: {epsilon:g}")
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise ConfigError(
                    f"--severities must be of {', '.join(map(str, SEVERITIES))}. "
                    f"Received: {severity}"
                )
        for name in self.corruptions:
            if name != "all" and name not in CORRUPTIONS:
                raise ConfigError(
                    f"--corruptions must be all, or of {', '.join(CORRUPTIONS)}. Received: {name!r}"
                )
        for flag in ("attack_steps", "attack_restarts", "attack_queries", "sensitivity_videos"):
            if getattr(self, flag) < 1:
                raise ConfigError(f"--{flag} must be at least 1. Received: {getattr(self, flag)}")
        for flag in ("max_videos", "num_clips"):
            if getattr(self, flag) < 0:
                raise ConfigError(f"--{flag} must be at least 0. Received: {getattr(self, flag)}")
        if self.partitions < 0 or self.partitions == 1:
            raise ConfigError(
                "--partitions must be at least 2, or 0 for none: one part has no deviation. "
                f"Received: {self.partitions}"
            )
        if self.output_file is not None and not Path(self.output_file).absolute().parent.is_dir():
            raise ConfigError(f"--output_file={self.output_file}: its folder does not exist")

    @property
    def all_corruptions(self) -> list[Corruption]:
        """Each corruption at each severity."""
        names = CORRUPTIONS if "all" in self.corruptions else self.corruptions
        return [Corruption(name, severity) for name in names for severity in self.severities]

    @property
    def needing_frames(self) -> list[str]:
        """The flags given that only a frame-level run can answer."""
        flags = ("attacks", "protocol", "sanity_checks", "corruptions", "attention", "clips")
        others = ("num_clips", "transfer_from", "clip_to_range", "round_to_levels")
        return [f"--{flag}" for flag in (*flags, *others) if getattr(self, flag)]


@dataclasses.dataclass(frozen=True)
class _PlannedAttack:
    """One row: what is run, and what tells it from other rows."""

    attack: Attack
    identity: dict[str, Any]

    @property
    def description(self) -> str:
        epsilon = self.identity["epsilon"]
        return self.identity["attack"] + ("" if epsilon is None else f" {epsilon:g}")


def evaluate(folder: RunFolder, **options: Any) -> dict[str, Any]:
    """Metrics of a trained run: clean, under attack, corrupted, and what else is asked for.

    Args:
        folder: The run.
        **options: See `EvaluationOptions`.

    Returns:
        What `EvaluationRecord` describes; also written to `output_file` as JSON, row by row, when
        given. Called again with the same settings, rows that are there are not measured again.

    Raises:
        ConfigError: Something that cannot be, or that a video-level run cannot have; before any
            work where that is possible.
    """
    return _Evaluation(folder, EvaluationOptions(**options)).run()


class _Evaluation:
    """One evaluation of one run: everything read and refused when made, measured by `run`."""

    def __init__(self, folder: RunFolder, options: EvaluationOptions) -> None:
        self.folder = folder
        self.options = options
        self.config = config = RunConfig.load(folder.path)
        self.segments = "rated" if on_segments(config, options.segment_labels) else None
        self.files = find_files(options.eval_data_pattern, "eval_data_pattern")
        self.specs = [AttackSpec.parse(text) for text in options.attacks]
        self._refuse_what_cannot_be()
        self.batch_size = options.batch_size or config.training.batch_size
        self.groups: dict[str, list[int]] = {}
        if options.vocabulary is not None:
            self.groups = read_class_groups(options.vocabulary, config.data.num_classes)
        self.source = self._other_run("transfer_from", options.transfer_from)
        self.baseline = self._other_run("compare_to", options.compare_to)
        self.classifier = load_classifier(folder, config, options.checkpoint)
        self.schema = read_schema(folder, config)
        self.names = class_names(self.schema, options.label_names)
        self.skipped: SkippedRecords | None = None
        self.num_videos = count_records(self.files, skip_damage=options.on_bad_record == "skip")
        if options.max_videos:
            self.num_videos = min(self.num_videos, options.max_videos)
        # Segments are counted when they have been read.
        if self.segments is None and options.partitions > self.num_videos:
            raise ConfigError(
                f"--partitions={options.partitions} needs at least so many videos. "
                f"Received: {self.num_videos}"
            )
        # Without all scores there is no segment MAP; all of 2019's rated segments are 3.7 GB.
        score_bytes = 4 * self.num_videos * config.data.num_classes
        self.all_scores = self.segments is not None or score_bytes <= MAX_SCORE_BYTES
        self.evaluator = build_evaluator(
            self.classifier, config, top_k=options.top_k, all_scores=self.all_scores
        )
        self.planned = self._plan()
        self.record = EvaluationRecord(
            self._settings(), options.output_file, self.groups, options.start_over
        )

    def run(self) -> dict[str, Any]:
        """Measures row by row."""
        options = self.options
        if not self.all_scores:
            print(
                "map_all_scores is left out: it would keep every score in memory", file=sys.stderr
            )
        self._clean_row()
        for index, planned in enumerate(self.planned):
            self._attack_row(planned, first=index == 0)
        for corruption in options.all_corruptions:
            identity = {"corruption": corruption.name, "severity": corruption.severity}
            if not self.record.take_over("corruptions", identity):
                measured = self._measure(corruption, f"{corruption.name} {corruption.severity}")
                self._add("corruptions", identity, measured)
        if options.attention:
            self._sensitivity()
        if options.clips or options.num_clips:
            self.record.set(clips=self._clips())
        if self.baseline is not None:
            self._compare()
        if options.sanity_checks or options.protocol:
            result = self.record.result
            verdicts = sanity_checks(
                result["clean"],
                result["attacks"],
                options.attack_steps,
                self._unbounded_epsilon(),
                can_reach_zero=self.config.data.num_classes > options.top_k,
            )
            self.record.set(sanity=verdicts)
        if self.skipped is not None:
            print(self.skipped.summary(), file=sys.stderr)
        return self.record.finish()

    def _refuse_what_cannot_be(self) -> None:
        options, data = self.options, self.config.data
        if not data.frame_features and options.needing_frames:
            raise ConfigError(
                f"{', '.join(options.needing_frames)} need a frame-level run. Received: a run of "
                f"--model={self.config.model.name}"
            )
        bounded = options.clip_to_range or options.round_to_levels
        bounded = bounded or any(spec.needs_quantized_features for spec in self.specs)
        if bounded and data.normalize != "none":
            raise ConfigError(
                "--clip_to_range and --round_to_levels are about dequantized features, and this "
                f"run sees them l2-normalized (--normalize={data.normalize}): they have neither "
                "that range nor levels. Leave them out"
            )
        asks_for_transfer = any(spec.name == "transfer" for spec in self.specs)
        if asks_for_transfer and options.transfer_from is None:
            raise ConfigError("the attack transfer needs another run: --transfer_from")
        if options.transfer_from is not None and not (
            asks_for_transfer or options.protocol or options.sanity_checks
        ):
            raise ConfigError(
                "--transfer_from is for the attack transfer: give --attacks=transfer, --protocol "
                "or --sanity_checks"
            )

    def _other_run(
        self, flag: str, path: str | os.PathLike | None
    ) -> tuple[RunFolder, RunConfig] | None:
        """Another run that sees the same data, or None."""
        if path is None:
            return None
        other = RunConfig.load(path)
        same = ["num_classes", "label_map", "frame_features"]
        if flag == "transfer_from":
            same += ["sizes", "normalize", "max_frames"]
        different = [
            f"{name}: {getattr(other.data, name)!r} != {getattr(self.config.data, name)!r}"
            for name in same
            if getattr(other.data, name) != getattr(self.config.data, name)
        ]
        if different:
            raise ConfigError(
                f"--{flag}={path} holds a run on other data (its != ours): {'; '.join(different)}"
            )
        return RunFolder(path), other

    def _plan(self) -> list[_PlannedAttack]:
        """All attacks, each setting once."""
        options, config = self.options, self.config
        epsilons = tuple(options.epsilons) or (config.objective.epsilon,)
        shared = AttackOptions(
            norm_scope=options.norm_scope or config.objective.norm_scope,
            steps=options.attack_steps,
            restarts=options.attack_restarts,
            queries=options.attack_queries,
            clip_to_range=QUANTIZED_RANGE if options.clip_to_range else None,
            round_to_levels=QUANTIZATION_LEVELS if options.round_to_levels else None,
        )
        specs = [*self.specs]
        map_distance = total_map_distance if self._has_global_maps() else None
        if options.protocol == "sceptic":
            rounded = config.data.normalize == "none"
            for there, what in (
                (map_distance, "adaptive: this model has no global attention maps"),
                (rounded, "pgd:round=true: l2-normalized features have no levels"),
                (self.source, "transfer: it needs --transfer_from"),
            ):
                if not there:
                    print(f"--protocol={options.protocol} leaves out {what}", file=sys.stderr)
            specs += sceptic_attacks(
                epsilons,
                transfer=self.source is not None,
                adaptive=map_distance is not None,
                rounded=rounded,
            )
        if options.sanity_checks or options.protocol:
            radii = (*SWEEP, self._unbounded_epsilon())
            needed = sanity_specs(epsilons[0], self.source is not None, radii)
            specs += [AttackSpec.parse(f"{text}:epsilon={epsilon:g}") for text, epsilon in needed]
        source, of_source = None, {}
        if self.source is not None:
            other, other_config = self.source
            evaluator = build_evaluator(load_classifier(other, other_config), other_config)
            source = evaluator.logits
            of_source = {"transfer_weights": _weights_digest(other, "best")}
        planned: list[_PlannedAttack] = []
        seen = []
        for spec in specs:
            settings = spec.settings(shared)
            for epsilon in spec.radii(epsilons):
                if (what := (spec.name, epsilon, settings)) in seen:
                    continue
                seen.append(what)
                identity = {"attack": spec.text, "epsilon": epsilon, "options": settings}
                if spec.name == "transfer":
                    identity |= of_source
                attack = spec.build(epsilon, shared, source, map_distance)
                planned.append(_PlannedAttack(attack, identity))
        return planned

    def _unbounded_epsilon(self) -> float:
        data = self.config.data
        scope = self.options.norm_scope or self.config.objective.norm_scope
        return unbounded_epsilon(scope, data.max_frames, len(data.sizes))

    def _has_global_maps(self) -> bool:
        """Whether the model has a global attention map for each feature."""
        data = self.config.data
        if not data.frame_features:
            return False
        clip = {name: tf.zeros([1, 1, size]) for name, size in data.sizes.items()}
        maps = self.classifier.forward(clip, tf.constant([[True]])).attention_maps
        return bool(maps) and all("global" in levels for levels in maps.values())

    def _settings(self) -> dict[str, Any]:
        options, config = self.options, self.config
        return {
            "checkpoint": options.checkpoint,
            "weights": _weights_digest(self.folder, options.checkpoint),
            "config": _digest([(self.folder.path / CONFIG_FILE).read_bytes()]),
            "files": _files_digest(self.files),
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
            "verticals": _digest([repr(self.groups).encode()]) if self.groups else None,
        }

    def _batches(self, schema: RecordSchema | None = None) -> Iterable[dict[str, Any]]:
        # Each pass leaves the same records out; the last one's are reported.
        self.skipped = new_skipped(self.options.on_bad_record, self.options.max_bad_fraction)
        dataset = make_dataset(
            self.files,
            schema or self.schema,
            self.batch_size,
            segments=self.segments,
            skipped=self.skipped,
        )
        batches = iterate(dataset, self.files, self.skipped)
        return first_videos(batches, self.options.max_videos)

    def _measure(
        self,
        perturbation: Attack | Corruption | None,
        description: str,
        observers: Sequence[Observer] = (),
    ) -> Measurement:
        # Beside an attack: the clean row tells where it has nothing to follow.
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
        self.record.add(kind, identity, row, measured.group_results(), **sections)

    def _clean_row(self) -> None:
        earlier = self.record.earlier
        profiled = earlier.get("attention", {}).get("profiles") is not None
        needed = ["zero_gradient_share"] if self.planned else []
        if (
            "classes" in earlier
            and (profiled or not self.options.attention)
            and self.record.take_over("clean", {}, *needed)
        ):
            sections = {"classes": self._with_names(earlier["classes"])}
            if self.options.attention:
                sections["attention"] = {"profiles": earlier["attention"]["profiles"]}
            self.record.set(**sections)
            return
        profiles = self._profiles()
        measured = self._measure(None, "clean", [profiles.observe] if profiles else [])
        classes = {
            "ap": measured.per_class_average_precision().tolist(),
            "positives": measured.positives.tolist(),
        }
        sections = {"classes": self._with_names(classes)}
        if profiles:
            sections["attention"] = {"profiles": profiles.statistics.result()}
        self._add("clean", {}, measured, **sections)

    def _with_names(self, classes: Mapping[str, Any]) -> dict[str, Any]:
        found = {key: value for key, value in classes.items() if key != "names"}
        if self.names:
            num_classes = self.config.data.num_classes
            known = {index: name for index, name in self.names.items() if index < num_classes}
            found["names"] = {str(index): name for index, name in known.items()}
        return found

    def _attack_row(self, planned: _PlannedAttack, first: bool) -> None:
        """The attention of the first attack is looked at too."""
        identity = planned.identity
        looked_at = first and self.options.attention
        earlier = self.record.earlier.get("attention", {})
        of_attack = {key: identity[key] for key in ("attack", "epsilon")}
        known = earlier.get("attacked_profiles") is not None and all(
            earlier.get(key) == value for key, value in of_attack.items()
        )
        if (known or not looked_at) and self.record.take_over("attacks", identity):
            if looked_at:
                attacked = {**of_attack, "attacked_profiles": earlier["attacked_profiles"]}
                self.record.set(attention={**self.record.result["attention"], **attacked})
            return
        profiles = self._profiles() if looked_at else None
        observers = [profiles.observe] if profiles else []
        measured = self._measure(planned.attack, planned.description, observers)
        sections = {}
        if profiles:
            sections["attention"] = {
                **self.record.result["attention"],
                **of_attack,
                "attacked_profiles": profiles.statistics.result(),
            }
        self._add("attacks", identity, measured, **sections)

    def _profiles(self) -> "_ProfileObserver | None":
        if not self.options.attention:
            return None
        return _ProfileObserver(self.evaluator, AttentionProfiles(self._lay_out))

    def _lay_out(self, level: str, maps: np.ndarray) -> np.ndarray:
        # GateAtt's maps all have the [T, T] form.
        if getattr(self.classifier, "fusion", None) == "maps":
            return maps
        return expand_attention_map(maps, AttentionLevel.parse(level))

    def _sensitivity(self) -> None:
        """Of the first videos, on the clean clips."""
        earlier = self.record.earlier.get("attention", {})
        count = min(self.options.sensitivity_videos, self.num_videos)
        found = earlier.get("sensitivity")
        if found is None or earlier.get("sensitivity_videos") != count:
            longest = self.config.data.max_frames
            sensitivity = LocalSensitivity(
                lambda features, mask: self.evaluator.forward(features, mask)[1],
                neighbourhood=min(NEIGHBOURHOOD, max(1, longest // 10)),
                max_frames=SENSITIVITY_FRAMES,
            )
            for batch in first_videos(self._batches(), count):
                sensitivity.update(
                    *preprocess(batch["features"], batch["num_frames"], self.config.data.normalize)
                )
            found = sensitivity.result()
        self.record.set(
            attention={
                **self.record.result["attention"],
                "sensitivity": found,
                "sensitivity_videos": count,
            }
        )

    def _clips(self) -> list[dict[str, Any]]:
        """The clips asked for, each clean and under the first attack, as its row has it."""
        options = self.options
        wanted = {text.encode(): None for text in options.clips}
        clips: dict[bytes, dict[str, Any]] = {}
        examples = 0
        attack = self.planned[0] if self.planned else None
        traced = None
        forward = tf.function(self.evaluator.forward_maps, reduce_retracing=True, autograph=False)
        first: dict[bytes, None] = {}
        for batch in self._batches():
            ids = batch["video_id"].numpy()
            for key in ids:
                if len(first) < options.num_clips:
                    first[key] = None
            places = {
                key: place
                for place, key in reversed(list(enumerate(ids)))
                if (key in wanted or key in first) and key not in clips
            }
            if places:
                features, mask = preprocess(
                    batch["features"], batch["num_frames"], self.config.data.normalize
                )
                looks = {"clean": (forward(features, mask), mask)}
                if attack is not None:
                    given = {"features": features, "frame_mask": mask, "labels": batch["labels"]}
                    if "label_weights" in batch:
                        given["label_weights"] = batch["label_weights"]
                    if traced is None:
                        traced = self.evaluator.traced_attack(attack.attack, given)
                    perturbed, _ = traced(given, tf.constant(examples))
                    looks["attacked"] = (forward(perturbed, mask), mask)
                for key, place in sorted(places.items(), key=lambda item: item[1]):
                    clips[key] = self._clip(batch, place, looks, attack)
            examples += len(ids)
            if set(wanted) <= set(clips) and len(first) >= options.num_clips:
                break
        if missing := [key.decode() for key in wanted if key not in clips]:
            raise ConfigError(
                f"--clips: no such clip in {options.eval_data_pattern}: {', '.join(missing)}"
            )
        return list(clips.values())

    def _clip(
        self,
        batch: Mapping[str, Any],
        place: int,
        looks: Mapping[str, Any],
        attack: _PlannedAttack | None,
    ) -> dict[str, Any]:
        labels = np.flatnonzero(batch["labels"][place].numpy() > 0)
        clip: dict[str, Any] = {
            "video_id": batch["video_id"][place].numpy().decode(),
            "labels": [[int(index), self.names.get(int(index))] for index in labels],
        }
        for name, ((logits, maps), mask) in looks.items():
            probabilities = tf.sigmoid(logits[place]).numpy()
            top = np.argsort(-probabilities, kind="stable")[:TOP_LABELS]
            seen: dict[str, Any] = {
                "top": [
                    [int(index), self.names.get(int(index)), float(probabilities[index])]
                    for index in top
                ],
                "profiles": {},
                "maps": {},
            }
            if bool(tf.reduce_any(mask[place])):
                seen |= clip_attention(maps, mask, place, self._lay_out)
            if name == "attacked" and attack is not None:
                seen |= {key: attack.identity[key] for key in ("attack", "epsilon")}
            clip[name] = seen
        return clip

    def _compare(self) -> None:
        folder, config = self.baseline
        digest = _weights_digest(folder, "best")
        earlier = self.record.earlier.get("comparison", {})
        ours = np.array(self.record.result["classes"]["ap"], np.float64)
        if earlier.get("weights") == digest:
            theirs = np.array(earlier["baseline_ap"], np.float64)
        else:
            evaluator = build_evaluator(
                load_classifier(folder, config),
                config,
                top_k=self.options.top_k,
                all_scores=self.all_scores,
            )
            batches = self._batches(read_schema(folder, config))
            measured = evaluator.measure(batches, None, self.num_videos, "baseline")
            theirs = measured.per_class_average_precision()
        self.record.set(
            comparison={
                "baseline": os.fspath(folder.path),
                "weights": digest,
                "attack": None,
                **compare_classes(ours, theirs, self.names),
                "baseline_ap": theirs.tolist(),
            }
        )


class _ProfileObserver:
    """Adds the attention maps of each batch to the profiles of the set."""

    def __init__(self, evaluator: Evaluator, statistics: AttentionProfiles) -> None:
        self.statistics = statistics
        self._maps = tf.function(
            functools.partial(_head_means, evaluator), reduce_retracing=True, autograph=False
        )

    def observe(self, batch: Mapping[str, Any], features: Any, frame_mask: Any) -> None:
        """See `Observer`."""
        del batch
        self.statistics.update(self._maps(features, frame_mask), frame_mask)


def _head_means(evaluator: Evaluator, features: Any, frame_mask: Any) -> Maps:
    """Maps [B, 1, T, K]: the mean over the heads is taken where they are, and moved alone."""
    _, maps = evaluator.forward_maps(features, frame_mask)
    return {
        feature: {level: average_over_heads(a)[:, None] for level, a in levels.items()}
        for feature, levels in maps.items()
    }


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _weights_digest(folder: RunFolder, checkpoint: str) -> str:
    """Of the bytes that `load_classifier` reads."""
    if checkpoint == "best":
        return _digest([folder.best_weights.read_bytes()])
    newest = newest_checkpoint(folder.checkpoints)
    paths = sorted(Path(newest).parent.glob(Path(newest).name + ".*"))
    return _digest(path.read_bytes() for path in paths)


def _files_digest(files: Sequence[str]) -> str:
    """Of names, sizes and times: reading terabytes to know them again would be no help."""
    found = []
    for path in files:
        stat = tf.io.gfile.stat(path)
        found.append((path, stat.length, stat.mtime_nsec))
    return _digest([repr(found).encode()])


def evaluate_each(
    folder: RunFolder,
    *,
    eval_data_pattern: str,
    checkpoint: str = "best",
    poll_seconds: float = 5.0,
    **options: Any,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """`evaluate` for each new state of a run that is being trained, until it is finished.

    Args:
        folder: The run; it need not be there yet.
        eval_data_pattern: Evaluation files.
        checkpoint: `best` or `last`, see `yt8m_gat.training.follow`.
        poll_seconds: Seconds between two looks for a new state.
        **options: The other arguments of `evaluate`; `output_file` is written anew each time.

    Yields:
        The state's step and what `evaluate` gives.
    """
    find_files(eval_data_pattern, "eval_data_pattern")  # Refused now, not after the first wait.
    options["start_over"] = True  # Each state has weights of its own.
    for step in follow(folder, checkpoint, poll_seconds):
        yield (
            step,
            evaluate(folder, eval_data_pattern=eval_data_pattern, checkpoint=checkpoint, **options),
        )
