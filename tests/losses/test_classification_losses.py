import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.losses import CrossEntropyLoss, FunctionLoss, HingeLoss, SoftmaxLoss, get_loss

NAMES = ["CrossEntropyLoss", "HingeLoss", "SoftmaxLoss"]
REDUCTIONS = ["mean", "sum"]


def reference_terms(name, labels, logits):
    """The definitions in float64, without care for numerical stability."""
    if name == "CrossEntropyLoss":
        p = 1 / (1 + np.exp(-logits))
        return -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    if name == "HingeLoss":
        return np.maximum(0, 1 - np.where(labels > 0, logits, -logits))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    count = labels.sum(axis=1, keepdims=True)
    return np.where(count > 0, -labels / np.where(count > 0, count, 1) * np.log(p), 0)


def example(seed=0, shape=(6, 9)):
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) < 0.3).astype(np.float64)
    labels[0] = 0
    return labels, rng.normal(0, 3, shape), (rng.random(shape) < 0.5).astype(np.float64)


@pytest.mark.parametrize("class_reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_is_the_definition(name, class_reduction):
    labels, logits, _ = example()
    terms = reference_terms(name, labels, logits)
    expected = terms.mean(axis=1) if class_reduction == "mean" else terms.sum(axis=1)
    loss = get_loss(name, class_reduction)
    np.testing.assert_allclose(loss(labels, logits), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        loss(labels.astype("float32"), logits.astype("float32")), expected, rtol=1e-5, atol=1e-7
    )


def test_cross_entropy_is_tensorflows():
    labels, logits, _ = example()
    soft = labels * 0.7 + 0.1
    expected = tf.nn.sigmoid_cross_entropy_with_logits(soft, logits)
    np.testing.assert_allclose(
        CrossEntropyLoss("sum")(soft, logits), tf.reduce_sum(expected, axis=1), rtol=1e-12
    )


def test_softmax_is_tensorflows():
    labels, logits, _ = example()
    labels[:, 4] = 1
    expected = tf.nn.softmax_cross_entropy_with_logits(
        labels / labels.sum(axis=1, keepdims=True), logits
    )
    np.testing.assert_allclose(SoftmaxLoss("sum")(labels, logits), expected, rtol=1e-12)


def test_a_fresh_logistic_model_starts_at_c_ln_2():
    labels, zeros = np.eye(2, 3862, dtype="float32"), np.zeros((2, 3862), "float32")
    np.testing.assert_allclose(CrossEntropyLoss("sum")(labels, zeros), 3862 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(CrossEntropyLoss("mean")(labels, zeros), np.log(2), rtol=1e-5)


def test_small_losses_keep_their_digits():
    # log(1 + exp(-20)) in float32; softplus(20) - 20 would give 0.
    loss = CrossEntropyLoss("sum")(np.ones((1, 1), "float32"), np.full((1, 1), 20, "float32"))
    np.testing.assert_allclose(loss, np.log1p(np.exp(-20.0)), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_have_finite_values_and_gradients(name):
    logits = tf.Variable([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]])
    labels = tf.constant([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = get_loss(name, "sum")(labels, logits)
    assert np.isfinite(loss).all()
    gradient = tape.gradient(loss, logits).numpy()
    if name == "CrossEntropyLoss":  # sigmoid(z) - y
        np.testing.assert_array_equal(gradient, [[0, 0, -0.5], [1, -1, 0.5]])
    elif name == "HingeLoss":  # -(2 y - 1) where the margin is not met
        np.testing.assert_array_equal(gradient, [[0, 0, -1], [1, -1, 1]])
    else:  # softmax(z) - y / sum(y)
        np.testing.assert_allclose(gradient, [[0.5, 0, -0.5], [1, -1, 0]], atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_by_finite_differences(name):
    labels, logits, weights = example(1, (3, 4))
    loss = get_loss(name, "mean")
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss(labels, variable, weights))
    gradient = tape.gradient(total, variable).numpy()
    step = 1e-6
    for index in np.ndindex(logits.shape):
        moved = np.zeros_like(logits)
        moved[index] = step
        up = np.sum(loss(labels, logits + moved, weights))
        down = np.sum(loss(labels, logits - moved, weights))
        assert gradient[index] == pytest.approx((up - down) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "HingeLoss"])
def test_label_weights_leave_the_rated_pairs_alone(name):
    labels, logits, weights = example(2)
    weights[1] = 0
    mean = get_loss(name, "mean")(labels, logits, weights).numpy()
    total = get_loss(name, "sum")(labels, logits, weights).numpy()
    for row in range(len(labels)):
        rated = weights[row] > 0
        terms = reference_terms(name, labels[row : row + 1, rated], logits[row : row + 1, rated])
        assert total[row] == pytest.approx(terms.sum())
        assert mean[row] == pytest.approx(terms.mean() if rated.any() else 0.0)


def test_softmax_divides_by_the_rated_labels():
    # Of two labels one is rated: only that one is the target; the softmax is over all 3 classes.
    labels, logits = np.array([[1.0, 1.0, 0.0]]), np.log([[0.2, 0.3, 0.5]])
    weights = np.array([[1.0, 0.0, 1.0]])
    np.testing.assert_allclose(SoftmaxLoss("sum")(labels, logits, weights), [-np.log(0.2)])
    np.testing.assert_allclose(SoftmaxLoss("mean")(labels, logits, weights), [-np.log(0.2) / 2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("class_reduction", REDUCTIONS)
def test_unit_weights_change_nothing_and_unrated_labels_do_not_matter(name, class_reduction):
    labels, logits, weights = example(3)
    loss = get_loss(name, class_reduction)
    np.testing.assert_allclose(
        loss(labels, logits, np.ones_like(weights)), loss(labels, logits), rtol=1e-12
    )
    other = np.where(weights > 0, labels, np.nan)
    np.testing.assert_array_equal(loss(other, logits, weights), loss(labels, logits, weights))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_narrow_logits_are_computed_in_float32(name, dtype):
    labels = np.eye(2, 3862)
    # In float16 the sum over 3,862 classes of hinge terms around 30 would overflow.
    logits = tf.cast(np.random.default_rng(0).normal(30, 1, labels.shape), dtype)
    result = get_loss(name, "sum")(tf.cast(labels, dtype), logits)
    assert result.dtype == tf.float32
    wide = get_loss(name, "sum")(labels, tf.cast(logits, "float64"))
    np.testing.assert_allclose(result, wide, rtol=1e-5)


def test_traces_with_unknown_sizes():
    labels, logits, weights = (array.astype("float32") for array in example(4))
    spec = tf.TensorSpec([None, None])
    traced = tf.function(CrossEntropyLoss("mean"), input_signature=[spec] * 3)
    np.testing.assert_allclose(
        traced(labels, logits, weights),
        CrossEntropyLoss("mean")(labels, logits, weights),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", NAMES)
def test_shape_mismatch_refused(name):
    loss = get_loss(name, "mean")
    with pytest.raises(ValueError, match=r"`labels` .* \(2, 3\). Received: \(1, 3\)"):
        loss(np.ones((1, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`label_weights` .* \(2, 3\). Received: \(3,\)"):
        loss(np.ones((2, 3)), np.ones((2, 3)), np.ones(3))


def test_unknown_names_refused():
    with pytest.raises(ValueError, match=r"CrossEntropyLoss, HingeLoss, SoftmaxLoss.*'MSE'"):
        get_loss("MSE", "mean")
    with pytest.raises(ValueError, match=r"one of mean, sum.*'none'"):
        HingeLoss("none")


def test_a_function_counts_rated_pairs_only():
    """As `ClassificationLoss` does by default."""
    labels, logits = np.ones((1, 2), np.float32), np.array([[3.0, 5.0]], np.float32)
    loss = FunctionLoss(lambda labels, logits: logits, "sum")
    np.testing.assert_array_equal(loss(labels, logits, np.array([[1.0, 0.0]], np.float32)), [3.0])
