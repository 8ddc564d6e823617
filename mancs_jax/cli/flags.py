"""Flags that belong to one command instead of the process, so that several commands can run in one process."""

from collections.abc import Callable, Sequence
from typing import Any

from absl import flags


def _own(define: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *arguments, **options: define(*arguments, **options, flag_values=self)


class Flags(flags.FlagValues):
    """The flags of one command; `values.DEFINE_string(...)` is absl's `DEFINE_string` for them."""

    DEFINE_bool = _own(flags.DEFINE_bool)
    DEFINE_enum = _own(flags.DEFINE_enum)
    DEFINE_float = _own(flags.DEFINE_float)
    DEFINE_integer = _own(flags.DEFINE_integer)
    DEFINE_list = _own(flags.DEFINE_list)
    DEFINE_multi_string = _own(flags.DEFINE_multi_string)
    DEFINE_string = _own(flags.DEFINE_string)

    def DEFINE_config(self, argv: Sequence[str], recipe: str) -> None:
        """Defines --config, explained by `recipe`, and the flags of its fields in `argv`."""
        from ml_collections import config_flags  # only some commands wait for it

        config_flags.DEFINE_config_file("config", None, recipe, flag_values=self, sys_argv=list(argv))


def define_run(values: Flags, argv: Sequence[str], recipe: str) -> None:
    """Defines --config (explained by `recipe`), --workdir and --allow_config_change, of commands that train."""
    values.DEFINE_config(argv, recipe)
    values.DEFINE_string("workdir", None, "Directory of the run; training resumes from a checkpoint in it.")
    values.DEFINE_bool("allow_config_change", False, "Resume with another configuration, too.")
    flags.mark_flags_as_required(["config", "workdir"], values)
