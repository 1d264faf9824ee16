"""Short rows of large results, written many at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow import session
from lowering.loop_ir import Kernel
from lowering.passes.join_rows import join_rows
from lowering.target import Target, from_name, host
from tests.support.check_pass import check_pass


def _eager(target: Target) -> Target:
    """Return `target`, for which arrays are large from 4 KiB on."""
    return Target(**{**_fields(target), "stream_bytes": 4096})


def _fields(target: Target) -> dict[str, Any]:
    return {f: getattr(target, f) for f in Target.__record_fields__}


V4 = _eager(from_name("x86-64-v4"))


def joined(kernel: Kernel) -> Kernel:
    return join_rows(kernel, target=V4)


def test_rows_are_collected_and_written_in_one_run() -> None:
    check_pass(
        joined,
        before="""
kernel k(x: f32[90, 2, 64] read, o: f32[2, 90, 64]):
  parallel i in 2:
    serial j in 90:
      vectorized k in 64:
        let a: f32 = x[j, i, k]
        stream o[i, j, k] = a * 2.0
""",
        after="""
kernel k(x: f32[11520] read, o: f32[11520]):
  parallel i in 2:
    alloc rows: f32[4096] scratch align 64
    serial c in 2:
      serial j in min(64, 90 - c * 64):
        vectorized k in 64:
          let a: f32 = x[i * 64 + (c * 64 + j) * 128 + k]
          rows[j * 64 + k] = a * 2.0
      vectorized n in min(64, c * -64 + 90) * 64:
        stream o[c * 4096 + i * 5760 + n] = rows[n]
""",
    )


def test_what_a_row_has_in_common_is_looked_up_once() -> None:
    check_pass(
        joined,
        before="""
kernel k(x: f32[30, 8] read, at: i64[600] read, s: f32[600] read, o: f32[600, 8]):
  parallel i in 600:
    vectorized j in 8:
      let raw: index = index(at[i])
      let safe: index = max(0, min(raw, 29))
      let a: f32 = x[safe, j]
      let b: f32 = s[i]
      stream o[i, j] = a + b
""",
        after="""
kernel k(x: f32[240] read, at: i64[600] read, s: f32[600] read, o: f32[4800]):
  parallel c in 2:
    alloc rows: f32[4096] scratch align 64
    serial i in min(512, 600 - c * 512):
      let raw: index = index(at[c * 512 + i])
      let safe: index = max(0, min(raw, 29))
      let b: f32 = s[c * 512 + i]
      vectorized j in 8:
        let a: f32 = x[j + safe * 8]
        rows[i * 8 + j] = a + b
    vectorized n in min(512, c * -512 + 600) * 8:
      stream o[c * 4096 + n] = rows[n]
""",
    )


@pytest.mark.parametrize(
    ("shape", "store"),
    [
        ("8, 600", "stream o[i, j] = x[j]"),  # long rows
        ("7, 64", "stream o[i, j] = x[j]"),  # too few
        ("90, 64", "o[i, j] = x[j]"),  # read again
        ("n, 64", "stream o[i, j] = x[j]"),  # perhaps small
        ("90, n", "stream o[i, j] = x[j]"),  # perhaps long
    ],
)
def test_it_leaves_alone(shape: str, store: str) -> None:
    rows, columns = shape.split(", ")
    dims = ", n: index" if "n" in shape else ""
    check_pass(
        joined,
        before=f"""
kernel k(x: f32[{columns}] read, o: f32[{shape}]{dims}):
  parallel i in {rows}:
    vectorized j in {columns}:
      {store}
""",
    )


def test_a_result_that_is_small_next_to_what_is_read_stays_in_the_caches() -> None:
    check_pass(
        lambda kernel: join_rows(kernel, target=Target(**{**_fields(V4), "stream_bytes": 1 << 20})),
        before="""
kernel k(x: f32[270000] read, o: f32[90, 64]):
  parallel i in 90:
    vectorized j in 64:
      stream o[i, j] = x[i * 3000 + j]
""",
    )


def test_without_masks_nothing_is_streamed_and_so_nothing_collected() -> None:
    check_pass(
        lambda kernel: join_rows(kernel, target=_eager(from_name("x86-64-v2"))),
        before="""
kernel k(x: f32[64] read, o: f32[90, 64]):
  parallel i in 90:
    vectorized j in 64:
      stream o[i, j] = x[j]
""",
    )


def test_permuted_and_gathered_rows_are_what_numpy_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "host", lambda: _eager(host()))
    rng = np.random.default_rng(0)
    x, at = rng.normal(size=(3, 70, 5, 33)).astype(np.float32), rng.integers(-350, 350, 101)
    p, q = jf.placeholder("x", jf.float32, x.shape), jf.placeholder("at", jf.int64, at.shape)
    rows = jf.reshape(p, (-1, 99))
    y = [jf.permute_dims(p, (0, 2, 1, 3)) * 2.0, jf.take(rows, q, axis=0)]
    with jf.Session(y) as session_:
        permuted, taken = session_.run(y, {p: x, q: at})
        assert ("rows" in session_.dump("llvm")) or not host().mask_bytes
    np.testing.assert_array_equal(permuted, x.transpose(0, 2, 1, 3) * np.float32(2))
    np.testing.assert_array_equal(taken, x.reshape(-1, 99)[at])
