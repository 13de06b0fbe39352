"""--label_map the whole way: train, evaluate, predict, hand on, export, resume."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from absl import flags

from yt8m_gat import pipeline
from yt8m_gat.commands import inference as inference_script
from yt8m_gat.commands import train as train_script
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import BadRecordError, LabelMap
from yt8m_gat.run_folder import RunFolder

# Classes 0..7 of the sample; 7 has no target.
PAIRS = ((0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (6, 0))


def parse(*arguments):
    values = flags.FlagValues()
    train_script.define_flags(values)
    values(["train.py", *map(str, arguments)])
    return train_script.config_from_flags(values)


def save_map(path, pairs=PAIRS, names=("a", "b", "c")):
    LabelMap(pairs, 8, names).save(path)
    return path


def arguments(map_path, num_classes=8):
    return (
        "--model=FrameLevelLogisticModel",
        f"--num_classes={num_classes}",
        "--max_frames=12",
        "--batch_size=32",
        "--num_epochs=1",
        f"--label_map={map_path}",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, sample_dir):
    """A finished run whose map file is gone."""
    path = tmp_path_factory.mktemp("runs")
    map_path = save_map(path / "map.csv")
    config, folder = parse(*arguments(map_path)), RunFolder(path / "run")
    folder.prepare(config, label_map=map_path)
    map_path.unlink()
    pipeline.train(
        folder,
        config,
        train_data_pattern=f"{sample_dir}/train*.tfrecord",
        eval_data_pattern=f"{sample_dir}/validate*.tfrecord",
        export_dir=path / "export",
    )
    return folder, config, path / "export"


def test_the_flag_sets_both_label_spaces(tmp_path):
    path = save_map(tmp_path / "map.csv")
    data = parse(*arguments(path)).data
    assert (data.num_source_classes, data.num_classes) == (8, 3)
    assert data.label_map == LabelMap.load(path).fingerprint
    assert parse(f"--label_map={path}").data.num_source_classes == 3862
    assert RunConfig.from_json(parse(*arguments(path)).to_json()).data == data


def test_a_map_of_a_larger_space_is_refused(tmp_path):
    path = save_map(tmp_path / "map.csv")
    with pytest.raises(ConfigError, match=r"map\.csv, line 7: source_index must .* in 0 \.\. 4"):
        parse(*arguments(path, num_classes=5))


@pytest.mark.slow
def test_the_run_is_scored_on_the_targets(finished, sample_dir, tmp_path):
    folder, *_ = finished
    pattern = f"{sample_dir}/test*.tfrecord"
    result = pipeline.evaluate(folder, eval_data_pattern=pattern)
    assert result["clean"]["num_videos"] == 32
    # The map's own names, without --label_names.
    assert result["classes"]["names"] == {"0": "a", "1": "b", "2": "c"}
    output_file = tmp_path / "submission.csv"
    assert pipeline.infer(folder, input_data_pattern=pattern, output_file=output_file) == 32

    frame = pd.read_csv(output_file)
    labels = {}
    for path in sample_dir.glob("test*.tfrecord"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            context = tf.train.SequenceExample.FromString(record).context.feature
            labels[context["id"].bytes_list.value[0].decode()] = {
                target for source, target in PAIRS if source in context["labels"].int64_list.value
            }
    pooled = []
    for video_id, pairs in zip(frame["VideoId"], frame["LabelConfidencePairs"], strict=True):
        values = pairs.split(" ")
        assert sorted(values[0::2]) == ["0", "1", "2"]
        pooled += [
            (float(score), int(label) in labels[video_id])
            for label, score in zip(values[0::2], values[1::2], strict=True)
        ]
    hits = np.array([hit for _, hit in sorted(pooled, key=lambda pair: -pair[0])])
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    gap = (precision * hits).sum() / sum(map(len, labels.values()))
    # Six digits of a score: pairs may change places.
    assert result["clean"]["gap"] == pytest.approx(gap, abs=1e-3)


@pytest.mark.slow
def test_a_model_that_is_handed_on_predicts_the_same(finished, sample_dir, tmp_path, monkeypatch):
    folder, *_ = finished
    tgz, here, there = tmp_path / "model.tgz", tmp_path / "here.csv", tmp_path / "there.csv"
    pattern = f"{sample_dir}/test*.tfrecord"
    inference_script.main(
        [
            f"--train_dir={folder.path}",
            f"--input_data_pattern={pattern}",
            f"--output_file={here}",
            f"--output_model_tgz={tgz}",
        ]
    )
    with pipeline.model_folder("not used", tgz) as unpacked:
        pipeline.infer(unpacked, input_data_pattern=pattern, output_file=there)
        assert unpacked.label_map.is_file()
    assert there.read_bytes() == here.read_bytes()
    assert not unpacked.path.exists()
    with pipeline.model_folder("not used", tgz, tmp_path / "kept") as unpacked:
        assert unpacked.path == tmp_path / "kept"
    assert unpacked.best_weights.is_file()
    with pipeline.model_folder(folder.path) as same:
        assert same.path == folder.path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--output_file must name"),
        (("--untar_model_dir=x",), "--untar_model_dir needs --input_model_tgz"),
        (("--output_model_tgz=x", "--checkpoint=last"), "need --checkpoint=best"),
        (("--input_model_tgz=x", "--checkpoint=last"), "need --checkpoint=best"),
    ],
)
def test_archive_flags_that_cannot_work_together(arguments, message):
    values = flags.FlagValues()
    inference_script.define_flags(values)
    output_file = ["--output_file=x.csv"] if arguments else []
    values(["inference.py", *output_file, *arguments])
    with pytest.raises(ConfigError, match=message):
        inference_script.check_flags(values)


@pytest.mark.slow
def test_the_export_serves_targets(finished, sample_dir):
    _, _, export_dir = finished
    serve = tf.saved_model.load(str(export_dir / "1")).signatures["serving_default"]
    path = str(next(sample_dir.glob("test*.tfrecord")))
    [record] = tf.data.TFRecordDataset(path).take(1)
    assert serve(example_bytes=record[None])["predictions"].shape == (1, 3)


def test_a_run_keeps_its_map(finished, tmp_path):
    folder, config, _ = finished
    other = save_map(tmp_path / "other.csv", pairs=((0, 0), (1, 1), (2, 2)))
    with pytest.raises(ConfigError, match=r"other settings .*\n  data.label_map: "):
        folder.prepare(parse(*arguments(other)), label_map=other)
    renamed = save_map(tmp_path / "renamed.csv", names=("x", "y", "z"))
    folder.prepare(parse(*arguments(renamed)), label_map=renamed)
    assert pipeline.read_schema(folder, config).label_map.names == ("x", "y", "z")


def test_a_map_changed_inside_the_run_folder_is_refused(tmp_path):
    path = save_map(tmp_path / "map.csv")
    folder, config = RunFolder(tmp_path / "run"), parse(*arguments(path))
    folder.prepare(config, label_map=path)
    save_map(folder.label_map, pairs=((0, 0), (1, 1), (2, 2)))
    with pytest.raises(ConfigError, match="a run must keep the label map"):
        pipeline.read_schema(folder, config)
    folder.label_map.unlink()
    with pytest.raises(FileNotFoundError, match=r"label_map\.csv"):
        pipeline.read_schema(folder, config)


def test_starting_over_from_the_runs_own_map(tmp_path):
    path = save_map(tmp_path / "map.csv")
    folder, config = RunFolder(tmp_path / "run"), parse(*arguments(path))
    folder.prepare(config, label_map=path)
    folder.prepare(config, start_new_model=True, label_map=folder.label_map)
    assert pipeline.read_schema(folder, config).label_map == LabelMap.load(path, 8)
    folder.prepare(parse("--model=FrameLevelLogisticModel"), start_new_model=True)
    assert not folder.label_map.exists()


def test_labels_outside_the_source_space_are_refused(tmp_path, sample_dir):
    path = save_map(tmp_path / "map.csv", pairs=((0, 0), (1, 1), (2, 2)))
    config, folder = parse(*arguments(path, num_classes=3)), RunFolder(tmp_path / "run")
    folder.prepare(config, label_map=path)
    with pytest.raises(BadRecordError, match=r"label [\d, ]+ is outside 0 \.\. 2"):
        pipeline.train(folder, config, train_data_pattern=f"{sample_dir}/train*.tfrecord")
