"""The `train_step` of all objectives."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from yt8m_gat.attacks import RecordedPass
from yt8m_gat.data.preprocessing import preprocess
from yt8m_gat.losses import average_over_heads
from yt8m_gat.models import FRAME_MASK, ModelOutputs, VideoClassifier
from yt8m_gat.training.batch_loss import BatchLoss
from yt8m_gat.training.distillation import Teacher
from yt8m_gat.training.objective import CleanPass, Objective, check_objective
from yt8m_gat.training.step_update import Replica, StepTerms, StepUpdate, sum_of_parts

NUM_FRAMES = "num_frames"
LOSS_PARTS = ("clean_loss", "adversarial_loss", "penalty")
"""Names in logs for the parts of the objective, which is logged as `loss`."""

# Distance between the seeds of two replicas; it is odd, so that all their seeds differ.
_SEED_STEP = 0x9E3779B1


@keras.saving.register_keras_serializable(package="yt8m_gat")
class AdversarialModel(keras.Model):
    """A classifier together with the objective that trains it.

    One step is Algorithm 1 of the GAT paper on a batch (X, y):

    ```
    l(X), A     = classifier(X)                 per example; A the maps averaged over heads
    G           = d mean_b l_b / dX             on its own per modality
    R           = epsilon * G / ||G||           a constant from here on; zero on padding
    l(X + R), A_adv = classifier(X + R)
    L           = mean l(X) + alpha * mean l(X + R) + beta * mean_b sum_m P(A_m, A_adv_m)
    ```

    G is the gradient of the same term that the update differentiates (the weighted mean, or a
    replica's share of it): R depends only on its direction, and the graph compiler merges two
    backward passes that start alike. By operation count, the step costs 2.18 times the CE step,
    2.21 with an attention penalty.

    Instead of attention maps, the penalty can compare the clips' embeddings
    (`yt8m_gat.losses.embedding_distance`), or their predictions (TRADES).

    A classifier with an auxiliary head (TPN) adds half of its loss to l in both passes; the attack
    does not see it.

    With another perturbation (TAF, PGD, TRADES, fast) R comes from separate passes through the
    clean path. Where the clean loss has weight 0 (PGD, fast), the clean pass still runs: the logged
    figures and the moving averages are its. A
    classifier with a second set of normalization layers uses it only in the adversarial pass
    (TAF's dual normalization).

    State: both passes start from the same state (dropout seeds, batch statistics), so that A and
    A_adv differ only by R and not by their dropout masks. Changes of the clean pass are kept
    (moving averages, seeds). Of the adversarial pass those are kept that the clean pass does not
    make, the averages of a second set of normalization layers; all others are dropped, so that
    moving averages describe clean clips and move once a step.

    Each replica draws its own random numbers: each seed is shifted by the replica's number while a
    step is computed.

    Micro batches: with `micro_batch_size` the batch's rows pass through the model in parts, one
    after another, and their terms and gradients are added by their shares. The update equals that
    of the whole batch, up to rounding, in the memory of a part; only batch normalization, which
    looks at several clips at once, sees a single part, and each part draws its own random numbers.

    Inputs are a mapping, as `yt8m_gat.data.as_pairs` yields it, then labels [B, C], then optionally
    label weights [B, C]. Frame level: each feature [B, T, D], uint8 as stored or floats that are
    dequantized already, and either `num_frames` [B] or `frame_mask` [B, T], true at real frames.
    Video level: each feature [B, D], floats.

    Under `compile` and `fit`: the objective is the loss, so `compile` must not be given one;
    `metrics` get the probabilities of the clean pass' logits, and `weighted_metrics` the label
    weights too. Calling the model and `predict` return logits, as the classifier does.
    `evaluate` returns the loss on clean clips. `save` keeps classifier, objective and optimizer in
    a `.keras` file; `keras.saving.load_model` reads it once this module is imported.

    Args:
        classifier: The model to train; this model has the same dtype policy.
        objective: What to minimize.
        normalize: l2 normalization of the features after dequantizing.
        regularization_penalty: Weight of the layers' own penalties (`classifier.losses`).
        micro_batch_size: Maximum number of rows in one pass; None: the whole batch.
        teacher: Gives the targets of `Objective.distillation`, see `build_teacher`; it is not
            trained, and not saved.

    Raises:
        ValueError: If `micro_batch_size` is not positive; in a step, if the inputs do not say which
            frames are real, or `compile` was given a loss.
        ConfigError: See `check_objective`.

    Reference: GAT (Algorithm 1, eq. 2 and 3), A-ART (section 2), TAF (section 3.3).
    """

    def __init__(
        self,
        classifier: VideoClassifier,
        objective: Objective,
        normalize: str = "none",
        regularization_penalty: float = 1.0,
        micro_batch_size: int | None = None,
        teacher: Teacher | None = None,
        **kwargs: Any,
    ) -> None:
        # Preprocessing casts the features; Keras would round them before that.
        super().__init__(**{"dtype": classifier.dtype_policy, **kwargs}, autocast=False)
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(
                f"`micro_batch_size` must be at least 1, or None. Received: {micro_batch_size}"
            )
        check_objective(objective, classifier)
        self.micro_batch_size = micro_batch_size
        self._teacher = teacher
        # The function must not be inlined: inlined into the loop, parts of 16 clips at full size
        # took 2.1 GiB at their peak instead of 1.7.
        self._update_of_part = tf.function(
            self._update_at_once,
            autograph=False,
            reduce_retracing=True,
            experimental_attributes={"_noinline": True},
        )
        self.classifier = classifier
        self.objective = objective
        self.normalize = normalize
        self.regularization_penalty = regularization_penalty
        self.trackers = [keras.metrics.Mean(name=name) for name in ("loss", *LOSS_PARTS)]
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Running means of the objective and its parts, then the metrics passed to `compile`.

        Keras resets them at each epoch.
        """
        own = {tracker.name for tracker in self.trackers}
        return [*self.trackers, *(metric for metric in super().metrics if metric.name not in own)]

    def prepare(self, inputs: dict[str, Any]) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
        """Returns the features that the classifier takes, and the frame mask, of one batch."""
        features = {name: inputs[name] for name in self.classifier.feature_sizes}
        num_frames, frame_mask = inputs.get(NUM_FRAMES), inputs.get(FRAME_MASK)
        if self.classifier.frame_level and num_frames is None and frame_mask is None:
            raise ValueError(
                f"the inputs must say which frames are real: add {NUM_FRAMES!r} [B] or "
                f"{FRAME_MASK!r} [B, T]. Received: {', '.join(inputs)}"
            )
        return preprocess(features, num_frames, self.normalize, frame_mask)

    def call(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Returns logits [B, C]."""
        features, frame_mask = self.prepare(inputs)
        outputs = self.classifier.forward_without_maps(features, frame_mask, training=training)
        return outputs.logits

    def terms(
        self,
        features: dict[str, tf.Tensor],
        frame_mask: tf.Tensor | None,
        labels: tf.Tensor,
        label_weights: tf.Tensor | None,
        tape: tf.GradientTape,
        replica: Replica | None = None,
    ) -> tuple[StepTerms, list[tf.Tensor | None]]:
        """Evaluates the objective under `tape`, the tape that differentiates it by the weights.

        Returns:
            The terms, and `StepUpdate.state`.
        """
        objective = self.objective
        seeds = self._seeds_of(replica)
        targets = self._teacher_targets(features, frame_mask, tape)
        batch = BatchLoss(objective, labels, label_weights, targets, replica)

        with keras.StatelessScope(seeds) as state:
            recorded = RecordedPass(self._forward_clean, features, frame_mask)
        clean = recorded.outputs
        with recorded.recording():
            clean_loss = batch.loss(clean.logits)
            total = objective.clean_weight * clean_loss
            # If the clean loss has weight 0 or less, the attack raises the unweighted loss.
            attacked = total if objective.clean_weight > 0 else clean_loss
            # Float16 gradients by the features need the loss scale, as those by the weights do.
            scaled_loss = self.optimizer.scale_loss(attacked)
        if objective.clean_weight == 0 and not self.classifier.dual_normalization:
            # All weights get their gradients from the adversarial pass: 0 times a backward pass
            # would cost as much as that pass.
            total = tf.zeros((), clean_loss.dtype)
        else:
            total += objective.clean_weight * batch.auxiliary_loss(clean)
        adversarial_loss = penalty = tf.zeros((), clean_loss.dtype)
        adversarial_state = None

        if objective.perturbation is not None:
            with tape.stop_recording():
                perturbed = self._perturbed(recorded, frame_mask, scaled_loss, batch, seeds)
            with keras.StatelessScope(seeds) as adversarial_state:
                adversarial = self._forward(
                    perturbed,
                    frame_mask,
                    training=True,
                    auxiliary_normalization=self.classifier.dual_normalization,
                )
            adversarial_loss = batch.loss(adversarial.logits)
            auxiliary_loss = batch.auxiliary_loss(adversarial)
            total += objective.adversarial_weight * (adversarial_loss + auxiliary_loss)
            if objective.has_penalty:
                penalty = batch.mean(self._penalties(clean, adversarial, frame_mask, batch))
                total += objective.penalty_weight * penalty

        if self.classifier.losses:
            regularization = self.regularization_penalty * tf.add_n(self.classifier.losses)
            total += batch.share_of(regularization)
        terms = StepTerms(total, clean_loss, adversarial_loss, penalty, clean.logits)
        return terms, self._without_shift(self._updates(state, adversarial_state), replica)

    def _teacher_targets(
        self, features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None, tape: tf.GradientTape
    ) -> tf.Tensor | None:
        """Returns the teacher's predictions; None where the objective has no teacher."""
        if self.objective.distillation is None:
            return None
        if self._teacher is None:
            raise ValueError(
                "an objective with `distillation` needs a teacher, which files do not hold. "
                "Construct the model with `teacher`"
            )
        with tape.stop_recording():
            return self._teacher(features, frame_mask)

    def _perturbed(
        self,
        recorded: RecordedPass,
        frame_mask: tf.Tensor,
        loss_term: tf.Tensor,
        batch: BatchLoss,
        seeds: list[tuple[keras.Variable, tf.Tensor]],
    ) -> dict[str, tf.Tensor]:
        """Returns the features of the adversarial pass, constants."""
        step, replica = self.optimizer.iterations, batch.replica
        perturbed = self.objective.perturbation(
            CleanPass(
                recorded.features,
                frame_mask,
                batch.labels,
                recorded,
                loss_term=loss_term,
                forward=functools.partial(self._forward_without_updates, seeds),
                loss=batch.losses,
                divergence=batch.divergences,
                scale_loss=self.optimizer.scale_loss,
                seed=step
                if replica is None
                else tf.cast(step, tf.int32) * replica.count + replica.index,
            )
        )
        return {name: tf.stop_gradient(value) for name, value in perturbed.items()}

    def _updates(
        self, clean: keras.StatelessScope, adversarial: keras.StatelessScope | None
    ) -> list[tf.Tensor | None]:
        """Returns `StepUpdate.state`, the changes that are kept of those of both passes."""
        updates = []
        for variable in self.classifier.non_trainable_variables:
            update = clean.get_current_value(variable)
            if update is None and adversarial is not None:
                # Averages of the second normalization layers, which only this pass moves.
                update = adversarial.get_current_value(variable)
            updates.append(update)
        return updates

    def _seeds_of(self, replica: Replica | None) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Returns the seed variables and their values on a replica."""
        if replica is None:
            return []
        return [
            (variable, variable.value + _shift(replica, variable.dtype))
            for variable in self._seed_variables
        ]

    @property
    def _seed_variables(self) -> list[keras.Variable]:
        return [v for v in self.classifier.non_trainable_variables if _is_seed(v)]

    def _without_shift(
        self, updates: list[tf.Tensor | None], replica: Replica | None
    ) -> list[tf.Tensor | None]:
        if replica is None:
            return updates
        return [
            value - _shift(replica, variable.dtype)
            if value is not None and _is_seed(variable)
            else value
            for variable, value in zip(
                self.classifier.non_trainable_variables, updates, strict=True
            )
        ]

    @property
    def _forward(self) -> Callable[..., ModelOutputs]:
        """The classifier's pass; only a penalty reads attention maps."""
        if self.objective.penalty is None:
            return self.classifier.forward_without_maps
        return self.classifier.forward

    def _forward_without_updates(
        self,
        seeds: list[tuple[keras.Variable, tf.Tensor]],
        features: dict[str, tf.Tensor],
        frame_mask: tf.Tensor,
    ) -> ModelOutputs:
        """Runs a training pass through the clean path, for the perturbation."""
        with keras.StatelessScope(seeds):
            return self._forward_clean(features, frame_mask)

    def _forward_clean(
        self, features: dict[str, tf.Tensor], frame_mask: tf.Tensor | None
    ) -> ModelOutputs:
        return self._forward(features, frame_mask, training=True)

    def _penalties(
        self,
        clean: ModelOutputs,
        adversarial: ModelOutputs,
        frame_mask: tf.Tensor,
        batch: BatchLoss,
    ) -> tf.Tensor:
        """Returns the objective's penalty of each clip, [B]."""
        if self.objective.divergence is not None:
            return batch.divergences(clean.logits, adversarial.logits)
        if self.objective.embedding_penalty is not None:
            return self.objective.embedding_penalty(clean.embedding, adversarial.embedding)
        # The weighted sum over modalities and penalized levels.
        distances = []
        for feature, maps in clean.attention_maps.items():
            for level, weight in self.objective.level_weights.items():
                ours = average_over_heads(maps[level])
                theirs = average_over_heads(adversarial.attention_maps[feature][level])
                distances.append(weight * self.objective.penalty(ours, theirs, frame_mask))
        return tf.add_n(distances)

    def update_of(self, data: Any, replica: Replica | None = None) -> StepUpdate:
        """Computes what a step on `data` would change, and changes nothing.

        Args:
            data: A batch, see the class; with replicas, this replica's rows (at least one).
            replica: This replica; None: there is only one.
        """
        if self.micro_batch_size is None:
            return self._update_at_once(data, replica)
        whole = replica or Replica(tf.constant(0), tf.constant(1), tf.constant(1.0))
        num_rows = tf.shape(data[1])[0]
        num_parts = -(-num_rows // self.micro_batch_size)

        def update_of_part(index: tf.Tensor) -> StepUpdate:
            start, stop = index * num_rows // num_parts, (index + 1) * num_rows // num_parts
            share = tf.cast(stop - start, tf.float32) / tf.cast(num_rows, tf.float32)
            part = Replica(
                whole.index + whole.count * index, whole.count * num_parts, whole.share * share
            )
            # `train_on_batch` passes None for label weights.
            rows = tf.nest.map_structure(
                lambda value: None if value is None else value[start:stop], data
            )
            update = self._update_of_part(rows, part)
            return update._replace(
                gradients=[
                    None if gradient is None else tf.convert_to_tensor(gradient)
                    for gradient in update.gradients
                ],
                state=[
                    share * value if value is not None and value.dtype.is_floating else value
                    for value in update.state
                ],
            )

        return sum_of_parts(update_of_part, num_parts)

    def _update_at_once(self, data: Any, replica: Replica | None) -> StepUpdate:
        inputs, labels, label_weights = keras.utils.unpack_x_y_sample_weight(data)
        features, frame_mask = self.prepare(inputs)
        with tf.GradientTape() as tape:
            terms, state = self.terms(features, frame_mask, labels, label_weights, tape, replica)
            scaled = self.optimizer.scale_loss(terms.total)
        gradients = tape.gradient(scaled, self.trainable_variables)
        checked = [terms.total]
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            checked += [gradient for gradient in gradients if gradient is not None]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in checked])
        return StepUpdate(terms, gradients, state, finite)

    def assign_state(self, state: list[tf.Tensor | None]) -> None:
        """Assigns the new values of the classifier's non-trainable variables."""
        for variable, value in zip(self.classifier.non_trainable_variables, state, strict=True):
            if value is not None:
                variable.assign(value)

    def optimize(self, data: Any) -> StepTerms:
        """Takes one optimizer step on one device; returns the terms from before the update."""
        update = self.update_of(data)
        self.assign_state(update.state)
        self.optimizer.apply(update.gradients, self.trainable_variables)
        return update.terms

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Trains on one batch, on one device; called by `fit`."""
        inputs, labels, label_weights = self._unpack(data)
        terms = self.optimize(data)
        for tracker, value in zip(self.trackers, terms, strict=False):
            tracker.update_state(value, sample_weight=tf.shape(terms.logits)[0])
        probabilities = self.classifier.probabilities(terms.logits)
        return self.compute_metrics(inputs, labels, probabilities, label_weights)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Computes the loss on clean clips and the metrics for one batch; called by `evaluate`."""
        inputs, labels, label_weights = self._unpack(data)
        logits = self(inputs)
        loss = tf.reduce_mean(self.objective.loss(labels, logits, label_weights))
        self.trackers[0].update_state(loss, sample_weight=tf.shape(labels)[0])
        probabilities = self.classifier.probabilities(logits)
        results = self.compute_metrics(inputs, labels, probabilities, label_weights)
        return {name: value for name, value in results.items() if name not in LOSS_PARTS}

    def _unpack(self, data: Any) -> tuple[dict[str, Any], tf.Tensor, tf.Tensor | None]:
        if self.loss is not None:
            raise ValueError(
                "`compile` must be given no loss: the objective is what is minimized. Received: "
                f"loss={self.loss!r}; leave it out, or construct the objective with it"
            )
        return keras.utils.unpack_x_y_sample_weight(data)

    def save_own_variables(self, store: Any) -> None:
        """Stores the state of the layers' random generators, which Keras leaves out."""
        for index, variable in enumerate(self._seed_variables):
            store[f"seed_{index}"] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Restores what `save_own_variables` stored."""
        for index, variable in enumerate(self._seed_variables):
            variable.assign(store[f"seed_{index}"])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "classifier": keras.saving.serialize_keras_object(self.classifier),
            "objective": keras.saving.serialize_keras_object(self.objective),
            "normalize": self.normalize,
            "regularization_penalty": self.regularization_penalty,
            "micro_batch_size": self.micro_batch_size,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "AdversarialModel":
        """Builds the model that `get_config` described, with fresh weights."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("classifier", "objective")
        }
        return cls(**{**config, **parts})


def _is_seed(variable: keras.Variable) -> bool:
    return variable.name == "seed_generator_state"


def _shift(replica: Replica, dtype: str) -> tf.Tensor:
    """Returns the shift of a seed generator's state, (seed, count); 0 on replica 0."""
    return tf.cast(tf.stack([replica.index, 0]), dtype) * tf.constant(_SEED_STEP, dtype)
