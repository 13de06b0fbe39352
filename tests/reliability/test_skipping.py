"""--on_bad_record=skip: the same order, resumable; what is counted; what the jobs say."""

import pytest
import tensorflow as tf
from record_oracle import framed

from yt8m_gat import pipeline
from yt8m_gat.config import ConfigError, DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.data import (
    BadRecordError,
    Fault,
    Reader,
    RecordSchema,
    Shuffle,
    SkippedRecords,
    TooManyBadRecordsError,
    new_skipped,
    parse_frame_batch,
)
from yt8m_gat.data.diagnosis import read_good_records
from yt8m_gat.run_folder import RunFolder

SCHEMA = RecordSchema({"rgb": 1024, "audio": 128}, 8, 12)


@pytest.fixture(scope="module")
def damaged(sample_dir, tmp_path_factory):
    """The training files of the sample, every eighth record bad; and the same without those."""
    folder = tmp_path_factory.mktemp("damaged")
    kept = tmp_path_factory.mktemp("kept")
    for path in sorted(sample_dir.glob("train*.tfrecord")):
        records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
        spoiled = [b"\xff" if i % 8 == 3 else record for i, record in enumerate(records)]
        (folder / path.name).write_bytes(b"".join(map(framed, spoiled)))
        good = [record for i, record in enumerate(records) if i % 8 != 3]
        (kept / path.name).write_bytes(b"".join(map(framed, good)))
    return folder, kept


def reader_of(folder, **options):
    files = sorted(str(path) for path in folder.glob("*.tfrecord"))
    return Reader(files, SCHEMA, 16, **options)


def ids_of(reader):
    return [batch["video_id"].numpy().tolist() for batch in reader]


def add_bad(skipped, num_bytes, place=("f", 0)):
    error = BadRecordError(Fault.LABEL, *place, 0, "bad", "mend it")
    skipped.add_bad(Fault.LABEL, place, num_bytes, lambda: error)


@pytest.mark.parametrize(
    ("fraction", "num_bad", "too_many"),
    [(0.0, 0, False), (0.0, 1, True), (0.01, 10, False), (0.01, 11, True), (1.0, 1000, False)],
)
def test_the_limit_is_the_largest_share_that_may_be_bad(fraction, num_bad, too_many):
    for good_bytes, bad_bytes in ((1, 1), (9, 1), (1, 0)):
        skipped = SkippedRecords(fraction)
        skipped.add_good(1000 - num_bad, good_bytes * (1000 - num_bad))
        for _ in range(num_bad):
            add_bad(skipped, bad_bytes)
        assert skipped.exceeded() == skipped.exceeded(at_end=True) == too_many


def test_the_limit_holds_for_the_bytes_too():
    skipped = SkippedRecords(0.01)
    skipped.add_good(1999, 99)
    add_bad(skipped, 1)
    assert not skipped.exceeded()
    add_bad(skipped, 1)
    assert skipped.exceeded()


def test_the_limit_waits_for_a_thousand_records_or_the_end():
    skipped = SkippedRecords(0.0)
    skipped.add_good(998, 998)
    add_bad(skipped, 1)
    assert not skipped.exceeded() and skipped.exceeded(at_end=True)
    skipped.add_good(1, 1)
    assert skipped.exceeded()


@pytest.mark.slow
def test_the_order_is_that_of_files_without_the_bad_records(damaged):
    folder, kept = damaged
    shuffle = Shuffle(seed=3, buffer=20)
    skipping = {"shuffle": shuffle, "on_bad_record": "skip", "max_bad_fraction": 0.2}
    reader = reader_of(folder, **skipping)
    found = ids_of(reader)
    assert found == ids_of(reader_of(kept, shuffle=shuffle))
    assert (reader.skipped.num_records, reader.skipped.num_bad) == (96, 12)
    assert [bad.record for bad in reader.skipped.first[:2]] == [3, 11]
    assert ids_of(reader_of(folder, skip_batches=2, **skipping)) == found[2:]


@pytest.mark.slow
def test_training_counts_them_in_its_metrics(damaged, tmp_path, capsys):
    folder = RunFolder(tmp_path)
    pipeline.train(
        folder,
        RunConfig(
            data=DataConfig(num_classes=8, max_frames=12),
            model=ModelConfig(name="FrameLevelLogisticModel"),
            training=TrainingConfig(
                batch_size=16, num_epochs=1, on_bad_record="skip", max_bad_fraction=0.2
            ),
        ),
        train_data_pattern=f"{damaged[0]}/*.tfrecord",
    )
    lines = folder.metrics.read_text().splitlines()
    [line] = [line for line in lines if '"bad_records"' in line]
    assert '"num_records": 96, "num_bad_records": 12' in line and '"bad_undecodable": 12' in line
    assert "12 of 96 records" in capsys.readouterr().out


def test_other_values_are_refused():
    with pytest.raises(ConfigError, match=r"--on_bad_record must be one of error, skip.*'warn'"):
        new_skipped("warn", 0.1)
    with pytest.raises(ConfigError, match=r"--max_bad_fraction must be from 0 to 1.*1\.5"):
        new_skipped("skip", 1.5)
    with pytest.raises(ConfigError, match=r"--max_bad_fraction must be in \[0, 1\]"):
        TrainingConfig(max_bad_fraction=-1)
    assert new_skipped("error", 0.1) is None


@pytest.mark.slow
def test_evaluation_and_inference_leave_them_out(damaged, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    pipeline.train(
        folder,
        RunConfig(
            data=DataConfig(num_classes=8, max_frames=12),
            model=ModelConfig(name="FrameLevelLogisticModel"),
            training=TrainingConfig(batch_size=16, max_steps=1),
        ),
        train_data_pattern=f"{damaged[1]}/*.tfrecord",
    )
    options = {"on_bad_record": "skip", "max_bad_fraction": 0.2}
    results, csvs = [], []
    for records, more in ((damaged[0], options), (damaged[1], {})):
        pattern, path = f"{records}/*.tfrecord", tmp_path / "s.csv"
        results.append(pipeline.evaluate(folder, eval_data_pattern=pattern, **more)["clean"])
        count = pipeline.infer(folder, input_data_pattern=pattern, output_file=path, **more)
        assert count == 84
        csvs.append(path.read_text())
    assert results[0] == results[1] and csvs[0] == csvs[1]
    assert capsys.readouterr().err.count("12 of 96 records") == 2
    with pytest.raises(TooManyBadRecordsError, match="undecodable 12"):
        pipeline.infer(
            folder,
            input_data_pattern=f"{damaged[0]}/*.tfrecord",
            output_file=tmp_path / "s.csv",
            on_bad_record="skip",
        )


def test_a_bad_record_costs_no_more_than_a_good_one(tmp_path):
    """Of 300, each is judged once, among others; the parser says what is wrong with those shown."""
    path = tmp_path / "bad.tfrecord"
    path.write_bytes(framed(b"bad") * 300)
    judged, described = [], []

    def find_faults(payloads):
        judged.append(len(payloads))
        return tf.constant(["undecodable"] * len(payloads))

    def check(payloads):
        described.append(len(payloads))
        parse_frame_batch(payloads, SCHEMA)

    skipped = SkippedRecords(1.0)
    chunks = list(read_good_records(str(path), find_faults, check, skipped))
    assert sum(judged) == 300 and len(judged) <= 5
    assert described == [1] * 5
    assert (skipped.num_bad, sum(len(numbers) for numbers, _ in chunks)) == (300, 0)
    assert [bad.record for bad in skipped.first] == [0, 1, 2, 3, 4]
