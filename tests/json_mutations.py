"""Values that JSON may hold where nobody expects them."""

import json
import random

HOSTILE = [
    *map(
        json.dumps,
        [None, [], {}, [1], [[]], [{}], [None], {"a": 1}, "", "a", "8", "\u202e\x1b[2J", "\ud800"],
    ),
    *("true", "false", "0", "-1", "3", "0.5", "-0.5", "1e308", "NaN", "1e400", "-Infinity"),
    str(2**63 - 1),
    "1" + "0" * 400,
    "1" + "0" * 5000,
    "[" * 60 + "]" * 60,
    "[" * 900 + "]" * 900,
    "[" * 100_000,
    "{",
]


def places(values, path=()):
    """Paths of all values of some JSON, those of lists too."""
    yield path
    if isinstance(values, dict | list):
        for key in values if isinstance(values, dict) else range(len(values)):
            yield from places(values[key], (*path, key))


def mutated(values, path, hostile):
    """The text of `values` with `hostile` in one place."""
    if not path:
        return hostile
    values = json.loads(json.dumps(values))
    node = values
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = "@@"
    return json.dumps(values).replace('"@@"', hostile)


def mutations(values, num_each):
    """Each place with so many of the hostile values, drawn by a fixed seed."""
    rng = random.Random(0)
    for path in places(values):
        for hostile in rng.sample(HOSTILE, num_each):
            yield mutated(values, path, hostile)
