"""Seeds of the parts of a layer, from the one seed of the layer."""

import zlib

import numpy as np


def derive_seed(seed: int | None, role: str) -> int | None:
    """Gives the seed of one part: a function of the layer's seed and of what the part is for.

    Two parts of one shape and one seed would start as equal matrices.

    Args:
        seed: the layer's seed; `None`, the global seed of Keras, stays `None`.
        role: name of the part, unique within the layer.
    """
    if seed is None:
        return None
    sequence = np.random.SeedSequence((seed, zlib.crc32(role.encode())))
    return int(sequence.generate_state(1)[0] >> 1)
