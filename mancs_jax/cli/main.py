"""The program `mancs`: its first argument is a command."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from mancs_jax.cli.command_line import HELP, run, suggest_command
from mancs_jax.common.screen import show
from mancs_jax.version import __version__

COMMANDS = {
    "train": "train a model and evaluate it",
    "evaluate": "evaluate a trained model, or embeddings from any source",
    "compare": "compare two results on the same queries: is the difference significant?",
    "prepare-data": "prepare a data set, or check it",
    "adapt": "adapt a model to your cameras, without labels",
    "embed": "extract the embeddings of a folder of images",
    "search": "find the gallery images nearest to a query",
    "verify": "decide whether two images show the same person",
    "gallery": "create a persistent gallery; add, search and delete images",
    "export": "export a model (onnx, jax, torch), or a model to share (weights)",
    "visualize": "write a report of a trained model",
    "import-weights": "import weights from PyTorch or the authors' release",
    "ablation": "train the rows of an ablation and write one table",
    "cuhk03-classic": "train and evaluate on the 20 splits of CUHK03's classic protocol",
}

# Commands of earlier versions -> the command that does the same.
RENAMED = {
    "export-network": "mancs export --format=weights --workdir=W --output=FOLDER/NAME.safetensors",
    "export-weights": "mancs export --format=torch --workdir=W --output=FILE.safetensors",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names.

    Raises:
      SystemExit: with one line, for any mistake; with status 0 after --help and --version.
    """
    _, *arguments = sys.argv if argv is None else argv
    if arguments[:1] == ["--version"]:
        show(f"mancs_jax {__version__}")
        sys.exit(0)
    dispatch("mancs", COMMANDS, "mancs_jax.cli", arguments)


def dispatch(program: str, commands: Mapping[str, str], package: str, arguments: Sequence[str]) -> None:
    """Runs the command that the first argument names, or those of a group with the arguments that follow.

    Args:
      program: what stands in front of the arguments.
      commands: name -> text for the help.
      package: that has a module for each, or a package with `COMMANDS` for a group.
      arguments: the name and its own arguments.

    Raises:
      SystemExit: as `main`.
    """
    if not arguments or arguments[0] in HELP:
        width = max(map(len, commands))
        lines = [f"  {name:<{width}}  {text}" for name, text in commands.items()]
        head = f"{program} COMMAND [FLAGS]; `{program} COMMAND --help` lists the flags of a command"
        head += "; `mancs --version` prints the version" if program == "mancs" else ""
        show("\n".join([head, "", *lines]))
        sys.exit(0)
    name = arguments[0].replace("_", "-")
    if program == "mancs" and name in RENAMED:
        sys.exit(f"mancs: {name} is now `{RENAMED[name]}`")
    if name not in commands:
        suggestion = suggest_command(name, list(commands))
        sys.exit(f"{program}: no command {arguments[0]!r}.{suggestion} `{program} --help` lists all")
    module = import_module(f"{package}.{name.replace('-', '_')}")
    if hasattr(module, "COMMANDS"):
        dispatch(f"{program} {name}", module.COMMANDS, module.__name__, arguments[1:])
    else:
        run(module, arguments)
