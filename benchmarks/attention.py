"""Times the attention layers, forward and backward, and measures their memory.

    python benchmarks/attention.py --output_file=attention.json

All figures are relative to others of the same run: to plain self-attention (SA), to Keras' own
MultiHeadAttention, and to the rate of a bare matrix product. "share" is the least work of a layer,
counted in `least_gflop` below, over its time and over that rate: 1 would be a layer that computes
only its products. The layers are timed in turn, in several rounds, and the least time of each
counts, so that other load on the machine affects all of them alike; processor time, of all threads,
is affected even less. Peak memory is measured in a separate process for each layer and length, as
the growth of the resident set after importing TensorFlow and creating the inputs.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from machine import describe_machine

from yt8m_gat.layers import (
    AttentionLevel,
    GatedMapAttention,
    GatedMultiLevelAttention,
    MaskedLocalAttention,
    SharedHeadsAttention,
    attend_dense,
)
from yt8m_gat.layers.head_projection import HeadProjection

SHARED_LEVELS = ("bd10", "bd20", "bd30", "bd60")


class DenseMaskedAttention(HeadProjection):
    """A reference for `MaskedLocalAttention` that computes masked [T, T] maps."""

    def __init__(self, num_heads: int, level: str):
        super().__init__(num_heads)
        self.level = AttentionLevel.parse(level)

    def build(self, input_shape):
        super().build(input_shape)
        self.output_kernel, self.output_bias = self._add_matrices("output", input_shape[-1], 1)

    def call(self, x, frame_mask=None):
        context, _ = attend_dense(*self._project(x), self.level, frame_mask)
        return self._merge_heads(context) @ self.output_kernel + self.output_bias


class KerasAttention(keras.layers.MultiHeadAttention):
    """Keras' layer with the call signature of ours."""

    def __init__(self, num_heads: int, size: int):
        super().__init__(num_heads, key_dim=size // num_heads)

    def build(self, input_shape):
        super().build(input_shape, input_shape)

    def call(self, x, frame_mask=None):
        return super().call(x, x, attention_mask=frame_mask[:, None, :])


def gated(*levels: str) -> Callable[[argparse.Namespace, int], keras.Layer]:
    return lambda args, _: GatedMultiLevelAttention(args.num_heads, levels)


def local(level: str) -> Callable[[argparse.Namespace, int], keras.Layer]:
    return lambda args, _: MaskedLocalAttention(args.num_heads, level)


KINDS = {
    "SA": gated("global"),
    "SA blockwise": lambda args, _: GatedMultiLevelAttention(
        args.num_heads, ("global",), blockwise=True
    ),
    "keras MHA": lambda args, _: KerasAttention(args.num_heads, args.size),
    "dense tp30": lambda args, _: DenseMaskedAttention(args.num_heads, "tp30"),
    "local bd20": local("bd20"),
    "local tp30": local("tp30"),
    "local td60x4": local("td60x4"),
    "GMSA bd20": gated("global", "bd20"),
    "GateOp tp30": gated("global", "tp30"),
    "GateOp td60x4": gated("global", "td60x4"),
    "ShareAtt": lambda args, _: SharedHeadsAttention(args.num_heads, SHARED_LEVELS),
    "GateAtt bd20": lambda args, num_frames: GatedMapAttention(args.num_heads, "bd20", num_frames),
}


def num_pairs(form: str, num_frames: int) -> int:
    """Returns how many (query, key) pairs a level has."""
    level = AttentionLevel.parse(form)
    if form == "global":
        return num_frames**2
    keys = np.arange(num_frames)
    return sum(int(np.sum(level.allows(i, keys))) for i in range(num_frames))


def least_gflop(kind: str, num_frames: int, size: int, num_heads: int) -> float:
    """Returns the least work of one clip, forward and backward; multiply and add count as 2.

    The backward pass of a product is two products of its size. Elementwise work is not counted, and
    a local level counts the pairs of its mask, regardless of the blocks that hold them.
    """
    square = 2 * num_frames * size**2

    def attention(form: str) -> int:
        return 2 * 2 * num_pairs(form, num_frames) * size

    if kind in ("SA", "SA blockwise", "keras MHA"):
        forward = 4 * square + attention("global")
    elif kind.startswith(("local", "dense")):
        forward = 4 * square + attention(kind.split()[1])
    elif kind == "ShareAtt":
        mean_local = sum(map(attention, SHARED_LEVELS)) / len(SHARED_LEVELS)
        forward = 4 * square + (attention("global") + mean_local) / 2
    elif kind.startswith("GateAtt"):
        # The global scores include the local ones; each map is multiplied by its gate.
        pairs = num_frames**2 + num_pairs(kind.split()[1], num_frames)
        forward = 4 * square + attention("global") + 2 * num_heads * num_frames * pairs
    else:
        # Two experts, each with an output and a gate.
        forward = 7 * square + attention("global") + attention(kind.split()[1])
    return 3 * forward / 1e9


def available_bytes() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def reason_to_skip(kind: str, num_frames: int, batch: int, args: argparse.Namespace) -> str | None:
    gflop = batch * least_gflop(kind, num_frames, args.size, args.num_heads)
    if gflop > args.max_gflop:
        return f"{gflop:.0f} GFLOP a step, over --max_gflop={args.max_gflop:g}"
    if kind.startswith("local") or kind == "SA blockwise":
        return None
    # Scores, map and their gradients, and one for a copy; three maps in GateAtt.
    maps = 15 if kind.startswith("GateAtt") else 5
    needed = maps * 4 * batch * args.num_heads * num_frames**2
    if needed > 0.8 * available_bytes():
        return f"needs about {needed / 2**30:.0f} GiB, {available_bytes() / 2**30:.0f} are free"
    return None


def make_step(
    kind: str, num_frames: int, args: argparse.Namespace
) -> tuple[Callable[[], None], int]:
    """Returns a function that runs one forward and backward pass, and its batch size."""
    batch = max(1, args.frames_per_batch // num_frames)
    keras.utils.set_random_seed(0)
    x = tf.random.normal((batch, num_frames, args.size))
    lengths = np.linspace(num_frames, num_frames // 2, batch).astype(int)
    frame_mask = tf.constant(np.arange(num_frames) < lengths[:, None])
    direction = tf.random.normal(x.shape)
    layer = KINDS[kind](args, num_frames)
    layer.build(x.shape)

    @tf.function
    def step(x: tf.Tensor) -> list[tf.Tensor]:
        variables = layer.trainable_variables
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, frame_mask=frame_mask)
        return tape.gradient(output, [x, *variables], direction)

    def run() -> None:
        step(x)[0][0, 0, 0].numpy()

    return run, batch


def measure_memory(kind: str, num_frames: int, args: argparse.Namespace) -> float:
    """Returns the peak growth of the resident set in MiB; must run in a separate process."""
    run, _ = make_step(kind, num_frames, args)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak reached so far.
    before = resident_kib("VmRSS")
    run()
    run()
    return (resident_kib("VmHWM") - before) / 1024


def resident_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def measure_memory_apart(kind: str, num_frames: int, args: argparse.Namespace) -> float:
    command = [
        *(sys.executable, __file__, "--memory_of", kind, "--num_frames", str(num_frames)),
        *("--size", str(args.size), "--num_heads", str(args.num_heads)),
        *("--frames_per_batch", str(args.frames_per_batch)),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def make_product(args: argparse.Namespace) -> tuple[Callable[[], None], float]:
    """Returns the bare product of the projections, [frames, D] x [D, 3 D], and its GFLOP."""
    left = tf.random.normal((args.frames_per_batch, args.size))
    right = tf.random.normal((args.size, 3 * args.size))

    def run() -> None:
        tf.matmul(left, right)[0, 0].numpy()

    return run, 2 * args.frames_per_batch * args.size * 3 * args.size / 1e9


@dataclasses.dataclass
class Least:
    """The least seconds over several rounds."""

    wall: float = float("inf")
    processor: float = float("inf")


def time_in_turns(runs: dict[str, Callable[[], None]], seconds: float) -> dict[str, Least]:
    """Times each in turn, in at least three rounds and for about `seconds` in total."""
    for run in runs.values():
        run()
        run()
    least = {name: Least() for name in runs}
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - start < seconds:
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            least[name].processor = min(least[name].processor, time.process_time() - processor)
            least[name].wall = min(least[name].wall, time.perf_counter() - wall)
        rounds += 1
    return least


def measure_length(num_frames: int, args: argparse.Namespace) -> list[dict[str, object]]:
    batch = max(1, args.frames_per_batch // num_frames)
    rows, runs = [], {}
    product, product_gflop = make_product(args)
    runs["product"] = product
    for kind in args.kinds:
        reason = reason_to_skip(kind, num_frames, batch, args)
        if reason is None:
            runs[kind], _ = make_step(kind, num_frames, args)
        else:
            rows.append({"kind": kind, "num_frames": num_frames, "skipped": reason})
    times = time_in_turns(runs, args.seconds)
    product_times = times.pop("product")
    for kind, least in times.items():
        gflop = batch * least_gflop(kind, num_frames, args.size, args.num_heads)
        row = {
            "kind": kind,
            "num_frames": num_frames,
            "batch": batch,
            "ms_per_clip": 1000 * least.wall / batch,
            "processor_ms_per_clip": 1000 * least.processor / batch,
            "least_gflop_per_clip": gflop / batch,
            "product_gflop_per_s": product_gflop / product_times.wall,
            "share": gflop / least.wall / (product_gflop / product_times.wall),
            "processor_share": gflop / least.processor / (product_gflop / product_times.processor),
        }
        for name, reference in (("sa", "SA"), ("keras", "keras MHA")):
            if reference in times:
                row[f"over_{name}"] = least.wall / times[reference].wall
                row[f"processor_over_{name}"] = least.processor / times[reference].processor
        if args.memory:
            row["peak_mib"] = measure_memory_apart(kind, num_frames, args)
        rows.append(row)
    return rows


# Column title -> key of the row, width, digits after the point (None: not a fraction).
COLUMNS = {
    "kind": ("kind", -14, None),
    "T": ("num_frames", 6, None),
    "batch": ("batch", 6, None),
    "ms/clip": ("ms_per_clip", 10, 2),
    "/ SA": ("over_sa", 7, 2),
    "/ keras": ("over_keras", 8, 2),
    "share": ("share", 7, 2),
    "cpu ms/clip": ("processor_ms_per_clip", 12, 2),
    "cpu / SA": ("processor_over_sa", 9, 2),
    "cpu share": ("processor_share", 10, 2),
    "peak MiB": ("peak_mib", 9, 0),
}


def format_cell(value: object, width: int, digits: int | None) -> str:
    text = "-" if value is None else str(value) if digits is None else f"{value:.{digits}f}"
    return text.ljust(-width) if width < 0 else text.rjust(width)


def print_table(rows: list[dict[str, object]]) -> None:
    print(*(format_cell(title, width, None) for title, (_, width, _) in COLUMNS.items()))
    for row in rows:
        cells = [
            format_cell(row.get(key), width, digits) for key, width, digits in COLUMNS.values()
        ]
        skipped = f"skipped: {row['skipped']}" if "skipped" in row else ""
        print(*(cells[:2] if skipped else cells), skipped)


def growth_of(rows: list[dict[str, object]], key: str) -> dict[str, float]:
    """Returns, for each kind, time per clip at the greatest length over that at the next one."""
    times = {(row["kind"], row["num_frames"]): row[key] for row in rows if key in row}
    lengths = sorted({row["num_frames"] for row in rows})[-2:]
    return {
        kind: times[kind, lengths[-1]] / times[kind, lengths[0]]
        for kind in dict.fromkeys(row["kind"] for row in rows)
        if {(kind, length) for length in lengths} <= times.keys()
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_frames", type=int, nargs="+", default=[75, 300, 1200, 4800])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--size", type=int, default=1024, help="feature size D")
    parser.add_argument("--num_heads", type=int, default=8)
    parser.add_argument(
        "--frames_per_batch", type=int, default=2400, help="clips in a batch x T, at least a clip"
    )
    parser.add_argument("--seconds", type=float, default=30, help="of timing at each length")
    parser.add_argument("--max_gflop", type=float, default=2000, help="skip steps of more work")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--memory_of", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--output_file", type=Path, help="JSON")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.memory_of:
        print(measure_memory(args.memory_of, args.num_frames[0], args))
        return
    devices = [device.name for device in tf.config.list_physical_devices()]
    machine = {**describe_machine(), "devices": devices}
    rows = [row for num_frames in args.num_frames for row in measure_length(num_frames, args)]
    print(json.dumps(machine))
    print_table(rows)
    growth = {key: growth_of(rows, key) for key in ("ms_per_clip", "processor_ms_per_clip")}
    if len(args.num_frames) > 1:
        lengths = sorted(args.num_frames)[-2:]
        print(f"time of a clip of {lengths[1]} frames over that of {lengths[0]} (wall, cpu):")
        for kind, ratio in growth["ms_per_clip"].items():
            print(f"  {kind:<14} {ratio:6.2f} {growth['processor_ms_per_clip'][kind]:6.2f}")
    if args.output_file:
        settings = {**vars(args), "output_file": str(args.output_file)}
        report = {"machine": machine, "settings": settings, "rows": rows, "growth": growth}
        args.output_file.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
