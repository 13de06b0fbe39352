"""Maps from one label space to another: to verticals, to ancestors, or to your own categories.

    yt8m-gat label-space verticals --vocabulary=vocabulary.csv --output=map.csv
    yt8m-gat label-space ontology --ontology=ontology.json \
        --class_labels=class_labels_indices.csv --output=map.csv

A label map is a CSV file (RFC 4180, UTF-8) whose first line names its columns:

    source_index,target_index,target_name
    0,7,Games
    1,7,Games
    1,0,Arts & Entertainment

A source with several rows has several targets; one without a row has none. The last column may be
missing or empty. A target is positive if any of its sources is positive.

The hierarchical label spaces of the papers (431 and 317 categories) were never published; if you
have one, write it as such a file.
"""

from __future__ import annotations

if __name__ == "__main__":  # The earlier name of the command.
    from yt8m_gat.commands.console import run

    run("label-space")

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from yt8m_gat.config import ConfigError
from yt8m_gat.digests import digest_of
from yt8m_gat.disk import replacing
from yt8m_gat.locks import only_writer
from yt8m_gat.untrusted import excerpt, parse_json, printable, read_text

if TYPE_CHECKING:
    import tensorflow as tf

HEADER = ("source_index", "target_index", "target_name")

MAX_CLASSES = 100_000
"""The largest label space, source or target; 1,024 multi-hot rows of it take 0.4 GB."""

MAX_ROWS = 1_000_000
"""The maximum of rows of a label map."""

MAX_FILE_BYTES = 64 << 20
"""The largest label file that is read; YouTube-8M's vocabulary.csv has 3.6 MB."""


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """A map from source classes to target classes.

    Attributes:
        pairs: (source, target) indices, ascending, each pair once.
        num_sources: C_source; the labels of records are 0 .. C_source - 1.
        names: The name of each target, or an empty string; made printable by
            `yt8m_gat.untrusted.printable`.

    Raises:
        ConfigError: There is no pair, or an index is outside its space.
    """

    pairs: tuple[tuple[int, int], ...]
    num_sources: int
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(sorted(set(self.pairs))))
        object.__setattr__(self, "names", tuple(printable(name) for name in self.names))
        if not self.pairs:
            raise ConfigError("a label map must have at least one pair of indices. Received: none")
        for space, size in (("source", self.num_sources), ("target", self.num_targets)):
            if not 1 <= size <= MAX_CLASSES:
                raise ConfigError(
                    f"a label map must have 1 to {MAX_CLASSES} {space} classes. Received: {size}"
                )
        for source, target in self.pairs:
            if not (0 <= source < self.num_sources and 0 <= target < self.num_targets):
                raise ConfigError(
                    f"a label map from {self.num_sources} to {self.num_targets} classes must not "
                    f"have the pair ({source}, {target})"
                )

    @property
    def num_targets(self) -> int:
        """C_target, the largest target plus 1."""
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the pairs: equal for equal maps in any order of rows, with any
        names."""
        return digest_of([repr(self.pairs).encode()])

    @classmethod
    def load(cls, path: str | os.PathLike, num_sources: int | None = None) -> LabelMap:
        """Reads a CSV file; the module docstring describes its format.

        Args:
            path: The file.
            num_sources: C_source; by default the largest source of the file plus 1.

        Raises:
            ConfigError: The file is not a label map; the message names the file and the line.
            OSError: It cannot be read.
        """
        pairs: dict[tuple[int, int], None] = {}
        names: dict[int, str] = {}
        for line, row in _rows(path, HEADER, optional=1):
            source = _index(path, line, HEADER[0], row[0], num_sources)
            target = _index(path, line, HEADER[1], row[1], None)
            pairs[source, target] = None
            if len(pairs) > MAX_ROWS:
                raise ConfigError(f"{path}, line {line}: a label map has at most {MAX_ROWS} rows")
            name = row[2].strip() if len(row) > 2 else ""
            earlier_name = names.setdefault(target, name)
            if name and earlier_name and name != earlier_name:
                raise ConfigError(
                    f"{path}, line {line}: a target must have one name. Received: {name!r} for "
                    f"target {target}, which an earlier line calls {earlier_name!r}"
                )
            names[target] = earlier_name or name
        if not pairs:
            raise ConfigError(f"{path}: a label map must have a row below its header")
        if num_sources is None:
            num_sources = 1 + max(source for source, _ in pairs)
        num_targets = 1 + max(names)
        return cls(tuple(pairs), num_sources, tuple(names.get(t, "") for t in range(num_targets)))

    def to_csv(self) -> str:
        """Returns the text of a file that `load` reads."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((source, target, self.names[target]) for source, target in self.pairs)
        return text.getvalue()

    def save(self, path: str | os.PathLike) -> None:
        """Writes the CSV file completely or not at all."""
        with only_writer(path), replacing(path) as temporary:
            temporary.write_text(self.to_csv(), encoding="utf-8", newline="")

    def apply(self, labels: tf.Tensor) -> tf.Tensor:
        """Computes target[t] = max over the sources s of t of source[s], 0 without sources.

        Works eagerly, in tf.data and in an exported model. Memory: B x the number of pairs.

        Args:
            labels: [..., C_source], floats or integers that are not negative: multi-hot labels,
                or scores.

        Returns:
            [..., C_target], of the same dtype.

        Raises:
            ValueError: The last axis is known and not C_source long.
        """
        import tensorflow as tf

        labels = tf.convert_to_tensor(labels)
        if labels.shape[-1] not in (None, self.num_sources):
            raise ValueError(
                f"the last axis of `labels` must have {self.num_sources} classes. Received: "
                f"shape {labels.shape}"
            )
        sources, targets = (
            tf.constant(column, tf.int32) for column in zip(*self.pairs, strict=True)
        )
        by_source = tf.transpose(tf.reshape(labels, [-1, self.num_sources]))  # [C_source, B]
        by_pair = tf.gather(by_source, sources)  # [pairs, B]
        by_target = tf.math.unsorted_segment_max(by_pair, targets, self.num_targets)
        # A target without sources gets the lowest number of the dtype.
        mapped = tf.transpose(tf.maximum(by_target, tf.zeros([], labels.dtype)))  # [B, C_target]
        mapped = tf.reshape(mapped, tf.concat([tf.shape(labels)[:-1], [self.num_targets]], axis=0))
        return tf.ensure_shape(mapped, [*labels.shape[:-1], self.num_targets])


def _text_of(path: str | os.PathLike) -> str:
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front.
        return read_text(path, MAX_FILE_BYTES, "utf-8-sig")
    except ValueError as error:
        raise ConfigError(f"{path} {error}. Give a file of labels") from error


def _csv_lines(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of each row that is not blank, including the header."""
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: no CSV: {error}") from error


def _rows(
    path: str | os.PathLike, columns: Sequence[str], optional: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, values of `columns`) of each row, without the file's other columns.

    The last `optional` of the columns may be missing.
    """
    lines = _csv_lines(path)
    header = [field.strip() for field in next(lines, (1, [""]))[1]]
    needed = columns[: len(columns) - optional]
    if missing := [column for column in needed if column not in header]:
        raise ConfigError(
            f"{path}, line 1: the first line must name the columns {', '.join(needed)}. Missing: "
            f"{', '.join(missing)}. Received: {','.join(header)[:200]!r}"
        )
    places = [header.index(column) for column in columns if column in header]
    for line, row in lines:
        if len(row) != len(header):
            raise ConfigError(
                f"{path}, line {line}: a row must have {len(header)} fields, as the first line "
                f"has. Received: {len(row)}"
            )
        yield line, [row[place] for place in places]


def _index(
    path: str | os.PathLike, line: int, column: str, text: str, num_classes: int | None
) -> int:
    text = text.strip()
    limit = MAX_CLASSES if num_classes is None else num_classes
    # A longer text is above the limit anyway, and may be too long to convert.
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1
    if not 0 <= number < limit:
        advice = "" if num_classes is None else " (the records' space, --num_classes of train.py)"
        raise ConfigError(
            f"{path}, line {line}: {column} must be a whole number in 0 .. {limit - 1}{advice}. "
            f"Received: {text[:50]!r}"
        )
    return number


def _indexed(
    path: str | os.PathLike, columns: Sequence[str]
) -> Iterator[tuple[int, int, list[str]]]:
    """Yields (line number, index, other values); the index is the first column and unique."""
    seen: set[int] = set()
    for line, (text, *values) in _rows(path, columns):
        index = _index(path, line, columns[0], text, None)
        if index in seen:
            raise ConfigError(f"{path}, line {line}: {columns[0]} {index} occurs twice")
        seen.add(index)
        yield line, index, values
    if not seen:
        raise ConfigError(f"{path}: no row below the first line")


def read_label_names(path: str | os.PathLike) -> dict[int, str]:
    """Reads class index -> name for display; classes without a name are left out.

    | file | first line |
    |---|---|
    | `label_names_2018.csv`, and that of the sample | `label_id,label_name` |
    | `vocabulary.csv` of YouTube-8M | `Index,...,Name,...` |
    | `class_labels_indices.csv` of AudioSet | `index,mid,display_name` |
    | a label map: the names of its targets | `source_index,target_index,target_name` |

    The first kind does not quote names with commas, so it is split at the first comma. (Names that
    are quoted nevertheless are unquoted.)

    Raises:
        ConfigError: It is none of these files, or a line is invalid; the message names the file
            and the line.
        OSError: It cannot be read.
    """
    first = next(iter(_text_of(path).splitlines()), "")
    header = [field.strip() for field in first.split(",")]
    if header == ["label_id", "label_name"]:
        names = _unquoted_names(path)
    elif header[:2] == list(HEADER[:2]):
        names = dict(enumerate(LabelMap.load(path).names))
    elif header[0] == "Index" and "Name" in header:
        names = {index: name for _, index, (name,) in _indexed(path, ("Index", "Name"))}
    elif header == ["index", "mid", "display_name"]:
        names = {index: name for _, index, (name,) in _indexed(path, ("index", "display_name"))}
    else:
        raise ConfigError(
            f"{path}, line 1: label names need one of the first lines 'label_id,label_name', "
            f"'Index,...,Name,...', 'index,mid,display_name' or '{','.join(HEADER)}'. Received: "
            f"{first[:200]!r}"
        )
    return {index: printable(name.strip()) for index, name in names.items() if name.strip()}


def _unquoted_names(path: str | os.PathLike) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, line in enumerate(_text_of(path).splitlines()[1:], start=2):
        if not line.strip():
            continue
        index, comma, name = line.partition(",")
        if not comma:
            raise ConfigError(
                f"{path}, line {number}: a line must be 'label_id,label_name'. Received: "
                f"{line[:200]!r}"
            )
        if len(name) > 1 and name[0] == name[-1] == '"':
            fields = next(csv.reader([name]))
            name = fields[0] if len(fields) == 1 else name
        names[_index(path, number, "label_id", index, None)] = name
    return names


def verticals_map(vocabulary: str | os.PathLike) -> LabelMap:
    """Maps YouTube-8M's classes to their verticals, one target per distinct Vertical1, 2 or 3.

    Targets are in alphabetical order; "(Unknown)" is one of them.

    Args:
        vocabulary: `vocabulary.csv` of YouTube-8M.

    Raises:
        ConfigError: It is not such a file; the message names the file and the line.
        OSError: It cannot be read.
    """
    columns = ("Index", "Vertical1", "Vertical2", "Vertical3")
    verticals: dict[int, list[str]] = {}
    for _, index, values in _indexed(vocabulary, columns):
        verticals[index] = [value.strip() for value in values if value.strip()]
    names = sorted({name for values in verticals.values() for name in values})
    if not names:
        raise ConfigError(f"{vocabulary}: no class has a vertical")
    targets = {name: target for target, name in enumerate(names)}
    pairs = [(index, targets[name]) for index, values in verticals.items() for name in values]
    return LabelMap(tuple(pairs), 1 + max(verticals), tuple(names))


def ontology_map(ontology: str | os.PathLike, class_labels: str | os.PathLike) -> LabelMap:
    """Maps AudioSet's classes to themselves and all their ancestors; nodes may have many parents.

    For each class i, target i is the class itself; the ancestors that are not classes follow in
    the order of the ontology.

    Args:
        ontology: `ontology.json` of AudioSet.
        class_labels: `class_labels_indices.csv` of AudioSet.

    Raises:
        ConfigError: A file is invalid; the message names the file, and the line or the node.
        OSError: A file cannot be read.
    """
    nodes = _ontology_nodes(ontology)
    parents: dict[str, list[str]] = {}
    for node_id, (_, children) in nodes.items():
        for child in children:
            if child not in nodes:
                raise ConfigError(f"{ontology}: node {node_id} has the unknown child {child!r}")
            parents.setdefault(child, []).append(node_id)
    classes: dict[int, str] = {}
    for line, index, (node_id,) in _indexed(class_labels, ("index", "mid")):
        if node_id not in nodes:
            raise ConfigError(f"{class_labels}, line {line}: {ontology} has no node {node_id!r}")
        classes[index] = node_id
    closures = {index: _with_ancestors(node_id, parents) for index, node_id in classes.items()}
    num_sources = 1 + max(classes)
    if len(set(classes.values())) != num_sources:
        raise ConfigError(
            f"{class_labels}: the classes must be 0, 1, 2, ... with a node each. Received: "
            f"{len(set(classes.values()))} nodes, the largest index {num_sources - 1}"
        )
    order = [classes[index] for index in range(num_sources)]
    others = set().union(*closures.values()).difference(order)
    order += [node_id for node_id in nodes if node_id in others]
    targets = {node_id: target for target, node_id in enumerate(order)}
    pairs = [
        (index, targets[node_id]) for index, closure in closures.items() for node_id in closure
    ]
    return LabelMap(tuple(pairs), num_sources, tuple(nodes[node_id][0] for node_id in order))


def _ontology_nodes(path: str | os.PathLike) -> dict[str, tuple[str, list[str]]]:
    """Reads node -> (name, children), in the order of the file."""
    try:
        entries: Any = parse_json(_text_of(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}: no JSON: {error.msg}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    nodes: dict[str, tuple[str, list[str]]] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        node = entry if isinstance(entry, Mapping) else {}
        node_id, name, children = (node.get(key) for key in ("id", "name", "child_ids"))
        if not (
            isinstance(node_id, str)
            and isinstance(name, str)
            and isinstance(children, list)
            and all(isinstance(child, str) for child in children)
        ):
            raise ConfigError(
                f"{path}, entry {number}: an ontology is a list of nodes, each with id, name and "
                f"child_ids. Received: {excerpt(entry)}"
            )
        if node_id in nodes:
            raise ConfigError(f"{path}, entry {number}: node {node_id} occurs twice")
        nodes[node_id] = (name, children)
    return nodes


def _with_ancestors(node_id: str, parents: Mapping[str, Iterable[str]]) -> set[str]:
    ancestors: set[str] = set()
    pending = [node_id]
    while pending:
        node = pending.pop()
        if node not in ancestors:
            ancestors.add(node)
            pending.extend(parents.get(node, ()))
    return ancestors
