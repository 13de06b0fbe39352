"""Rows of attacks as the sanity checks compare them, and which of two attacks is the stronger."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Two losses or margins count as equal up to this share of the larger: it allows for rounding and
# for attacks whose last step is not quite their best point.
TOLERANCE = 0.01
# Two values of GAP or Hit@1 count as equal up to this difference, ...
POINT = 0.01
# ... up to this number of clips, ...
CLIPS = 1.5
# ... and up to this share of the change from the clean row, as two margins do. It is larger than
# `TOLERANCE` because an attack raises its own objective, and these follow.
FLAT = 0.05

# Measure of strength -> its name in texts.
MEASURES = {"loss": "the loss", "gap": "GAP", "hit_at_1": "Hit@1", "margin": "the margin"}
_LOWERED = frozenset({"gap", "hit_at_1"})


def ball_of(row: Mapping[str, Any]) -> tuple[str, bool, float]:
    """Returns what attacks must share to be compared: axes, rounding, radius.

    Args:
        row: An attacked row with a radius: `options` (see `AttackSpec.settings`), `epsilon`.

    Returns:
        What the l2 norm is taken over, or `linf`, and the radii that single features have instead;
        whether the result is rounded, since rounding may leave the ball; the radius.
    """
    options = row["options"]
    own = [f"{key}={value:g}" for key, value in options.items() if key.startswith("epsilon_")]
    axes = ", ".join([options.get("norm_scope", "linf"), *sorted(own)])
    return axes, options["round"], float(row["epsilon"])


def figures_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the measures of strength that a row has."""
    return {name: float(row[name]) for name in MEASURES if row.get(name) is not None}


@dataclasses.dataclass(frozen=True)
class MeasuredRow:
    """One attack at one radius.

    Attributes:
        spec: Its specification.
        family: Its name without `_linf`; with its loss where that is not the model's own.
        ball: See `ball_of`.
        options: See `AttackSpec.settings`.
        epsilon: Its radius.
        figures: Measure of `MEASURES` -> value.
        num_clips: Clips or segments; None if the row does not say.
    """

    spec: str
    family: str
    ball: tuple[str, bool, float]
    options: Mapping[str, Any]
    epsilon: float
    figures: Mapping[str, float]
    num_clips: int | None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "MeasuredRow | None":
        """Reads a row; returns None if it has no radius or no finite loss."""
        spec, epsilon = str(row["attack"]), row.get("epsilon")
        if epsilon is None or row.get("loss") is None:
            return None
        family = spec.partition(":")[0].removesuffix("_linf")
        if family in ("pgd", "apgd") and "loss" in row["options"]:
            family += f"_{row['options']['loss']}"
        num_clips = row.get("num_videos", row.get("num_segments"))
        return cls(
            spec, family, ball_of(row), row["options"], float(epsilon), figures_of(row), num_clips
        )

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.figures["loss"]

    def shown(self, measure: str = "loss") -> str:
        """Returns its specification and a figure."""
        return f"{self.spec} {self.figures[measure]:.4g}"

    def strength(self, measure: str) -> float:
        """Returns a value that is higher for the stronger attack."""
        return -self.figures[measure] if measure in _LOWERED else self.figures[measure]


def strongest(rows: Iterable[MeasuredRow], measure: str) -> MeasuredRow | None:
    """Returns the strongest row by one measure; None if no row has it."""
    having = [row for row in rows if measure in row.figures]
    return max(having, key=lambda row: row.strength(measure), default=None)


def room_for(
    measure: str, row: MeasuredRow, other: MeasuredRow, clean: Mapping[str, float]
) -> float:
    """Returns by how much two values of a measure may differ and count as equal."""
    value, other_value = row.figures[measure], other.figures[measure]
    room = TOLERANCE * max(abs(value), abs(other_value))
    if measure in _LOWERED:
        room = max(POINT, CLIPS / (row.num_clips or float("inf")))
    if measure != "loss" and measure in clean:
        room = max(room, FLAT * abs(other_value - clean[measure]))
    return room


def weaknesses(
    ours: Sequence[MeasuredRow],
    others: Sequence[MeasuredRow],
    clean: Mapping[str, float],
    measures: Iterable[str] = tuple(MEASURES),
) -> list[str]:
    """Returns a text for each measure by which the best of `ours` is weaker than that of `others`.

    Args:
        ours: Attacks within one ball.
        others: Attacks within the same.
        clean: The measures of the clean row.
        measures: Those of `MEASURES` to compare by.
    """
    texts = []
    for measure in measures:
        best, other = strongest(ours, measure), strongest(others, measure)
        if best is None or other is None:
            continue
        room = room_for(measure, best, other, clean)
        if best.strength(measure) < other.strength(measure) - room:
            texts.append(
                f"by {MEASURES[measure]}, {best.shown(measure)} against {other.shown(measure)} at "
                f"{best.epsilon:g}"
            )
    return texts
