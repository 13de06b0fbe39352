"""The calibration of a run: the file in its folder that `yt8m-gat calibrate` writes.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import ClassVar

from yt8m_gat.config import ConfigError, StoredConfig
from yt8m_gat.untrusted import read_text

CALIBRATION_FILE = "calibration.json"
_MAX_BYTES = 64 << 20

# Pairs, their mean probability, and the share of positives among them.
StoredBin = tuple[int, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration(StoredConfig):
    """Temperature and thresholds of a run's probabilities, and how they were found.

    The calibrated probability of a class is that of its logit divided by the temperature. A class
    is a tag of a clip if its calibrated probability is at least its threshold.

    Attributes:
        weights: Digest of the weights that it belongs to (`weights.files.weights_digest`).
        checkpoint: Which weights of the run these are, `best` or `last`.
        step: Their training step; None: not known.
        temperature: T.
        thresholds: [C].
        shared_threshold: That of the classes with fewer than `min_positives` clips.
        min_positives: See `shared_threshold`.
        num_own: Classes with a threshold of their own.
        num_examples: Clips, or segments, that it was found on.
        nll: Negative log-likelihood with T = 1 and with T.
        ece: Expected calibration error of all pairs of clip and class, likewise.
        top_ece: That of the likeliest class of each clip, likewise.
        bins: The bins of all pairs that hold one, with T = 1.
        calibrated_bins: Likewise with T.
        pattern: The records that it was found on.
        command: The words of the command that found it.
    """

    FILE: ClassVar[str] = CALIBRATION_FILE

    weights: str
    checkpoint: str
    step: int | None
    temperature: float
    thresholds: tuple[float, ...]
    shared_threshold: float
    min_positives: int
    num_own: int
    num_examples: int
    nll: tuple[float, float]
    ece: tuple[float, float]
    top_ece: tuple[float, float]
    bins: tuple[StoredBin, ...]
    calibrated_bins: tuple[StoredBin, ...]
    pattern: str
    command: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive. Received: {self.temperature!r}")

    @classmethod
    def load(cls, train_dir: str | os.PathLike) -> Calibration | None:
        """Reads `train_dir/calibration.json`; None: there is none.

        Raises:
            ConfigError: It is not a calibration.
        """
        path = Path(train_dir) / cls.FILE
        try:
            return cls.from_json(read_text(path, _MAX_BYTES))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(
                f"{path}: {error}. Write it again by `yt8m-gat calibrate`, or delete it"
            ) from error
