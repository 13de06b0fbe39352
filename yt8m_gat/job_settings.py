"""What evaluation and inference are asked for, with the defaults of their flags.

Plain fields of the standard library: the commands show them without TensorFlow.
"""

import dataclasses
import os
from collections.abc import Sequence

from yt8m_gat.config import MAX_BAD_FRACTION


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
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
    severities: Sequence[int] = (1, 2, 3, 4, 5)
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
    min_positives: int = 10
    attention: bool = False
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
    """How videos are predicted; the flags of `inference.py` by their names.

    Attributes:
        batch_size: Clips, or segments, at once.
        top_k: Predictions per clip.
        checkpoint: `best` or `last`.
        segment_labels: Whether each window of 5 frames is predicted by itself, instead of whole
            clips; None: as in training.
        segment_label_ids_file: The classes of the CSV of segments; None: all of the model's.
        segment_max_pred: Most segments of a class in it.
        on_bad_record: `error`, or `skip`: leave bad records out, and say so at the end.
        max_bad_fraction: See `yt8m_gat.data.SkippedRecords`.
        trust_code: Whether code that the run names is run.
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
