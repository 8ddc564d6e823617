"""Embedding: the same numbers whatever the batch, the number of images or of devices."""

from functools import partial

import jax
import numpy as np
import pytest
from tiny import get_config

from mancs_jax.inference import forward
from mancs_jax.inference.forward import attention_masks, embed
from mancs_jax.inference.network import Network
from mancs_jax.models.mancs import create_model


@pytest.fixture(scope="module")
def setting():
    config = get_config().unlock()
    model = create_model(config, num_classes=5)
    image = np.random.default_rng(0).integers(0, 256, (21, 64, 32, 3), dtype=np.uint8)
    variables = jax.jit(lambda: model.init(jax.random.key(0), image[:1].astype(np.float32), train=False))()
    return Network(config, 5, variables), image


def test_padding_and_devices_do_not_show(setting):
    network, image = setting
    one, eight = (partial(embed, network, devices=jax.devices()[:number]) for number in (1, 8))
    whole = one(image)
    assert whole.shape == (21, 32) and whole.dtype == np.float32
    np.testing.assert_allclose(one(image[:3]), whole[:3], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(eight(image), whole, rtol=1e-5, atol=1e-7)
    assert np.abs(whole - whole.mean(0)).max() > 0


def test_embedding_is_f_rank_of_the_normalised_pixels_and_masks_are_means_over_the_channels(setting):
    network, image = setting
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((image / 255 - mean) / std).astype(np.float32)
    expected = create_model(network.config, 5).apply(network.variables, x, train=False)
    embedding = embed(network, image, devices=jax.devices()[:1])
    np.testing.assert_allclose(embedding, expected.f_rank, rtol=1e-4, atol=1e-6)
    masks = attention_masks(network, image)
    assert masks.keys() == expected.masks.keys() == {2, 3, 4}
    for stage, mask in masks.items():
        np.testing.assert_allclose(mask, expected.masks[stage].mean(-1), rtol=1e-4)


def test_nothing_to_embed_is_an_error(setting):
    network, image = setting
    with pytest.raises(ValueError, match="no images to embed"):
        embed(network, image[:0])


def test_one_program_for_all_networks_of_one_form(setting, monkeypatch):
    """Another seed, data set or learning rate compiles nothing; another `flip` does."""
    network, image = setting
    forward._compiled.cache_clear()
    traces, normalize = [], forward.normalize
    monkeypatch.setattr(forward, "normalize", lambda image: traces.append(image.shape) or normalize(image))
    config = get_config().unlock()
    config.seed, config.data.root, config.optim.learning_rate = 7, "elsewhere", 0.5
    for other in (network, network._replace(config=config)):
        embed(other, image[:2], devices=jax.devices()[:1])
    assert len(traces) == 1
    embed(network, image[:2], devices=jax.devices()[:1], flip=True)
    assert len(traces) == 2
