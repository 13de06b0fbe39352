"""The frames of raw clips in the report, with the class activation of each run below them."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from test_report import EVALUATION, Page, write_run

from yt8m_gat.report.drawing.chart import standalone
from yt8m_gat.report.page import build_page
from yt8m_gat.report.source import MAX_PICTURE_LENGTH, read_run

START = "data:image/jpeg;base64,"
JPEGS = [f"{START}/9j/AAA{letter}" for letter in "ABCD"]


def activation(index, values, entropy=0.5):
    return {"class": index, "name": None, "values": values, "entropy": entropy, "spread": 1.0}


def clip(activations, frames=JPEGS, **more):
    side = {"top": [[3, None, 0.8]], "frames": frames, "activation": activations}
    return {"video_id": "abcd", "labels": [[3, None]], "clean": side, **more}


def write(folder, shown, **options):
    write_run(folder, **options)
    (folder / "evaluation.json").write_text(json.dumps({**EVALUATION, "clips": [shown]}))
    return read_run(folder)


def heights(path):
    """The shares that a strip shows, as parts of the height of the whole scale (40 units)."""
    zero, *levels = (float(y) for y in re.findall(r"[V ]([\d.]+)(?=[HV])", path))
    return [round((zero - level) / 40, 3) for level in levels[: len(JPEGS)]]


def test_frames_once_and_a_strip_of_each_run_on_one_scale(tmp_path):
    peaked = clip([activation(3, [6.0, 1.0, 1.0, -2.0])])
    even = clip([activation(3, [0.02] * 4, 1.0), activation(1, [0.0, -1.0, 0.0, 0.0], None)])
    runs = [write(tmp_path / "tsm", peaked), write(tmp_path / "taf", even, adversarial="output")]
    text, figures = build_page(runs)
    svg = figures["clip_frames_abcd_clean"]
    assert re.findall(r'href="([^"]+)"', svg) == JPEGS
    assert svg in text
    # Shares 6/8, 1/8, 1/8 and -2/8 on a scale from -1/4 to 3/4; then a quarter for each.
    assert [heights(path) for path in re.findall(r' d="([^"]+)"', svg)] == [
        [0.75, 0.125, 0.125, -0.25],
        [0.25] * 4,
    ]
    assert re.findall(r"--series-\d", svg) == ["--series-0", "--series-1"]
    words = re.findall(r'class="key"[^>]*>([^<]+)<', svg)
    assert words == [
        "tsm: class 3, entropy 0.500, spread 1.000",
        "taf: class 3, entropy 1.000, spread 1.000",
        "taf, prediction: class 1; no frame speaks for it",
    ]


def test_the_attacked_frames_of_each_run(tmp_path):
    side = {"top": [], "activation": [activation(3, [1.0] * 4)], "attack": "fgm", "epsilon": 8.0}
    runs = [
        write(
            tmp_path / name,
            clip([activation(3, [1.0] * 4)], attacked={**side, "frames": frames}),
            name=model,
        )
        for name, model, frames in (("a", "AART", JPEGS[:2]), ("b", "GAT", JPEGS[2:]))
    ]
    svg = build_page(runs)[1]["clip_frames_abcd_attacked"]
    assert re.findall(r'href="([^"]+)"', svg) == JPEGS
    words = re.findall(r'class="key"[^>]*>([^<]+)<', svg)
    assert words[::2] == ["a: fast gradient, epsilon 8", "b: fast gradient, epsilon 8"]


@pytest.mark.parametrize(
    "frame",
    [
        "https://example.org/a.jpg",
        "data:image/svg+xml;base64,/9j/",
        START + "PHN2Zz4=",  # Not a JPEG.
        START + "/9j/A",  # Not base64.
        START + '/9j/"/><script>',
        START + "/9j/\n",
        START + "/9j/" + "A" * MAX_PICTURE_LENGTH,
    ],
)
def test_nothing_but_a_small_jpeg_gets_into_the_page(tmp_path, frame):
    run = write(tmp_path / "tsm", clip([], [JPEGS[0], frame]))
    (message,) = run.unreadable
    assert "'clips' must have frames that are data URIs of JPEGs" in message
    assert "<image" not in build_page([run])[0]


def test_names_beside_the_frames_are_escaped(tmp_path):
    evil = '<i onload="x">'
    shown = clip([{**activation(3, [1.0]), "name": evil}]) | {"video_id": evil}
    text, figures = build_page([write(tmp_path / "tsm", shown)])
    assert "<i " not in text and Page(text).open == []
    ElementTree.fromstring(standalone(figures[f"clip_frames_{evil}_clean"]).encode())
