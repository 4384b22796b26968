# SPDX-License-Identifier: Apache-2.0
"""Which losses and methods there are: `python -m experiments.catalogue [WORD] [--update]`.

Without a word, all of them in tables; with one, those whose name, paper or family has it, in full.
`--update` rewrites the generated tables in README.md.
"""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import xloss
from experiments.errors import BadInput
from experiments.program import run_program
from xloss.catalogue import LOSSES, METHODS, Entry, Method

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- catalogue:begin -->", "<!-- catalogue:end -->"

UPDATE = flags.DEFINE_bool("update", False, "Rewrite the table between the markers of README.md.")


def signature(entry: Entry) -> str:
    """Hyperparameters with their defaults, as they are written in a config."""

    def shown(value: object) -> str:
        return getattr(value, "__name__", None) or repr(value)

    return ", ".join(
        name if default is inspect.Parameter.empty else f"{name}={shown(default)}"
        for name, default in entry.hyperparameters.items()
    )


def remarks(entry: Entry) -> str:
    """What a user must know before using it in a step of their own."""
    notes = []
    if entry.couples_batch:
        notes.append("couples the batch")
    if not entry.exact_gradient:
        notes.append("injected gradient: the value is no loss")
    if "key" in entry.needs:
        notes.append("takes a key")
    if "distances" in entry.needs:
        notes.append("takes distances, not logits")
    if entry.temporaries > 1:
        notes.append(f"temporaries of {entry.temporaries:.3g} x the logits")
    return "; ".join(notes)


def cited(row: Entry | Method) -> str:
    """Title and a link to the paper."""
    link = f", [arXiv {row.arxiv}](https://arxiv.org/abs/{row.arxiv})" if row.arxiv else ""
    return row.title + link


def markdown() -> str:
    """The README's tables."""
    rows = ["| loss | hyperparameters | paper | evidence |", "| --- | --- | --- | --- |"]
    for entry in LOSSES.values():
        note = remarks(entry)
        rows.append(
            f"| `{entry.family}.{entry.name}` | `{signature(entry) or '-'}` | {cited(entry)} | "
            f"{entry.evidence}{f' ({note})' if note else ''} |"
        )
    if METHODS:
        rows += ["", "| method | cost | paper | evidence |", "| --- | --- | --- | --- |"]
    for method in METHODS.values():
        rows.append(
            f"| `{method.family}.{method.name}` | {method.cost or '-'} | {cited(method)} | "
            f"{method.evidence} |"
        )
    return "\n".join(rows)


def table() -> str:
    """One line a loss for a terminal, names and hyperparameters aligned."""
    names, costs = max(len(name) for name in LOSSES), 0
    hyper = max(len(signature(entry)) for entry in LOSSES.values())
    lines = [f"{'loss':<{names}}  {'hyperparameters':<{hyper}}  evidence"]
    lines.append(f"{'-' * names}  {'-' * hyper}  {'-' * 8}")
    for entry in LOSSES.values():
        lines.append(f"{entry.name:<{names}}  {signature(entry):<{hyper}}  {entry.evidence}")
    methods = {f"{method.family}.{method.name}": method for method in METHODS.values()}
    if methods:
        names = max(map(len, methods))
        costs = max(len("cost"), *(len(method.cost) for method in methods.values()))
        lines += ["", f"{'method':<{names}}  {'cost':<{costs}}  evidence"]
        lines.append(f"{'-' * names}  {'-' * costs}  {'-' * 8}")
    for name, method in methods.items():
        lines.append(f"{name:<{names}}  {method.cost:<{costs}}  {method.evidence}")
    lines += [
        "",
        "in a config:    config.loss = {'name': 'comp_sum', 'tau': 0.7}",
        "on the line:    --config.loss.name=comp_sum --config.loss.tau=0.7",
        "in Python:      xloss.get('comp_sum')(logits, labels, tau=0.7)",
        "one in full:    python -m experiments.catalogue comp_sum",
    ]
    return "\n".join(lines)


def details(entry: Entry | Method) -> str:
    """Everything about one loss or method: its row, its docstring, its paper in BibTeX."""
    facts = {
        "name": f"{entry.name}  (xloss.{entry.family}.{entry.name})",
        "paper": entry.title,
        "arXiv": entry.arxiv or "none",
        "evidence": entry.evidence,
    }
    if isinstance(entry, Method):
        facts["cost"] = entry.cost or "-"
    else:
        facts |= {
            "needs": ", ".join(entry.needs),
            "temporaries": f"<= {entry.temporaries:g} x the logits",
            "couples the batch": "yes" if entry.couples_batch else "no",
            "gradient": "of the value"
            if entry.exact_gradient
            else "injected: the value is no loss",
        }
    head = "\n".join(f"{key:>17}: {value}" for key, value in facts.items())
    return f"{head}\n\n{inspect.getdoc(entry.function)}\n\n{xloss.cite(entry.name)}\n"


def find(word: str) -> list[Entry | Method]:
    """Rows with ``word`` in name, family, title or arXiv id; an exact name wins."""
    rows: dict[str, Entry | Method] = {**LOSSES, **METHODS}
    if word in rows:
        return [rows[word]]
    found = [
        entry
        for entry in rows.values()
        if word.lower() in f"{entry.name} {entry.family} {entry.title} {entry.arxiv}".lower()
    ]
    if not found:
        try:
            xloss.get(word)
        except ValueError as error:
            raise BadInput(str(error).removeprefix("catalogue: ")) from error
    return found


def update(path: Path = README) -> bool:
    """Rewrites the table of ``path``; returns whether that changed the file."""
    text = path.read_text()
    pattern = re.compile(f"{BEGIN}.*?{END}", re.DOTALL)
    if not pattern.search(text):
        raise BadInput(f"{path}: expected the markers {BEGIN} and {END}")
    new = pattern.sub(lambda _: f"{BEGIN}\n{markdown()}\n{END}", text)
    path.write_text(new)
    return new != text


def main(argv: Sequence[str]) -> None:
    """Prints what was asked for."""
    if UPDATE.value:
        print(f"{README.name}: {'updated' if update() else 'up to date'}")
    elif len(argv) > 1:
        print("\n".join(details(entry) for entry in find(" ".join(argv[1:]))))
    else:
        print(table())


if __name__ == "__main__":
    run_program("catalogue", main)
