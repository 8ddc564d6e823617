"""A gallery in SQLite and in PostgreSQL: adding, searching with filters, forgetting."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from gallery_stores import NETWORK, WIDTH, Pixels, by_loops, drawn, fill, names_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mancs_jax.gallery import filters
from mancs_jax.gallery.entry import Added
from mancs_jax.gallery.gallery import Gallery
from mancs_jax.inference.gallery import load_gallery


def found_of(matches) -> list[tuple[str, float]]:
    return [(match.image.name, match.distance) for match in matches]


def test_by_hand(gallery):
    embedding = np.float32([[0, 1], [3, 4], [0, 2], [3, 4]])
    added = gallery.add(
        embedding, ["a", "b", "c", "d"], person=[1, 1, 2, None], camera=["x", "y", "x", "y"], network=NETWORK
    )
    assert added == Added(new=4) and len(gallery) == 4
    [matches] = gallery.search(np.float32([[0, 0]]), 3)
    assert found_of(matches) == [("a", 1.0), ("c", 2.0), ("b", 5.0)]  # of b and d, equally far, the first that came
    image = matches[0].image
    assert (image.person, image.camera, image.time, image.folder, len(image.hash)) == ("1", "x", None, None, 16)
    [matches] = gallery.search(np.float32([[0, 0]]), 9, camera="y")
    assert found_of(matches) == [("b", 5.0), ("d", 5.0)]
    [matches] = gallery.search(np.float32([[0, 0]]), 9, max_distance=2.0)
    assert found_of(matches) == [("a", 1.0), ("c", 2.0)]
    [matches] = gallery.search(np.float32([[1, 0]]), 9, distance="cosine")
    assert [name for name, _ in found_of(matches)] == ["b", "d", "a", "c"]
    np.testing.assert_allclose([at for _, at in found_of(matches)], [0.4, 0.4, 1, 1])


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_search_with_filters_equals_loops(gallery, distance):
    embedding = fill(gallery)
    index = np.arange(200)
    query = drawn(3, seed=1)
    for conditions, keep in (
        ({}, index >= 0),
        ({"camera": 3}, index % 5 == 3),
        ({"camera": [1, "2"], "person": 7}, np.isin(index % 5, [1, 2]) & (index % 40 == 7)),
        ({"since": 60 * 100, "before": 60 * 150.0}, (index >= 100) & (index < 150)),
        ({"name": "2026-11/cam4/*"}, index % 5 == 4),
        ({"name": "*image_0001?7.jpg", "camera": 2}, (index >= 100) & (index % 10 == 7) & (index % 5 == 2)),
        ({"person": "nobody"}, index < 0),
    ):
        for k in (1, 7, 500):
            found = gallery.search(query, k, distance=distance, **conditions)
            for of_query, matches in zip(query, found, strict=True):
                expected = by_loops(of_query, embedding, keep, k, distance)
                assert [match.image.name for match in matches] == [names_of(200)[row] for row, _ in expected]
                np.testing.assert_allclose([match.distance for match in matches], [at for _, at in expected])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from(["euclidean", "cosine"]))
def test_copies_and_ties_come_in_the_order_of_their_arrival(tmp_path, seed, k, distance):
    rng = np.random.default_rng(seed)
    embedding = rng.integers(1, 4, (60, 6)).astype(np.float32)
    embedding[rng.integers(0, 60, 30)] = embedding[0]
    with Gallery(tmp_path / f"{seed}-{k}-{distance}.gallery") as gallery:
        gallery.add(embedding, names_of(60), network=NETWORK)
        query = rng.integers(1, 4, (2, 6)).astype(np.float32)
        for of_query, matches in zip(query, gallery.search(query, k, distance=distance), strict=True):
            # Compared as the gallery does, from differences: the loops' cosines tie only to rounding.
            normalized = embedding.astype(float), of_query.astype(float)
            if distance == "cosine":
                normalized = tuple(part / np.sqrt(np.vecdot(part, part))[..., None] for part in normalized)
            squared = np.vecdot(normalized[0] - normalized[1], normalized[0] - normalized[1])
            expected = np.argsort(squared, kind="stable")[:k]
            assert [match.image.name for match in matches] == [names_of(60)[row] for row in expected]


def test_the_nearest_of_each_person(gallery):
    embedding = fill(gallery)
    query = drawn(1, seed=2)
    [matches] = gallery.search(query, 12, by_person=True)
    nearest = by_loops(query[0], embedding, np.ones(200, bool), 200)
    expected = list(dict.fromkeys(row % 40 for row, _ in nearest))[:12]
    assert [int(match.image.person) for match in matches] == expected
    # One person has the 150 nearest images; 39 others are behind them.
    copies = np.repeat(query, 150, axis=0) + 1e-3 * drawn(150, seed=3)
    gallery.add(copies, names_of(150, "crowd"), person="crowd")
    [matches] = gallery.search(query, 20, by_person=True)
    assert [match.image.person for match in matches] == [
        "crowd",
        *map(str, expected[:12]),
        *[m.image.person for m in matches[13:]],
    ]
    assert len({match.image.person for match in matches}) == 20
    [matches] = gallery.search(query, 100, by_person=True)
    assert len(matches) == 41


def test_images_without_a_person_count_each(gallery):
    gallery.add(drawn(5), names_of(5), person=["a", None, None, "a", None], network=NETWORK)
    [matches] = gallery.search(drawn(1, seed=1), 5, by_person=True)
    assert sorted(match.image.person or "" for match in matches) == ["", "", "", "a"]


def test_what_is_left_out_does_not_shorten_the_answers(gallery):
    embedding = fill(gallery)
    [matches] = gallery.search(embedding[:1], 10, leave_out=lambda image: image.person == "0")
    assert len(matches) == 10 and "0" not in {match.image.person for match in matches}


def test_adding_again_replaces_only_what_differs(gallery):
    embedding = fill(gallery)
    before = {image.name: image for image in gallery.images()}
    assert fill(gallery) is not None and {image.name: image for image in gallery.images()} == before
    names = names_of(200)
    changed = embedding[:3].copy()
    changed[1] += 1
    added = gallery.add(
        changed, names[:3], person=[0, 1, "two"], camera=[0, 1, 2], time=[0.0, 60.0, 120.0], network=NETWORK
    )
    assert added == Added(new=0, replaced=2, unchanged=1)
    after = {image.name: image for image in gallery.images()}
    assert after[names[0]] == before[names[0]] and after[names[1]].id > 200  # a number of its own
    assert after[names[2]].person == "two" and len(gallery) == 200
    [matches] = gallery.search(changed[1:2], 1)
    assert found_of(matches) == [(names[1], 0.0)]


def test_people_cameras_and_images(gallery):
    fill(gallery)
    gallery.add(drawn(3, seed=5), ["x", "y", "z"], person=[7, None, None])
    people = gallery.people()
    assert [(of.person, of.images, of.cameras) for of in people[:2]] == [("7", 6, 1), ("0", 5, 1)]
    assert people[-1].person is None and people[-1].images == 2 and people[-1].first is None
    assert (people[0].first, people[0].last) == (60.0 * 7, 60.0 * 167)
    assert gallery.cameras(person=[7, 8]) == {"2": 5, "3": 5, None: 1}
    assert [image.name for image in gallery.images(name="?")] == ["x", "y", "z"]


def test_patterns_of_names_are_taken_by_the_letter(gallery):
    names = ["a%b", "a_b", "axb", "A_b", "a[b]", "a!b", "a\\b", "straße/ü.jpg", "a*b"]
    gallery.add(drawn(len(names)), names, network=NETWORK)
    for pattern, expected in (
        ("a_b", {"a_b"}),
        ("a%b", {"a%b"}),
        ("a?b", {"a%b", "a_b", "axb", "a!b", "a\\b", "a*b"}),
        ("a[b]", {"a[b]"}),
        ("a!*", {"a!b"}),
        ("*ü*", {"straße/ü.jpg"}),
        ("a\\b", {"a\\b"}),
    ):
        assert {image.name for image in gallery.images(name=pattern)} == expected, pattern


def test_forgetting(gallery, tmp_path):
    embedding = fill(gallery)
    gallery.search(embedding[:1], 1)
    receipt = gallery.forget(person=[7, 8], receipt=tmp_path / "r" / "receipt.json")
    assert receipt.is_proved and receipt.images == 10 and receipt.found == 0 and len(gallery) == 190
    written = json.loads((tmp_path / "r" / "receipt.json").read_text())
    assert written == receipt.values and written["forgotten"][0]["conditions"] == {"person": ["7", "8"]}
    assert written["searched_for"]["hashes"] == 10 and len(written["files"]) > 3 and written["images_left"] == 190
    keep = ~np.isin(np.arange(200) % 40, [7, 8])
    for query in embedding[[7, 8, 9]]:
        [matches] = gallery.search(query[None], 500)
        assert [match.image.name for match in matches] == [
            names_of(200)[row] for row, _ in by_loops(query, embedding, keep, 500)
        ]
    assert gallery.check() == [] and gallery.people(person=7) == []
    again = gallery.forget(person=7)
    assert again.images == 0 and again.is_proved and again.values["forgotten"] == []


def test_what_is_forgotten_may_come_again(gallery):
    embedding = fill(gallery)
    gallery.forget(before=60.0 * 100)
    assert len(gallery) == 100
    assert gallery.add(embedding[:100], names_of(200)[:100]) == Added(new=100)
    [matches] = gallery.search(embedding[5:6], 1)
    assert found_of(matches) == [(names_of(200)[5], 0.0)] and matches[0].image.id > 200


def test_copies_that_stay_are_no_traces(gallery):
    embedding = drawn(4)
    embedding[2] = embedding[1]
    gallery.add(embedding, ["photos/one.jpg", "photos/two.jpg", "more/photos/two.jpg", "else.jpg"], network=NETWORK)
    receipt = gallery.forget(name="photos/two.jpg")
    assert receipt.is_proved and receipt.found == 0
    # The name is a part of the one that stays, the hash and all pieces of the embedding are those of a copy.
    assert receipt.values["shared_with_images_that_stay"] == 1 + 1 + 2


def test_export_and_import(gallery, tmp_path):
    embedding = fill(gallery)
    assert gallery.export(tmp_path / "a.npz", camera=[1, 2]) == 80
    read = load_gallery(tmp_path / "a.npz")
    keep = np.isin(np.arange(200) % 5, [1, 2])
    np.testing.assert_array_equal(read.embedding, embedding[keep])
    assert read.name.tolist() == [name for name, kept in zip(names_of(200), keep, strict=True) if kept]
    np.testing.assert_array_equal(read.pid, (np.arange(200) % 40)[keep])
    np.testing.assert_array_equal(read.camid, (np.arange(200) % 5)[keep])
    with Gallery(tmp_path / "other.gallery") as other:
        assert other.add_file(tmp_path / "a.npz").new == 80 and other.facts.network == NETWORK
        nobody = int((read.pid == 0).sum())  # a distractor has no person
        assert sum(of.images for of in other.people() if of.person is None) == nobody
        assert other.add_file(tmp_path / "a.npz") == Added(unchanged=80)
    with pytest.raises(ValueError, match="no image matches these filters"):
        gallery.export(tmp_path / "b.npz", person="nobody")
    gallery.add(drawn(1, seed=9), ["x"], person="alice")
    gallery.export(tmp_path / "c.npz")
    assert load_gallery(tmp_path / "c.npz").pid is None


def test_an_approximate_index_finds_nearly_all(gallery):
    rng = np.random.default_rng(4)
    centres = rng.standard_normal((100, WIDTH))
    embedding = (centres[np.arange(2000) % 100] + 0.3 * rng.standard_normal((2000, WIDTH))).astype(np.float32)
    gallery.add(embedding[:1900], names_of(2000)[:1900], network=NETWORK)
    recall = gallery.build_index()
    assert set(recall) == {"entries", "queries"} and min(recall.values()) >= 0.95
    gallery.add(embedding[1900:], names_of(2000)[1900:])  # too few for another index
    query = (centres[:50] + 0.3 * rng.standard_normal((50, WIDTH))).astype(np.float32)

    def share() -> float:
        pairs = zip(gallery.search(query, 10), gallery.search(query, 10, index=True), strict=True)
        return np.mean([len({a.image.id for a in one} & {b.image.id for b in other}) / 10 for one, other in pairs])

    assert share() > 0.95
    gallery.forget(name="*image_0000*")
    found = gallery.search(query, 10, index=True)
    assert share() > 0.95 and all(len(matches) == 10 for matches in found)
    assert not any("image_0000" in match.image.name for matches in found for match in matches)


def test_another_network_is_refused(place):
    with Gallery(place) as gallery:
        fill(gallery)
    with pytest.raises(ValueError, match="was embedded by another model, .* --embed_again"):
        Gallery(place, Pixels("f" * 32))
    with Gallery(place) as gallery:
        with pytest.raises(ValueError, match="was embedded by another model"):
            gallery.add(drawn(1), ["x"], network="f" * 32)
        with pytest.raises(ValueError, match="embeddings 24 wide, and these are 3 wide"):
            gallery.add(np.ones((1, 3), np.float32), ["x"])
        with pytest.raises(ValueError, match="embeddings 24 wide, and the query's is 3 wide"):
            gallery.search(np.ones((1, 3), np.float32))
        with pytest.raises(ValueError, match="images need a model"):
            gallery.search("query.jpg")
        assert len(gallery) == 200


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"embedding": np.zeros((2, WIDTH), np.float32)}, "norm 0"),
        ({"embedding": np.full((2, WIDTH), np.nan, np.float32)}, "NaN or infinite"),
        ({"embedding": np.ones((2, WIDTH))}, "must be float32"),
        ({"names": ["a", "a"]}, "2 embeddings need as many different names, not 1"),
        ({"names": ["a", ""]}, "'' is no name"),
        ({"person": [1, 2, 3]}, "3 labels or times do not go with 2 images"),
        ({"person": [1.5, 2]}, "person is 1.5: it has to be a text or a whole number"),
        ({"time": "Monday"}, "time is 'Monday': give a date or a time, as 2026-11-30"),
        ({"hashes": [b"1", b"2"]}, "hashes has to have 2 entries of 16 bytes"),
    ],
)
def test_arguments_that_do_not_go_together(gallery, arguments, line):
    fill(gallery)
    with pytest.raises(ValueError, match=line):
        gallery.add(**{"embedding": drawn(2), "names": ["a", "b"]} | arguments)
    assert len(gallery) == 200


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"k": 0}, "k is 0"),
        ({"max_distance": -1.0}, "max_distance is -1.0"),
        ({"distance": "manhattan"}, "unknown distance 'manhattan'"),
        ({"name": ""}, "the pattern of names is empty"),
        ({"person": []}, r"person is \[\]"),
        ({"since": float("nan")}, "since is nan"),
    ],
)
def test_searches_that_make_no_sense(gallery, arguments, line):
    fill(gallery, 10)
    with pytest.raises(ValueError, match=line):
        gallery.search(drawn(1), **arguments)


def test_without_a_gallery_there_is_one_line(place):
    with Gallery(place) as gallery:
        assert len(gallery) == 0
        for act in (lambda: gallery.search(drawn(1)), gallery.forget, gallery.check, gallery.people):
            with pytest.raises(
                FileNotFoundError, match="no such gallery; mancs gallery add FOLDER --gallery=.* makes one"
            ):
                act()
        assert not Path(place).exists()


def test_moments():
    local = datetime(2026, 11, 30).timestamp()
    assert filters.seconds_of("2026-11-30", "x") == filters.seconds_of(date(2026, 11, 30), "x") == local
    assert filters.seconds_of("2026-11-30T01:00:00+01:00", "x") == datetime(2026, 11, 30, tzinfo=UTC).timestamp()
    assert filters.seconds_of(12, "x") == 12.0


def test_embedding_again_by_another_network(place, tmp_path):
    folder = write_folder(tmp_path / "photos", 30)
    first, second = Pixels(), Pixels("f" * 32, width=WIDTH + 8)
    with Gallery(place, first) as gallery:
        gallery.add_folder(folder, progress=False)
        gallery.search(drawn(1), 1)
    with Gallery(place) as gallery:
        gallery._network = second
        assert gallery.embed_again(progress=False) == 30
        assert gallery.facts.network == "f" * 32 and gallery.check() == []
    with Gallery(place, second) as gallery:
        file = sorted(folder.rglob("*.jpg"))[3]
        [matches] = gallery.search(file, 2)
        assert matches[0].distance == 0 and file.as_posix().endswith(matches[0].image.name)
        assert gallery.add_folder(folder, progress=False).added == Added(unchanged=30)
        file.unlink()
        gallery._network = first
        with pytest.raises(ValueError, match="1 images are not in their folder any more"):
            gallery.embed_again(progress=False)
        assert gallery.facts.network == "f" * 32


def write_folder(folder: Path, number: int, seed: int = 0) -> Path:
    """Images of noise, in two subfolders."""
    import cv2

    rng = np.random.default_rng(seed)
    for i in range(number):
        path = folder / f"cam{i % 2}" / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), rng.integers(0, 256, (12, 6, 3), dtype=np.uint8))
    return folder
