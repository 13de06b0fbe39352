"""Fetches the official YouTube-8M records; see `yt8m_gat.acquisition.download`."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence

from yt8m_gat.acquisition.download import (
    MIRRORS,
    Downloader,
    DownloadError,
    Partition,
    download,
    in_shard,
    parse_shard,
)
from yt8m_gat.cli import CommandParser
from yt8m_gat.config import ConfigError
from yt8m_gat.paths import output_path, read_paths, required
from yt8m_gat.untrusted import print_error


def _http_url(flag: str, url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"--{flag} must begin with http:// or https://. Received: {url!r}")
    return url


PATHS = {"output_dir": required(output_path)}


def _parser() -> CommandParser:
    parser = CommandParser(
        "download",
        "Fetches the official YouTube-8M records. Called again, it continues where it stopped.",
    )
    parser.add_argument(
        "--partition", required=True, help="VERSION/LEVEL/SPLIT, for example 2/frame/train"
    )
    parser.add_argument(
        "--mirror", default="us", choices=MIRRORS, help="the copy of the data to fetch from"
    )
    parser.add_argument("--shard", default="1,1", metavar="X,Y", help="only shard X of Y")
    parser.add_argument("--output_dir", required=True, help="folder for the files")
    parser.add_argument("--num_workers", type=int, default=4, help="files at a time")
    parser.add_argument("--plan_url", help="another plan than the official one")
    parser.add_argument("--base_url", help="where the files are, instead of the mirror")
    return parser


def _fail(message: object, code: int) -> int:
    print_error(_parser().prog, str(message))
    return code


def main(argv: Sequence[str], **options: float) -> int:
    """Runs the command; returns its exit code.

    Args:
        argv: The words after the command's name.
        **options: Arguments of `Downloader`.
    """
    arguments = _parser().parse_args(argv)
    try:
        read_paths(arguments, PATHS)
        partition = Partition.parse(arguments.partition)
        shard = parse_shard(arguments.shard)
        if not 1 <= arguments.num_workers <= 64:
            raise ConfigError(f"--num_workers must be 1 to 64. Received: {arguments.num_workers}")
        plan_url = _http_url("plan_url", arguments.plan_url or partition.plan_url)
        base_url = _http_url("base_url", arguments.base_url or partition.base_url(arguments.mirror))
    except ConfigError as error:
        return _fail(error, 2)
    try:
        plan = Downloader(**options).fetch_plan(plan_url)
        files = {name: md5 for name, md5 in plan.items() if in_shard(name, shard)}
        print(f"{partition}, shard {shard[0]} of {shard[1]}: {len(files)} of {len(plan)} files")
        summary = download(
            files,
            base_url,
            arguments.output_dir,
            num_workers=arguments.num_workers,
            show_progress=True,
            **options,
        )
    except (DownloadError, OSError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here", 130)
    for message in summary.failed:
        _fail(message, 1)
    print(
        f"{arguments.output_dir}: {summary.fetched} files fetched, {summary.present} there already"
    )
    if summary.not_begun:
        _fail(f"{summary.not_begun} files not begun after {len(summary.failed)} failures", 1)
    return 1 if summary.failed else 0
