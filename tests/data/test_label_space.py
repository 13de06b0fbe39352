import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import handmade_records as hand
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from yt8m_gat.commands.label_space import main
from yt8m_gat.config import ConfigError
from yt8m_gat.data import RecordSchema, label_space, parse_frame_batch, parse_video_batch
from yt8m_gat.data.label_space import (
    LabelMap,
    ontology_map,
    read_label_names,
    verticals_map,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
HEADER = "source_index,target_index,target_name\n"

VOCABULARY = """Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,\
Vertical3,WikiDescription
0,9,/m/a,Game,,Games,,,"One, two.
Three."
1,8,/m/b,,,(Unknown),,,
2,7,/m/c,"Chess, rapid",,Games,Sports,Arts,
"""

# a -> b -> d and a -> c -> d: d has two parents; e and f lie apart, f has no class.
ONTOLOGY = [
    {"id": "/a", "name": "A", "child_ids": ["/b", "/c"]},
    {"id": "/b", "name": "B", "child_ids": ["/d"]},
    {"id": "/c", "name": "C", "child_ids": ["/d"]},
    {"id": "/d", "name": "D", "child_ids": []},
    {"id": "/e", "name": "E, too", "child_ids": []},
    {"id": "/f", "name": "F", "child_ids": []},
]
CLASSES = 'index,mid,display_name\n0,/d,"Dee, big"\n1,/e,Eee\n2,/b,Bee\n'


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def from_shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def test_a_map_is_read(tmp_path):
    path = written(
        tmp_path / "map.csv", HEADER + '0,2,"Music, live"\n0,0,\n\n3,2,\n3,2,"Music, live"\n'
    )
    label_map = LabelMap.load(path)
    assert label_map == LabelMap(((0, 0), (0, 2), (3, 2)), 4, ("", "", "Music, live"))
    assert label_map.num_targets == 3
    assert LabelMap.load(path, num_sources=9).num_sources == 9


def test_names_are_optional_and_columns_found_by_name(tmp_path):
    path = written(tmp_path / "map.csv", "\ufefftarget_index, source_index\r\n1,0\r\n0,5\r\n")
    assert LabelMap.load(path) == LabelMap(((0, 1), (5, 0)), 6, ("", ""))


@given(
    st.sets(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1),
    st.lists(st.text("ab,\" \n'é", max_size=5).map(str.strip), min_size=10, max_size=10),
)
@settings(max_examples=40, deadline=None)
def test_a_written_map_is_read_back(tmp_path_factory, pairs, names):
    path = tmp_path_factory.mktemp("map") / "map.csv"
    num_targets = 1 + max(target for _, target in pairs)
    on = {target for _, target in pairs}
    label_map = LabelMap(
        tuple(pairs), 21, tuple(names[t] if t in on else "" for t in range(num_targets))
    )
    label_map.save(path)
    assert LabelMap.load(path, num_sources=21) == label_map


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"map.csv, line 1: the first line must name the columns source_index, target_index"),
        ("0,1\n", r"map.csv, line 1: .*Missing: source_index, target_index. Received: '0,1'"),
        (HEADER, r"map.csv: a label map must have a row"),
        (HEADER + "0,1,a\n0,1\n", r"map.csv, line 3: a row must have 3 fields.*Received: 2"),
        (HEADER + "-1,1,a\n", r"line 2: source_index must be a whole number.*Received: '-1'"),
        (HEADER + "0,1.5,a\n", r"line 2: target_index must be a whole number.*Received: '1.5'"),
        (HEADER + "0,,a\n", r"line 2: target_index must be a whole number.*Received: ''"),
        (HEADER + "0,²,a\n", r"line 2: target_index must be a whole number"),
        (HEADER + "0,99999999,a\n", r"line 2: target_index must be .* in 0 \.\. 99999\b"),
        (HEADER + "7,0,a\n", r"line 2: source_index must be .* in 0 \.\. 6 \(.*--num_classes"),
        (HEADER + "0," + "9" * 10_000 + ",a\n", r"line 2: target_index .*Received: '9{50}'"),
        (HEADER + "0,1,a\n1,1,b\n", r"line 3: a target must have one name. Received: 'b'"),
        (HEADER + '0,1,"a\n', r"map.csv, line \d: no CSV"),
    ],
)
def test_what_is_no_map_is_refused(tmp_path, text, message):
    path = written(tmp_path / "map.csv", text)
    with pytest.raises(ConfigError, match=message):
        LabelMap.load(path, num_sources=7)


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "map.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="must be a text file in UTF-8"):
        LabelMap.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), 1, ("a",)), "at least one pair"),
        ((((1, 0),), 1, ("a",)), r"from 1 to 1 classes must not have the pair \(1, 0\)"),
        ((((0, -1),), 1, ("a",)), r"must not have the pair \(0, -1\)"),
        ((((0, 0),), 100_001, ("a",)), "1 to 100000 source classes. Received: 100001"),
    ],
)
def test_impossible_maps_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        LabelMap(*arguments)


def test_a_file_of_more_than_64_mib_is_refused(tmp_path):
    path = tmp_path / "map.csv"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ConfigError, match="67108864"):
        LabelMap.load(path)


def test_too_many_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(label_space, "MAX_ROWS", 2)
    path = written(tmp_path / "map.csv", HEADER + "0,0,\n0,1,\n0,2,\n")
    with pytest.raises(ConfigError, match="line 4: a label map has at most 2 rows"):
        LabelMap.load(path)


def test_the_fingerprint_is_that_of_the_pairs():
    one = LabelMap(((0, 0), (1, 1)), 2, ("a", "b"))
    assert one.fingerprint == LabelMap(((1, 1), (0, 0), (0, 0)), 2, ("", "")).fingerprint
    assert one.fingerprint != LabelMap(((0, 1), (1, 0)), 2, ("a", "b")).fingerprint


def test_apply_by_hand():
    # Sources 0 and 2 have target 1, source 0 also target 3; source 1 none; targets 0 and 2 none.
    label_map = LabelMap(((0, 1), (0, 3), (2, 1)), 3, ("", "b", "", "d"))
    labels = tf.constant([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]], tf.float32)
    expected = [[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    mapped = label_map.apply(labels)
    np.testing.assert_array_equal(mapped, expected)
    assert mapped.dtype == tf.float32
    assert label_map.apply(labels[:0]).shape == (0, 4)
    np.testing.assert_array_equal(label_map.apply(tf.cast(labels, tf.int32)), expected)
    np.testing.assert_array_equal(label_map.apply(labels[None]), [expected])
    with pytest.raises(ValueError, match=r"must have 3 classes. Received: shape \(4, 2\)"):
        label_map.apply(labels[:, :2])


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_apply_is_the_boolean_matrix_product(pairs, seed):
    labels = np.random.default_rng(seed).random((4, 6)) < 0.3
    matrix = np.zeros((6, 4), bool)
    for source, target in pairs:
        matrix[source, target] = True
    num_targets = 1 + max(target for _, target in pairs)
    mapped = LabelMap(tuple(pairs), 6, ("",) * num_targets).apply(labels.astype(np.float32))
    np.testing.assert_array_equal(mapped, (labels @ matrix)[:, :num_targets])


def test_apply_inside_tf_data_is_apply():
    label_map = LabelMap(((0, 1), (2, 0), (2, 1)), 3, ("a", "b"))
    labels = np.eye(3, dtype=np.float32)[[2, 0, 1, 2, 0]]
    dataset = tf.data.Dataset.from_tensor_slices(labels).batch(2).map(label_map.apply)
    assert dataset.element_spec.shape.as_list() == [None, 2]
    np.testing.assert_array_equal(
        np.concatenate(list(dataset.as_numpy_iterator())), label_map.apply(labels)
    )


def test_records_are_read_through_the_map():
    label_map = LabelMap(((0, 1), (2, 0), (2, 1)), 4, ("a", "b"))
    schema = RecordSchema({"r": 4, "u": 2}, 2, label_map=label_map)
    assert schema.num_source_classes == 4
    clips = [hand.clip("x", 1, (2,)), hand.clip("y", 1, (0, 3)), hand.clip("z", 1, (3,))]
    batch = parse_frame_batch(tf.constant(clips), schema)
    np.testing.assert_array_equal(batch["labels"], [[1, 1], [0, 1], [0, 0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"label 4 is outside 0 \.\. 3"):
        parse_frame_batch(tf.constant([hand.clip("x", 1, (1, 4))]), schema)
    video = RecordSchema({"m": 1}, 2, frame_level=False, label_map=label_map)
    record = hand.example(
        id=hand.bytes_feature(b"x"), labels=hand.ints_feature(2), m=hand.floats_feature(0.5)
    )
    np.testing.assert_array_equal(
        parse_video_batch(tf.constant([record]), video)["labels"], [[1, 1]]
    )


def test_a_schema_has_as_many_classes_as_its_map():
    with pytest.raises(ValueError, match="must be the label map's 2 targets"):
        RecordSchema({"r": 4}, 3, label_map=LabelMap(((0, 1),), 1, ("", "")))


def test_verticals(tmp_path):
    label_map = verticals_map(written(tmp_path / "vocabulary.csv", VOCABULARY))
    assert label_map.names == ("(Unknown)", "Arts", "Games", "Sports")
    assert label_map.pairs == ((0, 2), (1, 0), (2, 1), (2, 2), (2, 3))
    assert label_map.num_sources == 3


def test_ontology(tmp_path):
    label_map = ontology_map(
        written(tmp_path / "ontology.json", json.dumps(ONTOLOGY)),
        written(tmp_path / "classes.csv", CLASSES),
    )
    # The classes d, e, b themselves, then a and c in the order of the ontology; f is not reached.
    assert label_map.names == ("D", "E, too", "B", "A", "C")
    assert label_map.pairs == ((0, 0), (0, 2), (0, 3), (0, 4), (1, 1), (2, 2), (2, 3))


def test_a_circle_in_an_ontology_ends(tmp_path):
    circle = [
        {"id": "/d", "name": "D", "child_ids": ["/e", "/b"]},
        {"id": "/e", "name": "E", "child_ids": []},
        {"id": "/b", "name": "B", "child_ids": ["/d"]},
    ]
    label_map = ontology_map(
        written(tmp_path / "ontology.json", json.dumps(circle)),
        written(tmp_path / "classes.csv", CLASSES),
    )
    assert label_map.pairs == ((0, 0), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 2))


@pytest.mark.parametrize(
    ("ontology", "classes", "message"),
    [
        ("[{", CLASSES, r"o.json, line 1: no JSON"),
        ("7", CLASSES, r"o.json, entry 0: an ontology is a list of nodes.*Received: 7"),
        ('[{"id": "/d", "name": "D"}]', CLASSES, r"o.json, entry 0: .* id, name and child_ids"),
        (json.dumps([ONTOLOGY[3]] * 2), CLASSES, r"o.json, entry 1: node /d occurs twice"),
        (json.dumps(ONTOLOGY[:3]), CLASSES, r"o.json: node /b has the unknown child '/d'"),
        (json.dumps(ONTOLOGY[3:4]), CLASSES, r"c.csv, line 3: .*o.json has no node '/e'"),
        (json.dumps(ONTOLOGY), "index,mid\n0,/d\n0,/e\n", r"c.csv, line 3: index 0 occurs twice"),
        (json.dumps(ONTOLOGY), "index,mid\n0,/d\n2,/e\n", r"c.csv: the classes must be 0, 1, 2"),
        (json.dumps(ONTOLOGY), "index,mid\n", r"c.csv: no row"),
    ],
)
def test_what_is_no_ontology_is_refused(tmp_path, ontology, classes, message):
    with pytest.raises(ConfigError, match=message):
        ontology_map(written(tmp_path / "o.json", ontology), written(tmp_path / "c.csv", classes))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            'label_id,label_name\n0,Game\n1,Toys "R" Us\n3,Pikachu, the, first\n2,\n4,"a, ""b"""\n',
            {0: "Game", 1: 'Toys "R" Us', 3: "Pikachu, the, first", 4: 'a, "b"'},
        ),
        (VOCABULARY, {0: "Game", 2: "Chess, rapid"}),
        (CLASSES, {0: "Dee, big", 1: "Eee", 2: "Bee"}),
        (HEADER + '0,2,"Music, live"\n1,0,\n', {2: "Music, live"}),
    ],
)
def test_label_names_by_their_first_line(tmp_path, text, names):
    assert read_label_names(written(tmp_path / "names.csv", text)) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"names.csv, line 1: label names need one of the first lines"),
        ("id,name\n0,a\n", r"names.csv, line 1: .*Received: 'id,name'"),
        ("label_id,label_name\n0,a\n1\n", r"names.csv, line 3: a line must be .*Received: '1'"),
        ("label_id,label_name\nx,a\n", r"names.csv, line 2: label_id must be a whole number"),
    ],
)
def test_what_has_no_label_names_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_label_names(written(tmp_path / "names.csv", text))


def test_the_command_writes_a_map(tmp_path, capsys):
    vocabulary = written(tmp_path / "vocabulary.csv", VOCABULARY)
    output = tmp_path / "map.csv"
    assert main(["verticals", f"--vocabulary={vocabulary}", f"--output={output}"]) == 0
    assert LabelMap.load(output) == verticals_map(vocabulary)
    assert "3 source classes, 4 target classes, 5 pairs" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path)) == ["map.csv", "vocabulary.csv"]


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    missing = tmp_path / "none.csv"
    assert main(["verticals", f"--vocabulary={missing}", f"--output={tmp_path / 'm'}"]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_the_command_starts_without_tensorflow():
    code = (
        "import sys, yt8m_gat.data.label_space, yt8m_gat.data.schema; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_verticals():
    path = from_shared("yt8m_vocab", "vocabulary.csv")
    label_map = verticals_map(path)
    assert (label_map.num_sources, label_map.num_targets) == (3862, 25)
    with path.open(newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["Vertical3"])
    found = {label_map.names[t] for s, t in label_map.pairs if s == int(row["Index"])}
    assert found == {row["Vertical1"], row["Vertical2"], row["Vertical3"]}


def test_real_ontology():
    ontology = from_shared("audioset", "ontology.json")
    classes = from_shared("audioset", "class_labels_indices.csv")
    label_map = ontology_map(ontology, classes)
    nodes = {node["id"]: node for node in json.loads(ontology.read_text(encoding="utf-8"))}
    assert len(nodes) == 632
    assert label_map.num_sources == 527
    with classes.open(newline="", encoding="utf-8") as file:
        mids = [row["mid"] for row in csv.DictReader(file)]

    # The other way round: a node's descendants are the sources of its target.
    def descendants(node_id):
        return {node_id}.union(*map(descendants, nodes[node_id]["child_ids"]))

    assert label_map.num_targets == sum(not descendants(n).isdisjoint(mids) for n in nodes) == 557
    music = label_map.names.index("Music")
    sources = {mids[source] for source, target in label_map.pairs if target == music}
    assert sources == descendants(mids[music]) & set(mids)
    assert len(sources) > 100


def test_real_label_names():
    names = read_label_names(from_shared("yt8m_vocab", "label_names_2018.csv"))
    assert names[0] == "Game"
    assert names[2533] == 'Toys "R" Us'
    vocabulary = read_label_names(from_shared("yt8m_vocab", "vocabulary.csv"))
    assert len(vocabulary) == 3862 - 56
    sounds = read_label_names(from_shared("audioset", "class_labels_indices.csv"))
    assert (len(sounds), sounds[1]) == (527, "Male speech, man speaking")
