"""The fewest frames: against a count by hand on a model whose frames add up."""

import numpy as np
import tensorflow as tf

from yt8m_gat.attacks import Ball, SparseFrames, margin_loss

B, T, D = 6, 7, 3
RNG = np.random.default_rng(11)
WEIGHTS = RNG.normal(size=(T, D, 2)) * np.linspace(0.2, 1.5, T)[:, None, None]
MASK = np.arange(T) < np.array([7, 7, 5, 6, 7, 4])[:, None]
EPSILON = 0.5


def model(features, frame_mask):
    return tf.einsum("btd,tdc->bc", features["x"], tf.constant(WEIGHTS, tf.float32)) + BIAS


def by_hand(gap):
    """Moved by epsilon, a frame closes epsilon * ||w_1 - w_0|| of the gap; the largest go first."""
    closes = EPSILON * np.linalg.norm(WEIGHTS[..., 1] - WEIGHTS[..., 0], axis=1)
    counts = []
    for clip in range(B):
        total, count = 0.0, 0
        for closed in sorted(closes[MASK[clip]], reverse=True):
            if total > gap[clip]:
                break
            total, count = total + closed, count + 1
        counts.append(count)
    return counts, [closes[MASK[clip]].sum() > gap[clip] for clip in range(B)]


CLIPS = RNG.normal(size=(B, T, D)).astype(np.float32)
BIAS = np.zeros((B, 2), np.float32)
# Label 0 leads by: nothing (wrong from the start), a little, more, ..., more than all can close.
GAPS = np.array([-0.5, 0.3, 0.9, 1.6, 2.4, 50.0])
MASKED = CLIPS * MASK[..., None]
BIAS[:, 0] = GAPS - np.einsum("btd,tdc->bc", MASKED, WEIGHTS) @ np.array([1.0, -1.0])
LABELS = np.tile([1.0, 0.0], (B, 1)).astype(np.float32)


def test_it_takes_as_many_frames_as_it_must():
    attack = SparseFrames(Ball(), EPSILON, steps=4)
    calls = []

    def counted(features, frame_mask):
        calls.append(features["x"].numpy())
        return model(features, frame_mask)

    result = attack.attack(counted, margin_loss, {"x": CLIPS}, MASK, LABELS)
    counts, broken = by_hand(GAPS)
    assert counts[0] == 0 and max(counts[:5]) == 3 and broken == [True] * 5 + [False]
    np.testing.assert_array_equal(result.figures["perturbed_frames"], counts)
    np.testing.assert_array_equal(result.success, broken)
    change = np.linalg.norm(result.features["x"] - MASKED, axis=2)
    assert change.max() <= EPSILON * (1 + 1e-6)
    np.testing.assert_array_equal((change > 0).sum(axis=1), counts)
    # All frames, then halves of seven of them.
    assert len(calls) == (1 + 3) * 5 + 1 <= attack.cost.forward
