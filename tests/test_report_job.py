"""What `evaluate` writes is the run's own for the report until the run is trained on."""

import dataclasses

import pytest

from yt8m_gat import pipeline
from yt8m_gat.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from yt8m_gat.report.source import read_run
from yt8m_gat.run_folder import RunFolder

CONFIG = RunConfig(
    data=DataConfig(num_classes=8, max_frames=12),
    model=ModelConfig(name="FrameLevelLogisticModel"),
    training=TrainingConfig(batch_size=16, num_epochs=2, max_steps=1),
)


@pytest.mark.parametrize("checkpoint", ["best", pytest.param("last", marks=pytest.mark.slow)])
@pytest.mark.parametrize("anew", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.slow
def test_an_evaluation_is_of_the_run_until_it_is_trained_on(tmp_path, sample_dir, checkpoint, anew):
    folder = RunFolder(tmp_path)
    train_files = f"{sample_dir}/train*.tfrecord"
    pipeline.train(folder, CONFIG, train_data_pattern=train_files)
    files = f"{sample_dir}/validate*.tfrecord"
    measured = pipeline.evaluate(
        folder,
        eval_data_pattern=files,
        output_file=tmp_path / "evaluation.json",
        checkpoint=checkpoint,
    )
    run = read_run(tmp_path)
    assert run.clean == measured["clean"] and run.warning == ""

    if anew:  # In all else the same run: its weights alone tell.
        pipeline.train(folder, CONFIG, train_data_pattern=files, start_new_model=True)
    else:
        training = dataclasses.replace(CONFIG.training, max_steps=2)
        longer = dataclasses.replace(CONFIG, training=training)
        pipeline.train(folder, longer, train_data_pattern=train_files)
    run = read_run(tmp_path)
    assert run.evaluation == {}
    weights = "best.weights.h5" if checkpoint == "best" else "the newest checkpoint"
    assert f"are left out: the run has changed since ({weights}" in run.warning
    assert ("config.json" in run.warning) == (not anew)
