"""The job that writes the SavedModel of a run."""

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yt8m_gat.calibration import Calibration
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import RecordSchema
from yt8m_gat.export import export_saved_model
from yt8m_gat.export.saved_model import IMAGES
from yt8m_gat.extraction.config import EXTRACTOR_FILE
from yt8m_gat.extraction.extractor import Extractor
from yt8m_gat.extraction.in_graph import GraphExtractor
from yt8m_gat.pipeline.calibration import calibration_of
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import weights_of


def export(
    classifier: Any,
    config: RunConfig,
    export_dir: str | os.PathLike,
    provenance: Mapping[str, Any] | None = None,
    extractor_dir: Path | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Writes `classifier` as the next version of a SavedModel below `export_dir`.

    Args:
        classifier: The classifier.
        config: The configuration of its run.
        export_dir: Folder of the versions.
        provenance: Where the weights come from, written beside the model; see `weights_of`.
        extractor_dir: The extractor that the run keeps. If it can become a part of the model, that
            has the signature `images`; otherwise a line on the standard error says why not.
        calibration: That of these weights, for the signature `tags`; None: there is none.

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
        extractor=graph_extractor(config, extractor_dir),
        calibration=calibration,
    )


def export_run(
    folder: RunFolder,
    export_dir: str | os.PathLike,
    checkpoint: str = "best",
    trust_code: bool = False,
) -> Path:
    """Writes the model of a run as `export` does, with its extractor and its calibration.

    Args:
        folder: The run.
        export_dir: Folder of the versions.
        checkpoint: `best` or `last`.
        trust_code: Run the code that the run names, see `yt8m_gat.weights.load.load_run`.

    Raises:
        FileNotFoundError: The run has no such weights yet.
        WriteError: See `yt8m_gat.export.export_saved_model`.
    """
    config = RunConfig.load(folder.path)
    loaded = load_run(folder, config, checkpoint, trust_code)
    return export(
        loaded.classifier,
        config,
        export_dir,
        weights_of(folder, checkpoint, loaded),
        extractor_dir=folder.extractor,
        calibration=calibration_of(folder, config.data.num_classes, loaded.digest),
    )


def graph_extractor(config: RunConfig, folder: Path | None) -> GraphExtractor | None:
    """Returns the extractor of a run as operations of a graph; None, after a line, if it cannot be.

    Args:
        config: The configuration of the run.
        folder: The extractor that it keeps; one that is not there gives None without a line.
    """
    if folder is None or not (folder / EXTRACTOR_FILE).is_file() or not config.data.frame_features:
        return None
    try:
        return Extractor.load(folder).graph(config.data.feature_names)
    except ConfigError as error:
        print(
            printable(f"the export has no signature {IMAGES}: {error}"),
            file=sys.stderr,
        )
        return None
