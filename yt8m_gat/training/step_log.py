"""The figures that are logged: means over all steps, not the figures of one batch."""

import time

from yt8m_gat.training.step import StepResult


class StepMeans:
    """Means of the steps' terms over their clips, without the steps that were left out.

    Attributes:
        num_steps: Steps added, including those left out.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self._num_clips = 0
        self._sums: dict[str, float] = {}

    def add(self, result: StepResult) -> None:
        """Adds one step."""
        self.num_steps += 1
        if result.finite:
            self._num_clips += result.num_examples
            for name, value in result.terms.items():
                self._sums[name] = self._sums.get(name, 0.0) + result.num_examples * value

    def means(self) -> dict[str, float]:
        """Returns the mean of each term; empty if no step counts."""
        return {name: value / self._num_clips for name, value in self._sums.items()}


class Speed:
    """Clips per second, without the step that compiles the graph and without validations."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._num_clips = 0

    def add(self, num_clips: int) -> None:
        """Adds a step that has just ended."""
        if self._started is None:
            self.restart()
        else:
            self._num_clips += num_clips

    def restart(self) -> None:
        """Starts measuring now."""
        self._started, self._num_clips = time.monotonic(), 0

    @property
    def seconds(self) -> float:
        """Seconds since the last restart; 0 before the first step has ended."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def clips_per_second(self) -> float | None:
        """Speed since the last restart; None if no step has ended since."""
        return self._num_clips / self.seconds if self._num_clips else None
