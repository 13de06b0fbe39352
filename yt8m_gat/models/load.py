"""From a run folder to the classifier that it trained."""

import contextlib
import dataclasses
import hashlib
import inspect
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import h5py
import keras
import tensorflow as tf

from yt8m_gat.config import CONFIG_FILE, ConfigError, RunConfig, is_import_path
from yt8m_gat.disk import replacing
from yt8m_gat.import_path import require_trust
from yt8m_gat.models.checkpoint import newest_checkpoint, readable_prefix
from yt8m_gat.models.registry import build_model
from yt8m_gat.models.video_classifier import VideoClassifier
from yt8m_gat.run_folder import RunFolder, digest_of, digest_of_files, opened_checkpoint
from yt8m_gat.untrusted import excerpt

AUXILIARY = "auxiliary_normalization"
# Attributes of the file of weights.
_CHECKSUM = "yt8m_gat_sha256"
_STEP = "yt8m_gat_step"
_NEWEST = "read the newest state with --checkpoint=last of eval.py and inference.py"


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
    """A classifier that was read, and which weights it has.

    Attributes:
        classifier: The classifier.
        digest: SHA-256 of the bytes that its weights were read from, as `RunFolder.weights_digest`
            gives it while they are in the folder.
        step: The step of training that they are of; None: the file, of an older version, does not
            say.
    """

    classifier: VideoClassifier
    digest: str
    step: int | None


def build_from_config(config: RunConfig, trust_code: bool = False) -> VideoClassifier:
    """The classifier that `config` describes, with fresh weights.

    Args:
        config: The run.
        trust_code: Import and run the code that `config.code` names.

    Raises:
        ConfigError: The architecture refuses an option, or has no room in memory.
        UntrustedCodeError: `config` names code that is not trusted.
    """
    require_trust(config, trust_code, "the configuration")
    no_options = inspect.signature(build_model).parameters.keys() & config.model.options.keys()
    if no_options:
        raise ConfigError(f"{min(no_options)} is no option of --model={config.model.name}")
    try:
        classifier = build_model(
            config.model.name,
            config.data.sizes,
            config.data.num_classes,
            config.data.max_frames,
            # Ours draw from Keras' global seed.
            seed=config.training.seed if is_import_path(config.model.name) else None,
            **config.model.options,
        )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"--model={config.model.name}: {_words_of(error)}") from error
    # The types are right: this is how Keras and TensorFlow say that sizes are beyond them.
    except (TypeError, OverflowError, MemoryError, tf.errors.OpError) as error:
        raise ConfigError(
            f"--model={config.model.name} cannot be built with these sizes "
            f"({excerpt(config.model.options)}, {config.data.num_classes} classes, features "
            f"{excerpt(config.data.sizes)}): {_words_of(error)}"
        ) from error
    if classifier.frame_level != config.data.frame_features:
        reads, remedy = "frames", "leave out --noframe_features"
        if not classifier.frame_level:
            reads = "video-level features"
            remedy = "give --noframe_features and their --feature_names"
        raise ConfigError(f"--model={config.model.name} reads {reads}: {remedy}")
    return classifier


def _words_of(error: Exception) -> str:
    """One line: where an error comes through a layer, what Keras prints in bold among others."""
    return " ".join(str(error).rpartition("\x1b[1m")[2].partition("\x1b[0m")[0].split())


def copy_weights(source: VideoClassifier, target: VideoClassifier) -> None:
    """Gives `target` all weights of `source`, matched by their paths; or none, where it raises.

    A second set of normalization layers that `source` lacks starts as a copy of the first, so that
    both paths of fine-tuning start from the same function. One that `target` lacks is left out.

    Raises:
        ValueError: `target` has another architecture; names what differs. Or two weights of one
            model have the same path.
    """
    given, wanted = _weights_by_path(source), _weights_by_path(target)
    if list(source.feature_sizes) != list(target.feature_sizes):
        raise ValueError(
            f"the two models differ: features {', '.join(target.feature_sizes)} needed, "
            f"{', '.join(source.feature_sizes)} found"
        )
    for path in {**wanted, **given}:
        shapes = [weights[path].shape if path in weights else None for weights in (wanted, given)]
        if AUXILIARY in path and None in shapes:
            continue
        if shapes[0] != shapes[1]:
            needed, found = ("none" if shape is None else f"shape {shape}" for shape in shapes)
            raise ValueError(f"the two models differ: {path} needs {needed}, found {found}")
    for path in wanted.keys() & given.keys():
        wanted[path].assign(given[path])
    if target.dual_normalization and not source.dual_normalization:
        target.copy_normalization_to_auxiliary()


def _weights_by_path(classifier: VideoClassifier) -> dict[str, keras.Variable]:
    """The weights under their paths within the model, whose own name Keras numbers.

    Raises:
        ValueError: Two have the same.
    """
    weights: dict[str, keras.Variable] = {}
    for variable in classifier.weights:
        path = variable.path.removeprefix(f"{classifier.path}/")
        if path in weights:
            raise ValueError(
                f"two weights of {classifier.name} have the path {path}; give their layers "
                "different names"
            )
        weights[path] = variable
    return weights


def without_auxiliary(classifier: VideoClassifier) -> VideoClassifier:
    """The same function without a second set of normalization layers, for serving."""
    if not classifier.dual_normalization:
        return classifier
    config = {**classifier.get_config(), "dual_normalization": False}
    single = type(classifier).from_config(config)
    copy_weights(classifier, single)
    return single


def checkpointable(owner: VideoClassifier | keras.optimizers.Optimizer) -> list[tf.Variable]:
    """Everything that a checkpoint must hold of `owner`, for `tf.train.Checkpoint`.

    The bare variables in their order: `tf.train.Checkpoint` of a Keras 3 model passes over layers
    kept in lists, and restores nothing without a word.
    """
    return [variable.value for variable in owner.variables]


def save_weights(
    classifier: VideoClassifier, path: str | os.PathLike, step: int | None = None
) -> None:
    """Writes a classifier's weights as HDF5 (`.weights.h5`), all of them or nothing.

    Args:
        classifier: The classifier.
        path: The file.
        step: The step of training that they are of; None: it is not written down.

    HDF5 dies of a disk that is full (a segmentation fault, seen with h5py 3): the room is asked
    for before. Should another program take it in that moment, what was at `path` still stays.

    Raises:
        WriteError: They could not be written.
    """
    # Keras writes to names of this ending alone.
    with replacing(path, ending=".weights.h5") as temporary:
        with open(temporary, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, _hdf5_bytes(classifier))
        classifier.save_weights(temporary)
        with h5py.File(temporary, "r+") as stored:  # HDF5 has no checksum of its own here.
            stored.attrs[_CHECKSUM] = _checksum(classifier)
            if step is not None:
                stored.attrs[_STEP] = step


# What Keras and HDF5 raise for a file that is cut, overwritten or another model's.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError),
    *(IndexError, OverflowError, MemoryError),
)


class _WeightsFile(io.BytesIO):
    """The bytes of a file of weights, under a name by which Keras knows what they are."""

    def __str__(self) -> str:
        return "content.weights.h5"


def load_weights(classifier: VideoClassifier, path: str | os.PathLike) -> LoadedClassifier:
    """Reads what `save_weights` wrote; files without its checksum are read unchecked.

    The file is read once, so that the digest is of the very bytes that the weights come from. One
    that is replaced while it is read is read again.

    Raises:
        FileNotFoundError: It is not there.
        ConfigError: It is no such file, one of another architecture, or damaged.
    """
    path = Path(path)
    while True:
        content = path.read_bytes()
        try:
            return LoadedClassifier(
                classifier, digest_of([content]), _load_content(classifier, content, path)
            )
        except ConfigError:
            if path.read_bytes() == content:
                raise


def _load_content(classifier: VideoClassifier, content: bytes, path: Path) -> int | None:
    """Gives a classifier the weights in the bytes of a file; their step, if it is known."""
    remedy = f"Put back a copy of it, or {_NEWEST}"
    try:
        classifier.load_weights(_WeightsFile(content))
        with h5py.File(io.BytesIO(content)) as stored:
            expected = stored.attrs.get(_CHECKSUM)
            step = stored.attrs.get(_STEP)
            step = None if step is None else int(step)
    except _UNREADABLE as error:
        raise ConfigError(
            f"{path} cannot be read as the weights of this model: {error}. {remedy}"
        ) from error
    is_text = isinstance(expected, str)  # An attribute may hold anything, an array say.
    if expected is not None and not (is_text and expected == _checksum(classifier)):
        raise ConfigError(
            f"{path} is damaged: its weights are not those that were written. {remedy}"
        )
    return step


def _checksum(classifier: VideoClassifier) -> str:
    """Of the numbers, by which damage to the file that holds them is noticed."""
    digest = hashlib.sha256()
    for weight in classifier.weights:
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def _hdf5_bytes(classifier: VideoClassifier) -> int:
    """At least what the weights take, with a generous share for HDF5's own tables."""
    return sum(weight.numpy().nbytes + 4096 for weight in classifier.weights)


def load_newest_checkpoint(
    classifier: VideoClassifier, folder: str | os.PathLike
) -> LoadedClassifier:
    """Gives a classifier the weights of the newest whole checkpoint in a folder.

    Its files are held open while TensorFlow reads them by their names. Where one has been removed
    or replaced meanwhile by a run that is being trained, the newest is looked for again.

    Raises:
        FileNotFoundError: There is none.
        DamagedCheckpointsError: There are some, and all are damaged.
    """
    while True:
        prefix = newest_checkpoint(folder)
        if prefix is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint yet")
        with contextlib.suppress(FileNotFoundError), opened_checkpoint(prefix) as files:
            try:
                with readable_prefix(prefix) as path:
                    checkpoint = tf.train.Checkpoint(classifier=checkpointable(classifier))
                    # The optimizer's part stays unread.
                    checkpoint.read(path).assert_existing_objects_matched().expect_partial()
            except (tf.errors.OpError, ValueError, AssertionError):
                if _have_their_names(files):
                    raise
                continue
            digest = digest_of_files(files)
            if _have_their_names(files):
                return LoadedClassifier(classifier, digest, int(prefix.rpartition("-")[2]))


def _have_their_names(files: Sequence[BinaryIO]) -> bool:
    """Whether open files are still what their names stand for."""
    try:
        return all(os.path.samestat(os.fstat(f.fileno()), os.stat(f.name)) for f in files)
    except FileNotFoundError:
        return False


def load_classifier(
    folder: RunFolder, config: RunConfig, checkpoint: str = "best", trust_code: bool = False
) -> VideoClassifier:
    """The classifier of a run, see `load_run`."""
    return load_run(folder, config, checkpoint, trust_code).classifier


def load_run(
    folder: RunFolder, config: RunConfig, checkpoint: str = "best", trust_code: bool = False
) -> LoadedClassifier:
    """The classifier of a run, and which weights it has.

    Args:
        folder: The run.
        config: Its configuration.
        checkpoint: `best` (by validation GAP) or `last` (newest checkpoint).
        trust_code: Run the code that the run names (`RunConfig.code`): its own model and loss.

    Raises:
        FileNotFoundError: The run has no such weights yet.
        ConfigError: They are damaged, or the folder holds another run than `config` by now.
        UntrustedCodeError: The run names code that is not trusted.
        ValueError: `checkpoint` is neither.
    """
    require_trust(config, trust_code, folder.path)
    classifier = build_from_config(config, trust_code)
    if checkpoint == "best":
        try:
            loaded = load_weights(classifier, folder.best_weights)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{folder.best_weights} is missing: the run has not been validated yet. Let "
                f"train.py go on, or {_NEWEST}"
            ) from error
    elif checkpoint == "last":
        loaded = load_newest_checkpoint(classifier, folder.checkpoints)
    else:
        raise ValueError(f"`checkpoint` must be 'best' or 'last'. Received: {checkpoint!r}")
    if (folder.path / CONFIG_FILE).is_file():
        now = RunConfig.load(folder.path)
        # What fixes the meaning of the weights, and of their figures.
        if (now.data, now.model, now.objective) != (config.data, config.model, config.objective):
            raise ConfigError(
                f"{folder.path} holds another run than a moment ago: train.py "
                "--start_new_model began there. Run the same command again"
            )
    return loaded
