"""The sections that a sceptic's evaluation fills: what they say, and that it is escaped."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from test_report import EVALUATION, Page, write_run

from yt8m_gat.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.report.drawing.bar_chart import Bar, bar_chart
from yt8m_gat.report.drawing.chart import standalone
from yt8m_gat.report.drawing.heat_map import heat_maps
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import MARK, group_runs, read_run
from yt8m_gat.report.spec import spec_order, spec_title

HALVES = {"count": 5, "gap": {"mean": 0.37, "deviation": 0.0031}}
SIDE = {
    "top": [[3, "Games", 0.8], [1, None, 0.25]],
    "profiles": {"rgb": {"global": [0.2, 0.3, 0.5], "bd2": [0.4, 0.3, 0.3]}},
    "maps": {"rgb": {"global": [[0.2, 0.3, 0.5]] * 3}},
}
FULL = {
    "complete": False,
    "clean": {**EVALUATION["clean"], "partitions": HALVES, "zero_gradient_share": 0.25},
    "attacks": [
        {"attack": "noise", "epsilon": 0.5, "gap": 0.36},
        {
            "attack": "fgm",
            "epsilon": 0.5,
            "gap": 0.27,
            "success": 0.6,
            "attention_mse_rgb": 2e-5,
            "attention_frobenius_rgb": 0.44,
        },
        {"attack": "pgd:steps=100", "epsilon": 0.5, "gap": 0.2},
        {"attack": "pgd", "epsilon": 0.5, "gap": 0.21},
        {"attack": "pgd", "epsilon": 0.05, "gap": 0.35},
        {"attack": "pgd", "epsilon": 8.0, "gap": 0.004},
        {"attack": "deepfool", "epsilon": None, "rho_mean": 0.031, "share_not_flipped": 0.01},
    ],
    "corruptions": [],
    "verticals": [
        {
            "vertical": "finance",
            "num_classes": 2,
            "num_videos": 9,
            "clean": {"gap": 0.5, "perr": 0.6},
            "attacks": [{"attack": "fgm", "epsilon": 0.5, "gap": 0.4, "perr": 0.3}],
        }
    ],
    "classes": {"ap": [0.1, 0.5, 0.3, None, 0.9], "positives": [1, 20, 3, 0, 5]},
    "comparison": {
        "baseline": "runs/sa",
        "top": [[1, "Games", 0.2], [2, None, 0.05]],
        "bottom": [[4, "Food", -0.04], [2, None, 0.05], [3, "Pets", None]],
        "intervals": {"1": [0.1, 0.28], "2": None, "4": [-0.09, 0.01]},
        "min_positives": 3,
        "num_ranked": 4,
    },
    "attention": {
        "profiles": {"rgb": {"global": [0.5, 1.5]}},
        "attacked_profiles": {"rgb": {"global": [1.5, 0.5]}},
        "attack": "fgm",
        "epsilon": 0.5,
        "sensitivity": {
            "rgb": {"S": 0.625, "deviation": 0.05, "neighbourhood": 10, "num_videos": 500}
        },
    },
    "class_activation": {
        **{"entropy": 0.75, "entropy_deviation": 0.05, "spread": 0.5, "spread_deviation": None},
        **{"num_videos": 9, "num_silent": 2},
    },
    "true_spans": {
        "activation": {
            **{"num_spans": 7, "share": 0.25, "pointing": 0.5, "even_share": 0.2, "num_silent": 1}
        },
        "attention": {"rgb": {"num_spans": 8, "share": 0.3, "pointing": 0.1, "even_share": 0.2}},
    },
    "clips": [
        {
            "video_id": "abcd",
            "labels": [[3, "Games"]],
            "clean": SIDE,
            "attacked": {**SIDE, "top": [[1, None, 0.7]], "attack": "pgd", "epsilon": 0.5},
        }
    ],
    "sanity": [
        {"check": "unbounded", "verdict": "pass", "detail": "GAP 0.40 %"},
        {"check": "white_box_over_transfer", "verdict": "not run", "detail": "needs transfer"},
    ],
}
FAILED = [{"check": "unbounded", "verdict": "fail", "detail": "GAP is still 30 %"}]


def write(folder, changes=None, **options):
    write_run(folder, **options)
    (folder / "evaluation.json").write_text(json.dumps({**FULL, **(changes or {})}))
    return read_run(folder)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    runs = [write(root / "aart", name="AART", adversarial="frobenius"), write(root / "sa")]
    return build_page(runs)


def table_with(page, head):
    (found,) = [t for t in Page(page[0]).tables if t[0][0] == head or head in t[0]]
    return found


def row_of(table, name):
    (found,) = [row for row in table if row[0] == name]
    return found


def test_the_page_is_whole(page):
    text, figures = page
    assert Page(text).open == []
    assert text.count("<svg") == len(figures)
    assert "Not finished, rows may be missing: aart, sa." in text


def test_sceptics_table_takes_the_radius_of_most_attacks(page):
    table = table_with(page, "GAP, %, epsilon 0.5")
    assert table[0][1:] == ["aart", "sa"]
    order = ["clean", "noise of the same norm", "fast gradient", "PGD", "PGD, 100 steps"]
    assert [row[0] for row in table[1:6]] == order
    assert row_of(table, "PGD, 100 steps")[1:] == ["20.00", "20.00"]
    assert row_of(table, "the worst of all at epsilon 0.5")[1] == "20.00"
    assert row_of(table, "the worst of all at epsilon 8")[1] == "0.40"
    assert row_of(table, "clips with a gradient of zero, %")[1] == "25.00"
    assert row_of(table, "attention entropy / log n, rgb")[1] == "0.9357"
    assert row_of(table, "DeepFool, mean rho of clips that flipped")[1] == "0.031"
    assert row_of(table, "DeepFool, clips not flipped, %")[1] == "1.00"


def test_seeds_are_one_column(tmp_path):
    runs = []
    for seed, gap in enumerate((0.2, 0.22)):
        rows = [{**row, "gap": gap} for row in FULL["attacks"]]
        runs.append(write(tmp_path / f"GAT__AdvFr_{seed}", {"attacks": rows}))
        settings = RunConfig(
            data=DataConfig(feature_names=("rgb",), feature_sizes=(16,), num_classes=5),
            model=ModelConfig(name="GAT"),
            objective=ObjectiveConfig(adversarial="frobenius"),
            training=TrainingConfig(seed=seed),
        )
        settings.save(tmp_path / f"GAT__AdvFr_{seed}")
        runs[-1] = read_run(tmp_path / f"GAT__AdvFr_{seed}")
    runs.append(write(tmp_path / "other"))
    groups = group_runs(runs)
    assert [group.title for group in groups] == ["GAT__AdvFr (2 seeds)", "other"]
    table = table_with(build_page(runs), "GAP, %, epsilon 0.5")
    # Mean of 20 and 22; deviation of two values 2 apart: sqrt(2).
    assert row_of(table, "PGD")[1] == "21.00±1.41"


def test_a_run_that_fails_a_check_is_marked_everywhere(tmp_path):
    runs = [write(tmp_path / "good"), write(tmp_path / "bad", {"sanity": FAILED})]
    text, figures = build_page(runs)
    marked = "bad" + MARK
    tables = Page(text).tables
    verdicts = next(t for t in tables if t[0][:1] == ["check"] and "good" in t[0])
    assert verdicts[0] == ["check", "good", marked]
    assert verdicts[1] == ["an attack without bounds leaves no Hit@1", "pass", "FAIL"]
    # Of the second check the failing run has no verdict at all.
    assert verdicts[2][1:] == ["not run", "not run"]
    cells = {cell for table in tables for row in table for cell in row}
    assert marked in cells and "bad" not in cells and "good" in cells
    assert f"{marked}</text>" in figures["epsilon_pgd"]
    assert "bad: a check fails." in text and "GAP is still 30 %" in text


def test_no_mark_where_no_check_failed(page):
    assert not any(MARK in cell for t in Page(page[0]).tables for row in t for cell in row)


def test_partitions_are_mean_and_deviation(page):
    table = next(t for t in Page(page[0]).tables if t[0] == ["run", "clips", "GAP"])
    assert table[1] == ["aart", "clean", "37.00±0.31"]
    # And stand beside the papers' own partitions, where there is one run of a kind.
    beside = next(t for t in Page(page[0]).tables if "GAT AdvFr" in t[0])
    assert row_of(beside, "GAP, ours")[1] == "37.00±0.31"


def test_verticals_and_their_published_table(page):
    table = table_with(page, "vertical")
    assert row_of(table, "finance") == ["finance", "2", "9", "50.00", "40.00", "50.00", "40.00"]
    # A-ART's table 3, whatever the capitals of the vertical's name.
    (beside,) = [t for t in Page(page[0]).tables if t[1][1:3] == ["79.13", "79.07"]]
    assert beside[2] == ["GAP, ours", "50.00", "-", "50.00", "40.00", "-", "40.00"]


def test_gains_are_listed_once_each_and_drawn(page):
    table = next(t for t in Page(page[0]).tables if t[0][0] == "class")
    assert table[1:] == [
        ["Games (1)", "20", "30.00", "50.00", "+20.00", "+10.00 to +28.00"],
        ["class 2", "3", "25.00", "30.00", "+5.00", "-"],
        ["Pets (3)", "0", "-", "-", "-", "-"],
        ["Food (4)", "5", "94.00", "90.00", "-4.00", "-9.00 to +1.00"],
    ]
    svg = page[1]["gains_sa"]
    assert svg.count('class="whisker"') == 2
    assert "Ranked: the 4 classes with 3 positives or more (--min_positives)." in page[0]
    assert svg.count("<rect") == 3 and "+20.00" in svg and "-4.00" in svg


def test_map_distances_beside_the_papers(page):
    table = next(t for t in Page(page[0]).tables if "squared error, rgb" in t[0])
    assert table[0][3:] == ["squared error, paper", "Frobenius, paper"]
    assert row_of(table, "aart") == ["aart", "2e-05", "0.44", "3e-8", "-"]
    assert row_of(table, "sa") == ["sa", "2e-05", "0.44", "-", "-"]


def test_sensitivity_and_profiles(page):
    table = next(t for t in Page(page[0]).tables if t[0] == ["run", "rgb"])
    assert table[1] == ["aart", "0.625±0.05"]
    assert "Frames that count as near: 10 to each side, 500 videos." in page[0]
    svg = page[1]["profile_sa_rgb_global"]
    lines = re.findall(r'<polyline[^>]*stroke-dasharray="([^"]*)" points="([^"]*)"', svg)
    assert [dash for dash, _ in lines] == ["none", "7 3"]
    assert ">fast gradient, epsilon 0.5</text>" in svg
    # Clean falls short where attacked exceeds: mirrored about uniform.
    heights = [[float(p.split(",")[1]) for p in points.split()] for _, points in lines]
    assert heights[0] == heights[1][::-1]


def test_class_activation_and_true_spans(page):
    table = next(t for t in Page(page[0]).tables if "entropy / log n" in t[0] and "spread" in t[0])
    assert row_of(table, "sa") == ["sa", "0.75±0.05", "0.5", "9", "2"]
    table = next(t for t in Page(page[0]).tables if "peak inside" in t[0])
    assert table[0] == ["run", "of", "inside", "if even", "peak inside", "spans"]
    rows = [row for row in table if row[0] == "sa"]
    assert rows == [
        ["sa", "class activation", "25.00", "20.00", "50.00", "7"],
        ["sa", "attention, rgb", "30.00", "20.00", "10.00", "8"],
    ]


def test_clips_show_labels_probabilities_and_maps(page):
    table = next(t for t in Page(page[0]).tables if t[0][:2] == ["sa", "clean"])
    assert table[0] == ["sa", "clean", "%", "PGD, epsilon 0.5", "%"]
    assert table[1] == ["1.", "Games (3)\u00a0✓", "80.00", "class 1", "70.00"]
    assert table[2] == ["2.", "class 1", "25.00", "", ""]
    assert {"clip_map_abcd_sa_rgb", "clip_profile_abcd_sa_rgb_bd2"} <= set(page[1])


def test_radii_far_apart_stand_at_equal_distances(page):
    dots = re.findall(r'cx="([\d.]+)"', page[1]["epsilon_pgd"])[:4]
    steps = [float(b) - float(a) for a, b in itertools.pairwise(dots)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    assert ">0.05<" in page[1]["epsilon_pgd"]


def test_what_new_parts_hold_is_escaped(tmp_path):
    evil = '<i onload="x">'
    text = json.dumps(FULL)
    for word in ("Games", "abcd", "finance", "pgd", "GAP 0.40 %", "runs/sa", '"rgb"', "bd2"):
        inner = json.dumps(evil)[1:-1]
        text = text.replace(word, f'"{inner}"' if word == '"rgb"' else inner)
    folder = write_run(tmp_path / "sa")
    (folder / "evaluation.json").write_text(text)
    found, figures = build_page([read_run(folder, name=evil)])
    assert "<i " not in found and 'onload="' not in found
    assert Page(found).open == []
    assert len(figures) > 8
    for svg in figures.values():
        ElementTree.fromstring(standalone(svg).encode())


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("sanity", [{"check": "unbounded"}]),
        ("sanity", {}),
        ("verticals", [{"vertical": "a", "clean": 3}]),
        ("verticals", [{"vertical": "a", "clean": {}, "attacks": [{}]}]),
        ("attention", {"profiles": {"rgb": {"global": ["a"]}}}),
        ("attention", {"sensitivity": {"rgb": {}}}),
        ("clips", [{"video_id": "a", "labels": [], "clean": {"top": [3]}}]),
        ("comparison", {"baseline": "a", "top": []}),
        ("classes", {"ap": 3}),
    ],
)
def test_a_part_that_is_not_what_it_should_be_is_named(tmp_path, part, value):
    (message,) = write(tmp_path / "sa", {part: value}).unreadable
    assert re.search(f"{part!r} must be .*--output_file", message)
    assert str(tmp_path / "sa" / "evaluation.json") in message


def test_a_mean_over_corruptions_is_of_all_of_them_or_none(tmp_path):
    rows = [
        {"corruption": name, "severity": severity, "gap": gap}
        for name, severity, gap in (("noise", 1, 0.4), ("noise", 2, 0.2), ("frame_drop", 1, 0.6))
    ]
    rows.append({"corruption": "frame_drop", "severity": 2, "gap": 0.4})
    rows.append({"corruption": "frame_drop", "severity": 5, "gap": 0.1})  # Of no other row.
    runs = [write(tmp_path / "all", {"corruptions": rows})]
    runs.append(write(tmp_path / "some", {"corruptions": rows[:2]}, adversarial="output"))
    table = table_with(build_page(runs), "GAP, %, mean over severities 1, 2")
    assert row_of(table, "noise")[1:] == ["30.00", "30.00"]
    assert row_of(table, "frame drop")[1:] == ["50.00", "-"]
    assert row_of(table, "mean over all")[1:] == ["40.00", "-"]


# Figures


def test_a_heat_map_paints_each_cell_with_its_share_of_the_scale():
    # Uniform is 1/2: the scale ends at 1, whose colour is the last of twelve.
    svg = heat_maps("t", {"clean": [[1.0, 0.0], [0.5, 0.5]]}, 2)
    paths = dict(re.findall(r'--heat-(\d+)\)" d="([^"]*)"', svg))
    assert paths == {"11": "M0 0h1v1h-1z", "6": "M0 1h2v1h-2z"}
    assert "1 or more" in svg and "1/n = 0.5" in svg


def test_heat_maps_share_one_scale():
    flat = [[0.25] * 4] * 4
    peaked = [[0.0, 0.0, 0.0, 1.0]] * 4
    svg = heat_maps("t", {"clean": flat, "attacked": peaked}, 4)
    clean, attacked = (re.findall(r'--heat-(\d+)\)" d', g) for g in svg.split("<g ")[1:])
    assert clean == ["3"] and attacked == ["11"]
    with pytest.raises(ValueError, match="at least one row"):
        heat_maps("t", {"clean": []}, 4)


def test_bars_are_as_long_as_their_values():
    svg = bar_chart("t", [Bar("a", 4.0), Bar("b", -2.0), Bar("c", 0.0)])
    bars = re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"', svg)
    (x, long), (y, short), (z, none) = [(float(a), float(b)) for a, b in bars]
    assert long == pytest.approx(2 * short, abs=0.2) and none == 0
    assert x == pytest.approx(y + short, abs=0.2) == pytest.approx(z, abs=0.2)
    with pytest.raises(ValueError, match="at least one bar"):
        bar_chart("t", [])


def test_specifications_in_words():
    assert spec_title("pgd_linf:steps=100:restarts=5") == "PGD, l-inf, 100 steps, 5 restarts"
    assert spec_title("pgd:round=true") == "PGD, rounded to bytes"
    assert spec_title("something:new=1") == "something, new=1"
    specs = ["something", "adaptive", "pgd:steps=100", "noise", "pgd", "fgm_linf", "fgm"]
    assert sorted(specs, key=spec_order) == [
        "noise", "fgm", "fgm_linf", "pgd", "pgd:steps=100", "adaptive", "something"
    ]  # fmt: skip
