"""Robust Hit@1 on rows written by hand."""

import numpy as np
import pytest

from yt8m_gat.attacks import AttackOptions
from yt8m_gat.metrics import EvaluationMetrics, evaluate
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.robustness.worst_case import packed, packed_pairs, worst_cases


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


def test_rows_and_attacks_on_survivors_are_one_worst_case():
    clean, fgm, pgd = (np.array(list(bits)) == "1" for bits in ("11110", "11010", "01111"))
    left = np.array([True, True, True, False, False])  # By two attacks, of clean.
    steps = [row("pgd", 0.5, clean), row("auto", 0.5, left)]
    named = {"hits": packed(clean)}
    [worst] = worst_cases(named, [row("fgm", 0.5, fgm), row("pgd", 0.5, pgd)], steps)
    assert worst["attacks"] == ["fgm", "pgd", "auto"]
    assert worst["hit_at_1"] == 1 / 5  # The second clip alone.
    [one_row] = worst_cases(named, [row("fgm", 0.5, fgm)], steps)
    assert (one_row["attacks"], one_row["hit_at_1"]) == (["fgm", "pgd", "auto"], 2 / 5)
    apart = worst_cases(named, [row("fgm", 0.5, fgm), row("pgd", 0.5, pgd)], [row("pgd", 1, left)])
    assert [(case["epsilon"], case["hit_at_1"]) for case in apart] == [(0.5, 2 / 5), (1, 3 / 5)]


def test_each_clip_takes_the_attack_that_leaves_its_own_average_precision_lowest():
    rng = np.random.default_rng(1)
    labels = rng.random((9, 6)) < 0.4
    # Of the rows, one breaks the first clips and one the last, so that both leave a higher GAP.
    scores = np.tile(np.where(labels, 0.9, 0.1), (3, 1, 1)) + 0.05 * rng.random((3, 9, 6))
    scores[1, :5] = 1.0 - scores[1, :5]
    scores[2, 5:] = 1.0 - scores[2, 5:]
    rows = []
    for name, of_row in zip(("clean", "fgm", "pgd"), scores, strict=True):
        metrics = EvaluationMetrics(6, top_k=4)
        metrics.update(labels, of_row.astype("float32"))
        kept = {"pairs": packed_pairs(*metrics.top_pairs), "gap": metrics.result()["gap"]}
        rows.append({**row("fgm" if name == "clean" else name, 0.5, metrics.hits_at_1), **kept})
    [worst] = worst_cases(rows[0], rows[1:])
    mixed = np.concatenate([scores[1, :5], scores[2, 5:]]).astype("float32")
    assert worst["gap"] == pytest.approx(evaluate(labels, mixed, top_k=4)["gap"], abs=1e-12)
    assert worst["gap"] < min(of["gap"] for of in rows)
    # The lowest row counts where its GAP is lower; a row without pairs leaves GAP unknown.
    [worst] = worst_cases(rows[0], [rows[1], {**rows[2], "gap": 0.0}])
    assert worst["gap"] == 0.0
    del rows[2]["pairs"]
    assert "gap" not in worst_cases(rows[0], rows[1:])[0]
