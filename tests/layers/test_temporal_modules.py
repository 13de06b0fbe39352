"""Layers of raw clips: values by hand, the authors' own code, and Keras' contract."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.layers import (
    AcrossFrames,
    GroupedSpatiotemporalConv,
    TemporalAggregation,
    TemporalPyramid,
    TemporalShift,
)

ORACLES = Path(__file__).parents[3] / "shared" / "data" / "oracles"
SMALL = np.random.default_rng(0).normal(size=(2, 5, 4, 3, 8)).astype("float32")  # [B, T, H, W, C]


def oracle(name):
    """Inputs, weights and outputs of the authors' code."""
    path = ORACLES / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"the oracles are not at {ORACLES}")
    return dict(np.load(path))


def clips(ntchw, num_frames):
    """[B * T, C, H, W] as [B, T, H, W, C]."""
    return np.moveaxis(ntchw.reshape(-1, num_frames, *ntchw.shape[1:]), 2, -1)


def channels_last(ncthw):
    return np.moveaxis(ncthw, 1, -1)


def normalized(x, values, name):
    """relu(BN(x)) with PyTorch's weights, in evaluation."""
    scale = values[f"{name}__weight"] / np.sqrt(values[f"{name}__running_var"] + 1e-5)
    return (x - values[f"{name}__running_mean"]) * scale + values[f"{name}__bias"]


def test_shift_is_the_authors():
    values = oracle("tsm_shift")
    num_frames = int(values["num_segments"])
    y = TemporalShift(int(values["shift_div"]))(clips(values["input_ntchw"], num_frames))
    np.testing.assert_array_equal(y, clips(values["output"], num_frames))


def test_aggregation_is_the_authors():
    values = oracle("tam_block")
    num_frames = int(values["num_frames"])
    layer = TemporalAggregation()
    x = clips(values["input_ntchw"], num_frames)
    layer.build(x.shape)
    layer.set_weights([np.stack([values[f"weight_{k}"] for k in ("previous", "current", "next")])])
    np.testing.assert_allclose(layer(x), clips(values["output"], num_frames), rtol=0, atol=1e-5)


@pytest.mark.parametrize("beta", [1, 2])
def test_a_bottleneck_of_gst_is_the_authors(beta):
    values = oracle(f"gst_bottleneck_alpha4_beta{beta}")
    x = channels_last(values["input_ncthw"])
    inner = np.maximum(normalized(x @ values["conv1__weight"][..., 0, 0, 0].T, values, "bn1"), 0)
    # In double precision: how float32 convolutions round depends on the processor.
    layer = GroupedSpatiotemporalConv(16, beta=beta, dtype="float64")
    layer.build(inner.shape)
    layer.set_weights(
        [
            values["conv2__weight"][:, :, 0].transpose(2, 3, 1, 0),
            values["Tconv__weight"].transpose(2, 3, 4, 1, 0),
        ]
    )
    inner = np.maximum(normalized(layer(inner).numpy(), values, "bn2"), 0)
    y = normalized(inner @ values["conv3__weight"][..., 0, 0, 0].T, values, "bn3")
    expected = channels_last(values["output"])
    np.testing.assert_allclose(np.maximum(y + x, 0), expected, rtol=0, atol=1e-5)


def pyramid_of_the_authors(values, **options):
    """Our layer with the authors' weights."""
    x4, x5 = (channels_last(values[f"input_{level}_ncthw"]) for level in ("res4", "res5"))
    layer = TemporalPyramid(auxiliary_classes=5, dropout=0.0, **options)
    layer((x4, x5))

    def pointwise(conv, name):
        weight = values[f"{name}__weight"][..., 0, 0]  # [F, C / groups, taps]
        conv.kernel.assign(weight.transpose(2, 1, 0))

    def normalization(key, name):
        names = ("weight", "bias", "running_mean", "running_var")
        layer.normalizations[key].set_weights([values[f"{name}__{part}"] for part in names])

    def spatial(conv, name):
        conv.kernel.assign(values[f"{name}__conv__weight"][:, :, 0].transpose(2, 3, 1, 0))
        normalization(conv.name, f"{name}__bn")

    spatial(layer.spatial[0], "spatial_modulation__spatial_modulation__0__0")
    spatial(layer.auxiliary_conv, "aux_head__convs")
    layer.auxiliary_dense.set_weights(
        [values["aux_head__fc__weight"].T, values["aux_head__fc__bias"]]
    )
    for index in (0, 1):
        pointwise(layer.temporal[index], f"temporal_modulation_ops__{index}__conv")
    pointwise(layer.bottom_up, "downsampling_ops__0__conv")
    # Its second fusion is the top-down one.
    for flow, name in (("bottom_up", "level_fusion_op"), ("top_down", "level_fusion_op2")):
        for index, level in enumerate(("res4", "res5")):
            pointwise(layer.level_convs[flow][index], f"{name}__ops__{index}__conv")
            normalization(f"{flow}_{level}", f"{name}__ops__{index}__norm")
        pointwise(layer.fusion_convs[flow], f"{name}__fusion_conv__0")
        normalization(f"{flow}_fusion", f"{name}__fusion_conv__1")
    pointwise(layer.pyramid_fusion, "pyramid_fusion_op__0")
    normalization("pyramid_fusion", "pyramid_fusion_op__1")
    return layer, (x4, x5)


def test_the_pyramid_and_its_auxiliary_head_are_the_authors():
    values = oracle("tpn_neck")
    layer, levels = pyramid_of_the_authors(values)
    y, logits = layer(levels, return_auxiliary_logits=True)
    np.testing.assert_allclose(y, channels_last(values["output"]), rtol=0, atol=1e-5)
    loss = keras.losses.sparse_categorical_crossentropy(
        values["aux_targets"], logits, from_logits=True
    )
    assert 0.5 * float(np.mean(loss)) == pytest.approx(float(values["aux_loss"]), abs=1e-5)


def test_the_pyramids_second_set_of_normalization_layers_is_used_and_starts_as_a_copy():
    values = oracle("tpn_neck")
    layer, levels = pyramid_of_the_authors(values, dual_normalization=True)
    kinds = [
        {"auxiliary_normalization": auxiliary, "return_auxiliary_logits": True}
        for auxiliary in (False, True)
    ]
    clean, other = (layer(levels, **kind) for kind in kinds)
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(clean, other, strict=True))
    layer.copy_normalization_to_auxiliary()
    for a, b in zip(clean, layer(levels, **kinds[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shift_by_hand():
    """Two of eight channels each way: with shift_div 4, channel 0 and 1, 2 and 3."""
    y = TemporalShift(shift_div=4)(SMALL).numpy()
    expected = SMALL.copy()
    expected[..., :2] = 0
    expected[:, :-1, ..., :2] = SMALL[:, 1:, ..., :2]
    expected[..., 2:4] = 0
    expected[:, 1:, ..., 2:4] = SMALL[:, :-1, ..., 2:4]
    np.testing.assert_array_equal(y, expected)


def test_aggregation_by_hand():
    layer = TemporalAggregation()
    np.testing.assert_array_equal(layer(SMALL), np.maximum(SMALL, 0))
    weights = np.arange(24, dtype="float32").reshape(3, 8) - 10
    layer.set_weights([weights])
    expected = np.zeros_like(SMALL)
    for t in range(5):
        for step in (-1, 0, 1):
            if 0 <= t + step < 5:
                expected[:, t] += weights[step + 1] * SMALL[:, t + step]
    np.testing.assert_allclose(layer(SMALL), np.maximum(expected, 0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("beta", [1, 2])
@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "valid")])
def test_the_grouped_convolution_is_keras_own_convolutions(beta, strides, padding):
    layer = GroupedSpatiotemporalConv(8, strides=strides, padding=padding, beta=beta)
    y = layer(SMALL)
    spatial, temporal = layer.get_weights()
    half = 8 // beta
    first = keras.ops.conv(SMALL[..., :half], spatial[None], (1, strides, strides), padding)
    padded = np.pad(SMALL[..., -half:], ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    if padding == "same":
        padded = np.pad(padded, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    second = keras.ops.conv(padded, temporal, (1, strides, strides), "valid")
    assert first.shape[-1] == 6 and second.shape[-1] == 2
    np.testing.assert_allclose(y, np.concatenate([first, second], axis=-1), rtol=0, atol=1e-5)


def test_the_grouped_convolution_starts_from_a_plain_kernel():
    """The first channels and outputs, as in the authors' code."""
    layer = GroupedSpatiotemporalConv(8)
    layer.build((None, 5, 4, 3, 8))
    before = layer.spatiotemporal_kernel.numpy()
    kernel = np.random.default_rng(1).normal(size=(3, 3, 8, 8))
    layer.assign_plain_kernel(kernel)
    np.testing.assert_allclose(layer.spatial_kernel, kernel[:, :, :4, :6], rtol=1e-6)
    np.testing.assert_array_equal(layer.spatiotemporal_kernel, before)


def small_pyramid(**options):
    return TemporalPyramid(**{"groups": 2, "temporal_pool": 2, "auxiliary_classes": 3, **options})


def levels(num_frames=5):
    rng = np.random.default_rng(2)
    shapes = (2, num_frames, 3, 5, 4), (2, num_frames, 2, 3, 8)
    return tuple(rng.normal(size=shape).astype("float32") for shape in shapes)


def test_the_pyramid_pools_the_frames_that_are_left_in_a_smaller_group():
    """Five frames in twos: the third group is the fifth frame."""
    layer = small_pyramid()
    assert layer(levels()).shape == (2, 3, 2, 3, 8)
    x = levels()[1]
    expected = [x[:, :2].max(axis=1), x[:, 2:4].max(axis=1), x[:, 4]]
    np.testing.assert_array_equal(layer._pool(tf.constant(x)), np.stack(expected, axis=1))


def test_the_pyramids_auxiliary_head_has_dropout_in_training_alone():
    layer = small_pyramid(seed=1)

    def logits(training):
        return layer(levels(), training=training, return_auxiliary_logits=True)[1].numpy()

    np.testing.assert_array_equal(logits(False), logits(False))
    assert np.abs(logits(True) - logits(True)).max() > 0


MODULES = {
    "shift": lambda **kw: TemporalShift(4, **kw),
    "aggregation": lambda **kw: TemporalAggregation(
        kernel_initializer="random_normal", kernel_regularizer=keras.regularizers.L2(0.1), **kw
    ),
    "group": lambda **kw: GroupedSpatiotemporalConv(
        8, kernel_regularizer=keras.regularizers.L2(0.1), **kw
    ),
    "pyramid": lambda **kw: small_pyramid(
        dual_normalization=True, kernel_regularizer=keras.regularizers.L2(0.1), **kw
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_layer_contract(name, tmp_path):
    """Graph, XLA, configuration, file and mixed precision."""
    layer = MODULES[name]()
    x = levels() if name == "pyramid" else SMALL
    inputs = keras.tree.map_structure(lambda value: keras.Input(value.shape[1:]), x)
    outputs = layer(inputs)
    y = layer(x).numpy()
    assert outputs.shape == (None, *y.shape[1:])
    assert (len(layer.losses) > 0) == (name != "shift")
    for jit in {False, name != "pyramid"}:  # Compiling that takes 5 s.
        compiled = tf.function(layer, jit_compile=jit)
        np.testing.assert_allclose(compiled(x), y, rtol=0, atol=1e-5)

    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(x), y, rtol=0, atol=1e-6)

    narrow = MODULES[name](dtype="mixed_bfloat16")
    narrow(x)
    narrow.set_weights(layer.get_weights())
    output = narrow(x)
    assert output.dtype == "bfloat16"
    np.testing.assert_allclose(tf.cast(output, "float32"), y, rtol=0.1, atol=0.1)
    policies = {part.dtype_policy.name for part in narrow._flatten_layers()}
    assert policies <= {"mixed_bfloat16", "float32"}


@pytest.mark.parametrize("name", ["shift", "aggregation", "group"])
def test_a_module_in_a_network_of_pictures_sees_the_frames_of_each_clip(name, tmp_path):
    module = MODULES[name]()
    expected = module(SMALL).numpy()
    inputs = keras.Input(SMALL.shape[2:])
    model = keras.Model(inputs, AcrossFrames(module, num_frames=5, name="across")(inputs))
    pictures = SMALL.reshape(-1, *SMALL.shape[2:])
    np.testing.assert_array_equal(model(pictures), expected.reshape(-1, *expected.shape[2:]))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pictures), model(pictures))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemporalShift(1), "at least 2.*shift_div=1"),
        (lambda: TemporalShift(9)(SMALL), "shift_div=9, 8 channels"),
        (lambda: GroupedSpatiotemporalConv(6), "multiple of `alpha`.*filters=6, alpha=4"),
        (lambda: GroupedSpatiotemporalConv(8, beta=3), "must be 1 or 2.*beta=3"),
        (lambda: GroupedSpatiotemporalConv(8, strides=0), "at least 1.*strides=0"),
        (lambda: GroupedSpatiotemporalConv(8, padding="full"), "same or valid.*'full'"),
        (lambda: GroupedSpatiotemporalConv(8)(SMALL[..., :7]), "7 channels, beta=2"),
        (lambda: AcrossFrames(TemporalShift(), 0), "must be positive.*num_frames=0"),
        (lambda: TemporalPyramid(groups=0), "must be positive.*groups=0"),
        (lambda: TemporalPyramid(dropout=1), r"in \[0, 1\).*dropout=1"),
        (lambda: small_pyramid(groups=3)(levels()), "groups=3, 8 channels"),
        (lambda: small_pyramid()((levels()[0], levels()[1][..., :6])), "power of two.*4 and 6"),
        (
            lambda: small_pyramid()(levels(), auxiliary_normalization=True),
            "construct it with dual_normalization=True",
        ),
        (
            lambda: small_pyramid(auxiliary_classes=None)(levels(), return_auxiliary_logits=True),
            "needs an auxiliary head",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
