"""Checks, before training and evaluation, that files hold labels and in the expected form."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf
from google.protobuf.message import DecodeError

from yt8m_gat.config import CLIP_LABELS_KEY, ConfigError
from yt8m_gat.data.description import int64_lists
from yt8m_gat.data.errors import BadRecordError
from yt8m_gat.data.record_files import read_records
from yt8m_gat.data.schema import SEGMENT_CLASS_KEY, SEGMENT_SCORE_KEY, RecordSchema
from yt8m_gat.recipes import RECIPES

NUM_RECORDS = 10_000
"""Number of records of the training data among which at least one must have a label. If 1 record
in 1,000 has one, the check fails by chance once in 22,000 times."""

NUM_LISTS = 16
"""Number of lists of labels from which their form (indices or 0/1 vectors) is guessed."""

_LEAST_CLASSES = 3
"""The least length of a 0/1 vector: a list of two may also hold two classes, 0 and 1."""


@dataclasses.dataclass
class IntegerKey:
    """Statistics of one int64 list over the records seen so far.

    Attributes:
        num_records: The number of records with a value in this list.
        lengths: The lengths of their lists.
        least: Their least value.
        greatest: Their greatest value.
    """

    num_records: int = 0
    lengths: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    least: int = 0
    greatest: int = 0

    def add(self, values: Sequence[int]) -> None:
        """Adds the list of one record, which must not be empty."""
        low, high = min(values), max(values)
        first = self.num_records == 0
        self.least = low if first else min(self.least, low)
        self.greatest = high if first else max(self.greatest, high)
        self.num_records += 1
        self.lengths[len(values)] += 1

    @property
    def looks_multi_hot(self) -> bool:
        """Whether all lists have one length and hold only 0s and 1s, at least one of them twice."""
        (length,) = self.lengths if len(self.lengths) == 1 else (0,)
        return length >= _LEAST_CLASSES and self.least >= 0 and self.greatest <= 1

    def __str__(self) -> str:
        shortest, longest = min(self.lengths), max(self.lengths)
        counts = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        text = f"{counts} values from {self.least} to {self.greatest}"
        return text + (", 0/1 vectors" if self.looks_multi_hot else "")


class IntegerKeys(dict[str, IntegerKey]):
    """Statistics of the int64 lists of some records, by name."""

    def add(self, lists: dict[str, tuple[int, ...]]) -> None:
        """Adds the lists of one record."""
        for name, values in lists.items():
            self.setdefault(name, IntegerKey()).add(values)

    def __str__(self) -> str:
        if not self:
            return "no int64 list"
        return "; ".join(f"{name!r} ({key})" for name, key in sorted(self.items()))


def check_labels(
    files: Sequence[str],
    schema: RecordSchema,
    flag_name: str,
    *,
    segments: bool = False,
    num_records: int | None = NUM_RECORDS,
) -> None:
    """Refuses files without labels, and 0/1 vectors that would be read as indices.

    With `schema.labels_are` set to `indices`, nothing is checked.

    A single record without labels is valid, so the reader does not notice if all are without: the
    labels may be under another name, or a label map may remove all of them. This function reads
    each file from its start until `NUM_LISTS` records have labels, or one in `NUM_RECORDS`; bad
    records are left to the reader.

    Args:
        files: Paths of TFRecord files.
        schema: The schema of their records.
        flag_name: The flag that they came from, for the error.
        segments: Whether to check the ratings of segments instead.
        num_records: The maximum of records to read, spread evenly over the files; None: all.

    Raises:
        ConfigError: The check fails; the message names the int64 lists of the records and the
            remedy.
    """
    if schema.labels_are == "indices" and not segments:
        return
    mapped = None
    if schema.label_map is not None:
        mapped = {source for source, _ in schema.label_map.pairs}
    seen = labelled = 0
    keys, labels = IntegerKeys(), IntegerKey()
    share = None if num_records is None else -(-num_records // len(files))
    for context in itertools.chain.from_iterable(contexts(path, share) for path in files):
        seen += 1
        lists = int64_lists(context)
        keys.add(lists)
        if not segments and (values := lists.get(schema.labels_key)):
            labels.add(values)
        classes = rated_classes(context) if segments else classes_of(lists, schema)
        labelled += bool(classes if mapped is None else mapped.intersection(classes))
        if labelled >= NUM_LISTS or (labelled and seen >= NUM_RECORDS):
            break
    if not segments and not schema.multi_hot_labels and labels.looks_multi_hot:
        (length,) = labels.lengths
        vectors = f"--labels_are=multi_hot --num_classes={length}"
        remedies = [f"{vectors} of train.py", "--labels_are=indices if they are classes after all"]
        if length != schema.num_source_classes and schema.one_label:
            # Vectors would have the run's length, so these are classes that are listed twice.
            remedies = ["--labels_are=indices", f"{vectors} of train.py if they are vectors"]
        raise ConfigError(
            f"--{flag_name}: the lists under {schema.labels_key!r} look like 0/1 vectors over "
            f"{length} classes, and would be read as the classes 0 and 1 of "
            f"{schema.num_source_classes}. Train with {', or with '.join(remedies)}"
        )
    if seen and not labelled:
        raise ConfigError(
            f"--{flag_name}: none of {seen} records checked "
            + _what_is_missing(schema, segments, labels, keys)
        )


def no_label(
    schema: RecordSchema, flag_name: str, segments: bool, num_examples: int
) -> ConfigError:
    """Returns the error for an evaluation in which no example has a label."""
    expected = "segments has a rating above 0" if segments else "videos has a label"
    where = "" if segments else f" under {schema.labels_key!r}"
    return ConfigError(
        f"--{flag_name}: none of the {num_examples} {expected}{where}, so that nothing can be "
        "measured. Give records like those that the run was trained on"
    )


def _what_is_missing(
    schema: RecordSchema, segments: bool, labels: IntegerKey, keys: IntegerKeys
) -> str:
    mapped = "" if schema.label_map is None else " that the label map gives a class"
    if segments:
        return (
            f"has a rating above 0{mapped} ({SEGMENT_SCORE_KEY}). They hold {keys}; leave out "
            "--segment_labels to read the labels of whole clips"
        )
    if labels.num_records:
        return (
            f"has a label{mapped or ' that is 1'}. Under {schema.labels_key!r} they hold {labels}"
        )
    raw_clips = ""
    if schema.clips is None and CLIP_LABELS_KEY in keys:
        readers = ", ".join(name for name, recipe in RECIPES.items() if recipe.clips)
        raw_clips = f" (if these are raw clips, choose a --model that reads them: {readers})"
    return (
        f"has a label under {schema.labels_key!r}. They hold {keys}; name the list of labels by "
        f"--labels_key of train.py{raw_clips}, or, if labels are that rare, skip this check with "
        "--labels_are=indices"
    )


def contexts(path: str, share: int | None) -> Iterator[tf.train.Features]:
    """Yields the contexts of the good records among a file's first `share` ones."""
    for _, payload in itertools.islice(read_records(path), share):
        if isinstance(payload, BadRecordError):
            continue
        try:
            # A tf.Example decodes as a tf.SequenceExample that has only a context.
            yield tf.train.SequenceExample.FromString(payload).context
        except DecodeError:
            continue


def classes_of(lists: dict[str, tuple[int, ...]], schema: RecordSchema) -> Iterable[int]:
    """Returns the positive classes of a record."""
    values = lists.get(schema.labels_key, ())
    if schema.multi_hot_labels:
        return [label for label, value in enumerate(values) if value == 1]
    return values


def rated_classes(context: tf.train.Features) -> Iterable[int]:
    """Returns the classes that are rated above 0 in some segment of a record."""
    classes = context.feature[SEGMENT_CLASS_KEY].int64_list.value
    scores = context.feature[SEGMENT_SCORE_KEY].float_list.value
    return [label for label, score in zip(classes, scores, strict=False) if score > 0]
