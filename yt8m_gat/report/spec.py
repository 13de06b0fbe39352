"""Specifications of attacks in words."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

_NAMES = {
    "noise": "noise of the same norm",
    "fgm": "fast gradient",
    "pgd": "PGD",
    "pgd_margin": "PGD on the margin",
    "apgd": "APGD",
    "auto": "worst of APGD and square search",
    "sparse": "fewest frames",
    "transfer": "PGD on another model",
    "surrogate": "PGD on a student of its answers",
    "square": "square search",
    "random_search": "random search",
    "hop_skip_jump": "search by decisions",
    "adaptive": "PGD that moves the map too",
    "temporal": "temporal (TAF)",
    "deepfool": "DeepFool",
}
_OPTIONS = {
    "steps": "{} steps",
    "restarts": "{} restarts",
    "queries": "{} queries",
}
_SWITCHES = {
    "round=true": "rounded to bytes",
    "clip=true": "within the range of bytes",
    "loss=margin": "on the margin",
    "loss=dlr": "on the DLR",
}


def spec_title(spec: str) -> str:
    """Returns `PGD, l-inf, 100 steps` for `pgd_linf:steps=100`; unknown parts stay unchanged."""
    name, *settings = spec.split(":")
    family = name.removesuffix("_linf")
    words = [_NAMES.get(family, family)]
    if family != name:
        words.append("l-inf")
    for setting in settings:
        key, _, value = setting.partition("=")
        text = _OPTIONS[key].format(value) if key in _OPTIONS and value else setting
        words.append(_SWITCHES.get(setting, text))
    return ", ".join(words)


class Ball(NamedTuple):
    """The properties that attacks must share for their strengths to be compared.

    Attributes:
        norm: What the l2 norm is taken over, `linf`, or "" if the row has no norm; and the radii
            that single features have instead.
        rounded: Whether the result is rounded to bytes, which may leave the ball.
        epsilon: The radius.
    """

    norm: str
    rounded: bool
    epsilon: float

    @property
    def words(self) -> str:
        """A description: `epsilon 0.5, l2 norm of each frame`."""
        words = [f"epsilon {self.epsilon:g}"]
        if self.norm:
            words.append(_NORMS.get(self.norm, self.norm))
        return ", ".join([*words, *(["rounded to bytes"] if self.rounded else [])])


_NORMS = {
    "frame": "l2 norm of each frame",
    "example": "l2 norm over the frames of each feature",
    "joint": "l2 norm over all frames and features",
    "linf": "largest change of any number",
}


def ball_of(row: Mapping[str, Any]) -> Ball | None:
    """Returns the ball of an attacked row; None for an attack without a radius."""
    epsilon = row["epsilon"]
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
        return None
    if not 0 <= epsilon < math.inf:
        return None
    options = options_of(row)
    name = row["attack"].split(":")[0]
    norm = "linf" if name.endswith("_linf") else str(options.get("norm_scope") or "")
    own = [f"{key}={value}" for key, value in options.items() if key.startswith("epsilon_")]
    norm = ", ".join([norm, *sorted(own)])
    return Ball(norm, options.get("round") is True, float(epsilon))


def options_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the options of a row's attack; empty if the file has none."""
    options = row.get("options")
    return options if isinstance(options, dict) else {}


def attack_title(row: Mapping[str, Any]) -> str:
    """Returns the attack of a row in words, with its actual steps or queries."""
    spec, options = row["attack"], options_of(row)
    for name in ("steps", "queries"):
        if name in options and f":{name}=" not in spec:
            spec += f":{name}={options[name]}"
    return spec_title(spec)


def spec_order(spec: str) -> tuple[int, int, str]:
    """Returns a sort key of specifications: noise, one step, more steps, the others."""
    family = spec.split(":")[0].removesuffix("_linf")
    names = list(_NAMES)
    return (names.index(family) if family in names else len(names), len(spec), spec)
