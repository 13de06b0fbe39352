"""Frame arrays give the batches of their TFRecord files, and damage to them is named."""

import dataclasses
import json
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import handmade_records as hand
import numpy as np
import pytest
import tensorflow as tf

from yt8m_gat import pipeline
from yt8m_gat.commands import repack as command
from yt8m_gat.commands.inspect import main as inspect
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.data import (
    BadRecordError,
    Fault,
    LabelMap,
    Reader,
    RecordSchema,
    Shuffle,
    TooManyBadRecordsError,
    check_labels,
    count_records,
    make_dataset,
)
from yt8m_gat.data.arrays import write_records
from yt8m_gat.data.frame_arrays import FrameArrays
from yt8m_gat.data.record_files import read_records
from yt8m_gat.data.repack import repack, targets_of
from yt8m_gat.data.skipping import SkippedRecords
from yt8m_gat.extraction.beside_records import copy_files_beside
from yt8m_gat.extraction.config import ExtractorConfig, FeatureConfig
from yt8m_gat.locks import InUseError, only_writer_in
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.load import load_run

SCHEMA = RecordSchema({"r": 4, "u": 2}, 5)
RATINGS = {
    "segment_start_times": hand.ints_feature(0, 0),
    "segment_labels": hand.ints_feature(3, 4),
    "segment_scores": hand.floats_feature(1.0, 0.5),
}


def clip(name, num_frames, **context):
    return hand.sequence_example(
        {"id": hand.bytes_feature(name), "labels": hand.ints_feature(num_frames % 5), **context},
        r=[bytes([t, 1, num_frames, 7]) for t in range(num_frames)],
        u=[bytes([255 - t, t]) for t in range(num_frames)],
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Three files of 9, 7 and 1 clips of 1 to 11 frames, some of them rated."""
    folder = tmp_path_factory.mktemp("tfrecord")
    files, number = [], 0
    for file, count in enumerate((9, 7, 1)):
        clips = []
        for _ in range(count):
            context = RATINGS if number % 2 else {}
            clips.append(clip(b"v%d" % number, 1 + 7 * number % 11, **context))
            number += 1
        files.append(hand.write(folder / f"train{file}.tfrecord", clips))
    return files


@pytest.fixture(scope="module")
def repacked(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("npz")
    summary = repack(sources, SCHEMA, folder)
    assert (summary.num_written, summary.num_records, summary.left_out) == (3, 17, 0)
    return [str(folder / f"train{n}.npz") for n in range(3)]


def batches(files, schema=SCHEMA, **options):
    return [
        tf.nest.map_structure(lambda x: x.numpy(), batch)
        for batch in make_dataset(files, schema, 4, **options)
    ]


def assert_same(some, others):
    assert len(some) == len(others) > 0
    for one, other in zip(some, others, strict=True):
        tf.nest.assert_same_structure(one, other)
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_numpy_reads_the_frames_of_a_file(repacked):
    with np.load(repacked[0]) as arrays:
        lengths = [1, 8, 4, 11, 7, 3, 10, 6, 2]  # 1 + 7 n mod 11
        np.testing.assert_array_equal(arrays["num_frames"], lengths)
        expected = [[t, 1, length, 7] for length in lengths for t in range(length)]
        np.testing.assert_array_equal(arrays["frames/r"], expected)
        assert arrays["frames/u"].shape == (52, 2) and arrays["frames/u"].dtype == np.uint8
        about = json.loads(str(arrays["about"]))
        assert about["source"]["name"] == "train0.tfrecord" and about["feature_names"] == ["r", "u"]
        size = arrays["context_sizes"][0]
        context = tf.train.SequenceExample.FromString(arrays["contexts"][:size].tobytes())
        assert context.context.feature["id"].bytes_list.value[:] == [b"v0"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skip_batches": 2, "shuffle": Shuffle(seed=3, epoch=1, buffer=8, num_readers=2)},
        # Each of these is a graph of its own, which takes a second to make.
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"fixed_num_frames": True, "shuffle": Shuffle(buffer=0)},
                {"with_labels": False},
                {"segments": "windows"},
                {"segments": "rated", "shuffle": Shuffle(buffer=5), "fixed_num_frames": True},
                {"skipped": SkippedRecords(), "shuffle": Shuffle(seed=1)},
            )
        ),
    ],
)
def test_the_batches_are_those_of_the_tfrecord_files(sources, repacked, options):
    assert_same(batches(repacked, **options), batches(sources, **options))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"max_frames": 5},
        {"feature_sizes": {"u": 2}},
        {"feature_sizes": {"u": 2, "r": 4}},
        {"label_map": LabelMap(((0, 0), (3, 1), (4, 1)), 5, ("a", "b")), "num_classes": 2},
    ],
)
def test_the_schema_decides_what_is_read(sources, repacked, change):
    schema = dataclasses.replace(SCHEMA, **change)
    assert_same(batches(repacked, schema), batches(sources, schema))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float_list"])
def test_frames_of_floats(tmp_path, kind):
    rows = np.arange(12, dtype="<f4").reshape(3, 4) / 7
    stored = {"float32": lambda row: row.tobytes(), "float_list": lambda r: hand.floats_feature(*r)}
    record = hand.sequence_example(
        {"id": hand.bytes_feature(b"x")}, r=[stored[kind](row) for row in rows], other=[b"left out"]
    )
    source = hand.write(tmp_path / "a.tfrecord", [record])
    schema = RecordSchema({"r": 4}, 5, feature_types=(kind,))
    repack([source], schema, tmp_path)
    read = batches([str(tmp_path / "a.npz")], schema)
    assert_same(read, batches([source], schema))
    np.testing.assert_array_equal(read[0]["features"]["r"], rows[None])
    quantized = RecordSchema({"r": 4}, 5)
    with pytest.raises(BadRecordError, match=rf"a\.npz.*r is not uint8.*r \(4 of {kind}\)"):
        list(Reader([str(tmp_path / "a.npz")], quantized, 4))


def test_records_are_given_back(sources, repacked):
    for source, arrays in zip(sources, repacked, strict=True):
        for (one, before), (other, after) in zip(
            read_records(source), read_records(arrays), strict=True
        ):
            assert (one.record, one.length) == (other.record, other.length)
            decode = tf.train.SequenceExample.FromString
            assert decode(before) == decode(after)
    assert count_records(repacked) == 17
    with pytest.raises(ConfigError, match="none of 17 records checked"):
        check_labels(repacked, dataclasses.replace(SCHEMA, labels_key="other"), "pattern")


@pytest.fixture
def damaged(repacked, tmp_path):
    """A copy of the first file, and a function that changes bytes of it."""
    path = shutil.copy(repacked[0], tmp_path)

    def flip(offset):
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    return str(path), flip


@pytest.mark.parametrize(
    "part",
    [
        "first feature",
        pytest.param("context", marks=pytest.mark.slow),
        pytest.param("last feature", marks=pytest.mark.slow),
    ],
)
def test_a_flipped_bit_is_named(damaged, part):
    path, flip = damaged
    arrays = FrameArrays(path)
    places = {
        "context": arrays._contexts.offset + int(arrays._context_starts[3]) + 5,
        "first feature": arrays.offset(3),
        "last feature": arrays._frames[1].offset + 2 * int(arrays._frame_starts[4]) - 1,
    }
    flip(places[part])
    with pytest.raises(BadRecordError, match=rf"record 3 \(byte offset {arrays.offset(3)}\)") as e:
        list(Reader([path], SCHEMA, 4))
    assert e.value.fault == Fault.PAYLOAD_CHECKSUM


@pytest.mark.slow
def test_a_flipped_bit_is_left_out_and_listed(damaged, capsys):
    path, flip = damaged
    arrays = FrameArrays(path)
    flip(arrays.offset(3) + 11 * 4 - 1)  # Of the last of the clip's 11 frames.
    # Seen too where the run cuts the clip before it.
    short = dataclasses.replace(SCHEMA, max_frames=2)
    with pytest.raises(BadRecordError, match="record 3"):
        list(Reader([path], short, 4))
    reader = Reader([path], SCHEMA, 4, on_bad_record="skip", max_bad_fraction=0.5)
    ids = [name for batch in reader for name in batch["video_id"].numpy().tolist()]
    assert ids == [b"v%d" % n for n in range(9) if n != 3]
    assert reader.skipped.counts == {Fault.PAYLOAD_CHECKSUM: 1}
    assert inspect([path]) == 1
    out = capsys.readouterr().out
    assert "record 3" in out and "repacked TFRecord files of 0.00 MB, the first train0" in out


@pytest.mark.parametrize("cut", [0, 300, pytest.param(-30, marks=pytest.mark.slow)])
def test_a_truncated_file_is_named(damaged, cut):
    path, _ = damaged
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[:cut])
    with pytest.raises(BadRecordError, match=r"train0\.npz.*yt8m-gat repack"):
        list(Reader([path], SCHEMA, 4))
    assert count_records([path], skip_damage=True) == 0
    if cut < 0:
        with pytest.raises(TooManyBadRecordsError):
            list(Reader([path], SCHEMA, 4, on_bad_record="skip"))


def test_a_flipped_bit_of_the_index_is_seen(damaged):
    path, flip = damaged
    with open(path, "rb") as file:
        flip(file.read().index(np.array([1, 8, 4, 11], "<i4").tobytes()))
    with pytest.raises(BadRecordError, match="Bad CRC-32"):
        list(Reader([path], SCHEMA, 4))


def test_every_flipped_byte_is_seen_or_changes_no_record(damaged):
    """Each byte of the archive's own entries too, which NumPy and `zipfile` do not all verify."""
    path, _ = damaged
    with open(path, "rb") as file:
        content = file.read()
    records = [payload for _, payload in read_records(path)]
    mutants = [(place, content[place] ^ 0xFF) for place in range(0, len(content), 7)]
    entry = content.index(b"PK\x01\x02")
    # Of a later version, encrypted, compressed; a directory that is said to begin elsewhere.
    mutants += [(entry + 6, 99), (entry + 8, 1), (entry + 8, 32), (entry + 10, 8), (entry + 10, 1)]
    mutants += [(len(content) - 3, 255), (content.index(b"'|u1'") + 3, ord("9"))]
    for place, value in mutants:
        with open(path, "wb") as file:
            file.write(content[:place] + bytes([value]) + content[place + 1 :])
        read = [payload for _, payload in read_records(path)]
        if not (len(read) == 1 and isinstance(read[0], BadRecordError)):
            pairs = zip(read, records, strict=True)
            assert all(isinstance(a, BadRecordError) or a == b for a, b in pairs), (place, value)


def rewritten(path, folder, **changes):
    """Writes a file's arrays again, some of them changed, with right checksums of the archive."""
    with np.load(path) as arrays:
        changed = {name: changes.get(name, lambda x: x)(arrays[name]) for name in arrays.files}
    np.savez(folder / "forged.npz", **changed)
    return str(folder / "forged.npz")


@pytest.mark.parametrize(
    "entries",
    [
        {"source": {"name": 5, "size": 3}},
        {"source": {"name": "a", "size": "3"}},
        {"source": {"name": "a", "size": 10**400}},
        {"left_out": None},
    ],
)
def test_what_a_forged_file_says_of_itself_is_checked(repacked, tmp_path, entries):
    about = lambda text: np.array(json.dumps({**json.loads(str(text)), **entries}))  # noqa: E731
    with pytest.raises(BadRecordError, match="it does not"):
        FrameArrays(rewritten(repacked[0], tmp_path, about=about))


def test_a_context_that_cannot_be_decoded_is_a_bad_record(repacked, tmp_path):
    first = int(FrameArrays(repacked[0])._context_sizes[0])

    def checksums(of_records):
        of_records[0, 0] = zlib.crc32(b"\xff" * first)
        return of_records

    forged = rewritten(
        repacked[0],
        tmp_path,
        contexts=lambda x: np.where(np.arange(len(x)) < first, 255, x).astype("u1"),
        checksums=checksums,
    )
    with pytest.raises(BadRecordError, match="record 0") as caught:
        list(Reader([forged], SCHEMA, 4))
    assert caught.value.fault == Fault.UNDECODABLE
    assert inspect([forged]) == 1


def test_a_file_that_is_removed_while_it_is_read_is_named(tmp_path, repacked):
    path = str(tmp_path / "train0.npz")
    shutil.copy(repacked[0], path)
    with pytest.raises(FileNotFoundError, match=r"removed while it was read.*train0\.npz"):
        for _ in Reader([path] * 200, SCHEMA, 1):  # More than is read ahead.
            (tmp_path / "train0.npz").unlink(missing_ok=True)


def test_shards_keep_the_rest_of_their_names(tmp_path):
    assert targets_of(["x/t.tfrecord", "x/t.tfrecord-0-of-2", "x/t.tfrecord-1-of-2"], tmp_path) == {
        "x/t.tfrecord": tmp_path / "t.npz",
        "x/t.tfrecord-0-of-2": tmp_path / "t.tfrecord-0-of-2.npz",
        "x/t.tfrecord-1-of-2": tmp_path / "t.tfrecord-1-of-2.npz",
    }


def test_an_empty_file_is_left_out(tmp_path, capsys):
    (tmp_path / "a.tfrecord").touch()
    flags = ["--on_bad_record=skip", "--max_bad_fraction=1"]
    command.main([f"{tmp_path}/a.tfrecord", f"--output_dir={tmp_path}/npz", *flags])
    out = capsys.readouterr().out
    assert "empty file 1" in out and "0 records are in" in out and "bad records left out: 1" in out


def test_many_threads_open_files_at_once(repacked):
    """As tf.data's do. NumPy's reader of headers fails then, under Python 3.11."""
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(FrameArrays, repacked * 200))
    assert [len(arrays) for arrays in opened] == [9, 7, 1] * 200


def test_what_cannot_be_read_is_refused(sources, repacked):
    with pytest.raises(ConfigError, match="one form"):
        make_dataset([sources[0], repacked[0]], SCHEMA, 4)
    named = r"TFRecord files\. Received frame arrays: '.*train0\.npz'; name the TFRecord files"
    with pytest.raises(ConfigError, match=f"^--data_service reads {named}"):
        make_dataset(repacked, SCHEMA, 4, check_files=False)
    with pytest.raises(ConfigError, match=f"^video-level records and .* are read from {named}"):
        make_dataset(repacked, dataclasses.replace(SCHEMA, frame_level=False), 4)
    with pytest.raises(ConfigError, match=r"gs://b/c\.npz"):
        make_dataset(["gs://b/c.npz"], SCHEMA, 4)
    for sizes, message in (({"x": 4}, "x is missing"), ({"r": 5}, "4 values a frame instead of 5")):
        with pytest.raises(BadRecordError, match=message):
            list(Reader(repacked, RecordSchema(sizes, 5), 4))


def test_records_are_not_written_by_the_name_of_frame_arrays(tmp_path):
    example = {"id": "a", "r": np.zeros((1, 4), "u1"), "u": np.zeros((1, 2), "u1")}
    with pytest.raises(ConfigError, match=r"must not end in \.npz"):
        write_records(tmp_path / "a.npz", [example], SCHEMA)
    assert not list(tmp_path.iterdir())


def test_a_killed_command_continues_and_makes_the_same_bytes(sources, repacked, tmp_path):
    first, second, third = (tmp_path / f"train{n}.npz" for n in range(3))
    shutil.copy(repacked[0], first)
    (tmp_path / ".train1.npz.unfinished").write_bytes(b"PK half of it")
    made = first.stat().st_mtime_ns
    summary = repack(sources, SCHEMA, tmp_path)
    assert (summary.num_written, summary.num_kept, summary.num_records) == (2, 1, 17)
    assert first.stat().st_mtime_ns == made
    assert summary.num_bytes == sum(path.stat().st_size for path in (first, second, third))
    for path, other in zip((first, second, third), repacked, strict=True):
        with open(other, "rb") as file:
            assert path.read_bytes() == file.read()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train{n}.npz" for n in range(3)]


def test_another_source_or_setting_is_refused(sources, repacked, tmp_path):
    copy = hand.write(tmp_path / "train0.tfrecord", [clip(b"other", 3)])
    folder = tmp_path / "npz"
    repack(sources[:1], SCHEMA, folder)
    with pytest.raises(ConfigError, match=r"train0\.npz was made of another file"):
        repack([copy], SCHEMA, folder)
    with pytest.raises(ConfigError, match="was made with other features"):
        repack(sources[:1], RecordSchema({"r": 4}, 5), folder)
    with pytest.raises(ConfigError, match=r"both become train0\.npz"):
        repack([sources[0], copy], SCHEMA, folder)
    with pytest.raises(ConfigError, match="Received frame arrays"):
        repack(repacked, SCHEMA, folder)
    (folder / "train0.npz").write_bytes(b"PK")
    with pytest.raises(BadRecordError, match="remove it"):
        repack(sources[:1], SCHEMA, folder)
    with pytest.raises(NotADirectoryError):
        repack(sources[:1], SCHEMA, copy)


def test_frames_after_the_10000th_are_checked_like_earlier_ones(tmp_path):
    """Two wrong ones of 5 and 3 bytes have the size of two right ones together."""
    frames = [b"1234"] * 10_001 + [b"12345", b"123"]
    late = hand.sequence_example({"id": hand.bytes_feature(b"late")}, r=frames)
    source = hand.write(tmp_path / "a.tfrecord", [late])
    message = r"a\.tfrecord, record 0 .*feature r, frame 10001 has 5 bytes instead of 4.*Remedy"
    with pytest.raises(BadRecordError, match=message):
        repack([source], RecordSchema({"r": 4}, 5), tmp_path / "npz")
    assert not list((tmp_path / "npz").glob("*.npz"))


def test_too_many_bad_records_leave_no_file_that_a_later_call_would_keep(tmp_path):
    bad = hand.sequence_example({"id": hand.bytes_feature(b"bad")}, r=[b"1"], u=[b"1"])
    few = hand.write(tmp_path / "few.tfrecord", [clip(b"a", 1), bad])
    whole = hand.write(tmp_path / "a.tfrecord", [clip(b"whole", 1)])
    for _ in range(2):  # The second call has to count the bad record again.
        with pytest.raises(TooManyBadRecordsError, match=r"1 of [23] records"):
            repack([whole, few], SCHEMA, tmp_path, SkippedRecords(0.1))
        assert [path.name for path in tmp_path.glob("*.npz")] == ["a.npz"]


def test_damage_that_ends_reading_early_writes_nothing(tmp_path):
    """The 1,001st item, the rest of the file, comes while good records wait to be yielded."""
    source = hand.write(tmp_path / "a.tfrecord", [clip(b"%d" % n, 1) for n in range(1000)])
    with open(source, "ab") as file:
        file.write(b"x" * 200_000)
    with pytest.raises(TooManyBadRecordsError):
        repack([source], SCHEMA, tmp_path, SkippedRecords(0.1))
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.slow
def test_bad_records_stop_the_command_or_are_left_out(tmp_path, capsys):
    bad = hand.sequence_example({"id": hand.bytes_feature(b"bad")}, r=[b"1234"], u=[b"1"])
    clips = [clip(b"a", 3), bad, clip(b"b", 2)]
    source = hand.write(tmp_path / "a.tfrecord", clips)
    flags = [source, f"--output_dir={tmp_path}", "--feature_names=r,u", "--feature_sizes=4,2"]
    with pytest.raises(SystemExit) as caught:
        command.main(flags)
    assert caught.value.code == 2
    assert "record 1 " in (message := capsys.readouterr().err) and "feature u" in message
    assert not list(tmp_path.glob("*.npz")) and not list(tmp_path.glob(".*unfinished"))
    command.main([*flags, "--on_bad_record=skip", "--max_bad_fraction=0.5"])
    out = capsys.readouterr().out
    assert "1 of 3 records" in out and "bad records left out: 1" in out
    assert FrameArrays(str(tmp_path / "a.npz")).about.left_out == 1
    skipping = [{"skipped": SkippedRecords(0.5)} for _ in range(2)]
    assert_same(batches([str(tmp_path / "a.npz")], **skipping[0]), batches([source], **skipping[1]))


def test_the_files_that_say_what_features_are_go_along(tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "plain")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        if folder.name != "plain":
            (folder / "label_names.csv").write_text("label_id,label_name\n0,cat\n")
            sound = FeatureConfig(kind="log_mel", model="log_mel", size=64)
            ExtractorConfig(sound=sound, max_seconds=10.0 + number // 2).save(folder)
    files = [str(folder / "x.tfrecord") for folder in folders]
    out = tmp_path / "out"
    out.mkdir()
    assert copy_files_beside(files[2:], out) == []
    assert copy_files_beside(files, out) == ["extractor.json", "label_names.csv"]
    for name in ("extractor.json", "label_names.csv"):
        assert (out / name).read_bytes() == (folders[0] / name).read_bytes()
    (folders[1] / "label_names.csv").write_text("label_id,label_name\n0,dog\n")
    for some in (files, files[1:]):  # Two sources differ, or one and what is there.
        with pytest.raises(ConfigError, match=r"label_names\.csv and .* differ"):
            copy_files_beside(some, out)


def test_one_command_writes_at_a_time(sources, tmp_path):
    with only_writer_in(tmp_path), ThreadPoolExecutor(1) as other:
        with pytest.raises(InUseError):
            other.submit(repack, sources, SCHEMA, tmp_path).result()
        assert not list(tmp_path.glob("*.npz"))


@pytest.mark.slow
def test_training_from_either_form_ends_with_the_same_weights(sample_dir, tmp_path):
    data = DataConfig(num_classes=8, max_frames=12)
    config = RunConfig(
        data=data,
        model=ModelConfig(
            name="Transformer", options={"num_heads": 2, "hidden_size": 8, "feed_forward_size": 8}
        ),
        training=TrainingConfig(batch_size=16, num_epochs=1, shuffle_buffer=32, seed=5),
    )
    files = sorted(map(str, sample_dir.glob("train*.tfrecord")))
    repack(files, RecordSchema.from_config(data), tmp_path / "arrays")
    runs = {}
    for form, folder in (("tfrecord", sample_dir), ("npz", tmp_path / "arrays")):
        runs[form] = RunFolder(tmp_path / form)
        pattern = f"{folder}/train*.{form}"
        state = pipeline.train(runs[form], config, train_data_pattern=pattern)
        assert state.examples == 96
    one, other = (load_run(run, config, "last").classifier.get_weights() for run in runs.values())
    for some, others in zip(one, other, strict=True):
        np.testing.assert_array_equal(some, others)
