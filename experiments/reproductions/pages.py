# SPDX-License-Identifier: Apache-2.0
"""RESULTS.md as text: the summary, the decisions and one section for each run file."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.errors import BadInput
from experiments.reproductions.claims import MOST_ROWS, Claim, Evidence, Reproduction, Tally
from experiments.reproductions.sentences import unmeasured
from experiments.reproductions.sources import NOT_RECORDED, Source, source, unrecorded
from experiments.reproductions.tables import Shown, read, show
from experiments.sweep_table import MADE_WITH, markdown
from xloss.catalogue import LOSSES, METHODS

#: From what speaks most against a paper to what speaks for it.
STATUSES = ("contradicted", "not reproduced", "in part", "reproduced")

HEADER = """# Results

Written by `python -m experiments.results` from the run files in `experiments/results/`; CI fails
when it differs. A number here is a cell of the run file that its section links to. Quoted text (>)
is the config's, with the papers' own figures.

- *±*: half-width of the 95 % interval of the mean over seeds (Student's t). Settings are chosen on
  the validation split, and tables show the test split, unless their title says otherwise.
- *ahead, behind*: the two intervals do not meet; *not apart*: they do. That is stricter than a test
  of seed-by-seed differences. The run files keep no values of single seeds: the differences that
  configs state come from `python -m experiments.wins`, and are not repeated here.
- *contradicted*: not reproduced, and the method is behind in every comparison that the claim is
  about. It says nothing about the papers' own, larger experiments.

Contradictions and failures come first.

"""


@dataclasses.dataclass(frozen=True)
class Section:
    """One run file with what is said of it.

    Attributes:
      name: of the run file.
      source: the config.
      text: of the run file.
      shown: name of a table -> the table.
      claims: of the papers.
    """

    name: str
    source: Source
    text: str
    shown: Mapping[str, Shown]
    claims: tuple[Claim, ...]

    def outcome(self, evidence: Evidence) -> str:
        """ "ahead", "behind" or "not apart"; of a tally, for more than half of the problems."""
        shown = self.table(evidence.table)
        if not isinstance(evidence, Tally):
            return shown.compared(evidence.ours, evidence.theirs, evidence.column)
        wins, ties, losses = (
            shown.value(evidence.row, column).mean for column in ("wins", "ties", "losses")
        )
        half = (wins + ties + losses) / 2
        return "ahead" if wins > half else "behind" if losses > half else "not apart"

    def status(self, claim: Claim) -> str:
        """One of STATUSES.

        Raises:
          BadInput: the config's verdict is not what its table shows.
        """
        verdict = self.source.verdict[claim.method]
        outcomes = [self.outcome(evidence) for evidence in claim.evidence]
        if verdict == "reproduced":
            if "ahead" not in outcomes or "behind" in outcomes:
                raise BadInput(
                    f"{self.source.path}: VERDICT of {claim.method!r}: {verdict!r}, but its table "
                    f"says {', '.join(outcomes)}"
                )
            return verdict
        if not re.match(r"no\b|not\b", verdict):
            return "in part"
        if set(outcomes) == {"ahead"}:
            raise BadInput(
                f"{self.source.path}: VERDICT of {claim.method!r}: {verdict!r}, but it is ahead in "
                "every comparison"
            )
        behind = set(outcomes) == {"behind"} and verdict.startswith("not reproduced")
        return "contradicted" if behind else "not reproduced"

    def worst(self) -> int:
        return min((STATUSES.index(self.status(claim)) for claim in self.claims), default=9)

    def table(self, name: str) -> Shown:
        """A table by its name.

        Raises:
          BadInput: there is none.
        """
        if name not in self.shown:
            raise BadInput(f"{self.name}: no table {name!r}")
        return self.shown[name]

    def cell(self, table: str, row: str, column: str, page: str = "") -> str:
        """A value that links to its row."""
        value = self.table(table).value(row, column)
        return f"[{value.text}]({page}#{anchor(self.name, table, row)})"


def anchor(*parts: str) -> str:
    """Name of a place in the page."""
    return "-".join(re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts)


def section(name: str, entry: Reproduction, folder: Path) -> Section:
    """Reads a run file and checks what is said of it.

    Raises:
      BadInput: no such run file; a claim that the config has no verdict on, or the reverse; a
        number in a sentence that the run file does not have.
    """
    text, found = read(folder / f"{name}.md"), source(name)
    claimed = sorted(method for claim in entry.claims for method in (claim.method, *claim.also))
    if claimed != sorted(found.verdict):
        raise BadInput(
            f"{name}: expected claims on {', '.join(sorted(found.verdict)) or 'nothing'} (the "
            f"VERDICT of {found.path}), got {', '.join(claimed)}"
        )
    sentences = {f"VERDICT of {method!r}": said for method, said in found.verdict.items()}
    sentences |= {f"claim on {claim.method!r}": claim.says for claim in entry.claims}
    for what, sentence in sentences.items():
        if missing := unmeasured(sentence, text):
            raise BadInput(
                f"{found.path}: {what}: {sentence!r}: {missing[0]} is not in results/{name}.md"
            )
    shown = {view.name: show(view, text) for view in entry.tables}
    return Section(name, found, text, shown, entry.claims)


def sections(entries: Mapping[str, Reproduction], folder: Path) -> list[Section]:
    """All sections, those with the worst verdict first.

    Raises:
      BadInput: a run file without an entry, or an entry without a run file; see :func:`section`.
    """
    there = {path.stem for path in folder.glob("*.md")}
    if unknown := sorted(there - set(entries)):
        raise BadInput(f"results/{unknown[0]}.md: expected an entry in experiments/reproductions/")
    found = [section(name, entry, folder) for name, entry in entries.items()]
    return sorted(found, key=lambda one: (one.worst(), one.name))


def paper(method: str) -> str:
    """Title and link of a method's paper."""
    row = LOSSES.get(method) or METHODS[method]
    return f"[{row.title}](https://arxiv.org/abs/{row.arxiv})" if row.arxiv else row.title


def _named(claim: Claim) -> str:
    return ", ".join(f"`{method}`" for method in (claim.method, *claim.also))


def _evidence(one: Section, evidence: Evidence) -> str:
    outcome = one.outcome(evidence)
    if isinstance(evidence, Tally):
        counts = (f"{column} {one.cell(evidence.table, evidence.row, column)}"
                  for column in ("wins", "ties", "losses"))  # fmt: skip
        return f"against `{evidence.row}`: {', '.join(counts)}"
    ours, theirs = (
        one.cell(evidence.table, row, evidence.column) for row in (evidence.ours, evidence.theirs)
    )
    return f"{evidence.column}: {ours}, `{evidence.theirs}` {theirs}: {outcome}"


def summary(found: Sequence[Section]) -> str:
    """The table at the top."""
    rows = []
    for one in found:
        for claim in one.claims:
            status, said = one.status(claim), one.source.verdict[claim.method]
            rows.append(
                [
                    f"**{status}**" + ("" if said == status else f" ({said})"),
                    _named(claim),
                    claim.says,
                    "<br>".join(_evidence(one, evidence) for evidence in claim.evidence),
                    f"[{one.name}](#{anchor(one.name)})",
                ]
            )
    rows.sort(
        key=lambda row: [row[0].startswith(f"**{status}**") for status in STATUSES], reverse=True
    )
    return markdown(["verdict", "method", "claim", "measured", "runs"], rows)


def caption(one: Section, entry: Reproduction) -> str:
    """What a picture shows."""
    if entry.curves:
        return "Means and 95 % intervals over seeds."
    shown = one.table(entry.panels[0].table)
    best = f" The {MOST_ROWS} best rows." if len(shown.rows) > MOST_ROWS else ""
    drawn = {panel.table for panel in entry.panels}
    which = f"{shown.title}. " if len(drawn) == 1 < len(entry.tables) else ""
    return (
        f"{which}Means and 95 % intervals over seeds; the grey band is that of `{shown.baseline}`. "
        f"An arrow points to what is off the scale.{best}"
    )


def body(one: Section, entry: Reproduction, picture: str) -> str:
    """A section of the page; no picture is ""."""
    parts = [f'<a id="{anchor(one.name)}"></a>\n\n## {one.source.title.rstrip(".")}']
    if one.source.claim:
        parts.append(f"> {one.source.claim}")
    if one.claims:
        rows = [
            [
                f"{_named(claim)}: {paper(claim.method)}",
                claim.says,
                one.source.verdict[claim.method],
                "<br>".join(_evidence(one, evidence) for evidence in claim.evidence),
                "<br>".join(_evidence(one, evidence) for evidence in claim.beside) or "-",
            ]
            for claim in one.claims
        ]
        parts.append(markdown(["method", "claim", "verdict", "measured", "beside it"], rows))
    else:
        parts.append("No claim of a paper is tested here.")
    for shown in one.shown.values():
        parts.append(f"{shown.title}:\n\n{_table(one, shown)}")
        if shown.tried:
            parts.append(f"Tried, and chosen among on validation: {shown.tried}.")
    if picture:
        parts.append(f"![{one.source.title}]({picture})\n\n{caption(one, entry)}")
    commands = "\n".join(one.source.commands)
    parts.append(f"Again:\n\n```sh\n{commands}\n```" if commands else f"Command: {NOT_RECORDED}.")
    config = one.source.path
    made = [line for line in one.text.splitlines() if line.startswith(MADE_WITH)]
    parts.append(
        f"Run file: [experiments/results/{one.name}.md](experiments/results/{one.name}.md). "
        f"Config: [{config}]({config}), which has the setup and the reading."
    )
    parts.append(
        " ".join(made)
        or f"Versions and machine: {NOT_RECORDED} in the run file; the config says: "
        f"{one.source.machine}. All runs together: {one.source.runtime}."
    )
    return "\n\n".join(parts)


def _table(one: Section, shown: Shown) -> str:
    first = shown.columns[0]

    def rank(row: str) -> tuple[bool, float]:
        if (row, first) not in shown.values:
            return True, 0.0
        mean = shown.values[row, first].mean
        return False, mean if first in shown.less else -mean

    # What was chosen has an order of its own; a table that is quoted keeps its.
    rows = sorted(shown.rows, key=rank) if shown.chosen else list(shown.rows)
    lines = []
    for row in rows:
        cells = [
            shown.values[row, column].text if (row, column) in shown.values else "-"
            for column in shown.columns
        ]
        here = f'<a id="{anchor(one.name, shown.name, row)}"></a>{row}'
        lines.append([here, *shown.rows[row], *cells])
    return markdown(["row", *shown.head, *shown.columns], lines)


def document(
    found: Sequence[Section],
    entries: Mapping[str, Reproduction],
    decided: str,
    pictures: Mapping[str, str],
) -> str:
    """The whole of RESULTS.md.

    Args:
      found: the sections.
      entries: what to show of each.
      decided: the table of decisions.
      pictures: name of a run file -> path of its picture.
    """
    parts = [f"{HEADER}{summary(found)}", f"## Which loss should I use?\n\n{decided}"]
    parts += [body(one, entries[one.name], pictures.get(one.name, "")) for one in found]
    without = [f"`{path}`" for path in unrecorded(one.name for one in found)]
    if without:
        parts.append(
            "## What is not here\n\nOf these configs there is no run file, so none of "
            f"their numbers is shown: {', '.join(without)}."
        )
    return "\n\n".join(parts) + "\n"
