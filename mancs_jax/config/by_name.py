"""All recipes in one recipe file: `get_config("market:small")`."""

from ml_collections import ConfigDict

from mancs_jax.config import checks, recipes
from mancs_jax.config.ablation import ablation

RECIPES = recipes.RECIPES | {"ablation": ablation}


def get_config(name: str) -> ConfigDict:
    """Returns the locked configuration of `NAME` or `NAME:VARIANT` (ValueError, one line: there is none)."""
    recipe, _, variant = name.partition(":")
    if recipe not in RECIPES:
        variants = [f"market:{variant}" for variant in recipes.COMMON]
        raise ValueError(
            f"no recipe {recipe!r}.{checks.suggest(recipe, [*RECIPES, *variants])} The recipes are "
            f"{', '.join(RECIPES)}, with variants such as {', '.join(variants)}; or give the path of a recipe file"
        )
    return RECIPES[recipe](variant) if variant else RECIPES[recipe]()
