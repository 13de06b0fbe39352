"""Writes the predictions of a trained run, for records or for video files.

yt8m-gat inference --train_dir=runs/gat --input_data_pattern='test*.tfrecord' \\
    --output_file=submission.csv
yt8m-gat inference --train_dir=runs/gat --input_video_pattern='*.mp4' --output_file=tags.csv
"""

import functools
from collections.abc import Sequence

from absl import flags

from yt8m_gat.cli import exit_interrupted, quiet_tensorflow, reported_errors
from yt8m_gat.commands import absl_flags
from yt8m_gat.commands.flag_table import (
    DEFAULT_RUN,
    Flag,
    Sections,
    all_flags,
    define,
    field,
    given,
    path_readers,
    without_effect,
)
from yt8m_gat.commands.train import OF_RUN
from yt8m_gat.config import ON_BAD_RECORD, ConfigError
from yt8m_gat.interrupt import command_name
from yt8m_gat.job_settings import InferenceSettings
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import input_path, output_path, read_paths, require_own_files
from yt8m_gat.starter_flags import warn_of_replaced

_setting = functools.partial(field, InferenceSettings)

SECTIONS: Sections = {
    "Run": (
        Flag("train_dir", "The run folder.", default=DEFAULT_RUN, path=input_path),
        _setting("checkpoint", "Which state of the run predicts.", choices=("best", "last")),
        Flag(
            "input_model_tgz",
            "Take the model from this archive instead of --train_dir.",
            path=input_path,
        ),
        Flag(
            "untar_model_dir",
            "Unpack the archive there and keep it.",
            path=output_path,
            unset="a folder that is removed afterwards",
        ),
        Flag(
            "output_model_tgz",
            "Also write the run's best model there, as an archive for --input_model_tgz.",
            path=output_path,
        ),
        _setting(
            "trust_code",
            "Run the code that the run or archive names: a model or loss of somebody's own.",
        ),
    ),
    "Records": (
        Flag("input_data_pattern", "Files to predict: globs, separated by commas.", default=""),
        _setting("batch_size", "Clips per batch.", least=1),
        _setting(
            "on_bad_record",
            "What happens at a record or video that cannot be read: stop, or leave it out.",
            choices=ON_BAD_RECORD,
        ),
        _setting(
            "max_bad_fraction",
            "With skip: stop when a larger share of the records, or of their bytes, is bad.",
            least=0,
            most=1,
        ),
    ),
    "Videos": (
        Flag(
            "input_video_pattern",
            "Video files to predict instead of records: globs, separated by commas.",
            default="",
        ),
        _setting(
            "format",
            "The file to write: the CSV, or a JSON object a line with names and seconds.",
            choices=("csv", "json"),
        ),
        Flag(
            "extractor",
            "extractor.json of the features, or its folder, for a run that has none.",
            path=input_path,
            unset="the run's",
        ),
        *(
            Flag(
                name,
                f"Weights of the extractor's {name} model, if they are elsewhere by now.",
                path=input_path,
                unset="where they were",
            )
            for name in ("picture", "sound")
        ),
        Flag(
            "label_names",
            "File that names the classes, for --format=json.",
            path=input_path,
            unset="the run's",
        ),
    ),
    "Submission": (
        Flag("output_file", "The file to write.", default="", path=output_path),
        _setting("top_k", "Predictions per video.", least=1),
        _setting(
            "segment_labels",
            "Predict each window of 5 frames and write the CSV of 2019.",
            unset="as in training",
        ),
        _setting(
            "segment_label_ids_file",
            "File that lists the classes of that CSV, one index a line.",
            path=input_path,
            unset="all classes",
        ),
        _setting("segment_max_pred", "Most segments of a class in that CSV.", least=1),
    ),
    "Flags of the starter code that have no effect here": without_effect("inference.py"),
}
PATHS = path_readers(SECTIONS)
_OF_VIDEOS = ("format", "extractor", "picture", "sound", "label_names")
_OF_RECORDS = (
    *("input_data_pattern", "batch_size", "max_bad_fraction", "segment_labels"),
    *("segment_label_ids_file", "segment_max_pred"),
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines every flag of this command on `values`."""
    define(SECTIONS, values)


def check_flags(values: flags.FlagValues) -> None:
    """Refuses flags that cannot work together.

    Raises:
        ConfigError: They cannot; the message names them and the remedy.
    """
    if not values.output_file:
        raise ConfigError("--output_file must name the file to write")
    if values.input_video_pattern:
        _refuse(values, _OF_RECORDS, "records, and --input_video_pattern names videos")
    else:
        _refuse(values, _OF_VIDEOS, "videos: it needs --input_video_pattern")
    if values.label_names and values.format != "json":
        raise ConfigError("--label_names is for --format=json: a CSV has no names")
    if values.untar_model_dir and not values.input_model_tgz:
        raise ConfigError("--untar_model_dir needs --input_model_tgz, the archive to unpack")
    if values.checkpoint not in (None, "best") and (
        values.input_model_tgz or values.output_model_tgz
    ):
        raise ConfigError(
            "--input_model_tgz and --output_model_tgz need --checkpoint=best: an archive holds the "
            f"best model of a run. Received: --checkpoint={values.checkpoint}"
        )


def _refuse(values: flags.FlagValues, names: Sequence[str], why: str) -> None:
    for name in names:
        if values[name].value not in (None, ""):
            raise ConfigError(f"--{name} is about {why}. Leave it out")


def main(argv: Sequence[str]) -> None:
    """Predicts and writes the file."""
    values = absl_flags.parse(SECTIONS, argv, __doc__, from_run=OF_RUN)
    with reported_errors():
        warn_of_replaced("inference.py", values.flag_values_dict(), command_name())
        read_paths(values, PATHS)
        check_flags(values)
        with only_writer(values.output_file):
            num_videos = _predict(values)
        print(f"{values.output_file}: {num_videos} videos")


def _check_archive(values: flags.FlagValues) -> None:
    from yt8m_gat.data.dataset import find_files

    name = "input_video_pattern" if values.input_video_pattern else "input_data_pattern"
    inputs = dict.fromkeys(find_files(values[name].value, name), f"a file of --{name}")
    inputs[values.input_model_tgz] = "the archive of --input_model_tgz"
    outputs = {name: values[name].value for name in ("output_file", "output_model_tgz")}
    require_own_files({f"--{name}": path for name, path in outputs.items()}, inputs)


def _predict(values: flags.FlagValues) -> int:
    settings = given(values, [f for f in all_flags(SECTIONS) if f.config is InferenceSettings])
    with quiet_tensorflow():
        from yt8m_gat import pipeline
        from yt8m_gat.export import write_archive

    with (
        pipeline.reported_errors(),
        pipeline.model_folder(
            values.train_dir, values.input_model_tgz, values.untar_model_dir, values.trust_code
        ) as folder,
    ):
        if values.output_model_tgz:
            _check_archive(values)
            write_archive(folder, values.output_model_tgz)
        try:
            if values.input_video_pattern:
                return pipeline.infer_videos(
                    folder,
                    input_video_pattern=values.input_video_pattern,
                    output_file=values.output_file,
                    extractor=values.extractor,
                    picture=values.picture,
                    sound=values.sound,
                    label_names=values.label_names,
                    **settings,
                )
            return pipeline.infer(
                folder,
                input_data_pattern=values.input_data_pattern,
                output_file=values.output_file,
                **settings,
            )
        except KeyboardInterrupt:
            exit_interrupted(pipeline.partial_file(values.output_file))
