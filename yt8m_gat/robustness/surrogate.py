"""A student of a model's own answers: what fools the student is tried on the model."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from yt8m_gat.attacks import Ball, FastGradient
from yt8m_gat.attacks.ball import for_frames

# Units of the student's hidden layers.
WIDTH = 256
LEARNING_RATE = 1e-3

# (features {name: [B, T, D]}, frame_mask [B, T]) -> the model's probabilities [B, C].
Answers = Callable[[Mapping[str, tf.Tensor], tf.Tensor], tf.Tensor]


class Clips(NamedTuple):
    """A batch of clips as the model takes them.

    Attributes:
        features: {name: float [B, T, D]}.
        frame_mask: Bool [B, T], True = real frame.
        labels: Float [B, C], multi-hot.
    """

    features: Mapping[str, tf.Tensor]
    frame_mask: tf.Tensor
    labels: tf.Tensor


class Surrogate:
    """A small network that has learned to answer as the model does; callable as a `Model`.

    ```
    h_t    = relu(W_1 x_t + b_1)                           x_t: all features of frame t
    logits = W_3 relu(W_2 mean over real t of h_t + b_2) + b_3
    ```

    It has no attention and shares no weights with the model. Each step of training takes a batch
    and lowers the binary cross-entropy of the student's answers to the model's, on the clips and
    where a fast-gradient step on the student takes them: the model is asked there too, so that the
    student learns how the answers change in the directions in which it will be attacked. A step
    costs the model two forward passes and no backward pass: gradients that it hides or bends are
    never used.

    Args:
        answers: The model.
        batches: Returns the clips, again at each call; they are gone through in a circle.
        ball: The ball of the fast-gradient step.
        epsilon: Its radius.
        steps: Steps of Adam.
        seed: Of the first weights; the same seed gives the same student.

    Raises:
        ValueError: If `steps` is not positive.

    Reference: Papernot et al., "Practical Black-Box Attacks against Machine Learning", 2017.
    Deviations: the student learns probabilities, not one label; the step is along the gradient of
    the student's loss by the true labels instead of its answer's Jacobian, and the points are made
    at each step, not kept in a growing set.
    """

    def __init__(
        self,
        answers: Answers,
        batches: Callable[[], Iterable[Clips]],
        ball: Ball,
        epsilon: float,
        steps: int,
        seed: int = 0,
    ) -> None:
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1. Received: steps={steps}")
        self.answers = answers
        self.batches = batches
        self.epsilon = epsilon
        self.steps = steps
        self.seed = seed
        self._attack = FastGradient(ball, epsilon)
        self._layers: list[keras.layers.Dense] = []

    def __call__(self, features: Mapping[str, tf.Tensor], frame_mask: tf.Tensor) -> tf.Tensor:
        """Returns the student's logits [B, C]."""
        first, second, last = self._layers
        frames = first(tf.concat([features[name] for name in sorted(features)], axis=-1))
        weights = for_frames(tf.cast(frame_mask, frames.dtype), frames)
        count = tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
        return last(second(tf.reduce_sum(weights * frames, axis=1) / count))

    def train(self) -> None:
        """Trains the student; a second call does nothing."""
        if self._layers:
            return
        batches = itertools.chain.from_iterable(self.batches() for _ in itertools.count())
        optimizer = keras.optimizers.Adam(LEARNING_RATE)

        @tf.function(reduce_retracing=True, autograph=False)
        def step(clips: Clips) -> None:
            features, frame_mask, labels = clips
            asked = self._attack.attack(self, _loss, features, frame_mask, labels).features
            loss = 0.0
            with tf.GradientTape() as tape:
                for point in (features, asked):
                    told = tf.stop_gradient(self.answers(point, frame_mask))
                    loss += tf.reduce_mean(_loss(told, self(point, frame_mask)))
            variables = [v for layer in self._layers for v in layer.trainable_variables]
            optimizer.apply(tape.gradient(loss, variables), variables)

        for number, clips in enumerate(itertools.islice(batches, self.steps)):
            if number == 0:
                self._build(clips.labels.shape[-1])
                self(clips.features, clips.frame_mask)
                optimizer.build([v for layer in self._layers for v in layer.trainable_variables])
            step(clips)

    def _build(self, num_classes: int) -> None:
        self._layers = [
            keras.layers.Dense(
                units,
                activation,
                kernel_initializer=keras.initializers.GlorotUniform(seed=self.seed + number),
                name=f"surrogate_{number}",
            )
            for number, (units, activation) in enumerate(
                [(WIDTH, "relu"), (WIDTH, "relu"), (num_classes, None)]
            )
        ]


def _loss(probabilities: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the binary cross-entropy, summed over the classes: [B]."""
    terms = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(probabilities, logits.dtype), logits)
    return tf.reduce_sum(terms, axis=-1)
