"""Optimizers by name, and the averages of the weights that they keep."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from yt8m_gat.config import TrainingConfig


@keras.saving.register_keras_serializable(package="yt8m_gat")
class Adam(keras.optimizers.Adam):
    """Keras' Adam with its update in one kernel of TensorFlow.

    The formula is the same (epsilon is added to the square root of the second moment before its
    bias correction), in a third of the time: Keras makes ten passes over each tensor, the kernel
    makes one.
    """

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates `variable` and its two moments; see `keras.optimizers.Adam`."""
        if self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return

        def number(value: Any) -> tf.Tensor:
            return tf.cast(value, variable.dtype)

        index = self._get_variable_index(variable)
        step = number(self.iterations + 1)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(number(self.beta_1), step),
            beta2_power=tf.pow(number(self.beta_2), step),
            lr=number(learning_rate),
            beta1=number(self.beta_1),
            beta2=number(self.beta_2),
            epsilon=number(self.epsilon),
            grad=number(gradient),
        )


_OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "Adam": Adam,
    "AdamW": keras.optimizers.AdamW,
    "SGD": keras.optimizers.SGD,
    "RMSprop": keras.optimizers.RMSprop,
    "Adagrad": keras.optimizers.Adagrad,
    "Lamb": keras.optimizers.Lamb,
}


def build_optimizer(config: TrainingConfig, num_replicas: int = 1) -> keras.optimizers.Optimizer:
    """Builds the optimizer that `config` names, at its first learning rate.

    `clip_gradient_norm` bounds the l2 norm of each variable's gradient separately, as the starter
    code does, and `clip_global_norm` that of all gradients together. With N replicas Keras clips
    before it adds. Each replica has 1/N of the summed gradient (`TrainingStep`), so its bound is
    1/N too.
    """
    options: dict[str, Any] = {"momentum": config.momentum} if config.momentum else {}
    if config.ema_momentum:
        options |= {"use_ema": True, "ema_momentum": config.ema_momentum}
    optimizer = _OPTIMIZERS[config.optimizer](
        learning_rate=config.base_learning_rate,
        clipnorm=config.clip_gradient_norm / num_replicas or None,
        global_clipnorm=config.clip_global_norm / num_replicas or None,
        **options,
    )
    if config.mixed_precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def averaged_weights(optimizer: keras.optimizers.Optimizer) -> list[tf.Tensor] | None:
    """Returns Keras' moving averages of the trainable weights, in their order.

    None if the optimizer keeps none, or has not taken a step yet.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if not optimizer.use_ema or int(tf.convert_to_tensor(optimizer.iterations)) == 0:
        return None
    return [tf.convert_to_tensor(a) for a in optimizer._model_variables_moving_average]


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[bool]:
    """Gives a model the averages of its weights for a while; yields whether there are any."""
    averages = averaged_weights(model.optimizer)
    if averages is None:
        yield False
        return
    variables = model.trainable_variables
    raw = [tf.identity(tf.convert_to_tensor(variable)) for variable in variables]
    try:
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average)
        yield True
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)
