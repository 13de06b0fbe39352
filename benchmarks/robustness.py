"""Prints the sceptic's table of runs of `benchmarks/recipes.py`: mean and deviation over seeds.

python benchmarks/robustness.py --runs_dir=runs/recipes --seeds=0,1,2 \
    --eval_data_pattern='d/test*' --max_videos=1000

Each run goes through `eval.py --protocol=sceptic`; the transfer attack comes from the same recipe
with the next seed. Rows that have been measured are not measured again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from recipes import ROOT, folder_name

# PGD lowers GAP most, the margin attack Hit@1.
HIT_ROWS = ("pgd:steps=20", "pgd_margin:steps=20")
DEFAULT_ROWS = "SA, CE;ART;A-ART;GAT, AdvFr;ART uniform"


def evaluation(options: argparse.Namespace, row: str, seed: int, other: int) -> dict:
    """Runs the sceptic's protocol on one run, resuming its file, and returns the result."""
    run, twin = (options.runs_dir / f"{folder_name(row)}_{s}" for s in (seed, other))
    path = run.with_suffix(".sceptic.json")
    command = [
        sys.executable,
        "eval.py",
        f"--train_dir={run}",
        f"--eval_data_pattern={options.eval_data_pattern}",
        "--protocol=sceptic",
        f"--epsilons={options.epsilon}",
        f"--max_videos={options.max_videos}",
        f"--batch_size={options.batch_size}",
        f"--output_file={path}",
    ]
    if seed != other:
        command.append(f"--transfer_from={twin}")
    print(f"{row}, seed {seed}", file=sys.stderr, flush=True)
    with run.with_suffix(".sceptic.log").open("w", encoding="utf-8") as log:
        if subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False).returncode:
            sys.exit(f"eval.py failed, see {log.name}")
    return json.loads(path.read_text(encoding="utf-8"))


def figures(result: dict, epsilon: float) -> dict[str, float]:
    """Returns the rows of the table: name -> figure."""
    clean, attacks = result["clean"], result["attacks"]
    rows = {"clean": clean["gap"]}
    sweep = {}
    for attack in attacks:
        if attack["attack"] == "pgd:steps=20" and attack["epsilon"] != epsilon:
            sweep[f"PGD-20, epsilon {attack['epsilon']:g}"] = attack["gap"]
        elif attack["epsilon"] in (epsilon, None):
            rows[attack["attack"]] = attack["gap"]
    rows |= sweep
    rows["Hit@1, clean"] = clean["hit_at_1"]
    for attack in attacks:
        if attack["epsilon"] == epsilon and attack["attack"] in HIT_ROWS:
            rows[f"Hit@1, {attack['attack']}"] = attack["hit_at_1"]
    for ball in result["worst_cases"]:
        if ball["epsilon"] == epsilon and not ball["round"]:
            rows["Hit@1, worst of all attacks, clip by clip"] = ball["hit_at_1"]
    deepfool = next(a for a in attacks if a["attack"] == "deepfool")
    for name in ("rho_mean", "rho_median", "share_not_flipped"):
        rows[f"DeepFool {name}"] = deepfool[name]
    rows["share of zero gradients"] = clean["zero_gradient_share"]
    fgm = next(a for a in attacks if a["attack"] == "fgm" and a["epsilon"] == epsilon)
    for name, value in clean.items():
        if name.startswith(("attention_entropy", "distance_to_uniform")):
            rows[name] = value
    for name, value in fgm.items():
        if name.startswith(("attention_mse", "attention_frobenius")):
            rows[f"{name}, fgm"] = value
    return rows


def shown(values: list[float]) -> str:
    if min(map(abs, values)) < 1e-3 and max(map(abs, values)) > 0:
        text = f"{statistics.mean(values):.1e}"
    else:
        text = f"{statistics.mean(values):.4f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.1g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs_dir", type=Path, required=True)
    parser.add_argument("--eval_data_pattern", required=True)
    parser.add_argument("--rows", default=DEFAULT_ROWS, help="rows of recipes.py, separated by ;")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epsilon", type=float, default=0.5)
    parser.add_argument("--max_videos", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=500)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    table: dict[str, dict[str, list[float]]] = {}
    verdicts: dict[str, list[str]] = {}
    # All recipes of one seed before the next, so that the first seed gives a complete table.
    for index, seed in enumerate(seeds):
        for row in options.rows.split(";"):
            result = evaluation(options, row, seed, seeds[(index + 1) % len(seeds)])
            for name, value in figures(result, options.epsilon).items():
                table.setdefault(name, {}).setdefault(row, []).append(value)
            verdicts.setdefault(row, []).extend(
                f"{verdict['check']} ({verdict['verdict']}, seed {seed})"
                for verdict in result["sanity"]
                if verdict["verdict"] != "pass"
            )
    rows = options.rows.split(";")
    print(f"| | {' | '.join(rows)} |\n|---|{'---|' * len(rows)}")
    for name, by_row in table.items():
        print(f"| {name} | {' | '.join(shown(by_row[row]) for row in rows)} |")
    failed = [", ".join(verdicts[row]) or "all pass" for row in rows]
    print(f"| sanity checks | {' | '.join(failed)} |")


if __name__ == "__main__":
    main()
