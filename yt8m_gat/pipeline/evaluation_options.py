"""The options of an evaluation."""

import dataclasses
import math
from pathlib import Path

from yt8m_gat.attacks import SEVERITIES, corruptions_of
from yt8m_gat.config import NORM_SCOPES, ConfigError
from yt8m_gat.evaluation.evaluator import Corruption
from yt8m_gat.job_settings import EvaluationSettings
from yt8m_gat.robustness.protocol import PROTOCOLS
from yt8m_gat.robustness.smoothing import Smoothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions(EvaluationSettings):
    """The settings of an evaluation, checked."""

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
        self._check_certificates()
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise ConfigError(
                    f"--severities must be of {', '.join(map(str, SEVERITIES))}. "
                    f"Received: {severity}"
                )
        for name in self.corruptions:
            if name not in ("all", *corruptions_of(pixels=False), *corruptions_of(pixels=True)):
                raise ConfigError(
                    f"--corruptions must be all, or of {', '.join(corruptions_of(pixels=False))}, "
                    f"or, for raw clips, of {', '.join(corruptions_of(pixels=True))}. "
                    f"Received: {name!r}"
                )
        if self.corruption_draws not in ("frame", "clip"):
            raise ConfigError(
                f"--corruption_draws must be frame or clip. Received: {self.corruption_draws!r}"
            )
        for flag in (
            *("attack_steps", "attack_restarts", "attack_queries", "sensitivity_videos"),
            "surrogate_steps",
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

    def _check_certificates(self) -> None:
        if self.certify and not self.sigma:
            raise ConfigError(
                "--certify needs the standard deviation of the noise, in units of the features: "
                "--sigma=0.25,0.5"
            )
        for flag in ("sigma", "radii"):
            if getattr(self, flag) and not self.certify:
                raise ConfigError(f"--{flag} is for certificates: give --certify too")
        for radius in self.radii:
            if not 0 <= radius < math.inf:
                raise ConfigError(f"--radii must be at least 0, and finite. Received: {radius:g}")
        _ = self.smoothings  # Refuses values out of range.

    @property
    def smoothings(self) -> list[Smoothing]:
        """The smoothed classifiers to certify."""
        return [
            Smoothing(
                sigma,
                self.samples,
                self.certify_selection_samples,
                self.certify_alpha,
                self.certify_threshold,
            )
            for sigma in dict.fromkeys(self.sigma)
        ]

    def corruptions_on(self, pixels: bool) -> list[Corruption]:
        """Returns each corruption at each severity, of raw clips or of features.

        Raises:
            ConfigError: One is not of that kind.
        """
        names = corruptions_of(pixels) if "all" in self.corruptions else self.corruptions
        unknown = [name for name in names if name not in corruptions_of(pixels)]
        if unknown:
            kind = "raw clips have" if pixels else "features have"
            raise ConfigError(
                f"--corruptions: {kind} {', '.join(corruptions_of(pixels))}. "
                f"Received: {unknown[0]!r}"
            )
        per_frame = self.corruption_draws == "frame"
        return [
            Corruption(name, severity, per_frame) for name in names for severity in self.severities
        ]

    @property
    def needing_frames(self) -> list[str]:
        """The flags in use that need a frame-level run."""
        flags = ("attacks", "protocol", "sanity_checks", "corruptions", "attention", "clips")
        others = (
            "class_activation",
            "embeddings",
            "true_spans",
            "num_clips",
            "transfer_from",
            "clip_to_range",
            "round_to_levels",
        )
        return [f"--{flag}" for flag in (*flags, *others) if getattr(self, flag)]
