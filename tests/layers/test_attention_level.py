import numpy as np
import pytest

from yt8m_gat.layers import AttentionLevel

# Fig. 2 of "Leveraging Local Temporal Information for Multimodal Scene Classification": BD and
# TP with W = 3, TD with W = 4 and L = 2, the reference frames being the diagonal.
FIGURE_2 = {
    "bd3": """
        O##......
        #O#......
        ##O......
        ...O##...
        ...#O#...
        ...##O...
        ......O##
        ......#O#
        ......##O""",
    "tp3": """
        O###.....
        #O###....
        ##O###...
        ###O###..
        .###O###.
        ..###O###
        ...###O##
        ....###O#
        .....###O""",
    "td4x2": """
        O.#.#....
        .O.#.#...
        #.O.#.#..
        .#.O.#.#.
        #.#.O.#.#
        .#.#.O.#.
        ..#.#.O.#
        ...#.#.O.
        ....#.#.O""",
}


@pytest.mark.parametrize("form", FIGURE_2)
def test_drawing_is_figure_2(form):
    lines = [line.strip() for line in FIGURE_2[form].strip().splitlines()]
    assert AttentionLevel.parse(form).draw(9).splitlines() == lines


@pytest.mark.parametrize("form", ["global", "bd1", "bd4", "tp2", "td5x2", "td9x3", "tp40"])
@pytest.mark.parametrize("num_frames", [1, 10, 13])
def test_dense_mask_is_the_wording_of_the_paper(form, num_frames, neighbours_of):
    expected = np.zeros((num_frames, num_frames), bool)
    for i in range(num_frames):
        expected[i, neighbours_of(form, i, num_frames)] = True
    np.testing.assert_array_equal(AttentionLevel.parse(form).dense_mask(num_frames), expected)


@pytest.mark.parametrize("form", ["global", "bd20", "tp30", "td60x4", "td5x1"])
def test_text_form_round_trip(form):
    level = AttentionLevel.parse(form)
    assert str(level) == form
    assert AttentionLevel.parse(level) is level
    assert AttentionLevel.parse(str(level)) == level


def test_parsed_values():
    assert AttentionLevel.parse("td60x4") == AttentionLevel("td", window=60, dilation=4)
    assert AttentionLevel.parse("bd20") == AttentionLevel("bd", window=20)
    assert AttentionLevel.parse("global") == AttentionLevel("global")


@pytest.mark.parametrize(
    "form", ["", "bd", "BD20", "tp3x2", "td60", "global20", "bd-3", "bd20 ", 7]
)
def test_unreadable_form(form):
    with pytest.raises(ValueError, match=r"must be 'global', 'bd<W>'.*Received: "):
        AttentionLevel.parse(form)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "local"}, r"`kind` must be one of .*kind='local'"),
        ({"kind": "global", "window": 3}, "neither window nor dilation.*window=3"),
        ({"kind": "bd"}, "at least 1 frame.*window=None"),
        ({"kind": "tp", "window": 0}, "at least 1 frame.*window=0"),
        ({"kind": "tp", "window": 4, "dilation": 2}, "Only kind 'td'.*dilation=2"),
        ({"kind": "td", "window": 4, "dilation": 5}, "at most `window`.*dilation=5"),
        ({"kind": "td", "window": 4, "dilation": 0}, "at least 1.*dilation=0"),
    ],
)
def test_wrong_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionLevel(**arguments)
