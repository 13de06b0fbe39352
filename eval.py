"""Evaluates a trained run, clean and under attack.

python eval.py --train_dir=runs/gat --eval_data_pattern='validate*.tfrecord' --attacks=fgm
"""

import contextlib
import functools
import os
import tempfile

from absl import app, flags

from yt8m_gat.cli import (
    comma_separated,
    numbers,
    quiet_tensorflow,
    refuse_arguments,
    reported_errors,
)
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.starter_flags import REPLACED, warn_of_replaced


def define_flags(values: flags.FlagValues) -> None:
    """Defines every flag of this script on `values`."""
    flags.DEFINE_string(
        "train_dir",
        os.path.join(tempfile.gettempdir(), "yt8m_model"),
        "The run folder that train.py wrote.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "eval_data_pattern",
        "",
        "Files to evaluate on: globs, separated by commas.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "attacks",
        "",
        "Attacks to evaluate under, separated by commas: fgm, ...",
        flag_values=values,
    )
    flags.DEFINE_string(
        "epsilons",
        "",
        "Their radii, separated by commas (default: the run's --epsilon).",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Clips per batch (default: that of training).",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "top_k", 20, "Predictions per video that count.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "last"], "Which state of the run.", flag_values=values
    )
    flags.DEFINE_string(
        "output_file", None, "Also write the figures there, as JSON.", flag_values=values
    )
    flags.DEFINE_boolean(
        "segment_labels",
        None,
        "Evaluate the rated segments of 2019 records, not whole clips (default: as in training).",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "run_once",
        True,
        "--norun_once: evaluate each new state of a run in training, until it is finished.",
        flag_values=values,
    )
    for name, replacement in REPLACED["eval.py"].items():
        flags.DEFINE_integer(name, None, f"No effect: {replacement}", flag_values=values)


def main(argv: list[str]) -> None:
    """Prints a table of the metrics, and writes them as JSON if asked to."""
    values = flags.FLAGS
    with reported_errors():
        refuse_arguments(argv[1:])
        warn_of_replaced("eval.py", values.flag_values_dict())
        attacks = comma_separated(values.attacks)
        epsilons = numbers("epsilons", values.epsilons)
        with quiet_tensorflow():
            from yt8m_gat import pipeline
            from yt8m_gat.report import format_evaluation

        with pipeline.reported_errors():
            evaluate = functools.partial(
                pipeline.evaluate if values.run_once else pipeline.evaluate_each,
                RunFolder(values.train_dir),
                eval_data_pattern=values.eval_data_pattern,
                attacks=attacks,
                epsilons=epsilons,
                batch_size=values.batch_size,
                top_k=values.top_k,
                checkpoint=values.checkpoint,
                output_file=values.output_file,
                segment_labels=values.segment_labels,
            )
            if values.run_once:
                print(format_evaluation(evaluate()))
                return
            print(
                f"{values.train_dir}: evaluating each new state ({values.checkpoint}) until the "
                "run is finished; Ctrl-C ends",
                flush=True,
            )
            with contextlib.suppress(KeyboardInterrupt):
                for step, result in evaluate():
                    print(f"step {step}\n{format_evaluation(result)}", flush=True)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
