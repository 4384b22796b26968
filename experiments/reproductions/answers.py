# SPDX-License-Identifier: Apache-2.0
"""The decision table: `decisions.py` answered from the sections' tables, for RESULTS.md and README.

A row wins if it is ahead of the baseline in every column of a question, leads if it is ahead in
some and behind in none, and is mixed if it is both. Where nothing does either, that is the answer.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.errors import BadInput
from experiments.reproductions.decisions import DECISIONS, Decision, Where
from experiments.reproductions.pages import Section, anchor
from experiments.reproductions.sentences import unmeasured
from experiments.reproductions.tables import Shown
from experiments.sweep_table import markdown

#: Rows named in an answer; RESULTS.md's tables have the others.
SHOWN = 4
#: Of them, those with their numbers.
QUOTED = 2
COLUMNS = ("you have", "to beat", "use", "measured", "but")


class Count(NamedTuple):
    """How often a row is ahead of the baseline, behind it, and looked at."""

    ahead: int
    behind: int
    total: int


def counts(decision: Decision, found: Mapping[str, Section]) -> dict[str, Count]:
    """What each row does against the baselines, best first."""
    seen: dict[str, Count] = {}
    for where in decision.where:
        shown = looked_at(where, found)
        for column in where.columns or shown.columns:
            for row in where.only or shown.orders[column]:
                if row == where.baseline or (row, column) not in shown.values:
                    continue
                outcome = shown.compared(row, where.baseline, column)
                before = seen.get(row, Count(0, 0, 0))
                seen[row] = Count(
                    before.ahead + (outcome == "ahead"),
                    before.behind + (outcome == "behind"),
                    before.total + 1,
                )
    # sorted is stable: of equal ones the row that validation liked better comes first.
    return dict(sorted(seen.items(), key=lambda item: (item[1].behind, -item[1].ahead)))


def looked_at(where: Where, found: Mapping[str, Section]) -> Shown:
    """The table of a question, as it is asked."""
    shown = found[where.file].table(where.table)
    return shown.turned() if where.turned else shown


def answer(decision: Decision, found: Mapping[str, Section]) -> tuple[str, list[str]]:
    """The answer in words, and the rows that it names."""
    if not decision.where:
        return "not measured", []
    seen = counts(decision, found)
    columns = sum(len(w.columns or looked_at(w, found).columns) for w in decision.where)
    wins = [row for row, c in seen.items() if c.ahead == c.total == columns]
    leads = [row for row, c in seen.items() if c.ahead and not c.behind and row not in wins]
    mixed = [row for row, c in seen.items() if c.ahead and c.behind]

    def named(rows: Sequence[str]) -> str:
        shown = [f"`{row}`" + _of(seen[row], columns) for row in rows[:SHOWN]]
        return ", ".join(shown) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")

    if wins:
        return named(wins), wins[:SHOWN]
    parts = [f"**nothing beat {decision.usual} here**"]
    if leads:
        parts = [f"perhaps {named(leads)}; else {decision.usual}"]
    if mixed:
        parts.append(f"mixed: {named(mixed)}")
    return "; ".join(parts), (leads or mixed or list(seen))[:SHOWN]


def _of(count: Count, columns: int) -> str:
    if columns == 1:
        return ""
    behind = f", behind in {count.behind}" if count.behind else ""
    return f" (ahead in {count.ahead} of {count.total}{behind})"


def _numbers(where: Where, rows: Sequence[str], one: Section, page: str) -> str:
    link = f"[{one.name}]({page}#{anchor(one.name)})"
    if where.turned:
        shown = one.table(where.table)
        first = anchor(one.name, shown.name, next(iter(shown.rows)))
        return f"{link}: the {len(shown.rows)} rows of [its table]({page}#{first})"
    shown = one.table(where.table)
    parts = []
    for column in where.columns:
        cells = [
            f"`{row}` {one.cell(where.table, row, column, page)}"
            for row in rows
            if (row, column) in shown.values
        ]
        theirs = f"`{where.baseline}` {one.cell(where.table, where.baseline, column, page)}"
        parts.append(f"{column}: {', '.join([*cells[:QUOTED], theirs])}")
    return f"{link}: {'; '.join(parts)}"


def table(found: Mapping[str, Section], page: str = "", short: bool = False) -> str:
    """The decision table as markdown.

    Args:
      found: sections by name.
      page: what the links begin with: "" inside RESULTS.md.
      short: without the numbers, for the README; every answer still links to them.

    Raises:
      BadInput: a remark has a number that the run files of its question do not have.
    """
    lines = []
    for decision in DECISIONS:
        text = "\n".join(found[where.file].text for where in decision.where)
        if missing := unmeasured(f"{decision.but} {decision.question}", text):
            raise BadInput(f"decision {decision.question!r}: {missing[0]} is in no run file of it")
        said, rows = answer(decision, found)
        numbers = [_numbers(w, rows, found[w.file], page) for w in decision.where]
        here = anchor("use", decision.question)
        if short:
            files = dict.fromkeys(where.file for where in decision.where)
            links = ", ".join(f"[{name}]({page}#{anchor(name)})" for name in files)
            linked = f"[{decision.question}]({page}#{here})"
            lines.append([linked, said, decision.but or "-", links or "-"])
            continue
        question = f'<a id="{here}"></a>{decision.question}'
        lines.append(
            [question, decision.usual, said, "<br>".join(numbers) or "-", decision.but or "-"]
        )
    return markdown(["you have", "use", "but", "runs"] if short else list(COLUMNS), lines)
