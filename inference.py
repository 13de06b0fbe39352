"""Writes the predictions of a trained run as a Kaggle submission.

python inference.py --train_dir=runs/gat --input_data_pattern='test*.tfrecord' \
    --output_file=submission.csv
"""

import os
import tempfile

from absl import app, flags

from yt8m_gat.cli import quiet_tensorflow, reported_errors
from yt8m_gat.config import ConfigError
from yt8m_gat.run_folder import RunFolder


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


def main(argv: list[str]) -> None:
    """Predicts and writes the CSV."""
    del argv
    values = flags.FLAGS
    with reported_errors():
        if not values.output_file:
            raise ConfigError("--output_file must name the CSV to write")
        with quiet_tensorflow():
            from yt8m_gat import pipeline

        with pipeline.reported_errors():
            num_videos = pipeline.infer(
                RunFolder(values.train_dir),
                input_data_pattern=values.input_data_pattern,
                output_file=values.output_file,
                batch_size=values.batch_size,
                top_k=values.top_k,
                checkpoint=values.checkpoint,
            )
        print(f"{values.output_file}: {num_videos} videos")


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
