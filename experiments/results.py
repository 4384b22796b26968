# SPDX-License-Identifier: Apache-2.0
"""What the reproductions found: `python -m experiments.results` writes RESULTS.md.

    python -m experiments.results            # RESULTS.md, results/figures/
    python -m experiments.results --check    # compare with the committed file, write nothing

Every number is a cell of a run file in experiments/results/, read back and never typed; the text
that is quoted (">") is that of a config. A number of a VERDICT, or of a sentence written here, that
its run file does not have, a run file that is missing, or a verdict that its own table contradicts
ends the program with one line.
"""

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.errors import BadInput
from experiments.program import run_program
from experiments.reproductions import REPRODUCTIONS, answers, pages
from experiments.reproductions.tables import RESULTS

ROOT = Path(__file__).resolve().parent.parent
PAGE, README = ROOT / "RESULTS.md", ROOT / "README.md"
FIGURES = RESULTS / "figures"
BEGIN, END = "<!-- decisions:begin -->", "<!-- decisions:end -->"

#: Run files with a picture.
DRAWN = [name for name, entry in REPRODUCTIONS.items() if entry.panels or entry.curves]

_FLAGS = flags.FlagValues()
_CHECK = flags.DEFINE_bool(
    "check", False, "Compare with the committed file and write nothing.", flag_values=_FLAGS
)


def documents() -> dict[Path, str]:
    """Path -> text of RESULTS.md, and of README.md where it has a place for the decision table.

    Raises:
      BadInput: whatever is said without a run file; see :func:`pages.section`.
    """
    found = pages.sections(REPRODUCTIONS, RESULTS)
    named = {one.name: one for one in found}
    drawn = {name: (FIGURES / f"{name}.svg").relative_to(ROOT).as_posix() for name in DRAWN}
    written = {PAGE: pages.document(found, REPRODUCTIONS, answers.table(named), drawn)}
    readme = README.read_text(encoding="utf-8") if README.exists() else ""
    short = f"{BEGIN}\n{answers.table(named, PAGE.name, short=True)}\n{END}"
    new = re.sub(f"{BEGIN}.*?{END}", lambda _: short, readme, flags=re.DOTALL)
    return written | ({README: new} if BEGIN in readme else {})


def drawings() -> dict[Path, bytes]:
    """Path -> SVG of every picture."""
    # matplotlib takes a second to import, and --check needs no pictures.
    from experiments.reproductions import pictures

    return {
        FIGURES / f"{one.name}.svg": pictures.picture(REPRODUCTIONS[one.name], one)
        for one in pages.sections(REPRODUCTIONS, RESULTS)
        if one.name in DRAWN
    }


def main(argv: Sequence[str]) -> None:
    """Writes RESULTS.md and its pictures, or compares the text."""
    if len(argv) > 1:
        raise BadInput(f"expected flags only, got {argv[1]!r}")
    for path, text in documents().items():
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if not _CHECK.value:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.name}")
        elif before != text:
            lines = difflib.unified_diff(
                before.splitlines(), text.splitlines(), "committed", "found here", lineterm="", n=0
            )
            print("\n".join(lines), file=sys.stderr)
            raise BadInput(f"{path.name} differs: run python -m experiments.results and commit it")
        else:
            print(f"{path.name}: up to date")
    if _CHECK.value:
        return
    FIGURES.mkdir(exist_ok=True)
    for path, svg in drawings().items():
        path.write_bytes(svg)
    print(f"written: {FIGURES.relative_to(ROOT)}/")


if __name__ == "__main__":
    run_program("results", main, _FLAGS, __doc__)
