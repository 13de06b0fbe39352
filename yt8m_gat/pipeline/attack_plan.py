"""The attacks of an evaluation, built from its flags."""

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any

from yt8m_gat.attacks import Attack, AttackOptions
from yt8m_gat.attacks.adaptive import MapDistance
from yt8m_gat.config import RunConfig
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.robustness.attack_spec import PIXELS, QUANTIZED, AttackSpec, Bounds
from yt8m_gat.robustness.protocol import PROTOCOL_DECISIONS, PROTOCOL_QUERIES, sceptic_attacks
from yt8m_gat.robustness.sanity import (
    ENOUGH_QUERIES,
    SWEEP,
    radius_scale,
    sanity_specs,
    unbounded_epsilon,
)
from yt8m_gat.robustness.surrogate import Surrogate
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.load import load_run


@dataclasses.dataclass(frozen=True)
class PlannedAttack:
    """One row: the attack to run, and what distinguishes it from other rows."""

    attack: Attack
    identity: dict[str, Any]
    surrogate: Surrogate | None = None

    def ready(self) -> Attack:
        """Returns the attack, once the surrogate that it is made on has been trained."""
        if self.surrogate is not None:
            self.surrogate.train()
        return self.attack

    @property
    def description(self) -> str:
        """The text that the progress bar shows."""
        epsilon = self.identity["epsilon"]
        return self.identity["attack"] + ("" if epsilon is None else f" {epsilon:g}")


def first_radius(options: EvaluationOptions, config: RunConfig) -> float:
    """Returns the radius at which the checks compare attacks."""
    return (*options.epsilons, config.objective.epsilon)[0]


def shared_options(options: EvaluationOptions, config: RunConfig) -> AttackOptions:
    """Returns the options that hold where a specification sets none."""
    bounds, pixels = _bounds(config), config.data.clips is not None
    return AttackOptions(
        norm_scope=options.norm_scope or config.objective.norm_scope,
        steps=options.attack_steps,
        restarts=options.attack_restarts,
        queries=options.attack_queries,
        # A pixel outside of its range is no picture.
        clip_to_range=bounds.clip_to_range if options.clip_to_range or pixels else None,
        round_to_levels=bounds.round_to_levels if options.round_to_levels else None,
    )


def _bounds(config: RunConfig) -> Bounds:
    return QUANTIZED if config.data.clips is None else PIXELS


def plan_attacks(
    options: EvaluationOptions,
    specs: Iterable[AttackSpec],
    config: RunConfig,
    source_run: tuple[RunFolder, RunConfig] | None,
    map_distance: MapDistance | None,
    surrogate: Surrogate | None = None,
) -> list[PlannedAttack]:
    """Returns all attacks to run, each setting once.

    Args:
        options: The options of the evaluation.
        specs: The attacks that they name.
        config: The configuration of the run under test.
        source_run: The run that the attack `transfer` uses as its source.
        map_distance: What `adaptive` raises; None: the model has no global attention maps.
        surrogate: The student that the attack `surrogate` uses; None: the run has none.
    """
    epsilons = tuple(options.epsilons) or (config.objective.epsilon,)
    pixels = config.data.clips is not None
    scale = radius_scale(config.data.clips.crop_size if config.data.clips else None)
    shared = shared_options(options, config)
    bounds = _bounds(config)
    specs = [*specs]
    if options.protocol == "sceptic":
        rounded = config.data.has_levels
        for available, reason in (
            (map_distance, "adaptive: this model has no global attention maps"),
            (rounded, "pgd:round=true: floats and l2-normalized features have no levels"),
            (surrogate, "surrogate: its student reads frames of features"),
            (source_run, "transfer: it needs --transfer_from"),
            (config.data.num_classes > 1, "deepfool: it needs two classes"),
        ):
            if not available:
                print(f"--protocol={options.protocol} leaves out {reason}", file=sys.stderr)
        specs += sceptic_attacks(
            epsilons,
            transfer=source_run is not None,
            surrogate=surrogate is not None,
            adaptive=map_distance is not None,
            rounded=rounded,
            deepfool=config.data.num_classes > 1,
            scale=scale,
        )
    if options.sanity_checks or options.protocol:
        frames, features = config.data.max_frames, len(config.data.sizes)
        unbounded = unbounded_epsilon(shared.norm_scope, frames, features, scale)
        radii = (*(scale * epsilon for epsilon in SWEEP), unbounded)
        queries = (ENOUGH_QUERIES, ENOUGH_QUERIES)
        if options.protocol:
            queries = (PROTOCOL_QUERIES, PROTOCOL_DECISIONS)
        needed = sanity_specs(epsilons[0], source_run is not None, radii, *queries)
        specs += [AttackSpec.parse(text).at(epsilon) for text, epsilon in needed]
    source, source_identity = None, {}
    if source_run is not None:
        other, other_config = source_run
        loaded = load_run(other, other_config, trust_code=options.trust_code)
        source = build_evaluator(loaded.classifier, other_config).forward
        source_identity = {"transfer_weights": loaded.digest}
    planned: list[PlannedAttack] = []
    seen = []
    for spec in (dataclasses.replace(spec, bounds=bounds) for spec in specs):
        settings = spec.settings(shared)
        radii = epsilons
        if pixels and spec.name == "temporal" and not options.epsilons:
            # The others' radius is the l2 norm of a frame; this one counts levels of a pixel.
            radii = (config.objective.temporal_epsilon,)
        for epsilon in spec.radii(radii):
            if (key := (spec.name, epsilon, settings)) in seen:
                continue
            seen.append(key)
            identity = {"attack": spec.text, "epsilon": epsilon, "options": settings}
            if spec.takes_source:
                identity |= source_identity
            student = surrogate if spec.name == "surrogate" else None
            if student is not None:
                # Its training reads the clips with these.
                identity |= {"surrogate_steps": student.steps, "surrogate_epsilon": student.epsilon}
            attack = spec.build(epsilon, shared, student or source, map_distance)
            planned.append(PlannedAttack(attack, identity, student))
    return planned
