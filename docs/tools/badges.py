"""Writes the badges of README.md and of the notebooks' pages: pictures of this repository, without a service."""

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "docs" / "badges"
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


def badges() -> dict[str, str]:
    """Returns name -> SVG document."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = (REPOSITORY / "requirements.txt").read_text()
    versions = [version for line in project["classifiers"] for version in re.findall(r"Python :: (\d\.\d+)", line)]
    shown = {
        "licence": project["license"],
        "python": " | ".join(versions),
        "jax": " | ".join(re.findall(r"^jax==([\w.]+)", pins, re.M)),
    }
    return {name: badge(name, value) for name, value in shown.items()} | {"colab": badge("open in", "Colab")}


if __name__ == "__main__":
    from mancs_jax.common.atomic_write import write_text

    for name, document in badges().items():
        if not (FOLDER / f"{name}.svg").exists() or (FOLDER / f"{name}.svg").read_text() != document:
            write_text(FOLDER / f"{name}.svg", document)
