"""Trains a video classifier on YouTube-8M records: flags in, one run folder out.

yt8m-gat train --model=GAT --train_data_pattern='train*.tfrecord' \\
    --eval_data_pattern='validate*.tfrecord' --train_dir=runs/gat
"""

import ast
import contextlib
import functools
import importlib.resources
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from yt8m_gat import config as configs
from yt8m_gat.cli import (
    EXIT_INTERRUPTED,
    comma_separated,
    exit_interrupted,
    quiet_tensorflow,
    reported_errors,
    this_command,
)
from yt8m_gat.commands import absl_flags
from yt8m_gat.commands.flag_table import (
    DEFAULT_RUN,
    Flag,
    Sections,
    all_flags,
    define,
    field,
    given,
    path_readers,
    without_effect,
)
from yt8m_gat.config import ClipConfig, DataConfig, ModelConfig, ObjectiveConfig, TrainingConfig
from yt8m_gat.data.label_space import LabelMap
from yt8m_gat.interrupt import command_name
from yt8m_gat.paths import input_path, output_path, read_paths, saved_model_path
from yt8m_gat.recipes import RECIPES
from yt8m_gat.run_folder import RunFolder, with_teacher_digests
from yt8m_gat.starter_flags import OPTIMIZERS, warn_of_replaced
from yt8m_gat.untrusted import excerpt, parse_json

_data = functools.partial(field, DataConfig)
_clips = functools.partial(field, ClipConfig)
_objective = functools.partial(field, ObjectiveConfig)
_training = functools.partial(field, TrainingConfig)
# Options of the model's constructor, whose signature has their defaults.
_option = functools.partial(Flag, config=ModelConfig)


def _backbone_path(flag: str, value: str) -> str:
    # Evaluation reads the file too, maybe in another folder.
    return os.path.abspath(input_path(flag, value)) if value.endswith(".keras") else value


def _run_paths(flag: str, value: str) -> str:
    return ",".join(input_path(flag, path) for path in comma_separated(value))


def _weights_path(flag: str, value: str) -> str:
    return value if value == "imagenet" else input_path(flag, value)


SECTIONS: Sections = {
    "Run": (
        Flag(
            "train_dir",
            "The run folder; a run that it holds is continued.",
            default=DEFAULT_RUN,
            path=output_path,
        ),
        Flag("train_data_pattern", "Training files: globs, separated by commas.", default=""),
        Flag(
            "eval_data_pattern", "Validation files; without them nothing is validated.", default=""
        ),
        Flag("start_new_model", "Start over and drop the run in --train_dir.", bool, False),
        Flag(
            "accept_new_data",
            "Continue with other files than before. New training files begin an epoch; with new "
            "validation files the best GAP is looked for again.",
            bool,
            False,
        ),
        _training("finetune_from", "Start from the best weights of this run.", path=input_path),
        Flag(
            "export_dir",
            "Write the best weights there as a SavedModel at the end.",
            path=saved_model_path,
        ),
        _training("callbacks", "Functions that make Keras callbacks: module:function,..."),
        Flag(
            "trust_code",
            "Run the code that the run of --finetune_from names and this command does not.",
            bool,
            False,
        ),
    ),
    "Records": (
        _data("feature_names", "Features that are read from each record."),
        _data("feature_sizes", "Their sizes, as many as names."),
        _data(
            "feature_types",
            "How the frames of all features, or of each, are stored.",
            choices=configs.FEATURE_TYPES,
            unset="uint8",
        ),
        Flag(
            "frame_features",
            "Whether records are frame-level ones.",
            bool,
            unset="as the model needs",
            config=DataConfig,
        ),
        _data("segment_labels", "Train on the rated segments of 2019 records, not on whole clips."),
        _data("num_classes", "Size of the records' label space."),
        _data("labels_key", "Name of the int64 list that holds a record's labels."),
        _data(
            "labels_are",
            "Whether that list holds class indices, or a 0 or 1 for each class.",
            choices=configs.LABEL_FORMS,
            unset="indices; files that look otherwise, or hold no label, are refused",
        ),
        Flag(
            "label_map",
            "Learn the targets of this label map, a CSV file (yt8m-gat label-space).",
            path=input_path,
        ),
        _data("max_frames", "Clips are cut after this many frames."),
        _data("normalize", "l2 normalization of the features.", choices=configs.NORMALIZATIONS),
        _training(
            "mixup_alpha",
            "Training mixes pairs of clips of features, with weights from Beta(alpha, alpha); 0: "
            "no mixing.",
        ),
        _training(
            "frame_dropout", "Training leaves out each frame of features with this probability."
        ),
        _training(
            "feature_dropout",
            "Training takes a feature from each clip with this probability, NAME:PROBABILITY,...",
        ),
        _training(
            "temporal_crop",
            "Training keeps a stretch of each clip of features, at least this share of it.",
        ),
        _training(
            "frame_noise",
            "Training adds normal noise of this standard deviation to the features, as eval.py "
            "--certify does.",
        ),
        _training("shuffle_buffer", "Records in the shuffle buffer."),
        _training("num_readers", "Files that are read in parallel."),
        _training(
            "on_bad_record",
            "What happens at a record that cannot be read: stop, or leave it out and count it.",
            choices=configs.ON_BAD_RECORD,
        ),
        _training(
            "max_bad_fraction",
            "With skip: stop when a larger share of the records, or of their bytes, is bad.",
        ),
        _training("data_service", "grpc://host:port of a tf.data service that reads the records."),
    ),
    "Clips": (
        _clips("num_segments", "T, the frames that are taken from each raw clip."),
        _clips("crop_size", "S: the model sees squares of S x S pixels."),
        _clips(
            "short_side",
            "Evaluation takes the square in the center of a frame whose short side is this.",
            unset="8 / 7 of --crop_size",
        ),
        _clips(
            "sampling",
            "One frame of each of T equal parts of the clip, or T frames at a stride.",
            choices=configs.FRAME_SAMPLINGS,
        ),
        _clips("dense_stride", "With dense: frames from one of the T to the next."),
        _clips(
            "crop_scales",
            "Training cuts out rectangles whose sides are these shares of the short side.",
        ),
        _clips("flip", "Training mirrors half of the clips."),
        _clips("flip_pairs", "With --flip: classes that mirroring exchanges, LEFT:RIGHT,..."),
        _clips(
            "augmentation",
            "Training also mixes clips of a batch by one of the first four, and changes their "
            "colors and geometry by the last.",
            choices=configs.AUGMENTATIONS,
        ),
    ),
    "Model": (
        Flag(
            "model",
            "The recipe, or module:Class for a VideoClassifier of your own, importable from the "
            "current folder (docs/EXTENDING.md).",
            default=ModelConfig.name,
            choices=tuple(RECIPES),
            config=ModelConfig,
        ),
        Flag(
            "model_options",
            "Arguments of the model's constructor, as a JSON object: '{\"width\": 64}'.",
        ),
        _option("num_heads", "Attention heads per modality.", int),
        _option("global_attention", "Whether the first attention level is global.", bool),
        _option(
            "local_masks",
            "Local attention levels: bd20 (blocks), tp30 (window), td60x4 (dilated window); global "
            "adds a global level.",
            tuple[str, ...],
        ),
        _option(
            "attention",
            "Learned attention maps, or uniform ones, which no attack can move.",
            choices=("learned", "uniform"),
        ),
        _option("num_layers", "Transformer blocks per modality, one after another.", int),
        _option("pre_norm", "Normalize before attention and feed-forward, not after.", bool),
        _option(
            "cross_modal",
            "Transformers: each feature's frames then attend to those of the others.",
            bool,
        ),
        _option("hidden_size", "Units of the classifier's hidden layer.", int),
        _option(
            "feed_forward_size",
            "Width of the feed-forward layers.",
            int,
            unset="the feature's size",
        ),
        _option("dropout", "Dropout rate.", float),
        _option("renormalize", "GateAtt: divide the gated map by its row sums.", bool),
        _option(
            "dual_normalization",
            "A second set of normalization layers for the adversarial pass; on with "
            "--adversarial=temporal.",
            bool,
        ),
        _option(
            "backbone",
            "Raw clips: ResNet50 or another residual network of keras.applications, ResNet10Small, "
            "ResNet18, ResNet34, ResNet50Torchvision, or a file FILE.keras of a network on pixels.",
            path=_backbone_path,
        ),
        _option(
            "backbone_weights",
            "Raw clips: a file of the backbone's pretrained weights without its top layer, or "
            "imagenet to download them.",
            path=_weights_path,
        ),
        _option(
            "temporal_module",
            "Raw clips: what lets frames see each other, the module of TSM, TAM, GST or GST-Large.",
            choices=("none", "shift", "aggregation", "group", "group_large"),
        ),
        _option("temporal_pyramid", "Raw clips: TPN's pyramid on the backbone.", bool),
        _option("weight_decay", "Raw clips: weight decay of all kernels.", float),
        _option(
            "single_label",
            "Raw clips: probabilities are a softmax, not sigmoids; off with another --label_loss "
            "than SoftmaxLoss.",
            bool,
        ),
        _option("iterations", "DbofModel: frames that are taken from each clip.", int),
        _option(
            "sample_random_frames", "DbofModel: random frames instead of consecutive ones.", bool
        ),
        _option("dbof_add_batch_norm", "DbofModel: batch normalization.", bool),
        _option("dbof_cluster_size", "DbofModel: number of clusters.", int),
        _option("dbof_hidden_size", "DbofModel: units of the hidden layer.", int),
        _option("dbof_pooling_method", "DbofModel: pooling.", choices=("max", "average")),
        _option(
            "dbof_activation",
            "DbofModel: activation.",
            choices=("sigmoid", "relu6", "relu", "elu", "tanh"),
        ),
        _option("lstm_cells", "LstmModel: size of each layer's state.", int),
        _option("lstm_layers", "LstmModel: number of layers.", int),
        _option("gru_cells", "AttentionGru: size of the state of each direction.", int),
        _option("gru_layers", "AttentionGru: number of bidirectional layers.", int),
        _option(
            "pooling",
            "NetVLAD and GatedSoftDbof: how frames are pooled.",
            choices=("vlad", "soft_bag"),
        ),
        _option(
            "cluster_size",
            "NetVLAD, GatedSoftDbof and NeXtVLAD: clusters of the first feature.",
            int,
        ),
        _option(
            "moe_prob_gating",
            "NetVLAD and GatedSoftDbof: context gating of the probabilities too.",
            bool,
        ),
        _option("expansion", "NeXtVLAD: factor by which features are expanded.", int),
        _option("groups", "NeXtVLAD: groups of the first feature.", int),
        _option(
            "gating_reduction", "NeXtVLAD: units of the hidden layer for each one in its gate.", int
        ),
        _option("moe_num_mixtures", "MoeModel, also as a head: experts per class.", int),
        _option(
            "video_level_classifier_model",
            "DbofModel, LstmModel, AttentionGru and NeXtVLAD: the head.",
            choices=("MoeModel", "LogisticModel"),
        ),
    ),
    "Objective": (
        _objective(
            "label_loss",
            "Loss of the labels, or module:name for a function or class of your own.",
            choices=configs.LABEL_LOSSES,
        ),
        Flag(
            "label_loss_options",
            "Arguments of that loss, as a JSON object: '{\"label_smoothing\": 0.1}' for "
            "CrossEntropyLoss and SoftmaxLoss, gamma and alpha for FocalLoss, positive_gamma, "
            "negative_gamma and margin for AsymmetricLoss.",
        ),
        _objective(
            "class_reduction",
            "Reduction of that loss over the classes.",
            choices=configs.CLASS_REDUCTIONS,
        ),
        _objective("adversarial", "Adversarial objective.", choices=configs.ADVERSARIAL_OBJECTIVES),
        _objective("epsilon", "Radius of the adversarial perturbation."),
        _objective("norm_scope", "What its l2 norm is taken over.", choices=configs.NORM_SCOPES),
        _objective(
            "alpha",
            "Weight of the adversarial loss; with temporal, that of the clean loss, at most 1.",
            unset="1; temporal: 0.7",
        ),
        _objective(
            "clean_weight",
            "Weight of the loss on clean clips.",
            unset="1; pgd, fast: 0",
        ),
        _objective(
            "beta",
            "Weight of the penalty on maps or embeddings, or of the divergence of trades.",
            unset="0.001; jensen_shannon: 0.01; embedding: 0.1; trades: 6",
        ),
        _objective(
            "adversarial_steps",
            "K, the steps in which pgd and trades look for R.",
            unset="7; trades: 10",
        ),
        _objective(
            "adversarial_step_size",
            "Their length, in the units of --epsilon.",
            unset="2.5 * epsilon / K; fast: 1.25 * epsilon",
        ),
        _objective("penalized_levels", "Levels in the attention penalty: NAME or NAME:WEIGHT."),
        _objective("temporal_loss", "What TAF ascends.", choices=configs.TEMPORAL_LOSSES),
        _objective(
            "temporal_epsilon",
            "TAF's radius, in quantization levels: 4/255 of a feature, 1/255 of a pixel.",
        ),
        _objective("temporal_steps", "TAF's signed steps K."),
        _objective(
            "temporal_step_size",
            "TAF's step, in quantization levels.",
            unset="radius / K; raw clips: 2 for a radius of 6, 32 for 64",
        ),
        _objective(
            "non_key_frames", "TAF's N, the number of frames of least activation.", unset="all"
        ),
        _objective(
            "cam_gradient",
            "What TAF's class activation is the gradient of.",
            choices=configs.CAM_GRADIENTS,
        ),
        _objective(
            "cam_normalization",
            "What the class activation is divided by, over the frames of a clip.",
            choices=configs.CAM_NORMALIZATIONS,
        ),
        _objective(
            "temporal_examples",
            "Clips that TAF perturbs, by how they are classified.",
            choices=configs.TEMPORAL_EXAMPLES,
        ),
        _objective(
            "class_weights",
            "Weight of each class in that loss by its number n of training clips, with mean 1: "
            "1 / n, or (1 - b) / (1 - b^n).",
            choices=configs.CLASS_WEIGHTS,
        ),
        _objective("class_weights_beta", "b of --class_weights=effective."),
        _objective(
            "teacher",
            "Distill these runs: their probabilities on the clean clips count beside the labels.",
            path=_run_paths,
        ),
        _objective("teacher_temperature", "Divides the logits of teachers and student there."),
        _objective(
            "teacher_weight", "Weight of the teachers' part of the loss; 1 - it of the labels'."
        ),
        _objective("regularization_penalty", "Weight of the layers' own l2 penalties."),
        _objective(
            "unrated_as_negative",
            "Segments: classes that were not rated count as not shown, as in the starter code.",
        ),
    ),
    "Optimization": (
        _training("batch_size", "Clips per step, on all devices together."),
        _training(
            "micro_batch_size",
            "Most clips that pass through the model at once, which saves memory; 0 means the "
            "whole batch.",
        ),
        _training("optimizer", "The optimizer.", choices=configs.OPTIMIZERS),
        _training("momentum", "Momentum of SGD."),
        _training(
            "ema_momentum",
            "Momentum of a moving average of the weights, which is validated beside the raw ones, "
            "kept as the best weights and exported; 0 means no average.",
        ),
        _training(
            "base_learning_rate",
            "Learning rate of the first step; with --finetune_from that at which the run ended.",
        ),
        _training(
            "learning_rate_schedule",
            "How the rate falls; cosine needs --max_steps, at which it is 0, and replaces the "
            "defaults of decay, drops and plateaus.",
            choices=configs.LEARNING_RATE_SCHEDULES,
        ),
        _training("warmup_steps", "Steps over which the rate rises to that of the schedule."),
        _training(
            "learning_rate_decay",
            "Factor on the rate after each --learning_rate_decay_examples; 1 means no decay.",
        ),
        _training("learning_rate_decay_examples", "Examples between two such decays."),
        _training(
            "drop_epochs", "Epochs after which the rate drops.", unset="10 with --finetune_from"
        ),
        _training("drop_factor", "Factor on the rate after each of --drop_epochs."),
        _training(
            "clip_gradient_norm", "Largest norm of one variable's gradient; 0 means no limit."
        ),
        _training("clip_global_norm", "Largest norm of all gradients together; 0 means no limit."),
        _training("num_epochs", "Passes over the training data; 15 with --finetune_from."),
        _training("max_steps", "Stop after this many steps."),
        _training("eval_steps", "Steps between validations; a shorter epoch ends with one."),
        _training(
            "watch_overfitting",
            "In adversarial training, validate a batch also under a single step and under PGD, and "
            "warn when only PGD breaks the model.",
        ),
        _training("checkpoint_steps", "Steps between checkpoints; a validation writes one too."),
        _training(
            "early_stopping_patience",
            "Stop after this many validations without a better GAP; 0 means never.",
        ),
        _training(
            "plateau_patience",
            "Lower the rate after this many validations without a better GAP; 0 means never.",
        ),
        _training("plateau_factor", "Factor on the rate then."),
        _training(
            "on_nonfinite",
            "What a step does whose loss or gradients are not finite.",
            choices=configs.ON_NONFINITE,
        ),
    ),
    "Machine": (
        _training("seed", "Fixes the weights, the order of the data and every random choice."),
        _training(
            "mixed_precision",
            "Precision of the computation.",
            choices=configs.PRECISIONS,
        ),
        _training("jit_compile", "Compile the training step with XLA."),
        _training(
            "distribute",
            "Devices that share each batch: one, the GPUs of this machine, or the machines in "
            "TF_CONFIG.",
            choices=configs.DISTRIBUTIONS,
        ),
        Flag("log_device_placement", "Print the device of every operation.", bool, False),
    ),
    "Flags of the starter code that have no effect here": without_effect("train.py"),
}
PATHS = path_readers(SECTIONS)
OF_RUN = frozenset(
    flag.name
    for flag in all_flags(SECTIONS)
    if flag.config in (DataConfig, ClipConfig, ModelConfig)
)
"""Flags whose values are stored in the run folder, where evaluation and inference read them."""


def define_flags(values: flags.FlagValues) -> None:
    """Defines every flag of this command on `values`."""
    define(SECTIONS, values)


def config_from_flags(values: flags.FlagValues) -> configs.RunConfig:
    """Returns the configuration of the run that the flags describe.

    Raises:
        ConfigError: A flag has an invalid value; the message names it.
    """

    def given_for(config: type) -> dict[str, Any]:
        return given(values, (flag for flag in all_flags(SECTIONS) if flag.config is config))

    options = given_for(ModelConfig)
    name = options.pop("model", ModelConfig.name)
    recipe = configs.get_recipe(name)
    data = {
        "frame_features": recipe.frame_level is not False,
        **_clip_settings(name, recipe, given_for(ClipConfig)),
        **recipe.defaults_of(DataConfig),
        **given_for(DataConfig),
    }
    if values.label_map is not None:
        num_sources = data.get("num_classes", DataConfig.num_classes)
        label_map = LabelMap.load(values.label_map, num_sources)
        data["num_source_classes"] = num_sources
        data["num_classes"] = label_map.num_targets
        data["label_map"] = label_map.fingerprint
    if values.model_options is not None:
        options = _with_model_options(options, values.model_options)
    objective = {
        "adversarial": recipe.adversarial,
        **recipe.defaults_of(ObjectiveConfig),
        **given_for(ObjectiveConfig),
    }
    if values.label_loss_options is not None:
        objective["label_loss_options"] = _json_object(
            "label_loss_options", values.label_loss_options, '{"label_smoothing": 0.1}'
        )
    _refuse_unused(values, name, objective["adversarial"], {**recipe.options, **options})
    if recipe.dual_normalization and objective["adversarial"] == "temporal":
        options.setdefault("dual_normalization", True)
    if recipe.clips and objective.get("label_loss") != "SoftmaxLoss":
        options.setdefault("single_label", False)
    # TAF section 4.1: 15 epochs, with a tenth of the rate after 10.
    finetuning: dict[str, Any] = {}
    if values.finetune_from:
        finetuning = {"num_epochs": 15, "drop_epochs": (10,)}
        # "The initial training settings are the same as the status when the pre-trained models
        # are logged."
        rate = RunFolder(values.finetune_from).last_learning_rate()
        if rate is not None:
            finetuning["base_learning_rate"] = rate
    training_flags = given_for(TrainingConfig)
    falling: dict[str, Any] = {}
    if training_flags.get("learning_rate_schedule") == "cosine":
        falling = {"learning_rate_decay": 1.0, "drop_epochs": (), "plateau_patience": 0}
    training = {
        **recipe.defaults_of(TrainingConfig),
        **finetuning,
        **falling,
        **training_flags,
    }
    if "optimizer" in training:
        training["optimizer"] = OPTIMIZERS.get(training["optimizer"], training["optimizer"])
        if training["optimizer"] != "SGD" and values["momentum"].value is None:
            training.pop("momentum", None)  # A recipe's, for its own optimizer.
    return configs.RunConfig(
        data=DataConfig(**data),
        model=ModelConfig(name=name, options=options),
        objective=ObjectiveConfig(**objective),
        training=TrainingConfig(**training),
    )


def _clip_settings(
    model: str, recipe: configs.Recipe, clip_flags: dict[str, Any]
) -> dict[str, Any]:
    """Returns the data settings of a model of raw clips; none for one of features.

    Models of the user's own read raw clips if a flag about these is given.
    """
    if not recipe.clips and not configs.is_import_path(model):
        if clip_flags:
            readers = [name for name, other in RECIPES.items() if other.clips]
            raise configs.ConfigError(
                f"--{next(iter(clip_flags))} has no effect with --model={model}, which reads "
                f"features: it is for models of raw clips ({', '.join((*readers, 'module:Class'))})"
            )
        return {}
    if not recipe.clips and not clip_flags:
        return {}
    clips = ClipConfig(**clip_flags)
    return {
        "feature_names": (configs.CLIP_FEATURE,),
        "feature_sizes": (3,),
        "max_frames": clips.num_segments,
        "labels_key": configs.CLIP_LABELS_KEY,
        "clips": clips,
    }


_PENALTIES = ("frobenius", "jensen_shannon")
_ASCENTS = ("pgd", "trades", "fast")
_ATTACKED = ("output", *_PENALTIES, "embedding", *_ASCENTS)
_WEIGHED = tuple(name for name in _ATTACKED if name != "trades")
_TEMPORAL = ("temporal",)
# Flag -> values of --adversarial that read it; all values read the other flags.
_READ_BY = {
    "epsilon": _ATTACKED,
    "norm_scope": _ATTACKED,
    "alpha": (*_WEIGHED, *_TEMPORAL),
    "clean_weight": _WEIGHED,
    "beta": (*_PENALTIES, "embedding", "trades"),
    "adversarial_steps": ("pgd", "trades"),
    "adversarial_step_size": _ASCENTS,
    "penalized_levels": _PENALTIES,
    "temporal_loss": _TEMPORAL,
    "temporal_epsilon": _TEMPORAL,
    "temporal_steps": _TEMPORAL,
    "temporal_step_size": _TEMPORAL,
    "non_key_frames": _TEMPORAL,
    "cam_gradient": _TEMPORAL,
    "cam_normalization": _TEMPORAL,
    "temporal_examples": _TEMPORAL,
}


def _json_object(flag: str, text: str, example: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise configs.ConfigError(f"--{flag} must be JSON: {error}") from error
    if not isinstance(value, dict):
        raise configs.ConfigError(
            f"--{flag} must be a JSON object, as in '{example}'. Received: {excerpt(value)}"
        )
    return value


def _with_model_options(options: dict[str, Any], text: str) -> dict[str, Any]:
    """Merges the options from single flags with those of `--model_options`."""
    more = _json_object("model_options", text, '{"width": 64}')
    twice = sorted(options.keys() & more.keys())
    if twice:
        raise configs.ConfigError(
            f"--{twice[0]} stands in --model_options too. Leave one of the two out"
        )
    return {**options, **more}


def _refuse_unused(
    values: flags.FlagValues, model: str, adversarial: str, options: dict[str, Any]
) -> None:
    """Refuses flags on the command line that this run would not read."""
    for name, readers in _READ_BY.items():
        if values[name].value is not None and adversarial not in readers:
            raise configs.ConfigError(
                f"--{name} has no effect with --adversarial={adversarial}: it is for "
                f"{', '.join(readers)}. Leave it out, or choose one of these"
            )
    if values.renormalize is not None and options.get("fusion") != "maps":
        raise configs.ConfigError(
            f"--renormalize has no effect with --model={model}: it is for GateAtt"
        )


def builder_defaults(family: str) -> dict[str, Any]:
    """Reads the defaults of a family's options from its source, so that Keras is not imported.

    Args:
        family: See `Recipe.family`; its class is in the module of this name.
    """
    source = importlib.resources.files("yt8m_gat") / "models" / f"{family}.py"
    if not source.is_file():
        return {}  # The model is a class of the user's own.
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names = [argument.arg for argument in node.args.args]
            if "feature_sizes" in names:
                values = [ast.literal_eval(default) for default in node.args.defaults]
                return dict(zip(names[len(names) - len(values) :], values, strict=True))
    return {}


def defaults_of_recipe(values: flags.FlagValues) -> tuple[str, Callable[[Flag], str]]:
    """Returns a sentence and a function that describe the defaults of `--model`; see `Defaults`."""
    only_model = flags.FlagValues()
    define_flags(only_model)
    only_model(["", *([f"--model={values.model}"] if values.model else [])])
    config = config_from_flags(only_model)
    recipe = configs.get_recipe(config.model.name)
    options = {**builder_defaults(recipe.family), **recipe.options, **config.model.options}
    sections = {
        DataConfig: config.data,
        ObjectiveConfig: config.objective,
        TrainingConfig: config.training,
        ClipConfig: config.data.clips,
    }

    def default(flag: Flag) -> str:
        if flag.name == "model":
            value = config.model.name
        elif flag.config is ModelConfig:
            if flag.name not in options:
                return f"{config.model.name} has no such option"
            value = options[flag.name]
        elif sections.get(flag.config, flag) is None:
            return f"{config.model.name} reads features"
        elif flag.config is None:
            value = flag.default
        else:
            value = getattr(sections[flag.config], flag.name)
        return absl_flags.default_remark(flag, value)

    whose = (
        f"Defaults are those of --model={config.model.name}; --help --model=NAME shows those of "
        "another recipe."
    )
    return whose, default


def main(argv: Sequence[str]) -> None:
    """Trains, resuming the run in `--train_dir` if there is one."""
    values = absl_flags.parse(SECTIONS, argv, __doc__, defaults_of_recipe)
    with reported_errors():
        warn_of_replaced("train.py", values.flag_values_dict(), command_name())
        read_paths(values, PATHS)
        config = with_teacher_digests(config_from_flags(values))
        folder = RunFolder(values.train_dir)
        # With several workers, `pipeline.train` locks the folder once it knows which one writes.
        single_process = config.training.distribute != "multi_worker"
        with folder.only_writer() if single_process else contextlib.nullcontext():
            if not values.start_new_model:
                folder.check(config)  # Checked before the slow import of TensorFlow.
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
    if state.interrupted:
        # Without --start_new_model, which would drop the run that is to be resumed.
        print(f"go on with: {this_command('start_new_model')}")
        sys.exit(EXIT_INTERRUPTED)
