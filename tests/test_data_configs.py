import pytest

from configs import cuhk03, default, duke, market
from mancs_jax.data.arrays import DATASETS


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
    assert differences(duke.get_config(), default.get_config()) == {"data.name"}
    assert differences(duke.get_config("small"), market.get_config("small")) == {"data.name"}
    assert duke.get_config().data.name == "dukemtmc_reid"


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
    config = cuhk03.get_config(variant)
    data = config.data
    assert (data.name, data.get("testset", 0), (data.p, data.k)) == (name, testset, pk)
    assert config.recipe == ("small" if "small" in variant else "paper")
    changed = differences(config, market.get_config("small" if "small" in variant else ""))
    assert changed <= {"data.name", "data.testset", "data.p", "data.k"}
    assert data.name in DATASETS and config.is_locked


@pytest.mark.parametrize(
    ("module", "known"),
    [(duke, "authors, small"), (cuhk03, "authors, small, labeled, classic")],
    ids=["duke", "cuhk03"],
)
def test_unknown_variants(module, known):
    with pytest.raises(ValueError) as error:
        module.get_config("small,Small")
    assert str(error.value) == f"{module.__name__.replace('.', '/')}.py has no variant 'Small'; it has: {known}"
