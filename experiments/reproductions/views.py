# SPDX-License-Identifier: Apache-2.0
"""What to take of a run file's tables: the words in which the entries ask for it."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Column:
    """A column to show: its title, its header in the run file, whether less is better."""

    title: str
    source: str
    less: bool = False

    @property
    def share(self) -> bool:
        """Whether it is shown in per cent."""
        return self.title.endswith("%")


@dataclasses.dataclass(frozen=True)
class View:
    """Of each method the setting that is best on validation.

    Attributes:
      name: of the table, for anchors.
      title: what it shows.
      columns: what to show; the first one orders the rows.
      by: keys whose values name a method.
      select: header of the column to choose by, "-" before it where less is better.
      where: KEY -> value of the rows to read; None: rows without that key.
      across: a key, and a format of its values: one column for each of them.
      heading: of the part of the file to read, "" for its beginning.
      otherwise: name of the method that sets none of the keys.
      names: name that the keys give -> the name to show.
      baseline: the method that others are compared with.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    by: tuple[str, ...]
    select: str
    where: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    across: tuple[str, str] | None = None
    heading: str = ""
    otherwise: str = "as configured"
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    baseline: str = ""


@dataclasses.dataclass(frozen=True)
class Quoted:
    """A table of a run file as it stands, or turned round.

    Attributes:
      name: of the table, for anchors.
      title: what it shows.
      first: header of its first column.
      place: which of the tables with that first column.
      less: whether less is better in it.
      turned: rows become columns.
      keys: how many of the first columns name a row.
      baseline: the row that others are compared with.
    """

    name: str
    title: str
    first: str
    place: int = 0
    less: bool = False
    turned: bool = False
    keys: int = 1
    baseline: str = ""
