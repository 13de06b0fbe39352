"""The attacks of the command line: what is read reaches the attack, what cannot be is named."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import (
    ATTACKS,
    PGD,
    AttackOptions,
    Criterion,
    DeepFool,
    FastGradient,
    SquareSearch,
    TemporalAugmentation,
    Transfer,
)
from yt8m_gat.attacks.adaptive import AdaptivePGD
from yt8m_gat.attacks.registry import ATTACK_OPTIONS
from yt8m_gat.config import (
    ClipConfig,
    ConfigError,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
)
from yt8m_gat.data.quantization import dequantize
from yt8m_gat.job_settings import EvaluationSettings
from yt8m_gat.pipeline.attack_plan import plan_attacks
from yt8m_gat.pipeline.evaluation_checks import check_options
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.robustness.attack_spec import PIXELS, QUANTIZED, AttackSpec
from yt8m_gat.robustness.protocol import (
    PROTOCOL_DECISIONS,
    PROTOCOL_QUERIES,
    sceptic_attacks,
)
from yt8m_gat.robustness.sanity import SWEEP, radius_scale, sanity_specs, unbounded_epsilon

SHARED = AttackOptions(norm_scope="example", steps=7, restarts=2, queries=9)


def build(text, epsilon=0.5, **others):
    return AttackSpec.parse(text).build(epsilon, SHARED, **others)


def test_what_is_not_said_is_shared():
    attack = build("pgd")
    assert isinstance(attack, PGD)
    assert (attack.epsilon, attack.steps, attack.restarts) == (0.5, 7, 2)
    assert (attack.ball.norm, attack.ball.scope) == ("l2", "example")
    assert build("square").queries == 9


def test_what_is_said_goes_first():
    attack = build("pgd: steps=100 :restarts=5:step_size=0.25:random_start=true:norm_scope=joint")
    assert (attack.steps, attack.restarts, attack.step_size) == (100, 5, 0.25)
    assert attack.random_start is True and attack.ball.scope == "joint"
    assert build("pgd_margin:steps=3").objective == "margin"
    assert build("pgd_linf:loss=dlr").objective == "dlr"
    assert build("random_search:queries=3").queries == 3
    assert build("square_linf:queries=3").ball.norm == "linf"
    assert build("temporal:steps=3:non_key_frames=4").num_non_key == 4
    assert isinstance(build("temporal:steps=3"), TemporalAugmentation)


def test_steps_of_pgd_are_not_those_of_deepfool():
    assert build("deepfool", None) == DeepFool(steps=50)
    assert build("deepfool:steps=3", None).steps == 3


def test_its_own_epsilon_is_no_part_of_its_name():
    spec = AttackSpec.parse("pgd:epsilon=8:steps=3")
    assert (spec.text, spec.epsilon) == ("pgd:steps=3", 8.0)
    assert spec.radii((0.1, 0.5)) == (8.0,)
    assert AttackSpec.parse("pgd").radii((0.1, 0.5)) == (0.1, 0.5)
    assert AttackSpec.parse("deepfool").radii((0.1, 0.5)) == (None,)


def test_a_feature_may_have_a_radius_of_its_own():
    spec = AttackSpec.parse("pgd:epsilon_audio=0.1:epsilon=0.5:steps=3")
    assert (spec.text, spec.epsilon) == ("pgd:epsilon_audio=0.1:steps=3", 0.5)
    assert spec.build(0.5, SHARED).ball.shares == (("audio", 0.2),)
    assert spec.settings(SHARED)["epsilon_audio"] == 0.1
    assert build("square_linf:epsilon_rgb=0", 2.0).ball.shares == (("rgb", 0.0),)
    with pytest.raises(ConfigError, match="a radius of 0 for the other features has no shares"):
        spec.build(0.0, SHARED)
    config = RunConfig(
        data=DataConfig(feature_names=("rgb",), feature_sizes=(8,)), model=ModelConfig(name="GAT")
    )
    with pytest.raises(ConfigError, match=r"features: rgb. Received: epsilon_audio"):
        check_options(EvaluationOptions(eval_data_pattern="x"), [spec], config)


def test_the_ensemble_is_read():
    attack = build("auto:criterion=any:k=3:queries=7:targets=2:steps=9:early_exit=false")
    assert attack.criterion == Criterion("any", 3) and attack.early_exit is False
    assert (attack.queries, attack.targets, attack.steps) == (7, 2, 9)
    plain = build("auto_linf")
    assert (plain.queries, plain.targets, plain.steps, plain.early_exit) == (5000, 9, 100, True)
    assert plain.ball.norm == "linf" and plain.criterion.name == "top1"


def test_rounding_is_to_what_bytes_can_hold():
    attack = build("fgm:round=true")
    assert isinstance(attack, FastGradient)
    assert attack.round_to_levels == QUANTIZED.round_to_levels
    assert attack.clip_to_range == QUANTIZED.clip_to_range
    ends = dequantize(np.array([0, 255], np.uint8))
    np.testing.assert_allclose(QUANTIZED.clip_to_range, ends, rtol=1e-6)
    step, offset = QUANTIZED.round_to_levels
    np.testing.assert_allclose(offset + 3 * step, dequantize(np.uint8(3)), rtol=1e-6)
    assert build("fgm:clip=1").round_to_levels is None
    everywhere = dataclasses.replace(SHARED, clip_to_range=QUANTIZED.clip_to_range)
    assert AttackSpec.parse("fgm:clip=false").build(1.0, everywhere).clip_to_range is None
    assert AttackSpec.parse("fgm").build(1.0, everywhere).clip_to_range == QUANTIZED.clip_to_range


def test_transfer_and_adaptive_get_what_only_the_caller_has():
    def source(features, frame_mask):
        raise AssertionError("not called here")

    attack = build("transfer:steps=3", source=source)
    assert isinstance(attack, Transfer)
    assert attack.source is source and attack.inner.steps == 3
    with pytest.raises(ConfigError, match="--transfer_from"):
        build("transfer")
    assert build("surrogate:steps=3", source=source) == attack
    with pytest.raises(ConfigError, match="Received: a run of raw clips"):
        build("surrogate")

    def distance(clean, perturbed, frame_mask):
        return tf.zeros([1])

    attack = build("adaptive:weight=3", map_distance=distance)
    assert isinstance(attack, AdaptivePGD)
    assert (attack.weight, attack.steps, attack.map_distance) == (3.0, 7, distance)
    with pytest.raises(ConfigError, match="aims at the global attention maps"):
        build("adaptive")


def test_settings_are_all_that_the_attack_reads():
    settings = AttackSpec.parse("pgd:steps=100").settings(SHARED)
    assert settings == {
        "norm_scope": "example",
        "steps": 100,
        "step_size": None,
        "restarts": 2,
        "random_start": False,
        "clip": False,
        "round": False,
    }
    # Rows of versions without the option stay equal.
    assert AttackSpec.parse("pgd:steps=100:loss=loss").settings(SHARED) == settings
    dlr = AttackSpec.parse("pgd:steps=100:loss=dlr").settings(SHARED)
    assert dlr == {**settings, "loss": "dlr"}
    assert AttackSpec.parse("fgm").settings(SHARED) == {
        "norm_scope": "example",
        "clip": False,
        "round": False,
    }


def test_every_attack_has_its_options():
    assert set(ATTACK_OPTIONS) == {*ATTACKS, "transfer", "surrogate", "adaptive"}
    fields = {field.name for field in dataclasses.fields(AttackOptions)}
    assert {field for options in ATTACK_OPTIONS.values() for field in options.values()} <= fields


@pytest.mark.parametrize("name", ATTACKS)
def test_each_option_changes_the_attack(name):
    values = {
        "norm_scope": "joint",
        "random_start": "true",
        "step_size": "0.125",
        "loss": "dlr",
        "criterion": "all",
        "early_exit": "false",
    }
    plain = AttackSpec.parse(name).build(0.5, AttackOptions())
    for option in ATTACK_OPTIONS[name]:
        changed = AttackSpec.parse(f"{name}:{option}={values.get(option, '77')}")
        assert changed.build(0.5, AttackOptions()) != plain, option


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fgsm", r"--attacks must be of fgm, .*adaptive, or module:Class. Received: 'fgsm'"),
        ("pgd:step=3", r"pgd takes OPTION=VALUE with the options norm_scope, steps, .*'step=3'"),
        ("fgm:steps=3", r"fgm takes .* options norm_scope, clip, round, epsilon"),
        ("deepfool:epsilon=1", r"deepfool takes .* options steps, clip, round\. Received"),
        ("pgd:steps", r"Received: 'steps' in 'pgd:steps'"),
        ("pgd:steps=ten", r"steps must be a number. Received: 'ten'"),
        ("pgd:random_start=maybe", r"random_start must be true or false. Received: 'maybe'"),
        ("pgd:norm_scope=row", r"norm_scope must be one of frame, example, joint"),
        ("pgd:loss=f6", r"loss must be one of loss, margin, dlr, normalized. Received: 'f6'"),
        ("pgd:steps=3:steps=4", r"steps is given twice"),
        ("deepfool:epsilon_rgb=1", r"deepfool takes .* options steps, clip, round\. Received"),
        ("pgd:epsilon_rgb=-1", r"epsilon_rgb must be at least 0, and finite. Received: '-1'"),
        ("auto:criterion=top5", r"criterion must be one of top1, any, all"),
        ("pgd:epsilon=3:epsilon=4", r"epsilon is given twice"),
    ],
)
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        AttackSpec.parse(text)


@pytest.mark.parametrize("text", ["pgd:steps=0", "square:queries=0", "deepfool:steps=0"])
def test_what_an_attack_refuses_names_the_specification(text):
    with pytest.raises(ConfigError, match=rf"--attacks={text}: .*must be at least 1"):
        build(text)


def test_the_sceptics_table():
    def texts(**given):
        having = {"transfer": True, "surrogate": True, "adaptive": True, "rounded": True, **given}
        return [(spec.text, spec.epsilon) for spec in sceptic_attacks((0.5,), **having)]

    found = texts()
    assert [text for text, epsilon in found if epsilon == 0.5] == [
        "fgm",
        "noise",
        "pgd:steps=20",
        "pgd:steps=100",
        "pgd:steps=20:restarts=5",
        "pgd_margin:steps=20",
        "pgd:steps=20:loss=normalized",
        "transfer:steps=20",
        "surrogate:steps=20",
        "square:queries=5000",
        "random_search",
        "hop_skip_jump:queries=2000",
        "adaptive:steps=20",
        "pgd:steps=20:round=true",
        "pgd:steps=20",
        "pgd:steps=20:loss=dlr",
    ]
    sweep = [epsilon for text, epsilon in found if text == "pgd:steps=20"][1:]
    assert sweep == sorted(sweep) and (sweep[0], sweep[-1]) == (0.05, 8.0)
    assert ("deepfool", None) in found
    names = {text.partition(":")[0] for text, _ in texts(transfer=False, adaptive=False)}
    assert not names & {"transfer", "adaptive"}
    assert not [text for text, _ in texts(rounded=False) if "round" in text]
    assert isinstance(build("square"), SquareSearch)


def test_the_page_counts_the_passes_of_the_protocol():
    """`cost` itself is counted in test_single_model_attacks.py."""
    specs = sceptic_attacks([0.5], transfer=True, surrogate=True, adaptive=True, rounded=True)
    radii = (*SWEEP, unbounded_epsilon("frame", 300, 2))
    needed = sanity_specs(0.5, True, radii, PROTOCOL_QUERIES, PROTOCOL_DECISIONS)
    specs += [AttackSpec.parse(text).at(epsilon) for text, epsilon in needed]
    rows = {(spec.name, spec.epsilon, str(spec.settings(AttackOptions()))): spec for spec in specs}
    costs = [
        spec.build(spec.epsilon, AttackOptions(), source=print, map_distance=print).cost
        for spec in rows.values()
    ]
    page = (Path(__file__).resolve().parents[2] / "docs" / "ROBUSTNESS.md").read_text("utf-8")
    forward, backward = re.search(
        r"takes up to ([\d,]+) forward passes a batch, .*? and ([\d,]+) backward passes",
        " ".join(page.split()),
    ).groups()
    # Up to the next hundred; some rows take a pass more, on the clean clips.
    assert 0 <= int(forward.replace(",", "")) - sum(cost.forward for cost in costs) < 100
    assert 0 <= int(backward.replace(",", "")) - sum(cost.backward for cost in costs) < 100


def test_options_that_nobody_sets_are_those_of_the_flags():
    options, settings = AttackOptions(), EvaluationSettings(eval_data_pattern="x")
    assert (options.steps, options.restarts, options.queries) == (20, 1, 100)
    assert (settings.attack_steps, settings.attack_restarts) == (20, 1)
    assert settings.attack_queries == 100


def test_bounds_of_pixels():
    spec = dataclasses.replace(AttackSpec.parse("fgm:round=true"), bounds=PIXELS)
    attack = spec.build(1.0, SHARED)
    assert attack.clip_to_range == (0.0, 255.0)
    assert attack.round_to_levels == (1.0, 0.0)
    assert spec.settings(SHARED)["clip"] is True


def test_radii_for_pixels_are_in_proportion_to_the_norm_of_a_frame():
    assert radius_scale(None) == 1.0
    # 8 per frame of features, times 8 S for pixels.
    assert unbounded_epsilon("example", 4, 1, radius_scale(32)) == 8.0 * 8 * 32 * 2
    sweep = [spec.epsilon for spec in sceptic_attacks([5.0], transfer=False, surrogate=False,
             adaptive=False,
             rounded=True, scale=radius_scale(32)) if spec.epsilon not in (None, 5.0)]  # fmt: skip
    assert sweep == 2 * [256.0 * radius for radius in SWEEP]


def test_taf_in_pixels_has_the_radius_of_its_objective():
    config = RunConfig(
        data=DataConfig(
            feature_names=("image",), feature_sizes=(3,), max_frames=8, clips=ClipConfig()
        ),
        model=ModelConfig(name="TSM"),
        objective=ObjectiveConfig(epsilon=400.0, temporal_epsilon=64.0),
    )
    specs = [AttackSpec.parse("fgm"), AttackSpec.parse("temporal")]

    def radii(**options):
        planned = plan_attacks(
            EvaluationOptions(eval_data_pattern="x", **options), specs, config, None, None
        )
        assert all(row.attack.clip_to_range == (0.0, 255.0) for row in planned)
        return [row.identity["epsilon"] for row in planned]

    assert radii() == [400.0, 64.0]
    assert radii(epsilons=(5.0,)) == [5.0, 5.0]
