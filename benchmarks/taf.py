"""TAF and its baselines on real clips in which time matters: spoken words of the GRID corpus.

    python benchmarks/taf.py --grid_dir=grid_s1 --output_dir=runs/taf

`grid_dir` holds `clips/*.mp4` and `labels.csv` (clip, its six words, and the frames in which each
is spoken). Each task is a place of the sentence (command: 4 words), read from the picture of the
mouth, either on the word's own span or on the whole clip. Clips are split 6 : 1 : 1 by a hash of
their names. Each model is trained from fresh weights, then fine-tuned by each variant, among which
is `longer`, as many epochs without TAF; all are measured on the test clips: in order, with their
frames shuffled and reversed, and by how even their class activation is (on whole clips also by how
much of it lies where the word is spoken). Called again, it goes on where it stopped.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

from grid import MOUTH, PLACES, run

# Variant -> flags of the fine-tuning; tables 1, 2, 4 and 6 of the paper.
TAF = ["--adversarial=temporal"]
VARIANTS = {
    "longer": [],
    "taf": TAF,
    "ce": [*TAF, "--temporal_loss=ce"],
    "noise": [*TAF, "--temporal_loss=random_noise"],
    "printed": [*TAF, "--cam_gradient=loss", "--cam_normalization=maximum"],
    **{f"alpha{alpha}": [*TAF, f"--alpha={alpha}"] for alpha in (0.2, 0.5, 0.8)},
    "6_k1": [*TAF, "--temporal_epsilon=6"],
    "6_k3": [*TAF, "--temporal_epsilon=6", "--temporal_steps=3"],
    "64_k3": [*TAF, "--temporal_steps=3"],
    **{f"n{count}": [*TAF, f"--non_key_frames={count}"] for count in (2, 4)},
    **{kind: [*TAF, f"--temporal_examples={kind}"] for kind in ("correct", "wrong")},
    **{name: [f"--augmentation={name}"] for name in ("mixup", "cutmix", "framemixup", "cubemixup")},
}
FRAMES_PER_SECOND, FRAMES = 25, 75


def pack(options, task):
    """Makes the records of a task; returns how many words it has."""
    place = PLACES.index(task)
    with (options.grid_dir / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folder = options.output_dir / f"{task}_{options.span}"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "clips.csv").open("w", encoding="utf-8", newline="") as clips,
        (folder / "spans.csv").open("w", encoding="utf-8", newline="") as spans,
    ):
        clips, spans = csv.writer(clips), csv.writer(spans)
        clips.writerow(["path", "label", "start", "end"])
        spans.writerow(["video_id", "label", "start", "end", "duration"])
        for row in rows:
            path = (options.grid_dir / "clips" / f"{row['clip']}.mp4").resolve()
            ends = row["word_frames_25fps"].split(";")[place].split("-")
            times = [int(end) / FRAMES_PER_SECOND for end in ends]
            clips.writerow([path, row[task], *(times if options.span == "word" else ["", ""])])
            spans.writerow([row["clip"], row[task], *times, FRAMES / FRAMES_PER_SECOND])
    run(
        folder / "pack.log",
        *("pack", (folder / "clips.csv").resolve(), "--output_dir", (folder / "records").resolve()),
        *("--crop", MOUTH, "--short_side=56", "--splits=train:6,validate:1,test:1"),
    )
    return len({row[task] for row in rows})


def measure(options, folder, train_dir, corruptions):
    """Returns the figures of a run on the test clips."""
    figures = train_dir.with_suffix(".json")
    if not figures.is_file():
        spans = [f"--true_spans={folder / 'spans.csv'}"] if options.span == "clip" else []
        run(
            train_dir.with_suffix(".log"),
            *("eval", f"--train_dir={train_dir}", "--class_activation", *spans),
            f"--eval_data_pattern={folder / 'records'}/test*.tfrecord",
            *(f"--corruptions={corruptions}", "--severities=5", f"--output_file={figures}"),
        )
    return json.loads(figures.read_text(encoding="utf-8"))


def train(options, folder, train_dir, num_classes, *flags):
    records = folder / "records"
    if not train_dir.with_suffix(".json").is_file():
        run(
            train_dir.with_suffix(".log"),
            *("train", f"--train_dir={train_dir}", f"--num_classes={num_classes}"),
            f"--train_data_pattern={records}/train*.tfrecord",
            f"--eval_data_pattern={records}/validate*.tfrecord",
            *("--backbone=ResNet10Small", f"--crop_size={options.crop_size}", "--batch_size=32"),
            *flags,
        )


def row_of(figures):
    """Returns name -> figure of one run, all in percent but the activation's."""
    row = {
        "top-1": 100 * figures["clean"]["hit_at_1"],
        "class mean": 100 * figures["clean"]["mean_class_accuracy"],
    }
    for corrupted in figures["corruptions"]:
        row[corrupted["corruption"]] = 100 * corrupted["hit_at_1"]
    row["entropy"] = figures["class_activation"]["entropy"]
    row["spread"] = figures["class_activation"]["spread"]
    if "true_spans" in figures:
        activation = figures["true_spans"]["activation"]
        row["in the word"] = 100 * activation["share"]
        row["if even"] = 100 * activation["even_share"]
        row["pointing"] = 100 * activation["pointing"]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--tasks", default="command", help=f"of {', '.join(PLACES)}")
    parser.add_argument("--span", default="word", choices=("word", "clip"))
    parser.add_argument("--models", default="TSN,TSM,TAM,TPN,GST,GSTLarge")
    parser.add_argument("--variants", default="longer,taf", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument(
        "--corruptions", default="temporal_shuffle,temporal_reversal", help="or all"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--crop_size", type=int, default=48)
    parser.add_argument("--num_epochs", type=int, default=30)
    parser.add_argument("--further_epochs", type=int, default=9)
    options = parser.parse_args()
    options.output_dir = options.output_dir.resolve()
    table = []
    for task in options.tasks.split(","):
        num_classes = pack(options, task)
        folder = options.output_dir / f"{task}_{options.span}"
        for model in options.models.split(","):
            rows = {name: [] for name in ("baseline", *options.variants.split(","))}
            for seed in options.seeds.split(","):
                base = folder / f"{model}_{seed}"
                shared = [f"--model={model}", f"--seed={seed}"]
                epochs = options.num_epochs
                drops = f"--drop_epochs={epochs * 2 // 3},{epochs * 9 // 10}"
                train(options, folder, base, num_classes, *shared, f"--num_epochs={epochs}", drops)
                rows["baseline"].append(measure(options, folder, base, options.corruptions))
                for variant in options.variants.split(","):
                    further = options.further_epochs
                    tuned = folder / f"{model}_{seed}_{variant}"
                    flags = [*shared, *VARIANTS[variant], f"--finetune_from={base}"]
                    flags += [f"--num_epochs={further}", f"--drop_epochs={further * 2 // 3}"]
                    train(options, folder, tuned, num_classes, *flags)
                    rows[variant].append(measure(options, folder, tuned, options.corruptions))
            for name, measured in rows.items():
                columns = [row_of(figures) for figures in measured]
                table += [
                    {"task": task, "span": options.span, "model": model, "run": name, **column}
                    for column in columns
                ]
                cells = []
                for key in columns[0]:
                    values = [column[key] for column in columns]
                    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
                    cells.append(f"{key} {statistics.mean(values):.3g} ± {deviation:.2g}")
                print(" | ".join([task, model, name, *cells]), flush=True)
    path = options.output_dir / f"taf_{options.span}.json"
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
