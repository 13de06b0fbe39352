"""The commands of pages of docs/, run in order on small generated data.

docs/TAF.md has a test of its own, test_taf_page.py, and the README and PYTHON.md are run by
test_docs.py. Commands run in this process: importing TensorFlow takes longer than most of them.
"""

import contextlib
import importlib
import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_videos

from yt8m_gat.config import DataConfig, ModelConfig, RunConfig
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.hdf5 import save_weights

sys.path.append(str(Path(__file__).parent / "data"))
import handmade_records as hand

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("DATA", "EXTRACT", "REPORT", "ROBUSTNESS", "SEGMENTS", "SERVING", "VIDEOS")

# Beginning of a command -> why it does not run here.
NOT_RUN = {
    "yt8m-gat download": "needs the network",
    "pip install": "needs the network",
    "docker run": "needs Docker; tests/serving talks to a server of TensorFlow's own kind",
    "tensorflow_model_server": "needs TensorFlow Serving",
    "curl": "needs a server",
    "python benchmarks/transfer.py": "trains six models; test_transfer.py tests its probe",
    "python docs/clients/": "needs a server; tests/serving runs the clients",
    "python train.py --model=GAT --feature_names=RGB": "needs the records of Model Garden",
    "python train.py --model=TSM": "needs Something-Something; test_taf_page.py trains one",
    "yt8m-gat extract videos/ --output_dir=records --sound=yamnet.tflite": "needs YAMNet's file",
    "yt8m-gat extract videos/ --output_dir=records --picture=youtube8m": "needs MediaPipe's files",
}
# Pages train a GAT on YouTube-8M; what a command does with a model does not depend on its size.
SMALL = {
    "train": (
        *("--model=FrameLevelLogisticModel", "--max_steps=2", "--batch_size=8"),
        "--start_new_model",
    ),
    "extract": ("--picture=mean.keras", "--fps=4"),
    "attack-videos": ("--epsilons=2", "--attack_steps=1", "--distance_videos=1"),
    "eval": ("--max_videos=8",),
    "sample": ("--num_train=16", "--num_validate=8", "--num_test=8"),
    "explain": ("--video_id=va0-0000000",),
}
# Beginning of a command -> what its `...` stands for, or what the small model needs.
LEFT_OUT = {
    "python train.py --train_dir=runs/noisy": ("--normalize=none",),
    "python train.py --model=GAT --segment_labels --finetune_from": (
        "--train_data_pattern=3/validate*.tfrecord",
    ),
    "python inference.py --train_dir=runs/videos --segment_labels": (
        *("--input_data_pattern=3/test*.tfrecord", "--output_file=windows.csv"),
    ),
}


def commands_of(page):
    """The commands of a page's indented lines, each one line of words; a backslash continues it."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").replace("\\\n", " ")
    names = r"python \S+\.py|yt8m-gat|pip install|docker run|tensorflow_model_server|curl"
    return [
        " ".join(line.split(" # ")[0].split())
        for line in re.findall(rf"^    ((?:{names}) .*)$", text, re.MULTILINE)
    ]


def write_run(path, data):
    config = RunConfig(data=data, model=ModelConfig(name="FrameLevelLogisticModel"))
    folder = RunFolder(path)
    folder.prepare(config)
    save_weights(build_from_config(config), folder.best_weights, step=0)


def rated_clip(rng, video_id, label):
    """A record of 10 frames and of two rated segments."""
    context = {
        "id": hand.bytes_feature(video_id.encode()),
        "labels": hand.ints_feature(label),
        "segment_start_times": hand.ints_feature(0, 5),
        "segment_end_times": hand.ints_feature(5, 10),
        "segment_labels": hand.ints_feature(label, 0),
        "segment_scores": hand.floats_feature(1.0, 0.0),
    }
    sizes = {"rgb": 1024, "audio": 128}
    return hand.sequence_example(
        context, **{name: [rng.bytes(size) for _ in range(10)] for name, size in sizes.items()}
    )


@pytest.fixture(scope="module")
def place(sample_dir, tmp_path_factory):
    """A folder with what the pages name: records, runs, videos, lists and names."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "3").mkdir()
    rng = np.random.default_rng(0)
    for path in sample_dir.iterdir():
        (folder / path.name).symlink_to(path)
    for place in ("2", "data/frame"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).symlink_to(sample_dir)
    for name in ("gat", "sa"):
        write_run(folder / "runs" / name, DataConfig(num_classes=8, max_frames=12))
    for name in ("netvlad", "nextvlad"):  # Beside the run that SERVING.md trains.
        write_run(folder / "runs" / name, DataConfig(normalize="concat"))
    for split, count in (("validate", 12), ("held_out", 8), ("test", 4)):
        records = [rated_clip(rng, f"{split}{number}", number % 4) for number in range(count)]
        hand.write(folder / f"3/{split}00.tfrecord", records)
    (folder / "audioset").mkdir()
    hand.write(
        folder / "audioset/train00.tfrecord",
        [
            hand.sequence_example(
                {
                    "video_id": hand.bytes_feature(b"clip%d" % number),
                    "labels": hand.ints_feature((0, 5, 72, 6, 137, 7)[number % 6]),
                },
                audio_embedding=[rng.bytes(128) for _ in range(10)],
            )
            for number in range(60)
        ],
    )
    pixels = keras.Input((8, 8, 3))
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels)).save(folder / "mean.keras")
    lines = ["path,label"]
    for number in range(20):
        video = f"new/{number}.mp4" if number else "new/holiday.mp4"
        (folder / "new").mkdir(exist_ok=True)
        tiny_videos.write(folder / video, tiny_videos.numbered(10)[:: 1 - 2 * (number % 2)])
        lines.append(f"{video},{('cat', 'dog')[number % 2]}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    (folder / "new.csv").write_text("path\nnew/holiday.mp4\n")
    (folder / "segment_label_ids.csv").write_text("Index\n0\n1\n2\n3\n")
    for name in ("submission", "netvlad", "gat"):
        (folder / f"{name}.csv").write_text(
            "VideoId,LabelConfidencePairs\nb002,0 0.5\nb003,1 0.4\n"
        )
    (folder / "vocabulary.csv").write_text(
        "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,"
        "WikiDescription\n"
        + "".join(f"{n},9,/m/{n},Name {n},,{'Arts' if n % 2 else 'Games'},,,\n" for n in range(8))
    )
    return folder


def words_of(command, printed):
    """The words to run: with sizes for a test in place of the page's, and without `...`."""
    more = []
    for beginning, left_out in LEFT_OUT.items():
        if command.startswith(beginning):
            more += left_out
    if command == "yt8m-gat train ...":  # VIDEOS.md: extract prints this line, ready to paste.
        command = "yt8m-gat " + re.findall(r"^To train:\n.* (train .*)$", printed, re.MULTILINE)[0]
    words = [word for word in shlex.split(command) if word != "..."]
    words = words[1:] if words[0] == "yt8m-gat" else [words[1].removesuffix(".py"), *words[2:]]
    if not any(word.startswith("--extractor=") for word in words):  # It has the settings.
        more += SMALL.get(words[0], ())
    if "--protocol=sceptic" in words:  # It takes minutes; test_evaluate_job.py runs it.
        words.remove("--protocol=sceptic")
        transfers = any(word.startswith("--transfer_from") for word in words)
        more += [f"--attacks={'transfer' if transfers else 'fgm'}", "--epsilons=0.5"]
    given = {word.split("=")[0] for word in more}
    words = [word for word in words if word.split("=")[0] not in given]
    return [word.replace("=...", "=train*.tfrecord") for word in words] + more


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path / page, symlinks=True)
    monkeypatch.chdir(tmp_path / page)
    printed, ran = "", []
    for command in commands_of(page):
        if any(command.startswith(beginning) for beginning in NOT_RUN):
            continue
        name, *words = words_of(command, printed)
        main = importlib.import_module(f"yt8m_gat.commands.{name.replace('-', '_')}").main
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                code = main(words)
            except SystemExit as end:
                code = end.code
        assert not code, f"{page}.md: {command}: {words}"
        printed = output.getvalue()
        ran.append(name)
    assert ran


def test_every_reason_not_to_run_a_command_is_one_of_a_command():
    commands = [command for page in PAGES for command in commands_of(page)]
    assert all(any(c.startswith(beginning) for c in commands) for beginning in NOT_RUN)
