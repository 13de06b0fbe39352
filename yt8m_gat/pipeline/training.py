"""Training a run, new or resumed."""

import os
from collections.abc import Sequence

import keras

from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    count_records,
    find_files,
    iterate,
    make_dataset,
    new_skipped,
)
from yt8m_gat.metrics import evaluate as evaluate_arrays
from yt8m_gat.models import VideoClassifier, build_from_config, copy_weights, load_classifier
from yt8m_gat.pipeline.evaluation import build_evaluator
from yt8m_gat.pipeline.exporting import export
from yt8m_gat.pipeline.run_settings import read_schema
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import Trainer, TrainingState


def train(
    folder: RunFolder,
    config: RunConfig,
    *,
    train_data_pattern: str,
    eval_data_pattern: str = "",
    export_dir: str | os.PathLike | None = None,
    start_new_model: bool = False,
    label_map: str | os.PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainingState:
    """Trains a run, new or resumed, and exports its best weights.

    Args:
        folder: The run folder; made, or cleared for a new model, only when files, model options
            and the run to start from have been found good.
        config: The run.
        train_data_pattern: Training files.
        eval_data_pattern: Validation files; empty: no validation.
        export_dir: Where a SavedModel is written at the end; None: nowhere.
        start_new_model: Drop the run that is in the folder instead of resuming it.
        label_map: File of the label map that `config` names.
        callbacks: Keras callbacks for the loop.

    Returns:
        Where the run stands; `finished(config.training)` is None after Ctrl-C or SIGTERM.
    """
    files = find_files(train_data_pattern, "train_data_pattern")
    eval_files = find_files(eval_data_pattern, "eval_data_pattern") if eval_data_pattern else []
    keras.config.set_dtype_policy(config.training.mixed_precision)
    keras.utils.set_random_seed(config.training.seed)
    classifier = build_from_config(config)
    if config.training.finetune_from is not None:
        _start_from(classifier, config.training.finetune_from)
    folder.prepare(config, start_new_model=start_new_model, label_map=label_map)
    schema = read_schema(folder, config)

    validate = None
    if eval_files:
        evaluator = build_evaluator(classifier, config, all_scores=False)
        on_bad_record = config.training.on_bad_record
        num_videos = count_records(eval_files, skip_damage=on_bad_record == "skip")

        def validate() -> dict[str, float]:
            skipped = new_skipped(on_bad_record, config.training.max_bad_fraction)
            dataset = make_dataset(
                eval_files,
                schema,
                config.training.batch_size,
                segments="rated" if config.data.segment_labels else None,
                skipped=skipped,
            )
            return evaluator.evaluate(
                iterate(dataset, eval_files, skipped), total=num_videos, description="validate"
            )

    trainer = Trainer(
        config, schema, classifier, files, folder, evaluate_arrays, validate, callbacks
    )
    if trainer.restore():
        print(f"{folder.path}: resuming at step {trainer.state.step}", flush=True)
    state = trainer.run()
    finished = state.finished(config.training)
    if finished is None:
        return state
    best = "" if state.best_gap is None else f" best validation GAP {state.best_gap:.4f}"
    print(f"{folder.path}: {state.step} steps, {finished};{best}")
    if export_dir is not None:
        best_classifier = load_classifier(folder, config)
        print(f"SavedModel: {export(best_classifier, config, export_dir)}")
    return state


def _start_from(classifier: VideoClassifier, finetune_from: str) -> None:
    source = load_classifier(RunFolder(finetune_from), RunConfig.load(finetune_from))
    try:
        copy_weights(source, classifier)
    except ValueError as error:
        raise ConfigError(
            f"--finetune_from={finetune_from} holds a run of another architecture ({error}); give "
            "the model and data flags that it was trained with"
        ) from error
