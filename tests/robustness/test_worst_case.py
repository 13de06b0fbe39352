"""Robust Hit@1 on rows written by hand."""

import numpy as np

from yt8m_gat.attacks import AttackOptions
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.robustness.worst_case import packed, worst_cases


def row(attack, epsilon, hits):
    options = AttackSpec.parse(attack).settings(AttackOptions())
    return {"attack": attack, "options": options, "epsilon": epsilon, "hits": packed(hits)}


def test_a_clip_counts_that_is_right_clean_and_under_every_attack_of_a_ball():
    rng = np.random.default_rng(0)
    clean, fgm, pgd, noise, linf, other = rng.random((6, 21)) < 0.8
    nothing = np.zeros(21, bool)
    attacks = [
        row("fgm", 0.5, fgm),
        row("pgd", 0.5, pgd),
        row("noise:norm_scope=frame", 0.5, noise),
        # Each alone in a ball of its own, or without one.
        row("pgd", 1.0, nothing),
        row("pgd:round=true", 0.5, nothing),
        row("pgd:norm_scope=joint", 0.5, nothing),
        row("deepfool", None, nothing),
        row("fgm_linf", 0.5, linf),
        row("temporal", 0.5, other),
    ]
    first, second = worst_cases({"hits": packed(clean)}, attacks)
    assert first["attacks"] == ["fgm", "pgd", "noise:norm_scope=frame"]
    assert (first["axes"], first["round"], first["epsilon"]) == ("frame", False, 0.5)
    assert first["hit_at_1"] == (clean & fgm & pgd & noise).mean()
    assert (second["axes"], second["attacks"]) == ("linf", ["fgm_linf", "temporal"])
    assert second["hit_at_1"] == (clean & linf & other).mean()
    assert 0 < first["hit_at_1"] < min(x.mean() for x in (clean, fgm, pgd, noise))
    assert worst_cases({"hits": packed(clean)}, attacks[2:7]) == []
