# SPDX-License-Identifier: Apache-2.0
"""What a value of a config must be, for whoever checks a part of it."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a value of a config must be: its type, what is legal in words, a test, and the names."""

    kind: type | tuple[type, ...]
    words: str
    legal: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def one_of(*names: str) -> Rule:
    """The rule of a value that is one of a few names."""
    return Rule(str, f"one of {', '.join(names)}", lambda v: v in names, names)
