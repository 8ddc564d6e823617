import json
from unittest import mock

import numpy as np
import pytest

from mancs_jax.common.atomic_write import write_json
from mancs_jax.evaluation import results

pytestmark = pytest.mark.quick


def result_with(**scores):
    return {"mAP": 0.823, "mAP_plain": 0.8251, "mINP": 0.5, "cmc": [0.931] + [0.97] * 19} | scores


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
        "| per cent       | mAP (official) | mAP (plain) | rank-1 | rank-5 | rank-10 | rank-20 |  mINP |",
        "| -------------- | -------------: | ----------: | -----: | -----: | ------: | ------: | ----: |",
        "| paper          |          82.30 |       82.51 |  93.10 |  97.00 |   97.00 |   97.00 | 50.00 |",
        "| authors\\|short |         100.00 |       82.51 |   5.00 |   5.00 |    5.00 |       - | 50.00 |",
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
            {
                "max_fpr": 0.01,
                "fpr": 0.0099,
                "tpr": 0.9,
                "distance": 12.3456,
                "tpr_interval": [0.88123, 0.92],
                "fpr_interval": [0.0075, 0.0125],
                "distance_interval": [12.1, 12.75],
                "interval_method": "bootstrap",
            },
            {
                "max_fpr": 0.001,
                "fpr": 0.0009,
                "tpr": 0.25,
                "distance": 8.0,
                "tpr_interval": [0.2, 0.3],
                "fpr_interval": [0.0004, 0.0016],
                "distance_interval": None,
                "interval_method": "wilson",
            },
            {"max_fpr": 0.0001, "fpr": 0.0, "tpr": 0.0, "distance": None},
        ],
        "equal_error": {"rate": 0.0321, "distance": 14.0},
    }
    mancs = {"verification": verification, "num_gallery": 2_000}
    rows = {"Mancs": mancs, "re-ranked": {"verification": None}, "classic": {}}
    lines = [" ".join(line.split()) for line in results.verification_table(rows).splitlines()]
    assert lines[0] == "| same person or not | FPR at most | threshold | TPR | FPR | false alarms per query |"
    assert lines[2:] == [
        "| Mancs | 1 % | 12.35 [12.1, 12.75] | 90.00 [88.12, 92.00] | 0.99 [0.75, 1.25] | 19.8 [15, 25] |",
        "| | 0.1 % | 8 | 25.00 [20.00, 30.00] | 0.09 [0.04, 0.16] | 1.8 [0.8, 3.2] |",
        "| | 0.01 % | - | 0.00 | 0 | 0 |",
        "| | EER | 14 | 96.79 | 3.21 | 64.2 |",
    ]
    assert len({len(line) for line in results.verification_table(rows).splitlines()}) == 1
    assert results.verification_table({"classic": {}}) == "" == results.verification_note({"classic": {}})
    note = results.verification_note(rows).splitlines()
    assert note[0] == (
        "false alarms per query: FPR x 2,000 images of other people (this gallery; --gallery_size=N for another size)"
    )
    assert note[1].startswith("TPR and FPR of fewer than ten pairs have Wilson intervals")

    # 0.1 % of 200,000 images are 200 wrong images per query.
    verification["at"][1]["fpr"] = 0.001
    alarms = results.verification_table(rows, 200_000).splitlines()[3].split("|")[-2].split()
    assert alarms == ["200", "[80,", "320]"]
    assert results.verification_note(rows, 200_000).startswith("false alarms per query: FPR x 200,000 images of other")

    verification["num_negative_pairs"] = 999  # fewer than one of them may be accepted at 0.1 %
    lines = [" ".join(line.split()) for line in results.verification_table(rows).splitlines()]
    assert lines[3:5] == ["| | 0.1 % | - | - | - | - |", "| | 0.01 % | - | - | - | - |"]


@pytest.mark.parametrize(
    ("value", "text"), [(3.10824, "3.108"), (0.00012345, "0.0001234"), (15913.4, "15,910"), (0.0, "0"), (20.0, "20")]
)
def test_significant_digits(value, text):
    assert results.significant(value, 4) == text


def test_intervals_stand_behind_scores():
    intervals = {"mAP": [0.8049, 0.8351], "rank-1": [0.9, 1.0]}
    bootstrap = {"confidence": 0.95, "draws": 2000, "seed": 0, "num_identities": 750}
    rows = {"Mancs": result_with(intervals=intervals, bootstrap=bootstrap), "old": result_with()}
    row, old = (" ".join(line.split()) for line in results.table(rows).splitlines()[2:])
    assert row == "| Mancs | 82.3 [80.5, 83.5] | 82.51 | 93.1 [90.0, 100.0] | 97.00 | 97.00 | 97.00 | 50.00 |"
    assert old == "| old | 82.30 | 82.51 | 93.10 | 97.00 | 97.00 | 97.00 | 50.00 |"
    assert results.interval_note(rows) == (
        "[low, high]: 95 % confidence interval, by 2,000 bootstrap draws over 750 query identities (seed 0)"
    )
    assert results.interval_note({"old": result_with()}) == ""
    few = result_with(intervals=None, bootstrap=bootstrap | {"num_identities": 9})
    assert " ".join(results.table({"few": few}).splitlines()[2].split()) == old.replace("old", "few")
    assert results.interval_note({"few": few}) == (
        "no confidence intervals: with 9 query identities they would be too narrow"
    )


def test_a_single_camera_is_explained():
    counts = {"num_matched_queries": 0, "num_queries": 12}
    assert results.matches({"a": counts}) == f"0 of 12 queries have a match\n{results.NO_MATCH}"
    assert "\n" not in results.matches({"a": counts | {"num_matched_queries": 1}})


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
