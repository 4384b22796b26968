# SPDX-License-Identifier: Apache-2.0
"""How the small command lines (report, compare, catalogue, verify) start and refuse bad input."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from experiments.errors import BadInput


def run_program(
    name: str,
    main: Callable[[Sequence[str]], None],
    flag_values: flags.FlagValues = flags.FLAGS,
    about: str | None = None,
) -> None:
    """Runs `main` with the command line; bad input or a wrong flag is one line and exit code 2.

    Args:
      name: what the line begins with.
      main: takes the arguments that are no flags.
      flag_values: where the program's flags are defined; of its own where their names are those of
        another program (`--config`), so that one process can import both.
      about: what --help says above the flags, for a program with flags of its own.
    """

    def parse(arguments: Sequence[str]) -> list[str]:
        if flag_values is not flags.FLAGS and {"--help", "-help", "-h"} & set(arguments):
            print(f"{(about or '').strip()}\n\nFlags:{flag_values.get_help()}")
            sys.exit(0)
        try:
            rest = flag_values(arguments)
            flags.FLAGS.mark_as_parsed()  # app.run wants it, whoever's flags they are
            return rest
        except flags.Error as error:
            sys.exit(_refuse(name, error))

    def guarded(arguments: Sequence[str]) -> int:
        try:
            main(arguments)
        except BadInput as error:
            return _refuse(name, error)
        return 0

    logging.set_verbosity(logging.WARNING)  # JAX tells of every platform that it does not find
    app.run(guarded, flags_parser=parse)


def _refuse(name: str, error: Exception) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    return 2
