"""The sections of a report that explain open-set rates, likelihood ratios, cameras and groups."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mancs_jax.evaluation.further_tables import further_tables
from mancs_jax.reporting.findings import finding_charts, findings
from mancs_jax.reporting.matrix import matrix_svg
from mancs_jax.reporting.reliability import reliability_svg

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "market1501_scratch"


@pytest.fixture(scope="module")
def result():
    return json.loads((RESULTS / "analyses.json").read_text())["Mancs"]


def words_of(html):
    return " ".join(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_numbers_of_a_result_are_in_its_sections(result):
    sections = {name: words_of(html) for name, html in findings(result).items()}
    assert list(sections) == ["open_set", "calibration", "cameras", "groups"]
    assert "375 of 750 people were removed from the gallery, in 5 random repeats" in sections["open_set"]
    assert "the threshold is 2.023, and 77.5 [72.9, 80.9] % of the searches" in sections["open_set"]
    assert "is 0.170; with the best possible calibration of this model it would be 0.165" in sections["calibration"]
    assert "100 99 % 33 % 0.5 %" in sections["calibration"]  # ratio 100, for one of 2, 200 and 20,000 people
    assert (
        "queries of camera 5 in the images of camera 1, rank-1 64.3 [60.4, 68.1] % (591 queries" in sections["cameras"]
    )
    assert (
        "gender: female 336 1,502 82.7 [79.9, 85.3]" in sections["groups"]
        and "age: old 5 25 - - -" in sections["groups"]
    )


def test_a_result_without_analyses_has_no_section():
    assert findings({"mAP": 0.5}) == {} == finding_charts({"mAP": 0.5}) and further_tables({"a": {"mAP": 0.5}}) == []


def test_tables_of_a_result(result):
    open_set, calibration, cameras, groups = further_tables({"Mancs": result})
    assert "| Mancs    |          1 % | 2.023 [1.978, 2.073] |                77.5 [72.9, 80.9] |" in open_set
    assert calibration.startswith("likelihood ratios: Cllr 0.1698, minimum 0.1652 (2.8 % above it)")
    assert cameras.startswith(
        "worst pair of cameras: queries of camera 5 in images of camera 1, rank-1 64.3 [60.4, 68.1]"
    )
    assert "| all " in groups and f"% of {result['num_gallery']:,} images of other people are at most " in groups


def test_cameras_have_their_names(result):
    named = result | {"names": {"cameras": {"5": "gate <A>", "1": "hall"}}}
    assert "queries of camera gate &lt;A&gt; in the images of camera hall" in findings(named)["cameras"]
    assert "gate &lt;A&gt;" in finding_charts(named)["cameras"] and ">2<" in finding_charts(named)["cameras"]
    assert "queries of camera gate <A> in images of camera hall" in further_tables({"Mancs": named})[2]
    named["names"]["cameras"]["6"] = "underground-garage-west"  # would run into its neighbours
    assert ">underg...est<" in finding_charts(named)["cameras"]
    assert result["cameras"]["worst"]["query_camera"] == 5


def test_too_few_searches_are_a_dash(result):
    at = {"max_fpir": 0.01} | dict.fromkeys(("fpir", "fnir", "fnir_interval", "distance", "distance_interval"))
    few = result | {"open_set": result["open_set"] | {"at": [at]}}
    assert re.search(r"\| 1 % \| +- \| +- \|", re.sub(r" +", " ", further_tables({"x": few})[0]))
    text = "too few searches for absent people to find a threshold where at most 1 in 100 returns a match."
    assert text in findings(few)["open_set"]
    assert "valid only for the cameras they were calibrated under" in findings(few)["calibration"]


def test_without_a_threshold_no_rate_is_zero(result):
    cameras, groups = result["cameras"], result["groups"]
    none = {name: [[None] * len(row) for row in cameras[name]] for name in ("tpr", "tpr_interval")}
    rates = dict.fromkeys(("tpr", "tpr_interval", "fpr", "fpr_interval"))
    without = {
        "cameras": cameras | none | {"threshold": None},
        "groups": groups | {"threshold": None, "rows": [row | rates for row in groups["rows"]]},
    }
    sections = findings(without)
    assert "second matrix" in findings(result)["cameras"] and "second matrix" not in sections["cameras"]
    assert "too few pairs of two people for shares" in sections["groups"] and "<td>0.0</td>" not in sections["groups"]
    assert list(finding_charts(without)) == ["cameras"]
    head, first = (
        line.split("|") for line in further_tables({"x": {"verification": {}} | without})[1].split("\n")[:3:2]
    )
    assert [cell.strip() for cell in (*head[-3:-1], *first[-3:-1])] == ["TPR", "FPR", "-", "-"]


def test_charts_are_svg(result):
    charts = finding_charts(result)
    assert list(charts) == ["open_set", "reliability", "cameras", "cameras_tpr"]
    for svg in charts.values():
        ElementTree.fromstring(svg)
    assert charts["open_set"].count("<polygon") == 1 and charts["cameras"].count("<rect") == 36 + 1
    assert charts["reliability"].count("<circle") == 14


def test_fewer_than_ten_people_have_no_brackets_to_explain(result):
    open_set, groups = result["open_set"], result["groups"]
    few = {
        "open_set": open_set
        | {"curve": [[*row[:2], None, None] for row in open_set["curve"]]}
        | {"at": [at | {"fnir_interval": None, "distance_interval": None} for at in open_set["at"]]},
        "groups": groups | {"rows": [row for row in groups["rows"] if row["identities"] < 10]},
    }
    svg = finding_charts(few)["open_set"]
    assert (
        svg.count("<polyline") == 1 and "<polygon" not in svg and "interval" not in svg.replace("without interval", "")
    )
    for name, html in findings(few).items():
        assert "confidence interval" not in html and "confidence interval" in findings(result)[name]
    assert "open_set" not in finding_charts({"open_set": open_set | {"curve": [[0.1, None, None, None]]}})


def test_a_matrix_shows_shares_and_counts():
    svg = matrix_svg(["1", "<2>"], ["3"], [[0.5], [None]], [[7], [0]], "rows", "columns")
    texts = [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["rows", "columns", "3", "1", "50.0 %", "of 7", "<2>", "-"]


def test_dots_lie_on_the_diagonal_where_ratios_are_right():
    row = {"positive": 20, "negative": 20}
    rows = [row | {"log10_ratio": value, "observed": value} for value in (-1.25, 0.25, 2.75)]
    rows += [row | {"log10_ratio": 1.25, "observed": 0.0, "positive": 9}, row | {"log10_ratio": 0, "observed": None}]
    circles = list(ElementTree.fromstring(reliability_svg(rows)).iter("{http://www.w3.org/2000/svg}circle"))
    sums = {round(float(circle.get("cx")) + float(circle.get("cy")), 1) for circle in circles}
    assert len(circles) == 3 and max(sums) - min(sums) <= 0.11  # x + y is the same on the diagonal
