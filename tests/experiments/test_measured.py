# SPDX-License-Identifier: Apache-2.0
"""The measured paragraphs of configs and experiments say what their tables say."""

import ast
import re
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
RESULTS = sorted((EXPERIMENTS / "results").glob("*.md"))
#: Mean and half-width. A sign makes it a difference, seed by seed, which no table has.
PAIR = re.compile(r"(?<![\w.+-])(\d+(?:\.\d+)?) \+- (\d+(?:\.\d+)?(?:e-\d+)?)")


def measured_lines(config: Path) -> list[str]:
    """The indented lines, that is the tables, of a config's docstring after "Measured"."""
    text = ast.get_docstring(ast.parse(config.read_text())) or ""
    return [line for line in text.split("Measured", 1)[1].splitlines() if line.startswith("    ")]


def disagreements(lines: list[str], table: str) -> list[str]:
    """Pairs of the lines that no pair of the table rounds to, as it is or in per cent."""
    there = [tuple(map(float, pair)) for pair in PAIR.findall(table)]
    missing = []
    for line in lines:
        for mean, half in PAIR.findall(line):
            units = [10.0 ** -len(text.partition(".")[2]) for text in (mean, half)]
            # The table is rounded too, to four digits, half-widths to two: 5 % of them.
            if not any(
                abs(scale * m - float(mean)) <= 1.01 * units[0]
                and abs(scale * h - float(half)) <= max(1.01 * units[1], 0.05 * scale * h)
                for m, h in there
                for scale in (1.0, 100.0)
            ):
                missing.append(f"{mean} +- {half} in: {line.strip()}")
    return missing


@pytest.mark.parametrize("results", RESULTS, ids=lambda path: path.stem)
def test_every_number_of_a_table_is_in_the_sweeps_table(results):
    config = EXPERIMENTS / "configs" / f"{results.stem}.py"
    # What fits no config is a program of its own.
    lines = measured_lines(config if config.exists() else EXPERIMENTS / f"{results.stem}.py")
    assert sum(len(PAIR.findall(line)) for line in lines) >= 8
    assert disagreements(lines, results.read_text()) == []


def test_a_number_that_was_not_measured_is_noticed():
    table = "| a | 10 | 0.8065 +- 0.0016 | 1 +- 0 |"
    assert disagreements(["    a  80.65 +- 0.16   100.0 +- 0.0  -0.1 +- 0.2"], table) == []
    assert len(disagreements(["    a  80.75 +- 0.16"], table)) == 1
    assert len(disagreements(["    a  80.65 +- 0.26"], table)) == 1
