"""The sections of an evaluation beside its rows: each takes a pass over the videos of its own.

Each function measures one section, unless the record has it, and puts it there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from yt8m_gat.attacks import Ball
from yt8m_gat.config import ConfigError
from yt8m_gat.data import preprocess
from yt8m_gat.digests import digest_of
from yt8m_gat.evaluation.first_videos import first_videos
from yt8m_gat.evaluation.record import EvaluationRecord, as_json
from yt8m_gat.explanation.local_sensitivity import LocalSensitivity
from yt8m_gat.pipeline.activation_measures import measure_class_activation, measure_true_spans
from yt8m_gat.pipeline.attack_plan import PlannedAttack, first_radius, shared_options
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.pipeline.gradient_measures import measure_gradients
from yt8m_gat.pipeline.run_evaluator import square_maps
from yt8m_gat.pipeline.shown_clips import show_clips
from yt8m_gat.robustness.measured_row import ball_of
from yt8m_gat.robustness.worst_case import packed, unpacked

# Local sensitivity: seconds to each side that count as local (in clips as long as the papers'),
# and output frames per clip.
NEIGHBOURHOOD = 10
SENSITIVITY_FRAMES = 20
# Clips whose gradients are compared with differences of the loss.
GRADIENT_VIDEOS = 200


def add_survivors(
    run: EvaluatedRun, record: EvaluationRecord, attacks: Sequence[PlannedAttack]
) -> None:
    """Runs each attack on the clips that no earlier one of its ball, nor none at all, has broken.

    `survivors` lists the attacks, with what they broke. Those at the beginning of the list that an
    earlier call has run are not run again.
    """
    earlier = record.result.get("survivors", [])
    steps: list[dict[str, Any]] = []
    standing: dict[tuple[str, bool, float], np.ndarray] = {}
    clean = unpacked(record.result["clean"]["hits"])
    for index, planned in enumerate(attacks):
        step = as_json(planned.identity)
        before = standing.get(ball_of(step), clean)
        if index < len(earlier) and step.items() <= earlier[index].items():
            step = earlier[index]
        else:
            earlier = []
            left = run.survivors(planned.ready(), before, planned.description)
            attacked = int(before.sum())
            counts = {"attacked": attacked, "broken": attacked - int(left.sum())}
            step = {**step, **counts, "hits": packed(left)}
        steps.append(step)
        standing[ball_of(step)] = unpacked(step["hits"])
        if not earlier:
            record.set(survivors=steps)


def add_gradients(run: EvaluatedRun, record: EvaluationRecord) -> None:
    """Compares gradients with differences of the loss at the first radius, for the checks."""
    shared = shared_options(run.options, run.config)
    epsilon = first_radius(run.options, run.config)
    identity = {
        "norm_scope": shared.norm_scope,
        "steps": shared.steps,
        "num_videos": min(GRADIENT_VIDEOS, run.num_videos),
    }
    earlier = record.section("gradients")
    same = {**identity, "epsilon": epsilon}.items() <= earlier.items()
    if epsilon > 0 and not same:
        measured = measure_gradients(
            run.evaluator,
            first_videos(run.batches(), GRADIENT_VIDEOS),
            Ball("l2", shared.norm_scope),
            epsilon,
            shared.steps,
            shared.clip_to_range,
        )
        record.set(gradients={**identity, **measured})


def add_sensitivity(run: EvaluatedRun, record: EvaluationRecord) -> None:
    """Measures the local sensitivity of the first videos, clean."""
    attention = record.section("attention")
    count = min(run.options.sensitivity_videos, run.num_videos)
    if "sensitivity" not in attention or attention.get("sensitivity_videos") != count:
        data = run.config.data
        sensitivity = LocalSensitivity(
            lambda features, mask: run.evaluator.forward(features, mask).frames,
            neighbourhood=min(NEIGHBOURHOOD, max(1, data.max_frames // 10)),
            max_frames=SENSITIVITY_FRAMES,
            # A residual network keeps some 0.1 GB a frame of pixels for its gradient.
            copies=4 if data.clips else 32,
        )
        for batch in first_videos(run.batches(), count):
            sensitivity.update(*preprocess(batch["features"], batch["num_frames"], data.normalize))
        section = {"sensitivity": sensitivity.result(), "sensitivity_videos": count}
        record.set(attention={**attention, **section})


def add_class_activation(run: EvaluatedRun, record: EvaluationRecord) -> None:
    """Measures how evenly class activation lies over time."""
    if not record.section("class_activation"):
        measured = measure_class_activation(run.evaluator, run.batches(), run.num_videos)
        record.set(class_activation=measured)


def add_true_spans(run: EvaluatedRun, record: EvaluationRecord) -> None:
    """Measures how much activation and attention fall into the spans where labels are shown.

    Raises:
        ConfigError: No video has a span.
    """
    # Of what was read: the file may have been replaced since.
    identity = {"spans": digest_of([repr(run.spans).encode()])}
    if record.section("true_spans").get("spans") != identity["spans"]:
        measured = measure_true_spans(run.evaluator, run.batches(), run.num_videos, run.spans)
        if not measured["activation"]["num_spans"] + measured["activation"]["num_silent"]:
            raise ConfigError(
                f"--true_spans={run.options.true_spans}: no id of it is one of "
                f"{run.options.eval_data_pattern}"
            )
        record.set(true_spans={**identity, **measured})


def add_clips(run: EvaluatedRun, record: EvaluationRecord, attack: PlannedAttack | None) -> None:
    """Shows the clips that the options name, clean and under `attack`."""
    lay_out = square_maps(run.classifier)
    record.show(show_clips(run.evaluator, run.options, run.batches(), attack, run.names, lay_out))
