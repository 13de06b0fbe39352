"""Blends of submissions, worked out by hand."""

import re

import numpy as np
import pytest

from yt8m_gat.commands.kaggle import main
from yt8m_gat.prediction.blending import blend_submissions

HEADER = "VideoId,LabelConfidencePairs"
A = ("a,1 0.8 2 0.4", "b,0 0.5 1 0.1")
B = ("b,1 0.9", "a,2 0.6 3 0.2")


def write(path, *rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def blended(tmp_path, *options, a=A, b=B):
    paths = [write(tmp_path / "a.csv", *a), write(tmp_path / "b.csv", *b)]
    output = tmp_path / "blend.csv"
    assert main(["blend", *paths, f"--output_file={output}", *options]) == 0
    assert main(["check", str(output)]) == 0
    return output.read_text(encoding="utf-8").splitlines()


def test_the_mean_weighs_scores_and_takes_a_missing_pair_for_0(tmp_path):
    # a: 2 has (3 * 0.4 + 0.6) / 4, 1 has 3 * 0.8 / 4; b: 1 has (3 * 0.1 + 0.9) / 4.
    assert blended(tmp_path, "--weights=3,1") == [
        HEADER,
        "a,1 0.6 2 0.45 3 0.05",
        "b,0 0.375 1 0.3",
    ]


def test_ranks_are_among_all_pairs_of_a_file(tmp_path):
    # A: 0.8, 0.5, 0.4, 0.1 are 4/4, 3/4, 2/4, 1/4; B: 0.9, 0.6, 0.2 are 3/3, 2/3, 1/3.
    found = blended(tmp_path, "--method=rank")
    assert found[1] == f"a,2 {(1 / 2 + 2 / 3) / 2:g} 1 0.5 3 {1 / 6:g}"
    assert found[2] == f"b,1 {(1 / 4 + 1) / 2:g} 0 0.375"
    ties = blended(tmp_path, "--method=rank", a=("a,1 0.5 2 0.5",), b=("a,1 1",))
    assert ties[1:] == ["a,1 0.875 2 0.375"]


def test_the_geometric_mean_has_a_floor(tmp_path):
    found = blended(tmp_path, "--method=geometric", "--weights=1,3", "--top_k=2")
    pairs = [row.split(",")[1].split() for row in found[1:]]
    assert [pair[0::2] for pair in pairs] == [["2", "3"], ["1", "0"]]
    expected = [
        [0.4**0.25 * 0.6**0.75, 1e-6**0.25 * 0.2**0.75],
        [0.1**0.25 * 0.9**0.75, 0.5**0.25 * 1e-6**0.75],
    ]
    scores = np.array([pair[1::2] for pair in pairs], float)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_one_model_twice_keeps_its_order(tmp_path):
    for method in ("mean", "rank", "geometric"):
        found = blended(tmp_path, f"--method={method}", b=A)
        classes = [row.split(",")[1].split()[0::2] for row in found[1:]]
        assert classes == [["1", "2"], ["0", "1"]]


@pytest.mark.parametrize(
    ("b", "options", "message"),
    [
        (("a,1 0.5",), [], r"1 videos are only in '.*a\.csv', as 'b'"),
        ((*B, "c,1 0.5"), [], r"1 videos are only in '.*b\.csv', as 'c'"),
        (B, ["--weights=1"], "--weights must be 2 numbers of at least 0"),
        (B, ["--weights=0,0"], "not all 0"),
        (B, ["--weights=1,x"], "--weights"),
        (("b,1 0.5", "a,1 -0.5"), ["--method=geometric"], "needs scores of at least 0"),
    ],
)
def test_what_cannot_be_blended_is_named(tmp_path, capsys, b, options, message):
    paths = [write(tmp_path / "a.csv", *A), write(tmp_path / "b.csv", *b)]
    output = tmp_path / "blend.csv"
    assert main(["blend", *paths, f"--output_file={output}", *options]) == 1
    assert re.search(message, capsys.readouterr().err) and not output.exists()


def test_violations_are_printed_with_their_file(tmp_path, capsys):
    paths = [write(tmp_path / "a.csv", *A), write(tmp_path / "b.csv", "a,1 nan")]
    assert main(["blend", *paths, f"--output_file={tmp_path / 'c.csv'}"]) == 1
    assert f"{paths[1]}: line 2: a score must be a finite number" in capsys.readouterr().out
    with pytest.raises(ValueError, match="at least two submissions"):
        blend_submissions(paths[:1], tmp_path / "c.csv")
