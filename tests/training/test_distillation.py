"""Distillation: a step worked out by hand, and a run whose teacher stays outside."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from yt8m_gat import pipeline
from yt8m_gat.attacks import Ball
from yt8m_gat.config import (
    ConfigError,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.losses import CrossEntropyLoss, SoftmaxLoss
from yt8m_gat.models import ModelOutputs, VideoClassifier, build_from_config
from yt8m_gat.run_folder import RunFolder, with_teacher_digests
from yt8m_gat.training import AdversarialModel, GradientPerturbation, Objective, build_objective
from yt8m_gat.training.distillation import Distillation, build_teacher
from yt8m_gat.weights.hdf5 import save_weights
from yt8m_gat.weights.load import load_run

RATE, EPSILON, ALPHA = 0.1, 0.5, 0.7
T, W = 2.0, 0.3


@keras.saving.register_keras_serializable(package="tests")
class MeanClassifier(VideoClassifier):
    """z = mean over real frames of x, times W."""

    def __init__(self, feature_sizes, num_classes, **kwargs):
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        self.kernel = self.add_weight(shape=(feature_sizes["x"], num_classes), name="kernel")
        self.build_all()

    def forward(self, features, frame_mask=None, training=False, auxiliary_normalization=False):
        mask = ops.cast(frame_mask, "float32")[..., None]
        frames = features["x"] * mask
        mean = ops.sum(frames, axis=1) / ops.sum(mask, axis=1)
        return ModelOutputs(ops.matmul(mean, self.kernel), frames, {})


def classifier(seed):
    made = MeanClassifier({"x": 3}, 4)
    made.kernel.assign(np.random.default_rng(seed).normal(size=(3, 4)))
    return made


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def bce(z, y):
    return np.mean(np.logaddexp(0, z) - y * z)


@pytest.mark.parametrize("micro_batch_size", [None, 1])
@pytest.mark.slow
def test_the_updated_weights_are_those_worked_out_by_hand(micro_batch_size):
    """With p = sigmoid(z), the mean over C classes gives
    dl/dz = ((1 - w) (p - y) + w T (sigmoid(z / T) - q)) / C. Each of n real frames moves z by
    W^T x / n, so R = epsilon * W dl/dz / ||W dl/dz||, the same for each; q stays that of X.
    """
    rng = np.random.default_rng(5)
    student, teachers = classifier(0), [classifier(1), classifier(2)]
    objective = Objective(
        CrossEntropyLoss("mean"),
        perturbation=GradientPerturbation(Ball("l2", "frame"), EPSILON),
        adversarial_weight=ALPHA,
        distillation=Distillation(T, W, CrossEntropyLoss("mean")),
    )
    model = AdversarialModel(
        student,
        objective,
        micro_batch_size=micro_batch_size,
        teacher=build_teacher(teachers, T),
    )
    model.compile(optimizer=keras.optimizers.SGD(RATE))
    assert [v.path for v in model.weights] == [v.path for v in student.weights]
    x = rng.normal(size=(2, 4, 3)).astype(np.float32)
    num_frames, labels = np.array([4, 2], np.int32), np.eye(4, dtype=np.float32)[:2]
    kernel = student.kernel.numpy().astype(np.float64)
    gradient, clean_loss, adversarial_loss = np.zeros_like(kernel), 0.0, 0.0
    for frames, n, y in zip(x.astype(np.float64), num_frames, labels, strict=True):
        mean = frames[:n].mean(axis=0)
        q = np.mean([sigmoid(mean @ t.kernel.numpy() / T) for t in teachers], axis=0)

        def delta(z, y=y, q=q):
            return ((1 - W) * (sigmoid(z) - y) + W * T * (sigmoid(z / T) - q)) / 4

        def loss(z, y=y, q=q):
            return (1 - W) * bce(z, y) + W * T**2 * bce(z / T, q)

        g = kernel @ delta(mean @ kernel)
        moved = mean + EPSILON * g / np.linalg.norm(g)
        gradient += np.outer(mean, delta(mean @ kernel)) / 2
        gradient += ALPHA * np.outer(moved, delta(moved @ kernel)) / 2
        clean_loss += loss(mean @ kernel) / 2
        adversarial_loss += loss(moved @ kernel) / 2
    inputs = {"x": tf.constant(x), "num_frames": tf.constant(num_frames)}
    logs = tf.function(model.train_step)((inputs, tf.constant(labels)))
    np.testing.assert_allclose(student.kernel, kernel - RATE * gradient, atol=2e-6)
    np.testing.assert_allclose(logs["clean_loss"], clean_loss, rtol=1e-5)
    np.testing.assert_allclose(logs["adversarial_loss"], adversarial_loss, rtol=1e-5)
    np.testing.assert_array_equal(teachers[0].kernel, classifier(1).kernel)


def test_exclusive_classes_are_distilled_as_hinton_did():
    config = ObjectiveConfig(
        label_loss="SoftmaxLoss", class_reduction="sum", teacher=("a",), teacher_temperature=T
    )
    distillation = build_objective(config).distillation
    assert isinstance(distillation.loss, SoftmaxLoss) and distillation.weight == 0.5
    z, teacher_logits = np.array([[1.0, -2.0, 0.5, 0.0]]), np.array([[0.3, 0.1, -1.0, 2.0]])
    q = np.exp(teacher_logits / T) / np.exp(teacher_logits / T).sum()
    expected = 0.5 * 7.0 + 0.5 * T**2 * -np.sum(q * (z / T - np.log(np.exp(z / T).sum())))
    found = distillation(tf.constant([7.0]), tf.constant(q, tf.float32), tf.constant(z))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_without_its_teacher_an_objective_is_refused():
    objective = Objective(
        CrossEntropyLoss("mean"), distillation=Distillation(T, W, CrossEntropyLoss("mean"))
    )
    model = AdversarialModel(classifier(0), Objective.from_config(objective.get_config()))
    model.compile(optimizer=keras.optimizers.SGD(RATE))
    inputs = {"x": tf.ones([1, 2, 3]), "num_frames": tf.constant([2])}
    with pytest.raises(ValueError, match="needs a teacher, which files do not hold"):
        model.train_step((inputs, tf.ones([1, 4])))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_weight": 0.2}, "--teacher_weight has no effect without --teacher"),
        ({"teacher": ("a",), "teacher_weight": 0.0}, r"--teacher_weight must be in \(0, 1\]"),
        ({"teacher": ("a",), "teacher_temperature": 0.0}, "--teacher_temperature must be positive"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**settings)


DATA = DataConfig(num_classes=8, max_frames=12, normalize="concat")
LOGISTIC = RunConfig(data=DATA, model=ModelConfig(name="FrameLevelLogisticModel"))


def make_teacher(path, **data):
    config = dataclasses.replace(LOGISTIC, data=dataclasses.replace(DATA, **data))
    folder = RunFolder(path)
    folder.prepare(config)
    save_weights(build_from_config(config), folder.best_weights, step=0)
    return str(folder.path)


def student_of(*teachers):
    return dataclasses.replace(
        LOGISTIC,
        objective=ObjectiveConfig(teacher=teachers),
        training=TrainingConfig(batch_size=32, max_steps=2),
    )


def test_a_teacher_that_does_not_fit_is_named_before_any_work(tmp_path):
    options = {"train_data_pattern": "none.tfrecord"}  # Would be refused next.
    for settings, message in (
        ({"num_classes": 9}, r"--teacher=\S+ holds a run on other data .*: num_classes: 9 != 8"),
        ({"feature_names": ("rgb",), "feature_sizes": (1024,)}, r"sizes: \{'rgb': 1024\} != "),
    ):
        path = make_teacher(tmp_path / str(len(settings)), **settings)
        with pytest.raises(ConfigError, match=message):
            pipeline.train(RunFolder(tmp_path / "run"), student_of(path), **options)
    with pytest.raises(ConfigError, match=r"holds no best\.weights\.h5: it must name folders of"):
        with_teacher_digests(student_of(str(tmp_path / "missing")))
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_a_students_run_has_no_teacher_inside(sample_dir, tmp_path):
    teacher = make_teacher(tmp_path / "teacher")
    config, folder = student_of(teacher), RunFolder(tmp_path / "run")
    # Class weights too, which are counted in the job.
    objective = dataclasses.replace(config.objective, class_weights="inverse")
    config = dataclasses.replace(config, objective=objective)
    options = {"train_data_pattern": f"{sample_dir}/train*.tfrecord"}
    state = pipeline.train(folder, config, **options, export_dir=tmp_path / "served")
    assert state.step == 2
    stored = RunConfig.load(folder.path)
    assert stored == with_teacher_digests(config)
    assert stored.objective.teacher_digests == (load_run(teacher, LOGISTIC).digest,)
    student = load_run(folder, stored)
    shapes = [tuple(w.shape) for w in build_from_config(LOGISTIC).weights]
    assert [tuple(w.shape) for w in student.classifier.weights] == shapes
    saved = tf.train.list_variables(tf.train.latest_checkpoint(str(folder.checkpoints)))
    in_classifier = [name for name, _ in saved if name.startswith("classifier")]
    assert len(in_classifier) == len(shapes)
    loaded = tf.saved_model.load(str(tmp_path / "served" / "1"))
    assert len(loaded.weights) == len(shapes)
    # Training goes on with the same teacher, and not with another.
    more = dataclasses.replace(config, training=dataclasses.replace(config.training, max_steps=3))
    assert pipeline.train(folder, more, **options).step == 3
    save_weights(build_from_config(LOGISTIC), f"{teacher}/best.weights.h5", step=1)
    with pytest.raises(ConfigError, match=r"objective\.teacher_digests"):
        pipeline.train(folder, more, **options)
