"""The protocol `sceptic`: the attacks that a sceptical reviewer would ask for."""

from collections.abc import Sequence

from yt8m_gat.robustness.attack_spec import AttackSpec
from yt8m_gat.robustness.sanity import SWEEP

PROTOCOLS = ("sceptic",)
# Queries of its search without gradients, whose row has the figures after fewer, too.
PROTOCOL_QUERIES = 5000
# Queries of its search that sees only decisions.
PROTOCOL_DECISIONS = 2000


def sceptic_attacks(
    epsilons: Sequence[float],
    *,
    transfer: bool,
    surrogate: bool,
    adaptive: bool,
    rounded: bool,
    deepfool: bool = True,
    scale: float = 1.0,
) -> list[AttackSpec]:
    """Returns the attacks of the sceptic's table; the clean row comes on top.

    They are the fast gradient; noise of the same norm; PGD of 20 and 100 steps, and of 20 with 5
    restarts (worst per clip, by the loss); the margin; PGD on normalized logits, which no scaling
    hides; transfer from another run, and from a student of the model's answers; two searches
    without gradients, and one that sees only decisions; an attack that aims at the attention maps
    too; PGD rounded back to bytes; DeepFool; and PGD over the radii from 0.05 to 8, times `scale`,
    on the loss and on the difference of logits ratio.

    Args:
        epsilons: Radii of all attacks but DeepFool and the sweep.
        transfer: Whether there is another run to transfer from.
        surrogate: Whether there is a student of the run, see `Surrogate`.
        adaptive: Whether the model has global attention maps.
        rounded: Whether its features are only dequantized, so that they have levels.
        deepfool: Whether it has at least two classes.
        scale: See `yt8m_gat.robustness.sanity.radius_scale`.
    """
    texts = [
        # Clips and attention profiles are shown under the first attack.
        "fgm",
        "noise",
        "pgd:steps=20",
        "pgd:steps=100",
        "pgd:steps=20:restarts=5",
        "pgd_margin:steps=20",
        "pgd:steps=20:loss=normalized",
        *(["transfer:steps=20"] if transfer else []),
        *(["surrogate:steps=20"] if surrogate else []),
        f"square:queries={PROTOCOL_QUERIES}",
        "random_search",
        f"hop_skip_jump:queries={PROTOCOL_DECISIONS}",
        *(["adaptive:steps=20"] if adaptive else []),
        *(["pgd:steps=20:round=true"] if rounded else []),
    ]
    specs = [AttackSpec.parse(text).at(epsilon) for text in texts for epsilon in epsilons]
    sweep = [
        AttackSpec.parse(text).at(scale * epsilon)
        for text in ("pgd:steps=20", "pgd:steps=20:loss=dlr")
        for epsilon in SWEEP
    ]
    return [*specs, *([AttackSpec.parse("deepfool")] if deepfool else []), *sweep]
