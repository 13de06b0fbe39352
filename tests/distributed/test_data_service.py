"""Input through a tf.data service, a dispatcher and two workers on loopback."""

import collections
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from two_workers import start, wait_for

from yt8m_gat import pipeline
from yt8m_gat.config import (
    ClipConfig,
    ConfigError,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from yt8m_gat.data import BadRecordError, Reader, RecordSchema, Shuffle
from yt8m_gat.models import build_from_config
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import Distribution, data_service, read_state
from yt8m_gat.training.data_service import read_through, wait_for_dispatcher
from yt8m_gat.training.loop import Trainer

sys.path.append(str(Path(__file__).parents[1] / "data"))
import raw_clips as raw
from handmade_records import write

pytestmark = pytest.mark.slow

DATA = DataConfig(num_classes=8, max_frames=12)


@pytest.fixture(scope="module")
def address():
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("data_service.py")],
        stdout=subprocess.PIPE,
        text=True,
    )
    target, _, workers = process.stdout.readline().strip().partition(" ")
    assert (target.startswith("grpc://"), workers) == (True, "2")
    yield target
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def files(sample_dir):
    return sorted(str(path) for path in sample_dir.glob("train*.tfrecord"))


def read(address, files, schema, epoch=0):
    reader = Reader(files, schema, 15, shuffle=Shuffle(epoch=epoch), check_files=False)
    reader.dataset = read_through(address, reader.dataset, Distribution())
    return reader


@pytest.mark.parametrize("epoch", [0, 1])
def test_every_record_comes_once_an_epoch(address, files, epoch):
    counts, sizes = collections.Counter(), []
    for batch in read(address, files, RecordSchema.from_config(DATA), epoch=epoch):
        counts.update(batch["video_id"].numpy().tolist())
        sizes.append(len(batch["video_id"]))
    assert len(counts) == 96 and set(counts.values()) == {1}
    assert sum(sizes) == 96 and max(sizes) == 15


def test_a_bad_record_is_named_through_the_service(address, files):
    schema = RecordSchema.from_config(DataConfig(num_classes=2, max_frames=12))
    with pytest.raises(BadRecordError, match=r"train\d+\.tfrecord, record \d+ .*--num_classes"):
        list(read(address, files, schema))


def config_for(address, **training):
    return RunConfig(
        data=DATA,
        model=ModelConfig(name="FrameLevelLogisticModel"),
        training=TrainingConfig(batch_size=16, data_service=address, **training),
    )


def train(folder, config, sample_dir, *callbacks):
    return pipeline.train(
        folder,
        config,
        train_data_pattern=f"{sample_dir}/train*.tfrecord",
        callbacks=callbacks,
    )


def test_training_sees_each_clip_once_an_epoch_and_begins_a_broken_epoch_anew(
    address, tmp_path, sample_dir, caplog
):
    folder = RunFolder(tmp_path)
    state = train(folder, config_for(address, num_epochs=1), sample_dir)
    assert (state.epoch, state.batch, state.examples) == (1, 0, 96)
    assert not state.ordered

    state = train(folder, config_for(address, num_epochs=3, max_steps=8), sample_dir)
    assert (state.epoch, state.batch) == (1, 2)
    assert "begins again" not in caplog.text
    seen = state.examples
    state = train(folder, config_for(address, num_epochs=2), sample_dir)
    assert "epoch 1 begins again, of which 2 batches had been seen" in caplog.text
    assert (state.epoch, state.batch, state.examples) == (2, 0, seen + 96)


@pytest.mark.parametrize("first_through_service", [True, False])
def test_an_order_is_not_taken_for_another(
    address, tmp_path, sample_dir, files, first_through_service
):
    """Begun through the service and resumed without it, or the other way round."""
    through, without = config_for(address, max_steps=2), config_for(None, max_steps=2)
    first, second = (through, without) if first_through_service else (without, through)
    folder = RunFolder(tmp_path)
    assert train(folder, first, sample_dir).batch == 2
    classifier = build_from_config(second)
    schema = RecordSchema.from_config(DATA)
    trainer = Trainer(second, schema, classifier, files, folder, measure=lambda *_: {})
    assert trainer.restore() and trainer.state.batch == 0


@pytest.mark.slow
def test_two_training_workers_share_the_records(address, tmp_path, sample_dir):
    """Each gets batches that the other does not; whoever is done first waits with empty hands."""
    processes = start(
        sample_dir,
        tmp_path,
        f"--data_service={address}",
        "--batch_size=14",
        "--num_epochs=2",
    )
    outputs = wait_for(processes)
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    state = read_state(RunFolder(tmp_path))
    assert (state.epoch, state.examples) == (2, 2 * 96)


def test_raw_clips_come_through_the_service(address, tmp_path):
    records = [raw.record(f"clip{n}", [raw.flat(9 * n)] * 2, [n % 2]) for n in range(10)]
    path = write(tmp_path / "clips.tfrecord", records)
    clips = ClipConfig(num_segments=2, crop_size=8)
    data = DataConfig(
        **{"feature_names": ("image",), "feature_sizes": (3,), "labels_key": "clip/label/index"},
        **{"num_classes": 2, "max_frames": 2, "clips": clips},
    )
    reader = Reader([path], RecordSchema.from_config(data), 4, shuffle=Shuffle(), check_files=False)
    reader.dataset = read_through(address, reader.dataset, Distribution())
    counts = collections.Counter()
    for batch in reader:
        counts.update(batch["video_id"].numpy().tolist())
        numbers = [int(name.removeprefix(b"clip")) for name in batch["video_id"].numpy()]
        colors = batch["features"]["image"].numpy().mean(axis=(1, 2, 3, 4))
        assert colors.tolist() == pytest.approx([9 * number for number in numbers], abs=1)
    assert len(counts) == 10 and set(counts.values()) == {1}
    config = RunConfig(
        data=data,
        model=ModelConfig(name="tiny_clip_model:TinyClipModel"),
        training=TrainingConfig(batch_size=4, data_service=address, num_epochs=1),
    )
    state = pipeline.train(RunFolder(tmp_path / "run"), config, train_data_pattern=path)
    assert state.examples == 10


def test_a_service_that_does_not_answer_is_named(tmp_path, sample_dir, capsys, monkeypatch):
    with socket.socket() as taken:  # A port at which nobody listens.
        taken.bind(("127.0.0.1", 0))
        address = f"grpc://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(data_service, "SECONDS_TO_ANSWER", 0.2)
        with pytest.raises(ConfigError, match=rf"{address} must be .*Connection refused.*Start"):
            train(RunFolder(tmp_path), config_for(address), sample_dir)
    lines = re.findall(
        rf"waiting up to 0.2 s, since \d\d:\d\d:\d\d, for the tf.data service at {address}: ",
        capsys.readouterr().err,
    )
    assert len(lines) == 1
    with socket.create_server(("127.0.0.1", 0)) as listening:
        wait_for_dispatcher(f"grpc://127.0.0.1:{listening.getsockname()[1]}")
    with pytest.raises(ConfigError, match=r"no-such-host\.invalid:5 must be"):
        wait_for_dispatcher("grpc://no-such-host.invalid:5")


def test_a_service_without_workers_is_named_and_given_up():
    """In a process of its own: the read that waits cannot be interrupted, and must not keep it."""
    script = """
import tensorflow as tf
from yt8m_gat.training import data_service
service = tf.data.experimental.service
dispatcher = service.DispatchServer(service.DispatcherConfig(port=0))
data_service.SECONDS_OF_SILENCE, data_service.SECONDS_TO_ANSWER = 0.5, 1.5
try:
    data_service.wait_for_service(dispatcher.target)
except data_service.ConfigError as error:
    print(error)
worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=dispatcher.target[7:]))
data_service.SECONDS_TO_ANSWER = 60
data_service.wait_for_service(dispatcher.target)
print("there")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    lines = ended.stdout.splitlines()
    assert re.fullmatch(
        r"--data_service=grpc://\S+ must be .* since \d\d:\d\d:\d\d\. Start the work.*",
        lines[0],
    )
    assert lines[1] == "there"
    assert "for a worker of the tf.data service at grpc://" in ended.stderr


@pytest.mark.parametrize("value", ["host:1", "grpc://host", "grpc://:5", "http://host:5"])
def test_what_is_no_address_is_refused(value):
    with pytest.raises(ConfigError, match=rf"--data_service must be .*grpc://host:port.*{value}"):
        config_for(value)


@pytest.mark.slow
def test_bad_records_cannot_be_left_out_by_others():
    with pytest.raises(ConfigError, match=r"--on_bad_record=skip .* needs no --data_service"):
        config_for("grpc://host:1", on_bad_record="skip")
