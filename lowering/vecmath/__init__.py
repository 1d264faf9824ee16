"""Vector maths: the name of a function and a type in, its definition as expressions of `jitflow.expr` out.

``Call("exp", (x,), x.type)`` in a kernel means ``define("exp", x.type)``: the emitter makes one inlined LLVM function
of it, the loop interpreter evaluates it. There is no libm and no LLVM maths intrinsic behind it: only the arithmetic
of `jitflow.expr`, for any number of lanes, so one text serves every CPU and the GPU and gives the same bits in all of
them (with ``fma=False``, for x86-64-v2, other but always the same bits).

No statement may rely on fast-math: the order of operations is what makes the errors small.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from jitflow.errors import CompilerBug
from jitflow.expr import Expr, Type, Var
from lowering.vecmath import exponential, trigonometric
from lowering.vecmath.builder import Builder, Function, emulate_fma

__all__ = ["FUNCTIONS", "Function", "define", "emulate_fma"]

_UNARY: dict[str, Callable[[Builder, Var], Expr]] = {
    "exp": exponential.exp,
    "log": exponential.log,
    "tanh": exponential.tanh,
    "erf": exponential.erf,
    "sin": trigonometric.sin,
    "cos": trigonometric.cos,
}

#: The names that `define` knows.
FUNCTIONS = frozenset(_UNARY)


@cache
def define(name: str, of: Type, *, fma: bool = True) -> Function:
    """Return function `name` on values of type `of`, f32 or f64 with any number of lanes.

    With ``fma=False`` it holds no ``Fma``, for targets without the instruction.
    """
    if name not in FUNCTIONS:
        raise CompilerBug(f"no function is called {name!r}; known are {', '.join(sorted(FUNCTIONS))}")
    b = Builder(of, fma=fma)
    x = Var("x", of)
    result = _UNARY[name](b, x)
    return Function(name, (x,), tuple(b.body), result)
