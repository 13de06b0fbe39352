"""What every job reads from a run: its schema, and whether it is about segments."""

import os

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import LabelMap, RecordSchema, read_label_names
from yt8m_gat.run_folder import RunFolder


def read_schema(
    folder: RunFolder, config: RunConfig, label_map: str | os.PathLike | None = None
) -> RecordSchema:
    """What the records of a run hold, with its label map, if any.

    Args:
        folder: The run folder.
        config: The run.
        label_map: File of the label map; None: the folder keeps it.

    Raises:
        ConfigError: The label map is not that of the run.
        OSError: It is not there.
    """
    found = None
    if config.data.label_map is not None:
        found = LabelMap.load(label_map or folder.label_map, config.data.num_source_classes)
    return RecordSchema.from_config(config.data, found)


def class_names(schema: RecordSchema, path: str | os.PathLike | None) -> dict[int, str]:
    """Class -> name, from a file of names, or else from the run's own label map, if any.

    Raises:
        ConfigError: The file does not read; see `yt8m_gat.data.read_label_names`.
    """
    if path is not None:
        return read_label_names(path)
    names = () if schema.label_map is None else schema.label_map.names
    return {index: name for index, name in enumerate(names) if name}


def on_segments(config: RunConfig, segment_labels: bool | None) -> bool:
    """Whether a job is about segments: as asked for, or as in training.

    Raises:
        ConfigError: Asked for of a video-level run.
    """
    if segment_labels and not config.data.frame_features:
        raise ConfigError(
            "--segment_labels needs a frame-level run: a segment is 5 frames. Received: a run of "
            f"--model={config.model.name}"
        )
    return config.data.segment_labels if segment_labels is None else segment_labels
