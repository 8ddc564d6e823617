"""Writes the badges of README.md and of the notebooks' pages: pictures of this repository, without a service.

The address of the repository is one line in pyproject.toml, `Repository`, from which README.md, the notebooks and
the site get it. Without that line, no badge opens a notebook in Colab.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "docs" / "badges"
NOTEBOOKS = ("walkers", "market1501")
ADDRESS = re.compile(r'(?<="REPOSITORY = \\")[^"\\]*')  # in a notebook
CHARACTER, PADDING, HEIGHT = 6.5, 8, 20  # pixels


def badge(name: str, value: str) -> str:
    """Returns an SVG document: a name on grey, a value on blue."""
    left, right = (CHARACTER * len(text) + 2 * PADDING for text in (name, value))
    texts = "".join(
        f'<text x="{x:g}" y="14" text-anchor="middle" textLength="{CHARACTER * len(text):g}">{text}</text>'
        for x, text in ((left / 2, name), (left + right / 2, value))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:g}" height="{HEIGHT}" role="img" '
        f'aria-label="{name}: {value}"><rect width="{left:g}" height="{HEIGHT}" fill="#555"/>'
        f'<rect x="{left:g}" width="{right:g}" height="{HEIGHT}" fill="#0969da"/>'
        f'<g fill="#fff" font-family="DejaVu Sans,Verdana,sans-serif" font-size="11">{texts}</g></svg>\n'
    )


def project() -> dict[str, Any]:
    """Returns the metadata of the package, in pyproject.toml."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def repository_url() -> str:
    """Returns https://github.com/OWNER/NAME, or "" as long as the repository is not public."""
    return project()["urls"].get("Repository", "")


def open_in_colab(notebook: str, url: str, picture: str) -> str:
    """Returns the Markdown of a badge that opens a notebook of a repository at GitHub in Colab."""
    colab = url.replace("https://github.com", "https://colab.research.google.com/github")
    return f"[![open {notebook}.ipynb in Colab]({picture})]({colab}/blob/main/notebooks/{notebook}.ipynb)"


def addressed(url: str) -> dict[str, str]:
    """Returns path in the repository -> text, of README.md and the notebooks with this address; "" is none."""
    notebooks = [f"notebooks/{name}.ipynb" for name in NOTEBOOKS]
    texts = {path: ADDRESS.sub(url, (REPOSITORY / path).read_text()) for path in notebooks}
    readme = re.sub(r"^\[!\[open \w+\.ipynb in Colab.*\n", "", (REPOSITORY / "README.md").read_text(), flags=re.M)
    shown = [open_in_colab(name, url, "docs/badges/colab.svg") for name in NOTEBOOKS] if url else []
    *_, last = re.finditer(r"^\[!\[.*\n", readme, re.M)
    return texts | {"README.md": readme[: last.end()] + "".join(f"{line}\n" for line in shown) + readme[last.end() :]}


def badges() -> dict[str, str]:
    """Returns name -> SVG document."""
    pins = (REPOSITORY / "requirements.txt").read_text()
    versions = [version for line in project()["classifiers"] for version in re.findall(r"Python :: (\d\.\d+)", line)]
    shown = {
        "licence": project()["license"],
        "python": " | ".join(versions),
        "jax": " | ".join(re.findall(r"^jax==([\w.]+)", pins, re.M)),
    }
    return {name: badge(name, value) for name, value in shown.items()} | {"colab": badge("open in", "Colab")}


if __name__ == "__main__":
    from mancs_jax.common.atomic_write import write_text

    texts = {FOLDER / f"{name}.svg": document for name, document in badges().items()}
    texts |= {REPOSITORY / path: text for path, text in addressed(repository_url()).items()}
    for path, text in texts.items():
        if not path.exists() or path.read_text() != text:
            write_text(path, text)
