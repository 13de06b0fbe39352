"""Trains recipes from the command line on one data set and tabulates clean and attacked metrics.

python benchmarks/recipes.py --train_data_pattern='d/train*' --eval_data_pattern='d/validate*' \
    --test_data_pattern='d/test*' --output_dir=runs/recipes -- --num_classes=24 --max_frames=30

Flags after `--` are passed to every train.py. The best weights by validation GAP are evaluated on
the test files, clean and under the fast gradient, or as `--eval_flags` say. With `--learning_rates`
each row is first trained at each of these, with the first seed, and keeps the one that has the
highest validation GAP. A row may have flags of its own after its name, with + for the commas of a
list: `GMSA, CE:local_masks=bd10+bd20`. All rows of a seed come before those of the next one. Called
again, it goes on with the rows that are missing.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable
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
# Architectures side by side, each with its own loss and schedule.
MODELS = {
    "FrameLevelLogistic": ["--model=FrameLevelLogisticModel"],
    "DBoF": ["--model=DbofModel"],
    "gated soft-DBoF": ["--model=GatedSoftDbof"],
    "NetVLAD": ["--model=NetVLAD"],
    "NeXtVLAD": ["--model=NeXtVLAD"],
    "LSTM": ["--model=LstmModel"],
    "GRU": ["--model=AttentionGru"],
    "SA": ["--model=Transformer"],
    "SA, 4 layers": ["--model=Transformer", "--num_layers=4", "--pre_norm"],
    "GMSA": ["--model=GMSA"],
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


def records_of(train_dir: Path, kind: str) -> list[dict]:
    """Returns the lines of a kind of a run's metrics.jsonl."""
    lines = (train_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def training_rate(train_dir: Path) -> float:
    """Returns the median rate of a run's training steps, in clips a second."""
    # The first line of a run counts tracing too, and short ones the time of a validation.
    return statistics.median(r["examples_per_second"] for r in records_of(train_dir, "train"))


def best_validation(train_dir: Path) -> float:
    return max(record["gap"] for record in records_of(train_dir, "validation"))


def split_row(row: str, known: Iterable[str]) -> tuple[str, list[str]]:
    """Returns the name of a row `NAME:FLAG=VALUE:...`, and its flags, as a command takes them."""
    name, *flags = row.split(":")
    if name not in known:
        sys.exit(f"there is no row {name!r}; known: {'; '.join(known)}")
    return name, [f"--{flag.replace('+', ',')}" for flag in flags]


def flags_of(options: argparse.Namespace, row: str, seed: str) -> list[str]:
    """Returns the flags of train.py that a row stands for."""
    name, own = split_row(row, RUNS | BETAS | MODELS | DEFENSES | FINETUNED)
    source, flags = FINETUNED.get(name, (None, (RUNS | BETAS | MODELS).get(name)))
    if name in DEFENSES:
        flags, passes = DEFENSES[name]
        if options.passes:
            flags = [*flags, f"--max_steps={options.passes // passes}"]
    flags = [*flags, *own, *options.flags, f"--seed={seed}"]
    block_masks = flags[0] in ("--model=GMSA", "--model=GAT", "--model=GateAtt")
    if options.window and block_masks and not any("--local_masks" in flag for flag in flags):
        flags.append(f"--local_masks={options.window}")
    if source is not None:
        flags.append(f"--finetune_from={options.output_dir}/{folder_name(source)}_{seed}")
    return flags


def train(options: argparse.Namespace, train_dir: Path, flags: list[str]) -> None:
    """Trains a run, unless it has ended: the file beside it says so."""
    ended = train_dir.with_suffix(".trained")
    if ended.is_file():
        return
    run(
        "train.py",
        f"--train_dir={train_dir}",
        f"--train_data_pattern={options.train_data_pattern}",
        f"--eval_data_pattern={options.eval_data_pattern}",
        *flags,
        log=train_dir.with_suffix(".log"),
    )
    ended.touch()


def choose_rate(options: argparse.Namespace, row: str) -> tuple[str, dict[str, float]]:
    """Returns the rate with the highest validation GAP at the first seed, and all rates' GAP."""
    seed, found = options.seeds.split(",")[0], {}
    for rate in options.learning_rates.split(","):
        train_dir = options.output_dir / folder_name(f"{row}_{rate}_{seed}")
        train(options, train_dir, [*flags_of(options, row, seed), f"--base_learning_rate={rate}"])
        found[rate] = best_validation(train_dir)
    return max(found, key=found.get), found


def train_and_test(options: argparse.Namespace, row: str, seed: str) -> dict:
    """Returns the row of the table, from the files where it is finished."""
    flags, more, rate = flags_of(options, row, seed), {}, ""
    if options.learning_rates:
        rate, more["validation_gap_by_rate"] = choose_rate(options, row)
        flags, rate = [*flags, f"--base_learning_rate={rate}"], f"{rate}_"
    train_dir = options.output_dir / folder_name(f"{row}_{rate}{seed}")
    figures = train_dir.with_suffix(".json")
    if not figures.is_file():
        train(options, train_dir, flags)
        run(
            "eval.py",
            f"--train_dir={train_dir}",
            f"--eval_data_pattern={options.test_data_pattern}",
            *shlex.split(options.eval_flags),
            "--batch_size=256",
            f"--output_file={figures}",
            log=train_dir.with_suffix(".log"),
        )
    result = json.loads(figures.read_text(encoding="utf-8"))
    more["parameters"] = result["provenance"]["parameters"]
    more["clips_per_second"] = training_rate(train_dir)
    more["checks_failed"] = sum(check["verdict"] == "fail" for check in result.get("sanity") or [])
    return {"row": row, "seed": int(seed), "flags": flags, **more, **result}


def print_row(line: dict) -> None:
    clean = line["clean"]
    attacked = " ".join(f"{a['gap']:.4f}@{a['epsilon']:g}" for a in line["attacks"])
    print(
        f"| {line['row']} | {line['seed']} | {clean['gap']:.4f} | {clean['map']:.4f} | "
        f"{clean['map_all_scores']:.4f} | {clean['perr']:.4f} | {clean['hit_at_1']:.4f} | "
        f"{attacked} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_data_pattern", required=True)
    parser.add_argument("--eval_data_pattern", required=True, help="validation files")
    parser.add_argument("--test_data_pattern", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--eval_flags", default="--attacks=fgm --epsilons=0.5", help="of eval.py")
    parser.add_argument("--passes", type=int, help="in the training of each of DEFENSES' rows")
    parser.add_argument("--learning_rates", default="", help="to choose from, by validation GAP")
    parser.add_argument("--rows", default="", help="rows of the table, separated by ;")
    parser.add_argument("--window", help="one window for all block masks, for example bd5")
    parser.add_argument("flags", nargs="*", help="flags for every train.py, after --")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows = options.rows.split(";") if options.rows else [*RUNS, *FINETUNED]

    table = []
    for seed in options.seeds.split(","):
        for row in rows:
            table.append(train_and_test(options, row, seed))
            print_row(table[-1])
    path = options.output_dir / "recipes.json"
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
