"""Certificates of a linear model, whose smoothed decisions and exact radii have a closed form.

With logits z = W x + b, a copy of the clip gives z_k a normal distribution of deviation
sigma |W_k|. So P(z_k >= 0) = Phi(z_k / (sigma |W_k|)), the smoothed decision is that of the model
itself, and the nearest point where it changes is |z_k| / |W_k| away.
"""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from yt8m_gat.attacks import PGD, Ball, FastGradient
from yt8m_gat.config import ConfigError
from yt8m_gat.robustness.certificate import (
    SCOPES,
    CertificateTotals,
    ClipCertificates,
    certify,
    largest_radius,
    lower_bound,
)
from yt8m_gat.robustness.smoothing import Smoothing, Votes, count_votes

RNG = np.random.default_rng(0)
SIZES = {"rgb": 4, "audio": 2}
# The third class is far below the others: the first class is one of two, so it has a closed form.
WEIGHTS = {
    name: np.pad(RNG.normal(size=(size, 2)), ((0, 0), (0, 1))) for name, size in SIZES.items()
}
BIAS = np.array([0.2, -0.1, -50.0])
MASK = np.arange(3) < np.array([3, 2, 3, 1, 2, 3])[:, np.newaxis]
CLIPS = {name: RNG.normal(size=(6, 3, size)) for name, size in SIZES.items()}
LABELS = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], np.float32)
SIGMA = 0.7


def logits(features, frame_mask):
    del frame_mask  # Padding is 0.
    return BIAS + sum(
        tf.einsum("btd,dc->bc", tf.cast(value, tf.float64), WEIGHTS[name])
        for name, value in features.items()
    )


def probabilities(features, frame_mask):
    return tf.sigmoid(logits(features, frame_mask))


def norms(weights):
    """The norm of a slope [D] on all real frames of each clip."""
    return np.sqrt(MASK.sum(axis=1) * sum((value**2).sum() for value in weights.values()))


@pytest.fixture(scope="module")
def exact():
    """Signed distances to the nearest change of the first class [6], of a label's decision [6, 2],
    positive where the decision is right, and the logits."""
    real = {name: value * MASK[..., np.newaxis] for name, value in CLIPS.items()}
    z = logits(real, MASK).numpy()
    difference = norms({name: value[:, 0] - value[:, 1] for name, value in WEIGHTS.items()})
    first = np.abs(z[:, 0] - z[:, 1]) / difference
    first[LABELS[np.arange(6), z.argmax(axis=1)] == 0] *= -1
    of_class = [norms({name: value[:, k] for name, value in WEIGHTS.items()}) for k in range(2)]
    labels = np.where(LABELS[:, :2] > 0, 1, -1) * z[:, :2] / np.stack(of_class, axis=1)
    return first, labels, z


def votes_of(shares_first, shares_shown, smoothing, rng):
    """Votes drawn from their true shares, [6, C] and [6, C]."""
    counts = (smoothing.selection_samples, smoothing.samples)
    return Votes(
        np.stack([rng.multinomial(count, shares_first) for count in counts]),
        np.stack([rng.binomial(count, shares_shown) for count in counts]),
    )


@pytest.fixture(scope="module")
def counted():
    """Settings and the votes of two seeds."""
    smoothing = Smoothing(SIGMA, samples=1000, selection_samples=100)

    @tf.function(autograph=False)
    def count(seed):
        return count_votes(probabilities, CLIPS, MASK, smoothing, seed)

    return smoothing, *(
        Votes(*(votes.numpy() for votes in count(tf.constant(seed)))) for seed in (3, 3, 4)
    )


def test_lower_bounds_are_those_of_clopper_and_pearson():
    bounds = lower_bound(np.arange(21), 20, 0.01)
    # Without a success nothing is known; n of n and 1 of n have a closed form.
    assert bounds[0] == 0
    assert bounds[20] == pytest.approx(0.01 ** (1 / 20), rel=1e-12)
    assert bounds[1] == pytest.approx(1 - 0.99 ** (1 / 20), rel=1e-12)
    # Of the bound itself, k or more successes in 20 have a probability of exactly alpha.
    for k in (3, 11, 17):
        tail = sum(
            math.comb(20, i) * bounds[k] ** i * (1 - bounds[k]) ** (20 - i) for i in range(k, 21)
        )
        assert tail == pytest.approx(0.01, rel=1e-9)


def test_copies_vote_as_the_closed_form_says(counted, exact):
    _, votes, again, other = counted
    z = exact[2]
    difference = norms({name: value[:, 0] - value[:, 1] for name, value in WEIGHTS.items()})
    share = stats.norm.cdf((z[:, 0] - z[:, 1]) / (SIGMA * difference))
    for part, count in enumerate((100, 1000)):
        first = votes.first[part]
        assert (first.sum(axis=1) == count).all()
        spread = 4.5 * np.sqrt(share * (1 - share) / count) + 3 / count
        assert (np.abs(first[:, 0] / count - share) < spread).all()
        for k in range(2):
            of_class = norms({name: value[:, k] for name, value in WEIGHTS.items()})
            expected = stats.norm.cdf(z[:, k] / (SIGMA * of_class))
            spread = 4.5 * np.sqrt(expected * (1 - expected) / count) + 3 / count
            assert (np.abs(votes.shown[part, :, k] / count - expected) < spread).all()
    # The same seed gives the same votes, another one others.
    np.testing.assert_array_equal(again.first, votes.first)
    assert (other.first != votes.first).any()


def test_radii_are_below_the_exact_ones_and_near_them_with_many_samples(exact):
    first, labels, z = exact
    smoothing = Smoothing(SIGMA, samples=1_000_000, selection_samples=1000)
    difference = norms({name: value[:, 0] - value[:, 1] for name, value in WEIGHTS.items()})
    share = stats.norm.cdf((z[:, 0] - z[:, 1]) / (SIGMA * difference))
    of_class = np.stack(
        [norms({name: value[:, k] for name, value in WEIGHTS.items()}) for k in range(2)], axis=1
    )
    shown = np.pad(stats.norm.cdf(z[:, :2] / (SIGMA * of_class)), ((0, 0), (0, 1)))
    votes = votes_of(
        np.stack([share, 1 - share, 0 * share], axis=1), shown, smoothing, np.random.default_rng(1)
    )
    result = certify(votes, LABELS, smoothing)
    # A clip with both labels holds its first class among them at any distance; the samples cap it.
    one = LABELS.sum(axis=1) == 1
    for radii, distances in ((result.first[one], first[one]), (result.labels[:, :2], labels)):
        assert (np.sign(radii) == np.sign(distances)).all()
        assert (np.abs(radii) <= np.abs(distances)).all()
        reachable = np.abs(distances) < 4 * SIGMA
        assert reachable.sum() >= len(radii) / 2
        np.testing.assert_allclose(radii[reachable], distances[reachable], rtol=0.05, atol=0.02)
    # Both labels together have all copies: s / (s + 1) of them is needed, not all.
    cap = stats.norm.ppf(0.0005**1e-6) - stats.norm.ppf(2 / 3)
    assert result.first[2] == pytest.approx(SIGMA * cap, rel=1e-9)


def test_no_attack_breaks_a_certified_clip(counted, exact):
    """The strongest attack on a linear model is a step along its slope."""
    smoothing, votes, *_ = counted
    certificates = certify(votes, LABELS, smoothing)
    ball = Ball("l2", "joint")
    num_broken = num_attacked = 0

    def first_margin(labels, z):
        others = tf.reduce_max(tf.where(labels > 0, -np.inf, tf.cast(z, tf.float64)), axis=1)
        return others - tf.reduce_max(tf.where(labels > 0, tf.cast(z, tf.float64), -np.inf), axis=1)

    for clip in range(6):
        features = {name: value[clip : clip + 1] for name, value in CLIPS.items()}
        mask, labels = MASK[clip : clip + 1], LABELS[clip : clip + 1]
        statements = [(certificates.first[clip], first_margin)]
        for k in range(2):
            sign = 1 if labels[0, k] else -1
            statements.append(
                (certificates.labels[clip, k], lambda _, z, k=k, sign=sign: -sign * z[:, k])
            )
        for radius, loss in statements:
            if radius <= 0:
                continue
            num_attacked += 1
            near, far = 0.999 * radius, 1.5 * radius
            attacks = [FastGradient(ball, near), FastGradient(ball, far)]
            if loss is first_margin:
                attacks.insert(0, PGD(ball, near, steps=2))
            # Above 0 the decision has changed; that of the smoothed classifier is the same.
            *within, beyond = (
                attack.attack(logits, loss, features, mask, labels).loss.numpy()[0]
                for attack in attacks
            )
            assert max(within) < 0, (clip, radius)
            num_broken += beyond > 0
    # The certificates are not idle: half as far again, most statements fall.
    assert num_attacked >= 10 and num_broken >= num_attacked / 2, (num_attacked, num_broken)


def test_several_labels_hold_the_first_class_together():
    """Classes on slabs of a line: 0 below -1, 1 between -1 and 1, 2 above 1; x = 0, sigma = 1."""
    n = 10**8
    below, between = stats.norm.cdf(-1), stats.norm.cdf(1) - stats.norm.cdf(-1)
    shares = np.array([below, between, below])
    count = np.round(n * shares).astype(int)
    count[1] += n - count.sum()
    selection = np.round(1000 * shares).astype(int)
    votes = Votes(np.stack([selection, count])[:, np.newaxis], np.zeros((2, 1, 3), int))
    smoothing = Smoothing(1.0, samples=n, selection_samples=1000)

    def radius(*classes):
        labels = np.zeros((1, 3))
        labels[0, list(classes)] = 1
        return certify(votes, labels, smoothing).first[0]

    assert radius(1) == pytest.approx(stats.norm.ppf(between), abs=1e-3)  # Cohen: 0.4754
    # Classes 0 and 1 have Phi(1) of the copies, and need two thirds.
    both = 1 - stats.norm.ppf(2 / 3)
    assert radius(0, 1) == pytest.approx(both, abs=1e-3) == pytest.approx(0.5693, abs=1e-3)
    # The winner is no label: certified wrong, by the set of the others that promises most.
    assert radius(2) == pytest.approx(-both, abs=1e-3)
    # The smoothed classifier's first class really stays one of the two up to there, and not much
    # longer: moved by t, class 2 has Phi(t - 1) of the copies and class 1 the most of the others.
    moved = np.linspace(0, 1.2, 241)
    third = stats.norm.cdf(moved - 1)
    leads = third < stats.norm.cdf(1 - moved) - stats.norm.cdf(-1 - moved)
    assert leads[moved <= both].all() and not leads[-1]


def test_few_samples_and_even_votes_abstain():
    first = np.array([[[5, 5]], [[50, 50]]])
    shown = np.array([[[6, 10]], [[50, 100]]])
    result = certify(Votes(first, shown), [[1, 1]], Smoothing(1.0, 100, 10))
    # Both labels: any first class is one, so all copies agree on the set.
    assert result.first[0] > 0
    assert result.labels[0, 0] == 0 and result.labels[0, 1] > 0
    alone = certify(Votes(first, shown), [[1, 0]], Smoothing(1.0, 100, 10))
    assert alone.first[0] == 0
    assert alone.labels[0, 1] == -result.labels[0, 1]
    # 10 copies that agree bound the share by 0.0005 ** 0.1 = 0.468, below one half.
    few = Votes(np.array([[[10, 0]], [[10, 0]]]), np.array([[[10, 0]], [[10, 0]]]))
    abstaining = certify(few, [[1, 0]], Smoothing(1.0, 10, 10))
    assert abstaining.first[0] == 0 and (abstaining.labels == 0).all()
    assert largest_radius(Smoothing(1.0, 10)) == 0
    assert largest_radius(Smoothing(2.0, 1000)) == pytest.approx(2 * stats.norm.ppf(0.0005**0.001))


def test_statements_share_the_failure_probability():
    """alpha = 0.2: half for the first class; 2 of 4 classes are rated, so a quarter of it each."""
    smoothing = Smoothing(1.0, samples=50, selection_samples=10, alpha=0.2)
    votes = Votes(
        np.array([[[10, 0, 0, 0]], [[50, 0, 0, 0]]]), np.array([[[10, 0, 0, 0]], [[50, 0, 0, 0]]])
    )
    rated = np.array([[True, True, False, False]])
    result = certify(votes, [[1, 0, 1, 0]], smoothing, rated)
    assert result.first[0] == pytest.approx(stats.norm.ppf(0.1 ** (1 / 50)))
    of_label = stats.norm.ppf(0.05 ** (1 / 50))
    np.testing.assert_allclose(result.labels, [[of_label, of_label, 0, 0]])


def test_unrated_classes_have_no_votes():
    clip = {"rgb": CLIPS["rgb"][:1], "audio": CLIPS["audio"][:1]}
    rated = np.array([[False, True, True]])
    votes = count_votes(probabilities, clip, MASK[:1], Smoothing(SIGMA, 3, 2), 0, rated)
    assert votes.first.numpy()[..., 0].sum() == votes.shown.numpy()[..., 0].sum() == 0
    assert votes.first.numpy().sum() == 5


def test_what_a_perturbation_of_a_radius_can_do_at_most():
    first = np.array([2.0, -1.0, 0.0, 0.9])
    labels = np.array([[3.0, 0.5, 1.0], [0.6, -2.0, 5.0], [0.0, 0.0, -0.1], [2.0, 2.0, 0.4]])
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    totals = CertificateTotals({scope: [0.0, 0.45, 1.0] for scope in SCOPES}, num_features=2)
    for rows in (slice(0, 3), slice(3, 4)):
        part = ClipCertificates(first[rows], labels[rows])
        totals.add(part, truth[rows], np.array([2, 2, 2, 2])[rows])
    result = totals.result()
    assert result["num_labels"] == 5
    assert result["first_class"] == {"wrong": 0.25, "abstained": 0.25}
    assert result["labels"] == {"wrong": 0.2, "abstained": 0.0}
    curve = {(row["norm_scope"], row["epsilon"]): row for row in result["curve"]}

    def at(scope, radius):
        return [curve[scope, radius][name] for name in ("hit_at_1", "recall", "precision")]

    # Of the labels (3, 0.5; 0.6; -0.1; 2) four are above 0; of the other classes (1; -2, 5; 0, 0;
    # 2, 0.4) three may be shown.
    assert at("joint", 0.0) == at("frame", 0.0) == [0.5, 4 / 5, 4 / 7]
    assert at("joint", 0.45) == [0.5, 4 / 5, 4 / 8]
    # A radius is held where the certificate is above it, not at it.
    assert at("joint", 1.0) == [0.25, 2 / 5, 2 / 7]
    # Two frames of two features, each moved by 0.45, are 0.9 together.
    assert at("frame", 0.45) == [0.25, 2 / 5, 2 / 6]
    assert at("frame", 1.0) == [0.0, 1 / 5, 1 / 7]
    low, high = curve["joint", 0.0]["intervals"]["hit_at_1"]
    assert low < 0.5 < high


def test_a_radius_of_frames_holds_against_frames():
    """A slope that is the same on all frames is where budgets of frames reach their joint norm."""
    smoothing = Smoothing(1.0, samples=10**6)
    num_frames, slope = 4, np.array([0.6, 0.8])

    def line(features, frame_mask):
        del frame_mask
        z = 1.5 - tf.einsum("btd,d->b", tf.cast(features["x"], tf.float64), slope)
        return tf.stack([z, tf.zeros_like(z)], axis=1)

    # |w| over the clip is 2, and the exact joint radius 1.5 / 2.
    share = stats.norm.cdf(1.5 / 2)
    votes = votes_of([[share, 1 - share]], [[share, 0.5]], smoothing, np.random.default_rng(0))
    radius = certify(votes, [[1, 0]], smoothing).first[0]
    assert radius == pytest.approx(0.75, abs=0.01)
    epsilon = radius / math.sqrt(num_frames)
    clip, mask = {"x": np.zeros((1, num_frames, 2))}, [[True] * num_frames]
    for factor, broken in ((0.999, False), (1.03, True)):
        attack = FastGradient(Ball("l2", "frame"), factor * epsilon)
        result = attack.attack(line, lambda _, z: -z[:, 0], clip, mask, [[1.0, 0.0]])
        assert bool(result.success) is broken


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "--sigma must be positive"),
        ({"sigma": 1.0, "samples": 0}, "--samples must be at least 1"),
        ({"sigma": 1.0, "selection_samples": 0}, "--certify_selection_samples must be at least 1"),
        ({"sigma": 1.0, "alpha": 1.0}, "--certify_alpha must be between 0 and 1"),
        ({"sigma": 1.0, "threshold": 0.0}, "--certify_threshold must be between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Smoothing(**settings)
