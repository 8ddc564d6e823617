"""The two recipes: every row in which the paper and the release differ is a field, and does what it says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from tiny_runs import write_data

from mancs_jax import run
from mancs_jax.config import checks as configuration
from mancs_jax.config import defaults, recipes
from mancs_jax.config.names import DATASETS
from mancs_jax.data import arrays
from mancs_jax.data.training_data import load_training_data

TESTS = Path(__file__).parent
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (TESTS.parent / "docs" / "paper.md").read_text().splitlines()
    if line.startswith("|") and ".py::" in line and line.count("|") == 7  # of six cells: the fields
]
SAME_IN_BOTH = (  # loss.probability is softmax: eq. 7 as printed has no term for the other classes
    {"loss.probability", "loss.label_smoothing", "model.head_init", "model.rank_dim", "choose_on"}
    | {f"optim.{name}" for name in ("schedule", "head_multiplier", "weight_decay", "name", "momentum")}
    | {"augment.half_size_epochs"}
)


def changes(config, other):
    one, two = configuration.flatten(config), configuration.flatten(other)
    return {name: one[name] for name in one if one[name] != two[name]}


def test_every_row_of_the_page_is_a_field_with_a_test():
    fields = [row[1].strip("`") for row in ROWS]
    changed = changes(recipes.market("authors"), recipes.market()).keys() - {"recipe"}
    assert len(fields) == len(set(fields)) and set(fields) == changed | SAME_IN_BOTH
    for row in ROWS:
        file, name = row[-1].split("::")
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE), row[-1]


@pytest.mark.parametrize("recipe", [recipes.market, recipes.duke, recipes.cuhk03, recipes.walkers])
@pytest.mark.parametrize("variant", ["", "authors"])
def test_each_data_set_has_both_recipes(recipe, variant):
    config = recipe(variant).unlock()
    config.pretrained = ""
    configuration.validate(config, num_devices=1)
    assert config.loss.positives == ("later" if variant else "all")
    assert ("authors" in config.recipe) == bool(variant)


def test_duke_is_market_with_other_data():
    assert changes(recipes.duke(), defaults.get_config()) == {"data.name": "dukemtmc_reid"}
    assert changes(recipes.duke("small"), recipes.market("small")) == {"data.name": "dukemtmc_reid"}


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
def test_variants_of_cuhk03(variant, name, testset, pk):
    config = recipes.cuhk03(variant)
    data = config.data
    assert (data.name, data.testset, (data.p, data.k)) == (name, testset, pk)
    assert config.recipe == ("small" if "small" in variant else "paper")
    changed = changes(config, recipes.market("small" if "small" in variant else "")).keys()
    assert changed <= {"data.name", "data.testset", "data.p", "data.k"}
    assert data.name in DATASETS and config.is_locked


def test_variants_combine_in_any_order():
    both, other = recipes.market("authors,small"), recipes.market("small,authors")
    assert changes(both, other) == {} and both.recipe == "authors,small"
    assert both.model.arch == "resnet18" and both.loss.positives == "later" and both.data.k == 4
    # The mean arrives at the hardest negative after the same share of the training.
    whole, short = (c.loss.num_nearest / c.loss.mu_step / c.epochs for c in (recipes.market("authors"), both))
    assert short == pytest.approx(whole, rel=0.1)
    with pytest.raises(ValueError, match="market has no variant 'author'; it has: authors, small, scratch"):
        recipes.market("author")


def test_an_older_configuration_is_completed_with_what_was_so_then():
    fields = defaults.get_config().to_dict()
    del fields["choose_on"], fields["data"]["unused_ids"], fields["model"]["fab_init"]
    fields["optim"]["learning_rate"] = 1.0
    config = configuration.from_json(json.loads(json.dumps(fields)))
    assert config.choose_on == "validation" and config.data.unused_ids == 0 and config.optim.learning_rate == 1.0
    assert config.model.fab_init == 0.001 and defaults.get_config().model.fab_init == 0.0  # not what is so now
    assert configuration.differences(fields, config.to_dict()) == []


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def tiny_config(root, **changed):
    config = tiny.get_config().unlock()
    config.data.root = str(root)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changed.items()})
    return config.lock()


def test_unused_identities_are_not_trained_on(root):
    everybody, _, none = load_training_data(tiny_config(root))
    some = load_training_data(tiny_config(root, data__unused_ids=3)).split
    assert none == {}
    assert len(np.unique(everybody.pid)) == 12 and len(np.unique(some.pid)) == 9
    assert set(some.name) == {name for name, pid in zip(everybody.name, everybody.pid) if pid in some.pid}
    other = load_training_data(tiny_config(root, data__unused_ids=3, seed=1)).split
    assert set(other.pid) != set(some.pid)
    held, num_ids, validation = load_training_data(tiny_config(root, data__unused_ids=3, data__validation_ids=3))
    query, _ = validation["market1501"]
    assert len(np.unique(held.pid)) == 6 == sum(num_ids) and set(query.pid) <= set(some.pid)
    with pytest.raises(ValueError, match=r"config.data.p is 4, but .* 12 identities .*config.data.unused_ids = 9"):
        load_training_data(tiny_config(root, data__unused_ids=9))


@pytest.mark.usefixtures("one_device")
def test_choosing_on_the_test_set_says_so(root, tmp_path):
    parts = load_training_data(tiny_config(root, choose_on="test")).validation["market1501"]
    official = [arrays.load_split("market1501", root, part, (64, 32)) for part in ("query", "gallery")]
    assert [arrays.fingerprint(part) for part in parts] == [arrays.fingerprint(part) for part in official]
    config = tiny.get_config("bare").unlock()
    config.data.root, config.choose_on, config.eval_every, config.max_steps = str(root), "test", 1.0, 4
    config.data.unused_ids = 4  # eight identities: one compiled step serves tests/test_lost_work.py, too
    (result,) = run.train_and_evaluate(config.lock(), tmp_path).values()
    assert result["chosen_on"] == "test" and result["split"] == "official" and result["protocol"] == "single_query"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["validation/mAP"] for row in rows if "validation/mAP" in row}
    assert list(scores) == [2, 4] and result["mAP"] == pytest.approx(max(scores.values()), abs=1e-6)
    with pytest.raises(ValueError, match="config.choose_on is 'test', but config.data.validation_ids"):
        configuration.validate(tiny_config(root, choose_on="test", data__validation_ids=2), 1)


def test_fine_tuning_starts_from_a_pretrained_model_and_needs_a_data_set():
    config = recipes.finetune().unlock()
    assert config.like_pretrained and config.batch_norm_frozen and config.pretrained == "market1501"
    config.data.name = "mydata"
    configuration.validate(config, num_devices=1)
    with pytest.raises(ValueError, match="finetune"):
        recipes.finetune("author")


def test_the_general_recipe_trains_on_several_data_sets():
    config = recipes.general()
    configuration.validate(config, num_devices=1)
    assert config.data.name.count(",") == 2 and config.data.balance == "sources" and config.loss.negatives == "source"
    assert tuple(config.model.mixstyle_stages) == (2, 3)
    assert (config.pretrained, config.like_pretrained, config.augment.erase) == ("market1501", True, 0.0)
    with pytest.raises(ValueError, match="general has no variant 'small'"):
        recipes.general("small")
