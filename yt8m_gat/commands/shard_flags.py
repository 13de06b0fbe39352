"""Flags of the commands that write shards of records made of videos, extract and pack."""

import argparse

from yt8m_gat.config import ConfigError
from yt8m_gat.extraction.shards import ON_BAD_FILE

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


def check_shard_flags(arguments: argparse.Namespace) -> None:
    """Checks the numbers among them.

    Raises:
        ConfigError: One is out of its range.
    """
    for flag, most in _MOST.items():
        value = getattr(arguments, flag)
        if not 1 <= value <= most:
            raise ConfigError(f"--{flag} must be 1 to {most}. Received: {value}")
