"""Two sets, compared: what is refused, how blocks and tiles are cut, and what is kept."""

import jax
import numpy as np
import pytest
from official_evaluation import GALLERY, QUERY, drawn
from refusals import refused

from mancs_jax.evaluation import comparison, ranking, roc
from mancs_jax.evaluation.comparison import compare, from_distances, kept

pytestmark = pytest.mark.quick


def test_the_inputs_are_left_alone():
    arrays = [*QUERY, *GALLERY]
    before = [array.copy() for array in arrays]
    ranking.hit_ranks(compare(QUERY, GALLERY))
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("num_queries, num_gallery", [(3368, 15913), (3368, 19732), (11659, 82161), (1, 7), (900, 3)])
def test_blocks_hold_a_few_rows_of_distances(num_queries, num_gallery):
    rows = comparison.rows_a_block(num_queries, num_gallery)
    assert rows % 8 == 0 and rows >= 8
    assert rows <= comparison.MIN_ROWS or 4 * rows * num_gallery <= comparison.BLOCK_BYTES
    filled = -(-num_queries // rows) * rows
    assert filled - num_queries < 8 * -(-num_queries // rows)  # less than 8 repeats a block


def test_a_huge_gallery_still_gets_many_rows():
    assert comparison.rows_a_block(128 * 26, 500_000) == 128


def test_a_compiled_block_needs_no_more_memory_than_its_distances():
    num_gallery, width, columns = 15913, 64, 68
    rows = comparison.rows_a_block(3368, num_gallery)

    def shaped(*shape, dtype=np.int32):
        return jax.ShapeDtypeStruct(shape, dtype)

    f32, n = np.float32, num_gallery
    block = (shaped(rows, width, dtype=f32), shaped(rows), shaped(rows))
    hits = (shaped(rows, columns), shaped(rows), None)
    tile = (shaped(n, width, dtype=f32), shaped(n, dtype=f32), shaped(n, dtype=f32), shaped(n), shaped(n))
    mesh = comparison.device_mesh(jax.devices()[:1], 1)
    compiled = comparison._compiled(comparison._values, work=ranking._in_front, mesh=mesh)
    memory = compiled.lower((block, hits), tile).compile().memory_analysis()
    distances = 4 * rows * num_gallery
    assert memory.temp_size_in_bytes < 1.1 * distances + 2**20  # of which the [Q, G] matrix would be 14 times
    assert memory.output_size_in_bytes == 4 * rows * columns


def test_only_junk_in_the_middle_costs_a_copy():
    embedding = np.arange(10, dtype=np.float32).reshape(5, 2)
    for rows in ([0, 1, 2, 3, 4], [2, 3, 4], [0, 1], [3]):
        taken = comparison.rows_of(embedding, np.array(rows))
        np.testing.assert_array_equal(taken, embedding[rows])
        assert np.shares_memory(taken, embedding)
    np.testing.assert_array_equal(comparison.rows_of(embedding, np.array([0, 3, 4])), embedding[[0, 3, 4]])


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def query(**fields):
    return {"query": QUERY._replace(**fields)}


def gallery(**fields):
    return {"gallery": GALLERY._replace(**fields)}


Q, G = QUERY.embedding, GALLERY.embedding
BAD_INPUTS = {
    "query embeddings are float64 [3, 1]: they must be float32 [images, width]": query(embedding=Q.astype(float)),
    "gallery embeddings are float32 [9]: they must be float32 [images, width]": gallery(embedding=G[:, 0]),
    "query embeddings are empty, [0, 1]: there is nothing to rank": query(embedding=Q[:0]),
    "gallery embeddings are empty, [9, 0]: there is nothing to rank": gallery(embedding=G[:, :0]),
    "query pids are float32: they must be integers": query(pid=np.float32([1, 3, 2])),
    "gallery camids are float64: they must be integers": gallery(camid=GALLERY.camid / 1),
    "query camids have shape [2], but there are 3 query images": query(camid=QUERY.camid[:2]),
    "gallery pids have shape [9, 1], but there are 9 gallery images": gallery(pid=GALLERY.pid[:, None]),
    "query pids do not fit int32: number them anew": query(pid=np.array([2**40, 3, 2])),
    "gallery image 8 has pid -2: pids are -1 (junk), 0 (distractor) or above": gallery(
        pid=with_value(GALLERY.pid, 8, -2)
    ),
    "every gallery image has pid -1 (junk): there is nothing to rank": gallery(pid=np.full(9, -1)),
    "query 1 has pid 0, which is no person: leave it out, or, if people are numbered from 0, add 1 to every pid "
    "above -1 of query and gallery": query(pid=np.array([1, 0, 2])),
    "query embeddings are 1 wide, gallery embeddings 2: take both from the same model": gallery(
        embedding=np.repeat(G, 2, axis=1)
    ),
    "query embedding 2 has NaN or infinite values: check the model (1 of 3 are so)": query(
        embedding=with_value(Q, 2, np.nan)
    ),
    "gallery embedding 3 has NaN or infinite values: check the model (2 of 9 are so)": gallery(
        embedding=with_value(G, [3, 5], np.inf)
    ),
    "gallery embedding 0 has a norm above 1e18: scale the embeddings (1 of 9 are so)": gallery(
        embedding=with_value(G, 0, 1e30)
    ),
    "query embedding 0 has norm 0 (below 1e-18), so no cosine distance: check the model (1 of 3 are so)": {
        "distance": "cosine"
    },
    "query embeddings all have norms below 1e-18: scale them": query(embedding=Q * np.float32(1e-20)),
    "unknown distance 'manhattan': use one of euclidean, cosine": {"distance": "manhattan"},
}


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_bad_input_gets_one_clear_line(message):
    assert refused(compare, **{"query": QUERY, "gallery": GALLERY} | BAD_INPUTS[message]) == message


@pytest.mark.parametrize(
    "distances, message",
    [
        (np.zeros((3, 8)), "have shape [8, 8], not [8, 9]"),
        (np.full((3, 9), np.nan), "some distances are NaN or infinite"),
        (np.where(np.eye(3, 9), np.inf, 0), "some distances are NaN or infinite"),
        (np.where(np.eye(3, 9), -np.inf, 0), "some distances are NaN or infinite"),
    ],
)
def test_given_distances_that_do_not_fit_are_refused(distances, message):
    assert message in refused(ranking.hit_ranks, from_distances(distances.__getitem__, QUERY, GALLERY))


def test_tiles_are_of_one_length_and_have_each_image_once():
    assert comparison.tiles(333, 64) == [*(slice(start, start + 64) for start in range(0, 320, 64)), slice(269, 333)]
    assert comparison.tiles(64, 64) == [slice(0, 64)] and comparison.tiles(9, 64) == [slice(0, 9)]
    gallery = GALLERY._replace(pid=np.arange(9))
    layout = comparison._layout(QUERY, gallery, np.arange(9), 4, None)
    pids = [comparison._labels(gallery, layout, tile)[0].tolist() for tile in layout.tiles]
    assert pids == [[0, 1, 2, 3], [4, 5, 6, 7], [-1, -1, -1, 8]]


def everything(compared):
    lists = ranking.nearest(compared, 12)
    return [ranking.hit_ranks(compared).ranks, *lists, *roc.create_roc(compared)]


@pytest.mark.parametrize("tile_bytes", [2**30, 4 * 4 * 64], ids=["one tile", "6 tiles"])
def test_kept_values_give_the_same_from_one_product(monkeypatch, tile_bytes):
    """Whoever reads first, and although ranks leave out the queries without a hit."""
    monkeypatch.setattr(comparison, "TILE_BYTES", tile_bytes)
    query, gallery = drawn(40, 333, 4)
    query.pid[[3, 17]] = 99  # without a hit
    products = []
    expected = everything(compare(query, gallery))
    for first in (ranking.hit_ranks, roc.create_roc, lambda compared: ranking.nearest(compared, 5)):
        whole = kept(compare(query, gallery))
        number = (len(whole.layout.matched) + len(whole.layout.unmatched)) * len(whole.layout.tiles)
        whole = whole._replace(block_arrays=lambda rows, arrays=whole.block_arrays: products.append(1) or arrays(rows))
        first(whole)
        for array, other in zip(everything(whole), expected, strict=True):
            np.testing.assert_array_equal(array, other)
        assert len(products) == len(whole.memory) == number
        products.clear()


def test_nothing_is_kept_that_does_not_fit(monkeypatch):
    query, gallery = drawn(40, 333, 4)
    num_counted = int(np.sum(gallery.pid != -1))
    monkeypatch.setattr(comparison, "KEPT_BYTES", 4 * 40 * num_counted)
    assert kept(compare(query, gallery)).memory == {}
    monkeypatch.setattr(comparison, "KEPT_BYTES", 4 * 40 * num_counted - 1)
    assert kept(compare(query, gallery)).memory is None


def test_a_streamed_gallery_is_read_once(monkeypatch):
    """In tiles, none of them sooner than it is needed; a fault in the last one is found there, and named."""
    monkeypatch.setattr(comparison, "TILE_BYTES", 4 * 4 * 64)
    query, gallery = drawn(5, 333, 4)
    embedding = gallery.embedding.copy()
    embedding[332] = np.nan
    streamed = compare(query, gallery._replace(embedding=embedding), streamed=True)
    rows = streamed.layout.matched[0]
    for tile in streamed.layout.tiles[:-1]:
        assert streamed.tile_arrays(tile)[0].shape == (64, 4) and len(streamed.block_arrays(rows)[0]) == len(rows)
    with pytest.raises(ValueError, match=r"gallery embedding 332 has NaN or infinite values: .* \(1 of 333 are so\)"):
        streamed.tile_arrays(streamed.layout.tiles[-1])
    streamed, whole = (compare(query, gallery, streamed=streamed) for streamed in (True, False))
    for field, other in zip(ranking.nearest(streamed), ranking.nearest(whole), strict=True):
        np.testing.assert_array_equal(field, other)
