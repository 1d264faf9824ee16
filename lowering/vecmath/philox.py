"""Philox4x32-10, the counter-based generator, as expressions: counter and key in, half of the 128 random bits out.

The definition is that of J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11). Words of 32 bits
are kept in lanes of 64, since every round multiplies two of them to 64 bits.
"""

from __future__ import annotations

from jitflow.dtypes import uint64
from jitflow.errors import CompilerBug
from jitflow.expr import Expr, Type, Var
from lowering.loop_ir import Let, Stmt
from lowering.vecmath.builder import Function

#: Words 0 and 1 of the result, and words 2 and 3.
NAMES = ("philox_low", "philox_high")

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
#: What the key's words grow by from round to round: the golden ratio and the square root of 3, less one.
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_WORD = 0xFFFFFFFF


def define(name: str, of: Type) -> Function:
    """Return function `name` of counter words 0 and 1, counter words 2 and 3, and the key, each as one u64."""
    if of.dtype is not uint64:
        raise CompilerBug(f"{name} is defined for u64, not for {of}")
    low, high, key = Var("low", of), Var("high", of), Var("key", of)
    body: list[Stmt] = []

    def let(label: str, value: Expr) -> Var:
        var = Var(label, of)
        body.append(Let(var, value))
        return var

    c0, c1, c2, c3 = let("c0", low & _WORD), let("c1", low >> 32), let("c2", high & _WORD), let("c3", high >> 32)
    k0, k1 = let("k0", key & _WORD), let("k1", key >> 32)
    for n in range(_ROUNDS):
        if n:
            k0, k1 = let("k0", (k0 + _WEYL[0]) & _WORD), let("k1", (k1 + _WEYL[1]) & _WORD)
        p, q = let("p", c0 * _MULTIPLIERS[0]), let("q", c2 * _MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            let("c0", (q >> 32) ^ c1 ^ k0),
            let("c1", q & _WORD),
            let("c2", (p >> 32) ^ c3 ^ k1),
            let("c3", p & _WORD),
        )
    first, second = (c0, c1) if name == "philox_low" else (c2, c3)
    return Function(name, (low, high, key), tuple(body), first | (second << 32))
