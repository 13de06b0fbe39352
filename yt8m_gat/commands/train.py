"""Trains a video classifier on YouTube-8M records: flags in, one run folder out.

python train.py --model=GAT --train_data_pattern='train*.tfrecord' \
    --eval_data_pattern='validate*.tfrecord' --train_dir=runs/gat
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from yt8m_gat import config as configs
from yt8m_gat.cli import (
    EXIT_INTERRUPTED,
    comma_separated,
    exit_interrupted,
    integers,
    quiet_tensorflow,
    reported_errors,
    this_command,
)
from yt8m_gat.commands import absl_flags
from yt8m_gat.data.label_space import LabelMap
from yt8m_gat.paths import input_path, output_path, read_paths, saved_model_path
from yt8m_gat.recipes import RECIPES
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.starter_flags import OPTIMIZERS, REPLACED, warn_of_replaced
from yt8m_gat.untrusted import excerpt, parse_json

# Flags whose name and type are those of a configuration's field; None keeps that field's default.
_INTEGER, _FLOAT, _BOOLEAN, _STRING = (
    flags.DEFINE_integer,
    flags.DEFINE_float,
    flags.DEFINE_boolean,
    flags.DEFINE_string,
)
_DATA = {
    "num_classes": (_INTEGER, "Size of the label space of the records."),
    "max_frames": (_INTEGER, "Longer clips are cut after this many frames."),
    "normalize": (_STRING, f"l2 normalization of the features: {configs.NORMALIZATIONS}."),
    "segment_labels": (_BOOLEAN, "Train on the rated segments of 2019 records, not whole clips."),
    "labels_key": (_STRING, "Name of the int64 list that holds a record's labels."),
    "labels_are": (
        _STRING,
        "indices or multi_hot: What that list holds, class indices or a 0 or 1 for each class "
        "(default: indices, and files that look otherwise, or hold no label, are refused).",
    ),
}
_MODEL = {
    "num_heads": (_INTEGER, "Attention heads per modality."),
    "global_attention": (_BOOLEAN, "Whether a global level stands before the local ones."),
    "attention": (_STRING, "learned, or uniform: the ablation with maps that cannot move."),
    "hidden_size": (_INTEGER, "Units of the classifier's hidden layer."),
    "feed_forward_size": (_INTEGER, "Width of the feed-forward layers (default: the feature's)."),
    "dropout": (_FLOAT, "Dropout rate."),
    "renormalize": (_BOOLEAN, "GateAtt: divide the gated map by its row sums."),
    "dual_normalization": (
        _BOOLEAN,
        "A second set of normalization layers for the adversarial pass (default: with temporal).",
    ),
    "iterations": (_INTEGER, "DbofModel: frames taken from each clip."),
    "sample_random_frames": (_BOOLEAN, "DbofModel: random frames, or as many in a row."),
    "dbof_add_batch_norm": (_BOOLEAN, "DbofModel: batch normalization."),
    "dbof_cluster_size": (_INTEGER, "DbofModel: number of clusters."),
    "dbof_hidden_size": (_INTEGER, "DbofModel: units of the hidden layer."),
    "dbof_pooling_method": (_STRING, "DbofModel: max or average."),
    "dbof_activation": (_STRING, "DbofModel: sigmoid, relu6, relu, elu or tanh."),
    "lstm_cells": (_INTEGER, "LstmModel: size of each layer's state."),
    "lstm_layers": (_INTEGER, "LstmModel: number of layers."),
    "moe_num_mixtures": (_INTEGER, "Experts per class of MoeModel, also as a head."),
    "video_level_classifier_model": (
        _STRING,
        "Head of DbofModel and LstmModel: MoeModel or LogisticModel.",
    ),
}
_OBJECTIVE = {
    "label_loss": (
        _STRING,
        f"Loss of the labels: {configs.LABEL_LOSSES}, or module:name, a function or class of your "
        "own.",
    ),
    "class_reduction": (_STRING, f"Its reduction over the classes: {configs.CLASS_REDUCTIONS}."),
    "adversarial": (
        _STRING,
        f"Training objective: {configs.ADVERSARIAL_OBJECTIVES}; default: the recipe's.",
    ),
    "epsilon": (_FLOAT, "Radius of the adversarial perturbation."),
    "norm_scope": (_STRING, f"What its l2 norm is taken over: {configs.NORM_SCOPES}."),
    "alpha": (
        _FLOAT,
        "Weight of the adversarial loss (default 1); temporal: of the clean one, at most 1 "
        "(default 0.7).",
    ),
    "beta": (_FLOAT, "Weight of the attention penalty (default 0.001, Jensen-Shannon 0.01)."),
    "temporal_loss": (_STRING, f"What TAF ascends: {configs.TEMPORAL_LOSSES}."),
    "temporal_epsilon": (_FLOAT, "TAF's radius, in quantization levels (4/255)."),
    "temporal_steps": (_INTEGER, "TAF's signed steps K."),
    "temporal_step_size": (_FLOAT, "TAF's step, in quantization levels (default: radius / K)."),
    "non_key_frames": (_INTEGER, "TAF's N, frames of least activation (default: all)."),
    "cam_gradient": (_STRING, f"Class activation from the gradient of: {configs.CAM_GRADIENTS}."),
    "temporal_examples": (_STRING, f"Clips that TAF perturbs: {configs.TEMPORAL_EXAMPLES}."),
    "regularization_penalty": (_FLOAT, "Weight of the layers' own l2 penalties."),
    "unrated_as_negative": (
        _BOOLEAN,
        "Segments: classes that were not rated count as not shown, as in the starter code.",
    ),
}
_PENALTIES = ("frobenius", "jensen_shannon")
_ATTACKED = ("output", *_PENALTIES)
_TEMPORAL = ("temporal",)
# Which values of --adversarial read a flag; what is not here is read by all.
_READ_BY = {
    "epsilon": _ATTACKED,
    "norm_scope": _ATTACKED,
    "alpha": (*_ATTACKED, *_TEMPORAL),
    "beta": _PENALTIES,
    "penalized_levels": _PENALTIES,
    "temporal_loss": _TEMPORAL,
    "temporal_epsilon": _TEMPORAL,
    "temporal_steps": _TEMPORAL,
    "temporal_step_size": _TEMPORAL,
    "non_key_frames": _TEMPORAL,
    "cam_gradient": _TEMPORAL,
    "temporal_examples": _TEMPORAL,
}
_TRAINING = {
    "batch_size": (_INTEGER, "Clips per step, on all devices together."),
    "optimizer": (_STRING, f"One of {configs.OPTIMIZERS}."),
    "base_learning_rate": (_FLOAT, "Learning rate of the first step."),
    "learning_rate_decay": (_FLOAT, "Factor on the rate, see the next flag."),
    "learning_rate_decay_examples": (_FLOAT, "Examples between two such decays."),
    "drop_factor": (_FLOAT, "Factor on the rate after each of --drop_epochs."),
    "finetune_from": (_STRING, "Start from the best weights of this run folder."),
    "clip_gradient_norm": (_FLOAT, "Largest norm of one variable's gradient; 0: no limit."),
    "num_epochs": (_INTEGER, "Passes over the training data."),
    "max_steps": (_INTEGER, "Stop after this many steps."),
    "eval_steps": (_INTEGER, "Steps between validations; a shorter epoch ends with one."),
    "checkpoint_steps": (_INTEGER, "Steps between checkpoints, besides those at validations."),
    "early_stopping_patience": (_INTEGER, "Validations without a better GAP before stopping."),
    "plateau_patience": (_INTEGER, "Validations without a better GAP before a lower rate."),
    "plateau_factor": (_FLOAT, "Factor on the rate then."),
    "shuffle_buffer": (_INTEGER, "Records in the shuffle buffer."),
    "num_readers": (_INTEGER, "Files read side by side."),
    "on_bad_record": (
        _STRING,
        "error or skip: Stop at a record that cannot be read, or leave it out and count it.",
    ),
    "max_bad_fraction": (
        _FLOAT,
        "With skip: stop when more of the records, or of their bytes, are bad.",
    ),
    "seed": (_INTEGER, "Fixes weights, order and every random choice."),
    "mixed_precision": (_STRING, "float32, mixed_bfloat16 or mixed_float16."),
    "jit_compile": (_BOOLEAN, "Compile the training step with XLA."),
    "micro_batch_size": (
        _INTEGER,
        "Most clips that pass through the model at once, for less memory; 0: the batch.",
    ),
    "on_nonfinite": (
        _STRING,
        "stop or skip: What a step does whose loss or gradients are not finite.",
    ),
    "distribute": (
        _STRING,
        "none, mirrored (the GPUs of this machine) or multi_worker (the machines in TF_CONFIG): "
        "What shares each batch.",
    ),
    "data_service": (_STRING, "grpc://host:port of a tf.data service that reads the records."),
}


PATHS = {
    "train_dir": output_path,
    "export_dir": saved_model_path,
    "label_map": input_path,
    "finetune_from": input_path,
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines every flag of this script on `values`."""

    def define(kind: Any, name: str, default: Any, text: str) -> None:
        kind(name, default, text, flag_values=values)

    define(
        _STRING,
        "train_dir",
        os.path.join(tempfile.gettempdir(), "yt8m_model"),
        "The run folder; a run that is there is resumed.",
    )
    define(_STRING, "train_data_pattern", "", "Training files: globs, separated by commas.")
    define(_STRING, "eval_data_pattern", "", "Validation files; without, nothing is validated.")
    define(_BOOLEAN, "start_new_model", False, "Start over, dropping the run in train_dir.")
    define(
        _BOOLEAN,
        "accept_new_data",
        False,
        "Resume with other files than before: in a fresh epoch, and with a best GAP of its own if "
        "they are for validation.",
    )
    define(_STRING, "export_dir", None, "Write a SavedModel of the best weights there at the end.")
    define(
        _STRING,
        "model",
        configs.ModelConfig().name,
        f"One of {', '.join(RECIPES)}; or module:Class, a VideoClassifier of your own, importable "
        "from the current folder (docs/EXTENDING.md).",
    )
    define(
        _STRING,
        "model_options",
        None,
        "Arguments of the model's constructor, as a JSON object: '{\"width\": 64}'.",
    )
    define(
        _STRING,
        "callbacks",
        None,
        "Functions that make Keras callbacks, module:function, separated by commas.",
    )
    define(
        _BOOLEAN,
        "trust_code",
        False,
        "Run the code that the run of --finetune_from names and this command does not.",
    )
    define(
        _STRING,
        "label_map",
        None,
        "CSV file of a label map (yt8m-gat label-space): learn its targets.",
    )
    define(_STRING, "feature_names", None, "Features to read, separated by commas.")
    define(_STRING, "feature_sizes", None, "Their sizes, separated by commas.")
    define(
        _STRING,
        "feature_types",
        None,
        "How the frames of all, or of each, are stored: uint8, float32 or float_list.",
    )
    define(_BOOLEAN, "frame_features", None, "Frame-level records (default: as the model needs).")
    define(
        _STRING,
        "local_masks",
        None,
        "Local attention levels, separated by commas: bd20, tp30, td60x4; global for another "
        "global expert.",
    )
    define(_STRING, "penalized_levels", None, "Levels in the attention penalty: NAME[:WEIGHT],...")
    define(_STRING, "drop_epochs", None, "Epochs after which the rate drops (fine-tuning: 10).")
    for section in (_DATA, _MODEL, _OBJECTIVE, _TRAINING):
        for name, (kind, text) in section.items():
            define(kind, name, None, text)
    define(_BOOLEAN, "log_device_placement", False, "Print the device of every operation.")
    for name, replacement in REPLACED["train.py"].items():
        define(_INTEGER, name, None, f"No effect: {replacement}")


def config_from_flags(values: flags.FlagValues) -> configs.RunConfig:
    """The run that the flags describe.

    Raises:
        ConfigError: A flag has a value that cannot work; the message names it.
    """

    def given(names: Any) -> dict[str, Any]:
        return {name: values[name].value for name in names if values[name].value is not None}

    recipe = configs.get_recipe(values.model)
    data = {**recipe.defaults_of(configs.DataConfig), **given(_DATA)}
    if values.label_map is not None:
        num_sources = data.get("num_classes", configs.DataConfig.num_classes)
        label_map = LabelMap.load(values.label_map, num_sources)
        data["num_source_classes"] = num_sources
        data["num_classes"] = label_map.num_targets
        data["label_map"] = label_map.fingerprint
    if values.feature_names is not None:
        data["feature_names"] = comma_separated(values.feature_names)
    if values.feature_sizes is not None:
        data["feature_sizes"] = integers("feature_sizes", values.feature_sizes)
    if values.feature_types is not None:
        data["feature_types"] = comma_separated(values.feature_types)
    frame_features = values.frame_features
    if frame_features is None:
        frame_features = recipe.frame_level is not False
    data["frame_features"] = frame_features
    options = given(_MODEL)
    if values.local_masks is not None:
        options["local_masks"] = comma_separated(values.local_masks)
    if values.model_options is not None:
        options = _with_model_options(options, values.model_options)
    objective = {
        "adversarial": recipe.adversarial,
        **recipe.defaults_of(configs.ObjectiveConfig),
        **given(_OBJECTIVE),
    }
    if values.penalized_levels is not None:
        objective["penalized_levels"] = comma_separated(values.penalized_levels)
    _refuse_unused(values, objective["adversarial"], {**recipe.options, **options})
    if recipe.dual_normalization and objective["adversarial"] == "temporal":
        options.setdefault("dual_normalization", True)
    # TAF section 4.1: 15 epochs, a tenth of the rate after 10.
    finetuning = {"num_epochs": 15, "drop_epochs": (10,)} if values.finetune_from else {}
    training = {
        **recipe.defaults_of(configs.TrainingConfig),
        **finetuning,
        **given(_TRAINING),
    }
    if values.drop_epochs is not None:
        training["drop_epochs"] = integers("drop_epochs", values.drop_epochs)
    if values.callbacks is not None:
        training["callbacks"] = comma_separated(values.callbacks)
    if "optimizer" in training:
        training["optimizer"] = OPTIMIZERS.get(training["optimizer"], training["optimizer"])
    return configs.RunConfig(
        data=configs.DataConfig(**data),
        model=configs.ModelConfig(name=values.model, options=options),
        objective=configs.ObjectiveConfig(**objective),
        training=configs.TrainingConfig(**training),
    )


def _with_model_options(options: dict[str, Any], text: str) -> dict[str, Any]:
    """The options that flags of their own gave, and those of `--model_options`."""
    try:
        more = parse_json(text)
    except ValueError as error:
        raise configs.ConfigError(f"--model_options must be JSON: {error}") from error
    if not isinstance(more, dict):
        raise configs.ConfigError(
            """--model_options must be a JSON object, as in '{"width": 64}'. """
            f"Received: {excerpt(more)}"
        )
    twice = sorted(options.keys() & more.keys())
    if twice:
        raise configs.ConfigError(
            f"--{twice[0]} stands in --model_options too. Leave one of the two out"
        )
    return {**options, **more}


def _refuse_unused(values: flags.FlagValues, adversarial: str, options: dict[str, Any]) -> None:
    """Refuses flags that were given and that this run would not read."""
    for name, readers in _READ_BY.items():
        if values[name].value is not None and adversarial not in readers:
            raise configs.ConfigError(
                f"--{name} has no effect with --adversarial={adversarial}: it is for "
                f"{', '.join(readers)}. Leave it out, or choose one of these"
            )
    if values.renormalize is not None and options.get("fusion") != "maps":
        raise configs.ConfigError(
            f"--renormalize has no effect with --model={values.model}: it is for GateAtt"
        )


def main(argv: Sequence[str]) -> None:
    """Trains, resuming the run in `--train_dir` if there is one."""
    values = absl_flags.parse(define_flags, argv, __doc__)
    with reported_errors():
        warn_of_replaced("train.py", values.flag_values_dict())
        read_paths(values, PATHS)
        config = config_from_flags(values)
        folder = RunFolder(values.train_dir)
        # Several workers find out first which of them writes: `pipeline.train` does the same.
        alone = config.training.distribute != "multi_worker"
        with folder.only_writer() if alone else contextlib.nullcontext():
            if not values.start_new_model:
                folder.check(config)  # Before TensorFlow is imported.
            _train(values, folder, config)


def _train(values: flags.FlagValues, folder: RunFolder, config: configs.RunConfig) -> None:
    with quiet_tensorflow():
        import tensorflow as tf

        from yt8m_gat import pipeline

    tf.debugging.set_log_device_placement(values.log_device_placement)
    with pipeline.reported_errors():
        try:
            state = pipeline.train(
                folder,
                config,
                train_data_pattern=values.train_data_pattern,
                eval_data_pattern=values.eval_data_pattern,
                export_dir=values.export_dir,
                start_new_model=values.start_new_model,
                accept_new_data=values.accept_new_data,
                label_map=values.label_map,
                trust_code=values.trust_code,
            )
        except KeyboardInterrupt:
            exit_interrupted(folder.checkpoints, "checkpoints")
    if state.finished(config.training) is None:
        # Not --start_new_model: that would drop what is to go on.
        print(f"go on with: {this_command('start_new_model')}")
        sys.exit(EXIT_INTERRUPTED)
