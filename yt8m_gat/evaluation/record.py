"""The JSON of one evaluation: written row by row, and taken up again where it ended."""

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

# Kind of row -> what tells rows of that kind apart in a table: each set of values stands once.
ROW_KEYS = {
    "clean": (),
    "attacks": ("attack", "epsilon"),
    "corruptions": ("corruption", "severity"),
}
# What the file says of the command that measured, in `provenance`.
CALL_KEYS = ("measured_at", "command", "version")


@dataclasses.dataclass
class _Entry:
    """A row, and the rows of the groups that have one."""

    row: Row
    groups: dict[str, Row]

    def key(self, kind: str) -> tuple[Any, ...]:
        return tuple(self.row.get(name) for name in ROW_KEYS[kind])


class EvaluationRecord:
    """What `eval.py --output_file` holds, as it grows.

    ```
    {"complete", "settings", "provenance", "clean", "attacks": [row], "corruptions": [row],
     "verticals": [...], "classes", "attention", "clips", "comparison", "worst_cases", "sanity",
     "checksum"}
    ```

    The file is written anew, all of it or nothing, after each row. What an earlier call left there
    under the same settings stays: a row until another of the same attack and radius (corruption
    and severity) is measured, a clip until it is shown again, any other part until it is measured
    again. So what is on disk grows, also when calls are killed or ask for other attacks. Rows and
    clips that this call has asked for come first, in its order. `complete` is true when all that
    the last call asked for is there.

    A file of other settings stays beside, as `NAME.old`, from the first row on; so does one that
    was changed by something else: `checksum` is the SHA-256 of all other parts. (A file of an older
    version has none.)

    `provenance` says where the figures come from. What is not known is null, and a file of an
    older version has none of it:

    | key | what |
    |---|---|
    | `train_dir`, `checkpoint` | the run, and which of its states: `best` or `last` |
    | `weights` | SHA-256 of the bytes that were loaded |
    | `step` | the step of training that they are of |
    | `pattern`, `files`, `num_files` | what was asked for, the first ten files, their number |
    | `num_records` | records in all the files |
    | `measured_at` | when the last of them was measured, UTC, as `2026-01-31T12:00:00+00:00` |
    | `command` | the arguments of the command that measured it, the script's name first |
    | `version` | its version of yt8m_gat |
    | `num_videos` | videos in the clean row; null for rated segments |
    | `earlier_calls` | `measured_at`, `command` and `version` of each earlier call that measured |

    Args:
        settings: What makes two evaluations comparable, as JSON has it.
        path: The file; None: there is none.
        groups: Name -> classes of the groups that rows have metrics of too.
        start_over: Take nothing over, and keep no earlier file.
        provenance: What is known of it before anything is measured.
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
        """All of it, as the file has it after the next write."""
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
        """A part of the result as it stands, also that of an earlier call; empty: there is none."""
        found = self._sections.get(name)
        return found if isinstance(found, dict) else {}

    def take_over(self, kind: str, identity: Mapping[str, Any], *needed: str) -> bool:
        """Takes an earlier row over, with its groups.

        Args:
            kind: `clean`, `attacks` or `corruptions`.
            identity: What the row must have.
            *needed: Keys that it must have, whatever their value.

        Returns:
            Whether there was one.
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
        """Adds a row, and `sections` that were measured along with it, and writes the file.

        Args:
            kind: `clean`, `attacks` or `corruptions`.
            identity: What the row is of.
            row: Its metrics.
            groups: Those of each group, None where it has no video.
            **sections: Other parts of the result.
        """
        shown = {key: identity[key] for key in ROW_KEYS[kind]}
        of_groups = {
            name: {**shown, **metrics}
            for name, metrics in (groups or {}).items()
            if metrics is not None
        }
        found = as_json({**identity, **row})
        if kind == "clean":  # A figure that this call did not ask for is still the same one.
            for entry in self._earlier[kind]:
                found = entry.row | found
        self._put(kind, _Entry(found, as_json(of_groups)))
        self._sections |= as_json(sections)
        self._write_measured()

    def set(self, **sections: Any) -> None:
        """Sets other parts of the result, and writes the file where that changes it."""
        sections = as_json(sections)
        if any(self._sections.get(name) != value for name, value in sections.items()):
            self._sections |= sections
            self._write_measured()

    def show(self, clips: Sequence[Row]) -> None:
        """Puts clips before those of earlier calls, or in their place, and writes the file."""
        shown = {clip["video_id"] for clip in clips}
        earlier = self._sections.get("clips")
        kept = [
            clip
            for clip in (earlier if isinstance(earlier, list) else [])
            if isinstance(clip, dict) and clip.get("video_id") not in shown
        ]
        self.set(clips=[*clips, *kept])

    def finish(self) -> dict[str, Any]:
        """The whole result; the file says that it is complete."""
        self._complete = True
        self._write()
        return self.result

    def _put(self, kind: str, entry: _Entry) -> None:
        """Gives a row its place, that of an earlier one of its key."""
        key = entry.key(kind)
        self._earlier[kind] = [other for other in self._earlier[kind] if other.key(kind) != key]
        self._ours[kind].append(entry)

    def _read(self) -> None:
        """Takes up the file that is there, where it is of the same settings."""
        if self.path is None or not self.path.is_file():
            return
        self._keep_replaced = True
        try:
            self._text = read_text(self.path, MAX_JSON_BYTES)
            found = as_json(parse_json(self._text))
            checksum = found.pop("checksum", None)
            settings = dict(found["settings"])
            rows = {kind: _entries(found, kind) for kind in ROW_KEYS}
        except (ValueError, KeyError, TypeError, AttributeError):
            self._say("holds no evaluation that could be continued")
            return
        if checksum not in (None, _checksum(found)):
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
        self._complete = found.get("complete") is True
        provenance = found.get("provenance")
        if not isinstance(provenance, dict):
            provenance = {}
        calls = provenance.get("earlier_calls")
        for call in [*(calls if isinstance(calls, list) else []), provenance]:
            if isinstance(call, dict):
                self._calls.append({name: call.get(name) for name in CALL_KEYS})
        built = {"complete", "settings", "provenance", "verticals", *ROW_KEYS}
        self._sections = {name: value for name, value in found.items() if name not in built}

    def _say(self, what: str) -> None:
        print(
            f"{self.path} {what}: starting anew; it is kept as {self._kept_path.name}",
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
        if text == self._text:  # Nothing was measured, or asked for in another order.
            return
        with replacing(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            if self._keep_replaced:
                os.replace(os.path.realpath(self.path), self._kept_path)
        self._keep_replaced, self._text = False, text


def _checksum(result: Mapping[str, Any]) -> str:
    """Of all other parts of a result."""
    return digest_of([json.dumps(result, sort_keys=True).encode()])


def _entries(found: Mapping[str, Any], kind: str) -> list[_Entry]:
    """The rows of a kind in a file; any of the usual errors: it is no evaluation."""
    rows = found[kind]
    if kind == "clean":
        rows = [] if rows is None else [rows]
    verticals = {group["vertical"]: group for group in found.get("verticals", [])}
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
    """`value` as reading its JSON gives it back; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
