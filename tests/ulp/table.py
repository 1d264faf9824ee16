"""The table of measured errors, `lowering/ACCURACY.md`: rows into text and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lowering
from tests.ulp.measure import Worst

PATH = Path(lowering.__file__).parent / "ACCURACY.md"

_HEAD = """\
# Errors of functions of real numbers, as measured

The largest error in units in the last place (ULP) of each operator that works on floats element by element, where it
is, and over how many arguments. Written by `python -m tests.ulp --write`; `tests/ulp/test_accuracy.py` measures the
worst arguments and random ones again and fails if code exceeds its row, or has none.

- float32 of one argument: every bit pattern, or every n-th, against numpy's function in float64 (itself within 4 ULP
  of float64, which is 1e-8 of one of float32).
- float64, and two arguments: random numbers of all magnitudes and hard places (near zeros, poles, changes of formula,
  multiples of pi/2), against mpmath with 140 bits.
- 0 for the operators that IEEE defines: every bit is numpy's.
- "fma": compiled for a CPU with fused multiply-add; "no fma": for x86-64-v2.
- A sum that cancels (gelu, silu) is measured in units of its terms.
- "cost": numpy's time over ours on one core with AVX-512, in vectors of 32768 ordinary numbers.

| function | dtype | code | max ULP | at | arguments tried | cost |
|---|---|---|---:|---|---:|---:|
"""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    label: str
    dtype: str
    code: str
    worst: Worst
    cost: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.label, self.dtype, self.code

    def text(self) -> str:
        at = ", ".join(map(repr, self.worst.where))
        cost = "" if self.cost is None else f"{self.cost:.2f}"
        ulp = f"{self.worst.ulp:.4f}" if self.worst.ulp else "0"
        return f"| {self.label} | {self.dtype} | {self.code} | {ulp} | {at} | {self.worst.tried} | {cost} |\n"


def show_table(rows: dict[tuple[str, str, str], Row]) -> str:
    """Return the file with `rows`, sorted."""
    return _HEAD + "".join(rows[key].text() for key in sorted(rows))


def read_table(text: str | None = None) -> dict[tuple[str, str, str], Row]:
    """Return the rows of the file, or of `text`, by function, dtype and code."""
    rows: dict[tuple[str, str, str], Row] = {}
    if text is None:
        text = PATH.read_text() if PATH.exists() else ""
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) != 7 or cells[0] in ("function", "---"):
            continue
        label, dtype, code, ulp, at, tried, cost = cells
        where = tuple(float(v) for v in at.split(",") if v.strip())
        row = Row(label, dtype, code, Worst(float(ulp), where, int(tried)), float(cost) if cost else None)
        rows[row.key] = row
    return rows
