"""The run and the videos that an evaluation measures."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from yt8m_gat.attacks import Attack
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import Reader, RecordSchema, check_labels, count_records, find_files
from yt8m_gat.data.identity import files_digest
from yt8m_gat.digests import digest_of
from yt8m_gat.evaluation.class_groups import read_class_groups
from yt8m_gat.evaluation.evaluator import Corruption, Observer
from yt8m_gat.evaluation.first_videos import first_videos
from yt8m_gat.evaluation.measurement import Measurement
from yt8m_gat.evaluation.survivors import survivors_of
from yt8m_gat.explanation.true_spans import TrueSpan, numbered_spans, read_true_spans
from yt8m_gat.import_path import require_trust
from yt8m_gat.paths import require_own_files
from yt8m_gat.pipeline.evaluation_checks import check_options, other_run
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.pipeline.run_evaluator import MAP_FIGURES, build_evaluator
from yt8m_gat.pipeline.run_extractor import check_extractor
from yt8m_gat.pipeline.run_settings import class_names, on_segments, read_schema
from yt8m_gat.provenance import command_line
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import weights_of

# Scores kept for the all-scores MAP, mostly on disk (for the segment MAP, in memory): 4 bytes times
# videos times classes.
MAX_SCORE_BYTES = 4 * 2**30
# Most files that `provenance` names; it also gives their number.
NAMED_FILES = 10


class EvaluatedRun:
    """Opens a run and the files to measure it on; the constructor reads and checks everything.

    Args:
        folder: The run.
        options: The options of the evaluation.

    Attributes:
        config: The run's configuration.
        specs: The attacks that the options name.
        segments: `rated` if rated segments are measured; None: videos.
        groups: Name -> classes of the groups with metrics of their own.
        source: The run that the attack `transfer` uses; None: none is named.
        baseline: The run to compare with; None: none is named.
        classifier: The run's classifier.
        schema: The schema of its records.
        names: Class -> name, for the classes whose names are known.
        spans: Video id -> (class, span), for the spans where labels are shown.
        num_videos: Number of videos (with rated segments: of records) to measure.
        all_scores: Whether all scores are kept.
        evaluator: The evaluator of the classifier.
        reader: The reader of the latest pass; None before the first.

    Raises:
        ConfigError: An option is impossible for the run or the files.
        UntrustedCodeError: A run names code that is not trusted.
    """

    def __init__(self, folder: RunFolder, options: EvaluationOptions) -> None:
        self.folder = folder
        self.options = options
        self.config, self._config_bytes = config, _ = RunConfig.load_with_bytes(folder.path)
        trust_code = options.trust_code
        require_trust(config, trust_code, folder.path)
        self.segments = "rated" if on_segments(config, options.segment_labels) else None
        self.files = find_files(options.eval_data_pattern, "eval_data_pattern")
        require_own_files({"--output_file": options.output_file}, self._inputs())
        check_extractor(folder, self.files, "eval_data_pattern")
        self.specs = [AttackSpec.parse(text) for text in options.attacks]
        check_options(options, self.specs, config)
        self.batch_size = options.batch_size or config.training.batch_size
        self.groups: dict[str, list[int]] = {}
        if options.vocabulary is not None:
            self.groups = read_class_groups(options.vocabulary, config.data.num_classes)
        self.source = other_run("transfer_from", options.transfer_from, config, trust_code)
        self.baseline = other_run("compare_to", options.compare_to, config, trust_code)
        self._loaded = load_run(folder, config, options.checkpoint, trust_code)
        self.classifier = self._loaded.classifier
        self.schema = read_schema(folder, config)
        self.names = class_names(folder, self.schema, options.label_names)
        self.spans = self._read_spans()
        in_segments = self.segments is not None
        check_labels(
            self.files, self.schema, "eval_data_pattern", segments=in_segments, num_records=None
        )
        self._num_records = count_records(self.files, skip_damage=options.on_bad_record == "skip")
        self.num_videos = min(self._num_records, options.max_videos or self._num_records)
        self._check_partitions()
        # Without all scores there is no segment MAP; all of 2019's rated segments are 3.7 GB.
        score_bytes = 4 * self.num_videos * config.data.num_classes
        self.all_scores = in_segments or score_bytes <= MAX_SCORE_BYTES
        self.evaluator = build_evaluator(
            self.classifier,
            config,
            with_costly_maps=options.attention,
            top_k=options.top_k,
            all_scores=self.all_scores,
        )
        self.reader: Reader | None = None

    def _inputs(self) -> dict[str | os.PathLike | None, str]:
        """Returns the files that are read -> what they are, for `require_own_files`."""
        options = self.options
        runs = [RunFolder(path) for path in (options.transfer_from, options.compare_to) if path]
        inputs: dict[str | os.PathLike | None, str] = {}
        for run in (self.folder, *runs):
            inputs |= run.own_files()
        inputs |= dict.fromkeys(self.files, "a file of --eval_data_pattern")
        for name in ("label_names", "vocabulary", "true_spans"):
            inputs[getattr(options, name)] = f"the file of --{name}"
        return inputs

    def _read_spans(self) -> Mapping[str, list[tuple[int, TrueSpan]]]:
        if self.options.true_spans is None:
            return {}
        try:
            read = read_true_spans(self.options.true_spans)
            return numbered_spans(read, self.names, self.config.data.num_classes)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--true_spans: {error}") from error

    def _check_partitions(self) -> None:
        partitions = self.options.partitions
        # The number of segments is known only after reading them.
        if self.segments is None and partitions > self.num_videos:
            raise ConfigError(
                f"--partitions={partitions} needs at least {partitions} videos. "
                f"Received: {self.num_videos}"
            )

    @property
    def has_global_maps(self) -> bool:
        """Whether the model has a global attention map for each feature."""
        return self.config.data.frame_features and "global" in self.classifier.attention_levels

    @property
    def left_out(self) -> dict[str, str]:
        """Figures that rows do not have -> why."""
        left_out = {}
        if not self.all_scores:
            left_out["map_all_scores"] = "it would keep more than 4 GiB of scores"
        if self.has_global_maps and not self.evaluator.measures_maps:
            left_out |= dict.fromkeys(
                MAP_FIGURES,
                f"global maps of --max_frames={self.config.data.max_frames} take memory with the "
                "square of the frames; --attention measures them all the same",
            )
        return left_out

    def settings(self) -> dict[str, Any]:
        """Returns the settings that must agree for evaluations to be comparable."""
        options, config = self.options, self.config
        return {
            "checkpoint": options.checkpoint,
            "weights": self._loaded.digest,
            "config": digest_of([self._config_bytes]),
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

    def provenance(self) -> dict[str, Any]:
        """Returns where the figures come from, see `EvaluationRecord`; it is for people, whereas
        `settings` is compared."""
        return {
            "command": command_line(),
            **weights_of(self.folder, self.options.checkpoint, self._loaded),
            "pattern": self.options.eval_data_pattern,
            "files": self.files[:NAMED_FILES],
            "num_files": len(self.files),
            "num_records": self._num_records,
            "parameters": self.classifier.count_params(),
        }

    def batches(self, schema: RecordSchema | None = None) -> Iterable[dict[str, Any]]:
        """Starts a pass over the videos, by `schema` instead of the run's own if it is given."""
        self.reader = Reader(
            self.files,
            schema or self.schema,
            self.batch_size,
            segments=self.segments,
            on_bad_record=self.options.on_bad_record,
            max_bad_fraction=self.options.max_bad_fraction,
        )
        return first_videos(self.reader, self.options.max_videos)

    def survivors(self, attack: Attack, standing: np.ndarray, description: str) -> np.ndarray:
        """Returns which of the standing clips survive an attack; see `survivors_of`."""
        return survivors_of(self.evaluator, self.batches(), attack, standing, description)

    def measure(
        self,
        perturbation: Attack | Corruption | None,
        description: str,
        observers: Sequence[Observer] = (),
        zero_gradients: bool = False,
    ) -> Measurement:
        """Measures one pass; see `Evaluator.measure`."""
        return self.evaluator.measure(
            self.batches(),
            perturbation,
            self.num_videos,
            description,
            groups=self.groups,
            zero_gradients=zero_gradients,
            observers=observers,
        )
