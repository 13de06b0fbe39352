"""Settings that jobs read from a run: its schema, class names, and whether it uses segments."""

import os

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import LabelMap, RecordSchema, read_label_names
from yt8m_gat.run_folder import RunFolder


def read_schema(
    folder: RunFolder, config: RunConfig, label_map: str | os.PathLike | None = None
) -> RecordSchema:
    """Returns the schema of a run's records, with its label map, if any.

    Args:
        folder: The run folder.
        config: Its configuration.
        label_map: File of the label map; None: the one in the folder.

    Raises:
        ConfigError: The label map is not that of the run.
        OSError: There is no such file.
    """
    labels = None
    if config.data.label_map is not None:
        labels = LabelMap.load(label_map or folder.label_map, config.data.num_source_classes)
    return RecordSchema.from_config(config.data, labels)


def class_names(
    folder: RunFolder, schema: RecordSchema, path: str | os.PathLike | None
) -> dict[int, str]:
    """Returns class -> name.

    Args:
        folder: The run folder.
        schema: The schema of its records.
        path: A file of names; None: the run's label map, else the names that were beside its
            training records, if it has either.

    Raises:
        ConfigError: The file cannot be read; see `yt8m_gat.data.read_label_names`.
    """
    if path is None and schema.label_map is None and folder.label_names.is_file():
        path = folder.label_names
    if path is not None:
        return read_label_names(path)
    names = () if schema.label_map is None else schema.label_map.names
    return {index: name for index, name in enumerate(names) if name}


def on_segments(config: RunConfig, segment_labels: bool | None) -> bool:
    """Returns whether a job is about segments: as requested, or else as in training.

    Raises:
        ConfigError: Segments are requested of a video-level run, or of one of raw clips.
    """
    of_features = config.data.frame_features and config.data.clips is None
    if segment_labels and not of_features:
        raise ConfigError(
            "--segment_labels needs a frame-level run of features: a segment is 5 frames. "
            f"Received: a run of --model={config.model.name}"
        )
    return config.data.segment_labels if segment_labels is None else segment_labels
