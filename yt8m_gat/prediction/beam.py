"""The Kaggle CSV of an exported model over any number of records, on Apache Beam.

    yt8m-gat beam --input='test*.tfrecord' --saved_model=models/yt8m/1 \
        --output=predictions/submission [--runner=... and other options of Beam]

It reads TFRecord files and writes `predictions/submission-00000-of-00004.csv` and so on, each with
the header and rows as `inference.py` writes them, in no particular order. It needs the extra `beam`
of the package.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.ml.inference.base import ModelHandler, RunInference

from yt8m_gat.config import ConfigError
from yt8m_gat.data.record_files import require_tfrecord_files
from yt8m_gat.prediction.submission import VIDEO_HEADER, video_rows

_SIGNATURE = "serving_default"
_NAMESPACE = "yt8m_gat"
_BAD = "bad"


class NamedRecord(NamedTuple):
    """A record and the file that it comes from."""

    file: str
    serialized: bytes


class BadRecord(NamedTuple):
    """A record that the model refused, and the reason."""

    file: str
    reason: str


class SavedModelHandler(ModelHandler[NamedRecord, str | BadRecord, Any]):
    """Turns `NamedRecord`s into rows of the CSV, by the `serving_default` signature of an export.

    Beam's own handler for TensorFlow needs `tensorflow_hub`, and does not look up signatures.

    Args:
        saved_model: Folder of one version of an export.
        top_k: Predictions of a row, at most as many as the export returns.
        batch_size: Records in a batch.
        skip_bad: Return a `BadRecord` for a record that is refused, instead of stopping.

    Raises:
        ValueError: `top_k` or `batch_size` is not positive.
    """

    def __init__(
        self, saved_model: str, top_k: int = 20, batch_size: int = 64, skip_bad: bool = False
    ) -> None:
        if top_k < 1:
            raise ValueError(f"`top_k` must be positive. Received: top_k={top_k}")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be positive. Received: batch_size={batch_size}")
        super().__init__(min_batch_size=batch_size, max_batch_size=batch_size)
        self._saved_model = saved_model
        self._top_k = top_k
        self._skip_bad = skip_bad

    def load_model(self) -> Any:
        """Returns the loaded SavedModel; Beam shares it between the threads of a process."""
        return tf.saved_model.load(self._saved_model)

    def run_inference(
        self,
        batch: Sequence[NamedRecord],
        model: Any,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[str | BadRecord]:
        """Returns a row, or a `BadRecord`, for each record, in order.

        Args:
            batch: Records.
            model: The model that `load_model` returned.
            inference_args: Arguments of Beam; not used.

        Raises:
            ValueError: A record is bad and not skipped, and the message names its file; or a
                prediction is not finite.
        """
        try:
            return self._rows(batch, model)
        except tf.errors.InvalidArgumentError:
            # Record by record, to find the bad ones.
            return [self._row_or_bad(record, model) for record in batch]

    def _rows(self, batch: Sequence[NamedRecord], model: Any) -> list[str]:
        serialized = tf.constant([record.serialized for record in batch])
        outputs = model.signatures[_SIGNATURE](example_bytes=serialized)
        video_ids = outputs["video_id"].numpy()
        scores = outputs["predictions"].numpy()[:, : self._top_k]
        if not np.isfinite(scores).all():
            raise ValueError(
                f"{self._saved_model}: probabilities must be finite. Received: NaN for video "
                f"{video_ids[~np.isfinite(scores).all(axis=1)][0]!r}; export the run again"
            )
        return video_rows(video_ids, outputs["class_indexes"].numpy()[:, : self._top_k], scores)

    def _row_or_bad(self, record: NamedRecord, model: Any) -> str | BadRecord:
        try:
            return self._rows([record], model)[0]
        except tf.errors.InvalidArgumentError as error:
            reason = _reason(error.message)
            if self._skip_bad:
                return BadRecord(record.file, reason)
            raise ValueError(
                f"{record.file} has a bad record: {reason} To leave such records out: "
                "--on_bad_record=skip"
            ) from error


class _SortOut(beam.DoFn):
    """Counts rows and bad records, and separates them."""

    def __init__(self) -> None:
        self._counters = {
            kind: Metrics.counter(_NAMESPACE, name)
            for kind, name in ((str, "rows"), (BadRecord, "bad_records"))
        }

    def process(self, result: str | BadRecord) -> Iterator[Any]:
        self._counters[type(result)].inc()
        if isinstance(result, BadRecord):
            yield beam.pvalue.TaggedOutput(_BAD, f"{result.file}: {result.reason}")
        else:
            yield result


def _reason(message: str) -> str:
    """Returns the model's error on one line, without TensorFlow's description of the place."""
    for mark in ("Bad record the given batch:record 0: ", "assertion failed: "):
        message = message[message.find(mark) + len(mark) :] if mark in message else message
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    described = [line for line in lines if not line.startswith(("[[", "Graph ", "Detected ", "<"))]
    return " ".join(described or lines).strip("[]")


def predict(
    pipeline: beam.Pipeline,
    patterns: Sequence[str],
    saved_model: str,
    output: str,
    *,
    top_k: int = 20,
    batch_size: int = 64,
    num_shards: int = 0,
    skip_bad: bool = False,
) -> None:
    """Adds all steps from TFRecord files to sharded CSV to a pipeline.

    Args:
        pipeline: The pipeline.
        patterns: Globs, of any file system that Beam knows.
        saved_model: Folder of one version of an export, that all workers can read.
        output: Prefix of the files written: `<output>-00000-of-00004.csv`, and, if bad records
            are left out, `<output>-bad-00000-of-00001.txt`, a line for each.
        top_k: Predictions of a row.
        batch_size: Records in a batch.
        num_shards: Number of files; 0: the runner chooses.
        skip_bad: Leave bad records out instead of stopping.

    Raises:
        ValueError: See `SavedModelHandler`.
    """
    handler = SavedModelHandler(saved_model, top_k, batch_size, skip_bad)
    results = (
        pipeline
        | "patterns" >> beam.Create(list(patterns))
        | "read" >> beam.io.ReadAllFromTFRecord(with_filename=True)
        | "name" >> beam.MapTuple(NamedRecord)
        | "predict" >> RunInference(handler)
        | "sort out" >> beam.ParDo(_SortOut()).with_outputs(_BAD, main="rows")
    )
    _ = results.rows | "write" >> beam.io.WriteToText(
        output, ".csv", num_shards=num_shards, header=VIDEO_HEADER
    )
    if skip_bad:
        _ = results[_BAD] | "write bad" >> beam.io.WriteToText(
            f"{output}-bad", ".txt", num_shards=1
        )


def check(patterns: Sequence[str], saved_model: str, top_k: int) -> None:
    """Checks the settings before anything is started.

    Raises:
        ConfigError: The pipeline could not work with them.
    """
    if not patterns:
        raise ConfigError("--input must name TFRecord files: globs, separated by commas")
    for pattern, match in zip(patterns, FileSystems.match(list(patterns)), strict=True):
        if not match.metadata_list:
            raise ConfigError(f"--input: no file matches {pattern!r}")
        require_tfrecord_files([file.path for file in match.metadata_list], "yt8m-gat beam reads")
    if not tf.saved_model.contains_saved_model(saved_model):
        raise ConfigError(
            f"--saved_model must be the folder of one version of an export, {saved_model}/1 say; "
            "train.py --export_dir writes it"
        )
    signatures = tf.saved_model.load(saved_model).signatures
    if _SIGNATURE not in signatures:
        raise ConfigError(f"--saved_model: {saved_model} has no signature {_SIGNATURE!r}")
    num_predictions = signatures[_SIGNATURE].structured_outputs["predictions"].shape[1]
    if top_k > num_predictions:
        raise ConfigError(
            f"--top_k must be at most {num_predictions}, the predictions that {saved_model} gives. "
            f"Received: {top_k}"
        )


def results(result: Any) -> dict[str, int]:
    """Returns the counts of a pipeline of `predict`: `rows`, and `bad_records` if any."""
    counters = result.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))["counters"]
    return {counter.key.metric.name: counter.result for counter in counters}
