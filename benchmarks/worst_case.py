"""Measures the worst case over attacks on all clips, and on those that no attack has broken yet.

    python benchmarks/worst_case.py --train_dir=runs/sa --eval_data_pattern='eval*.tfrecord' \\
        --attacks fgm pgd auto:steps=20:targets=3:queries=200 --epsilon=0.5 --max_videos=512

Each attack is measured both ways in turn, as `eval.py` does it without and with
`--worst_case_only`, in processor time of all threads. Both are run on the clips once and twice, and
the difference counts, so that tracing is left out. The clips that survive must be the same:
`differ` counts the others. The last lines give the time for `--num_clips` clips at these rates.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from machine import describe_machine

from yt8m_gat.evaluation.survivors import survivors_of
from yt8m_gat.pipeline.attack_plan import plan_attacks
from yt8m_gat.pipeline.evaluated_run import EvaluatedRun
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.pipeline.run_evaluator import total_map_distance
from yt8m_gat.run_folder import RunFolder


def timed(work):
    """Returns the result of a call and its processor seconds."""
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin


def compare(evaluator, batches, attack, standing):
    """Returns the hits of an attack on all clips, the survivors, and the seconds of both."""
    times, found = [], []
    for count in (1, 2):
        hits, on_all = timed(lambda n=count: evaluator.measure(batches * n, attack))
        left, on_standing = timed(
            lambda n=count: survivors_of(evaluator, batches * n, attack, np.tile(standing, n))
        )
        times.append((on_all, on_standing))
        found.append((hits.metrics.hits_at_1[: len(standing)], left[: len(standing)]))
    return *found[0], *np.subtract(times[1], times[0])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train_dir", required=True)
    parser.add_argument("--eval_data_pattern", required=True)
    parser.add_argument("--attacks", nargs="+", default=["fgm", "pgd"])
    parser.add_argument("--epsilon", type=float, default=0.5)
    parser.add_argument("--max_videos", type=int, default=512)
    parser.add_argument("--batch_size", type=int, help="default: as in training")
    parser.add_argument("--num_clips", type=int, default=20_371, help="AudioSet's by default")
    parser.add_argument("--output_file", help="also write the figures here, as JSON")
    arguments = parser.parse_args(argv)
    options = EvaluationOptions(
        eval_data_pattern=arguments.eval_data_pattern,
        attacks=arguments.attacks,
        epsilons=(arguments.epsilon,),
        max_videos=arguments.max_videos,
        batch_size=arguments.batch_size,
    )
    run = EvaluatedRun(RunFolder(arguments.train_dir), options)
    evaluator, batches = run.evaluator, list(run.batches())
    clean, passes = evaluator.measure(batches).metrics.hits_at_1, len(batches)
    distance = total_map_distance if run.has_global_maps else None
    standing, rows = clean, []
    on_all = clean
    for planned in plan_attacks(options, run.specs, run.config, None, distance):
        hits, left, seconds, seconds_left = compare(evaluator, batches, planned.attack, standing)
        on_all = on_all & hits
        rows.append(
            {
                "attack": planned.identity["attack"],
                "passes": planned.attack.cost._asdict(),
                "attacked": int(standing.sum()),
                "survive": int(left.sum()),
                "differ": int((left != on_all).sum()),
                "seconds_on_all": seconds,
                "seconds_on_standing": seconds_left,
            }
        )
        standing = left
    print(f"{len(clean)} clips in {passes} batches, {clean.sum()} right clean")
    print(f"{'attack':<38} {'attacked':>8} {'survive':>8} {'differ':>6} {'s, all':>8} {'s':>8}")
    for row in rows:
        print(
            f"{row['attack']:<38} {row['attacked']:>8} {row['survive']:>8} {row['differ']:>6} "
            f"{row['seconds_on_all']:>8.2f} {row['seconds_on_standing']:>8.2f}"
        )
    share = arguments.num_clips / len(clean) / 60
    for name in ("seconds_on_all", "seconds_on_standing"):
        total = sum(row[name] for row in rows) * share
        print(f"{name}: {total:.1f} processor minutes for {arguments.num_clips} clips")
    if arguments.output_file:
        settings = {k: v for k, v in vars(arguments).items() if k != "output_file"}
        report = {"benchmark": "worst_case", "settings": settings, "machine": describe_machine()}
        report |= {"clips": len(clean), "right_clean": int(clean.sum()), "rows": rows}
        Path(arguments.output_file).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
