"""What is asked of an evaluation."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

from yt8m_gat.attacks import CORRUPTIONS, SEVERITIES
from yt8m_gat.config import MAX_BAD_FRACTION, NORM_SCOPES, ConfigError
from yt8m_gat.evaluation.comparison import MIN_POSITIVES
from yt8m_gat.evaluation.evaluator import Corruption
from yt8m_gat.robustness.protocol import PROTOCOLS


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
        min_positives: Positives that a class needs to be ranked in that comparison.
        attention: Attention profiles and local sensitivity.
        sensitivity_videos: Videos that the sensitivity is measured on.
        clips: Ids of clips that are shown with their labels and maps.
        num_clips: So many of the first, besides.
        output_file: Where the result is written too, as JSON, row by row.
        start_over: Evaluate anew what `output_file` already holds.
        on_bad_record: `error`, or `skip`: leave bad records out, and say so at the end.
        max_bad_fraction: See `yt8m_gat.data.SkippedRecords`.
        trust_code: Run the code that this run, `transfer_from` and `compare_to` name, see
            `yt8m_gat.weights.load.load_run`.
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
    min_positives: int = MIN_POSITIVES
    attention: bool = False
    sensitivity_videos: int = 500
    clips: Sequence[str] = ()
    num_clips: int = 0
    output_file: str | os.PathLike | None = None
    start_over: bool = False
    on_bad_record: str = "error"
    max_bad_fraction: float = MAX_BAD_FRACTION
    trust_code: bool = False

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
            if not 0 <= epsilon < math.inf:
                raise ConfigError(
                    f"--epsilons must be at least 0, and finite. Received: {epsilon:g}"
                )
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
        for flag in (
            *("attack_steps", "attack_restarts", "attack_queries", "sensitivity_videos"),
            "min_positives",
        ):
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
