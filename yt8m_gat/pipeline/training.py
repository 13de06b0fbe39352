"""The job that trains a run, new or resumed."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import NamedTuple

import keras

from yt8m_gat.cli import command_to_paste, duration
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    Reader,
    RecordSchema,
    check_labels,
    count_records,
    find_files,
    no_examples,
)
from yt8m_gat.data.label_counts import count_labels
from yt8m_gat.data.parsing import Batch
from yt8m_gat.data.record_files import hold_frame_arrays
from yt8m_gat.metrics import evaluate as evaluate_arrays
from yt8m_gat.models import VideoClassifier, build_from_config
from yt8m_gat.pipeline.evaluation_checks import other_run
from yt8m_gat.pipeline.exporting import export_run
from yt8m_gat.pipeline.run_evaluator import build_evaluator
from yt8m_gat.pipeline.run_extractor import extractor_to_keep
from yt8m_gat.pipeline.run_settings import read_schema
from yt8m_gat.run_folder import RunFolder, with_teacher_digests
from yt8m_gat.training import (
    Distribution,
    ImportedCallbacks,
    Trainer,
    TrainingState,
    build_distribution,
    build_objective,
    check_objective,
)
from yt8m_gat.training.data_service import wait_for_service
from yt8m_gat.training.distillation import Teacher, build_teacher
from yt8m_gat.training.validation import Validate
from yt8m_gat.weights.copying import copy_weights
from yt8m_gat.weights.files import stored_architecture
from yt8m_gat.weights.load import load_classifier, load_run


def train(
    folder: RunFolder,
    config: RunConfig,
    *,
    train_data_pattern: str,
    eval_data_pattern: str = "",
    export_dir: str | os.PathLike | None = None,
    start_new_model: bool = False,
    accept_new_data: bool = False,
    label_map: str | os.PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    trust_code: bool = False,
) -> TrainingState:
    """Trains a run, new or resumed, and exports its best weights.

    Code that `config` itself names is the caller's own and is trusted.

    Args:
        folder: The run folder; made, or cleared for a new model, only after files, model options,
            objective and the run to start from have been checked.
        config: The configuration of the run.
        train_data_pattern: Training files.
        eval_data_pattern: Validation files; empty: no validation.
        export_dir: Where a SavedModel is written at the end; None: nowhere.
        start_new_model: Drop the run that is in the folder instead of resuming it.
        accept_new_data: Resume it with other files than before, see `Trainer.restore`.
        label_map: File of the label map that `config` names.
        callbacks: Keras callbacks for the loop, before those that `config` names.
        trust_code: Run the code that the run in `finetune_from` names and `config` does not.

    With `--distribute=multi_worker`, every worker calls this; only the first writes.

    Returns:
        The state of the run; its `interrupted` says whether Ctrl-C or SIGTERM ended it.

    Raises:
        InUseError: Another process trains in the folder.
    """
    # This must come before anything else asks TensorFlow for its devices.
    distribution = build_distribution(config.training.distribute, config.training.jit_compile)
    with folder.only_writer() if distribution.is_chief else contextlib.nullcontext():
        return _train(
            distribution,
            folder,
            config,
            train_data_pattern,
            eval_data_pattern,
            export_dir,
            start_new_model,
            accept_new_data,
            label_map,
            callbacks,
            trust_code,
        )


def _train(
    distribution: Distribution,
    folder: RunFolder,
    config: RunConfig,
    train_data_pattern: str,
    eval_data_pattern: str,
    export_dir: str | os.PathLike | None,
    start_new_model: bool,
    accept_new_data: bool,
    label_map: str | os.PathLike | None,
    callbacks: Sequence[keras.callbacks.Callback],
    trust_code: bool,
) -> TrainingState:
    _reach_data_service(config, distribution)
    config = with_teacher_digests(config)
    teachers = [
        other_run("teacher", path, config, trust_code or _trusts_teacher(path, config))
        for path in config.objective.teacher
    ]
    files = find_files(train_data_pattern, "train_data_pattern")
    eval_files = find_files(eval_data_pattern, "eval_data_pattern") if eval_data_pattern else []
    keras.config.set_dtype_policy(config.training.mixed_precision)
    keras.utils.set_random_seed(config.training.seed)
    with distribution.strategy.scope():
        classifier = build_from_config(
            config,
            trust_code=True,
            to_train=True,
            backbone_architecture=_stored_architecture(folder, config, start_new_model),
        )
    imported_callbacks = ImportedCallbacks(config.training.callbacks)
    if config.training.finetune_from is not None:
        _start_from(classifier, config, trust_code)
    teacher = None
    if teachers:
        with distribution.strategy.scope():
            teacher = _load_teachers(teachers, config)
    unweighted = dataclasses.replace(config.objective, class_weights="none")
    check_objective(build_objective(unweighted, config.data.clips is not None), classifier)
    records = _Records(files, eval_files, _schema(folder, config, label_map), config)
    extractor = extractor_to_keep(folder, files, eval_files, start_new_model)
    records.check()
    class_counts, watched_batch = records.class_counts(), records.watched_batch()
    if distribution.is_chief:
        folder.prepare(
            config,
            start_new_model=start_new_model,
            label_map=label_map,
            extractor=extractor,
            backbone_architecture=classifier.backbone_architecture,
        )
    distribution.agree(0)  # The other workers wait until the folder can be read.
    trainer = Trainer(
        config,
        records.schema,
        classifier,
        files,
        folder,
        evaluate_arrays,
        records.validation_of(classifier),
        eval_files,
        [*callbacks, *imported_callbacks.make(config, folder.path)],
        distribution=distribution,
        watched_batch=watched_batch,
        teacher=teacher,
        class_counts=class_counts,
    )
    if trainer.restore(accept_new_data) and distribution.is_chief:
        print(f"{folder.path}: resuming at step {trainer.state.step}", flush=True)
    state = trainer.run()
    if distribution.is_chief:
        if export_dir is not None and not state.interrupted:
            version = export_run(folder, export_dir, trust_code=True)
            print(f"SavedModel: {version}")
        _report(folder, config, trainer, eval_data_pattern)
    distribution.agree(0)  # Wait for all: a worker that exits ends the others.
    return state


class _Records(NamedTuple):
    """The records that a run trains on and is validated on."""

    files: Sequence[str]
    eval_files: Sequence[str]
    schema: RecordSchema
    config: RunConfig

    def check(self) -> None:
        """Refuses files that cannot be read, and labels that cannot be trained on, now rather than
        when a GAP of 0 has ended the run, or the first validation is due."""
        hold_frame_arrays(self.files, self.schema, self.config.training.data_service is None)
        hold_frame_arrays(self.eval_files, self.schema)
        segments = self.config.data.segment_labels
        if self.eval_files:
            check_labels(self.eval_files, self.schema, "eval_data_pattern", segments=segments)
        check_labels(self.files, self.schema, "train_data_pattern", segments=segments)

    def class_counts(self) -> Sequence[int] | None:
        """Returns the number of training clips of each class, where the loss is weighted by it."""
        if self.config.objective.class_weights == "none":
            return None
        return count_labels(self.files, self.schema, self.config.data.segment_labels)

    def validation_batches(self) -> Reader:
        """Returns the reader of the validation files."""
        training = self.config.training
        return Reader(
            self.eval_files,
            self.schema,
            training.batch_size,
            segments="rated" if self.config.data.segment_labels else None,
            on_bad_record=training.on_bad_record,
            max_bad_fraction=training.max_bad_fraction,
        )

    def watched_batch(self) -> Batch | None:
        """Returns the validation batch that is watched for catastrophic overfitting, if any is.

        Raises:
            ConfigError: The validation files hold no example.
        """
        if not self.eval_files:
            return None
        batch = next(iter(self.validation_batches()), None)
        if batch is None:
            segments = self.config.data.segment_labels
            raise no_examples(self.eval_files, "eval_data_pattern", segments)
        watches = self.config.training.watch_overfitting
        attacked = self.config.objective.adversarial not in ("none", "temporal")
        return batch if watches and attacked else None

    def validation_of(self, classifier: VideoClassifier) -> Validate | None:
        """Returns what measures a classifier on the validation files; None if there are none."""
        if not self.eval_files:
            return None
        evaluator = build_evaluator(classifier, self.config, all_scores=False)
        skips = self.config.training.on_bad_record == "skip"
        num_videos = count_records(self.eval_files, skip_damage=skips)
        return lambda: evaluator.evaluate(
            self.validation_batches(), total=num_videos, description="validate"
        )


def _reach_data_service(config: RunConfig, distribution: Distribution) -> None:
    """Waits for the data service, if one is named, which must serve whole batches to workers."""
    if not config.training.data_service:
        return
    if config.training.batch_size % distribution.num_workers:
        raise ConfigError(
            "--batch_size must be a multiple of the number of workers with --data_service. "
            f"Received: {config.training.batch_size} and {distribution.num_workers} workers"
        )
    wait_for_service(config.training.data_service)


def _schema(
    folder: RunFolder, config: RunConfig, label_map: str | os.PathLike | None
) -> RecordSchema:
    schema = read_schema(folder, config, label_map)
    if config.data.clips is not None and config.objective.label_loss == "SoftmaxLoss":
        schema = dataclasses.replace(schema, one_label=True)
    return schema


def _stored_architecture(folder: RunFolder, config: RunConfig, start_new_model: bool) -> str | None:
    """Returns the architecture of the backbone's file where its weights are not needed: in a run
    that is resumed, or that starts from one with the same backbone; else None."""
    if folder.has_weights and not start_new_model:
        return stored_architecture(folder.path)
    source = config.training.finetune_from
    backbone = config.model.options.get("backbone")
    if (
        source is None
        or RunConfig.load(source, "finetune_from").model.options.get("backbone") != backbone
    ):
        return None
    return stored_architecture(source)


def _report(folder: RunFolder, config: RunConfig, trainer: Trainer, eval_data_pattern: str) -> None:
    """Prints how long training took, where the best weights are, and the next command."""
    state = trainer.state
    if state.best_gap is not None:
        weights = "averaged weights" if config.training.ema_momentum else "weights"
        best = f"best validation GAP {state.best_gap:.4f} at step {state.best_step}, {weights} in"
    elif folder.best_weights.is_file():
        best = "no validation: the last weights are in"
    else:
        best = "not validated yet; the state is in"
    place = folder.best_weights if folder.best_weights.is_file() else folder.checkpoints
    steps = "1 step" if state.step == 1 else f"{state.step} steps"
    seconds = duration(trainer.seconds)
    print(f"{folder.path}: {steps} in {seconds}, {trainer.ended_by}; {best} {place}")
    if state.interrupted:
        return
    flags = [f"--train_dir={folder.path}"]
    if eval_data_pattern:
        flags.append(f"--eval_data_pattern={eval_data_pattern}")
    if config.training.on_bad_record == "skip":
        flags.append("--on_bad_record=skip")
    if config.code:
        flags.append("--trust_code")
    missing = "" if eval_data_pattern else " --eval_data_pattern=... (files it has not seen)"
    print(f"next: {command_to_paste('eval', *flags)}{missing}")


def _trusts_teacher(path: str, config: RunConfig) -> bool:
    """Returns whether the command line itself names all code of a teacher."""
    return set(RunConfig.load(path, "teacher").code) <= set(config.code)


def _load_teachers(teachers: Sequence[tuple[RunFolder, RunConfig]], config: RunConfig) -> Teacher:
    """Loads the teachers, whose code has been found to be trusted."""
    objective, classifiers = config.objective, []
    for (folder, of_teacher), digest in zip(teachers, objective.teacher_digests, strict=True):
        loaded = load_run(folder, of_teacher, trust_code=True)
        if loaded.digest != digest:
            raise ConfigError(
                f"--teacher={folder.path} has other weights than a moment ago: it is in training. "
                "Run the same command again when it is done"
            )
        loaded.classifier.trainable = False
        classifiers.append(loaded.classifier)
    return build_teacher(
        classifiers, objective.teacher_temperature, objective.label_loss == "SoftmaxLoss"
    )


def _start_from(classifier: VideoClassifier, config: RunConfig, trust_code: bool) -> None:
    finetune_from = config.training.finetune_from
    source_config = RunConfig.load(finetune_from, "finetune_from")
    # Code that the command line names is the user's own.
    trusted = trust_code or set(source_config.code) <= set(config.code)
    source = load_classifier(RunFolder(finetune_from), source_config, trust_code=trusted)
    try:
        copy_weights(source, classifier)
    except ValueError as error:
        raise ConfigError(
            f"--finetune_from={finetune_from} holds a run of another architecture ({error}); give "
            "the model and data flags that it was trained with"
        ) from error
