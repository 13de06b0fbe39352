"""Files that group classes, and what two models' classes differ in."""

from pathlib import Path

import numpy as np
import pytest

from yt8m_gat.config import ConfigError
from yt8m_gat.evaluation.class_groups import read_class_groups
from yt8m_gat.evaluation.comparison import compare_classes, difference_intervals
from yt8m_gat.evaluation.measurement import Measurement
from yt8m_gat.metrics import EvaluationMetrics, interval

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write(tmp_path, text):
    path = tmp_path / "groups.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_vocabulary_groups_by_its_verticals(tmp_path):
    path = write(
        tmp_path,
        "Index,Name,Vertical1,Vertical2,Vertical3\n"
        "0,Game,Games,,\n1,Song,Arts,Games,\n2,Bank,Finance,,\n",
    )
    assert read_class_groups(path, 3) == {"Games": [0, 1], "Arts": [1], "Finance": [2]}


def test_a_label_map_groups_by_its_targets(tmp_path):
    path = write(
        tmp_path, "source_index,target_index,target_name\n4,1,Loud\n0,0,Quiet\n2,1,\n0,2,Quiet\n"
    )
    # Of two targets with one name each is a group of its own.
    assert read_class_groups(path, 9) == {"Quiet 0": [0], "Quiet 2": [0], "Loud": [2, 4]}


def test_two_columns_group_any_label_space(tmp_path):
    path = write(tmp_path, '\ufeffindex,group\n3,"b, c"\n1,a\n\n3,a\n1,a\n')
    assert read_class_groups(path, 4) == {"b, c": [3], "a": [1, 3]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,group\n", "no row below"),
        ("index,group\n1\n", r"row 2: .*Received: '1'"),
        ("index,group\n1,a\nx,a\n", r"row 3: .*Received: 'x,a'"),
        ("index,group\n1000000000,a\n", r"row 2: .*Received: '1000000000,a'"),
        ("index,group\n4,a\n", r"has the class 4, and the run has the classes 0 \.\. 3"),
        ("class,group\n1,a\n", r"line 1: .*Received: 'class,group'"),
        ("", "line 1"),
    ],
)
def test_what_is_no_grouping_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_class_groups(write(tmp_path, text), 4)
    with pytest.raises(OSError, match="nowhere"):
        read_class_groups(tmp_path / "nowhere.csv", 4)


def test_the_papers_verticals_are_there():
    path = SHARED / "yt8m_vocab" / "vocabulary.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    groups = read_class_groups(path, 3862)
    assert set(groups) >= {"Arts & Entertainment", "Finance"}
    assert set().union(*groups.values()) == set(range(3862))


def test_differences_of_classes():
    ours = np.array([0.5, 0.9, np.nan, 0.1, 0.4, 0.4])
    theirs = np.array([0.5, 0.4, np.nan, 0.8, 0.3, 0.3])
    many = np.full(6, 10)
    names = {1: "one", 3: "three"}
    found = compare_classes(ours, theirs, names, many, num_extremes=2)
    assert (found["min_positives"], found["num_ranked"]) == (10, 5)
    assert [entry[:2] for entry in found["top"]] == [[1, "one"], [4, None]]
    assert [entry[:2] for entry in found["bottom"]] == [[3, "three"], [0, None]]
    assert found["top"][0][2] == pytest.approx(0.5)
    np.testing.assert_allclose(found["differences"], ours - theirs)
    only = compare_classes(np.array([np.nan, 0.25]), np.array([np.nan, 0.5]), {}, many[:2])
    assert only["top"] == only["bottom"] == [[1, None, -0.25]]
    with pytest.raises(ValueError, match=r"\(6,\), \(5,\) and \(6,\)"):
        compare_classes(ours, theirs[:5], {}, many)
    # The largest differences of all are those of classes with nine positives.
    found = compare_classes(ours, theirs, names, np.array([10, 9, 0, 9, 12, 10]))
    assert [entry[0] for entry in found["top"]] == [4, 5, 0] and found["num_ranked"] == 3
    assert found["differences"][1] == pytest.approx(0.5)


def test_differences_are_resampled_in_pairs():
    rng = np.random.default_rng(0)
    labels = rng.random((200, 2)) < 0.3
    noise = rng.normal(size=(200, 2))
    runs = []
    for scores in (labels + noise, 2 * (labels + noise)):  # The same order: the same model.
        metrics = EvaluationMetrics(2)
        metrics.update(labels, scores)
        runs.append(Measurement(metrics, None, {}, 200, False, labels.sum(axis=0), {}))
    ap = runs[0].per_class_average_precision()
    listed = compare_classes(ap, ap, {}, labels.sum(axis=0))
    assert difference_intervals(listed, *runs) == {"0": [0.0, 0.0], "1": [0.0, 0.0]}
    # Unpaired, even equal models seem to differ.
    low, high = interval(runs[0].resampled_average_precision([0])[:, 0])
    assert low < ap[0] - 0.02 and ap[0] + 0.02 < high
