"""What a job has measured of each video so far, so that the same call goes on after a kill."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_gat.digests import digest_of
from yt8m_gat.disk import replacing, writing
from yt8m_gat.extraction.job_file import claim
from yt8m_gat.untrusted import fits, read_json
from yt8m_gat.video.clips import Clip

_JOB = ".job.json"


class KeptVideos:
    """The work of a job on videos, kept video by video.

        FOLDER/
            .job.json              what was asked for, so that only the same job is continued
            00000000.json ...      what was measured of a video, by its place in the list

    A video whose file has changed since is not kept. One process at a time may use the folder.

    Args:
        folder: The folder, created for the first video; None: nothing is kept.
        clips: The videos of the job.
        settings: Plain values on which the figures depend.

    Raises:
        ConfigError: The folder holds the work of another job; the message says what differs.
    """

    def __init__(
        self, folder: str | os.PathLike | None, clips: Sequence[Clip], settings: Mapping[str, Any]
    ) -> None:
        self._folder = None if folder is None else Path(folder)
        self._clips = clips
        lines = (json.dumps(dataclasses.asdict(clip), sort_keys=True) for clip in clips)
        self._asked = {
            "settings": dict(settings),
            "videos": digest_of(f"{line}\n".encode() for line in lines),
        }
        self._is_claimed = False
        self.num_kept = 0
        if self._folder is not None:
            self.num_kept = len(list(self._folder.glob("[0-9]*.json")))
            if self.num_kept:
                self._claim(self._folder)

    def read(self, number: int) -> Any:
        """Returns what was kept of a video, as JSON gives it back; None: nothing."""
        if self._folder is None or not (path := self._file(self._folder, number)).is_file():
            return None
        try:
            kept = read_json(path)
        except ValueError:
            return None
        if not fits(kept, {"file": list, "measured": dict}) or kept["file"] != self._state(number):
            return None
        return kept["measured"]

    def keep(self, number: int, measured: Mapping[str, Any]) -> None:
        """Keeps plain values about a video.

        Raises:
            WriteError: They cannot be written.
        """
        if self._folder is None:
            return
        if not self._is_claimed:
            with writing(self._folder):
                self._folder.mkdir(exist_ok=True)
                # Without a video there is nothing that its settings would matter for.
                (self._folder / _JOB).unlink(missing_ok=True)
            self._claim(self._folder)
        text = json.dumps({"file": self._state(number), "measured": measured})
        with replacing(self._file(self._folder, number)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _claim(self, folder: Path) -> None:
        claim(
            folder / _JOB,
            self._asked,
            holder=str(folder),
            unshown={"videos": "other videos, parts or labels"},
            remedy="Give the same flags and the same list to continue it, remove that folder, or "
            "name another output",
        )
        self._is_claimed = True

    def _state(self, number: int) -> list[int] | None:
        try:
            stat = os.stat(self._clips[number].path)
        except OSError:
            return None  # Reading the video says so.
        return [stat.st_size, stat.st_mtime_ns]

    @staticmethod
    def _file(folder: Path, number: int) -> Path:
        return folder / f"{number:08d}.json"
