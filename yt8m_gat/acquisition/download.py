"""Downloads the official YouTube-8M records that the official plan lists.

    yt8m-gat download --partition=2/frame/train --mirror=us --shard=1,100 --output_dir=data/frame

The plan of a partition contains each file's MD5. Shard X of Y of a partition is every file for
which the MD5 of the name, as a number, is X - 1 modulo Y; the shards of one Y hold each file once.

A file is called `NAME.part` until it is complete and its MD5 is right. Calling the command again
resumes the download: finished files are checked and skipped, and parts are continued if the server
supports HTTP ranges, else restarted. MD5 and plain HTTP detect damage, but not a forgery.

Exits with 1 when a file could not be downloaded, with 2 when it cannot start, with 130 after
Ctrl-C. Needs only the standard library, and tqdm for the progress.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import http.client
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from yt8m_gat.config import ConfigError
from yt8m_gat.disk import put_in_place
from yt8m_gat.locks import only_writer
from yt8m_gat.untrusted import parse_json

MIRRORS = ("us", "eu", "asia")
LEVELS = ("frame", "video")
SPLITS = ("train", "validate", "test")

CHUNK_BYTES = 1 << 18
MAX_PLAN_BYTES = 1 << 26
"""The largest plan that is accepted; the official plans have 0.2 MB."""

MAX_FAILED_FILES = 10
"""After this many failures no further file is started: the cause is not in single files."""

_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE_NOT_SATISFIABLE = 416
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")


class DownloadError(Exception):
    """A file or the plan could not be downloaded; the message names it and the cause."""


class _Interrupted(Exception):
    """The download was asked to stop."""


@dataclasses.dataclass(frozen=True)
class Partition:
    """One part of the data set, such as `2/frame/train`.

    Attributes:
        version: 2 (2018) or 3 (2019, with rated segments).
        level: `frame` or `video`.
        split: `train`, `validate` or `test`.
    """

    version: str
    level: str
    split: str

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Parses a partition of the form VERSION/LEVEL/SPLIT.

        Raises:
            ConfigError: It does not have this form.
        """
        parts = text.strip("/").split("/")
        if (
            len(parts) != 3
            or not re.fullmatch("[0-9]{1,3}", parts[0])
            or parts[1] not in LEVELS
            or parts[2] not in SPLITS
        ):
            raise ConfigError(
                f"--partition must be VERSION/LEVEL/SPLIT with one of {', '.join(LEVELS)} and one "
                f"of {', '.join(SPLITS)}, for example 2/frame/train. Received: {text!r}"
            )
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.version}/{self.level}/{self.split}"

    @property
    def plan_url(self) -> str:
        """The URL of the official plan."""
        return f"http://data.yt8m.org/{self.version}/download_plans/{self.level}_{self.split}.json"

    def base_url(self, mirror: str) -> str:
        """Returns the URL of the files on a mirror."""
        return f"http://{mirror}.data.yt8m.org/{self}"


def parse_shard(text: str) -> tuple[int, int]:
    """Parses `X,Y` with 1 <= X <= Y.

    Raises:
        ConfigError: It does not have this form.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard must be X,Y with 1 <= X <= Y: shard X of Y. Received: {text!r}")
    return int(match[1]), int(match[2])


def in_shard(name: str, shard: tuple[int, int]) -> bool:
    """Returns whether a file of that name belongs to shard X of Y."""
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return int(digest, 16) % shard[1] == shard[0] - 1


def read_plan(content: bytes, url: str) -> dict[str, str]:
    """Parses a plan to file name -> MD5 (32 lower-case digits).

    Raises:
        DownloadError: It is not a plan, or a file name in it is hidden or leads out of the folder.
    """
    try:
        files = parse_json(content)["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise DownloadError(
            f"{url} is no download plan, which is JSON with `files`: {error!r}"
        ) from error
    if not isinstance(files, Mapping) or not files:
        raise DownloadError(f"{url}: `files` must map at least one file name to its MD5")
    for name, md5 in files.items():
        if not _NAME.fullmatch(name) or name.endswith(".part"):
            raise DownloadError(
                f"{url}: a file must have a plain name of letters, digits, '_', '-' and '.', not "
                f"beginning with '.' and not ending in .part. Received: {name[:300]!r}"
            )
        if not isinstance(md5, str) or not _MD5.fullmatch(md5):
            raise DownloadError(
                f"{url}: file {name} must have an MD5 of 32 hexadecimal digits. Received: "
                f"{str(md5)[:100]!r}"
            )
    return {name: md5.lower() for name, md5 in files.items()}


class Downloader:
    """Fetches files, each of them completely and checked, or not at all.

    Args:
        timeout: Seconds that a connection may be idle.
        max_attempts: Number of consecutive attempts without progress until a file is given up; a
            wrong checksum counts as one.
        first_pause: Seconds before the second attempt; each further pause is twice as long, at
            most a minute.
        report_bytes: Called with the size of each piece that arrives, from any thread.
    """

    def __init__(
        self,
        *,
        timeout: float = 30.0,
        max_attempts: int = 6,
        first_pause: float = 1.0,
        report_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._timeout = timeout
        self._max_attempts = max_attempts
        self._first_pause = first_pause
        self._report_bytes = report_bytes
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Makes every fetch in progress end soon; the parts stay, to be continued later."""
        self._stopped.set()

    def fetch_plan(self, url: str) -> dict[str, str]:
        """Fetches the plan at `url`; see `read_plan`.

        Raises:
            DownloadError: It cannot be downloaded, or is not a plan.
        """
        attempts = self._attempts(url)
        while True:
            try:
                with self._open(url) as response:
                    content = response.read(MAX_PLAN_BYTES + 1)
                    missing = response.length
            except (OSError, http.client.HTTPException) as error:
                attempts.failed(error)
                continue
            if len(content) > MAX_PLAN_BYTES:
                raise DownloadError(f"{url} is no download plan: more than {MAX_PLAN_BYTES} bytes")
            if missing:
                attempts.failed(ConnectionError(f"the connection ended {missing} bytes early"))
                continue
            return read_plan(content, url)

    def fetch(self, url: str, path: str | os.PathLike, md5: str) -> bool:
        """Fetches one file.

        Args:
            url: Its URL.
            path: The path to write; the part is in the same folder.
            md5: Its MD5, in lower-case digits.

        Returns:
            Whether it had to be fetched; False if the file exists and is right.

        Raises:
            DownloadError: It could not be downloaded, or its MD5 is wrong every time.
            InUseError: Another process is fetching it.
            OSError: It cannot be written.
        """
        path = Path(path)
        part = path.with_name(path.name + ".part")
        if path.is_file() and self._digest(path).hexdigest() == md5:
            part.unlink(missing_ok=True)
            return False
        with only_writer(path):
            self._fetch(url, part, md5)
            put_in_place(part, path)
        return True

    def _fetch(self, url: str, part: Path, md5: str) -> None:
        """Completes a part."""
        attempts = self._attempts(url)
        with open(part, "ab") as file:
            while True:
                digest = self._digest(part)
                try:
                    digest = self._receive(url, file, digest)
                except _WriteError as error:
                    raise error.reason from None
                except (OSError, http.client.HTTPException) as error:
                    attempts.failed(error, file.tell())
                    continue
                received_md5 = digest.hexdigest()
                if received_md5 == md5:
                    return
                file.truncate(0)
                attempts.failed(ConnectionError(f"its MD5 is {received_md5}, the plan says {md5}"))

    def _open(self, url: str, offset: int = 0) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.urlopen(request, timeout=self._timeout)

    def _receive(self, url: str, file: BinaryIO, digest: _Digest) -> _Digest:
        """Makes one attempt to complete a part and returns the digest of the whole part."""
        offset = file.seek(0, os.SEEK_END)
        try:
            response = self._open(url, offset)
        except urllib.error.HTTPError as error:
            if error.code != _RANGE_NOT_SATISFIABLE or not offset:
                raise
            error.close()
            # The part is complete or too long: its digest decides.
            return digest
        with response:
            if offset and not _continues_at(response, offset):
                file.truncate(0)
                file.seek(0)
                digest = _new_digest()
            while chunk := response.read1(CHUNK_BYTES):
                try:
                    file.write(chunk)
                    file.flush()
                except OSError as error:
                    raise _WriteError(error) from error
                digest.update(chunk)
                self._report_bytes(len(chunk))
                self._check_stopped()
            if response.length:
                raise ConnectionError(f"the connection ended {response.length} bytes early")
        return digest

    def _digest(self, path: Path) -> _Digest:
        digest = _new_digest()
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                self._check_stopped()
        return digest

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise _Interrupted

    def _pause(self, num_failures: int) -> None:
        self._stopped.wait(min(60.0, self._first_pause * 2 ** (num_failures - 1)))
        self._check_stopped()

    def _attempts(self, url: str) -> _Attempts:
        return _Attempts(url, self._max_attempts, self._pause)


_Digest = type(hashlib.md5(usedforsecurity=False))


def _new_digest() -> _Digest:
    return hashlib.md5(usedforsecurity=False)


class _WriteError(Exception):
    """Writing failed, in contrast to the `OSError`s of the network."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _continues_at(response: http.client.HTTPResponse, offset: int) -> bool:
    content_range = response.headers.get("Content-Range", "")
    return response.status == 206 and content_range.startswith(f"bytes {offset}-")


class _Attempts:
    """Counts consecutive attempts without progress, and gives up after too many."""

    def __init__(self, url: str, max_attempts: int, pause: Callable[[int], None]) -> None:
        self._url = url
        self._max_attempts = max_attempts
        self._pause = pause
        self._failures = 0
        self._furthest = 0

    def failed(self, error: Exception, position: int = 0) -> None:
        """Waits for the next attempt, or raises `DownloadError`."""
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            if error.code not in _RETRIED_STATUS:
                raise DownloadError(f"{self._url}: {error}") from error
        # Only a new furthest position is progress: a server without ranges may break off at the
        # same byte each time.
        if position > self._furthest:
            self._furthest = position
            self._failures = 0
        self._failures += 1
        if self._failures >= self._max_attempts:
            raise DownloadError(
                f"{self._url}: given up after {self._failures} attempts: "
                f"{str(error) or repr(error)}"
            ) from error
        self._pause(self._failures)


@dataclasses.dataclass
class Summary:
    """The result of a download.

    Attributes:
        fetched: The number of files fetched.
        present: The number of files that existed already.
        failed: The error of each file that could not be fetched.
        not_begun: The number of files not started after `MAX_FAILED_FILES` failures.
    """

    fetched: int = 0
    present: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    not_begun: int = 0


def download(
    files: Mapping[str, str],
    base_url: str,
    output_dir: str | os.PathLike,
    *,
    num_workers: int = 4,
    show_progress: bool = False,
    **options: float,
) -> Summary:
    """Fetches files, several at a time.

    Args:
        files: Name -> MD5, see `read_plan`.
        base_url: The URL before `/NAME` of each file.
        output_dir: The folder to write to; created if necessary.
        num_workers: The number of files fetched in parallel.
        show_progress: Whether to show a bar.
        **options: Arguments of `Downloader`.

    Returns:
        The result. Ctrl-C stops the download and is raised again; the parts can be continued.

    Raises:
        OSError: A file cannot be written.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    summary = Summary()
    received = _Count()
    downloader = Downloader(report_bytes=received.add, **options)
    pending = collections.deque(files.items())
    running: set[concurrent.futures.Future[bool]] = set()
    with (
        tqdm(total=len(files), unit="file", disable=not show_progress) as bar,
        concurrent.futures.ThreadPoolExecutor(num_workers) as pool,
    ):
        try:
            while running or (pending and len(summary.failed) < MAX_FAILED_FILES):
                while pending and len(running) < num_workers:
                    if len(summary.failed) >= MAX_FAILED_FILES:
                        break
                    name, md5 = pending.popleft()
                    url = f"{base_url.rstrip('/')}/{urllib.parse.quote(name)}"
                    running.add(pool.submit(downloader.fetch, url, folder / name, md5))
                done, running = concurrent.futures.wait(
                    running, timeout=0.5, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    try:
                        fetched = future.result()
                    except DownloadError as error:
                        summary.failed.append(str(error))
                    else:
                        summary.fetched += fetched
                        summary.present += not fetched
                    bar.update()
                bar.set_postfix_str(f"{received.total / 1e6:.1f} MB", refresh=False)
                bar.refresh()
        except BaseException:
            downloader.stop()
            raise
    summary.not_begun = len(pending)
    return summary


class _Count:
    """A sum that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0

    def add(self, number: int) -> None:
        with self._lock:
            self.total += number
