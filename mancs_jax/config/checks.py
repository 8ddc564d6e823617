"""Validates a configuration before anything expensive starts, and converts it to JSON and back."""

import difflib
import math
import numbers
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from mancs_jax.config import defaults
from mancs_jax.config.defaults import ABOVE_0, AT_LEAST, CHOICES, PROBABILITIES, RANGES, SIDE
from mancs_jax.config.names import CUHK03, NUM_TESTSETS, ids_of_each_source, sources

# Fields that do not change the trained weights: a run may be resumed with other values.
FREE = ("data.root", "pretrained", "remat", "max_steps", "keep_checkpoints", "eval_batch", "eval_baselines")
# Values of runs that were saved before the field existed, where they are not the defaults of today.
FORMER = {"model.fab_init": 0.001}
# Names in other libraries -> our fields.
OTHER_NAMES = {
    "batch_size": ("data.p", "data.k"),  # identities in a batch, images of each
    "lr": ("optim.learning_rate",),
    "num_instances": ("data.k",),
    "optimizer": ("optim.name",),
}


def flatten(config: ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """Returns `{"data.p": 16, ...}`: every field by its dotted name, with tuples where JSON has lists."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = tuple(value) if isinstance(value, list | tuple) else value
    return flat


def from_json(fields: dict[str, Any]) -> ConfigDict:
    """Returns the locked configuration that was written as `config.to_dict()`; ValueError as `completed`."""

    def tuples(value):
        if isinstance(value, dict):
            return {name: tuples(inner) for name, inner in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return ConfigDict(completed(tuples(fields))).lock()


def completed(fields: dict[str, Any]) -> dict[str, Any]:
    """Fills in the fields that an older configuration lacks, with the values of its time.

    Raises ValueError, one line, where a whole group of fields is missing, which no version has left out.
    """
    former = defaults.get_config()
    former.update_from_flattened_dict(FORMER)
    if "batch_norm_sync" in fields:  # formerly: over all devices, or over each
        fields = fields | {"batch_norm_groups": int(fields["batch_norm_sync"])}
        del fields["batch_norm_sync"]
    if isinstance(fields.get("remat"), bool):  # formerly: all stages or none
        fields = fields | {"remat": former.remat if fields["remat"] else ()}
    groups = {name: group for name, group in former.to_dict().items() if isinstance(group, dict)}
    if missing := sorted(groups.keys() - fields.keys()):
        raise ValueError(f"config.{missing[0]} is missing")
    groups = {name: group | fields[name] for name, group in groups.items()}
    return former.to_dict() | fields | groups


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns a line `field: old value -> new value` for each field that differs, except FREE."""
    old, new = flatten(completed(old)), flatten(completed(new))
    missing = "(no such field)"
    return [
        f"{name}: {old.get(name, missing)} -> {new.get(name, missing)}"
        for name in sorted(old.keys() | new.keys())
        if name not in FREE and old.get(name, missing) != new.get(name, missing)
    ]


def suggest(name: str, known: list[str]) -> str:
    """Returns ' Did you mean "..."?' where a known name is similar, or the same in another library; otherwise ''."""
    same = [field for field in OTHER_NAMES.get(name.rpartition(".")[2], ()) if field in known]
    meant = same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    quoted = " and ".join(f'"{field}"' for field in meant)
    return f" Did you mean {quoted}?" if meant else ""


def validate(config: ConfigDict, num_devices: int) -> None:
    """Refuses what cannot work, before data are read or an accelerator is used.

    `num_devices` share a batch. Raises ValueError, one line: the field, its value, what it may be.
    """
    fields, known = flatten(config), flatten(defaults.get_config())
    for name in sorted(fields.keys() | known.keys()):
        if name not in known:
            raise ValueError(f"config.{name}: no such field.{suggest(name, list(known))}")
        if name not in fields:
            raise ValueError(f"config.{name} is missing; its default is {known[name]!r}")
        _check_type(name, fields[name], known[name])
    for name, choices in CHOICES.items():
        if fields[name] not in choices:
            text = ", ".join(map(str, choices))
            hint = suggest(str(fields[name]), [str(choice) for choice in choices])
            raise ValueError(f"config.{name} is {fields[name]!r}; it may be {text}.{hint}")
    for least, names in AT_LEAST.items():
        for name in names:
            if fields[name] < least:
                raise ValueError(f"config.{name} is {fields[name]}; it has to be at least {least}")
    for name in ABOVE_0:
        if not fields[name] > 0:
            raise ValueError(f"config.{name} is {fields[name]}; it has to be above 0")
    for name in PROBABILITIES:
        if not 0 <= fields[name] <= 1 or (name == "model.dropout" and fields[name] == 1):
            raise ValueError(f"config.{name} is {fields[name]}; it has to be from 0 to 1 (dropout below 1)")
    for name in RANGES:
        low, high = fields[name] if len(fields[name]) == 2 else (0, 0)
        if not 0 < low <= high or (name.endswith("area") and high > 1):
            raise ValueError(f"config.{name} is {fields[name]}; it is (least, most), above 0, an area at most 1")
    _check_dataset(fields)
    _check_sizes(fields, num_devices)
    if fields["choose_on"] == "test" and fields["data.validation_ids"]:
        raise ValueError(
            "config.choose_on is 'test', but config.data.validation_ids holds identities out: set one of both"
        )
    for name in ("like_pretrained", "batch_norm_frozen"):
        if fields[name] and not fields["pretrained"]:
            raise ValueError(f"config.{name} is True, but config.pretrained names no pretrained model")
    if fields["early_stopping"] and not (fields["data.validation_ids"] and fields["eval_every"]):
        raise ValueError(
            f"config.early_stopping is {fields['early_stopping']}, which needs held-out identities: set "
            "config.data.validation_ids and config.eval_every"
        )
    if fields["eval_every"] and fields["choose_on"] == "validation" and not fields["data.validation_ids"]:
        raise ValueError(
            f"config.eval_every is {fields['eval_every']}, but config.data.validation_ids is 0: query and gallery "
            "are not evaluated during training; hold identities out, or set eval_every to 0"
        )


def _check_type(name: str, value: Any, default: Any) -> None:
    number = isinstance(default, numbers.Number) and not isinstance(default, bool)
    if number and (isinstance(value, bool) or not isinstance(value, numbers.Number)):
        raise ValueError(f"config.{name} is {value!r}; it has to be a number, as {default}")
    if isinstance(default, int) and not isinstance(default, bool) and not isinstance(value, int):
        raise ValueError(f"config.{name} is {value!r}; it has to be a whole number, as {default}")
    if not number and not isinstance(value, type(default)):
        raise ValueError(f"config.{name} is {value!r}; it has to be a {type(default).__name__}, as {default!r}")
    if number and not math.isfinite(value):
        raise ValueError(f"config.{name} is {value}; it has to be a finite number, as {default}")


def _check_dataset(fields: dict[str, Any]) -> None:
    name, testset = fields["data.name"], fields["data.testset"]
    data_sets, p = sources(name), fields["data.p"]
    if not all(data_sets) or len(set(data_sets)) < len(data_sets):
        raise ValueError(f"config.data.name is {name!r}; it is one data set, or several with commas between, each once")
    if len(data_sets) > p:
        raise ValueError(f"config.data.p is {p}, but config.data.name has {len(data_sets)} data sets: raise p")
    if len(data_sets) > 1 and fields["data.unused_ids"]:
        raise ValueError(
            f"config.data.unused_ids is {fields['data.unused_ids']}, which is for one data set, and config.data.name "
            f"has {len(data_sets)}: it has to be 0"
        )
    if len(data_sets) > 1 and fields["choose_on"] == "test":
        raise ValueError("config.choose_on is 'test', which is for one data set: hold identities out of each instead")
    if fields["loss.negatives"] == "source" and (fields["data.balance"] != "sources" or p % len(data_sets)):
        raise ValueError(
            f"config.loss.negatives is 'source', which needs as many identities of each data set in a batch: set "
            f"config.data.balance to 'sources', and config.data.p = {p} to a multiple of {len(data_sets)}"
        )
    if fields["loss.negatives"] == "source" and p == len(data_sets):
        raise ValueError(
            f"config.loss.negatives is 'source', but a batch of config.data.p = {p} identities has one of each data "
            "set, so that an anchor has no negative; raise p"
        )
    if testset and name not in CUHK03:
        raise ValueError(f"config.data.testset is {testset}, but {name} has no test sets: it has to be 0")
    if testset and fields["data.validation_ids"]:
        raise ValueError(
            f"config.data.validation_ids is {fields['data.validation_ids']}, but config.data.testset is {testset}: a "
            "model of a classic split is evaluated on its test set; set one of them to 0"
        )
    if testset > NUM_TESTSETS:
        raise ValueError(f"config.data.testset is {testset}; CUHK03 has test sets 1 to {NUM_TESTSETS}")


def _check_sizes(fields: dict[str, Any], num_devices: int) -> None:
    size, p, k = fields["data.image_size"], fields["data.p"], fields["data.k"]
    is_size = len(size) == 2 and all(isinstance(side, int) and side > 0 and side % SIDE == 0 for side in size)
    if not is_size:
        raise ValueError(
            f"config.data.image_size is {size}; it has to be (height, width), multiples of {SIDE}: "
            "--config.data.image_size='(256, 128)'"
        )
    accumulate = fields["accumulate"]
    if (p * k) % (num_devices * accumulate):
        shares = f" with {accumulate} micro-batches each (config.accumulate)" if accumulate > 1 else ""
        raise ValueError(
            f"a batch of config.data.p * config.data.k = {p} * {k} = {p * k} images cannot be split evenly over "
            f"{num_devices} devices{shares}; choose p and k so that {num_devices * accumulate} divides the product"
        )
    groups, parts = fields["batch_norm_groups"], num_devices * accumulate
    if groups > 1 and (p * k) % groups:
        raise ValueError(
            f"config.batch_norm_groups is {groups}, which does not divide a batch of {p} * {k} = {p * k} images"
        )
    if groups > 1 and groups % parts and (accumulate > 1 or num_devices % groups):
        raise ValueError(
            f"config.batch_norm_groups is {groups}, but a batch is computed in {parts} parts ({num_devices} devices, "
            f"config.accumulate = {accumulate}): it has to be a multiple of them, or 0 for statistics of each part"
        )
    for name in ("model.fab_stages", "model.ibn_stages", "model.mixstyle_stages", "remat"):
        stages = fields[name]
        if not set(stages) <= {2, 3, 4, 5} or len(set(stages)) != len(stages):
            raise ValueError(f"config.{name} is {stages}; it holds conv stages out of 2, 3, 4, 5, each once")
    if fields["loss.t1"] <= fields["loss.t0"]:
        raise ValueError(
            f"config.loss.t1 is {fields['loss.t1']}; it has to be above config.loss.t0 = {fields['loss.t0']}"
        )
    if fields["augment.half_size_epochs"] and not all(side % (2 * SIDE) == 0 for side in size):
        raise ValueError(
            f"config.data.image_size is {size}; config.augment.half_size_epochs halves it, so each side has to be a "
            f"multiple of {2 * SIDE}"
        )
    for name in ("loss.label_smoothing", "optim.momentum"):
        if not fields[name] < 1:
            raise ValueError(f"config.{name} is {fields[name]}; it has to be below 1")
    if fields["loss.label_smoothing"] and fields["loss.probability"] != "softmax":
        raise ValueError(
            f"config.loss.label_smoothing is {fields['loss.label_smoothing']}, but config.loss.probability is "
            f'{fields["loss.probability"]!r}: smoothing needs "softmax", whose classes share one probability'
        )
    if not fields["loss.b"] <= 1:
        raise ValueError(f"config.loss.b is {fields['loss.b']}; a decay is above 0 and at most 1")


def validate_identities(config: ConfigDict, num_ids: Sequence[int]) -> None:
    """Refuses a batch of more identities than are left to train on (ValueError, one line).

    `num_ids` are the identities of each data set of `config.data.name`, before any are held out.
    """
    data, held_out = config.data, config.data.validation_ids + config.data.unused_ids
    counts = dict(zip(sources(data.name), num_ids, strict=True))
    in_batch = ids_of_each_source(data.p, len(counts))
    if data.balance == "identities":
        held_out *= len(counts)
        counts, in_batch = {data.name: sum(num_ids)}, (data.p,)
    for (name, count), source_p in zip(counts.items(), in_batch, strict=True):
        trained = count - held_out
        if source_p <= trained:
            continue
        reasons = {"validation_ids": data.validation_ids, "unused_ids": data.unused_ids}
        texts = [f"config.data.{field} = {value}" for field, value in reasons.items() if value]
        p_text = f"{data.p}" if len(in_batch) == 1 else f"{data.p}, {source_p} of each data set"
        raise ValueError(
            f"config.data.p is {p_text}, but {name} has {count} identities to train on"
            + (f", of which {' and '.join(texts)} are held out" if texts else "")
            + (
                f"; take --config.data.p={trained * len(in_batch)} or fewer"
                if trained > 1
                else "; a negative needs two"
            )
        )
