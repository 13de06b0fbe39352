"""Lists of clips: which parts of which files, with which labels."""

from __future__ import annotations

import csv
import dataclasses
import glob
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from yt8m_gat.untrusted import excerpt, quoted, read_text
from yt8m_gat.video.frame_folder import is_frame_folder, num_pictures

VIDEO_ENDINGS = frozenset(
    {
        *(".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov"),
        *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm"),
        *(".wmv", ".y4m", ".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"),
    }
)
"""Endings of the files that are taken from a folder; other files in it are left out."""

LIST_ENDINGS = frozenset({".csv", ".txt"})
"""Endings of lists; no video has them."""

_MAX_LIST_BYTES = 1 << 30
_COLUMNS = ("path", "label", "start", "end")


class ClipListError(ValueError):
    """A list, pattern or folder that names no clips: one line with the rule and the remedy."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A part of a file, with its labels.

    Attributes:
        path: The file, or a folder of numbered pictures.
        labels: Names of classes, each once.
        start: Seconds at which it begins.
        end: Seconds at which it ends; None: where the file ends.
    """

    path: str
    labels: tuple[str, ...] = ()
    start: float = 0.0
    end: float | None = None


def clips_of(words: Iterable[str]) -> list[Clip]:
    """Returns the clips that the words of a command line name, each once.

    A word is a list (its name ends in `.csv` or `.txt`; see `read_clips`), a folder, a file, or a
    pattern of `glob`. Each folder inside a named folder is a class: its files, also those in
    folders below, have its name as their label. The files directly in the named folder have none.
    A folder of numbered pictures, without a video among them, counts as a file.

    Args:
        words: The words.

    Raises:
        ClipListError: A word names no file, or see `read_clips`.
        OSError: A list cannot be read.
    """
    found: list[Clip] = []
    for word in words:
        if os.path.isdir(word):
            found += _clips_in(Path(word))
        elif os.path.splitext(word)[1].lower() in LIST_ENDINGS:
            found += read_clips(word)
        elif os.path.lexists(word):
            found.append(Clip(os.path.normpath(word)))
        else:
            paths = sorted(filter(os.path.isfile, glob.glob(word, recursive=True)))
            if not paths:
                raise ClipListError(f"no file has this name or matches this pattern: {word!r}")
            found += [Clip(os.path.normpath(path)) for path in paths]
    return _merged(found)


def read_clips(path: str | os.PathLike) -> list[Clip]:
    """Reads a list of clips.

    A file whose name ends in `.csv` has the columns `path,label[,start,end]`, in this order or as
    its first line names them; the label may be empty. Any other file has lines `path label`, as
    other video code writes them; the label is what follows the last blank. A path may be a folder
    of numbered pictures, also as `folder count label`, with the number of the pictures. Paths are
    relative to the folder of the list. Lines with equal path, start and end are one clip with
    several labels.

    Args:
        path: The list, in UTF-8.

    Raises:
        ClipListError: A line is wrong, which the message names; or there is none.
        OSError: The file cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "clips.csv")
        ...     _ = path.write_text("path,label,start,end\\na.mp4,cat,0,5\\na.mp4,dog,0,5\\n")
        ...     [clip] = read_clips(path)
        >>> clip.labels, clip.start, clip.end
        (('cat', 'dog'), 0.0, 5.0)
    """
    try:
        text = read_text(path, _MAX_LIST_BYTES, "utf-8-sig")
    except ValueError as error:
        raise ClipListError(f"{_shown(path)}: {error}") from error
    read = _read_csv if os.fspath(path).lower().endswith(".csv") else _read_lines
    folder = os.path.dirname(os.fspath(path))
    clips = [
        dataclasses.replace(
            clip, path=_without_count(_shown(path), os.path.join(folder, clip.path))
        )
        for clip in read(_shown(path), text)
    ]
    if not clips:
        raise ClipListError(f"{_shown(path)}: holds no clip; write one a line")
    return _merged(clips)


def label_names(clips: Iterable[Clip]) -> list[str]:
    """Returns the names of the classes, in the order of their numbers.

    Labels that are all whole numbers are the numbers of their classes, so that lists of training
    and of validation agree; other labels are sorted.

    Args:
        clips: The clips.

    Raises:
        ClipListError: A number of a class is too large.

    Example:
        >>> label_names([Clip("a", ("2",)), Clip("b", ("0",))])
        ['0', '1', '2']
        >>> label_names([Clip("a", ("dog", "10")), Clip("b", ("cat",))])
        ['10', 'cat', 'dog']
    """
    names = {label for clip in clips for label in clip.labels}
    if not names or not all(name.isascii() and name.isdigit() for name in names):
        return sorted(names)
    largest = max((name.lstrip("0") or "0" for name in names), key=lambda name: (len(name), name))
    if len(largest) > 6:
        raise ClipListError(
            "labels that are all numbers are numbers of classes and must be below 1000000. "
            f"Received: {excerpt(largest)}; write names"
        )
    return [str(number) for number in range(int(largest) + 1)]


def label_numbers(clips: Iterable[Clip], names: Sequence[str]) -> list[list[int]]:
    """Returns the sorted numbers of each clip's classes.

    Args:
        clips: The clips.
        names: Names of the classes, in order, as of `label_names`.

    Raises:
        ClipListError: A label is not among the names.
    """
    numbers = {name: number for number, name in enumerate(names)}
    found = []
    for clip in clips:
        for label in clip.labels:
            if label not in numbers:
                # 07 is class 7.
                number = numbers.get(label.lstrip("0") or "0") if label.isdigit() else None
                if number is None:
                    raise ClipListError(
                        f"{_shown(clip.path)}: no class has the name {excerpt(label)}; the names "
                        "are those of the labels of training"
                    )
                numbers[label] = number
        found.append(sorted({numbers[label] for label in clip.labels}))
    return found


def clip_ids(clips: Sequence[Clip]) -> list[str]:
    """Returns an id for each clip, all different.

    It is the file's name without its ending, and `@start-end` for a part. Where two clips would
    have the same id, the ending is added, or as many folders before the name as tell them apart.
    Bytes that are no UTF-8 become `\\udcff` and the like.

    Args:
        clips: The clips, each once.

    Raises:
        ClipListError: A clip is there twice.

    Example:
        >>> clip_ids([Clip("v/a/x.mp4"), Clip("v/b/x.mp4"), Clip("v/y.mp4", start=1.5, end=4)])
        ['a/x', 'b/x', 'y@1.5-4']
    """
    ids = [_id(clip) for clip in clips]
    for num_folders in range(1 + max((len(Path(clip.path).parts) for clip in clips), default=0)):
        for with_ending in (False, True):
            counts = Counter(ids)
            ids = [
                _id(clip, num_folders, with_ending) if counts[name] > 1 else name
                for clip, name in zip(clips, ids, strict=True)
            ]
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ClipListError(f"each clip must be there once. Received twice: {min(repeated)}")
    return ids


def video_id(path: str | os.PathLike) -> str:
    """Returns the id of a file in its whole length: its name without the ending."""
    return _id(Clip(os.fspath(path)))


def _id(clip: Clip, num_folders: int = 0, with_ending: bool = False) -> str:
    path = Path(clip.path)
    *folders, name = path.parts
    folders = folders[len(folders) - num_folders :] if num_folders < len(folders) else folders
    name = os.path.join(*folders, name if with_ending else path.stem)
    if clip.start or clip.end is not None:
        name += f"@{clip.start:.10g}-" + ("" if clip.end is None else f"{clip.end:.10g}")
    # An id has to be text; names of files may have other bytes.
    return name.encode("utf-8", "backslashreplace").decode()


def _clips_in(folder: Path) -> list[Clip]:
    clips = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        parts = Path(place).relative_to(folder).parts
        files = [
            name
            for name in sorted(names)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_ENDINGS
        ]
        clips += [Clip(os.path.normpath(os.path.join(place, name)), parts[:1]) for name in files]
        # A single picture may also be the poster of the clips in the folders below.
        if not files and is_frame_folder(names) and not (num_pictures(names) == 1 and folders):
            clips.append(Clip(os.path.normpath(place), parts[:1]))
    if not clips:
        raise ClipListError(
            f"{_shown(folder)}: the folder holds no file with an ending of video or sound "
            "(.mp4, .mkv, .webm, ...), and no numbered pictures (00001.jpg, 00002.jpg, ...); name "
            "the files by a pattern"
        )
    return clips


def _without_count(source: str, path: str) -> str:
    """Returns the folder of `folder count`, as lists of folders of frames have it; else `path`."""
    folder, _, count = path.rpartition(" ")
    if count.isdecimal() and not os.path.lexists(path) and os.path.isdir(folder):
        pictures = num_pictures(os.listdir(folder))
        if int(count) != pictures:
            raise ClipListError(
                f"{source}: a folder must hold as many pictures as its line says. Received: "
                f"{_shown(folder)} with {pictures}, and the count {int(count)}. Copy the folder "
                "again, or correct the count or leave it out"
            )
        path = folder
    return os.path.normpath(path)


def _merged(clips: Iterable[Clip]) -> list[Clip]:
    """Makes one clip of those with equal path, start and end, in the order of the first ones."""
    labels: dict[tuple[str, float, float | None], dict[str, None]] = {}
    for clip in clips:
        labels.setdefault((clip.path, clip.start, clip.end), {}).update(dict.fromkeys(clip.labels))
    return [Clip(path, tuple(names), start, end) for (path, start, end), names in labels.items()]


def _read_lines(source: str, text: str) -> Iterator[Clip]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not (words := line.strip().rsplit(maxsplit=1)):
            continue
        if len(words) != 2:
            raise ClipListError(
                f"{source}, line {number}: must be a path and a label with a blank between them. "
                f"Received: {excerpt(line.strip())}"
            )
        yield Clip(words[0], (words[1],))


def _read_csv(source: str, text: str) -> Iterator[Clip]:
    # Python's own limit of a field, 128 KB, stands: it bounds what a quote that is not closed eats.
    reader = csv.reader(io.StringIO(text, newline=""))
    columns: Sequence[str] | None = None
    try:
        for row in reader:
            row = [cell.strip() for cell in row]
            if not any(row):
                continue
            if columns is None:
                columns = _COLUMNS
                if "path" in map(str.lower, row):
                    columns = _columns(f"{source}, line {reader.line_num}", row)
                    continue
            yield _clip_of(f"{source}, line {reader.line_num}", columns, row)
    except csv.Error as error:
        raise ClipListError(f"{source}, line {reader.line_num}: must be CSV: {error}") from error


def _columns(place: str, row: Sequence[str]) -> Sequence[str]:
    names = tuple(cell.lower() for cell in row)
    if unknown := set(names) - set(_COLUMNS):
        raise ClipListError(
            f"{place}: the columns must be {', '.join(_COLUMNS)}. Received: {excerpt(min(unknown))}"
        )
    if len(set(names)) != len(names):
        raise ClipListError(f"{place}: each column must be there once. Received: {excerpt(row)}")
    return names


def _clip_of(place: str, columns: Sequence[str], row: Sequence[str]) -> Clip:
    if len(row) > len(columns):
        raise ClipListError(
            f"{place}: must have at most {len(columns)} columns ({', '.join(columns)}); put a name "
            f"with a comma in double quotes. Received: {excerpt(list(row))}"
        )
    cells = dict(zip(columns, row, strict=False))
    if not cells.get("path"):
        raise ClipListError(f"{place}: the path must not be empty. Received: {excerpt(list(row))}")
    start = _seconds(place, "start", cells.get("start", "")) or 0.0
    end = _seconds(place, "end", cells.get("end", ""))
    if end is not None and end <= start:
        raise ClipListError(f"{place}: end must be after start. Received: {start:g} and {end:g}")
    labels = (cells["label"],) if cells.get("label") else ()
    return Clip(cells["path"], labels, start, end)


def _seconds(place: str, column: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ClipListError(
            f"{place}: {column} must be seconds of at least 0, or empty. Received: {excerpt(cell)}"
        )
    return value


def _shown(path: str | os.PathLike) -> str:
    return quoted(os.fspath(path))
