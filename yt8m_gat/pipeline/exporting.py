"""The job that writes the SavedModel of a run."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yt8m_gat.config import RunConfig
from yt8m_gat.data import RecordSchema
from yt8m_gat.export import export_saved_model


def export(
    classifier: Any,
    config: RunConfig,
    export_dir: str | os.PathLike,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `classifier` as the next version of a SavedModel below `export_dir`.

    Args:
        classifier: The classifier.
        config: The configuration of its run.
        export_dir: Folder of the versions.
        provenance: Where the weights come from, written beside the model; see `weights_of`.

    Raises:
        WriteError: See `yt8m_gat.export.export_saved_model`.
    """
    # Records at serving time need no labels, and labels that they have are not read.
    data = dataclasses.replace(config.data, num_source_classes=None, label_map=None)
    return export_saved_model(
        classifier,
        RecordSchema.from_config(data),
        export_dir,
        config.data.normalize,
        provenance=provenance,
    )
