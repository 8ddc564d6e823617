"""Reference pages, generated from the code: public names, packages, commands and fields."""

import ast
import importlib
import io
import tokenize
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "mancs_jax"
# Package in mancs_jax/ -> its purpose.
PACKAGES = {
    "data": "Data sets: reading, checking, preparing, sampling of batches and augmentation.",
    "models": "The network: images to embeddings, logits and attention masks.",
    "kernels": "Layers with their own gradients.",
    "losses": "Curriculum sampling and the three losses.",
    "training": "The compiled training step, and the loop around it.",
    "evaluation": "Distances, ranks, metrics and protocols.",
    "gallery": "Persistent galleries: images are added, searched with filters, and deleted.",
    "inference": "Pretrained and trained models in use: embeddings, search, indexes, export.",
    "weights": "Weights from PyTorch and the authors' release, and weights to share.",
    "reporting": "Images, charts and report.html.",
    "config": "Fields, recipes and their checks.",
    "common": "Files, paths, fingerprints and the environment.",
}


class Field(NamedTuple):
    """A field of the configuration, as mancs_jax/config/defaults.py explains it."""

    name: str  # dotted, without "config."
    default: str  # source text
    comment: str  # its comments in one line; "" without any


def fields(source: str) -> list[Field]:
    """Returns the fields that a source text sets, in its order, with the comments above and behind each."""
    comments = _comments(source)
    lines = source.splitlines()
    found = []
    for statement in ast.walk(ast.parse(source)):
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Attribute):
            continue
        name = ast.unparse(statement.targets[0]).removeprefix("config.")
        if "ConfigDict()" in ast.unparse(statement.value):
            continue
        above, line = [], statement.lineno - 1
        while line in comments and lines[line - 1].lstrip().startswith("#"):
            above.insert(0, comments[line])
            line -= 1
        text = " ".join([*above, comments.get(statement.lineno, "")]).strip()
        found.append((statement.lineno, Field(name, ast.unparse(statement.value), text)))
    return [field for _, field in sorted(found)]


def _comments(source: str) -> dict[int, str]:
    """Returns line -> its comment, without the sign."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def configuration() -> str:
    """Returns the page of the configuration's fields."""
    parts = [
        "# Configuration\n\nThe defaults are the paper's recipe for Market-1501. Sections, equations and figures are "
        "those of the paper. Where it gives no value, the authors' release decides. Change a field on the "
        "command line, for example `--config.optim.learning_rate=1e-3`.\n"
    ]
    group = None
    every = fields((PACKAGE / "config" / "defaults.py").read_text())
    groups = list(dict.fromkeys(field.name.rpartition(".")[0] for field in every))
    for name, default, comment in sorted(every, key=lambda field: groups.index(field.name.rpartition(".")[0])):
        of = name.rpartition(".")[0]
        if of != group:
            group = of
            parts.append(
                f"\n## {f'config.{of}' if of else 'config'}\n\n| field | default | meaning, source |\n|---|---|---|\n"
            )
        parts.append(f"| `{name}` | `{default}` | {cell(comment)} |\n")
    return "".join(parts)


def cell(text: str) -> str:
    """Returns text for a cell of a Markdown table."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")  # every second one is code, and stays
    escaped = (part if i % 2 else part.replace("<", "&lt;").replace("*", "\\*") for i, part in enumerate(parts))
    return "`".join(escaped)


def commands() -> str:
    """Returns the page of the commands and their flags."""
    from mancs_jax.cli import main
    from mancs_jax.cli.flags import Flags

    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        main.main(["mancs", "--help"])
    parts = [f"# Command line\n\n`mancs --help` prints this list:\n\n```text\n{printed.getvalue().rstrip()}\n```\n"]
    for name, module in _modules("", main.COMMANDS, "mancs_jax.cli"):
        values = Flags()
        module.define(values, [name])
        head, _, usage = (module.__doc__ or "").strip().partition("\n")
        parts.append(f"\n## mancs {name}\n\n{code_after_colon(head)}\n")
        if usage.strip():
            parts.append(f"\n```text\n{usage.strip()}\n```\n")
        parts.append("\n| flag | kind | default | meaning |\n|---|---|---|---|\n")
        for flag in values:
            default = values[flag].default
            shown = "" if default in (None, "", []) else f"`{default}`"
            parts.append(f"| `--{flag}` | {values[flag].flag_type()} | {shown} | {cell(values[flag].help or '')} |\n")
    return "".join(parts)


def _modules(group: str, names: Iterable[str], package: str) -> Iterator[tuple[str, ModuleType]]:
    """Yields (name, module) of the commands of a group, and of the groups in it."""
    for name in names:
        module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
        if hasattr(module, "COMMANDS"):
            yield from _modules(f"{group}{name} ", module.COMMANDS, module.__name__)
        else:
            yield f"{group}{name}", module


def code_after_colon(head: str) -> str:
    """Returns the first line of a command's docstring, with the command behind its colon as code."""
    text, colon, command = head.partition(": mancs ")
    return f"{text}: `mancs {command.rstrip('.')}`." if colon else head


def public_names() -> str:
    """Returns the page of the names in mancs_jax/__init__.py."""
    import mancs_jax

    names = "\n\n".join(f"::: mancs_jax.{name}" for name in mancs_jax.__all__)
    head = "# Python API\n\n`import mancs_jax` provides these names. JAX is imported when one of them is first used."
    return f"{head}\n\n{names}\n"


def modules(package: str) -> Iterator[str]:
    """Yields the dotted names of a package's public modules, in order."""
    for path in sorted((PACKAGE / package).rglob("*.py")):
        if not path.stem.startswith("_"):
            yield ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def package(name: str) -> str:
    """Returns the page of a package."""
    parts = [f"# mancs_jax.{name}\n\n{PACKAGES[name]}\n"]
    options = "    options:\n      show_root_heading: true\n      heading_level: 2\n"
    parts += [f"\n::: {module}\n{options}" for module in modules(name)]
    return "".join(parts)


def pages() -> dict[str, str]:
    """Returns path in the site -> Markdown, of all pages of reference."""
    made = {f"reference/{name}.md": package(name) for name in PACKAGES}
    return made | {
        "reference/commands.md": commands(),
        "reference/configuration.md": configuration(),
        "reference/python.md": public_names(),
    }
