"""Each check passes, fails and is not run on rows written by hand."""

import functools

import pytest

from yt8m_gat.attacks import AttackOptions
from yt8m_gat.robustness import sanity
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.robustness.sanity import (
    SWEEP,
    failed,
    sanity_specs,
    unbounded_epsilon,
)

sanity_checks = functools.partial(sanity.sanity_checks, max_frames=4, num_features=2)
CLEAN = {"loss": 0.1, "zero_gradient_share": 0.0}


def row(attack, epsilon, loss, hit=0.5):
    options = AttackSpec.parse(attack).settings(AttackOptions())
    identity = {"attack": attack, "options": options, "epsilon": epsilon}
    return {**identity, "loss": loss, "hit_at_1": hit}


HONEST = [
    row("fgm", 0.5, 0.3),
    row("fgm", 8.0, 1.0, 0.2),
    row("pgd", 0.5, 0.4),
    row("pgd", 8.0, 9.0, 0.001),
    row("pgd:steps=100", 0.5, 0.41),
    row("pgd_margin", 0.5, 0.38),
    row("transfer", 0.5, 0.25),
    row("square", 0.5, 0.2),
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


def test_an_honest_evaluation_passes_every_check():
    found = verdicts(CLEAN, HONEST)
    assert set(found.values()) == {"pass"} and len(found) == 8
    assert failed(sanity_checks(CLEAN, HONEST)) == []


@pytest.mark.parametrize(
    ("check", "attacks"),
    [
        ("loss_over_epsilon", replaced("fgm", 8.0, loss=0.29)),
        ("loss_over_epsilon", replaced("fgm", 0.5, loss=0.09)),  # Below the clean loss.
        ("pgd_over_single_step", replaced("fgm", 0.5, loss=0.42)),
        ("unbounded", replaced("pgd", 8.0, hit_at_1=0.011)),
        ("white_box_over_transfer", replaced("transfer", 0.5, loss=0.42)),
        ("white_box_over_gradient_free", replaced("square", 0.5, loss=0.42)),
        ("white_box_over_noise", replaced("noise", 0.5, loss=0.42)),
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
    attacks = [row("pgd", 0.5, 0.4), row("noise_linf", 0.5, 0.9), row("square", 1.0, 0.9)]
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
    found = verdicts({"loss": 0.1}, [])
    assert set(found.values()) == {"not run"}
    details = [v["detail"] for v in sanity_checks({"loss": 0.1}, [])]
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
    assert failed(sanity_checks({**CLEAN, "zero_gradient_share": 1.0}, HONEST)) == []


def test_details_hold_the_figures():
    (found,) = [
        v
        for v in sanity_checks(CLEAN, replaced("noise", 0.5, loss=0.42))
        if v["check"] == "white_box_over_noise"
    ]
    assert "pgd:steps=100 0.41 against noise 0.42 at 0.5" in found["detail"]


def test_the_specs_are_all_that_the_checks_need():
    specs = sanity_specs(0.3, transfer=True)
    assert len(specs) == len(set(specs)) == 2 * (len(SWEEP) + 1) + 5
    attacks = [
        row(spec, epsilon, 0.1 + epsilon, hit=0.9 if epsilon < 8 else 0.0)
        for spec, epsilon in specs
    ]
    assert set(verdicts(CLEAN, attacks).values()) == {"pass"}
    assert ("transfer", 0.3) not in sanity_specs(0.3, transfer=False)
    assert sanity_specs(0.5, False, sweep=(0.5, 2.0))[:2] == (("fgm", 0.5), ("fgm", 2.0))
