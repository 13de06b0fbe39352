"""Residual networks, and temporal modules in anyone's network of pictures."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat.layers import GroupedSpatiotemporalConv, TemporalAggregation, TemporalShift
from yt8m_gat.models import backbones
from yt8m_gat.models.backbones import (
    build_backbone,
    residual_branches,
    residual_network,
    temporal_network,
)

PICTURES = np.random.default_rng(0).normal(size=(4, 6, 6, 8)).astype("float32")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(backbones._OWN, "Tiny", backbones._Stages((1, 1), (4, 8), False))


def randomize(model):
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 1, weight.shape))


def plain_network():
    """A convolution whose bias batch normalization cancels, and one whose bias counts."""
    pictures = keras.Input((6, 6, 8))
    x = keras.layers.Conv2D(8, 3, name="first")(pictures)
    x = keras.layers.BatchNormalization(name="norm", momentum=0.5)(x)
    x = keras.layers.Conv2D(4, 3, name="second")(x)
    network = keras.Model(pictures, keras.layers.DepthwiseConv2D(2, name="third")(x))
    randomize(network)
    return network


def names_of(layers):
    return [layer.name for layer in layers]


def test_residual_branches_are_found_in_the_order_of_the_network():
    network = residual_network(32, (1, 2), (4, 8), bottleneck=True)
    branches = residual_branches(network)
    blocks = ("conv2_block1", "conv3_block1", "conv3_block2")
    for branch, block in zip(branches, blocks, strict=True):
        assert names_of(branch.convolutions) == [f"{block}_{i}_conv" for i in (1, 2, 3)]
        assert branch.output is network.get_layer(f"{block}_add").output
    assert branches[0].input is network.get_layer("pool1_pool").output
    assert branches[2].input is network.get_layer("conv3_block1_out").output
    assert residual_branches(plain_network()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("ResNet50", 16, "conv2_block1_1_conv"),
        ("ResNet50V2", 16, "conv2_block1_1_conv"),
        # Those with an addition: repeated blocks of the same size.
        ("MobileNetV2", 10, "block_2_expand"),
        ("EfficientNetB0", 9, "block2b_expand_conv"),
    ],
)
def test_residual_branches_of_keras_applications(name, count, first):
    network = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    branches = residual_branches(network)
    assert len(branches) == count
    assert branches[0].convolutions[0].name == first


def test_strides_of_a_stage_are_in_the_3_x_3_convolutions_and_there_are_no_biases():
    """Torchvision's layout: 32 pixels, 16 after the stem, 8 after the pool, 8 and 4."""
    network = residual_network(32, (1, 1), (4, 8), bottleneck=True)
    convs = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert not any(conv.use_bias for conv in convs)
    strided = {conv.name for conv in convs if conv.strides == (2, 2)}
    assert strided == {"conv1_conv", "conv3_block1_0_conv", "conv3_block1_2_conv"}
    assert network.output.shape == (None, 4, 4, 32)
    # PyTorch pads both sides alike: the corner of the picture is in the middle of the kernel.
    stem = keras.Model(network.input, network.get_layer("conv1_conv").output)
    corner = np.zeros((1, 32, 32, 3), "float32")
    corner[0, 0, 0] = 1
    kernel = network.get_layer("conv1_conv").kernel.numpy()
    np.testing.assert_allclose(stem(corner)[0, 0, 0], kernel[3, 3].sum(axis=0), rtol=1e-5)


def test_a_copy_without_modules_is_the_same_function_without_the_cancelled_bias():
    network = plain_network()
    copy = temporal_network(network, 2, {}, {})
    np.testing.assert_allclose(copy(PICTURES), network(PICTURES), rtol=1e-4)
    assert [layer.use_bias for layer in copy.layers if hasattr(layer, "use_bias")] == [0, 1, 1]
    assert names_of(copy.layers[1:]) == names_of(network.layers[1:])
    assert copy.get_layer("norm").momentum == 0.9
    assert network.get_layer("norm").momentum == 0.5
    assert not copy.losses


def test_a_module_before_a_convolution_sees_clips():
    network = plain_network()
    module = TemporalAggregation(name="aggregation")
    copy = temporal_network(network, 2, {"first": TemporalShift(4), "second": module}, {})
    module.kernel.assign(np.arange(24).reshape(3, 8))

    def of_clips(layer, pictures):
        clips = tf.reshape(pictures, (2, 2, *pictures.shape[1:]))
        return tf.reshape(layer(clips), pictures.shape)

    x = network.get_layer("first")(of_clips(TemporalShift(4), PICTURES))
    x = of_clips(module, network.get_layer("norm")(x))
    expected = network.get_layer("third")(network.get_layer("second")(x))
    np.testing.assert_allclose(copy(PICTURES), expected, rtol=1e-4)


def test_a_module_in_place_of_a_convolution_starts_from_its_kernel():
    network = plain_network()
    layer = GroupedSpatiotemporalConv(8, padding="valid")
    copy = temporal_network(network, 2, {}, {"first": layer})
    kernel = network.get_layer("first").kernel.numpy()
    np.testing.assert_array_equal(layer.spatial_kernel, kernel[:, :, :4, :6])
    np.testing.assert_array_equal(
        copy.get_layer("second").kernel, network.get_layer("second").kernel
    )
    assert copy(PICTURES).shape == network(PICTURES).shape


def test_weight_decay_is_half_of_the_squared_norm_of_all_kernels():
    module = TemporalAggregation(kernel_regularizer=keras.regularizers.L2(0.05))
    copy = temporal_network(plain_network(), 2, {"second": module}, {}, weight_decay=0.1)
    kernels = [weight.numpy() for weight in copy.trainable_weights if "kernel" in weight.name]
    assert len(kernels) == 4
    expected = 0.05 * sum(np.sum(kernel**2) for kernel in kernels)
    assert float(sum(copy.losses)) == pytest.approx(expected, rel=1e-5)


def test_a_name_without_a_layer_is_refused():
    with pytest.raises(ValueError, match="no layer of the name 'frist'"):
        temporal_network(plain_network(), 2, {"frist": TemporalShift()}, {})


@pytest.mark.parametrize(
    ("module", "places"),
    [
        ("shift", ["before_conv2_block1_1_conv", "before_conv3_block1_1_conv"]),
        ("aggregation", ["before_conv2_block1_1_conv", "before_conv3_block1_1_conv"]),
        ("group", [f"conv{i}_block1_{j}_conv" for i in (2, 3) for j in (1, 2)]),
        ("none", []),
    ],
)
def test_places_of_the_modules(module, places, monkeypatch):
    monkeypatch.setitem(backbones._OWN, "Tiny", backbones._Stages((1, 1), (8, 8), False))
    network = build_backbone("Tiny", 32, 2, module, both_levels=True).network
    across = [layer.name for layer in network.layers if hasattr(layer, "num_frames")]
    assert across == places
    assert [output.shape for output in network.outputs] == [(None, 8, 8, 8), (None, 4, 4, 8)]


def test_pretrained_weights_come_from_a_file(tmp_path):
    source = residual_network(32, (1, 1), (8, 8), bottleneck=False)
    randomize(source)
    source.save_weights(tmp_path / "tiny.weights.h5")
    backbones._OWN["Tiny"] = backbones._Stages((1, 1), (8, 8), False)
    file = str(tmp_path / "tiny.weights.h5")
    network = build_backbone("Tiny", 32, 2, "shift", weights=file).network
    for weight, expected in zip(network.weights, source.weights, strict=True):
        assert weight.path == expected.path
        np.testing.assert_array_equal(weight, expected)
    with pytest.raises(ValueError, match="must be a file of the weights of ResNet10Small"):
        build_backbone("ResNet10Small", 32, 2, weights=file)


def test_a_network_comes_from_a_file(tmp_path):
    """Of any size of pictures, with a top layer that is left out."""
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(
        keras.layers.Rescaling(1 / 255)(pixels)
    )
    branch = keras.layers.Conv2D(8, 3, padding="same", name="of_the_branch")(x)
    x = keras.layers.Add()([x, keras.layers.BatchNormalization()(branch)])
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(pixels, keras.layers.Dense(5)(pooled))
    network.save(tmp_path / "own.keras")
    backbone = build_backbone(str(tmp_path / "own.keras"), 6, 2)
    clips = np.random.default_rng(0).uniform(0, 255, (2, 6, 6, 3)).astype("float32")
    expected = keras.Model(pixels, x)(clips)
    found = backbone.network(backbone.preprocess(clips))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    # Its architecture is enough to build it again.
    without_file = ("gone.keras", 6, 2)
    again = build_backbone(*without_file, architecture=backbone.architecture)
    assert again.architecture == backbone.architecture
    again.network.set_weights(backbone.network.get_weights())
    np.testing.assert_array_equal(again.network(again.preprocess(clips)), found)
    for architecture in ("[]", backbone.architecture.replace("Rescaling", "TFSMLayer")):
        with pytest.raises(ValueError, match="`backbone`"):
            build_backbone(*without_file, architecture=architecture)
    lambda_layer = keras.layers.Lambda(lambda pictures: pictures)
    brings_code = keras.Model(pixels, lambda_layer(x)).to_json()
    with pytest.raises(ValueError, match=r"`backbone` cannot be built: .*unsafe"):
        build_backbone(*without_file, architecture=brings_code)
    shifted = build_backbone(str(tmp_path / "own.keras"), 6, 2, "shift").network
    assert "before_of_the_branch" in names_of(shifted.layers)
    with pytest.raises(ValueError, match=r"own\.keras has the weights"):
        build_backbone(str(tmp_path / "own.keras"), 6, 2, weights="imagenet")


def test_a_file_that_is_no_network_is_named(tmp_path):
    """Nothing is fetched either, whatever place the configuration of an archive names."""
    for place in ("hf://someone/network.keras", "gs://bucket/network.keras", "/none/x.keras"):
        with pytest.raises(ValueError, match=rf"{place} must be a file on this machine"):
            build_backbone(place, 6, 2)
    pictures = keras.Input((6, 6, 3))
    inner = keras.Model(pictures, keras.layers.Conv2D(2, 3)(pictures))
    path = tmp_path / "network.keras"
    keras.Model(pictures, keras.layers.ReLU()(inner(pictures))).save(path)
    with pytest.raises(ValueError, match=r"network\.keras must be one network"):
        build_backbone(str(path), 6, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"network\.keras must be a file as `keras.Model.save`"):
        build_backbone(str(path), 6, 2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
    with pytest.raises(ValueError, match=r"network\.keras cannot be read: .*config\.json"):
        build_backbone(str(path), 6, 2)


@pytest.mark.slow
def test_a_resnet_of_keras_applications_keeps_its_function_without_its_biases(tmp_path):
    """The names of layers stay, so that the weights that Keras publishes load."""
    original = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    rng = np.random.default_rng(1)
    for weight in original.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.5, 1, weight.shape))
    original.save_weights(tmp_path / "resnet.weights.h5")
    backbone = build_backbone("ResNet50", 32, 2, weights=str(tmp_path / "resnet.weights.h5"))
    pixels = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = original(keras.applications.resnet.preprocess_input(pixels.copy()))
    found = backbone.network(backbone.preprocess(tf.constant(pixels)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.max(expected))

    def count(network):
        return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)

    assert count(original) == 23_534_592
    assert count(original) - count(backbone.network) == 26_560


def test_weights_that_cannot_be_downloaded_are_told_with_the_remedy(monkeypatch):
    def unreachable(**_):
        raise Exception("URL fetch failure")  # As keras.utils.get_file does.

    monkeypatch.setattr(keras.applications.resnet, "ResNet50", unreachable)
    monkeypatch.setattr(keras.applications.resnet50, "ResNet50", unreachable)
    with pytest.raises(ValueError, match=r"ResNet50 cannot be downloaded: URL fetch failure.*file"):
        build_backbone("ResNet50", 32, 2, weights="imagenet")


def test_pixels_are_normalized_as_the_network_was_trained():
    pixel = np.full((1, 1, 1, 3), [255.0, 0.0, 51.0], "float32")
    own = build_backbone("Tiny", 32, 2).preprocess(tf.constant(pixel))
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = (np.array([1, 0, 0.2]) - mean) / deviation
    np.testing.assert_allclose(own[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ResNet5", 32, 2), "one of ResNet10Small.*keras.applications.*'ResNet5'"),
        (("resnet", 32, 2), "backbone='resnet'"),
        (("Tiny", 32, 2, "shfit"), "one of none, shift.*'shfit'"),
        (("Tiny", 32, 2, "none", False, "imagenet"), "must be a file for Tiny"),
        (("Tiny", 32, 2, "none", False, "nowhere.weights.h5"), "Received: 'nowhere.weights.h5'"),
        (("ResNet50V2", 16, 2), "takes: Input size must be at least 32x32.*a larger --crop_size"),
        (("ResNet10Small", 16, 2, "none", True), "crop_size=16, maps of 1 x 1. Give a larger"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(*arguments)
