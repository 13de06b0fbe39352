"""From the name of a recipe to a model."""

import contextlib
import inspect
import random
import typing
from collections.abc import Iterator
from typing import Any

import keras

from yt8m_gat.config import ConfigError, as_hinted, get_recipe
from yt8m_gat.models.dbof import DbofClassifier
from yt8m_gat.models.frame_level_logistic import FrameLevelLogisticClassifier
from yt8m_gat.models.lstm import LstmClassifier
from yt8m_gat.models.transformer import TransformerClassifier
from yt8m_gat.models.video_classifier import VideoClassifier
from yt8m_gat.models.video_level import VideoLevelClassifier

# Recipe.family -> builder. `yt8m_gat.recipes` holds the recipes themselves, because the commands
# must know their names before Keras is imported.
BUILDERS: dict[str, type[VideoClassifier]] = {
    "dbof": DbofClassifier,
    "frame_level_logistic": FrameLevelLogisticClassifier,
    "lstm": LstmClassifier,
    "transformer": TransformerClassifier,
    "video_level": VideoLevelClassifier,
}
# Builder arguments that have flags of their own.
_NO_OPTIONS = {"self", "feature_sizes", "num_classes", "kwargs"}


def build_model(
    name: str,
    feature_sizes: dict[str, int],
    num_classes: int,
    max_frames: int = 300,
    *,
    dtype: str | keras.DTypePolicy | None = None,
    seed: int | None = None,
    **options: Any,
) -> VideoClassifier:
    """Builds the architecture of the recipe `name`, with fresh weights.

    Args:
        name: A key of `yt8m_gat.recipes.RECIPES`, as given to `--model`.
        feature_sizes: Feature name -> size.
        num_classes: C.
        max_frames: T where the architecture needs a fixed one.
        dtype: Dtype policy of its layers, `mixed_bfloat16` say; None: Keras' global one. Logits are
            computed in float32 whatever it is.
        seed: The same gives the same initial weights and dropout masks; None: those that
            `keras.utils.set_random_seed` gives.
        **options: Builder arguments that replace the recipe's, `local_masks=("tp30",)` say.

    Returns:
        A built model; see `VideoClassifier` for its inputs and outputs.

    Raises:
        ConfigError: There is no such recipe, its builder knows no such option, or an option is of
            another type than its builder says.
        ValueError: The builder refuses an option's value.
    """
    recipe = get_recipe(name)
    builder = BUILDERS[recipe.family]
    arguments = {**recipe.options, **options}
    # Of the class itself, Keras' `__new__` would hide the constructor's signature.
    hints = typing.get_type_hints(builder.__init__)
    known = set(inspect.signature(builder.__init__).parameters) - _NO_OPTIONS
    for option, value in arguments.items():
        if option not in known:
            raise ConfigError(
                f"--{option} is no option of --model={name}; it has "
                f"{', '.join(f'--{other}' for other in sorted(known - {'max_frames'})) or 'none'}"
            )
        # Options may come from a file that anyone has written.
        arguments[option] = as_hinted(hints[option], value, f"--{option}")
    if "max_frames" in known:
        arguments["max_frames"] = max_frames
    with contextlib.nullcontext() if seed is None else _seeded(seed):
        return builder(
            feature_sizes=feature_sizes, num_classes=num_classes, dtype=dtype, **arguments
        )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds what is made inside: Keras draws the seeds that it is not given from `random`."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
