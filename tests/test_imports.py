# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, and what `import xloss` costs.

The rule: experiments -> families, optim, heads -> statistics, surrogates -> ground floor. Families
do not import each other, and xloss itself needs jax, optax and numpy only.
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
XLOSS = ROOT / "xloss"

GROUND_FLOOR = {"typing", "numerics", "checks", "multi_label", "reduction"}
CURRENCIES = {"statistics", "surrogates"}
THIRD_PARTY = {"jax", "optax", "numpy"}
#: Offline preparation that asks for more, inside a function and with a message that says so.
OPTIONAL = {("classification/equity.py", "sklearn")}


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Yields the dotted names that `source` imports at run time, in functions too.

    `package` is the dotted package that the source belongs to; relative names are resolved in it.
    Imports under `if TYPE_CHECKING:` are for readers only and are not yielded.
    """
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def allowed_rooms(room: str) -> set[str] | None:
    """Returns the rooms of xloss that `room` may import besides itself; None means all."""
    if room in GROUND_FLOOR:
        return GROUND_FLOOR
    if room != "catalogue" and (room in CURRENCIES or (XLOSS / room).is_dir()):
        return GROUND_FLOOR | CURRENCIES
    return None


def violations(path: Path, source: str) -> list[str]:
    """Returns a line for each import of `source`, standing at xloss/`path`, against the rule."""
    room = path.parts[0].removesuffix(".py")
    allowed = allowed_rooms(room)
    found = []
    for name in imported_modules(source, ".".join(["xloss", *path.parts[:-1]])):
        top, *rest = name.split(".")
        if top == "xloss":
            if allowed is not None and (not rest or rest[0] not in allowed | {room}):
                found.append(f"xloss/{path} imports {name}")
        elif (path.as_posix(), top) in OPTIONAL:
            continue
        elif top not in THIRD_PARTY and top not in sys.stdlib_module_names:
            found.append(f"xloss/{path} imports {name}")
    return sorted(found)


def test_every_file_of_xloss_keeps_the_import_rule():
    found = []
    for path in sorted(XLOSS.rglob("*.py")):
        found += violations(path.relative_to(XLOSS), path.read_text())
    assert found == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("numerics.py", "from xloss import statistics"),
        ("statistics.py", "import xloss.classification"),
        ("classification/comp_sum.py", "from xloss.catalogue import LOSSES"),
        ("classification/focal.py", "import xloss"),
        ("classification/comp_sum.py", "from ..adversarial import attacks"),
        ("classification/comp_sum.py", "def f():\n    import flax"),
        ("catalogue/losses.py", "from experiments import data"),
    ],
)
def test_the_rule_catches(path, source):
    assert len(violations(Path(path), source)) == 1


def test_imports_for_readers_and_downwards_pass():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import xloss.statistics\n"
    assert violations(Path("typing.py"), source) == []
    assert violations(Path("classification/focal.py"), "from xloss.surrogates import focal") == []
    assert violations(Path("classification/__init__.py"), "from .focal import focal") == []


def test_import_loads_nothing_else_and_starts_no_device(run_python):
    program = """
import json, sys
import jax, numpy, optax
before = set(sys.modules)
import xloss
from jax._src import xla_bridge
print(json.dumps([sorted(set(sys.modules) - before), xla_bridge.backends_are_initialized()]))
"""
    loaded, started = json.loads(run_python("-W", "error", "-c", program).stdout)
    foreign = {name.split(".")[0] for name in loaded}
    assert foreign - set(sys.stdlib_module_names) - THIRD_PARTY == {"xloss"}
    assert not started
