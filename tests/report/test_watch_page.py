"""The page about one video, from plain values."""

import re
from html.parser import HTMLParser

import pytest

from yt8m_gat.report.drawing import time_track
from yt8m_gat.report.drawing.time_track import clock, heat_track, percent_of, step_track
from yt8m_gat.report.watch import build_watch_page

HOSTILE = "<script>alert(1)</script>\"'&"
PICTURE = {"second": 1.0, "jpeg": b"\xff\xd8\xff\xd9", "shape": (4, 2)}


def watched(**changes):
    def side(probability, activation, spans):
        return {"probability": probability, "activation": activation, "spans": spans}

    labels = [
        {
            "label": 3,
            "name": "Cat",
            "moments": [PICTURE],
            "clean": side(0.875, [0.0, 2.0, 1.0], [[1.0, 2.5]]),
            "attacked": side(0.25, [1.0, -2.0, 0.0], [[0.0, 1.0]]),
        },
        {
            "label": 0,
            "name": None,
            "moments": [],
            "clean": side(0.1, None, []),
            "attacked": side(0.2, None, []),
        },
    ]
    return {
        "video": "holiday",
        "edges": [0.0, 1.0, 2.0, 2.5],
        "frames": [PICTURE, None, PICTURE],
        "attacked_frames": None,
        "shape": (4, 2),
        "labels": labels,
        "attention": {"rgb": {"global": {"clean": [0.2, 0.3, 0.5], "attacked": [0.5, 0.3, 0.2]}}},
        "epsilon": 0.5,
        "warnings": [],
        "extractor": "log_mel",
        "model": "GAT",
        "options": {"num_heads": 2},
        "provenance": {"train_dir": "runs/gat", "checkpoint": "best", "weights": "0", "step": 7},
        **changes,
    }


class Tags(HTMLParser):
    """Which elements a page has, and the attributes of each."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def all(self, tag, kind=""):
        return [a for name, a in self.elements if name == tag and kind in a.get("class", "")]


def test_a_raw_clip_shows_what_the_attack_makes_of_its_frames():
    page = build_watch_page(watched(attacked_frames=[PICTURE] * 3, attention={}))
    assert len(Tags(page).all("img")) == 3 + 3
    assert "on the pixels" in page and "not the pictures" not in page and "Attention" not in page
    # The seconds of each label are on both films and on its own track.
    assert len(Tags(page).all("span", "of-0")) == 3


def test_probabilities_seconds_and_pictures_are_on_the_page():
    page = build_watch_page(watched())
    assert re.search(r"Cat \(3\)</span></th><td>87.5</td><td>25.0</td>", page)
    assert "1 s to 2.5 s" in page and "class 0: no second speaks for it" in page
    tags = Tags(page)
    # Two of the film, one of the label's seconds; a missing one keeps its place.
    assert len(tags.all("img")) == 3 and len(tags.all("i")) == 3 + 1
    assert {a["src"] for a in tags.all("img")} == {"data:image/jpeg;base64,/9j/2Q=="}
    # 1 s to 2.5 s of 2.5 s, on the film and on the label's tracks.
    bands = [a["style"] for a in tags.all("span", "of-0")]
    assert bands == ["left: 40.00%; width: 60.00%"] * 2
    assert len(tags.all("svg", "steps")) == 2 and len(tags.all("svg", "heats")) == 2


def test_a_click_chooses_a_label_without_a_script():
    page = build_watch_page(watched())
    tags = Tags(page)
    choices = {a["id"]: "checked" in a for a in tags.all("input")}
    assert choices == {"label-0": True, "label-1": False}
    assert [a["for"] for a in tags.all("label")] == ["label-0", "label-1"]
    assert ".watch:has(#label-1:checked) .of-1 { display: revert; }" in page


def test_nothing_from_outside_becomes_markup():
    labels = [{**entry, "name": HOSTILE} for entry in watched()["labels"]]
    attention = {HOSTILE: {HOSTILE: watched()["attention"]["rgb"]["global"]}}
    provenance = {"train_dir": HOSTILE, "checkpoint": HOSTILE, "weights": HOSTILE, "step": None}
    page = build_watch_page(
        watched(
            video=HOSTILE,
            labels=labels,
            attention=attention,
            warnings=[HOSTILE],
            extractor=HOSTILE,
            model=HOSTILE,
            options={HOSTILE: HOSTILE},
            provenance=provenance,
        ),
        [HOSTILE],
    )
    plain = build_watch_page(watched(warnings=["x"]), ["x"])
    assert [tag for tag, _ in Tags(page).elements] == [tag for tag, _ in Tags(plain).elements]
    assert "alert(1)</script>" not in page


def test_nothing_is_fetched():
    fetches = r"""(src|href)=["'](?!data:)|url\(|@import|https?://(?!www.w3.org)"""
    assert not re.search(fetches, build_watch_page(watched()))


def test_a_video_without_pictures_or_attention_has_a_page():
    page = build_watch_page(watched(frames=[None] * 3, attention={}))
    assert '<div class="film"><i></i><i></i><i></i></div>' in page
    assert "heats" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_tracks_are_to_scale():
    drawn = step_track([1.0, -1.0, 5.0], [0.0, 1.0, 2.0, 4.0], (-1.0, 3.0), color=0)
    # 4 units are 100 high; the third value is cut off at 3; the frames are 1, 1 and 2 s wide.
    assert 'viewBox="0 -75 1000 100"' in drawn
    assert 'd="M0.0 0V-25.0H250.0V25.0H500.0V-75.0H1000.0V0Z"' in drawn
    heats = heat_track([0.0, 2.0], [0.0, 1.0, 2.0], largest=2.0)
    assert 'var(--heat-0)" d="M0.0 0H500.0V1H0.0Z"' in heats
    assert 'var(--heat-11)" d="M500.0 0H1000.0V1H500.0Z"' in heats


@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_tracks_of_nothing_are_drawn(values):
    edges = [0.0, 1.0, 2.0][: len(values) + 1]
    assert "NaN" not in step_track(values, edges, (0.0, 0.0), 0) + heat_track(values, edges, 0.0)


def test_times_read_like_a_clock():
    assert [clock(s) for s in (0, 7.5, 59.96, 125, 3661)] == [
        *("0 s", "7.5 s", "1:00", "2:05", "61:01")
    ]
    assert percent_of(1.0, [0.0, 4.0]) == 25.0
    assert [text for _, text in time_track.time_ticks([0.0, 2.0])][:2] == ["0 s", "0.5 s"]
