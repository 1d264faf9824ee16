"""Powers of integers, exact and wrapping around: squaring, one step per bit of the exponent, without a branch."""

from __future__ import annotations

from jitflow.expr import Expr, Type, Var, const, eq, ne, select
from lowering.loop_ir import Let, Stmt
from lowering.vecmath.builder import Function


def power(of: Type) -> Function:
    """Return ``pow(x, y)`` of integers: products that wrap for y >= 0, else the quotient ``1 / x**-y`` truncated.

    All steps are taken whatever the exponents are: the lanes of a vector have different ones.
    """
    x, y = Var("x", of), Var("y", of)
    body: list[Stmt] = []

    def let(name: str, value: Expr) -> Var:
        var = Var(name, of)
        body.append(Let(var, value))
        return var

    zero, one = const(0, of), const(1, of)
    base = x
    out: Expr = one
    # A sign bit is no part of an exponent >= 0.
    for k in range(of.dtype.bits - of.dtype.is_signed):
        if k:
            base = let("base", base * base)
        out = let("out", select(ne(y & (1 << k), 0), out * base, out))
    if not of.dtype.is_signed:
        return Function("pow", (x, y), tuple(body), out)
    alternating = select(ne(y & 1, 0), x, one)
    fraction = select(eq(x, 1), one, select(eq(x, -1), alternating, zero))
    return Function("pow", (x, y), tuple(body), select(y < 0, fraction, out))
