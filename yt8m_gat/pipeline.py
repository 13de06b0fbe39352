"""The three jobs of the command line, put together from the rooms of the package.

The only module that knows training, evaluation and export at once.
"""

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from yt8m_gat import cli
from yt8m_gat.attacks import (
    ATTACKS,
    ATTACKS_WITHOUT_EPSILON,
    Attack,
    AttackOptions,
    build_attack,
)
from yt8m_gat.config import ConfigError, RunConfig
from yt8m_gat.data import (
    BadRecordError,
    LabelMap,
    RecordSchema,
    count_records,
    find_files,
    iterate,
    make_dataset,
    preprocess,
    read_class_ids,
)
from yt8m_gat.evaluation.evaluator import Evaluator
from yt8m_gat.evaluation.inference import predict, predict_segments
from yt8m_gat.evaluation.submission import SegmentSubmissionWriter, SubmissionWriter
from yt8m_gat.export import export_saved_model, read_archive
from yt8m_gat.losses import (
    average_over_heads,
    distance_to_uniform,
    get_loss,
    normalized_entropy,
)
from yt8m_gat.metrics import evaluate as evaluate_arrays
from yt8m_gat.models import VideoClassifier, build_from_config, copy_weights, load_classifier
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import NonFiniteLossError, Trainer, TrainingState, follow

# Scores kept for the all-scores MAP: 4 bytes times videos times classes.
MAX_SCORE_BYTES = 4 * 2**30


def reported_errors() -> contextlib.AbstractContextManager[None]:
    """`cli.reported_errors` for everything that these jobs raise when the user can mend it."""
    return cli.reported_errors(BadRecordError, NonFiniteLossError)


def read_schema(folder: RunFolder, config: RunConfig) -> RecordSchema:
    """What the records of a run hold, with the label map that its folder keeps, if any.

    Raises:
        ConfigError: The folder's label map is not that of the run.
        OSError: It is not there.
    """
    label_map = None
    if config.data.label_map is not None:
        label_map = LabelMap.load(folder.label_map, config.data.num_source_classes)
    return RecordSchema.from_config(config.data, label_map)


def attention_figures(attention_maps: dict[str, dict[str, Any]], frame_mask: Any) -> dict[str, Any]:
    """What the global maps (averaged over heads) look like, per feature, {name: [B]}.

    An attention penalty is cheapest to satisfy with maps that are uniform and so cannot move: the
    entropy over log n (1 for uniform) and the distance to uniform say whether that happened.
    """
    figures = {}
    for feature, maps in attention_maps.items():
        if "global" in maps:
            mean = average_over_heads(maps["global"])
            figures[f"attention_entropy_{feature}"] = normalized_entropy(mean, frame_mask)
            figures[f"distance_to_uniform_{feature}"] = distance_to_uniform(mean, frame_mask)
    return figures


def build_evaluator(classifier: Any, config: RunConfig, **options: Any) -> Evaluator:
    """An evaluator of `classifier` with the loss and the features of its run."""
    return Evaluator(
        classifier,
        get_loss(config.objective.label_loss, config.objective.class_reduction),
        config.data.num_classes,
        config.data.normalize,
        attention_figures=attention_figures if config.data.frame_features else None,
        **options,
    )


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
        num_videos = count_records(eval_files)

        def validate() -> dict[str, float]:
            dataset = make_dataset(
                eval_files,
                schema,
                config.training.batch_size,
                segments="rated" if config.data.segment_labels else None,
            )
            return evaluator.evaluate(
                iterate(dataset, eval_files), total=num_videos, description="validate"
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


def export(classifier: Any, config: RunConfig, export_dir: str | os.PathLike) -> Path:
    """Writes `classifier` as the next version of a SavedModel below `export_dir`."""
    # Records that are served need no labels; any that they have are not read.
    data = dataclasses.replace(config.data, num_source_classes=None, label_map=None)
    return export_saved_model(
        classifier, RecordSchema.from_config(data), export_dir, config.data.normalize
    )


def evaluate(
    folder: RunFolder,
    *,
    eval_data_pattern: str,
    attacks: Sequence[str] = (),
    epsilons: Sequence[float] = (),
    batch_size: int | None = None,
    top_k: int = 20,
    checkpoint: str = "best",
    output_file: str | os.PathLike | None = None,
    segment_labels: bool | None = None,
) -> dict[str, Any]:
    """Metrics of a trained run, clean and under each attack at each epsilon.

    Args:
        folder: The run.
        eval_data_pattern: Files to evaluate on.
        attacks: Names of attacks.
        epsilons: Their radii; by default that of training.
        batch_size: Clips, or segments, at once; by default that of training.
        top_k: Predictions per clip, or segment, that GAP and MAP count.
        checkpoint: `best` or `last`.
        output_file: Where the figures are written too, as JSON.
        segment_labels: Whether the rated segments are evaluated, each by itself, instead of whole
            clips; None: as in training.

    Returns:
        `{"clean": {...}, "attacks": [{"attack", "epsilon", ...}, ...]}`; also written to
        `output_file` as JSON when given.
    """
    config = RunConfig.load(folder.path)
    segments = "rated" if _on_segments(config, segment_labels) else None
    files = find_files(eval_data_pattern, "eval_data_pattern")
    made = _build_attacks(attacks, epsilons or (config.objective.epsilon,), config)
    if output_file is not None and not Path(output_file).absolute().parent.is_dir():
        raise ConfigError(f"--output_file={output_file}: its folder does not exist")
    classifier = load_classifier(folder, config, checkpoint)
    schema = read_schema(folder, config)
    num_videos = count_records(files)
    # Without all scores there is no segment MAP; all of 2019's rated segments are 3.7 GB.
    all_scores = segments is not None or 4 * num_videos * config.data.num_classes <= MAX_SCORE_BYTES
    if not all_scores:
        print("map_all_scores is left out: it would keep every score in memory", file=sys.stderr)
    evaluator = build_evaluator(classifier, config, top_k=top_k, all_scores=all_scores)

    def run(attack: Any, description: str) -> dict[str, float]:
        dataset = make_dataset(
            files, schema, batch_size or config.training.batch_size, segments=segments
        )
        return evaluator.evaluate(iterate(dataset, files), attack, num_videos, description)

    result: dict[str, Any] = {"clean": run(None, "clean"), "attacks": []}
    for name, epsilon, attack in made:
        metrics = run(attack, name if epsilon is None else f"{name} {epsilon:g}")
        result["attacks"].append({"attack": name, "epsilon": epsilon, **metrics})
    if output_file is not None:
        path = Path(output_file)
        temporary = path.with_name(path.name + ".partial")
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    return result


def _on_segments(config: RunConfig, segment_labels: bool | None) -> bool:
    """Whether a job is about segments: as asked for, or as in training."""
    if segment_labels and not config.data.frame_features:
        raise ConfigError(
            "--segment_labels needs a frame-level run: a segment is 5 frames. Received: a run of "
            f"--model={config.model.name}"
        )
    return config.data.segment_labels if segment_labels is None else segment_labels


def _build_attacks(
    names: Sequence[str], epsilons: Sequence[float], config: RunConfig
) -> list[tuple[str, float | None, Attack]]:
    """(name, epsilon, attack) of each evaluation; epsilon None where an attack has no radius."""
    options = AttackOptions(norm_scope=config.objective.norm_scope)
    made = []
    for name in names:
        if name not in ATTACKS:
            raise ConfigError(f"--attacks must be of {', '.join(ATTACKS)}. Received: {name!r}")
        if name in ATTACKS_WITHOUT_EPSILON:
            made.append((name, None, build_attack(name, 0.0, options)))
            continue
        made += [(name, epsilon, build_attack(name, epsilon, options)) for epsilon in epsilons]
    if made and not config.data.frame_features:
        raise ConfigError("--attacks need a frame-level model")
    return made


def evaluate_each(
    folder: RunFolder,
    *,
    eval_data_pattern: str,
    checkpoint: str = "best",
    poll_seconds: float = 5.0,
    **options: Any,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """`evaluate` for each new state of a run that is being trained, until it is finished.

    Args:
        folder: The run; it need not be there yet.
        eval_data_pattern: Evaluation files.
        checkpoint: `best` or `last`, see `yt8m_gat.training.follow`.
        poll_seconds: Seconds between two looks for a new state.
        **options: The other arguments of `evaluate`; `output_file` is written anew each time.

    Yields:
        The state's step and what `evaluate` gives.
    """
    find_files(eval_data_pattern, "eval_data_pattern")  # Refused now, not after the first wait.
    for step in follow(folder, checkpoint, poll_seconds):
        yield (
            step,
            evaluate(folder, eval_data_pattern=eval_data_pattern, checkpoint=checkpoint, **options),
        )


def explain(
    folder: RunFolder,
    *,
    input_data_pattern: str,
    video_id: str,
    label: int,
    checkpoint: str = "best",
) -> dict[str, Any]:
    """Why a run gives a clip a label, over the clip's real frames.

    Args:
        folder: The run, a frame-level one.
        input_data_pattern: Files that hold the clip.
        video_id: The clip.
        label: The class.
        checkpoint: `best` or `last`.

    Returns:
        `{"video_id", "label", "probability", "curves": {kind: {feature: [value per frame]}}}`.

    Raises:
        ConfigError: The run has no frames, there is no such class, or no such clip.
    """
    # Not needed, and slow to import, for anything else.
    from yt8m_gat.evaluation.explain import explain as explain_clip

    config = RunConfig.load(folder.path)
    if not config.data.frame_features:
        raise ConfigError(f"explaining needs a frame-level run; {folder.path} is video-level")
    if not 0 <= label < config.data.num_classes:
        raise ConfigError(
            f"--label must be in 0 .. {config.data.num_classes - 1}. Received: {label}"
        )
    files = find_files(input_data_pattern, "input_data_pattern")
    schema = read_schema(folder, config)
    for batch in iterate(make_dataset(files, schema, config.training.batch_size), files):
        places = [i for i, key in enumerate(batch["video_id"].numpy()) if key == video_id.encode()]
        if places:
            break
    else:
        raise ConfigError(f"--video_id={video_id!r} is in no file of {input_data_pattern}")
    features, mask = preprocess(batch["features"], batch["num_frames"], config.data.normalize)
    place = places[0]
    real = mask[place].numpy()
    classifier = load_classifier(folder, config, checkpoint)
    clip = {name: value[place].numpy() for name, value in features.items()}
    found = explain_clip(classifier, clip, real, label)
    kinds = {
        "Saliency": found.saliency,
        "SmoothGrad": found.smooth_grad,
        "Grad-CAM++": {} if found.grad_cam is None else {"all features": found.grad_cam},
        "Attention profile": found.attention,
    }
    return {
        "video_id": video_id,
        "label": label,
        "probability": found.probability,
        "curves": {
            kind: {name: curve[real].tolist() for name, curve in curves.items()}
            for kind, curves in kinds.items()
        },
    }


@contextlib.contextmanager
def model_folder(
    train_dir: str | os.PathLike,
    input_model_tgz: str | os.PathLike | None = None,
    untar_model_dir: str | os.PathLike | None = None,
) -> Iterator[RunFolder]:
    """The run folder to predict with: of a run, or unpacked from an archive.

    Args:
        train_dir: The run, unless there is an archive.
        input_model_tgz: The archive; None: there is none.
        untar_model_dir: Where it is unpacked and kept; None: in a folder that is removed
            afterwards.

    Raises:
        ConfigError: See `yt8m_gat.export.read_archive`.
    """
    if input_model_tgz is None:
        yield RunFolder(train_dir)
    elif untar_model_dir is not None:
        yield read_archive(input_model_tgz, untar_model_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield read_archive(input_model_tgz, os.path.join(folder, "model"))


def infer(
    folder: RunFolder,
    *,
    input_data_pattern: str,
    output_file: str | os.PathLike,
    batch_size: int = 512,
    top_k: int = 20,
    checkpoint: str = "best",
    segment_labels: bool | None = None,
    segment_label_ids_file: str | os.PathLike | None = None,
    segment_max_pred: int = 100_000,
) -> int:
    """Writes the Kaggle CSV of a trained run, that of 2018, or that of 2019 about segments.

    Args:
        folder: The run.
        input_data_pattern: Files to predict.
        output_file: The CSV.
        batch_size: Clips, or segments, at once.
        top_k: Predictions per clip (2018).
        checkpoint: `best` or `last`.
        segment_labels: Whether each window of 5 frames is predicted by itself (2019), instead of
            whole clips; None: as in training. A run of whole clips predicts segments too.
        segment_label_ids_file: The classes of the 2019 CSV, see `yt8m_gat.data.read_class_ids`;
            None: all of the model's.
        segment_max_pred: Most segments of a class in it. Memory: see `SegmentSubmissionWriter`.

    Returns:
        The number of videos.
    """
    config = RunConfig.load(folder.path)
    on_segments = _on_segments(config, segment_labels)
    if not on_segments and segment_label_ids_file is not None:
        raise ConfigError("--segment_label_ids_file is about segments: it needs --segment_labels")
    files = find_files(input_data_pattern, "input_data_pattern")
    schema = read_schema(folder, config)
    if on_segments:
        class_ids: Sequence[int] = range(config.data.num_classes)
        if segment_label_ids_file is not None:
            class_ids = read_class_ids(segment_label_ids_file, config.data.num_classes)
        with SegmentSubmissionWriter(output_file, class_ids, segment_max_pred) as segment_writer:
            classifier = load_classifier(folder, config, checkpoint)
            dataset = make_dataset(files, schema, batch_size, segments="windows")
            num_videos = count_records(files)
            for video_ids, start_times, probabilities in predict_segments(
                classifier, iterate(dataset, files), config.data.normalize, num_videos
            ):
                segment_writer.write(video_ids, start_times, probabilities)
        return num_videos
    with SubmissionWriter(output_file, top_k) as writer:
        classifier = load_classifier(folder, config, checkpoint)
        dataset = make_dataset(files, schema, batch_size, with_labels=False)
        num_videos = 0
        for video_ids, probabilities in predict(
            classifier, iterate(dataset, files), config.data.normalize, count_records(files)
        ):
            writer.write(video_ids, probabilities)
            num_videos += len(video_ids)
    return num_videos
