"""Attacks as the command line writes them: `name:option=value:option=value`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from yt8m_gat.attacks import ATTACKS_WITHOUT_EPSILON, Attack, AttackOptions, Transfer, build_attack
from yt8m_gat.attacks.adaptive import MapDistance
from yt8m_gat.attacks.registry import ATTACK_OPTIONS, build_adaptive
from yt8m_gat.config import NORM_SCOPES, ConfigError
from yt8m_gat.data.quantization import OFFSET, STEP

# What dequantization can give: its levels 0 to 255.
QUANTIZED_RANGE = (OFFSET, OFFSET + 255 * STEP)
QUANTIZATION_LEVELS = (STEP, OFFSET)

EPSILON = "epsilon"
# Options that every attack takes -> field of `AttackOptions`.
BOUNDS = {"clip": "clip_to_range", "round": "round_to_levels"}


@dataclasses.dataclass(frozen=True)
class AttackSpec:
    """One attack of `--attacks`.

    Attributes:
        text: The specification without its epsilon, as tables and JSON call the attack.
        name: Key of `ATTACK_OPTIONS`.
        options: Fields of `AttackOptions` that it sets.
        epsilon: Its own radius, before those of `--epsilons`; None: those.
    """

    text: str
    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    epsilon: float | None = None

    @classmethod
    def parse(cls, text: str) -> "AttackSpec":
        """Reads `pgd`, `pgd:steps=100:restarts=5`, `pgd:round=true`, `fgm:epsilon=8`, ...

        Raises:
            ConfigError: The attack or an option is unknown, or a value does not read as one; the
                message names those that there are.
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
        kept = [name]
        for setting in settings:
            option, equals, value = (part.strip() for part in setting.partition("="))
            if option not in allowed or not equals:
                raise ConfigError(
                    f"--attacks: {name} takes OPTION=VALUE with the options {', '.join(allowed)}. "
                    f"Received: {setting!r} in {text!r}"
                )
            if allowed[option] in options or (option == EPSILON and epsilon is not None):
                raise ConfigError(f"--attacks: {option} is there twice in {text!r}")
            read = _read(allowed[option], option, value, text)
            if option == EPSILON:
                epsilon = read
                continue
            kept.append(f"{option}={value}")
            options[allowed[option]] = read
        return cls(":".join(kept), name, options, epsilon)

    def at(self, epsilon: float) -> "AttackSpec":
        """The same attack with a radius of its own, to the last digit."""
        return dataclasses.replace(self, epsilon=epsilon)

    @property
    def needs_quantized_features(self) -> bool:
        """Whether it bounds or rounds what it gives."""
        return any(self.options.get(field) for field in BOUNDS.values())

    def radii(self, epsilons: Sequence[float]) -> tuple[float | None, ...]:
        """The radii at which it is run: its own, or `epsilons`; (None,) if it has none."""
        if self.name in ATTACKS_WITHOUT_EPSILON:
            return (None,)
        return tuple(epsilons) if self.epsilon is None else (self.epsilon,)

    def resolve(self, shared: AttackOptions) -> AttackOptions:
        """`shared` with its own options put in."""
        options = dataclasses.replace(shared, **self.options)
        if options.round_to_levels is not None and options.clip_to_range is None:
            # A byte holds nothing beyond the range.
            options = dataclasses.replace(options, clip_to_range=QUANTIZED_RANGE)
        return options

    def settings(self, shared: AttackOptions) -> dict[str, Any]:
        """Option -> value, of all that the attack reads: what makes two rows the same."""
        options = self.resolve(shared)
        return {
            **{name: getattr(options, field) for name, field in ATTACK_OPTIONS[self.name].items()},
            **{name: getattr(options, field) is not None for name, field in BOUNDS.items()},
        }

    def build(
        self,
        epsilon: float | None,
        shared: AttackOptions,
        source: Callable[..., Any] | None = None,
        map_distance: MapDistance | None = None,
    ) -> Attack:
        """The attack at one radius.

        Args:
            epsilon: One of `radii`.
            shared: What it does not set itself.
            source: Another model, `(features, frame_mask) -> logits`, for `transfer`.
            map_distance: For `adaptive`; see `AdaptivePGD`.

        Raises:
            ConfigError: A value cannot be, or `source` or `map_distance` is needed and missing.
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
    """The value of an option, in the type of its field of `AttackOptions`."""
    try:
        if field in BOUNDS.values() or field == "random_start":
            chosen = {"true": True, "1": True, "false": False, "0": False}[value.lower()]
            if field == "random_start":
                return chosen
            bounds = {"clip_to_range": QUANTIZED_RANGE, "round_to_levels": QUANTIZATION_LEVELS}
            return bounds[field] if chosen else None
        if field == "norm_scope":
            if value not in NORM_SCOPES:
                raise ConfigError(
                    f"--attacks: norm_scope must be one of {', '.join(NORM_SCOPES)}. Received: "
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
