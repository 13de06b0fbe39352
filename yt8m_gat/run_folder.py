"""The files of a run: their paths, and how they are written."""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yt8m_gat.calibration import CALIBRATION_FILE
from yt8m_gat.config import CONFIG_FILE, ConfigError, RunConfig
from yt8m_gat.disk import remove_unfinished, replacing, writing
from yt8m_gat.locks import only_writer_in, renew
from yt8m_gat.paths import input_path
from yt8m_gat.untrusted import excerpt, fits, parse_json
from yt8m_gat.weights.files import (
    BACKBONE,
    BEST_WEIGHTS,
    CHECKPOINTS,
    checkpoint_steps,
    weights_digest,
)

LABEL_NAMES_FILE = "label_names.csv"
"""The names of the classes, beside records: `label_id,label_name`."""

_PACKAGES = ("tensorflow", "keras", "numpy", "yt8m-gat")


def with_teacher_digests(config: RunConfig) -> RunConfig:
    """Returns a configuration with the digests of the weights that its teachers have now.

    Raises:
        ConfigError: A teacher has no best weights.
    """
    digests = []
    for path in config.objective.teacher:
        digest = weights_digest(path, "best")
        if digest is None:
            raise ConfigError(
                f"--teacher={path} holds no {BEST_WEIGHTS}: it must name folders of trained runs"
            )
        digests.append(digest)
    objective = dataclasses.replace(config.objective, teacher_digests=tuple(digests))
    return dataclasses.replace(config, objective=objective)


class RunFolder:
    """`train_dir`: everything that evaluation, inference and resuming need.

    | name | content |
    |---|---|
    | `config.json` | the run's configuration |
    | `versions.json` | versions of Python and of the packages at its start |
    | `label_map.csv` | the label map, if the run has one |
    | `backbone.json` | the architecture of its backbone, if that was read from a file |
    | `extractor/` | the extractor of its records, if they have one: `extractor.json`, the small files that it names, and `label_names.csv` |
    | `checkpoints/` | the newest states of training, for resuming |
    | `best.weights.h5` | the model's weights at its best validation GAP |
    | `calibration.json` | temperature and thresholds of some weights, see `yt8m_gat.calibration` |
    | `metrics.jsonl` | an object per line: a start, means over some steps, a validation, the end |
    | `events/` | the same for TensorBoard |
    | `.lock` | the lock of the process that trains here, while it does |

    Files are written under a temporary name and renamed, so an existing file is complete. Only
    training and calibration write here, one process at a time (`only_writer`); any may read.
    """  # noqa: E501

    def __init__(self, path: str | os.PathLike) -> None:
        if not os.fspath(path):
            raise ConfigError(
                "--train_dir must name the run folder, '.' for the current one. Received: nothing"
            )
        self.path = Path(input_path("--train_dir", os.fspath(path)))
        self._prepared: dict[Path, bytes] = {}

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def checkpoints(self) -> Path:
        """Folder of the resumable states."""
        return self.path / CHECKPOINTS

    @property
    def best_weights(self) -> Path:
        """The best weights."""
        return self.path / BEST_WEIGHTS

    @property
    def label_map(self) -> Path:
        """The run's own copy of its label map."""
        return self.path / "label_map.csv"

    @property
    def backbone(self) -> Path:
        """The architecture of a backbone that was read from a file."""
        return self.path / BACKBONE

    @property
    def calibration(self) -> Path:
        """Temperature and thresholds, if the run has been calibrated."""
        return self.path / CALIBRATION_FILE

    @property
    def extractor(self) -> Path:
        """Folder of the extractor that made the run's records."""
        return self.path / "extractor"

    @property
    def label_names(self) -> Path:
        """The run's own copy of the names of its classes, if its records had one."""
        return self.extractor / LABEL_NAMES_FILE

    @property
    def has_weights(self) -> bool:
        """Whether there are weights: a run that ended before its first checkpoint has none."""
        return bool(checkpoint_steps(self.checkpoints)) or self.best_weights.is_file()

    @property
    def is_resumable(self) -> bool:
        """Whether training can go on from what is here.

        A run that was killed before its first checkpoint begins again, and may replace the weights
        that it had: its metrics have a start and no end. Other weights without a checkpoint are
        all that is left of a training, or were made elsewhere.
        """
        if checkpoint_steps(self.checkpoints) or not self.best_weights.is_file():
            return True
        kinds = {record.get("kind") for record in self.read_metrics()}
        return "start" in kinds and "end" not in kinds

    @property
    def metrics(self) -> Path:
        """Metrics as JSON lines."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """TensorBoard's folder."""
        return self.path / "events"

    @property
    def _model_files(self) -> tuple[Path, ...]:
        """The files of a run in the folder itself, without its configuration and versions."""
        files = (self.best_weights, self.metrics, self.label_map, self.backbone)
        return (*files, self.calibration)

    def own_files(self) -> dict[Path, str]:
        """Returns the files of the run, no others -> what they are, for `require_own_files`."""
        files = [self.path / CONFIG_FILE, self.path / "versions.json", *self._model_files]
        for folder in (self.checkpoints, self.events, self.extractor):
            files += folder.rglob("*")
        return dict.fromkeys(files, f"a file of the run {self.path}")

    def only_writer(self) -> contextlib.AbstractContextManager[None]:
        """Holds the folder's lock; see `yt8m_gat.locks.only_writer_in`.

        Raises:
            InUseError: Another process trains here.
        """
        return only_writer_in(self.path)

    def check(self, config: RunConfig) -> None:
        """Refuses `config` if the folder holds a run with other settings, or weights alone.

        Raises:
            ConfigError: The stored run has other settings, and the message names each; or its
                configuration is missing; or it cannot be resumed, see `is_resumable`.
        """
        if not self.has_weights:
            return
        if not (self.path / CONFIG_FILE).is_file():
            raise ConfigError(
                f"--train_dir={self.path} holds the weights of a run and no {CONFIG_FILE}, which "
                "describes them. Put back a copy of it, give another --train_dir, or drop that "
                "run with --start_new_model"
            )
        if not self.is_resumable:
            raise ConfigError(
                f"--train_dir={self.path} holds weights and no checkpoint, as an ensemble, a soup "
                "and an unpacked archive do: training cannot go on there, and would replace them. "
                f"Give another --train_dir, with --finetune_from={self.path} to start from them; "
                "or drop them with --start_new_model"
            )
        differences = RunConfig.load(self.path).differences(config)
        if differences:
            raise ConfigError(
                f"--train_dir={self.path} holds a run with other settings (stored != given):"
                + "".join(f"\n  {line}" for line in differences)
                + "\nGive the stored ones to resume it, another --train_dir, or --start_new_model"
            )

    def prepare(
        self,
        config: RunConfig,
        start_new_model: bool = False,
        label_map: str | os.PathLike | None = None,
        extractor: Mapping[str, bytes] | None = None,
        backbone_architecture: str | None = None,
    ) -> None:
        """Prepares the folder for a run of `config`, new or resumed.

        Args:
            config: The run to be trained.
            start_new_model: Remove an earlier run instead of resuming it.
            label_map: File of the label map that `config` names, copied into the folder.
            extractor: The files of the records' extractor, name -> content, kept in the folder;
                None or empty: those that are there stay.
            backbone_architecture: The architecture of a backbone that was read from a file, kept
                in the folder.

        Raises:
            ConfigError: See `check`.
        """
        # Read first: it may be in this folder, which may be cleared.
        map_content = None if label_map is None else Path(label_map).read_bytes()
        if start_new_model:
            self.clear()
        else:
            self.check(config)
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        versions["python"] = sys.version.split()[0]
        self._prepared = {
            self.path / "versions.json": (json.dumps(versions, indent=2) + "\n").encode(),
            **({} if map_content is None else {self.label_map: map_content}),
            **(
                {}
                if backbone_architecture is None
                else {self.backbone: backbone_architecture.encode()}
            ),
            **{self.extractor / name: content for name, content in (extractor or {}).items()},
            self.path / CONFIG_FILE: config.to_json().encode(),
        }
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.has_weights:  # Another run, which came to nothing, may have left it.
                shutil.rmtree(self.extractor, ignore_errors=True)
                self.backbone.unlink(missing_ok=True)
            if extractor:
                self.extractor.mkdir(exist_ok=True)
        written = (*self._prepared, self.label_map, self.backbone, self.metrics, self.best_weights)
        remove_unfinished(self.path, *(path.name for path in written))
        remove_unfinished(self.extractor, "*")
        for path, content in self._prepared.items():
            with replacing(path) as temporary:
                temporary.write_bytes(content)

    def put_back(self) -> None:
        """Writes the files of `prepare` again, and the lock, if they were deleted.

        Without its configuration a run could be resumed under other settings.

        Raises:
            InUseError: The lock was deleted, and another process trains here now.
            WriteError: A file cannot be written.
        """
        renew(self.path)
        for path, content in self._prepared.items():
            if not path.is_file():
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary:
                    temporary.write_bytes(content)

    def clear(self) -> None:
        """Removes the files of a run, and no others; the configuration last, so that a kill in
        between leaves a folder whose run is still known."""
        for folder in (self.checkpoints, self.events, self.extractor):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (*self._model_files, self.path / CONFIG_FILE):
            path.unlink(missing_ok=True)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Appends one line to `metrics.jsonl`."""
        with writing(self.metrics):
            self.path.mkdir(parents=True, exist_ok=True)  # It may have been deleted meanwhile.
        with writing(self.metrics), self.metrics.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of `metrics.jsonl`; none if there is no such file.

        Raises:
            ConfigError: A line is not an object with a step. The last one may be cut short, as in a
                run that is being trained or was killed.
        """
        if not self.metrics.is_file():
            return []
        lines = self.metrics.read_bytes().splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = parse_json(line)
            except ValueError as error:
                if number == len(lines):
                    break
                raise ConfigError(
                    f"{self.metrics}, line {number}: must be JSON ({error})"
                ) from error
            if not fits(record, {"step": int, "epoch?": int, "kind?": str}):
                raise ConfigError(
                    f"{self.metrics}, line {number}: must be an object with a step. Remove the "
                    f"line. Received: {excerpt(record)}"
                )
            records.append(record)
        return records

    def last_learning_rate(self) -> float | None:
        """Returns the learning rate at which the run ended, or None if it has logged none."""
        rates = [
            rate
            for record in self.read_metrics()
            if isinstance(rate := record.get("learning_rate"), float) and 0 < rate < math.inf
        ]
        return rates[-1] if rates else None

    def forget_metrics_after(self, step: int, epoch: int) -> list[dict[str, Any]]:
        """Drops the lines that a resumed run will write again, and the one of its end.

        Args:
            step: The last step that is done.
            epoch: The first epoch that is not done; the line at its end will be written again.

        Returns:
            The lines that are kept.
        """
        if not self.metrics.is_file():
            return []

        def will_be_written_again(record: dict[str, Any]) -> bool:
            of_epoch = record.get("kind") == "bad_records" and record.get("epoch", 0) >= epoch
            return record["step"] > step or of_epoch or record.get("kind") == "end"

        kept = [record for record in self.read_metrics() if not will_be_written_again(record)]
        with replacing(self.metrics) as temporary:
            temporary.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
        return kept
