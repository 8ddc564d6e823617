"""The documentation site, built as `make docs` builds it, and opened from disk in a browser without a network.

`make docs` installs MkDocs, so .ci/run calls this file after it; elsewhere it is skipped where MkDocs is missing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import gather
import pytest

REPOSITORY = Path(__file__).parents[1]
WIDTHS = (1300, 400)
# Parts of a page that stick out of the window, and of a box that scrolls; tables that are wider than their column.
MEASURE = """() => {
  const article = document.querySelector("article");
  const scrolls = node => ["auto", "scroll"].includes(getComputedStyle(node).overflowX);
  const isInBox = node => node !== article && (scrolls(node.parentElement) || isInBox(node.parentElement));
  const named = nodes => [...nodes].map(node => `${node.tagName} ${node.textContent.trim().slice(0, 80)}`);
  const all = [...article.querySelectorAll("*")], tables = [...article.querySelectorAll("table")];
  return {
    scrolled: document.documentElement.scrollWidth - innerWidth,
    cut: named(all.filter(node => node.getBoundingClientRect().right > innerWidth + 1 && !isInBox(node))),
    wide: named(tables.filter(table => table.scrollWidth > article.clientWidth)),
    unloaded: [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src),
    letters: article.innerText.length,
    links: [...document.querySelectorAll("a[href]")].map(link => link.href),
    anchors: [...document.querySelectorAll("[id]")].map(node => node.id),
  };
}"""


@pytest.fixture(scope="module")
def site(browser, tmp_path_factory):
    """The folder of the built site, with the report of a demo."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    (folder / "report.html").write_text("<!doctype html><title>the report</title>")
    gather.gather(folder / "build" / "docs", folder / "report.html")
    shutil.copy(REPOSITORY / "mkdocs.yml", folder)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", f"--config-file={folder / 'mkdocs.yml'}"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder / "build" / "site"


def file_of(link):
    """The file on this machine that a link leads to, and its anchor; None for a link elsewhere."""
    parts = urlsplit(link)
    return (Path(unquote(parts.path)), unquote(parts.fragment)) if parts.scheme == "file" else None


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_opens_from_disk(browser, site, width):
    """No page is empty or scrolls sideways, no image or script fails, and a link leads to a file with its anchor."""
    faults, links, anchors = [], {}, {}
    pages = sorted(set(site.rglob("*.html")) - {site / "404.html", site / "files" / "report.html"})
    # Not resized: parts of the page would move while it is measured.
    with browser.new_context(offline=True, viewport={"width": width, "height": 900}) as context:
        tab = context.new_page()
        tab.on("pageerror", lambda error: faults.append(f"{tab.url}: {error}"))
        tab.on("console", lambda said: faults.append(f"{tab.url}: {said.text}") if said.type == "error" else None)
        for page in pages:
            tab.goto(page.as_uri())
            found = tab.evaluate(MEASURE)
            signs = ("cut", "unloaded", "wide") if width == WIDTHS[0] else ("cut", "unloaded")
            faults += [f"{page.relative_to(site)}: {sign} {found[sign]}" for sign in signs if found[sign]]
            if found["scrolled"] > 0 or found["letters"] < 50:
                faults.append(f"{page.relative_to(site)}: {found['scrolled']} too wide, {found['letters']} letters")
            links[page] = [of for of in map(file_of, found["links"]) if of]
            anchors[page] = set(found["anchors"])
    assert len(pages) > 50 and sum(map(len, links.values())) > 1000
    for page, targets in links.items():
        for target, anchor in targets:
            if not target.is_file() or (anchor and anchor not in anchors.get(target, ())):
                faults.append(f"{page.relative_to(site)} links to {target}#{anchor}")
    assert not faults, "\n".join(faults)
    navigation = {target for target, _ in links[site / "index.html"]}
    assert len(navigation) > 40 and links[site / "demo.html"].count((site / "files" / "report.html", "")) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_works_from_disk(browser, site, width):
    with browser.new_context(offline=True, viewport={"width": width, "height": 900}) as context:
        tab = context.new_page()
        tab.goto((site / "index.html").as_uri())
        tab.click(".md-search__form" if width == WIDTHS[0] else "label.md-header__button[for=__search]")
        tab.type(".md-search__input", "re-ranking")
        tab.wait_for_selector(".md-search-result__link")
        links = tab.evaluate("[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)")
        assert "benchmarks.html" in {file_of(link)[0].name for link in links}
        assert all(file_of(link)[0].is_file() for link in links)
        with tab.expect_navigation():
            tab.click(".md-search-result__link >> nth=0")
        assert "rank" in tab.inner_text("article").lower()
