"""Vector-maths functions by name into arrays of results, as compiled, and of exact values to compare them with."""

from __future__ import annotations

from functools import cache

import mpmath
import numpy as np

from jitflow.dtypes import DType, float32, float64
from jitflow.expr import Buffer, Call, Load, Ramp, Var, type_of
from lowering.loop_ir import For, Kernel, Store
from lowering.target import Target, from_name
from tests.support.compiled import Compiled
from tests.ulp.errors import Array, Exact, errors, exact_values, from_f64

__all__ = ["Array", "Exact", "apply", "errors", "exact", "from_f64", "kernel"]


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


def exact(name: str, *xs: Array) -> Exact:
    """Return mpmath's values of the function."""
    return exact_values(getattr(mpmath, {"pow": "power"}.get(name, name)), *xs)
