"""Checks that an evaluation makes before it measures anything."""

import os
from collections.abc import Sequence

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.import_path import require_trust
from yt8m_gat.pipeline.evaluation_options import EvaluationOptions
from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.run_folder import RunFolder


def check_options(
    options: EvaluationOptions, specs: Sequence[AttackSpec], config: RunConfig
) -> None:
    """Refuses options that the run, or other options, make impossible.

    Args:
        options: The options of the evaluation.
        specs: The attacks that they name.
        config: The run.

    Raises:
        ConfigError: An option is impossible; the message names the flags and the remedy.
    """
    data = config.data
    if not data.frame_features and options.needing_frames:
        raise ConfigError(
            f"{', '.join(options.needing_frames)} need a frame-level run. Received: a run of "
            f"--model={config.model.name}"
        )
    cam = [f"--{name}" for name in ("class_activation", "true_spans") if getattr(options, name)]
    cam += ["--attacks=temporal"] if any(spec.name == "temporal" for spec in specs) else []
    if config.model.members and cam:
        raise ConfigError(
            f"{', '.join(cam)} need the frames that logits depend on, and an ensemble has none: "
            "evaluate its members"
        )
    options.corruptions_on(data.clips is not None)  # Refuses those of the other kind.
    if options.corruption_draws != "frame" and (data.clips is None or not options.corruptions):
        raise ConfigError("--corruption_draws is for --corruptions of a run on raw clips")
    bounded = options.clip_to_range or options.round_to_levels
    bounded = bounded or any(spec.needs_quantized_features for spec in specs)
    if bounded and not data.has_levels:
        reason = f"sees them l2-normalized (--normalize={data.normalize})"
        if data.feature_types:
            reason = f"reads floats (--feature_types={','.join(data.feature_types)})"
        raise ConfigError(
            "--clip_to_range and --round_to_levels are about dequantized features, and this "
            f"run {reason}: they have neither that range nor levels. Leave them out"
        )
    for spec in specs:
        for feature in spec.epsilons:
            if feature not in data.sizes:
                raise ConfigError(
                    f"--attacks={spec.text}: epsilon_NAME is the radius of one of the run's "
                    f"features: {', '.join(data.sizes)}. Received: epsilon_{feature}"
                )
    if data.num_classes < 2 and any(spec.name == "deepfool" for spec in specs):
        raise ConfigError(
            "the attack deepfool looks for where the class of the highest score changes: it "
            "needs a run of at least two classes. Received: a run of 1"
        )
    for spec in specs:
        if spec.needs_source and options.transfer_from is None:
            raise ConfigError(f"the attack {spec.name} needs another run: --transfer_from")
    if options.worst_case_only:
        _check_worst_case_only(options, specs)
    if options.embeddings and not (specs or options.protocol or options.sanity_checks):
        raise ConfigError("--embeddings compares layers under the first attack: give --attacks")
    if options.transfer_from is not None and not (
        any(spec.takes_source for spec in specs) or options.protocol or options.sanity_checks
    ):
        raise ConfigError(
            "--transfer_from is for the attack transfer: give --attacks=transfer, --protocol "
            "or --sanity_checks"
        )


def _check_worst_case_only(options: EvaluationOptions, specs: Sequence[AttackSpec]) -> None:
    flags = ("protocol", "sanity_checks", "attention", "embeddings", "compare_to")
    if needing_rows := [f"--{flag}" for flag in flags if getattr(options, flag)]:
        raise ConfigError(
            "--worst_case_only leaves out the clips that are broken already, and so has no rows of "
            f"attacks. Received: {', '.join(needing_rows)}, which need them"
        )
    if not specs:
        raise ConfigError("--worst_case_only is about attacks: give --attacks=pgd,auto, say")
    if without := [spec.text for spec in specs if None in spec.radii((0.0,))]:
        raise ConfigError(
            "--worst_case_only is the worst within a radius. Received: "
            f"--attacks={without[0]}, which has none"
        )


def other_run(
    flag: str | None, path: str | os.PathLike | None, config: RunConfig, trust_code: bool
) -> tuple[RunFolder, RunConfig] | None:
    """Opens another run, which must see the same data; returns None without a path.

    Args:
        flag: The flag that names it: `transfer_from`, `teacher`, or `compare_to`, whose run may
            have other features; None: a member of an ensemble, which must have them in one order.
        path: Its folder, or None.
        config: The run under test.
        trust_code: Run the code that the other run names.

    Raises:
        ConfigError: The folder holds no run, or one on other data.
        UntrustedCodeError: The run names code that is not trusted.
    """
    if path is None:
        return None
    other = RunConfig.load(path, flag)
    named = f"--{flag}={path}" if flag else os.fspath(path)
    compared = ["num_classes", "label_map", "frame_features"]
    if flag != "compare_to":
        compared += ["sizes", "feature_types", "normalize", "max_frames", "clips"]
    different = [
        f"{name}: {getattr(other.data, name)!r} != {getattr(config.data, name)!r}"
        for name in compared
        if getattr(other.data, name) != getattr(config.data, name)
    ]
    if flag is None and not different and list(other.data.sizes) != list(config.data.sizes):
        different = [f"order of features: {list(other.data.sizes)} != {list(config.data.sizes)}"]
    if different:
        raise ConfigError(
            f"{named} holds a run on other data (its != ours): {'; '.join(different)}"
        )
    require_trust(other, trust_code, named)
    return RunFolder(path), other
