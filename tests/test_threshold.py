"""A decision threshold belongs to one distance, normalisation, flip setting and model; elsewhere it is one line."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_sources import run_script
from tiny_workdir import write_place

import mancs_jax
from mancs_jax.evaluation.threshold import (
    Threshold,
    are_normalized,
    checked_limit,
    read_threshold,
    threshold_at,
    words_of,
)
from mancs_jax.inference import answers
from mancs_jax.inference.gallery import embed_folder, write_gallery

PLAIN = Threshold(1.5, "euclidean", network="n")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("limit", "settings", "words"),
    [
        (PLAIN, {"distance": "cosine"}, "calibrated with distance=euclidean, and these distances have distance=cosine"),
        (PLAIN, {"normalize": True}, "calibrated with normalize=False, and these distances have normalize=True"),
        (PLAIN._replace(normalize=True), {"normalize": False}, "calibrated with normalize=True"),
        (PLAIN, {"flip": True}, "calibrated with flip=False, and these distances have flip=True"),
        (PLAIN._replace(flip=True), {"flip": False}, "calibrated with flip=True"),
        (PLAIN, {"network": "m"}, "calibrated with another model"),
        (PLAIN._replace(max_distance=-1.0), {}, "max_distance is -1.0: it must be a number from 0, or None"),
        (
            2.1,
            {"distance": "cosine"},
            "max_distance is 2.1: it must be a number from 0 to 2, the largest cosine distance",
        ),
        (2.1, {"normalize": True}, "from 0 to 2, the largest euclidean distance of embeddings of norm 1, or None"),
        (float("nan"), {}, "max_distance is nan"),
    ],
)
def test_a_threshold_of_other_distances_is_refused(limit, settings, words):
    with pytest.raises(ValueError, match=words) as error:
        checked_limit(limit, **({"distance": "euclidean"} | settings))
    assert "\n" not in str(error.value)


@pytest.mark.quick
def test_a_threshold_that_belongs_is_its_number():
    assert checked_limit(PLAIN, "euclidean", normalize=False, flip=False, network="n") == 1.5
    assert (
        checked_limit(PLAIN, "euclidean") == checked_limit(PLAIN._replace(network=""), "euclidean", network="m") == 1.5
    )
    assert checked_limit(2.0, "cosine", normalize=True) == 2.0 and checked_limit(None, "cosine") is None
    assert are_normalized(np.float32([[0.6, 0.8], [0, 1]])) and not are_normalized(np.float32([[0.6, 0.8], [0, 1.1]]))


@pytest.mark.quick
def test_points_of_a_rate():
    points = [{"max_fpr": 0.01, "max_distance": 3.0}, {"max_fpr": 0.001, "max_distance": None}]
    assert threshold_at(points, 0.01, "it") == 3.0
    with pytest.raises(
        ValueError, match="it has no threshold for a false positive rate of 0.001; it has those for 0.01"
    ):
        threshold_at(points, 0.001, "it")
    with pytest.raises(
        ValueError, match="it has no decision thresholds: it has too few pairs; evaluate images of more"
    ):
        threshold_at([], 0.001, "it")


@pytest.mark.quick
def test_a_result_has_the_threshold_and_what_it_belongs_to(tmp_path):
    at = [{"max_fpr": rate, "distance": limit} for rate, limit in ((0.01, 1.25), (0.001, 1.0))]
    result = {
        "distance": "euclidean",
        "normalize": False,
        "embedded": {"network": "n", "flip": True, "normalize": True},
        "verification": {"at": at, "num_negative_pairs": 500},
    }
    path = tmp_path / "r.json"
    path.write_text(json.dumps(result))
    assert read_threshold(path, 0.01) == Threshold(1.25, "euclidean", True, True, "n", 0.01)
    with pytest.raises(ValueError, match="no threshold for a false positive rate of 0.001; it has those for 0.01$"):
        read_threshold(path)  # half a pair
    with pytest.raises(ValueError, match="calibrated with distance=euclidean"):
        read_threshold(path, 0.01, "cosine")
    of_network = {name: value for name, value in result.items() if name != "embedded"} | {"network": "m", "flip": True}
    path.write_text(json.dumps({"Mancs, re-ranked": {"verification": None}, "Mancs": of_network}))
    assert mancs_jax.threshold_of(path, 0.01) == Threshold(1.25, "euclidean", False, True, "m", 0.01)
    for text, words in (
        ("{}", "has no verification rates"),
        ("[1", "is not a result of mancs evaluate"),
        ("3", "is not"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_threshold(path)
    with pytest.raises(FileNotFoundError, match="nowhere.json: no such file; mancs evaluate --json writes one"):
        read_threshold(tmp_path / "nowhere.json")


@pytest.mark.quick
def test_a_threshold_says_what_its_rate_is_worth(tmp_path):
    at = {"max_fpr": 0.01, "distance": 1.25, "fpr": 0.008}
    for pairs, few in ((500, 4), (1125, 9), (1250, None)):  # 0.008 of each
        content = {"distance": "euclidean", "normalize": False}
        content |= {"verification": {"at": [at], "num_negative_pairs": pairs}}
        (tmp_path / "r.json").write_text(json.dumps(content))
        assert read_threshold(tmp_path / "r.json", 0.01).few_pairs == few
    threshold = Threshold(1.25, "euclidean", max_fpr=0.01)
    assert threshold.words() == "1.25 (false positive rate 1 %)"
    assert threshold._replace(few_pairs=4).words() == "1.25 (false positive rate 1 %, uncertain: it rests on 4 pairs)"
    frame = threshold._replace(within_frames=True)
    assert frame.words() == "1.25 (false positive rate 1 % within a frame)"
    assert words_of(frame, 1000).endswith(
        "10 false alarms per query are expected in 1,000 images of other people, if the rate within frames held across "
        "cameras"
    )
    assert words_of(threshold, 1000).endswith("images of other people")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two people's images, their embeddings in all four ways, and a model whose card has thresholds."""
    place = write_place(tmp_path_factory.mktemp("place"))
    for flip in (False, True):
        for normalize in (False, True):
            embedder = mancs_jax.load(place / "workdirs" / "market", flip=flip, normalize=normalize)
            gallery = embed_folder(place / "photos", embedder, progress=False)
            write_gallery(place / f"{flip:d}{normalize:d}.npz", gallery)
    return place


@pytest.fixture(scope="module")
def embedders(place):
    """(flip, normalize) -> an embedder, the plain one with thresholds in its card."""
    found = {}
    for flip in (False, True):
        for normalize in (False, True):
            found[flip, normalize] = mancs_jax.load(place / "workdirs" / "market", flip=flip, normalize=normalize)
    plain = found[False, False]
    points = [{"max_fpr": rate, "max_distance": limit} for rate, limit in ((0.01, 1.5), (0.001, 1.0))]
    found[False, False] = dataclasses.replace(
        plain, card=plain.card | {"thresholds": {"euclidean": points, "cosine": points}}
    )
    return found


def test_a_model_without_thresholds_says_how_to_calibrate(embedders):
    assert mancs_jax.threshold_of(embedders[False, False], 0.01, distance="cosine")[:4] == (1.5, "cosine", False, False)
    for settings, why in (
        ((True, False), " with flip"),
        ((False, True), " with normalize"),
        ((True, True), " with flip and"),
    ):
        with pytest.raises(ValueError, match=f"no decision thresholds{why}.*mancs embed --csv, then mancs evaluate"):
            mancs_jax.threshold_of(embedders[settings])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_every_place_refuses_what_does_not_belong(place, embedders, tmp_path, flip, normalize, distance):
    """`search`, `find_answers`, `Gallery.search` and `verify` with a threshold of plain Euclidean distances."""
    embedder, plain = embedders[flip, normalize], mancs_jax.threshold_of(embedders[False, False])
    image = place / "photos" / "0001_c1s1_000001_00.jpg"
    gallery = answers_gallery = mancs_jax.inference.gallery.load_gallery(place / f"{flip:d}{normalize:d}.npz")
    belongs = (flip, normalize, distance) == (False, False, "euclidean")

    def attempt(call):
        if belongs:
            return call()
        with pytest.raises(ValueError, match="the threshold was calibrated with") as error:
            call()
        assert "\n" not in str(error.value)
        return None

    attempt(lambda: mancs_jax.verify(embedder, image, image, distance=distance, threshold=plain))
    queries = answers.find_queries(image)
    attempt(
        lambda: answers.find_answers(queries, embedder, answers_gallery, k=2, distance=distance, max_distance=plain)
    )
    kept = mancs_jax.Gallery(tmp_path / "people.gallery", embedder)
    kept.add_file(place / f"{flip:d}{normalize:d}.npz")
    attempt(lambda: kept.search(embedder(image), 2, distance=distance, max_distance=plain))
    if normalize or distance == "cosine" or belongs:  # embeddings do not tell that they were averaged
        found = attempt(
            lambda: mancs_jax.search(embedder(image), gallery.embedding, 2, distance=distance, max_distance=plain)
        )
        assert not belongs or found.distance[0, 0] == 0


def test_numbers_out_of_range_are_refused_everywhere(place, embedders, tmp_path):
    image = place / "photos" / "0001_c1s1_000001_00.jpg"
    kept = mancs_jax.Gallery(tmp_path / "people.gallery", embedders[False, True])
    kept.add_file(place / "01.npz")
    embedding = embedders[False, True](image)
    for call in (
        lambda **more: kept.search(embedding, **more),
        lambda **more: mancs_jax.search(embedding, embedding, **more),
    ):
        with pytest.raises(ValueError, match="from 0 to 2, the largest euclidean distance of embeddings of norm 1"):
            call(max_distance=3.1)
        with pytest.raises(ValueError, match="from 0 to 2, the largest cosine distance"):
            call(max_distance=3.1, distance="cosine")


def test_a_calibrated_threshold_on_the_command_line(place, tmp_path, monkeypatch, capsys):
    """embed, evaluate, search and verify with one file, and the same file where it does not belong."""
    monkeypatch.chdir(place)
    network = "--workdir=workdirs/market"
    assert run_script("evaluate", "--features=00.npz", f"--json={tmp_path}/r.json") == ""
    result = json.loads((tmp_path / "r.json").read_text())
    at = result["verification"]["at"][0]
    given = [f"--thresholds_of={tmp_path}/r.json", "--max_fpr=0.01"]
    out = [f"--json={tmp_path}/s.json", f"--report={tmp_path}/s.html", "--images=photos"]
    assert run_script("search", "photos", "--gallery=00.npz", network, *given, *out) == ""
    written = json.loads((tmp_path / "s.json").read_text())
    assert (written["max_distance"], written["max_fpr"]) == (at["distance"], 0.01)
    distances = [answer["distance"] for query in written["queries"] for answer in query["answers"]]
    assert max(distances, default=0) <= at["distance"] + 1e-5
    capsys.readouterr()
    one, other = "photos/0001_c1s1_000001_00.jpg", "photos/0005_c1s1_000000_01.jpg"
    for file in (one, other):
        assert (place / file).is_file()
    assert run_script("verify", one, one, network, *given, f"--json={tmp_path}/v.json") == ""
    printed = capsys.readouterr().out
    assert (
        printed.startswith("same person: euclidean distance 0, threshold ") and "(false positive rate 1 %)" in printed
    )
    verified = json.loads((tmp_path / "v.json").read_text())
    assert verified["is_same"] is True and verified["threshold"]["max_fpr"] == 0.01 and verified["distance"] == 0
    assert verified["threshold"]["network"] == result["embedded"]["network"]
    assert run_script("verify", one, one, network, *given, "--distance=cosine").startswith(
        "verify: the threshold was cal"
    )
    assert "calibrated with flip=False" in run_script("verify", one, one, network, *given, "--flip")
    assert "calibrated with normalize=False" in run_script("verify", one, one, network, *given, "--normalize")
    line = run_script("search", one, "--gallery=10.npz", network, *given)
    assert line.startswith("search: the threshold was calibrated with flip=False")
    assert "leave --max_fpr out" in run_script("verify", one, other, network, "--max_fpr=0.01", "--max_distance=3")
    line = run_script("verify", one, other, network)
    assert line.startswith("verify: the model has no decision thresholds: calibrate one") and "\n" not in line
    end = run_script("verify", one, other, network, "--max_distance=0")
    printed = capsys.readouterr().out
    assert (
        end in ("2", 2) and printed.startswith("different people: euclidean distance ") and "threshold 0\n" in printed
    )


def test_verify_in_python(place, embedders):
    embedder = embedders[False, False]
    one, other = (place / "photos" / name for name in ("0001_c1s1_000001_00.jpg", "0005_c1s1_000000_01.jpg"))
    expected = float(np.linalg.norm(np.subtract(*embedder([one, other]).astype(np.float64))))
    for limit, is_same in ((expected * 1.01, True), (expected * 0.99, False)):
        found = mancs_jax.verify(embedder, one, other, threshold=limit)
        assert found.is_same is is_same and found.distance == pytest.approx(expected, rel=1e-4)
        assert found.threshold == Threshold(limit, "euclidean", network=embedder.network)
    by_card = mancs_jax.verify(embedder, one, other, max_fpr=0.01)
    assert by_card.threshold == Threshold(1.5, "euclidean", False, False, embedder.network, 0.01)
    assert by_card.is_same == (by_card.distance <= 1.5)
    cosine = mancs_jax.verify(embedder, one, other, distance="cosine", threshold=2)
    assert cosine.is_same and cosine.distance == pytest.approx(
        1 - float(np.dot(*(row / np.linalg.norm(row) for row in embedder([one, other])))), abs=1e-5
    )


def test_exported_files_keep_what_their_thresholds_belong_to(place, tmp_path):
    """A file that averages with the mirror image has no thresholds, and refuses those of the plain model."""
    from mancs_jax.inference.export import export

    plain = mancs_jax.load(place / "mancs.onnx")
    export(place / "workdirs" / "market", tmp_path / "flip.onnx", flip=True)
    mirrored = mancs_jax.load(tmp_path / "flip.onnx")
    image = place / "photos" / "0001_c1s1_000001_00.jpg"
    threshold = Threshold(1.0, "euclidean", network=plain.network)
    assert mancs_jax.verify(plain, image, image, threshold=threshold).is_same
    with pytest.raises(ValueError, match="calibrated with flip=False, and these distances have flip=True"):
        mancs_jax.verify(mirrored, image, image, threshold=threshold)
    with pytest.raises(ValueError, match="no decision thresholds with flip"):
        mancs_jax.verify(mirrored, image, image)
