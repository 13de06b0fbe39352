"""Predicts on Apache Beam; see `yt8m_gat.prediction.beam`."""

import contextlib
from collections.abc import Sequence

from yt8m_gat.cli import CommandParser, quiet_tensorflow, reported_errors
from yt8m_gat.config import ConfigError
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import expanded, is_remote, read_paths, saved_model_path


def _saved_model(flag: str, path: str) -> str:
    """Checks the path of a SavedModel; it may be remote, as TensorFlow and Beam read such paths."""
    return path if is_remote(path) else saved_model_path(flag, path)


PATHS = {"saved_model": _saved_model, "output": expanded}


def _parser() -> CommandParser:
    parser = CommandParser(
        "beam",
        "Predicts TFRecords with an exported model on Apache Beam. Options that are not listed "
        "are Beam's: --runner, --project, ...",
        refuses_unknown=False,
    )
    add = parser.add_argument
    add("--input", required=True, help="TFRecord files: globs, separated by commas.")
    add("--saved_model", required=True, help="Folder of one version of an export.")
    add("--output", required=True, help="Prefix of the CSV files.")
    add("--top_k", type=int, default=20, help="Predictions per video.")
    add("--batch_size", type=int, default=64, help="Records at once.")
    add("--num_shards", type=int, default=0, help="CSV files (default: the runner decides).")
    add(
        "--on_bad_record",
        choices=("error", "skip"),
        default="error",
        help="Stop at a bad record, or leave it out, listed in <output>-bad-*.txt.",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the pipeline to its end and prints what was written."""
    values, beam_arguments = _parser().parse_known_args(argv)
    with reported_errors():
        with quiet_tensorflow():
            import tensorflow as tf

        try:
            import apache_beam as beam
        except ImportError as error:
            raise ConfigError(
                f"Apache Beam is not installed: pip install 'yt8m-gat[beam]' ({error})"
            ) from error
        from apache_beam.io.filesystem import BeamIOError
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions

        from yt8m_gat.prediction.beam import check, predict, results
    with contextlib.ExitStack() as stack:
        with reported_errors(ValueError, BeamIOError, tf.errors.OpError):
            read_paths(values, PATHS)
            parts = [part.strip() for part in values.input.split(",")]
            patterns = [expanded("--input", part) for part in parts if part]
            options = PipelineOptions(beam_arguments)
            FileSystems.get_filesystem(values.output)  # Fails if Beam does not know the place.
            check(patterns, values.saved_model, values.top_k)
            # Remote paths have no locks.
            local = None if is_remote(values.output) else values.output
            stack.enter_context(only_writer(local, make_folder=True))
            pipeline = beam.Pipeline(options=options)
            predict(
                pipeline,
                patterns,
                values.saved_model,
                values.output,
                top_k=values.top_k,
                batch_size=values.batch_size,
                num_shards=values.num_shards,
                skip_bad=values.on_bad_record == "skip",
            )
        result = pipeline.run()
        result.wait_until_finish()
    counts = results(result)
    bad = counts.get("bad_records", 0)
    print(
        f"{values.output}-*.csv: {counts.get('rows', 0)} videos"
        + (f"; {bad} bad records left out, listed in {values.output}-bad-*.txt" if bad else "")
    )
