"""How far a layer moves, against the definitions over Gram matrices."""

import numpy as np
import pytest

from yt8m_gat.robustness.embeddings import EmbeddingShift


def shift(clean, moved, cuts=()):
    found = EmbeddingShift()
    for x, y in zip(np.split(clean, cuts), np.split(moved, cuts), strict=True):
        found.update(x, y)
    return found.result()


def test_figures_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(30, 5)).astype("float32") + 3.0
    moved = clean + 0.4 * rng.normal(size=(30, 5)).astype("float32")
    found = shift(clean, moved, cuts=[7, 12])
    center = np.eye(30) - 1 / 30
    k, m = (center @ (v @ v.T).astype(float) @ center for v in (clean, moved))
    assert found["cka"] == pytest.approx(
        np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)), rel=1e-5
    )
    norms = np.linalg.norm(clean, axis=1)
    cosines = np.diag(clean @ moved.T) / norms / np.linalg.norm(moved, axis=1)
    assert found["cosine"] == pytest.approx(np.mean(cosines), rel=1e-5)
    relative = np.linalg.norm(moved - clean, axis=1) / norms
    assert found["relative_l2"] == pytest.approx(np.mean(relative), rel=1e-5)
    assert (found["rows"], found["size"]) == (30, 5)


def test_turning_all_rows_leaves_their_similarities():
    rng = np.random.default_rng(1)
    clean = rng.normal(size=(30, 5))
    turned = -2.0 * clean @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 7.0
    assert shift(clean, turned)["cka"] == pytest.approx(1.0)
    assert shift(clean, -clean) == {
        **{"size": 5, "rows": 30, "cka": pytest.approx(1.0)},
        **{"cosine": pytest.approx(-1.0), "relative_l2": pytest.approx(2.0)},
    }


def test_a_layer_without_spread_has_no_similarity():
    constant = np.full((4, 3), 0.1)
    assert shift(constant, constant) == {
        **{"size": 3, "rows": 4, "cka": None, "cosine": pytest.approx(1.0), "relative_l2": 0.0}
    }
    nothing = shift(np.zeros((4, 3)), constant)
    assert nothing["cosine"] is nothing["relative_l2"] is None
