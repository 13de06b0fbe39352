"""A seeded sample of frame-level records in the official layout, with a learnable structure.

    yt8m-gat sample --output_dir=D --num_train=2000 --max_frames=60 --seed=0

writes ``train00.tfrecord ...``, ``validate00.tfrecord ...``, ``test00.tfrecord ...`` and
``label_names.csv`` (``label_id,label_name``) into D. A record is a ``tf.SequenceExample``:

    ==============  =========  ====================  =======================================
    key             where      kind                  shape
    ==============  =========  ====================  =======================================
    ``id``          context    bytes list            1, unique over the three splits
    ``labels``      context    int64 list            the positive classes, ascending
    ``rgb``         features   bytes list per frame  T x 1024 uint8
    ``audio``       features   bytes list per frame  T x 128 uint8
    ==============  =========  ====================  =======================================

with T uniform over ``ceil(0.4 max_frames) .. max_frames`` (120 to 300 at full size).

The planted structure
---------------------
*Labels.* Class c has the prior ``p_c = s (c + 2)^-zipf_exponent`` (at most 0.6), with s such that
the priors sum to ``labels_per_clip`` (at most 0.3 C); a clip's true labels are independent draws. A
split of at least ``3 C`` clips has at least three clips that truly show each class. The labels
WRITTEN are noisy: each true one is dropped with probability ``label_noise``, each other one added
with probability ``label_noise * p_c``.

*Background.* ``x_t = sigma * n_t``, with ``n_t = r n_(t-1) + sqrt(1 - r^2) e_t``,
``e_t ~ N(0, I)``, ``r = smoothness``. It is smooth over time and has a spectrum like that of the
leading principal components: sigma is flat over the first three quarters of the coordinates (the
head) and falls to ``tail_deviation`` over the last quarter (the tail). The head's sigma is solved
for so that, after clipping to [-2, 2] and with the cues' mean square added, the root mean square
norm of a frame is about 27 (rgb) or 13.5 (audio) as in YouTube-8M.

*Weak dense evidence of every label.* A unit direction w_c in the tail is added to EVERY frame:
``dense_norm * u * w_c``, u uniform in [0.6, 1.4] per clip and label. A local label has only
``local_dense_share`` of that; otherwise it could be recognized without its cues. The sum over a
clip's labels is rescaled to an L2 norm of at most ``MAX_DENSE_NORM = 0.45`` per frame: less than
the papers' epsilon = 0.5, so that one perturbation can erase or forge all of it.

*Strong evidence of every label* is in ``m = max(1, round(cue_share * T))`` places, and is present
in a clip of the label with probability ``cue_presence``:

*   a GLOBAL label has one cue, a unit direction in the head: ``cue_norm * a_c`` is added to m
    frames drawn from the whole clip;
*   a LOCAL label has two, a_c and b_c: m times, ``cue_norm * a_c`` in one frame and
    ``cue_norm * b_c`` in another at most W frames away, ``W = max(1, round(max_frames / 30))``.
    The same cues mean nothing when they are at least G frames apart,
    ``G = max(W + 1, max_frames // 3)``. In this form they are distractors: they occur, m times
    each, in clips WITHOUT the label with probability ``min(0.5, distractor_rate * p_c)``. How
    often each cue occurs is therefore little evidence; the distance between the two cues decides.
    Attention within blocks of a few W (T_N = 5 of 30 frames, 20 of 300) sees it directly, while
    attention over the whole clip has to find it.

For audio ``cue_norm`` is halved, as the norm of a frame is. A cue is many epsilons long in its
frames: a model that finds cues frame by frame cannot be fooled within epsilon; one that relies on
the dense evidence, or on the mean over the frames, can.

*Audio* shows the same labels at the same times, along directions of its own, with probability
``audio_agreement``; otherwise it is the audio of another, unrelated clip.

All features are clipped to [-2, 2] and quantized. The directions depend only on ``seed``,
``num_classes`` and ``local_share``, so train, validate and test share them; a clip depends on the
seed, its split and its place in it, but not on the number of shards or the other splits.
"""

from __future__ import annotations

import csv
import dataclasses
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.special import erf
from tqdm import tqdm

from yt8m_gat.data.schema import FRAME_FEATURE_SIZES
from yt8m_gat.disk import remove_unfinished, replacing
from yt8m_gat.locks import only_writer_in

# The root mean square L2 norm of a dequantized frame of YouTube-8M.
FRAME_NORMS = {"rgb": 27.0, "audio": 13.5}
# Below the papers' epsilon of 0.5 per frame.
MAX_DENSE_NORM = 0.45
SPLITS = ("train", "validate", "test")

_MIN_LENGTH_SHARE = 0.4
_TAIL_SHARE = 0.25
_MAX_PRIOR = 0.6
_MAX_LABELS_SHARE = 0.3
_MIN_POSITIVES = 3
# The limit of the quantized range.
_MAX_VALUE = 2.0


def setting(default: float, low: float, high: float, meaning: str) -> Any:
    """Makes a field of a sample's settings; the meaning is also the flag's help text."""
    return dataclasses.field(
        default=default, metadata={"low": low, "high": high, "meaning": meaning}
    )


def check_settings(config: Any) -> None:
    """Checks the ranges of a sample's settings, and that no file would stay empty.

    Args:
        config: A dataclass whose fields are made by `setting`, with `num_shards` and, for each
            split, `num_train` and so on.

    Raises:
        ValueError: If a value is out of its range.
    """
    for field in dataclasses.fields(config):
        low, high = field.metadata["low"], field.metadata["high"]
        value = getattr(config, field.name)
        whole = field.type == "int"
        kind = numbers.Integral if whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            raise ValueError(
                f"`{field.name}` must be a {'whole ' if whole else ''}number from {low} to "
                f"{high}: {field.metadata['meaning']}. Received: {field.name}={value!r}"
            )
    fewest = min(getattr(config, f"num_{split}") for split in SPLITS)
    if config.num_shards > fewest:
        raise ValueError(
            "`num_shards` must be at most the number of clips of the smallest split, "
            f"{fewest}, or files stay empty. Received: num_shards={config.num_shards}"
        )


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Settings of a sample: sizes, the seed, and the parameters in the module docstring.

    Each field has its default, its least and its greatest value, and its meaning.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_train: int = setting(2000, 1, 10**8, "clips of the train split")
    num_validate: int = setting(400, 1, 10**8, "clips of the validate split")
    num_test: int = setting(400, 1, 10**8, "clips of the test split")
    num_classes: int = setting(24, 1, 10**5, "number of labels C")
    max_frames: int = setting(
        60, 6, 10**4, "frames of the longest clip; the shortest has 0.4 of it"
    )
    num_shards: int = setting(4, 1, 10**5, "files per split")
    seed: int = setting(0, 0, 2**63 - 1, "fixes every byte written")
    labels_per_clip: float = setting(3.0, 0.1, 1000, "mean number of true labels of a clip")
    zipf_exponent: float = setting(0.8, 0, 4, "decay of the class priors with the rank")
    local_share: float = setting(0.5, 0, 1, "share of the labels whose strong evidence is local")
    dense_norm: float = setting(
        0.3, 0, 0.45, "L2 norm per frame and label of the weak dense evidence"
    )
    local_dense_share: float = setting(
        0.5, 0, 1, "dense evidence of a local label relative to a global label's"
    )
    tail_deviation: float = setting(
        0.3, 0.01, 0.8, "deviation of the background where the dense evidence lies"
    )
    cue_norm: float = setting(12.0, 0, 25, "L2 norm of a strong cue in its rgb frame")
    cue_share: float = setting(0.1, 0, 0.2, "strong cues of a label per frame of the clip")
    cue_presence: float = setting(
        0.9, 0, 1, "probability that a clip of a label shows its strong cue"
    )
    distractor_rate: float = setting(
        3.0, 0, 100, "clips with a local label's cues far apart per clip with the label"
    )
    audio_agreement: float = setting(
        0.8, 0, 1, "probability that the sound shows the clip's own labels"
    )
    smoothness: float = setting(
        0.4, 0, 0.99, "correlation of the background between neighbouring frames"
    )
    label_noise: float = setting(0.05, 0, 0.5, "probability that a true label is not written")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def min_frames(self) -> int:
        """Length of the shortest clip, in frames."""
        return int(np.ceil(_MIN_LENGTH_SHARE * self.max_frames))

    @property
    def cue_window(self) -> int:
        """The largest distance, in frames, at which two cues show their local label."""
        return max(1, round(self.max_frames / 30))

    @property
    def cue_gap(self) -> int:
        """The smallest distance, in frames, of two cues that are distractors."""
        return max(self.cue_window + 1, self.max_frames // 3)


@dataclasses.dataclass(frozen=True)
class PlantedDirections:
    """The unit directions planted in one modality.

    Attributes:
        deviation: Standard deviation of the background before clipping [D].
        dense: Weak dense direction of each label [C, D], in the tail.
        first_cue: Strong cue of each label [C, D], in the head.
        second_cue: The other cue of each local label [C, D]; zero for global labels.
    """

    deviation: np.ndarray
    dense: np.ndarray
    first_cue: np.ndarray
    second_cue: np.ndarray


@dataclasses.dataclass(frozen=True)
class PlantedStructure:
    """The structure that the three splits share.

    Attributes:
        priors: Probability of each true label [C], descending.
        is_local: Whether each label's strong evidence is local [C].
        directions: The planted directions of each feature.
    """

    priors: np.ndarray
    is_local: np.ndarray
    directions: dict[str, PlantedDirections]


@dataclasses.dataclass(frozen=True)
class Clip:
    """One generated clip.

    Attributes:
        video_id: Unique over the three splits.
        labels: The classes written, ascending: the true ones with label noise.
        true_labels: The classes whose evidence is planted, ascending.
        audio_agrees: Whether the audio shows the clip's own labels.
        cue_frames: For each label with a strong cue or a distractor in the rgb frames, the frames
            of its first and of its second cue (none for a global label).
        features: Quantized frames, uint8 [T, D] per feature.
    """

    video_id: str
    labels: np.ndarray
    true_labels: np.ndarray
    audio_agrees: bool
    cue_frames: dict[int, tuple[np.ndarray, np.ndarray]]
    features: dict[str, np.ndarray]


def planted_structure(config: SampleConfig) -> PlantedStructure:
    """Draws the priors, the kinds of the labels and the planted directions.

    Args:
        config: The sample.

    Returns:
        The structure that the three splits share.

    Raises:
        ValueError: If the cues are too strong or too many for the frame norms.
    """
    num_classes = config.num_classes
    rng = np.random.default_rng([config.seed, len(SPLITS)])
    # Local labels are spread evenly over the ranks, so that both kinds have frequent and rare ones.
    steps = np.floor(np.arange(1, num_classes + 1) * config.local_share + 1e-9)
    is_local = np.diff(steps, prepend=0.0) > 0
    priors = _priors(config)
    cues_per_frame = _cues_per_frame(config, priors, is_local)
    directions = {}
    for name, size in FRAME_FEATURE_SIZES.items():
        tail = size - int(size * _TAIL_SHARE)
        dense = _unit_directions(rng, num_classes, size, slice(tail, size))
        cues = _unit_directions(rng, 2 * num_classes, size, slice(0, tail))
        directions[name] = PlantedDirections(
            deviation=_spectrum(config, name, tail, cues_per_frame),
            dense=dense,
            first_cue=cues[:num_classes],
            second_cue=cues[num_classes:] * is_local[:, None].astype(np.float32),
        )
    return PlantedStructure(priors, is_local, directions)


def label_names(structure: PlantedStructure) -> list[str]:
    """Names each label by its kind and its number within the kind: "global topic 0"."""
    names, counts = [], {True: 0, False: 0}
    for local in structure.is_local.tolist():
        names.append(f"{'local pair' if local else 'global topic'} {counts[local]}")
        counts[local] += 1
    return names


def draw_clip(config: SampleConfig, structure: PlantedStructure, split: str, index: int) -> Clip:
    """Draws clip `index` of a split; the same arguments always give the same clip.

    Args:
        config: The sample.
        structure: The result of `planted_structure(config)`.
        split: "train", "validate" or "test".
        index: Place of the clip in its split, from 0.

    Returns:
        The clip.

    Raises:
        ValueError: If the split or the index is invalid.
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {SPLITS}. Received: split={split!r}")
    num_clips = getattr(config, f"num_{split}")
    if not 0 <= index < num_clips:
        raise ValueError(
            f"`index` must be at least 0 and below num_{split}={num_clips}. Received: index={index}"
        )
    rng = np.random.default_rng([config.seed, SPLITS.index(split), index])
    num_frames = int(rng.integers(config.min_frames, config.max_frames + 1))
    is_true = rng.random(config.num_classes) < structure.priors
    if num_clips >= _MIN_POSITIVES * config.num_classes > index:
        is_true[index % config.num_classes] = True
    noise = rng.random(config.num_classes)
    written = np.where(
        is_true, noise >= config.label_noise, noise < config.label_noise * structure.priors
    )
    picture = _draw_evidence(rng, config, structure, is_true, num_frames)
    audio_agrees = bool(rng.random() < config.audio_agreement)
    sound = picture
    if not audio_agrees:
        others = rng.random(config.num_classes) < structure.priors
        sound = _draw_evidence(rng, config, structure, others, num_frames)
    features = {}
    for name, directions in structure.directions.items():
        evidence = sound if name == "audio" else picture
        features[name] = _draw_frames(rng, config, name, directions, evidence, num_frames)
    return Clip(
        video_id=f"{split[:2]}{config.seed:x}-{index:07d}",
        labels=np.flatnonzero(written),
        true_labels=np.flatnonzero(is_true),
        audio_agrees=audio_agrees,
        cue_frames=picture.cue_frames,
        features=features,
    )


@dataclasses.dataclass(frozen=True)
class _Evidence:
    """The evidence in a clip: norms of the dense evidence [C] and the frames of the cues."""

    dense: np.ndarray
    cue_frames: dict[int, tuple[np.ndarray, np.ndarray]]


def _priors(config: SampleConfig) -> np.ndarray:
    total = min(config.labels_per_clip, _MAX_LABELS_SHARE * config.num_classes)
    weights = (np.arange(config.num_classes) + 2.0) ** -config.zipf_exponent
    low, high = 0.0, config.num_classes / weights[-1]
    for _ in range(100):
        scale = (low + high) / 2
        if np.minimum(scale * weights, _MAX_PRIOR).sum() < total:
            low = scale
        else:
            high = scale
    return np.minimum(high * weights, _MAX_PRIOR)


def _unit_directions(
    rng: np.random.Generator, count: int, size: int, coordinates: slice
) -> np.ndarray:
    """Draws unit vectors [count, size] within the coordinates; orthogonal if there is room."""
    width = coordinates.stop - coordinates.start
    vectors = rng.standard_normal((count, width))
    if count <= width:
        vectors = np.linalg.qr(vectors.T)[0].T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.zeros((count, size), np.float32)
    directions[:, coordinates] = vectors
    return directions


def _cue_norm(config: SampleConfig, name: str) -> float:
    return config.cue_norm * FRAME_NORMS[name] / FRAME_NORMS["rgb"]


def _distractor_priors(config: SampleConfig, priors: np.ndarray) -> np.ndarray:
    return np.minimum(0.5, config.distractor_rate * priors)


def _cues_per_frame(config: SampleConfig, priors: np.ndarray, is_local: np.ndarray) -> float:
    """Computes the mean number of cues per frame, ignoring the rounding of `cue_share`."""
    shown = priors * config.cue_presence
    local = 2 * (shown + (1 - priors) * _distractor_priors(config, priors))
    return config.cue_share * float(np.where(is_local, local, shown).sum())


def _spectrum(config: SampleConfig, name: str, tail: int, cues_per_frame: float) -> np.ndarray:
    """Computes the deviation of the background per coordinate [D]."""
    size = FRAME_FEATURE_SIZES[name]
    low, high = config.tail_deviation, 100.0
    # Over the first half of the tail the deviation falls, over the other half it is flat.
    fall = np.minimum(np.linspace(0.0, 2.0, size - tail + 1)[1:], 1.0)
    for _ in range(100):
        head = (low + high) / 2
        slope = head * (config.tail_deviation / head) ** fall
        deviation = np.concatenate([np.full(tail, head), slope])
        if _clipped_square(deviation).sum() < FRAME_NORMS[name] ** 2:
            low = head
        else:
            high = head
    # The directions of cues are random, so the mean square of cues is even over the head.
    cue_square = cues_per_frame * _cue_norm(config, name) ** 2 / tail
    if cue_square > head**2 / 2:
        raise ValueError(
            "The cues must leave half of a frame's variance to the background. Received: "
            f"{cues_per_frame:.2f} cues a frame with cue_norm={config.cue_norm:g}; lower cue_norm, "
            "cue_share, distractor_rate or labels_per_clip"
        )
    deviation[:tail] = np.sqrt(head**2 - cue_square)
    return deviation.astype(np.float32)


def _clipped_square(deviation: np.ndarray) -> np.ndarray:
    """Computes E[clip(s z, -2, 2)^2] for a standard normal z, in closed form."""
    limit = _MAX_VALUE / deviation
    density = np.exp(-(limit**2) / 2) / np.sqrt(2 * np.pi)
    inside = erf(limit / np.sqrt(2))
    return deviation**2 * (inside - 2 * limit * density) + _MAX_VALUE**2 * (1 - inside)


def _draw_evidence(
    rng: np.random.Generator,
    config: SampleConfig,
    structure: PlantedStructure,
    is_true: np.ndarray,
    num_frames: int,
) -> _Evidence:
    dense = is_true * config.dense_norm * rng.uniform(0.6, 1.4, config.num_classes)
    dense *= np.where(structure.is_local, config.local_dense_share, 1.0)
    shows_cue = is_true & (rng.random(config.num_classes) < config.cue_presence)
    distracts = rng.random(config.num_classes) < _distractor_priors(config, structure.priors)
    distracts &= ~is_true & structure.is_local
    count = max(1, round(config.cue_share * num_frames))
    cue_frames = {}
    for label in np.flatnonzero(shows_cue | distracts).tolist():
        if not structure.is_local[label]:
            frames = rng.choice(num_frames, count, replace=False)
            cue_frames[label] = (np.sort(frames), np.empty(0, np.int64))
        elif is_true[label]:
            cue_frames[label] = _near_frames(rng, num_frames, count, config.cue_window)
        else:
            cue_frames[label] = _far_frames(rng, num_frames, count, config.cue_gap)
    return _Evidence(dense, cue_frames)


def _near_frames(
    rng: np.random.Generator, num_frames: int, count: int, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws pairs of frames 1 to `window` apart, in either order."""
    distance = rng.integers(1, window + 1, count)
    start = rng.integers(0, num_frames - distance)
    swapped = rng.random(count) < 0.5
    return start + distance * swapped, start + distance * ~swapped


def _far_frames(
    rng: np.random.Generator, num_frames: int, count: int, gap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws two groups of frames that are at least `gap` frames apart."""
    early_end = int(rng.integers(1, num_frames - gap + 1))
    early = rng.integers(0, early_end, count)
    late = rng.integers(early_end - 1 + gap, num_frames, count)
    return (early, late) if rng.random() < 0.5 else (late, early)


def _draw_frames(
    rng: np.random.Generator,
    config: SampleConfig,
    name: str,
    directions: PlantedDirections,
    evidence: _Evidence,
    num_frames: int,
) -> np.ndarray:
    # Imported here because it imports TensorFlow, which the command's --help does not need.
    from yt8m_gat.data.quantization import quantize

    frames = rng.standard_normal((num_frames, len(directions.deviation)), dtype=np.float32)
    if config.smoothness:
        # The first frame is scaled up so that every frame has the same variance.
        innovation = np.sqrt(1 - config.smoothness**2)
        frames[0] /= innovation
        frames = lfilter([innovation], [1.0, -config.smoothness], frames, axis=0)
    frames = (frames * directions.deviation).astype(np.float32)
    dense = evidence.dense.astype(np.float32) @ directions.dense
    norm = float(np.linalg.norm(dense))
    frames += dense * (MAX_DENSE_NORM / norm if norm > MAX_DENSE_NORM else 1.0)
    cue_norm = _cue_norm(config, name)
    for label, (first, second) in evidence.cue_frames.items():
        frames[np.unique(first)] += cue_norm * directions.first_cue[label]
        frames[np.unique(second)] += cue_norm * directions.second_cue[label]
    return quantize(np.clip(frames, -_MAX_VALUE, _MAX_VALUE))


def generate_sample(
    output_dir: str | Path, config: SampleConfig, show_progress: bool = False
) -> None:
    """Writes the three splits and ``label_names.csv``, with one clip at a time in memory.

    Clip i of a split is in shard ``i % num_shards``. Each file is written under a temporary name
    and renamed when complete; a file of the same name is replaced.

    Args:
        output_dir: The folder to write to; created if necessary.
        config: The settings of the sample.
        show_progress: Whether to print clips, rate and time left to the standard error.

    Raises:
        FileExistsError: If the folder holds shards of another sample that would not be replaced,
            since a pattern such as ``train*.tfrecord`` would mix the two.
        NotADirectoryError: If `output_dir` is a file.
        InUseError: If another process is generating a sample there.
        WriteError: If a file cannot be written.
    """
    from yt8m_gat.data.arrays import frame_record

    structure = planted_structure(config)

    def record(split: str, index: int) -> bytes:
        clip = draw_clip(config, structure, split, index)
        return frame_record(clip.video_id.encode(), clip.labels, clip.features)

    write_splits(output_dir, config, label_names(structure), record, show_progress)


def write_splits(
    output_dir: str | Path,
    config: Any,
    names: Sequence[str],
    record: Callable[[str, int], bytes],
    show_progress: bool = False,
) -> None:
    """Writes the records of three splits, and ``label_names.csv``; see `generate_sample`.

    Args:
        output_dir: The folder to write to; created if necessary.
        config: The settings, see `check_settings`.
        names: Names of the classes.
        record: Makes the record of a clip from its split and its place in it.
        show_progress: See `generate_sample`.
    """
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--output_dir must be a folder. Received a file: {folder}")
    with only_writer_in(folder):
        remove_unfinished(folder, "label_names.csv", *(f"{split}*.tfrecord" for split in SPLITS))
        _write_splits(folder, config, names, record, show_progress)


def _write_splits(
    folder: Path,
    config: Any,
    names: Sequence[str],
    record: Callable[[str, int], bytes],
    show_progress: bool,
) -> None:
    paths = {split: shard_paths(folder, split, config.num_shards) for split in SPLITS}
    refuse_other_shards(folder, paths)
    with (
        replacing(folder / "label_names.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label_id", "label_name"])
        writer.writerows(enumerate(names))
    with tqdm(
        total=sum(getattr(config, f"num_{split}") for split in SPLITS),
        unit="clip",
        dynamic_ncols=True,
        disable=not show_progress,
    ) as bar:
        for split in SPLITS:
            bar.set_description(split)
            for shard, path in enumerate(paths[split]):
                numbers_of_clips = range(shard, getattr(config, f"num_{split}"), config.num_shards)
                write_shard(path, (record(split, index) for index in numbers_of_clips), bar)


def shard_paths(folder: Path, name: str, num_shards: int) -> list[Path]:
    """Returns the paths `folder/name00.tfrecord ...` of a set of shards."""
    digits = max(2, len(str(num_shards - 1)))
    return [folder / f"{name}{shard:0{digits}d}.tfrecord" for shard in range(num_shards)]


def refuse_other_shards(folder: Path, paths: Mapping[str, Sequence[Path]]) -> None:
    """Checks that a folder holds no shards that would not be replaced.

    Args:
        folder: The folder.
        paths: The shards that are to be written, by their name without number.

    Raises:
        FileExistsError: A pattern such as ``train*.tfrecord`` would mix them with others.
    """
    left_over = sorted(
        path.name
        for name, ours in paths.items()
        for path in folder.glob(f"{name}*.tfrecord")
        if path not in ours
    )
    if left_over:
        listed = ", ".join(left_over[:3]) + (" ..." if len(left_over) > 3 else "")
        raise FileExistsError(
            f"--output_dir must hold no shards of another sample. {folder} holds {listed}: remove "
            "them or name another folder"
        )


def write_shard(path: Path, records: Iterable[bytes], bar: tqdm) -> None:
    """Writes a file of records completely or not at all; each one moves the bar on."""
    import tensorflow as tf

    with (
        replacing(path, tf.errors.OpError) as temporary,
        tf.io.TFRecordWriter(str(temporary)) as writer,
    ):
        for record in records:
            writer.write(record)
            bar.update()
