"""The files of one run, read for a report."""

import base64
import binascii
import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yt8m_gat.calibration import Calibration
from yt8m_gat.config import CONFIG_FILE, ConfigError, RunConfig
from yt8m_gat.digests import digest_of
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import fits, printable, read_json
from yt8m_gat.weights.files import weights_digest

EVALUATION_FILE = "evaluation.json"
_LARGEST = 1e100
# The frames of a clip go into the page as they are: nothing but a small JPEG may be one.
_PICTURE = re.compile(r"data:image/jpeg;base64,([A-Za-z0-9+/]+={0,2})")
MAX_PICTURE_LENGTH = 1 << 16
"""Longest data URI of a frame, in characters; one of 96 x 96 pixels has about 5,000."""
# Appended to the name of a run that fails a check against gradient masking.
MARK = "\u00a0‡"

# The required shapes of the parts of an evaluation (`fits`). Rows may hold more.
_NUMBER = (int, float, type(None))
_ENTRY = [(int, float, str, type(None))]
_PROFILES = {str: {str: [_NUMBER]}}
_ROW = {"attack": str, "epsilon": _NUMBER}
_DISTURBED = {"corruption": str, "severity": _NUMBER}
_SIDE = {
    "top": [_ENTRY],
    "profiles?": _PROFILES,
    "maps?": {str: {str: [[_NUMBER]]}},
    "frames?": [str],
    "activation?": [
        {
            "class": int,
            "name": (str, type(None)),
            "values": [_NUMBER],
            "entropy": _NUMBER,
            "spread": _NUMBER,
        }
    ],
}
_SPANS = {"num_spans": int, "share": _NUMBER, "pointing": _NUMBER, "even_share": _NUMBER}
_PARTS = {
    "clean": ((dict, type(None)), "a row of metrics, or null before it was measured"),
    "settings": (
        {"checkpoint?": str, "weights?": str, "config?": str},
        "settings with checkpoint, weights and config",
    ),
    "attacks": ([_ROW], "a list of rows with attack and epsilon"),
    "corruptions": ([_DISTURBED], "a list of rows with corruption and severity"),
    "sanity": (
        [{"check": str, "verdict": str, "detail": str}],
        "a list of check, verdict and detail",
    ),
    "verticals": (
        [
            {
                "vertical": str,
                "clean": (dict, type(None)),
                "attacks?": [_ROW],
                "corruptions?": [_DISTURBED],
            }
        ],
        "a list of groups with vertical, clean (null where no video has one of its classes) and "
        "attacks",
    ),
    "attention": (
        {
            "profiles?": _PROFILES,
            "attacked_profiles?": _PROFILES,
            "sensitivity?": {str: {"S": _NUMBER}},
        },
        "profiles and sensitivity by feature",
    ),
    "class_activation": (
        {
            "num_videos": int,
            "num_silent": int,
            "entropy": _NUMBER,
            "spread": _NUMBER,
            "entropy_deviation": _NUMBER,
            "spread_deviation": _NUMBER,
        },
        "entropy and spread with their deviations, num_videos and num_silent",
    ),
    "true_spans": (
        {"activation": _SPANS, "attention": {str: _SPANS}},
        "figures of activation and, by feature, of attention",
    ),
    "clips": (
        [{"video_id": str, "labels": [_ENTRY], "clean": _SIDE, "attacked?": _SIDE}],
        "a list of clips with video_id, labels, clean and attacked",
    ),
    "comparison": (
        {
            "baseline": str,
            "top": [_ENTRY],
            "bottom": [_ENTRY],
            "accuracy_gains?": [_NUMBER],
            "rows?": [
                {
                    **{"attack": (str, type(None)), "epsilon": _NUMBER},
                    **{"gap": (dict, type(None)), "hit_at_1": (dict, type(None))},
                }
            ],
        },
        "a comparison with baseline, top and bottom",
    ),
    "worst_cases": (
        [{"axes": str, "epsilon": _NUMBER, "hit_at_1": _NUMBER, "gap?": _NUMBER}],
        "a list of balls with axes, epsilon and hit_at_1",
    ),
    "certificates": (
        [
            {
                **{"sigma": _NUMBER, "samples": _NUMBER, "alpha": _NUMBER, "threshold": _NUMBER},
                "first_class": {"wrong": _NUMBER, "abstained": _NUMBER},
                "curve": [{"norm_scope": str, "epsilon": _NUMBER, "hit_at_1": _NUMBER}],
            }
        ],
        "a list of smoothed classifiers with sigma, samples, first_class and curve",
    ),
    "embeddings": (
        {**_ROW, "num_videos": _NUMBER, "layers": [{"layer": str}]},
        "layers under one attack, with attack, num_videos and layers",
    ),
    "provenance": ({"earlier_calls?": [dict]}, "an object, its earlier_calls a list of such"),
    "classes": ({"ap?": [_NUMBER], "positives?": [_NUMBER]}, "figures of the classes"),
}


@dataclasses.dataclass(frozen=True)
class ReportedRun:
    """The data of a run; parts without a file are empty.

    Attributes:
        name: Its name on the page.
        config: Its configuration.
        evaluation: The file of `eval.py --output_file`, `{"clean", "attacks", ...}`; empty if it
            is not of the run's present state.
        history: The lines of `metrics.jsonl`.
        warning: A warning that the evaluation was left out, or that it may not be of the run's
            present state; may be empty.
        calibration: Its temperature and thresholds; None: it has none of its present state.
        unreadable: A message for each file of the run that is malformed and left out.
    """

    name: str
    config: RunConfig
    evaluation: dict[str, Any]
    history: list[dict[str, Any]]
    warning: str = ""
    unreadable: tuple[str, ...] = ()
    calibration: Calibration | None = None

    @property
    def clean(self) -> dict[str, Any]:
        """Metrics without an attack; empty before they were measured."""
        return self.evaluation.get("clean") or {}

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """A row per attack and epsilon."""
        return self.evaluation.get("attacks", [])

    @property
    def class_activation(self) -> dict[str, Any]:
        """Entropy and spread of the class activation over time; empty if not measured."""
        return self.evaluation.get("class_activation", {})

    @property
    def true_spans(self) -> dict[str, dict[str, Any]]:
        """Figures of activation and attention inside of true spans, by name; may be empty."""
        spans = self.evaluation.get("true_spans")
        if not spans:
            return {}
        of_features = {f"attention, {name}": row for name, row in spans["attention"].items()}
        return {"class activation": spans["activation"], **of_features}

    @property
    def corruptions(self) -> list[dict[str, Any]]:
        """A row per corruption and severity."""
        return self.evaluation.get("corruptions", [])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its evaluation, which decide whether it compares with others."""
        return self.evaluation.get("settings", {})

    @property
    def provenance(self) -> dict[str, Any]:
        """Time, command and so on of its evaluation; empty if the file has none."""
        return self.evaluation.get("provenance", {})

    @property
    def worst_cases(self) -> list[dict[str, Any]]:
        """Hit@1 over all attacks of a ball, clip by clip."""
        return self.evaluation.get("worst_cases", [])

    @property
    def certificates(self) -> list[dict[str, Any]]:
        """Certified shares of the classifier smoothed by noise, a row per sigma."""
        return self.evaluation.get("certificates", [])

    @property
    def on_segments(self) -> bool:
        """Whether it was evaluated on rated segments instead of whole videos."""
        return "num_segments" in self.clean

    @property
    def verdicts(self) -> dict[str, dict[str, str]]:
        """Check against gradient masking -> its verdict and detail."""
        return {row["check"]: row for row in self.evaluation.get("sanity", [])}

    @property
    def suspect(self) -> bool:
        """Whether a check against gradient masking failed."""
        return any(row["verdict"] == "fail" for row in self.verdicts.values())

    @property
    def title(self) -> str:
        """The name, marked if the run is suspect."""
        return self.name + (MARK if self.suspect else "")

    @property
    def attention(self) -> dict[str, Any]:
        """Profiles and sensitivity."""
        return self.evaluation.get("attention", {})

    @property
    def clips(self) -> list[dict[str, Any]]:
        """Clips that were evaluated individually."""
        return self.evaluation.get("clips", [])

    @property
    def verticals(self) -> list[dict[str, Any]]:
        """Metrics of groups of classes; `clean` is empty for a group without videos."""
        groups = self.evaluation.get("verticals", [])
        return [{**group, "clean": group["clean"] or {}} for group in groups]

    def attacked(self, attack: str, epsilon: float | None) -> dict[str, Any]:
        """Returns the row of an attack at a radius; empty when it was not run."""
        return find_row(self.attacks, attack, epsilon)


def find_row(rows: Sequence[dict[str, Any]], attack: str, epsilon: float | None) -> dict[str, Any]:
    """Returns the row of an attack at a radius; empty when there is none."""
    for row in rows:
        if row["attack"] == attack and number(row["epsilon"]) == epsilon:
            return row
    return {}


@dataclasses.dataclass(frozen=True)
class RunGroup:
    """Runs of one kind, which differ only in their seed.

    Attributes:
        name: The run's own, or, for several, that of the first without the number at its end.
        runs: At least one.
    """

    name: str
    runs: tuple[ReportedRun, ...]

    @property
    def title(self) -> str:
        """The name and the number of runs, marked if one of them is suspect."""
        count = f" ({len(self.runs)} seeds)" if len(self.runs) > 1 else ""
        return self.name + count + (MARK if any(run.suspect for run in self.runs) else "")


def group_runs(runs: Sequence[ReportedRun]) -> list[RunGroup]:
    """Returns the runs by kind, in the order in which each kind first appears."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        training = dataclasses.replace(run.config.training, seed=0)
        kind = dataclasses.replace(run.config, training=training).to_json()
        groups.setdefault(kind, []).append(run)
    named = []
    for members in groups.values():
        name = members[0].name
        if len(members) > 1:
            name = re.sub(r"[_\-. ]*(seed)?[_\-. ]*[0-9]+$", "", name) or name
        named.append(RunGroup(name, tuple(members)))
    return named


def number(value: Any) -> float | None:
    """Returns `value` if it is a figure, else None: JSON has null for a metric without a value.

    A figure is finite, and small enough to compute an axis with it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= _LARGEST else None


def pair(value: Any) -> tuple[float, float] | None:
    """Returns `value` if it is a list of two finite numbers (an interval, say), else None."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = map(number, value)
    return None if low is None or high is None else (low, high)


def read_run(
    train_dir: str | os.PathLike,
    evaluation_file: str | os.PathLike | None = None,
    name: str | None = None,
) -> ReportedRun:
    """Reads a run folder and its evaluation.

    An evaluation of other weights, or of another configuration, than the folder holds now is left
    out with a warning: the run has been trained further, or is another one. A malformed file is
    also left out: `unreadable` names it, and the rest of the run is still shown.

    Args:
        train_dir: The run folder.
        evaluation_file: The file of `eval.py --output_file`; None: `evaluation.json` in the run
            folder, if it exists.
        name: Its name on the page; None: the folder's name.

    Raises:
        ConfigError: The folder has no readable configuration.
    """
    folder = RunFolder(train_dir)
    config, config_bytes = RunConfig.load_with_bytes(folder.path)
    name = name or printable(folder.path.resolve().name)
    evaluation: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    warning = ""
    unreadable = []
    default = folder.path / EVALUATION_FILE
    if evaluation_file is not None or default.is_file():
        path = default if evaluation_file is None else Path(evaluation_file)
        try:
            evaluation = _read_evaluation(path)
            settings = evaluation.get("settings", {})
            is_ours, warning = _provenance(folder, digest_of([config_bytes]), settings, path)
            if not is_ours:
                evaluation = {}
        except (ConfigError, OSError) as error:
            unreadable.append(f"{name}: {error}")
    try:
        history = folder.read_metrics()
    except (ConfigError, OSError) as error:
        unreadable.append(f"{name}: {error}")
    calibration = None
    try:
        calibration = Calibration.load(folder.path)
    except (ConfigError, OSError) as error:
        unreadable.append(f"{name}: {error}")
    if calibration and calibration.weights != weights_digest(folder, calibration.checkpoint):
        unreadable.append(
            f"{name}: {folder.calibration} belongs to other weights than the folder holds now; "
            "write it again by yt8m-gat calibrate"
        )
        calibration = None
    warning = warning and f"{name}: {warning}"
    return ReportedRun(name, config, evaluation, history, warning, tuple(unreadable), calibration)


def _provenance(
    folder: RunFolder, config_digest: str, settings: dict[str, Any], path: Path
) -> tuple[bool, str]:
    """Returns whether an evaluation may be of the run's present state, and a warning if unsure."""
    checkpoint = settings.get("checkpoint", "best")
    remedy = (
        f"measure again with yt8m-gat eval --train_dir={folder.path} --output_file={path}"
        + (" --checkpoint=last" if checkpoint == "last" else "")
        + " and the flags that it had"
    )
    if not {"weights", "config"} <= settings.keys():
        return True, (
            f"{path} does not say of which weights it is, as those of an older eval.py: its "
            f"figures may be of an earlier state of the run. To be sure, {remedy}"
        )
    weights = weights_digest(folder, checkpoint)
    same = {
        folder.best_weights.name if checkpoint == "best" else "the newest checkpoint": (
            settings["weights"] == weights
        ),
        CONFIG_FILE: settings["config"] == config_digest,
    }
    if all(same.values()):
        return True, ""
    if weights is None:
        reason = f"the folder does not hold the weights ({next(iter(same))}) that it measured"
    else:
        changed = [name for name, is_same in same.items() if not is_same]
        reason = f"the run has changed since ({' and '.join(changed)})"
    return False, f"the figures of {path} are left out: {reason}. To have them, {remedy}"


def _read_evaluation(path: Path) -> dict[str, Any]:
    remedy = "write it again with eval.py --output_file"
    try:
        result = read_json(path)
    except ValueError as error:
        raise ConfigError(f"{path}: must be JSON ({error}); {remedy}") from error
    if not isinstance(result, dict) or "clean" not in result:
        raise ConfigError(
            f'{path}: must be an evaluation, {{"clean": {{...}}, "attacks": [...]}}; {remedy}'
        )
    for part, (shape, words) in _PARTS.items():
        if part in result and not fits(result[part], shape):
            raise ConfigError(f"{path}: {part!r} must be {words}; {remedy}")
    for clip in result.get("clips", []):
        for side in (clip["clean"], clip.get("attacked", {})):
            if not all(map(_is_picture, side.get("frames", []))):
                raise ConfigError(
                    f"{path}: 'clips' must have frames that are data URIs of JPEGs, of at most "
                    f"{MAX_PICTURE_LENGTH} characters; {remedy}"
                )
    return result


def _is_picture(text: str) -> bool:
    match = _PICTURE.fullmatch(text) if len(text) <= MAX_PICTURE_LENGTH else None
    try:
        return match is not None and base64.b64decode(match[1]).startswith(b"\xff\xd8\xff")
    except binascii.Error:
        return False
