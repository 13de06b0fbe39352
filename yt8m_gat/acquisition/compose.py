"""Long clips that are made of short ones, so that it is known which seconds carry each label.

    yt8m-gat compose 'audioset/train*.tfrecord' --output_dir=D --feature_names=audio_embedding \\
        --feature_sizes=128 --num_classes=527

writes ``composed00.tfrecord ...`` and ``spans.csv`` into D. A composed clip has `clips_per_video`
places of `frames_per_clip` frames each. `labelled_clips` of them, drawn without order, hold source
clips that have at least one of the kept labels; the composed clip has the union of these. The
others hold frames of 0, the mean of whitened features (``silence``), or source clips that have none
of the kept labels (``clips``), so that the list of labels stays complete.

Each source clip with a kept label is used once, in an order drawn from the seed; those that do not
fill a composed clip are left out. Source clips of another number of frames are left out too; both
are counted. ``spans.csv`` (``video_id,label,start,end,duration,source``) has a line for each label
of each labelled place, in seconds at one frame a second: what ``eval.py --true_spans`` reads.

The files and their order, the settings and the seed fix every byte. The source clips are held in
memory, as bytes.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from yt8m_gat.acquisition.sample import refuse_other_shards, shard_paths, write_shard
from yt8m_gat.config import ConfigError
from yt8m_gat.disk import remove_unfinished, replacing
from yt8m_gat.locks import only_writer_in
from yt8m_gat.paths import require_own_files

if TYPE_CHECKING:
    from yt8m_gat.data.schema import RecordSchema

FILLS = ("silence", "clips")
SPANS = "spans.csv"
SILENCE = -1
"""In a plan: a place of frames of 0."""

_SHARDS = "composed"
_READ_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class ComposeConfig:
    """Settings of a composed set; see the module's description.

    Attributes:
        clips_per_video: Places of a composed clip.
        labelled_clips: Places that hold a clip whose labels are kept; None: all.
        frames_per_clip: Frames of a place.
        fill: What the other places hold: `silence` or `clips`.
        kept_labels: The classes that are kept; empty: all.
        num_shards: Files.
        seed: Fixes which clips are joined, and where.

    Raises:
        ConfigError: A value is out of its range, or two do not go together.
    """

    clips_per_video: int = 30
    labelled_clips: int | None = None
    frames_per_clip: int = 10
    fill: str = "silence"
    kept_labels: tuple[int, ...] = ()
    num_shards: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clips_per_video", "frames_per_clip", "num_shards"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be positive. Received: {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigError(f"--seed must not be negative. Received: {self.seed}")
        if not 1 <= self.num_labelled <= self.clips_per_video:
            raise ConfigError(
                f"--labelled_clips must be 1 to --clips_per_video={self.clips_per_video}. "
                f"Received: {self.labelled_clips}"
            )
        if self.fill not in FILLS:
            raise ConfigError(f"--fill must be one of {', '.join(FILLS)}. Received: {self.fill!r}")
        if self.fill == "clips" and self.num_filled and not self.kept_labels:
            raise ConfigError(
                "--fill=clips needs --kept_labels: the clips that fill have none of them, and "
                "without it every label is kept"
            )

    @property
    def num_labelled(self) -> int:
        """Labelled places of a composed clip."""
        return self.clips_per_video if self.labelled_clips is None else self.labelled_clips

    @property
    def num_filled(self) -> int:
        """The other places."""
        return self.clips_per_video - self.num_labelled


class SourceClip(NamedTuple):
    """A clip to be joined with others.

    Attributes:
        video_id: Its id.
        labels: Its kept labels, ascending.
        frames: Feature name -> uint8 [frames_per_clip, size].
    """

    video_id: str
    labels: tuple[int, ...]
    frames: dict[str, np.ndarray]


class Place(NamedTuple):
    """What a place of a composed clip holds.

    Attributes:
        source: The number of a source clip, or `SILENCE`.
        labelled: Whether its labels are the composed clip's.
    """

    source: int
    labelled: bool


def plan(labels: Sequence[Sequence[int]], config: ComposeConfig) -> list[list[Place]]:
    """Draws what each place of each composed clip holds.

    Args:
        labels: The kept labels of each source clip.
        config: The settings.

    Returns:
        For each composed clip its places, in order of time.

    Raises:
        ValueError: There are too few source clips.

    Examples:
        >>> plan([(3,), (), (5,)], ComposeConfig(clips_per_video=2, labelled_clips=1))[0]
        [Place(source=-1, labelled=False), Place(source=0, labelled=True)]
    """
    labelled = [number for number, kept in enumerate(labels) if kept]
    others = [number for number, kept in enumerate(labels) if not kept]
    num_videos = len(labelled) // config.num_labelled
    if num_videos == 0:
        raise ValueError(
            f"a composed clip needs {config.num_labelled} source clips with a kept label "
            f"(--labelled_clips). Received: {len(labelled)} of --frames_per_clip="
            f"{config.frames_per_clip} frames"
        )
    from_clips = config.fill == "clips" and config.num_filled > 0
    if from_clips and len(others) < config.num_filled:
        raise ValueError(
            f"a composed clip needs {config.num_filled} source clips without a kept label "
            f"(--fill=clips). Received: {len(others)}"
        )
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(labelled)[: num_videos * config.num_labelled]
    videos = []
    for sources in order.reshape(num_videos, config.num_labelled):
        places = rng.choice(config.clips_per_video, config.num_labelled, replace=False)
        video = [Place(SILENCE, False)] * config.clips_per_video
        if from_clips:
            fillers = iter(rng.choice(others, config.num_filled, replace=False).tolist())
            video = [
                place if number in places else Place(next(fillers), False)
                for number, place in enumerate(video)
            ]
        for number, source in zip(places.tolist(), sources.tolist(), strict=True):
            video[number] = Place(source, True)
        videos.append(video)
    return videos


def read_source_clips(
    files: Sequence[str], schema: RecordSchema, config: ComposeConfig, show_progress: bool = False
) -> tuple[list[SourceClip], int]:
    """Reads the clips of `frames_per_clip` frames, with their kept labels.

    Args:
        files: Frame-level records.
        schema: The features of the records, of bytes, and their number of classes.
        config: The settings.
        show_progress: Whether to print clips and rate to the standard error.

    Returns:
        The clips, in the order of the files, and how many there are of another number of frames.

    Raises:
        ConfigError: A kept label is no class, or the features are not bytes.
        BadRecordError: A record cannot be read.
    """
    from yt8m_gat.data.reader import Reader

    outside = [label for label in config.kept_labels if not 0 <= label < schema.num_classes]
    if outside:
        raise ConfigError(
            f"--kept_labels must be 0 to {schema.num_classes - 1}, below --num_classes. "
            f"Received: {outside[0]}"
        )
    if not schema.frame_level or set(schema.types.values()) != {"uint8"}:
        raise ConfigError("only frame-level records of quantized features (bytes) can be joined")
    # One frame more shows that a clip is longer.
    schema = dataclasses.replace(schema, max_frames=config.frames_per_clip + 1)
    kept = set(config.kept_labels)
    clips, others = [], 0
    with tqdm(unit="clip", desc="read", dynamic_ncols=True, disable=not show_progress) as bar:
        for batch in Reader(files, schema, _READ_AT_ONCE):
            lengths = batch["num_frames"].numpy()
            features = {name: array.numpy() for name, array in batch["features"].items()}
            for row, video_id in enumerate(batch["video_id"].numpy()):
                if lengths[row] != config.frames_per_clip:
                    others += 1
                    continue
                labels = np.flatnonzero(batch["labels"][row]).tolist()
                clips.append(
                    SourceClip(
                        video_id.decode(),
                        tuple(label for label in labels if not kept or label in kept),
                        {
                            name: array[row, : config.frames_per_clip].copy()
                            for name, array in features.items()
                        },
                    )
                )
            bar.update(len(lengths))
    return clips, others


def compose(
    clips: Sequence[SourceClip],
    output_dir: str | Path,
    config: ComposeConfig,
    show_progress: bool = False,
    sources: Sequence[str] = (),
) -> int:
    """Writes the composed clips and their spans; see the module's description.

    Each file is written under a temporary name and renamed when complete. A job that was killed
    writes the same bytes when it is called again.

    Args:
        clips: The source clips.
        output_dir: The folder to write to; created if necessary.
        config: The settings.
        show_progress: Whether to print clips, rate and time left to the standard error.
        sources: The files that the clips were read from, which are not replaced.

    Returns:
        How many clips were composed.

    Raises:
        ConfigError: A file to be written is one of the sources.
        ValueError: There are too few source clips.
        FileExistsError: The folder holds shards of another composed set.
        NotADirectoryError: `output_dir` is a file.
        InUseError: Another process writes there.
        WriteError: A file cannot be written.
    """
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--output_dir must be a folder. Received a file: {folder}")
    videos = plan([clip.labels for clip in clips], config)
    num_shards = min(config.num_shards, len(videos))
    paths = shard_paths(folder, _SHARDS, num_shards)
    outputs = {f"{path.name} of --output_dir": path for path in paths}
    require_own_files(outputs, dict.fromkeys(sources, "a source of the clips"))
    with only_writer_in(folder):
        remove_unfinished(folder, SPANS, f"{_SHARDS}*.tfrecord")
        refuse_other_shards(folder, {_SHARDS: paths})
        with tqdm(total=len(videos), unit="clip", desc="write", disable=not show_progress) as bar:
            for shard, path in enumerate(paths):
                write_shard(path, _records(videos[shard::num_shards], clips), bar)
        _write_spans(folder / SPANS, videos, clips, config)
    return len(videos)


def _id_of(video: Sequence[Place], clips: Sequence[SourceClip]) -> str:
    """Returns the same id for the same sources in the same places, in whichever set."""
    sources = [
        "" if place.source == SILENCE else f"{clips[place.source].video_id}:{place.labelled:d}"
        for place in video
    ]
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]


def _records(videos: Sequence[Sequence[Place]], clips: Sequence[SourceClip]) -> Iterator[bytes]:
    from yt8m_gat.data.arrays import frame_record
    from yt8m_gat.data.quantization import quantize

    silence = {
        name: quantize(np.zeros(array.shape, np.float32)) for name, array in clips[0].frames.items()
    }
    for video in videos:
        labelled = [clips[place.source].labels for place in video if place.labelled]
        parts = [
            silence if place.source == SILENCE else clips[place.source].frames for place in video
        ]
        frames = {name: np.concatenate([part[name] for part in parts]) for name in silence}
        labels = np.unique(np.concatenate(labelled))
        yield frame_record(_id_of(video, clips).encode(), labels, frames)


def _write_spans(
    path: Path,
    videos: Sequence[Sequence[Place]],
    clips: Sequence[SourceClip],
    config: ComposeConfig,
) -> None:
    length = config.frames_per_clip
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video_id", "label", "start", "end", "duration", "source"])
        for video in videos:
            video_id, duration = _id_of(video, clips), length * len(video)
            for number, place in enumerate(video):
                if place.labelled:
                    clip, start = clips[place.source], length * number
                    writer.writerows(
                        [video_id, label, start, start + length, duration, clip.video_id]
                        for label in clip.labels
                    )
