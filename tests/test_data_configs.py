import pytest

from mancs_jax.config import defaults, recipes
from mancs_jax.config.names import DATASETS

pytestmark = pytest.mark.quick


def differences(config, other) -> set[str]:
    """Names of the fields, two levels, in which two configurations differ."""
    config, other = config.to_dict(), other.to_dict()
    return {
        f"{name}.{inner}" if isinstance(config[name], dict) else name
        for name in config
        for inner in (config[name] if isinstance(config[name], dict) else [None])
        if (config[name] if inner is None else config[name][inner])
        != (other[name] if inner is None else other[name].get(inner))
    }


def test_duke_is_market_with_other_data():
    assert differences(recipes.duke(), defaults.get_config()) == {"data.name"}
    assert differences(recipes.duke("small"), recipes.market("small")) == {"data.name"}
    assert recipes.duke().data.name == "dukemtmc_reid"


@pytest.mark.parametrize(
    ("variant", "name", "testset", "pk"),
    [
        ("", "cuhk03_detected", 0, (32, 8)),
        ("labeled", "cuhk03_labeled", 0, (32, 8)),
        ("classic", "cuhk03_detected", 1, (32, 8)),
        ("labeled,classic", "cuhk03_labeled", 1, (32, 8)),
        ("small", "cuhk03_detected", 0, (32, 4)),
        ("classic,small,labeled", "cuhk03_labeled", 1, (32, 4)),
    ],
)
def test_cuhk03(variant, name, testset, pk):
    config = recipes.cuhk03(variant)
    data = config.data
    assert (data.name, data.get("testset", 0), (data.p, data.k)) == (name, testset, pk)
    assert config.recipe == ("small" if "small" in variant else "paper")
    changed = differences(config, recipes.market("small" if "small" in variant else ""))
    assert changed <= {"data.name", "data.testset", "data.p", "data.k"}
    assert data.name in DATASETS and config.is_locked


@pytest.mark.parametrize(
    ("recipe", "known"),
    [(recipes.duke, "authors, small, scratch"), (recipes.cuhk03, "authors, small, scratch, labeled, classic")],
    ids=["duke", "cuhk03"],
)
def test_unknown_variants(recipe, known):
    with pytest.raises(ValueError) as error:
        recipe("small,Small")
    assert str(error.value) == f"{recipe.__name__} has no variant 'Small'; it has: {known}"
