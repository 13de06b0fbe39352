"""Groups of classes, for example the verticals of YouTube-8M, for metrics over each group."""

import csv
import os

from yt8m_gat.config import ConfigError
from yt8m_gat.data.label_space import HEADER, LabelMap, verticals_map
from yt8m_gat.untrusted import printable


def read_class_groups(path: str | os.PathLike, num_classes: int) -> dict[str, list[int]]:
    """Reads a file of class groups: returns group -> its classes, ascending.

    | file | first line | groups |
    |---|---|---|
    | `vocabulary.csv` of YouTube-8M | `Index,...,Vertical1,Vertical2,Vertical3,...` | verticals |
    | a label map | `source_index,target_index,target_name` | its targets |
    | any other label space | `index,group` | a class with several groups has several rows |

    Args:
        path: The file.
        num_classes: C, the number of the model's classes.

    Raises:
        ConfigError: The file is none of these, or names a class that the model does not have.
        OSError: The file cannot be read.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front.
        with open(path, encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines) if any(field.strip() for field in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} must be a CSV file in UTF-8: {error}") from error
    header = [field.strip() for field in rows[0]] if rows else []
    if header == ["index", "group"]:
        groups = _two_columns(path, rows[1:])
    elif header[:2] == list(HEADER[:2]):
        groups = _targets(LabelMap.load(path))
    elif header[:1] == ["Index"] and "Vertical1" in header:
        groups = _targets(verticals_map(path))
    else:
        raise ConfigError(
            f"{path}, line 1: groups of classes need one of the first lines "
            f"'Index,...,Vertical1,Vertical2,Vertical3,...', '{','.join(HEADER)}' or "
            f"'index,group'. Received: {','.join(header)[:200]!r}"
        )
    largest = max(max(classes) for classes in groups.values())
    if largest >= num_classes:
        raise ConfigError(
            f"{path}: has the class {largest}, and the run has the classes 0 .. {num_classes - 1}. "
            "Give the groups of its own label space"
        )
    return {name: sorted(set(classes)) for name, classes in groups.items()}


def _targets(label_map: LabelMap) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for source, target in label_map.pairs:
        name = label_map.names[target]
        # Two targets of the same name stay separate groups.
        unnamed = not name or label_map.names.count(name) > 1
        groups.setdefault(f"{name or 'group'} {target}" if unnamed else name, []).append(source)
    return groups


def _two_columns(path: str | os.PathLike, rows: list[list[str]]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for line, row in enumerate(rows, start=2):
        index, group = (row[0].strip(), printable(row[1].strip())) if len(row) == 2 else ("", "")
        if not (index.isascii() and index.isdigit() and len(index) <= 9 and group):
            raise ConfigError(
                f"{path}, row {line}: a row must be a class and the name of its group. Received: "
                f"{','.join(row)[:200]!r}"
            )
        groups.setdefault(group, []).append(int(index))
    if not groups:
        raise ConfigError(f"{path}: no row below the first line")
    return groups
