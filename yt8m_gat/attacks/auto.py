"""An ensemble of attacks without parameters to tune, and the worst of them for each clip."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from yt8m_gat.attacks.apgd import APGD
from yt8m_gat.attacks.attack import (
    Attack,
    Highest,
    LossFn,
    PassCount,
    Perturbed,
    Problem,
    logits_of,
    loss_and_gradients,
)
from yt8m_gat.attacks.ball import Ball, Tensors, mask_frames
from yt8m_gat.attacks.draws import part_of_batch
from yt8m_gat.attacks.gradient_free import SquareSearch
from yt8m_gat.attacks.objectives import Criterion

# (the clips to attack, their clean logits, their highest points so far) -> the highest points.
Stage = Callable[[Problem, tf.Tensor, Highest], Highest]


@dataclasses.dataclass(frozen=True)
class AutoAttack(Attack):
    """APGD on the loss, on the DLR and towards targets, then Square, one after another.

    ```
    1. APGD on the model's own loss            `steps` steps
    2. APGD on the criterion's ratio           `steps` steps
    3. APGD on that ratio towards a target     `steps` steps for each of `targets` targets
    4. Square on the criterion's margin        `queries` queries
    ```

    Each clip ends at the point with the highest margin of the criterion among the clean clip and
    all points that any of the attacks has looked at, so that it is broken if any of those broke it.
    With `early_exit`, clips that are already broken take no part in the attacks that follow, and an
    attack ends when all of its clips are broken. That saves passes, and breaks the same clips: the
    draws of a clip do not depend on the others (`yt8m_gat.attacks.draws`). A clip without labels
    counts there as broken where a false class has a logit above 0.

    The targets of a clip are the other classes that score highest on the clean clip, one by one
    (`Criterion.target`: as many at once as the criterion needs). All starts are random.

    Norm and axes: the ball's. Space: the features as the model takes them. Bounds:
    `clip_to_range`. Success: the criterion. Cost: at most (2 + targets) (steps + 1) + queries + 4
    forward passes and (2 + targets) (steps + 1) backward. Not for XLA with `early_exit`.

    Args:
        ball: The norm and what it is taken over.
        epsilon: Radius, in the units of the features.
        steps: Steps of each APGD.
        targets: Number of targets; 0 leaves out the targeted attack.
        queries: Queries of Square; 0 leaves it out.
        criterion: When a clip counts as broken.
        early_exit: Whether broken clips are done. Without, all attacks look for higher margins on
            all clips.

    Raises:
        ValueError: If a count is negative, or `steps` not positive.

    Reference: Croce and Hein, 2020: AutoAttack, with 100 steps, 9 targets and 5,000 queries.
    Deviations: the losses are multi-label (`Criterion`); what is kept is the highest margin; the
    targeted attack has one start. FAB, which looks for the nearest point of another class, is left
    out: at a given radius that is the question of the targeted APGD, and `DeepFool` is here for
    distances.

    Examples:
        >>> import tensorflow as tf
        >>> from yt8m_gat.attacks import AutoAttack, Ball
        >>> from yt8m_gat.losses import CrossEntropyLoss
        >>> def model(features, frame_mask):  # Three classes: the sums of the three features.
        ...     return tf.reduce_sum(features["x"], axis=1)
        >>> clips = {"x": [[[2.0, 1.0, 0.0]], [[2.0, 0.0, 0.0]]]}
        >>> attack = AutoAttack(Ball("linf"), epsilon=0.6, steps=5, targets=1, queries=5)
        >>> result = attack.attack(
        ...     model, CrossEntropyLoss("mean"), clips, [[True], [True]], [[1.0, 0, 0], [1.0, 0, 0]]
        ... )
        >>> result.success.numpy()
        array([ True, False])
    """

    ball: Ball
    epsilon: float
    steps: int = 100
    targets: int = 9
    queries: int = 5000
    criterion: Criterion = dataclasses.field(default_factory=Criterion)
    early_exit: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("steps", 1), ("targets", 0), ("queries", 0)):
            if getattr(self, field) < least:
                raise ValueError(
                    f"`{field}` must be at least {least}. Received: {field}={getattr(self, field)}"
                )

    @property
    def name(self) -> str:
        """`auto` or `auto_linf`."""
        return self._named("auto")

    @property
    def cost(self) -> PassCount:
        """At most (2 + targets) (steps + 1) + queries + 4 forward passes; fewer backward."""
        looks = (2 + self.targets) * (self.steps + 1)
        # Square: its clean pass, and one that judges its result.
        square = self.queries + 2 if self.queries else 0
        return PassCount(looks + square + 2, looks)

    def perturb(self, problem: Problem) -> Perturbed:
        """Returns the point with the highest margin seen, for each clip."""
        problem = problem._replace(features=mask_frames(problem.features, problem.frame_mask))
        clean = problem.outputs_at(problem.features)
        logits = logits_of(clean)
        margin = self.criterion.margin(problem.labels, logits, problem.label_weights)
        highest = Highest.nothing(problem.features).or_where_higher(problem.features, margin)
        problem = problem._replace(seed=tf.cast(problem.seed, tf.int32))
        highest = self._on_unbroken(self._climb_loss, problem, logits, highest)
        highest = self._on_unbroken(self._climb_ratio, _reseeded(problem, 1), logits, highest)

        def aim(rank: tf.Tensor, highest: Highest) -> tuple[tf.Tensor, Highest]:
            def stage(problem: Problem, logits: tf.Tensor, highest: Highest) -> Highest:
                target = self.criterion.target(problem.labels, logits, rank, problem.label_weights)
                return self._climb_ratio(problem, logits, highest, target)

            highest = self._on_unbroken(stage, _reseeded(problem, 2 + rank), logits, highest)
            return rank + 1, highest

        _, highest = tf.while_loop(
            lambda rank, _: rank < self.targets,
            aim,
            (tf.constant(0), highest),
            maximum_iterations=self.targets,
            parallel_iterations=1,
        )
        if self.queries:
            last = _reseeded(problem, 2 + self.targets)
            highest = self._on_unbroken(self._search, last, logits, highest)
        return Perturbed(highest.point, clean_outputs=clean)

    @property
    def _stop_above(self) -> float:
        return 0.0 if self.early_exit else float("inf")

    def _on_unbroken(
        self, stage: Stage, problem: Problem, logits: tf.Tensor, highest: Highest
    ) -> Highest:
        """Runs a stage on the clips that it is for, and returns the highest points of all."""
        if not self.early_exit:
            return stage(problem, logits, highest)
        places = tf.where(highest.value <= 0.0)  # [N, 1]

        def run() -> Highest:
            def of(values: Any) -> Any:
                return tf.nest.map_structure(lambda value: tf.gather_nd(value, places), values)

            mask, weights = (
                None if values is None else of(tf.convert_to_tensor(values))
                for values in (problem.frame_mask, problem.label_weights)
            )

            def loss(labels: Any, part_logits: tf.Tensor) -> tf.Tensor:
                # The caller's loss may know the weights of the whole batch.
                del labels
                whole = tf.tensor_scatter_nd_update(logits, places, part_logits)
                return of(problem.loss(problem.labels, whole))

            part = problem._replace(
                loss=loss,
                features=of(problem.features),
                labels=of(tf.convert_to_tensor(problem.labels)),
                frame_mask=mask,
                label_weights=weights,
            )
            with part_of_batch(places[:, 0], tf.shape(logits)[0]):
                found = stage(part, of(logits), of(highest))
            return tf.nest.map_structure(
                lambda value, other: tf.tensor_scatter_nd_update(value, places, other),
                highest,
                found,
            )

        return tf.cond(tf.size(places) > 0, run, lambda: highest)

    def _climb_loss(self, problem: Problem, logits: tf.Tensor, highest: Highest) -> Highest:
        del logits
        return self._climb(problem, problem.loss, highest)

    def _climb_ratio(
        self, problem: Problem, logits: tf.Tensor, highest: Highest, target: Any = None
    ) -> Highest:
        del logits

        def ratio(labels: Any, logits: tf.Tensor) -> tf.Tensor:
            return self.criterion.ratio(labels, logits, problem.label_weights, target)

        return self._climb(problem, ratio, highest)

    def _climb(self, problem: Problem, loss: LossFn, highest: Highest) -> Highest:
        """Climbs a loss, and keeps what the criterion's margin says is highest."""
        climbed = problem._replace(loss=loss)

        def look(point: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
            value, gradients, outputs = loss_and_gradients(climbed, point)
            return value, self._margin_of(problem, outputs), gradients

        apgd = APGD(
            self.ball,
            self.epsilon,
            self.steps,
            random_start=True,
            clip_to_range=self.clip_to_range,
        )
        return apgd.ascend(problem, look, highest, self._stop_above)

    def _search(self, problem: Problem, logits: tf.Tensor, highest: Highest) -> Highest:
        del logits

        def margin(labels: Any, logits: tf.Tensor) -> tf.Tensor:
            return self.criterion.margin(labels, logits, problem.label_weights)

        square = SquareSearch(
            self.ball,
            self.epsilon,
            self.queries,
            stop_above=self._stop_above,
            clip_to_range=self.clip_to_range,
        )
        found = square.perturb(problem._replace(loss=margin)).features
        value = self._margin_of(problem, problem.outputs_at(found))
        return highest.or_where_higher(found, value)

    def _margin_of(self, problem: Problem, outputs: Any) -> tf.Tensor:
        return self.criterion.margin(problem.labels, logits_of(outputs), problem.label_weights)

    def _succeeded(self, problem: Problem, logits: tf.Tensor, clean_outputs: Any) -> tf.Tensor:
        del clean_outputs
        return self.criterion.met(problem.labels, logits, problem.label_weights)


def _reseeded(problem: Problem, stage: Any) -> Problem:
    """Gives a stage draws of its own."""
    return problem._replace(seed=problem.seed + 7919 * (1 + stage))
