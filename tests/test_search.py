"""Nearest neighbours: the exact ones for any tiles and blocks, nearly all of them by an index."""

import sys
import warnings
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

import mancs_jax
from mancs_jax.evaluation import comparison
from mancs_jax.inference import exact
from mancs_jax.inference import index as index_module
from mancs_jax.inference.search import search


def by_loops(query, gallery, k, distance="euclidean"):
    """(index, distance), in float64, of equal distances the lower index first."""
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    rows = []
    for q in query:
        if distance == "cosine":
            of_row = np.array([1 - q @ g / np.linalg.norm(q) / np.linalg.norm(g) for g in gallery])
        else:
            of_row = np.array([np.linalg.norm(q - g) for g in gallery])
        nearest = np.argsort(of_row, kind="stable")[:k]
        rows.append((nearest, of_row[nearest]))
    return tuple(np.array(field) for field in zip(*rows, strict=True))


def clusters(seed, number, width=16, people=10, noise=0.3):
    rng = np.random.default_rng(seed)
    pid = rng.integers(0, people, number)
    centres = np.random.default_rng(0).standard_normal((people, width))
    return (centres[pid] + noise * rng.standard_normal((number, width))).astype(np.float32)


def test_by_hand():
    gallery = np.float32([[0, 0], [3, 4], [0, 1], [3, 4]])
    found = search(np.float32([[0, 0], [3, 3]]), gallery, 3)
    assert found.index.tolist() == [[0, 2, 1], [1, 3, 2]] and found.index.dtype == np.int32
    np.testing.assert_allclose(found.distance, [[0, 1, 5], [1, 1, np.sqrt(13)]], rtol=1e-6)
    found = search(np.float32([[1, 0]]), np.float32([[0, 2], [-3, 0], [5, 5]]), 3, distance="cosine")
    assert found.index.tolist() == [[2, 0, 1]] and found.distance.dtype == np.float32
    np.testing.assert_allclose(found.distance, [[1 - np.sqrt(0.5), 1, 2]], rtol=1e-6)


def test_answers_within_a_distance():
    gallery = np.float32([[0, 0], [3, 4], [0, 1], [3, 4]])
    found = search(np.float32([[0, 0], [9, 9], [3, 4]]), gallery, 3, max_distance=1.0)
    assert found.index.tolist() == [[0, 2, -1], [-1, -1, -1], [1, 3, -1]] and found.index.dtype == np.int32
    assert found.distance.tolist() == [[0, 1, np.inf], [np.inf] * 3, [0, 0, np.inf]]
    assert found.distance.dtype == np.float32
    everything = search(np.float32([[0, 0]]), gallery, 4, max_distance=5.0)
    assert everything.index.tolist() == [[0, 2, 1, 3]]
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="^max_distance is .*: it must be a number from 0, or None$"):
            search(gallery, gallery, 1, max_distance=wrong)


@pytest.mark.parametrize("chosen", [[2, 9], [2, 5, 9, 11], [3, 4]], ids=["few", "all", "none of them"])
def test_chosen_ids_of_rows_with_gaps(chosen):
    ids = np.array([2, 5, 9, 11])  # 5 is the nearest to the query, then 9, 11 and 2
    rows = np.float32([[9, 0], [1, 0], [3, 0], [5, 0]])
    for copies in (1, 8):  # few of many rows are gathered, many are compared in place
        more = np.arange(20, 20 + 4 * (copies - 1))
        every_id, every_row = np.append(ids, more), np.vstack([rows, np.zeros((len(more), 2), np.float32)])
        block = exact.Block(every_id, every_row, exact.half_squared_norms(every_row))
        nearest = exact.nearest(np.zeros((1, 2), np.float32), [block], 2, "euclidean", np.array(chosen))
        expected = [i for i in (5, 9, 11, 2) if i in chosen][:2]
        assert nearest.ids.tolist() == [expected + [-1] * (2 - len(expected))]


def on_device(monkeypatch):
    """Searches as on an accelerator, on the CPU."""
    monkeypatch.setattr(sys.modules[search.__module__], "ACCELERATORS", ("cpu",))


@pytest.mark.parametrize("number", [1, 21])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("size", [2**25, 4 * 21 * 64], ids=["one block", "4 blocks"])
def test_any_blocks_give_the_exact_result(monkeypatch, size, distance, number):
    monkeypatch.setattr(exact, "VALUES_BYTES", size // 21 * number)
    monkeypatch.setattr(exact, "QUERIES", 8)
    monkeypatch.setattr(exact, "CACHED_BYTES", 64 * 10)
    query, gallery = clusters(1, number), clusters(2, 251)
    gallery[200:] = gallery[:51]  # copies of an image in another block
    expected = by_loops(query, gallery, 12, distance)
    found = search(query, gallery, 12, distance=distance)
    np.testing.assert_array_equal(found.index, expected[0])
    np.testing.assert_allclose(found.distance, expected[1], rtol=1e-6)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("tile", [2**30, 64 * 100, 64 * 8], ids=["one tile", "3 tiles", "tiles of 8"])
def test_any_tiles_give_the_exact_result(monkeypatch, tile, distance):
    on_device(monkeypatch)
    monkeypatch.setattr(comparison, "TILE_BYTES", tile)
    monkeypatch.setattr(comparison, "BLOCK_BYTES", 0)
    monkeypatch.setattr(comparison, "MIN_ROWS", 8)
    query, gallery = clusters(1, 21), clusters(2, 251)
    expected = by_loops(query, gallery, 12, distance)
    found = search(query, gallery, 12, distance=distance)
    np.testing.assert_array_equal(found.index, expected[0])
    np.testing.assert_allclose(found.distance, expected[1], rtol=1e-4, atol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([1, 9, 30]), st.sampled_from([64 * 16, 2**20]))
def test_of_equal_distances_the_lower_index_comes_first(seed, k, tile):
    rng = np.random.default_rng(seed)
    query, gallery = (rng.integers(0, 3, (number, 16)).astype(np.float32) for number in (5, 30))
    gallery[rng.integers(0, 30, 10)] = gallery[0]
    with pytest.MonkeyPatch.context() as patch:
        on_device(patch)
        patch.setattr(comparison, "TILE_BYTES", tile)
        found = search(query, gallery, k)
    expected = by_loops(query, gallery, k)
    np.testing.assert_array_equal(found.index, expected[0])


def test_a_memory_mapped_gallery(tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "VALUES_BYTES", 4 * 3 * 64)
    np.save(tmp_path / "g.npy", clusters(4, 100))
    query = clusters(5, 3)
    mapped = search(query, np.load(tmp_path / "g.npy", mmap_mode="r"), 5)
    np.testing.assert_array_equal(mapped.index, by_loops(query, clusters(4, 100), 5)[0])


@pytest.mark.parametrize("width", [16, 300])  # 300 is brought down to the main components
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_an_index_finds_nearly_all_and_is_kept(tmp_path, distance, width):
    gallery, query = clusters(6, 3000, width, 150), clusters(7, 50, width, 150)
    exact = search(query, gallery, 10, distance=distance)
    index = mancs_jax.build_index(gallery, tmp_path / "a" / "g.faiss", distance=distance)
    found = search(query, gallery, 10, distance=distance, index=index)
    common = [len(set(one) & set(other)) for one, other in zip(found.index, exact.index, strict=True)]
    assert np.mean(common) > 9.5
    assert (np.diff(found.distance, axis=1) >= 0).all()
    matched = found.index == exact.index
    np.testing.assert_allclose(found.distance[matched], exact.distance[matched], rtol=1e-6)
    limit = float(np.median(found.distance))
    near = search(query, gallery, 10, distance=distance, max_distance=limit, index=index)
    np.testing.assert_array_equal(near.index, np.where(found.distance <= limit, found.index, -1))
    for again in (tmp_path / "a" / "g.faiss", mancs_jax.load_index(tmp_path / "a" / "g.faiss")):
        again = search(query, gallery, 10, distance=distance, index=again)
        np.testing.assert_array_equal(again.index, found.index)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["g.faiss"]
    other = {"euclidean": "cosine", "cosine": "euclidean"}[distance]
    with pytest.raises(ValueError, match=f"the index is for {distance} distance: build one with distance='{other}'"):
        search(query, gallery, 10, distance=other, index=index)


def test_where_an_index_finds_too_few_the_search_is_exact(monkeypatch):
    gallery, query = clusters(8, 60), clusters(9, 4)
    index = mancs_jax.build_index(gallery)
    few = index_module.candidates(index, query, gallery, 12, "euclidean")
    few[1, 2:] = -1
    few[3] = -1
    few[2, 7:] = -1  # enough for k = 3
    monkeypatch.setattr(index_module, "candidates", lambda *_: few)
    found = search(query, gallery, 3, index=index)
    np.testing.assert_array_equal(found.index, by_loops(query, gallery, 3)[0])
    assert np.isfinite(found.distance).all()


def test_small_galleries_have_an_index_too():
    gallery = clusters(10, 3, width=300)
    index = mancs_jax.build_index(gallery[:, :20])
    assert search(gallery[:, :20], gallery[:, :20], 3, index=index).index[:, 0].tolist() == [0, 1, 2]
    index = mancs_jax.build_index(gallery)  # fewer entries than components
    assert search(gallery, gallery, 1, index=index).index[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("with_index", [False, True])
def test_more_answers_than_the_gallery_has_are_filled_up(with_index):
    query, gallery = clusters(11, 2), clusters(12, 5)
    options = {"index": mancs_jax.build_index(gallery)} if with_index else {}
    found, whole = search(query, gallery, 8, **options), search(query, gallery, 5)
    np.testing.assert_array_equal(found.index, np.hstack([whole.index, np.full((2, 3), -1)]))
    np.testing.assert_array_equal(found.distance, np.hstack([whole.distance, np.full((2, 3), np.inf)]))
    assert (found.index.dtype, found.distance.dtype) == (np.int32, np.float32)


def test_what_is_wrong_gets_one_line(tmp_path):
    query, gallery = clusters(11, 2), clusters(12, 5)
    with pytest.raises(ValueError, match="k is 0: it must be at least 1"):
        search(query, gallery, 0)
    with pytest.raises(ValueError, match="query embeddings are 8 wide, gallery embeddings 16"):  # as `compare` says
        search(query[:, :8], gallery, 1)
    with pytest.raises(ValueError, match="gallery embedding 3 has NaN or infinite values"):
        search(query, np.where(np.arange(5)[:, None] == 3, np.float32(np.nan), gallery), 1)
    with pytest.raises(ValueError, match="gallery embedding 0 has norm 0"):
        search(query, np.zeros_like(gallery), 1, distance="cosine")
    for distance, limit in (("cosine", 2.1), ("cosine", -0.1), ("euclidean", -1), ("euclidean", np.nan)):
        with pytest.raises(ValueError, match=rf"max_distance is {limit}: it must be a number from 0"):
            search(query, gallery, 1, distance=distance, max_distance=limit)
    assert "to 2, the largest cosine distance" in str(
        pytest.raises(ValueError, search, query, gallery, 1, distance="cosine", max_distance=12).value
    )
    assert (search(query, gallery, 5, distance="cosine", max_distance=2).index >= 0).all()
    index = mancs_jax.build_index(gallery)
    with pytest.raises(ValueError, match=r"the index is of a gallery \[5, 16\], not of this one, \[4, 16\]"):
        search(query, gallery[:4], 1, index=index)
    assert search(query, gallery.copy(), 1, index=index).index.shape == (2, 1)
    with pytest.raises(FileNotFoundError, match="g.faiss: no such file"):
        search(query, gallery, 1, index=tmp_path / "g.faiss")
    (tmp_path / "g.faiss").write_text("text")
    with pytest.raises(ValueError, match="g.faiss is cut off, or is no index of mancs_jax.build_index"):
        search(query, gallery, 1, index=str(tmp_path / "g.faiss"))
    with pytest.raises(ValueError, match="gallery embedding 0 has NaN"):
        mancs_jax.build_index(gallery * np.float32(np.nan))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_index_that_cannot_be_written_names_its_path(tmp_path, monkeypatch):
    gallery = clusters(12, 50)
    with pytest.raises(OSError, match=r"^/proc/nowhere/g\.faiss cannot be written \(.*\): choose another place$"):
        mancs_jax.build_index(gallery, "/proc/nowhere/g.faiss")
    before = mancs_jax.build_index(gallery, tmp_path / "g.faiss")
    mancs_jax.build_index(gallery, tmp_path / "again.faiss")
    content = faiss.serialize_index(before.faiss_index).tobytes()
    assert (tmp_path / "g.faiss").read_bytes().startswith(content)  # then its facts
    monkeypatch.setattr(Path, "open", lambda path, mode="r": open("/dev/full", mode))  # noqa: PTH123, SIM115
    with pytest.raises(OSError, match=r"/full\.faiss cannot be written \(No space left on device\); free disk space"):
        mancs_jax.build_index(gallery, tmp_path / "full.faiss")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.faiss", "g.faiss"]


def test_without_faiss_an_index_says_what_to_install(monkeypatch):
    monkeypatch.setattr(index_module, "faiss", None)
    query, gallery = clusters(13, 2), clusters(14, 5)
    calls = [
        lambda: mancs_jax.build_index(gallery),
        lambda: mancs_jax.load_index("g.faiss"),
        lambda: search(query, gallery, 1, index="g.faiss"),
    ]
    for call in calls:
        with pytest.raises(ImportError, match=r"^an index needs FAISS: pip install faiss-cpu$"):
            call()
    assert search(query, gallery, 1).index.shape == (2, 1)


def unit(rng, number: int, width: int) -> np.ndarray:
    """Random directions, float32 [number, width]."""
    vectors = rng.standard_normal((number, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("where", [0.0, 0.6])  # near the middle of the cloud, and half way out
def test_copies_of_an_image_hide_no_other(where):
    """A parked car in every frame: its copies link to each other alone, and a walk that meets them stays there."""
    rng = np.random.default_rng(0)
    gallery = unit(rng, 4000, 512)
    wanted = rng.choice(4000, 100, replace=False)
    query = gallery[wanted] + 0.3 * unit(rng, 100, 512)
    copies = rng.choice(np.setdiff1d(np.arange(4000), wanted), 200, replace=False)
    gallery[copies] = where * gallery[copies[0]] + gallery.mean(axis=0)
    found = search(query, gallery, 10, index=mancs_jax.build_index(gallery))
    assert np.mean([number in row for number, row in zip(wanted, found.index, strict=True)]) > 0.95


def test_of_more_copies_than_candidates_the_first_are_found(monkeypatch):
    gallery = clusters(1, 600)
    gallery[100:300] = gallery[100]
    index = mancs_jax.build_index(gallery)
    last_copies = np.arange(284, 300)[None]
    monkeypatch.setattr(index_module, "candidates", lambda *_: last_copies)
    found = search(gallery[[100]], gallery, 4, index=index)
    assert found.index[0].tolist() == [100, 101, 102, 103]


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_an_index_in_the_words_of_faiss(tmp_path, distance):
    gallery = clusters(3, 800)
    index = mancs_jax.build_index(gallery, tmp_path / "g.faiss", distance=distance, factory="IVF16,Flat")
    exact = search(gallery[:50], gallery, 5, distance=distance)
    found = search(gallery[:50], gallery, 5, distance=distance, index=tmp_path / "g.faiss", num_candidates=200)
    assert (found.index[:, 0] == np.arange(50)).all() and (found.index == exact.index).mean() > 0.6
    assert index.faiss_index.ntotal == 800 and set(index.recall) == {"entries", "queries"}
    line = "num_candidates is 4: it must be at least k, which is 5"
    with pytest.raises(ValueError, match=line):
        search(gallery[:1], gallery, 5, index=index, distance=distance, num_candidates=4)
    line = refused(mancs_jax.build_index, gallery, factory="IVF16,Nonsense")
    assert line.startswith("factory='IVF16,Nonsense' makes no index of [800, ")


def mean_of(index, query, gallery, distance):
    """Recall@10 of a search; copies of an image count for each other."""
    exact = search(query, gallery, 10, distance=distance)
    found = search(query, gallery, 10, distance=distance, index=index)
    return np.mean(found.distance <= exact.distance[:, 9:] * (1 + 1e-5) + 1e-6)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", ["copies", "near-copies", "random"])
def test_recall_of_galleries_that_are_hard_for_an_index(kind, distance):
    """Copies near the mean are hubs of a graph, and random directions are lost in a projection."""
    rng = np.random.default_rng(1)
    gallery = rng.standard_normal((4000, 300)).astype(np.float32)
    if kind != "random":
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
        mean = gallery.mean(axis=0)
        noise = 1e-3 * np.linalg.norm(mean) * rng.standard_normal((60, 300)) if kind == "near-copies" else 0
        gallery = np.concatenate([gallery, mean + np.zeros((60, 300)) + noise]).astype(np.float32)
    index = mancs_jax.build_index(gallery, distance=distance)
    assert set(index.recall) == {"entries", "queries"} and min(index.recall.values()) >= 0.97
    query = rng.standard_normal((100, 300)).astype(np.float32)
    if kind != "random":
        query /= np.linalg.norm(query, axis=1, keepdims=True)
    assert mean_of(index, query, gallery, distance) >= 0.95
    own = mancs_jax.build_index(gallery, distance=distance, queries=query)
    assert own.recall["queries"] >= 0.97


def test_an_index_whose_graph_finds_little_gets_lists(monkeypatch):
    gallery = clusters(20, 2000, 64, people=2000)
    monkeypatch.setattr(index_module, "LINKS", 2)  # of an entry to others: the graph falls apart
    monkeypatch.setattr(index_module, "VISITED", (16, 16))
    index = mancs_jax.build_index(gallery)
    lists = faiss.downcast_index(index.faiss_index)
    assert isinstance(lists, faiss.IndexIVFFlat) and min(index.recall.values()) >= 0.97


def test_an_index_of_another_gallery_is_refused(tmp_path):
    gallery = clusters(21, 500)
    index = mancs_jax.build_index(gallery, tmp_path / "g.faiss")
    reloaded = mancs_jax.load_index(tmp_path / "g.faiss")
    line = "the index is of another gallery of this size, or of another order: build it again"
    for other in (np.concatenate([gallery[1:], gallery[:1]]), gallery[::-1].copy(), clusters(22, 500)):
        for of in (index, reloaded):
            with pytest.raises(ValueError, match=line):
                search(gallery[:1], other, 1, index=of)
    assert search(gallery[:1], gallery, 1, index=reloaded).index[0, 0] == 0
    shorter = np.delete(gallery, 7, axis=0)
    with pytest.raises(ValueError, match=r"of a gallery \[500, 16\], not of this one, \[499, 16\]"):
        search(gallery[:1], shorter, 1, index=index)
    # The obvious way to delete: the row leaves the index and the array, and all behind it have other numbers.
    lists = mancs_jax.build_index(gallery, factory="IVF4,Flat")
    lists.faiss_index.remove_ids(np.array([7]))
    with pytest.raises(ValueError, match=line):
        search(gallery[:1], shorter, 1, index=lists)
    with pytest.raises(ValueError, match="an index has to come from build_index or load_index, not IndexHNSWFlat"):
        search(gallery[:1], gallery, 1, index=index.faiss_index)


def test_a_file_of_an_index_without_its_facts(tmp_path):
    index = mancs_jax.build_index(clusters(23, 100), tmp_path / "g.faiss")
    content = (tmp_path / "g.faiss").read_bytes()
    faiss.write_index(index.faiss_index, str(tmp_path / "plain.faiss"))
    assert faiss.read_index(str(tmp_path / "g.faiss")).ntotal == 100  # FAISS reads the file, too
    (tmp_path / "cut.faiss").write_bytes(content[:-7])
    (tmp_path / "middle.faiss").write_bytes(content[1000:])
    for name in ("plain", "cut", "middle"):
        with pytest.raises(ValueError, match=f"{name}.faiss is (cut off, or is )?no index of mancs_jax.build_index"):
            mancs_jax.load_index(tmp_path / f"{name}.faiss")


def test_numbers_that_overflow_are_refused_without_a_warning(monkeypatch):
    """In threads, too, which do not share NumPy's error state."""
    monkeypatch.setattr(exact, "CACHED_BYTES", 64)
    query, gallery = np.full((1, 4), 3e30, np.float32), np.full((64, 4), -3e30, np.float32)
    with warnings.catch_warnings(action="error"):
        _, half_squared = exact._read(query, gallery)
    assert np.isinf(half_squared).all()


def test_many_queries_are_compared_some_at_a_time(monkeypatch):
    """The values of 41 queries and a block of 64 rows take five times the memory that is allowed."""
    monkeypatch.setattr(exact, "QUERIES", 8)
    monkeypatch.setattr(exact, "VALUES_BYTES", 4 * 8 * 64)
    sizes, bounds = [], exact._bounds
    monkeypatch.setattr(exact, "_bounds", lambda values, k: sizes.append(values.nbytes) or bounds(values, k))
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(number, 3)).astype(np.float32) for number in (41, 150))
    found = exact.nearest_rows(query, gallery, 3, "euclidean", lambda _: None)
    assert max(sizes) == 4 * 8 * 64 and len(sizes) == 6 * 3  # the last of the queries is alone
    index, distance = by_loops(query, gallery, 3)
    np.testing.assert_array_equal(found.ids, index)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-12)
