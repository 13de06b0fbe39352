"""Identifiers for features, for use in the names of layers and signatures."""

import re
from collections.abc import Iterable

_IDENTIFIER = re.compile("[A-Za-z0-9][A-Za-z0-9_]*")
# The names of other inputs of models and signatures.
_TAKEN = ("frame_mask", "num_frames")


def feature_identifiers(names: Iterable[str]) -> dict[str, str]:
    """Maps each feature to a name that Keras and TensorFlow accept.

    Feature names are keys of records and may be any text. A name of ASCII letters, digits and
    underscores that begins with a letter or a digit stays as it is. In any other name, every other
    character becomes an underscore; if the result is not a valid name or is taken, the identifier
    is `feature_` and the feature's place.

    Args:
        names: The features, all different, in order.

    Returns:
        Feature name -> identifier, in order; no two identifiers are the same.

    Example:
        >>> feature_identifiers(["rgb", "AUDIO/feature", "Größe:1", "音"])
        {'rgb': 'rgb', 'AUDIO/feature': 'AUDIO_feature', 'Größe:1': 'Gr__e_1', '音': 'feature_3'}
    """
    names = list(names)
    identifiers: dict[str, str] = {}
    taken = set(_TAKEN)

    def take(name: str, identifier: str) -> bool:
        free = _IDENTIFIER.fullmatch(identifier) is not None and identifier not in taken
        if free:
            identifiers[name] = identifier
            taken.add(identifier)
        return free

    # Names that are identifiers already go first, so that no other feature takes them.
    rest = [name for name in names if not take(name, name)]
    for name in rest:
        if not take(name, re.sub("[^A-Za-z0-9_]", "_", name)):
            place = names.index(name)
            while not take(name, f"feature_{place}"):
                place += len(names)
    return {name: identifiers[name] for name in names}
