"""Configurations: all files are valid, and what cannot work gets one line that names the field."""

import json
import re

import pytest
from refusals import refused

from mancs_jax.config import checks as configuration
from mancs_jax.config import defaults
from mancs_jax.weights.start import check_start

pytestmark = pytest.mark.quick


def paper():
    config = defaults.get_config()
    config.pretrained = ""
    return config


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("data.p", 1, "at least 2"),
        ("data.k", 1, "at least 2"),
        ("data.k", 4.0, "whole number"),
        ("data.image_size", (384,), r"\(height, width\)"),
        ("data.image_size", (250, 128), "multiples of 32"),
        ("data.image_size", (0, 128), "multiples of 32"),
        ("model.arch", "resnet5", 'Did you mean "resnet50"'),
        ("model.fab_stages", (1, 2), "2, 3, 4, 5"),
        ("loss.sampling", "curiculum", 'Did you mean "curriculum"'),
        ("loss.t1", 30.0, "above config.loss.t0"),
        ("loss.b", 0.0, "above 0"),
        ("loss.b", 2.0, "at most 1"),
        ("loss.margin", -0.1, "at least 0"),
        ("loss.margin", float("nan"), "finite number"),
        ("epochs", float("inf"), "finite number"),
        ("seed", -1, "at least 0"),
        ("eval_every", 5.0, "config.data.validation_ids is 0"),
        ("data.testset", 1, "market1501 has no test sets"),
        ("loss.margin", "0.5", "has to be a number"),
        ("optim.learning_rate", 0.0, "above 0"),
        ("epochs", 0.0, "above 0"),
        ("augment.flip", 1.5, "from 0 to 1"),
        ("augment.erase_area", (0.4, 0.02), "least, most"),
        ("augment.crop_area", (0.5, 1.2), "at most 1"),
        ("model.dropout", 1.0, "below 1"),
        ("dtype", "float16", "float32, bfloat16"),
        ("seed", True, "has to be a number"),
    ],
)
def test_impossible_values_are_refused_in_one_line(field, value, words):
    config = paper()
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    line = refused(configuration.validate, config, num_devices=8)
    assert re.search(words, line) and f"config.{field}" in line


def test_a_batch_that_devices_cannot_share():
    words = "config.data.p * config.data.k = 16 * 16 = 256 images cannot be split evenly over 7 devices"
    assert words in refused(configuration.validate, paper(), num_devices=7)


def test_an_unknown_field_names_the_right_one():
    config = paper()
    config.optim.learning_rat = 1e-3
    words = 'config.optim.learning_rat: no such field. Did you mean "optim.learning_rate"'
    assert words in refused(configuration.validate, config, num_devices=1)


def test_a_missing_field_is_named():
    config = paper()
    del config.loss.margin
    assert "config.loss.margin is missing" in refused(configuration.validate, config, num_devices=1)


def test_more_identities_a_batch_than_there_are():
    config = paper()
    configuration.validate_identities(config, [16])
    with pytest.raises(ValueError, match="p is 16, but market1501 has 15 identities .*; take --config.data.p=15 or"):
        configuration.validate_identities(config, [15])
    config.data.validation_ids = 5
    configuration.validate_identities(config, [21])
    assert "are held out; a negative needs two" in refused(configuration.validate_identities, config, [6])
    assert "config.data.validation_ids = 5 are held out" in refused(configuration.validate_identities, config, [20])


def test_missing_weights_are_named_with_the_way_out():
    config = paper()
    config.pretrained = ""
    check_start(config)
    config.pretrained = "nowhere/resnet50.pth"
    line = refused(check_start, config)
    assert line.startswith("config.pretrained: no file nowhere/resnet50.pth; ")
    torchvision, timm = "download.pytorch.org/models/resnet50-0676ba61.pth", "huggingface.co/timm/resnet50"
    for words in (
        torchvision,
        timm,
        "pretrained model (market1501, people)",
        "start from scratch with --config.pretrained=''",
    ):
        assert words in line


def test_json_and_back_is_the_same():
    config = paper()
    read = configuration.from_json(json.loads(json.dumps(config.to_dict())))
    assert configuration.flatten(read) == configuration.flatten(config)
    assert configuration.differences(json.loads(json.dumps(config.to_dict())), config.to_dict()) == []


def test_a_configuration_without_a_group_of_fields_is_refused():
    fields = paper().to_dict()
    del fields["optim"]
    assert refused(configuration.from_json, fields) == "config.optim is missing"


def test_differences_are_listed_by_field():
    old, new = paper(), paper()
    new.optim.learning_rate = 1e-3
    new.data.image_size = (128, 64)
    new.data.root = "elsewhere"  # changes no number
    assert configuration.differences(old.to_dict(), new.to_dict()) == [
        "data.image_size: (256, 128) -> (128, 64)",
        "optim.learning_rate: 0.0003 -> 0.001",
    ]


def test_a_classic_split_is_scored_on_its_test_set_alone():
    config = paper()
    config.data.name, config.data.testset = "cuhk03_labeled", 20
    configuration.validate(config, num_devices=1)
    config.data.validation_ids = 5
    line = refused(configuration.validate, config, num_devices=1)
    assert "config.data.validation_ids is 5, but config.data.testset is 20" in line
    config.data.validation_ids, config.data.testset = 0, 21
    assert "CUHK03 has test sets 1 to 20" in refused(configuration.validate, config, num_devices=1)


@pytest.mark.parametrize(("once", "today"), [(True, (2, 3, 4, 5)), (False, ())])
def test_runs_that_recomputed_all_stages_or_none_are_read(once, today):
    fields = defaults.get_config().to_dict() | {"remat": once}
    fields.pop("accumulate")
    config = configuration.from_json(fields)
    assert config.remat == today and config.accumulate == 1
    configuration.validate(config, num_devices=1)


@pytest.mark.parametrize(
    ("groups", "devices", "accumulate", "words"),
    [(4, 1, 1, ""), (4, 8, 1, ""), (4, 2, 2, ""), (8, 2, 2, ""), (0, 8, 2, ""), (1, 8, 2, "")]
    + [(4, 8, 2, "16 parts (8 devices"), (6, 4, 1, "does not divide"), (16, 4, 8, "32 parts")],
)
def test_groups_of_batch_norm_fit_the_parts_of_a_batch(groups, devices, accumulate, words):
    config = paper()
    config.batch_norm_groups, config.accumulate = groups, accumulate
    if not words:
        configuration.validate(config, num_devices=devices)
    else:
        line = refused(configuration.validate, config, num_devices=devices)
        assert line.startswith(f"config.batch_norm_groups is {groups}, ") and words in line


@pytest.mark.parametrize(("sync", "groups"), [(True, 1), (False, 0)])
def test_a_run_from_before_the_groups_keeps_its_statistics(sync, groups):
    old = paper().to_dict()
    del old["batch_norm_groups"]
    assert configuration.from_json(old | {"batch_norm_sync": sync}).batch_norm_groups == groups
