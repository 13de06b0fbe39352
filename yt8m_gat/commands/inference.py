"""Writes the predictions of a trained run as a Kaggle submission.

python inference.py --train_dir=runs/gat --input_data_pattern='test*.tfrecord' \
    --output_file=submission.csv
"""

import os
import tempfile
from collections.abc import Sequence

from absl import flags

from yt8m_gat.cli import (
    exit_interrupted,
    quiet_tensorflow,
    reported_errors,
)
from yt8m_gat.commands import absl_flags
from yt8m_gat.config import ConfigError
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import input_path, output_path, read_paths
from yt8m_gat.starter_flags import REPLACED, warn_of_replaced

PATHS = {
    "train_dir": input_path,
    "output_file": output_path,
    "output_model_tgz": output_path,
    "input_model_tgz": input_path,
    "untar_model_dir": output_path,
    "segment_label_ids_file": input_path,
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines every flag of this script on `values`."""
    flags.DEFINE_string(
        "train_dir",
        os.path.join(tempfile.gettempdir(), "yt8m_model"),
        "The run folder that train.py wrote.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "input_data_pattern",
        "",
        "Files to predict: globs, separated by commas.",
        flag_values=values,
    )
    flags.DEFINE_string("output_file", "", "The CSV to write.", flag_values=values)
    flags.DEFINE_integer("batch_size", 512, "Clips per batch.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("top_k", 20, "Predictions per video.", lower_bound=1, flag_values=values)
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "last"], "Which state of the run.", flag_values=values
    )
    flags.DEFINE_string(
        "output_model_tgz",
        None,
        "Also write the run's best model there, as an archive for --input_model_tgz.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "input_model_tgz",
        None,
        "Take the model from this archive instead of --train_dir.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "untar_model_dir",
        None,
        "Unpack the archive there and keep it (default: a folder that is removed afterwards).",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "segment_labels",
        None,
        "Predict each window of 5 frames and write the CSV of 2019 (default: as in training).",
        flag_values=values,
    )
    flags.DEFINE_string(
        "segment_label_ids_file",
        None,
        "File that lists the classes of that CSV, one index a line (default: all classes).",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "segment_max_pred",
        100_000,
        "Most segments of a class in that CSV.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "on_bad_record",
        "error",
        ["error", "skip"],
        "Stop at a record that cannot be read, or leave it out and count it.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "max_bad_fraction",
        0.01,
        "With skip: stop when more of the records, or of their bytes, are bad.",
        lower_bound=0,
        upper_bound=1,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "trust_code",
        False,
        "Run the code that the run or archive names: a model or loss of somebody's own.",
        flag_values=values,
    )
    for name, replacement in REPLACED["inference.py"].items():
        flags.DEFINE_integer(name, None, f"No effect: {replacement}", flag_values=values)


def check_flags(values: flags.FlagValues) -> None:
    """Refuses flags that cannot work together.

    Raises:
        ConfigError: Names them and the remedy.
    """
    if not values.output_file:
        raise ConfigError("--output_file must name the CSV to write")
    if values.untar_model_dir and not values.input_model_tgz:
        raise ConfigError("--untar_model_dir needs --input_model_tgz, the archive to unpack")
    if values.checkpoint != "best" and (values.input_model_tgz or values.output_model_tgz):
        raise ConfigError(
            "--input_model_tgz and --output_model_tgz need --checkpoint=best: an archive holds the "
            f"best model of a run. Received: --checkpoint={values.checkpoint}"
        )


def main(argv: Sequence[str]) -> None:
    """Predicts and writes the CSV."""
    values = absl_flags.parse(define_flags, argv, __doc__)
    with reported_errors():
        warn_of_replaced("inference.py", values.flag_values_dict())
        read_paths(values, PATHS)
        check_flags(values)
        with only_writer(values.output_file):
            num_videos = _predict(values)
        print(f"{values.output_file}: {num_videos} videos")


def _predict(values: flags.FlagValues) -> int:
    with quiet_tensorflow():
        from yt8m_gat import pipeline
        from yt8m_gat.export import write_archive

    with (
        pipeline.reported_errors(),
        pipeline.model_folder(
            values.train_dir, values.input_model_tgz, values.untar_model_dir
        ) as folder,
    ):
        if values.output_model_tgz:
            write_archive(folder, values.output_model_tgz)
        try:
            return pipeline.infer(
                folder,
                input_data_pattern=values.input_data_pattern,
                output_file=values.output_file,
                batch_size=values.batch_size,
                top_k=values.top_k,
                checkpoint=values.checkpoint,
                segment_labels=values.segment_labels,
                segment_label_ids_file=values.segment_label_ids_file,
                segment_max_pred=values.segment_max_pred,
                on_bad_record=values.on_bad_record,
                max_bad_fraction=values.max_bad_fraction,
                trust_code=values.trust_code,
            )
        except KeyboardInterrupt:
            exit_interrupted(pipeline.partial_file(values.output_file))
