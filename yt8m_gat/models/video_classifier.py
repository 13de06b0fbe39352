"""The base of all classifiers: features and their mask in, logits out."""

from typing import Any, NamedTuple

import keras
from keras import ops

from yt8m_gat.models.feature_identifiers import feature_identifiers

FRAME_MASK = "frame_mask"
AUXILIARY_WEIGHT = 0.5
"""Weight of the loss of `ModelOutputs.auxiliary_logits`, that of TPN."""


class ModelOutputs(NamedTuple):
    """The outputs of one forward pass of a classifier.

    Attributes:
        logits: [B, C].
        frames: [B, T, D], the representation of each frame just before pooling over time, from
            which class activation over frames (TAF) is computed. Zero on padding. [B, T, H, W, C]
            for models of raw clips, their last convolutional maps. None for video-level models.
        attention_maps: `{feature: {level: [B, N, ...]}}` as the attention layer returns them
            (`[B, N, T, S]` for the global level); empty for models without attention.
        auxiliary_logits: [B, C] of a second head that helps in training alone, whose loss counts
            `AUXILIARY_WEIGHT` times that of the first; None without such a head.
        embedding: [B, E], the clip as one vector, which the head turns into logits; before its
            dropout, if it has one. None where the head gets features, or means of them, as they
            are.
    """

    logits: Any
    frames: Any
    attention_maps: dict[str, dict[str, Any]]
    auxiliary_logits: Any = None
    embedding: Any = None


class VideoClassifier(keras.Model):
    """Base of the classifiers: it fixes the inputs, and the constructor builds the model.

    The inputs are a mapping: each feature under its name, `[B, T, D]` (frame level) or `[B, D]`
    (video level), and for frame-level models `frame_mask`, boolean `[B, T]`, True at real frames.
    The model returns logits `[B, C]`; `probabilities` turns them into probabilities.

    Subclasses implement `forward`, create their layers in `__init__` and end it with `build_all()`.

    Args:
        feature_sizes: Feature name -> size D.
        num_classes: C.
        frame_level: Whether the features have a time axis.
    """

    def __init__(
        self, feature_sizes: dict[str, int], num_classes: int, frame_level: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not feature_sizes:
            raise ValueError("`feature_sizes` must name at least one feature. Received: {}")
        if FRAME_MASK in feature_sizes:
            raise ValueError(
                f"a feature must not be called {FRAME_MASK!r}; that is the mask's name"
            )
        if num_classes < 1:
            raise ValueError(f"`num_classes` must be positive. Received: num_classes={num_classes}")
        self.feature_sizes = dict(feature_sizes)
        self.identifiers = feature_identifiers(feature_sizes)
        self.num_classes = num_classes
        self.frame_level = frame_level
        # Whether there is a second set of normalization layers, which `forward` can use.
        self.dual_normalization = False
        # E of `ModelOutputs.embedding`; None for a model without embedding.
        self.embedding_size: int | None = None
        # The architecture of a network from a Keras file, as JSON, which the run folder keeps.
        self.backbone_architecture: str | None = None

    @property
    def attention_levels(self) -> tuple[str, ...]:
        """The levels of each feature's attention maps; empty for a model without attention."""
        return ()

    @property
    def exclusive_classes(self) -> bool:
        """Whether a clip has one class, so that probabilities are a softmax."""
        return False

    @property
    def has_square_maps(self) -> bool:
        """Whether every attention map is [B, N, T, T], also at local levels."""
        return False

    @property
    def has_costly_maps(self) -> bool:
        """Whether the global maps take O(T^2) memory that `forward_without_maps` saves."""
        return False

    @property
    def training_options(self) -> dict[str, Any]:
        """Constructor arguments of parts for training alone, and their values without the parts."""
        return {"dual_normalization": False} if self.dual_normalization else {}

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs the model and returns everything that objectives and reports need.

        Args:
            features: Feature name -> [B, T, D] or [B, D], float.
            frame_mask: Boolean [B, T]; None for video-level features.
            training: Whether dropout and batch statistics are used.
            auxiliary_normalization: Whether to use the second set of normalization layers (TAF's
                adversarial path) instead of the first.
        """
        raise NotImplementedError

    def forward_without_maps(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs `forward` for a caller that reads no attention maps.

        A model that saves something without its maps overrides this.
        """
        return self.forward(
            features,
            frame_mask,
            training=training,
            auxiliary_normalization=auxiliary_normalization,
        )

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Computes logits [B, C] from a mapping of inputs (see the class)."""
        features = {name: inputs[name] for name in self.feature_sizes}
        outputs = self.forward_without_maps(features, inputs.get(FRAME_MASK), training=training)
        if not isinstance(outputs, ModelOutputs):
            raise TypeError(
                f"{type(self).__name__}.forward must return ModelOutputs(logits, frames, "
                f"attention_maps). Received: {outputs!r}"
            )
        return outputs.logits

    def probabilities(self, logits: Any) -> Any:
        """Returns the probability of each class, [B, C]: the sigmoid of its logit.

        If classes exclude each other (`exclusive_classes`), it is their softmax.
        """
        return ops.softmax(logits) if self.exclusive_classes else ops.sigmoid(logits)

    def concatenate(self, features: dict[str, Any], frame_mask: Any = None) -> Any:
        """Concatenates the features: [B, T, sum D] or [B, sum D], exactly 0 on padding."""
        parts = [features[name] for name in self.feature_sizes]
        joined = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
        if frame_mask is None:
            return joined
        return ops.where(ops.expand_dims(frame_mask, -1), joined, ops.zeros_like(joined))

    def separate(self, frames: Any) -> list[Any]:
        """Cuts frames [B, T, sum D], as from `concatenate`, into one [B, T, D] a feature."""
        sizes = list(self.feature_sizes.values())
        if len(sizes) == 1:
            return [frames]
        ends = [sum(sizes[:index]) for index in range(1, len(sizes))]
        return ops.split(frames, ends, axis=-1)

    def symbolic_inputs(self, num_frames: int | None = None) -> dict[str, keras.KerasTensor]:
        """Returns Keras inputs for this model; with `num_frames` None, T is unknown."""
        time = (num_frames,) if self.frame_level else ()
        inputs = {
            name: keras.Input((*time, size), name=self.identifiers[name], dtype="float32")
            for name, size in self.feature_sizes.items()
        }
        if self.frame_level:
            inputs[FRAME_MASK] = keras.Input((num_frames,), name=FRAME_MASK, dtype="bool")
        return inputs

    def build_all(self, num_frames: int | None = None) -> None:
        """Creates all weights; the sizes are known, so the model need not be called first."""
        self(self.symbolic_inputs(num_frames))

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: the constructor has built everything."""
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns the base's arguments; subclasses add their own."""
        return {
            **super().get_config(),
            "feature_sizes": self.feature_sizes,
            "num_classes": self.num_classes,
        }
