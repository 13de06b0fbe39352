"""Repacks records into frame arrays, which are read faster; see `yt8m_gat.data.repack`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yt8m_gat.cli import (
    CommandParser,
    comma_separated,
    integers,
    reported_errors,
    start_tensorflow,
)
from yt8m_gat.config import MAX_BAD_FRACTION, ON_BAD_RECORD, DataConfig
from yt8m_gat.paths import output_path, read_paths, required
from yt8m_gat.untrusted import printable

PATHS = {"output_dir": required(output_path)}


def _parser() -> CommandParser:
    parser = CommandParser(
        "repack",
        "Repacks TFRecord files of frame-level records into files NAME.npz, from which train, eval "
        "and inference read the same batches with less work.",
    )
    add, data = parser.add_argument, DataConfig()
    add("pattern", nargs="+", help="files, or patterns such as 'train*.tfrecord'")
    add("--output_dir", required=True, help="folder to write to")
    add(
        "--feature_names",
        default=",".join(data.feature_names),
        help="features to keep, with commas between them (default: %(default)s)",
    )
    add(
        "--feature_sizes",
        default=",".join(map(str, data.feature_sizes)),
        help="their sizes (default: %(default)s)",
    )
    add(
        "--feature_types",
        default="",
        help="how the frames of all, or of each, are stored: uint8, float32 or float_list",
    )
    add(
        "--on_bad_record",
        choices=ON_BAD_RECORD,
        default=ON_BAD_RECORD[0],
        help="what happens to a record that cannot be read (default: %(default)s)",
    )
    add(
        "--max_bad_fraction",
        type=float,
        default=MAX_BAD_FRACTION,
        help="with skip: the largest share of bad records or bytes (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Repacks the files."""
    arguments = _parser().parse_args(argv)
    with reported_errors(ValueError):
        read_paths(arguments, PATHS)
        data = DataConfig(
            feature_names=tuple(comma_separated(arguments.feature_names)),
            feature_sizes=integers("feature_sizes", arguments.feature_sizes),
            feature_types=tuple(comma_separated(arguments.feature_types)),
        )
        start_tensorflow()
        from yt8m_gat.data.dataset import find_files
        from yt8m_gat.data.repack import repack
        from yt8m_gat.data.schema import RecordSchema
        from yt8m_gat.data.skipping import new_skipped
        from yt8m_gat.extraction.beside_records import copy_files_beside

        files = find_files(arguments.pattern, "pattern")
        skipped = new_skipped(arguments.on_bad_record, arguments.max_bad_fraction)
        summary = repack(
            files,
            RecordSchema.from_config(data),
            arguments.output_dir,
            skipped,
            show_progress=True,
        )
        copied = copy_files_beside(files, arguments.output_dir)
    if skipped is not None and skipped.num_bad:
        print(printable(skipped.summary()))
    share = ""
    if summary.source_bytes:  # Empty files can be left out as bad.
        ratio = summary.num_bytes / summary.source_bytes
        share = f", {ratio:.3f} of the TFRecord files"
    print(
        f"{summary.num_records:,} records are in {Path(arguments.output_dir, '*.npz')}: "
        f"{summary.num_bytes / 1e6:,.1f} MB{share}; files written: "
        f"{summary.num_written}, made by an earlier call: {summary.num_kept}, bad records left "
        f"out: {summary.left_out}"
    )
    if copied:
        print(printable(f"copied beside them: {', '.join(copied)}"))
