"""Trains models on real clips in which local evidence is real: spoken words of the GRID corpus.

    python benchmarks/grid.py --grid_dir=grid_s1 --picture=none --kinds=sound --output_dir=sound
    python benchmarks/grid.py --grid_dir=grid_s1 --picture=pixels --fit_pca=32 \
        --kinds=picture,both,late --sound_dir=sound --output_dir=runs

`grid_dir` holds `clips/*.mp4` and `labels.csv` (clip and the six words that it says). `yt8m-gat
extract` makes the records at 25 frames a second: the picture of the mouth by `--picture` (`pixels`:
the gray values of 36 x 28 pixels), the sound by `--sound`. Clips are split 6 : 1 : 1 by a hash of
their names. Each model is trained on sound, on picture and on both, once for each seed, and
evaluated on the test clips with its best weights by validation GAP. `late` averages the
probabilities of the picture's run and of the run on sound in `--sound_dir`, with the weight that
has the highest validation GAP. A model of `--models` may have flags of its own, as a row of
`recipes.py`: `GMSA:local_masks=bd10+bd20`. The accuracy of a place is the share of clips whose
word in that place is the one that the model scores highest among the words of the place;
`true_spans` compares class activation and attention with the frames at which the words are spoken.
Called again, it goes on where it stopped.
"""

import argparse
import csv
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from recipes import folder_name, split_row

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("command", "color", "preposition", "letter", "digit", "adverb")
WORD_FRAMES, NUM_FRAMES = "word_frames_25fps", 75
BLOCKS = "--local_masks=bd10"
MODELS = {
    "Logistic": ["--model=FrameLevelLogisticModel"],
    "SA": ["--model=Transformer"],
    "uniform": ["--model=Transformer", "--attention=uniform"],
    "S": ["--model=GMSA", "--local_masks=global"],
    "GMSA": ["--model=GMSA", BLOCKS],
    "GateOp": ["--model=GateOp", "--local_masks=tp5"],
    "GateAtt": ["--model=GateAtt", BLOCKS],
    "ShareAtt": ["--model=ShareAtt"],
    "ART": ["--model=ART"],
    "ART uniform": ["--model=ART", "--attention=uniform"],
    "A-ART": ["--model=AART"],
    "GMSA Adv": ["--model=GMSA", "--adversarial=output", BLOCKS],
    "GAT JS": ["--model=GAT", "--adversarial=jensen_shannon", BLOCKS],
    "GAT": ["--model=GAT", BLOCKS],
}
FEATURES = {"sound": ("audio",), "picture": ("rgb",), "both": ("rgb", "audio")}
MOUTH = "55,80,70,56"
SPANS = "spans.csv"


def run(log, *arguments):
    with log.open("a", encoding="utf-8") as file:
        finished = subprocess.run(
            [sys.executable, "-m", "yt8m_gat", *map(str, arguments)],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            check=False,
        )
    if finished.returncode:
        sys.exit(f"yt8m-gat {arguments[0]} failed, see {log}")


def write_pixels_model(path):
    """Writes a Keras file whose embedding of a picture is its 1,008 gray values."""
    import keras

    picture = keras.Input((28, 36, 3))
    gray = keras.layers.AveragePooling3D((1, 1, 3))(keras.layers.Reshape((28, 36, 3, 1))(picture))
    keras.Model(picture, keras.layers.Flatten()(gray)).save(path)


def write_spans(path, rows):
    """Writes when each word is spoken, for `eval --true_spans`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "label", "start", "end", "duration"])
        for row in rows:
            for place, span in zip(PLACES, row[WORD_FRAMES].split(";"), strict=True):
                frames = span.split("-")
                writer.writerow([row["clip"], f"{place}:{row[place]}", *frames, NUM_FRAMES])


def flags_of(model):
    """Returns the flags of a name of MODELS, with those after its colons."""
    name, own = split_row(model, MODELS)
    return [*MODELS[name], *own]


def extract(options):
    """Makes the records; returns the words of each clip, place by place."""
    with (options.grid_dir / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    words = {row["clip"]: [row[place] for place in PLACES] for row in rows}
    write_spans(options.output_dir / SPANS, rows)
    clips = options.output_dir / "clips.csv"
    with clips.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for clip, labels in words.items():
            path = (options.grid_dir / "clips" / f"{clip}.mp4").resolve()
            # A word may be the name of a letter and of another place.
            writer.writerows(
                [path, f"{place}:{word}"] for place, word in zip(PLACES, labels, strict=True)
            )
    run(
        options.output_dir / "extract.log",
        *("extract", "--labels", clips.resolve(), "--output_dir", options.records.resolve()),
        *("--fps=25", "--max_seconds=0", "--crop", MOUTH, "--splits=train:6,validate:1,test:1"),
        *("--picture", options.picture, "--sound", options.sound),
        *(("--fit_pca", options.fit_pca) if options.fit_pca else ()),
        *shlex.split(options.extract_flags),
    )
    return words


def predict(options, train_dir, records, scores):
    run(
        train_dir.with_suffix(".log"),
        *("inference", f"--train_dir={train_dir}", f"--input_data_pattern={records}"),
        *(f"--output_file={scores}", f"--top_k={options.num_classes}"),
    )


def run_of(folder, model, kind, seed):
    """Returns the folder of a run."""
    return (folder / f"{folder_name(model)}_{kind}_{seed}").resolve()


def train_and_test(options, sizes, model, kind, seed):
    train_dir = run_of(options.output_dir, model, kind, seed)
    log = train_dir.with_suffix(".log")
    names = FEATURES[kind]
    scores = train_dir.with_suffix(".csv")
    figures = train_dir.with_suffix(".json")
    records = options.records.resolve()
    test = f"{records}/test*.tfrecord"
    if not scores.is_file():
        run(
            log,
            *("train", f"--train_dir={train_dir}", *flags_of(model), f"--seed={seed}"),
            f"--train_data_pattern={records}/train*.tfrecord",
            f"--eval_data_pattern={records}/validate*.tfrecord",
            f"--feature_names={','.join(names)}",
            f"--feature_sizes={','.join(str(sizes[name]) for name in names)}",
            *(f"--num_classes={options.num_classes}", "--max_frames=75", "--batch_size=32"),
            *("--base_learning_rate=5e-4", f"--num_epochs={options.num_epochs}"),
            *("--early_stopping_patience=15", "--plateau_patience=8", *options.flags),
        )
        predict(options, train_dir, test, scores)
    if not figures.is_file() or "true_spans" not in json.loads(figures.read_text("utf-8")):
        run(
            log,
            *("eval", f"--train_dir={train_dir}", f"--eval_data_pattern={test}"),
            *("--attacks=fgm", "--epsilons=0.5", f"--output_file={figures}"),
            f"--true_spans={(options.output_dir / SPANS).resolve()}",
        )
    return json.loads(figures.read_text("utf-8")), scores


def read_scores(path, num_classes):
    """Clip -> the probability of each class, from a Kaggle CSV with all classes."""
    scores = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            pairs = row["LabelConfidencePairs"].split()
            scores[row["VideoId"]] = np.zeros(num_classes)
            scores[row["VideoId"]][np.array(pairs[::2], int)] = np.array(pairs[1::2], float)
    return scores


def place_accuracy(scores, words, label_names):
    """Place -> share of the clips whose word the model scores highest in that place."""
    accuracy = {}
    for index, place in enumerate(PLACES):
        numbers = [n for n, name in sorted(label_names.items()) if name.startswith(f"{place}:")]
        best = [label_names[numbers[np.argmax(row[numbers])]] for row in scores.values()]
        hits = [
            name == f"{place}:{words[clip][index]}" for name, clip in zip(best, scores, strict=True)
        ]
        accuracy[place] = statistics.mean(hits)
    return accuracy


def labels_of(clips, words, label_names):
    """Returns the labels of the clips, multi-hot [clips, classes]."""
    numbers = {name: number for number, name in label_names.items()}
    labels = np.zeros((len(clips), len(label_names)), bool)
    for row, clip in zip(labels, clips, strict=True):
        row[
            [numbers[f"{place}:{word}"] for place, word in zip(PLACES, words[clip], strict=True)]
        ] = 1
    return labels


def fuse(options, model, seed, words, label_names):
    """Returns the figures and scores of the average of a run on picture and one on sound."""
    from yt8m_gat.metrics import evaluate

    scores = {}
    for kind, folder in (("picture", options.output_dir), ("sound", options.sound_dir)):
        for split in ("validate", "test"):
            train_dir = run_of(folder, model, kind, seed)
            path = train_dir.with_suffix(".csv" if split == "test" else ".validate.csv")
            if not path.is_file():
                predict(options, train_dir, f"{folder.resolve()}/records/{split}*.tfrecord", path)
            scores[kind, split] = read_scores(path, options.num_classes)

    def average(split, weight):
        sound = scores["sound", split]
        return {
            clip: weight * picture + (1 - weight) * sound[clip]
            for clip, picture in scores["picture", split].items()
        }

    def figures_of(fused):
        labels = labels_of(list(fused), words, label_names)
        return evaluate(labels, np.array(list(fused.values())))

    weights = [tenth / 10 for tenth in range(11)]
    weight = max(weights, key=lambda weight: figures_of(average("validate", weight))["gap"])
    fused = average("test", weight)
    return {"picture_weight": weight, "clean": figures_of(fused), "attacks": [{"gap": None}]}, fused


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid_dir", type=Path, required=True)
    parser.add_argument("--picture", required=True, help="a model of extract, pixels, or none")
    parser.add_argument("--sound", default="log_mel", help="a model of extract")
    parser.add_argument("--fit_pca", help="values that a PCA keeps: of the picture[,of the sound]")
    parser.add_argument("--extract_flags", default="", help="more flags for extract")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--sound_dir", type=Path, help="late: --output_dir of the runs on sound")
    parser.add_argument("--models", default="Logistic,SA,GMSA,GAT", help="of MODELS")
    parser.add_argument("--kinds", default=",".join(FEATURES), help="of sound, picture, both, late")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--num_epochs", type=int, default=150)
    parser.add_argument("flags", nargs="*", help="flags for every train, after --")
    options = parser.parse_args()
    if Path(options.picture).exists():
        options.picture = Path(options.picture).resolve()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    if options.picture == "pixels":
        options.picture = options.output_dir.resolve() / "pixels.keras"
        if not options.picture.exists():
            write_pixels_model(options.picture)
    options.records = options.output_dir / "records"
    words = extract(options)
    extractor = json.loads((options.records / "extractor.json").read_text(encoding="utf-8"))
    parts = {"audio": extractor["sound"], "rgb": extractor["picture"]}
    sizes = {name: part["size"] for name, part in parts.items() if part}
    extractors = {
        name: f"{Path(part['model']).stem} {part['size']}" for name, part in parts.items() if part
    }
    with (options.records / "label_names.csv").open(encoding="utf-8") as file:
        label_names = {int(row["label_id"]): row["label_name"] for row in csv.DictReader(file)}
    options.num_classes = len(label_names)
    table = []
    for kind in options.kinds.split(","):
        for model in options.models.split(","):
            rows = []
            for seed in options.seeds.split(","):
                if kind == "late":
                    result, scores = fuse(options, model, seed, words, label_names)
                else:
                    result, path = train_and_test(options, sizes, model, kind, seed)
                    scores = read_scores(path, options.num_classes)
                accuracy = place_accuracy(scores, words, label_names)
                rows.append(
                    {
                        "extractors": ", ".join(
                            extractors[name] for name in FEATURES.get(kind, sizes)
                        ),
                        "features": " ".join([kind, *options.flags]),
                        "model": model,
                        "seed": int(seed),
                        **result,
                        "place_accuracy": accuracy,
                    }
                )
            table += rows
            columns = {
                "GAP": [row["clean"]["gap"] for row in rows],
                "MAP": [row["clean"]["map"] for row in rows],
                **{place: [row["place_accuracy"][place] for row in rows] for place in PLACES},
            }
            if kind != "late":
                columns["GAP, FGM"] = [row["attacks"][0]["gap"] for row in rows]
            cells = [
                f"{statistics.mean(c):.3f} ± {statistics.stdev(c) if len(c) > 1 else 0:.3f}"
                for c in columns.values()
            ]
            print(" | ".join([kind, model, *cells]), flush=True)
    path = options.output_dir / "grid.json"
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
