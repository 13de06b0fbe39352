"""The sections of an evaluation beside its rows: each takes a pass over the videos of its own.

Each function measures one section, unless the record has it, and puts it there.
"""

from yt8m_gat.attacks import Ball
from yt8m_gat.config import ConfigError
from yt8m_gat.data import preprocess
from yt8m_gat.digests import digest_of
from yt8m_gat.evaluation.first_videos import first_videos
from yt8m_gat.evaluation.record import EvaluationRecord
from yt8m_gat.explanation.local_sensitivity import LocalSensitivity
from yt8m_gat.pipeline.activation_measures import measure_class_activation, measure_true_spans
from yt8m_gat.pipeline.attack_plan import PlannedAttack, first_radius, shared_options
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.pipeline.gradient_measures import measure_gradients
from yt8m_gat.pipeline.run_evaluator import square_maps
from yt8m_gat.pipeline.shown_clips import show_clips

# Local sensitivity: seconds to each side that count as local (in clips as long as the papers'),
# and output frames per clip.
NEIGHBOURHOOD = 10
SENSITIVITY_FRAMES = 20
# Clips whose gradients are compared with differences of the loss.
GRADIENT_VIDEOS = 200


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
