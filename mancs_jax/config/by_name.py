"""Recipes by name, in the form of a recipe file: `get_config("market:small")`."""

from ml_collections import ConfigDict

from mancs_jax.config import checks, recipes
from mancs_jax.config.ablation import ablation

RECIPES = {
    "market": recipes.market,
    "duke": recipes.duke,
    "cuhk03": recipes.cuhk03,
    "walkers": recipes.walkers,
    "finetune": recipes.finetune,
    "ablation": ablation,
}


def get_config(name: str) -> ConfigDict:
    """The locked configuration of `NAME` or `NAME:VARIANT`.

    Raises:
      ValueError: one line: there is no such recipe, variant or row.
    """
    recipe, _, variant = name.partition(":")
    if recipe not in RECIPES:
        variants = [f"market:{variant}" for variant in recipes.COMMON]
        raise ValueError(
            f"no recipe {recipe!r}.{checks.suggest(recipe, [*RECIPES, *variants])} The recipes are "
            f"{', '.join(RECIPES)}, with variants such as {', '.join(variants)}; or give the path of a recipe file"
        )
    return RECIPES[recipe](variant) if variant else RECIPES[recipe]()
