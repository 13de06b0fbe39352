"""The JSON of one evaluation: written row by row, and taken up again where it ended."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yt8m_gat.disk import replacing

Row = dict[str, Any]

# Kind of row -> what tells rows of that kind apart in a table.
ROW_KEYS = {"attacks": ("attack", "epsilon"), "corruptions": ("corruption", "severity")}


class EvaluationRecord:
    """What `eval.py --output_file` holds, as it grows.

    ```
    {"complete", "settings", "clean", "attacks": [row], "corruptions": [row], "verticals": [...],
     "classes", "attention", "clips", "comparison", "worst_cases", "sanity"}
    ```

    The file is written anew, all of it or nothing, after each row, with `complete` false until
    `finish`. What an earlier call left there under the same settings is taken over row by row.

    Args:
        settings: What makes two evaluations comparable, as JSON has it.
        path: The file; None: there is none.
        groups: Name -> classes of the groups that rows have metrics of too.
        start_over: Take nothing over.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        path: str | os.PathLike | None = None,
        groups: Mapping[str, Sequence[int]] | None = None,
        start_over: bool = False,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.result: dict[str, Any] = {
            "complete": False,
            "settings": as_json(settings),
            "clean": None,
            "attacks": [],
            "corruptions": [],
        }
        if groups:
            self.result["verticals"] = [
                {
                    "vertical": name,
                    "num_classes": len(classes),
                    "num_videos": 0,
                    "clean": None,
                    "attacks": [],
                    "corruptions": [],
                }
                for name, classes in groups.items()
            ]
        self.earlier: dict[str, Any] = {} if start_over else self._read()

    def take_over(self, kind: str, identity: Mapping[str, Any], *needed: str) -> bool:
        """Takes an earlier row over, with its groups.

        Args:
            kind: `clean`, `attacks` or `corruptions`.
            identity: What the row must have.
            *needed: Keys that it must have, whatever their value.

        Returns:
            Whether there was one.
        """
        found = self.earlier.get(kind)
        rows = found if isinstance(found, list) else [found] if found else []
        wanted = as_json(identity)
        for place, row in enumerate(rows):
            same = all(key in row and row[key] == value for key, value in wanted.items())
            if same and all(key in row for key in needed):
                groups = {}
                for vertical in self.earlier.get("verticals", []):
                    of_kind = vertical[kind]
                    if isinstance(of_kind, list):  # A group without videos has no rows.
                        of_kind = of_kind[place] if of_kind else None
                    groups[vertical["vertical"]] = of_kind
                self._put(kind, row, groups)
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
        shown = {key: identity[key] for key in ROW_KEYS.get(kind, ())}
        of_groups = {
            name: None if metrics is None else {**shown, **metrics}
            for name, metrics in (groups or {}).items()
        }
        self._put(kind, as_json({**identity, **row}), as_json(of_groups))
        self.result |= as_json(sections)
        self._write()

    def set(self, **sections: Any) -> None:
        """Sets other parts of the result, and writes the file."""
        self.result |= as_json(sections)
        self._write()

    def finish(self) -> dict[str, Any]:
        """The whole result; the file says that it is complete."""
        self.result["complete"] = True
        self._write()
        return self.result

    def _put(self, kind: str, row: Row, groups: Mapping[str, Row | None]) -> None:
        if kind == "clean":
            self.result["clean"] = row
        else:
            self.result[kind].append(row)
        for vertical in self.result.get("verticals", []):
            of_group = groups.get(vertical["vertical"])
            if of_group is None:
                continue
            if kind == "clean":
                vertical["clean"] = of_group
                vertical["num_videos"] = of_group["num_videos"]
            else:
                vertical[kind].append(of_group)

    def _read(self) -> dict[str, Any]:
        if self.path is None or not self.path.is_file():
            return {}
        try:
            earlier = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:
            earlier = None
        settings = earlier.get("settings") if isinstance(earlier, dict) else None
        if not isinstance(settings, dict):
            self._say("holds no evaluation that could be continued")
            return {}
        ours = self.result["settings"]
        different = [
            f"{key}: {settings.get(key)!r} != {ours.get(key)!r}"
            for key in sorted({*settings, *ours})
            if settings.get(key) != ours.get(key)
        ]
        if different:
            self._say(f"holds an evaluation with other settings ({'; '.join(different)})")
            return {}
        return earlier

    def _say(self, what: str) -> None:
        print(f"{self.path} {what}: starting anew", file=sys.stderr, flush=True)

    def _write(self) -> None:
        if self.path is None:
            return
        text = json.dumps(self.result, indent=2, allow_nan=False)
        with replacing(self.path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def as_json(value: Any) -> Any:
    """`value` as reading its JSON gives it back; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
