"""The pipeline on Beam's local runner against inference.py. `make test-beam` runs it: Beam needs
an older protobuf and python-dateutil than requirements.lock has."""

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: run `make test-beam`")

from apache_beam.options.pipeline_options import PipelineOptions
from exported_model import FRAME_SIZES, MAX_FRAMES, NUM_CLASSES, OPTIONS, frame_record

from yt8m_gat import pipeline
from yt8m_gat.commands import beam as beam_command
from yt8m_gat.config import ClipConfig, DataConfig, ModelConfig, RunConfig
from yt8m_gat.models import build_from_config
from yt8m_gat.prediction import beam
from yt8m_gat.prediction.kaggle import check_submission
from yt8m_gat.prediction.submission import VIDEO_HEADER
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.weights.load import load_classifier

sys.path.append(str(Path(__file__).parents[1] / "data"))
import raw_clips as raw

ROOT = Path(__file__).resolve().parents[2]
LOCAL = "--runner=FnApiRunner"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run folder, export, pattern): a GAT as it was built, and 75 clips in three files."""
    path = tmp_path_factory.mktemp("beam")
    tf.keras.utils.set_random_seed(0)
    config = RunConfig(
        data=DataConfig(
            feature_names=tuple(FRAME_SIZES),
            feature_sizes=tuple(FRAME_SIZES.values()),
            num_classes=NUM_CLASSES,
            max_frames=MAX_FRAMES,
        ),
        model=ModelConfig(name="GAT", options=OPTIONS["GAT"]),
    )
    folder = RunFolder(path / "run")
    folder.prepare(config)
    build_from_config(config).save_weights(folder.best_weights)
    version = pipeline.export(load_classifier(folder, config), config, path / "export")
    for file in range(3):
        write(
            path / f"test{file:02}.tfrecord",
            [frame_record(b"f%d-%d" % (file, n), 1 + (5 * file + n) % 15) for n in range(25)],
        )
    return folder, version, f"{path}/test*.tfrecord"


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def predict(version, pattern, output, *options):
    beam_command.main(
        [f"--input={pattern}", f"--saved_model={version}", f"--output={output}", LOCAL, *options]
    )


def rows_of(paths):
    """video id -> (classes, scores) of some CSV files, each with its header."""
    rows = {}
    for path in paths:
        header, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
        assert ",".join(header) == VIDEO_HEADER
        for video_id, pairs in lines:
            assert video_id not in rows
            classes, scores = np.array(pairs.split(" "), float).reshape(-1, 2).T
            rows[video_id] = classes.astype(int), scores
    return rows


def assert_same_rows(found, expected):
    """The last digit depends on the batch that a clip is in: scores are compared to 1e-5."""
    assert set(found) == set(expected)
    for video_id, (classes, scores) in found.items():
        of_class = dict(zip(*expected[video_id], strict=True))
        np.testing.assert_allclose(scores, expected[video_id][1], rtol=1e-5)
        np.testing.assert_allclose(scores, [of_class[c] for c in classes], rtol=1e-5)


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory):
    """The rows of inference.py."""
    folder, _, pattern = run
    path = tmp_path_factory.mktemp("csv") / "submission.csv"
    assert pipeline.infer(folder, input_data_pattern=pattern, output_file=path, batch_size=32) == 75
    return rows_of([path])


def test_the_rows_are_those_of_inference(run, expected, tmp_path, capsys):
    _, version, pattern = run
    predict(version, pattern, tmp_path / "out" / "s", "--num_shards=2", "--batch_size=7")
    shards = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in shards] == ["s-00000-of-00002.csv", "s-00001-of-00002.csv"]
    assert_same_rows(rows_of(shards), expected)
    assert "75 videos" in capsys.readouterr().out
    for path in shards:
        assert not list(check_submission(path, NUM_CLASSES))


def test_fewer_predictions_and_several_patterns(run, expected, tmp_path):
    _, version, pattern = run
    first, second = (pattern.replace("*", number) for number in ("00", "02"))
    predict(version, f"{first}, {second}", tmp_path / "s", "--top_k=3")
    found = rows_of(tmp_path.glob("s-*.csv"))
    chosen = {
        video_id: (classes[:3], scores[:3])
        for video_id, (classes, scores) in expected.items()
        if not video_id.startswith("f1")
    }
    assert_same_rows(found, chosen)


def test_workers_of_their_own_processes(run, expected, tmp_path):
    """From the command line, where the workers know no `__main__`."""
    _, version, pattern = run
    command = [sys.executable, "-m", "yt8m_gat.evaluation.beam", f"--input={pattern}", LOCAL]
    command += [f"--saved_model={version}", f"--output={tmp_path / 's'}"]
    command += ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "75 videos" in done.stdout
    assert_same_rows(rows_of(tmp_path.glob("s-*.csv")), expected)


@pytest.fixture
def damaged(tmp_path):
    """A file of 6 records, of which 2 are bad."""
    path = tmp_path / "damaged.tfrecord"
    good = [frame_record(b"g%d" % n, 4) for n in range(4)]
    write(path, [*good[:2], b"no record", good[2], frame_record(b"empty", 0), good[3]])
    return path


def test_a_bad_record_stops_it_and_is_named(run, damaged, tmp_path):
    with pytest.raises(
        ValueError, match=r"damaged\.tfrecord has a bad record: .*on_bad_record=skip"
    ):
        predict(run[1], damaged, tmp_path / "s")
    assert not list(tmp_path.glob("s-*"))


def test_bad_records_are_left_out_and_listed(run, damaged, tmp_path, capsys):
    predict(run[1], damaged, tmp_path / "s", "--on_bad_record=skip")
    assert sorted(rows_of(tmp_path.glob("s-*.csv"))) == ["g0", "g1", "g2", "g3"]
    [listed] = tmp_path.glob("s-bad-*.txt")
    lines = sorted(listed.read_text().splitlines())
    assert len(lines) == 2
    assert lines[0].startswith(f"{damaged}: it has no frames of any of the features needed")
    assert lines[1].startswith(f"{damaged}: the payload is no tf.Example")
    assert "4 videos; 2 bad records left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "/nowhere/*.tfrecord"}, "no file matches '/nowhere/\\*.tfrecord'"),
        ({"input": ","}, "--input must name TFRecord files"),
        ({"input": "foo://a/*.tfrecord"}, "Unable to get filesystem from specified path"),
        ({"output": "foo://a/s"}, "Unable to get filesystem from specified path"),
        ({"saved_model": "/nowhere"}, "the folder of one version of an export"),
        ({"saved_model": "foo://a/1"}, "File system scheme 'foo' not implemented"),
        ({"saved_model": "export[1]/1"}, "--saved_model must have neither [ nor"),
        ({"top_k": "21"}, "--top_k must be at most 20"),
        ({"top_k": "0"}, "`top_k` must be positive"),
        ({"batch_size": "0"}, "`batch_size` must be positive"),
    ],
)
def test_what_cannot_work_is_refused(run, tmp_path, capsys, options, message):
    _, version, pattern = run
    given = {"input": pattern, "saved_model": version, "output": tmp_path / "s", **options}
    with pytest.raises(SystemExit) as raised:
        beam_command.main([LOCAL, *(f"--{name}={value}" for name, value in given.items())])
    assert raised.value.code == 2
    assert message.replace("\\", "") in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_frame_arrays_are_refused(tmp_path, capsys):
    (tmp_path / "a.npz").touch()
    with pytest.raises(SystemExit) as raised:
        predict("models/1", f"{tmp_path}/*", tmp_path / "out" / "s")
    assert raised.value.code == 2
    message = f"yt8m-gat beam reads TFRecord files. Received frame arrays: '{tmp_path}/a.npz'"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predictions_that_are_not_numbers_stop_it(run, tmp_path):
    folder, *_ = run
    config = RunConfig.load(folder.path)
    classifier = load_classifier(folder, config)
    classifier.output_layer.bias.assign(np.full(NUM_CLASSES, np.nan))
    version = pipeline.export(classifier, config, tmp_path)
    handler = beam.SavedModelHandler(str(version))
    record = beam.NamedRecord("file", frame_record(b"v", 3))
    with pytest.raises(ValueError, match=r"probabilities must be finite.*b'v'"):
        handler.run_inference([record], handler.load_model())


def commands_of_the_documentation():
    text = (ROOT / "docs" / "BEAM.md").read_text(encoding="utf-8").replace("\\\n", "")
    return [
        shlex.split(line)[2:]
        for line in text.splitlines()
        if line.strip().startswith("yt8m-gat beam ")
    ]


def test_raw_clips(tmp_path):
    """A TSM as it was built, on clips of one color each."""
    tf.keras.utils.set_random_seed(0)
    config = RunConfig(
        data=DataConfig(
            **{"feature_names": ("image",), "feature_sizes": (3,), "num_classes": 3},
            **{"max_frames": 2, "clips": ClipConfig(num_segments=2, crop_size=8)},
        ),
        model=ModelConfig(name="TSM", options={"backbone": "ResNet10Small"}),
    )
    folder = RunFolder(tmp_path / "run")
    folder.prepare(config)
    build_from_config(config).save_weights(folder.best_weights)
    version = pipeline.export(load_classifier(folder, config), config, tmp_path / "export")
    records = [raw.record(f"c{n}", [raw.flat(40 * n)] * 3, [0]) for n in range(6)]
    write(tmp_path / "clips.tfrecord", records)
    output = tmp_path / "csv" / "submission"
    predict(version, str(tmp_path / "clips.tfrecord"), output, "--top_k=3")
    rows = rows_of(output.parent.glob("submission-*"))
    expected = tmp_path / "expected.csv"
    pipeline.infer(
        folder, input_data_pattern=f"{tmp_path}/clips.tfrecord", output_file=expected, top_k=3
    )
    assert rows.keys() == {f"c{n}" for n in range(6)}
    assert_same_rows(rows, rows_of([expected]))


def test_the_documentation_names_options_that_exist():
    """A misspelt one would be left out by Beam with no more than a warning."""
    runners = set()
    for command in commands_of_the_documentation():
        values, of_beam = beam_command._parser().parse_known_args(command)
        assert values.input and values.saved_model and values.output
        given = dict(option.removeprefix("--").split("=", 1) for option in of_beam)
        known = PipelineOptions(of_beam).get_all_options(drop_default=True)
        assert given.keys() == known.keys()
        runners.add(given.get("runner"))
    assert runners >= {"FnApiRunner", "DataflowRunner", "FlinkRunner", "SparkRunner"}
