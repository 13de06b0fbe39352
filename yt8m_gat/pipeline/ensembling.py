"""The jobs that make one run of several: an ensemble, or a soup of their weights."""

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from yt8m_gat.config import CONFIG_FILE, ConfigError, EnsembleMember, ModelConfig, RunConfig
from yt8m_gat.data import Reader, check_labels, count_records, find_files
from yt8m_gat.import_path import require_trust
from yt8m_gat.models import VideoClassifier, build_from_config
from yt8m_gat.pipeline.evaluation_checks import other_run
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.pipeline.run_extractor import own_extractor
from yt8m_gat.pipeline.run_settings import class_names, read_schema
from yt8m_gat.recipes import ENSEMBLE
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.weights.copying import without_auxiliary
from yt8m_gat.weights.hdf5 import save_weights
from yt8m_gat.weights.load import load_run
from yt8m_gat.weights.loaded_classifier import LoadedClassifier

SOUPS = ("uniform", "greedy")


class _Member(NamedTuple):
    folder: RunFolder
    config: RunConfig
    loaded: LoadedClassifier


def make_ensemble(
    folder: RunFolder,
    runs: Sequence[str | os.PathLike],
    *,
    weights: Sequence[float] = (),
    trust_code: bool = False,
) -> None:
    """Writes a run whose model is the mean of the probabilities of several runs.

    It evaluates, predicts and is exported like any run, and cannot be trained. Its data settings
    and the objective that names its loss and radii are those of the first run. It holds copies of
    the best weights, without parts for training alone; the runs may be deleted.

    Args:
        folder: The run to write.
        runs: At least two runs.
        weights: A positive number for each; empty: all alike.
        trust_code: Run the code that the runs name, see `yt8m_gat.weights.load.load_run`.

    Raises:
        ConfigError: The runs have other classes, label names, features, number of frames or
            extractors, or a number of weights that is not theirs; or `folder` holds a run.
        FileNotFoundError: A run has no best weights.
        UntrustedCodeError: A run names code that is not trusted.
    """
    shares = _shares(weights, len(runs))
    with _new_run(folder):
        members = _load_members(runs, trust_code)
        first = members[0].config
        described, classifiers = [], []
        for member, share in zip(members, shares, strict=True):
            single = without_auxiliary(member.loaded.classifier)
            options = {**member.config.model.options, **member.loaded.classifier.training_options}
            options.pop("backbone_weights", None)  # They are read only to begin a training.
            described.append(
                EnsembleMember(
                    name=member.config.model.name,
                    options=options,
                    weight=share,
                    train_dir=os.fspath(member.folder.path),
                    digest=member.loaded.digest,
                )
            )
            classifiers.append(single)
        model = ModelConfig(name=ENSEMBLE, options={"members": [vars(m) for m in described]})
        training = dataclasses.replace(first.training, finetune_from=None)
        config = dataclasses.replace(first, model=model, training=training)
        try:
            ensemble = build_from_config(config, trust_code)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        for ours, theirs in zip(ensemble.members, classifiers, strict=True):
            ours.set_weights(theirs.get_weights())
        _write(folder, config, members, ensemble)


def make_soup(
    folder: RunFolder,
    runs: Sequence[str | os.PathLike],
    *,
    method: str = "uniform",
    weights: Sequence[float] = (),
    eval_data_pattern: str = "",
    trust_code: bool = False,
) -> dict[str, Any]:
    """Writes a run whose weights are the mean of the weights of several runs of one architecture.

    It costs what one run costs. The mean of networks is a good network only if they lie in one
    basin of the loss: runs that were fine-tuned from the same run (`--finetune_from`), not runs
    from different seeds. Moving statistics of batch normalization are averaged like weights, not
    measured again on data; a line says so. Whole numbers (states of random generators) are the
    first run's.

    Args:
        folder: The run to write; its settings are the first run's.
        runs: At least two runs.
        method: `uniform`: the mean of all; or `greedy`: the runs by descending validation GAP, each
            kept if the mean of the kept ones does not lose GAP by it.
        weights: Of the mean, with `uniform`: a positive number for each; empty: all alike.
        eval_data_pattern: Validation files, with `greedy`.
        trust_code: See `make_ensemble`.

    Returns:
        `runs`, those in the mean, and with `greedy` their `gap` each and that of the `soup`.

    Raises:
        ConfigError: As `make_ensemble`, or the architectures differ, or a setting is of the other
            method.

    Reference: Wortsman et al., "Model soups", 2022, algorithm 1.
    """
    if method not in SOUPS:
        raise ConfigError(f"--soup must be one of {', '.join(SOUPS)}. Received: {method!r}")
    if (method == "greedy") != bool(eval_data_pattern):
        raise ConfigError(
            "--eval_data_pattern and --soup=greedy go together: it keeps the runs that raise the "
            f"validation GAP. Received: --soup={method} --eval_data_pattern={eval_data_pattern!r}"
        )
    if method == "greedy" and weights:
        raise ConfigError("--weights is for --soup=uniform: a greedy soup chooses runs itself")
    shares = _shares(weights, len(runs))
    with _new_run(folder):
        members = _load_members(runs, trust_code)
        first = members[0]
        for member in members[1:]:
            if member.config.model != first.config.model:
                raise ConfigError(
                    f"--soup needs runs of one architecture. Received: {first.folder.path}, "
                    f"{_model_words(first.config)}, and {member.folder.path}, "
                    f"{_model_words(member.config)}"
                )
        soup = first.loaded.classifier
        values = [member.loaded.classifier.get_weights() for member in members]
        if method == "uniform":
            soup.set_weights(_mean(values, shares))
            result: dict[str, Any] = {"runs": [os.fspath(m.folder.path) for m in members]}
        else:
            gap_of = _gap_function(first, soup, eval_data_pattern)
            result = _greedy(members, values, soup, gap_of)
        if any("moving_mean" in variable.path for variable in soup.weights):
            print(
                "the moving statistics of batch normalization are averages of those of the runs, "
                "not measured again",
                file=sys.stderr,
            )
        _write(folder, first.config, members, soup)
        used = {os.fspath(m.folder.path): m.loaded.digest for m in members}
        folder.append_metrics(
            {
                "kind": "soup",
                "step": 0,
                "method": method,
                "weights": {path: used[path] for path in result["runs"]},
                **({"gap": result["soup"]} if "soup" in result else {}),
            }
        )
    return result


def _shares(weights: Sequence[float], count: int) -> list[float]:
    """Returns the weights of `count` runs, with sum 1."""
    if count < 2:
        raise ConfigError(f"there must be at least two runs. Received: {count}")
    weights = list(weights) or [1.0] * count
    if len(weights) != count or not all(0 < weight < math.inf for weight in weights):
        raise ConfigError(
            f"--weights must be {count} positive numbers, one for each run. Received: {weights}"
        )
    return [weight / sum(weights) for weight in weights]


@contextlib.contextmanager
def _new_run(folder: RunFolder) -> Iterator[None]:
    """Holds the lock of a folder that holds no run."""
    with folder.only_writer():
        if folder.has_weights or (folder.path / CONFIG_FILE).exists():
            raise ConfigError(
                f"--output_dir={folder.path} holds a run: name a new folder, or delete that one"
            )
        yield


def _load_members(runs: Sequence[str | os.PathLike], trust_code: bool) -> list[_Member]:
    """Loads the runs, after all of them have been compared with the first."""
    first = RunConfig.load(runs[0], None)
    require_trust(first, trust_code, runs[0])
    opened = [(RunFolder(runs[0]), first)]
    opened += [other_run(None, path, first, trust_code) for path in runs[1:]]
    names = [class_names(folder, read_schema(folder, config), None) for folder, config in opened]
    extractors = [own_extractor(folder) for folder, _ in opened]
    for (folder, config), theirs, extractor in zip(opened, names, extractors, strict=True):
        if theirs != names[0]:
            differing = min(
                key for key in {**theirs, **names[0]} if theirs.get(key) != names[0].get(key)
            )
            raise ConfigError(
                f"the runs must have the same label names. {folder.path} and {opened[0][0].path} "
                f"differ in class {differing}: {theirs.get(differing)!r} != "
                f"{names[0].get(differing)!r}"
            )
        if extractor and extractors[0] and (differences := extractors[0].differences(extractor)):
            raise ConfigError(
                f"the runs must have one extractor. That of {folder.path} differs "
                f"({opened[0][0].path} != its): {'; '.join(differences)}"
            )
        if folder.backbone.is_file():
            raise ConfigError(
                "a run whose backbone comes from a file cannot be a member. Received: "
                f"{folder.path}, --backbone={config.model.options.get('backbone')}"
            )
    return [
        _Member(folder, config, load_run(folder, config, "best", trust_code))
        for folder, config in opened
    ]


def _model_words(config: RunConfig) -> str:
    options = [f"{key}={value}" for key, value in config.model.options.items()]
    return printable(" ".join([config.model.name, *options]))


def _write(
    folder: RunFolder, config: RunConfig, members: Sequence[_Member], classifier: VideoClassifier
) -> None:
    with_extractor = [m.folder for m in members if m.folder.extractor.is_dir()]
    extractor = {}
    if with_extractor:
        extractor = {
            path.name: path.read_bytes()
            for path in sorted(with_extractor[0].extractor.iterdir())
            if path.is_file()
        }
    label_map = members[0].folder.label_map
    folder.prepare(
        config, label_map=label_map if label_map.is_file() else None, extractor=extractor
    )
    save_weights(classifier, folder.best_weights)


def _mean(values: Sequence[Sequence[np.ndarray]], shares: Sequence[float]) -> list[np.ndarray]:
    """Returns the weighted mean of lists of arrays; of whole numbers, the first."""
    return [
        sum(share * value.astype(np.float64) for share, value in zip(shares, of_all, strict=True))
        if np.issubdtype(of_all[0].dtype, np.floating)
        else of_all[0]
        for of_all in zip(*values, strict=True)
    ]


def _gap_function(
    first: _Member, classifier: VideoClassifier, eval_data_pattern: str
) -> Callable[[Sequence[np.ndarray]], float]:
    """Returns a function from weights to validation GAP, which leaves them in `classifier`."""
    config = first.config
    files = find_files(eval_data_pattern, "eval_data_pattern")
    schema = read_schema(first.folder, config)
    segments = config.data.segment_labels
    check_labels(files, schema, "eval_data_pattern", segments=segments)
    num_videos = count_records(files)
    evaluator = build_evaluator(classifier, config, all_scores=False)

    def gap_of(weights: Sequence[np.ndarray]) -> float:
        classifier.set_weights(weights)
        reader = Reader(
            files,
            schema,
            config.training.batch_size,
            segments="rated" if segments else None,
        )
        return evaluator.evaluate(reader, total=num_videos, description="validate")["gap"]

    return gap_of


def _greedy(
    members: Sequence[_Member],
    values: Sequence[Sequence[np.ndarray]],
    soup: VideoClassifier,
    gap_of: Callable[[Sequence[np.ndarray]], float],
) -> dict[str, Any]:
    """Chooses runs, and leaves their mean in `soup`."""
    gaps = [gap_of(weights) for weights in values]
    order = sorted(range(len(members)), key=lambda index: -gaps[index])
    kept, best = order[:1], gaps[order[0]]
    for index in order[1:]:
        tried = [*kept, index]
        gap = gap_of(_mean([values[i] for i in tried], [1 / len(tried)] * len(tried)))
        if gap >= best:
            kept, best = tried, gap
    soup.set_weights(_mean([values[i] for i in kept], [1 / len(kept)] * len(kept)))
    return {
        "runs": [os.fspath(members[i].folder.path) for i in kept],
        "gap": {os.fspath(m.folder.path): gap for m, gap in zip(members, gaps, strict=True)},
        "soup": best,
    }
