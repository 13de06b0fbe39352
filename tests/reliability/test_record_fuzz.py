"""Thousands of damaged records and files through the reader, beside an oracle of its own."""

import collections
import dataclasses
import importlib
import importlib.util
import resource
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_mutations import (
    MAX_FRAMES,
    NUM_CLASSES,
    SIZES,
    make_record,
    mutated_file,
    mutated_payload,
    reformed_payload,
    video_payload,
)
from record_oracle import Clip, crc32c, framed, masked, payloads_of, read_clip, read_video

from yt8m_gat.data import (
    BadRecordError,
    Reader,
    RecordSchema,
    TooManyBadRecordsError,
    check_framing,
    parse_frame_batch,
    parse_video_batch,
)
from yt8m_gat.data.diagnosis import finding_in
from yt8m_gat.data.parsing import find_faults
from yt8m_gat.export.saved_model import ServingModule
from yt8m_gat.models import build_model

SCHEMA = RecordSchema(SIZES, NUM_CLASSES, MAX_FRAMES)
NUM_PAYLOADS = 4000
"""Half of them damaged, half in forms that the library reads and would not write."""
NUM_FILES = 600
RECORDS_PER_FILE = 5


def oracle(payload):
    return read_clip(payload, SIZES, NUM_CLASSES, MAX_FRAMES)


def clips_of(batch):
    batch = {**batch, **batch["features"]}
    for i, video_id in enumerate(batch["video_id"].numpy()):
        num_frames = int(batch["num_frames"][i])
        frames = tuple((name, batch[name].numpy()[i, :num_frames]) for name in SIZES)
        labels = frozenset(np.flatnonzero(batch["labels"].numpy()[i]).tolist())
        yield Clip(video_id, labels, frames)


def assert_same(found, expected):
    assert [(c.video_id, c.labels) for c in found] == [(c.video_id, c.labels) for c in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for (_, our_frames), (_, their_frames) in zip(ours.features, theirs.features, strict=True):
            np.testing.assert_array_equal(our_frames, their_frames)


def read_skipping(files):
    reader = Reader(files, SCHEMA, 64, on_bad_record="skip", max_bad_fraction=1.0)
    found = [clip for batch in reader for clip in clips_of(batch)]
    return found, reader.skipped


@pytest.fixture(scope="module")
def payloads():
    rng = np.random.default_rng(20_261_121)
    makers = mutated_payload, reformed_payload
    return [makers[i % 2](rng, b"v%d" % i) for i in range(NUM_PAYLOADS)]


def test_skipping_lets_through_what_the_oracle_does_and_nothing_else(payloads, tmp_path):
    files = []
    for first in range(0, NUM_PAYLOADS, 500):
        files.append(str(tmp_path / f"f{first:05}.tfrecord"))
        with open(files[-1], "wb") as file:
            file.writelines(map(framed, payloads[first : first + 500]))
    verdicts = [oracle(payload) for payload in payloads]
    expected = [verdict for verdict in verdicts if isinstance(verdict, Clip)]
    faults = [verdict for verdict in verdicts if not isinstance(verdict, Clip)]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, skipped = read_skipping(files)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert_same(found, expected)
    assert len(expected) > NUM_PAYLOADS / 20 and len(faults) > NUM_PAYLOADS / 2
    assert skipped.num_records == NUM_PAYLOADS
    assert skipped.num_bad == len(faults)
    for fault, count in skipped.counts.items():
        assert count <= sum(fault in kinds for kinds in faults), fault
    alone = collections.Counter(next(iter(kinds)) for kinds in faults if len(kinds) == 1)
    for fault, count in alone.items():
        assert skipped.counts[fault] >= count, fault
    assert set(skipped.counts) == {
        *("undecodable", "wrong_type", "video_id", "missing_feature", "no_frames"),
        *("frame_counts", "feature_size", "label"),
    }
    # In kilobytes. The records have 0.6 MB; what is measured is tracing and TensorFlow's pools.
    assert after - before < 500_000
    print(f"{NUM_PAYLOADS} records, {len(faults)} bad: {dict(skipped.counts)}")


GOOD_AT_ONCE, MIXED_AT_ONCE = 64, 8


def assert_judged_alike(read, payloads, verdicts):
    """`read` compares what it makes of payloads with the clips expected, or raises for a bad one.

    Good ones are read many at once; of a few among which there are bad ones, one of those is named.
    """
    good = [i for i, verdict in enumerate(verdicts) if isinstance(verdict, Clip)]
    for first in range(0, len(good), GOOD_AT_ONCE):
        some = good[first : first + GOOD_AT_ONCE]
        read([payloads[i] for i in some], [verdicts[i] for i in some])
    num_refused = 0
    for first in range(0, len(payloads), MIXED_AT_ONCE):
        chunk = verdicts[first : first + MIXED_AT_ONCE]
        bad = {i: kinds for i, kinds in enumerate(chunk) if not isinstance(kinds, Clip)}
        if bad:
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                read(payloads[first : first + MIXED_AT_ONCE], None)
            found = finding_in(caught.value)
            assert found.fault in bad[found.record]
            num_refused += 1
    assert len(good) > len(payloads) / 5 and num_refused > len(payloads) / MIXED_AT_ONCE / 2


@pytest.mark.slow
def test_the_parser_comes_to_the_same_verdicts(payloads):
    """What `error` does."""
    parse = tf.function(
        lambda serialized: parse_frame_batch(serialized, SCHEMA),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )

    def read(payloads, expected):
        clips = list(clips_of(parse(tf.constant(payloads))))
        assert_same(clips, expected)

    assert_judged_alike(read, payloads, [oracle(payload) for payload in payloads])


def test_video_level_records_are_read_as_the_library_reads_them():
    rng = np.random.default_rng(4)
    payloads = [video_payload(rng, b"v%d" % i) for i in range(NUM_PAYLOADS // 2)]
    verdicts = [read_video(payload, SIZES, NUM_CLASSES) for payload in payloads]
    schema = dataclasses.replace(SCHEMA, frame_level=False)
    strings = [tf.TensorSpec([None], tf.string)]
    find = tf.function(lambda s: find_faults(s, schema), input_signature=strings, autograph=False)
    parse = tf.function(
        lambda s: parse_video_batch(s, schema), input_signature=strings, autograph=False
    )
    faults = np.concatenate(
        [find(tf.constant(payloads[i : i + 50])) for i in range(0, len(payloads), 50)]
    )
    for verdict, fault in zip(verdicts, faults, strict=True):
        assert fault == b"" if isinstance(verdict, Clip) else fault.decode() in verdict
    good = np.flatnonzero(faults == b"")
    assert len(payloads) / 5 < len(good) < len(payloads) * 0.8
    batch = parse(tf.constant([payloads[i] for i in good]))
    for row, i in enumerate(good):
        assert batch["video_id"][row] == verdicts[i].video_id
        assert frozenset(np.flatnonzero(batch["labels"][row])) == verdicts[i].labels
        for name, values in verdicts[i].features:
            np.testing.assert_array_equal(batch["features"][name][row], values)
    assert {*b",".join(set(faults)).decode().split(",")} >= {
        *("undecodable", "wrong_type", "video_id", "missing_feature", "feature_size"),
        *("not_finite", "label"),
    }


@pytest.fixture(scope="module")
def serve():
    """What is exported, before it is: the function behind `serving_default`."""
    tf.keras.utils.set_random_seed(0)
    classifier = build_model("FrameLevelLogisticModel", SIZES, NUM_CLASSES, MAX_FRAMES)
    return ServingModule(classifier, SCHEMA).signatures()["serving_default"]


def without_labels(payload):
    return read_clip(payload, SIZES, NUM_CLASSES, MAX_FRAMES, with_labels=False)


def written_anew(clip):
    """A record that says the same, as the library writes it."""
    record = tf.train.SequenceExample()
    record.context.feature["id"].bytes_list.value.append(clip.video_id)
    for name, frames in clip.features:
        for frame in frames:
            feature = record.feature_lists.feature_list[name].feature.add()
            feature.bytes_list.value.append(frame.tobytes())
    return record.SerializeToString()


@pytest.mark.slow
def test_the_exported_model_comes_to_the_same_verdicts(payloads, serve):
    def read(payloads, expected):
        found = serve(tf.constant(payloads))
        outputs = serve(tf.constant([written_anew(clip) for clip in expected]))
        assert found["video_id"].numpy().tolist() == [clip.video_id for clip in expected]
        for key in ("class_indexes", "predictions"):
            np.testing.assert_array_equal(found[key], outputs[key])

    assert_judged_alike(read, payloads, [without_labels(payload) for payload in payloads])


class AnyModule(types.ModuleType):
    """A module that has a class under every name."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        members = {"__init__": lambda self, *args, **options: None}
        return type(name, (), {**members, "__class_getitem__": classmethod(lambda cls, _: cls)})


@pytest.fixture
def beam(monkeypatch):
    """The module for Beam; where Beam is not installed, with a stand-in for what it imports."""
    if importlib.util.find_spec("apache_beam") is not None:
        yield importlib.import_module("yt8m_gat.prediction.beam")
        return
    for part in (
        *("", ".io", ".io.filesystem", ".io.filesystems", ".metrics", ".ml", ".ml.inference"),
        *(".ml.inference.base", ".options", ".options.pipeline_options"),
    ):
        name = f"apache_beam{part}"
        monkeypatch.setitem(sys.modules, name, AnyModule(name))
    module = importlib.import_module("yt8m_gat.prediction.beam")
    yield module
    del sys.modules[module.__name__]


@pytest.mark.slow
def test_beam_comes_to_the_same_verdicts(payloads, serve, beam):
    handler = beam.SavedModelHandler("exported", top_k=NUM_CLASSES, skip_bad=True)
    model = types.SimpleNamespace(
        signatures={"serving_default": lambda example_bytes: serve(example_bytes)}
    )
    some = payloads[:400]
    records = [beam.NamedRecord("file", payload) for payload in some]
    results = [
        result
        for first in range(0, len(some), 20)
        for result in handler.run_inference(records[first : first + 20], model)
    ]
    for verdict, result in zip(map(without_labels, some), results, strict=True):
        assert isinstance(verdict, Clip) == isinstance(result, str)
        if isinstance(verdict, Clip):
            [row] = handler.run_inference([beam.NamedRecord("f", written_anew(verdict))], model)
            assert result == row


@pytest.fixture(scope="module")
def damaged_files():
    """The bytes of each file."""
    rng = np.random.default_rng(7)
    contents = []
    for number in range(NUM_FILES):
        records = [
            make_record(rng, b"%d-%d" % (number, i)).SerializeToString(deterministic=True)
            for i in range(RECORDS_PER_FILE)
        ]
        contents.append(mutated_file(rng, [framed(record) for record in records]))
    return contents


@pytest.mark.slow
def test_skipping_takes_every_record_that_damage_has_left(damaged_files, tmp_path):
    files, expected, num_bad, lost_bytes, num_found = [], [], 0, 0, 0
    for number, content in enumerate(damaged_files):
        path = tmp_path / f"{number:04}.tfrecord"
        path.write_bytes(content)
        files.append(str(path))
        records, lost = payloads_of(content)
        num_found += len(records) + (lost is not None)
        num_bad += lost is not None
        lost_bytes += lost or 0
        for _, payload in records:
            clip = None if payload is None else oracle(payload)
            if isinstance(clip, Clip):
                expected.append(clip)
            else:
                num_bad += 1
    found, skipped = read_skipping(files)
    assert_same(found, expected)
    assert (skipped.num_records, skipped.num_bad) == (num_found, num_bad)
    assert skipped.as_dict()["lost_bytes"] == lost_bytes
    assert skipped.num_bytes == sum(map(len, damaged_files))
    assert {"empty_file", "truncated", "length_checksum", "payload_checksum"} <= set(skipped.counts)
    print(f"{NUM_FILES} files, {len(found)} of {num_found} records kept, {lost_bytes} bytes lost")


def test_no_damaged_length_gets_as_far_as_tensorflow(damaged_files, tmp_path):
    path = tmp_path / "one.tfrecord"
    refused = 0
    for content in damaged_files:
        path.write_bytes(content)
        records, lost = payloads_of(content)
        try:
            check_framing(str(path))
        except BadRecordError as error:
            assert lost is not None
            assert error.record == (len(records) if content else None)
            refused += 1
        else:  # A length whose checksum is wrong may fit by chance; TensorFlow sees that.
            assert lost is None or content[-lost:][8:12] != framed_length(content[-lost:][:8])
    assert refused > NUM_FILES / 3


def framed_length(length):
    return masked(crc32c(length)).to_bytes(4, "little")


@pytest.mark.slow
def test_an_error_names_the_damage(damaged_files, tmp_path):
    path = str(tmp_path / "one.tfrecord")
    reader = Reader([path], SCHEMA, 2)
    for content in damaged_files[:12]:
        with open(path, "wb") as file:
            file.write(content)
        records, lost = payloads_of(content)
        verdicts = [None if payload is None else oracle(payload) for _, payload in records]
        good = [isinstance(verdict, Clip) for verdict in verdicts]
        if all(good) and lost is None:
            assert sum(len(batch["video_id"]) for batch in reader) == len(records)
            continue
        with pytest.raises(BadRecordError) as caught:
            list(reader)
        wrong = {number for number, right in enumerate(good) if not right}
        assert caught.value.record in (wrong if lost is None else {*wrong, len(records), None})
        assert caught.value.file == path


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(length=st.integers(0, 2**64 - 1), rest=st.binary(max_size=40))
def test_no_length_reaches_past_the_file(tmp_path_factory, length, rest):
    """With a right checksum, which TensorFlow's reader would follow into memory that is not."""
    path = tmp_path_factory.getbasetemp() / "forged.tfrecord"
    header = length.to_bytes(8, "little")
    content = header + masked(crc32c(header)).to_bytes(4, "little") + rest
    path.write_bytes(content)
    if payloads_of(content)[1] is None:
        check_framing(str(path))
    elif 16 + length > len(content):
        with pytest.raises(BadRecordError, match="truncated"):
            check_framing(str(path))


def test_too_many_stop_the_reading_with_the_counts(tmp_path):
    rng = np.random.default_rng(3)
    path = str(tmp_path / "f.tfrecord")
    good = [make_record(rng, b"g%d" % i).SerializeToString(deterministic=True) for i in range(2000)]
    bad = [b"\xff"] * 30
    with open(path, "wb") as file:
        file.writelines(map(framed, [*good[:500], *bad, *good[500:]]))
    for fraction in (0.001, 0.01):
        reader = Reader([path], SCHEMA, 100, on_bad_record="skip", max_bad_fraction=fraction)
        with pytest.raises(
            TooManyBadRecordsError, match=r"30 of .* undecodable 30.*\n.*record 500"
        ):
            list(reader)
        # It ends there, and not at the end of the file.
        assert reader.skipped.num_records < 1300
