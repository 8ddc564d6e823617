"""Every command: its flags, and one sentence for each mistake, in this process."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from programs import printed_by
from tiny_sources import run_script

from mancs_jax.cli.main import COMMANDS, main
from mancs_jax.config import recipes
from mancs_jax.version import __version__

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it
REPOSITORY = Path(__file__).parents[1]
NAMES = [name.replace("-", "_") for name in COMMANDS if name != "gallery"]  # a group: test_gallery_folder.py
WITH_CONFIG = ("train", "cuhk03_classic", "import_weights")


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as error:
        main(["mancs", *arguments])
    line = str(error.value.code)
    assert "\n" not in line and "Traceback" not in line
    return line


def test_help_lists_the_commands_without_jax():
    code = (
        "import sys; from mancs_jax.cli.main import main\n"
        "try: main(['mancs', '--help'])\nfinally: assert 'jax' not in sys.modules"
    )
    printed = printed_by(code)
    assert all(f"{name} " in printed and text in printed for name, text in COMMANDS.items())


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        main(["mancs", name.replace("_", "-"), "--help"])
    shown = capsys.readouterr().out
    assert not end.value.code and (import_module(f"mancs_jax.cli.{name}").__doc__ or "x").split("\n")[0] in shown
    assert "--workdir: " in shown or name in ("prepare_data", "compare")
    assert f"mancs {name.replace('_', '-')} " in shown and "scripts" not in shown


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["mancs", "--version"])
    assert not end.value.code and capsys.readouterr().out == f"mancs_jax {__version__}\n"


def test_help_of_train_lists_the_recipes(capsys):
    with pytest.raises(SystemExit):
        main(["mancs", "train", "--help"])
    assert f"--config: Recipe: {', '.join(recipes.RECIPES)} or ablation:ROW, " in capsys.readouterr().out


def test_a_reader_that_goes_away_ends_nothing():
    command = f"{sys.executable} -m mancs_jax.cli train --help | head -1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("Trains Mancs") and run.stderr == ""


def test_an_unknown_command_gets_the_nearest():
    assert refused("trian") == "mancs: no command 'trian'. Did you mean \"train\"? `mancs --help` lists all"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("export-network", "export-network is now `mancs export --format=weights --workdir=W --output=FOLDER/"),
        ("export_weights", "export-weights is now `mancs export --format=torch --workdir=W --output=FILE.safetensors`"),
    ],
)
def test_commands_of_earlier_versions(name, line):
    assert refused(name, "W").startswith(f"mancs: {line}")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--output=x.safetensors"], "--output=x.safetensors: its suffix implies no format; give --format=onnx, jax, "),
        (["--output=x"], "--output=x: its suffix implies no format"),
        (["--output=x.onnx", "--root=data"], "--root is for --format=weights, not for onnx"),
        (["--output=x.jax", "--dtype=float16"], "--dtype is for --format=onnx and weights, not for jax"),
        (["--output=x.safetensors", "--format=torch", "--noscores"], "--scores is for --format=weights, not for torch"),
    ],
)
def test_formats_of_export(flags, line):
    assert refused("export", "--workdir=W", *flags).startswith(f"export: {line}")


@pytest.mark.parametrize("name", NAMES)
def test_unknown_arguments(name):
    required = {
        "train": ["--config=market", "--workdir=W"],
        "cuhk03_classic": ["--config=cuhk03:classic", "--workdir=W"],
        "compare": ["A.json", "B.json"],
        "prepare_data": ["--dataset=walkers"],
        "embed": ["F", "--workdir=W", "--output=o.npz"],
        "search": ["q.jpg", "--workdir=W", "--gallery=g.npz"],
        "verify": ["a.jpg", "b.jpg", "--network=N"],
        "import_weights": ["--source=S"],
        "adapt": ["--network=N", "--source=S", "--csv=C", "--output=O"],
        "ablation": ["--base=walkers", "--workdir=W"],
        "export": ["--workdir=W", "--output=O"],
    }.get(name, ["--workdir=W"])
    line = run_script(name, *required, "x", "y")
    assert line == f"{name.replace('_', '-')}: unknown arguments x y; every option is a flag, as --workdir=DIRECTORY"


@pytest.mark.parametrize("name", NAMES)
def test_a_mistyped_flag(name):
    assert refused(name, "--wrkdir=W").startswith(f"{name.replace('_', '-')}: Unknown command line flag 'wrkdir'")


@pytest.mark.parametrize("name", ["train", "visualize", "ablation"])
def test_a_missing_flag(name):
    assert "--workdir is missing." in refused(name)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("embed", ["F", "--output=o.npz"]),
        ("search", ["q.jpg", "--gallery=g.npz"]),
        ("verify", ["a.jpg", "b.jpg"]),
        ("export", ["--output=o"]),
    ],
)
def test_no_network_and_two(name, arguments):
    line = f"{name}: give either --workdir=DIRECTORY of a run or --network=NAME, as --network=market1501"
    assert refused(name, *arguments) == line
    assert refused(name, *arguments, "--workdir=W", "--network=N") == line


@pytest.mark.parametrize("name", WITH_CONFIG)
@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("learning_rat=0.1", 'config.learning_rat: no such field. Did you mean "optim.learning_rate"?'),
        ("optim.learnin_rate=0.1", 'config.optim.learnin_rate: no such field. Did you mean "optim.learning_rate"?'),
        ("batch_size=64", 'config.batch_size: no such field. Did you mean "data.p" and "data.k"?'),
        ("data.batch_size=64", 'config.data.batch_size: no such field. Did you mean "data.p" and "data.k"?'),
        ("lr=0.1", 'config.lr: no such field. Did you mean "optim.learning_rate"?'),
        ("optim=1", "flag --config.optim=1: Failed to parse '1' as a ConfigDict: `1` is not a dict."),
        ("seed=one", "flag --config.seed=one: invalid literal for int() with base 10: 'one'"),
        ("optim.learning_rate", "Missing value for flag --config.optim.learning_rate"),
    ],
)
def test_a_mistyped_field(name, field, line):
    assert refused(name, "--config=market", "--workdir=W", f"--config.{field}") == f"{name.replace('_', '-')}: {line}"


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            "markt",
            "no recipe 'markt'. Did you mean \"market\"? The recipes are market, duke, cuhk03, walkers, finetune, "
            "general, ablation, with variants such as market:authors, market:small, market:scratch; or give the path "
            "of a recipe file",
        ),
        ("small", "no recipe 'small'. Did you mean \"market:small\"? The recipes are market, "),
        ("market:smal", "market has no variant 'smal'; it has: authors, small, scratch"),
        ("configs/nowhere.py", "--config=configs/nowhere.py: no file configs/nowhere.py in "),
    ],
)
def test_a_mistyped_recipe(config, line):
    assert refused("train", f"--config={config}", "--workdir=W").startswith(f"train: {line}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:\n", "line 1 SyntaxError: invalid syntax"),
        ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("x = 1\n", "has no attribute 'get_config'"),
    ],
)
def test_a_broken_recipe_file(tmp_path, monkeypatch, text, words):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # the recipe of another test
    file = tmp_path / "broken.py"
    file.write_text(text)
    line = refused("train", f"--config={file}", "--workdir=W")
    assert words in line and line.startswith(f"train: --config={file}:")


def trained_with(monkeypatch, *arguments: str):
    """The configuration that `mancs train` would train with."""
    found = []
    monkeypatch.setattr("mancs_jax.run.train_and_evaluate", lambda config, *_, **__: found.append(config))
    monkeypatch.setattr("mancs_jax.cli.train.keep_freed_memory", lambda: None)
    monkeypatch.setattr("mancs_jax.cli.train.keep_compiled_programs", lambda: None)
    main(["mancs", "train", "--workdir=W", *arguments])
    return found[0]


@pytest.mark.parametrize("value", ["market:small", "configs/market.py:small"])
def test_recipes_by_name_and_by_file(value, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    config = trained_with(monkeypatch, f"--config={value}", "--config.optim.learning_rate=0.5")
    expected = recipes.market("small").unlock()
    expected.optim.learning_rate = 0.5
    assert config.to_dict() == expected.to_dict()


def test_a_recipe_file_may_import_its_neighbours_and_nothing_else_changes(tmp_path, monkeypatch):
    """flax's layout, with a `configs` of the user's own, beside the one of this checkout."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.py").write_text(
        "from mancs_jax.config.recipes import walkers\ndef get_config():\n  return walkers()\n"
    )
    (tmp_path / "configs" / "mine.py").write_text(
        "from configs import base\ndef get_config():\n"
        "  config = base.get_config().unlock()\n  config.recipe = 'mine'\n  return config.lock()\n"
    )
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the user hides numpy')")
    monkeypatch.delitem(sys.modules, "configs", raising=False)
    before = list(sys.path)
    config = trained_with(monkeypatch, f"--config={tmp_path / 'configs' / 'mine.py'}")
    monkeypatch.delitem(sys.modules, "configs", raising=False)
    assert config.recipe == "mine" and config.data.name == "walkers" and sys.path == before


def test_a_file_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("market").write_text("from mancs_jax.config.recipes import duke\n\n\ndef get_config():\n    return duke()\n")
    assert trained_with(monkeypatch, "--config=market").data.name == "dukemtmc_reid"
