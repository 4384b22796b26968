# SPDX-License-Identifier: Apache-2.0
"""What a config says of its own runs: claim, verdict, commands, machine and how long it took.

Read from the file's text: nothing of it is run, and what it does not say is "not recorded".
"""

import ast
import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.errors import BadInput

EXPERIMENTS = Path(__file__).resolve().parent.parent
NOT_RECORDED = "not recorded"

_MACHINE = re.compile(r"jax \d+\.\d+\.\d+(?:, [\w ]*(?:CPU|GPU|TPU)[\w ]*)?")
_RUNTIME = re.compile(
    r"(?:(?:(?:half|three quarters of) )?\ban? (?:hour|minute)\b|\b\w+ minutes\b)"
    r"(?: on [\w ]*cores)?(?: each)?"
)
#: Programs whose commands make a run file.
_PROGRAMS = re.compile(
    r"python -m experiments\.(?:sweep|wins|delta_m|lr_sensitivity|sample_complexity|excess)\b"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A config, or a program that is an experiment of its own.

    Attributes:
      path: of the file, from the repository's root.
      title: first line of its docstring.
      claim: the paragraphs that say what the papers claim; "" where there are none.
      verdict: name in the catalogue -> whether the claim held.
      commands: that make the run file, one a line with its continuation.
      machine: versions and devices, as the docstring has them.
      runtime: of all runs, as the docstring has it.
    """

    path: str
    title: str
    claim: str
    verdict: Mapping[str, str]
    commands: tuple[str, ...]
    machine: str
    runtime: str


def source(name: str) -> Source:
    """The source of a run file.

    Raises:
      BadInput: no config and no program of that name, or one without a docstring.
    """
    path = EXPERIMENTS / "configs" / f"{name}.py"
    path = path if path.is_file() else EXPERIMENTS / f"{name}.py"
    if not path.is_file():
        raise BadInput(f"results/{name}.md: expected a config or a program {name}.py, found none")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    text = ast.get_docstring(tree) or ""
    if not text:
        raise BadInput(f"{path.name}: expected a docstring, got none")
    before, _, after = text.partition("Measured")
    measured = " ".join(after.split())
    machine, runtime = _MACHINE.search(measured), _RUNTIME.search(measured)
    return Source(
        path.relative_to(EXPERIMENTS.parent).as_posix(),
        text.splitlines()[0],
        " ".join(" ".join(part.split()) for part in _paragraphs(before) if "claim" in part.lower()),
        _verdict(tree),
        _commands(text),
        machine.group() if machine else NOT_RECORDED,
        runtime.group() if runtime else NOT_RECORDED,
    )


def unrecorded(names: Iterable[str]) -> list[str]:
    """The configs that can be run and are not among the names."""
    known = set(names)
    return [
        path.relative_to(EXPERIMENTS.parent).as_posix()
        for path in sorted((EXPERIMENTS / "configs").glob("*.py"))
        if path.stem not in known and "def get_config(" in path.read_text(encoding="utf-8")
    ]


def _paragraphs(text: str) -> list[str]:
    parts = re.split(r"\n\s*\n", text)
    return [part for part in parts if part and not part.startswith(" ")]


def _verdict(tree: ast.Module) -> dict[str, str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "VERDICT" for target in node.targets
        ):
            return ast.literal_eval(node.value)
    return {}


def _commands(text: str) -> tuple[str, ...]:
    found: list[str] = []
    going_on = False
    for line in text.splitlines():
        bare = re.split(r"\s+#", line.strip())[0]
        if _PROGRAMS.match(bare) and "quick" not in bare and "seconds" not in line:
            found.append(bare)
        elif going_on:
            found[-1] += f"\n    {bare}"
        else:
            continue
        going_on = bare.endswith("\\")
    return tuple(found)
