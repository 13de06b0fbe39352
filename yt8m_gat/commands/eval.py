"""Evaluates a trained run, clean and under attack.

python eval.py --train_dir=runs/gat --eval_data_pattern='validate*.tfrecord' --attacks=fgm
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from yt8m_gat.cli import (
    comma_separated,
    command_to_paste,
    exit_interrupted,
    integers,
    numbers,
    quiet_tensorflow,
    reported_errors,
)
from yt8m_gat.commands import absl_flags
from yt8m_gat.config import NORM_SCOPES
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import input_path, output_path, read_paths
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.starter_flags import REPLACED, warn_of_replaced

PATHS = {
    "train_dir": input_path,
    "output_file": output_path,
    "label_names": input_path,
    "vocabulary": input_path,
    "compare_to": input_path,
    "transfer_from": input_path,
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines every flag of this script on `values`."""
    define = _Definitions(values)
    define.string(
        "train_dir",
        os.path.join(tempfile.gettempdir(), "yt8m_model"),
        "The run folder that train.py wrote.",
    )
    define.string("eval_data_pattern", "", "Files to evaluate on: globs, separated by commas.")
    define.integer("batch_size", None, "Clips per batch (default: that of training).", 1)
    define.integer("top_k", 20, "Predictions per video that count.", 1)
    define.enum("checkpoint", "best", ["best", "last"], "Which state of the run.")
    define.string("output_file", None, "Also write the figures there, as JSON, row by row.")
    define.boolean("start_over", False, "Measure anew what --output_file already holds.")
    define.integer("max_videos", 0, "Only the first so many of the files; 0: all.", 0)
    define.boolean(
        "segment_labels",
        None,
        "Evaluate the rated segments of 2019 records, not whole clips (default: as in training).",
    )
    define.boolean(
        "run_once",
        True,
        "--norun_once: evaluate each new state of a run in training, until it is finished.",
    )
    define.enum(
        "on_bad_record",
        "error",
        ["error", "skip"],
        "Stop at a record that cannot be read, or leave it out and count it.",
    )
    define.float(
        "max_bad_fraction",
        0.01,
        "With skip: stop when more of the records, or of their bytes, are bad.",
        0,
        1,
    )
    define.boolean(
        "trust_code",
        False,
        "Run the code that the run names (a model or loss of somebody's own), and that those of "
        "--transfer_from and --compare_to name.",
    )
    define.integer("partitions", 0, "Mean and deviation over so many parts; 0: none.", 0)
    _define_perturbations(define)
    define.string(
        "label_names", None, "CSV file that names the classes (default: the run's label map)."
    )
    define.string("vocabulary", None, "CSV file that groups the classes: metrics per vertical.")
    define.string("compare_to", None, "Run folder of a baseline: AP differences, class by class.")
    define.integer("min_positives", 10, "Positives that a class needs to be compared.", 1)
    define.boolean("attention", False, "Attention profiles and local sensitivity.")
    define.integer("sensitivity_videos", 500, "Videos for the local sensitivity.", 1)
    define.string("clips", "", "Ids of clips to show with labels and maps, separated by commas.")
    define.integer("num_clips", 0, "Show so many of the first clips.", 0)
    for name, replacement in REPLACED["eval.py"].items():
        define.integer(name, None, f"No effect: {replacement}")


def _define_perturbations(define: "_Definitions") -> None:
    define.string(
        "attacks",
        "",
        "Attacks, separated by commas, with options: fgm,pgd:steps=100:restarts=5,...",
    )
    define.string(
        "epsilons", "", "Their radii, separated by commas (default: the run's --epsilon)."
    )
    define.integer("attack_steps", 20, "Steps of PGD where an attack does not say.", 1)
    define.integer("attack_restarts", 1, "Restarts of PGD, the worst kept per clip.", 1)
    define.integer("attack_queries", 100, "Queries of the searches without gradients.", 1)
    define.enum(
        "norm_scope",
        None,
        list(NORM_SCOPES),
        "What an l2 norm is taken over (default: as in training).",
    )
    define.boolean("clip_to_range", False, "Attacks stay in the range of dequantized bytes.")
    define.boolean("round_to_levels", False, "Attacks end on levels of dequantized bytes.")
    define.string("transfer_from", None, "Run folder on which the attack transfer is made.")
    define.string("corruptions", "", "Natural corruptions, separated by commas, or all.")
    define.string("severities", "1,2,3,4,5", "Their severities, separated by commas.")
    define.boolean("sanity_checks", False, "Verdicts on gradient masking, and what they need.")
    define.enum(
        "protocol", None, ["sceptic"], "The attacks and checks that docs/ROBUSTNESS.md lists."
    )


class _Definitions:
    """The flags module's definitions on one set of values."""

    def __init__(self, values: flags.FlagValues) -> None:
        self.string = functools.partial(flags.DEFINE_string, flag_values=values)
        self.boolean = functools.partial(flags.DEFINE_boolean, flag_values=values)
        self.enum = functools.partial(flags.DEFINE_enum, flag_values=values)
        self.integer = functools.partial(flags.DEFINE_integer, flag_values=values)
        self.float = functools.partial(flags.DEFINE_float, flag_values=values)


def options_from_flags(values: flags.FlagValues) -> dict[str, Any]:
    """The arguments of `pipeline.evaluate`.

    Raises:
        ConfigError: A list does not read as one.
    """
    lists = {
        "attacks": comma_separated(values.attacks),
        "epsilons": numbers("epsilons", values.epsilons),
        "corruptions": comma_separated(values.corruptions),
        "severities": integers("severities", values.severities),
        "clips": comma_separated(values.clips),
    }
    single = (
        *("eval_data_pattern", "batch_size", "top_k", "checkpoint", "output_file", "start_over"),
        *("max_videos", "segment_labels", "partitions", "attack_steps", "attack_restarts"),
        *("attack_queries", "norm_scope", "clip_to_range", "round_to_levels", "transfer_from"),
        *("sanity_checks", "protocol", "label_names", "vocabulary", "compare_to", "attention"),
        *("sensitivity_videos", "num_clips", "on_bad_record", "max_bad_fraction"),
        *("min_positives", "trust_code"),
    )
    return {**lists, **{name: values[name].value for name in single}}


def _next_command(values: flags.FlagValues) -> str:
    """The report of the file that was written; it finds evaluation.json in the run by itself."""
    arguments = [values.train_dir]
    default = os.path.join(values.train_dir, "evaluation.json")
    if os.path.abspath(values.output_file) != os.path.abspath(default):
        arguments += ["--evaluation", values.output_file]
    return command_to_paste("report", *arguments)


def main(argv: Sequence[str]) -> None:
    """Prints a table of the metrics, and writes them as JSON if asked to."""
    values = absl_flags.parse(define_flags, argv, __doc__)
    with reported_errors():
        warn_of_replaced("eval.py", values.flag_values_dict())
        read_paths(values, PATHS)
        options = options_from_flags(values)
        with only_writer(values.output_file):
            _evaluate(values, options)


def _evaluate(values: flags.FlagValues, options: dict[str, Any]) -> None:
    with quiet_tensorflow():
        from yt8m_gat import pipeline
        from yt8m_gat.report.table import format_evaluation

    with pipeline.reported_errors():
        folder = RunFolder(values.train_dir)
        if values.run_once:
            try:
                result = pipeline.evaluate(folder, **options)
            except KeyboardInterrupt:
                exit_interrupted(values.output_file)
            print(format_evaluation(result))
            if values.output_file is not None:
                print(f"\nWritten: {values.output_file}; {_next_command(values)} draws it")
            return
        print(
            f"{values.train_dir}: evaluating each new state ({values.checkpoint}) until the "
            "run is finished; Ctrl-C ends",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            for step, result in pipeline.evaluate_each(folder, **options):
                print(f"step {step}\n{format_evaluation(result)}", flush=True)
