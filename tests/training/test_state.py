"""Early stopping, plateaus, drops and decay: every comparison, at its boundary."""

import dataclasses
import re

import keras
import pytest

from yt8m_gat.config import ConfigError, TrainingConfig
from yt8m_gat.data.identity import FileIdentity
from yt8m_gat.training import TrainingState


def recorded(gaps, **config):
    """The state after validations with these GAPs, at steps 10, 20, ..., and what each said."""
    config, state = TrainingConfig(**config), TrainingState()
    answers = []
    for gap in gaps:
        state.step += 10
        answers.append(state.record_validation(gap, config))
    return state, answers


def test_a_new_state_has_done_nothing():
    assert dataclasses.asdict(TrainingState()) == {
        **dict.fromkeys(("step", "epoch", "batch", "examples", "best_step"), 0),
        **dict.fromkeys(("since_best", "since_reduction", "last_validation"), 0),
        **dict.fromkeys(("nonfinite", "nonfinite_in_a_row"), 0),
        **dict.fromkeys(("best_gap", "best_pgd_gap", "train_files", "eval_files")),
        "fgm_gap_then": 0.0,
        "rate_factor": 1.0,
        "ordered": True,
    }
    files = (FileIdentity("a", 10, 7), FileIdentity("b", 10, None))
    state = TrainingState(step=3, best_gap=0.25, rate_factor=0.1, ordered=False, train_files=files)
    assert TrainingState.from_json(state.to_json()) == state


@pytest.mark.parametrize("name", ["step", "epoch", "since_best"])
def test_counts_below_0_are_refused(name):
    text = dataclasses.replace(TrainingState(), **{name: -1}).to_json()
    with pytest.raises(ConfigError, match=rf"state\.{name} must be at least 0\. Received: -1"):
        TrainingState.from_json(text)


def test_the_best_is_forgotten_and_a_validation_due():
    state, _ = recorded([0.5, 0.4], plateau_patience=1, plateau_factor=0.5)
    state.forget_best()
    assert state == TrainingState(step=20, rate_factor=0.5)
    assert state.record_validation(0.1, TrainingConfig())
    assert (state.best_gap, state.best_step, state.last_validation) == (0.1, 20, 20)


def test_an_equal_gap_is_no_better_one():
    state, answers = recorded([0.5, 0.5, 0.4, 0.6, 0.6])
    assert answers == [True, False, False, True, False]
    assert (state.best_gap, state.best_step, state.last_validation) == (0.6, 40, 50)
    assert (state.since_best, state.since_reduction) == (1, 1)


def test_the_first_validation_is_the_best_even_at_zero():
    state, answers = recorded([0.0])
    assert answers == [True] and state.best_gap == 0.0 and state.best_step == 10


def test_the_rate_falls_at_the_end_of_the_patience_and_again_after_as_long():
    expected = [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    for count, factor in enumerate(expected, start=1):
        gaps = [0.5] + [0.4] * (count - 1)
        state, _ = recorded(gaps, plateau_patience=2, plateau_factor=0.5)
        assert state.rate_factor == factor
        assert state.since_reduction == (count - 1) % 2
        assert state.since_best == count - 1


def test_a_better_gap_starts_the_patience_again_and_keeps_the_rate():
    gaps = [0.5, 0.4, 0.4, 0.6, 0.5]
    state, _ = recorded(gaps, plateau_patience=2, plateau_factor=0.5)
    assert (state.rate_factor, state.since_reduction, state.since_best) == (0.5, 1, 1)


def test_no_patience_means_that_the_rate_never_falls():
    state, _ = recorded([0.5] + [0.4] * 9, plateau_patience=0, plateau_factor=0.5)
    assert state.rate_factor == 1.0 and state.since_reduction == 9


@pytest.mark.parametrize(
    ("state", "config", "reason"),
    [
        ({"step": 9}, {"max_steps": 10}, None),
        ({"step": 10}, {"max_steps": 10}, "--max_steps=10 reached"),
        ({"step": 10**9}, {}, None),
        ({"epoch": 4}, {"num_epochs": 5}, None),
        ({"epoch": 5}, {"num_epochs": 5}, "--num_epochs=5 done"),
        ({"since_best": 2}, {"early_stopping_patience": 3}, None),
        (
            {"since_best": 3},
            {"early_stopping_patience": 3},
            r"no better .* in 3 validations \(.*\)",
        ),
        ({"since_best": 99}, {"early_stopping_patience": 0}, None),
        ({"since_best": 0}, {"early_stopping_patience": 0}, None),
    ],
)
def test_when_training_ends(state, config, reason):
    found = TrainingState(**state).finished(TrainingConfig(**config))
    assert found is None if reason is None else re.fullmatch(reason, found)


def rate(config, **state):
    return TrainingState(**state).learning_rate(TrainingConfig(base_learning_rate=0.8, **config))


def test_the_rate_decays_by_a_staircase_over_the_examples():
    decay = {"learning_rate_decay": 0.5, "learning_rate_decay_examples": 100.0}
    found = [rate(decay, examples=examples) for examples in (0, 99, 100, 199, 200, 350)]
    assert found == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.1])


def test_the_rate_drops_after_each_of_the_epochs():
    drops = {"drop_epochs": (2, 4), "drop_factor": 0.1}
    found = [rate(drops, epoch=epoch) for epoch in range(6)]
    assert found == pytest.approx([0.8, 0.8, 0.08, 0.08, 0.008, 0.008])


def test_decay_drops_and_plateaus_multiply():
    config = {
        "learning_rate_decay": 0.5,
        "learning_rate_decay_examples": 10.0,
        "drop_epochs": (1,),
        "drop_factor": 0.25,
    }
    found = rate(config, examples=25, epoch=3, rate_factor=0.125)
    assert found == pytest.approx(0.8 * 0.5**2 * 0.25 * 0.125)


def test_the_cosine_is_that_of_keras():
    config = {"learning_rate_schedule": "cosine", "max_steps": 13, "warmup_steps": 3}
    schedule = keras.optimizers.schedules.CosineDecay(0.8, decay_steps=10)
    found = [rate(config, step=step, rate_factor=0.5) for step in (3, 4, 8, 12, 13, 20)]
    expected = [0.5 * float(schedule(step)) for step in (0, 1, 5, 9, 10, 17)]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_the_rate_rises_to_that_of_the_schedule(schedule):
    config = {"learning_rate_schedule": schedule, "max_steps": 100, "warmup_steps": 4}
    found = [rate(config, step=step) for step in range(5)]
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate_schedule": "linear"}, "must be one of exponential, cosine"),
        ({"learning_rate_schedule": "cosine"}, "cosine needs --max_steps"),
        (
            {"learning_rate_schedule": "cosine", "max_steps": 5, "warmup_steps": 5},
            "above --warmup_steps. Received: 5 and 5",
        ),
        (
            {"learning_rate_schedule": "cosine", "max_steps": 5, "drop_epochs": (3,)},
            "cosine excludes --learning_rate_decay and --drop_epochs",
        ),
        ({"warmup_steps": -1}, "--warmup_steps must be at least 0"),
        ({"ema_momentum": 1.0}, r"--ema_momentum must be in \[0, 1\)"),
    ],
)
def test_schedules_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**settings)


def test_only_a_fall_under_pgd_by_itself_is_catastrophic():
    state = TrainingState()
    assert [state.record_watch(*gaps) for gaps in ((0.3, 0.2), (0.5, 0.4))] == [False, False]
    assert (state.best_pgd_gap, state.fgm_gap_then) == (0.4, 0.5)
    assert not state.record_watch(0.5, 0.2)  # Half is not less than half.
    assert state.record_watch(0.45, 0.19)
    assert not state.record_watch(0.44, 0.19)  # A single step breaks the model too.
    small = TrainingState(best_pgd_gap=0.03, fgm_gap_then=0.03)
    assert not small.record_watch(0.03, 0.0101) and small.record_watch(0.03, 0.0099)
    again = TrainingState.from_json(state.to_json())
    assert again.record_watch(0.45, 0.19)
