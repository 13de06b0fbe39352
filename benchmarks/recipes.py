"""Trains recipes from the command line on one data set and tabulates clean and attacked metrics.

python benchmarks/recipes.py --train_data_pattern='d/train*' --eval_data_pattern='d/validate*' \
    --test_data_pattern='d/test*' --output_dir=runs/recipes -- --num_classes=24 --max_frames=30

Flags after `--` are passed to every train.py. The best weights by validation GAP are evaluated on
the test files, clean and under the fast gradient, or as `--eval_flags` say. All rows of a seed come
before those of the next one. Called again, it goes on with the rows that are missing.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Row of the table -> flags of train.py.
RUNS = {
    "SA, CE": ["--model=Transformer"],
    "GMSA, CE": ["--model=GMSA"],
    "S (two global), CE": ["--model=GMSA", "--local_masks=global"],
    "GateOp, CE": ["--model=GateOp"],
    "GateAtt, CE": ["--model=GateAtt"],
    "ShareAtt, CE": ["--model=ShareAtt"],
    "SA uniform, CE": ["--model=Transformer", "--attention=uniform"],
    "ART": ["--model=ART"],
    "ART uniform": ["--model=ART", "--attention=uniform"],
    "A-ART": ["--model=AART"],
    "GMSA, Adv": ["--model=GMSA", "--adversarial=output"],
    "GAT, AdvJS": ["--model=GAT", "--adversarial=jensen_shannon"],
    "GAT, AdvFr": ["--model=GAT"],
}
# How strong must the attention penalty be to show? These are no part of the usual table.
BETAS = {
    f"{row}, beta {beta}": [f"--model={model}", f"--beta={beta}"]
    for row, model in (("A-ART", "AART"), ("GAT", "GAT"))
    for beta in (0, 0.001, 0.01, 0.1, 1, 10, 100)
}
# The papers' objectives beside the field's: row -> flags of train.py, forward and backward passes
# of a training step (docs/ROBUSTNESS.md, Training). With --passes all rows have as many in all.
DEFENSES = {
    "CE": (["--model=Transformer"], 2),
    "ART": (["--model=ART"], 4),
    "A-ART": (["--model=AART"], 4),
    "GAT": (["--model=GAT"], 4),
    "ART, uniform maps": (["--model=ART", "--attention=uniform"], 4),
    "ART, averaged": (["--model=ART", "--ema_momentum=0.99"], 4),
    "fast": (["--model=Transformer", "--adversarial=fast"], 5),
    "PGD-5": (["--model=Transformer", "--adversarial=pgd", "--adversarial_steps=5"], 13),
    "TRADES-5": (["--model=Transformer", "--adversarial=trades", "--adversarial_steps=5"], 14),
}
# Rows that are fine-tuned from another row, which must come first.
FINETUNED = {"TAF of SA": ("SA, CE", ["--model=Transformer", "--adversarial=temporal"])}


def folder_name(row: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in row)


def run(*arguments: str, log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        finished = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, stdout=file, stderr=file, check=False
        )
    if finished.returncode:
        sys.exit(f"{arguments[0]} failed, see {log}")


def training_rate(train_dir: Path) -> float:
    """Returns the median rate of a run's training steps, in clips a second."""
    lines = (train_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    # The first line of a run counts tracing too, and short ones the time of a validation.
    rates = [r["examples_per_second"] for r in records if r["kind"] == "train"]
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_data_pattern", required=True)
    parser.add_argument("--eval_data_pattern", required=True, help="validation files")
    parser.add_argument("--test_data_pattern", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--eval_flags", default="--attacks=fgm --epsilons=0.5", help="of eval.py")
    parser.add_argument("--passes", type=int, help="in the training of each of DEFENSES' rows")
    parser.add_argument("--rows", default="", help="rows of the table, separated by ;")
    parser.add_argument("--window", help="one window for all block masks, for example bd5")
    parser.add_argument("flags", nargs="*", help="flags for every train.py, after --")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows = options.rows.split(";") if options.rows else [*RUNS, *FINETUNED]

    table = []
    for seed in options.seeds.split(","):
        for row in rows:
            source, flags = FINETUNED.get(row, (None, (RUNS | BETAS).get(row)))
            if row in DEFENSES:
                flags, passes = DEFENSES[row]
                if options.passes:
                    flags = [*flags, f"--max_steps={options.passes // passes}"]
            flags = [*flags, *options.flags, f"--seed={seed}"]
            block_masks = flags[0] in ("--model=GMSA", "--model=GAT", "--model=GateAtt")
            if options.window and block_masks and "--local_masks=global" not in flags:
                flags.append(f"--local_masks={options.window}")
            if source is not None:
                flags.append(f"--finetune_from={options.output_dir}/{folder_name(source)}_{seed}")
            train_dir = options.output_dir / f"{folder_name(row)}_{seed}"
            log, figures = train_dir.with_suffix(".log"), train_dir.with_suffix(".json")
            if not figures.is_file():
                run(
                    "train.py",
                    f"--train_dir={train_dir}",
                    f"--train_data_pattern={options.train_data_pattern}",
                    f"--eval_data_pattern={options.eval_data_pattern}",
                    *flags,
                    log=log,
                )
                run(
                    "eval.py",
                    f"--train_dir={train_dir}",
                    f"--eval_data_pattern={options.test_data_pattern}",
                    *shlex.split(options.eval_flags),
                    "--batch_size=256",
                    f"--output_file={figures}",
                    log=log,
                )
            result = json.loads(figures.read_text(encoding="utf-8"))
            cost = {
                "parameters": result["provenance"]["parameters"],
                "clips_per_second": training_rate(train_dir),
            }
            table.append({"row": row, "seed": int(seed), "flags": flags, **cost, **result})
            clean = result["clean"]
            attacked = " ".join(f"{a['gap']:.4f}@{a['epsilon']:g}" for a in result["attacks"])
            print(
                f"| {row} | {seed} | {clean['gap']:.4f} | {clean['map']:.4f} | "
                f"{clean['map_all_scores']:.4f} | {clean['perr']:.4f} | {clean['hit_at_1']:.4f} | "
                f"{attacked} |",
                flush=True,
            )
    path = options.output_dir / "recipes.json"
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
