"""Attacks as the command line writes them: `name:option=value:option=value`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from yt8m_gat.attacks import (
    ATTACKS_WITHOUT_EPSILON,
    OBJECTIVES,
    PIXEL_LEVELS,
    PIXEL_RANGE,
    Attack,
    AttackOptions,
    Transfer,
    build_attack,
)
from yt8m_gat.attacks.adaptive import MapDistance
from yt8m_gat.attacks.registry import ADDED_OPTIONS, ATTACK_OPTIONS, build_adaptive
from yt8m_gat.config import NORM_SCOPES, ConfigError
from yt8m_gat.data.quantization import OFFSET, STEP


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
# Options that every attack takes -> field of `AttackOptions` and of `Bounds`.
BOUNDS = {"clip": "clip_to_range", "round": "round_to_levels"}
# Fields of `AttackOptions` that are one of several names.
NAMES = {"norm_scope": NORM_SCOPES, "objective": OBJECTIVES}


@dataclasses.dataclass(frozen=True)
class AttackSpec:
    """One attack of `--attacks`.

    Attributes:
        text: The specification without its epsilon: the attack's name in tables and JSON.
        name: Key of `ATTACK_OPTIONS`.
        options: Fields of `AttackOptions` that it sets; those of `BOUNDS` are true or false.
        epsilon: Its own radius; None: the radii of `--epsilons` are used.
        bounds: The bounds that it keeps if it is told to.
    """

    text: str
    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    epsilon: float | None = None
    bounds: Bounds = QUANTIZED

    @classmethod
    def parse(cls, text: str) -> "AttackSpec":
        """Reads `pgd`, `pgd:steps=100:restarts=5`, `pgd:round=true`, `fgm:epsilon=8`, ...

        Raises:
            ConfigError: The attack or an option is unknown, or a value does not parse; the
                message lists the valid ones.
        """
        name, *settings = (part.strip() for part in text.split(":"))
        if name not in ATTACK_OPTIONS:
            raise ConfigError(
                f"--attacks must be of {', '.join(ATTACK_OPTIONS)}. Received: {text!r}"
            )
        allowed = {**ATTACK_OPTIONS[name], **BOUNDS}
        if name not in ATTACKS_WITHOUT_EPSILON:
            allowed[EPSILON] = EPSILON
        options: dict[str, Any] = {}
        epsilon = None
        text_parts = [name]
        for setting in settings:
            option, equals, value = (part.strip() for part in setting.partition("="))
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
        return cls(":".join(text_parts), name, options, epsilon)

    def at(self, epsilon: float) -> "AttackSpec":
        """Returns the same attack at exactly this radius."""
        return dataclasses.replace(self, epsilon=epsilon)

    @property
    def needs_quantized_features(self) -> bool:
        """Whether it clips or rounds its result, which only dequantized features allow."""
        return any(self.options.get(field) for field in BOUNDS.values())

    def radii(self, epsilons: Sequence[float]) -> tuple[float | None, ...]:
        """Returns the radii to run: its own, else `epsilons`; (None,) for an attack without one."""
        if self.name in ATTACKS_WITHOUT_EPSILON:
            return (None,)
        return tuple(epsilons) if self.epsilon is None else (self.epsilon,)

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
            source: Another model, `(features, frame_mask) -> logits`, for `transfer`.
            map_distance: For `adaptive`; see `AdaptivePGD`.

        Raises:
            ConfigError: A value is invalid, or a needed `source` or `map_distance` is missing.
        """
        options = self.resolve(shared)
        radius = 0.0 if epsilon is None else epsilon
        try:
            if self.name == "transfer":
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


def _read(field: str, option: str, value: str, text: str) -> Any:
    """Parses the value of an option into the type of its field of `AttackOptions`."""
    try:
        if field in BOUNDS.values() or field == "random_start":
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
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
