"""Residual networks on pictures, and temporal modules in them."""

import inspect
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from yt8m_gat.layers import (
    AcrossFrames,
    GroupedSpatiotemporalConv,
    TemporalAggregation,
    TemporalShift,
)
from yt8m_gat.untrusted import parse_json

TEMPORAL_MODULES = ("none", "shift", "aggregation", "group", "group_large")
IMAGENET = "imagenet"
KERAS_FILE = ".keras"
AUXILIARY_SUFFIX = "auxiliary_normalization"

# PyTorch's 1 - 0.1, with which the authors trained; that of keras.applications is 0.99.
_NORM_MOMENTUM = 0.9


class _Stages(NamedTuple):
    """A network of `residual_network`."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool


_OWN: dict[str, _Stages] = {
    # For machines with few cores: 0.05 G multiplications a picture of 96 x 96.
    "ResNet10Small": _Stages((1, 1, 1, 1), (32, 64, 128, 256), False),
    "ResNet18": _Stages((2, 2, 2, 2), (64, 128, 256, 512), False),
    "ResNet34": _Stages((3, 4, 6, 3), (64, 128, 256, 512), False),
    "ResNet50Torchvision": _Stages((3, 4, 6, 3), (64, 128, 256, 512), True),
}


class Backbone(NamedTuple):
    """A network on the frames of clips.

    Attributes:
        network: Functional; takes preprocessed pictures [B * T, S, S, 3] and returns a list of
            maps [B * T, H, W, C]: the last one, and before it, if requested, the one from which the
            last stage starts.
        preprocess: Turns RGB pixels in [0, 255] into what the network takes.
        architecture: Of a network from a Keras file: its architecture as JSON. With it the network
            can be built without the file.
    """

    network: keras.Model
    preprocess: Callable[[Any], Any]
    architecture: str | None = None


def build_backbone(
    name: str,
    crop_size: int,
    num_segments: int,
    temporal_module: str = "none",
    both_levels: bool = False,
    weights: str | None = None,
    weight_decay: float = 0.0,
    dtype: Any = None,
    architecture: str | None = None,
) -> Backbone:
    """Builds a residual network with temporal modules in its residual blocks.

    Convolutions that batch normalization follows have no biases, because it would cancel them:
    those of pretrained weights are subtracted from its averages. So `ResNet50` has the published
    23,508,032 trainable parameters, where keras.applications counts 26,560 biases more.

    Args:
        name: `ResNet50` or another network with residual blocks of keras.applications; one of
            ours, `ResNet10Small`, `ResNet18`, `ResNet34`, `ResNet50Torchvision`, see
            `residual_network`; or a Keras file, `*.keras`, of a functional network on RGB pixels in
            [0, 255], from which all up to its last map is taken, with its weights.
        crop_size: S.
        num_segments: T.
        temporal_module: `shift` (TSM) or `aggregation` (TAM) before the first convolution of each
            residual branch, `group` (GST) or `group_large` (GST-Large) in place of its 3 x 3
            convolutions, or `none`.
        both_levels: Whether the network also returns the map from which its last stage starts.
        weights: `imagenet` to download those of keras.applications, or a file of the network
            without its top layer and without temporal modules, as `save_weights` writes it; None:
            fresh ones.
        weight_decay: See `temporal_network`.
        dtype: Dtype policy of the layers.
        architecture: `Backbone.architecture` of an earlier call. The network of a Keras file is
            built from it with fresh weights, and the file is not read. Keras' safe mode refuses
            one that brings code.

    Raises:
        ValueError: The network is unknown or has no residual blocks, the size does not fit, or the
            weights cannot be had.
    """
    if temporal_module not in TEMPORAL_MODULES:
        raise ValueError(
            f"`temporal_module` must be one of {', '.join(TEMPORAL_MODULES)}. Received: "
            f"temporal_module={temporal_module!r}"
        )
    network, preprocess, architecture = _plain_network(name, crop_size, weights, architecture)
    branches = residual_branches(network)
    if not branches:
        raise ValueError(f"`backbone` must have residual blocks. Received: backbone={name!r}")
    if both_levels:
        _check_levels(branches, name, crop_size)
    outputs = [*([_last_stage_input(branches)] if both_levels else []), network.output]
    network = keras.Model(network.inputs[0], outputs, name=network.name)
    before: dict[str, keras.Layer] = {}
    instead: dict[str, keras.Layer] = {}
    for branch in branches:
        first = branch.convolutions[0].name
        if temporal_module == "shift":
            before[first] = TemporalShift(dtype=dtype, name="shift")
        elif temporal_module == "aggregation":
            before[first] = TemporalAggregation(
                kernel_regularizer=_regularizer(weight_decay), dtype=dtype, name="aggregation"
            )
        elif temporal_module in ("group", "group_large"):
            for conv in branch.convolutions:
                if _is_plain_3x3(conv):
                    instead[conv.name] = GroupedSpatiotemporalConv(
                        conv.filters,
                        strides=conv.strides[0],
                        padding=conv.padding,
                        beta=2 if temporal_module == "group" else 1,
                        kernel_initializer=conv.kernel_initializer.clone(),
                        kernel_regularizer=_regularizer(weight_decay),
                        dtype=dtype,
                        name="group",
                    )
    if temporal_module.startswith("group") and not instead:
        raise ValueError(
            f"`temporal_module` needs 3 x 3 convolutions in the residual blocks. Received: "
            f"temporal_module={temporal_module!r}, backbone={name!r}"
        )
    copy = temporal_network(network, num_segments, before, instead, weight_decay, dtype)
    return Backbone(copy, preprocess, architecture)


def _plain_network(
    name: str, crop_size: int, weights: str | None, architecture: str | None
) -> Backbone:
    """Builds the network without top layer and temporal modules, and its preprocessing."""
    if name.endswith(KERAS_FILE):
        if weights is not None:
            raise ValueError(f"`backbone_weights` must be left out: {name} has the weights")
        whole = _read_network(name) if architecture is None else _network_of_json(architecture)
        network = _up_to_last_map(whole, name, crop_size)
        return Backbone(network, lambda pictures: pictures, whole.to_json())
    module = _application(name)
    if name in _OWN:
        if weights == IMAGENET:
            raise ValueError(
                f"`backbone_weights` must be a file for {name}: there are none to download"
            )
        network = residual_network(crop_size, *_OWN[name], name=name)
    elif module is None:
        raise ValueError(
            f"`backbone` must be one of {', '.join(_OWN)}, a network with residual blocks of "
            "keras.applications, such as ResNet50, or a file FILE.keras. "
            f"Received: backbone={name!r}"
        )
    else:
        builder = getattr(module, name)
        try:
            network = builder(
                weights=IMAGENET if weights == IMAGENET else None,
                include_top=False,
                input_shape=(crop_size, crop_size, 3),
            )
        except Exception as error:
            if weights != IMAGENET:
                raise ValueError(
                    f"`crop_size` must be one that {name} takes: {error}. Give a larger "
                    "--crop_size, or a --backbone for small pictures, such as ResNet10Small"
                ) from error
            # keras.utils.get_file raises plain exceptions.
            raise ValueError(
                f"ImageNet's weights of {name} cannot be downloaded: {error}. Download them "
                "elsewhere and give their file as `backbone_weights`"
            ) from error
    if weights not in (None, IMAGENET):
        try:
            with warnings.catch_warnings():
                # Keras warns of groups that the file lacks, and then refuses it.
                warnings.simplefilter("ignore", UserWarning)
                network.load_weights(weights)
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(
                f"`backbone_weights` must be a file of the weights of {name} without its top "
                f"layer. Received: {weights!r}: {error}"
            ) from error

    def preprocess(pictures: Any) -> Any:
        if module is None:
            return keras.applications.imagenet_utils.preprocess_input(
                pictures, "channels_last", mode="torch"
            )
        return module.preprocess_input(pictures, "channels_last")

    return Backbone(network, preprocess)


def _read_network(path: str) -> keras.Model:
    # Keras would download what hf:// or gs:// names, and the path may be that of an archive.
    if not os.path.isfile(path):
        raise ValueError(
            f"`backbone` {path} must be a file on this machine. Put the file there; a run keeps "
            "the network of its file, unless an older version of yt8m_gat trained it"
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(f"`backbone` {path} must be a file as `keras.Model.save` writes it")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises any error for a damaged file.
        raise ValueError(f"`backbone` {path} cannot be read: {error}") from error


def _network_of_json(architecture: str) -> keras.Model:
    try:
        # It may come from a stranger's archive; this is safe mode.
        return keras.models.model_from_json(json.dumps(parse_json(architecture)))
    except Exception as error:  # Keras raises any error for a damaged file.
        raise ValueError(f"the stored network of `backbone` cannot be built: {error}") from error


def _up_to_last_map(network: keras.Model, path: str, crop_size: int) -> keras.Model:
    """Cuts a functional network after its last map, for pictures of one size."""
    pictures = keras.Input((crop_size, crop_size, 3), name="pictures")
    if not hasattr(network, "operations") or len(network.inputs) != 1:
        raise ValueError(f"`backbone` {path} must be a functional network with one input")
    try:
        copy = keras.models.clone_model(
            network, input_tensors=keras.tree.map_structure(lambda _: pictures, network.input)
        )
        copy.set_weights(network.get_weights())
    except ValueError as error:
        raise ValueError(
            f"`backbone` {path} does not take pictures of {crop_size} x {crop_size}: {error}"
        ) from error
    if any(isinstance(layer, keras.Model) for layer in copy.layers):
        raise ValueError(f"`backbone` {path} must be one network, without models inside")
    maps = [op.output for op in copy.operations if getattr(op.output, "ndim", 0) == 4]
    return keras.Model(pictures, maps[-1], name="network_of_file")


def _application(name: str) -> Any:
    """Returns the module of keras.applications that has this network; None: there is none."""
    for module in vars(keras.applications).values():
        if inspect.ismodule(module) and name[:1].isupper() and hasattr(module, name):
            return module
    return None


def residual_network(
    crop_size: int,
    blocks: Sequence[int],
    widths: Sequence[int],
    bottleneck: bool,
    name: str = "residual_network",
) -> keras.Model:
    """Builds a residual network in torchvision's layout, with fresh weights.

    Convolutions have no biases; a 3 x 3 convolution takes the stride of a stage (keras.applications
    strides the 1 x 1 convolution before it); both sides are padded alike. Layers are named as in
    keras.applications. It is made for pixels that are normalized by ImageNet's mean and deviation
    of each color.

    Args:
        crop_size: Height and width of the pictures.
        blocks: Number of residual blocks of each stage.
        widths: Channels of each stage's 3 x 3 convolutions. The first is that of the stem too.
        bottleneck: Whether a block is 1 x 1, 3 x 3, 1 x 1 with four times the channels at its end,
            or else two 3 x 3 convolutions.
        name: Name of the model.

    Returns:
        A model from pictures [N, S, S, 3] to the last map [N, H, W, C].

    Reference: "Deep Residual Learning for Image Recognition" (He et al., 2016).
    """

    def conv(x: Any, filters: int, size: int, strides: int, name: str) -> Any:
        padding = "same"
        if strides > 1 and size > 1:
            x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
            padding = "valid"
        x = keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out"),
            name=f"{name}_conv",
        )(x)
        return keras.layers.BatchNormalization(
            momentum=_NORM_MOMENTUM, epsilon=1e-5, name=f"{name}_bn"
        )(x)

    def block(x: Any, width: int, strides: int, name: str) -> Any:
        shortcut, channels = x, 4 * width if bottleneck else width
        if strides > 1 or x.shape[-1] != channels:
            shortcut = conv(x, channels, 1, strides, f"{name}_0")
        layers = [(width, 3, strides), (channels, 3, 1)]
        if bottleneck:
            layers = [(width, 1, 1), (width, 3, strides), (channels, 1, 1)]
        for index, (filters, size, step) in enumerate(layers, start=1):
            if index > 1:
                x = keras.layers.ReLU(name=f"{name}_{index - 1}_relu")(x)
            x = conv(x, filters, size, step, f"{name}_{index}")
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
        return keras.layers.ReLU(name=f"{name}_out")(x)

    pictures = keras.Input((crop_size, crop_size, 3), name="pictures")
    x = keras.layers.ReLU(name="conv1_relu")(conv(pictures, widths[0], 7, 2, "conv1"))
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=2):
        for index in range(1, count + 1):
            strides = 2 if stage > 2 and index == 1 else 1
            x = block(x, width, strides, f"conv{stage}_block{index}")
    return keras.Model(pictures, x, name=name)


class ResidualBranch(NamedTuple):
    """The side of a residual block that has more convolutions than the shortcut.

    Attributes:
        input: The tensor at which branch and shortcut part.
        convolutions: The branch's convolutions, from its input on.
        output: Their sum.
    """

    input: keras.KerasTensor
    convolutions: tuple[keras.Layer, ...]
    output: keras.KerasTensor


def residual_branches(network: keras.Model) -> list[ResidualBranch]:
    """Finds the residual blocks of any functional network: its additions of two tensors.

    Returns:
        One branch for each `keras.layers.Add` of two tensors whose ways part at one tensor and
        have a convolution, in the order of the network.
    """
    order = {operation: index for index, operation in enumerate(network.operations)}
    branches = []
    for operation in network.operations:
        if not isinstance(operation, keras.layers.Add) or len(operation.input) != 2:
            continue
        sides = [_ways_to(tensor) for tensor in operation.input]
        common = sides[0].keys() & sides[1].keys()
        fork = max(common, key=order.__getitem__)
        before_fork = _ways_to(sides[0][fork]).keys()
        convolutions = [
            sorted(
                (op for op in side.keys() - before_fork if _is_convolution(op)),
                key=order.__getitem__,
            )
            for side in sides
        ]
        longest = max(convolutions, key=len)
        if longest:
            branches.append(ResidualBranch(sides[0][fork], tuple(longest), operation.output))
    return branches


def _ways_to(tensor: keras.KerasTensor) -> dict[Any, keras.KerasTensor]:
    """Returns each operation that a tensor depends on, and its output."""
    outputs, open_ends = {}, [tensor]
    while open_ends:
        end = open_ends.pop()
        operation, node_index, _ = end._keras_history
        if operation not in outputs:
            outputs[operation] = end
            open_ends += operation._inbound_nodes[node_index].input_tensors
    return outputs


def _is_convolution(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)


def _is_plain_3x3(conv: keras.Layer) -> bool:
    return (
        isinstance(conv, keras.layers.Conv2D)
        and conv.kernel_size == (3, 3)
        and conv.groups == 1
        and conv.dilation_rate == (1, 1)
    )


def _check_levels(branches: Sequence[ResidualBranch], name: str, crop_size: int) -> None:
    """Refuses pictures so small that the maps of several stages have one size.

    The stages are told apart by the sizes of their maps.
    """
    size = branches[-1].output.shape[1:3]
    of_this_size = [branch for branch in branches if branch.output.shape[1:3] == size]
    if any(max(conv.strides) > 1 for branch in of_this_size[1:] for conv in branch.convolutions):
        raise ValueError(
            f"`crop_size` must be so large that the last stage of {name} halves its maps, because "
            "a temporal pyramid takes those before and after it. Received: "
            f"crop_size={crop_size}, maps of {size[0]} x {size[1]}. Give a larger --crop_size, or "
            "leave out --temporal_pyramid"
        )


def _last_stage_input(branches: Sequence[ResidualBranch]) -> keras.KerasTensor:
    """Returns the map from which the last stage, the blocks of the smallest maps, starts."""
    size = branches[-1].output.shape[1:3]
    return next(branch.input for branch in branches if branch.output.shape[1:3] == size)


def _regularizer(weight_decay: float) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(weight_decay / 2) if weight_decay else None


def temporal_network(
    network: keras.Model,
    num_frames: int,
    before: Mapping[str, keras.Layer],
    instead: Mapping[str, keras.Layer],
    weight_decay: float = 0.0,
    dtype: Any = None,
) -> keras.Model:
    """Copies anyone's functional network on pictures and puts layers of clips into it.

    The copy takes pictures [B * T, H, W, C], the T frames of each clip in order. Its layers keep
    their names and their weights. A `GroupedSpatiotemporalConv` in place of a convolution starts
    from its kernel. Biases of convolutions that batch normalization follows are left out and
    subtracted from its averages, which is the same function. The momentum of batch normalization is
    0.9.

    Args:
        network: The network, with one input; it is not changed.
        num_frames: T.
        before: Name of a layer -> layer on [B, T, H, W, C] that is called before it.
        instead: Name of a layer -> layer on [B, T, H, W, C] that takes its place.
        weight_decay: The L2 penalty of all kernels is half of it times their squared norm, whose
            gradient is `weight_decay` times the kernel, as PyTorch's SGD adds it.
        dtype: Dtype policy of the copied layers.

    Raises:
        ValueError: The network has no layer of a name.

    Examples:
        >>> from yt8m_gat.layers import TemporalShift
        >>> from yt8m_gat.models.backbones import temporal_network
        >>> network = keras.Sequential(
        ...     [keras.Input((4, 4, 8)), keras.layers.Conv2D(2, 3, name="conv")]
        ... )
        >>> [layer.name for layer in temporal_network(
        ...     network, 3, before={"conv": TemporalShift()}, instead={}).layers[1:]]
        ['before_conv', 'conv']
    """
    network = keras.Model(network.inputs[0], network.outputs, name=network.name)
    missing = sorted({*before, *instead} - {layer.name for layer in network.layers})
    if missing:
        raise ValueError(f"the network has no layer of the name {missing[0]!r}")
    regularizer = _regularizer(weight_decay)
    cancelled = _cancelled_biases(network)
    modules = {
        name: AcrossFrames(layer, num_frames, dtype=dtype, name=f"before_{name}")
        for name, layer in before.items()
    }

    def cloned(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):
            return type(layer).from_config(layer.get_config())
        if layer.name in instead:
            return AcrossFrames(instead[layer.name], num_frames, dtype=dtype, name=layer.name)
        config = layer.get_config()
        if dtype is not None:
            config["dtype"] = dtype
        if layer in cancelled.values():
            config["use_bias"] = False
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = _NORM_MOMENTUM
        for argument in ("kernel_regularizer", "depthwise_regularizer"):
            if regularizer is not None and argument in config:
                config[argument] = regularizer
        return type(layer).from_config(config)

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name in modules:
            args = (modules[layer.name](args[0]), *args[1:])
        return layer(*args, **kwargs)

    copy = keras.models.clone_model(network, clone_function=cloned, call_function=called)
    for layer in network.layers:
        if not layer.weights:
            continue
        twin = copy.get_layer(layer.name)
        if layer.name in instead:
            if isinstance(twin.layer, GroupedSpatiotemporalConv):
                twin.layer.assign_plain_kernel(layer.kernel)
        elif layer in cancelled.values():
            twin.kernel.assign(layer.kernel)
        else:
            twin.set_weights(layer.get_weights())
        if layer in cancelled:
            twin.moving_mean.assign(twin.moving_mean - cancelled[layer].bias)
    return copy


def _cancelled_biases(network: keras.Model) -> dict[keras.Layer, keras.Layer]:
    """Returns batch normalization -> the convolution before it whose bias it cancels."""
    cancelled = {}
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            conv = layer.input._keras_history.operation
            if (
                isinstance(conv, keras.layers.Conv2D)
                and conv.use_bias
                and conv.activation is keras.activations.linear
                and len(conv._outbound_nodes) == 1
            ):
                cancelled[layer] = conv
    return cancelled


def with_auxiliary_normalization(network: keras.Model) -> keras.Model:
    """Returns a network that shares all layers of a functional one but batch normalization."""

    def cloned(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer
        config = {**layer.get_config(), "name": f"{layer.name}_{AUXILIARY_SUFFIX}"}
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=cloned)


def copy_normalization(network: keras.Model, auxiliary: keras.Model) -> None:
    """Copies batch normalization of a network to its `with_auxiliary_normalization`."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            twin = auxiliary.get_layer(f"{layer.name}_{AUXILIARY_SUFFIX}")
            twin.set_weights(layer.get_weights())
