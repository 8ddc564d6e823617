"""A trained network out of a workdir: what is read, and how often it is compiled."""

from functools import partial

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from tiny_runs import write_data
from tiny_workdir import NUM_CLASSES, write_workdir

from mancs_jax import run
from mancs_jax.inference import forward
from mancs_jax.inference.network import Network, averaged, embedding_width
from mancs_jax.inference.trained import load_trained
from mancs_jax.models.mancs import create_model, init_variables


def test_the_state_of_the_optimizer_is_not_read(tmp_path, monkeypatch):
    write_workdir(tmp_path)
    read, deserialize = [], ocp.type_handlers.ArrayHandler.deserialize

    async def record(handler, infos, args=None):
        read.extend(info.name for info in infos)
        return await deserialize(handler, infos, args)

    monkeypatch.setattr(ocp.type_handlers.ArrayHandler, "deserialize", record)
    load_trained(tmp_path)
    assert {name.split(".")[0] for name in read} == {"params", "batch_stats"}


@pytest.mark.usefixtures("one_device")
def test_a_run_compiles_the_inference_network_once(tmp_path, monkeypatch):
    """Validation after each epoch, scoring, the lists and the masks of the report."""
    write_data(tmp_path / "data", tiny.write_folder(tmp_path / "source"))
    config = tiny.get_config().unlock()
    config.data.root, config.data.validation_ids = str(tmp_path / "data"), 4
    config.eval_every, config.max_steps = 1.0, 4  # two epochs of the four that the schedule spans
    forward._compiled.cache_clear()
    traces, normalize = [], forward.normalize
    monkeypatch.setattr(forward, "normalize", lambda image: traces.append(image.shape) or normalize(image))
    results = run.train_and_evaluate(config.lock(), tmp_path / "run")
    assert results["Mancs"]["split"] == "held-out training identities" and (tmp_path / "run/report.html").exists()
    assert len(traces) == 1


@pytest.mark.parametrize("head", ["fc", "pool"])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_width_of_an_embedding(arch, head):
    config = tiny.get_config()
    config.model.arch, config.model.rank_head, config.model.rank_dim = arch, head, 20
    variables = jax.eval_shape(lambda: init_variables(config, NUM_CLASSES))
    image = jax.ShapeDtypeStruct((1, *config.data.image_size, 3), np.uint8)
    embedding, _ = jax.eval_shape(forward.create_forward(create_model(config, NUM_CLASSES)), variables, image)
    assert embedding_width(Network(config, NUM_CLASSES, variables)) == embedding.shape[1]


def test_networks_are_averaged(tmp_path):
    config, variables = write_workdir(tmp_path / "a")
    _, others = write_workdir(tmp_path / "b", seed=1)
    one, other = Network(config, NUM_CLASSES, variables), Network(config, NUM_CLASSES, others)
    mean = averaged(one, other, 0.25)
    kernel = lambda network: np.asarray(network.variables["params"]["rank_fc"]["kernel"], np.float64)  # noqa: E731
    np.testing.assert_allclose(kernel(mean), 0.75 * kernel(one) + 0.25 * kernel(other), rtol=1e-6)
    assert kernel(averaged(one, other, 0.0)).tolist() == kernel(one).tolist()
    with pytest.raises(ValueError, match=r"the share of the other model is 1\.5: it has to be from 0 to 1"):
        averaged(one, other, 1.5)
    fewer = other._replace(variables=others | {"params": others["params"] | {"rank_fc": {}}})
    with pytest.raises(ValueError, match="cannot be averaged: params/rank_fc/bias and 1 more are not"):
        averaged(one, fewer, 0.5)


def test_classifiers_for_other_people_are_not_averaged(tmp_path):
    config, variables = write_workdir(tmp_path / "a")
    config = config.copy_and_resolve_references().unlock()
    config.seed = 1
    others = init_variables(config, NUM_CLASSES + 1)
    others["batch_stats"] = jax.tree.map(lambda leaf: leaf + 1, others["batch_stats"])
    one, other = Network(config, NUM_CLASSES, variables), Network(config, NUM_CLASSES + 1, others)
    mean = averaged(one, other, 0.5)
    assert any(name.endswith("_classifier") for name in mean.variables["params"])
    jax.tree.map(
        lambda leaf, a, b: np.testing.assert_allclose(leaf, (np.float64(a) + b) / 2, rtol=1e-6, atol=1e-9),
        *(mean.variables["batch_stats"], variables["batch_stats"], others["batch_stats"]),
    )
    for name, leaves in mean.variables["params"].items():
        own, another = variables["params"][name], others["params"][name]
        is_classifier = name.endswith("_classifier")
        expected = own if is_classifier else jax.tree.map(lambda a, b: (np.float64(a) + b) / 2, own, another)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9), leaves, expected)
