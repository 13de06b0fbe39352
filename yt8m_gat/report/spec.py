"""Attacks' specifications in words."""

_NAMES = {
    "noise": "noise of the same norm",
    "fgm": "fast gradient",
    "pgd": "PGD",
    "pgd_margin": "PGD on the margin",
    "transfer": "PGD on another model",
    "square": "square search",
    "random_search": "random search",
    "adaptive": "PGD that moves the map too",
    "temporal": "temporal (TAF)",
    "deepfool": "DeepFool",
}
_OPTIONS = {
    "steps": "{} steps",
    "restarts": "{} restarts",
    "queries": "{} queries",
}
_SWITCHES = {"round=true": "rounded to bytes", "clip=true": "within the range of bytes"}


def spec_title(spec: str) -> str:
    """`pgd_linf:steps=100` as `PGD, l-inf, 100 steps`; what is unknown as it is."""
    name, *settings = spec.split(":")
    family = name.removesuffix("_linf")
    words = [_NAMES.get(family, family)]
    if family != name:
        words.append("l-inf")
    for setting in settings:
        key, _, value = setting.partition("=")
        known = _OPTIONS[key].format(value) if key in _OPTIONS and value else setting
        words.append(_SWITCHES.get(setting, known))
    return ", ".join(words)


def spec_order(spec: str) -> tuple[int, int, str]:
    """Sorts specifications as a sceptic reads them: noise, one step, more steps, the others."""
    family = spec.split(":")[0].removesuffix("_linf")
    names = list(_NAMES)
    return (names.index(family) if family in names else len(names), len(spec), spec)
