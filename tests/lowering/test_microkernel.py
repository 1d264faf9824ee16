"""The register tile: what it computes at every edge, and that it stays in registers."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import DType
from lowering.cpu import assembly
from lowering.interp import interpret
from lowering.llvm import emit_kernel
from lowering.microkernel import LeftForm, loop, microkernel
from lowering.pipeline import run_pipeline
from lowering.target import from_name
from lowering.verify import verify

Array = np.ndarray[Any, Any]


def run(
    left: LeftForm, masks: bool, rows: int, cols: int, depth: int, first: int, copies: bool = False
) -> tuple[Array, Array]:
    """Run a 3 x 4 tile on a corner of larger matrices; return the sums after it, and as they should be."""
    rng = np.random.default_rng(rows * 100 + cols * 10 + depth)
    a = rng.integers(-4, 5, (rows, depth)).astype(np.float32)
    b = rng.integers(-4, 5, (depth, 6)).astype(np.float32)
    c = rng.integers(-4, 5, (rows, 7)).astype(np.float32)
    want = c.copy()
    want[:, :cols] = a @ b[:, :cols] + (c[:, :cols] if first else 0)
    kernel = microkernel(jf.float32, 3, 4, left=left, masks=masks, copies=copies)
    verify(kernel, stage="scalar")
    given = np.ascontiguousarray(a if left == "rows" else a.T)
    dims = {"rows": rows, "cols": cols, "depth": depth, "lda": given.shape[1], "ldb": 6, "ldc": 7, "first": first}
    panel = np.full((depth, 4), 77, np.float32)
    interpret(kernel, [given, b, c, panel] if copies else [given, b, c], {**dims, "ahead": 48})
    if copies:
        np.testing.assert_array_equal(panel, b[:, :4])
    return c, want


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("left", ["rows", "columns"])
def test_a_tile_adds_to_the_part_of_the_sums_that_is_there(left: LeftForm, masks: bool) -> None:
    for rows, cols, depth, first in itertools.product((1, 2, 3), (1, 3, 4), (0, 1, 5), (0, 1)):
        got, want = run(left, masks, rows, cols, depth, first)
        np.testing.assert_array_equal(got, want, err_msg=f"{rows} x {cols} x {depth}, first {first}")


@pytest.mark.parametrize("left", ["rows", "columns"])
def test_a_whole_tile_may_copy_the_rows_it_reads_to_a_panel(left: LeftForm) -> None:
    for depth, first in itertools.product((0, 1, 5), (0, 1)):
        got, want = run(left, True, 3, 4, depth, first, copies=True)
        np.testing.assert_array_equal(got, want)


def test_one_request_is_one_kernel() -> None:
    assert microkernel(jf.float32, 6, 64) is microkernel(jf.float32, 6, 64)
    assert microkernel(jf.float32, 6, 64, left="columns").name == "multiply_f32_6x64_columns"


TILES = [
    ("x86-64-v4", jf.float32, [(6, 64), (8, 48), (12, 32), (16, 16), (2, 64), (4, 64), (3, 48)]),
    ("x86-64-v4", jf.float64, [(6, 32), (8, 24), (12, 16), (16, 8), (2, 32)]),
    ("x86-64-v3", jf.float32, [(4, 24), (6, 16), (12, 8)]),
    ("x86-64-v3", jf.float64, [(4, 12), (6, 8), (12, 4)]),
]


@pytest.mark.parametrize(
    ("target", "dtype", "tiles"), TILES, ids=lambda x: str(x) if isinstance(x, (str, DType)) else ""
)
def test_no_vector_of_the_loop_goes_to_the_stack(target: str, dtype: DType, tiles: list[tuple[int, int]]) -> None:
    t = from_name(target)
    for mr, nr in tiles:
        for left in ("rows", "columns"):
            kernel = run_pipeline(microkernel(dtype, mr, nr, left=left, masks=t.vector_registers > 16), t)
            steps = innermost(assembly(emit_kernel(kernel, t), t))
            on_stack = [line for line in steps if "%rsp" in line and re.search(r"[xyz]mm", line)]
            assert not on_stack, f"{mr}x{nr}: {on_stack[:3]}"
            assert sum("vfmadd" in line for line in steps) == mr * nr // t.lanes(dtype)


def innermost(text: str) -> list[str]:
    """Return the lines of the loop that multiplies."""
    lines = text.splitlines()
    at = next(k for k, line in enumerate(lines) if "vfmadd" in line)
    first = max(k for k in range(at) if lines[k].startswith(".LBB"))
    label = lines[first].split(":")[0]
    last = next(k for k in range(at, len(lines)) if re.search(rf"\bj\w+\s+{re.escape(label)}$", lines[k]))
    return lines[first : last + 1]


def test_a_loop_that_runs_once_or_never_is_none() -> None:
    assert loop("i", 0, lambda i: ()) == ()
    assert loop("i", 1, lambda i: (i,)) == loop("j", 1, lambda j: (j,))  # type: ignore[return-value, arg-type]
    (once,) = loop("t", 1, lambda t: (), "parallel")
    assert "parallel" in repr(once)
