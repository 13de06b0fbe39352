"""Sanity checks of an evaluation: signs that a model hides its gradients from the attacks.

A model may look robust because gradient attacks fail on it, not because no perturbation fools it.
The checks are read off the rows that `eval.py` wrote; they run no model.

| check | fails when | needs |
|---|---|---|
| `loss_over_epsilon` | the loss of a white-box attack falls as its radius grows | two radii |
| `pgd_over_single_step` | PGD is weaker than one step at a radius | `pgd` and `fgm` |
| `unbounded` | a large radius leaves Hit@1 above `NEAR_ZERO` | PGD at `UNBOUNDED_EPSILON` |
| `white_box_over_transfer` | perturbations of another model are stronger | `transfer` |
| `white_box_over_gradient_free` | a search without gradients is stronger | `square`, ... |
| `white_box_over_noise` | noise of the same norm is stronger | `noise` |
| `enough_steps` | more steps change what PGD reaches | PGD at two numbers of steps |
| `zero_gradients` | (only warns) clips have gradients that are exactly 0 | the clean row |

An attack's strength is the mean loss, which attacks raise. Only attacks within the same ball
(`ball_of`) are compared; of several attacks of a kind the strongest counts.

Reference: Athalye, Carlini and Wagner, "Obfuscated Gradients Give a False Sense of Security",
2018; Carlini et al., "On Evaluating Adversarial Robustness", 2019.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

PASS, FAIL, WARNING, NOT_RUN = "pass", "fail", "warning", "not run"

# Two losses count as equal up to this share of the larger: it allows for rounding and for attacks
# whose last step is not quite their best point.
TOLERANCE = 0.01
# More steps may change the loss by this share of its rise over the clean loss.
FLAT = 0.05
# Hit@1 below which an attack without bounds must push it. GAP need not fall as low: with few
# classes, the predictions that it counts hold a clip's labels at some rank or other.
NEAR_ZERO = 0.01
# Per frame. Dequantized features lie in [-2, 2], and rows have norms of 13 (audio) to 27 (rgb).
UNBOUNDED_EPSILON = 8.0
# Share of clips with a gradient of exactly 0 above which a warning is given.
ZERO_GRADIENT_SHARE = 0.01
# The radii of the sceptic's table.
SWEEP = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, UNBOUNDED_EPSILON)

_SINGLE_STEP = frozenset({"fgm"})
_ITERATED = frozenset({"pgd"})
_WHITE_BOX = frozenset({"fgm", "pgd", "pgd_margin", "pgd_dlr", "adaptive"})
_GRADIENT_FREE = frozenset({"square", "random_search"})
_NOISE = frozenset({"noise"})
_TRANSFER = frozenset({"transfer"})


@dataclasses.dataclass(frozen=True)
class _Row:
    """One attack at one radius."""

    spec: str
    family: str
    ball: tuple[str, bool, float]
    options: Mapping[str, Any]
    epsilon: float
    loss: float
    hit_at_1: float | None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "_Row | None":
        """Reads a row; returns None if it has no radius or no finite loss."""
        spec, epsilon, loss = str(row["attack"]), row.get("epsilon"), row.get("loss")
        if epsilon is None or loss is None:
            return None
        family = spec.partition(":")[0].removesuffix("_linf")
        if family == "pgd" and "loss" in row["options"]:  # Not the model's own.
            family = f"pgd_{row['options']['loss']}"
        hit, ball = row.get("hit_at_1"), ball_of(row)
        return cls(spec, family, ball, row["options"], float(epsilon), float(loss), hit)

    def __str__(self) -> str:
        return f"{self.spec} {self.loss:.4g}"


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


def sanity_specs(
    epsilon: float, transfer: bool, sweep: Sequence[float] = SWEEP
) -> tuple[tuple[str, float], ...]:
    """Returns the attacks that the checks need, as (spec, epsilon), each once.

    Args:
        epsilon: The radius at which attacks are compared.
        transfer: Whether there is another model to make perturbations on.
        sweep: Radii at which the fast gradient and PGD are run. The margin is attacked too at the
            largest, the unbounded one, since the margin decides Hit@1.
    """
    radii = sorted({epsilon, *sweep})
    extras = ["pgd:steps=100", "noise", "square", *(["transfer"] if transfer else [])]
    return (
        *((spec, radius) for spec in ("fgm", "pgd") for radius in radii),
        *((spec, epsilon) for spec in extras),
        ("pgd_margin", radii[-1]),
    )


def radius_scale(crop_size: int | None) -> float:
    """Returns the factor on radii that are meant for dequantized features.

    A frame of S x S gray pixels has a norm of 220 S, one of features of 27.

    Args:
        crop_size: S of a model of raw clips; None: the model reads features.
    """
    return 1.0 if crop_size is None else 8.0 * crop_size


def unbounded_epsilon(
    norm_scope: str, max_frames: int, num_features: int, scale: float = 1.0
) -> float:
    """Returns the radius that moves each frame of each feature by `UNBOUNDED_EPSILON`.

    Args:
        norm_scope: What the l2 norm is taken over: `frame`, `example` or `joint`.
        max_frames: Frames of the longest clip.
        num_features: Features that `joint` is taken over.
        scale: See `radius_scale`.
    """
    rows = {"frame": 1, "example": max_frames, "joint": max_frames * num_features}[norm_scope]
    return scale * UNBOUNDED_EPSILON * math.sqrt(rows)


def sanity_checks(
    clean: Mapping[str, Any],
    attacks: Iterable[Mapping[str, Any]],
    *,
    max_frames: int,
    num_features: int,
    can_reach_zero: bool = True,
    scale: float = 1.0,
) -> list[dict[str, str]]:
    """Returns the verdicts on one evaluation, in the order of the table above.

    Args:
        clean: Its clean row: `loss`, and `zero_gradient_share` where it was measured.
        attacks: Its attacked rows: `attack` (a spec such as `pgd:steps=100`), `options` (see
            `AttackSpec.settings`), `epsilon`, `loss`, `hit_at_1`. Rows without a radius or a finite
            loss are ignored.
        max_frames: Frames of the longest clip, for `unbounded_epsilon`.
        num_features: Features that the model reads, for the same.
        can_reach_zero: Whether Hit@1 can be near 0 at all: it cannot for rated segments, whose
            label may be the one class that was rated.
        scale: See `radius_scale`.

    Returns:
        A `{"check", "verdict", "detail"}` for each; the verdict is `pass`, `fail`, `warning` or,
        where rows are missing, `not run`.
    """
    rows = [row for row in map(_Row.read, attacks) if row is not None]
    return [
        _loss_over_epsilon(clean, rows),
        _compare(
            "pgd_over_single_step", rows, _of(_ITERATED), _of(_SINGLE_STEP), "PGD", "single step"
        ),
        _unbounded(rows, max_frames, num_features, can_reach_zero, scale),
        *(
            _compare(
                f"white_box_over_{other}",
                rows,
                _of(_WHITE_BOX),
                _of(families),
                "white box",
                other.replace("_", " "),
            )
            for other, families in (
                ("transfer", _TRANSFER),
                ("gradient_free", _GRADIENT_FREE),
                ("noise", _NOISE),
            )
        ),
        _enough_steps(clean, rows),
        _zero_gradients(clean),
    ]


def failed(verdicts: Iterable[Mapping[str, str]]) -> list[str]:
    """Returns the names of the failed checks, for which a table marks the model."""
    return [verdict["check"] for verdict in verdicts if verdict["verdict"] == FAIL]


def _verdict(check: str, verdict: str, detail: str) -> dict[str, str]:
    return {"check": check, "verdict": verdict, "detail": detail}


def _of(families: frozenset[str]) -> Callable[[_Row], bool]:
    return lambda row: row.family in families


def _weaker(loss: float, other: float) -> bool:
    return loss < other - TOLERANCE * max(abs(loss), abs(other))


def _loss_over_epsilon(clean: Mapping[str, Any], rows: Sequence[_Row]) -> dict[str, str]:
    """Checks only attacks that follow the gradient of the loss itself: others need not raise it."""
    check = "loss_over_epsilon"
    sweeps: dict[str, list[_Row]] = {}
    for row in sorted(rows, key=lambda row: row.epsilon):
        if row.family in _SINGLE_STEP | _ITERATED:
            sweeps.setdefault(row.spec, []).append(row)
    sweeps = {spec: sweep for spec, sweep in sweeps.items() if len(sweep) > 1}
    if not sweeps:
        return _verdict(check, NOT_RUN, "needs fgm or pgd at two radii or more")
    falls = []
    for spec, sweep in sweeps.items():
        curve = [(row.epsilon, row.loss) for row in sweep]
        if clean.get("loss") is not None:
            curve.insert(0, (0.0, float(clean["loss"])))
        falls += [
            f"{spec}: {before:.4g} at {small:g}, {after:.4g} at {large:g}"
            for (small, before), (large, after) in itertools.pairwise(curve)
            if _weaker(after, before)
        ]
    if falls:
        return _verdict(check, FAIL, "the loss falls: " + "; ".join(falls))
    ends = ", ".join(
        f"{spec} {sweep[0].loss:.4g} at {sweep[0].epsilon:g} to {sweep[-1].loss:.4g} at "
        f"{sweep[-1].epsilon:g}"
        for spec, sweep in sweeps.items()
    )
    return _verdict(check, PASS, f"the loss never falls: {ends}")


def _compare(
    check: str,
    rows: Sequence[_Row],
    ours: Callable[[_Row], bool],
    others: Callable[[_Row], bool],
    our_name: str,
    other_name: str,
) -> dict[str, str]:
    """Checks that the strongest of `ours` is as strong as that of `others` in each shared ball."""
    compared, weaker = [], []
    for ball in sorted({row.ball for row in rows if others(row)}):
        here = [row for row in rows if row.ball == ball]
        if not any(map(ours, here)):
            continue
        best = max(filter(ours, here), key=lambda row: row.loss)
        other = max(filter(others, here), key=lambda row: row.loss)
        text = f"{best} against {other} at {best.epsilon:g}"
        compared.append(text)
        if _weaker(best.loss, other.loss):
            weaker.append(text)
    if not compared:
        return _verdict(check, NOT_RUN, f"needs {our_name} and {other_name} at the same radius")
    if weaker:
        return _verdict(
            check,
            FAIL,
            f"{our_name} is weaker than {other_name}, by the loss: " + "; ".join(weaker),
        )
    return _verdict(
        check, PASS, f"loss under {our_name} against {other_name}: " + "; ".join(compared)
    )


def _unbounded(
    rows: Sequence[_Row], max_frames: int, num_features: int, can_reach_zero: bool, scale: float
) -> dict[str, str]:
    """Checks that Hit@1 is near 0 at a large radius, or at a smaller one that it contains."""
    check = "unbounded"
    white = [row for row in rows if row.family in _WHITE_BOX and row.hit_at_1 is not None]
    lowest = min(white, key=lambda row: row.hit_at_1, default=None)
    if lowest is not None and lowest.hit_at_1 < NEAR_ZERO:
        return _verdict(
            check,
            PASS,
            f"Hit@1 {100 * lowest.hit_at_1:.2f} % under {lowest.spec} at {lowest.epsilon:g}, below "
            f"{100 * NEAR_ZERO:g} %",
        )
    if not can_reach_zero:
        return _verdict(check, NOT_RUN, "needs clips whose classes are all rated")
    large = [
        row
        for row in white
        if "norm_scope" in row.options
        and row.family != "fgm"
        and row.epsilon
        >= unbounded_epsilon(row.options["norm_scope"], max_frames, num_features, scale)
    ]
    if not large:
        needed = f"needs pgd at a radius of {scale * UNBOUNDED_EPSILON:g} per frame or more"
        return _verdict(check, NOT_RUN, needed)
    best = min(large, key=lambda row: row.hit_at_1)
    return _verdict(
        check,
        FAIL,
        f"Hit@1 is still {100 * best.hit_at_1:.2f} % under {best.spec} at {best.epsilon:g}, not "
        f"below {100 * NEAR_ZERO:g} %",
    )


def _enough_steps(clean: Mapping[str, Any], rows: Sequence[_Row]) -> dict[str, str]:
    """Compares the two largest numbers of steps of PGD that is otherwise the same."""
    check = "enough_steps"
    same_but_steps: dict[tuple, dict[int, _Row]] = {}
    for row in rows:
        if row.family in _ITERATED:
            rest = tuple(sorted((k, v) for k, v in row.options.items() if k != "steps"))
            same_but_steps.setdefault((row.epsilon, rest), {})[row.options["steps"]] = row
    pairs = [
        (of_steps[steps[-2]], of_steps[steps[-1]])
        for of_steps in same_but_steps.values()
        if len(steps := sorted(of_steps)) > 1
    ]
    if not pairs or clean.get("loss") is None:
        return _verdict(check, NOT_RUN, "needs pgd at two numbers of steps, such as pgd:steps=100")
    start = float(clean["loss"])
    texts, changed = [], []
    for few, many in pairs:
        rise = max(few.loss, many.loss) - start
        text = f"{few}, {many} at {many.epsilon:g} (clean {start:.4g})"
        texts.append(text)
        room = max(FLAT * rise, TOLERANCE * abs(start))
        if abs(many.loss - few.loss) > room:
            changed.append(text)
    if changed:
        return _verdict(check, FAIL, "more steps change the loss: " + "; ".join(changed))
    return _verdict(check, PASS, "more steps leave the loss as it is: " + "; ".join(texts))


def _zero_gradients(clean: Mapping[str, Any]) -> dict[str, str]:
    check = "zero_gradients"
    share = clean.get("zero_gradient_share")
    if share is None:
        return _verdict(check, NOT_RUN, "needs zero_gradient_share in the clean row")
    verdict = WARNING if share > ZERO_GRADIENT_SHARE else PASS
    return _verdict(check, verdict, f"{100 * share:.2f} % of the clips have a gradient of 0")
