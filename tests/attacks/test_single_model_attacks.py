import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from attack_models import (
    CountedCalls,
    MapOutputs,
    assert_padding_is_zero,
    cross_entropy,
    difference,
)

from yt8m_gat.attacks import (
    ATTACKS,
    ATTACKS_WITHOUT_EPSILON,
    PGD,
    AttackOptions,
    AutoAttack,
    Ball,
    DeepFool,
    FastGradient,
    RandomNoise,
    RandomSearch,
    SquareSearch,
    TemporalAugmentation,
    Transfer,
    build_attack,
    gradient_free,
    margin_loss,
    top1_missed,
)

FRAME = Ball("l2", "frame")
LINF = Ball("linf")
SMALL = AttackOptions(
    steps=4,
    restarts=2,
    apgd_steps=2,
    queries=6,
    auto_queries=2,
    auto_targets=1,
    deepfool_steps=4,
    temporal_steps=2,
)
# Attacks that stop when all clips are done.
STOPPING = ("deepfool", "auto", "auto_linf", "sparse")


def model_for(attack, attentive):
    return attentive.forward if isinstance(attack, TemporalAugmentation) else attentive


def clean_loss(model, batch):
    return cross_entropy(batch.labels, model(batch.features, batch.frame_mask)).numpy()


# Every attack


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_keeps_its_promises(name, attentive, batch):
    attack = build_attack(name, 0.3, SMALL)
    assert attack.name == name
    model = CountedCalls(model_for(attack, attentive))
    result = attack.attack(model, cross_entropy, batch.features, batch.frame_mask, batch.labels, 5)
    assert model.calls <= attack.cost.forward
    if name not in STOPPING:
        assert model.calls == attack.cost.forward
    assert_padding_is_zero(result.features, batch.frame_mask)
    logits = attentive(result.features, batch.frame_mask)
    np.testing.assert_allclose(result.logits, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.loss, cross_entropy(batch.labels, logits), rtol=1e-5)
    real = batch.frame_mask.numpy()[..., None]
    change = {k: v * real for k, v in difference(result.features, batch).items()}
    np.testing.assert_allclose(result.norm, attack.ball.norm_of(change, batch.frame_mask))
    if name not in ATTACKS_WITHOUT_EPSILON:
        assert np.all(result.norm.numpy() <= 0.3 * (1 + 1e-5))
    size = np.sqrt(sum(np.square(v).sum((1, 2)) for v in change.values()))
    clean = np.sqrt(sum(np.square(v * real).sum((1, 2)) for v in batch.features.values()))
    np.testing.assert_allclose(result.relative_norm[:4], (size / np.maximum(clean, 1e-9))[:4], 1e-4)
    assert result.relative_norm[4] == 0 and result.norm[4] == 0


@pytest.mark.parametrize("name", [n for n in ATTACKS if n not in ATTACKS_WITHOUT_EPSILON])
def test_epsilon_zero_is_the_identity(name, attentive, batch):
    attack = build_attack(name, 0.0, SMALL)
    result = attack.attack(model_for(attack, attentive), cross_entropy, *batch, 5)
    for key, value in result.features.items():
        expected = batch.features[key].numpy() * batch.frame_mask.numpy()[..., None]
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_seed_decides(name, attentive, batch):
    attack = build_attack(name, 0.3, SMALL)
    results = [
        attack.attack(model_for(attack, attentive), cross_entropy, *batch, seed).features
        for seed in (5, 5, 6)
    ]
    np.testing.assert_array_equal(results[0]["rgb"], results[1]["rgb"])
    moved = np.abs(results[0]["rgb"] - results[2]["rgb"]).max() > 1e-3
    if name in ("fgm", "fgm_linf", "deepfool"):
        assert not moved
    elif name.startswith(("noise", "random_search", "square")):
        # PGD's other restarts differ too, but need not be the worst; the temporal attack's random
        # classes are those of clips that the model gets right.
        assert moved


@pytest.mark.slow
def test_xla_agrees_with_eager(attentive, batch):
    attacks = [
        FastGradient(FRAME, 0.3, clip_to_range=(-2.0, 2.0)),
        PGD(FRAME, 0.3, steps=3),
        DeepFool(candidates=2, steps=10),
        # Correct clips are given a random class, and XLA draws other numbers.
        TemporalAugmentation(examples="wrong"),
    ]

    @tf.function(jit_compile=True)
    def everything(features, mask, labels):
        return [
            a.attack(model_for(a, attentive), cross_entropy, features, mask, labels)
            for a in attacks
        ]

    for attack, got in zip(attacks, everything(*batch), strict=True):
        want = attack.attack(model_for(attack, attentive), cross_entropy, *batch)
        np.testing.assert_allclose(got.norm, want.norm, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(got.loss, want.loss, rtol=1e-4)
        np.testing.assert_array_equal(got.success, want.success)


@pytest.mark.slow
def test_a_graph_of_unknown_batch_and_length_agrees_with_eager(attentive, batch):
    spec = {k: tf.TensorSpec([None, None, v.shape[-1]]) for k, v in batch.features.items()}
    attacks = [
        FastGradient(LINF, 0.3),
        PGD(FRAME, 0.3, steps=2, restarts=2),
        DeepFool(candidates=2, steps=2),
        SquareSearch(FRAME, 0.3, queries=2),
        TemporalAugmentation(num_non_key=2),
    ]

    @tf.function(
        input_signature=[
            spec,
            tf.TensorSpec([None, None], tf.bool),
            tf.TensorSpec([None, 12], tf.float32),
        ]
    )
    def losses(features, mask, labels):
        return [
            a.attack(model_for(a, attentive), cross_entropy, features, mask, labels).loss
            for a in attacks
        ]

    for attack, got in zip(attacks, losses(*batch), strict=True):
        want = attack.attack(model_for(attack, attentive), cross_entropy, *batch).loss
        np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize(
    "attack", [FastGradient(FRAME, 3.0), PGD(LINF, 0.7, steps=3), RandomNoise(FRAME, 3.0)]
)
def test_clip_to_range_binds_and_stays_in_the_ball(attack, attentive, batch):
    features = {
        k: tf.tensor_scatter_nd_update(v, [[0, 0, 0]], [3.0]) for k, v in batch.features.items()
    }
    bounded = dataclasses.replace(attack, clip_to_range=(-2.0, 2.0))
    args = (attentive, cross_entropy, features, batch.frame_mask, batch.labels)
    free, result = attack.attack(*args), bounded.attack(*args)
    assert np.abs(free.features["rgb"]).max() > 2.001
    assert np.all(result.norm <= free.norm.numpy() * (1 + 1e-6))
    for value in result.features.values():
        outside = np.argwhere(np.abs(value.numpy()) > 2.0)
        # The one clean entry that lies outside may stay where it is, and go no further.
        assert all(tuple(place) == (0, 0, 0) for place in outside)
        assert value.numpy()[0, 0, 0] <= 3.0


def test_round_to_levels_gives_levels(attentive, batch):
    step, offset = 4 / 255, 4 / 512 - 2
    stored = np.random.default_rng(0).integers(0, 256, size=(5, 5, 6))
    features = dict(batch.features, rgb=tf.constant(stored * step + offset, tf.float32))
    bounds = (offset, 255 * step + offset)
    attack = PGD(FRAME, 2.0, steps=3, clip_to_range=bounds, round_to_levels=(step, offset))
    args = (attentive, cross_entropy, features, batch.frame_mask, batch.labels)
    rounded = attack.attack(*args)
    levels = ((rounded.features["rgb"].numpy() - offset) / step)[batch.frame_mask.numpy()]
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    assert levels.min() >= -1e-3 and levels.max() <= 255 + 1e-3
    assert_padding_is_zero(rounded.features, batch.frame_mask)
    exact = dataclasses.replace(attack, round_to_levels=None).attack(*args)
    moved = np.abs(rounded.features["rgb"] - exact.features["rgb"])[batch.frame_mask.numpy()]
    assert 0 < moved.max() <= step / 2 + 1e-6
    # A radius far below half a level does not survive being stored.
    tiny = dataclasses.replace(attack, epsilon=1e-3).attack(*args)
    real = batch.frame_mask.numpy()
    np.testing.assert_allclose(
        tiny.features["rgb"].numpy()[real], features["rgb"].numpy()[real], atol=1e-6
    )


def test_a_model_that_ignores_a_feature_is_an_error(linear, batch):
    def rgb_only(features, frame_mask):
        return linear({"rgb": features["rgb"]}, frame_mask)

    for attack in (FastGradient(FRAME, 1.0), DeepFool()):
        with pytest.raises(ValueError, match="None for audio"):
            attack.attack(rgb_only, cross_entropy, *batch)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FastGradient(FRAME, -1.0), "`epsilon` must be at least 0. Received: epsilon=-1"),
        (lambda: FastGradient(FRAME, 1.0, clip_to_range=(2, -2)), "low < high"),
        (lambda: FastGradient(FRAME, 1.0, round_to_levels=(0, 1)), "a positive step"),
        (lambda: PGD(FRAME, 1.0, steps=0), "`steps` must be at least 1. Received: steps=0"),
        (lambda: PGD(FRAME, 1.0, step_size=-1), "`step_size` must be at least 0"),
        (
            lambda: PGD(FRAME, 1.0, objective="f6"),
            "one of loss, margin, dlr, normalized. Received: .*'f6'",
        ),
        (lambda: DeepFool(candidates=1), "`candidates` must be at least 2"),
        (lambda: DeepFool(overshoot=0), "`overshoot` must be positive"),
        (lambda: DeepFool(steps=0), "`steps` must be at least 1"),
        (lambda: RandomSearch(FRAME, 1.0, queries=0), "`queries` must be at least 1"),
        (lambda: RandomSearch(FRAME, 1.0, mutation=0), "`mutation` must be positive"),
        (lambda: SquareSearch(FRAME, 1.0, first_share=2), r"`first_share` must be in \(0, 1\]"),
        (lambda: build_attack("fgsm", 1.0), "one of fgm, fgm_linf, .*Received: 'fgsm'"),
        (lambda: Transfer(DeepFool(), abs, clip_to_range=(-2, 2)), "set them on `inner`"),
    ],
)
def test_bad_arguments_are_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Criterion and objective


def test_top1_missed():
    labels = tf.constant([[1, 0, 1], [1, 0, 1], [0, 0, 0]])
    logits = tf.constant([[0.0, 1.0, 2.0], [0.0, 3.0, 2.0], [0.0, 1.0, 2.0]])
    np.testing.assert_array_equal(top1_missed(labels, logits), [False, True, False])


def test_margin_loss():
    logits = tf.constant([[3.0, -1.0, 2.0]] * 4)
    labels = tf.constant([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]], tf.float32)
    # 2 - max(3, -1); 3 + 1; no label: the highest logit; all labels: minus the highest.
    np.testing.assert_allclose(margin_loss(labels, logits), [-1.0, 4.0, 3.0, -3.0])
    # Rated alone: 2 - -1; no label, 2; nothing.
    weights = tf.constant([[0, 1, 1], [0, 0, 1], [0, 0, 0]], tf.float32)
    np.testing.assert_allclose(margin_loss(labels[:3], logits[:3], weights), [3.0, 2.0, 0.0])


def test_the_margin_is_positive_where_the_top_class_is_no_label(attentive, batch):
    # Clips with frames and labels: without frames all logits are the same.
    logits = attentive(batch.features, batch.frame_mask)[:3]
    labels = batch.labels.numpy()[:3]
    labels[2, np.argmax(logits[2])] = 1
    missed = top1_missed(labels, logits)
    np.testing.assert_array_equal(margin_loss(labels, logits) > 0, missed)
    assert labels[2].sum() > 1 and missed.numpy().any() and not missed[2]


# Closed forms on a linear model


def linear_gradient(linear, batch):
    """d BCE / dx of the mean-pooled affine model: (sigma(z) - y) W^T / (C n) at each real frame."""
    logits = linear(batch.features, batch.frame_mask).numpy()
    residual = (1 / (1 + np.exp(-logits)) - batch.labels.numpy()) / logits.shape[1]
    count = np.maximum(batch.frame_mask.numpy().sum(1), 1)
    mask = batch.frame_mask.numpy()[..., None]
    return {
        name: (residual @ kernel.numpy().T / count[:, None])[:, None, :] * mask
        for name, kernel in linear.kernels.items()
    }


def test_fast_gradient_on_a_linear_model(linear, batch):
    gradient = linear_gradient(linear, batch)
    for ball in (FRAME, LINF):
        result = FastGradient(ball, 0.5).attack(linear, cross_entropy, *batch)
        change = difference(result.features, batch)
        for name, g in gradient.items():
            real = batch.frame_mask.numpy()
            if ball == LINF:
                expected = 0.5 * np.sign(g)
            else:
                expected = 0.5 * g / np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), 1e-30)
            np.testing.assert_allclose(change[name][real], expected[real], atol=2e-5)
        np.testing.assert_allclose(result.norm, [0.5] * 4 + [0], atol=1e-5)


def test_the_gradient_of_a_tiny_loss_gives_the_full_step(linear, batch):
    result = FastGradient(FRAME, 0.5).attack(
        linear, lambda labels, logits: 1e-30 * cross_entropy(labels, logits), *batch
    )
    np.testing.assert_allclose(result.norm, [0.5] * 4 + [0], rtol=1e-5)


def test_margin_attack_on_a_linear_model_reaches_its_optimum(linear, batch):
    # With one label and one other class in the lead all the way, the margin is linear: it rises
    # by exactly epsilon * sum over modalities of ||w_other - w_label||, however many frames.
    labels = np.zeros((5, 12), np.float32)
    logits = linear(batch.features, batch.frame_mask).numpy()
    top = logits.argmax(1)
    labels[np.arange(5), logits.argmin(1)] = 1
    result = PGD(FRAME, 0.05, steps=5, objective="margin").attack(
        linear, margin_loss, batch.features, batch.frame_mask, tf.constant(labels)
    )
    rise = margin_loss(labels, result.logits) - margin_loss(labels, logits)
    expected = 0.05 * sum(
        np.linalg.norm(k.numpy()[:, top] - k.numpy()[:, logits.argmin(1)], axis=0)
        for k in linear.kernels.values()
    )
    stays = result.logits.numpy().argmax(1) == top
    assert stays[:4].any()
    np.testing.assert_allclose(rise[:4][stays[:4]], expected[:4][stays[:4]], rtol=1e-3)


@pytest.mark.parametrize("candidates", [2, 12])
def test_deepfool_on_an_affine_model(candidates, linear, batch):
    logits = linear(batch.features, batch.frame_mask).numpy()
    result = DeepFool(candidates=candidates).attack(linear, cross_entropy, *batch)
    for clip in range(4):
        order = np.argsort(-logits[clip])
        count = int(batch.frame_mask.numpy()[clip].sum())
        distances = [
            np.sqrt(count)
            * (logits[clip, order[0]] - logits[clip, k])
            / np.sqrt(
                sum(
                    np.square(kernel.numpy()[:, k] - kernel.numpy()[:, order[0]]).sum()
                    for kernel in linear.kernels.values()
                )
            )
            for k in order[1:candidates]
        ]
        np.testing.assert_allclose(result.norm[clip], 1.02 * min(distances), rtol=1e-4)
        assert result.success[clip]
        assert result.logits.numpy()[clip].argmax() == order[1 + int(np.argmin(distances))]
    # The clip without frames cannot be moved.
    assert not result.success[4] and result.relative_norm[4] == 0


@pytest.mark.parametrize("peak", [9.0, 0.01])
def test_pgd_has_the_outputs_where_it_set_out_and_where_its_highest_point_is(
    peak, attentive, batch
):
    """Where a step passes the peak, the highest point of some clips is not their last one."""
    attack = PGD(FRAME, 0.3, steps=3, step_size=0.2)
    model = CountedCalls(lambda *inputs: MapOutputs(attentive(*inputs), inputs[0]))
    start = clean_loss(attentive, batch)
    found = attack.attack(
        model, lambda labels, logits: -abs(cross_entropy(labels, logits) - start - peak), *batch
    )
    assert model.calls == attack.cost.forward - (1 if peak == 9.0 else 0)
    clean = attentive(batch.features, batch.frame_mask)
    np.testing.assert_allclose(found.clean_outputs[0], clean, rtol=1e-5, atol=1e-6)
    at_result = attentive(found.features, batch.frame_mask)
    np.testing.assert_allclose(found.outputs[0], at_result, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.outputs[1]["rgb"], found.features["rgb"])
    assert found.logits is found.outputs[0]


def test_deepfool_stops_when_all_have_flipped(linear, batch):
    model = CountedCalls(linear)
    DeepFool(candidates=3, steps=50).attack(model, cross_entropy, *batch)
    # Candidates (also the clean arg-max), one step, the look that finds it done, the result.
    assert model.calls == 4


def test_deepfool_flips_a_curved_model_with_less_than_pgd_needs(attentive, batch):
    result = DeepFool().attack(attentive, cross_entropy, *batch)
    assert result.success.numpy()[:4].all()
    clean = attentive(batch.features, batch.frame_mask).numpy().argmax(1)
    # The very step before the boundary was not passed: 0.9 of the way has not flipped.
    near = {
        k: batch.features[k] + 0.9 * (v - batch.features[k]) for k, v in result.features.items()
    }
    assert (attentive(near, batch.frame_mask).numpy().argmax(1) == clean)[:4].all()


def test_deepfool_needs_two_classes(batch):
    def one_class(features, frame_mask):
        return tf.reduce_sum(features["rgb"], [1, 2])[:, None]

    with pytest.raises(ValueError, match="at least two classes"):
        DeepFool().attack(one_class, cross_entropy, *batch)


# How attacks compare


@pytest.mark.parametrize("ball", [FRAME, Ball("l2", "joint"), LINF])
def test_stronger_attacks_raise_the_loss_more(ball, attentive, batch):
    epsilon = 0.2 if ball == LINF else 0.4
    args = (attentive, cross_entropy, *batch)
    fgm = FastGradient(ball, epsilon).attack(*args).loss.numpy()
    short = PGD(ball, epsilon, steps=10).attack(*args).loss.numpy()
    restarts = PGD(ball, epsilon, steps=10, restarts=3).attack(*args).loss.numpy()
    noise = RandomNoise(ball, epsilon).attack(*args).loss.numpy()
    assert np.all(short >= fgm - 1e-3)
    assert np.all(restarts >= short - 1e-6)
    assert short[:4].mean() > fgm[:4].mean() > noise[:4].mean()


@pytest.mark.parametrize("steps", [1, 10])
def test_the_default_step_of_pgd_is_two_and_a_half_radii_over_all_steps(steps, linear, batch):
    """Madry et al. (2018): far enough to reach the boundary and to move along it."""
    points = []

    def look(features, frame_mask):
        points.append(features["rgb"].numpy())
        return linear(features, frame_mask)

    epsilon = 0.4
    PGD(LINF, epsilon, steps).attack(look, cross_entropy, *batch)
    change = np.abs(points[1] - batch.features["rgb"].numpy())[batch.frame_mask.numpy()]
    np.testing.assert_allclose(change.max(), min(2.5 * epsilon / steps, epsilon), rtol=1e-5)


def test_random_starts_differ_by_restart(attentive, batch):
    # One step of size 0 keeps the best of the starting points: more starts, no lower loss.
    losses = [
        PGD(FRAME, 0.5, steps=1, step_size=0.0, restarts=n, random_start=True)
        .attack(attentive, cross_entropy, *batch, 3)
        .loss.numpy()
        for n in (1, 2, 8)
    ]
    assert all(np.all(b >= a) for a, b in itertools.pairwise(losses))
    assert (losses[2] > losses[0]).any()


@pytest.mark.parametrize("search", [RandomSearch, SquareSearch])
@pytest.mark.parametrize("ball", [FRAME, LINF])
def test_gradient_free_search_climbs_but_not_above_pgd(search, ball, attentive, batch):
    args = (attentive, cross_entropy, *batch)
    one, many = (search(ball, 0.4, queries=n).attack(*args, 1).loss.numpy() for n in (1, 40))
    best = PGD(ball, 0.4, steps=20).attack(*args).loss.numpy()
    clean = clean_loss(attentive, batch)
    assert np.all(one >= clean - 1e-6) and np.all(many >= one - 1e-6)
    assert many.mean() < best.mean()
    # And yet a good part of what the gradient finds.
    assert (many - clean)[:4].mean() > 0.4 * (best - clean)[:4].mean()


def test_a_search_tells_how_far_fewer_queries_came(attentive, batch, monkeypatch):
    monkeypatch.setattr(gradient_free, "CURVE", (1, 7, 20, 30))
    seen, missed = [], []

    def logged(labels, logits):
        seen.append(cross_entropy(labels, logits).numpy())
        missed.append(top1_missed(labels, logits).numpy())
        return seen[-1]

    result = SquareSearch(FRAME, 0.4, queries=30).attack(attentive, logged, *batch, 1)
    # The clean clip, then 30 queries, then the result. A search starts after its first query.
    assert set(result.figures) == {
        f"{name}_after_{count}_queries" for name in ("loss", "success") for count in (7, 20)
    }
    for count in (7, 20):
        best = np.argmax(seen[: count + 1], axis=0)
        for name, of_queries in (("loss", seen), ("success", missed)):
            expected = np.choose(best, of_queries[: count + 1])
            found = result.figures[f"{name}_after_{count}_queries"]
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert SquareSearch(FRAME, 0.4, queries=3).attack(attentive, logged, *batch).figures == {}


def test_draws_follow_the_mean_gradient():
    """A slope of 3 and of -1 in turn: alone, the second step goes back; the mean goes on."""
    calls = itertools.count()

    def model(features, frame_mask):
        slope = 3.0 if next(calls) % 2 == 0 else -1.0
        return slope * tf.reduce_sum(features["x"], axis=[1, 2])[:, None]

    def loss(labels, logits):
        return logits[:, 0]

    clip = {"x": tf.zeros([1, 1, 1])}
    attack = PGD(FRAME, 1.0, steps=2, step_size=0.25, draws=2)
    result = attack.attack(model, loss, clip, [[True]], [[1.0]])
    assert result.features["x"].numpy() == 0.5
    assert attack.cost == (6, 4) and next(calls) in (5, 6)
    with pytest.raises(ValueError, match=r"`draws` must be at least 1\. Received: draws=0"):
        PGD(FRAME, 1.0, draws=0)


def test_transfer_is_made_on_the_source_and_judged_on_the_target(linear, attentive, batch):
    inner = FastGradient(FRAME, 0.5)
    source, target = CountedCalls(linear), CountedCalls(attentive)
    transfer = Transfer(inner, source)
    result = transfer.attack(target, cross_entropy, *batch)
    made = inner.attack(linear, cross_entropy, *batch)
    assert transfer.name == "transfer_fgm"
    assert (source.calls, target.calls) == (2, 1)
    assert Transfer(PGD(FRAME, 0.5, objective="margin"), source).objective == "margin"
    np.testing.assert_array_equal(result.features["rgb"], made.features["rgb"])
    np.testing.assert_allclose(result.norm, made.norm)
    logits = attentive(made.features, batch.frame_mask)
    np.testing.assert_allclose(result.loss, cross_entropy(batch.labels, logits), rtol=1e-6)
    white_box = inner.attack(attentive, cross_entropy, *batch)
    assert white_box.loss.numpy().mean() > result.loss.numpy().mean()


@pytest.mark.parametrize("name", [n for n in ATTACKS if n not in ("temporal", "sparse")])
def test_video_level_features_without_a_mask(name, linear, batch):
    features = {key: value[:, 0] for key, value in batch.features.items()}

    def model(features, frame_mask):
        assert frame_mask is None
        return linear({k: v[:, None] for k, v in features.items()}, tf.ones([5, 1], tf.bool))

    attack = build_attack(name, 0.3, SMALL)
    if isinstance(attack, AutoAttack):  # These clips are missed when clean, so it would not move.
        attack = dataclasses.replace(attack, early_exit=False)
    result = attack.attack(model, cross_entropy, features, None, batch.labels)
    clean = cross_entropy(batch.labels, model(features, None))
    assert result.features["audio"].shape == (5, 3)
    # Of the clips that are missed when clean, one attack has no more to ask.
    unmoved = top1_missed(batch.labels, model(features, None)) if "hop" in name else False
    assert np.all((result.norm > 0) | unmoved)
    if name.startswith(("fgm", "pgd")):
        # On an affine model the cross-entropy is convex: a step along the gradient raises it.
        assert np.all(result.loss > clean)
