"""Reports the contents of TFRecord files, and every record in them that cannot be read.

    yt8m-gat inspect 'train*.tfrecord'

Works on frame-, video- and segment-level records, and on raw clips, of which it decodes every
frame. Without `--feature_names` the first readable record determines the features that each record
must have. The inspection continues after a bad record, also after a wrong payload checksum, but
records after a damaged length cannot be located.
Exits with 1 when there is a bad record, with 2 when it cannot start.
"""

from __future__ import annotations

if __name__ == "__main__":  # The earlier name of the command.
    from yt8m_gat.commands.console import run

    run("inspect")

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_gat.config import CLIP_FEATURE, CLIP_LABELS_KEY, ClipConfig
from yt8m_gat.data.clips import undecodable
from yt8m_gat.data.description import (
    RecordDescription,
    UndecodableRecordError,
    describe_record,
    find_fault,
)
from yt8m_gat.data.errors import BadRecordError, Fault
from yt8m_gat.data.label_check import IntegerKeys
from yt8m_gat.data.record_files import read_records, source_of
from yt8m_gat.data.schema import ENCODED_KEY, LABELS_KEY, RESERVED_NAMES, RecordSchema
from yt8m_gat.data.tfrecord import file_size
from yt8m_gat.untrusted import printable

# tf.Example stores class indices as int64.
_ANY_CLASS = 2**63 - 1
NUM_FREQUENT_LABELS = 10


@dataclasses.dataclass
class Spread:
    """Count, minimum, mean and maximum of some integers."""

    count: int = 0
    total: int = 0
    least: int | None = None
    greatest: int | None = None

    def add(self, value: int) -> None:
        """Adds one number."""
        self.count += 1
        self.total += value
        self.least = value if self.least is None else min(self.least, value)
        self.greatest = value if self.greatest is None else max(self.greatest, value)

    def as_dict(self) -> dict[str, float | None]:
        """Returns `min`, `mean` and `max`; None when there was no number."""
        mean = self.total / self.count if self.count else None
        return {"min": self.least, "mean": mean, "max": self.greatest}


@dataclasses.dataclass
class FileReport:
    """The contents of one file.

    Attributes:
        file: Its path.
        num_bytes: Its size.
        source: Of frame arrays: name and size of the TFRecord file, see `About`.
        num_records: The number of its records, good and bad.
        bad: The records that cannot be read.
    """

    file: str
    num_bytes: int
    source: Mapping[str, Any] | None = None
    num_records: int = 0
    bad: list[BadRecordError] = dataclasses.field(default_factory=list)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _undecodable(jpegs: tf.Tensor) -> tf.Tensor:
    return undecodable(jpegs)


def _broken_frames(payload: bytes) -> np.ndarray:
    """Returns whether each frame of a raw clip cannot be decoded, bool [T]."""
    lists = tf.train.SequenceExample.FromString(payload).feature_lists.feature_list
    frames = [frame.bytes_list.value[0] for frame in lists[ENCODED_KEY].feature]
    return _undecodable(tf.constant(frames)).numpy()


class Inspection:
    """The contents of some files, which are added with `add_file`.

    Args:
        schema: The schema of the records; None takes it from the first readable record.
        num_classes: Size of the vocabulary; None accepts every label that is not negative.
        label_names: Label -> name, shown with the most frequent labels.
        labels_key: Name of the list of labels, if there is no schema; None: the usual one, which
            raw clips have under another name than features.
    """

    def __init__(
        self,
        schema: RecordSchema | None = None,
        num_classes: int | None = None,
        label_names: Mapping[int, str] | None = None,
        labels_key: str | None = None,
    ) -> None:
        self.schema = schema
        self._given_key = labels_key if schema is None else schema.labels_key
        self.label_names = dict(label_names or {})
        self.num_classes = num_classes
        self.files: list[FileReport] = []
        self.frames = Spread()
        self.labels = Spread()
        self.segment_labels = Spread()
        self.label_counts: collections.Counter[int] = collections.Counter()
        self.sizes: dict[str, collections.Counter[int]] = {}
        self.integers = IntegerKeys()
        self.float_lists: collections.Counter[str] = collections.Counter()
        self.float32_like: collections.Counter[str] = collections.Counter()

    @property
    def labels_key(self) -> str:
        """Name of the list of labels."""
        return self._given_key or (CLIP_LABELS_KEY if self.holds_clips else LABELS_KEY)

    @property
    def holds_clips(self) -> bool:
        """Whether the records hold raw clips."""
        return self.schema is not None and self.schema.clips is not None

    def add_file(self, path: str) -> None:
        """Reads a file completely and adds its contents."""
        report = FileReport(path, file_size(path), source_of(path))
        self.files.append(report)
        for frame, payload in read_records(path):
            report.num_records += 1
            if isinstance(payload, BadRecordError):
                report.bad.append(payload)
                continue
            try:
                description = self._describe(payload)
                finding = self._add_record(description, payload)
            except UndecodableRecordError as error:
                finding = (Fault.UNDECODABLE, str(error))
            if finding is not None:
                fault, reason = finding
                report.bad.append(
                    BadRecordError(
                        fault,
                        path,
                        frame.record,
                        frame.offset,
                        reason,
                        "leave the record out (--on_bad_record=skip), write it again, or change "
                        "the flag that it contradicts",
                    )
                )

    def _describe(self, payload: bytes) -> RecordDescription:
        """Describes a record; the first one without faults determines the schema."""
        description = describe_record(payload, self.labels_key)
        if self.schema is None and not description.faults:
            before = self.labels_key
            self.schema = self._schema_of(description)
            if self.labels_key != before:
                return describe_record(payload, self.labels_key)
        return description

    def _add_record(
        self, description: RecordDescription, payload: bytes
    ) -> tuple[Fault, str] | None:
        """Adds a record and returns why it is bad, or None."""
        if self.holds_clips:
            return self._add_clip(description, payload)
        for name, sizes in description.sizes.items():
            self.sizes.setdefault(name, collections.Counter()).update(sizes)
        self.integers.add(description.integers)
        self.float_lists.update(description.float_lists)
        self.float32_like.update(description.float32_like)
        if self.schema is None:
            nothing = (Fault.MISSING_FEATURE, "it holds no features")
            return description.faults[0] if description.faults else nothing
        finding = find_fault(description, self.schema)
        if finding is None:
            if description.frame_level:
                self.frames.add(description.lengths[self.schema.feature_names[0]])
            self.labels.add(len(set(description.labels)))
            self.label_counts.update(set(description.labels))
            if description.segment_labels:
                self.segment_labels.add(len(description.segment_labels))
        return finding

    def _add_clip(self, description: RecordDescription, payload: bytes) -> tuple[Fault, str] | None:
        self.integers.add(description.integers)
        finding = find_fault(description, self.schema)
        if finding is None:
            broken = np.flatnonzero(_broken_frames(payload))
            if len(broken):
                reason = f"frame {broken[0]} of {ENCODED_KEY} is no JPEG file, or a broken one"
                return Fault.IMAGE, reason
            self.frames.add(description.lengths[ENCODED_KEY])
            self.labels.add(len(set(description.labels)))
            self.label_counts.update(set(description.labels))
        return finding

    def _schema_of(self, description: RecordDescription) -> RecordSchema | None:
        sizes = {
            name: all_sizes[0]
            for name, all_sizes in description.sizes.items()
            if name and all_sizes and name not in RESERVED_NAMES
        }
        if not sizes:
            return None
        num_classes = _ANY_CLASS if self.num_classes is None else self.num_classes
        if ENCODED_KEY in sizes:
            return RecordSchema(
                {CLIP_FEATURE: 3},
                num_classes,
                labels_key=self._given_key or CLIP_LABELS_KEY,
                clips=ClipConfig(),
            )
        types = ["float_list" if name in description.float_lists else "uint8" for name in sizes]
        return RecordSchema(
            sizes,
            num_classes,
            frame_level=description.frame_level,
            labels_key=self.labels_key,
            feature_types=tuple(types) if description.float_lists else (),
        )

    @property
    def bad(self) -> list[BadRecordError]:
        """Every bad record, in the order of the files."""
        return [error for report in self.files for error in report.bad]

    def as_dict(self) -> dict[str, Any]:
        """Returns the whole report, for JSON."""
        level = None
        if self.schema is not None:
            level = "frame" if self.schema.frame_level else "video"
            level = "clip" if self.holds_clips else level
        return {
            "level": level,
            "num_files": len(self.files),
            "num_bytes": sum(report.num_bytes for report in self.files),
            "num_records": sum(report.num_records for report in self.files),
            "num_bad_records": len(self.bad),
            "features": {
                name: {str(size): count for size, count in sorted(counts.items())}
                for name, counts in self.sizes.items()
            },
            "float_lists": sorted(self.float_lists),
            "float32_like": sorted(self.float32_like),
            "int64_lists": {
                name: {
                    "records": key.num_records,
                    "least": key.least,
                    "greatest": key.greatest,
                    "shortest": min(key.lengths),
                    "longest": max(key.lengths),
                    "looks_multi_hot": key.looks_multi_hot,
                }
                for name, key in sorted(self.integers.items())
            },
            "frames": self.frames.as_dict(),
            "labels_per_record": self.labels.as_dict(),
            "distinct_labels": len(self.label_counts),
            "largest_label": max(self.label_counts, default=None),
            "most_frequent_labels": [
                {"label": label, "name": self.label_names.get(label), "records": count}
                for label, count in sorted(
                    self.label_counts.items(), key=lambda item: (-item[1], item[0])
                )[:NUM_FREQUENT_LABELS]
            ],
            "records_with_segments": self.segment_labels.count,
            "segment_labels_per_record": self.segment_labels.as_dict(),
            "files": [
                {
                    "file": report.file,
                    "num_bytes": report.num_bytes,
                    "source": report.source,
                    "num_records": report.num_records,
                    "bad_records": [
                        {
                            "record": error.record,
                            "offset": error.offset,
                            "fault": error.fault,
                            "reason": error.reason,
                            "remedy": error.remedy,
                        }
                        for error in report.bad
                    ],
                }
                for report in self.files
            ],
        }

    def as_text(self) -> str:
        """Returns the whole report as text."""
        facts = self.as_dict()
        lines = [f"{'records':>9} {'bad':>6} {'MB':>9}  file"]
        lines += [
            f"{report.num_records:>9} {len(report.bad):>6} {report.num_bytes / 1e6:>9.2f}  "
            f"{report.file}"
            for report in self.files
        ]
        lines.append(
            f"{facts['num_records']:>9} {facts['num_bad_records']:>6} "
            f"{facts['num_bytes'] / 1e6:>9.2f}  in {len(self.files)} files"
        )
        if repacked := [report.source for report in self.files if report.source is not None]:
            num_bytes = sum(source["size"] for source in repacked)
            lines.append(
                f"frame arrays: {len(repacked)} of the files are repacked TFRecord files of "
                f"{num_bytes / 1e6:.2f} MB, the first {repacked[0]['name']}"
            )
        if self.holds_clips:
            lines.append(f"raw clips: frames as JPEG files under {ENCODED_KEY}, all decoded")
        for name, counts in facts["features"].items():
            unit = "bytes a frame"
            if facts["level"] == "video":
                unit = "floats"
            elif name in self.float_lists:
                unit = "floats a frame (--feature_types=float_list)"
            sizes = ", ".join(f"{size} {unit} in {count} records" for size, count in counts.items())
            lines.append(f"feature {name}: {sizes or 'no values'}")
            if name in self.float32_like:
                values = ", ".join(str(int(size) // 4) for size in counts)
                lines.append(f"  float32? {values} values a frame with --feature_types=float32")
        if self.integers:
            lines.append(f"int64 lists: {self.integers}")
        if self.labels_key not in self.integers:
            lines.append(
                f"no record has labels under {self.labels_key!r}: --labels_key names the list of "
                "labels, here and in train.py"
            )
        elif self.integers[self.labels_key].looks_multi_hot:
            lines.append("the labels look like 0/1 vectors: --labels_are=multi_hot of train.py")
        for title, key in (
            ("frames", "frames"),
            ("labels per record", "labels_per_record"),
            ("segment labels per rated record", "segment_labels_per_record"),
        ):
            if (spread := facts[key])["min"] is not None:
                lines.append(
                    f"{title}: {spread['min']} to {spread['max']}, mean {spread['mean']:.2f}"
                )
        lines.append(
            f"distinct labels: {facts['distinct_labels']}, the largest {facts['largest_label']}"
        )
        lines += [
            f"  label {entry['label']:>5} in {entry['records']:>9} records  {entry['name'] or ''}"
            for entry in facts["most_frequent_labels"]
        ]
        lines += [f"BAD {error}" for error in self.bad]
        # The lines contain names of files, features and labels.
        return "\n".join(map(printable, lines))
