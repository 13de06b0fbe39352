"""The resumable job, with records that are made without any video."""

import csv
import json

import pytest
import tensorflow as tf

from yt8m_gat.config import ConfigError
from yt8m_gat.data.label_space import read_label_names
from yt8m_gat.extraction import shards
from yt8m_gat.extraction.shards import Made, one_by_one, parse_splits, tasks_of, write_shards
from yt8m_gat.locks import InUseError
from yt8m_gat.video.clips import Clip
from yt8m_gat.video.decoding import VideoError

CLIPS = [
    Clip(f"clips/v{number:02d}.mp4", ("cat" if number % 2 else "dog, big",)) for number in range(20)
]
NAMES = ["cat", "dog, big"]
SPLITS = (("train", 3), ("validate", 1))


class Killed(BaseException):
    """Ends a job as a signal would."""


def make(task):
    if task.clip_id == "v07":
        raise VideoError("clips/v07.mp4: is no video")
    faults = "cut short" if task.clip_id == "v03" else ""
    record = f"{task.clip_id} {task.labels}".encode()
    return Made(record, {"frames": task.number + 1, "seconds": 0.5, "faults": faults})


def tasks(splits=SPLITS):
    return tasks_of(CLIPS, NAMES, splits)


def write(folder, make=make, **options):
    options = {"names": NAMES, "settings": {"rate": 1.0, "model": {"size": 3}}} | options
    options = {"num_shards": 2, "on_bad_file": "skip"} | options
    return write_shards(folder, options.pop("tasks", tasks()), one_by_one(make, 2), **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def records(folder):
    return {
        path.name: [
            record.decode() for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        ]
        for path in sorted(folder.glob("*.tfrecord"))
    }


def test_every_clip_is_in_its_shard_and_in_the_manifest(tmp_path):
    summary = write(tmp_path)
    found = records(tmp_path)
    assert list(found) == [f"{s}0{n}.tfrecord" for s in ("train", "validate") for n in (0, 1)]
    for split in ("train", "validate"):
        of_split = [task for task in tasks() if task.split == split]
        for shard in (0, 1):
            expected = [
                f"{task.clip_id} {task.labels}"
                for task in of_split[shard::2]
                if task.clip_id != "v07"
            ]
            assert found[f"{split}0{shard}.tfrecord"] == expected
    with (tmp_path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"v{number:02d}" for number in range(20)]
    assert rows[4] == {
        "path": "clips/v04.mp4",
        "id": "v04",
        "split": tasks()[4].split,
        "labels": "1",
        "frames": "5",
        "seconds": "0.5",
        "faults": "",
    }
    assert (rows[7]["frames"], rows[7]["faults"]) == ("0", "clips/v07.mp4: is no video")
    assert summary.num_clips == {
        split: sum(t.split == split and t.clip_id != "v07" for t in tasks())
        for split in ("train", "validate")
    }
    assert (summary.num_bad, summary.num_faulty, summary.most_frames) == (1, 1, 20)
    assert [path.name for path in summary.shards] == list(found)
    assert read_label_names(tmp_path / "label_names.csv") == dict(enumerate(NAMES))
    assert not (tmp_path / ".unfinished").exists()


def test_a_split_depends_on_the_id_alone():
    splits = {task.clip_id: task.split for task in tasks_of(CLIPS, NAMES, SPLITS)}
    fewer = tasks_of(CLIPS[5:9], NAMES, SPLITS)
    assert {task.clip_id: task.split for task in fewer} == {
        name: splits[name] for name in ("v05", "v06", "v07", "v08")
    }
    many = [shards.split_of(str(number), SPLITS) for number in range(4000)]
    assert abs(many.count("train") - 3000) < 100
    assert shards.split_of("x", ()) == ""


def test_killed_after_each_clip_it_makes_the_same_bytes(tmp_path):
    write(tmp_path / "whole")
    made = []

    def make_some(task):
        if len(made) % 3 == 2:
            made.append("killed")
            raise Killed
        made.append(task.clip_id)
        return make(task)

    for _ in range(100):
        try:
            write_shards(
                tmp_path / "killed",
                tasks(),
                one_by_one(make_some),
                names=NAMES,
                settings={"rate": 1.0, "model": {"size": 3}},
                num_shards=2,
                on_bad_file="skip",
            )
            break
        except Killed:
            # What a signal leaves: half a file under its temporary name.
            (tmp_path / "killed" / ".unfinished" / ".00000000.record.unfinished").write_bytes(b"x")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert made.count("killed") >= 8
    # A clip that was finished is not made again; one that was in a thread may be.
    assert len(made) - made.count("killed") <= 20 + 2 * made.count("killed")


def test_a_finished_job_makes_nothing(tmp_path):
    first = write(tmp_path)
    before = contents(tmp_path)

    def fail(task):
        raise AssertionError(task)

    assert write(tmp_path, fail, prepare=fail) == first
    assert contents(tmp_path) == before


def test_a_killed_job_finds_a_shard_that_is_whole(tmp_path, monkeypatch):
    write(tmp_path / "whole")
    write_shard = shards._Job._write
    for shard in ("train01.tfrecord", "validate01.tfrecord"):

        def killed(self, name, tasks, at=shard):
            rows = write_shard(self, name, tasks)
            if name == at:
                raise Killed  # The shard is in its place, its listing is not.
            return rows

        with monkeypatch.context() as patch:
            patch.setattr(shards._Job, "_write", killed)
            with pytest.raises(Killed):
                write(tmp_path / "killed")
        assert (tmp_path / "killed" / shard).is_file()
    write(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_an_error_stops_the_job_and_what_is_done_is_kept(tmp_path):
    with pytest.raises(VideoError, match=r"v07\.mp4: is no video"):
        write(tmp_path, on_bad_file="error")
    kept = len(list((tmp_path / ".unfinished").glob("*.record")))
    kept += len(list(tmp_path.glob("*.tfrecord")))
    assert kept
    write(tmp_path)
    write(tmp_path.parent / "whole")
    assert contents(tmp_path) == contents(tmp_path.parent / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"rate": 2.0, "model": {"size": 3}}}, r"rate: 1\.0 != 2\.0"),
        ({"settings": {"rate": 1.0, "model": {"size": 4}}}, r"model\.size: 3 != 4"),
        ({"num_shards": 3}, r"num_shards: 2 != 3"),
        ({"names": ["dog", "cat"]}, "other names of labels"),
        ({"tasks": tasks(())}, "other clips, labels or splits"),
        ({"tasks": tasks_of(CLIPS[1:], NAMES, SPLITS)}, "other clips, labels or splits"),
    ],
)
@pytest.mark.parametrize("is_done", [True, False])
def test_another_job_is_refused(tmp_path, changes, message, is_done):
    if is_done:
        write(tmp_path)
    else:
        with pytest.raises(VideoError):
            write(tmp_path, on_bad_file="error")
    before = contents(tmp_path) if is_done else None
    with pytest.raises(ConfigError, match=message):
        write(tmp_path, **changes)
    assert before is None or contents(tmp_path) == before


def test_records_of_something_else_are_not_mixed(tmp_path):
    (tmp_path / "train00.tfrecord").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"It holds train00\.tfrecord: name another folder"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train00.tfrecord"]


def test_one_writer(tmp_path):
    def second(task):
        with pytest.raises(InUseError):
            write(tmp_path)
        return make(task)

    # In a thread, as another process would.
    write(tmp_path, second, tasks=tasks()[:1])


def test_a_shard_of_bad_files_only_is_not_written(tmp_path):
    bad = [task for task in tasks(()) if task.clip_id == "v07"]
    summary = write(tmp_path, tasks=bad)
    assert summary.shards == () and summary.num_bad == 1
    assert not list(tmp_path.glob("*.tfrecord"))


def test_without_labels_and_without_splits(tmp_path):
    clips = [Clip(f"{name}.mp4") for name in "abc"]
    write(tmp_path, tasks=tasks_of(clips, []), names=[], num_shards=1)
    assert records(tmp_path) == {"videos00.tfrecord": ["a ()", "b ()", "c ()"]}
    assert not (tmp_path / "label_names.csv").exists()


def test_results_come_in_order_and_few_at_a_time():
    started = []

    def slow(task):
        started.append(task.number)
        return Made(b"", {})

    results = one_by_one(slow, 3)(tasks())
    next(results)
    assert len(started) <= 6
    results.close()
    assert len(list(one_by_one(make, 3)(tasks()))) == 20


def test_splits_are_parsed():
    assert parse_splits("train:8, validate:1,test:1") == (
        ("train", 8),
        ("validate", 1),
        ("test", 1),
    )
    assert parse_splits("") == ()
    for text in ("train", "train:0", "train:x", "tr/ain:1", "train:1;validate:1"):
        with pytest.raises(ConfigError, match="--splits must be names and shares"):
            parse_splits(text)
    with pytest.raises(ConfigError, match="different names"):
        parse_splits("a:1,a:2")


def test_a_few_are_chosen_evenly():
    assert shards.sampled(range(10), 4) == [0, 2, 5, 7]
    assert shards.sampled(range(3), 4) == [0, 1, 2]


def test_names_that_are_no_text_survive(tmp_path):
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    write(tmp_path, tasks=tasks_of([Clip(name)], []), names=[])
    [row] = shards.read_manifest(tmp_path)
    assert (row["path"], row["id"]) == (name, "caf\\udce9")
    assert records(tmp_path) == {"videos00.tfrecord": ["caf\\udce9 ()"]}
    assert json.loads((tmp_path / ".job.json").read_text())["num_shards"] == 2
