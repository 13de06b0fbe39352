"""Which faults `make mutate` plants: all that a small module can have, and nothing else."""

import ast

from mutants import drawn, mutants_of

SOURCE = '''
"""Text with 1 < 2."""

LIMIT: Final[int] = 3


def share(values: list[int] | None = None, strict: bool = True) -> float:
    """Nothing here < changes."""
    if values is None or not strict:
        raise ValueError(f"{1 + 1} values, at least {LIMIT - 1}")
    total = 0.5  # 1 + 1
    for value in values:
        total += -value * 2
    return total if len(values) >= 2 else (total - 1) // 4
'''


def changes(source):
    return [mutant.describe(source).split(": ", 1)[1] for mutant in mutants_of(source)]


def test_every_operator_comparison_boolean_and_number_is_changed_once():
    function = "def share(values: list[int] | None = None, strict: bool = True) -> float:"
    ending = "return total if len(values) >= 2 else (total - 1) // 4"
    assert changes(SOURCE) == [
        "LIMIT: Final[int] = 3  ->  LIMIT: Final[int] = 4",
        f"{function}  ->  {function.replace('True', 'False')}",
        "if values is None or not strict:  ->  if values is not None or not strict:",
        "if values is None or not strict:  ->  if values is None and not strict:",
        "if values is None or not strict:  ->  if values is None or strict:",
        "total = 0.5 # 1 + 1  ->  total = 1.0 # 1 + 1",
        "total += -value * 2  ->  total -= -value * 2",
        "total += -value * 2  ->  total += +value * 2",
        "total += -value * 2  ->  total += -value / 2",
        "total += -value * 2  ->  total += -value * 3",
        f"{ending}  ->  {ending.replace('>=', '>')}",
        f"{ending}  ->  {ending.replace('2', '3')}",
        f"{ending}  ->  {ending.replace('-', '+')}",
        f"{ending}  ->  {ending.replace('1', '2')}",
        f"{ending}  ->  {ending.replace('//', '*')}",
        f"{ending}  ->  {ending.replace('4', '5')}",
    ]


def test_every_mutant_is_a_module_and_the_lines_are_its_own():
    for mutant in mutants_of(SOURCE):
        ast.parse(mutant.applied(SOURCE))
        differing = [
            number
            for number, (ours, theirs) in enumerate(
                zip(SOURCE.split("\n"), mutant.applied(SOURCE).split("\n"), strict=True), 1
            )
            if ours != theirs
        ]
        assert differing == [mutant.line]


def test_text_that_is_not_ascii_moves_no_mutant():
    source = 'x = {"ä": 1 < 2}\n'
    assert [m.applied(source) for m in mutants_of(source)] == [
        'x = {"ä": 2 < 2}\n',
        'x = {"ä": 1 <= 2}\n',
        'x = {"ä": 1 < 3}\n',
    ]


def test_a_draw_is_fixed_by_its_seed_and_gives_every_room_its_share():
    sources = {"p/a/x.py": SOURCE, "p/a/y.py": SOURCE, "p/b/z.py": "x = 1\ny = 2\nz = 3\n"}
    chosen = drawn(sources, 8, seed=1)
    assert chosen == drawn(sources, 8, seed=1) != drawn(sources, 8, seed=2)
    assert len(set(chosen)) == 8
    assert [path for path, _ in chosen].count("p/b/z.py") == 3
    assert len(drawn(sources, 99, seed=1)) == 35
