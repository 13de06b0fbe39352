"""Small faults put into source code: what `make mutate` plants, one at a time.

A mutant changes one operator, comparison, boolean or number. Strings, annotations and the text of
errors stay as they are: no test has to hold the words of a message to the letter.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from typing import NamedTuple

_COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_OPERATORS = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.BitAnd: "|",
}
# Arguments that change how fast something runs, or what a bar shows, and no value.
_SPEED = {
    "autograph",
    "maximum_iterations",
    "mininterval",
    "num_parallel_calls",
    "parallel_iterations",
    "reduce_retracing",
    "stable",  # TensorFlow sorts stably in any case.
    "stacklevel",
    "watch_accessed_variables",
}


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        line: Line number in the file, from 1.
        start: Offset of the replaced text in the file, in characters.
        end: Where it ends.
        text: What stands there instead.
    """

    line: int
    start: int
    end: int
    text: str

    def applied(self, source: str) -> str:
        """The source with the fault in it."""
        return source[: self.start] + self.text + source[self.end :]

    def describe(self, source: str) -> str:
        """`12: a < b  ->  a <= b`, with the whole lines concerned."""
        begin = source.rfind("\n", 0, self.start) + 1
        stop = source.find("\n", self.end)
        before = " ".join(source[begin:stop].split())
        after = " ".join((source[begin : self.start] + self.text + source[self.end : stop]).split())
        return f"{self.line}: {before}  ->  {after}"


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its text."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        # The columns of `ast` count bytes.
        text = lines[line - 1].encode()[:column].decode()
        return starts[line - 1] + len(text)

    def span(node: ast.AST) -> tuple[int, int]:
        return offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)

    found = []
    for node in _code(ast.parse(source)):
        for first, last, text in _changes(node, span, source):
            found.append(Mutant(source.count("\n", 0, first) + 1, first, last, text))
    return sorted(set(found))


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes whose change is one of behaviour."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword) and child.arg in _SPEED:
                continue
            if isinstance(child, ast.AST):
                yield from _code(child)


def _changes(node: ast.AST, span, source: str) -> Iterator[tuple[int, int, str]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from _between(node.left, node.comparators[0], _COMPARISONS, node.ops[0], span, source)
    elif isinstance(node, ast.BinOp):
        yield from _between(node.left, node.right, _OPERATORS, node.op, span, source)
    elif isinstance(node, ast.BoolOp):
        other = {ast.And: "or", ast.Or: "and"}
        yield from _between(node.values[0], node.values[1], other, node.op, span, source)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        start, _ = span(node)
        if isinstance(node.op, ast.Not):
            yield start, start + len("not "), ""
        else:
            yield start, start + 1, "+"
    elif isinstance(node, ast.Constant):
        start, end = span(node)
        if isinstance(node.value, bool):
            yield start, end, str(not node.value)
        elif isinstance(node.value, int):
            yield start, end, str(node.value + 1)
        elif isinstance(node.value, float):
            yield start, end, repr(node.value * 2 if node.value else 1.0)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
        yield from _between(node.target, node.value, _OPERATORS, node.op, span, source, "=")


def _between(left, right, table, operator, span, source: str, suffix: str = ""):
    """Replaces the operator that stands between two nodes."""
    if type(operator) not in table:
        return
    _, start = span(left)
    end, _ = span(right)
    symbol = _SYMBOLS[type(operator)] + suffix
    place = source.find(symbol, start, end)
    comment = source.find("#", start, end)
    if place >= 0 and (comment < 0 or place < comment):
        yield place, place + len(symbol), table[type(operator)] + suffix


_SYMBOLS = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.And: "and",
    ast.Or: "or",
}


def drawn(sources: dict[str, str], count: int, seed: int) -> list[tuple[str, Mutant]]:
    """`count` mutants of some modules: as many of each room, then any; the same for one seed.

    Args:
        sources: Path -> text; the room is the second part of the path.
        count: How many; all where there are fewer.
        seed: Fixes the draw.
    """
    rooms: dict[str, list[tuple[str, Mutant]]] = {}
    for path, source in sorted(sources.items()):
        rooms.setdefault(path.split("/")[1], []).extend((path, m) for m in mutants_of(source))
    generator = random.Random(seed)
    for members in rooms.values():
        generator.shuffle(members)
    chosen: list[tuple[str, Mutant]] = []
    while len(chosen) < count and any(rooms.values()):
        for members in rooms.values():
            if members and len(chosen) < count:
                chosen.append(members.pop())
    return sorted(chosen)
