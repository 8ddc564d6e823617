import json
from unittest import mock

import numpy as np
import pytest

from mancs_jax.common.atomic_write import write_json
from mancs_jax.evaluation import results

pytestmark = pytest.mark.quick


def result_with(**scores):
    return {"mAP": 0.823, "mAP_plain": 0.8251, "mINP": 0.5, "cmc": [0.931] + [0.97] * 19} | scores


def test_a_written_result_reads_back(tmp_path):
    result = result_with(recipe="paper", versions={"jax": "x"})
    path = tmp_path / "results" / "single_query.json"
    write_json(path, result)
    assert json.loads(path.read_text()) == result
    assert path.read_text().endswith("}\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["single_query.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), {1, 2}])
def test_a_result_that_is_not_json_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "result.json"
    write_json(path, {"mAP": 0.5})
    with pytest.raises(ValueError, match=r"result for .*result.json is not plain JSON: "):
        write_json(path, {"mAP": value})
    assert json.loads(path.read_text()) == {"mAP": 0.5}


def test_a_write_that_is_cut_short_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"mAP": 0.5})
    with mock.patch("os.fsync", side_effect=OSError("disk full")), pytest.raises(OSError, match="disk full"):
        write_json(path, {"mAP": 0.6})
    assert json.loads(path.read_text()) == {"mAP": 0.5}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_table_is_aligned_markdown():
    rows = {"paper": result_with(), "authors|short": result_with(mAP=1.0, cmc=[0.05] * 10)}
    assert results.table(rows).splitlines() == [
        "| per cent       |    mAP | mAP (plain) | rank-1 | rank-5 | rank-10 | rank-20 |  mINP |",
        "| -------------- | -----: | ----------: | -----: | -----: | ------: | ------: | ----: |",
        "| paper          |  82.30 |       82.51 |  93.10 |  97.00 |   97.00 |   97.00 | 50.00 |",
        "| authors\\|short | 100.00 |       82.51 |   5.00 |   5.00 |    5.00 |       - | 50.00 |",
    ]


def test_table_of_nothing_is_its_head():
    assert len(results.table({}).splitlines()) == 2


def test_a_score_that_a_protocol_lacks_shows_as_a_dash():
    (row,) = results.table({"classic": {"cmc": [0.25] * 50}}).splitlines()[2:]
    assert " ".join(row.split()) == "| classic | - | - | 25.00 | 25.00 | 25.00 | 25.00 | - |"


def test_the_table_of_pairs():
    verification = {
        "num_negative_pairs": 10_000,
        "at": [
            {"max_fpr": 0.01, "tpr": 0.9, "distance": 12.3456},
            {"max_fpr": 0.001, "tpr": 0.25, "distance": 8.0},
            {"max_fpr": 0.0001, "tpr": 0.0, "distance": None},
        ],
        "equal_error": {"rate": 0.0321, "distance": 14.0},
    }
    rows = {"Mancs": {"verification": verification}, "re-ranked": {"verification": None}, "classic": {}}
    head, rule, row = results.verification_table(rows).splitlines()
    assert head.split(" | ") == [
        "| same person or not",
        "TPR at FPR 1 % (distance)",
        "TPR at FPR 0.1 % (distance)",
        "TPR at FPR 0.01 % (distance)",
        "EER (distance) |",
    ]
    assert len(head) == len(rule) == len(row)
    assert " ".join(row.split()) == "| Mancs | 90.00 (12.35) | 25.00 (8) | 0.00 (-) | 3.21 (14) |"
    assert results.verification_table({"classic": {}}) == ""

    rows["Mancs"]["verification"]["num_negative_pairs"] = 999  # fewer than one of them may be accepted at 0.1 %
    assert results.verification_table(rows).splitlines()[-1].split() == [
        "|",
        "Mancs",
        "|",
        "90.00",
        "(12.35)",
        "|",
        "-",
        "|",
        "-",
        "|",
        "3.21",
        "(14)",
        "|",
    ]


def test_scores_over_splits_have_their_deviation():
    of_splits = {"cmc": [0.25] * 50, "mAP": 0.5, "sd": {"rank-1": 0.0125, "mAP": 0.0}}
    (row,) = results.table({"single-shot": of_splits}).splitlines()[2:]
    assert " ".join(row.split()) == "| single-shot | 50.00 ± 0.00 | - | 25.00 ± 1.25 | 25.00 | 25.00 | 25.00 | - |"


def test_the_line_on_splits():
    result = {
        "num_splits": 10,
        "split_seed": 3,
        "num_queries": 1486,
        "num_identities": 2000,
        "query_camera": 1,
        "gallery_camera": 2,
    }
    result |= {"num_gallery_only": 0, "num_distractors": 0, "cameras_known": True}
    assert results.splits({"Mancs": result}) == (
        "mean ± standard deviation over 10 random splits (seed 3) of 1,486 of 2,000 identities, query camera 1, "
        "gallery camera 2"
    )
    result |= {"num_splits": 1, "query_camera": None, "num_gallery_only": 549, "num_distractors": 775}
    assert results.splits({"Mancs": result | {"cameras_known": False}}).splitlines() == [
        "one random split (seed 3) of 1,486 of 2,000 identities, two cameras of each identity, drawn in each split; "
        "549 identities without a query in the gallery; 775 distractors in the gallery",
        "no cameras are known: every image is its own camera, so the scores include images of one view",
    ]
