"""The JSON file of one evaluation, written row by row, which a later call can continue."""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_gat.digests import digest_of
from yt8m_gat.disk import replacing
from yt8m_gat.provenance import utc_now
from yt8m_gat.untrusted import MAX_JSON_BYTES, excerpt, parse_json, quoted, read_text

Row = dict[str, Any]

# Kind of row -> the keys that identify a row of that kind: each set of values occurs once.
ROW_KEYS = {
    "clean": (),
    "attacks": ("attack", "epsilon"),
    "corruptions": ("corruption", "severity"),
}
# The keys of `provenance` that describe the command that measured.
CALL_KEYS = ("measured_at", "command", "version")


@dataclasses.dataclass
class _Entry:
    """A row, and the rows of the groups that have one."""

    row: Row
    groups: dict[str, Row]

    def key(self, kind: str) -> tuple[Any, ...]:
        return tuple(self.row.get(name) for name in ROW_KEYS[kind])


class EvaluationRecord:
    """The contents of `eval.py --output_file`, which grows row by row.

    ```
    {"complete", "settings", "provenance", "clean", "attacks": [row], "corruptions": [row],
     "verticals": [...], "certificates": [...], "classes", "attention", "embeddings",
     "class_activation", "true_spans", "clips", "comparison", "survivors", "worst_cases", "sanity",
     "left_out", "checksum"}
    ```

    `left_out` names figures that the last call did not measure, as they would take too much memory.

    Clips of raw frames hold these as data URIs of JPEGs, see `yt8m_gat.pipeline.shown_frames`.

    The whole file is rewritten atomically after each row. The results of an earlier call with the
    same settings stay: a row until another of the same attack and radius (corruption and severity)
    is measured, a clip until it is shown again, any other part until it is measured again. So the
    file keeps growing, also when calls are killed or ask for other attacks. Rows and clips of this
    call come first, in its order. `complete` is true when the file has everything that the last
    call asked for.

    At the first row, a file with other settings is renamed to `NAME.old`; so is a file that
    another program has changed: `checksum` is the SHA-256 of all other parts. (A file of an older
    version has no checksum.)

    `provenance` says where the figures come from. Unknown values are null, and a file of an older
    version has no `provenance`:

    | key | meaning |
    |---|---|
    | `train_dir`, `checkpoint` | the run, and which of its states: `best` or `last` |
    | `weights` | SHA-256 of the bytes that were loaded |
    | `step` | the training step of the weights |
    | `pattern`, `files`, `num_files` | the file pattern, the first ten files, their number |
    | `num_records` | number of records in all the files |
    | `parameters` | number of parameters of the model |
    | `measured_at` | time of the last measurement, UTC, as `2026-01-31T12:00:00+00:00` |
    | `command` | the arguments of the command that measured it, the script's name first |
    | `version` | its version of yt8m_gat |
    | `num_videos` | videos in the clean row; null for rated segments |
    | `earlier_calls` | `measured_at`, `command` and `version` of each earlier call that measured |

    Args:
        settings: The settings that must agree for evaluations to be comparable; JSON values.
        path: The file; None: nothing is written.
        groups: Name -> classes of the groups for which rows have metrics too.
        start_over: Reuse nothing, and keep no earlier file.
        provenance: The entries that are known before anything is measured.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        path: str | os.PathLike | None = None,
        groups: Mapping[str, Sequence[int]] | None = None,
        start_over: bool = False,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self._settings = as_json(settings)
        self._groups = {name: len(classes) for name, classes in (groups or {}).items()}
        self._ours: dict[str, list[_Entry]] = {kind: [] for kind in ROW_KEYS}
        self._earlier: dict[str, list[_Entry]] = {kind: [] for kind in ROW_KEYS}
        self._sections: dict[str, Any] = {}
        self._known = {name: None for name in CALL_KEYS} | as_json(provenance or {})
        self._call = {name: self._known.pop(name) for name in CALL_KEYS}
        self._calls: list[dict[str, Any]] = []
        self._complete = False
        self._measured = False
        self._keep_replaced = False
        self._text = ""
        if not start_over:
            self._read()

    @property
    def result(self) -> dict[str, Any]:
        """The whole record, as the file has it after the next write."""
        rows = {kind: [*self._ours[kind], *self._earlier[kind]] for kind in ROW_KEYS}
        *earlier, last = [*self._calls, *([self._call] if self._measured else [])] or [self._call]
        clean = rows["clean"][0].row if rows["clean"] else None
        result: dict[str, Any] = {
            "complete": self._complete,
            "settings": self._settings,
            "provenance": {
                **last,
                **self._known,
                "num_videos": None if clean is None else clean.get("num_videos"),
                "earlier_calls": earlier,
            },
            "clean": clean,
            "attacks": [entry.row for entry in rows["attacks"]],
            "corruptions": [entry.row for entry in rows["corruptions"]],
        }
        if self._groups:
            result["verticals"] = [
                _vertical(name, size, rows) for name, size in self._groups.items()
            ]
        result |= self._sections
        return {**result, "checksum": _checksum(result)}

    def section(self, name: str) -> dict[str, Any]:
        """Returns a part of the current result, also of an earlier call; empty if there is none."""
        section = self._sections.get(name)
        return section if isinstance(section, dict) else {}

    def take_over(self, kind: str, identity: Mapping[str, Any], *needed: str) -> bool:
        """Reuses an earlier row, with its groups.

        Args:
            kind: `clean`, `attacks` or `corruptions`.
            identity: Keys and values that the row must have.
            *needed: Keys that it must have, with any value.

        Returns:
            Whether there was such a row.
        """
        wanted = as_json(identity)
        for entry in self._earlier[kind]:
            row = entry.row
            same = all(key in row and row[key] == value for key, value in wanted.items())
            if same and all(key in row for key in needed):
                self._put(kind, entry)
                return True
        return False

    def add(
        self,
        kind: str,
        identity: Mapping[str, Any],
        row: Mapping[str, Any],
        groups: Mapping[str, Mapping[str, Any] | None] | None = None,
        **sections: Any,
    ) -> None:
        """Adds a row, and the `sections` measured with it, and writes the file.

        Args:
            kind: `clean`, `attacks` or `corruptions`.
            identity: The keys and values that identify the row.
            row: Its metrics.
            groups: The metrics of each group, None if it has no video.
            **sections: Other parts of the result.
        """
        shown = {key: identity[key] for key in ROW_KEYS[kind]}
        of_groups = {
            name: {**shown, **metrics}
            for name, metrics in (groups or {}).items()
            if metrics is not None
        }
        new_row = as_json({**identity, **row})
        if kind == "clean":  # Figures that this call did not ask for are still valid.
            for entry in self._earlier[kind]:
                new_row = entry.row | new_row
        self._put(kind, _Entry(new_row, as_json(of_groups)))
        self._sections |= as_json(sections)
        self._write_measured()

    def set(self, **sections: Any) -> None:
        """Sets other parts of the result, and writes the file if that changes it."""
        sections = as_json(sections)
        if any(self._sections.get(name) != value for name, value in sections.items()):
            self._sections |= sections
            self._write_measured()

    def show(self, clips: Sequence[Row]) -> None:
        """Puts clips before those of earlier calls, replaces those shown again, and writes."""
        shown = {clip["video_id"] for clip in clips}
        earlier = self._sections.get("clips")
        kept = [
            clip
            for clip in (earlier if isinstance(earlier, list) else [])
            if isinstance(clip, dict) and clip.get("video_id") not in shown
        ]
        self.set(clips=[*clips, *kept])

    def finish(self) -> dict[str, Any]:
        """Marks the file as complete, and returns the whole result."""
        self._complete = True
        self._write()
        return self.result

    def _put(self, kind: str, entry: _Entry) -> None:
        """Adds a row; it replaces an earlier one with the same key."""
        key = entry.key(kind)
        self._earlier[kind] = [other for other in self._earlier[kind] if other.key(kind) != key]
        self._ours[kind].append(entry)

    def _read(self) -> None:
        """Continues an existing file if it has the same settings."""
        if self.path is None or not self.path.is_file():
            return
        self._keep_replaced = True
        try:
            self._text = read_text(self.path, MAX_JSON_BYTES)
            stored = as_json(parse_json(self._text))
            checksum = stored.pop("checksum", None)
            settings = dict(stored["settings"])
            rows = {kind: _entries(stored, kind) for kind in ROW_KEYS}
        except (ValueError, KeyError, TypeError, AttributeError):
            self._say("holds no evaluation that could be continued")
            return
        if checksum not in (None, _checksum(stored)):
            self._say("was changed since eval.py wrote it")
            return
        different = [
            f"{quoted(key)}: {excerpt(settings.get(key))} != {excerpt(self._settings.get(key))}"
            for key in sorted({*settings, *self._settings})
            if settings.get(key) != self._settings.get(key)
        ]
        if different:
            self._say(f"holds an evaluation with other settings ({'; '.join(different)})")
            return
        self._keep_replaced = False
        self._earlier = rows
        self._complete = stored.get("complete") is True
        provenance = stored.get("provenance")
        if not isinstance(provenance, dict):
            provenance = {}
        calls = provenance.get("earlier_calls")
        for call in [*(calls if isinstance(calls, list) else []), provenance]:
            if isinstance(call, dict):
                self._calls.append({name: call.get(name) for name in CALL_KEYS})
        built = {"complete", "settings", "provenance", "verticals", *ROW_KEYS}
        self._sections = {name: value for name, value in stored.items() if name not in built}

    def _say(self, reason: str) -> None:
        print(
            f"{self.path} {reason}: starting over; it is kept as {self._kept_path.name}",
            file=sys.stderr,
            flush=True,
        )

    @property
    def _kept_path(self) -> Path:
        path = Path(os.path.realpath(self.path))
        return path.with_name(path.name + ".old")

    def _write_measured(self) -> None:
        self._call["measured_at"] = utc_now()
        self._measured = True
        self._complete = False
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        text = json.dumps(self.result, indent=2, allow_nan=False) + "\n"
        if text == self._text:  # Nothing was measured, and the order is the same.
            return
        with replacing(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            if self._keep_replaced:
                os.replace(os.path.realpath(self.path), self._kept_path)
        self._keep_replaced, self._text = False, text


def attacked_rows(path: str | os.PathLike, settings: Mapping[str, Any]) -> list[Row]:
    """Returns the attacked rows of another file if it has these settings, among others.

    A file that does not exist, has other settings or was changed has none.
    """
    try:
        stored = as_json(parse_json(read_text(Path(path), MAX_JSON_BYTES)))
        checksum = stored.pop("checksum")
        same = as_json(settings).items() <= stored["settings"].items()
        return stored["attacks"] if same and checksum == _checksum(stored) else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _checksum(result: Mapping[str, Any]) -> str:
    """Returns the digest of all other parts of a result."""
    return digest_of([json.dumps(result, sort_keys=True).encode()])


def _entries(stored: Mapping[str, Any], kind: str) -> list[_Entry]:
    """Returns the rows of a kind in a file; raises what `_read` catches if malformed."""
    rows = stored[kind]
    if kind == "clean":
        rows = [] if rows is None else [rows]
    verticals = {group["vertical"]: group for group in stored.get("verticals", [])}
    entries = []
    for row in rows:
        entry = _Entry(dict(row), {})
        for name, group in verticals.items():
            of_group = [group[kind]] if kind == "clean" else group[kind]
            for other in of_group:
                if other is not None and _Entry(dict(other), {}).key(kind) == entry.key(kind):
                    entry.groups[name] = dict(other)
        entries.append(entry)
    return entries


def _vertical(name: str, num_classes: int, rows: Mapping[str, list[_Entry]]) -> dict[str, Any]:
    own = {
        kind: [entry.groups[name] for entry in entries if name in entry.groups]
        for kind, entries in rows.items()
    }
    clean = own["clean"][0] if own["clean"] else None
    return {
        "vertical": name,
        "num_classes": num_classes,
        "num_videos": 0 if clean is None else clean.get("num_videos"),
        **own,
        "clean": clean,
    }


def as_json(value: Any) -> Any:
    """Returns `value` as its JSON would be read back; a number that is not finite is None."""
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
