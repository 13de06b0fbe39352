"""Names of features as parts of names of layers and signatures."""

import re
from collections.abc import Iterable

_IDENTIFIER = re.compile("[A-Za-z0-9][A-Za-z0-9_]*")
# Names of other inputs of models and signatures.
_TAKEN = ("frame_mask", "num_frames")


def feature_identifiers(names: Iterable[str]) -> dict[str, str]:
    """A name that Keras and TensorFlow take for each feature, whatever the feature is called.

    The names of features are keys of records, any text. One of ASCII letters, digits and
    underscores that begins with a letter or a digit stays as it is. In any other one each other
    character becomes an underscore; where that is no such name either, or another feature's, it is
    `feature_` and the feature's place.

    Args:
        names: The features, all different, in order.

    Returns:
        Feature name -> identifier, in order; no two identifiers are the same.

    Example:
        >>> feature_identifiers(["rgb", "AUDIO/feature", "Größe:1", "音"])
        {'rgb': 'rgb', 'AUDIO/feature': 'AUDIO_feature', 'Größe:1': 'Gr__e_1', '音': 'feature_3'}
    """
    names = list(names)
    found: dict[str, str] = {}
    taken = set(_TAKEN)

    def take(name: str, identifier: str) -> bool:
        free = _IDENTIFIER.fullmatch(identifier) is not None and identifier not in taken
        if free:
            found[name] = identifier
            taken.add(identifier)
        return free

    # Those that are identifiers already go first: no other one takes their name.
    rest = [name for name in names if not take(name, name)]
    for name in rest:
        if not take(name, re.sub("[^A-Za-z0-9_]", "_", name)):
            place = names.index(name)
            while not take(name, f"feature_{place}"):
                place += len(names)
    return {name: found[name] for name in names}
