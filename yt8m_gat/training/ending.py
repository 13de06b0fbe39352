"""When and why a run in training ends."""

from yt8m_gat.config import TrainingConfig
from yt8m_gat.training.adversarial_model import AdversarialModel
from yt8m_gat.training.distribution import Distribution
from yt8m_gat.training.state import TrainingState
from yt8m_gat.training.step import StepResult
from yt8m_gat.training.stop_request import StopRequest


class Ending:
    """Watches for what ends a run: a signal, a callback, or what the configuration asks for.

    As a context, it turns Ctrl-C and SIGTERM into requests to stop (`StopRequest`). With several
    workers, all must end after the same step: each step exchanges what any worker was asked.

    Args:
        config: The training of the run.
        model: The model, whose `stop_training` callbacks set.
        distribution: The replicas that train.

    Attributes:
        signalled: Whether a signal ends the run.
    """

    def __init__(
        self, config: TrainingConfig, model: AdversarialModel, distribution: Distribution
    ) -> None:
        self.config = config
        self.model = model
        self.distribution = distribution
        self.signalled = False
        self._stop_training = False
        self._request = StopRequest()

    def __enter__(self) -> "Ending":
        self._request = StopRequest()
        self._request.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._request.__exit__(*error)

    def requests(self) -> dict[str, bool]:
        """Returns what this worker was asked, as keywords of `TrainingStep`."""
        return {
            "stop": self._request.signal_name is not None,
            "stop_training": bool(self.model.stop_training),
        }

    def exchange(self, result: StepResult) -> None:
        """Takes what any worker was asked from a step's result."""
        if self.distribution.num_workers > 1:
            self.signalled, self._stop_training = result.stop, result.stop_training

    def is_due(self, state: TrainingState) -> bool:
        """Returns whether the run ends now."""
        if self.distribution.num_workers == 1:
            self.signalled = self._request.signal_name is not None
            self._stop_training = self.model.stop_training
        return self.signalled or self._stop_training or state.finished(self.config) is not None

    def reason(self, state: TrainingState) -> str:
        """Returns why the run ends."""
        if self.signalled:
            return f"stopped by {self._request.signal_name or 'a signal to another worker'}"
        return state.finished(self.config) or "stopped by a callback"
