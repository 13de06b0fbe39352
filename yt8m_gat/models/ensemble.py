"""Several classifiers as one: the mean of their probabilities."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier


@keras.saving.register_keras_serializable(package="yt8m_gat")
class EnsembleClassifier(VideoClassifier):
    """The weighted mean of the members' probabilities, as logits.

    ```
    p = sum_m w_m p_m(X),  sum_m w_m = 1
    z = log p - log(1 - p)      independent classes, so that sigmoid(z) = p
    z = log p                   exclusive classes, so that softmax(z) = p
    ```

    Both are computed from the members' log-probabilities by log-sum-exp, without rounding
    probabilities near 0 or 1, and gradients flow to the features through every member: an attack
    on the ensemble attacks all of them. All members get the same features.

    `frames` are the members' frames side by side, [B, T, sum D] (of raw clips, a copy of the first
    member's). Logits do not depend on them as one tensor, so an ensemble has no class activation
    over time. It has no attention maps.

    Masking: that of the members.

    Args:
        members: At least one; their features, classes and kinds of probabilities are alike.
        member_weights: A positive number for each; empty: all alike. They are divided by their sum.

    Raises:
        ValueError: The members differ, or a weight is missing or not positive.
    """

    def __init__(
        self,
        members: Sequence[VideoClassifier],
        member_weights: Sequence[float] = (),
        **kwargs: Any,
    ) -> None:
        if not members:
            raise ValueError("`members` must have at least one classifier. Received: none")
        first = members[0]
        super().__init__(first.feature_sizes, first.num_classes, first.frame_level, **kwargs)
        for name in ("feature_sizes", "num_classes", "frame_level", "exclusive_classes"):
            values = [getattr(member, name) for member in members]
            if any(value != values[0] for value in values):
                raise ValueError(f"`members` must have the same `{name}`. Received: {values}")
        weights = [float(weight) for weight in member_weights] or [1.0] * len(members)
        if len(weights) != len(members) or not all(0 < w < math.inf for w in weights):
            raise ValueError(
                f"`member_weights` must be {len(members)} positive numbers. Received: {weights}"
            )
        self.members = list(members)
        self.member_weights = [weight / sum(weights) for weight in weights]
        self.build_all()

    @property
    def exclusive_classes(self) -> bool:
        """Whether a clip has one class, so that probabilities are a softmax."""
        return self.members[0].exclusive_classes

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs all members; see `VideoClassifier.forward`."""
        outputs = [
            member.forward_without_maps(features, frame_mask, training, auxiliary_normalization)
            for member in self.members
        ]
        logits = ops.stack([ops.cast(each.logits, "float32") for each in outputs])  # [M, B, C]
        log_weights = ops.reshape(ops.log(ops.convert_to_tensor(self.member_weights)), (-1, 1, 1))
        if self.exclusive_classes:
            mixed = ops.logsumexp(log_weights + ops.log_softmax(logits, axis=-1), axis=0)
        else:
            mixed = ops.logsumexp(log_weights + ops.log_sigmoid(logits), axis=0)
            mixed -= ops.logsumexp(log_weights + ops.log_sigmoid(-logits), axis=0)
        if not self.frame_level:
            return ModelOutputs(mixed, None, {})
        frames = [each.frames for each in outputs]
        if all(len(each.shape) == 3 for each in frames):
            return ModelOutputs(mixed, ops.concatenate(frames, axis=-1), {})
        return ModelOutputs(mixed, ops.stop_gradient(frames[0]), {})

    def symbolic_inputs(self, num_frames: int | None = None) -> dict[str, keras.KerasTensor]:
        """Returns Keras inputs for the members."""
        return self.members[0].symbolic_inputs(num_frames)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["feature_sizes"], config["num_classes"]
        members = [keras.saving.serialize_keras_object(member) for member in self.members]
        return {**config, "members": members, "member_weights": self.member_weights}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "EnsembleClassifier":
        """Builds the model that `get_config` described, with fresh weights."""
        members = [
            keras.saving.deserialize_keras_object(member, custom_objects)
            for member in config["members"]
        ]
        return cls(**{**config, "members": members})
