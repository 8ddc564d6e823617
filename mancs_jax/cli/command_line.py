"""From a command line to one call: flags, recipes by name or file, one line for a mistake."""

import atexit
import difflib
import gc
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from absl import flags

from mancs_jax.cli.flags import Flags
from mancs_jax.cli.outputs_and_inputs import outputs_and_inputs
from mancs_jax.common.local_path import cache_folder, local_path
from mancs_jax.common.outputs import check_outputs
from mancs_jax.common.processor import set_cpu_flags
from mancs_jax.common.quoted import shortened
from mancs_jax.common.screen import encodable, escaped, keep_going, show, tell

# A recipe file that takes names; its own file, since ml_collections loads recipes by path.
BY_NAME = Path(__file__).parents[1] / "config" / "by_name.py"
# Flags that hold a path; --network may be a name, which stays as it is.
PATHS = (
    "workdir",
    "root",
    "output",
    "source",
    "json",
    "features",
    "gallery",
    "picture",
    "report",
    "images",
    "csv",
    "protocol_file",
    "network",
    "receipt",
    "relative_to",
    "average_with",
    "thresholds_of",
    "groups",
)
DATABASES = ("postgresql://", "postgres://")  # of galleries that are no files
LEAST_COMPILATION = 0.1  # seconds; a shorter one is not kept. JAX's own value, 1, would leave out those of ranking
COLLECTED_AFTER = (100_000, 50, 100)  # objects and collections; Python 3.11's own are (700, 10, 10)
LONGEST = 500  # letters of a word that a message shows whole
PATH_FIELDS = ("data.root", "pretrained")  # of a configuration
TRACEBACK = "MANCS_TRACEBACK"  # variable that asks for tracebacks on the screen
INTERRUPTED = 130  # exit status after Ctrl-C, as of a shell
HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")


def run(command: ModuleType, argv: Sequence[str] | None = None) -> None:
    """Runs a command of this folder. The process runs nothing else: the collector of cycles runs seldom from now on.

    Args:
      command: a module with a docstring, `define(values, argv)`, `main(values, arguments)` and `ARGUMENTS`, the names
        of its arguments that are no flags.
      argv: the name of the program and its arguments; those of this process by default.

    Raises:
      SystemExit: with one line, for any mistake; with status 0 after --help, and 130 after Ctrl-C. A traceback is in
        the file that the line names, where the error is not the user's, and on the screen where MANCS_TRACEBACK is set.
    """
    argv = list(sys.argv if argv is None else argv)
    name = command.__name__.removeprefix("mancs_jax.cli.").replace(".", " ").replace("_", "-")  # as it is typed
    with ending_in_one_line(name):
        _run(command, name, argv)
    # Tracing has made a million objects that stay: the collector need not look through them at the end of the process.
    # Not after an error: JAX may still compute what nobody waits for, and crashes where its arrays outlive Python.
    atexit.register(gc.freeze)


@contextmanager
def ending_in_one_line(name: str) -> Iterator[None]:
    """Ends the process at any error, and after Ctrl-C, as `run` does; `name` is that of the program."""
    keep_going()
    try:
        yield
    except SystemExit:
        raise
    except KeyboardInterrupt as error:
        tell(f"{name}: {one_line(error) if error.args else 'interrupted'}")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        sys.exit(f"{name}: {_told(error)}")


def _run(command: ModuleType, name: str, argv: list[str]) -> None:
    if "jax" not in sys.modules:  # else it may have begun to compute
        set_cpu_flags()
    # Importing and tracing make a million objects that stay. The collector would look through them all again and again.
    gc.set_threshold(*COLLECTED_AFTER)
    values = Flags()
    try:
        argv = [argv[0], *_recipes_as_files(argv[1:])]
    except ValueError as error:
        sys.exit(f"{name}: --config={one_line(error)}")
    command.define(values, argv)
    if any(argument in HELP for argument in argv[1:]):
        show(_help(command, values))
        sys.exit(0)
    try:
        with _neighbours_of_recipes(argv):
            rest = values(argv)[1:]
    except Exception as error:  # a recipe file may raise anything
        sys.exit(f"{name}: {_mistake(error, argv)}")
    if len(rest) != len(command.ARGUMENTS):
        sys.exit(f"{name}: {_wrong_arguments(rest, command.ARGUMENTS)}")
    _expand_paths(values)
    arguments = [_expanded(argument) for argument in rest]
    check_outputs(*outputs_and_inputs(values, arguments))
    command.main(values, arguments)


def _told(error: BaseException) -> str:
    """Returns the line for an error, and keeps the traceback of one that is not the user's."""
    if isinstance(error, (ValueError, OSError, ArithmeticError, ImportError)):  # ImportError: an extra is missing
        return one_line(error)
    if isinstance(error, MemoryError):
        return f"the machine has too little memory ({one_line(error)})"
    if platforms := _missing_platforms():
        return (
            f"JAX cannot use JAX_PLATFORMS={platforms} on this machine: unset it, or install JAX for this device, as "
            f"pip install 'mancs_jax[{'tpu' if 'tpu' in platforms.lower().split(',') else 'cuda12'}]'"
        )
    if isinstance(error, RuntimeError):  # of JAX and other libraries, which tell what they lack
        return f"{shortened(one_line(error), LONGEST)} (traceback: {_kept_traceback()})"
    line = f"{type(error).__name__}: {shortened(one_line(error), LONGEST)}"
    return f"{line}; this is a fault of mancs_jax, please report it with {_kept_traceback()}"


def _missing_platforms() -> str:
    """Returns JAX_PLATFORMS where it names devices that JAX has not; JAX's own errors are of several classes."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and (jax := sys.modules.get("jax")):
        try:
            jax.devices()
        except (RuntimeError, AssertionError):
            return platforms
    return ""


def _kept_traceback() -> str:
    """Writes the traceback of the error that is handled to a file, and returns a word for it."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="mancs_traceback_", suffix=".txt", delete=False) as file:
            file.write(encodable(f"{sys.argv}\n{traceback.format_exc()}", "utf-8"))
        return file.name
    except OSError:
        traceback.print_exc()
        return "the lines above"


def _expand_paths(values: Flags) -> None:
    """Makes `~` in paths the home directory, and refuses remote ones (ValueError, one line)."""
    for name in PATHS:
        path = values[name].value if name in values else None
        if path and not (name == "gallery" and path.startswith(DATABASES)):
            try:
                values[name].value = _expanded(path)
            except ValueError as error:
                raise ValueError(f"--{name}={error}") from None
    config = values["config"].value if "config" in values else None
    if config:
        with config.unlocked():
            config.data.root, config.pretrained = (
                _expanded(path) if path else path for path in (config.data.root, config.pretrained)
            )
    if "set" in values:  # fields of all runs of an ablation
        values["set"].value = [_with_path(setting) for setting in values["set"].value or []]


def _expanded(path: str) -> str:
    expanded = local_path(path)
    # "./market1501" is a folder, "market1501" the name of a network: pathlib would make both one.
    return path if Path(path) == expanded else str(expanded)


def _with_path(setting: str) -> str:
    """Expands the path of FIELD=PATH; other settings stay as they are."""
    field, _, path = setting.partition("=")
    if field not in PATH_FIELDS or not path:
        return setting
    try:
        return f"{field}={_expanded(path)}"
    except ValueError as error:
        raise ValueError(f"--set={field}={error}") from None


def _help(command: ModuleType, values: Flags) -> str:
    lines = [(command.__doc__ or "").strip(), "", "Flags:"]
    for flag in values:
        default = "" if values[flag].default in (None, "", []) else f" ({values[flag].default})"
        lines.append(f"  --{flag}: {(values[flag].help or '').strip()}{default}")
    return "\n".join(lines)


def one_line(error: BaseException) -> str:
    """Returns the message of an error on one line; ml_collections puts a traceback in front, which goes.

    The middle of very long words is left out.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if "Error whilst parsing config file" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2] or text
    text = re.sub(r"flag --(\w+)=None: Flag --\1 must have a value other than None\.", r"--\1 is missing.", text)
    # No path of a user is so long: it is a mistake, which would fill the screen.
    text = re.sub(rf"\S{{{LONGEST},}}", lambda word: f"{word[0][:60]}...{word[0][-30:]}", text)
    return escaped(" ".join(text.split())) or type(error).__name__


def _mistake(error: Exception, argv: Sequence[str]) -> str:
    """Returns the line for an error of parsing flags: a field, a flag or a recipe file is wrong."""
    if isinstance(error, KeyError | AttributeError) and (field := _unknown_field(argv)):
        return field
    if isinstance(error, flags.Error | ValueError | OSError):
        return one_line(error)
    file = next((value for _, value in _recipe_values(argv[1:])), "the recipe")
    where = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
    return f"--config={file}:{where} {type(error).__name__}: {one_line(error)}"


def _unknown_field(argv: Sequence[str]) -> str:
    """Returns the line for the first `--config.FIELD` that no recipe has; "" where all are known."""
    from mancs_jax.config import checks, defaults

    known = checks.flatten(defaults.get_config())
    groups = {name.split(".")[0] for name in known if "." in name}
    for argument in argv[1:]:
        if not argument.startswith(("--config.", "-config.")):
            continue
        field = argument.partition("=")[0].partition("config.")[2]
        if field in groups:
            return f"config.{field} holds several fields: set one of them, as --config.{_first(known, field)}"
        if field not in known:
            return f"config.{field}: no such field.{checks.suggest(field, list(known))}"
    return ""


def _first(known: dict, group: str) -> str:
    name = next(name for name in known if name.startswith(f"{group}."))
    return f"{name}={known[name]}"


def _wrong_arguments(rest: list[str], wanted: Sequence[str]) -> str:
    if len(rest) > len(wanted):
        extra = " ".join(rest[len(wanted) :])
        return f"unknown arguments {extra}; every option is a flag, as --workdir=DIRECTORY"
    return f"give {' and '.join(wanted[len(rest) :])}"


def _recipe_values(arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yields (position, value) of each `--config=VALUE` or `--config VALUE`."""
    for i, argument in enumerate(arguments):
        if argument.startswith(("--config=", "-config=")):
            yield i, argument.partition("=")[2]
        elif argument in ("--config", "-config") and i + 1 < len(arguments):
            yield i + 1, arguments[i + 1]


def _recipes_as_files(arguments: Sequence[str]) -> list[str]:
    """Replaces the name of a recipe by the file that takes names; an existing file wins over a name.

    Raises:
      ValueError: the file of a recipe is remote.
    """
    found = list(arguments)
    for i, value in _recipe_values(arguments):
        option = found[i].removesuffix(value)
        value = _expanded(value)  # before the variants are parted from the file: gs://bucket/recipe.py:small
        found[i] = f"{option}{value}"
        file = value.partition(":")[0]
        if not Path(file).exists() and not file.endswith(".py") and file:
            found[i] = f"{option}{BY_NAME}:{value}"
    return found


@contextmanager
def _neighbours_of_recipes(argv: Sequence[str]) -> Iterator[None]:
    """Lets a recipe file begin with `from configs import default`, `configs` being its own folder.

    Raises:
      FileNotFoundError: there is no such recipe file.
    """
    added = []
    for _, value in _recipe_values(argv[1:]):
        file = Path(value.partition(":")[0])
        if not file.is_file():
            raise FileNotFoundError(
                f"--config={value}: no file {file} in {Path.cwd()}; give its path, or a recipe's name, as "
                "--config=market"
            )
        added.append(str(file.resolve().parents[1]))
    sys.path.extend(added)  # behind all others: nothing there hides a library
    try:
        yield
    finally:
        for path in added:
            sys.path.remove(path)


def suggest_command(name: str, known: Sequence[str]) -> str:
    """Returns ' Did you mean "..."?' where a known command is close to `name`, else ''."""
    close = difflib.get_close_matches(name, known, n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def keep_compiled_programs() -> None:
    """Lets JAX find earlier compiled programs, so that a second start takes seconds.

    They lie in ~/.cache/mancs_jax, or where JAX_COMPILATION_CACHE_DIR or XDG_CACHE_HOME say. A user without a home
    directory keeps none.
    """
    import jax  # not at the top: a mistyped flag should not wait for it

    if not jax.config.values["jax_compilation_cache_dir"] and (cache := cache_folder()):
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_COMPILATION)


def keep_freed_memory() -> None:
    """Lets a network on CPU use the memory of its last step again.

    glibc gives large blocks back to the kernel, which clears each page for the next step. docs/benchmarks.md
    has the gain. Call it before JAX starts its threads. It has no effect without glibc.
    """
    import ctypes

    max_arenas, max_mmaps, trim_threshold = -8, -4, -1  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((max_arenas, 1), (max_mmaps, 0), (trim_threshold, -1)):  # -1: never
        mallopt(option, value)
