"""Flags of the commands that write shards of records made of videos, extract and pack."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from yt8m_gat.config import ConfigError
from yt8m_gat.extraction.shards import LABEL_NAMES, MANIFEST, ON_BAD_FILE
from yt8m_gat.paths import require_own_files

_MOST = {"num_shards": 100_000, "num_readers": 64}


def add_shard_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `--num_shards`, `--splits`, `--on_bad_file` and `--num_readers`."""
    add = parser.add_argument
    add("--num_shards", type=int, default=1, help="files of each split")
    add("--splits", default="", help="splits by a hash of the id: train:8,validate:1,test:1")
    add_on_bad_file(parser)
    add("--num_readers", type=int, default=2, help="files that are decoded at a time")


def add_on_bad_file(parser: argparse.ArgumentParser) -> None:
    """Adds `--on_bad_file`."""
    parser.add_argument(
        "--on_bad_file",
        choices=ON_BAD_FILE,
        default="error",
        help="stop at a file that cannot be read, or leave it out",
    )


def check_shard_flags(arguments: argparse.Namespace, lists: Iterable[str | None]) -> None:
    """Checks the numbers among them, and that no list of clips would be replaced.

    Args:
        arguments: The flags, with `--output_dir`.
        lists: Files that may be lists of clips.

    Raises:
        ConfigError: A number is out of its range, or a list is where the job writes its own.
    """
    written = {
        f"{name} of --output_dir": Path(arguments.output_dir, name)
        for name in (MANIFEST, LABEL_NAMES)
    }
    require_own_files(written, dict.fromkeys(lists, "a list of clips"))
    for flag, most in _MOST.items():
        value = getattr(arguments, flag)
        if not 1 <= value <= most:
            raise ConfigError(f"--{flag} must be 1 to {most}. Received: {value}")
