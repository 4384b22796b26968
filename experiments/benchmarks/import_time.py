# SPDX-License-Identifier: Apache-2.0
"""Prints what `import xloss` costs beyond `import jax`: the figure behind "under 0.3 s".

Run it after adding an import to xloss:  python -m experiments.benchmarks.import_time
Each repetition is a fresh interpreter, after one that only warms the file cache.
"""

import platform
import statistics
import subprocess
import sys

import jax

REPETITIONS = 9

PROGRAM = """
import time
import jax
start = time.perf_counter()
import xloss
print(time.perf_counter() - start)
"""


def seconds() -> float:
    """Returns the seconds of `import xloss` in a fresh interpreter that has imported jax."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def main() -> None:
    """Measures and prints one line."""
    seconds()
    times = [seconds() for _ in range(REPETITIONS)]
    print(
        f"import xloss beyond import jax: median {statistics.median(times):.3f} s, "
        f"{min(times):.3f} to {max(times):.3f} s in {REPETITIONS} interpreters "
        f"(Python {platform.python_version()}, jax {jax.__version__})"
    )


if __name__ == "__main__":
    main()
