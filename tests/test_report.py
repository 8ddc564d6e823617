"""report.html: what is in it, and, in a real browser without a network, what it shows."""

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pages import data_of

from mancs_jax.data.arrays import Split
from mancs_jax.evaluation.ranking import Found
from mancs_jax.evaluation.results import cells
from mancs_jax.reporting import chart, reading
from mancs_jax.reporting.curves import curves_svg
from mancs_jax.reporting.findings import findings
from mancs_jax.reporting.report import Lists, Section, report_html

EVIL = '</script><img src=x onerror="window.broken=1">&amp;.jpg'


def split(pids, camids, prefix):
    rng = np.random.default_rng(len(pids))
    image = np.repeat(np.repeat(rng.integers(0, 256, (len(pids), 4, 2, 3), dtype=np.uint8), 32, axis=1), 32, axis=2)
    names = [f"{prefix}{i}.jpg" for i in range(len(pids))]
    return Split(image, np.array(pids, np.int32), np.array(camids, np.int32), np.array(names))


SECTION = Section("Decision <thresholds>", [["threshold", "TPR"], ["3.108", "63.2 [60.1, 66.0]"]], ["At most <3.108>."])


def page(num_queries=30, **others):
    rng = np.random.default_rng(0)
    query = split(rng.integers(1, 9, num_queries), rng.integers(1, 4, num_queries), "query")
    query = query._replace(name=np.array([EVIL, *query.name[1:].tolist()]))
    gallery = split(rng.integers(0, 9, 50), rng.integers(1, 4, 50), "gallery")
    index = np.stack([rng.permutation(50)[:10] for _ in range(num_queries)])
    index[1, 3:] = -1  # three answers only
    distance = np.sort(rng.random((num_queries, 10)), axis=1).astype(np.float32)
    lists = {name: Lists(Found(index, distance), rng.random(num_queries)) for name in ("by distance", "re-ranked")}
    masks = {2: rng.random((num_queries, 8, 4)), 4: np.full((num_queries, 4, 2), 0.5)}
    contents = {
        "table": [["per cent", "mAP"], ["Mancs", "12.3"]],
        "charts": ["<svg id='chart'></svg>"],
        "reading": ["How to read 12.3 [10.1, 14.6]: <first>", "second"],
        "sections": [SECTION],
    }
    html = report_html(
        title="Mancs on <walkers>",
        about="step 1",
        config={"note": EVIL},
        query=query,
        gallery=gallery,
        lists=lists,
        masks=masks,
        **contents | others,
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


ANALYSES = Path(__file__).parents[1] / "docs" / "results" / "market1501_scratch" / "analyses.json"
LEAST_FONT = 9  # pixels, as it is rendered
# Parts that stick out of the window and of every box that scrolls; texts of charts, with their size as rendered, the
# pixels by which they stick out of their chart, and the number of texts that they overlap.
MEASURE = """() => {
  const scrolls = node => ["auto", "scroll"].includes(getComputedStyle(node).overflowX);
  const isInBox = node => node !== document.body && (scrolls(node.parentElement) || isInBox(node.parentElement));
  // A box of text has some pixels above and below its letters.
  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom - 3 && b.top < a.bottom - 3;
  const texts = [...document.querySelectorAll("svg")].flatMap(svg => {
    const all = [...svg.querySelectorAll("text")], box = svg.getBoundingClientRect();
    return all.map(node => {
      const of = node.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
      return {
        text: node.textContent,
        size: scale * parseFloat(getComputedStyle(node).fontSize),
        outside: Math.max(box.left - of.left, of.right - box.right, box.top - of.top, of.bottom - box.bottom),
        over: all.filter(other => other !== node && overlap(of, other.getBoundingClientRect())).length,
      };
    });
  });
  return {
    scrolled: document.documentElement.scrollWidth - innerWidth,
    cut: [...document.querySelectorAll("body *")]
      .filter(node => node.getBoundingClientRect().right > innerWidth + 1 && !isInBox(node))
      .map(node => `${node.tagName} ${node.textContent.slice(0, 60)}`),
    texts,
  };
}"""


def full_page():
    """A report with all sections and charts: scores and analyses are those of a real result, with long camera names."""
    result = json.loads(ANALYSES.read_text())["Mancs"]
    result = result | {"names": {"cameras": {"5": "underground-garage-west", "1": "hall"}}}
    results = {name: result for name in ("Mancs", "Mancs, multi-query (mean), re-ranked", "untrained network")}
    steps = np.arange(1, 200)
    names = ("rank_loss", "cls_loss", "att_loss", "accuracy", "triplets_in_order", "validation/mAP", "learning_rate")
    ranks = np.stack([np.arange(1, 51), np.linspace(0.5, 1, 50)], axis=1)
    return page(
        table=cells(results),
        charts=[
            curves_svg([{"step": step} | dict.fromkeys(names, 1 / step) for step in steps]),
            chart.document([chart.lines("CMC", dict.fromkeys(results, ranks), 50, "rank")]),
        ],
        reading=reading.score_paragraphs(result),
        sections=reading.threshold_sections(results, "Mancs"),
        findings=list(findings(result).values()),
    )[0]


@pytest.mark.parametrize("width", [1300, 400])
def test_every_section_fits_the_screen(browser, tmp_path, width):
    (tmp_path / "report.html").write_text(full_page(), encoding="utf-8")
    with browser.new_context(offline=True, viewport={"width": width, "height": 900}) as context:
        tab = context.new_page()
        tab.goto(f"file://{tmp_path}/report.html")
        headings = tab.locator("h2").all_text_contents()
        assert headings[:3] == ["Decision thresholds", "Ranked lists", "Charts"] and len(headings) == 3 + 4
        found = tab.evaluate(MEASURE)
        assert found["scrolled"] <= 0 and not found["cut"]
        assert len(found["texts"]) > 150
        assert not [of for of in found["texts"] if of["size"] < LEAST_FONT or of["outside"] > 1 or of["over"]]
        assert tab.locator("#results td:nth-child(2)").first.bounding_box()["x"] < width / 2  # scores can be seen
        tab.click(".list >> nth=2")  # whole names, all its lists and the masks
        assert tab.locator("dialog canvas").count() == 2
        found = tab.evaluate(MEASURE)
        assert found["scrolled"] <= 0 and not found["cut"]
        assert tab.evaluate("(box => box.scrollWidth - box.clientWidth)(document.querySelector('dialog'))") <= 0
