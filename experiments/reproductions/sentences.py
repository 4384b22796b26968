# SPDX-License-Identifier: Apache-2.0
"""Are the numbers of a sentence in a run file? No sentence of RESULTS.md has any other."""

import math
import re

from experiments.reproductions.tables import PAIR, tables

_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")


def unmeasured(sentence: str, text: str) -> list[str]:
    """The numbers of a sentence that a run file does not have, as they are or in per cent.

    A whole number must be there as a setting, in a header, or as a cell; one with decimals is
    compared with the cells' means, rounded to as many.
    """
    settings_there: set[float] = set()
    means: list[float] = []
    for table in tables(text):
        for cell in (*table.header, *(c for row in table.rows for c in row)):
            if found := PAIR.fullmatch(cell):
                means.append(float(found.group(1)))
            else:
                settings_there |= {float(n) for n in re.findall(r"\d+(?:\.\d+)?", cell)}
    missing = []
    for found in _NUMBER.findall(sentence):
        number = float(found.replace(",", ""))
        unit = 10.0 ** -len(found.partition(".")[2])
        near = "." in found and any(
            abs(scale * abs(m) - number) <= 0.51 * unit for m in means for scale in (1.0, 100.0)
        )
        exact = any(math.isclose(scale * s, number) for s in settings_there for scale in (1, 100))
        if not (near or exact):
            missing.append(found)
    return missing
