"""The files of one run, read for a report."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from yt8m_gat.config import ConfigError, RunConfig

EVALUATION_FILE = "evaluation.json"
METRICS_FILE = "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class ReportedRun:
    """What is known of a run; a part that has no file is empty.

    Attributes:
        name: How the page calls it.
        config: Its configuration.
        evaluation: What `eval.py --output_file` wrote, `{"clean", "attacks", ...}`.
        history: The lines of `metrics.jsonl`.
    """

    name: str
    config: RunConfig
    evaluation: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def clean(self) -> dict[str, Any]:
        """Metrics without an attack."""
        return self.evaluation.get("clean", {})

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """A row per attack and epsilon."""
        return self.evaluation.get("attacks", [])

    @property
    def corruptions(self) -> list[dict[str, Any]]:
        """A row per corruption and severity."""
        return self.evaluation.get("corruptions", [])


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None: JSON says null where a metric has no value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def read_run(
    train_dir: str | os.PathLike,
    evaluation_file: str | os.PathLike | None = None,
    name: str | None = None,
) -> ReportedRun:
    """Reads a run folder and its evaluation.

    Args:
        train_dir: The run folder.
        evaluation_file: What `eval.py --output_file` wrote; None: `evaluation.json` in the run
            folder, if it is there.
        name: How the page calls it; None: the folder's name.

    Raises:
        ConfigError: A file is not what it should be; the message names it.
        OSError: `train_dir` holds no run, or `evaluation_file` is not there.
    """
    folder = Path(train_dir)
    config = RunConfig.load(folder)
    evaluation: dict[str, Any] = {}
    default = folder / EVALUATION_FILE
    if evaluation_file is not None:
        evaluation = _read_evaluation(Path(evaluation_file))
    elif default.is_file():
        evaluation = _read_evaluation(default)
    metrics = folder / METRICS_FILE
    history = _read_history(metrics) if metrics.is_file() else []
    return ReportedRun(name or folder.resolve().name, config, evaluation, history)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8 text: {error}") from error


def _read_evaluation(path: Path) -> dict[str, Any]:
    remedy = "write it anew with eval.py --output_file"
    try:
        result = json.loads(_text_of(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: must be JSON ({error}); {remedy}") from error
    if not isinstance(result, dict) or not isinstance(result.get("clean"), dict):
        raise ConfigError(
            f'{path}: must be an evaluation, {{"clean": {{...}}, "attacks": [...]}}; {remedy}'
        )
    for rows, keys in (
        ("attacks", ("attack", "epsilon")),
        ("corruptions", ("corruption", "severity")),
    ):
        found = result.get(rows, [])
        if not isinstance(found, list) or not all(
            isinstance(row, dict) and all(key in row for key in keys) for row in found
        ):
            raise ConfigError(
                f"{path}: {rows!r} must be a list of rows with {' and '.join(keys)}; {remedy}"
            )
    return result


def _read_history(path: Path) -> list[dict[str, Any]]:
    lines = _text_of(path).splitlines()
    history = []
    for index, line in enumerate(lines):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            # A run that is being trained, or was killed, may have cut its last line short.
            if index == len(lines) - 1:
                break
            raise ConfigError(f"{path}, line {index + 1}: must be JSON ({error})") from error
        if not isinstance(record, dict) or number(record.get("step")) is None:
            raise ConfigError(f"{path}, line {index + 1}: must be an object with a step")
        history.append(record)
    return history
