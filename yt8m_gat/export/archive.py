"""Archives of trained models, for passing them on: `--output_model_tgz`, `--input_model_tgz`.

An archive is a gzip-compressed tar file with these members, of which `format.json` comes first:

| member | content |
|---|---|
| `format.json` | `{"format": "yt8m_gat model", "version": V}`: V from 1 to 4, see below |
| `config.json` | the run's configuration |
| `best.weights.h5` | its best weights |
| `versions.json` | versions of the packages that trained it, if known |
| `label_map.csv` | its label map, if it has one |
| `backbone.json` | the architecture of its backbone, if that was read from a file |
| `calibration.json` | temperature and thresholds, if it is calibrated |
| `extractor/NAME` | the files of its extractor, if it has one: at most 8, with plain names |

The version is 2 with an extractor, 3 with a backbone, 4 with a calibration, and else 1.

An archive may come from anywhere, so nothing in it is trusted: members of other names or kinds
(absolute paths, `..`, links, devices), repeated ones and too large ones are refused before
anything appears in the target folder.
"""

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from yt8m_gat.config import CONFIG_FILE, ConfigError, RunConfig
from yt8m_gat.disk import replacing
from yt8m_gat.locks import LOCK_FILE, only_writer, only_writer_in
from yt8m_gat.paths import require_own_files
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import excerpt, parse_json

FORMAT = "yt8m_gat model"
VERSION = 4
FORMAT_FILE = "format.json"
VERSIONS_FILE = "versions.json"

MAX_BYTES = 8 << 30
"""Maximal unpacked size of an archive; the largest recipe at full size has 0.3 GB."""

MAX_TEXT_BYTES = 64 << 20
"""Maximal size of each member that is text."""

MAX_EXTRACTOR_FILES = 8
"""Most files of an extractor; ours have up to six."""

_EXTRACTOR_FILE = re.compile(r"extractor/[A-Za-z0-9_][A-Za-z0-9_.-]{,80}")

_CHUNK_BYTES = 1 << 20


class ArchiveError(ConfigError):
    """An archive that is not one of ours, is damaged, or is not safe to unpack."""


def _member_paths(folder: RunFolder) -> dict[str, Path]:
    """Returns a mapping: name in the archive -> file in a run folder."""
    paths = [
        folder.path / CONFIG_FILE,
        folder.best_weights,
        folder.path / VERSIONS_FILE,
        folder.label_map,
        folder.backbone,
        folder.calibration,
    ]
    of_extractor = sorted(folder.extractor.iterdir()) if folder.extractor.is_dir() else []
    named = {f"{folder.extractor.name}/{path.name}": path for path in of_extractor}
    return {
        **{path.name: path for path in paths},
        **{name: path for name, path in named.items() if _EXTRACTOR_FILE.fullmatch(name)},
    }


def write_archive(folder: RunFolder, path: str | os.PathLike) -> None:
    """Writes the best state of a run as an archive, completely or not at all.

    The same run always gives the same bytes. The SHA-256 of the member identifies the weights:
    `evaluation.json` and the `provenance.json` of a SavedModel record the same one.

    Args:
        folder: The run.
        path: The archive; an existing one is replaced.

    Raises:
        ConfigError: The folder holds no run, or `path` is one of its files.
        FileNotFoundError: The best weights or the label map of the run are missing.
        InUseError: Another process writes the archive.
    """
    require_own_files({"the archive": path}, folder.own_files())
    with (
        only_writer(path),
        _opened_members(folder) as members,
        replacing(path) as temporary,
        open(temporary, "wb") as file,
        # Weights hardly shrink at higher levels either.
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        # The lowest version that knows the members, so that older installations can read it.
        version = 2 if any(map(_EXTRACTOR_FILE.fullmatch, members)) else 1
        version = 3 if folder.backbone.name in members else version
        version = 4 if folder.calibration.name in members else version
        about = json.dumps({"format": FORMAT, "version": version}).encode()
        archive.addfile(_member(FORMAT_FILE, len(about)), io.BytesIO(about))
        for name, content in members.items():
            archive.addfile(_member(name, os.fstat(content.fileno()).st_size), content)


@contextlib.contextmanager
def _opened_members(folder: RunFolder) -> Iterator[dict[str, BinaryIO]]:
    """Opens the files of one run, all before any is read; yields them by their archive names.

    A run that is being trained replaces its best weights, but open files do not change. If another
    run begins in the folder meanwhile, all are opened again: its configuration is written before
    its weights.
    """
    opened = False
    while not opened:
        config, config_bytes = RunConfig.load_with_bytes(folder.path)
        needed = {CONFIG_FILE, folder.best_weights.name}
        if config.data.label_map is not None:
            needed.add(folder.label_map.name)
        with contextlib.ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for name, source in _member_paths(folder).items():
                try:
                    files[name] = stack.enter_context(open(source, "rb"))
                except FileNotFoundError as error:
                    if name in needed:
                        raise FileNotFoundError(
                            f"{source} is missing: an archive needs the best weights of a run "
                            "that has been validated, and its label map if it has one"
                        ) from error
            config_now = (folder.path / CONFIG_FILE).read_bytes()
            opened = files[CONFIG_FILE].read() == config_bytes == config_now
            if opened:
                files[CONFIG_FILE].seek(0)
                yield files


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def read_archive(
    path: str | os.PathLike, target_dir: str | os.PathLike, max_bytes: int = MAX_BYTES
) -> RunFolder:
    """Unpacks an archive, completely or not at all.

    Args:
        path: The archive.
        target_dir: Folder to unpack to: a new or empty one, or one to which an archive was
            unpacked before, which is replaced.
        max_bytes: Maximal unpacked size.

    Returns:
        The folder: a run for evaluation and inference, not for resuming.

    Raises:
        ArchiveError: It is not an archive of this package, of a newer version, damaged, or unsafe.
        ConfigError: `target_dir` holds other files.
        InUseError: Another process unpacks or trains there.
        OSError: A file cannot be read or written.
    """
    path, target = Path(path), Path(target_dir).resolve()
    with only_writer(target, make_folder=True), _nobody_trains_in(target):
        _check_replaceable(target)
        with replacing(target) as temporary:
            temporary.mkdir()
            _unpack(path, temporary, max_bytes)
            _check_run(path, RunFolder(temporary))
            if target.exists():
                shutil.rmtree(target)
    return RunFolder(target)


def is_unpacked(folder: RunFolder) -> bool:
    """Returns whether a run came from an archive."""
    return (folder.path / FORMAT_FILE).is_file()


def _nobody_trains_in(target: Path) -> contextlib.AbstractContextManager[None]:
    return only_writer_in(target) if target.is_dir() else contextlib.nullcontext()


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    names = sorted({*os.listdir(target)} - {LOCK_FILE}) if target.is_dir() else ["a file"]
    ours = {FORMAT_FILE, *(name.partition("/")[0] for name in _member_paths(RunFolder(target)))}
    if names and not (set(names) <= ours and FORMAT_FILE in names):
        raise ConfigError(
            f"{target} must be a new or empty folder, or one that a model archive was unpacked "
            f"to. It holds {', '.join(names[:5])}"
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns errors of damaged bytes into an `ArchiveError` that names the archive."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveError(
            f"{path} is no model archive (--output_model_tgz writes one), or is damaged: {error}"
        ) from error


def _unpack(path: Path, folder: Path, max_bytes: int) -> None:
    paths = _member_paths(RunFolder(folder))
    limits = {FORMAT_FILE: MAX_TEXT_BYTES} | dict.fromkeys(paths, MAX_TEXT_BYTES)
    limits[RunFolder(folder).best_weights.name] = max_bytes
    left = max_bytes
    of_extractor: set[str] = set()
    with gzip.open(path, "rb") as compressed:
        for member in _members(path, compressed):
            if FORMAT_FILE in limits and member.name != FORMAT_FILE:
                raise _not_ours(path, f"its first member is {member.name!r}")
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                raise ArchiveError(
                    f"{path}: members must be plain files, not links, folders, devices or "
                    "extended headers. "
                    f"Received: {member.name!r}, of type {member.type!r}"
                )
            if (
                _EXTRACTOR_FILE.fullmatch(member.name)
                and member.name not in of_extractor
                and len(of_extractor) < MAX_EXTRACTOR_FILES
            ):
                of_extractor.add(member.name)
                limits[member.name] = max_bytes
                (folder / member.name).parent.mkdir(exist_ok=True)
            if member.name not in limits:
                raise ArchiveError(
                    f"{path}: members must be {FORMAT_FILE}, {', '.join(paths)}, each once, and at "
                    f"most {MAX_EXTRACTOR_FILES} files of an extractor. Received: {member.name!r}"
                )
            limit = min(limits.pop(member.name), left)
            if not 0 <= member.size <= limit:
                raise ArchiveError(
                    f"{path}: member {member.name} must have at most {limit} bytes. Received: "
                    f"{member.size}"
                )
            left -= member.size
            _copy(path, compressed, member, folder / member.name)
            if member.name == FORMAT_FILE:
                _check_format(path, (folder / FORMAT_FILE).read_bytes())
        # gzip's checksum comes last in the file.
        with _reading(path):
            rest = compressed.read(_CHUNK_BYTES)
    if len(rest) == _CHUNK_BYTES:
        raise ArchiveError(f"{path}: nothing must follow the last member")


def _members(path: Path, compressed: gzip.GzipFile) -> Iterator[tarfile.TarInfo]:
    """Yields the headers, one block each; the caller reads `size` bytes before the next one.

    `tarfile.open` would also follow any number of headers that change the next one; our archives
    have none.
    """
    while True:
        with _reading(path):
            header = compressed.read(tarfile.BLOCKSIZE)
            if not header:
                return
            try:
                member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            except tarfile.EOFHeaderError:
                return
            except UnicodeDecodeError as error:
                raise tarfile.InvalidHeaderError(str(error)) from error
        yield member
        with _reading(path):
            compressed.read(-member.size % tarfile.BLOCKSIZE)


def _copy(path: Path, compressed: gzip.GzipFile, member: tarfile.TarInfo, target: Path) -> None:
    with open(target, "xb") as file:
        left = member.size
        while left:
            with _reading(path):
                chunk = compressed.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise EOFError(f"member {member.name} ends early")
            file.write(chunk)
            left -= len(chunk)


def _not_ours(path: Path, reason: str) -> ArchiveError:
    return ArchiveError(
        f"{path} is no model archive of yt8m_gat (--output_model_tgz writes one): {reason}"
    )


def _check_format(path: Path, content: bytes) -> None:
    try:
        values = parse_json(content)
    except ValueError as error:
        raise _not_ours(path, f"{FORMAT_FILE} is not JSON") from error
    version = values.get("version") if isinstance(values, dict) else None
    if version is None or values.get("format") != FORMAT or type(version) is not int:
        raise _not_ours(path, f"{FORMAT_FILE} holds {excerpt(values)}")
    if not 1 <= version <= VERSION:
        raise ArchiveError(
            f"{path} must be of version 1 to {VERSION}. Received: version {version}; a newer "
            "yt8m_gat wrote it: install that"
        )


def _check_run(path: Path, folder: RunFolder) -> None:
    if not folder.best_weights.is_file():
        raise ArchiveError(f"{path} is incomplete: {folder.best_weights.name} is missing")
    if not (folder.path / CONFIG_FILE).is_file():
        raise ArchiveError(f"{path} is incomplete: {CONFIG_FILE} is missing")
    try:
        config = RunConfig.load(folder.path)
    except ConfigError as error:
        raise ArchiveError(f"{path}: {CONFIG_FILE} does not read: {error}") from error
    if (config.data.label_map is not None) != folder.label_map.is_file():
        raise ArchiveError(
            f"{path}: {folder.label_map.name} must be there if, and only if, {CONFIG_FILE} names a "
            "label map"
        )
