"""The SavedModel of a run."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from yt8m_gat.config import RunConfig
from yt8m_gat.data import RecordSchema
from yt8m_gat.export import export_saved_model


def export(classifier: Any, config: RunConfig, export_dir: str | os.PathLike) -> Path:
    """Writes `classifier` as the next version of a SavedModel below `export_dir`.

    Raises:
        WriteError: See `yt8m_gat.export.export_saved_model`.
    """
    # Records that are served need no labels; any that they have are not read.
    data = dataclasses.replace(config.data, num_source_classes=None, label_map=None)
    return export_saved_model(
        classifier, RecordSchema.from_config(data), export_dir, config.data.normalize
    )
