# SPDX-License-Identifier: Apache-2.0
"""What a checkout and an installed xloss promise: its files, versions, settings and commands."""

import itertools
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import xloss

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

TOP_LEVEL = {
    *(".ci", ".gitignore", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE"),
    *("Makefile", "README.md", "constraints", "docs", "experiments", "launch"),
    *("pyproject.toml", "tests", "xloss"),
}
GENERATED = {"VERIFIED.md", "BENCHMARKS.md", "RESULTS.md"}
CONSTRAINTS = sorted((ROOT / "constraints").glob("*.txt"))


def tracked_files() -> list[Path]:
    """Returns the files that git would commit, tracked or new, relative to the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: what is tracked cannot be told apart otherwise")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [Path(line) for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return {normalised(name): version for name, version in (line.split("==") for line in lines)}


def test_top_level_is_as_designed():
    found = {path.parts[0] for path in tracked_files()}
    assert found <= TOP_LEVEL | GENERATED
    assert found >= TOP_LEVEL


def test_every_python_file_names_the_licence_and_stays_short():
    faults = []
    for path in tracked_files():
        if path.suffix == ".py":
            lines = (ROOT / path).read_text().splitlines()
            if not lines or lines[0] != "# SPDX-License-Identifier: Apache-2.0":
                faults.append(f"{path}: no SPDX line first")
            if len(lines) > 400:
                faults.append(f"{path}: {len(lines)} lines, expected at most 400")
    assert faults == []


def test_no_file_names_a_machine_or_a_registry():
    words = re.compile(
        # Split so that this file does not match itself.
        r"(?<![\w.])/(?:wo" r"rk|tm" r"p|ro" r"ot|ho" r"me)/\w"
        r"|\bpy" r"pi\.(?:org|io)|files\.python" r"hosted|regis" r"try\.npmjs|deb\.deb" r"ian"
    )  # fmt: skip
    faults = []
    for path in tracked_files():
        if path.suffix in {".npz", ".gz", ".png", ".array_record"}:
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1):
            if words.search(line):
                faults.append(f"{path}:{number}: {line.strip()[:100]}")
    assert faults == []


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_pin_every_dependency(path):
    lines = path.read_text().splitlines()
    assert [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==\d[A-Za-z0-9.+!]*", line)
    ] == []
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [
        *PYPROJECT["build-system"]["requires"],
        *PYPROJECT["project"]["dependencies"],
        *extras["experiments"],
        *extras["notebooks"],
        *extras["test"],
        *extras["docs"],
    ]
    names = {normalised(re.split(r"[\[<>=]", requirement)[0]) for requirement in wanted}
    assert names - {"xloss"} <= set(pins(path))


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_what_is_pinned_is_what_the_extras_ask_for(path):
    project, pinned = PYPROJECT["project"], pins(path)
    assert path.stem.removeprefix("py") in SpecifierSet(project["requires-python"])
    wanted = [
        *project["dependencies"],
        *itertools.chain(*project["optional-dependencies"].values()),
    ]
    checked = [r for r in map(Requirement, wanted) if normalised(r.name) in pinned]
    assert len(checked) > 30
    wrong = [f"{r}: {v}" for r in checked if (v := pinned[normalised(r.name)]) not in r.specifier]
    assert wrong == []


def test_constraints_hold_the_designed_pairs_of_python_and_jax():
    jax_of = {path.stem: pins(path)["jax"] for path in CONSTRAINTS}
    assert jax_of.keys() == {"py3.11", "py3.12", "py3.13"}
    assert jax_of["py3.11"] == "0.10.2"
    assert jax_of["py3.12"] == "0.11.2"


def test_the_core_needs_three_packages_and_nothing_needs_tensorflow():
    core = [re.split(r"[<>=]", name)[0] for name in PYPROJECT["project"]["dependencies"]]
    assert sorted(core) == ["jax", "numpy", "optax"]
    for path in CONSTRAINTS:
        assert not {"tensorflow", "tf-nightly", "clu"} & set(pins(path))


def test_version_and_types_come_with_the_package():
    assert (Path(xloss.__file__).parent / "py.typed").is_file()
    assert xloss.__version__ == PYPROJECT["project"]["version"]
    assert f"version: {xloss.__version__}\n" in (ROOT / "CITATION.cff").read_text()


# ---- make ---------------------------------------------------------------------------------------


def python_that_says(folder: Path, name: str, version: str, *, can_make_environments: bool) -> Path:
    """Writes a stand-in for an interpreter: reports `version`, imports venv or not."""
    path = folder / name
    path.write_text(
        "#!/bin/sh\n"
        f'case "$2" in *ensurepip*) exit {0 if can_make_environments else 1} ;; esac\n'
        f'echo "{version} $0"\n'
    )
    path.chmod(0o755)
    return path


def make(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", *args], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@needs_make
@pytest.mark.parametrize("target", ["demo", "test"])
@pytest.mark.parametrize(
    ("version", "can_make_environments", "says"),
    [
        ("3.10", True, "needs Python 3.11 or newer"),
        ("2.7", True, "needs Python 3.11 or newer"),
        ("3.11", False, "venv or ensurepip module is missing"),
    ],
)
def test_an_unfit_python_gets_one_line(tmp_path, target, version, can_make_environments, says):
    python = python_that_says(
        tmp_path, "python3", version, can_make_environments=can_make_environments
    )
    done = make("--dry-run", target, f"PYTHON={python}")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@needs_make
def test_a_python_that_is_not_there_gets_one_line():
    done = make("--dry-run", "test", "PYTHON=python3.99")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "no working python3.99 found" in done.stderr


@needs_make
def test_another_python_gets_its_own_environment_and_constraints(tmp_path):
    other = python_that_says(tmp_path, "other", "3.99", can_make_environments=True)
    done = make("--dry-run", "test", f"PYTHON={other}")
    assert done.returncode == 0, done.stderr
    assert f'sh .ci/install "{other}" ".venv-py3.99" ""' in done.stdout


@needs_make
def test_help_lists_every_target_and_needs_no_python():
    listed = make("help", "PYTHON=python3.99").stdout
    phony = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony
    assert [target for target in phony if f"  {target} " not in listed] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("fails", ["nothing", "test", "others"])
def test_ci_adds_up_the_runs_and_fails_when_any_part_does(tmp_path, fails):
    stand_in = tmp_path / "make"
    stand_in.write_text(
        "#!/bin/sh\n"
        'echo "make $*" >> "$CALLS"\n'
        'case "$*" in\n'
        '  test) echo "==== 2 failed, 10 passed, 1 skipped in 61.20s (0:01:01) ====" ;;\n'
        '  *) echo "==== 7 passed, 3 deselected in 0.10s ===="; echo "= 1 error in 2.00s =" ;;\n'
        "esac\n"
        'case "$FAILS $*" in "test test" | "others --keep-going"*) exit 2 ;; esac\n'
    )
    stand_in.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "FAILS": fails,
    }
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "17 passed, 3 failed, 1 skipped"
    assert (done.returncode == 0) == (fails == "nothing")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["make test", "make --keep-going test-slow compile-check docs test-others"]


def test_the_import_benchmark_prints_its_figure(run_python):
    program = (
        "from experiments.benchmarks import import_time\n"
        "import_time.REPETITIONS = 1\n"
        "import_time.main()\n"
    )
    printed = run_python("-c", program).stdout
    assert re.match(r"import xloss beyond import jax: median \d\.\d{3} s, ", printed)


def test_citation_and_metadata_agree(run_python):
    program = (
        "import importlib.metadata as m, json; d = m.metadata('xloss'); "
        "print(json.dumps([d['License-Expression'], d.get_all('Provides-Extra')]))"
    )
    licence, extras = json.loads(run_python("-c", program).stdout)
    assert licence == "Apache-2.0"
    assert f"license: {licence}\n" in (ROOT / "CITATION.cff").read_text()
    assert set(extras) == set(PYPROJECT["project"]["optional-dependencies"])
