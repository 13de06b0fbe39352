"""APGD against algorithm 1 of the paper, written out in NumPy for one clip at a time."""

import numpy as np
import pytest
import tensorflow as tf
from attack_models import cross_entropy

from yt8m_gat.attacks import APGD, PGD, Ball
from yt8m_gat.attacks.apgd import checkpoints

EPSILON = 0.6
RNG = np.random.default_rng(8)
CLIPS = RNG.normal(size=(4, 2, 3))  # B, T, D
# Rough quadratics: no clip halves its step at the same checkpoints as another.
SLOPES = RNG.normal(size=(4, 2, 3)) * np.array([1.0, 5.0, 0.2, 1.0])[:, None, None]
CURVES = RNG.uniform(-9, 2, size=(4, 2, 3)) * np.array([0.0, 1.0, 1.0, 3.0])[:, None, None]


def objective(x, clip):
    change = x - CLIPS[clip]
    return np.float32((SLOPES[clip] * change + CURVES[clip] * change**2).sum())


def gradient(x, clip):
    return SLOPES[clip] + 2 * CURVES[clip] * (x - CLIPS[clip])


def projected(change, norm):
    if norm == "linf":
        return np.clip(change, -EPSILON, EPSILON)
    lengths = np.linalg.norm(change, axis=-1, keepdims=True)  # Each frame has a ball.
    return change * np.minimum(1.0, EPSILON / np.maximum(lengths, 1e-30))


def direction(g, norm):
    return np.sign(g) if norm == "linf" else g / np.linalg.norm(g, axis=-1, keepdims=True)


def algorithm_1(clip, norm, steps):
    """Returns the points that are looked at, the highest value and the halvings."""
    x0 = CLIPS[clip]
    step, halvings = 2 * EPSILON, []

    def onto(x):
        return x0 + projected(x - x0, norm)

    x, before = x0, x0
    visited = [x0]
    f = f_max = objective(x0, clip)
    x_max = x0
    marks = checkpoints(steps)
    rises, f_max_at_mark, halved_at_mark = 0, f_max, False
    for i in range(1, steps + 1):
        z = onto(x + step * direction(gradient(x, clip), norm))
        moved = z if i == 1 else onto(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, moved
        visited.append(x)
        f_before, f = f, objective(x, clip)
        rises += f > f_before
        if f > f_max:
            f_max, x_max = f, x
        if i in marks:
            window = i - marks[marks.index(i) - 1]
            first = rises < 0.75 * window
            second = not halved_at_mark and f_max <= f_max_at_mark
            halved_at_mark = first or second
            if halved_at_mark:
                step, x, f = step / 2, x_max, f_max
                halvings.append(i)
            rises, f_max_at_mark = 0, f_max
    return visited, f_max, halvings


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_it_visits_the_points_of_the_paper_s_algorithm(norm):
    steps, visited = 30, []

    def model(features, frame_mask):
        visited.append(features["x"].numpy())
        change = features["x"] - CLIPS
        return tf.reduce_sum(SLOPES * change + CURVES * change**2, axis=1)

    result = APGD(Ball(norm), EPSILON, steps).attack(
        model,
        lambda labels, logits: tf.reduce_sum(logits, axis=-1),
        {"x": CLIPS},
        np.ones([4, 2], bool),
        np.ones([4, 3]),
    )
    assert len(visited) == steps + 2  # The clean clip, the steps, the result.
    halvings = []
    for clip in range(4):
        expected, highest, halved = algorithm_1(clip, norm, steps)
        np.testing.assert_allclose(np.array(visited)[:-1, clip], expected, atol=1e-6)
        np.testing.assert_allclose(result.loss[clip], highest, rtol=1e-6)
        halvings.append(tuple(halved))
    # The rule is a clip's own, and it was used.
    assert len(set(halvings)) > 1 and any(halvings)


def test_the_checkpoints_are_the_paper_s():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [0, 3, 5, 6, 7, 8, 9, 10]
    assert checkpoints(1) == [0, 1]


def test_it_finds_at_least_what_pgd_with_a_step_of_the_same_length_finds(attentive, batch):
    """PGD's step stays 2 epsilon: it jumps from one side of the ball to the other."""
    args = (attentive, cross_entropy, *batch)
    apgd = APGD(Ball(), 0.4, steps=8).attack(*args).loss.numpy()
    pgd = PGD(Ball(), 0.4, steps=8, step_size=0.8).attack(*args).loss.numpy()
    assert apgd.mean() > pgd.mean()


def test_more_restarts_never_end_lower(attentive, batch):
    one, two = (
        APGD(Ball(), 0.4, steps=2, restarts=n).attack(attentive, cross_entropy, *batch, 3).loss
        for n in (1, 2)
    )
    assert np.all(two >= one)
