"""The tables of the pages are those of the stored figures."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import results

TABLE = {
    "keys": ["model"],
    "where": {"kind": "both"},
    "columns": {"GAP": ["clean.gap", 3], "FGM": ["attacks.0.gap", 2]},
}


def row(model, seed, gap, attacked, kind="both"):
    figures = {"clean": {"gap": gap}, "attacks": [{"gap": attacked}]}
    return {"model": model, "seed": seed, "kind": kind, **figures}


ROWS = [
    row("SA", 0, 0.1, 0.5),
    row("SA", 1, 0.2, 0.5),
    row("SA", 2, 0.3, 0.5),
    row("SA", 3, 0.9, 0.9, kind="sound"),
    row("GAT", 0, 0.25, None),
]


def stored(rows=ROWS):
    lines = results.collect(TABLE, rows)
    return {"commit": "abc1234", "date": "2026-11-28", "lines": lines}


def test_rows_that_differ_by_their_seed_are_one_line():
    assert results.collect(TABLE, ROWS) == [
        {
            "keys": ["SA"],
            "seeds": [0, 1, 2],
            "figures": {"GAP": [0.1, 0.2, 0.3], "FGM": [0.5, 0.5, 0.5]},
        },
        {"keys": ["GAT"], "seeds": [0], "figures": {"GAP": [0.25], "FGM": [None]}},
    ]


def test_the_interval_is_student_s():
    # The 97.5 % quantile with 2 degrees of freedom is 4.3027; the deviation of 1, 2, 3 is 1.
    assert results.half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert results.half_interval([1.0]) is None


def test_a_table_has_means_and_intervals():
    assert results.render(TABLE, stored()).splitlines() == [
        "| model | GAP | FGM |",
        "|---|---|---|",
        "| SA | 0.200 ± 0.248 | 0.50 ± 0.00 |",
        "| GAT | 0.250 | - |",
        "",
        "Made on 2026-11-28 at commit abc1234, seeds per row: 1, 3; ± is half of the 95 % interval "
        "of the mean over the seeds.",
    ]


def test_published_figures_stand_beside_the_measured_ones():
    table = {**TABLE, "constants": {"paper": {"GAT": "92.60"}}}
    assert results.render(table, stored()).splitlines()[:4] == [
        "| model | GAP | FGM | paper |",
        "|---|---|---|---|",
        "| SA | 0.200 ± 0.248 | 0.50 ± 0.00 | - |",
        "| GAT | 0.250 | - | 92.60 |",
    ]


def test_a_page_gets_its_tables_and_keeps_the_rest():
    empty = "<!-- results b -->\n<!-- end -->"
    page = f"Before.\n<!-- results grid -->\nold\n<!-- end -->\nAfter.\n{empty}"
    tables = {"grid": TABLE, "b": TABLE}
    text = results.filled(page, tables, {"grid": stored()})
    assert text.startswith("Before.\n<!-- results grid -->\n| model |")
    assert text.endswith(f"seeds.\n<!-- end -->\nAfter.\n{empty}")
    assert results.filled(text, tables, {"grid": stored()}) == text
    with pytest.raises(ValueError, match="'c' is no table"):
        results.filled("<!-- results c -->\n<!-- end -->", tables, {})


@pytest.mark.parametrize(
    ("quote", "fault"),
    [
        ("0.200<!-- grid: SA, GAP -->", None),
        ("0.2<!-- grid: SA, GAP -->", None),
        ("0.201<!-- grid: SA, GAP -->", "the stored figure is 0.200"),
        ("-0.200<!-- grid: SA, GAP -->", "the stored figure is 0.200"),
        ("0.200<!-- grid: ART, GAP -->", "nothing of that name"),
        ("0.200<!-- grid: SA, MAP -->", "nothing of that name"),
        ("0.200<!-- other: SA, GAP -->", "nothing of that name"),
        ("0.200 ± 0.248<!-- grid: SA, GAP -->", None),
        ("0.200 ± 0.249<!-- grid: SA, GAP -->", "the stored figure is 0.248"),
        ("-0.100<!-- grid: SA - ART, GAP -->", "nothing of that name"),
    ],
)
def test_a_quoted_figure_is_the_stored_one(quote, fault):
    wrong = results.wrong_quotes(f"It has {quote}.", {"grid": TABLE}, {"grid": stored()})
    assert [fault in sentence for sentence in wrong] == ([True] if fault else [])


def test_a_row_with_a_comma_in_its_name_can_be_quoted():
    rows = results.collect(TABLE, [row("SA, CE", 0, 0.5, 0.25)])
    quote = "0.5<!-- t: SA, CE, GAP -->"
    assert results.wrong_quotes(quote, {"t": TABLE}, {"t": {"lines": rows}}) == []


@pytest.mark.parametrize("quote", ["+0.100 ± 0.000", "0.1 ± 0.0", "+0.10"])
def test_a_difference_is_that_of_each_seed(quote):
    # Not paired, the interval would be that of 0.1, 0.2, 0.3: 0.248.
    higher = [row("ART", seed, gap + 0.1, 0.5) for seed, gap in enumerate((0.1, 0.2, 0.3))]
    lines = {"t": stored([*ROWS[:3], *higher])}
    path = "<!-- t: ART - SA, GAP -->"
    assert results.wrong_quotes(f"{quote}{path}", {"t": TABLE}, lines) == []
    (fault,) = results.wrong_quotes(f"-{quote.lstrip('+')}{path}", {"t": TABLE}, lines)
    assert "the stored figure is 0.1" in fault


def test_the_pages_of_this_repository_are_those_of_the_stored_figures():
    assert results.faults() == []


def test_a_table_runs_its_commands_and_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "STORED", tmp_path / "stored")
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "assert sys.argv[1] == '--data=my folder'\n"
        "pathlib.Path(sys.argv[2], 'rows.json').write_text("
        '\'[{"model": "SA", "seed": 0, "kind": "both", '
        '"clean": {"gap": 0.5}, "attacks": [{"gap": 0.25}]}]\')\n'
        # A row by itself, as `yt8m-gat attack-videos` writes its figures.
        "pathlib.Path(sys.argv[2], 'one.json').write_text("
        '\'{"model": "SA", "seed": 1, "kind": "both", '
        '"clean": {"gap": 0.7}, "attacks": [{"gap": 0.35}]}\')\n'
    )
    table = {
        **TABLE,
        "commands": [f"python {script} --data=$D {{dir}}"],
        "json": ["rows.json", "one.json"],
        "minutes": 1,
    }
    assert not results.make("t", table, {}, tmp_path)
    assert not (tmp_path / "stored").exists()
    assert results.make("t", table, {"D": "my folder"}, tmp_path)
    kept = results.json.loads((tmp_path / "stored" / "t.json").read_text())
    assert kept["lines"] == [
        {"keys": ["SA"], "seeds": [0, 1], "figures": {"GAP": [0.5, 0.7], "FGM": [0.25, 0.35]}}
    ]
    table["commands"] = [f"{sys.executable} -c 1/0"]
    with pytest.raises(subprocess.CalledProcessError):
        results.make("t", table, {}, tmp_path)


def test_a_quick_figure_is_near_within_the_interval_of_prediction(capsys):
    # t = 4.3027, deviation 0.1: 4.3027 * 0.1 * sqrt(1 + 1/3) = 0.4968 around 0.2.
    assert results.nearness([0.1, 0.2, 0.3]) == pytest.approx(0.49683, rel=1e-4)
    assert results.nearness([0.2]) == results.nearness([0.2, 0.2001]) == 0.03

    def far(model, gap, attacked):
        return results.far_figures("t", TABLE, {"t": stored()}, [row(model, 7, gap, attacked)])

    assert far("SA", 0.69, 0.5) == []
    assert far("SA", 0.70, 0.54) == [
        "t, SA, GAP: 0.700, stored 0.200 ± 0.497",
        "t, SA, FGM: 0.540, stored 0.500 ± 0.030",
    ]
    assert far("GAT", 0.27, 0.9) == far("nobody", 0.1, 0.1) == []
    assert "t, GAT, FGM: 0.9; nothing is stored" in capsys.readouterr().out


def test_the_quick_part_takes_less_than_40_minutes():
    tables, _ = results.load()
    quick = [table["quick"]["minutes"] for table in tables.values() if "quick" in table]
    assert len(quick) > 2 and sum(quick) < 40


def test_the_quick_part_stores_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "STORED", tmp_path / "stored")
    code = "import sys; open(sys.argv[1] + '/rows.json', 'w').write('[]')"
    quick = {"commands": [f'python -c "{code}" {{dir}}'], "minutes": 1}
    table = {**TABLE, "commands": ["false"], "json": ["rows.json"], "minutes": 9, "quick": quick}
    assert results.run_commands("t", table, True, {}, tmp_path) == []
    assert (tmp_path / "quick" / "t" / "rows.json").is_file()
    assert not (tmp_path / "stored").exists()
