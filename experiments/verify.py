# SPDX-License-Identifier: Apache-2.0
"""What was checked, one row a paper: `python -m experiments.verify` writes VERIFIED.md.

Only what repeats exactly under the pinned versions goes in (times belong in BENCHMARKS.md), so
that `--check`, and a test, can compare the committed file letter by letter.
"""

import ast
import difflib
import functools
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from absl import flags

import xloss
from experiments import golden
from experiments.benchmarks import losses as bench
from experiments.config import SHIPPED
from experiments.errors import BadInput
from experiments.program import run_program
from xloss.catalogue import LOSSES, METHODS, Entry, Method
from xloss.numerics import one_hot_last

ROOT = Path(__file__).resolve().parent.parent
VERIFIED = ROOT / "VERIFIED.md"
INVARIANTS = ROOT / "tests" / "invariants"
#: Experiments that fit no config, with a VERDICT of their own.
PROGRAMS = (ROOT / "experiments" / "sample_complexity.py",)
SIZE = (512, 32_000)
HEADER = f"""# Verified

Written by `python -m experiments.verify`; CI fails when it differs.

- *evidence*: "authors' code": golden numbers made with the authors' own program; "published
  formula, derived and checked": golden numbers or invariants from an independent derivation;
  "reconstruction": built after a description, as the original is not to be had.
- *golden*: cases passed / skipped / waiting for a function that is not written yet / total of the
  paper's golden file, in float64 at each file's own tolerance, values and gradients. Methods of one
  golden file show the same numbers.
- *invariants*: named tests in `tests/invariants/`, one for each property that the paper or the
  mathematics promises.
- *temporaries*: bytes that value and gradient of the mean loss need beside their arguments and
  results, over the bytes of logits {list(SIZE)} in float32, as compiled for one CPU device.
- *reproduction*: whether the paper's claims held in the runs that the named config describes;
  "-" where none were made yet.

"""

CHECK = flags.DEFINE_bool("check", False, "Compare with the committed file and write nothing.")


@functools.cache
def golden_counts(slug: str | None) -> str:
    """ "passed / skipped / open / total" of a slug; raises BadInput if a case fails."""
    if slug not in golden.slugs():
        return "-"
    cases = golden.load(slug)
    skipped = [c for c in cases if c.name in golden.skipped(slug)]
    waiting = [c for c in cases if golden.is_open(c)]
    passed = 0
    for case in cases:
        if case in skipped or case in waiting:
            continue
        if wrong := golden.mismatches(case):
            raise BadInput(f"golden {slug}/{case.name}: {'; '.join(wrong)}")
        passed += 1
    return f"{passed} / {len(skipped)} / {len(waiting)} / {len(cases)}"


def invariant_count(slug: str | None) -> str:
    """How many named invariant tests a slug has, in test_SLUG.py and test_SLUG_PART.py."""
    paths = [*INVARIANTS.glob(f"test_{slug}.py"), *INVARIANTS.glob(f"test_{slug}_*.py")]
    if slug is None or not paths:
        return "-"
    nodes = [node for path in paths for node in ast.parse(path.read_text()).body]
    return str(sum(getattr(node, "name", "").startswith("test_") for node in nodes))


def verdicts() -> dict[str, str]:
    """Name in the catalogue -> what the shipped configs' runs say of the paper's claims."""
    found: dict[str, list[str]] = {}
    for path in [*sorted(SHIPPED.glob("*.py")), *PROGRAMS]:
        for name, verdict in runpy.run_path(str(path)).get("VERDICT", {}).items():
            if name not in LOSSES and name not in METHODS:
                raise BadInput(f"{path}: VERDICT: expected names of the catalogue, got {name!r}")
            found.setdefault(name, []).append(f"{verdict} (`{path.stem}`)")
    return {name: "; ".join(said) for name, said in found.items()}


def temporaries(entry: Entry) -> str:
    """Compiled temporaries of value and gradient, as a share of the logits."""
    hyper = {"key": bench.jax.random.key(0)} if "key" in entry.needs else {}

    def objective(z, y, _):
        if "probabilities" in entry.needs:
            y = jnp.broadcast_to(1.0 / z.shape[-1], z.shape)
        if "multi_hot" in entry.needs:
            y = one_hot_last(y, z.shape)
        given = (z,)
        if "candidate_logits" in entry.needs:
            given = (jnp.stack([z, z / 2]),)
        elif "adversarial_logits" in entry.needs and "logits" in entry.needs:
            given = (z, z / 2)
        return xloss.reduce(entry.function(*given, y, **hyper))

    return f"{100 * bench.temporary_share(bench.compiled(objective, SIZE), SIZE):.2f} %"


def document() -> str:
    """The whole of VERIFIED.md."""
    if not golden.slugs():
        raise BadInput(f"{golden.FOLDER}: expected golden files (run from a checkout)")
    rows = [
        "| loss or method | paper | arXiv | evidence | golden | invariants | temporaries "
        "| reproduction |",
        "| --- | --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    said = verdicts()
    for entry in LOSSES.values():
        rows.append(
            f"| `{entry.name}` | {entry.title} | {entry.arxiv or '-'} | {entry.evidence} | "
            f"{golden_counts(entry.slug)} | {invariant_count(entry.slug)} | "
            f"{temporaries(entry)} | {said.get(entry.name, '-')} |"
        )
    # What is no loss has no temporaries of its own: one row for all functions of a paper.
    papers: dict[tuple[str, str], list[Method]] = {}
    for method in METHODS.values():
        papers.setdefault((method.title, method.evidence), []).append(method)
    for (title, evidence), methods in papers.items():
        names = ", ".join(f"`{method.family}.{method.name}`" for method in methods)
        first = methods[0]
        rows.append(
            f"| {names} | {title} | {first.arxiv or '-'} | {evidence} | "
            f"{golden_counts(first.slug)} | {invariant_count(first.slug)} | - | "
            f"{'; '.join(said[m.name] for m in methods if m.name in said) or '-'} |"
        )
    return HEADER + "\n".join(rows) + "\n"


def main(_: Sequence[str]) -> None:
    """Writes VERIFIED.md, or compares it."""
    text = document()
    if not CHECK.value:
        VERIFIED.write_text(text)
        print(f"written: {VERIFIED.name}")
        return
    committed = VERIFIED.read_text() if VERIFIED.exists() else ""
    if committed != text:
        lines = difflib.unified_diff(
            committed.splitlines(), text.splitlines(), "committed", "found here", lineterm="", n=0
        )
        print("\n".join(lines), file=sys.stderr)
        raise BadInput(f"{VERIFIED.name} differs: run python -m experiments.verify and commit it")
    print(f"{VERIFIED.name}: up to date")


if __name__ == "__main__":
    run_program("verify", main)
