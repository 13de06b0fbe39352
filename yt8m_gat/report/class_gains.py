"""The gain of every class over a baseline, with marked classes apart (figure 4 of TAF)."""

import dataclasses
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from yt8m_gat.config import ConfigError
from yt8m_gat.report.drawing.column_chart import Column, column_chart
from yt8m_gat.report.drawing.markup import Figures
from yt8m_gat.report.results import class_name
from yt8m_gat.report.source import ReportedRun, number
from yt8m_gat.untrusted import excerpt, printable, read_text

_MAX_BYTES = 1 << 20
# Colour of marked classes; the bars beside this chart have 1 for losses.
_MARK = 2


@dataclasses.dataclass(frozen=True)
class MarkedClasses:
    """Classes that are marked in charts.

    Attributes:
        words: What they are, for the legend.
        entries: Their numbers or names.
    """

    words: str
    entries: tuple[str, ...]

    @classmethod
    def read(cls, path: str | os.PathLike) -> "MarkedClasses":
        """Reads a file with the number or the name of a class on each line.

        Raises:
            ConfigError: It is not text, or holds no class.
            OSError: It cannot be read.
        """
        try:
            lines = read_text(path, _MAX_BYTES, "utf-8-sig").splitlines()
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error
        entries = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if not entries:
            raise ConfigError(f"{path}: must hold a class on each line. Received: no line")
        return cls(printable(Path(path).stem.replace("_", " ")), entries)

    def of(self, run: ReportedRun) -> set[int]:
        """Returns the classes of a run; names are those that its evaluation knows, in any case.

        Raises:
            ConfigError: The run has no such class.
        """
        classes = run.evaluation.get("classes", {})
        names = classes.get("names")
        by_name: dict[str, list[int]] = {}
        for index, name in (names if isinstance(names, dict) else {}).items():
            if index.isdecimal() and len(index) < 10 and isinstance(name, str):
                by_name.setdefault(name.casefold(), []).append(int(index))
        marked: set[int] = set()
        for entry in self.entries:
            numbered = entry.isascii() and entry.isdecimal() and len(entry) < 10
            numbers = [int(entry)] if numbered else by_name.get(entry.casefold(), [])
            if not numbers or max(numbers) >= len(classes.get("ap", [])):
                raise ConfigError(
                    f"--mark_classes: {run.name} has no class {excerpt(entry)}; give numbers, or "
                    "names that eval.py --label_names knew"
                )
            marked.update(numbers)
        return marked


def class_gain_figures(runs: Sequence[ReportedRun], marked: MarkedClasses | None = None) -> Figures:
    """Returns a figure per run that was compared with a baseline: a column per class.

    It shows the gains in accuracy of a run whose clips have one label; of another, if classes are
    marked, those in average precision. Classes without a clip are left out.

    Raises:
        ConfigError: A marked class does not exist, or no run was compared.
    """
    figures = {}
    for run in runs:
        comparison = run.evaluation.get("comparison", {})
        of_run = set() if marked is None or not comparison else marked.of(run)
        metric, values = "accuracy", comparison.get("accuracy_gains")
        if values is None and marked is not None:
            metric, values = "AP", comparison.get("differences")
        gains = {
            index: 100 * gain
            for index, value in enumerate(values if isinstance(values, list) else [])
            if (gain := number(value)) is not None
        }
        if not gains:
            continue
        names = run.evaluation.get("classes", {}).get("names")
        names = names if isinstance(names, dict) else {}
        order = sorted(gains, key=lambda index: (-gains[index], index))
        columns = [
            Column(
                class_name(index, names.get(str(index))),
                gains[index],
                _MARK if index in of_run else 0,
            )
            for index in order
        ]
        parts = {0: "classes" if marked is None else "other classes"}
        if marked is not None:
            parts = {_MARK: marked.words, **parts}
        legend = {}
        for color, words in parts.items():
            of_part = [column.value for column in columns if column.index == color]
            mean = f": mean {statistics.fmean(of_part):+.2f}" if of_part else ""
            legend[color] = f"{len(of_part)} {words}{mean}"
        figures[f"class_gains_{run.name}"] = column_chart(
            f"{run.title}: gain of each class in {metric}, points",
            "classes, the largest gain first",
            f"gain in {metric}",
            columns,
            legend,
        )
    if marked is not None and not figures:
        raise ConfigError(
            "--mark_classes needs a run with gains of classes. Received: none; measure them with "
            "eval.py --compare_to=BASELINE --output_file"
        )
    return figures
