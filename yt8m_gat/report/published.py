"""The papers' tables, and the rules by which a run belongs to a column."""

import dataclasses
from collections.abc import Callable

from yt8m_gat.config import RunConfig, get_recipe


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a published table.

    Attributes:
        title: Its heading.
        figures: Metric name -> the published figure, as printed, in percent.
        matches: Whether a run is of this kind.
        adversarial: The column is of the adversarial test set.
    """

    title: str
    figures: dict[str, str]
    matches: Callable[[RunConfig], bool]
    adversarial: bool = False


@dataclasses.dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Attributes:
        title: Paper and table.
        caption: The data on which it was measured.
        metrics: Its rows.
        columns: Its columns.
        vertical: The group of classes that it is about; None: all.
    """

    title: str
    caption: str
    metrics: tuple[str, ...]
    columns: tuple[Column, ...]
    vertical: str | None = None


def _is(
    fusion: str, adversarial: str, levels: Callable[[tuple[str, ...]], bool]
) -> Callable[[RunConfig], bool]:
    def matches(config: RunConfig) -> bool:
        recipe = get_recipe(config.model.name)
        options = {**recipe.options, **config.model.options}
        return (
            recipe.family == "transformer"
            and options.get("fusion", "operations") == fusion
            and options.get("attention", "learned") == "learned"
            and options.get("global_attention", True)
            and config.objective.adversarial == adversarial
            and levels(tuple(options.get("local_masks", ())))
        )

    return matches


def _none(masks: tuple[str, ...]) -> bool:
    return not masks


def _one(kind: str) -> Callable[[tuple[str, ...]], bool]:
    return lambda masks: len(masks) == 1 and masks[0].startswith(kind)


def _all(kind: str) -> Callable[[tuple[str, ...]], bool]:
    return lambda masks: bool(masks) and all(mask.startswith(kind) for mask in masks)


def _figures(metrics: tuple[str, ...], text: str) -> dict[str, str]:
    return dict(zip(metrics, text.split(), strict=True))


_FOUR = ("gap", "map", "perr", "hit_at_1")
_THREE = ("gap", "perr", "hit_at_1")
_SA, _ART, _AART = (_is("operations", kind, _none) for kind in ("none", "output", "frobenius"))


def _adversarial_columns(*texts: str) -> tuple[Column, ...]:
    """Builds A-ART's columns: Non-ART, ART, A-ART, clean, then on the adversarial test set."""
    kinds = (("Non-ART", _SA), ("ART", _ART), ("A-ART", _AART))
    return tuple(
        Column(title, _figures(_THREE, text), matches, adversarial=index >= len(kinds))
        for index, (text, (title, matches)) in enumerate(zip(texts, kinds * 2, strict=True))
    )


@dataclasses.dataclass(frozen=True)
class MapDistance:
    """How far the fast gradient moved the attention maps of one kind of model.

    Attributes:
        metric: `attention_mse` or `attention_frobenius`.
        figure: As printed.
        source: Paper and section.
        matches: Whether a run is of this kind.
    """

    metric: str
    figure: str
    source: str
    matches: Callable[[RunConfig], bool]


# Neither paper names the modality.
MAP_DISTANCES = (
    MapDistance("attention_mse", "4e-5", "A-ART, 3.2.2", _ART),
    MapDistance("attention_mse", "3e-8", "A-ART, 3.2.2", _AART),
    MapDistance(
        "attention_frobenius", "1.23", "GAT, 4.3.2", _is("operations", "output", _one("bd"))
    ),
    MapDistance(
        "attention_frobenius", "0.02", "GAT, 4.3.2", _is("operations", "frobenius", _one("bd"))
    ),
)

TABLES = (
    PublishedTable(
        "Gated Adversarial Transformer, table 1",
        "The paper: YouTube-8M with a label space of its own; mean and deviation over five "
        "partitions of its test set.",
        _FOUR,
        (
            Column("SA, CE", _figures(_FOUR, "91.48±0.02 91.29±0.02 89.46±0.04 94.84±0.05"), _SA),
            Column(
                "GMSA, CE",
                _figures(_FOUR, "92.18±0.02 92.32±0.03 90.03±0.04 95.02±0.04"),
                _is("operations", "none", _one("bd")),
            ),
            Column(
                "GMSA, Adv",
                _figures(_FOUR, "92.49±0.02 92.68±0.01 90.34±0.04 95.16±0.03"),
                _is("operations", "output", _one("bd")),
            ),
            Column(
                "GAT AdvJS",
                _figures(_FOUR, "92.56±0.02 92.70±0.04 90.41±0.03 95.21±0.05"),
                _is("operations", "jensen_shannon", _one("bd")),
            ),
            Column(
                "GAT AdvFr",
                _figures(_FOUR, "92.60±0.02 92.80±0.03 90.44±0.03 95.22±0.04"),
                _is("operations", "frobenius", _one("bd")),
            ),
        ),
    ),
    PublishedTable(
        "Can't Fool Me (A-ART), table 1",
        "The paper: YouTube-8M with 317 classes of a hierarchical label space; mean and deviation "
        "over five partitions of its test set, clean and under the fast gradient with epsilon 0.5.",
        _THREE,
        (
            *_adversarial_columns(
                "91.97±0.02 89.73±0.04 94.76±0.05",
                "92.38±0.02 89.94±0.04 94.87±0.04",
                "92.00±0.02 89.64±0.04 94.80±0.03",
                "72.89±0.04 71.89±0.03 81.74±0.02",
                "81.97±0.02 80.35±0.03 88.22±0.02",
                "91.04±0.02 88.58±0.01 93.99±0.02",
            ),
        ),
    ),
    PublishedTable(
        "Can't Fool Me (A-ART), table 2",
        "The paper: the largest vertical of YouTube-8M.",
        _THREE,
        _adversarial_columns(
            "93.93 93.47 97.21",
            "94.12 93.72 97.32",
            "94.14 93.57 97.33",
            "74.88 78.40 87.38",
            "84.38 85.60 92.16",
            "88.54 88.25 93.95",
        ),
        "Arts & Entertainment",
    ),
    PublishedTable(
        "Can't Fool Me (A-ART), table 3",
        "The paper: the smallest vertical of YouTube-8M.",
        _THREE,
        _adversarial_columns(
            "79.13 80.59 87.70",
            "79.07 83.85 92.31",
            "79.86 82.25 90.77",
            "54.50 64.77 69.25",
            "65.08 70.89 74.77",
            "71.48 75.50 85.60",
        ),
        "Finance",
    ),
    PublishedTable(
        "Local and global context (ShareAtt, GateAtt, GateOp), table 1",
        "The paper: YouTube-8M with 3,862 classes, its test set.",
        _FOUR,
        (
            Column("Baseline", _figures(_FOUR, "85.07 44.61 78.97 87.75"), _SA),
            *(
                Column(f"{name} {kind.upper()}", _figures(_FOUR, text), _is(fusion, "none", rule))
                for name, fusion, kind, rule, text in (
                    ("ShareAtt", "heads", "bd", _all("bd"), "85.18 44.81 79.05 87.79"),
                    ("ShareAtt", "heads", "tp", _all("tp"), "85.25 45.04 79.22 87.92"),
                    ("ShareAtt", "heads", "td", _all("td"), "85.16 44.69 79.03 87.84"),
                    ("GateAtt", "maps", "bd10", _one("bd"), "85.21 44.89 79.13 87.85"),
                    ("GateAtt", "maps", "tp10", _one("tp"), "85.30 45.28 79.27 87.96"),
                    ("GateAtt", "maps", "td80x5", _one("td"), "85.30 45.31 79.21 87.91"),
                    ("GateOp", "operations", "bd20", _one("bd"), "86.03 47.03 79.96 88.40"),
                    ("GateOp", "operations", "tp30", _one("tp"), "86.13 47.49 80.10 88.49"),
                    ("GateOp", "operations", "td60x4", _one("td"), "85.99 46.98 79.88 88.33"),
                )
            ),
        ),
    ),
)
