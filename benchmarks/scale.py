"""Computes what YouTube-8M as a whole costs, from measured rates: the tables of docs/SCALE.md.

    python benchmarks/scale.py            # writes the tables into the page
    python benchmarks/scale.py --check    # exit code 1 if the page has others

Rates of training steps, the reader and evaluation are read from the tables of docs/PERFORMANCE.md,
so that each stands in one place. What is not measured there stands below with its source. Nothing
here was run at that size.
"""

import argparse
import heapq
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "SCALE.md"
_BLOCK = re.compile(r"(<!-- scale (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

# YouTube-8M, 2018: examples of the frame-level partitions, 3,844 shards each.
TRAIN_CLIPS = 3_888_919
VALIDATE_CLIPS = 1_112_356
FRAMES = 300  # The longest clips: an upper bound.
CLIP_BYTES = FRAMES * (1024 + 128)
BATCH = 64
PARAMETER_BYTES = {"Transformer": 4 * 12_824_342, "GMSA": 4 * 16_020_374}

# A forward pass F of a CE step 3 F - P, P = .45 F (benchmarks/train_step.py).
FORWARD_OF_STEP = 1 / 2.55
# A backward pass to the features over a forward one (docs/PERFORMANCE.md, Jobs).
BACKWARD_OF_FORWARD = 1.10
# At most, for a clip that withstands everything (docs/ROBUSTNESS.md, the sceptic's protocol).
SCEPTIC_PASSES = {"forward": 8100, "backward": 1300}

# Operations of a CE step of SA for one clip: `benchmarks.train_step.least_operations(300, 3862)`.
STEP_OPERATIONS = 10_867_307_520
# Data sheets: dense products in bfloat16, operations a second, without sparsity. Never measured.
CARDS = {"A100 (312)": 312e12, "H100 SXM (989)": 989e12}
ASSUMED_SHARES = (0.25, 0.5)

# Processor seconds, one thread, best of two or three; measured once, 2026-11-28, on the two cores
# of docs/PERFORMANCE.md with other jobs running: H.264 of 1280 x 720 by PyAV, keras.applications'
# InceptionV3 at 299 x 299 in batches of 16.
DECODED_FRAME_SECONDS = 0.00126
INCEPTION_FRAME_SECONDS = 0.188
# Of the bare loop at one frame a second, one thread (docs/PERFORMANCE.md, Videos).
DECODING_SHARE = 0.85
# Assumed, not measured: the length and the stream of an ordinary video.
VIDEO_SECONDS, VIDEO_FRAME_RATE, VIDEO_BITS_A_SECOND = 300, 24, 1.5e6


def performance(*cells: str) -> list[str]:
    """Returns the cells of the row of docs/PERFORMANCE.md that begins with these cells."""
    text = (DOCS / "PERFORMANCE.md").read_text(encoding="utf-8")
    begin = f"| {' | '.join(cells)} |"
    rows = [line for line in text.splitlines() if line.startswith(begin)]
    if len(rows) != 1:
        raise ValueError(f"docs/PERFORMANCE.md must have one row '{begin}'. Received: {len(rows)}")
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


def step_seconds() -> dict[str, tuple[float, float, bool]]:
    """Returns recipe -> elapsed and processor seconds of a step for one clip, and: measured?"""

    def row(model: str, objective: str) -> tuple[float, float, bool]:
        cells = performance(model, objective)
        return float(cells[2]) / 16, float(cells[3]) / 16, True

    plain, gated = row("Transformer", "none (CE)"), row("GMSA", "none")
    penalty = row("Transformer", "frobenius")
    product = tuple(gated[i] * penalty[i] / plain[i] for i in (0, 1))
    return {
        "SA, CE": plain,
        "ART": row("Transformer", "output"),
        "A-ART": penalty,
        "SA, AdvJS": row("Transformer", "jensen_shannon"),
        "TAF (K = 1)": row("Transformer", "temporal (K = 1)"),
        "GMSA, CE": gated,
        "GAT": (*product, False),
        "GateOp, CE": row("GateOp", "none"),
        "ShareAtt, CE": row("ShareAtt", "none"),
        "GateAtt, CE": row("GateAtt", "none"),
    }


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def epoch_table() -> str:
    reading = float(performance("uint8, shuffled, by length")[3]) * 1e-6
    rows = []
    for name, (elapsed, processor, measured) in step_seconds().items():
        ratio = processor / step_seconds()["SA, CE"][1]
        rows.append(
            [
                name,
                f"{1000 * processor:.0f}" + ("" if measured else " (product of ratios)"),
                f"{TRAIN_CLIPS * processor / 3600:,.0f}",
                f"{TRAIN_CLIPS * reading / 3600:.2f}",
                f"{TRAIN_CLIPS * elapsed / 3600:,.0f}",
                *(
                    " to ".join(
                        f"{TRAIN_CLIPS * ratio * STEP_OPERATIONS / rate / share / 3600:.2f}"
                        for share in reversed(ASSUMED_SHARES)
                    )
                    for rate in CARDS.values()
                ),
            ]
        )
    shares = " to ".join(f"{share:.0%}" for share in reversed(ASSUMED_SHARES))
    header = [
        "recipe",
        "processor ms a clip",
        "core hours",
        "of reading",
        "hours on 2 cores",
        *(f"assumed: hours, {card} at {shares}" for card in CARDS),
    ]
    return markdown(header, rows)


def bytes_table() -> str:
    steps = -(-TRAIN_CLIPS // BATCH)
    moved = {"training clips, one epoch": TRAIN_CLIPS, "validation clips, one pass": VALIDATE_CLIPS}
    rows = [
        [what, f"{clips:,} x {CLIP_BYTES:,}", f"{clips * CLIP_BYTES / 1e12:.2f}"]
        for what, clips in moved.items()
    ]
    rows += [
        [
            f"gradients of {name}, each of several machines, one epoch",
            f"{steps:,} steps x 2 x {size:,}",
            f"{steps * 2 * size / 1e12:.2f}",
        ]
        for name, size in PARAMETER_BYTES.items()
    ]
    return markdown(["what", "arithmetic", "TB"], rows)


def feeding_table() -> str:
    reading = float(performance("uint8, shuffled, by length")[3]) * 1e-6
    rows = []
    for card, rate in CARDS.items():
        for share in ASSUMED_SHARES:
            clips = rate * share / STEP_OPERATIONS
            rows.append(
                [
                    card,
                    f"{share:.0%}",
                    f"{clips:,.0f}",
                    f"{clips * CLIP_BYTES / 1e9:.1f}",
                    f"{clips * reading:.1f}",
                ]
            )
    header = ["card", "assumed share", "clips a second", "GB a second of features"]
    return markdown([*header, "cores that read and parse"], rows)


def evaluation_table() -> str:
    forward = step_seconds()["SA, CE"][1] * FORWARD_OF_STEP

    def ratio(name: str) -> float:
        return float(performance(name, "forward only")[3])

    over = ratio("evaluation of a batch, PGD-20") / float(
        performance("evaluation of a batch, PGD-20", "forward only")[4]
    )
    sceptic = over * (SCEPTIC_PASSES["forward"] + BACKWARD_OF_FORWARD * SCEPTIC_PASSES["backward"])
    costs = {
        "prediction": ratio("prediction of files, a video (reading and CSV included)"),
        "evaluation": ratio("evaluation of files, a video (reading and metrics included)"),
        "FGM": ratio("evaluation of a batch, FGM"),
        "PGD-20": ratio("evaluation of a batch, PGD-20"),
        "the sceptic's protocol, at most": sceptic,
    }
    rows = [
        [
            name,
            f"{cost:,.2f}" if cost < 10 else f"{cost:,.0f}",
            f"{cost * forward:,.3f}" if cost < 10 else f"{cost * forward:,.1f}",
            f"{1000 * cost * forward / 3600:,.3f}" if cost < 10 else f"{cost * forward / 3.6:,.1f}",
            f"{VALIDATE_CLIPS * cost * forward / 3600:,.0f}",
        ]
        for name, cost in costs.items()
    ]
    header = ["job", "forward passes", "processor s a clip", "core hours, 1,000 clips"]
    return markdown([*header, f"core hours, {VALIDATE_CLIPS:,} clips"], rows)


def extraction_table(videos: int = 1_000_000) -> str:
    decoding = VIDEO_SECONDS * VIDEO_FRAME_RATE * DECODED_FRAME_SECONDS / DECODING_SHARE
    picture = VIDEO_SECONDS * INCEPTION_FRAME_SECONDS
    moved = VIDEO_SECONDS * VIDEO_BITS_A_SECOND / 8
    costs = {
        "decoding every frame, keeping one a second": decoding,
        "Inception-v3 on one frame a second": picture,
        "both": decoding + picture,
    }
    rows = [[work, f"{cost:.1f}", f"{videos * cost / 3600:,.0f}"] for work, cost in costs.items()]
    table = markdown(["work", "processor s a video", f"core hours, {videos:,} videos"], rows)
    return table + (
        f"\nMoved: {videos * moved / 1e12:.0f} TB of videos in (assumed stream), "
        f"{videos * CLIP_BYTES / 1e12:.2f} TB of records out.\n"
    )


def busy_share(
    num_batches: int,
    num_readers: int,
    buffer: int,
    latency: Callable[[], float],
    step: Callable[[], float],
    *,
    in_order: bool,
) -> float:
    """Simulates readers that feed an accelerator, and returns the share of time that it works.

    A reader takes a batch as soon as it is idle and one of `buffer` places is free, and needs
    `latency()` for it; the place is free again when the step on that batch has ended. With
    exponential times and one reader this is the queue M/M/1/K, K = `buffer`.

    Args:
        num_batches: How many steps are simulated.
        num_readers: Reads at the same time.
        buffer: Batches that are being read, wait, or are worked on.
        latency: Draws the time of reading a batch.
        step: Draws the time of a step.
        in_order: Whether batches are delivered in the order in which they were begun, as a
            deterministic pipeline does; else the one that is ready first is taken.
    """
    readers, begun, end, work = [0.0] * num_readers, 0, 0.0, 0.0
    ready: list[tuple[float, float]] = []  # (order, when it is ready)
    for number in range(num_batches):
        # At this moment `number` places have become free, the last of them at `end`.
        while begun < number + buffer:
            start = max(heapq.heappop(readers), end if begun >= buffer else 0.0)
            done = start + latency()
            heapq.heappush(readers, done)
            heapq.heappush(ready, (float(begun) if in_order else done, done))
            begun += 1
        needed = step()
        end = max(end, heapq.heappop(ready)[1]) + needed
        work += needed
    return work / end


def queue_table(num_batches: int = 5_000, reads: int = 8) -> str:
    """Reading a batch takes as long as `reads` steps in the mean."""

    def draws(variation: float) -> Callable[[], float]:
        """Log-normal times of the mean `reads` and this coefficient of variation."""
        rng, variance = np.random.default_rng(0), np.log1p(variation**2)
        values = iter(rng.lognormal(np.log(reads) - variance / 2, np.sqrt(variance), 2**16))
        return lambda: float(next(values))

    rows = []
    for readers in (8, 12, 16):
        for buffer in (18, 34, 66, 130):
            row = [str(readers), str(buffer)]
            for in_order in (True, False):
                for variation in (0.0, 1.0, 2.0):
                    share = busy_share(
                        num_batches,
                        readers,
                        buffer,
                        draws(variation),
                        lambda: 1.0,
                        in_order=in_order,
                    )
                    row.append(f"{share:.2f}")
            rows.append(row)
    kinds = [f"{kind}, {v}" for kind in ("in order", "first ready") for v in (0, 1, 2)]
    return markdown(["readers", "places", *kinds], rows)


TABLES = {
    "epoch": epoch_table,
    "bytes": bytes_table,
    "feeding": feeding_table,
    "evaluation": evaluation_table,
    "extraction": extraction_table,
    "queue": queue_table,
}


def filled(text: str) -> str:
    """Returns the page's text with each table written between its markers."""
    return _BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[4], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the page, write nothing")
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    new = filled(text)
    if options.check:
        sys.exit(0 if new == text else "docs/SCALE.md differs: python benchmarks/scale.py")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
