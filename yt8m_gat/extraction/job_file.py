"""What a job was asked for, in a file beside its work, so that only the same job is continued."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yt8m_gat.config import ConfigError
from yt8m_gat.disk import replacing
from yt8m_gat.extraction.config import flat
from yt8m_gat.untrusted import printable, read_json


def claim(
    path: Path, asked: Mapping[str, Any], *, holder: str, unshown: Mapping[str, str], remedy: str
) -> None:
    """Writes what a job was asked for, or finds that an earlier call was asked for the same.

    Args:
        path: The file, in JSON.
        asked: Plain values that define the job, under `settings` and other keys.
        holder: What holds the work, as the message begins: `--output_dir=records`.
        unshown: Keys of `asked` whose values are too long to show -> what the message says of a
            difference.
        remedy: What to do about a difference.

    Raises:
        ConfigError: The file holds another job; the message names each difference.
        WriteError: It cannot be written.
    """
    asked = json.loads(json.dumps(asked))  # As it will be read: with lists for tuples.
    if not path.is_file():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asked, indent=1), encoding="utf-8")
        return
    try:
        stored = read_json(path)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; remove the folder, or name another one") from error
    if stored == asked:
        return
    stored = stored if isinstance(stored, dict) else {}
    shown = [name for name in asked if name not in unshown]
    old, new = (flat({name: of_job.get(name) for name in shown}) for of_job in (stored, asked))
    what = [
        f"{name.removeprefix('settings.')}: {old.get(name)!r} != {new.get(name)!r}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    what += [words for name, words in unshown.items() if stored.get(name) != asked[name]]
    listed = "".join(f"\n  {printable(line)}" for line in what)
    raise ConfigError(f"{holder} holds another job (stored != given):{listed}\n{remedy}")
