"""report.html: what is in it, and, in a real browser without a network, what it shows."""

import base64

import cv2
import numpy as np
import pytest
from pages import data_of

from mancs_jax.data.arrays import Split
from mancs_jax.evaluation.ranking import Found
from mancs_jax.reporting.report import Lists, Section, report_html

EVIL = '</script><img src=x onerror="window.broken=1">&amp;.jpg'


def split(pids, camids, prefix):
    rng = np.random.default_rng(len(pids))
    image = np.repeat(np.repeat(rng.integers(0, 256, (len(pids), 4, 2, 3), dtype=np.uint8), 32, axis=1), 32, axis=2)
    names = [f"{prefix}{i}.jpg" for i in range(len(pids))]
    return Split(image, np.array(pids, np.int32), np.array(camids, np.int32), np.array(names))


SECTION = Section("Decision <thresholds>", [["threshold", "TPR"], ["3.108", "63.2 [60.1, 66.0]"]], ["At most <3.108>."])


def page(num_queries=30, **names):
    rng = np.random.default_rng(0)
    query = split(rng.integers(1, 9, num_queries), rng.integers(1, 4, num_queries), "query")
    query = query._replace(name=np.array([EVIL, *query.name[1:].tolist()]))
    gallery = split(rng.integers(0, 9, 50), rng.integers(1, 4, 50), "gallery")
    index = np.stack([rng.permutation(50)[:10] for _ in range(num_queries)])
    index[1, 3:] = -1  # three answers only
    distance = np.sort(rng.random((num_queries, 10)), axis=1).astype(np.float32)
    lists = {name: Lists(Found(index, distance), rng.random(num_queries)) for name in ("by distance", "re-ranked")}
    masks = {2: rng.random((num_queries, 8, 4)), 4: np.full((num_queries, 4, 2), 0.5)}
    html = report_html(
        "Mancs on <walkers>",
        "step 1",
        [["per cent", "mAP"], ["Mancs", "12.3"]],
        {"note": EVIL},
        ["<svg id='chart'></svg>"],
        query,
        gallery,
        lists,
        masks,
        reading=["How to read 12.3 [10.1, 14.6]: <first>", "second"],
        sections=[SECTION],
        **names,
    )
    return html, query, gallery, lists


@pytest.mark.quick
def test_every_text_is_data_and_cannot_end_its_script():
    html, *_ = page()
    assert EVIL not in html and html.count("</script>") == 2 and "<svg id='chart'>" in html
    places = [html.index(text) for text in ('id="results"', 'id="lists"', "<svg id='chart'>", 'id="config"')]
    assert places == sorted(places)
    data = data_of(html)
    assert data["queries"][0]["name"] == EVIL and data["config"]["note"] == EVIL


@pytest.mark.quick
def test_lists_images_and_masks_are_those_given():
    html, query, gallery, lists = page()
    data, answers = data_of(html), lists["by distance"].nearest
    for row in (0, 1, 29):
        found = [data["gallery"][i] for i in data["lists"]["by distance"]["answers"][row]]
        expected = answers.index[row][answers.index[row] >= 0]
        assert [entry["name"] for entry in found] == gallery.name[expected].tolist()
        assert [entry["pid"] for entry in found] == gallery.pid[expected].tolist()
        np.testing.assert_allclose(
            data["lists"]["by distance"]["distances"][row], answers.distance[row][: len(expected)], atol=5e-4
        )
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data["images"][data["queries"][3]["image"]]), np.uint8), 1)
    small = cv2.resize(query.image[3], (48, 96), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    assert image.shape == small.shape and abs(image.astype(int) - small).mean() < 8
    mask = np.frombuffer(base64.b64decode(data["masks"]["2"]["of_query"][0]), np.uint8)
    assert mask.min() == 0 and mask.max() == 255 and len(mask) == 32
    assert set(base64.b64decode(data["masks"]["4"]["of_query"][0])) == {0}  # a constant mask has nothing to show


def test_people_and_cameras_have_their_names(browser, tmp_path):
    html, query, gallery, _ = page(people={6: "anna"}, cameras={2: "door-2"})
    data = data_of(html)
    names = {pid: "anna" if pid == 6 else pid for pid in range(9)}
    assert [of["pid"] for of in data["queries"]] == [names[pid] for pid in query.pid.tolist()]
    assert {of["camid"] for of in data["gallery"]} == {1, "door-2", 3}
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    with browser.new_context(offline=True) as context:
        tab = context.new_page()
        tab.goto(f"file://{tmp_path}/report.html")
        tab.fill("#filter", "ANNA")
        assert f"({np.sum(query.pid == 6)} queries)" in tab.text_content("#page")
        tab.fill("#filter", "anna door-2")
        both = np.sum((query.pid == 6) & (query.camid == 2))
        assert f"({both} queries)" in tab.text_content("#page") and both
        assert tab.text_content(".list figure:first-child figcaption") == "anna, door-2"
        own = (gallery.pid == 6) & (gallery.camid == 2)
        assert own.any() and tab.locator("figure.right").count() > 0


def test_in_a_browser(browser, tmp_path):
    html, query, _, lists = page()
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    errors = []
    with browser.new_context(offline=True) as context:
        tab = context.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(f"file://{tmp_path}/report.html")
        assert tab.text_content("h1") == "Mancs on <walkers>" and tab.evaluate("window.broken") is None
        assert tab.locator("#reading p").all_text_contents()[0] == "How to read 12.3 [10.1, 14.6]: <first>"
        assert tab.text_content("#sections h2") == SECTION.title
        assert tab.locator("#sections td").all_text_contents() == list(SECTION.rows[1])
        assert tab.text_content("#sections p") == "At most <3.108>."
        assert tab.locator(".list").count() == 12 and "1 / 3 (30 queries)" in tab.text_content("#page")

        def captions():
            return tab.locator(".list figure:first-child figcaption:first-of-type").all_text_contents()

        def expected(rows):
            return [f"{query.pid[i]} c{query.camid[i]}" for i in rows]

        worst = np.argsort(lists["by distance"].average_precision, kind="stable")
        assert captions() == expected(worst[:12])
        tab.select_option("#order", "best")
        assert captions() == expected(worst[::-1][:12])
        tab.select_option("#list", "re-ranked")
        assert captions() == expected(np.argsort(-lists["re-ranked"].average_precision, kind="stable")[:12])
        tab.click("#next"), tab.click("#next")
        assert tab.locator(".list").count() == 6 and tab.is_disabled("#next")
        tab.fill("#filter", "c2 query")
        assert f"({np.sum(query.camid[1:] == 2)} queries)" in tab.text_content("#page")
        tab.fill("#filter", "onerror")
        assert tab.locator(".list").count() == 1
        tab.click(".list")
        assert tab.text_content("dialog h2") == EVIL and tab.locator("dialog canvas").count() == 2
        assert tab.locator("dialog .answers figure").count() == 2 * 11  # before and after re-ranking
        (row,) = [i for i, name in enumerate(query.name) if name == EVIL]
        shares = [f"{100 * of.average_precision[row]:.1f}" for of in lists.values()]
        said = [f"{name}: average precision {share} %" for name, share in zip(lists, shares)]
        assert tab.locator("dialog p").all_text_contents()[1:3] == said
        assert tab.text_content(".list figure:first-child figcaption:last-child") == f"AP {shares[1]}"
        images = tab.evaluate("Array.from(document.images).every(image => image.complete && image.naturalWidth === 48)")
        assert images and not errors
