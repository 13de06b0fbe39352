"""The starter code's DbofModel: a deep bag of sampled frames."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from yt8m_gat.models.classifier_head import build_head
from yt8m_gat.models.video_classifier import ModelOutputs, VideoClassifier

POOLINGS = ("max", "average")
ACTIVATIONS = ("sigmoid", "relu6", "relu", "elu", "tanh")

# Momentum of the moving averages. With the starter code's 0.999, 94 % of the initial values remain
# after 60 steps, and an evaluation says little about the training; with 0.9 they fade in 40 steps.
_NORM_MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="yt8m_gat")
class DbofClassifier(VideoClassifier):
    """Deep bag of frames: K frames of each clip are coded one by one, then pooled.

    ```
    x_k    = K of the clip's real frames concat_m x_m       [B, K, D]
    c_k    = f(BN(BN(x_k) W))                               [B, K, clusters]
    h      = f(BN(pool_k(c_k) V))                           [B, hidden]
    logits = head(h)
    ```

    These frames are taken from a clip with n real ones, numbered 0 .. n - 1:

    | `sample_random_frames` | training | evaluation and inference |
    |---|---|---|
    | True | K draws with replacement | `(2 k + 1) n // (2 K)`, evenly spaced over the clip |
    | False | K in a row from a random start | K in a row from the middle of the clip |

    Predictions are thus deterministic. If a clip is shorter than K in a row, its last frame is
    repeated.

    Masking: padded frames are never taken, regardless of their values and places. A clip without
    any real frame counts as K zero frames.

    Args:
        feature_sizes: Feature name -> D.
        num_classes: C.
        iterations: K.
        sample_random_frames: See above.
        dbof_add_batch_norm: Whether to use BN; without it the dense layers have biases.
        dbof_cluster_size: Number of clusters.
        dbof_hidden_size: Units of the hidden layer.
        dbof_pooling_method: `max` or `average`.
        dbof_activation: f: `sigmoid`, `relu6`, `relu`, `elu` or `tanh`.
        video_level_classifier_model: The head, `LogisticModel` or `MoeModel`.
        moe_num_mixtures: Experts per class of `MoeModel`.
        dual_normalization: Whether there is a second set of BN for an adversarial path (TAF).

    Raises:
        ValueError: A size is not positive, or a name is unknown.

    Reference: YouTube-8M (Abu-El-Haija et al., 2016), section 5.1.2.
    """

    def __init__(
        self,
        feature_sizes: dict[str, int],
        num_classes: int,
        iterations: int = 30,
        sample_random_frames: bool = True,
        dbof_add_batch_norm: bool = True,
        dbof_cluster_size: int = 8192,
        dbof_hidden_size: int = 1024,
        dbof_pooling_method: str = "max",
        dbof_activation: str = "sigmoid",
        video_level_classifier_model: str = "MoeModel",
        moe_num_mixtures: int = 2,
        dual_normalization: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_sizes, num_classes, frame_level=True, **kwargs)
        for name, size in (
            ("iterations", iterations),
            ("dbof_cluster_size", dbof_cluster_size),
            ("dbof_hidden_size", dbof_hidden_size),
        ):
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
        for name, value, names in (
            ("dbof_pooling_method", dbof_pooling_method, POOLINGS),
            ("dbof_activation", dbof_activation, ACTIVATIONS),
        ):
            if value not in names:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(names)}. Received: {name}={value!r}"
                )
        self.iterations = iterations
        self.sample_random_frames = sample_random_frames
        self.dbof_add_batch_norm = dbof_add_batch_norm
        self.dbof_cluster_size = dbof_cluster_size
        self.dbof_hidden_size = dbof_hidden_size
        self.dbof_pooling_method = dbof_pooling_method
        self.dbof_activation = dbof_activation
        self.video_level_classifier_model = video_level_classifier_model
        self.moe_num_mixtures = moe_num_mixtures
        self.dual_normalization = dual_normalization

        self.frame_seeds = keras.random.SeedGenerator(name="frame_seeds")
        self.normalizations = self._normalizations("normalization")
        self.auxiliary_normalizations = (
            self._normalizations("auxiliary_normalization") if dual_normalization else []
        )
        self.clusters = self._dense(dbof_cluster_size, "clusters")
        self.hidden = self._dense(dbof_hidden_size, "hidden")
        self.activation = keras.layers.Activation(
            dbof_activation, dtype=self.dtype_policy, name="activation"
        )
        self.head = build_head(video_level_classifier_model, num_classes, moe_num_mixtures)
        self.embedding_size = dbof_hidden_size
        self.build_all()

    def _normalizations(self, suffix: str) -> list[keras.layers.BatchNormalization]:
        """Builds the BN of input, clusters and hidden layer; none without `dbof_add_batch_norm`."""
        if not self.dbof_add_batch_norm:
            return []
        layers = []
        for part, shape in (
            ("input", (None, None, sum(self.feature_sizes.values()))),
            ("cluster", (None, None, self.dbof_cluster_size)),
            ("hidden", (None, self.dbof_hidden_size)),
        ):
            name = f"{part}_{suffix}"
            layer = keras.layers.BatchNormalization(
                momentum=_NORM_MOMENTUM, dtype=self.dtype_policy, name=name
            )
            # Built here, since `build_all` calls only the first set; the scope gives the weights
            # the same paths as in a call.
            with keras.name_scope(self.name):
                layer.build(shape)
            layers.append(layer)
        return layers

    def _dense(self, units: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            use_bias=not self.dbof_add_batch_norm,
            # The starter code draws from a normal with deviation 1 / sqrt(fan in).
            kernel_initializer=keras.initializers.VarianceScaling(
                1.0, "fan_in", "untruncated_normal"
            ),
            dtype=self.dtype_policy,
            name=name,
        )

    def sampled_positions(self, num_real: Any, training: bool) -> Any:
        """Chooses K of the real frames of each clip; in training it may draw them at random.

        Args:
            num_real: int32 [B], n.
            training: Whether to draw them; see the class.

        Returns:
            int32 [B, K], in [0, n); 0 where n is 0.
        """
        step = ops.arange(self.iterations, dtype="int32")[None, :]  # [1, K]
        num_real = ops.maximum(num_real, 1)[:, None]  # [B, 1]
        last = num_real - 1
        if self.sample_random_frames:
            if not training:
                return (2 * step + 1) * num_real // (2 * self.iterations)
            shape = (ops.shape(num_real)[0], self.iterations)
            return self._draw(shape, num_real)
        starts = ops.maximum(num_real - self.iterations, 0) + 1  # [B, 1], the number of starts
        first = self._draw((ops.shape(num_real)[0], 1), starts) if training else (starts - 1) // 2
        return ops.minimum(first + step, last)

    def _draw(self, shape: tuple[Any, ...], stop: Any) -> Any:
        """Draws integers in [0, stop), int32."""
        share = keras.random.uniform(shape, dtype="float32", seed=self.frame_seeds)
        drawn = ops.cast(ops.floor(share * ops.cast(stop, "float32")), "int32")
        return ops.minimum(drawn, stop - 1)  # The product may round up to `stop`.

    def sample(self, frames: Any, frame_mask: Any, training: bool) -> Any:
        """Samples [B, K, D] from frames [B, T, D]; see the class."""
        batch_size, num_frames = ops.shape(frames)[0], ops.shape(frames)[1]
        if frame_mask is None:
            num_real = ops.broadcast_to(num_frames, (batch_size,))
            return tf.gather(frames, self.sampled_positions(num_real, training), batch_dims=1)
        num_real = ops.sum(ops.cast(frame_mask, "int32"), axis=1)
        positions = self.sampled_positions(num_real, training)
        # `order` lists the real frames first, then the padding, each in order of time.
        times = ops.arange(num_frames, dtype="int32")
        order = ops.argsort(ops.where(frame_mask, times, times + num_frames), axis=1)
        return tf.gather(frames, tf.gather(order, positions, batch_dims=1), batch_dims=1)

    def forward(
        self,
        features: dict[str, Any],
        frame_mask: Any = None,
        training: bool = False,
        auxiliary_normalization: bool = False,
    ) -> ModelOutputs:
        """Runs the model; the `frames` of its outputs are the features [B, T, sum D_m] themselves.

        The logits depend only on the sampled frames. See `VideoClassifier.forward`.
        """
        if auxiliary_normalization and not self.dual_normalization:
            raise ValueError(
                "`auxiliary_normalization` needs a model with a second set of normalization "
                "layers. Received: dual_normalization=False; construct it with "
                "dual_normalization=True"
            )
        normalizations = (
            self.auxiliary_normalizations if auxiliary_normalization else self.normalizations
        )

        def normalize(index: int, x: Any) -> Any:
            return normalizations[index](x, training=training) if normalizations else x

        frames = self.concatenate(features, frame_mask)
        sampled = normalize(0, self.sample(frames, frame_mask, training))
        codes = self.activation(normalize(1, self.clusters(sampled)))
        pool = ops.max if self.dbof_pooling_method == "max" else ops.mean
        hidden = self.activation(normalize(2, self.hidden(pool(codes, axis=1))))
        return ModelOutputs(self.head(hidden), frames, {}, embedding=hidden)

    def copy_normalization_to_auxiliary(self) -> None:
        """Copies the values of the first set of normalization layers to the second."""
        for main, auxiliary in zip(self.normalizations, self.auxiliary_normalizations, strict=True):
            auxiliary.set_weights(main.get_weights())

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "iterations": self.iterations,
            "sample_random_frames": self.sample_random_frames,
            "dbof_add_batch_norm": self.dbof_add_batch_norm,
            "dbof_cluster_size": self.dbof_cluster_size,
            "dbof_hidden_size": self.dbof_hidden_size,
            "dbof_pooling_method": self.dbof_pooling_method,
            "dbof_activation": self.dbof_activation,
            "video_level_classifier_model": self.video_level_classifier_model,
            "moe_num_mixtures": self.moe_num_mixtures,
            "dual_normalization": self.dual_normalization,
        }
