"""The documents are right: commands have their flags and a test that runs them, Python runs, links lead somewhere, and
messages are those of the source."""

import argparse
import importlib
import importlib.util
import os
import re
import sys
import tomllib

import documents
import pytest
from documents import REPOSITORY, Command
from tiny_workdir import write_place

from mancs_jax.cli.command_line import run
from mancs_jax.cli.main import COMMANDS as COMMAND_NAMES
from mancs_jax.config import by_name, defaults
from mancs_jax.config import checks as configuration
from mancs_jax.data.sources import cuhk03, dukemtmc_reid, market1501

COMMANDS = documents.commands()
SHOWN = [
    pytest.param(command, id=f"{command.where}: {' '.join(command.words)}"[:120])
    for command in COMMANDS
    if command.words[0] in ("python", "mancs")
]
# The functions that a script calls after it has checked its flags.
CALLS = {
    "ablation": ["mancs_jax.ablation.run_all"],
    "cuhk03_classic": ["mancs_jax.run.train_and_evaluate_splits"],
    "embed": ["mancs_jax.inference.gallery.find_images"],
    "evaluate": ["mancs_jax.scoring.score", "mancs_jax.evaluation.features.score_file"],
    "export": ["mancs_jax.inference.export.export"],
    "export_network": ["mancs_jax.publish.export_network"],
    "export_weights": ["mancs_jax.convert.export_weights"],
    "figure1": ["mancs_jax.reporting.architecture.figure_1"],
    "figure3": ["mancs_jax.reporting.curriculum.figure_3"],
    "import_weights": ["mancs_jax.convert.import_backbone", "mancs_jax.convert.import_network"],
    "prepare_data": ["mancs_jax.data.prepare.open_contents"],
    "search": ["mancs_jax.inference.gallery.load_gallery"],
    "train": ["mancs_jax.run.train_and_evaluate"],
    "visualize": ["mancs_jax.scoring.score"],
}
# Script -> the test that runs it to its end, as its users do.
RUN_BY = {
    "scripts/ablation.py": "test_command_line.py::test_ablation",
    "scripts/cuhk03_classic.py": "test_command_line.py::test_cuhk03_classic",
    "scripts/embed.py": "test_use.py::test_command_line",
    "scripts/evaluate.py": "test_training.py::test_evaluate_gives_the_result_of_training_again",
    "scripts/export.py": "test_use.py::test_command_line",
    "scripts/export_network.py": "test_publish.py::test_without_scores_no_data_is_needed",
    "scripts/export_weights.py": "test_convert.py::test_a_workdir_is_written_back",
    "scripts/figure1.py": "test_figure1.py::test_the_command_draws_the_picture_in_the_documents",
    "scripts/figure3.py": "test_command_line.py::test_figure3",
    "scripts/import_weights.py": "test_convert.py::test_a_backbone_becomes_clean_safetensors",
    "scripts/prepare_data.py": "test_prepare_data.py::test_in_a_process_of_its_own",
    "scripts/search.py": "test_use.py::test_command_line",
    "scripts/train.py": "test_training.py::test_a_run_leaves_curves_results_and_what_it_was",
    "scripts/visualize.py": "test_training.py::test_visualize_shows_the_lists_after_re_ranking_too",
}
EXAMPLES_RUN_BY = {
    "examples/render_scene.py": "test_track_example.py::place",
    "examples/track.py": "test_track_example.py::test_a_scene_is_tracked",
}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
BENCHMARK_TESTS = ("test_benchmarks.py", "test_search_benchmarks.py", "test_counted_benchmarks.py")


class Called(Exception):
    """A script has come to its one call."""


def stop(*arguments, **_):
    raise Called(arguments)


def check_script(name: str, arguments: list[str], monkeypatch) -> tuple:
    """Runs a script up to its call, whose arguments are returned; unknown or missing flags are an error."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", [name, *arguments])  # where ml_collections looks for the fields of --config
    for call in CALLS[name]:
        monkeypatch.setattr(call, stop)
    monkeypatch.setattr("mancs_jax.training.multihost.start", lambda *_: None)
    for setting in ("keep_compiled_programs", "keep_freed_memory"):  # of the whole process
        monkeypatch.setattr(f"mancs_jax.cli.command_line.{setting}", lambda: None)
        if hasattr(command := command_of(name), setting):
            monkeypatch.setattr(command, setting, lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("mancs_jax.data.prepare.is_prepared", lambda *_: False)
    with pytest.raises(Called) as called:
        run(command_of(name), [name, *arguments])
    return called.value.args[0]


def command_of(name: str):
    """The module of a command; that of a script which is no command is the script."""
    if not name.startswith("figure"):
        return importlib.import_module(f"mancs_jax.cli.{name}")
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_benchmark(folder: str, name: str, arguments: list[str], monkeypatch) -> None:
    """Parses the arguments as a benchmark or an example does."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, given=None, namespace=None):
        raise Called(parse(parser, given, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", REPOSITORY / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(Called):
        module.main()


@pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it
@pytest.mark.parametrize("command", SHOWN)
def test_a_shown_command_has_the_flags_it_is_shown_with(command, monkeypatch):
    program, path, *arguments = command.words
    if program == "mancs":
        assert path in ("--help", *COMMAND_NAMES), f"{command.where} shows mancs {path}, which is not there"
        if not arguments:  # the name of a command in a sentence
            return
        path = f"scripts/{path.replace('-', '_')}.py"
    folder, _, file = path.partition("/")
    assert (REPOSITORY / path).is_file(), f"{command.where} shows {path}, which is not there"
    name = file.removesuffix(".py")
    if folder in ("benchmarks", "examples"):
        check_benchmark(folder, name, arguments, monkeypatch)
        return
    called = check_script(name, arguments, monkeypatch)
    if name in ("train", "cuhk03_classic"):
        configuration.validate(called[0], num_devices=1)


@pytest.mark.filterwarnings("ignore:the load_module")
@pytest.mark.parametrize(
    "line",
    [
        "scripts/train.py --config=configs/market.py:small --workdir=W --rerank",
        "scripts/train.py --config=configs/market.py:tiny --workdir=W",
        "scripts/train.py --config=configs/market.py --workdir=W --config.optim.rate=1",
        "scripts/train.py --config=configs/market.py",
        "scripts/evaluate.py --features=F --multi_query",
        "scripts/prepare_data.py --dataset=folder --source=F --root=R",
        "scripts/search.py --gallery=F --workdir=W",
        "benchmarks/ranking.py --peer=CHECKOUT",
        "examples/track.py frames --detections=det.txt",
        "scripts/nothing.py",
    ],
)
def test_a_command_that_fails_its_user_is_found(line, monkeypatch):
    with pytest.raises((AssertionError, SystemExit)):
        test_a_shown_command_has_the_flags_it_is_shown_with(Command("", ("python", *line.split())), monkeypatch)


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
    config, _ = check_script("train", [f"--config=configs/{recipe}", "--workdir=W", *words], monkeypatch)
    configuration.validate(config, num_devices=1)


def test_every_script_that_is_shown_is_run_by_a_test():
    shown = {command.words[1] for command in COMMANDS if command.words[0] == "python"}
    scripts = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "scripts").glob("*.py")}
    assert {path for path in shown if path.startswith("scripts/")} == scripts == set(RUN_BY)
    for path, test in (RUN_BY | EXAMPLES_RUN_BY).items():
        file, name = test.split("::")
        text = (REPOSITORY / "tests" / file).read_text()
        stem = path.rpartition("/")[2].removesuffix(".py")
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), test
        assert re.search(rf"\b{stem}\b", text), f"{test} does not run {path}"
    examples = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "examples").glob("*.py")}
    assert {path for path in shown if path.startswith("examples/")} == examples == set(EXAMPLES_RUN_BY)
    tests = "".join((REPOSITORY / "tests" / file).read_text() for file in BENCHMARK_TESTS)
    for path in sorted(shown - scripts - examples):
        stem = path.removeprefix("benchmarks/").removesuffix(".py")
        assert re.search(rf"\brun\(\s*\"?{stem}\b", tests), f"nothing runs {path}"


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
    folders = ("mancs_jax/cli", "scripts", "benchmarks", "examples")
    sources = [path.read_text() for folder in folders for path in (REPOSITORY / folder).glob("*.py")]
    known = set(re.findall(r'(?:DEFINE_\w+\(\s*"|add_argument\(\s*"--)(\w+)"', "".join(sources))) | {"config", "help"}
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


OWN_TEST = {"docs/use.md": "test_use.py"}  # pages whose blocks need each other, and a test of their own


@pytest.mark.parametrize(
    "page", [page for page in documents.PAGES if documents.python_blocks(page)], ids=lambda p: p.name
)
def test_python_runs(page, place, monkeypatch):
    if own := OWN_TEST.get(documents.name_of(page)):
        assert documents.name_of(page) in (REPOSITORY / "tests" / own).read_text()
        return
    monkeypatch.chdir(REPOSITORY if page.name == "README.md" else place)  # its pictures are those of the checkout
    names: dict = {}
    for block in documents.python_blocks(page):
        exec(block, names)
    if page.name == "README.md":
        assert names["found"].index.tolist() == [[0, 1]]


@pytest.mark.parametrize("page", documents.PAGES, ids=documents.name_of)
def test_links_lead_somewhere(page):
    for target in documents.links(page):
        if re.match(r"https?://", target):
            continue
        if target.startswith("../../actions/workflows/"):  # of this repository, as GitHub's page of it reaches them
            assert page == REPOSITORY / "README.md"
            assert (REPOSITORY / ".github" / "workflows" / target.split("/")[4]).exists(), target
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{target}: no such file"
        assert os.path.realpath(there).startswith(str(REPOSITORY))
        assert not anchor or anchor in documents.anchors(there), f"{target}: no such heading"


def test_every_page_is_linked():
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in documents.PAGES
        for target in documents.links(page)
    }
    assert {page for page in documents.PAGES if page.name not in ("README.md", "CHANGELOG.md")} <= linked


def test_counts_are_those_that_are_checked():
    page = (REPOSITORY / "docs" / "data.md").read_text()
    published = {"market1501": market1501.ABOUT.counts, "dukemtmc_reid": dukemtmc_reid.ABOUT.counts}
    published |= {f"cuhk03_{boxes}": counts for boxes, counts in cuhk03.COUNTS.items()}
    for name, counts in published.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
        for split in ("train", "query", "gallery"):
            assert f" {counts[split].images:,} / {counts[split].ids:,}" in row, (name, split)


def source_text() -> str:
    """All strings of the source in their place, those of several lines in one."""
    files = [
        path for folder in ("mancs_jax", "scripts", "examples") for path in sorted((REPOSITORY / folder).rglob("*.py"))
    ]
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
