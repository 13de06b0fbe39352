"""Counts in how many clips of some files each class is a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yt8m_gat.data.description import int64_lists
from yt8m_gat.data.label_check import classes_of, contexts, rated_classes
from yt8m_gat.data.progress import progress_bar
from yt8m_gat.data.schema import RecordSchema


def count_labels(files: Sequence[str], schema: RecordSchema, segments: bool = False) -> np.ndarray:
    """Returns the number of clips with each class, int64 [C], after the label map.

    Reads every record once, but only its context. Bad records, and labels outside of the classes,
    are left to the reader.

    Args:
        files: Paths of TFRecord files.
        schema: The schema of their records.
        segments: Whether to count the segments that are rated above 0 for each class instead.
    """
    counts = np.zeros(schema.num_classes, np.int64)
    targets: dict[int, set[int]] = {}
    if schema.label_map is not None:
        for source, target in schema.label_map.pairs:
            targets.setdefault(source, set()).add(target)
    with progress_bar("count labels", None) as bar:
        for path in files:
            for context in contexts(path, None):
                if segments:
                    labels = list(rated_classes(context))  # Once for each segment.
                else:
                    labels = list(set(classes_of(int64_lists(context), schema)))
                if schema.label_map is not None:
                    mapped = [target for label in labels for target in targets.get(label, ())]
                    labels = mapped if segments else list(set(mapped))
                for label in labels:
                    if 0 <= label < len(counts):
                        counts[label] += 1
                bar.update()
    return counts
