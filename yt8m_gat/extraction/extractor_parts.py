"""The models and projections of an extractor: their files are checked, then loaded."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from yt8m_gat.config import ConfigError
from yt8m_gat.digests import digest_of
from yt8m_gat.extraction.config import (
    FEATURES,
    OFFICIAL,
    VGGISH,
    ExtractorConfig,
    FeatureConfig,
    digest_of_path,
)
from yt8m_gat.extraction.picture import GRAPH_FILE, PictureModel, picture_model
from yt8m_gat.extraction.projection import (
    MEAN_FILE,
    VALUES_FILE,
    VECTORS_FILE,
    Bytes,
    OfficialPicture,
    OfficialSound,
    Projection,
    load,
    log10_of_mel,
)
from yt8m_gat.extraction.sound import SoundModel, sound_model


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of an extractor; None: without this feature, or it is not needed."""

    picture: PictureModel | None
    sound: SoundModel | None


def load_parts(
    config: ExtractorConfig,
    file: Path,
    places: Mapping[str, str | os.PathLike | None],
    features: Collection[str] | None = None,
) -> tuple[Models, dict[str, Projection]]:
    """Loads what a kept extractor consists of; see `Extractor.load`.

    Args:
        config: The configuration.
        file: The `extractor.json` that it was read from; its other files are looked for beside it.
        places: `picture` and `sound` -> where the weights are by now; None: where they were.
        features: The features that are needed; None: all. Models of others are not loaded.

    Returns:
        The models, and the projection of each.

    Raises:
        ConfigError: A file is missing or is another one; the message names it.
    """
    folder = file.parent
    for name, digest in config.files.items():
        _check_file(folder / name, digest)
    parts = {
        name: part
        for name, part in config.parts.items()
        if features is None or FEATURES[name] in features
    }
    paths = {name: _weights_of(name, part, folder, places[name]) for name, part in parts.items()}
    models = load_models(config, paths)
    if config.picture is not None and models.picture is not None and models.picture.sha256:
        _check_digest("ImageNet's weights", config.picture, models.picture.sha256)
    projections = {name: _projection(part, folder, paths[name]) for name, part in parts.items()}
    for name, part in parts.items():
        if projections[name].size != part.size:
            raise ConfigError(
                f"{file}: {name}.size must be {projections[name].size}. Received: {part.size}"
            )
    return models, projections


def load_models(config: ExtractorConfig, paths: Mapping[str, str | os.PathLike | None]) -> Models:
    """Loads the models of a configuration.

    Args:
        config: The configuration.
        paths: `picture` and `sound` -> file or folder of the weights; None: the model needs none.
            A model that is not among them is not loaded.

    Raises:
        ConfigError: One cannot be loaded or does not fit.
    """
    picture = sound = None
    if config.picture is not None and "picture" in paths:
        picture = picture_model(config.picture, paths["picture"])
    if config.sound is not None and "sound" in paths:
        sound = sound_model(config.sound, paths["sound"], config.frames_per_second)
    return Models(picture, sound)


def official_projection(part: FeatureConfig, path: str | os.PathLike) -> Projection:
    """Returns the projection by the official constants of pictures, or of VGGish.

    Args:
        part: The configuration of the picture or the sound.
        path: The folder of the official files.

    Raises:
        ConfigError: A file is missing or has another shape.
    """
    if part.projection == OFFICIAL:
        return OfficialPicture.load(path)
    from yt8m_gat.extraction.vggish import load_pca, official_files

    return OfficialSound(*load_pca(official_files(path)[1]))


def _projection(part: FeatureConfig, folder: Path, path: str | os.PathLike | None) -> Projection:
    if part.projection in (OFFICIAL, VGGISH):
        return official_projection(part, path or "")
    if part.projection == "bytes":
        return Bytes(part.size)
    if part.projection == "log10":
        return log10_of_mel()
    if part.constants is None:
        raise ConfigError(f"a projection {part.projection!r} needs a file of constants")
    return load(folder / part.constants)


def _weights_of(
    name: str, part: FeatureConfig, folder: Path, given: str | os.PathLike | None
) -> str | os.PathLike | None:
    """Returns the path of a model's weights, after checking what they are."""
    if given is None and part.copy is not None:
        return folder / part.copy  # Checked with the other files.
    if given is None and part.path is None:
        return None
    place = Path(given if given is not None else part.path or "")
    if not place.exists():
        raise ConfigError(
            f"the extractor needs the weights of its {name} model, {part.model}, which are not at "
            f"{place}. Name their place: --{name}=PATH"
        )
    _check_digest(f"--{name}={place}", part, digest_of_weights(part.kind, place))
    return place


def digest_of_weights(kind: str, path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a model's file or folder; of official folders, of the files it uses.

    Raises:
        ConfigError: An official file is missing.
        OSError: A file cannot be read.
    """
    if kind not in (OFFICIAL, VGGISH):
        return digest_of_path(path)
    if kind == OFFICIAL:
        files = [Path(path, name) for name in (GRAPH_FILE, MEAN_FILE, VALUES_FILE, VECTORS_FILE)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise ConfigError(
                f"--official_dir={path} must hold {', '.join(file.name for file in files)}: "
                "Inception's graph of TensorFlow's inception-2015-12-05.tgz and the constants of "
                f"YouTube-8M's yt8m_pca.tgz. Missing: {', '.join(missing)}"
            )
    else:
        from yt8m_gat.extraction.vggish import official_files

        checkpoint, pca = official_files(path)
        files = [*sorted(checkpoint.parent.glob(f"{checkpoint.name}*")), pca]
    return digest_of(f"{digest_of_path(file)}  {file.name}\n".encode() for file in files)


def _check_digest(what: str, part: FeatureConfig, found: str) -> None:
    if part.sha256 is not None and found != part.sha256:
        raise ConfigError(
            f"{what} must be the model that the features were made with, {part.model} with SHA-256 "
            f"{part.sha256[:12]}... Received: {found[:12]}...; features of another model mean "
            "something else"
        )


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise ConfigError(
            f"{path} is missing: it belongs to extractor.json. Copy it from where the records were "
            "made"
        )
    found = digest_of_path(path)
    if found != digest:
        raise ConfigError(
            f"{path} must have the SHA-256 {digest[:12]}..., as extractor.json says. Received: "
            f"{found[:12]}...; copy it again from where the records were made"
        )
