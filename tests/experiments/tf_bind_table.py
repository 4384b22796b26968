# SPDX-License-Identifier: Apache-2.0
"""A table of 8-mers like UniPROBE's, with scores that are made up: E-score = 0.5 - letters that are
not G or C, over 8. A design and its reverse complement agree in it, as they must."""

import gzip
import itertools
from pathlib import Path

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def lines() -> list[str]:
    rows = ["8-mer\t8-mer\tE-score\tMedian\tZ-score"]
    for letters in itertools.product("ACGT", repeat=8):
        word = "".join(letters)
        other = word.translate(COMPLEMENT)[::-1]
        if word <= other:
            weak = sum(letter in "AT" for letter in word)
            rows.append(f"{word}\t{other}\t{0.5 - weak / 8:.5f}\t1.0\t0.0")
    return rows


def write(path: Path, rows: list[str]) -> Path:
    path.write_bytes(gzip.compress("\n".join(rows).encode() + b"\n", compresslevel=1))
    return path
