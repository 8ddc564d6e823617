"""The documents are right: commands have their flags, Python runs, and messages are those of the source.

Links are checked by the strict build of the site, `make docs`.
"""

import argparse
import importlib
import importlib.util
import re
import sys
import tomllib

import documents
import numpy as np
import pytest
from documents import REPOSITORY
from tiny_workdir import WIDTH, write_place

from mancs_jax.cli import gallery
from mancs_jax.cli.command_line import run
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.main import COMMANDS as COMMAND_NAMES
from mancs_jax.config import by_name, defaults
from mancs_jax.config import checks as configuration
from mancs_jax.data.sources import cuhk01, cuhk03, dukemtmc_reid, market1501

COMMANDS = documents.commands()
SHOWN = [
    pytest.param(command, id=f"{command.where}: {' '.join(command.words)}"[:120])
    for command in COMMANDS
    if command.words[0] in ("python", "mancs")
]
# The functions that a command calls after it has checked its flags.
CALLS = {
    "adapt": "inference.adaptation.adapt",
    "ablation": "ablation.run_all",
    "compare": "evaluation.paired.compare_results",
    "cuhk03_classic": "run.train_and_evaluate_splits",
    "embed": "inference.gallery.find_images",
    "evaluate": "evaluation.groups.read_groups scoring.evaluate evaluation.features.evaluate_file",
    "export": "inference.export.export publish.export_network convert.export_weights",
    "import_weights": "weights.state_dict.read_all convert.import_backbone convert.import_network",
    "prepare_data": "data.prepare.open_contents",
    "search": "inference.gallery.load_gallery",
    "train": "run.train_and_evaluate",
    "verify": "inference.embedder.load",
    "visualize": "scoring.evaluate",
}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


class Called(BaseException):
    """A command has come to its one call."""


def stop(*arguments, **_):
    raise Called(arguments)


def check_command(name: str, arguments: list[str], monkeypatch) -> tuple:
    """Runs a command up to its call, whose arguments are returned; unknown or missing flags are an error."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", [name, *arguments])  # where ml_collections looks for the fields of --config
    command = importlib.import_module(f"mancs_jax.cli.{name}")
    for call in CALLS[name].split():
        monkeypatch.setattr(f"mancs_jax.{call}", stop)
    monkeypatch.setattr("mancs_jax.common.processes.start", lambda *_: None)
    for setting in ("keep_compiled_programs", "keep_freed_memory"):  # of the whole process
        monkeypatch.setattr(f"mancs_jax.cli.command_line.{setting}", lambda: None)
        if hasattr(command, setting):
            monkeypatch.setattr(command, setting, lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("mancs_jax.data.prepare.is_prepared", lambda *_: False)
    with pytest.raises(Called) as called:
        run(command, [name, *arguments])
    return called.value.args[0]


def check_gallery(where: str, words: list[str]) -> None:
    """Parses the arguments as a command of a gallery does."""
    if not words or words == ["--help"]:  # the name of the command in a sentence
        return
    name, *arguments = words
    assert name in gallery.COMMANDS, f"{where} shows mancs gallery {name}, which is not there"
    if arguments:
        command, values = importlib.import_module(f"mancs_jax.cli.gallery.{name}"), Flags()
        command.define(values, [name])
        assert len(values([name, *arguments])[1:]) == len(command.ARGUMENTS), where


def check_program(path: str, arguments: list[str], monkeypatch) -> None:
    """Parses the arguments as a benchmark, an example or a tool of the documents does."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, given=None, namespace=None):
        raise Called(parse(parser, given, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    spec = importlib.util.spec_from_file_location("shown", REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(Called):
        module.main()


@pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it
@pytest.mark.parametrize("command", SHOWN)
def test_a_shown_command_has_the_flags_it_is_shown_with(command, monkeypatch):
    program, name, *arguments = command.words
    if program == "mancs" and name == "gallery":
        check_gallery(command.where, arguments)
        return
    if program == "mancs":
        assert name in ("--help", "--version", *COMMAND_NAMES), (
            f"{command.where} shows mancs {name}, which is not there"
        )
        if all(argument.startswith(("--format=", "--help")) for argument in arguments):  # named in a sentence
            return
    else:
        assert (REPOSITORY / name).is_file(), f"{command.where} shows {name}, which is not there"
        if not name.startswith("scripts/"):
            check_program(name, arguments, monkeypatch)
            return
    name = name.removeprefix("scripts/").removesuffix(".py").replace("-", "_")
    called = check_command(name, arguments, monkeypatch)
    if name in ("train", "cuhk03_classic"):
        configuration.validate(called[0], num_devices=1)


FIELDS = sorted(
    {
        span
        for page in documents.PAGES + documents.MODULES
        for span in documents.spans(page)
        if re.fullmatch(r"--config\.\S+=.+", span) and not span.endswith(("=N", "=DIR", "=FILE"))
    }
)


@pytest.mark.filterwarnings("ignore:the load_module")
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_named_takes_its_value(field, monkeypatch):
    recipe = "cuhk03.py" if "testset" in field else "market.py"
    words = [word.replace("'", "") for word in re.findall(r"--\S+=(?:'[^']*'|\S+)", field)]
    config, _ = check_command("train", [f"--config=configs/{recipe}", "--workdir=W", *words], monkeypatch)
    configuration.validate(config, num_devices=1)


def test_other_programs():
    makefile, ci = ((REPOSITORY / file).read_text() for file in ("Makefile", ".ci/run"))
    pinned = re.findall(
        r"^([\w-]+)==", "".join(path.read_text() for path in REPOSITORY.glob("requirements*.txt")), re.M
    )
    for where, (program, *arguments) in COMMANDS:
        if program == "make":
            assert all(f"\n{target}:" in makefile and f"\nmake {target}\n" in ci for target in arguments), where
        elif program == "pip":
            assert arguments[0] == "install"
            named = [word for word in arguments if not word.startswith("--")]  # not --no-deps and the like
            names = [word for before, word in zip(named, named[1:]) if word != "-r" and before != "-r"]
            files = [word for before, word in zip(arguments, arguments[1:]) if before == "-r"]
            assert all((REPOSITORY / file).is_file() for file in files), where
            extras = {name.strip("]")[2:] for name in arguments if name.startswith(".[")}
            assert extras <= set(PROJECT["optional-dependencies"]), where
            assert {name.partition("[")[0] for name in names} <= {*pinned, "."}, where
        else:
            assert program in ("python", "mancs"), f"{where}: nothing checks {program} {arguments}"


def test_inline_code():
    """Flags, fields and paths that are named in a sentence are there."""
    folders = ("mancs_jax/cli", "benchmarks", "examples/tracking", "docs/tools")
    sources = [path.read_text() for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    known = set(re.findall(r'(?:DEFINE_\w+\(\s*"|add_argument\(\s*"--)(\w+)"', "".join(sources))) | {
        "config",
        "help",
        "version",
    }
    known |= {f"no{name}" for name in re.findall(r'DEFINE_bool\(\s*"(\w+)"', "".join(sources))}
    fields = set(configuration.flatten(defaults.get_config()))
    wrong = []
    for path in documents.PAGES + documents.MODULES:
        for span in documents.spans(path):
            where = f"{documents.name_of(path)}: {span}"
            for flag in re.findall(r"(?<![\w-])--([a-z]\w*(?:\.\w+)*)", span):
                group = flag.removeprefix("config.")
                is_field = group in fields or any(field.startswith(f"{group}.") for field in fields)
                if not (is_field if flag.startswith("config.") else flag in known):
                    wrong.append(where)
            name = re.match(r"[\w/]+\.(?:py|md|ipynb|yml|toml|txt|sh)\b", span)
            roots = ("", "docs/", "mancs_jax/", "tests/") if name and "/" in name[0] else ()
            if roots and not any((REPOSITORY / f"{root}{name[0]}").exists() for root in roots):
                wrong.append(where)
            config = re.fullmatch(r"(?:--config=)?(?:configs/)?(\w+)(?:\.py)?:([a-z_,0-9]+)", span)
            if config:
                by_name.get_config(f"{config[1]}:{config[2]}")
    assert wrong == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("place"))


# Page -> whether the names are right that its blocks leave behind.
EXPECTED = {
    "README.md": lambda names: names["found"].index.tolist() == [[0, 1]],
    "docs/embed.md": lambda names: names["embeddings"].shape == (2, 320) and names["people"].shape == (2, WIDTH),
    "docs/evaluation.md": lambda names: names["result"]["mAP"] == 1,
    "docs/flax.md": lambda names: (
        names["outputs"].f_rank.shape == (2, 320)
        and names["embeddings"].shape == (30, 64)
        and np.isfinite([names["metrics"]["loss"], names["loss"]]).all()
    ),
    "docs/search.md": lambda names: names["found"].index.shape == (1, 3) and names["found"].distance[0, 0] > 0,
    "docs/train.md": lambda names: names["results"]["Mancs"]["mAP_plain"] == 1,
    "docs/verify.md": lambda names: names["verified"].is_same and names["verified"].distance == 0,  # two copies
}


def checked_only(config, workdir):
    """Stands for `train_and_evaluate`, which needs a data set and minutes."""
    configuration.validate(config, num_devices=1)
    assert workdir == "workdirs/small"
    return {"Mancs": {"mAP_plain": 1.0}}


@pytest.mark.parametrize(
    "page", [page for page in documents.PAGES if documents.python_blocks(page)], ids=lambda p: p.name
)
def test_python_runs(page, place, monkeypatch):
    monkeypatch.chdir(REPOSITORY if page.name == "README.md" else place)  # its pictures are those of the checkout
    monkeypatch.setattr("mancs_jax.run.train_and_evaluate", checked_only)
    names: dict = {"__name__": "shown"}  # of a module, as Flax asks for it
    for block in documents.python_blocks(page):
        if "resized by you" not in block:  # the code that `mancs export` prints; tests/test_export.py runs it
            exec(block, names)
    assert EXPECTED.get(documents.name_of(page), bool)(names)


@pytest.mark.parametrize("page", documents.PAGES, ids=documents.name_of)
def test_headings_that_are_linked_have_the_anchors_of_github(page):
    """The strict build checks those of MkDocs, which can differ."""
    for link in documents.links(page):
        path, _, anchor = link.partition("#")
        if anchor and "://" not in link:
            assert anchor in documents.anchors(page.parent / path if path else page), link


def test_counts_are_those_that_are_checked():
    page = (REPOSITORY / "docs" / "data.md").read_text()
    published = {"market1501": market1501.ABOUT.counts, "dukemtmc_reid": dukemtmc_reid.ABOUT.counts}
    published |= {"cuhk01": cuhk01.ABOUT.counts}
    published |= {f"cuhk03_{boxes}": counts for boxes, counts in cuhk03.COUNTS.items()}
    for name, counts in published.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
        for split in {"train", "query", "gallery"} & set(counts):
            assert f" {counts[split].images:,} / {counts[split].ids:,}" in row, (name, split)


def source_text() -> str:
    """All strings of the source in their place, those of several lines in one."""
    files = [path for folder in ("mancs_jax", "examples") for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    return re.sub(r'"\s*\n\s*(?:\+ )?f?"', "", "\n".join(path.read_text() for path in files))


def test_messages_are_those_of_the_source():
    """docs/troubleshooting.md: the parts between "..." come in this order in one message."""
    source = re.sub(r"\{[^{}\n]*\}", "{}", source_text())
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    ours = page.partition("## Messages of the libraries")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", ours, re.MULTILINE)
    assert len(messages) > 20
    for message in messages:
        parts = [re.escape(part.strip()) for part in re.split(r"\.{3}(?!\.)", message) if part.strip()]
        assert re.search(r"[^\n]*".join(parts), source), message
