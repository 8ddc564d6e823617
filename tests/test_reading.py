"""Texts of the report that explain intervals and thresholds."""

import pytest

from mancs_jax.reporting import reading

pytestmark = pytest.mark.quick

AT = {
    "max_fpr": 0.001,
    "fpr": 0.001,
    "tpr": 0.632,
    "distance": 3.1081,
    "tpr_interval": [0.601, 0.66],
    "fpr_interval": [0.0008, 0.0013],
    "distance_interval": [3.05, 3.16],
    "interval_method": "bootstrap",
}
RESULT = {
    "cmc": [0.808],
    "intervals": {"rank-1": [0.789, 0.826]},
    "bootstrap": {"num_identities": 750},
    "num_gallery": 200_000,
    "verification": {"num_negative_pairs": 10**6, "at": [AT], "equal_error": {"rate": 0.03, "distance": 4.0}},
}


def test_an_interval_in_words():
    first, *others = reading.score_paragraphs(RESULT)
    assert first.startswith("How to read 80.8 [78.9, 82.6]: for 80.8 % of the queries of these 750 people, ")
    assert "lies between 78.9 and 82.6 %" in first and len(others) == 2
    assert "right in 95 of 100 test sets" in first
    for number, words in ((50, "95 of 100"), (49, "about 90 of 100"), (12, "about 90 of 100")):
        small = RESULT | {"bootstrap": {"num_identities": number}}
        assert f"by a method that is right in {words} test sets, " in reading.score_paragraphs(small)[0]
    assert reading.score_paragraphs({"cmc": [0.5]}) == []  # of CUHK03's classic protocol
    (few,) = reading.score_paragraphs(RESULT | {"intervals": None, "bootstrap": {"num_identities": 9}})
    assert few.startswith("The queries show 9 people only. The scores have no confidence intervals, because")


def test_false_alarms_in_words():
    (section,) = reading.threshold_sections({"Mancs": RESULT, "Mancs, re-ranked": {"verification": None}}, "Mancs")
    assert section.rows[1] == [
        "Mancs",
        "0.1 %",
        "3.108 [3.05, 3.16]",
        "63.20 [60.10, 66.00]",
        "0.1 [0.08, 0.13]",
        "200 [160, 260]",
    ]
    assert "63.2 % of the pairs of images of one person are accepted" in section.paragraphs[0]
    assert section.paragraphs[1].endswith("0.1 % of 200,000 images of other people are 200 false alarms per query.")
    assert section.paragraphs[2].startswith("The interval of the FPR is about other people")
    few = RESULT | {
        "verification": RESULT["verification"] | {"at": [AT | dict.fromkeys(key for key in AT if "interv" in key)]}
    }
    (section,) = reading.threshold_sections({"Mancs": few}, "Mancs")
    assert section.paragraphs[2].startswith("EER, ") and not any("[" in cell for cell in section.rows[1])
    assert reading.threshold_sections({"Mancs": {"verification": None}}, "Mancs") == []
