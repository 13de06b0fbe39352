import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from attack_models import assert_padding_is_zero
from hypothesis import strategies as st

from yt8m_gat.attacks import Ball

BALLS = [Ball(norm, scope) for norm in ("l2", "linf") for scope in ("frame", "example", "joint")]
EPSILON = 0.5


def by_name(ball):
    return f"{ball.norm}-{ball.scope}"


def oracle_norms(ball, values, frame_mask):
    """Norm of every ball, by loops: a list for each clip."""
    mask = frame_mask.numpy()
    norms = []
    for clip in range(len(mask)):
        rows = {name: value.numpy()[clip][mask[clip]] for name, value in values.items()}
        if ball.norm == "linf":
            parts = [row.ravel() for row in rows.values()]
            norms.append([np.abs(np.concatenate(parts)).max(initial=0)])
        elif ball.scope == "frame":
            norms.append([np.linalg.norm(r) for row in rows.values() for r in row] or [0.0])
        elif ball.scope == "example":
            norms.append([np.linalg.norm(row.ravel()) for row in rows.values()])
        else:
            joined = np.concatenate([row.ravel() for row in rows.values()])
            norms.append([np.linalg.norm(joined)])
    return norms


@pytest.mark.parametrize("ball", BALLS, ids=by_name)
@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e-30, 1e30])
def test_steepest_ascent_has_norm_epsilon_in_every_ball(ball, scale, batch):
    gradients = {name: value * scale for name, value in batch.features.items()}
    step = ball.steepest_ascent(gradients, batch.frame_mask, EPSILON)
    for norms in oracle_norms(ball, step, batch.frame_mask)[:4]:
        np.testing.assert_allclose(norms, EPSILON, rtol=1e-6)
    np.testing.assert_allclose(
        ball.norm_of(step, batch.frame_mask), [EPSILON] * 4 + [0.0], rtol=1e-6
    )
    assert_padding_is_zero(step, batch.frame_mask)


@pytest.mark.parametrize("ball", BALLS, ids=by_name)
def test_steepest_ascent_points_along_the_gradient(ball, batch):
    gradients = batch.features
    step = ball.steepest_ascent(gradients, batch.frame_mask, EPSILON)
    if ball.norm == "linf":
        expected = {name: EPSILON * np.sign(value) for name, value in gradients.items()}
    else:
        axes = {"frame": -1, "example": (1, 2), "joint": (1, 2)}[ball.scope]
        mask = batch.frame_mask.numpy()[..., None]
        squares = {
            name: np.square(value * mask).sum(axes, keepdims=True)
            for name, value in gradients.items()
        }
        if ball.scope == "joint":
            squares = dict.fromkeys(squares, sum(squares.values()))
        expected = {
            name: EPSILON * value.numpy() / np.sqrt(np.maximum(squares[name], 1e-30))
            for name, value in gradients.items()
        }
    for name, value in step.items():
        real = batch.frame_mask.numpy()
        np.testing.assert_allclose(value.numpy()[real], expected[name][real], rtol=1e-5)


@pytest.mark.parametrize("ball", BALLS, ids=by_name)
def test_zero_and_denormal_gradients(ball, batch):
    for scale in (0.0, 1e-42):
        gradients = {
            name: tf.constant(value.numpy() * np.float32(scale))
            for name, value in batch.features.items()
        }
        step = ball.steepest_ascent(gradients, batch.frame_mask, EPSILON)
        for value in step.values():
            # Linf: whether a denormal counts is the hardware's choice; never NaN, never more.
            assert np.all(np.isin(np.abs(value.numpy()), [0.0, EPSILON]))
            if ball.norm == "l2" or scale == 0:
                np.testing.assert_array_equal(value, 0.0)


def test_one_zero_frame_leaves_the_others_at_epsilon(batch):
    gradients = {
        name: value * tf.constant([1.0, 0.0, 1.0, 1.0, 1.0])[None, :, None]
        for name, value in batch.features.items()
    }
    step = Ball().steepest_ascent(gradients, batch.frame_mask, EPSILON)
    norms = np.linalg.norm(step["rgb"].numpy()[0], axis=-1)
    np.testing.assert_allclose(norms, EPSILON * np.array([1, 0, 1, 1, 1]), rtol=1e-6)


def test_not_a_number_on_padding_does_no_harm_and_on_a_frame_is_seen(batch):
    padded = tf.where(batch.frame_mask[..., None], batch.features["rgb"], np.nan)
    for ball in BALLS:
        step = ball.steepest_ascent({"rgb": padded}, batch.frame_mask, EPSILON)
        assert np.all(np.isfinite(step["rgb"]))
    everything = Ball().steepest_ascent({"rgb": padded}, tf.ones([5, 5], tf.bool), EPSILON)
    assert np.isnan(everything["rgb"].numpy()[1, 4]).all()


def test_missing_gradient_is_an_error(batch):
    with pytest.raises(ValueError, match="None for audio"):
        Ball().steepest_ascent(
            {"rgb": batch.features["rgb"], "audio": None}, batch.frame_mask, EPSILON
        )


def test_video_level_features_have_no_frame_mask():
    gradients = {"rgb": tf.constant([[3.0, 4.0], [0.0, 0.0]])}
    step = Ball().steepest_ascent(gradients, None, 1.0)
    np.testing.assert_allclose(step["rgb"], [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(Ball().norm_of(step, None), [1.0, 0.0], rtol=1e-6)


def test_half_precision_keeps_its_type_and_does_not_overflow():
    gradients = {"rgb": tf.constant([[[3e4, 4e4]]], tf.float16)}
    step = Ball().steepest_ascent(gradients, tf.constant([[True]]), 1.0)["rgb"]
    assert step.dtype == tf.float16
    np.testing.assert_allclose(step, [[[0.6, 0.8]]], rtol=1e-3)


@pytest.mark.parametrize("ball", BALLS, ids=by_name)
@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-3, 1e3),
    lengths=st.lists(st.integers(0, 4), min_size=2, max_size=2),
)
def test_projection(ball, seed, scale, lengths):
    rng = np.random.default_rng(seed)
    values = {
        name: tf.constant(scale * rng.normal(size=(2, 4, size)), tf.float32)
        for name, size in (("rgb", 3), ("audio", 2))
    }
    mask = tf.sequence_mask(lengths, 4)
    projected = ball.project(values, mask, EPSILON)
    assert_padding_is_zero(projected, mask)
    before = oracle_norms(ball, values, mask)
    after = oracle_norms(ball, projected, mask)
    if ball.norm == "l2":
        # Inside: as it was. Outside: on the surface.
        for old, new in zip(before, after, strict=True):
            np.testing.assert_allclose(new, np.minimum(old, EPSILON), rtol=1e-5)
    else:
        real = mask.numpy()
        for name, value in projected.items():
            expected = np.clip(values[name].numpy()[real], -EPSILON, EPSILON)
            np.testing.assert_array_equal(value.numpy()[real], expected)
    # A projection has no more to do the second time.
    again = ball.project(projected, mask, EPSILON)
    for name, value in again.items():
        np.testing.assert_allclose(value, projected[name], rtol=1e-6)
    # No point of the ball is nearer: <v - p, q - p> <= 0 for every q of it.
    other = ball.random_start(values, mask, EPSILON, seed)
    real = mask.numpy()
    gaps = []
    for name, value in values.items():
        v, p, q = (
            x.numpy()[real].astype(np.float64) for x in (value, projected[name], other[name])
        )
        gaps.append(((v - p) * (q - p)).sum())
    assert sum(gaps) <= 1e-4 * max(scale, 1)


@pytest.mark.parametrize("ball", BALLS, ids=by_name)
def test_projection_is_the_identity_inside(ball, batch):
    inside = ball.random_start(batch.features, batch.frame_mask, 0.9 * EPSILON, seed=4)
    projected = ball.project(inside, batch.frame_mask, EPSILON)
    for name, value in projected.items():
        np.testing.assert_array_equal(value, inside[name])


@pytest.mark.parametrize("ball", BALLS, ids=by_name)
def test_random_start_is_uniform_in_the_ball(ball):
    # In n dimensions the share of a ball's volume within radius r is (r / epsilon)^n.
    size, frames, clips = 3, 2, 4000
    features = {"rgb": tf.zeros([clips, frames + 1, size])}
    mask = tf.sequence_mask([frames] * clips, frames + 1)
    start = ball.random_start(features, mask, EPSILON, seed=7)
    assert_padding_is_zero(start, mask)
    norms = np.array([n for clip in oracle_norms(ball, start, mask) for n in clip])
    assert norms.max() <= EPSILON * (1 + 1e-6)
    spanned = size if (ball.norm, ball.scope) == ("l2", "frame") else size * frames
    share = (norms / EPSILON) ** spanned
    # Uniform on [0, 1]: mean 1/2, standard error 0.289 / sqrt(4000) = 0.0046.
    assert abs(share.mean() - 0.5) < 0.02
    assert abs((share < 0.25).mean() - 0.25) < 0.03
    mean = start["rgb"].numpy()[:, :frames].mean((0, 1))
    np.testing.assert_allclose(mean, 0.0, atol=0.02)


def test_random_start_of_a_joint_ball_shares_its_radius(batch):
    start = Ball("l2", "joint").random_start(batch.features, batch.frame_mask, EPSILON, seed=3)
    (norms,) = zip(*oracle_norms(Ball("l2", "joint"), start, batch.frame_mask), strict=True)
    assert max(norms) <= EPSILON * (1 + 1e-6)
    # 9 values a frame: with one radius a clip of 5 frames is nearly at the surface.
    assert norms[0] > 0.9 * EPSILON


def test_random_start_follows_its_seed(batch):
    draw = [Ball().random_start(batch.features, batch.frame_mask, 1.0, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draw[0]["rgb"], draw[1]["rgb"])
    assert np.abs(draw[0]["rgb"] - draw[2]["rgb"]).max() > 0.1


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_and_xla_agree_with_eager(jit_compile, batch):
    @tf.function(jit_compile=jit_compile)
    def everything(values, mask):
        return [
            (
                ball.steepest_ascent(values, mask, EPSILON),
                ball.project(values, mask, EPSILON),
                ball.norm_of(values, mask),
            )
            for ball in BALLS
        ]

    # 1e-30 as well: XLA must not turn the division into a product with an infinite reciprocal.
    for scale in (1.0, 1e-30):
        values = {name: value * scale for name, value in batch.features.items()}
        compiled = everything(values, batch.frame_mask)
        for ball, got in zip(BALLS, compiled, strict=True):
            want = (
                ball.steepest_ascent(values, batch.frame_mask, EPSILON),
                ball.project(values, batch.frame_mask, EPSILON),
                ball.norm_of(values, batch.frame_mask),
            )
            for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5)


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match=r"`norm` must be one of l2, linf. Received: norm='l1'"):
        Ball("l1")
    with pytest.raises(ValueError, match="`scope` must be one of frame, example, joint"):
        Ball("l2", "batch")


@pytest.mark.parametrize("ball", BALLS, ids=by_name)
def test_shares_give_features_radii_of_their_own(ball, batch):
    """Against the ball without shares, in the units r / share."""
    own = Ball(ball.norm, ball.scope, (("audio", 0.2),))
    units = {"rgb": 1.0, "audio": 0.2}
    real = batch.frame_mask.numpy()[..., None]
    values = {name: value * real for name, value in batch.features.items()}

    def times(tensors, power):
        return {name: value * units[name] ** power for name, value in tensors.items()}

    args = (batch.frame_mask, EPSILON)
    for got, want in (
        (own.steepest_ascent(values, *args), ball.steepest_ascent(times(values, 1), *args)),
        (own.surface(values, *args), ball.steepest_ascent(times(values, -1), *args)),
        (own.project(values, *args), ball.project(times(values, -1), *args)),
        (own.random_start(values, *args, 3), ball.random_start(values, *args, 3)),
    ):
        for name, value in times(want, 1).items():
            np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-7)
        assert np.all(own.norm_of(got, batch.frame_mask) <= EPSILON * (1 + 1e-5))
        if ball.norm == "linf" or ball.scope == "frame":
            rows = np.linalg.norm(got["audio"], ord=None if ball.norm == "l2" else np.inf, axis=2)
            assert rows.max() <= 0.2 * EPSILON * (1 + 1e-5)


def test_a_share_of_0_keeps_a_feature_as_it_is(batch):
    own = Ball("l2", "joint", (("audio", 0.0),))
    step = own.steepest_ascent(batch.features, batch.frame_mask, EPSILON)
    assert not np.any(step["audio"])
    alone = own.steepest_ascent({"rgb": batch.features["rgb"]}, batch.frame_mask, EPSILON)
    np.testing.assert_allclose(step["rgb"], alone["rgb"], rtol=1e-6)
    assert not np.any(own.project(batch.features, batch.frame_mask, EPSILON)["audio"])
    with pytest.raises(ValueError, match=r"`shares` must be at least 0, and finite. Received: -1"):
        Ball(shares=(("audio", -1),))
