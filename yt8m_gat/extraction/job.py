"""The job: videos to official records, with the extractor that made them beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from yt8m_gat.config import ConfigError
from yt8m_gat.data.arrays import frame_record
from yt8m_gat.disk import replacing
from yt8m_gat.extraction import projection
from yt8m_gat.extraction.config import (
    EXTRACTOR_FILE,
    LOG_MEL,
    MAX_COPIED_BYTES,
    OFFICIAL,
    VGGISH,
    ExtractorConfig,
    FeatureConfig,
    digest_of_path,
)
from yt8m_gat.extraction.extractor import Extracted, Extractor, Values
from yt8m_gat.extraction.extractor_parts import (
    Models,
    digest_of_weights,
    load_models,
    official_projection,
)
from yt8m_gat.extraction.loading import kind_of_path
from yt8m_gat.extraction.pca import StreamingMoments
from yt8m_gat.extraction.settings import NONE, ExtractionSettings
from yt8m_gat.extraction.shards import (
    UNFINISHED,
    Made,
    Summary,
    Task,
    sampled,
    tasks_of,
    write_shards,
)
from yt8m_gat.locks import only_writer_in
from yt8m_gat.untrusted import printable
from yt8m_gat.video.clips import Clip, label_names
from yt8m_gat.video.decoding import VideoError

_FITTED_SPLITS = ("", "train")

Distribute = Callable[[Sequence[Task], Path, Mapping[str, str | None], str], None]
"""Takes the clips, the output folder, the places of the models' weights, and what to do with a bad
file; keeps what the clips became by `made_of` and `keep`."""


def extract(
    clips: Sequence[Clip],
    folder: str | os.PathLike,
    settings: ExtractionSettings | None = None,
    *,
    extractor: Extractor | None = None,
    names: Sequence[str] | None = None,
    num_shards: int = 1,
    splits: Sequence[tuple[str, int]] = (),
    on_bad_file: str = "error",
    num_readers: int = 2,
    show_progress: bool = False,
    distribute: Distribute | None = None,
) -> tuple[Summary, ExtractorConfig]:
    """Writes frame-level records of clips, or continues where it was interrupted.

    In a first pass, over the clips of training, the constants are fitted that the models' values
    need to become bytes (`yt8m_gat.extraction.projection`). The files are those of
    `yt8m_gat.extraction.shards`, and `extractor.json` with its small files.

    Args:
        clips: The clips.
        folder: The output folder, created if needed.
        settings: The extractor to make; by default that of the flags' defaults.
        extractor: The extractor to use in place of `settings`, with its constants.
        names: Names of the classes, in order; by default those of the clips' labels.
        num_shards: Files of each split.
        splits: Names and shares of the splits, see `split_of`; the one called `train` is that of
            training. None: all clips are.
        on_bad_file: See `write_shards`.
        num_readers: Files that are decoded at a time.
        show_progress: Show clips, rate and time left on the standard error.
        distribute: Makes the records elsewhere, after the fit; what it leaves out is made here.

    Returns:
        What was written, and the extractor's configuration.

    Raises:
        ConfigError: A model cannot be loaded, the constants cannot be fitted, or the folder holds
            another job.
        VideoError: A file cannot be read, and `on_bad_file` is `error`.
        ClipListError: A clip is there twice, or a label has no name.
        WriteError: A file cannot be written.
    """
    names = label_names(clips) if names is None else list(names)
    tasks = tasks_of(clips, names, splits)
    if extractor is None:
        settings = settings or ExtractionSettings()
        plan = _Plan.of(settings)
        defined = {"extractor": _definition(plan.config), "fit_videos": settings.fit_videos}
    else:
        plan = None
        defined = {"extractor": _definition(extractor.config), "fit_videos": 0}
    with only_writer_in(folder):
        maker = _Maker(
            Path(folder),
            tasks,
            plan,
            extractor,
            on_bad_file=on_bad_file,
            num_readers=num_readers,
            show_progress=show_progress,
            distribute=distribute,
        )
        summary = write_shards(
            folder,
            tasks,
            maker,
            names=names,
            settings=defined,
            num_shards=num_shards,
            on_bad_file=on_bad_file,
            show_progress=show_progress,
            prepare=maker.prepare,
        )
        return summary, ExtractorConfig.load(folder)


def record_of(task: Task, extracted: Extracted) -> Made:
    """Returns the record of a clip, and its line of the manifest."""
    record = frame_record(
        task.clip_id.encode(),
        np.array(task.labels, np.int64),
        extracted.features,
    )
    columns = {
        "frames": len(extracted.seconds),
        "seconds": round(extracted.duration, 3),
        "faults": "; ".join(extracted.faults),
    }
    return Made(record, columns)


def made_of(task: Task, extractor: Extractor, folder: Path) -> Made:
    """Makes the record of one clip, as the job in that folder does.

    Raises:
        VideoError: The file cannot be read.
    """
    kept = _values_file(folder, task)
    if kept.is_file():
        return record_of(task, extractor.project(_read(kept)))
    clip = task.clip
    return record_of(task, extractor(clip.path, start=clip.start, end=clip.end))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """An extractor whose constants are not fitted yet.

    Attributes:
        config: Its configuration so far; `projection` says what is to be fitted.
        paths: `picture` and `sound` -> file or folder of the weights.
        components: `picture` and `sound` -> components of its PCA; 0: none.
        fit_videos: Most videos to fit to.
    """

    config: ExtractorConfig
    paths: dict[str, str | None]
    components: dict[str, int]
    fit_videos: int

    @classmethod
    def of(cls, settings: ExtractionSettings) -> _Plan:
        """Returns the plan for the flags.

        Raises:
            ConfigError: A flag names no model, or an official file is missing.
        """
        picture, sound = _picture_part(settings), _sound_part(settings)
        parts = {"picture": picture, "sound": sound}
        for name, part in parts.items():
            if part is None or not settings.components[name]:
                continue
            if part.projection in (OFFICIAL, VGGISH):
                raise ConfigError(
                    f"--fit_pca must be 0 for the {name}: {part.model} has a PCA of its own. "
                    f"Received: {','.join(map(str, settings.fit_pca))}"
                )
            parts[name] = dataclasses.replace(part, projection="pca")
        crop = settings.crop
        config = ExtractorConfig(
            **parts,
            frames_per_second=settings.fps,
            max_seconds=settings.max_seconds or None,
            crop=(crop[0], crop[1], crop[2], crop[3]) if crop else None,
        )
        paths = {name: part.path for name, part in config.parts.items()}
        return cls(config, paths, settings.components, settings.fit_videos)


def _picture_part(settings: ExtractionSettings) -> FeatureConfig | None:
    name = settings.picture
    if name == NONE:
        return None
    if name == OFFICIAL:
        return _official_part(OFFICIAL, "--picture", settings)
    kind = kind_of_path(name)
    path: str | None = name
    if kind is None:
        if not name.isidentifier():
            raise ConfigError(
                "--picture must be a name of keras.applications, a .keras or .tflite file, the "
                "folder of a SavedModel, youtube8m with --official_dir, or none. "
                f"Received: {printable(name)!r}"
            )
        kind, path = "application", settings.picture_weights
    elif settings.picture_weights is not None:
        raise ConfigError(
            "--picture_weights belongs to a model of keras.applications; a file has its own. "
            f"Received: --picture={printable(name)}"
        )
    size = settings.picture_size
    return FeatureConfig(
        kind=kind,
        model=name if kind == "application" else Path(name).name,
        **_weights(kind, path, "--picture"),
        output=settings.picture_output,
        image_size=(size[0], size[-1]) if size else None,
        value_range=(settings.picture_range[0], settings.picture_range[1]),
        projection="standardize" if settings.fit_videos else "bytes",
    )


def _sound_part(settings: ExtractionSettings) -> FeatureConfig | None:
    name = settings.sound
    if name == NONE:
        return None
    if name == VGGISH:
        return _official_part(VGGISH, "--sound", settings)
    if name == LOG_MEL:
        projection_kind = "standardize" if settings.fit_videos else "log10"
        return FeatureConfig(kind=LOG_MEL, model=LOG_MEL, projection=projection_kind)
    projection_kind = "standardize" if settings.fit_videos else "bytes"
    kind = kind_of_path(name)
    if kind is None:
        raise ConfigError(
            "--sound must be log_mel, vggish with --official_dir, a .keras or .tflite file, the "
            f"folder of a SavedModel, or none. Received: {printable(name)!r}"
        )
    return FeatureConfig(
        kind=kind,
        model=Path(name).name,
        **_weights(kind, name, "--sound"),
        output=settings.sound_output,
        projection=projection_kind,
    )


def _official_part(kind: str, flag: str, settings: ExtractionSettings) -> FeatureConfig:
    if settings.official_dir is None:
        raise ConfigError(
            f"{flag}={kind} needs --official_dir, the folder of the official files; they cannot be "
            "downloaded from here"
        )
    weights = _weights(kind, settings.official_dir, "--official_dir")
    return FeatureConfig(kind=kind, model=kind, **weights, projection=kind)


def _weights(kind: str, path: str | None, flag: str) -> dict[str, Any]:
    if path is None:
        return {}
    if not Path(path).exists():
        raise ConfigError(f"{flag}: there is no {printable(path)}")
    return {"path": os.path.abspath(path), "sha256": digest_of_weights(kind, path)}


def _definition(config: ExtractorConfig) -> dict[str, Any]:
    """Returns what defines the features, for `write_shards`."""
    return {
        **{
            name: value
            for name, value in dataclasses.asdict(config).items()
            if name not in ("picture", "sound")
        },
        **{
            name: {
                key: value
                for key, value in dataclasses.asdict(part).items()
                if key not in ("path", "copy")
            }
            for name, part in config.parts.items()
        },
    }


class _Maker:
    """Makes the records, after fitting the extractor if no earlier process of the job has."""

    def __init__(
        self,
        folder: Path,
        tasks: Sequence[Task],
        plan: _Plan | None,
        extractor: Extractor | None,
        *,
        on_bad_file: str,
        num_readers: int,
        show_progress: bool,
        distribute: Distribute | None,
    ) -> None:
        self._folder = folder
        self._tasks = tasks
        self._plan = plan
        self._extractor = extractor
        self._on_bad_file = on_bad_file
        self._num_readers = num_readers
        self._show_progress = show_progress
        self._distribute = distribute

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Made | VideoError]:
        """See `yt8m_gat.extraction.shards.MakeAll`."""
        extractor = self.ready()
        fresh = [task for task in tasks if not _values_file(self._folder, task).is_file()]
        clips = (task.clip for task in fresh)
        with contextlib.closing(extractor.many(clips, self._num_readers)) as results:
            for task in tasks:
                if _values_file(self._folder, task).is_file():
                    yield made_of(task, extractor, self._folder)
                    continue
                result = next(results)
                yield result if isinstance(result, VideoError) else record_of(task, result)

    def prepare(self, missing: Sequence[Task]) -> None:
        """Fits the extractor, and distributes the clips if that was asked for."""
        extractor = self.ready()
        if self._distribute is not None:
            places = {} if self._plan is None else self._plan.paths
            if self._plan is None:
                places = {name: part.path for name, part in extractor.config.parts.items()}
            self._distribute(missing, self._folder, places, self._on_bad_file)

    def ready(self) -> Extractor:
        """Returns the extractor, fitted and written to the folder."""
        is_there = (self._folder / EXTRACTOR_FILE).is_file()
        if self._plan is None:
            if not is_there:
                self._extractor.save(self._folder)
        elif self._extractor is None:
            # An earlier process of this job may have fitted it.
            self._extractor = (
                Extractor.load(self._folder, **self._plan.paths)
                if is_there
                else self._fit(self._plan)
            )
        return self._extractor

    def _fit(self, plan: _Plan) -> Extractor:
        """Fits the constants and writes `extractor.json` with its files, itself last."""
        models = load_models(plan.config, plan.paths)
        raw = Extractor(plan.config, models, {})
        fitted = [
            name
            for name, part in plan.config.parts.items()
            if part.projection in ("standardize", "pca")
        ]
        projections: dict[str, projection.Projection] = {}
        if fitted:
            projections |= self._fitted(raw, plan, models, fitted)
        parts = {}
        for name, part in plan.config.parts.items():
            model = models.picture if name == "picture" else models.sound
            changes: dict[str, Any] = {}
            if name in fitted:
                constants = f"{name}.npz"
                projection.save(projections[name], self._folder / constants)
                digest = digest_of_path(self._folder / constants)
                changes |= {"constants": constants, "constants_sha256": digest}
            elif part.projection == "bytes":
                if not model.gives_bytes:
                    raise ConfigError(
                        f"--fit_videos must not be 0: the {name} model {part.model} gives floats, "
                        "and their range has to be fitted"
                    )
                projections[name] = projection.Bytes(model.size)
            elif part.projection == "log10":
                projections[name] = projection.log10_of_mel()
            else:
                projections[name] = official_projection(part, part.path or "")
            if name == "picture":
                changes["image_size"] = models.picture.image_size
                changes["sha256"] = models.picture.sha256 or part.sha256
            changes["copy"] = self._copied(name, part)
            parts[name] = dataclasses.replace(part, size=projections[name].size, **changes)
        config = dataclasses.replace(plan.config, **parts)
        config.save(self._folder)
        return Extractor(config, models, projections)

    def _copied(self, name: str, part: FeatureConfig) -> str | None:
        """Copies a small weight file beside `extractor.json`; returns the name of the copy."""
        source = Path(part.path or "")
        if part.path is None or not source.is_file() or source.stat().st_size > MAX_COPIED_BYTES:
            return None
        copy = name + "".join(source.suffixes[-2:] if source.suffix == ".h5" else source.suffix)
        with replacing(self._folder / copy) as temporary:
            shutil.copyfile(source, temporary)
        return copy

    def _fitted(
        self, raw: Extractor, plan: _Plan, models: Models, names: Sequence[str]
    ) -> Mapping[str, projection.Projection]:
        """Passes over the videos of training; what the models gave is kept for the records."""
        moments = {}
        for name in names:
            model = models.picture if name == "picture" else models.sound
            moments[name] = StreamingMoments(
                model.size, with_covariance=plan.config.parts[name].projection == "pca"
            )
            if plan.components[name] > model.size:
                raise ConfigError(
                    f"--fit_pca must be at most {model.size}, the values of {name}'s model. "
                    f"Received: {plan.components[name]}"
                )
        of_training = [task for task in self._tasks if task.split in _FITTED_SPLITS]
        tasks = sampled(of_training or self._tasks, plan.fit_videos)
        _values_file(self._folder, tasks[0]).parent.mkdir(parents=True, exist_ok=True)
        missing = [task for task in tasks if not _values_file(self._folder, task).is_file()]
        results = zip(
            missing, raw.values((task.clip for task in missing), self._num_readers), strict=True
        )
        bar = tqdm(
            total=len(tasks),
            initial=len(tasks) - len(missing),
            unit="video",
            desc="fitting",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10,
            disable=not self._show_progress,
        )
        with bar:
            for task, result in results:
                if not isinstance(result, VideoError):
                    _write(_values_file(self._folder, task), result)
                elif self._on_bad_file == "error":
                    raise result
                bar.update()
        for task in tasks:
            if _values_file(self._folder, task).is_file():
                values = _read(_values_file(self._folder, task))
                for name in names:
                    moments[name].update(values.arrays[name])
        return {name: projection.fitted(moments[name], plan.components[name]) for name in names}


def _values_file(folder: Path, task: Task) -> Path:
    """Returns the file that keeps a clip's values from the first pass for the second."""
    return folder / UNFINISHED / "values" / f"{task.number:08d}.npz"


def _write(path: Path, values: Values) -> None:
    """Writes a clip's values and where they are from, for the second pass."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        faults = np.array(json.dumps(values.faults))
        np.savez(file, seconds=values.seconds, faults=faults, **values.arrays)


def _read(path: Path) -> Values:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is damaged: {error}. Remove it and run this again") from error
    seconds, faults = arrays.pop("seconds"), arrays.pop("faults")
    return Values(arrays, seconds, tuple(json.loads(str(faults))))
