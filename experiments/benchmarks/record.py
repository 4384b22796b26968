# SPDX-License-Identifier: Apache-2.0
"""Where the benchmarks' tables go: the terminal, and with --write BENCHMARKS.md.

Every program owns one section of that page and leaves the others as they are.
"""

import os
import platform
import re
import subprocess
from pathlib import Path

import jax
import optax
from absl import flags

ROOT = Path(__file__).resolve().parent.parent.parent
INTRODUCTION = """# Benchmarks

Each section is written by the program that it names, on the machine and at the commit that it
states. Times are minima over repetitions that take turns, and vary from run to run: read the
ratios. Bytes and counts come from compiled programs and repeat exactly.
"""

WRITE = flags.DEFINE_bool("write", False, "Write the tables into BENCHMARKS.md.")


def machine() -> str:
    """Processor, cores, device, versions and commit, in one line."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []:
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return (
        f"{cpu}, {len(os.sched_getaffinity(0))} cores; {jax.devices()[0].device_kind}; Python "
        f"{platform.python_version()}, jax {jax.__version__}, optax {optax.__version__}; commit "
        f"{commit or 'unknown'}"
    )


def show(program: str, title: str, tables: str) -> None:
    """Prints tables; with --write they become the program's section of BENCHMARKS.md."""
    tables = f"Machine: {machine()}\n\n{tables.strip()}\n"
    print(tables)
    if WRITE.value:
        path = ROOT / "BENCHMARKS.md"
        before = path.read_text(encoding="utf-8") if path.exists() else INTRODUCTION
        path.write_text(with_section(before, program, title, tables), encoding="utf-8")
        print(f"written: {path.name}")


def with_section(page: str, program: str, title: str, body: str) -> str:
    """The page with the section of that title replaced, or added at its end."""
    section = f"## {title}\n\n`python -m experiments.benchmarks.{program} --write`\n\n{body}"
    head, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    found = [i for i, old in enumerate(sections) if old.startswith(f"## {title}\n")]
    if found:
        sections[found[0]] = section
    else:
        sections.append(section)
    return "\n".join(part.rstrip("\n") + "\n" for part in (head, *sections))
