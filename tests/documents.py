"""Commands and blocks of Python, taken out of the text of the documents. For tests."""

import ast
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]
    + [path for path in (REPOSITORY / "docs").rglob("*.md")]
)
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
FOLDERS = ("scripts", "configs", "examples/tracking", "docs/tools", "mancs_jax/cli")
MODULES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).glob("[!_]*.py"))
PROGRAMS = ("python", "mancs", "python3", "make", "pip", "git", "pytest")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"``?([^`]+)``?")


class Command(NamedTuple):
    """A command as it is shown."""

    where: str  # file that shows it
    words: tuple[str, ...]  # program and arguments, without variables of the environment in front


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def text_of(path: Path) -> str:
    """Returns the text of a page, of a notebook or of a module's head, as its reader sees it."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text())["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return (ast.get_docstring(ast.parse(path.read_text())) or "") if path.suffix == ".py" else path.read_text()


def python_blocks(path: Path) -> list[str]:
    return [block for kind, block in FENCE.findall(text_of(path)) if kind == "python"]


def links(path: Path) -> list[str]:
    """Targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", path.read_text()))


def anchors(path: Path) -> set[str]:
    """Returns the names of a page's headings for `#...`, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def spans(path: Path) -> list[str]:
    """Inline code."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text_of(path)))]


def commands() -> list[Command]:
    """Returns all commands that a reader can type: in fenced blocks, in inline code and in the heads of modules."""
    found = []
    for path in PAGES + NOTEBOOKS + MODULES:
        blocks = [block for kind, block in FENCE.findall(text_of(path)) if kind in ("", "sh", "bash")]
        lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()] + spans(path)
        if path.suffix == ".py":
            lines += re.findall(r"(?:python [\w/]+\.py|mancs [a-z0-9-]+ )[^\n`]*", text_of(path))
        for line in lines:
            if words := _words(line):
                found.append(Command(name_of(path), words))
    return list(dict.fromkeys(found))


def _words(line: str) -> tuple[str, ...]:
    """Returns the words of a command, with all options; none if the line is no command."""
    line = re.sub(r"^\s*([A-Z_0-9]+=\S+ )*", "", line)
    if not re.match(rf"({'|'.join(PROGRAMS)}) \S", line):
        return ()
    # "(tail) #" begins a comment, "[--flag]" is an option, "..." stands for more, a sentence ends in "." or ":"
    line = re.sub(r"\s+#.*$", "", line).rstrip(".:;,")
    line = re.sub(r"\[(--[^\]]*)\]", r"\1", line).replace(" [...]", "").replace(" ...", "")
    return tuple(shlex.split(line))
