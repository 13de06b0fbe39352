"""Each check passes, fails and is not run on rows written by hand."""

import functools

import numpy as np
import pytest

from yt8m_gat.attacks import AttackOptions
from yt8m_gat.metrics import evaluate
from yt8m_gat.robustness import sanity
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.robustness.label_frequencies import frequency_metrics
from yt8m_gat.robustness.sanity import (
    SWEEP,
    failed,
    sanity_specs,
    unbounded_epsilon,
)

GRADIENTS = {
    "precision": "float64",
    "random_share": 0.0,
    "nearly_zero_share": 0.0,
    "loss_by_factor": {"0.1": 0.2, "1.0": 0.1, "10.0": 0.3},
    "points": [
        {"point": "clean", "direction": "attack", "outside_share": 0.0, "unresolved_share": 0.0,
         "ratio": 1.0}
    ],
}  # fmt: skip
# 1,000 clips, of which 200 have the one class and 10 the other: their frequencies give GAP .192.
POSITIVES = [200, 10]
sanity_checks = functools.partial(
    sanity.sanity_checks,
    max_frames=4,
    num_features=2,
    gradients=GRADIENTS,
    positives=POSITIVES,
)
CLEAN = {"loss": 0.1, "gap": 0.8, "hit_at_1": 0.9, "margin": -4.0, "zero_gradient_share": 0.0,
         "num_videos": 1000}  # fmt: skip


def row(attack, epsilon, loss, hit=0.5, **figures):
    options = AttackSpec.parse(attack).settings(AttackOptions())
    identity = {"attack": attack, "options": options, "epsilon": epsilon}
    return {**identity, "loss": loss, "hit_at_1": hit, "num_videos": 1000, **figures}


HONEST = [
    row("fgm", 0.5, 0.3),
    row("fgm", 8.0, 1.0, 0.2),
    row("pgd", 0.5, 0.4),
    row("pgd", 8.0, 9.0, 0.001),
    row("pgd:steps=100", 0.5, 0.41),
    row("pgd_margin", 0.5, 0.38),
    row("transfer", 0.5, 0.25),
    row("pgd:loss=normalized", 0.5, 0.39),
    row("square:queries=1000", 0.5, 0.2),
    row("hop_skip_jump:queries=1000", 0.5, 0.2),
    row("noise", 0.5, 0.11),
    {"attack": "deepfool", "epsilon": None, "loss": 5.0, "hit_at_1": 0.0},
]


def verdicts(clean, attacks, **options):
    return {v["check"]: v["verdict"] for v in sanity_checks(clean, attacks, **options)}


def replaced(attack, epsilon, **changes):
    """HONEST with one row changed."""
    return [
        {**r, **changes} if (r["attack"], r["epsilon"]) == (attack, epsilon) else r for r in HONEST
    ]


def with_all(measure, value, attack, other):
    """HONEST with one more measure, which is another in one row."""
    return [{**r, measure: other if r["attack"] == attack else value} for r in HONEST]


def test_an_honest_evaluation_passes_every_check():
    found = verdicts(CLEAN, HONEST)
    assert set(found.values()) == {"pass"} and len(found) == 13
    assert failed(sanity_checks(CLEAN, HONEST)) == []


@pytest.mark.parametrize(
    ("check", "attacks"),
    [
        ("loss_over_epsilon", replaced("fgm", 8.0, loss=0.29)),
        ("loss_over_epsilon", replaced("fgm", 0.5, loss=0.09)),  # Below the clean loss.
        ("pgd_over_single_step", replaced("fgm", 0.5, loss=0.42)),
        ("unbounded", replaced("pgd", 8.0, hit_at_1=0.011)),
        ("white_box_over_transfer", replaced("transfer", 0.5, loss=0.42)),
        ("white_box_over_gradient_free", replaced("square:queries=1000", 0.5, loss=0.42)),
        ("white_box_over_decisions", replaced("hop_skip_jump:queries=1000", 0.5, hit_at_1=0.1)),
        ("white_box_over_noise", replaced("noise", 0.5, loss=0.42)),
        # By each other measure, as far as an attack on the margin was run.
        ("white_box_over_noise", replaced("noise", 0.5, hit_at_1=0.09)),
        ("white_box_over_gradient_free", with_all("gap", 0.6, "square:queries=1000", 0.18)),
        ("white_box_over_transfer", with_all("margin", -2.0, "transfer", -1.0)),
        (
            "enough_steps",
            [
                *with_all("margin", -2.0, "", 0.0),
                row("pgd_margin:steps=100", 0.5, 0.38, margin=-1.85),
            ],
        ),
        ("enough_steps", replaced("pgd:steps=100", 0.5, loss=0.42)),
        ("enough_steps", replaced("pgd:steps=100", 0.5, loss=0.38)),
    ],
)
def test_each_check_fails_alone(check, attacks):
    assert failed(sanity_checks(CLEAN, attacks)) == [check]


def test_tolerances_are_what_they_say():
    # 1 % of the larger loss: .41 against .414 is level, against .415 is not.
    assert failed(sanity_checks(CLEAN, replaced("noise", 0.5, loss=0.414))) == []
    assert failed(sanity_checks(CLEAN, replaced("noise", 0.5, loss=0.415)))
    # 5 % of the rise over the clean loss: .3 + .05 * .315 = .315.
    assert failed(sanity_checks(CLEAN, replaced("pgd:steps=100", 0.5, loss=0.4155))) == []


def test_the_strongest_of_each_kind_counts():
    # Plain PGD is weaker than the step, PGD-100 is not: `enough_steps` says what is wrong.
    attacks = replaced("pgd", 0.5, loss=0.25)
    assert failed(sanity_checks(CLEAN, attacks)) == ["enough_steps"]


def test_norms_and_radii_are_not_mixed():
    attacks = [row("pgd", 0.5, 0.4), row("noise_linf", 0.5, 0.9)]
    attacks.append(row("square:queries=1000", 1.0, 0.9))
    found = verdicts(CLEAN, attacks)
    assert found["white_box_over_noise"] == found["white_box_over_gradient_free"] == "not run"
    attacks = [row("pgd_linf", 0.5, 0.4), row("noise_linf", 0.5, 0.9)]
    assert verdicts(CLEAN, attacks)["white_box_over_noise"] == "fail"


def test_axes_of_a_norm_are_not_mixed():
    attacks = [row("pgd", 0.5, 0.4), row("noise:norm_scope=joint", 0.5, 0.9)]
    attacks.append(row("pgd:steps=100:norm_scope=example", 0.5, 0.9))
    found = verdicts(CLEAN, attacks)
    assert found["white_box_over_noise"] == found["enough_steps"] == "not run"
    attacks.append(row("pgd:norm_scope=joint", 0.5, 0.4))
    assert verdicts(CLEAN, attacks)["white_box_over_noise"] == "fail"


def test_noise_and_transfers_may_fall_with_epsilon():
    attacks = [row(name, e, 0.4 - e / 10) for name in ("noise", "transfer") for e in (1.0, 2.0)]
    assert verdicts(CLEAN, attacks)["loss_over_epsilon"] == "not run"
    assert verdicts(CLEAN, [row("fgm", 0.5, 0.3)])["loss_over_epsilon"] == "not run"


def test_what_was_not_run_is_said():
    nothing = {"gradients": None, "positives": None}
    found = verdicts({"loss": 0.1}, [], **nothing)
    assert set(found.values()) == {"not run"}
    details = [v["detail"] for v in sanity_checks({"loss": 0.1}, [], **nothing)]
    assert all(detail.startswith("needs ") for detail in details)


def test_few_hits_at_a_small_radius_say_enough():
    attacks = [row("pgd", 1.0, 2.0, hit=0.005)]
    assert verdicts(CLEAN, attacks)["unbounded"] == "pass"
    # 8 a frame; over the 4 frames 16; over 2 features of 4 frames 8 * sqrt(8) = 22.6.
    for spec, small, large in (
        ("pgd", 7.9, 8.0),
        ("pgd:norm_scope=example", 15.9, 16.0),
        ("pgd_margin:norm_scope=joint", 22.6, unbounded_epsilon("joint", 4, 2)),
    ):
        assert verdicts(CLEAN, [row(spec, small, 2.0, 0.05)])["unbounded"] == "not run"
        attacks = [row(spec, large, 2.0, 0.05)]
        assert verdicts(CLEAN, attacks)["unbounded"] == "fail"
        assert verdicts(CLEAN, attacks, can_reach_zero=False)["unbounded"] == "not run"


def test_unbounded_is_so_for_each_frame():
    assert unbounded_epsilon("frame", 300, 2) == 8
    assert unbounded_epsilon("example", 100, 2) == 80
    assert unbounded_epsilon("joint", 50, 2) == 80


def test_steps_are_compared_with_everything_else_equal():
    attacks = [row("pgd", 0.5, 0.4), row("pgd:restarts=5:steps=100", 0.5, 0.9)]
    assert verdicts(CLEAN, attacks)["enough_steps"] == "not run"
    attacks.append(row("pgd:restarts=5", 0.5, 0.89))
    assert verdicts(CLEAN, attacks)["enough_steps"] == "pass"


def test_zero_gradients_warn():
    assert verdicts({**CLEAN, "zero_gradient_share": 0.02}, HONEST)["zero_gradients"] == "warning"
    assert failed(sanity_checks({**CLEAN, "zero_gradient_share": 0.11}, HONEST)) == [
        "zero_gradients"
    ]
    nearly = {**GRADIENTS, "nearly_zero_share": 0.02}
    assert verdicts(CLEAN, HONEST, gradients=nearly)["zero_gradients"] == "warning"
    nearly["nearly_zero_share"] = 0.2
    assert failed(sanity_checks(CLEAN, HONEST, gradients=nearly)) == ["zero_gradients"]


def test_slopes_fail_by_the_share_of_clips_outside():
    def of(**point):
        points = [*GRADIENTS["points"], {**GRADIENTS["points"][0], "point": "pgd", **point}]
        return verdicts(CLEAN, HONEST, gradients={**GRADIENTS, "points": points})["gradient"]

    assert (of(outside_share=0.05), of(outside_share=0.051)) == ("pass", "fail")
    assert (of(unresolved_share=0.5), of(unresolved_share=0.51)) == ("pass", "warning")
    assert of(ratio=None) == "pass"


def test_a_model_with_two_answers_is_named():
    random = {**GRADIENTS, "random_share": 0.02}
    found = verdicts(CLEAN, HONEST, gradients=random)
    assert (found["deterministic"], found["gradient"]) == ("fail", "not run")


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ({"0.1": 0.09, "1.0": 0.1}, "fail"),
        ({"1.0": 0.1, "10.0": 0.09}, "fail"),
        ({"0.3": 0.01, "1.0": 0.1, "3.0": 0.09}, "pass"),
        ({"0.1": None, "1.0": 0.1}, "pass"),
        ({}, "not run"),
    ],
)
def test_a_factor_that_lowers_the_loss_is_named(losses, verdict):
    found = verdicts(CLEAN, HONEST, gradients={**GRADIENTS, "loss_by_factor": losses})
    assert found["logit_scale"] == verdict


@pytest.mark.parametrize(
    ("attack", "check"),
    [
        ("square", "white_box_over_gradient_free"),
        ("hop_skip_jump", "white_box_over_decisions"),
    ],
)
def test_a_search_of_few_queries_can_only_fail(attack, check):
    few = [{**r, "options": {**r["options"], "queries": 999}} if attack in r["attack"] else r
           for r in HONEST]  # fmt: skip
    assert verdicts(CLEAN, few)[check] == "not run"
    few = [{**r, "loss": 0.42} if attack in r["attack"] else r for r in few]
    assert verdicts(CLEAN, few)[check] == "fail"


def test_hits_of_few_clips_may_differ_by_one():
    few = [{**r, "num_videos": 20} for r in replaced("noise", 0.5, hit_at_1=0.45)]
    few = [{**r, "hit_at_1": min(r["hit_at_1"], 0.5)} for r in few]
    assert verdicts(CLEAN, few)["white_box_over_noise"] == "pass"
    few = [{**r, "hit_at_1": 0.40} if r["attack"] == "noise" else r for r in few]
    assert verdicts(CLEAN, few)["white_box_over_noise"] == "fail"


def test_a_model_that_learned_frequencies_is_undertrained():
    # 210 labels: precision .2 over the pairs of the first class, .105 at the end of the second.
    assert frequency_metrics(POSITIVES, 1000) == {
        "gap": pytest.approx((200 * 0.2 + 10 * 0.105) / 210),
        "hit_at_1": 0.2,
    }
    # A tenth of the way from .2 to 1 is .28, of that from .195 to 1 .276.
    weak = {**CLEAN, "gap": 0.27, "hit_at_1": 0.27}
    attacks = replaced("noise", 0.5, loss=0.42)
    found = verdicts(weak, attacks)
    assert (found["trained"], found["white_box_over_noise"]) == ("undertrained",) * 2
    assert failed(sanity_checks(weak, attacks)) == []
    assert verdicts({**weak, "hit_at_1": 0.29}, attacks)["white_box_over_noise"] == "fail"
    # A wrong gradient is wrong, whatever the model has learned.
    wrong = {**GRADIENTS["points"][0], "outside_share": 1.0}
    found = verdicts(weak, HONEST, gradients={**GRADIENTS, "points": [wrong]})
    assert (found["trained"], found["gradient"]) == ("undertrained", "fail")


def test_frequencies_score_as_the_metrics_have_it():
    rng = np.random.default_rng(0)
    labels = rng.random((40, 30)) < rng.choice([0.05, 0.3, 0.5], size=30)
    labels[:, 3] = labels[::-1, 5]  # Two classes as frequent as each other.
    scores = np.tile(labels.mean(axis=0), (40, 1))
    expected = evaluate(labels, scores)
    found = frequency_metrics(labels.sum(axis=0), 40)
    assert found["gap"] == pytest.approx(expected["gap"], rel=1e-12)
    # Of two classes that are the most frequent, the metrics take the first.
    assert found["hit_at_1"] == pytest.approx(labels.mean(axis=0).max())


def test_details_hold_the_figures():
    (found,) = [
        v
        for v in sanity_checks(CLEAN, replaced("noise", 0.5, loss=0.42))
        if v["check"] == "white_box_over_noise"
    ]
    assert "pgd:steps=100 0.41 against noise 0.42 at 0.5" in found["detail"]


def test_the_specs_are_all_that_the_checks_need():
    specs = sanity_specs(0.3, transfer=True)
    assert len(specs) == len(set(specs)) == 3 * (len(SWEEP) + 1) + 7
    attacks = [
        row(spec, epsilon, 0.1 + epsilon, hit=0.9 if epsilon < 8 else 0.0)
        for spec, epsilon in specs
    ]
    assert set(verdicts(CLEAN, attacks).values()) == {"pass"}
    assert ("transfer", 0.3) not in sanity_specs(0.3, transfer=False)
    assert sanity_specs(0.5, False, sweep=(0.5, 2.0))[:2] == (("fgm", 0.5), ("fgm", 2.0))
