"""Writes one record a clip into shards: resumable, with a manifest, one writer at a time.

    OUTPUT_DIR/
        train00.tfrecord ...    the shards of each split; `videos` without splits
        label_names.csv         label_id,label_name, if the clips have labels
        manifest.csv            one line a clip; written last
        .job.json               what was asked for, so that only the same job is continued
        .unfinished/            records of a shard that is not whole; removed at the end

A finished clip is one file in `.unfinished/` until its shard is whole. So a job that was killed
loses only the clips that it was working on, and the same command makes the same bytes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import csv
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from yt8m_gat.config import ConfigError
from yt8m_gat.digests import digest_of
from yt8m_gat.disk import replacing, writing
from yt8m_gat.extraction.job_file import claim
from yt8m_gat.locks import only_writer_in
from yt8m_gat.untrusted import parse_json, printable, read_json
from yt8m_gat.video.clips import Clip, clip_ids, label_numbers
from yt8m_gat.video.decoding import VideoError

MANIFEST = "manifest.csv"
LABEL_NAMES = "label_names.csv"
COLUMNS = ("path", "id", "split", "labels", "frames", "seconds", "faults")
"""The first columns of the manifest; those that `Made` adds follow."""

ON_BAD_FILE = ("error", "skip")

UNFINISHED = ".unfinished"
"""Folder of what a job keeps until it is done."""

_JOB = ".job.json"
_WHOLE = "videos"
_SPLIT = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):([0-9]+)")


class Made(NamedTuple):
    """What a clip became.

    Attributes:
        record: The serialized record.
        columns: Values for the manifest: `frames`, `seconds`, `faults` (one text), and others.
    """

    record: bytes
    columns: Mapping[str, str | int | float]


@dataclasses.dataclass(frozen=True)
class Task:
    """One clip of a job.

    Attributes:
        clip: The clip.
        clip_id: Its id, unique in the job.
        labels: Numbers of its classes, ascending.
        split: Its split, or an empty string.
        number: Its place in the list, from 0.
    """

    clip: Clip
    clip_id: str
    labels: tuple[int, ...]
    split: str
    number: int


MakeAll = Callable[[Sequence[Task]], Iterator[Made | VideoError]]
"""Returns an iterator with what each task became, in order, or the error in its place."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a job wrote.

    Attributes:
        num_clips: Records, by split.
        num_bad: Clips that were left out.
        num_faulty: Clips with a record and faults.
        most_frames: Frames of the longest clip.
        shards: The files.
    """

    num_clips: dict[str, int]
    num_bad: int
    num_faulty: int
    most_frames: int
    shards: tuple[Path, ...]


def parse_splits(text: str) -> tuple[tuple[str, int], ...]:
    """Returns the names and shares of `train:8,validate:1,test:1`; none for an empty text.

    Raises:
        ConfigError: It has another form.
    """
    splits = []
    for part in filter(None, map(str.strip, text.split(","))):
        match = _SPLIT.fullmatch(part)
        if match is None or int(match[2]) == 0:
            raise ConfigError(
                "--splits must be names and shares, as in train:8,validate:1,test:1. "
                f"Received: {part!r}"
            )
        splits.append((match[1], int(match[2])))
    if len(dict(splits)) != len(splits):
        raise ConfigError(f"--splits must be different names. Received: {text!r}")
    return tuple(splits)


def split_of(clip_id: str, splits: Sequence[tuple[str, int]]) -> str:
    """Returns the split of a clip: a function of its id and the shares, not of the other clips.

    Args:
        clip_id: The id.
        splits: Names and shares; none: the result is an empty string.
    """
    if not splits:
        return ""
    digest = hashlib.sha256(clip_id.encode()).digest()
    place = int.from_bytes(digest[:8], "big") % sum(share for _, share in splits)
    ends = itertools.accumulate(share for _, share in splits)
    return next(name for (name, _), end in zip(splits, ends, strict=True) if place < end)


def tasks_of(
    clips: Sequence[Clip], names: Sequence[str], splits: Sequence[tuple[str, int]] = ()
) -> list[Task]:
    """Returns the tasks of a list of clips.

    Args:
        clips: The clips.
        names: Names of the classes, in order.
        splits: See `split_of`.

    Raises:
        ClipListError: Two clips are the same, or a label has no name.
    """
    labels = label_numbers(clips, names)
    named = zip(clips, clip_ids(clips), labels, strict=True)
    return [
        Task(clip, name, tuple(numbers), split_of(name, splits), number)
        for number, (clip, name, numbers) in enumerate(named)
    ]


def one_by_one(make: Callable[[Task], Made], num_threads: int = 1) -> MakeAll:
    """Returns a `MakeAll` that calls a function for each task, in several threads.

    Args:
        make: Makes one record; may raise a `VideoError`.
        num_threads: Clips at a time.
    """

    def make_or_error(task: Task) -> Made | VideoError:
        try:
            return make(task)
        except VideoError as error:
            return error

    def make_all(tasks: Sequence[Task]) -> Iterator[Made | VideoError]:
        waiting = iter(tasks)
        with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
            begun: collections.deque[concurrent.futures.Future[Made | VideoError]]
            begun = collections.deque()
            try:
                while True:
                    # As many results may wait for a slow clip as there are threads.
                    for task in itertools.islice(waiting, 2 * num_threads - len(begun)):
                        begun.append(pool.submit(make_or_error, task))
                    if not begun:
                        return
                    yield begun.popleft().result()
            finally:
                for future in begun:
                    future.cancel()

    return make_all


def write_shards(
    folder: str | os.PathLike,
    tasks: Sequence[Task],
    make_all: MakeAll,
    *,
    names: Sequence[str] = (),
    settings: Mapping[str, Any],
    num_shards: int = 1,
    on_bad_file: str = "error",
    show_progress: bool = False,
    prepare: Callable[[Sequence[Task]], object] | None = None,
) -> Summary:
    """Makes a record of each clip and writes the shards, or continues where it was interrupted.

    Clip i of a split is in its shard `i % num_shards`.

    Args:
        folder: The output folder, created if needed.
        tasks: The clips; see `tasks_of`.
        make_all: Makes the records.
        names: Names of the classes, in order, for `label_names.csv`; none: it is not written.
        settings: Plain values that define the records. A job with others is not continued.
        num_shards: Files of each split.
        on_bad_file: `error`: stop at a file that cannot be read; `skip`: leave it out, and say so
            in the manifest.
        show_progress: Show clips, rate and time left on the standard error.
        prepare: Called with the clips that are missing, if any is, before the first record is made.
            It may write to the folder, and `keep` some of them.

    Raises:
        VideoError: A file cannot be read, and `on_bad_file` is `error`.
        ConfigError: The folder holds another job, or records of something else.
        InUseError: Another process is writing there.
        WriteError: A file cannot be written.
    """
    if not tasks:
        raise ConfigError("there must be at least one clip. Received: none")
    with only_writer_in(folder):
        job = _Job(Path(folder), tasks, num_shards)
        job.begin(settings, names)
        if not job.manifest.is_file():
            if prepare is not None and (missing := job.missing()):
                prepare(missing)
            job.work(make_all, on_bad_file, show_progress)
        return job.summary()


class _Job:
    """A job in its folder."""

    def __init__(self, folder: Path, tasks: Sequence[Task], num_shards: int) -> None:
        self.folder = folder
        self.tasks = tasks
        self.manifest = folder / MANIFEST
        self._num_shards = num_shards
        self._unfinished = folder / UNFINISHED
        self._shards = _shards_of(tasks, num_shards)

    def begin(self, settings: Mapping[str, Any], names: Sequence[str]) -> None:
        """Claims the folder for this job, or finds that it is this job's."""
        lines = (json.dumps(dataclasses.asdict(task), sort_keys=True) for task in self.tasks)
        asked = {
            "settings": dict(settings),
            "num_shards": self._num_shards,
            "clips": digest_of(f"{line}\n".encode() for line in lines),
            "label_names": list(names),
        }
        path = self.folder / _JOB
        found = [] if path.is_file() else sorted(self.folder.glob("*.tfrecord"))
        if found:
            raise ConfigError(
                f"--output_dir={self.folder} must hold no records of something else. It holds "
                f"{found[0].name}: name another folder"
            )
        claim(
            path,
            asked,
            holder=f"--output_dir={self.folder}",
            unshown={
                "clips": "other clips, labels or splits",
                "label_names": "other names of labels",
            },
            remedy="Give the same flags and the same list to continue it, or name another folder",
        )
        with writing(self._unfinished):
            if not self.manifest.is_file():
                self._unfinished.mkdir(exist_ok=True)
        if names:
            with (
                replacing(self.folder / LABEL_NAMES) as temporary,
                temporary.open("w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["label_id", "label_name"])
                writer.writerows(enumerate(names))

    def missing(self) -> list[Task]:
        """Returns the clips that are still to be made."""
        return [
            task
            for name, tasks in self._shards.items()
            if not self._listing(name).is_file()
            for task in tasks
            if not part_file(self.folder, task).is_file()
        ]

    def work(self, make_all: MakeAll, on_bad_file: str, show_progress: bool) -> None:
        """Writes the shards that are missing, and the manifest."""
        rows: dict[int, dict[str, Any]] = {}
        with tqdm(
            total=len(self.tasks),
            initial=len(self.tasks) - len(self.missing()),
            unit="video",
            desc="videos",
            dynamic_ncols=True,
            smoothing=0.05,
            mininterval=0.5 if sys.stderr.isatty() else 10,
            disable=not show_progress,
        ) as bar:
            for name, tasks in self._shards.items():
                rows |= self._shard(name, tasks, make_all, on_bad_file, bar)
        columns = dict.fromkeys(COLUMNS)
        for number in sorted(rows):
            columns |= dict.fromkeys(rows[number])
        with (
            replacing(self.manifest) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[number] for number in sorted(rows))
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _shard(
        self, name: str, tasks: Sequence[Task], make_all: MakeAll, on_bad_file: str, bar: tqdm
    ) -> dict[int, dict[str, Any]]:
        """Writes one shard; returns the rows of its clips by their numbers."""
        listing = self._listing(name)
        if listing.is_file():  # Written after the shard.
            return {int(number): row for number, row in read_json(listing).items()}
        missing = [task for task in tasks if not part_file(self.folder, task).is_file()]
        for task, made in zip(missing, make_all(missing), strict=True):
            if isinstance(made, VideoError):
                if on_bad_file == "error":
                    raise made
                bar.write(printable(f"left out: {made}"), file=sys.stderr)
            keep(self.folder, task, made)
            bar.update()
        rows = self._write(name, tasks)
        with replacing(listing) as temporary:
            temporary.write_text(json.dumps(rows), encoding="utf-8")
        for task in tasks:
            part_file(self.folder, task).unlink(missing_ok=True)
        return rows

    def _listing(self, shard: str) -> Path:
        return self._unfinished / f"{shard}.json"

    def _write(self, name: str, tasks: Sequence[Task]) -> dict[int, dict[str, Any]]:
        import tensorflow as tf

        rows = {}
        path = self.folder / name
        with (
            replacing(path, tf.errors.OpError) as temporary,
            tf.io.TFRecordWriter(str(temporary)) as writer,
        ):
            num_records = 0
            for task in tasks:
                line, _, record = part_file(self.folder, task).read_bytes().partition(b"\n")
                part = parse_json(line)
                rows[task.number] = part["row"]
                if not part["is_bad"]:
                    writer.write(record)
                    num_records += 1
        if not num_records:
            path.unlink()  # A reader refuses an empty file.
        return rows

    def summary(self) -> Summary:
        """Returns what the manifest says."""
        with self.manifest.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
        good = [row for row in rows if int(row["frames"])]
        counts = collections.Counter(row["split"] for row in good)
        paths = [self.folder / name for name in self._shards]
        return Summary(
            num_clips=dict(counts),
            num_bad=len(rows) - len(good),
            num_faulty=sum(bool(row["faults"]) for row in good),
            most_frames=max((int(row["frames"]) for row in good), default=0),
            shards=tuple(path for path in paths if path.is_file()),
        )


def part_file(folder: str | os.PathLike, task: Task) -> Path:
    """Returns the file that keeps a finished clip until its shard is whole."""
    return Path(folder, UNFINISHED, f"{task.number:08d}.record")


def keep(folder: str | os.PathLike, task: Task, made: Made | VideoError) -> None:
    """Writes what a clip became as one file: a line of JSON, then the record."""
    if isinstance(made, VideoError):
        record, columns = None, {"frames": 0, "seconds": 0, "faults": str(made)}
    else:
        record, columns = made
    row = {
        "path": task.clip.path,
        "id": task.clip_id,
        "split": task.split,
        "labels": " ".join(map(str, task.labels)),
        **columns,
    }
    line = json.dumps({"row": row, "is_bad": record is None}).encode()
    with replacing(part_file(folder, task)) as temporary:
        temporary.write_bytes(line + b"\n" + (record or b""))


def _shards_of(tasks: Sequence[Task], num_shards: int) -> dict[str, list[Task]]:
    """Returns the name of each shard -> its tasks; there is none without tasks."""
    splits: dict[str, list[Task]] = {}
    for task in tasks:
        splits.setdefault(task.split, []).append(task)
    digits = max(2, len(str(num_shards - 1)))
    return {
        f"{split or _WHOLE}{shard:0{digits}d}.tfrecord": own
        for split in sorted(splits)
        for shard in range(num_shards)
        if (own := splits[split][shard::num_shards])
    }


def read_manifest(folder: str | os.PathLike) -> list[dict[str, str]]:
    """Returns the lines of a finished job's `manifest.csv`, by column."""
    path = Path(folder, MANIFEST)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def sampled(tasks: Iterable[Task], most: int) -> list[Task]:
    """Returns at most `most` tasks, evenly spaced."""
    tasks = list(tasks)
    if len(tasks) <= most:
        return tasks
    return [tasks[index * len(tasks) // most] for index in range(most)]
