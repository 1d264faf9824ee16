"""Lookups in tables of 16 constants: every target and number of lanes picks what numpy picks."""

from __future__ import annotations

import numpy as np
import pytest

from jitflow.dtypes import DType, float32, float64, int32, int64
from jitflow.expr import INDEX, Buffer, Call, Const, Load, Ramp, Var, const, const_index, type_of
from lowering.interp import interpret
from lowering.loop_ir import For, Kernel, Store
from lowering.nvptx import emit_ptx
from lowering.verify import verify
from tests.support.compiled import Compiled, runnable

TABLE = [float(v) for v in np.random.default_rng(5).standard_normal(16).astype(np.float32)]


def kernel(dtype: DType, lanes: int, kind: str = "serial") -> Kernel:
    """Return the kernel that looks up each element of an int32 array."""
    n, i = Var("n", INDEX, floor=0), Var("i", INDEX, floor=0)
    index, out = Buffer("index", int32, [n * lanes]), Buffer("out", dtype, [n * lanes])
    place = i * lanes if lanes == 1 else Ramp(i * lanes, 1, lanes)
    entries = tuple(const(v, type_of(dtype)) for v in TABLE)
    value = Call("lookup", (*entries, Load(index, (place,))), type_of(dtype, lanes))
    return Kernel("look", (index, out), (n,), (For(i, n, (Store(out, (place,), value),), kind),), frozenset([index]))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [float32, float64])
@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 32])
def test_the_low_bits_choose(dtype: DType, lanes: int) -> None:
    k = kernel(dtype, lanes)
    verify(k)
    index = np.concatenate([np.arange(-64, 64), [2**31 - 1, -(2**31)] * 16]).astype(np.int32)
    want = np.array(TABLE, dtype.np)[index & 15]
    out = np.zeros(index.size, dtype.np)
    interpret(k, {"index": index, "out": out}, {"n": index.size // lanes})
    np.testing.assert_array_equal(out, want)
    for target in runnable():
        out = np.zeros(index.size, dtype.np)
        Compiled(k, target)({"index": index, "out": out}, {"n": index.size // lanes})
        np.testing.assert_array_equal(out, want, err_msg=target.name)


def test_a_gpu_looks_into_constant_memory() -> None:
    ptx = emit_ptx([kernel(float32, 1, "block")])
    assert ".const" in ptx
    assert ".local" not in ptx


@pytest.mark.parametrize("broken", ["few", "of another type", "no constant", "a wide index"])
def test_a_lookup_takes_16_constants(broken: str) -> None:
    i = Var("i", INDEX, floor=0)
    out = Buffer("out", float32, [4])
    entries = [const(v, type_of(float32)) for v in TABLE]
    index = const(3, type_of(int64 if broken == "a wide index" else int32))
    if broken == "few":
        entries.pop()
    elif broken == "of another type":
        entries[3] = const(1.0, type_of(float64))
    args = (*entries, index)
    if broken == "no constant":
        args = (Load(out, (const_index(0),)), *entries[1:], index)  # type: ignore[assignment]
    body = (For(i, const_index(4), (Store(out, (i,), Call("lookup", args, type_of(float32))),)),)
    assert isinstance(index, Const)
    with pytest.raises(Exception, match="a lookup takes 16 constants"):
        verify(Kernel("look", (out,), (), body))
