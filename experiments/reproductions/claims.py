# SPDX-License-Identifier: Apache-2.0
"""What is said of a run file: the tables to show, the papers' claims, and what bears on them."""

import dataclasses

from experiments.reproductions.views import Quoted, View


@dataclasses.dataclass(frozen=True)
class Versus:
    """Two rows of a table: is the first one ahead of the second, in this column?"""

    table: str
    column: str
    ours: str
    theirs: str


@dataclasses.dataclass(frozen=True)
class Tally:
    """A row of a table of wins, ties and losses."""

    table: str
    row: str


Evidence = Versus | Tally


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper says of a method, in a few words, and what speaks for or against it.

    Attributes:
      method: name in the catalogue, and in the config's VERDICT.
      says: the claim.
      evidence: the method should be ahead in these.
      beside: shown too, but not what the claim is about.
      also: other names of the VERDICT with the same paper and claim.
    """

    method: str
    says: str
    evidence: tuple[Evidence, ...]
    beside: tuple[Evidence, ...] = ()
    also: tuple[str, ...] = ()


#: Most rows of a picture: the best ones, and the one to beat.
MOST_ROWS = 16


@dataclasses.dataclass(frozen=True)
class Panel:
    """A column of a table as a picture."""

    table: str
    column: str


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What to show of a run file.

    Attributes:
      tables: of it.
      claims: of the papers.
      panels: of the picture; none: no picture.
      curves: a table whose rows are drawn as curves over its columns, with the axes' labels.
    """

    tables: tuple[View | Quoted, ...]
    claims: tuple[Claim, ...] = ()
    panels: tuple[Panel, ...] = ()
    curves: tuple[str, str, str] | None = None


def versus(table: str, ours: str, theirs: str, *columns: str) -> tuple[Versus, ...]:
    """The same two rows in several columns."""
    return tuple(Versus(table, column, ours, theirs) for column in columns)
