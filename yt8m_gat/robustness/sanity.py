"""Sanity checks of an evaluation: signs that a model hides its gradients from the attacks.

A model may look robust because gradient attacks fail on it, not because no perturbation fools it.
The checks are read off the rows that `eval.py` wrote, and off its section `gradients`
(`GradientFigures.result`); they run no model.

| check | fails when | needs |
|---|---|---|
| `trained` | (`undertrained`) clean metrics are near those of the label frequencies | `positives` |
| `deterministic` | two passes on one clip differ | `gradients` |
| `gradient` | slopes by the gradient are not those of the loss | `gradients` |
| `logit_scale` | the loss is lowest with the logits times 10, or a tenth | `gradients` |
| `zero_gradients` | many gradients are nearly zero, for the clip's loss | `gradients`, clean row |
| `loss_over_epsilon` | the loss of a white-box attack falls as its radius grows | two radii |
| `pgd_over_single_step` | PGD is weaker than one step at a radius | `pgd` and `fgm` |
| `unbounded` | a large radius leaves Hit@1 above `NEAR_ZERO` | PGD at `UNBOUNDED_EPSILON` |
| `white_box_over_transfer` | those made on another model are stronger | `transfer`, ... |
| `white_box_over_gradient_free` | a search without gradients is stronger | `square`, ... |
| `white_box_over_decisions` | a search that sees only decisions is stronger | `hop_skip_jump` |
| `white_box_over_noise` | noise of the same norm is stronger | `noise` |
| `enough_steps` | more steps change what PGD reaches | PGD at two numbers of steps |

Strength is compared by the mean loss, by GAP, by Hit@1 and by the mean margin, each by the row that
is strongest in it; see `measured_row`. Only attacks within the same ball (`ball_of`) are compared.

A model that has learned little more than how frequent the labels are has neither robustness to
measure nor clean answers to hide: where `trained` says so, checks of strength that would fail are
`undertrained` too. A wrong gradient stays wrong.

Reference: Athalye, Carlini and Wagner, "Obfuscated Gradients Give a False Sense of Security",
2018; Carlini et al., "On Evaluating Adversarial Robustness", 2019.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from yt8m_gat.robustness.label_frequencies import frequency_metrics
from yt8m_gat.robustness.measured_row import (
    FLAT,
    MEASURES,
    TOLERANCE,
    MeasuredRow,
    figures_of,
    weaknesses,
)

PASS, FAIL, WARNING, NOT_RUN = "pass", "fail", "warning", "not run"
UNDERTRAINED = "undertrained"

# Hit@1 below which an attack without bounds must push it. GAP need not fall as low: with few
# classes, the predictions that it counts hold a clip's labels at some rank or other.
NEAR_ZERO = 0.01
# Per frame. Dequantized features lie in [-2, 2], and rows have norms of 13 (audio) to 27 (rgb).
UNBOUNDED_EPSILON = 8.0
# Shares of clips with a gradient of nearly 0 above which a warning is given, and the check fails.
ZERO_GRADIENT_SHARE = 0.01
MANY_ZERO_GRADIENTS = 0.1
# Share of clips whose slopes may be outside of the band of `gradient_check`; a loss with kinks has
# some that differ.
OUTSIDE_SHARE = 0.05
# Share of clips with slopes too flat or too uneven to measure above which a warning is given.
UNRESOLVED_SHARE = 0.5
# Share of clips with two passes that differ.
RANDOM_SHARE = 0.01
# Queries below which a search that is weaker says nothing.
ENOUGH_QUERIES = 1000
# A model whose GAP and Hit@1 have come no further than this share of the way from those of the
# label frequencies to 1 is undertrained.
NEAR_FREQUENCIES = 0.1
# A factor on the logits, or 1 over it, from which on a loss that it lowers is suspicious.
WRONG_FACTOR = 10.0
# The radii of the sceptic's table.
SWEEP = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, UNBOUNDED_EPSILON)

_SINGLE_STEP = frozenset({"fgm"})
_ITERATED = frozenset({"pgd"})
_ON_RANKS = frozenset({"pgd_margin", "pgd_dlr", "apgd_margin", "apgd_dlr", "auto"})
_ALL_PGD = frozenset({"pgd", "pgd_margin", "pgd_dlr", "pgd_normalized"})
# Family of PGD -> the measure that it raises.
_RAISED = {"pgd": "loss", "pgd_margin": "margin"}
_WHITE_BOX = frozenset(
    {
        *("fgm", *_ALL_PGD, "adaptive", "auto"),
        *("apgd", "apgd_margin", "apgd_dlr", "apgd_normalized"),
    }
)
_GRADIENT_FREE = frozenset({"square", "random_search"})
_DECISIONS = frozenset({"hop_skip_jump"})
_NOISE = frozenset({"noise"})
_TRANSFER = frozenset({"transfer", "surrogate"})
# Checks that say nothing of a model that has learned nothing.
_OF_STRENGTH = frozenset(
    {
        *("loss_over_epsilon", "pgd_over_single_step", "unbounded", "white_box_over_transfer"),
        *("white_box_over_gradient_free", "white_box_over_decisions", "white_box_over_noise"),
        *("enough_steps", "logit_scale"),
    }
)


def sanity_specs(
    epsilon: float,
    transfer: bool,
    sweep: Sequence[float] = SWEEP,
    queries: int = ENOUGH_QUERIES,
    decisions: int = ENOUGH_QUERIES,
) -> tuple[tuple[str, float], ...]:
    """Returns the attacks that the checks need, as (spec, epsilon), each once.

    Args:
        epsilon: The radius at which attacks are compared.
        transfer: Whether there is another model to make perturbations on.
        sweep: Radii at which the fast gradient and PGD, on the loss and on the margin, are run:
            the margin decides Hit@1.
        queries: Budget of the search without gradients.
        decisions: Budget of the search that sees only decisions.
    """
    radii = sorted({epsilon, *sweep})
    extras = [
        "pgd:steps=100",
        "pgd_margin:steps=100",
        "pgd:loss=normalized",
        "noise",
        f"square:queries={queries}",
        f"hop_skip_jump:queries={decisions}",
        *(["transfer"] if transfer else []),
    ]
    return (
        *((spec, radius) for spec in ("fgm", "pgd", "pgd_margin") for radius in radii),
        *((spec, epsilon) for spec in extras),
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
    gradients: Mapping[str, Any] | None = None,
    positives: Sequence[int] | None = None,
    top_k: int = 20,
) -> list[dict[str, str]]:
    """Returns the verdicts on one evaluation, in the order of the table above.

    Args:
        clean: Its clean row: `loss`, `gap`, `hit_at_1`, `margin`, and `zero_gradient_share` where
            it was measured.
        attacks: Its attacked rows: `attack` (a spec such as `pgd:steps=100`), `options` (see
            `AttackSpec.settings`), `epsilon`, and the figures of the clean row. Rows without a
            radius or a finite loss are ignored; figures that are missing, as in files of an older
            version, are not compared.
        max_frames: Frames of the longest clip, for `unbounded_epsilon`.
        num_features: Features that the model reads, for the same.
        can_reach_zero: Whether Hit@1 can be near 0 at all: it cannot for rated segments, whose
            label may be the one class that was rated.
        scale: See `radius_scale`.
        gradients: See `GradientFigures.result`; None: not measured.
        positives: Int [C], clips with each class; None: not known, or not for whole clips.
        top_k: Predictions per clip that GAP counts.

    Returns:
        A `{"check", "verdict", "detail"}` for each; the verdict is `pass`, `fail`, `warning`,
        `undertrained` or, where rows are missing, `not run`.
    """
    rows = [row for row in map(MeasuredRow.read, attacks) if row is not None]
    figures = figures_of(clean)
    trained = _trained(clean, positives, top_k)
    verdicts = [
        trained,
        _deterministic(gradients),
        _gradient(gradients),
        _logit_scale(gradients),
        _zero_gradients(clean, gradients),
        _loss_over_epsilon(clean, rows),
        _compare("pgd_over_single_step", rows, figures, _ALL_PGD, _SINGLE_STEP),
        _unbounded(rows, max_frames, num_features, can_reach_zero, scale),
        _compare("white_box_over_transfer", rows, figures, _WHITE_BOX, _TRANSFER),
        _over_search("white_box_over_gradient_free", rows, figures, _GRADIENT_FREE, "square"),
        _over_search("white_box_over_decisions", rows, figures, _DECISIONS, "hop_skip_jump"),
        _compare("white_box_over_noise", rows, figures, _WHITE_BOX, _NOISE),
        _enough_steps(clean, rows),
    ]
    if trained["verdict"] == UNDERTRAINED:
        for verdict in verdicts:
            if verdict["check"] in _OF_STRENGTH and verdict["verdict"] == FAIL:
                verdict["verdict"] = UNDERTRAINED
    return verdicts


def failed(verdicts: Iterable[Mapping[str, str]]) -> list[str]:
    """Returns the names of the failed checks, for which a table marks the model."""
    return [verdict["check"] for verdict in verdicts if verdict["verdict"] == FAIL]


def _verdict(check: str, verdict: str, detail: str) -> dict[str, str]:
    return {"check": check, "verdict": verdict, "detail": detail}


def _of(families: frozenset[str]) -> Callable[[MeasuredRow], bool]:
    return lambda row: row.family in families


def _weaker(loss: float, other: float) -> bool:
    return loss < other - TOLERANCE * max(abs(loss), abs(other))


def _share(share: float) -> str:
    return f"{100 * share:.2f} %"


def _trained(
    clean: Mapping[str, Any], positives: Sequence[int] | None, top_k: int
) -> dict[str, str]:
    """Compares the clean row with the label frequencies, which need no input."""
    check = "trained"
    num_clips = clean.get("num_videos")
    values = {name: clean.get(name) for name in ("gap", "hit_at_1")}
    if positives is None or not num_clips or None in values.values():
        return _verdict(check, NOT_RUN, "needs the clips of each class, and whole clips")
    baseline = frequency_metrics(positives, num_clips, top_k)
    text = ", ".join(
        f"{MEASURES[name]} {value:.4g} against {baseline[name]:.4g}"
        for name, value in values.items()
    )
    near = all(
        value < baseline[name] + NEAR_FREQUENCIES * (1.0 - baseline[name])
        for name, value in values.items()
    )
    detail = f"clean {text} of the label frequencies, the same for every clip"
    return _verdict(check, UNDERTRAINED if near else PASS, detail)


def _deterministic(gradients: Mapping[str, Any] | None) -> dict[str, str]:
    check = "deterministic"
    if gradients is None:
        return _verdict(check, NOT_RUN, "needs the gradients")
    share = gradients["random_share"]
    detail = f"two passes differ at {_share(share)} of the clips"
    if share > RANDOM_SHARE:
        return _verdict(check, FAIL, f"{detail}: attack the mean of several, pgd:draws=20")
    return _verdict(check, PASS, detail)


def _gradient(gradients: Mapping[str, Any] | None) -> dict[str, str]:
    """Checks the shares of clips whose slopes differ, at each point and kind of direction."""
    check = "gradient"
    if gradients is None:
        return _verdict(check, NOT_RUN, "needs the gradients")
    if gradients["random_share"] > RANDOM_SHARE:
        return _verdict(check, NOT_RUN, "needs a model whose passes agree")
    points = gradients["points"]
    texts = []
    for point in points:
        ratio = point["ratio"]
        texts.append(
            f"{point['point']}, {point['direction']}: outside {_share(point['outside_share'])}"
            + ("" if ratio is None else f", ratio {ratio:.3f}")
        )
    detail = (
        f"differences in {gradients['precision']} against the gradient, share of clips outside "
        f"the band and median ratio: {'; '.join(texts)}"
    )
    if any(point["outside_share"] > OUTSIDE_SHARE for point in points):
        return _verdict(check, FAIL, detail)
    unresolved = max((point["unresolved_share"] for point in points), default=0.0)
    if unresolved > UNRESOLVED_SHARE:
        return _verdict(
            check, WARNING, f"{_share(unresolved)} of the clips have no measurable slope; {detail}"
        )
    return _verdict(check, PASS, detail)


def _zero_gradients(
    clean: Mapping[str, Any], gradients: Mapping[str, Any] | None
) -> dict[str, str]:
    check = "zero_gradients"
    exact = clean.get("zero_gradient_share")
    shares = {} if exact is None else {"a gradient of exactly 0": exact}
    if gradients is not None:
        shares["a gradient that is nearly 0 for their loss"] = gradients["nearly_zero_share"]
    if not shares:
        return _verdict(check, NOT_RUN, "needs zero_gradient_share in the clean row")
    largest = max(shares.values())
    verdict = PASS
    if largest > ZERO_GRADIENT_SHARE:
        verdict = FAIL if largest > MANY_ZERO_GRADIENTS else WARNING
    texts = [f"{_share(share)} of the clips have {words}" for words, share in shares.items()]
    return _verdict(check, verdict, "; ".join(texts))


def _logit_scale(gradients: Mapping[str, Any] | None) -> dict[str, str]:
    """Checks that no factor far from 1 on the logits lowers the loss.

    A factor on the logits changes no answer. Yet the loss of large logits is about the clips and
    classes that are wrong already, and for the others it rounds to 0: attacks that raise it spend
    themselves on what is lost. Training on that loss leaves the factor near 1.
    """
    check = "logit_scale"
    losses = None if gradients is None else gradients.get("loss_by_factor")
    if not losses:
        return _verdict(check, NOT_RUN, "needs the gradients")
    by_factor = {float(factor): loss for factor, loss in losses.items() if loss is not None}
    best = min(by_factor, key=lambda factor: by_factor[factor])
    detail = (
        f"the loss is lowest with the logits times {best:g}: {by_factor[best]:.4g}, against "
        f"{by_factor[1.0]:.4g}"
    )
    if max(best, 1.0 / best) >= WRONG_FACTOR:
        return _verdict(
            check,
            FAIL,
            f"{detail}; attacks on the loss say little, so read those that no scaling changes "
            "(pgd:loss=dlr, pgd:loss=normalized, pgd_margin)",
        )
    return _verdict(check, PASS, detail)


def _loss_over_epsilon(clean: Mapping[str, Any], rows: Sequence[MeasuredRow]) -> dict[str, str]:
    """Checks only attacks that follow the gradient of the loss itself: others need not raise it."""
    check = "loss_over_epsilon"
    sweeps: dict[str, list[MeasuredRow]] = {}
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


_NAMES = {
    _ALL_PGD: "PGD",
    _SINGLE_STEP: "single step",
    _WHITE_BOX: "white box",
    _TRANSFER: "transfer",
    _GRADIENT_FREE: "gradient free",
    _DECISIONS: "decisions",
    _NOISE: "noise",
}


def _compare(
    check: str,
    rows: Sequence[MeasuredRow],
    clean: Mapping[str, float],
    ours: frozenset[str],
    others: frozenset[str],
) -> dict[str, str]:
    """Checks that the strongest of `ours` is as strong as that of `others` in each shared ball."""
    compared, weaker = [], []
    our_name, other_name = _NAMES[ours], _NAMES[others]
    for our_rows, other_rows in _in_each_ball(rows, _of(ours), _of(others)):
        best, other = (max(of, key=lambda row: row.loss) for of in (our_rows, other_rows))
        compared.append(f"{best.shown()} against {other.shown()} at {best.epsilon:g}")
        # The loss of a mean over classes can rise while the labels keep their ranks, so that by
        # ranks an attack on the loss may well be weaker than another that it exceeds in the loss.
        by_rank = any(row.family in _ON_RANKS for row in our_rows)
        weaker += weaknesses(our_rows, other_rows, clean, MEASURES if by_rank else ("loss",))
    if not compared:
        return _verdict(check, NOT_RUN, f"needs {our_name} and {other_name} at the same radius")
    if weaker:
        return _verdict(check, FAIL, f"{our_name} is weaker than {other_name}: {'; '.join(weaker)}")
    return _verdict(
        check, PASS, f"loss under {our_name} against {other_name}: " + "; ".join(compared)
    )


def _in_each_ball(
    rows: Sequence[MeasuredRow],
    ours: Callable[[MeasuredRow], bool],
    others: Callable[[MeasuredRow], bool],
) -> list[tuple[list[MeasuredRow], list[MeasuredRow]]]:
    """Returns both kinds of rows of each ball that has both."""
    pairs = []
    for ball in sorted({row.ball for row in rows}):
        here = [row for row in rows if row.ball == ball]
        pair = [*filter(ours, here)], [*filter(others, here)]
        if all(pair):
            pairs.append(pair)
    return pairs


def _over_search(
    check: str,
    rows: Sequence[MeasuredRow],
    clean: Mapping[str, float],
    searches: frozenset[str],
    example: str,
) -> dict[str, str]:
    """Compares with searches; one of few queries can fail the model but not pass it."""
    verdict = _compare(check, rows, clean, _WHITE_BOX, searches)
    queries = [row.options.get("queries", 0) for row in rows if row.family in searches]
    most = max(queries, default=0)
    if verdict["verdict"] == PASS and most < ENOUGH_QUERIES:
        return _verdict(
            check,
            NOT_RUN,
            f"needs a search of {ENOUGH_QUERIES:,} queries, such as {example}:queries="
            f"{ENOUGH_QUERIES}; {most} are too few to say",
        )
    return verdict


def _unbounded(
    rows: Sequence[MeasuredRow],
    max_frames: int,
    num_features: int,
    can_reach_zero: bool,
    scale: float,
) -> dict[str, str]:
    """Checks that Hit@1 is near 0 at a large radius, or at a smaller one that it contains."""
    check = "unbounded"
    white = [row for row in rows if row.family in _WHITE_BOX and "hit_at_1" in row.figures]
    lowest = min(white, key=lambda row: row.figures["hit_at_1"], default=None)
    if lowest is not None and lowest.figures["hit_at_1"] < NEAR_ZERO:
        return _verdict(
            check,
            PASS,
            f"Hit@1 {_share(lowest.figures['hit_at_1'])} under {lowest.spec} at "
            f"{lowest.epsilon:g}, below {100 * NEAR_ZERO:g} %",
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
    best = min(large, key=lambda row: row.figures["hit_at_1"])
    return _verdict(
        check,
        FAIL,
        f"Hit@1 is still {_share(best.figures['hit_at_1'])} under {best.spec} at "
        f"{best.epsilon:g}, not below {100 * NEAR_ZERO:g} %",
    )


def _enough_steps(clean: Mapping[str, Any], rows: Sequence[MeasuredRow]) -> dict[str, str]:
    """Compares the two largest numbers of steps of PGD that is otherwise the same.

    Each by what it raises, since further steps need not raise anything else.
    """
    check = "enough_steps"
    same_but_steps: dict[tuple, dict[int, MeasuredRow]] = {}
    for row in rows:
        if _RAISED.get(row.family) in row.figures:
            rest = tuple(sorted((k, v) for k, v in row.options.items() if k != "steps"))
            key = (row.epsilon, row.family, rest)
            same_but_steps.setdefault(key, {})[row.options["steps"]] = row
    pairs = [
        (of_steps[steps[-2]], of_steps[steps[-1]])
        for of_steps in same_but_steps.values()
        if len(steps := sorted(of_steps)) > 1
    ]
    figures = figures_of(clean)
    if not pairs or "loss" not in figures:
        return _verdict(check, NOT_RUN, "needs pgd at two numbers of steps, such as pgd:steps=100")
    texts, changed = [], []
    for few, many in pairs:
        measure = _RAISED[few.family]
        if measure not in figures:
            continue
        values, start = [row.figures[measure] for row in (few, many)], figures[measure]
        text = (
            f"{few.shown(measure)}, {many.shown(measure)} at {many.epsilon:g} (clean {start:.4g})"
        )
        texts.append(text)
        room = max(FLAT * (max(values) - start), TOLERANCE * abs(start))
        if abs(values[0] - values[1]) > room:
            changed.append(f"{MEASURES[measure]}, {text}")
    if changed:
        return _verdict(check, FAIL, "more steps change " + "; ".join(changed))
    return _verdict(
        check, PASS, "more steps leave the loss and the margin as they are: " + "; ".join(texts)
    )
