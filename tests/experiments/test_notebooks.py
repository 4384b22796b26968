# SPDX-License-Identifier: Apache-2.0
"""Notebooks run from top to bottom, and what is committed is a clean run of them."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "experiments" / "notebooks").glob("*.ipynb"))

# Executed apart, so that the warnings of the kernel's event loop are not this process's errors.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=180, resources={"metadata": {"path": sys.argv[2]}}).execute()
print("cells:", sum(cell.cell_type == "code" for cell in notebook.cells))
"""


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_there_is_a_quickstart():
    assert "quickstart.ipynb" in [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_those_of_one_clean_run(path):
    nbformat.validate(nbformat.read(path, 4))
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    # No path of the machine that ran it.
    assert not re.search(r"/(home|root|tmp|usr|opt|Users)/|site-packages", path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, run_python):
    done = run_python("-c", RUN, str(path), str(tmp_path))
    assert f"cells: {len(code_cells(path))}" in done.stdout
