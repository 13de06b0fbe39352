"""The feature extractor of a run: kept in its folder, and compared with that of other records.

Records of `yt8m-gat extract` have an `extractor.json` beside them, which defines their features. A
run keeps a copy, so that videos can be predicted with it, and so that records whose features mean
something else are noticed although they have the same sizes.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import read_label_names
from yt8m_gat.export.archive import is_unpacked
from yt8m_gat.extraction.config import EXTRACTOR_FILE, LOG_MEL, ExtractorConfig
from yt8m_gat.import_path import UntrustedCodeError
from yt8m_gat.paths import is_remote
from yt8m_gat.run_folder import LABEL_NAMES_FILE, RunFolder
from yt8m_gat.untrusted import printable
from yt8m_gat.video.source import import_av

# Models that are loaded safely from an archive: Keras has a safe mode, and these need no file.
_SAFE_KINDS = {"application", "keras", LOG_MEL}


def extractor_of(files: Sequence[str], flag: str) -> tuple[Path, ExtractorConfig] | None:
    """Returns the folder and the extractor of records, None if there is no `extractor.json`.

    Args:
        files: Files of records; remote ones are not looked at.
        flag: The flag that names them, for errors.

    Raises:
        ConfigError: The files are of several extractors, some are of none, or an `extractor.json`
            cannot be read.
    """
    folders = sorted({os.path.dirname(path) or "." for path in files if not is_remote(path)})
    with_one = [folder for folder in folders if Path(folder, EXTRACTOR_FILE).is_file()]
    if not with_one:
        return None
    first, *others = ((Path(folder), ExtractorConfig.load(folder)) for folder in with_one)
    for folder, extractor in others:
        if differences := first[1].differences(extractor):
            raise ConfigError(
                f"--{flag} must name records of one extractor. Received: records of {first[0]} and "
                f"{folder}, which differ:{_listed(differences)}"
            )
    if missing := [folder for folder in folders if folder not in with_one]:
        _warn(
            f"{missing[0]} has no {EXTRACTOR_FILE}, and {first[0]} has one; nothing says that "
            f"their features are the same"
        )
    return first


def extractor_to_keep(
    folder: RunFolder, files: Sequence[str], eval_files: Sequence[str], start_new_model: bool
) -> dict[str, bytes]:
    """Returns the files of the training records' extractor, which the run keeps: name -> content.

    Args:
        folder: The run folder.
        files: Training files.
        eval_files: Validation files.
        start_new_model: Whether the run that is in the folder will be dropped.

    Raises:
        ConfigError: The validation records, or the run that is to be resumed, have another
            extractor; or a file that `extractor.json` names is missing.
    """
    found = extractor_of(files, "train_data_pattern")
    of_validation = extractor_of(eval_files, "eval_data_pattern")
    if found and of_validation and (differences := found[1].differences(of_validation[1])):
        raise ConfigError(
            f"--eval_data_pattern must name records with the features of --train_data_pattern. "
            f"{found[0]} and {of_validation[0]} differ:{_listed(differences)}{_remedy(found[0])}"
        )
    if not start_new_model and folder.has_weights and files:
        _check(folder, found, "train_data_pattern")
    if found is None:
        return {}
    place, extractor = found
    try:
        kept = {name: Path(place, name).read_bytes() for name in (EXTRACTOR_FILE, *extractor.files)}
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename} is missing, which {place / EXTRACTOR_FILE} names. Put it back: the "
            "run keeps it, to predict videos"
        ) from error
    names = place / LABEL_NAMES_FILE
    if names.is_file():
        read_label_names(names)  # Later commands will read the copy.
        kept[LABEL_NAMES_FILE] = names.read_bytes()
    return kept


def check_extractor(folder: RunFolder, files: Sequence[str], flag: str) -> None:
    """Refuses records whose features are not those of a run; warns where that is not known.

    Args:
        folder: The run.
        files: The records.
        flag: The flag that names them.

    Raises:
        ConfigError: Their extractor is another one; the message names what differs.
    """
    _check(folder, extractor_of(files, flag), flag)


def _check(folder: RunFolder, found: tuple[Path, ExtractorConfig] | None, flag: str) -> None:
    own = own_extractor(folder)
    if own is None:
        if found is not None:
            _warn_of_own_features(folder, found[1], found[0] / EXTRACTOR_FILE)
        return
    if found is None:
        _warn(
            f"{folder.path} was trained on the features of {own.description}; beside the records "
            f"of --{flag} there is no {EXTRACTOR_FILE}, and nothing says that theirs are the same"
        )
    elif differences := own.differences(found[1]):
        raise ConfigError(
            f"--{flag} must name records with the features that {folder.path} was trained on. "
            f"Those of {found[0]} have another extractor (the run's != theirs):"
            f"{_listed(differences)}{_remedy(folder.extractor)}"
        )


def own_extractor(folder: RunFolder) -> ExtractorConfig | None:
    """Returns the extractor that a run keeps, if it has one."""
    if not (folder.extractor / EXTRACTOR_FILE).is_file():
        return None
    return ExtractorConfig.load(folder.extractor)


def place_of_extractor(
    folder: RunFolder,
    config: RunConfig,
    path: str | os.PathLike | None = None,
    trust_code: bool = False,
) -> Path:
    """Returns the folder of the extractor with which a run predicts videos, after checking it.

    A run that was unpacked from an archive may be a stranger's. Keras loads its own models in safe
    mode; TensorFlow's interpreter and its graphs are not made for hostile files, so that models of
    other kinds count as code.

    Args:
        folder: The run.
        config: Its configuration.
        path: An `extractor.json`, or a folder with it, for a run that has none; None: the run's.
        trust_code: Whether the extractor of an archive may bring models of any kind.

    Raises:
        ConfigError: There is none, it is not the run's, its features do not fit the run, or PyAV
            is not installed.
        UntrustedCodeError: An archive brought a model that is not trusted.
    """
    if not config.data.frame_features:
        raise ConfigError(
            f"videos are predicted by frame-level runs. Received: {folder.path}, a run of "
            f"--model={config.model.name}"
        )
    if config.data.clips is not None:
        raise ConfigError(
            f"videos are predicted by runs of features. Received: {folder.path}, a run of raw "
            f"clips (--model={config.model.name}): make records by `yt8m-gat pack`, or show one by "
            "`yt8m-gat watch`"
        )
    try:
        import_av()  # Now, rather than after TensorFlow has loaded the models.
    except ImportError as error:
        raise ConfigError(str(error)) from error
    own = own_extractor(folder)
    if path is None and own is None:
        raise ConfigError(
            f"videos are predicted with the extractor of the run's records, and {folder.path} has "
            f"none: its records had no {EXTRACTOR_FILE} beside them. Name one with --extractor"
        )
    place = folder.extractor if path is None else Path(path)
    extractor = ExtractorConfig.load(place)
    if path is None and not trust_code and is_unpacked(folder):
        _require_safe(folder, extractor)
    if own is None:
        _warn_of_own_features(folder, extractor, place)
    elif path is not None and (differences := own.differences(extractor)):
        raise ConfigError(
            f"--extractor must be the one that {folder.path} was trained with. {place} differs "
            f"(the run's != given):{_listed(differences)}\nLeave --extractor out"
        )
    _check_sizes(folder, config.data.sizes, extractor)
    return place


def _require_safe(folder: RunFolder, extractor: ExtractorConfig) -> None:
    for name, part in extractor.parts.items():
        if part.kind not in _SAFE_KINDS:
            raise UntrustedCodeError(
                f"{folder.path} was unpacked from an archive, and its extractor has a {name} model "
                f"of the kind {part.kind}, {part.model}. A hostile file of that kind can do what a "
                "program can. If you trust whoever made the archive, give --trust_code (in Python: "
                "trust_code=True)"
            )


def _check_sizes(folder: RunFolder, needed: Mapping[str, int], extractor: ExtractorConfig) -> None:
    sizes = extractor.feature_sizes
    wrong = [name for name, size in needed.items() if sizes.get(name) != size]
    if wrong:
        raise ConfigError(
            f"{folder.path} takes {_sizes(needed)}. The extractor makes {_sizes(sizes)}: "
            f"{extractor.description}"
        )


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} [{size}]" for name, size in sizes.items())


def _warn_of_own_features(
    folder: RunFolder, extractor: ExtractorConfig, place: str | os.PathLike
) -> None:
    if extractor.is_youtube8m:
        return
    _warn(
        f"{folder.path} was trained on records without an {EXTRACTOR_FILE}, such as YouTube-8M's "
        f"own. These features are others: {extractor.description} ({os.fspath(place)}). Its "
        "predictions mean nothing unless its records were made in the same way"
    )


def _remedy(place: str | os.PathLike) -> str:
    return f"\nMake them with: yt8m-gat extract --extractor={os.fspath(place)} ..."


def _listed(differences: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in differences)


def _warn(text: str) -> None:
    print(printable(f"warning: {text}"), file=sys.stderr)
