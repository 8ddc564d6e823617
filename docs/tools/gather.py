"""Gathers the pages of the documentation site in build/docs: `make docs` runs it, then MkDocs.

Pages of this repository are copied, with their links made to fit. Reference comes from the code, tutorials from the
notebooks, and the live demo from `make demo`, where it has run.
"""

import base64
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import badges
import reference

REPOSITORY = Path(__file__).resolve().parents[2]
REPORT = REPOSITORY / "workdirs" / "walkers" / "report.html"
NOTEBOOKS = {"notebooks/walkers.ipynb": "tutorial.md", "notebooks/market1501.ipynb": "market1501.md"}
# File of the repository -> page of the site, where the name is another.
PAGES = NOTEBOOKS | {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "mancs_jax/config/defaults.py": "reference/configuration.md",
}
COLAB_BADGE = "docs/badges/colab.svg"
WORKER = "iframe-worker.js"  # lets the search work in pages that are opened from disk
STYLE = """.md-typeset table:not([class]) { font-size: 0.65rem; }
.md-typeset table:not([class]) th, .md-typeset table:not([class]) td { padding: 0.5em 0.6em; }
.md-grid { max-width: 72rem; }
.md-typeset td code { overflow-wrap: normal; word-break: normal; }
.md-typeset td:last-child { min-width: 4rem; overflow-wrap: anywhere; }
.md-typeset table:not([class]) th { min-width: 3rem; }
.md-typeset img { background: white; }
.md-typeset .badges img { background: none; }
.md-typeset .doc-signature { overflow-x: auto; }
"""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)


def place(path: str) -> str:
    """Returns the place in the site of a file or folder of the repository."""
    if path in PAGES:
        return PAGES[path]
    inside = path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"
    # Not index.md: PATH/index.md and PATH.md would be one page.
    return f"{inside}/files.md" if (REPOSITORY / path).is_dir() else inside


def fit_links(text: str, page: str, url: str) -> tuple[str, set[str]]:
    """Makes the links of a page fit the site.

    Args:
      text: Markdown of the page.
      page: its path in the repository.
      url: of the repository at GitHub, or "": links to its services then go. Their pictures always do.

    Returns:
      The text, and the paths in the repository that it links to.
    """
    linked: set[str] = set()

    def fitted(found: re.Match) -> str:
        mark, words, target = found.groups()
        words = LINK.sub(fitted, words)
        if target.startswith("../../"):  # a service of GitHub, as its own pages reach it
            if mark:  # would be loaded from elsewhere
                return ""
            return f"[{words}]({url}/{target.removeprefix('../../')})" if url and words else words
        if re.match(r"https?://|mailto:|#", target):
            return f"{mark}[{words}]({target})"
        path, _, anchor = target.partition("#")
        there = os.path.normpath(Path(page).parent / path)
        linked.add(there)
        relative = os.path.relpath(place(there), Path(place(page)).parent)
        return f"{mark}[{words}]({relative}{'#' if anchor else ''}{anchor})"

    parts = FENCED.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(fitted, part) for part in parts), linked


def folder_page(path: str) -> str:
    """Returns the page that lists the files of a folder."""
    files = sorted(file.name for file in (REPOSITORY / path).iterdir() if file.is_file())
    lines = [f"- [{name}]({name})" for name in files]
    return f"# {Path(path).name}\n\nResults as they were written:\n\n" + "\n".join(lines) + "\n"


def open_in_colab(notebook: str, url: str) -> str:
    """Returns a badge that opens a notebook in Colab; without the address of the repository, how to open it."""
    if not url:
        return (
            "To run this notebook in Colab, select *File > Open notebook > GitHub* there, enter the address of the "
            f"repository, and choose `notebooks/{notebook}.ipynb`."
        )
    return badges.open_in_colab(notebook, url, place(COLAB_BADGE)) + "{ .badges }"


def notebook_page(path: Path, pictures: Path, url: str) -> str:
    """Returns a notebook as Markdown; its pictures are written into a folder beside the page."""
    parts = [open_in_colab(path.stem, url)]
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            parts += _shown(output, pictures)
    head = next((i for i, part in enumerate(parts) if part.startswith("# ")), 0)
    return "\n\n".join([parts.pop(head), *parts]) + "\n"


def _shown(output: dict[str, Any], pictures: Path) -> list[str]:
    """Returns the Markdown of a cell's output: its pictures, or its text."""
    data = {kind: "".join(of) for kind, of in output.get("data", {}).items() if not isinstance(of, dict)}
    for kind, suffix in (("image/png", "png"), ("image/jpeg", "jpg"), ("image/svg+xml", "svg")):
        if kind in data:
            pictures.mkdir(parents=True, exist_ok=True)
            name = f"{len(list(pictures.iterdir()))}.{suffix}"
            content = data[kind].encode() if suffix == "svg" else base64.b64decode(data[kind])
            (pictures / name).write_bytes(content)
            return [f"![output of the cell above]({pictures.name}/{name})"]
    text = "".join(output.get("text", "")) or data.get("text/plain", "")
    return [f"```text\n{text.rstrip()}\n```"] if text.strip() and output.get("name") != "stderr" else []


def demo_page(report: Path) -> str:
    """Returns the page of the live demo, with a link to the report where there is one."""
    if report.exists():
        link = "[Open the report of the latest run](files/report.html){ .md-button .md-button--primary }"
    else:
        link = "This build contains no report, because `make demo` had not been run before `make docs`."
    return f"""# The live demo

`make demo` renders 300 synthetic pedestrians, trains a model on them, evaluates it on 100 others, and writes a report
of the result, `workdirs/walkers/report.html`. The [tutorial](tutorial.md) explains this run step by step.

{link}

The report shows the ranked list of every query, the worst first. These are four of the lists: the query on the left,
then its ten nearest gallery images, with correct matches in green and wrong ones in red.

![Ranked lists of four queries](walkers.jpg)

It also contains the scores with their confidence intervals and how to read them, the attention masks of every query,
the training curves, and the distances between images of the same person and of different people. The scores are in the
[table of results](index.md#results).
"""


def gather(output: Path, report: Path = REPORT) -> None:
    """Writes all pages and files of the site into a folder, which is made anew."""
    shutil.rmtree(output, ignore_errors=True)
    url = badges.repository_url()
    sources = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    sources += [path.relative_to(REPOSITORY).as_posix() for path in sorted((REPOSITORY / "docs").rglob("*.md"))]
    texts, linked = {}, {COLAB_BADGE, "docs/walkers.jpg"}
    for source in sources:
        texts[place(source)], found = fit_links((REPOSITORY / source).read_text(), source, url)
        linked |= found
    texts |= reference.pages() | {"demo.md": demo_page(report)}
    for path, page in NOTEBOOKS.items():
        texts[page] = notebook_page(REPOSITORY / path, output / page.removesuffix(".md"), url)
    for path in sorted(linked - set(PAGES)):
        there = REPOSITORY / path
        if there.is_dir():
            texts[place(path)] = folder_page(path)
            for file in there.iterdir():
                if file.is_file():
                    _copy(file, output / place(f"{path}/{file.name}"))
        elif place(path) not in texts and there.exists():  # a link that leads nowhere stays, and MkDocs refuses it
            _copy(there, output / place(path))
    _copy(REPOSITORY / "docs" / "tools" / WORKER, output / WORKER)
    if report.exists():
        _copy(report, output / "files" / "report.html")
    for page, text in (texts | {"site.css": STYLE}).items():
        (output / page).parent.mkdir(parents=True, exist_ok=True)
        (output / page).write_text(text)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != ".md":  # a page, and gathered as one
        shutil.copyfile(source, target)


if __name__ == "__main__":
    gather(REPOSITORY / "build" / "docs")
