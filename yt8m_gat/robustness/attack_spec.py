"""Attacks as the command line writes them: `name:option=value:option=value`."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from yt8m_gat.attacks import (
    ATTACKS_OF_ONE_RADIUS,
    ATTACKS_WITHOUT_EPSILON,
    CRITERIA,
    OBJECTIVES,
    PIXEL_LEVELS,
    PIXEL_RANGE,
    Attack,
    AttackOptions,
    Ball,
    Transfer,
    build_attack,
)
from yt8m_gat.attacks.adaptive import MapDistance
from yt8m_gat.attacks.registry import ADDED_OPTIONS, ATTACK_OPTIONS, build_adaptive
from yt8m_gat.config import NORM_SCOPES, ConfigError
from yt8m_gat.data.quantization import OFFSET, STEP
from yt8m_gat.import_path import described, import_object


class Bounds(NamedTuple):
    """The values that a model's inputs can have.

    Attributes:
        clip_to_range: (low, high).
        round_to_levels: (step, offset) of their levels.
    """

    clip_to_range: tuple[float, float]
    round_to_levels: tuple[float, float]


# Levels 0 to 255.
QUANTIZED = Bounds((OFFSET, OFFSET + 255 * STEP), (STEP, OFFSET))
PIXELS = Bounds(PIXEL_RANGE, PIXEL_LEVELS)

EPSILON = "epsilon"
# With the name of a feature behind it: the radius of that feature.
EPSILON_OF = "epsilon_"
# Options that every attack takes -> field of `AttackOptions` and of `Bounds`.
BOUNDS = {"clip": "clip_to_range", "round": "round_to_levels"}
# Fields of `AttackOptions` that are one of several names.
NAMES = {"norm_scope": NORM_SCOPES, "objective": OBJECTIVES, "criterion": CRITERIA}
_TRUE_OR_FALSE = {"random_start", "early_exit", *BOUNDS.values()}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclasses.dataclass(frozen=True)
class AttackSpec:
    """One attack of `--attacks`.

    Attributes:
        text: The specification without its epsilon: the attack's name in tables and JSON.
        name: Key of `ATTACK_OPTIONS`.
        options: Fields of `AttackOptions` that it sets; those of `BOUNDS` are true or false.
        epsilon: Its own radius; None: the radii of `--epsilons` are used.
        bounds: The bounds that it keeps if it is told to.
        epsilons: Feature -> its radius, for those that have another than the rest.
    """

    text: str
    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    epsilon: float | None = None
    bounds: Bounds = QUANTIZED
    epsilons: dict[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "AttackSpec":
        """Reads `pgd`, `pgd:steps=100:restarts=5`, `pgd:round=true`, `fgm:epsilon=8`,
        `pgd:epsilon_audio=0.1`, `my_attacks:MyAttack:samples=8`, ...

        The last is a class of the user's own, see `ImportedAttackSpec`; it is imported.

        Raises:
            ConfigError: The attack or an option is unknown, or a value does not parse; the
                message lists the valid ones.
        """
        name, *settings = (part.strip() for part in text.split(":"))
        if name not in ATTACK_OPTIONS:
            if settings and "=" not in settings[0]:
                return ImportedAttackSpec.read(f"{name}:{settings[0]}", settings[1:], text)
            raise ConfigError(
                f"--attacks must be of {', '.join(ATTACK_OPTIONS)}, or module:Class. "
                f"Received: {text!r}"
            )
        allowed = {**ATTACK_OPTIONS[name], **BOUNDS}
        if name not in ATTACKS_WITHOUT_EPSILON:
            allowed[EPSILON] = EPSILON
        options: dict[str, Any] = {}
        epsilons: dict[str, float] = {}
        epsilon = None
        text_parts = [name]
        for setting in settings:
            option, equals, value = (part.strip() for part in setting.partition("="))
            feature = option.removeprefix(EPSILON_OF)
            of_feature = feature != option and name not in ATTACKS_OF_ONE_RADIUS
            if of_feature and equals and feature not in epsilons:
                epsilons[feature] = _radius(option, value, text)
                text_parts.append(f"{option}={value}")
                continue
            if option not in allowed or not equals:
                raise ConfigError(
                    f"--attacks: {name} takes OPTION=VALUE with the options {', '.join(allowed)}. "
                    f"Received: {setting!r} in {text!r}"
                )
            if allowed[option] in options or (option == EPSILON and epsilon is not None):
                raise ConfigError(f"--attacks: {option} is given twice in {text!r}")
            parsed = _read(allowed[option], option, value, text)
            if option == EPSILON:
                epsilon = parsed
                continue
            text_parts.append(f"{option}={value}")
            options[allowed[option]] = parsed
        return cls(":".join(text_parts), name, options, epsilon, epsilons=epsilons)

    def at(self, epsilon: float) -> "AttackSpec":
        """Returns the same attack at exactly this radius."""
        return dataclasses.replace(self, epsilon=epsilon)

    @property
    def needs_quantized_features(self) -> bool:
        """Whether it clips or rounds its result, which only dequantized features allow."""
        return any(self.options.get(field) for field in BOUNDS.values())

    @property
    def takes_source(self) -> bool:
        """Whether the run of --transfer_from is for it."""
        return self.name == "transfer"

    @property
    def needs_source(self) -> bool:
        """Whether it cannot do without that run."""
        return self.takes_source

    def radii(self, epsilons: Sequence[float]) -> tuple[float | None, ...]:
        """Returns the radii to run: its own, else `epsilons`; (None,) for an attack without one."""
        if self.name in ATTACKS_WITHOUT_EPSILON:
            return (None,)
        return tuple(epsilons) if self.epsilon is None else (self.epsilon,)

    def _shares(self, radius: float) -> tuple[tuple[str, float], ...]:
        """Returns the radii of `epsilons` as shares of the others' radius."""
        if not radius and any(self.epsilons.values()):
            raise ConfigError(
                f"--attacks={self.text}: a radius of 0 for the other features has no shares. "
                f"Received: epsilon=0; name those features, {EPSILON_OF}NAME=0, and give the "
                "attack the radius of the rest"
            )
        return tuple((name, own and own / radius) for name, own in self.epsilons.items())

    def resolve(self, shared: AttackOptions) -> AttackOptions:
        """Returns `shared` with this attack's own options set."""
        values = dict(self.options)
        for field in BOUNDS.values():
            if field in values:
                values[field] = getattr(self.bounds, field) if values[field] else None
        options = dataclasses.replace(shared, **values)
        if options.round_to_levels is not None and options.clip_to_range is None:
            # A byte cannot hold a value outside the range.
            options = dataclasses.replace(options, clip_to_range=self.bounds.clip_to_range)
        return options

    def settings(self, shared: AttackOptions) -> dict[str, Any]:
        """Returns option -> value for all options it reads; rows with equal settings are equal.

        Those of `ADDED_OPTIONS` are left out where they have their defaults, so that the rows that
        an earlier version wrote count as equal.
        """
        options, default = self.resolve(shared), AttackOptions()
        return {
            **{f"{EPSILON_OF}{name}": radius for name, radius in self.epsilons.items()},
            **{
                name: getattr(options, field)
                for name, field in ATTACK_OPTIONS[self.name].items()
                if name not in ADDED_OPTIONS or getattr(options, field) != getattr(default, field)
            },
            **{name: getattr(options, field) is not None for name, field in BOUNDS.items()},
        }

    def build(
        self,
        epsilon: float | None,
        shared: AttackOptions,
        source: Callable[..., Any] | None = None,
        map_distance: MapDistance | None = None,
    ) -> Attack:
        """Builds the attack at one radius.

        Args:
            epsilon: One of `radii`.
            shared: The options that it does not set itself.
            source: Another model, `(features, frame_mask) -> logits`, for `transfer` and
                `surrogate`.
            map_distance: For `adaptive`; see `AdaptivePGD`.

        Raises:
            ConfigError: A value is invalid, or a needed `source` or `map_distance` is missing.
        """
        radius = 0.0 if epsilon is None else epsilon
        options = dataclasses.replace(self.resolve(shared), shares=self._shares(radius))
        try:
            if self.name in ("transfer", "surrogate"):
                if source is None and self.name == "surrogate":
                    raise ConfigError(
                        "the attack surrogate trains a student on frames of features. Received: a "
                        "run of raw clips"
                    )
                if source is None:
                    raise ConfigError("the attack transfer needs another run: --transfer_from")
                return Transfer(build_attack("pgd", radius, options), source)
            if self.name == "adaptive":
                if map_distance is None:
                    raise ConfigError(
                        "the attack adaptive aims at the global attention maps, and this model has "
                        "none"
                    )
                return build_adaptive(radius, options, map_distance)
            return build_attack(self.name, radius, options)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"--attacks={self.text}: {error}") from error


@dataclasses.dataclass(frozen=True)
class ImportedAttackSpec(AttackSpec):
    """An attack of the user's own: `module:Class:option=value`, a subclass of `Attack`.

    Its constructor gets, by keyword, those of these that it has arguments for: `epsilon`, `ball`,
    `clip_to_range`, `round_to_levels`, `map_distance` (None for a model without global attention
    maps) and `source`, the model of --transfer_from (left out where there is none). Its other
    arguments are its options. Without an `epsilon` it is run once.

    Attributes:
        factory: The class, or a function with such arguments that returns an attack.
    """

    factory: Callable[..., Any] | None = None

    @classmethod
    def read(cls, path: str, settings: Sequence[str], text: str) -> "ImportedAttackSpec":
        """Imports the class and reads the options.

        Raises:
            ConfigError: It cannot be imported, is no attack, or has no such option.
        """
        factory = import_object("attacks", path)
        if not callable(factory):
            raise ConfigError(f"--attacks={path} must name a class. Received: {factory!r}")
        taken = inspect.signature(factory).parameters
        own = [name for name in taken if name not in _FROM_THE_EVALUATION]
        allowed = [*own, *(option for option, field in BOUNDS.items() if field in taken)]
        options: dict[str, Any] = {}
        epsilons: dict[str, float] = {}
        epsilon = None
        text_parts = [path]
        for setting in settings:
            option, equals, value = (part.strip() for part in setting.partition("="))
            feature = option.removeprefix(EPSILON_OF)
            if equals and option == EPSILON and EPSILON in taken and epsilon is None:
                epsilon = _radius(option, value, text)
                continue
            text_parts.append(f"{option}={value}")
            if equals and option in allowed and BOUNDS.get(option, option) not in options:
                if option in BOUNDS:
                    options[BOUNDS[option]] = _read(BOUNDS[option], option, value, text)
                else:
                    options[option] = _literal(value)
            elif equals and feature != option and "ball" in taken and feature not in epsilons:
                epsilons[feature] = _radius(option, value, text)
            else:
                raise ConfigError(
                    f"--attacks: {path} takes OPTION=VALUE, each once, with the options "
                    f"{', '.join(allowed)}. Received: {setting!r} in {text!r}"
                )
        return cls(":".join(text_parts), path, options, epsilon, QUANTIZED, epsilons, factory)

    @property
    def takes_source(self) -> bool:
        """Whether its constructor has an argument `source`."""
        return "source" in self._taken

    @property
    def needs_source(self) -> bool:
        """Whether that argument has no default."""
        return self.takes_source and self._taken["source"].default is inspect.Parameter.empty

    def radii(self, epsilons: Sequence[float]) -> tuple[float | None, ...]:
        """Returns the radii to run; (None,) for an attack without one."""
        return super().radii(epsilons) if EPSILON in self._taken else (None,)

    def resolve(self, shared: AttackOptions) -> AttackOptions:
        """Returns `shared` with its bounds set; its other options are no fields of it."""
        bounds = {name: self.options[name] for name in BOUNDS.values() if name in self.options}
        return AttackSpec.resolve(dataclasses.replace(self, options=bounds), shared)

    def settings(self, shared: AttackOptions) -> dict[str, Any]:
        """Returns option -> value: what is given, what is shared, and the bounds."""
        options = self.resolve(shared)
        return {
            **{f"{EPSILON_OF}{name}": radius for name, radius in self.epsilons.items()},
            **({"norm_scope": options.norm_scope} if "ball" in self._taken else {}),
            **{k: v for k, v in self.options.items() if k not in BOUNDS.values()},
            **{name: getattr(options, field) is not None for name, field in BOUNDS.items()},
        }

    def build(
        self,
        epsilon: float | None,
        shared: AttackOptions,
        source: Callable[..., Any] | None = None,
        map_distance: MapDistance | None = None,
    ) -> Attack:
        """Builds the attack at one radius: see `AttackSpec.build`."""
        options = self.resolve(shared)
        shares = self._shares(0.0 if epsilon is None else epsilon)
        offered = {
            EPSILON: epsilon,
            "ball": Ball("l2", options.norm_scope, shares),
            "map_distance": map_distance,
            **{field: getattr(options, field) for field in BOUNDS.values()},
            **({} if source is None else {"source": source}),
        }
        given = {name: value for name, value in offered.items() if name in self._taken}
        own = {k: v for k, v in self.options.items() if k not in BOUNDS.values()}
        try:
            attack = self.factory(**given, **own)
        except Exception as error:
            raise ConfigError(f"--attacks={self.text}: {described(error)}") from error
        if not isinstance(attack, Attack) or attack.objective not in OBJECTIVES:
            raise ConfigError(
                f"--attacks={self.text} must give a yt8m_gat.attacks.Attack whose objective is one "
                f"of {', '.join(OBJECTIVES)}. Received: {attack!r}"
            )
        return attack

    @property
    def _taken(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.factory).parameters


# Arguments of an imported attack that are not its options.
_FROM_THE_EVALUATION = (EPSILON, "ball", "source", "map_distance", *BOUNDS.values())


def _literal(value: str) -> Any:
    """Reads true or false, a number, or else text."""
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _radius(option: str, value: str, text: str) -> float:
    radius = _read(EPSILON, option, value, text)
    if not 0 <= radius < float("inf"):
        raise ConfigError(
            f"--attacks: {option} must be at least 0, and finite. Received: {value!r} in {text!r}"
        )
    return radius


def _read(field: str, option: str, value: str, text: str) -> Any:
    """Parses the value of an option into the type of its field of `AttackOptions`."""
    try:
        if field in _TRUE_OR_FALSE:
            return _BOOLEANS[value.lower()]
        if field in NAMES:
            if value not in NAMES[field]:
                raise ConfigError(
                    f"--attacks: {option} must be one of {', '.join(NAMES[field])}. Received: "
                    f"{value!r} in {text!r}"
                )
            return value
        return float(value) if field in (EPSILON, "step_size", "map_weight") else int(value)
    except (KeyError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        kind = "true or false" if isinstance(error, KeyError) else "a number"
        raise ConfigError(
            f"--attacks: {option} must be {kind}. Received: {value!r} in {text!r}"
        ) from error
