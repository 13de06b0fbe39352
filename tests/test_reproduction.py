"""The differences that docs/REPRODUCTION.md quotes follow from the tables of docs/RESULTS.md."""

import math
import re
from pathlib import Path

from scipy import stats

DOCS = Path(__file__).resolve().parents[1] / "docs"
SECTIONS = {"AudioSet, sceptic": "The sceptic's table", "300 frames": "300 frames"}
SEEDS = 3


def tables(section):
    """Returns (figure, model) -> (mean, deviation) of all cells `mean ± deviation` of a section."""
    text = (DOCS / "RESULTS.md").read_text(encoding="utf-8")
    body = text.split(f"### {section}\n")[1].split("\n#")[0]
    cells = {}
    for match in re.finditer(r"((?:^\|.*\n)+)(?:\n(Made on .*))?", body, re.MULTILINE):
        table, made = match.groups("")
        # Tables of `make results` have half of an interval, t s / sqrt(n), in place of s.
        half = stats.t.ppf(0.975, SEEDS - 1) / math.sqrt(SEEDS) if "half of the 95 %" in made else 1
        header, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
        ]
        by_model = "GAP" in header
        for name, *values in rows:
            for title, value in zip(header[1:], values, strict=True):
                if "±" in value:
                    key = (title, name) if by_model else (name, title)
                    mean, deviation = map(float, value.split(" ± "))
                    cells[key] = (mean, deviation / half)
    return cells


def difference(one, other):
    """Returns the difference of two means over seeds and half of its 95 % interval (Welch)."""
    (mean, deviation), (other_mean, other_deviation) = one, other
    variances = [deviation**2 / SEEDS, other_deviation**2 / SEEDS]
    freedom = sum(variances) ** 2 / sum(v**2 / (SEEDS - 1) for v in variances)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    return mean - other_mean, half


def test_welch_s_interval():
    # Equal variances of 1 and 3 seeds each: 4 degrees of freedom, whose quantile is 2.7764.
    gap, half = difference((5.0, 1.0), (3.0, 1.0))
    assert gap == 2.0
    assert math.isclose(half, 2.77645 * math.sqrt(2 / 3), rel_tol=1e-5)


def test_the_differences_are_those_of_the_tables():
    page = (DOCS / "REPRODUCTION.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) \| (.*?) \| (.*?) - (.*?) \| (\S+) ± (\S+) \|", page, re.M)
    assert len(rows) > 20
    by_section = {data: tables(section) for data, section in SECTIONS.items()}
    for data, figure, one, other, gap, half in rows:
        cells = by_section[data]
        expected = difference(cells[figure, one], cells[figure, other])
        for shown, value in zip((gap, half), expected, strict=True):
            digits = len(shown.partition("e")[0].partition(".")[2])
            exact = f"{value:+.{digits}{'e' if 'e' in shown else 'f'}}"
            assert float(shown) == float(exact), (data, figure, one, other, shown, exact)
