"""The evaluator against slow loops over a small model, and what a perturbation tells."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import (
    PGD,
    AdaptivePGD,
    AutoAttack,
    Ball,
    DeepFool,
    FastGradient,
    HopSkipJump,
    RandomNoise,
    SparseFrames,
    SquareSearch,
    corrupt,
    dlr_loss,
    margin_loss,
)
from yt8m_gat.attacks.draws import part_of_batch
from yt8m_gat.config import DataConfig, RunConfig
from yt8m_gat.data import preprocess
from yt8m_gat.evaluation.evaluator import Corruption, Evaluator, inputs_of
from yt8m_gat.evaluation.first_videos import first_videos
from yt8m_gat.evaluation.survivors import survivors_of
from yt8m_gat.losses import get_loss
from yt8m_gat.metrics import EvaluationMetrics, restrict_to_classes
from yt8m_gat.models import build_model
from yt8m_gat.pipeline.run_evaluator import (
    MAP_FIGURES,
    attention_distances,
    attention_figures,
    build_evaluator,
    total_map_distance,
)

NUM_CLASSES = 6
SIZES = {"rgb": 5, "audio": 3}


class Outputs(NamedTuple):
    logits: tf.Tensor
    frames: tf.Tensor
    attention_maps: dict


class SmallModel:
    """One head of attention per feature, a mean over the real frames, and a linear layer.

    A clip whose first entry is large has logits that no feature moves.
    """

    def __init__(self, seed=0, flat_above=np.inf):
        rng = np.random.default_rng(seed)
        self.kernels = {
            name: tf.constant(rng.normal(size=(size, NUM_CLASSES)), tf.float32)
            for name, size in SIZES.items()
        }
        self.flat_above = flat_above
        self.traces = 0

    def __call__(self, inputs, training):
        inputs = dict(inputs)
        return self.forward(inputs, inputs.pop("frame_mask"), training=training).logits

    def probabilities(self, logits):
        return tf.sigmoid(logits)

    def forward_without_maps(self, features, frame_mask, training=False):
        return self.forward(features, frame_mask, training)._replace(attention_maps={})

    def forward(self, features, frame_mask, training=False):
        self.traces += 1
        weights = tf.cast(frame_mask, tf.float32)
        maps, frames, logits = {}, [], 0.0
        for name, kernel in self.kernels.items():
            x = features[name]
            scores = tf.matmul(x, x, transpose_b=True)
            scores = tf.where(frame_mask[:, tf.newaxis, :], scores, -1e9)
            attention = tf.nn.softmax(scores) * weights[..., tf.newaxis]
            frames.append(attention @ x)
            maps[name] = {"global": attention[:, tf.newaxis]}
            mean = tf.reduce_sum(frames[-1], 1) / tf.reduce_sum(weights, 1, keepdims=True)
            logits += mean @ kernel
        flat = features["rgb"][:, 0, :1] > self.flat_above
        logits = tf.where(flat, tf.range(NUM_CLASSES, dtype=tf.float32), logits)
        return Outputs(logits, tf.concat(frames, -1), maps)


class LongClips(SmallModel):
    """A model that has its maps computed only for callers of `forward`."""

    has_costly_maps = True
    exclusive_classes = False

    def __init__(self):
        super().__init__()
        self.maps = 0

    def forward_without_maps(self, features, frame_mask, training=False):
        self.maps -= 1
        return super().forward_without_maps(features, frame_mask, training)

    def forward(self, features, frame_mask, training=False):
        self.maps += 1
        return super().forward(features, frame_mask, training)


def make_batches(sizes=(4, 4, 3), longest=(5, 3, 4), segments=False):
    rng = np.random.default_rng(7)
    batches = []
    for number, (size, frames) in enumerate(zip(sizes, longest, strict=True)):
        labels = (rng.random((size, NUM_CLASSES)) < 0.3).astype(np.float32)
        labels[0] = [1, 0, 0, 0, 1, 0]
        lengths = rng.integers(1, frames + 1, size)
        lengths[-1] = frames
        batch = {
            "video_id": np.array([f"{number}_{place}".encode() for place in range(size)]),
            "features": {
                name: rng.integers(0, 256, (size, frames, d), np.uint8) for name, d in SIZES.items()
            },
            "num_frames": lengths.astype(np.int32),
            "labels": labels,
        }
        if segments:
            batch["label_weights"] = (rng.random(labels.shape) < 0.7).astype(np.float32)
            batch["label_weights"][:, 0] = 1
            batch["segment_start_time"] = np.zeros(size, np.int32)
        batches.append(tf.nest.map_structure(tf.constant, batch))
    return batches


def make_evaluator(model=None, **options):
    return Evaluator(
        model or SmallModel(),
        get_loss("CrossEntropyLoss", "mean"),
        NUM_CLASSES,
        attention_figures=attention_figures,
        attention_distances=attention_distances,
        **options,
    )


def predicted(model, batches, change=None):
    """Labels and probabilities, clip by clip, of batches that `change` perturbs."""
    labels, probabilities = [], []
    examples = 0
    for batch in batches:
        features, mask = preprocess(batch["features"], batch["num_frames"])
        if change is not None:
            features, mask = change(features, mask, batch["labels"], examples)
        labels.append(batch["labels"].numpy())
        probabilities.append(tf.sigmoid(model.forward(features, mask).logits).numpy())
        examples += len(labels[-1])
    return np.concatenate(labels), np.concatenate(probabilities)


def expected(labels, probabilities):
    metrics = EvaluationMetrics(NUM_CLASSES)
    metrics.update(labels, probabilities)
    return metrics


def assert_metrics(row, metrics):
    for name, value in metrics.result().items():
        assert row[name] == pytest.approx(value, abs=1e-6), name


# --- Corruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian_noise", "frame_drop", "silent_modality"])
@pytest.mark.parametrize("normalize", ["none", "concat"])
def test_a_corruption_is_of_the_dequantized_features(name, normalize):
    """Corrupted first and normalized then, with a seed of its own for each batch."""
    batches, model = make_batches(), SmallModel()

    def change(features, mask, labels, examples):
        corrupted, mask = corrupt(name, 4, features, mask, examples)
        if normalize == "concat":
            joint = np.concatenate([x.numpy() for x in corrupted.values()], axis=-1)
            norms = np.maximum(np.linalg.norm(joint, axis=-1, keepdims=True), 1e-6)
            corrupted = {key: x / norms for key, x in corrupted.items()}
        return corrupted, mask

    row = make_evaluator(normalize=normalize).measure(batches, Corruption(name, 4)).result()
    assert_metrics(row, expected(*predicted(model, batches, change)))
    moved = "attention_frobenius_rgb" in row
    assert moved == (name != "frame_drop")
    assert "attention_entropy_rgb" in row and "norm" not in row


# --- Attacks ------------------------------------------------------------------------------------


cross_entropy = get_loss("CrossEntropyLoss", "mean")


@pytest.mark.parametrize(
    ("attack", "climbed"),
    [
        (FastGradient(Ball(), 0.7), cross_entropy),
        (PGD(Ball(), 0.7, steps=1, step_size=0.7, objective="margin"), margin_loss),
        (PGD(Ball(), 0.7, steps=1, step_size=0.7, objective="dlr"), dlr_loss),
        (SparseFrames(Ball(), 0.7, steps=2), margin_loss),
        pytest.param(
            AutoAttack(Ball(), 0.7, steps=2, targets=1, queries=2),
            cross_entropy,
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_attacked_row_is_that_of_the_attacked_clips(attack, climbed):
    batches, model = make_batches(), SmallModel()
    losses, norms, successes, distances, frames = [], [], [], [], []

    def change(features, mask, labels, examples):
        def logits(features, mask):
            return model.forward(features, mask).logits

        found = attack.attack(logits, climbed, features, mask, labels, examples)
        losses.extend(cross_entropy(labels, found.logits).numpy())
        norms.extend(found.relative_norm.numpy())
        successes.extend(found.success.numpy())
        frames.extend((found.features["rgb"] != features["rgb"]).numpy().any(axis=2).sum(axis=1))
        for place in range(len(norms) - len(distances)):
            maps = [
                model.forward(x, mask).attention_maps["rgb"]["global"][place, 0].numpy()
                for x in (features, found.features)
            ]
            n = int(mask[place].numpy().sum())
            difference = (maps[0] - maps[1])[:n, :n]
            distances.append((np.mean(difference**2), np.linalg.norm(difference)))
        return found.features, mask

    metrics = expected(*predicted(model, batches, change))
    row = make_evaluator(model).measure(batches, attack).result()
    assert_metrics(row, metrics)
    assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert row["relative_norm"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert row["success"] == pytest.approx(np.mean(successes))
    if isinstance(attack, SparseFrames):
        assert row["perturbed_frames"] == pytest.approx(np.mean(frames))
        assert 0 < np.mean(frames) < 3
    mse, frobenius = np.mean(distances, axis=0)
    assert row["attention_mse_rgb"] == pytest.approx(mse, rel=1e-4)
    assert row["attention_frobenius_rgb"] == pytest.approx(frobenius, rel=1e-4)
    clean = make_evaluator(model).measure(batches).result()
    assert row["loss"] > clean["loss"] and row["norm"] <= 0.7 * (1 + 1e-5)
    assert not {"norm", "attention_mse_rgb", "rho_mean"} & set(clean)


def test_an_attack_is_traced_once_for_batches_of_all_sizes():
    model = SmallModel()
    evaluator = make_evaluator(model)
    batches = make_batches((4, 2, 3, 1), (5, 3, 4, 2))
    evaluator.measure(batches)
    evaluator.measure(batches, RandomNoise(Ball(), 1.0))
    model.traces = 0
    evaluator.measure(batches, PGD(Ball(), 1.0, steps=100, restarts=2))
    # Where a restart sets out, a step, its value at the end, the result, the clean clip.
    assert model.traces == 5


def test_the_evaluation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        make_evaluator().measure([])


@pytest.mark.slow
def test_segments_count_their_rated_pairs_alone():
    batches = make_batches(segments=True)
    unrated = [
        {**b, "labels": tf.where(b["label_weights"] > 0, b["labels"], 1 - b["labels"])}
        for b in batches
    ]
    pgd = PGD(Ball(), 0.5, steps=3)
    margin = dataclasses.replace(pgd, objective="margin")
    for attack in (None, pgd, margin, Corruption("gaussian_noise", 3)):
        rows = [
            make_evaluator().measure(given, attack, zero_gradients=True, groups={"g": [0, 2]})
            for given in (batches, unrated)
        ]
        results = [row.result() for row in rows]
        for result in results:  # What was not rated counts as no label there.
            result.pop("success", None)
        assert results[0] == results[1]
        assert rows[0].group_results() == rows[1].group_results()
        np.testing.assert_array_equal(rows[0].positives, rows[1].positives)
        assert rows[0].result()["num_segments"] == 11


# --- DeepFool -----------------------------------------------------------------------------------


def test_rho_is_of_the_clips_that_flipped():
    """A clip whose logits nothing moves never flips: it is in the share alone."""
    batches, model = make_batches(), SmallModel(flat_above=0.5)
    attack = DeepFool(steps=20)
    rho, flipped, flat = [], [], []
    for batch in batches:
        features, mask = preprocess(batch["features"], batch["num_frames"])
        found = attack.attack(
            lambda f, m: model.forward(f, m).logits,
            get_loss("CrossEntropyLoss", "mean"),
            features,
            mask,
            batch["labels"],
        )
        rho.extend(found.relative_norm.numpy())
        flipped.extend(found.success.numpy())
        flat.extend((features["rgb"][:, 0, 0] > 0.5).numpy())
    rho, flipped, flat = map(np.array, (rho, flipped, flat))
    assert 0 < flat.sum() < len(flat) and not flipped[flat].any() and flipped[~flat].any()
    row = make_evaluator(model).measure(batches, attack, zero_gradients=True).result()
    assert row["share_not_flipped"] == pytest.approx(1 - flipped.mean())
    assert row["rho_mean"] == pytest.approx(rho[flipped].mean(), rel=1e-4)
    assert row["rho_median"] == pytest.approx(np.median(rho[flipped]), rel=1e-4)
    assert row["zero_gradient_share"] == pytest.approx(flat.mean())


def test_rho_of_a_model_that_never_flips_has_no_value():
    row = make_evaluator(SmallModel(flat_above=-9)).measure(make_batches(), DeepFool()).result()
    assert (row["rho_mean"], row["rho_median"], row["share_not_flipped"]) == (None, None, 1.0)


# --- What stands beside the means ----------------------------------------------------------------


def test_a_figure_that_some_batches_lack_is_none_of_the_set():
    """A tenth of the frames is dropped: one of ten, none of three, where maps can be compared."""
    evaluator = make_evaluator()
    dropping = Corruption("frame_drop", 1)
    short, long = (make_batches((4,), (longest,)) for longest in (3, 10))
    distances = set(evaluator.evaluate(short, dropping)) - set(evaluator.evaluate(long, dropping))
    assert len(distances) == 4 and all(name.startswith("attention_") for name in distances)
    for batches in (short + long, long + short):
        assert distances.isdisjoint(evaluator.evaluate(batches, dropping))


def test_partitions_are_those_of_the_metrics():
    batches, model = make_batches(), SmallModel()
    metrics = expected(*predicted(model, batches))
    parts = metrics.partition_result(3)
    measured = make_evaluator(model).measure(batches)
    row = measured.result(num_partitions=3)
    assert row["partitions"]["count"] == 3
    for name, mean in parts["mean"].items():
        assert row["partitions"][name] == {
            "mean": pytest.approx(mean, abs=1e-6),
            "deviation": pytest.approx(parts["deviation"][name], abs=1e-6),
        }
    with pytest.raises(ValueError, match=r"at most the number of videos \(11\)"):
        measured.result(num_partitions=12)


def test_groups_are_their_classes_and_the_videos_that_have_one():
    batches, model = make_batches(), SmallModel()
    groups = {"a": [0, 3], "b": [2]}
    labels, probabilities = predicted(model, batches)
    labels[:, 2] = 0
    for batch in batches:
        batch["labels"] = batch["labels"] * tf.constant([1.0, 1, 0, 1, 1, 1])
    found = make_evaluator(model).measure(batches, groups=groups).group_results()
    of_a = EvaluationMetrics(2, all_scores=False)
    of_a.update(*restrict_to_classes(labels, probabilities, groups["a"]))
    assert found == {"a": pytest.approx(of_a.result(), abs=1e-6), "b": None}


def test_classes_have_their_average_precision_and_positives():
    batches, model = make_batches(), SmallModel()
    labels, probabilities = predicted(model, batches)
    for all_scores in (True, False):
        measured = make_evaluator(model, all_scores=all_scores, top_k=2).measure(batches)
        metrics = EvaluationMetrics(NUM_CLASSES, top_k=2)
        metrics.update(labels, probabilities)
        np.testing.assert_allclose(
            measured.per_class_average_precision(),
            metrics.per_class_average_precision(all_scores),
            atol=1e-6,
        )
        np.testing.assert_array_equal(measured.positives, labels.sum(axis=0))


def test_observers_see_what_the_model_sees():
    batches = make_batches()
    seen = []

    def look(batch, features, frame_mask):
        seen.append((batch["video_id"].numpy().tolist(), features, frame_mask))

    make_evaluator().measure(batches, RandomNoise(Ball(), 0.25), observers=[look])
    assert [ids for ids, *_ in seen] == [b["video_id"].numpy().tolist() for b in batches]
    for batch, (_, features, mask) in zip(batches, seen, strict=True):
        clean, real = preprocess(batch["features"], batch["num_frames"])
        np.testing.assert_array_equal(mask, real)
        rows = np.linalg.norm((features["rgb"] - clean["rgb"]).numpy(), axis=-1)
        np.testing.assert_allclose(rows, 0.25 * mask.numpy(), atol=1e-5)


# --- The first videos -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11, 99])
def test_the_first_videos_are_those_of_the_whole(count):
    batches = make_batches()
    kept = list(first_videos(iter(batches), count))
    ids = [key for batch in batches for key in batch["video_id"].numpy()]
    assert [key for batch in kept for key in batch["video_id"].numpy()] == ids[:count]
    for batch, whole in zip(kept, batches, strict=False):
        size = len(batch["video_id"])
        assert {len(x) for x in tf.nest.flatten(batch)} == {size}
        np.testing.assert_array_equal(batch["labels"], whole["labels"][:size])
    assert len(list(first_videos(iter(batches), 0))) == 3


def test_all_segments_of_the_first_videos_are_kept():
    def batch(*ids):
        return {
            "video_id": tf.constant([i.encode() for i in ids]),
            "segment_start_time": tf.zeros([len(ids)], tf.int32),
        }

    batches = [batch("a", "a", "b"), batch("b", "b", "c"), batch("d")]
    for count, expected_ids in ((1, "aa"), (2, "aabbb"), (3, "aabbbc"), (9, "aabbbcd")):
        kept = first_videos(iter(batches), count)
        assert b"".join(i for b in kept for i in b["video_id"].numpy()).decode() == expected_ids


def test_a_video_level_model_is_attacked_although_it_has_no_frames():
    model = build_model("LogisticModel", {"mean_rgb": 4}, NUM_CLASSES, 1)
    rng = np.random.default_rng(2)
    features = {"mean_rgb": tf.constant(rng.normal(size=(5, 4)), tf.float32)}
    labels = tf.one_hot([0, 1, 2, 3, 4], NUM_CLASSES)
    batch = {"video_id": tf.constant(["v"] * 5), "features": features, "labels": labels}
    attack = PGD(Ball("l2", "joint"), 0.5, steps=3)
    loss = get_loss("CrossEntropyLoss", "mean")
    found = attack.attack(lambda x, mask: model(x), loss, features, None, labels)
    row = Evaluator(model, loss, NUM_CLASSES).measure([batch], attack).result()
    assert row["loss"] == pytest.approx(found.loss.numpy().mean(), abs=1e-6)
    assert row["norm"] == pytest.approx(0.5, abs=1e-5)


# --- Survivors -----------------------------------------------------------------------------------

DRAWING = [
    RandomNoise(Ball(), 2.0),
    PGD(Ball("l2", "joint"), 2.0, steps=2, restarts=2, random_start=True),
    PGD(Ball("linf"), 0.3, steps=2, restarts=2),
    SquareSearch(Ball(), 2.0, queries=5),
    pytest.param(AutoAttack(Ball(), 1.0, steps=2, targets=1, queries=4), marks=pytest.mark.slow),
    pytest.param(HopSkipJump(Ball(), 2.0, queries=40), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("attack", DRAWING, ids=lambda attack: attack.name)
def test_a_clip_meets_the_same_points_whichever_others_take_part(attack):
    [batch] = make_batches(sizes=(6,), longest=(4,))
    inputs, rows, evaluator = inputs_of(batch), tf.constant([1, 4, 5]), make_evaluator()
    whole = evaluator.attacked(attack, inputs, tf.constant(3))
    part = tf.nest.map_structure(lambda value: tf.gather(value, rows), inputs)
    with part_of_batch(rows, tf.constant(6)):
        result = evaluator.attacked(attack, part, tf.constant(3))
    for name in SIZES:
        same = tf.gather(whole.features[name], rows)
        if isinstance(attack, RandomNoise):  # The draws themselves.
            np.testing.assert_array_equal(result.features[name], same)
        # A product over fewer clips may round differently.
        np.testing.assert_allclose(result.features[name], same, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_worst_case_is_that_of_attacks_on_all_clips():
    batches = make_batches((7, 8, 3), (5, 3, 4), segments=True)
    evaluator = make_evaluator()
    attacks = [
        RandomNoise(Ball(), 1.0),
        PGD(Ball("linf"), 0.1, steps=2, restarts=2),
        AutoAttack(Ball(), 0.3, steps=2, targets=1, queries=4),
    ]
    clean = evaluator.measure(batches).metrics.hits_at_1
    rows = [evaluator.measure(batches, attack).metrics.hits_at_1 for attack in attacks]
    standing = clean
    lefts = []
    for attack in attacks:
        standing = survivors_of(evaluator, batches, attack, standing)
        lefts.append(int(standing.sum()))
    np.testing.assert_array_equal(standing, np.logical_and.reduce([clean, *rows]))
    # They break some, and leave some: else the comparison would say little.
    assert clean.sum() > lefts[-1] > 0


def test_batches_without_a_standing_clip_are_not_attacked():
    batches, model = make_batches(), SmallModel()
    standing = np.zeros(11, bool)
    assert not survivors_of(make_evaluator(model), batches, DRAWING[1], standing).any()
    assert model.traces == 0


@pytest.mark.parametrize(
    "perturbation",
    [None, FastGradient(Ball("l2"), epsilon=0.5), Corruption("gaussian_noise", 2)],
    ids=["clean", "fgm", "noise"],
)
def test_costly_maps_are_computed_only_where_they_are_asked_for(perturbation):
    config = RunConfig(data=DataConfig(num_classes=NUM_CLASSES))
    rows = {}
    for asked in (False, True):
        model = LongClips()
        evaluator = build_evaluator(model, config, with_costly_maps=asked)
        rows[asked] = evaluator.evaluate(make_batches(), perturbation)
        assert (model.maps > 0) == asked
    figures = {name for name in rows[True] if name.rpartition("_")[0] in MAP_FIGURES}
    moved = 0 if perturbation is None else 2
    assert len(figures) == len(SIZES) * (2 + moved)
    assert rows[False] == {name: rows[True][name] for name in rows[True] if name not in figures}


def test_the_adaptive_attack_has_the_maps_that_it_reads():
    model = LongClips()
    evaluator = build_evaluator(model, RunConfig(data=DataConfig(num_classes=NUM_CLASSES)))
    attack = AdaptivePGD(Ball("l2"), epsilon=0.5, steps=2, map_distance=total_map_distance)
    row = evaluator.evaluate(make_batches(), attack)
    assert model.maps > 0 and row["norm"] == pytest.approx(0.5, rel=1e-4)
    assert not any(name.rpartition("_")[0] in MAP_FIGURES for name in row)
