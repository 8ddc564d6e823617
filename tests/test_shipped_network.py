"""The pretrained models that come with the package: their sizes, cards and answers."""

import json

import numpy as np
import pytest

import mancs_jax
from mancs_jax.evaluation.calibration import knots_of, log_likelihood_ratio
from mancs_jax.weights.shared import SHIPPED, shipped_networks

MOST_BYTES = 12e6


@pytest.fixture(scope="module")
def embed():
    return mancs_jax.load("market1501")


def test_it_is_small_and_says_what_it_is(embed):
    assert shipped_networks() == ["market1501", "people"]
    for name in shipped_networks():
        assert sum(file.stat().st_size for file in SHIPPED.glob(f"{name}.*")) < MOST_BYTES
    card = embed.card
    assert card == json.loads((SHIPPED / "market1501.json").read_text())
    assert card["use"].startswith("For research only.") and card["trained_on"] == "market1501"
    made_with = card["made_with"]
    start = "train.py --config=configs/market.py:scratch --workdir=W --config.pretrained=mean.safetensors"
    assert made_with["command"].startswith(start) and made_with["averaged_with"]["share"] == 0.4
    assert (card["seed"], card["scores"]["step"], card["scores"]["split"]) == (0, card["step"], "official")
    assert (embed.width, embed.image_size, card["embedding"]["width"]) == (320, (128, 64), 320)


def test_its_thresholds_have_the_rates_on_other_people(embed):
    for distance in ("euclidean", "cosine"):
        of_distance = embed.card["calibration"][distance]
        assert of_distance["measured_on"]["cllr"] < 1.1 * of_distance["measured_on"]["min_cllr"]
        at = [point["max_distance"] for point in embed.card["thresholds"][distance]]
        ratios = np.exp(log_likelihood_ratio(knots_of(embed.card, distance), np.array(at)))
        assert 1 < ratios[0] < 20 < 100 < ratios[1] < 1000 < ratios[2]
    thresholds = embed.card["thresholds"]
    lender = embed.card["made_with"]["averaged_with"]["network"]
    assert thresholds["set_on"] == f"100 held-out training identities of market1501, by the network {lender}"
    for distance in ("euclidean", "cosine"):
        limits = thresholds[distance]
        assert [limit["max_fpr"] for limit in limits] == [1e-2, 1e-3, 1e-4]
        assert all(limit["set_on"]["fpr"] <= limit["max_fpr"] for limit in limits)
        assert all(0 < limit["measured_on"]["fpr"] < 2 * limit["max_fpr"] for limit in limits)
        assert [limit["max_distance"] for limit in limits] == sorted((x["max_distance"] for x in limits), reverse=True)


def test_an_image_and_its_copies(embed):
    image = np.random.default_rng(0).integers(0, 256, (200, 90, 3), np.uint8)
    embedding = embed([image, image, np.zeros_like(image)])
    assert embedding.shape == (3, 320) and np.isfinite(embedding).all()
    np.testing.assert_array_equal(embedding[0], embedding[1])
    found = mancs_jax.search(embedding[:1], embedding, k=3, max_distance=1.0)
    assert found.index.tolist() == [[0, 1, -1]]


def test_people_is_of_several_data_sets_and_its_thresholds_of_those_that_market1501_has_not_seen():
    card = mancs_jax.load("people").card
    assert card["use"].startswith("For research only.") and card["config"]["recipe"] == "general"
    assert card["trained_on"] == "market1501,cuhk01,cuhk03_pair1" and card["config"]["pretrained"] == "market1501"
    assert card["thresholds"]["set_on"] == "50 held-out training identities of each of cuhk01 and cuhk03_pair1"
    assert card["scores"]["dataset"] == "market1501"
    for distance in ("euclidean", "cosine"):
        assert all(limit["set_on"]["fpr"] <= limit["max_fpr"] for limit in card["thresholds"][distance])
        assert knots_of(card, distance)
