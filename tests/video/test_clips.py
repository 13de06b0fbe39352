"""Lists of clips: every form, ids, class numbers, and errors that name the line."""

import os

import pytest

from yt8m_gat.video.clips import (
    Clip,
    ClipListError,
    clip_ids,
    clips_of,
    label_names,
    label_numbers,
    read_clips,
    video_id,
)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_csv_with_times_and_several_labels_a_clip(tmp_path):
    path = write(
        tmp_path / "clips.csv",
        '\ufeffpath,label,start,end\r\na.mp4,cat,1.5,4\r\n"b, c.mp4","dog, small",,\r\n\r\n'
        "a.mp4,dog,1.5,4\na.mp4,cat,,\n/v/d.mp4,,2,\n",
    )
    here = str(tmp_path)
    assert read_clips(path) == [
        Clip(f"{here}/a.mp4", ("cat", "dog"), 1.5, 4.0),
        Clip(f"{here}/b, c.mp4", ("dog, small",)),
        Clip(f"{here}/a.mp4", ("cat",)),
        Clip("/v/d.mp4", (), 2.0),
    ]


def test_csv_without_header_and_with_columns_in_another_order(tmp_path):
    plain = write(tmp_path / "a.csv", "x/a.mp4,cat\nx/b.mp4,dog,3\n")
    assert [(clip.labels, clip.start) for clip in read_clips(plain)] == [
        (("cat",), 0),
        (("dog",), 3),
    ]
    other = write(tmp_path / "b.csv", "label,path\ncat,a.mp4\n")
    assert read_clips(other) == [Clip(str(tmp_path / "a.mp4"), ("cat",))]


def test_lines_of_path_and_label_keep_blanks_in_the_path(tmp_path):
    path = write(tmp_path / "train.txt", "my clips/a b.mp4 3\n\n  c.mp4\t12 \n")
    assert read_clips(path) == [
        Clip(str(tmp_path / "my clips/a b.mp4"), ("3",)),
        Clip(str(tmp_path / "c.mp4"), ("12",)),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "a.mp4,cat\nb.mp4,cat,x\n",
            r"a\.csv, line 2: start must be seconds of at least 0",
        ),
        ("a.csv", "a.mp4,cat,nan\n", "line 1: start must be seconds"),
        ("a.csv", "a.mp4,cat,0,-1\n", "line 1: end must be seconds"),
        ("a.csv", "a.mp4,cat,4,4\n", "line 1: end must be after start. Received: 4 and 4"),
        ("a.csv", "path,label\na.mp4,cat, dog\n", "line 2: must have at most 2 columns"),
        (
            "a.csv",
            "path,class\n",
            "line 1: the columns must be path, label, start, end. Rec.*class",
        ),
        ("a.csv", "path,path\n", "line 1: each column must be there once"),
        ("a.csv", '"x\ny.mp4",cat\n,cat\n', "line 3: the path must not be empty"),
        ("a.csv", '"' + "x" * 200_000, "line 1: must be CSV: field larger"),
        ("a.csv", "path,label\n", "holds no clip"),
        ("a.txt", "a.mp4 1\nb.mp4\n", r"a\.txt, line 2: must be a path and a label"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, name, text, message):
    with pytest.raises(ClipListError, match=message) as caught:
        read_clips(write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ClipListError, match="must be a text file in UTF-8"):
        read_clips(tmp_path / "a.csv")


def test_words_are_folders_lists_files_and_patterns(tmp_path):
    for name in (
        "top.mp4",
        "cat/b.MKV",
        "cat/deep/a.mp4",
        "dog/a.webm",
        "dog/notes.md",
        "dog/.x.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "odd[1].mp4").touch()
    here = str(tmp_path)
    folder = [
        Clip(f"{here}/odd[1].mp4"),
        Clip(f"{here}/top.mp4"),
        Clip(f"{here}/cat/b.MKV", ("cat",)),
        Clip(f"{here}/cat/deep/a.mp4", ("cat",)),
        Clip(f"{here}/dog/a.webm", ("dog",)),
    ]
    assert clips_of([here]) == folder
    assert clips_of([f"{here}/odd[1].mp4"]) == folder[:1]
    assert clips_of([f"{here}/*/*.webm", f"{here}/top.mp4", f"{here}/./top.mp4"]) == [
        Clip(f"{here}/dog/a.webm"),
        folder[1],
    ]
    assert clips_of([write(tmp_path / "l.txt", "top.mp4 4\n")]) == [Clip(f"{here}/top.mp4", ("4",))]
    with pytest.raises(ClipListError, match=r"no file has this name or matches.*none\*"):
        clips_of([f"{here}/none*"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipListError, match="holds no file with an ending of video"):
        clips_of([f"{here}/empty"])


def test_a_wrong_number_of_pictures_is_named(tmp_path):
    (tmp_path / "frames").mkdir()
    for number in (1, 2):
        write(tmp_path / f"frames/{number:05d}.jpg", "")
    assert read_clips(write(tmp_path / "right.txt", "frames 2 7\n")) == [
        Clip(str(tmp_path / "frames"), ("7",))
    ]
    with pytest.raises(ClipListError, match=r"wrong.txt: .*frames with 2, and the count 3\. Copy"):
        read_clips(write(tmp_path / "wrong.txt", "frames 3 7\n"))


def test_a_folder_with_one_picture_is_a_clip_of_one_frame(tmp_path):
    """Beside folders it may be their poster."""
    for name in ("cat/poster1.jpg", "cat/a/00001.jpg", "cat/b/1.jpg", "cat/b/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, "")
    folders = [str(tmp_path / "cat" / name) for name in "ab"]
    assert clips_of([str(tmp_path)]) == [Clip(folder, ("cat",)) for folder in folders]
    assert clips_of([folders[0]]) == [Clip(folders[0])]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipListError, match=r"no numbered pictures \(00001\.jpg"):
        clips_of([str(tmp_path / "empty")])


def test_class_numbers_of_names_and_of_numbers():
    clips = [Clip("a", ("dog", "ant")), Clip("b", ("cat",)), Clip("c")]
    names = label_names(clips)
    assert names == ["ant", "cat", "dog"]
    assert label_numbers(clips, names) == [[0, 2], [1], []]
    # A number is the number of its class, so that lists with other labels agree.
    numbers = [Clip("a", ("3", "01")), Clip("b", ("1",))]
    assert label_names(numbers) == ["0", "1", "2", "3"]
    assert label_numbers(numbers, label_names(numbers)) == [[1, 3], [1]]
    with pytest.raises(ClipListError, match="b: no class has the name 'cat'"):
        label_numbers(clips, ["ant", "dog"])
    with pytest.raises(ClipListError, match=r"must be below 1000000\. Received: '1000000'"):
        label_names([Clip("a", ("1000000",))])


def test_ids_are_as_short_as_telling_the_clips_apart_lets_them_be():
    clips = [
        Clip("v/a/x.mp4"),
        Clip("v/b/x.mp4"),
        Clip("w/b/x.mp4"),
        Clip("v/y.mp4"),
        Clip("v/y.mkv"),
        Clip("v/z.mp4", (), 1.25, 3600.125),
        Clip("v/z.mp4", (), 2.0),
    ]
    ids = ["a/x", "v/b/x", "w/b/x", "y.mp4", "y.mkv", "z@1.25-3600.125", "z@2-"]
    assert clip_ids(clips) == ids
    assert video_id("some/where/clip.v2.mp4") == "clip.v2"
    with pytest.raises(ClipListError, match=r"each clip must be there once\. Received twice: a"):
        clip_ids([Clip("a"), Clip("a")])


def test_ids_are_text_whatever_bytes_a_name_has():
    paths = [os.fsdecode(name) for name in (b"caf\xe9.mp4", b"caf\xe8.mp4", "café.mp4".encode())]
    assert clip_ids([Clip(path) for path in paths]) == [r"caf\udce9", r"caf\udce8", "café"]
