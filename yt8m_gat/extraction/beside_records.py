"""The files beside extracted records that say what their features are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from yt8m_gat.config import ConfigError
from yt8m_gat.disk import replacing
from yt8m_gat.extraction.config import EXTRACTOR_FILE, ExtractorConfig
from yt8m_gat.paths import is_remote

_LABEL_NAMES = "label_names.csv"


def copy_files_beside(files: Sequence[str], output_dir: str | os.PathLike) -> list[str]:
    """Copies `extractor.json`, the files that it names, and `label_names.csv`.

    Records without them have nothing to copy. What is there already must be the same.

    Args:
        files: Files of records; remote ones are not looked at.
        output_dir: The folder of the files that were made of them.

    Returns:
        The names of the copies.

    Raises:
        ConfigError: Two folders, or the output folder, have different files of a name.
        FileNotFoundError: A file that `extractor.json` names is missing.
    """
    copied: dict[str, tuple[Path, bytes]] = {}
    for folder in sorted({Path(path).parent for path in files if not is_remote(path)}):
        names = [_LABEL_NAMES] if (folder / _LABEL_NAMES).is_file() else []
        if (folder / EXTRACTOR_FILE).is_file():
            names += [EXTRACTOR_FILE, *ExtractorConfig.load(folder).files]
        for name in names:
            source, content = folder / name, (folder / name).read_bytes()
            target = Path(output_dir, name)
            there, known = copied.get(name, (target, None))
            if known is None and target.exists():
                known = target.read_bytes()
            if known not in (None, content):
                raise ConfigError(
                    f"{source} and {there} differ, which say what features or labels mean: repack "
                    "each folder into one of its own"
                )
            copied[name] = source, content
    for name, (_, content) in copied.items():
        with replacing(Path(output_dir, name)) as temporary:
            temporary.write_bytes(content)
    return sorted(copied)
