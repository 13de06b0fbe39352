"""Do embeddings of hardened models transfer better? Linear probes on classes never trained on.

python benchmarks/transfer.py --train_data_pattern='d/train*' --eval_data_pattern='d/validate*' \
    --test_data_pattern='d/test*' --num_classes=24 --output_dir=runs/transfer -- --max_frames=30

The classes are cut into two halves by a seeded shuffle. Each row is trained on the labels of the
first half; then a logistic regression is trained on its frozen embeddings and the labels of the
second half. Flags after `--` are passed to the training of each row. The probe's learning rate is
the one of --probe_rates with the best validation GAP. Two rows are controls: `untrained` is SA as
it is initialized, and `features` a logistic regression on the mean of the clip's frames.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import yt8m_gat
from yt8m_gat.commands import train as train_command

# Row of the table -> flags of train.py.
ROWS = {
    "untrained": ["--model=Transformer", "--max_steps=1", "--base_learning_rate=1e-12"],
    "SA, CE": ["--model=Transformer"],
    "ART": ["--model=ART"],
    "A-ART": ["--model=AART"],
    "embedding, beta 0.1": ["--model=Transformer", "--adversarial=embedding", "--beta=0.1"],
    "embedding, beta 1": ["--model=Transformer", "--adversarial=embedding", "--beta=1"],
}
FEATURES = "features"


def write_halves(folder: Path, num_classes: int, seed: int) -> tuple[Path, Path]:
    """Writes a label map of each half of the classes."""
    order = np.random.default_rng(seed).permutation(num_classes)
    paths = folder / "first_half.csv", folder / "second_half.csv"
    for path, classes in zip(paths, np.array_split(order, 2), strict=True):
        lines = [f"{source},{target}" for target, source in enumerate(sorted(classes))]
        path.write_text("\n".join(["source_index,target_index", *lines]) + "\n", encoding="utf-8")
    return paths


def train(folder: Path, data: dict[str, str], *flags: str) -> yt8m_gat.Run:
    """Trains a run, or goes on with it, and loads it."""
    patterns = [f"--{split}_data_pattern={data[split]}" for split in ("train", "eval")]
    train_command.main([f"--train_dir={folder}", *patterns, *flags])
    return yt8m_gat.load_run(folder)


def best_gap(run: yt8m_gat.Run) -> float:
    """Returns the best validation GAP of a run."""
    lines = run.folder.read_metrics()
    return max(line["gap"] for line in lines if line["kind"] == "validation")


def best_probe(
    folder: Path, data: dict[str, str], rates: list[str], *flags: str
) -> tuple[str, yt8m_gat.Run]:
    """Trains a probe at each learning rate and returns the best by validation GAP."""
    runs = {
        rate: train(folder / f"probe_{rate}", data, *flags, f"--base_learning_rate={rate}")
        for rate in rates
    }
    best = max(runs, key=lambda rate: best_gap(runs[rate]))
    return best, runs[best]


def movement(run: yt8m_gat.Run, pattern: str) -> dict[str, float]:
    """Returns how an attack moves the embedding of a Transformer, and its GAP under it."""
    found = run.evaluate(pattern, attacks=["fgm"], epsilons=[0.5], embeddings=True)
    [hidden] = [layer for layer in found["embeddings"]["layers"] if layer["layer"] == "hidden"]
    return {
        "gap": found["clean"]["gap"],
        "gap_under_fgm": found["attacks"][0]["gap"],
        "relative_l2": hidden["relative_l2"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_data_pattern", required=True)
    parser.add_argument("--eval_data_pattern", required=True, help="validation files")
    parser.add_argument("--test_data_pattern", required=True)
    parser.add_argument("--attacked_data_pattern", help="files of the attack; default: of the test")
    parser.add_argument("--num_classes", type=int, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the halves and of every training")
    parser.add_argument("--rows", default=";".join([FEATURES, *ROWS]), help="separated by ;")
    parser.add_argument("--probe_rates", default="3e-2,1e-1", help="separated by commas")
    parser.add_argument("--probe_steps", type=int, default=300)
    parser.add_argument("flags", nargs="*", help="flags for each row's training, after --")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    first, second = write_halves(options.output_dir, options.num_classes, options.seed)
    data = {split: getattr(options, f"{split}_data_pattern") for split in ("train", "eval", "test")}
    attacked = options.attacked_data_pattern or data["test"]
    rates = options.probe_rates.split(",")
    common = [f"--num_classes={options.num_classes}", f"--seed={options.seed}"]
    probing = [
        *common,
        f"--label_map={second}",
        "--batch_size=256",
        f"--max_steps={options.probe_steps}",
        f"--num_epochs={options.probe_steps}",
        "--learning_rate_schedule=cosine",
        "--early_stopping_patience=0",
    ]

    table = []
    for row in options.rows.split(";"):
        folder = options.output_dir / "".join(c if c.isalnum() else "_" for c in row)
        entry: dict[str, object] = {"row": row}
        if row == FEATURES:
            features = [flag for flag in options.flags if "feature" in flag or "frames" in flag]
            probe = "--model=FrameLevelLogisticModel"
            rate, run = best_probe(folder, data, rates, *probing, probe, *features)
            records = data
        else:
            flags = [*options.flags, *ROWS[row], f"--label_map={first}", *common]
            source = train(folder, data, *flags)
            entry |= movement(source, attacked)
            records = {split: f"{folder}/{split}.tfrecord" for split in data}
            for split, path in records.items():
                schema = source.write_embeddings(data[split], path)
            probe = ["--model=LogisticModel", "--feature_names=embedding"]
            probe.append(f"--feature_sizes={schema.sizes['embedding']}")
            rate, run = best_probe(folder, records, rates, *probing, *probe)
        clean = run.evaluate(records["test"])["clean"]
        entry["probe"] = {"rate": rate, **{name: clean[name] for name in ("gap", "map")}}
        table.append(entry)
        print(json.dumps(entry), flush=True)
    path = options.output_dir / "transfer.json"
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
