"""The package as pip sees it, and its public names. `.ci/wheel` installs it in an empty environment."""

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from setuptools import find_packages

import mancs_jax
from mancs_jax.evaluation import protocols
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PUBLIC = {"load", "search", "build_index", "load_index", "score", "train_and_evaluate", "Embedder", "Found"}


def test_mancs_jax_alone_is_packaged():
    found = find_packages(str(REPOSITORY), include=PROJECT["tool"]["setuptools"]["packages"]["find"]["include"])
    assert {name.split(".")[0] for name in found} == {"mancs_jax"}
    folders = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "mancs_jax").rglob("*.py")}
    assert {str(folder).replace("/", ".") for folder in folders} == set(found)  # each folder has an __init__.py
    assert not (REPOSITORY / "configs" / "__init__.py").exists()


def test_the_exact_set_satisfies_the_lower_bounds():
    lines = (REPOSITORY / "requirements.txt").read_text().split()
    exact = dict(line.lower().split("==") for line in lines if "==" in line)
    numbers = lambda version: tuple(map(int, version.split(".")[:3]))  # noqa: E731
    for bound in PROJECT["project"]["dependencies"]:
        name, least = bound.lower().split(">=")
        assert numbers(exact[name]) >= numbers(least), bound


def test_the_command_is_there():
    module, function = PROJECT["project"]["scripts"]["mancs"].split(":")
    assert callable(getattr(import_module(module), function))


def test_importing_the_package_imports_no_jax():
    code = "import sys, mancs_jax; print(sorted(dir(mancs_jax))); assert 'jax' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"'{name}'" in run.stdout for name in PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names(name):
    assert name in mancs_jax.__all__ and callable(getattr(mancs_jax, name))


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


def test_the_library_imports_neither_configs_nor_scripts():
    for path in (REPOSITORY / "mancs_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"configs", "scripts", "tests"}, path


def test_importing_training_changes_no_logging():
    code = (
        "import logging; from absl import logging as absl\n"
        "before = absl.get_verbosity(), logging.getLogger('orbax').level\n"
        "import mancs_jax.run\n"
        "assert before == (absl.get_verbosity(), logging.getLogger('orbax').level)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_functions_are_annotated():
    for path in (REPOSITORY / "mancs_jax").rglob("*.py"):
        tree = ast.parse(path.read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for node in [*tree.body, *(inner for of in classes for inner in of.body)]:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                bare = [of.arg for of in arguments if of.annotation is None and of.arg not in ("self", "cls")]
                assert not bare and node.returns is not None, (path.name, node.name, bare)
