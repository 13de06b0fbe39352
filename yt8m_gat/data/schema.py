"""The schema of records (names, sizes and types of features), and the official layouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from yt8m_gat.config import CLIP_FEATURE, FEATURE_TYPES, ClipConfig, ConfigError, DataConfig
from yt8m_gat.data.label_space import LabelMap

FRAME_FEATURE_SIZES = {"rgb": 1024, "audio": 128}
"""YouTube-8M, frame level: bytes of one frame, at one frame a second."""

VIDEO_FEATURE_SIZES = {"mean_rgb": 1024, "mean_audio": 128}
"""YouTube-8M, video level: floats of one video."""

AUDIOSET_FEATURE_SIZES = {"audio_embedding": 128}
"""AudioSet v1: bytes of one frame, at one frame a second."""

NUM_CLASSES = 3862
"""Size of the YouTube-8M vocabulary since 2018."""

AUDIOSET_NUM_CLASSES = 527
"""Size of the AudioSet v1 vocabulary."""

MAX_FRAMES = 300
"""The number of frames after which a YouTube-8M clip is cut."""

ID_KEYS = ("id", "video_id", "clip/media_id", "clip/data_path")
"""Names of the id: YouTube-8M since 2018; older YouTube-8M and AudioSet; MediaSequence, and what
MediaPipe's extraction of YouTube-8M features writes. The first that a record has counts."""

LABELS_KEY = "labels"
"""Name of the list of class indices, in the official records."""

ENCODED_KEY = "image/encoded"
"""Name of the feature list of JPEG files, in MediaSequence records of raw clips."""

SEGMENT_FRAMES = 5
"""The number of frames of a segment of YouTube-8M Segments (2019)."""

SEGMENT_START_KEY = "segment_start_times"
SEGMENT_CLASS_KEY = "segment_labels"
SEGMENT_SCORE_KEY = "segment_scores"
"""Names of a record's ratings, three lists of one length: rating i gives class `segment_labels[i]`
the score `segment_scores[i]` in the segment from second `segment_start_times[i]`.
(`segment_end_times` is not read: a segment has 5 frames.)"""

SEGMENT_ID_BREAKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + ':,"'
"""Characters that the CSV of 2019, with its `id:second` joined by spaces, cannot have in an id:
whitespace (the last of Unicode's is U+3000), a colon, a comma, a quote."""

RESERVED_NAMES = frozenset(
    {"num_frames", "frame_mask", "label_weights", "segment_start_time", LABELS_KEY, *ID_KEYS}
)
"""Names of other parts of a batch or a record, which features must not have."""


ITEM_BYTES = {"uint8": 1, "float32": 4}
"""Bytes of one value of a frame that is stored as bytes."""


@dataclasses.dataclass(frozen=True)
class RecordSchema:
    """The part of a record that is read.

    Frame level (`tf.SequenceExample`):

    | key | where | kind | shape |
    |---|---|---|---|
    | one of `ID_KEYS` | context | bytes | [1] |
    | `labels_key` (may be absent) | context | int64 | [any number], or a 0 or 1 for each class |
    | each feature | feature list | by its type, see below | T x [size] |

    Rated segments (2019), if they are requested:

    | key | where | kind | shape |
    |---|---|---|---|
    | `segment_start_times` (all three may be absent) | context | int64 | [R], in seconds |
    | `segment_labels` | context | int64 | [R] |
    | `segment_scores` | context | float | [R], in [0, 1] |

    Video level (`tf.Example`): the same id and labels; each feature is float[size].

    Raw clips: the same id and labels; the only feature, `image`, is made of the feature list
    `image/encoded`, T x [1] bytes, each a JPEG file; see `yt8m_gat.data.clips`.

    Attributes:
        feature_sizes: (name, size) of each feature, in order; a mapping is accepted too. The size
            is the number of values of a frame (of a video at video level).
        num_classes: C of the batch's labels.
        max_frames: Longer clips are cut after this many frames.
        frame_level: Whether the features have a time axis.
        label_map: Maps the labels of the records to the C classes; None: they are the classes.
        labels_key: Name of the list of labels.
        labels_are: `indices` of classes, or `multi_hot`, a 0 or 1 for each class of the records;
            None: indices by default, which `yt8m_gat.data.label_check` verifies.
        feature_types: How the frames of each feature are stored: `uint8` or `float32`, bytes of
            that type, or `float_list`, a list of floats; empty: `uint8` for all.
        other_sizes: (name, bytes of a frame) of the other features of the records. They are not
            read, but records with exactly these features are read faster.
        clips: How raw clips are read; None: the records hold features.
        one_label: Whether a record must have exactly one label, as a softmax over classes needs.

    Raises:
        ConfigError: A value is invalid; the message names it and the flag it comes from.
    """

    feature_sizes: tuple[tuple[str, int], ...]
    num_classes: int
    max_frames: int = MAX_FRAMES
    frame_level: bool = True
    label_map: LabelMap | None = None
    labels_key: str = LABELS_KEY
    labels_are: str | None = None
    feature_types: tuple[str, ...] = ()
    other_sizes: tuple[tuple[str, int], ...] = ()
    clips: ClipConfig | None = None
    one_label: bool = False

    def __post_init__(self) -> None:
        sizes = self.feature_sizes
        pairs: Iterable[tuple[str, int]] = sizes.items() if isinstance(sizes, Mapping) else sizes
        object.__setattr__(self, "feature_sizes", tuple((name, size) for name, size in pairs))
        names = self.feature_names
        if not names or not all(names):
            raise ConfigError(
                f"--feature_names must name at least one feature, none empty. Received: {names}"
            )
        if len(set(names)) != len(names):
            raise ConfigError(f"--feature_names must differ. Received: {names}")
        reserved = sorted(RESERVED_NAMES.intersection(names))
        if reserved:
            raise ConfigError(
                f"--feature_names must not use {reserved}: those names mean other parts of a batch"
            )
        if self.labels_key in (*ID_KEYS, *names):
            raise ConfigError(
                f"--labels_key must not be the name of an id or of a feature. "
                f"Received: {self.labels_key!r}"
            )
        for name, size in self.feature_sizes:
            if size < 1:
                raise ConfigError(
                    f"--feature_sizes must be positive. Received: {size} for feature {name!r}"
                )
        if self.feature_types and (
            len(self.feature_types) != len(names) or set(self.feature_types) - set(FEATURE_TYPES)
        ):
            raise ConfigError(
                f"--feature_types must be one of {', '.join(FEATURE_TYPES)} for each feature. "
                f"Received: {self.feature_types}"
            )
        if self.clips is not None and (
            self.sizes != {CLIP_FEATURE: 3} or not self.frame_level or self.feature_types
        ):
            raise ConfigError(
                f"raw clips have the single feature {CLIP_FEATURE} of size 3, the colors. "
                f"Received: {self.sizes}"
            )
        if self.num_classes < 1:
            raise ConfigError(f"--num_classes must be positive. Received: {self.num_classes}")
        if self.max_frames < 1:
            raise ConfigError(f"--max_frames must be positive. Received: {self.max_frames}")
        if self.label_map is not None and self.label_map.num_targets != self.num_classes:
            raise ConfigError(
                f"num_classes must be the label map's {self.label_map.num_targets} targets. "
                f"Received: {self.num_classes}"
            )

    @classmethod
    def from_config(cls, config: DataConfig, label_map: LabelMap | None = None) -> RecordSchema:
        """Makes the schema that a run's data settings describe.

        Args:
            config: The settings.
            label_map: The run's label map, if it has one.

        Raises:
            ConfigError: The label map is not the one that the settings name.
        """
        fingerprint = None if label_map is None else label_map.fingerprint
        if fingerprint != config.label_map:
            raise ConfigError(
                "a run must keep the label map that it was started with. Its fingerprint: "
                f"{config.label_map}; that of the map given: {fingerprint}. Restore the run's "
                "label_map.csv"
            )
        return cls(
            config.sizes,
            config.num_classes,
            config.max_frames,
            config.frame_features,
            label_map,
            config.labels_key,
            config.labels_are,
            config.feature_types,
            clips=config.clips,
        )

    @property
    def num_source_classes(self) -> int:
        """The number of classes in the records, whose labels are 0 .. num_source_classes - 1."""
        return self.num_classes if self.label_map is None else self.label_map.num_sources

    @property
    def multi_hot_labels(self) -> bool:
        """Whether a list of labels has a 0 or 1 for each class."""
        return self.labels_are == "multi_hot"

    @property
    def types(self) -> dict[str, str]:
        """Feature name -> how its frames are stored."""
        types = self.feature_types or ("uint8",) * len(self.feature_sizes)
        return dict(zip(self.feature_names, types, strict=True))

    def stored_size(self, name: str) -> tuple[int, str]:
        """Returns the stored size of a frame (or of a video's feature) and its unit."""
        size, kind = self.sizes[name], self.types[name]
        if kind == "float_list" or not self.frame_level:
            return size, "values"
        return ITEM_BYTES[kind] * size, "bytes"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The feature names, in order."""
        return tuple(name for name, _ in self.feature_sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """Feature name -> size, in order."""
        return dict(self.feature_sizes)
