"""Makes the tables of the pages again, from the commands in `results.toml`.

    python benchmarks/results.py --output_dir=build/results --data GRID=grid_s1 [--only=grid]

Each table's commands run one after the other; they go on where they stopped when called again. The
figures of every row and seed are then kept in `docs/results/NAME.json`, with the commands, the
commit, the date and the intervals, and the table is written into its page. A table whose data
no --data names is left as it is, and said so. --render only writes the stored tables into the
pages; --check compares them, and the figures that the prose quotes, with what is stored.
A table that is not stored yet stays as it is between its markers.

--quick runs the `quick` commands instead, a part of the rows for a nightly run: it stores nothing,
and ends with exit code 1 if a figure is not near the stored ones.

Prose of any page quotes a figure as `0.734<!-- grid: sound, SA, GAP -->`, if need be with its
interval, and the difference of two rows, seed by seed, as
`+0.007 ± 0.002<!-- beta: A-ART, beta 0.01 - A-ART, beta 0, GAP -->`.
"""

import argparse
import datetime
import json
import math
import re
import shlex
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "benchmarks" / "results.toml"
STORED = ROOT / "docs" / "results"
_BLOCK = re.compile(r"(<!-- results (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_QUOTE = re.compile(r"([-+]?[\d.]+\d)(?: ± ([\d.]+\d))?<!-- (\w[\w-]*): (.*?) -->")


def place(row, path):
    """Returns the value at `a.0.b` of nested dictionaries and lists."""
    for key in path.split("."):
        row = row[int(key)] if isinstance(row, list) else row[key]
    return row


def half_interval(values):
    """Returns half of the 95 % interval of the mean, by Student's t; `None` for one value."""
    if len(values) < 2:
        return None
    quantile = stats.t.ppf(0.975, len(values) - 1)
    return float(quantile * statistics.stdev(values) / math.sqrt(len(values)))


def collect(table, rows):
    """Returns the stored lines of a table from a benchmark's rows, one for each seed."""
    lines = {}
    for row in rows:
        if any(row[key] != value for key, value in table.get("where", {}).items()):
            continue
        lines.setdefault(tuple(str(row[key]) for key in table["keys"]), []).append(row)
    return [
        {
            "keys": list(keys),
            "seeds": [row["seed"] for row in of_line],
            "figures": {
                title: [place(row, path) for row in of_line]
                for title, (path, _) in table["columns"].items()
            },
        }
        for keys, of_line in lines.items()
    ]


def cell(values, digits):
    """Returns the mean, with half of its interval where there are several values; -: no values."""
    if None in values:
        return "-"
    half = half_interval(values)
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if half is None else f"{mean} ± {half:.{digits}f}"


def render(table, stored):
    """Returns the Markdown between a table's markers."""
    constants = table.get("constants", {})
    titles = [*table["columns"], *constants]
    lines = [
        f"| {' | '.join([*table['keys'], *titles])} |",
        f"|{'---|' * (len(table['keys']) + len(titles))}",
    ]
    for line in stored["lines"]:
        cells = [
            cell(line["figures"][title], digits) for title, (_, digits) in table["columns"].items()
        ]
        cells += [of_row.get(", ".join(line["keys"]), "-") for of_row in constants.values()]
        lines.append(f"| {' | '.join([*line['keys'], *cells])} |")
    seeds = sorted({len(line["seeds"]) for line in stored["lines"]})
    spread = "; ± is half of the 95 % interval of the mean over the seeds" if seeds[-1] > 1 else ""
    lines += [
        "",
        f"Made on {stored['date']} at commit {stored['commit']}, seeds per row: "
        f"{', '.join(map(str, seeds))}{spread}.",
    ]
    return "\n".join(lines) + "\n"


def filled(text, tables, stored):
    """Returns a page's text with every table that is stored written between its markers."""

    def fill(match):
        begin, name, _, end = match.groups()
        if name not in tables:
            raise ValueError(f"'{name}' is no table of {TABLES.name}")
        return begin + render(tables[name], stored[name]) + end if name in stored else match[0]

    return _BLOCK.sub(fill, text)


def quoted_values(path, lines):
    """Returns the values, one for each seed, that `ROW, TITLE` or `ROW - ROW, TITLE` names.

    The second form is the difference of two rows, seed by seed. `None`: nothing has that name.
    """
    # Names of rows and columns may have commas of their own, so that none can be split.
    named = [(", ".join(line["keys"]), line) for line in lines]
    for name, line in named:
        for title, values in line["figures"].items():
            if path == f"{name}, {title}":
                return values
            for other_name, other in named:
                if path == f"{name} - {other_name}, {title}" and line["seeds"] == other["seeds"]:
                    pairs = zip(values, other["figures"][title], strict=True)
                    return [value - base for value, base in pairs]
    return None


def wrong_quotes(text, tables, stored):
    """Returns a sentence for every quoted figure of a page that is not the stored one."""
    wrong = []
    for match in _QUOTE.finditer(text):
        figure, half, name, path = match.groups()
        values = quoted_values(path, stored.get(name, {"lines": []})["lines"])
        if values is None or None in values or (half is not None and len(values) < 2):
            wrong.append(f"'{match[0]}': nothing of that name is stored")
            continue
        of_figure = [(figure, statistics.mean(values))]
        if half is not None:
            of_figure.append((half, half_interval(values)))
        for shown, value in of_figure:
            digits = len(shown.partition(".")[2])
            # Written by hand, a difference may have its sign.
            expected = f"{value:{'+' if shown[0] == '+' else ''}.{digits}f}"
            if shown != expected:
                wrong.append(f"'{match[0]}': the stored figure is {expected}")
    return wrong


def load():
    """Returns the tables by name, and what is stored of them."""
    tables = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    stored = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(STORED.glob("*.json"))
    }
    return tables, stored


def pages(tables):
    return sorted({ROOT / table["page"] for table in tables.values()})


def faults():
    """Returns a sentence for everything in the pages that differs from what is stored."""
    tables, stored = load()
    found = [f"docs/results/{name}.json: no such table" for name in stored if name not in tables]
    for page in pages(tables):
        text = page.read_text(encoding="utf-8")
        if filled(text, tables, stored) != text:
            found.append(f"{page.name}: a table differs; python benchmarks/results.py --render")
        marked = {match[2] for match in _BLOCK.finditer(text)}
        found += [
            f"{page.name}: no markers of the table '{name}'"
            for name, table in tables.items()
            if ROOT / table["page"] == page and name not in marked
        ]
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        quotes = wrong_quotes(page.read_text(encoding="utf-8"), tables, stored)
        found += [f"{page.name}: {fault}" for fault in quotes]
    return found


def run_commands(name, table, quick, data, output_dir):
    """Runs a table's commands; returns the rows that they wrote, or `None` if data is missing."""
    part = table["quick"] if quick else table
    commands = part["commands"]
    missing = {
        word for command in commands for word in re.findall(r"\$(\w+)", command) if word not in data
    }
    if missing:
        print(f"{name}: left as it is; it needs --data {' '.join(f'{m}=FOLDER' for m in missing)}")
        return None
    folder = (output_dir / ("quick" if quick else "") / name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        words = [
            re.sub(r"\$(\w+)", lambda match: data[match[1]], word).replace("{dir}", str(folder))
            for word in shlex.split(command)
        ]
        words[0] = sys.executable if words[0] == "python" else words[0]
        print(f"{name}, about {part['minutes']} min: {shlex.join(words)}", flush=True)
        subprocess.run(words, cwd=ROOT, check=True)
    rows = []
    for path in part.get("json", table["json"]):
        written = json.loads((folder / path).read_text(encoding="utf-8"))
        rows += written if isinstance(written, list) else [written]
    return rows


def make(name, table, data, output_dir):
    """Runs a table's commands and stores its figures; returns whether it could."""
    rows = run_commands(name, table, False, data, output_dir)
    if rows is None:
        return False
    commit = ("git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*")
    stored = {
        "commands": table["commands"],
        "commit": subprocess.run(
            commit, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "lines": collect(table, rows),
    }
    STORED.mkdir(exist_ok=True)
    path = STORED / f"{name}.json"
    path.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    return True


def nearness(values):
    """Returns how far a figure of one more seed may lie from the mean of the stored ones.

    Half of the 95 % interval of prediction (Student's t), but at least 0.03: figures of one seed
    move by 0.01 to 0.02 from one version to the next.
    """
    half = half_interval(values)
    return max(0.03, 0.0 if half is None else half * math.sqrt(len(values) + 1))


def far_figures(name, table, stored, rows):
    """Returns a sentence for every figure of a quick run that is not near the stored ones."""
    lines = {
        tuple(line["keys"]): line["figures"] for line in stored.get(name, {"lines": []})["lines"]
    }
    far = []
    for line in collect(table, rows):
        for title, values in line["figures"].items():
            before = lines.get(tuple(line["keys"]), {}).get(title, [None])
            figure = None if None in values else statistics.mean(values)
            where = f"{name}, {', '.join(line['keys'])}, {title}"
            if figure is None or None in before:
                print(f"{where}: {figure}; nothing is stored to compare it with")
                continue
            mean, half = statistics.mean(before), nearness(before)
            text = f"{where}: {figure:.3f}, stored {mean:.3f} ± {half:.3f}"
            print(text)
            if abs(figure - mean) > half:
                far.append(text)
    return far


def write_pages():
    tables, stored = load()
    for page in pages(tables):
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text, tables, stored), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=ROOT / "build" / "results")
    parser.add_argument("--only", default="", help="tables, separated by commas; default: all")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument(
        "--render", action="store_true", help="write the stored tables, run nothing"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the pages with what is stored"
    )
    parser.add_argument("--quick", action="store_true", help="the nightly part; store nothing")
    options = parser.parse_args()
    if options.check:
        sys.exit("\n".join(faults()) or 0)
    tables, stored = load()
    chosen = [name for name in options.only.split(",") if name] or list(tables)
    unknown = [name for name in chosen if name not in tables]
    if unknown:
        parser.error(f"--only takes {', '.join(tables)}. Received: {', '.join(unknown)}")
    data = dict(item.split("=", 1) for item in options.data)
    if options.quick:
        far = []
        for name in chosen:
            if "quick" in tables[name]:
                rows = run_commands(name, tables[name], True, data, options.output_dir)
                far += far_figures(name, tables[name], stored, rows or [])
        sys.exit("\n".join(["Not near the stored figures:", *far]) if far else 0)
    if not options.render:
        for name in chosen:
            make(name, tables[name], data, options.output_dir)
    write_pages()


if __name__ == "__main__":
    main()
