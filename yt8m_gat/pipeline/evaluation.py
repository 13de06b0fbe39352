"""Evaluating a run, clean and perturbed."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yt8m_gat.attacks import (
    ATTACKS,
    ATTACKS_WITHOUT_EPSILON,
    Attack,
    AttackOptions,
    build_attack,
)
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    count_records,
    find_files,
    iterate,
    make_dataset,
)
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.losses import (
    average_over_heads,
    distance_to_uniform,
    get_loss,
    normalized_entropy,
)
from yt8m_gat.models import load_classifier
from yt8m_gat.pipeline.run_settings import on_segments, read_schema
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import follow

# Scores kept for the all-scores MAP: 4 bytes times videos times classes.
MAX_SCORE_BYTES = 4 * 2**30


def attention_figures(attention_maps: dict[str, dict[str, Any]], frame_mask: Any) -> dict[str, Any]:
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


def build_evaluator(classifier: Any, config: RunConfig, **options: Any) -> Evaluator:
    """An evaluator of `classifier` with the loss and the features of its run."""
    return Evaluator(
        classifier,
        get_loss(config.objective.label_loss, config.objective.class_reduction),
        config.data.num_classes,
        config.data.normalize,
        attention_figures=attention_figures if config.data.frame_features else None,
        **options,
    )


def evaluate(
    folder: RunFolder,
    *,
    eval_data_pattern: str,
    attacks: Sequence[str] = (),
    epsilons: Sequence[float] = (),
    batch_size: int | None = None,
    top_k: int = 20,
    checkpoint: str = "best",
    output_file: str | os.PathLike | None = None,
    segment_labels: bool | None = None,
) -> dict[str, Any]:
    """Metrics of a trained run, clean and under each attack at each epsilon.

    Args:
        folder: The run.
        eval_data_pattern: Files to evaluate on.
        attacks: Names of attacks.
        epsilons: Their radii; by default that of training.
        batch_size: Clips, or segments, at once; by default that of training.
        top_k: Predictions per clip, or segment, that GAP and MAP count.
        checkpoint: `best` or `last`.
        output_file: Where the figures are written too, as JSON.
        segment_labels: Whether the rated segments are evaluated, each by itself, instead of whole
            clips; None: as in training.

    Returns:
        `{"clean": {...}, "attacks": [{"attack", "epsilon", ...}, ...]}`; also written to
        `output_file` as JSON when given.
    """
    config = RunConfig.load(folder.path)
    segments = "rated" if on_segments(config, segment_labels) else None
    files = find_files(eval_data_pattern, "eval_data_pattern")
    made = _build_attacks(attacks, epsilons or (config.objective.epsilon,), config)
    if output_file is not None and not Path(output_file).absolute().parent.is_dir():
        raise ConfigError(f"--output_file={output_file}: its folder does not exist")
    classifier = load_classifier(folder, config, checkpoint)
    schema = read_schema(folder, config)
    num_videos = count_records(files)
    # Without all scores there is no segment MAP; all of 2019's rated segments are 3.7 GB.
    all_scores = segments is not None or 4 * num_videos * config.data.num_classes <= MAX_SCORE_BYTES
    if not all_scores:
        print("map_all_scores is left out: it would keep every score in memory", file=sys.stderr)
    evaluator = build_evaluator(classifier, config, top_k=top_k, all_scores=all_scores)

    def run(attack: Any, description: str) -> dict[str, float]:
        dataset = make_dataset(
            files, schema, batch_size or config.training.batch_size, segments=segments
        )
        return evaluator.evaluate(iterate(dataset, files), attack, num_videos, description)

    result: dict[str, Any] = {"clean": run(None, "clean"), "attacks": []}
    for name, epsilon, attack in made:
        metrics = run(attack, name if epsilon is None else f"{name} {epsilon:g}")
        result["attacks"].append({"attack": name, "epsilon": epsilon, **metrics})
    if output_file is not None:
        path = Path(output_file)
        temporary = path.with_name(path.name + ".partial")
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    return result


def _build_attacks(
    names: Sequence[str], epsilons: Sequence[float], config: RunConfig
) -> list[tuple[str, float | None, Attack]]:
    """(name, epsilon, attack) of each evaluation; epsilon None where an attack has no radius."""
    options = AttackOptions(norm_scope=config.objective.norm_scope)
    made = []
    for name in names:
        if name not in ATTACKS:
            raise ConfigError(f"--attacks must be of {', '.join(ATTACKS)}. Received: {name!r}")
        if name in ATTACKS_WITHOUT_EPSILON:
            made.append((name, None, build_attack(name, 0.0, options)))
            continue
        made += [(name, epsilon, build_attack(name, epsilon, options)) for epsilon in epsilons]
    if made and not config.data.frame_features:
        raise ConfigError("--attacks need a frame-level model")
    return made


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
    for step in follow(folder, checkpoint, poll_seconds):
        yield (
            step,
            evaluate(folder, eval_data_pattern=eval_data_pattern, checkpoint=checkpoint, **options),
        )
