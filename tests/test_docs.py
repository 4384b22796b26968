# SPDX-License-Identifier: Apache-2.0
"""The reference of the API has a page for everything public. `make docs` builds it."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xloss

ROOT = Path(__file__).resolve().parent.parent
INDEX = (ROOT / "docs" / "index.rst").read_text()


def listed(title: str) -> list[str]:
    """Names in the table under a title of the first page."""
    section = re.split(r"\n(?=[^\n]+\n-+\n)", INDEX)
    text = next(part for part in section if part.startswith(f"{title}\n"))
    return re.findall(r"^   ([\w.]+)$", text, flags=re.MULTILINE)


def rooms() -> dict[str, list[str]]:
    """Every public module with an ``__all__``, below xloss -> what that lists."""
    modules = [name for _, name, _ in pkgutil.walk_packages(xloss.__path__, "xloss.")]
    found = {name: getattr(importlib.import_module(name), "__all__", None) for name in modules}
    # A family's own files may have one too: what they export, the family lists.
    return {
        name.removeprefix("xloss."): names
        for name, names in found.items()
        if names and (name.count(".") == 1 or hasattr(importlib.import_module(name), "__path__"))
    }


def test_every_room_and_every_name_at_the_top_is_on_the_first_page():
    assert sorted(listed("The rooms")) == sorted(rooms())
    own = [name for name in xloss.__all__ if not inspect.ismodule(getattr(xloss, name))]
    assert sorted(listed("Of the package itself")) == sorted(own)
    assert {name for name in xloss.__all__ if name not in own} <= set(rooms())


@pytest.mark.parametrize("room", rooms())
def test_what_a_room_lists_is_there_and_has_a_docstring(room):
    module = importlib.import_module(f"xloss.{room}")
    assert module.__doc__
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            assert inspect.getdoc(value), name


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra `docs`")
def test_a_broken_reference_fails_the_build_and_bars_are_kept(tmp_path):
    (tmp_path / "index.rst").write_text(
        "Page\n====\n\n.. autofunction:: xloss.optim.asam\n\n:func:`xloss.nothing`\n"
    )
    (tmp_path / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "text", ".", "out"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "target not found: xloss.nothing" in done.stderr
    assert "[docutils]" not in done.stderr  # the docstring itself is well formed
    assert "|w|" in (tmp_path / "out" / "index.txt").read_text()
