"""Suggestions for mistyped names.

Standard library only: a wrong flag is answered before anything large is imported.
"""

import difflib
from collections.abc import Iterable

# A flag as other programs call it -> ours; the first one that the command has is suggested.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "lr": ("base_learning_rate",),
    "learning_rate": ("base_learning_rate",),
    "lr_decay": ("learning_rate_decay",),
    "epochs": ("num_epochs",),
    "epoch": ("num_epochs",),
    "steps": ("max_steps", "attack_steps"),
    "iters": ("max_steps",),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "output": ("output_file", "output_dir", "train_dir"),
    "out": ("output_file", "output_dir", "output", "train_dir"),
    "output_dir": ("train_dir", "output_file", "output"),
    "output_path": ("output_file", "output_dir", "train_dir"),
    "model_dir": ("train_dir",),
    "run_dir": ("train_dir",),
    "log_dir": ("train_dir",),
    "logdir": ("train_dir",),
    "checkpoint_dir": ("train_dir",),
    "checkpoint_path": ("train_dir", "checkpoint"),
    "ckpt": ("checkpoint", "finetune_from"),
    "data": ("train_data_pattern", "eval_data_pattern", "input_data_pattern"),
    "data_pattern": ("train_data_pattern", "eval_data_pattern", "input_data_pattern"),
    "data_dir": ("train_data_pattern", "eval_data_pattern", "input_data_pattern"),
    "train_data": ("train_data_pattern",),
    "train_files": ("train_data_pattern",),
    "input": ("input_data_pattern", "eval_data_pattern", "train_data_pattern"),
    "val_data": ("eval_data_pattern",),
    "validation_data": ("eval_data_pattern",),
    "test_data": ("input_data_pattern", "eval_data_pattern"),
    "eval_every": ("eval_steps",),
    "save_steps": ("checkpoint_steps",),
    "save_every": ("checkpoint_steps",),
    "patience": ("early_stopping_patience",),
    "warm_start": ("finetune_from",),
    "init_from": ("finetune_from",),
    "pretrained": ("finetune_from",),
    "overwrite": ("start_new_model", "start_over"),
    "restart": ("start_new_model", "start_over"),
    "arch": ("model",),
    "architecture": ("model",),
    "heads": ("num_heads",),
    "window": ("local_masks",),
    "classes": ("num_classes",),
    "frames": ("max_frames",),
    "loss": ("label_loss",),
    "objective": ("adversarial",),
    "eps": ("epsilon", "epsilons"),
    "epsilon": ("epsilons",),
    "epsilons": ("epsilon",),
    "norm": ("norm_scope", "normalize"),
    "attack": ("attacks",),
    "restarts": ("attack_restarts",),
    "queries": ("attack_queries",),
    "grad_clip": ("clip_gradient_norm",),
    "clipnorm": ("clip_gradient_norm",),
    "l2": ("regularization_penalty",),
    "gpus": ("distribute",),
    "num_gpus": ("distribute",),
    "strategy": ("distribute",),
    "workers": ("num_workers", "num_readers"),
    "num_workers": ("num_readers",),
    "amp": ("mixed_precision",),
    "fp16": ("mixed_precision",),
    "precision": ("mixed_precision",),
    "xla": ("jit_compile",),
    "accumulation_steps": ("micro_batch_size",),
    "gradient_accumulation": ("micro_batch_size",),
    "random_seed": ("seed",),
    "labels": ("label_names", "labels_key"),
    "names": ("label_names",),
    "limit": ("max_videos",),
    "num_videos": ("max_videos",),
    "follow": ("run_once",),
    "k": ("top_k",),
    "topk": ("top_k",),
}


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """Returns the name that was probably meant, or None.

    Args:
        name: The name as written, without leading dashes.
        known: The names that exist.
    """
    known = sorted(known)
    spelled = name.strip().lower().replace("-", "_")
    if spelled in known:
        return spelled
    for meant in SYNONYMS.get(spelled, ()):
        if meant in known:
            return meant
    # "no" before the name of a boolean flag means false.
    for candidate in (spelled, spelled.removeprefix("no")):
        if close := difflib.get_close_matches(candidate, known, n=1, cutoff=0.6):
            return close[0]
    return None


def unknown_flag(name: str, known: Iterable[str]) -> str:
    """Returns the line that answers a flag that does not exist.

    Args:
        name: The flag, without dashes.
        known: The flags of the command, without dashes.
    """
    meant = near_miss(name, known)
    if meant is None:
        return f"--{name} is not a flag of this command; --help lists its flags"
    return f"--{name}: did you mean --{meant}?"
