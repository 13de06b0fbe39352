"""Times GAP and MAP over a validate-sized set of pairs, compared with sorting the pairs once.

    python benchmarks/metrics.py [--num_videos=1112356] [--output_file=metrics.json]

The pairs are random: `--top_k` a video, classes long-tailed as in YouTube-8M, 14 % of them hits.
The timed functions are those that `EvaluationMetrics.result` calls on its accumulated pairs. They
are compared with one NumPy argsort of the scores (which orders the pairs), one NumPy sort of the
bare scores, and GAP and per-class AP by a Python heap, as the starter code computes them, on the
first `--heap_videos` videos, scaled linearly to all (which favours it: its sort is n log n).
"""

import argparse
import heapq
import json
import time
from collections.abc import Callable

import numpy as np
from machine import describe_machine

from yt8m_gat.metrics import (
    average_precision,
    mean_average_precision,
    per_class_average_precision,
)

HIT_RATE = 0.14


def make_pairs(num_videos, top_k, num_classes, seed):
    rng = np.random.default_rng(seed)
    size = num_videos * top_k
    scores = rng.random(size, dtype=np.float32)
    ranks = np.arange(1, num_classes + 1)
    frequency = ranks**-0.7 / np.sum(ranks**-0.7)
    classes = rng.choice(num_classes, size, p=frequency).astype(np.uint16)
    hits = rng.random(size, dtype=np.float32) < HIT_RATE
    return classes, scores, hits


def best_time(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def heap_metrics(classes, scores, hits, positives_per_class):
    """Computes GAP and MAP with Python heaps, one for all pairs and one per class."""

    def heap_average_precision(pairs, num_positives):
        heap = []
        for score, hit in pairs:
            heapq.heappush(heap, (-score, hit))
        num_hits, total = 0, 0.0
        for rank in range(1, len(heap) + 1):
            if heapq.heappop(heap)[1]:
                num_hits += 1
                total += num_hits / rank
        return total / num_positives

    pairs = list(zip(scores.tolist(), hits.tolist(), strict=True))
    by_class = {}
    for pair, label in zip(pairs, classes.tolist(), strict=True):
        by_class.setdefault(label, []).append(pair)
    gap = heap_average_precision(pairs, positives_per_class.sum())
    per_class = [
        heap_average_precision(by_class.get(label, []), count)
        for label, count in enumerate(positives_per_class)
        if count
    ]
    return gap, float(np.mean(per_class))


def measure(options: argparse.Namespace) -> dict:
    classes, scores, hits = make_pairs(
        options.num_videos, options.top_k, options.num_classes, options.seed
    )
    positives = np.bincount(classes[hits], minlength=options.num_classes)
    gap_time = best_time(lambda: average_precision(scores, hits, positives.sum()), options.repeats)
    map_time = best_time(
        lambda: per_class_average_precision(classes, scores, hits, positives), options.repeats
    )
    sort_time = best_time(lambda: np.argsort(scores), options.repeats)
    bare_sort_time = best_time(lambda: np.sort(scores), options.repeats)

    part = slice(0, min(options.heap_videos, options.num_videos) * options.top_k)
    part_positives = np.bincount(classes[part][hits[part]], minlength=options.num_classes)
    start = time.perf_counter()
    heap_gap, heap_map = heap_metrics(classes[part], scores[part], hits[part], part_positives)
    heap_time = (time.perf_counter() - start) * len(scores) / len(scores[part])
    ours_gap = average_precision(scores[part], hits[part], part_positives.sum())
    ours_map = mean_average_precision(
        per_class_average_precision(classes[part], scores[part], hits[part], part_positives)
    )
    ours = gap_time + map_time
    return {
        "num_videos": options.num_videos,
        "top_k": options.top_k,
        "num_classes": options.num_classes,
        "num_pairs": len(scores),
        "gap_s": gap_time,
        "map_s": map_time,
        "gap_and_map_s": ours,
        "numpy_argsort_of_the_pairs_s": sort_time,
        "numpy_sort_of_the_bare_scores_s": bare_sort_time,
        "ratio_to_argsort": ours / sort_time,
        "ratio_to_bare_sort": ours / bare_sort_time,
        "heap_videos": min(options.heap_videos, options.num_videos),
        "heap_gap_and_map_scaled_s": heap_time,
        "heap_over_ours": heap_time / ours,
        # Of equal float32 scores the heap takes the miss first; our metrics take one threshold.
        "heap_gap_difference": abs(heap_gap - ours_gap),
        "heap_map_difference": abs(heap_map - ours_map),
        "machine": describe_machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_videos", type=int, default=1_112_356)
    parser.add_argument("--top_k", type=int, default=20)
    parser.add_argument("--num_classes", type=int, default=3862)
    parser.add_argument("--heap_videos", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_file", help="write the figures as JSON")
    options = parser.parse_args()
    figures = measure(options)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(
            f"{name:<{width}}  {value:.4g}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value}"
        )
    if options.output_file:
        with open(options.output_file, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
