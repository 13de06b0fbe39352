"""Builds attacks from their flag names."""

import dataclasses
from collections.abc import Callable

from yt8m_gat.attacks.adaptive import AdaptivePGD, MapDistance
from yt8m_gat.attacks.apgd import APGD
from yt8m_gat.attacks.attack import Attack
from yt8m_gat.attacks.auto import AutoAttack
from yt8m_gat.attacks.ball import Ball
from yt8m_gat.attacks.deepfool import DeepFool
from yt8m_gat.attacks.fast_gradient import FastGradient
from yt8m_gat.attacks.gradient_free import RandomSearch, SquareSearch
from yt8m_gat.attacks.hop_skip_jump import HopSkipJump
from yt8m_gat.attacks.noise import RandomNoise
from yt8m_gat.attacks.objectives import Criterion
from yt8m_gat.attacks.pgd import PGD
from yt8m_gat.attacks.sparse import SparseFrames
from yt8m_gat.attacks.temporal import TemporalAugmentation


@dataclasses.dataclass(frozen=True)
class AttackOptions:
    """The settings that the attacks of one evaluation share, other than the radius.

    Attributes:
        norm_scope: What an l2 norm is taken over: `frame`, `example` or `joint`.
        shares: The radii of some features, as shares of epsilon, see `Ball`.
        steps: Steps of PGD, and of the attack on few frames.
        step_size: PGD's step size, in the units of the features; None: 2.5 * epsilon / steps.
        restarts: PGD's and APGD's restarts, of which the worst case is kept.
        random_start: Whether their first restart, too, begins at a random point.
        apgd_steps: Steps of APGD, also within `auto`.
        objective: What PGD and APGD raise: one of `OBJECTIVES`; `loss` is the model's own.
        draws: Passes at each of PGD's points whose gradients are averaged.
        queries: Budget of the gradient-free searches.
        auto_queries: Queries of `auto`.
        auto_targets: Targets of `auto`.
        criterion: When `auto` and `hop_skip_jump` count a clip as broken: one of `CRITERIA`.
        criterion_k: Number of highest classes that their criterion looks at.
        early_exit: Whether `auto` is done with a clip once it is broken.
        deepfool_steps: Maximum number of DeepFool's steps.
        temporal_steps: K of the temporal attack.
        non_key_frames: N of the temporal attack; None: all real frames.
        map_weight: Weight of the adaptive attack's map distance beside the loss.
        clip_to_range: See `Attack`.
        round_to_levels: See `Attack`.
    """

    norm_scope: str = "frame"
    shares: tuple[tuple[str, float], ...] = ()
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = False
    apgd_steps: int = 100
    objective: str = "loss"
    draws: int = 1
    queries: int = 100
    auto_queries: int = 5000
    auto_targets: int = 9
    criterion: str = "top1"
    criterion_k: int = 5
    early_exit: bool = True
    deepfool_steps: int = 50
    temporal_steps: int = 1
    non_key_frames: int | None = None
    map_weight: float = 0.001
    clip_to_range: tuple[float, float] | None = None
    round_to_levels: tuple[float, float] | None = None

    @property
    def bounds(self) -> dict[str, tuple[float, float] | None]:
        """The arguments that every attack takes."""
        return {"clip_to_range": self.clip_to_range, "round_to_levels": self.round_to_levels}


def _l2(options: AttackOptions) -> Ball:
    return Ball("l2", options.norm_scope, options.shares)


def _linf(options: AttackOptions) -> Ball:
    return Ball("linf", shares=options.shares)


def _pgd(ball: Ball, epsilon: float, options: AttackOptions) -> PGD:
    return PGD(
        ball,
        epsilon,
        steps=options.steps,
        step_size=options.step_size,
        restarts=options.restarts,
        random_start=options.random_start,
        objective=options.objective,
        draws=options.draws,
        **options.bounds,
    )


def _apgd(ball: Ball, epsilon: float, options: AttackOptions) -> APGD:
    return APGD(
        ball,
        epsilon,
        steps=options.apgd_steps,
        restarts=options.restarts,
        random_start=options.random_start,
        objective=options.objective,
        **options.bounds,
    )


def _auto(ball: Ball, epsilon: float, options: AttackOptions) -> AutoAttack:
    return AutoAttack(
        ball,
        epsilon,
        steps=options.apgd_steps,
        targets=options.auto_targets,
        queries=options.auto_queries,
        criterion=Criterion(options.criterion, options.criterion_k),
        early_exit=options.early_exit,
        **options.bounds,
    )


def _hop_skip_jump(ball: Ball, epsilon: float, options: AttackOptions) -> HopSkipJump:
    return HopSkipJump(
        ball,
        epsilon,
        options.queries,
        Criterion(options.criterion, options.criterion_k),
        **options.bounds,
    )


def _deepfool(epsilon: float, options: AttackOptions) -> DeepFool:
    # DeepFool searches for the smallest radius, so it takes none.
    del epsilon
    return DeepFool(steps=options.deepfool_steps, **options.bounds)


def _temporal(epsilon: float, options: AttackOptions) -> TemporalAugmentation:
    # Epsilon is in the units of the features, as for the other attacks.
    return TemporalAugmentation(
        epsilon,
        num_steps=options.temporal_steps,
        num_non_key=options.non_key_frames,
        level_size=1.0,
        **options.bounds,
    )


# `Transfer` needs another model, so it is built where that model is loaded.
ATTACKS: dict[str, Callable[[float, AttackOptions], Attack]] = {
    "fgm": lambda epsilon, options: FastGradient(_l2(options), epsilon, **options.bounds),
    "fgm_linf": lambda epsilon, options: FastGradient(_linf(options), epsilon, **options.bounds),
    "pgd": lambda epsilon, options: _pgd(_l2(options), epsilon, options),
    "pgd_linf": lambda epsilon, options: _pgd(_linf(options), epsilon, options),
    "pgd_margin": lambda epsilon, options: _pgd(
        _l2(options), epsilon, dataclasses.replace(options, objective="margin")
    ),
    "apgd": lambda epsilon, options: _apgd(_l2(options), epsilon, options),
    "apgd_linf": lambda epsilon, options: _apgd(_linf(options), epsilon, options),
    "auto": lambda epsilon, options: _auto(_l2(options), epsilon, options),
    "auto_linf": lambda epsilon, options: _auto(_linf(options), epsilon, options),
    "sparse": lambda epsilon, options: SparseFrames(
        _l2(options), epsilon, options.steps, **options.bounds
    ),
    "deepfool": _deepfool,
    "noise": lambda epsilon, options: RandomNoise(_l2(options), epsilon, **options.bounds),
    "noise_linf": lambda epsilon, options: RandomNoise(_linf(options), epsilon, **options.bounds),
    "random_search": lambda epsilon, options: RandomSearch(
        _l2(options), epsilon, options.queries, **options.bounds
    ),
    "square": lambda epsilon, options: SquareSearch(
        _l2(options), epsilon, options.queries, **options.bounds
    ),
    "square_linf": lambda epsilon, options: SquareSearch(
        _linf(options), epsilon, options.queries, **options.bounds
    ),
    "hop_skip_jump": lambda epsilon, options: _hop_skip_jump(_l2(options), epsilon, options),
    "hop_skip_jump_linf": lambda epsilon, options: _hop_skip_jump(_linf(options), epsilon, options),
    "temporal": _temporal,
}

# Attacks that are run once, regardless of the list of epsilons.
ATTACKS_WITHOUT_EPSILON = frozenset({"deepfool"})
# Attacks whose ball has one radius for all features.
ATTACKS_OF_ONE_RADIUS = frozenset({"deepfool", "temporal"})

_L2 = {"norm_scope": "norm_scope"}
_PGD_LINF = {name: name for name in ("steps", "step_size", "restarts", "random_start")}
_PGD = {**_L2, **_PGD_LINF}
_LOSS = {"loss": "objective"}
_DRAWS = {"draws": "draws"}
_APGD_LINF = {
    "steps": "apgd_steps",
    "restarts": "restarts",
    "random_start": "random_start",
    **_LOSS,
}
_CRITERION = {"criterion": "criterion", "k": "criterion_k"}
_AUTO_LINF = {
    "steps": "apgd_steps",
    "targets": "auto_targets",
    "queries": "auto_queries",
    **_CRITERION,
    "early_exit": "early_exit",
}
_SEARCH_LINF = {"queries": "queries"}
_SEARCH = {**_L2, **_SEARCH_LINF}

# Attack -> its option (other than the radius and the bounds) -> field of `AttackOptions`.
ATTACK_OPTIONS: dict[str, dict[str, str]] = {
    "fgm": _L2,
    "fgm_linf": {},
    "pgd": {**_PGD, **_LOSS, **_DRAWS},
    "pgd_linf": {**_PGD_LINF, **_LOSS, **_DRAWS},
    "pgd_margin": {**_PGD, **_DRAWS},
    "apgd": {**_L2, **_APGD_LINF},
    "apgd_linf": _APGD_LINF,
    "auto": {**_L2, **_AUTO_LINF},
    "auto_linf": _AUTO_LINF,
    "sparse": {**_L2, "steps": "steps"},
    "deepfool": {"steps": "deepfool_steps"},
    "noise": _L2,
    "noise_linf": {},
    "random_search": _SEARCH,
    "square": _SEARCH,
    "square_linf": _SEARCH_LINF,
    "hop_skip_jump": {**_SEARCH, **_CRITERION},
    "hop_skip_jump_linf": {**_SEARCH_LINF, **_CRITERION},
    "temporal": {"steps": "temporal_steps", "non_key_frames": "non_key_frames"},
    # These also need something that only the caller has: another model, or a distance of attention
    # maps.
    "transfer": {**_PGD, **_LOSS},
    "surrogate": {**_PGD, **_LOSS},
    "adaptive": {**_PGD, "weight": "map_weight"},
}


# Options that earlier versions did not have; rows of these were measured with the default.
ADDED_OPTIONS = frozenset({"loss", "draws"})


def build_attack(name: str, epsilon: float, options: AttackOptions | None = None) -> Attack:
    """Builds the attack of a flag name, at one radius.

    Raises:
        ValueError: If the name is unknown.

    Examples:
        >>> from yt8m_gat.attacks import AttackOptions, build_attack
        >>> attack = build_attack("pgd", 0.5, AttackOptions(steps=10, restarts=2))
        >>> attack.name, attack.cost
        ('pgd', PassCount(forward=23, backward=20))
    """
    if name not in ATTACKS:
        raise ValueError(f"an attack must be one of {', '.join(ATTACKS)}. Received: {name!r}")
    return ATTACKS[name](epsilon, options or AttackOptions())


def build_adaptive(
    epsilon: float, options: AttackOptions, map_distance: MapDistance
) -> AdaptivePGD:
    """Builds the PGD that also attacks the attention maps, with PGD's options."""
    return AdaptivePGD(
        ball=_l2(options),
        epsilon=epsilon,
        steps=options.steps,
        step_size=options.step_size,
        restarts=options.restarts,
        random_start=options.random_start,
        map_distance=map_distance,
        weight=options.map_weight,
        **options.bounds,
    )
