"""From the name of a recipe to a model."""

from collections.abc import Callable
from typing import Any

from yt8m_gat.config import get_recipe
from yt8m_gat.models.transformer import TransformerClassifier
from yt8m_gat.models.video_classifier import VideoClassifier

# Recipe.family -> builder. `RECIPES` in config.py holds the recipes themselves, because the
# scripts must know their names before Keras is imported.
BUILDERS: dict[str, Callable[..., VideoClassifier]] = {
    "transformer": TransformerClassifier,
}


def build_model(
    name: str,
    feature_sizes: dict[str, int],
    num_classes: int,
    max_frames: int = 300,
    **options: Any,
) -> VideoClassifier:
    """Builds the architecture of the recipe `name`, with fresh weights.

    Args:
        name: A key of `yt8m_gat.config.RECIPES`, as given to `--model`.
        feature_sizes: Feature name -> size.
        num_classes: C.
        max_frames: T where the architecture needs a fixed one.
        **options: Builder arguments that replace the recipe's, `local_masks=("tp30",)` say.

    Returns:
        A built model; see `VideoClassifier` for its inputs and outputs.

    Raises:
        ConfigError: There is no such recipe.
        TypeError: The builder knows no such option.
        ValueError: The builder refuses an option's value.
    """
    recipe = get_recipe(name)
    arguments = {**recipe.options, **options}
    if recipe.frame_level:
        arguments["max_frames"] = max_frames
    return BUILDERS[recipe.family](
        feature_sizes=feature_sizes, num_classes=num_classes, **arguments
    )
