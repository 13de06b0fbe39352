"""Tables of the training settings, and of the provenance of a page's figures."""

import datetime
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import yt8m_gat
from yt8m_gat.config import ObjectiveConfig, RunConfig
from yt8m_gat.report.drawing.markup import Cell, note, plain, shown, table
from yt8m_gat.report.source import ReportedRun, number

_UNKNOWN = "not known: written by an older eval.py"
_DIGITS = 16
Read = Callable[[ReportedRun], Any]


def settings_table(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a table of the runs' settings; rows that no run used are left out."""
    rows = [
        [name, *(Cell(shown(read(run)) or "-", "name") for run in runs)]
        for name, read in _SETTINGS.items()
        if any(read(run) not in (None, "", ()) for run in runs)
    ]
    return [table(["", *(Cell(run.title, "name") for run in runs)], rows)]


def _of(read: Callable[[RunConfig], Any]) -> Read:
    return lambda run: read(run.config)


_ASCENT = ("pgd", "trades", "fast")
_PENALTY = ("frobenius", "jensen_shannon")
_GRADIENT = ("output", *_PENALTY, "embedding", *_ASCENT)
_TEMPORAL = ("temporal",)


def _with(objectives: Sequence[str], read: Callable[[ObjectiveConfig], Any]) -> Read:
    """Returns a reader of a setting that only runs of these objectives use."""

    def used(run: ReportedRun) -> Any:
        objective = run.config.objective
        return read(objective) if objective.adversarial in objectives else None

    return used


def _last(key: str) -> Read:
    """Returns a reader of the largest value in metrics.jsonl."""

    def read(run: ReportedRun) -> Any:
        values = [number(record.get(key)) for record in run.history]
        logged = [value for value in values if value is not None]
        return int(max(logged)) if logged else None

    return read


def _lines(run: ReportedRun, kind: str) -> list[dict[str, Any]]:
    return [record for record in run.history if record.get("kind") == kind]


def _starts(run: ReportedRun) -> str | None:
    """Returns the times at which training was started and resumed; None for older runs."""
    words = [
        f"{shown(line.get('time'))} by yt8m_gat {shown(line.get('version'))}, step {line['step']}"
        for line in _lines(run, "start")
    ]
    return "; ".join(words) or None


def _last_command(run: ReportedRun) -> str | None:
    starts = _lines(run, "start")
    return _words_of(starts[-1].get("command")) if starts else None


def _ending(run: ReportedRun) -> str | None:
    ends = _lines(run, "end")
    if not ends:
        return None
    reason, seconds = ends[-1].get("reason"), number(ends[-1].get("seconds"))
    return shown(reason) + ("" if seconds is None else f", after {seconds:.0f} s of training")


def _words_of(command: Any) -> str:
    """Returns a command as it is typed."""
    return shlex.join(map(str, command)) if isinstance(command, list) else shown(command)


def _learning_rates(run: ReportedRun) -> str | None:
    """Returns the course of the rate: each value with the first step at which it was logged."""
    changes: list[tuple[int, float]] = []
    for record in run.history:
        rate = number(record.get("learning_rate"))
        if rate is not None and (not changes or rate != changes[-1][1]):
            changes.append((int(record["step"]), rate))
    if not changes:
        return None
    if len(changes) > 4:
        lowest, highest = min(r for _, r in changes), max(r for _, r in changes)
        return (
            f"{plain(changes[0][1])} at step {changes[0][0]}, {len(changes) - 1} changes between "
            f"{plain(lowest)} and {plain(highest)}, {plain(changes[-1][1])} at step "
            f"{changes[-1][0]}"
        )
    return ", ".join(f"{plain(rate)} at step {step}" for step, rate in changes)


def _options(config: RunConfig) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in config.model.options.items())


_SETTINGS: dict[str, Read] = {
    "model": _of(lambda c: c.model.name),
    "options beyond the recipe's": _of(_options),
    "features": _of(lambda c: ", ".join(f"{name} ({size})" for name, size in c.data.sizes.items())),
    "classes": _of(lambda c: c.data.num_classes),
    "frames of a clip that are read": _of(
        lambda c: c.data.max_frames if c.data.frame_features else None
    ),
    "normalize": _of(lambda c: c.data.normalize),
    "trained on": _of(lambda c: "rated segments" if c.data.segment_labels else "whole clips"),
    "adversarial objective": _of(lambda c: c.objective.adversarial),
    "epsilon of training": _with(_GRADIENT, lambda o: o.epsilon),
    "norm scope of training": _with(_GRADIENT, lambda o: o.norm_scope),
    "steps of training's ascent": _with(_ASCENT, lambda o: o.ascent_steps),
    "step size of training's ascent": _with(_ASCENT, lambda o: o.ascent_step_size),
    "weight of the clean loss": _with(("pgd", "fast"), lambda o: o.weight_of_clean),
    "alpha, of the adversarial loss": _with(_GRADIENT, lambda o: o.weight_of_adversarial),
    # The default is as in `ObjectiveConfig.alpha`.
    "alpha, of the clean loss": _with(_TEMPORAL, lambda o: 0.7 if o.alpha is None else o.alpha),
    "beta, of the attention penalty": _with(_PENALTY, lambda o: o.penalty_weight),
    "beta, of the embedding penalty": _with(("embedding",), lambda o: o.penalty_weight),
    "beta, of the divergence": _with(("trades",), lambda o: o.penalty_weight),
    "penalized levels": _with(_PENALTY, lambda o: o.penalized_levels),
    "epsilon of TAF, levels of bytes": _with(_TEMPORAL, lambda o: o.temporal_epsilon),
    "steps of TAF": _with(_TEMPORAL, lambda o: o.temporal_steps),
    "loss of the labels": _of(lambda c: c.objective.label_loss),
    "options of that loss": _of(
        lambda c: ", ".join(f"{k}={shown(v)}" for k, v in c.objective.label_loss_options.items())
    ),
    "class weights": _of(
        lambda c: None if c.objective.class_weights == "none" else c.objective.class_weights
    ),
    "teachers": _of(lambda c: c.objective.teacher or None),
    "temperature and weight of the teachers": _of(
        lambda c: (
            (c.objective.teacher_temperature, c.objective.teacher_weight)
            if c.objective.teacher
            else None
        )
    ),
    "reduction over classes": _of(lambda c: c.objective.class_reduction),
    "optimizer": _of(lambda c: c.training.optimizer),
    "momentum of averaged weights": _of(lambda c: c.training.ema_momentum or None),
    "learning rate, as logged": _learning_rates,
    "batch size": _of(lambda c: c.training.batch_size),
    "last step logged": _last("step"),
    "epochs finished by then": _last("epoch"),
    "ended": _ending,
    "seed": _of(lambda c: c.training.seed),
    "started": _starts,
    "command, the last": _last_command,
}


def provenance_table(runs: Sequence[ReportedRun]) -> list[str]:
    """Returns a table of the provenance of each run's figures."""
    measured = [run for run in runs if run.clean]
    if not measured:
        return []
    rows = [
        [name, *(Cell(read(run), "name") for run in measured)] for name, read in _PROVENANCE.items()
    ]
    calls = [len(run.provenance.get("earlier_calls") or ()) for run in measured]
    if any(calls):
        words = [f"{count} before measured some of the rows" if count else "-" for count in calls]
        rows.append(["earlier calls", *(Cell(text, "name") for text in words)])
    return [table(["", *(Cell(run.title, "name") for run in measured)], rows)]


def _known(*keys: str) -> Callable[[ReportedRun], str]:
    """Returns a reader of the first of `keys` that the file has."""

    def read(run: ReportedRun) -> str:
        for key in keys:
            for part in (run.provenance, run.settings):
                if part.get(key) is not None:
                    return shown(part[key])
        return _UNKNOWN if not run.provenance else "not known"

    return read


def _files(run: ReportedRun) -> str:
    pattern, count = run.provenance.get("pattern"), _known("num_files")(run)
    if pattern is None:
        return f"{count} files, which: not known" if count.isdigit() else count
    return f"{shown(pattern)} ({count} files)"


def clips_words(run: ReportedRun) -> str:
    """Returns how many clips a run was evaluated on, and which."""
    kind = "segments" if run.on_segments else "videos"
    count = f"{shown(run.clean.get(f'num_{kind}'))} {'rated ' * run.on_segments}{kind}"
    limit = number(run.settings.get("max_videos"))
    records = number(run.provenance.get("num_records"))
    if limit and (records is None or limit < records):
        of_all = f" of {records:.0f}" if records else ""
        return f"{count}, of the first {limit:.0f}{of_all} videos of the files"
    if limit is None:
        return f"{count}; whether those are all is not known"
    skipped = run.settings.get("on_bad_record") == "skip"
    return f"{count}, all of the files" + (" that could be read" if skipped else "")


def _weights(run: ReportedRun) -> str:
    digest = run.settings.get("weights") or run.provenance.get("weights")
    if digest is None:
        return _UNKNOWN
    step = run.provenance.get("step")
    state = _known("checkpoint")(run) + ("" if step is None else f", step {shown(step)}")
    return f"{shown(digest)[:_DIGITS]}… (SHA-256), {state}"


def _command(run: ReportedRun) -> str:
    command = run.provenance.get("command")
    return _known("command")(run) if command is None else _words_of(command)


_PROVENANCE: dict[str, Callable[[ReportedRun], str]] = {
    "measured at": _known("measured_at"),
    "clips": clips_words,
    "files": _files,
    "weights": _weights,
    "by yt8m_gat": _known("version"),
    "command": _command,
}


def page_note(command: Sequence[str]) -> str:
    """Returns a note of the time and the command of this page."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return note(f"Written {now} by yt8m_gat {yt8m_gat.__version__}: {shlex.join(command)}")
