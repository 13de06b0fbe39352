import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from yt8m_gat.commands.kaggle import main
from yt8m_gat.metrics import EvaluationMetrics, evaluate
from yt8m_gat.prediction.kaggle import check_submission, score_submission, write_sheet
from yt8m_gat.prediction.submission import SegmentSubmissionWriter, SubmissionWriter

VIDEO_HEADER = "VideoId,LabelConfidencePairs"


def violations(tmp_path, *lines, **options):
    path = tmp_path / "submission.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return list(check_submission(path, **options))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("v", "a row must have 2 fields, received 1"),
        ("v,1 0.5,2 0.3", "a row must have 2 fields, received 3"),
        ("", "a row must have 2 fields, received 0"),
        (",1 0.5", "the video id must not be empty"),
        ("v,", "pairs must be `label score` joined by single spaces, received 0 fields in ''"),
        ("v,1 0.5 2", "pairs must be .*, received 3 fields in '1 0.5 2'"),
        ("v,1 0.5  2 0.3", "pairs must be .* single spaces"),
        ("v,1 0.5 2 0.4 3 0.3 4 0.2", "a row must have 1 to 3 pairs, received 4"),
        ("v,10 0.5", "a label must be an integer in 0 .. 9, received '10'"),
        ("v,-1 0.5", "a label must be an integer in 0 .. 9, received '-1'"),
        ("v,1.0 0.5", "a label must be an integer in 0 .. 9, received '1.0'"),
        ("v,1 0.5 1 0.4", "label '1' must not be repeated in its row"),
        ("v,1 0.3 2 0.4", "scores must not ascend, received 0.3 before 0.4"),
        ("v,1 nan", "a score must be a finite number, received 'nan'"),
        ("v,1 inf", "a score must be a finite number, received 'inf'"),
        ("v,1 high", "a score must be a finite number, received 'high'"),
        ("first,1 0.5", "'first' is already in line 2"),
    ],
)
def test_each_violation_is_found_with_its_line(tmp_path, row, message):
    found = violations(
        tmp_path, VIDEO_HEADER, "first,0 1 9 0.5 3 0.5", row, "last,1 0.5", num_classes=10, top_k=3
    )
    assert len(found) == 1
    assert found[0].startswith("line 3: ")
    assert re.search(message, found[0])


def test_all_violations_of_a_row_and_of_a_file(tmp_path):
    found = violations(tmp_path, VIDEO_HEADER, "a,99 0.1 1 0.2", "b,1 0.5", "b,x 0.5")
    found += violations(tmp_path, VIDEO_HEADER, "a,9999 0.1 1 0.2 1 0.1", "a,1 0.5")
    assert [text.split(":")[0] for text in found] == [
        "line 2",
        "line 4",
        "line 4",
        "line 2",
        "line 2",
        "line 2",
        "line 3",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["VideoId,Labels", "v,1 0.5"], "line 1: the header must be .*received 'VideoId,Labels'"),
        ([""], "line 1: the header must be .*received ''"),
        ([VIDEO_HEADER], "line 2: there must be at least one row"),
        (["Class,Segments", "1,a:0 b:5 a:0"], "line 2: segment 'a:0' must not be repeated"),
        (["Class,Segments", "1,a:0", "1,b:0"], "line 3: '1' is already in line 2"),
        (["Class,Segments", "10,a:0"], "line 2: a label must be .* 0 .. 9, received '10'"),
        (["Class,Segments", "1,a:0 b"], "line 2: segments must be `id:start` .*received 'b'"),
        (["Class,Segments", "1,a:0  b:0"], "line 2: segments must be `id:start` .*received ''"),
        (
            ["Class,Segments", "1,a:0 b:0 c:0 d:0"],
            "line 2: a class must have at most 3 segments, .* 4",
        ),
    ],
)
def test_headers_and_segments(tmp_path, lines, message):
    found = violations(tmp_path, *lines, num_classes=10, max_per_class=3)
    assert len(found) == 1
    assert re.match(message, found[0])


def test_what_the_writers_write_has_no_violation(tmp_path):
    rng = np.random.default_rng(0)
    with SubmissionWriter(tmp_path / "videos.csv") as writer:
        writer.write(["a", "com,ma", 'quo"te', "NA"], rng.random((4, 50)))
    assert list(check_submission(tmp_path / "videos.csv", num_classes=50)) == []
    with SegmentSubmissionWriter(tmp_path / "segments.csv", range(0, 50, 2)) as writer:
        # A row longer than the limit of the csv module.
        writer.write(["abcd"] * 20_000, range(0, 100_000, 5), rng.random((20_000, 50), "f4"))
    assert (tmp_path / "segments.csv").stat().st_size > 25 * 131_072
    limit = csv.field_size_limit()
    assert list(check_submission(tmp_path / "segments.csv", num_classes=50)) == []
    write_sheet(tmp_path / "segments.csv", tmp_path / "sheet.csv")
    assert csv.field_size_limit() == limit  # It holds for the whole process.


def write_truth(path, ids, labels):
    rows = [
        f"{video_id},{' '.join(map(str, np.flatnonzero(row)))}"
        for video_id, row in zip(ids, labels, strict=True)
    ]
    path.write_text("\n".join(["VideoId,Labels", *rows]) + "\n")


@pytest.mark.parametrize("max_labels", [0, 3, 12])
def test_score_is_evaluation_metrics(tmp_path, max_labels):
    rng = np.random.default_rng(1)
    ids = ["NA", "null", *(f"v{i}" for i in range(38))]
    # Two decimals, exact in %g, and ties.
    probabilities = rng.integers(0, 100, (40, 15)) / 100
    labels = np.zeros((40, 15), bool)
    for row in labels[1:]:
        row[rng.choice(15, rng.integers(0, max_labels + 1), replace=False)] = True
    with SubmissionWriter(tmp_path / "s.csv", top_k=5) as writer:
        writer.write(ids, probabilities)
    order = rng.permutation(40)
    write_truth(tmp_path / "t.csv", [ids[i] for i in order], labels[order])
    metrics = EvaluationMetrics(15, top_k=5, all_scores=False)
    metrics.update(labels, probabilities)
    expected = metrics.result()
    if max_labels == 12:
        del expected["perr"]
    result = score_submission(tmp_path / "s.csv", tmp_path / "t.csv", num_classes=15)
    assert result == pytest.approx(expected, abs=1e-12)


def test_missing_and_unknown_videos_are_counted(tmp_path):
    (tmp_path / "s.csv").write_text(f"{VIDEO_HEADER}\na,1 0.5\nx,1 0.5\n")
    (tmp_path / "t.csv").write_text("VideoId,Labels\na,1\nb,\nc,2\n")
    with pytest.raises(
        ValueError,
        match=r"2 videos missing from the submission, as 'b', 'c'; 1 videos unknown .*'x'",
    ):
        score_submission(tmp_path / "s.csv", tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("VideoId,Label\na,1\n", "header of .* must be VideoId,Labels. Received: VideoId,Label"),
        ("VideoId,Labels\n", "at least one video"),
        ("VideoId,Labels\na,1\na,2\n", "1 repeated rows, as 'a'"),
        ("VideoId,Labels\na,4000\n", "'a': a label must be an integer in 0 .. 3861"),
        ("VideoId,Labels\na,1,2\n", "must have 2 fields"),
        ("VideoId,Labels\na,1\nb,1,2\n", "Expected 2 fields in line 3, saw 3"),
    ],
)
def test_bad_truth_refused(tmp_path, truth, message):
    (tmp_path / "s.csv").write_text(f"{VIDEO_HEADER}\na,1 0.5\n")
    (tmp_path / "t.csv").write_text(truth)
    with pytest.raises(ValueError, match=message):
        score_submission(tmp_path / "s.csv", tmp_path / "t.csv")


def test_command_line(tmp_path, capsys):
    good, bad, truth = (str(tmp_path / name) for name in ("good.csv", "bad.csv", "truth.csv"))
    (tmp_path / "good.csv").write_text(f"{VIDEO_HEADER}\na,1 0.9 0 0.1\nb,0 0.8 1 0.7\n")
    (tmp_path / "bad.csv").write_text(f"{VIDEO_HEADER}\na,1 0.1 0 0.9\n")
    (tmp_path / "truth.csv").write_text("VideoId,Labels\na,1\nb,1\n")
    assert main(["check", good]) == 0
    assert capsys.readouterr().out == f"{good}: no violation\n"
    assert main(["check", bad]) == 1
    captured = capsys.readouterr()
    assert captured.out == "line 2: scores must not ascend, received 0.1 before 0.9\n"
    assert captured.err == f"{bad}: 1 violations\n"
    assert main(["check", good, "--num_classes=1"]) == 1
    assert main(["check", good, "--top_k=1"]) == 1
    assert main(["score", bad, truth]) == 1
    assert main(["check", str(tmp_path / "none.csv")]) == 1
    assert "none.csv" in capsys.readouterr().err
    assert main(["score", good, truth]) == 0
    # Pool: .9 hit, .8 miss, .7 hit, .1 miss; P = 2. Class 1: hit, hit; class 0 has no positive.
    assert json.loads(capsys.readouterr().out) == pytest.approx(
        {
            **{"gap": (1 + 2 / 3) / 2, "map": 1.0, "hit_at_1": 0.5, "perr": 0.5, "num_videos": 2},
            "mean_class_accuracy": 0.5,  # Two pairs a video are too few for top-5.
        }
    )


def test_single_label_metrics_of_a_csv_are_those_of_the_scores(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(1, 10) / 10, (40, 1)), axis=1)
    labels = rng.integers(0, 9, 40)
    rows = [
        f"v{i}," + " ".join(f"{k} {row[k]:.1f}" for k in np.argsort(-row)[:6])
        for i, row in enumerate(scores)
    ]
    order = rng.permutation(40)
    truth = [f"v{i},{labels[i]}" for i in order]
    for name, header, lines in (
        ("csv", "VideoId,LabelConfidencePairs", rows),
        ("truth", "VideoId,Labels", truth),
    ):
        (tmp_path / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    found = score_submission(tmp_path / "csv", tmp_path / "truth", num_classes=9)
    expected = evaluate(np.eye(9)[labels], scores, top_k=6)
    for name in ("hit_at_1", "top_5", "mean_class_accuracy", "perr", "gap"):
        assert found[name] == pytest.approx(expected[name]), name


def test_exit_code_of_the_module(tmp_path):
    (tmp_path / "s.csv").write_text("wrong\n")
    command = [sys.executable, "-m", "yt8m_gat.evaluation.kaggle", "check", str(tmp_path / "s.csv")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stdout.startswith("line 1: the header must be")


NAMES = 'index,mid,display_name\n3,/m/3,Guitar\n7,/m/7,"Speech, male"\n'


def test_show_names_the_labels_of_videos(tmp_path, capsys):
    (tmp_path / "names.csv").write_text(NAMES, encoding="utf-8")
    path = tmp_path / "submission.csv"
    path.write_text(f"{VIDEO_HEADER}\na,3 0.5 7 0.25 5 0.125\nb,5 0.5\nc,7 1.0\n", encoding="utf-8")
    names = f"--label_names={tmp_path / 'names.csv'}"
    assert main(["show", str(path), names, "--entries=2", "--rows=2"]) == 0
    assert capsys.readouterr().out == (
        "a\n  0.5000  3 Guitar\n  0.2500  7 Speech, male\nb\n  0.5000  5\n"
    )
    assert main(["show", str(path), names, "--keys=c"]) == 0
    assert capsys.readouterr().out == "c\n  1.0000  7 Speech, male\n"
    assert main(["show", str(path), "--keys=c,nobody"]) == 1
    assert "has no row of nobody" in capsys.readouterr().err


def test_show_names_the_classes_of_segments(tmp_path, capsys):
    (tmp_path / "names.csv").write_text(NAMES, encoding="utf-8")
    path = tmp_path / "submission.csv"
    path.write_text("Class,Segments\n3,a:0 b:5 a:10\n5,b:0\n", encoding="utf-8")
    arguments = ["show", str(path), f"--label_names={tmp_path / 'names.csv'}", "--entries=2"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "3 Guitar (3 segments)\n  a:0 b:5\n5 (1 segments)\n  b:0\n"


def test_show_refuses_what_is_no_submission(tmp_path, capsys):
    path = tmp_path / "submission.csv"
    path.write_text("VideoId,Labels\na,3\n", encoding="utf-8")
    assert main(["show", str(path)]) == 1
    assert "line 1: the header must be" in capsys.readouterr().out
