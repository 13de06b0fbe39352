"""Do embeddings of hardened models transfer better? Linear probes on classes never trained on.

python benchmarks/transfer.py --train_data_pattern='d/train*' --eval_data_pattern='d/validate*' \
    --test_data_pattern='d/test*' --num_classes=24 --output_dir=runs/transfer -- --max_frames=30

The classes are cut into two halves by a seeded shuffle. Each row is trained on the labels of the
first half. The probe is a ridge regression of the labels of the second half on its frozen
embeddings, standardized: it has one exact solution, so that no optimizer favors embeddings of a
certain scale. Its penalty is chosen by validation GAP. Flags after `--` are passed to the training
of each row. The row `untrained` is SA as it is initialized. Intervals are over the test clips, of
the difference to the first row paired.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import yt8m_gat
from yt8m_gat.commands import train as train_command
from yt8m_gat.data import Reader, RecordSchema
from yt8m_gat.metrics import EvaluationMetrics, interval

PENALTIES = tuple(10.0**power for power in range(-5, 3))
"""Of the ridge regression, times the number of training clips."""

# Row of the table -> flags of train.py.
ROWS = {
    "SA, CE": ["--model=Transformer"],
    "untrained": ["--model=Transformer", "--max_steps=1", "--base_learning_rate=1e-12"],
    "ART": ["--model=ART"],
    "A-ART": ["--model=AART"],
    "embedding, beta 0.1": ["--model=Transformer", "--adversarial=embedding", "--beta=0.1"],
    "embedding, beta 1": ["--model=Transformer", "--adversarial=embedding", "--beta=1"],
}


def halves(num_classes: int, seed: int) -> list[np.ndarray]:
    """Cuts the classes into two halves."""
    order = np.random.default_rng(seed).permutation(num_classes)
    return [np.sort(half) for half in np.array_split(order, 2)]


def write_label_map(path: Path, classes: Sequence[int]) -> None:
    """Writes the label map that keeps these classes."""
    lines = [f"{source},{target}" for target, source in enumerate(classes)]
    path.write_text("\n".join(["source_index,target_index", *lines]) + "\n", encoding="utf-8")


def train(folder: Path, data: dict[str, str], *flags: str) -> yt8m_gat.Run:
    """Trains a run, or goes on with it, and loads it."""
    patterns = [f"--{split}_data_pattern={data[split]}" for split in ("train", "eval")]
    train_command.main([f"--train_dir={folder}", *patterns, *flags])
    return yt8m_gat.load_run(folder)


def read(path: str, schema: RecordSchema, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the embeddings [N, E] and the labels [N, C] of a file of `write_embeddings`."""
    batches = [
        (batch["features"]["embedding"].numpy(), batch["labels"].numpy()[:, classes])
        for batch in Reader([path], schema, 1024)
    ]
    vectors, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return vectors.astype(np.float64), labels


def measured(labels: np.ndarray, scores: np.ndarray) -> EvaluationMetrics:
    """Returns the metrics of scores [N, C]."""
    metrics = EvaluationMetrics(labels.shape[1], single_label_metrics=False)
    metrics.update(labels, scores)
    return metrics


def probe(splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[float, EvaluationMetrics]:
    """Returns the penalty with the best validation GAP, and the metrics on the test clips."""
    vectors, labels = splits["train"]
    mean, deviation = vectors.mean(0), vectors.std(0) + 1e-3  # Some units are never active.
    standardized = {name: (x - mean) / deviation for name, (x, _) in splits.items()}
    x, y = standardized["train"], labels - labels.mean(0)
    gram, cross = x.T @ x, x.T @ y
    found = []
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * len(x) * np.eye(len(gram)), cross)
        scores = {name: standardized[name] @ weights + labels.mean(0) for name in ("eval", "test")}
        gap = measured(splits["eval"][1], scores["eval"]).result()["gap"]
        found.append((gap, penalty, scores["test"]))
    _, penalty, scores = max(found, key=lambda one: one[0])
    return penalty, measured(splits["test"][1], scores)


def movement(run: yt8m_gat.Run, pattern: str) -> dict[str, float]:
    """Returns how an attack moves the embedding of a Transformer, and its GAP under it."""
    found = run.evaluate(pattern, attacks=["fgm"], epsilons=[0.5], embeddings=True)
    [hidden] = [layer for layer in found["embeddings"]["layers"] if layer["layer"] == "hidden"]
    return {
        "gap": found["clean"]["gap"],
        "gap_under_fgm": found["attacks"][0]["gap"],
        **{name: hidden[name] for name in ("cka", "cosine", "relative_l2")},
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
    parser.add_argument("--rows", default=";".join(ROWS), help="separated by ;")
    parser.add_argument("flags", nargs="*", help="flags for each row's training, after --")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    first, second = halves(options.num_classes, options.seed)
    label_map = options.output_dir / "first_half.csv"
    write_label_map(label_map, first)
    data = {split: getattr(options, f"{split}_data_pattern") for split in ("train", "eval", "test")}
    attacked = options.attacked_data_pattern or data["test"]
    common = [f"--num_classes={options.num_classes}", f"--seed={options.seed}"]

    table, gaps = [], []
    for row in options.rows.split(";"):
        folder = options.output_dir / "".join(c if c.isalnum() else "_" for c in row)
        run = train(folder, data, *options.flags, *ROWS[row], f"--label_map={label_map}", *common)
        splits = {}
        for split, pattern in data.items():
            path = f"{folder}/{split}.tfrecord"
            splits[split] = read(path, run.write_embeddings(pattern, path), second)
        penalty, metrics = probe(splits)
        result = metrics.result()
        gaps.append(metrics.resampled()["gap"])
        entry = {
            "row": row,
            **movement(run, attacked),
            "probe_penalty": penalty,
            "probe": {name: result[name] for name in ("gap", "map_all_scores")},
            "gap_interval": interval(gaps[-1]),
            "gap_minus_first_row": interval(gaps[-1] - gaps[0]),
        }
        table.append(entry)
        print(json.dumps(entry), flush=True)
    path = options.output_dir / "transfer.json"
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
