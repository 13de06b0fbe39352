"""Temperature, thresholds and reliability, against SciPy, brute force and plain loops."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from yt8m_gat.metrics import calibration
from yt8m_gat.metrics.calibration import (
    best_threshold,
    expected_calibration_error,
    fit_temperature,
    fit_thresholds,
    likeliest,
    negative_log_likelihood,
    reliability,
)


def pairs(seed=0, num_examples=60, num_classes=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (num_examples, num_classes)).astype(np.float32)
    labels = (rng.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits / 3))).astype(np.float32)
    return rng, labels, logits


def sigmoid_nll(labels, logits, temperature, weights):
    p = 1 / (1 + np.exp(-logits.astype(np.float64) / temperature))
    terms = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    return np.sum(weights * terms) / np.sum(weights)


@pytest.mark.parametrize("rated", [False, True])
def test_the_temperature_is_that_of_scipys_least_nll(monkeypatch, rated):
    monkeypatch.setattr(calibration, "_ROWS", 7)
    rng, labels, logits = pairs()
    weights = rng.integers(0, 2, labels.shape).astype(np.float32) if rated else None
    w = np.ones(labels.shape) if weights is None else weights
    oracle = minimize_scalar(
        lambda t: sigmoid_nll(labels, logits, t, w), bounds=(0.1, 20), options={"xatol": 1e-9}
    )
    fitted = fit_temperature(labels, logits, weights)
    np.testing.assert_allclose(fitted, oracle.x, rtol=1e-5)
    assert 2 < fitted < 5  # Made with 3.
    np.testing.assert_allclose(
        negative_log_likelihood(labels, logits, fitted, weights), oracle.fun, rtol=1e-9
    )


def test_the_temperature_of_exclusive_classes_is_that_of_the_softmax():
    rng, _, logits = pairs(1)
    labels = np.eye(5)[[rng.choice(5, p=np.exp(z / 2) / np.exp(z / 2).sum()) for z in logits]]
    labels[0] = 0  # Does not count.

    def nll(temperature):
        z = logits[1:].astype(np.float64) / temperature
        return np.mean(np.log(np.exp(z).sum(axis=1)) - np.sum(labels[1:] * z, axis=1))

    oracle = minimize_scalar(nll, bounds=(0.1, 20), options={"xatol": 1e-9})
    fitted = fit_temperature(labels, logits, exclusive=True)
    np.testing.assert_allclose(fitted, oracle.x, rtol=1e-5)
    np.testing.assert_allclose(
        negative_log_likelihood(labels, logits, fitted, exclusive=True), oracle.fun, rtol=1e-9
    )


def test_the_temperature_has_bounds_and_needs_finite_logits():
    labels, logits = np.array([[1, 0]]), np.array([[3.0, -3.0]])
    assert fit_temperature(labels, logits) == 0.01  # Separated: certainty has the least NLL.
    assert fit_temperature(labels, -logits) == 100.0
    with pytest.raises(ValueError, match="`logits` must be finite"):
        fit_temperature(labels, np.array([[np.nan, 0.0]]))


def brute_threshold(labels, scores):
    """Tries every cut between distinct scores, the highest first, and keeps the first best."""
    best, threshold = -1.0, None
    cuts = [*sorted(set(scores.tolist()), reverse=True), 0.0]
    for cut, lower in itertools.pairwise(cuts):
        tags = scores >= cut
        f1 = 2 * np.sum(tags & labels) / (tags.sum() + labels.sum())
        if f1 > best:
            best, threshold = f1, (cut + lower) / 2
    return threshold


def test_thresholds_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = rng.integers(1, 8, rng.integers(1, 12)) / 8  # Many ties.
        labels = rng.uniform(size=scores.shape) < 0.4
        labels[rng.integers(len(labels))] = True
        assert best_threshold(labels, scores) == brute_threshold(labels, scores)


def test_of_equal_f1_the_threshold_with_the_fewest_tags_is_taken():
    # One tag of 2 positives: 2 / 3; with all four tags 4 / 6.
    labels, scores = np.array([True, False, False, True]), np.array([0.9, 0.5, 0.4, 0.2])
    assert best_threshold(labels, scores) == 0.7


def test_a_class_with_few_positives_has_the_threshold_of_all():
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 0]])
    p = np.array([[0.9, 0.3], [0.8, 0.4], [0.2, 0.1], [0.1, 0.1]])
    fitted = fit_thresholds(labels, p, min_positives=2)
    assert fitted.has_own.tolist() == [True, False]
    np.testing.assert_allclose(fitted.of_classes, [0.5, 0.35])  # Shared: 0.9, 0.8 and 0.4.
    assert fitted.shared == fitted.of_classes[1]
    # An unrated pair does not count: without (1, 1) the best of all is 0.8.
    weights = np.ones((4, 2))
    weights[1, 1] = 0
    assert fit_thresholds(labels, p, weights, min_positives=2).shared == pytest.approx(0.55)
    with pytest.raises(ValueError, match="at least one positive"):
        fit_thresholds(0 * labels, p)


def test_ece_is_that_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(calibration, "_ROWS", 7)
    rng, labels, logits = pairs(2)
    p = 1 / (1 + np.exp(-logits))
    p[0, 0], p[0, 1], p[0, 2] = 0.0, 1.0, 0.2  # Edges: 0.2 is in the third of 15 bins.
    weights = rng.integers(0, 2, labels.shape)
    weights[0, :3] = 1
    error, count = 0.0, weights.sum()
    for m in range(15):
        low, high = m / 15, (m + 1) / 15
        inside = (weights > 0) & (p > low if m else p >= 0) & (p <= high)
        if inside.any():
            error += inside.sum() / count * abs(labels[inside].mean() - p[inside].mean())
    np.testing.assert_allclose(
        expected_calibration_error(reliability(labels, p, weights)), error, rtol=1e-6
    )


def test_the_likeliest_class_is_one_that_counts():
    labels, p = np.array([[0, 1], [1, 0]]), np.array([[0.9, 0.8], [0.7, 0.2]])
    hits, confidence = likeliest(labels, p)
    assert (hits.tolist(), confidence.tolist()) == ([False, True], [0.9, 0.7])
    hits, confidence = likeliest(labels, p, np.array([[0, 1], [1, 1]]))
    assert (hits.tolist(), confidence.tolist()) == ([True, True], [0.8, 0.7])
