"""The job that evaluates a run while another process trains it."""

from collections.abc import Iterator
from typing import Any

from yt8m_gat.data import find_files
from yt8m_gat.pipeline.evaluation import evaluate
from yt8m_gat.run_folder import RunFolder
from yt8m_gat.training import follow


def evaluate_each(
    folder: RunFolder,
    *,
    eval_data_pattern: str,
    checkpoint: str = "best",
    poll_seconds: float = 5.0,
    **options: Any,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Calls `evaluate` for each new state of a run in training, until the run is finished.

    Args:
        folder: The run; it need not exist yet.
        eval_data_pattern: Evaluation files.
        checkpoint: `best` or `last`, see `yt8m_gat.training.follow`.
        poll_seconds: Seconds between two looks for a new state.
        **options: The other arguments of `evaluate`; `output_file` is rewritten each time.

    Yields:
        The state's step and what `evaluate` returns, both for the weights that were loaded: the
        run may have moved on since the new state was seen.
    """
    find_files(eval_data_pattern, "eval_data_pattern")  # Refused now, not after the first wait.
    options["start_over"] = True  # Each state has weights of its own.
    measured = None
    for step in follow(folder, checkpoint, poll_seconds):
        if step == measured:  # The last evaluation already loaded this newer state.
            continue
        result = evaluate(
            folder, eval_data_pattern=eval_data_pattern, checkpoint=checkpoint, **options
        )
        loaded_step = result["provenance"]["step"]
        measured = step if loaded_step is None else loaded_step
        yield measured, result
