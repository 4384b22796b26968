# SPDX-License-Identifier: Apache-2.0
"""BENCHMARKS.md: a program writes its own section and no other."""

from experiments.benchmarks import record


def test_a_section_is_replaced_and_the_others_stay():
    page = record.INTRODUCTION
    for program, body in (("losses", "| 1 |"), ("heads", "| 2 |\n"), ("losses", "| 3 |\n")):
        page = record.with_section(page, program, f"The {program}", body)
    assert page == (
        f"{record.INTRODUCTION}\n"
        "## The losses\n\n`python -m experiments.benchmarks.losses --write`\n\n| 3 |\n\n"
        "## The heads\n\n`python -m experiments.benchmarks.heads --write`\n\n| 2 |\n"
    )
    again = record.with_section(page, "heads", "The heads", "| 2 |")
    assert again == page


def test_the_machine_is_named_with_its_versions():
    found = record.machine()
    assert "cores; cpu; Python 3." in found
    assert "jax 0." in found
