"""The pages of the documentation site: gathered whole, with links that fit, and reference that is the code's."""

import ast
import importlib
import json
import re
from pathlib import Path

import badges
import gather
import pytest
import reference

import mancs_jax
from mancs_jax.cli.main import COMMANDS
from mancs_jax.config import checks, defaults

REPOSITORY = Path(__file__).parents[1]
URL = "https://github.com/somebody/mancs_jax"


@pytest.fixture
def gathered(tmp_path, monkeypatch):
    """Builds the pages, with the report of a demo."""
    monkeypatch.setattr(badges, "repository_url", lambda: URL)
    (tmp_path / "report.html").write_text("<p>the report</p>")
    gather.gather(tmp_path / "site", tmp_path / "report.html")
    return tmp_path / "site"


def test_the_demo_is_linked_only_where_it_has_run(gathered, tmp_path, monkeypatch):
    assert (gathered / "files" / "report.html").read_text() == "<p>the report</p>"
    assert "(files/report.html)" in (gathered / "demo.md").read_text()
    gather.gather(tmp_path / "other", tmp_path / "nothing.html")
    assert not (tmp_path / "other" / "files" / "report.html").exists()
    assert "files/report.html" not in (tmp_path / "other" / "demo.md").read_text()


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path):
    outputs = [
        {"name": "stdout", "text": ["rank-1\n"]},
        {"name": "stderr", "text": ["a warning"]},
        {"data": {"image/png": "aGk=", "text/plain": "<Image>"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Text."]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    page = gather.notebook_page(tmp_path / "n.ipynb", tmp_path / "n", URL)
    colab = "https://colab.research.google.com/github/somebody/mancs_jax/blob/main/notebooks/n.ipynb"
    assert page.startswith(f"# Title\n\nText.\n\n[![open n.ipynb in Colab](badges/colab.svg)]({colab}){{ .badges }}\n")
    assert page.endswith("```python\nprint(1)\n```\n\n```text\nrank-1\n```\n\n![output of the cell above](n/0.png)\n")
    assert (tmp_path / "n" / "0.png").read_bytes() == b"hi" and "warning" not in page


def test_the_configuration_page_has_every_field_with_its_default():
    found = {field.name: field for field in reference.fields((REPOSITORY / "mancs_jax/config/defaults.py").read_text())}
    by_name = {"seed", "loss.cls_weight", "loss.att_weight", "loss.b", "optim.decay_epochs"}
    by_name |= {"augment.jitter_brightness", "augment.jitter_contrast", "augment.jitter_saturation"}
    assert {name for name, field in found.items() if not field.comment} == by_name
    known = checks.flatten(defaults.get_config())
    assert found.keys() == known.keys()
    for name, value in known.items():
        assert eval(found[name].default) == value, name  # an expression of numbers and strings
        assert f"| `{name}` | `{found[name].default}` |" in reference.configuration()
    # A comment above, a comment behind, and both.
    assert found["loss.t0"].comment == "epochs; equations 3 and 4"
    assert found["augment.erase_fill"].comment.startswith('"random" pixels as in [45], or "constant"')
    assert re.fullmatch(r"Equation 7 prints .* \(release\)", found["loss.probability"].comment)


def test_the_commands_page_has_every_flag():
    page = reference.commands()
    sections = dict(re.findall(r"^## mancs (\S+)\n(.*?)(?=^## |\Z)", page, re.M | re.DOTALL))
    assert list(sections) == [name for name in COMMANDS if name != "gallery"]  # whose commands have sections
    for name, section in sections.items():
        source = (REPOSITORY / "mancs_jax" / "cli" / f"{name.replace('-', '_')}.py").read_text()
        defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
        assert defined <= set(re.findall(r"^\| `--(\w+)` \|", section, re.M)), name
        head = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
        assert head.partition(":")[0].rstrip(".") in section


def test_reference_names_every_public_module_and_name():
    pages = reference.pages()
    named = set(re.findall(r"^::: (\S+)$", "".join(pages.values()), re.M))
    assert {f"mancs_jax.{name}" for name in mancs_jax.__all__} <= named
    for package in reference.PACKAGES:
        for file in (REPOSITORY / "mancs_jax" / package).glob("[!_]*.py"):
            assert f"mancs_jax.{package}.{file.stem}" in named


def test_badges_are_those_of_the_metadata():
    for name, document in badges.badges().items():
        assert (badges.FOLDER / f"{name}.svg").read_text() == document, "run `make docs`"
    assert importlib.import_module("jax").__version__ in badges.badges()["jax"]
    assert "licence: Apache-2.0" in badges.badges()["licence"]
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text()
    assert all(f'"{version}"' in workflow for version in re.findall(r"3\.\d+", badges.badges()["python"]))


def test_every_place_has_the_address_of_the_metadata():
    """README.md and the notebooks, where it is not known and no badge leads nowhere, and where it is."""
    assert re.fullmatch(r"(https://github\.com/[\w.-]+/[\w.-]+(?<!\.git))?", badges.repository_url())
    for path, text in badges.addressed(badges.repository_url()).items():
        assert (REPOSITORY / path).read_text() == text, "run `make docs`"
    unknown, known = badges.addressed(""), badges.addressed(URL)
    assert unknown.keys() == known.keys() == {"README.md", *gather.NOTEBOOKS}
    assert not any(service in unknown["README.md"] for service in ("github.com/somebody", "colab.research"))
    for notebook in gather.NOTEBOOKS:
        constants = ["".join(json.loads(texts[notebook])["cells"][1]["source"]) for texts in (unknown, known)]
        assert [re.search(r'^REPOSITORY = "(.*?)"', of, re.M)[1] for of in constants] == ["", URL]
        colab = f"https://colab.research.google.com/github/somebody/mancs_jax/blob/main/{notebook}"
        assert f"(docs/badges/colab.svg)]({colab})\n" in known["README.md"]


def test_the_site_links_to_colab_where_the_address_is_known(gathered, tmp_path, monkeypatch):
    assert "colab.research.google.com/github/somebody" in (gathered / "tutorial.md").read_text()
    assert "badge.svg" not in (gathered / "index.md").read_text()  # of a service, loaded from elsewhere
    monkeypatch.setattr(badges, "repository_url", lambda: "")
    gather.gather(tmp_path / "other", tmp_path / "nothing.html")
    tutorial = (tmp_path / "other" / "tutorial.md").read_text()
    assert "colab.svg" not in tutorial and "choose `notebooks/walkers.ipynb`" in tutorial
