import json
from unittest import mock

import numpy as np
import pytest

from mancs_jax.evaluation import protocols

# On a line; one gallery image of each kind: wrong, hit, junk, own camera, distractor.
LABELLED = {
    "query_embedding": np.float32([[1], [9]]),
    "query_pid": np.int32([1, 2]),
    "query_camid": np.int32([1, 1]),
    "gallery_embedding": np.float32([[2], [3], [1], [1], [-9]]),
    "gallery_pid": np.int32([5, 1, -1, 1, 0]),
    "gallery_camid": np.int32([1, 2, 2, 1, 3]),
}


def result_with(**scores):
    return {"mAP": 0.823, "mAP_plain": 0.8251, "mINP": 0.5, "cmc": [0.931] + [0.97] * 19} | scores


def test_single_query_by_hand():
    result = protocols.single_query(**LABELLED)
    # Query 0: the wrong image at distance 1, the hit at 2: rank 2. Query 1 has no match.
    assert result == {
        "protocol": "single_query",
        "distance": "euclidean",
        "num_queries": 2,
        "num_matched_queries": 1,
        "num_gallery": 4,
        "num_distractors": 1,
        "num_junk": 1,
        "mAP": 0.125,
        "mAP_plain": 0.25,
        "mINP": 0.25,
        "cmc": [0.0] + [0.5] * 49,
    }


def test_single_query_hands_the_distance_on():
    result = protocols.single_query(**LABELLED, distance="cosine")
    # On a line all images on the query's side tie; the wrong one has the lower index.
    assert result["distance"] == "cosine"
    assert result["mAP_plain"] == 0.25
    hit_first = LABELLED | {"gallery_embedding": np.float32([[-2], [3], [1], [1], [-9]])}
    assert protocols.single_query(**hit_first, distance="cosine")["mAP_plain"] == 0.5


def test_single_query_refuses_bad_input():
    with pytest.raises(ValueError, match="unknown distance 'l1'"):
        protocols.single_query(**LABELLED, distance="l1")


def test_a_written_result_reads_back(tmp_path):
    result = protocols.single_query(**LABELLED) | {"recipe": "paper", "versions": {"jax": "x"}}
    path = tmp_path / "results" / "single_query.json"
    protocols.write_result(path, result)
    assert json.loads(path.read_text()) == result
    assert path.read_text().endswith("}\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["single_query.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), {1, 2}])
def test_a_result_that_is_not_json_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "result.json"
    protocols.write_result(path, {"mAP": 0.5})
    with pytest.raises(ValueError, match=r"result for .*result.json is not plain JSON: "):
        protocols.write_result(path, {"mAP": value})
    assert json.loads(path.read_text()) == {"mAP": 0.5}


def test_a_write_that_is_cut_short_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "result.json"
    protocols.write_result(path, {"mAP": 0.5})
    with mock.patch("os.fsync", side_effect=OSError("disk full")), pytest.raises(OSError, match="disk full"):
        protocols.write_result(path, {"mAP": 0.6})
    assert json.loads(path.read_text()) == {"mAP": 0.5}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_table_is_aligned_markdown():
    results = {"paper": result_with(), "authors|short": result_with(mAP=1.0, cmc=[0.05] * 10)}
    assert protocols.table(results).splitlines() == [
        "| per cent       |    mAP | mAP (plain) | rank-1 | rank-5 | rank-10 | rank-20 |  mINP |",
        "| -------------- | -----: | ----------: | -----: | -----: | ------: | ------: | ----: |",
        "| paper          |  82.30 |       82.51 |  93.10 |  97.00 |   97.00 |   97.00 | 50.00 |",
        "| authors\\|short | 100.00 |       82.51 |   5.00 |   5.00 |    5.00 |       - | 50.00 |",
    ]


def test_table_of_nothing_is_its_head():
    assert len(protocols.table({}).splitlines()) == 2


def test_table_takes_what_single_query_returns():
    assert "| 12.50 |" in protocols.table({"x": protocols.single_query(**LABELLED)})
