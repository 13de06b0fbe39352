import os

import numpy as np
import pandas as pd
import pytest

from yt8m_gat.prediction import submission
from yt8m_gat.prediction.submission import SegmentSubmissionWriter, SubmissionWriter


def write(path, video_ids, probabilities, top_k=20):
    with SubmissionWriter(path, top_k) as writer:
        writer.write(video_ids, np.asarray(probabilities))
    return path.read_bytes().decode()


def test_video_csv_golden(tmp_path):
    path = tmp_path / "submission.csv"
    with SubmissionWriter(path, top_k=3) as writer:
        writer.write([b"twu2", "a b"], np.float32([[0.1, 0.282346, 0, 0.527231], [0.5] * 4]))
        writer.write([b"zero"], np.array([[1e-7, 1.0, 0.0, 1 / 3]]))
    assert path.read_bytes() == (
        b"VideoId,LabelConfidencePairs\n"
        b"twu2,3 0.527231 1 0.282346 0 0.1\n"
        b"a b,0 0.5 1 0.5 2 0.5\n"
        b"zero,1 1 3 0.333333 0 1e-07\n"
    )
    assert os.listdir(tmp_path) == ["submission.csv"]


def test_fewer_classes_than_top_k(tmp_path):
    assert write(tmp_path / "s.csv", ["v"], [[0.25, 0.75]]).endswith("\nv,1 0.75 0 0.25\n")


def test_no_rows_and_empty_batches(tmp_path):
    text = write(tmp_path / "s.csv", [], np.zeros((0, 5)))
    assert text == "VideoId,LabelConfidencePairs\n"


def test_pandas_reads_back_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    ids = ['quo"te', "com,ma", '"', "NA", "ünï", " spaced ", "100%", "plain"]
    probabilities = rng.random((len(ids), 30), dtype=np.float32)
    write(tmp_path / "s.csv", [text.encode() for text in ids], probabilities, top_k=30)
    table = pd.read_csv(tmp_path / "s.csv", keep_default_na=False)
    assert list(table.columns) == ["VideoId", "LabelConfidencePairs"]
    assert table["VideoId"].tolist() == ids
    for row, pairs in zip(probabilities, table["LabelConfidencePairs"], strict=True):
        fields = pairs.split(" ")
        labels, scores = np.array(fields[::2], int), np.array(fields[1::2], float)
        np.testing.assert_array_equal(labels, np.argsort(-row))
        np.testing.assert_allclose(scores, row[labels], rtol=1e-5)


@pytest.mark.parametrize(
    ("video_id", "message"),
    [
        (b"\xff\xfe", r"UTF-8. Received: b'\\xff\\xfe'"),
        (b"", "must not be empty"),
        ("two\nlines", r"line break. Received: 'two\\nlines'"),
        ("carriage\rreturn", "line break"),
    ],
)
def test_ids_refused(tmp_path, video_id, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "s.csv", [video_id], [[0.5]])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_probabilities_that_are_not_finite_refused_with_the_id(tmp_path, value):
    with pytest.raises(ValueError, match=r"1 rows, the first of video 'second'"):
        write(tmp_path / "s.csv", [b"first", b"second"], [[0.5, 0.5], [0.5, value]])
    with (
        pytest.raises(ValueError, match=r"first of video 'v'"),
        SegmentSubmissionWriter(tmp_path / "s.csv", [0]) as writer,
    ):
        writer.write(["v"], [0], np.array([[value]]))
    assert os.listdir(tmp_path) == []


def test_shape_mismatch_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape=\(3, 1\), 2 ids"):
        write(tmp_path / "s.csv", ["a", "b"], [[0.5]] * 3)


def test_an_error_leaves_what_was_there_before(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="midway"), SubmissionWriter(path) as writer:
        writer.write(["v"], np.array([[0.5]]))
        assert path.read_text() == "old"
        raise RuntimeError("midway")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["s.csv"]
    write(path, ["v"], [[0.5]])
    assert path.read_text() == "VideoId,LabelConfidencePairs\nv,0 0.5\n"


def test_an_error_of_the_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(submission.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "s.csv", ["v"], [[0.5]])
    assert os.listdir(tmp_path) == []


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "real" / "s.csv")
    write(link, ["v"], [[0.5]])
    assert link.is_symlink()
    assert os.listdir(tmp_path / "real") == ["s.csv"]


@pytest.mark.parametrize(
    "make", [SubmissionWriter, lambda path: SegmentSubmissionWriter(path, [0])]
)
def test_bad_places_refused_before_any_work(tmp_path, monkeypatch, make):
    with pytest.raises(FileNotFoundError, match=r"--output_file must exist.*no_such_folder"):
        make(tmp_path / "no_such_folder" / "s.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=r"--output_file must exist"):
        make(tmp_path / "file" / "s.csv")
    for place in (tmp_path, os.devnull):
        with pytest.raises(IsADirectoryError, match=r"--output_file must name a regular file"):
            make(place)
    # The root user may write anywhere: what the system would answer another user.
    monkeypatch.setattr(submission.os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(PermissionError, match=r"folder of --output_file must be writable"):
        make(tmp_path / "s.csv")
    assert os.listdir(tmp_path) == ["file"]


def test_writing_outside_the_context_refused(tmp_path):
    writer = SubmissionWriter(tmp_path / "s.csv")
    with pytest.raises(ValueError, match="only be written inside `with`"):
        writer.write(["v"], np.array([[0.5]]))
    with writer:
        pass
    with pytest.raises(ValueError, match="only be written inside `with`"):
        writer.write(["v"], np.array([[0.5]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_ids": []}, r"at least one. Received: \[\]"),
        ({"class_ids": [3, 3]}, r"distinct.*\[3, 3\]"),
        ({"class_ids": [-1]}, r"not negative.*\[-1\]"),
        ({"class_ids": [1], "max_per_class": 0}, "max_per_class=0"),
    ],
)
def test_constructor_refusals(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentSubmissionWriter(tmp_path / "s.csv", **arguments)
    with pytest.raises(ValueError, match=r"`top_k` must be positive. Received: top_k=0"):
        SubmissionWriter(tmp_path / "s.csv", top_k=0)


def test_segment_csv_golden(tmp_path):
    path = tmp_path / "segments.csv"
    with SegmentSubmissionWriter(path, class_ids=[3, 1], max_per_class=2) as writer:
        # Columns 1 and 3 count; column 0 does not.
        writer.write([b"aaaa", b"aaaa"], [0, 5], np.array([[9, 0.2, 0, 0.5], [9, 0.9, 0, 0.5]]))
        writer.write(["bbbb"], np.array([10]), np.array([[9, 0.4, 0, 0.5]]))
        writer.write(["cccc"], np.array([15]), np.array([[9, 0.1, 0, 0.8]]))
    # Class 3: .8, then of three at .5 the first written.
    assert path.read_bytes() == b"Class,Segments\n3,cccc:15 aaaa:0\n1,aaaa:5 bbbb:10\n"
    table = pd.read_csv(path)
    assert table["Class"].tolist() == [3, 1]
    assert table["Segments"].str.split(" ").tolist() == [
        ["cccc:15", "aaaa:0"],
        ["aaaa:5", "bbbb:10"],
    ]


def test_segment_csv_without_segments(tmp_path):
    with SegmentSubmissionWriter(tmp_path / "s.csv", [5, 2]):
        pass
    assert (tmp_path / "s.csv").read_text() == "Class,Segments\n5,\n2,\n"


@pytest.mark.parametrize("max_per_class", [1, 7, 1000])
@pytest.mark.parametrize("distinct_scores", [3, 10**6])
def test_segments_are_the_head_of_one_stable_sort(tmp_path, max_per_class, distinct_scores):
    rng = np.random.default_rng(max_per_class)
    num_segments, class_ids = 230, [4, 0, 7]
    videos = np.arange(num_segments) // 10
    starts = np.arange(num_segments) % 10 * 5
    scores = (rng.integers(0, distinct_scores, (num_segments, 8)) / distinct_scores).astype("f4")
    with SegmentSubmissionWriter(tmp_path / "s.csv", class_ids, max_per_class) as writer:
        for rows in np.split(np.arange(num_segments), [5, 6, 90, 200]):
            writer.write([f"v{v}".encode() for v in videos[rows]], starts[rows], scores[rows])
            # Bounded: the kept segments of the classes and one buffer.
            assert len(writer._segments) <= len(class_ids) * max_per_class
            assert len(writer._new_segments) <= max_per_class
    expected = ["Class,Segments"]
    for class_id in class_ids:
        order = np.argsort(-scores[:, class_id], kind="stable")[:max_per_class]
        expected.append(f"{class_id}," + " ".join(f"v{videos[s]}:{starts[s]}" for s in order))
    assert (tmp_path / "s.csv").read_text().splitlines() == expected


@pytest.mark.parametrize("video_id", ["a b", "a:b", "a,b", 'a"b', "a\tb"])
def test_segment_ids_refused(tmp_path, video_id):
    with (
        pytest.raises(ValueError, match="whitespace, a colon, a comma or a quote"),
        SegmentSubmissionWriter(tmp_path / "s.csv", [0]) as writer,
    ):
        writer.write([video_id], [0], np.array([[0.5]]))


def test_class_ids_outside_the_model_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="2 columns, class id 2"),
        SegmentSubmissionWriter(tmp_path / "s.csv", [0, 2]) as writer,
    ):
        writer.write(["v"], [0], np.array([[0.5, 0.5]]))
