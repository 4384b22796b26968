# SPDX-License-Identifier: Apache-2.0
"""How the small command lines (report, compare, catalogue, verify) start and refuse bad input."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags

from experiments.errors import BadInput


def run_program(name: str, main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main` with the command line; bad input or a wrong flag is one line and exit code 2."""

    def parse(arguments: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            sys.exit(_refuse(name, error))

    def guarded(arguments: Sequence[str]) -> int:
        try:
            main(arguments)
        except BadInput as error:
            return _refuse(name, error)
        return 0

    app.run(guarded, flags_parser=parse)


def _refuse(name: str, error: Exception) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    return 2
