"""Evaluates a trained run, clean and under attack.

yt8m-gat eval --train_dir=runs/gat --eval_data_pattern='validate*.tfrecord' --attacks=fgm
"""

import contextlib
import functools
import os
from collections.abc import Sequence
from typing import Any

from absl import flags

from yt8m_gat.cli import (
    command_to_paste,
    exit_interrupted,
    quiet_tensorflow,
    reported_errors,
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
from yt8m_gat.commands.train import OF_RUN
from yt8m_gat.config import NORM_SCOPES, ON_BAD_RECORD
from yt8m_gat.interrupt import command_name
from yt8m_gat.job_settings import EvaluationSettings
from yt8m_gat.locks import only_writer
from yt8m_gat.paths import input_path, output_path, read_paths
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.starter_flags import warn_of_replaced

_setting = functools.partial(field, EvaluationSettings)

SECTIONS: Sections = {
    "Run": (
        Flag("train_dir", "The run folder.", default=DEFAULT_RUN, path=input_path),
        _setting("checkpoint", "Which state of the run is measured.", choices=("best", "last")),
        Flag(
            "run_once",
            "--norun_once measures each new state of a run in training, until it is finished.",
            bool,
            True,
        ),
        _setting(
            "trust_code",
            "Run the code that the run names (a model or loss of somebody's own), and that those "
            "of --transfer_from and --compare_to name.",
        ),
        _setting(
            "output_file",
            "Also write the figures there, as JSON, row by row.",
            path=output_path,
        ),
        _setting("start_over", "Measure again what --output_file already holds."),
    ),
    "Records": (
        Flag("eval_data_pattern", "Files to evaluate on: globs, separated by commas.", default=""),
        _setting("max_videos", "Evaluate only the first N videos; 0 means all.", least=0),
        _setting(
            "segment_labels",
            "Evaluate the rated segments of 2019 records, not whole clips.",
            unset="as in training",
        ),
        _setting("batch_size", "Clips per batch.", least=1, unset="as in training"),
        _setting(
            "on_bad_record",
            "What happens at a record that cannot be read: stop, or leave it out and count it.",
            choices=ON_BAD_RECORD,
        ),
        _setting(
            "max_bad_fraction",
            "With skip: stop when a larger share of the records, or of their bytes, is bad.",
            least=0,
            most=1,
        ),
    ),
    "Metrics": (
        _setting("top_k", "Predictions per video that GAP and MAP count.", least=1),
        _setting(
            "partitions",
            "Also give the mean and deviation over N disjoint parts; 0 means no parts.",
            least=0,
        ),
        _setting(
            "label_names",
            "CSV file that names the classes.",
            path=input_path,
            unset="the run's label map",
        ),
        _setting(
            "vocabulary",
            "CSV file that groups the classes: metrics for each vertical.",
            path=input_path,
        ),
        _setting(
            "compare_to",
            "Run folder of a baseline: paired tests of each row, differences class by class.",
            path=input_path,
        ),
        _setting("min_positives", "Positives that a class needs to be compared.", least=1),
    ),
    "Robustness": (
        _setting(
            "attacks",
            "Attacks, with options: auto,pgd:steps=100:restarts=5,my_attacks:MyAttack,...",
        ),
        _setting("epsilons", "Their radii.", unset="the run's --epsilon"),
        _setting("attack_steps", "Steps of PGD, where an attack does not say.", least=1),
        _setting("attack_restarts", "Restarts of PGD; the worst is kept for each clip.", least=1),
        _setting("attack_queries", "Queries of the searches without gradients.", least=1),
        _setting(
            "norm_scope",
            "What an l2 norm is taken over.",
            choices=NORM_SCOPES,
            unset="as in training",
        ),
        _setting("clip_to_range", "Attacks stay within the range of dequantized bytes."),
        _setting("round_to_levels", "Attacks end on levels of dequantized bytes."),
        _setting(
            "transfer_from",
            "Run folder of the model (best of other training) that the attack transfer is made on.",
            path=input_path,
        ),
        _setting(
            "surrogate_steps",
            "Steps of training of the student that the attack surrogate is made on.",
            least=1,
        ),
        _setting("corruptions", "Natural corruptions, or all."),
        _setting("severities", "Their severities."),
        _setting(
            "corruption_draws",
            "Raw clips: whether noise and snow differ from frame to frame.",
            choices=("frame", "clip"),
        ),
        _setting(
            "worst_case_only",
            "Only Hit@1 over all attacks: each runs on the clips that none before it has broken.",
        ),
        _setting("sanity_checks", "Verdicts on gradient masking, and the attacks they need."),
        _setting(
            "protocol",
            "A set of attacks and checks, see docs/ROBUSTNESS.md.",
            choices=("sceptic",),
        ),
    ),
    "Certificates": (
        _setting("certify", "Certify the classifier smoothed by noise, see docs/ROBUSTNESS.md."),
        _setting("sigma", "Standard deviations of the noise, in units of the features."),
        _setting(
            "radii", "Radii at which certified shares are given.", unset="0 to 3 times --sigma"
        ),
        _setting("samples", "Noisy copies of each clip, which bound what it certifies.", least=1),
        _setting(
            "certify_selection_samples",
            "Further copies, which choose what to certify.",
            least=1,
        ),
        _setting(
            "certify_alpha",
            "Most probability that a statement about a clip is false.",
            least=0,
            most=1,
        ),
        _setting(
            "certify_threshold",
            "Probability from which a label counts as shown.",
            least=0,
            most=1,
        ),
    ),
    "Explanations": (
        _setting("attention", "Attention profiles and local sensitivity."),
        _setting("embeddings", "How far each hidden layer moves under the first attack."),
        _setting(
            "class_activation",
            "Entropy and spread over time of the class activation of the labels.",
        ),
        _setting(
            "true_spans",
            "CSV of where labels are shown, video_id,label,start,end[,duration]: how much class "
            "activation and attention fall there.",
            path=input_path,
        ),
        _setting("sensitivity_videos", "Videos for the local sensitivity.", least=1),
        _setting(
            "clips", "Ids of clips to show with labels and maps; raw clips with their frames."
        ),
        _setting("num_clips", "Also show the first N clips.", least=0),
    ),
    "Flags of the starter code that have no effect here": without_effect("eval.py"),
}
PATHS = path_readers(SECTIONS)


def define_flags(values: flags.FlagValues) -> None:
    """Defines every flag of this command on `values`."""
    define(SECTIONS, values)


def options_from_flags(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of `pipeline.evaluate` that the command line sets.

    Raises:
        ConfigError: A list of numbers holds something else.
    """
    settings = (flag for flag in all_flags(SECTIONS) if flag.config is EvaluationSettings)
    return {"eval_data_pattern": values.eval_data_pattern, **given(values, settings)}


def _next_command(values: flags.FlagValues) -> str:
    """Returns the command that draws the file; `report` finds RUN/evaluation.json by itself."""
    arguments = [values.train_dir]
    default = os.path.join(values.train_dir, "evaluation.json")
    if os.path.abspath(values.output_file) != os.path.abspath(default):
        arguments += ["--evaluation", values.output_file]
    return command_to_paste("report", *arguments)


def main(argv: Sequence[str]) -> None:
    """Prints a table of the metrics, and writes them as JSON if asked to."""
    values = absl_flags.parse(SECTIONS, argv, __doc__, from_run=OF_RUN)
    with reported_errors():
        warn_of_replaced("eval.py", values.flag_values_dict(), command_name())
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
        state = options.get("checkpoint", EvaluationSettings.checkpoint)
        print(
            f"{values.train_dir}: evaluating each new state ({state}) until the run is finished; "
            "Ctrl-C ends",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            for step, result in pipeline.evaluate_each(folder, **options):
                print(f"step {step}\n{format_evaluation(result)}", flush=True)
