# SPDX-License-Identifier: Apache-2.0
"""What `python -m build` makes: its contents, and that the wheel works where nothing else is."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import xloss
from xloss.catalogue import LOSSES, METHODS

ROOT = Path(__file__).resolve().parent.parent
PINNED = ROOT / "constraints" / f"py{sys.version_info.major}.{sys.version_info.minor}.txt"
CONSTRAINTS = sorted((ROOT / "constraints").glob("*.txt"))

pytestmark = pytest.mark.slow

#: Value and gradient of every loss with nothing but the core's packages there.
SMOKE = """
import importlib.metadata, json
import jax, jax.numpy as jnp
import xloss
from cases import batch, call

jax.config.update("jax_numpy_rank_promotion", "raise")
logits, labels = batch()
finite = []
for name in xloss.catalogue.LOSSES:
    run = lambda z: jnp.sum(call(name, z, labels))
    value, gradient = jax.value_and_grad(run)(logits)
    if jnp.isfinite(value) and jnp.all(jnp.isfinite(gradient)):
        finite.append(name)
names = [d.metadata["Name"].lower() for d in importlib.metadata.distributions()]
print(json.dumps([xloss.__file__, xloss.__version__, finite, list(xloss.catalogue.METHODS), names]))
"""


def run(*command: str | Path, cwd: Path, constraints: Path = PINNED) -> str:
    """Runs a program that must succeed, away from the checkout, and returns what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"PIP_CONSTRAINT": str(constraints)} if constraints.exists() else {}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    environment |= {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500
    )
    if done.returncode != 0:
        pytest.fail(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """{"wheel": ..., "sdist": ...} of this checkout."""
    pytest.importorskip("build", reason="needs the package build")
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
    files = list((folder / "dist").iterdir())
    assert sorted(path.suffix for path in files) == [".gz", ".whl"]
    return {"wheel" if path.suffix == ".whl" else "sdist": path for path in files}


def test_the_wheel_has_the_two_packages_and_nothing_else(built):
    names = zipfile.ZipFile(built["wheel"]).namelist()
    info = f"xloss-{xloss.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"xloss", "experiments", info}
    assert {"xloss/py.typed", f"{info}/licenses/LICENSE"} <= set(names)
    for package in ("xloss", "experiments"):
        here = {p.relative_to(ROOT).as_posix() for p in (ROOT / package).rglob("*.py")}
        assert here <= set(names)


def test_the_sdist_has_what_is_tracked_and_nothing_generated(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "docs/conf.py", "tests/test_docs.py", "PKG-INFO"} <= names
    assert not [n for n in names if re.match(r"docs/(api|_build)/|runs/|shared|\.venv", n)]


def test_the_wheel_runs_every_loss_in_an_environment_with_nothing_but_the_core(built, tmp_path):
    run(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", built["wheel"], cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    shutil.copy(ROOT / "tests" / "contract" / "cases.py", tmp_path)
    (tmp_path / "smoke.py").write_text(SMOKE)
    printed = run(python, "-W", "error", "smoke.py", cwd=tmp_path)
    file, version, finite, methods, installed = json.loads(printed)
    assert Path(file).is_relative_to(tmp_path / "venv")
    assert version == xloss.__version__
    assert finite == list(LOSSES)
    assert methods == list(METHODS)
    assert not {"flax", "orbax-checkpoint", "grain", "scikit-learn", "matplotlib"} & set(installed)


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_the_extras_resolve_to_what_is_pinned(built, path, tmp_path):
    wanted = path.stem.replace("py", "python")
    found = run("sh", ROOT / ".ci" / "find-python", wanted, cwd=tmp_path)
    if found.startswith("error:"):
        pytest.skip(found.strip())
    report = tmp_path / "report.json"
    run(
        *(sys.executable, "-m", "pip", "--python", found.split()[1], "install", "--quiet"),
        *("--dry-run", "--ignore-installed", "--report", report),
        f"{built['wheel']}[experiments,notebooks,docs,test]",
        cwd=tmp_path,
        constraints=path,
    )
    pinned = dict(line.split("==") for line in path.read_text().splitlines())
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    for item in json.loads(report.read_text())["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        if name != "xloss":
            assert item["metadata"]["version"] == pinned.get(name), name
