"""The linear probe of benchmarks/transfer.py, beside scikit-learn's ridge regression."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from yt8m_gat.data import LabelMap
from yt8m_gat.metrics import evaluate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import transfer


@pytest.fixture
def splits():
    """Labels that are partly linear in embeddings with a large common part and a dead unit."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 4))

    def clips(count):
        x = rng.normal(size=(count, 6))
        y = x @ mixing + rng.normal(size=(count, 4)) > 1.0
        return np.hstack([30.0 + 0.3 * x, np.zeros((count, 1))]), y.astype(np.float32)

    return {"train": clips(200), "eval": clips(80), "test": clips(90)}


def test_the_probe_is_the_best_ridge_regression_of_the_validation(splits):
    x, y = splits["train"]
    deviation = x.std(0) + 1e-3
    best = None
    for penalty in transfer.PENALTIES:
        ridge = Ridge(alpha=penalty * len(x)).fit((x - x.mean(0)) / deviation, y)
        gap, test = (
            evaluate(labels, ridge.predict((vectors - x.mean(0)) / deviation))
            for vectors, labels in (splits["eval"], splits["test"])
        )
        if best is None or gap["gap"] > best[0]:
            best = gap["gap"], penalty, test
    penalty, metrics = transfer.probe(splits)
    assert penalty == best[1]
    result = metrics.result()
    assert result["gap"] > 0.6
    for name in ("gap", "map_all_scores"):
        assert result[name] == pytest.approx(best[2][name], abs=1e-9)


def test_the_halves_are_disjoint_and_a_label_map_keeps_one(tmp_path):
    first, second = transfer.halves(7, seed=3)
    assert (len(first), len(second)) == (4, 3)
    assert {*first, *second} == set(range(7))
    transfer.write_label_map(tmp_path / "map.csv", first)
    assert LabelMap.load(tmp_path / "map.csv", 7).pairs == tuple(zip(first, range(4), strict=True))
