"""Conversions between all dtypes, compiled for each level of x86-64 and by the loop interpreter, to the last bit.

Expected values come from numpy where it converts directly, and otherwise from the definition: the nearest of all finite
values of the type, found among them in extended precision, which holds every float64, int64 and uint64.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import ALL, DType, bfloat16, float16, float64, int64, uint64
from jitflow.ops.testdata import edges
from lowering.interp import interpret
from lowering.text import parse_kernel
from tests.support.bits import equal_bits, same_bits

TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
WIDE = np.longdouble


@functools.cache
def halves(dtype: DType) -> np.ndarray:
    """Return the finite values of a 16-bit type that are not negative, in order, and infinity as the next power."""
    infinity = 0x7C00 if dtype is float16 else 0x7F80
    values = np.arange(infinity, dtype=np.uint16).view(dtype.np).astype(WIDE)
    return np.append(values, WIDE(2) ** (16 if dtype is float16 else 128))


def nearest_half(x: np.ndarray, dtype: DType) -> np.ndarray:
    table, size = halves(dtype), np.abs(x.astype(WIDE))
    middles = (table[1:] + table[:-1]) / 2
    above = np.searchsorted(middles, size, side="right")
    below = np.searchsorted(middles, size, side="left")
    bits = np.where(above % 2 == 0, above, below)  # of the two sides of a tie the even one
    bits = np.where(np.isnan(size), 0x7FFF, bits) | np.where(np.signbit(x.astype(WIDE)), 0x8000, 0)
    return bits.astype(np.uint16).view(dtype.np)


def expected(x: np.ndarray, source: DType, to: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        if to.is_half:
            return nearest_half(x, to)
        number = x.astype(np.float32) if source.is_half else x
        if to.is_bool:
            return number != 0
        if source.is_float and to.is_integer:
            whole = np.trunc(number).astype(WIDE)
            clipped = np.clip(np.where(np.isnan(whole), 0, whole), WIDE(to.min), WIDE(to.max))
            return np.array([int(v) for v in clipped], dtype=to.np)
        return number.astype(to.np)


def inputs(dtype: DType) -> np.ndarray:
    rng = np.random.default_rng(5)
    if dtype.is_half:
        return np.arange(1 << 16, dtype=np.uint16).view(dtype.np)
    if dtype.is_bool:
        return rng.integers(0, 2, 67).astype(bool)
    found = [np.resize(edges(dtype), 67), rng.integers(0, 256, 3000 * dtype.itemsize, np.uint8).view(dtype.np)]
    if dtype.bits >= 32:
        # Ties of halves, and numbers next to them; for integers, as far as they reach.
        for half in (float16, bfloat16):
            table = halves(half)[:: 7 if dtype.is_float else 1]
            middles = (table[1:] + table[:-1]) / 2
            if dtype.is_integer:
                middles = np.floor(middles[middles < WIDE(dtype.max)])
                whole = np.array([int(m) for m in middles if 0 < m < dtype.max], dtype.np)
                found += [whole - 1, whole, whole + 1]
                if dtype.is_signed:
                    found += [-whole - 1, -whole, 1 - whole]
            else:
                near = np.concatenate([middles, -middles]).astype(dtype.np)
                found += [near, np.nextafter(near, np.inf, dtype=dtype.np), np.nextafter(near, 0, dtype=dtype.np)]
    if dtype is float64:
        # Those that float32 takes for a tie.
        middles = found[2][:2000]
        found += [middles * (1 + 2.0**-40), middles * (1 - 2.0**-40)]
    if dtype in (int64, uint64):
        bits = rng.integers(1, 64, 4000)
        found.append(
            (rng.integers(1 << 62, 1 << 63, 4000).astype(np.uint64) >> bits.astype(np.uint64)).astype(dtype.np)
        )
    return np.concatenate(found)


@pytest.mark.parametrize("target", TARGETS)
def test_every_conversion_is_exact(target: str) -> None:
    with jf.config.override(target_cpu=target):
        given = {jf.placeholder(f"x_{d}", d, (None,)): inputs(d) for d in ALL}
        pairs = [(x, to) for x in given for to in ALL if x.dtype is not to]
        fetches = [jf.astype(x, to) for x, to in pairs]
        session = jf.Session(fetches)
    for (x, to), got in zip(pairs, session.run(fetches, given), strict=True):
        want = expected(given[x], x.dtype, to)
        assert_same(got, want, given[x], f"{x.dtype} to {to}")
    for (x, to), got in zip(pairs, jf.interpret(fetches, given), strict=True) if target == TARGETS[0] else ():
        assert_same(got, expected(given[x], x.dtype, to), given[x], f"{x.dtype} to {to} by the oracle")


def assert_same(got: np.ndarray, want: np.ndarray, x: np.ndarray, label: str) -> None:
    if not same_bits(got, want):
        bad = np.flatnonzero(~equal_bits(got, want))[:5]
        raise AssertionError(f"{label}: {x[bad]} became {got[bad]}, not {want[bad]}")


def test_the_loop_interpreter_converts_alike() -> None:
    for source in ALL:
        x = edges(source)
        for to in ALL:
            for lanes in (1, 4):
                got = loop_cast(x, source, to, lanes)
                assert_same(got, expected(x, source, to)[: len(got)], x, f"{source} to {to}, {lanes} lanes")


def loop_cast(x: np.ndarray, source: DType, to: DType, lanes: int) -> np.ndarray:
    """Return `x` converted by a kernel of the loop interpreter."""
    x = x[: len(x) // lanes * lanes] if lanes > 1 else x
    subscript = "i" if lanes == 1 else f"ramp(i * {lanes}, 1, {lanes})"
    kernel = parse_kernel(f"""
kernel k(x: {source.short}[n] read, out: {to.short}[n], n: index):
  serial i in n // {lanes}:
    out[{subscript}] = {to.short}(x[{subscript}])
""")
    out = np.zeros(len(x), to.np)
    interpret(kernel, [x, out])
    return out
