"""Optimizers by name."""

import keras

from yt8m_gat.config import TrainingConfig

_OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "Adam": keras.optimizers.Adam,
    "AdamW": keras.optimizers.AdamW,
    "SGD": keras.optimizers.SGD,
    "RMSprop": keras.optimizers.RMSprop,
    "Adagrad": keras.optimizers.Adagrad,
    "Lamb": keras.optimizers.Lamb,
}


def build_optimizer(config: TrainingConfig, num_replicas: int = 1) -> keras.optimizers.Optimizer:
    """The optimizer that `config` names, at its first learning rate.

    `clip_gradient_norm` bounds the l2 norm of each variable's gradient on its own, as the starter
    code does. With N replicas Keras clips before it adds, so that the bound of each, who is
    given the Nth part of the sum (`TrainingStep`), is the Nth part too.
    """
    optimizer = _OPTIMIZERS[config.optimizer](
        learning_rate=config.base_learning_rate,
        clipnorm=config.clip_gradient_norm / num_replicas or None,
    )
    if config.mixed_precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
