"""The package as pip sees it, and its public names. `.ci/wheel` installs it in an empty environment."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from programs import printed_by, run_python
from setuptools import find_packages

import mancs_jax
from mancs_jax.evaluation import protocols
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PYTHONS = re.findall(r"Python :: (3\.\d+)", "".join(PROJECT["project"]["classifiers"]))
PUBLIC = {"Gallery", "load", "search", "build_index", "load_index", "score", "train_and_evaluate", "Embedder", "Found"}
PUBLIC |= {"adapt", "threshold_of", "verify"}


def test_mancs_jax_alone_is_packaged():
    found = find_packages(str(REPOSITORY), include=PROJECT["tool"]["setuptools"]["packages"]["find"]["include"])
    assert {name.split(".")[0] for name in found} == {"mancs_jax"}
    folders = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "mancs_jax").rglob("*.py")}
    assert {str(folder).replace("/", ".") for folder in folders} == set(found)  # each folder has an __init__.py
    assert not (REPOSITORY / "configs" / "__init__.py").exists()


def pins(python: str) -> dict[str, str]:
    """The exact versions of requirements.txt for a version of Python."""
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    read = [Requirement(line) for line in lines if "==" in line]
    chosen = [one for one in read if one.marker is None or one.marker.evaluate({"python_version": python})]
    assert len({one.name for one in chosen}) == len(chosen)  # one version each
    return {one.name: str(one.specifier).removeprefix("==") for one in chosen}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_exact_set_satisfies_the_bounds(python):
    exact = pins(python)
    bounds = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    assert {bound.name for bound in bounds} | {"jaxlib"} == set(exact)
    for bound in bounds:
        assert bound.specifier.contains(exact[bound.name]), bound
    assert exact["jax"] == exact["jaxlib"]
    assert exact["jax"] == ("0.10.2" if python == "3.11" else "0.12.0.1")


def test_a_minor_release_of_jax_that_was_never_tried_is_not_installed():
    """The upper bound is the minor release after the newest that is tested."""
    [jax] = [Requirement(line) for line in PROJECT["project"]["dependencies"] if line.startswith("jax>")]
    newest = max(Version(pins(python)["jax"]) for python in PYTHONS)
    assert f"<{newest.major}.{newest.minor + 1}" in map(str, jax.specifier)


def test_this_environment_is_one_that_is_supported():
    """What is installed here lies within the bounds, be it from requirements.txt or from `pip install .`."""
    for bound in map(Requirement, PROJECT["project"]["dependencies"]):
        assert bound.specifier.contains(metadata.version(bound.name)), bound


def test_importing_the_package_imports_no_jax():
    code = "import sys, mancs_jax; print(sorted(dir(mancs_jax))); assert 'jax' not in sys.modules"
    printed = printed_by(code)
    assert all(f"'{name}'" in printed for name in PUBLIC)


def test_all_names_exist_without_the_extras():
    """`from mancs_jax import *`, `inspect.getmembers` and `help`, where only the dependencies are installed."""
    extras = [Requirement(line).name for line in PROJECT["project"]["optional-dependencies"]["test"]]
    modules = {"faiss-cpu": "faiss", "pillow": "PIL"}
    code = (
        "import inspect, pydoc, sys\n"
        f"sys.modules.update(dict.fromkeys({[modules.get(name, name) for name in extras if name != 'setuptools']!r}))\n"
        "from mancs_jax import *\n"
        "import mancs_jax\n"
        "assert set(mancs_jax.__all__) <= dict(inspect.getmembers(mancs_jax)).keys()\n"
        "text = pydoc.render_doc(mancs_jax)\n"
        "assert all(name in text for name in mancs_jax.__all__)\n"
        "build_index([[0.0, 1.0]])\n"
    )
    run = run_python(code)
    assert run.stderr.splitlines()[-1] == "ImportError: an index needs FAISS: pip install faiss-cpu", run.stderr


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'mancs_jax' has no attribute 'serch'"):
        mancs_jax.serch  # noqa: B018


def test_score_takes_embeddings_and_labels():
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(number, 8)).astype(np.float32) for number in (6, 30))
    labels = rng.integers(1, 4, 6), rng.integers(1, 3, 6), rng.integers(-1, 4, 30), rng.integers(1, 3, 30)
    found = mancs_jax.score(query, labels[0], labels[1], gallery, labels[2], labels[3], distance="cosine")
    parts = Labelled(query, *labels[:2]), Labelled(gallery, *labels[2:])
    assert found == protocols.single_query(*parts, Options(distance="cosine"))
    with pytest.raises(ValueError, match="unknown distance 'l1'"):
        mancs_jax.score(query, labels[0], labels[1], gallery, labels[2], labels[3], distance="l1")


def test_importing_training_changes_no_logging():
    code = (
        "import logging; from absl import logging as absl\n"
        "before = absl.get_verbosity(), logging.getLogger('orbax').level\n"
        "import mancs_jax.run\n"
        "assert before == (absl.get_verbosity(), logging.getLogger('orbax').level)"
    )
    printed_by(code)
