"""The file of a float backbone: PyTorch's state is read without PyTorch, and all of it used."""

import io
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import efficientnet_lite0


class Storage:
    def __init__(self, array, kind):
        self.array, self.kind = array, kind


def write_state(path, tensors):
    """Writes what `torch.save` of PyTorch 1.4 does; tensors: name -> (array, order of its axes)."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def global_(module, name):
        value = type(name, (), {"__module__": module.__name__, "__qualname__": name})
        setattr(module, name, value)
        return value

    kinds = {"f": global_(torch, "FloatStorage"), "i": global_(torch, "LongStorage")}
    rebuild = global_(utils, "_rebuild_tensor_v2")
    storages = {}

    class Tensor:
        def __init__(self, key, array, order):
            stored = np.ascontiguousarray(array.transpose(order))
            storages[key] = Storage(stored, kinds[array.dtype.kind])
            steps = np.argsort(order)
            strides = tuple(stored.strides[axis] // stored.itemsize for axis in steps)
            self.arguments = (storages[key], 0, array.shape, strides, False, {})

        def __reduce__(self):
            return rebuild, self.arguments

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            [key] = [key for key, other in storages.items() if other is value]
            return "storage", value.kind, key, "cpu", value.array.size, None

    objects = {
        name: Tensor(str(number), array, order)
        for number, (name, (array, order)) in enumerate(tensors.items())
    }
    with pytest.MonkeyPatch.context() as patch, open(path, "wb") as file:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, file, protocol=2)
        Pickler(file, protocol=2).dump(objects)
        keys = sorted(storages)
        pickle.dump(keys, file, protocol=2)
        for key in keys:
            file.write(storages[key].array.size.to_bytes(8, "little"))
            file.write(storages[key].array.tobytes())


def test_a_state_of_pytorch_is_read_without_it(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "conv.weight": (rng.normal(size=(4, 3, 2, 2)).astype("<f4"), (2, 3, 1, 0)),
        "bn.weight": (rng.normal(size=300).astype("<f4"), (0,)),
        "bn.num_batches_tracked": (np.array(7, "<i8"), ()),
    }
    write_state(tmp_path / "state.pth", tensors)
    state = efficientnet_lite0.read_state(tmp_path / "state.pth")
    assert set(state) == set(tensors)
    for name, (array, _) in tensors.items():
        np.testing.assert_array_equal(state[name], array)


def test_a_state_that_asks_for_more_than_values_is_refused():
    class Evil:
        def __reduce__(self):
            return print, ("called",)

    # Nothing is called: what would be is a tuple of names and arguments.
    loaded = efficientnet_lite0._loaded(io.BytesIO(pickle.dumps(Evil(), protocol=2)))
    assert loaded == ("__builtin__ print", "called")
    with pytest.raises(ValueError, match="Received the operation BINFLOAT"):
        efficientnet_lite0._loaded(io.BytesIO(pickle.dumps(1.5, protocol=2)))


@pytest.mark.slow
def test_the_network_is_efficientnet_lite0():
    model = efficientnet_lite0.efficientnet_lite0()
    # As published; the moving averages of batch normalization come on top.
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 4_652_008
    assert model.get_layer("embedding").output.shape == (None, 1280)
    state = {}
    for number, layer in enumerate(model.layers):
        if not layer.weights:
            continue
        place = f"_{layer.name}"
        if layer.name.startswith("blocks"):
            _, block, rest = layer.name.split("_", 2)
            place = f"_blocks.{block}._{rest}"
        arrays = [np.full(w.shape, number, np.float32) for w in layer.weights]
        if "bn" in place:
            parts = ("weight", "bias", "running_mean", "running_var")
        else:
            parts = ("weight", "bias")
            axes = (3, 2, 0, 1) if "depthwise" not in place else (2, 3, 0, 1)
            arrays[0] = arrays[0].transpose(axes if arrays[0].ndim == 4 else (1, 0))
        state |= {f"{place}.{part}": array for part, array in zip(parts, arrays, strict=False)}
    efficientnet_lite0.load_state(model, state)
    for number, layer in enumerate(model.layers):
        for weight in layer.weights:
            assert (weight.numpy() == number).all(), layer.name
    with pytest.raises(ValueError, match=r"has not: \['_more\.weight'\]"):
        efficientnet_lite0.load_state(model, {**state, "_more.weight": np.zeros(1)})
