"""The classifiers of raw clips: consensus, heads, second normalization, weight decay, files."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.attacks import RecordedPass
from yt8m_gat.config import ClipConfig, ConfigError, DataConfig, ModelConfig, RunConfig
from yt8m_gat.losses import SoftmaxLoss
from yt8m_gat.models import ClipClassifier, backbones, build_from_config, build_model
from yt8m_gat.training import AdversarialModel, Objective
from yt8m_gat.weights.copying import copy_weights, without_auxiliary

T, S = 3, 32
CLIPS = np.random.default_rng(0).uniform(0, 255, (2, T, S, S, 3)).astype("float32")


def small(name, backbone="Tiny", **options):
    """The recipe on a network of 8 and 16 channels, with random weights."""
    keras.utils.set_random_seed(0)
    model = build_model(
        name, {"image": 3}, 4, num_segments=T, crop_size=S, backbone=backbone, **options
    )
    randomize(model)
    return model


def randomize(model, seed=1):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "kernel" in weight.name:
            weight.assign(weight + rng.normal(size=weight.shape) * 0.05)
        elif "seed" not in weight.name:
            weight.assign(weight + rng.uniform(0.1, 0.5, weight.shape))


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones._OWN, "Tiny", backbones._Stages((1, 1), (8, 16), False))
        yield


@pytest.fixture(scope="module")
def tpn():
    """With all that training alone needs."""
    return small("TPN", "ResNet10Small", dual_normalization=True)


def logits_of(model, clips=CLIPS, **options):
    return model.forward({"image": tf.constant(clips)}, **options).logits.numpy()


def test_logits_are_the_mean_of_those_of_the_frames():
    model = small("TSN")
    outputs = model.forward({"image": tf.constant(CLIPS)})
    kernel, bias = model.dense.get_weights()
    assert outputs.frames.shape == (2, T, 4, 4, 16)
    of_frames = np.mean(outputs.frames, axis=(2, 3)) @ kernel + bias
    np.testing.assert_allclose(outputs.logits, of_frames.mean(axis=1), rtol=1e-5, atol=1e-5)
    mask = np.array([[True, True, False]] * 2)
    masked = model.forward({"image": tf.constant(CLIPS)}, tf.constant(mask)).logits
    np.testing.assert_allclose(masked, of_frames[:, :2].mean(axis=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["TSN", "TSM", "TAM", "GST"])
def test_only_temporal_modules_see_the_order_of_the_frames(name):
    model = small(name)
    in_order, reversed_ = logits_of(model), logits_of(model, CLIPS[:, ::-1])
    if name == "TSN":
        np.testing.assert_allclose(in_order, reversed_, rtol=1e-4, atol=1e-5)
    else:
        assert np.abs(in_order - reversed_).max() > 1e-3


def test_dropout_is_drawn_for_each_frame():
    model = small("TSN")
    model.consensus = lambda logits, frame_mask: logits
    repeated = np.repeat(CLIPS[:, :1], T, axis=1)
    in_training = logits_of(model, repeated, training=True)
    assert np.abs(in_training[:, 0] - in_training[:, 1]).max() > 1e-4
    np.testing.assert_allclose(*np.split(logits_of(model, repeated)[:, :2], 2, axis=1), rtol=1e-5)


def test_probabilities_are_a_softmax_or_sigmoids():
    logits = np.array([[0.0, np.log(3.0)]], "float32")
    single, multi = (
        ClipClassifier({"image": 3}, 2, T, S, backbone="Tiny", single_label=single_label)
        for single_label in (True, False)
    )
    np.testing.assert_allclose(single.probabilities(logits), [[0.25, 0.75]], rtol=1e-5)
    np.testing.assert_allclose(multi.probabilities(logits), [[0.5, 0.75]], rtol=1e-5)


def test_the_pyramids_auxiliary_head_is_for_training_alone(tpn):
    clips = {"image": tf.constant(CLIPS)}
    assert tpn.forward(clips).auxiliary_logits is None
    assert tpn.forward(clips, training=True).auxiliary_logits.shape == (2, 4)
    assert tpn.training_options == {"dual_normalization": False, "auxiliary_head": False}
    served = without_auxiliary(tpn)
    assert served.training_options == {}
    assert without_auxiliary(served) is served
    np.testing.assert_array_equal(logits_of(served), logits_of(tpn))
    names = [weight.path for weight in served.weights]
    assert not any("auxiliary" in name for name in names)
    assert len(names) < len(tpn.weights) - 60


def test_the_second_set_of_normalization_layers_has_its_own_averages(tpn):
    before = {weight.path: weight.numpy() for weight in tpn.weights}
    clean = logits_of(tpn)
    assert np.abs(logits_of(tpn, auxiliary_normalization=True) - clean).max() > 1e-3
    logits_of(tpn, training=True, auxiliary_normalization=True)
    changed = {w.path for w in tpn.weights if not np.array_equal(w.numpy(), before[w.path])}
    # Stem, four blocks of two and their three shortcuts; the neck's eight and the head's.
    assert len(changed) == 2 * (1 + 8 + 3 + 9)
    assert all("auxiliary_normalization/" in path for path in changed)
    np.testing.assert_array_equal(logits_of(tpn), clean)
    tpn.copy_normalization_to_auxiliary()
    np.testing.assert_array_equal(logits_of(tpn, auxiliary_normalization=True), clean)


def test_the_logits_of_every_path_depend_on_the_last_maps(tpn):
    """Class activation over time is the slope there, also where the pyramid pools time away."""
    for auxiliary in (False, True):
        forward = functools.partial(tpn.forward, auxiliary_normalization=auxiliary)
        recorded = RecordedPass(forward, {"image": tf.constant(CLIPS)}, None)
        slope = recorded.slope(lambda logits: logits[:, 0])
        assert slope.shape == (2, T, 1, 1, 256)
        assert np.all(np.abs(slope).max(axis=(2, 3, 4)) > 0)


def test_training_adds_half_of_the_auxiliary_heads_loss_and_the_weight_decay(tpn):
    tpn.pyramid._auxiliary_dropout.rate = tpn.dropout_layer.rate = 0.0
    labels = tf.one_hot([1, 3], 4)
    pixels = CLIPS.astype("uint8")
    data = ({"image": tf.constant(pixels), "num_frames": tf.fill([2], T)}, labels)
    trained = AdversarialModel(tpn, Objective(SoftmaxLoss("sum")))
    trained.compile(optimizer=keras.optimizers.SGD(0.0))
    terms = trained.update_of(data).terms
    outputs = tpn.forward({"image": tf.cast(pixels, "float32")}, training=True)

    def mean_loss(logits):
        return -float(tf.reduce_mean(tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=1)))

    kernels = [weight for weight in tpn.trainable_weights if weight.name == "kernel"]
    decay = 2.5e-4 * sum(float(tf.reduce_sum(kernel.value**2)) for kernel in kernels)
    # Stem, blocks, shortcuts; the neck's convolutions; two heads and the auxiliary convolution.
    assert len(kernels) == 1 + 8 + 3 + (1 + 2 + 1 + 4 + 2 + 1) + 3
    assert float(terms.clean_loss) == pytest.approx(mean_loss(outputs.logits), rel=1e-4)
    expected = mean_loss(outputs.logits) + 0.5 * mean_loss(outputs.auxiliary_logits) + decay
    assert float(terms.total) == pytest.approx(expected, rel=1e-4)


def test_weights_copy_to_the_same_model_and_a_second_set_starts_as_the_first():
    source, target = small("TAM"), small("TAM", dual_normalization=True)
    randomize(target, 2)
    copy_weights(source, target)
    expected = logits_of(source)
    for auxiliary in (False, True):
        found = logits_of(target, auxiliary_normalization=auxiliary)
        np.testing.assert_array_equal(found, expected)


def test_it_comes_back_from_a_file(tmp_path):
    model = small("GST", dual_normalization=True, dtype="mixed_bfloat16")
    logits = logits_of(model)
    assert logits.dtype == "float32"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    assert loaded.network.layers[-1].compute_dtype == "bfloat16"
    for auxiliary in (False, True):
        np.testing.assert_array_equal(
            logits_of(loaded, auxiliary_normalization=auxiliary),
            logits_of(model, auxiliary_normalization=auxiliary),
        )


def configuration(**options):
    data = DataConfig(
        feature_names=("image",),
        feature_sizes=(3,),
        num_classes=4,
        max_frames=T,
        clips=ClipConfig(num_segments=T, crop_size=S),
    )
    return RunConfig(data=data, model=ModelConfig(name="TSM", options=options))


def test_a_run_sets_the_sizes_and_reads_pretrained_weights_only_to_train():
    config = configuration(backbone="Tiny", backbone_weights="nowhere.weights.h5")
    model = build_from_config(config)
    assert (model.num_segments, model.crop_size, model.temporal_module) == (T, S, "shift")
    with pytest.raises(ConfigError, match=r"--model=TSM: `backbone_weights`.*nowhere"):
        build_from_config(config, to_train=True)
    with pytest.raises(ConfigError, match="num_segments is no option of --model=TSM"):
        build_from_config(configuration(num_segments=4))


def test_a_model_of_ones_own_can_read_raw_clips(tmp_path, monkeypatch):
    (tmp_path / "own_clips.py").write_text(
        "from yt8m_gat.models import ClipClassifier\n\n\nclass Mine(ClipClassifier):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sizes = {"num_segments": T, "crop_size": S}
    model = build_model("own_clips:Mine", {"image": 3}, 4, **sizes, backbone="Tiny")
    assert logits_of(model).shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_sizes": {"image": 4}}, "one feature of size 3"),
        ({"num_segments": 0}, "must be positive.*num_segments=0"),
        ({"crop_size": -1}, "must be positive.*crop_size=-1"),
        ({"dropout": 1.0}, r"in \[0, 1\).*dropout=1.0"),
        ({"weight_decay": -1.0}, "at least 0.*weight_decay=-1.0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ClipClassifier(**{"feature_sizes": {"image": 3}, "num_classes": 2, **options})


def test_the_second_set_must_exist():
    with pytest.raises(ValueError, match="construct it with dual_normalization=True"):
        logits_of(small("TSN"), auxiliary_normalization=True)
