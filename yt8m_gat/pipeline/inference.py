"""The job that writes the Kaggle CSV of a run, or of an archive of one."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    Reader,
    count_records,
    find_files,
    read_class_ids,
)
from yt8m_gat.data.identity import files_digest
from yt8m_gat.digests import digest_of
from yt8m_gat.export import read_archive
from yt8m_gat.import_path import require_trust
from yt8m_gat.job_settings import InferenceSettings
from yt8m_gat.locks import only_writer, temporary_folder
from yt8m_gat.paths import require_own_files
from yt8m_gat.pipeline.run_extractor import check_extractor
from yt8m_gat.pipeline.run_settings import on_segments, read_schema
from yt8m_gat.prediction.inference import predict, predict_segments
from yt8m_gat.prediction.submission import SegmentSubmissionWriter, SubmissionWriter
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.load import load_classifier, load_run


@contextlib.contextmanager
def model_folder(
    train_dir: str | os.PathLike,
    input_model_tgz: str | os.PathLike | None = None,
    untar_model_dir: str | os.PathLike | None = None,
    trust_code: bool = False,
) -> Iterator[RunFolder]:
    """Yields the run folder to predict with: that of a run, or one unpacked from an archive.

    Args:
        train_dir: The run, unless there is an archive.
        input_model_tgz: The archive, or None.
        untar_model_dir: Where it is unpacked and kept; None: in a folder that is removed
            afterwards.
        trust_code: Whether the code that an archive names may run.

    Raises:
        ConfigError: See `yt8m_gat.export.read_archive`.
        UntrustedCodeError: The archive names code that is not trusted.
        InUseError: Another process predicts with the model in `untar_model_dir`.
    """

    def unpacked(target: str | os.PathLike) -> RunFolder:
        folder = read_archive(input_model_tgz, target)
        require_trust(RunConfig.load(folder.path), trust_code, input_model_tgz)
        return folder

    if input_model_tgz is None:
        yield RunFolder(train_dir)
    elif untar_model_dir is not None:
        with only_writer(untar_model_dir, make_folder=True):  # Held until the predictions are made.
            yield unpacked(untar_model_dir)
    else:
        with temporary_folder() as folder:
            yield unpacked(folder / "model")


def infer(
    folder: RunFolder,
    *,
    input_data_pattern: str,
    output_file: str | os.PathLike,
    batch_size: int = InferenceSettings.batch_size,
    top_k: int = InferenceSettings.top_k,
    checkpoint: str = InferenceSettings.checkpoint,
    segment_labels: bool | None = InferenceSettings.segment_labels,
    segment_label_ids_file: str | os.PathLike | None = None,
    segment_max_pred: int = InferenceSettings.segment_max_pred,
    on_bad_record: str = InferenceSettings.on_bad_record,
    max_bad_fraction: float = InferenceSettings.max_bad_fraction,
    trust_code: bool = False,
) -> int:
    """Writes the Kaggle CSV of a trained run, in the format of 2018 or, for segments, of 2019.

    The CSV of 2018 is resumable: a call that is killed, or ends in an error, leaves its rows
    beside `output_file`, and the next one with the same weights, records and settings continues
    after them (see `SubmissionWriter`). That of 2019 ranks all segments, so it always starts over.

    Args:
        folder: The run.
        input_data_pattern: Files to predict.
        output_file: The CSV.
        batch_size: Clips, or segments, at once.
        top_k: Predictions per clip (2018).
        checkpoint: `best` or `last`.
        segment_labels: Whether each window of 5 frames is predicted by itself (2019), instead of
            whole clips; None: as in training. A run trained on whole clips works too.
        segment_label_ids_file: The classes of the 2019 CSV, see `yt8m_gat.data.read_class_ids`;
            None: all classes of the model.
        segment_max_pred: Most segments per class in it. For memory, see `SegmentSubmissionWriter`.
        on_bad_record: `error`, or `skip`: leave out bad records and report them at the end.
        max_bad_fraction: See `yt8m_gat.data.SkippedRecords`.
        trust_code: Run the code that the run names, see `yt8m_gat.weights.load.load_run`.

    Returns:
        The number of videos; with segments, this includes bad records.
    """
    config = RunConfig.load(folder.path)
    require_trust(config, trust_code, folder.path)
    segments = on_segments(config, segment_labels)
    if not segments and segment_label_ids_file is not None:
        raise ConfigError("--segment_label_ids_file is about segments: it needs --segment_labels")
    files = find_files(input_data_pattern, "input_data_pattern")
    require_own_files(
        {"--output_file": output_file},
        {
            **folder.own_files(),
            **dict.fromkeys(files, "a file of --input_data_pattern"),
            segment_label_ids_file: "the file of --segment_label_ids_file",
        },
    )
    check_extractor(folder, files, "input_data_pattern")
    schema = read_schema(folder, config)
    num_videos = count_records(files, skip_damage=on_bad_record == "skip")
    read = functools.partial(
        Reader,
        files,
        schema,
        batch_size,
        on_bad_record=on_bad_record,
        max_bad_fraction=max_bad_fraction,
    )
    if segments:
        class_ids: Sequence[int] = range(config.data.num_classes)
        if segment_label_ids_file is not None:
            class_ids = read_class_ids(segment_label_ids_file, config.data.num_classes)
        with SegmentSubmissionWriter(output_file, class_ids, segment_max_pred) as segment_writer:
            classifier = load_classifier(folder, config, checkpoint, trust_code)
            reader = read(segments="windows")
            for video_ids, start_times, probabilities in predict_segments(
                classifier, reader, config.data.normalize, num_videos
            ):
                segment_writer.write(video_ids, start_times, probabilities)
    else:
        loaded = load_run(folder, config, checkpoint, trust_code)
        settings = {
            "weights": loaded.digest,
            "configuration": digest_of([config.to_json().encode()]),
            "records": files_digest(files),
            "batch_size": batch_size,
            "top_k": top_k,
            "versions": [tf.__version__, keras.__version__, np.__version__],
            "on_bad_record": on_bad_record,
        }
        # Rows of a call with on_bad_record=error contain no bad records, so they can be continued.
        earlier = [{**settings, "on_bad_record": "error"}]
        with SubmissionWriter(output_file, top_k, settings, earlier) as writer:
            if writer.num_rows:
                print(f"{output_file}: going on after {writer.num_rows} videos", file=sys.stderr)
            reader = read(with_labels=False, skip_batches=writer.num_batches)
            for video_ids, probabilities in predict(
                loaded.classifier,
                reader,
                config.data.normalize,
                num_videos - writer.num_rows,
            ):
                writer.write(video_ids, probabilities)
        num_videos = writer.num_rows
    if reader.skipped is not None:
        print(reader.skipped.summary(), file=sys.stderr)
    return num_videos
