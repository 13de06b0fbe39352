"""Seeds for the parts of a layer, derived from the seed of the layer."""

import zlib

import numpy as np


def derive_seed(seed: int | None, role: str) -> int | None:
    """Derives the seed of one part from the layer's seed and the part's name.

    Two parts with the same shape and seed would start as equal matrices.

    Args:
        seed: the layer's seed; `None` (the global seed of Keras) stays `None`.
        role: name of the part, unique within the layer.
    """
    if seed is None:
        return None
    sequence = np.random.SeedSequence((seed, zlib.crc32(role.encode())))
    return int(sequence.generate_state(1)[0] >> 1)
