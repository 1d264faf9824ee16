"""Measures the error of the vector-maths functions in ULP, as compiled, against mpmath or f64 arithmetic.

``python -m tests.support.ulp exp tanh --every 1`` tries every f32 there is (half a minute to minutes a function);
``--target x86-64-v2`` measures the definitions without fused multiply-add.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import mpmath
import numpy as np

from jitflow.dtypes import DType, float32, float64
from jitflow.expr import Buffer, Call, Load, Ramp, Var, type_of
from lowering.loop_ir import For, Kernel, Store
from lowering.target import Target, from_name
from tests.support.compiled import Compiled

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

#: Bits of mpmath's arithmetic: enough for the nearest f64 and what is left of the exact value after it.
_PRECISION = 140


def kernel(name: str, arity: int, dtype: DType, lanes: int) -> Kernel:
    """Return ``out[:] = name(x, y...)`` over arrays of n vectors of `lanes`."""
    n, i = Var("n"), Var("i")
    buffers = [Buffer(b, dtype, (n * lanes,)) for b in ("x", "y", "z")[:arity]]
    out = Buffer("out", dtype, (n * lanes,))
    at = i * lanes if lanes == 1 else Ramp(i * lanes, 1, lanes)
    value = Call(name, tuple(Load(b, (at,)) for b in buffers), type_of(dtype, lanes))
    body = (For(i, n, (Store(out, (at,), value),)),)
    return Kernel(f"apply_{name}", (*buffers, out), (n,), body, frozenset(buffers))


@cache
def _compiled(name: str, arity: int, dtype: DType, target: Target, lanes: int) -> Compiled:
    return Compiled(kernel(name, arity, dtype, lanes), target)


def apply(name: str, *xs: Array, target: Target | None = None, lanes: int | None = None) -> Array:
    """Return the compiled function `name` of arrays of one dtype, by default in vectors that fill a register."""
    target = target or from_name("host")
    dtype = float32 if xs[0].dtype == np.float32 else float64
    lanes = lanes or target.lanes(dtype)
    n = -(-xs[0].size // lanes)
    padded = [np.ones(n * lanes, x.dtype) for x in xs]
    for p, x in zip(padded, xs, strict=True):
        p[: x.size] = x.ravel()
    out = np.empty_like(padded[0])
    _compiled(name, len(xs), dtype, target, lanes)(dict(zip("xyz", padded, strict=False)) | {"out": out}, {"n": n})
    return out[: xs[0].size].reshape(xs[0].shape)


class Exact(NamedTuple):
    """Reference values ``(high + low) * 2**exponent`` with 1/2 <= |high| <= 1, or high in 0, inf, nan."""

    high: Array
    low: Array
    exponent: Array


def exact(name: str, *xs: Array) -> Exact:
    """Return mpmath's values of the function."""
    f = getattr(mpmath, {"pow": "power"}.get(name, name))
    high, low, exponent = np.empty(xs[0].size), np.zeros(xs[0].size), np.zeros(xs[0].size, np.int64)
    with mpmath.workprec(_PRECISION):
        for i, point in enumerate(zip(*(x.ravel().tolist() for x in xs), strict=True)):
            fraction, exponent[i] = mpmath.frexp(f(*(mpmath.mpf(v) for v in point)))
            high[i] = float(fraction)
            low[i] = float(fraction - mpmath.mpf(high[i]))
    return Exact(high, low, exponent)


def from_f64(value: Array) -> Exact:
    """Return f64 values as reference for f32."""
    high, exponent = np.frexp(value)
    return Exact(high, np.zeros_like(high), exponent.astype(np.int64))


def errors(got: Array, value: Exact) -> Array:
    """Return the distance from the exact values in units of their last place, infinite where the kind differs.

    An infinite result counts as the first power of two that is too large, since this is where it is rounded to.
    """
    digits, least, beyond = (24, -149, 128) if got.dtype == np.float32 else (53, -1074, 1024)
    high, low, exponent = value
    with np.errstate(all="ignore"):
        unit = np.ldexp(1.0, np.maximum(-digits, np.clip(least - exponent, -digits, 1000)))
        fraction, power = np.frexp(np.where(np.isinf(got), np.sign(got), got.astype(np.float64)))
        power = np.where(np.isinf(got), beyond + 1, power)
        scaled = np.ldexp(fraction, np.clip(power - exponent, -1000, 1000))
        error = abs((scaled - high) - low) / unit
        is_right = (got == high) | (np.isnan(got) & np.isnan(high))
        overflow = np.isinf(got) & (np.sign(got) == np.sign(high)) & (exponent > beyond)
    special = ~np.isfinite(high) | (high == 0)
    error = np.where(special, np.where(is_right, 0.0, np.inf), np.where(overflow, 0.0, error))
    return np.where(np.isnan(error), np.inf, error)


_WIDE: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "erf": lambda x: np.fromiter(map(math.erf, x.tolist()), np.float64, x.size),
}


def scan(name: str, *, every: int = 1, target: Target | None = None) -> tuple[float, float]:
    """Return the largest error of f32 function `name` in ULP, and where, over every n-th bit pattern."""
    worst, where = 0.0, math.nan
    block = 1 << 22
    for start in range(0, 1 << 32, block * every):
        bits = np.arange(start, min(start + block * every, 1 << 32), every, dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
        with np.errstate(all="ignore"):
            value = from_f64(_WIDE[name](x.astype(np.float64)))
        error = errors(apply(name, x, target=target), value)
        i = int(error.argmax())
        if error[i] > worst:
            worst, where = float(error[i]), float(x[i])
    return worst, where


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(_WIDE))
    parser.add_argument("--every", type=int, default=1, help="try every n-th bit pattern (default: all)")
    parser.add_argument("--target", default="host", help="what to compile for")
    args = parser.parse_args()
    for name in args.names:
        worst, where = scan(name, every=args.every, target=from_name(args.target))
        print(f"{name} f32 on {args.target}: {worst:.3f} ULP at {where!r}", flush=True)


if __name__ == "__main__":
    _main()
