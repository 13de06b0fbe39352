"""The settings of evaluation and inference, with the defaults of their flags.

Standard library only, so that the commands show them without TensorFlow.
"""

import dataclasses
import math
import os
from collections.abc import Sequence

from yt8m_gat.config import MAX_BAD_FRACTION, ON_BAD_RECORD, ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The settings of an evaluation, named as the flags of `eval.py`.

    Attributes:
        eval_data_pattern: Files to evaluate on.
        attacks: Specifications, see `AttackSpec.parse`.
        epsilons: Their radii; by default that of training.
        attack_steps: Steps of PGD where a specification sets none.
        attack_restarts: Restarts of PGD where a specification sets none.
        attack_queries: Budget of the gradient-free searches.
        norm_scope: What an l2 norm is taken over; None: as in training.
        clip_to_range: Keep perturbed features within the range of dequantized bytes.
        round_to_levels: Round perturbed features to the levels of dequantized bytes at the end.
        transfer_from: Run folder of the model on which the attack `transfer` is made.
        surrogate_steps: Steps of training of the student on which the attack `surrogate` is made.
        corruptions: Names of natural corruptions, or `all`.
        severities: Their severities.
        corruption_draws: Of raw clips: `frame`: noise and snow differ from frame to frame; `clip`:
            they are the same in all frames of a clip.
        protocol: `sceptic`: the attacks of `sceptic_attacks`, and the sanity checks.
        sanity_checks: Add verdicts on gradient masking, and the attacks that they need.
        worst_case_only: Whether each attack runs only on the clips that none before it has broken,
            for the worst case of Hit@1 alone, without rows of attacks.
        certify: Certify the classifier smoothed by noise, see `yt8m_gat.robustness.certificate`.
        sigma: Standard deviations of that noise, each for a smoothed classifier of its own.
        radii: Radii at which certified shares are given; by default up to 3 sigma.
        samples: Noisy copies of each clip that bound what it certifies.
        certify_selection_samples: Further copies, which choose what to certify.
        certify_alpha: Most probability that a statement about a clip is false.
        certify_threshold: Probability from which a label counts as shown.
        partitions: Also give mean and deviation over this many disjoint parts; 0: no parts.
        max_videos: Evaluate only the first N videos of the files; 0: all.
        batch_size: Clips, or segments, in a batch; None: as in training.
        top_k: Predictions per clip, or segment, that GAP and MAP count.
        checkpoint: `best` or `last`.
        segment_labels: Whether the rated segments are evaluated, each by itself, instead of whole
            clips; None: as in training.
        label_names: File that names the classes; None: the run's label map, if any.
        vocabulary: File that groups them, see `read_class_groups`, for metrics per group.
        compare_to: Run folder of a baseline, evaluated clean on the same videos.
        min_positives: Positives that a class needs to be ranked in that comparison.
        attention: Add attention profiles and local sensitivity.
        embeddings: Add how far each hidden layer moves under the first attack.
        class_activation: Add entropy and spread over time of the class activation of each clip's
            label (of several, the one that scores highest).
        true_spans: CSV of where labels are shown (`yt8m_gat.explanation.true_spans`): add how much
            class activation and attention fall there.
        sensitivity_videos: Videos on which the sensitivity is measured.
        clips: Ids of clips to show with their labels and maps.
        num_clips: Also show the first N clips.
        output_file: JSON file to which the result is also written, row by row.
        start_over: Measure again what `output_file` already holds.
        on_bad_record: `error`, or `skip`: leave bad records out, and report them at the end.
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
    surrogate_steps: int = 300
    corruptions: Sequence[str] = ()
    severities: Sequence[int] = (1, 2, 3, 4, 5)
    corruption_draws: str = "frame"
    protocol: str | None = None
    sanity_checks: bool = False
    worst_case_only: bool = False
    certify: bool = False
    sigma: Sequence[float] = ()
    radii: Sequence[float] = ()
    samples: int = 1000
    certify_selection_samples: int = 100
    certify_alpha: float = 0.001
    certify_threshold: float = 0.5
    partitions: int = 0
    max_videos: int = 0
    batch_size: int | None = None
    top_k: int = 20
    checkpoint: str = "best"
    segment_labels: bool | None = None
    label_names: str | os.PathLike | None = None
    vocabulary: str | os.PathLike | None = None
    compare_to: str | os.PathLike | None = None
    min_positives: int = 10
    attention: bool = False
    embeddings: bool = False
    class_activation: bool = False
    true_spans: str | os.PathLike | None = None
    sensitivity_videos: int = 500
    clips: Sequence[str] = ()
    num_clips: int = 0
    output_file: str | os.PathLike | None = None
    start_over: bool = False
    on_bad_record: str = "error"
    max_bad_fraction: float = MAX_BAD_FRACTION
    trust_code: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """The settings of inference, named as the flags of `inference.py`.

    Attributes:
        batch_size: Clips, or segments, in a batch.
        top_k: Predictions per clip.
        checkpoint: `best` or `last`.
        segment_labels: Whether each window of 5 frames is predicted by itself, instead of whole
            clips; None: as in training.
        segment_label_ids_file: The classes of the CSV of segments; None: all of the model's.
        segment_max_pred: Most segments of a class in that CSV.
        on_bad_record: `error`, or `skip`: leave bad records (videos) out, and report them.
        max_bad_fraction: See `yt8m_gat.data.SkippedRecords`.
        trust_code: Whether to run code that the run names.
        format: Of the predictions of videos: `csv` or `json`.
    """

    batch_size: int = 512
    top_k: int = 20
    checkpoint: str = "best"
    segment_labels: bool | None = None
    segment_label_ids_file: str | os.PathLike | None = None
    segment_max_pred: int = 100_000
    on_bad_record: str = "error"
    max_bad_fraction: float = MAX_BAD_FRACTION
    trust_code: bool = False
    format: str = "csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoAttackSettings:
    """The settings of attacks on video files, named as the flags of `yt8m-gat attack-videos`.

    Attributes:
        attacks: Attacks on the pixels, as of `eval.py`; none: the pixels are not attacked.
        epsilons: Their radii, in levels of 255.
        attack_steps: Steps of PGD where a specification sets none.
        sound_snrs: Signal to noise ratios, in dB, at which the sound is attacked; none: it is not.
        feature_epsilons: Distances of features for which the smallest change of pixels and sound is
            searched; None: the epsilon of training; empty: nothing is searched.
        distance_videos: First videos for which it is searched; 0: all.
        num_clips: First videos that the page shows.
        on_bad_file: `error`: stop at a video that cannot be read; or `skip`: leave it out, and say
            so in the result.
        checkpoint: `best` or `last`.
        trust_code: Run the code that the run names, and load the extractor of an archive.
    """

    attacks: Sequence[str] = ("fgm_linf", "pgd_linf", "noise_linf")
    epsilons: Sequence[float] = (1.0, 2.0, 4.0, 8.0)
    attack_steps: int = 20
    sound_snrs: Sequence[float] = ()
    feature_epsilons: Sequence[float] | None = None
    distance_videos: int = 20
    num_clips: int = 2
    on_bad_file: str = "error"
    checkpoint: str = "best"
    trust_code: bool = False

    def __post_init__(self) -> None:
        for name in ("attack_steps", "distance_videos", "num_clips"):
            least = 1 if name == "attack_steps" else 0
            if getattr(self, name) < least:
                raise ConfigError(
                    f"--{name} must be at least {least}. Received: {getattr(self, name)}"
                )
        if self.on_bad_file not in ON_BAD_RECORD:
            raise ConfigError(
                f"--on_bad_file must be {' or '.join(ON_BAD_RECORD)}. Received: {self.on_bad_file}"
            )
        for name in ("epsilons", "feature_epsilons"):
            for value in getattr(self, name) or ():
                if not 0 < value < math.inf:
                    raise ConfigError(f"--{name} must be positive numbers. Received: {value:g}")
        for value in self.sound_snrs:
            if not -100 <= value <= 200:
                raise ConfigError(
                    f"--sound_snrs must be decibels, from -100 to 200. Received: {value:g}"
                )
        if self.attacks and not self.epsilons:
            raise ConfigError("--attacks needs radii: --epsilons. Received: none")
        if not self.attacks and not self.sound_snrs:
            raise ConfigError("name --attacks on the pixels, or --sound_snrs. Received: neither")
