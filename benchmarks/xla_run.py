"""Times the programs of `xla_dump.py` on JAX's first device, beside the rate of a bare product.

    python benchmarks/xla_run.py build/xla_step --output_file=xla_step.json --profile

Needs jax and numpy. Each row has the median seconds of a step in the steady state (the weights that
a step returns go into the next one), clips a second, the share (the least operations over the time,
as a part of the rate of a bare product of the same type in the same run), the memory of the
compiled program, and how far loss and updated weights differ from TensorFlow's where
`xla_dump.py --check` left them. --profile adds the seconds of a step by kind of kernel.
"""

import argparse
import gzip
import json
import re
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


def parameter_value(index, shape, dtype, num_frames, signed=True):
    """Returns the value of a program's parameter: rgb, audio, frames, labels, then the weights."""
    shape = tuple(int(size) for size in shape)
    rng = np.random.default_rng(index)
    dtype = np.dtype(dtype)
    if index == 3:
        return (rng.random(shape) < 0.001).astype(dtype)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if np.issubdtype(dtype, np.integer):
        return np.full(shape, num_frames if index == 2 else 1, dtype)
    if not shape:  # Rates, counters and scales.
        return np.asarray(2e-4, dtype)
    drawn = rng.standard_normal(shape, np.float32) * 0.02
    return (drawn if signed else np.abs(drawn)).astype(dtype)


def median_seconds(call, repeats):
    """Median of `repeats` calls after three for warming up; a call returns what to wait for."""
    import jax

    times = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return statistics.median(times[3:])


def product_rate(dtype, repeats, rows=76800, size=1024):
    """Operations a second of a bare product, as the projections of 256 clips: [rows, 1024]^2."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0))
    left = jax.random.normal(keys[0], (rows, size), dtype)
    right = jax.random.normal(keys[1], (size, size), dtype)
    product = jax.jit(jnp.matmul)
    return 2 * rows * size * size / median_seconds(lambda: product(left, right), repeats)


class Program:
    """A compiled step and where its results go."""

    def __init__(self, path, device):
        from jax._src.lib import xla_client

        self.path = path
        self.described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        computation = xla_client.XlaComputation(path.read_bytes())
        self._shapes = computation.program_shape().parameter_shapes()
        module = xla_client._xla.mlir.xla_computation_to_mlir_module(computation)
        started = time.perf_counter()
        self._program = device.client.compile_and_load(
            module, xla_client.DeviceList((device,)), xla_client.CompileOptions()
        )
        self.compile_seconds = time.perf_counter() - started
        self._device = device
        text = self._program.hlo_modules()[0].to_string()
        # Results that replace the parameters that they are aliased to, as the header says.
        header = text.split("input_output_alias={", 1)[1].split("entry_computation", 1)[0]
        self.parameter_of = {
            int(result): int(parameter)
            for result, parameter in re.findall(r"\{(\d+)\}: \((\d+),", header)
        }

    def arguments(self):
        import jax

        unsigned = self.described["unsigned"]
        frames = self.described["num_frames"]
        return [
            jax.device_put(
                parameter_value(
                    i, shape.dimensions(), shape.numpy_dtype(), frames, i not in unsigned
                ),
                self._device,
            )
            for i, shape in enumerate(self._shapes)
        ]

    def __call__(self, arguments):
        results = self._program.execute_sharded(arguments)
        return [parts[0] for parts in results.disassemble_into_single_device_arrays()]

    def memory_mib(self):
        stats = self._program.get_compiled_memory_stats()
        total = (
            stats.temp_size_in_bytes
            + stats.argument_size_in_bytes
            + stats.output_size_in_bytes
            - stats.alias_size_in_bytes
        )
        return total >> 20


def differences(program, results):
    """Relative differences of the loss and of the updated weights from TensorFlow's."""
    described = program.described
    if "loss" not in described:
        return {}
    loss = float(np.asarray(results[0]))
    worst = 0.0
    for result, parameter in program.parameter_of.items():
        expected = described["updated"].get(str(parameter))
        if expected:
            total = float(np.abs(np.asarray(results[result]).astype(np.float64)).sum())
            worst = max(worst, abs(total - expected) / expected)
    return {
        "loss_difference": abs(loss - described["loss"]) / abs(described["loss"]),
        "update_difference": worst,
    }


def kind_of_kernel(name):
    if re.search(r"gemm|cublas|cutlass|xmma|nvjet|dot", name):
        return "products"
    if re.search(r"softmax|reduce", name):
        return "softmax and reductions"
    if re.search(r"transpose|copy", name):
        return "transposes and copies"
    return "other element-wise"


def profile(step, num_steps=3):
    """Seconds of a step by kind of kernel, and the longest kernels."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(num_steps):
                jax.block_until_ready(step())
        traces = sorted(Path(folder).glob("**/*.trace.json.gz"))
        with gzip.open(traces[-1]) as file:
            events = json.load(file)["traceEvents"]
    devices = {
        e["pid"]
        for e in events
        if e.get("name") == "process_name" and "/device:" in e["args"]["name"]
    }
    streams = {
        (e["pid"], e["tid"])
        for e in events
        if e.get("name") == "thread_name" and e["pid"] in devices and "Stream" in e["args"]["name"]
    }
    kinds, names = defaultdict(float), defaultdict(float)
    for event in events:
        if event.get("ph") == "X" and (event["pid"], event["tid"]) in streams:
            seconds = event["dur"] / 1e6 / num_steps
            kinds[kind_of_kernel(event["name"])] += seconds
            names[event["name"]] += seconds
    longest = sorted(names.items(), key=lambda item: -item[1])[:25]
    return {"kinds": dict(kinds), "longest": dict(longest)}


def measure(program, rates, repeats, with_profile):
    described = program.described
    arguments = program.arguments()
    results = program(arguments)
    row = {
        "step": described["step"],
        "compile_seconds": round(program.compile_seconds, 1),
        "memory_mib": program.memory_mib(),
        **differences(program, results),
    }

    def step():
        nonlocal results
        for result, parameter in program.parameter_of.items():
            arguments[parameter] = results[result]
        results = program(arguments)
        return results

    row["seconds"] = median_seconds(step, repeats)
    row["clips_per_second"] = described["batch_size"] / row["seconds"]
    rate = rates["bfloat16" if "bfloat16" in described["step"] else "float32"]
    row["share"] = described["least_operations"] / row["seconds"] / rate
    if with_profile:
        row["profile"] = profile(step)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output_file", type=Path, default=Path("xla_step.json"))
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--threads", type=int, default=4, help="programs compiled at once")
    parser.add_argument("--order", default="", help="steps to begin with, separated by commas")
    options = parser.parse_args()

    import jax

    jax.config.update("jax_enable_x64", True)  # Programs have int64 counters.
    device = jax.devices()[0]
    rates = {dtype: product_rate(dtype, options.repeats) for dtype in ("float32", "bfloat16")}
    table = {"device": device.device_kind, "jax": jax.__version__, "product_rates": rates}
    table["rows"] = []
    print(json.dumps(table), flush=True)
    first = [name.replace(":", "-") for name in options.order.split(",")]
    paths = sorted(
        options.folder.glob("*.hlo"),
        key=lambda path: (first.index(path.stem) if path.stem in first else len(first), path.stem),
    )
    for start in range(0, len(paths), options.threads):
        group = paths[start : start + options.threads]
        with ThreadPoolExecutor(options.threads) as pool:
            futures = [pool.submit(Program, path, device) for path in group]
        # All of the group are compiled: nothing is timed while another program is compiled.
        for path, future in zip(group, futures, strict=True):
            try:
                row = measure(future.result(), rates, options.repeats, options.profile)
            except jax.errors.JaxRuntimeError as error:  # For example, it does not fit in memory.
                row = {"step": path.stem, "failed": repr(error)[:400]}
            table["rows"].append(row)
            options.output_file.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
            short = {key: value for key, value in row.items() if key != "profile"}
            kinds = row.get("profile", {}).get("kinds", {})
            print(json.dumps(short), json.dumps(kinds), flush=True)


if __name__ == "__main__":
    main()
