"""The program `mancs`: its first argument is a command."""

import sys
from collections.abc import Sequence
from importlib import import_module

from mancs_jax.cli.command_line import HELP, run, show, suggest_command

COMMANDS = {
    "train": "train a model and evaluate it",
    "evaluate": "evaluate a trained model, or embeddings of any origin",
    "prepare-data": "prepare a data set, or check it",
    "embed": "extract the embeddings of a folder of images",
    "search": "find the gallery images nearest to a query",
    "export": "export a model for other programs (onnx, jax, torch) or to share (weights)",
    "visualize": "write a report of a trained model",
    "import-weights": "import weights of other programs",
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
      SystemExit: with one line, for any mistake; with status 0 after --help.
    """
    _, *arguments = sys.argv if argv is None else argv
    if not arguments or arguments[0] in HELP:
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
        show("\n".join(["mancs COMMAND [FLAGS]; `mancs COMMAND --help` lists the flags of a command", "", *lines]))
        sys.exit(0)
    name = arguments[0].replace("_", "-")
    if name in RENAMED:
        sys.exit(f"mancs: {name} is now `{RENAMED[name]}`")
    if name not in COMMANDS:
        sys.exit(f"mancs: no command {arguments[0]!r}.{suggest_command(name, list(COMMANDS))} `mancs --help` lists all")
    run(import_module(f"mancs_jax.cli.{name.replace('-', '_')}"), arguments)
