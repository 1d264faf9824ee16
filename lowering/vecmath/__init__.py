"""Vector maths: the name of a function and a type in, its definition as expressions of `jitflow.expr` out.

``Call("exp", (x,), x.type)`` in a kernel means ``define("exp", x.type)``: the emitter makes one inlined LLVM function
of it, the loop interpreter evaluates it. There is no libm and no LLVM maths intrinsic behind it: only the arithmetic
of `jitflow.expr`, for any number of lanes, so one text serves every CPU and the GPU and gives the same bits in all of
them (with ``fma=False``, for x86-64-v2, other but always the same bits).

`lowering/ACCURACY.md` lists the errors in ULP, for f32 of one argument over all 2^32 numbers; ``python -m tests.ulp``
measures them. In f32 they are at most 1 with fused multiply-add (tan, atan2, pow: 2) and little more
without. Two are exact: floormod and floordiv give the bits of numpy's remainder and floor_divide. philox_low and
philox_high are random bits of u64 counters and keys (`philox`).

Special values are those of the C standard (NaN stays NaN, odd functions keep -0.0, pow(1, NaN) = pow(NaN, 0) = 1);
results underflow gradually; sin, cos and tan are right for every finite argument. What is rare (their huge arguments,
subnormal and special ones of logarithms and powers, long quotients) stands in an ``If`` or ``While`` on ``any(mask)``
or ``all(mask)``, its values in a buffer of space ``register``.

The order of operations is what makes the errors small, so nothing here survives fast-math.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from jitflow.errors import CompilerBug
from jitflow.expr import Expr, Type, Var
from lowering.vecmath import (
    error_function,
    exponential,
    hyperbolic,
    integer,
    inverse,
    logarithm,
    philox,
    power,
    remainder,
    roots,
    trigonometric,
)
from lowering.vecmath.builder import Builder, Function, emulate_fma

__all__ = ["FUNCTIONS", "Function", "define", "emulate_fma"]

_UNARY: dict[str, Callable[[Builder, Var], Expr]] = {
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "sigmoid": exponential.sigmoid,
    "log": logarithm.log,
    "log2": logarithm.log2,
    "log10": logarithm.log10,
    "log1p": logarithm.log1p,
    "cbrt": roots.cbrt,
    "rsqrt": roots.rsqrt,
    "erf": error_function.erf,
    "sin": trigonometric.sin,
    "cos": trigonometric.cos,
    "tan": trigonometric.tan,
    "asin": inverse.asin,
    "acos": inverse.acos,
    "atan": inverse.atan,
    "sinh": hyperbolic.sinh,
    "cosh": hyperbolic.cosh,
    "tanh": hyperbolic.tanh,
    "asinh": hyperbolic.asinh,
    "acosh": hyperbolic.acosh,
    "atanh": hyperbolic.atanh,
}

_BINARY: dict[str, Callable[[Builder, Var, Var], Expr]] = {
    "pow": power.power,
    "hypot": roots.hypot,
    "logaddexp": logarithm.logaddexp,
    "atan2": inverse.atan2,
    "floormod": remainder.floormod,
    "floordiv": remainder.floordiv,
}

#: The names that `define` knows.
FUNCTIONS = frozenset(_UNARY) | frozenset(_BINARY)


@cache
def define(name: str, of: Type, *, fma: bool = True) -> Function:
    """Return function `name` on values of type `of`, f32 or f64 (``pow``: integers too) with any number of lanes.

    With ``fma=False`` it holds no ``Fma``, for targets without the instruction.
    """
    if name in philox.NAMES:
        return philox.define(name, of)
    if name not in FUNCTIONS:
        raise CompilerBug(f"no function is called {name!r}; known are {', '.join(sorted(FUNCTIONS))}")
    if name == "pow" and of.dtype.is_integer:
        return integer.power(of)
    b = Builder(of, fma=fma)
    x, y = Var("x", of), Var("y", of)
    if name in _UNARY:
        result = _UNARY[name](b, x)
        return Function(name, (x,), tuple(b.body), result)
    result = _BINARY[name](b, x, y)
    return Function(name, (x, y), tuple(b.body), result)
