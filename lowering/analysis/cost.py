"""A kernel in, a rough estimate of its work in nanoseconds out: an expression of the kernel's dims.

It serves to cut work into pieces of about a millisecond, so a factor of ten either way does no harm. Every operation,
on however many lanes, counts as a nanosecond, some as more; what cannot be known counts as something plausible.
"""

from __future__ import annotations

from jitflow.expr import (
    INDEX,
    Binary,
    Call,
    Const,
    Expr,
    Load,
    Ramp,
    Select,
    Splat,
    Var,
    const_index,
    maximum,
    minimum,
    substitute,
)
from jitflow.record import children
from jitflow.simplify import same_index, simplify_index
from lowering.loop_ir import Atomic, Body, CallKernel, For, If, Kernel, Let, Stmt, Store, While, statements

#: Operations that take longer than the others. A gather may miss the caches with every lane.
_CALL, _DIVISION, _LANE_OF_GATHER = 20, 8, 8
#: Extents that depend on what the arrays hold, and iterations of a ``while`` loop.
_UNKNOWN_EXTENT, _WHILE = 1024, 32
_CALL_OF_KERNEL = 5


class Costs:
    """The estimates of one kernel's statements."""

    def __init__(self, kernel: Kernel) -> None:
        self._callees = {k.name: k for k in kernel.callees}
        # What each index variable stands for, and whether that is only a value in the middle of many.
        self._values: dict[Var, tuple[Expr, bool]] = {d: (d, False) for d in kernel.dims}
        self._known: dict[int, Expr] = {}
        for s in statements(kernel.body):
            if isinstance(s, Let) and s.var.type is INDEX:
                self._values[s.var] = self._estimate(s.value)
            elif isinstance(s, For):
                self._values[s.var] = simplify_index(self.extent(s) // 2), True

    def extent(self, loop: For) -> Expr:
        """Return the iterations of `loop`."""
        return self._estimate(loop.extent)[0]

    def body(self, body: Body) -> Expr:
        """Return the work of statements that run one after another."""
        known = 0
        rest: Expr = const_index(0)
        for s in body:
            work = self._statement(s)
            # Added up apart: as one expression a long body would be a deep one.
            if isinstance(work, Const):
                known += int(work.value)
            else:
                rest = rest + work
        return simplify_index(rest + known)

    def _statement(self, s: Stmt) -> Expr:
        # By identity: the statements of a kernel live as long as it does.
        found = self._known.get(id(s))
        if found is None:
            found = self._known[id(s)] = self._work(s)
        return found

    def _work(self, s: Stmt) -> Expr:
        match s:
            case For():
                return simplify_index(self.extent(s) * (self.body(s.body) + 1))
            case While(cond, body):
                return simplify_index((self.body(body) + _operations(cond)) * _WHILE)
            case If(cond, then, otherwise):
                return simplify_index(self.body(then) + self.body(otherwise) + _operations(cond))
            case CallKernel(name, _, _, args):
                callee = self._callees[name]
                given = (self._estimate(a)[0] for a in args)
                return simplify_index(substitute(_work_of(callee), dict(zip(callee.dims, given, strict=True))))
            case _:
                count = sum(_operations(e) for e in children(s) if isinstance(e, Expr))
                return const_index(count + _is_traffic(s))

    def _estimate(self, e: Expr) -> tuple[Expr, bool]:
        """Return index expression `e` in terms of the dims, and whether it differs between iterations.

        Where it is bounded by a constant, the constant says enough.
        """
        match e:
            case Const():
                return e, False
            case Var():
                return self._values.get(e, (const_index(_UNKNOWN_EXTENT), True))
            case Binary(op, x, y):
                (a, a_varies), (b, b_varies) = self._estimate(x), self._estimate(y)
                varies = a_varies or b_varies
                match op, a, b:
                    case "min", _, _ if a_varies is not b_varies:
                        # The length of a tile: what bounds it, rather than what is left for the last one.
                        return (b if a_varies else a), False
                    case ("min", Const() as c, _) | ("min", _, Const() as c):
                        return c, varies
                    case "mod", _, Const():
                        return const_index(int(b.value) - 1), varies
                    case "sub", _, Binary("mul", Binary("floordiv", whole, Const() as c), Const() as d):
                        if c == d and same_index(a, whole):  # what is left when whole vectors are done
                            return const_index(int(c.value) - 1), varies
                    case "floordiv", _, Binary("max", Binary("floordiv", _, Const() as c), Const()) | Binary(
                        "max", Const(), Binary("floordiv", _, Const() as c)
                    ):
                        return c, varies  # cut evenly into as many pieces as there would be of c
                    case _:
                        pass
                make = {"min": minimum, "max": maximum}.get(op)
                return simplify_index(make(a, b) if make else Binary(op, a, b)), varies
            case Select(_, a, _):
                return self._estimate(a)
            case _:
                return const_index(_UNKNOWN_EXTENT), True


_MICROKERNELS: dict[int, tuple[Kernel, Expr]] = {}


def _work_of(callee: Kernel) -> Expr:
    """Return the work of a call of `callee`, a microkernel: one of the few that `lowering.pipeline` keeps for good."""
    found = _MICROKERNELS.get(id(callee))
    if found is None or found[0] is not callee:
        found = _MICROKERNELS[id(callee)] = callee, Costs(callee).body(callee.body) + _CALL_OF_KERNEL
    return found[1]


def iterations_within(limit: int, work: Expr) -> Expr:
    """Return how many iterations of `work` each take about `limit`: at least one."""
    return simplify_index(maximum(const_index(1), const_index(limit) // maximum(const_index(1), work)))


def _operations(e: Expr) -> int:
    """Return the work of evaluating `e`. Addresses do not count: most are computed outside the loop."""
    total, stack = 0, [e]
    while stack:
        x = stack.pop()
        match x:
            case Const() | Var():
                continue
            case Load(_, index, _):
                is_gather = x.type.lanes > 1 and not (index and isinstance(index[-1], Ramp))
                total += _LANE_OF_GATHER * x.type.lanes if is_gather else _is_traffic(x)
                continue
            case Call():
                total += _CALL
            case Binary("div" | "floordiv" | "mod", _, _) if x.type is not INDEX:
                total += _DIVISION
            case Splat():
                pass
            case _ if x.type.dtype is not INDEX.dtype:
                total += 1
            case _:
                continue
        stack += children(x)
    return total


def _is_traffic(x: object) -> bool:
    """Tell whether `x` loads or stores what is not a register."""
    return isinstance(x, (Load, Store, Atomic)) and x.buffer.space != "register"
