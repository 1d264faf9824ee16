"""A kernel in, a rough estimate of its work in picoseconds out: an expression of the kernel's dims.

It serves to cut work into pieces, and to tell which is worth sharing. It is meant to be right within a factor of three
for arrays that fit the second cache. Operations and accesses to memory count for each 64 bytes, whatever the target's
vectors, and a mathematical function as what it consists of. What cannot be known counts as something plausible: a loop
whose extent depends on what the arrays hold runs once for each of their elements, but of several, one inside the
other, only the outermost.
"""

from __future__ import annotations

import functools
from operator import mul
from typing import NamedTuple

from jitflow.expr import (
    INDEX,
    Binary,
    Buffer,
    Call,
    Const,
    Expr,
    Load,
    Ramp,
    Select,
    Splat,
    Type,
    Unary,
    Var,
    as_index,
    const_index,
    maximum,
    minimum,
    substitute,
)
from jitflow.record import children
from jitflow.simplify import from_poly, poly_of, same_index, simplify_index
from lowering.loop_ir import Atomic, Body, CallKernel, For, If, Kernel, Let, Stmt, Store, While, statements
from lowering.vecmath import FUNCTIONS, define

#: Picoseconds: of an operation, an access to memory, a division (of integers: for each lane), a gathered lane (when
#: it misses the caches it takes ten times as long, or more), the end of an iteration, the call of a microkernel.
_OPERATION, _ACCESS, _DIVISION, _LANE, _ITERATION, _CALL = 200, 400, 3000, 800, 400, 5000
#: The widest vectors, in bytes.
_VECTOR = 64
#: Iterations of a ``while`` loop.
_WHILE = 8
#: Terms of an estimate: a loop that was split along several axes has hundreds of parts, each with a size of its own.
MOST_TERMS = 60
_ONE: Expr = const_index(1)
#: A mathematical function that is not one of `lowering.vecmath`.
_FUNCTION = 10 * _OPERATION


class _Extent(NamedTuple):
    """What an index stands for; whether it differs between iterations, and whether it depends on what arrays hold.

    `is_shared`: whether it differs between the iterations of the parallel loop.
    """

    value: Expr
    varies: bool = False
    is_unknown: bool = False
    is_shared: bool = False


class Costs:
    """The estimates of one kernel's statements.

    Where a constant bounds an extent they take the constant, so that what is short for certain is known to be.
    `exact` ones do not: they follow the dims. Those of `many` iterations of the parallel loop do, but suppose that it
    has more than one, so that all but the last are of whole tiles.
    """

    def __init__(self, kernel: Kernel, *, exact: bool = False, many: bool = False) -> None:
        self._exact = exact or many
        self._many = many
        self._callees = {k.name: k for k in kernel.callees}
        #: What index variables stand for: those of loops, for a value in the middle.
        self._values = {d: _Extent(d) for d in kernel.dims}
        #: What they are in the first iterations of all loops.
        self._first: dict[Var, Expr] = {d: d for d in kernel.dims}
        self._known: dict[int, Expr] = {}
        self._in_unknown = False
        self._unknown = _Extent(_elements(kernel), True, True)
        for s in statements(kernel.body):
            if isinstance(s, Let) and s.var.type is INDEX:
                self._values[s.var] = self._estimate(s.value)
                if self._exact:
                    self._first[s.var] = self._at_first(s.value)
            elif isinstance(s, For):
                extent = self._estimate(s.extent)
                middle = simplify_index(extent.value // 2)
                self._values[s.var] = _Extent(middle, True, extent.is_unknown, s.kind == "parallel")
                self._first[s.var] = const_index(0)

    def extent(self, loop: For) -> Expr:
        """Return the iterations of `loop`."""
        return self._estimate(loop.extent).value

    def iteration(self, loop: For) -> Expr:
        """Return the work of an iteration of `loop`."""
        return simplify_index(self.body(loop.body) + _ITERATION)

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
        return _with_few_terms(rest + known)

    def _statement(self, s: Stmt) -> Expr:
        # By identity: the statements of a kernel live as long as it does.
        found = self._known.get(id(s))
        if found is None:
            found = self._known[id(s)] = self._work(s)
        return found

    def _work(self, s: Stmt) -> Expr:
        match s:
            case Let(_, value):
                return const_index(_operations(value))
            case For():
                return self._loop(s)
            case While(cond, body):
                return simplify_index((self.body(body) + (_operations(cond) + _ITERATION)) * _WHILE)
            case If(cond, then, otherwise):
                return simplify_index(self.body(then) + self.body(otherwise) + _operations(cond))
            case CallKernel(name, _, _, args):
                callee = self._callees[name]
                given = (self._estimate(a).value for a in args)
                return simplify_index(substitute(_work_of(callee), dict(zip(callee.dims, given, strict=True))))
            case Store(buffer, _, value, _, _) if buffer.space != "register":
                return const_index(_operations(value) + _ACCESS * _parts(value.type))
            case _:
                count = sum(_operations(e) for e in children(s) if isinstance(e, Expr))
                return const_index(count + _ACCESS * isinstance(s, Atomic))

    def _loop(self, s: For) -> Expr:
        extent = self._estimate(s.extent)
        count = const_index(1) if extent.is_unknown and self._in_unknown else extent.value
        outside = self._in_unknown
        self._in_unknown = outside or extent.is_unknown
        body = self.body(s.body)
        self._in_unknown = outside
        return simplify_index(count * (body + _ITERATION))

    def _estimate(self, e: Expr) -> _Extent:
        """Return what index expression `e` is in terms of the dims."""
        match e:
            case Const():
                return _Extent(e)
            case Var():
                return self._values.get(e, self._unknown)
            case Binary(op, x, y):
                return self._binary(op, x, y)
            case Select(_, a, _):
                return self._estimate(a)
            case Call("lead"):
                return _Extent(const_index(0))  # less than a vector
            case _:
                return self._unknown

    def _binary(self, op: str, x: Expr, y: Expr) -> _Extent:
        a, b = self._estimate(x), self._estimate(y)
        varies, shared = a.varies or b.varies, a.is_shared or b.is_shared
        match op, a.value, b.value:
            case "min", _, _ if a.varies is not b.varies:
                # The length of a tile: what bounds it, rather than what is left for the last one.
                fixed, other = (b, x) if a.varies else (a, y)
                if not self._exact or (self._many and shared):
                    return fixed
                return _Extent(simplify_index(minimum(fixed.value, self._at_first(other))))
            case ("min", Const() as c, _) | ("min", _, Const() as c) if not self._exact:
                return _Extent(c, varies)
            case "mod", _, Const(d):
                return _Extent(const_index(int(d) - 1), varies)
            case "sub", _, Binary("mul", Binary("floordiv", whole, Const(c)), Const(d)):
                if c == d and same_index(a.value, whole):  # what is left when whole vectors are done
                    return _Extent(const_index(int(c) - 1), varies)
            case "floordiv", _, Binary("max", Binary("floordiv", _, Const() as c), Const()) | Binary(
                "max", Const(), Binary("floordiv", _, Const() as c)
            ) if not self._exact:
                return _Extent(c, varies)  # cut evenly into as many pieces as there would be of c
            case _:
                pass
        unknown = a.is_unknown or b.is_unknown
        make = {"min": minimum, "max": maximum}.get(op)
        value = make(a.value, b.value) if make else Binary(op, a.value, b.value)
        return _Extent(simplify_index(value), varies, unknown, shared)

    def _at_first(self, e: Expr) -> Expr:
        """Return what index expression `e` is in the first iterations of all loops."""
        match e:
            case Const():
                return e
            case Var():
                return self._first.get(e, self._unknown.value)
            case Binary(op, x, y):
                a, b = self._at_first(x), self._at_first(y)
                make = {"min": minimum, "max": maximum}.get(op)
                return simplify_index(make(a, b) if make else Binary(op, a, b))
            case Select(_, a, _):
                return self._at_first(a)
            case Call("lead"):
                return const_index(0)
            case _:
                return self._unknown.value


def _with_few_terms(work: Expr) -> Expr:
    """Return `work` in canonical form, of too many terms those of the highest degrees and factors."""
    terms = poly_of(work)
    if len(terms) <= MOST_TERMS:
        return simplify_index(work)
    most = sorted(terms.items(), key=lambda term: (len(term[0]), abs(term[1])), reverse=True)[:MOST_TERMS]
    return from_poly(dict(most))


def iterations_within(nanoseconds: int, work: Expr) -> Expr:
    """Return how many iterations of `work` each take about so long: at least one."""
    limit = const_index(1000 * nanoseconds)
    return simplify_index(maximum(const_index(1), limit // maximum(const_index(1), work)))


def work_within(nanoseconds: int, iterations: Expr) -> Expr:
    """Return the work of one of `iterations`, which :func:`iterations_within` has given."""
    match iterations:
        case Binary("max", Const(), Binary("floordiv", _, work)) | Binary("max", Binary("floordiv", _, work), Const()):
            return work
        case _:
            return simplify_index(const_index(1000 * nanoseconds) // iterations)


def _elements(kernel: Kernel) -> Expr:
    """Return the elements of the largest buffer of `kernel` for one iteration of its parallel loop."""
    sizes = dict.fromkeys(simplify_index(functools.reduce(mul, map(as_index, b.shape), _ONE)) for b in kernel.params)
    formulas = [e for e in sizes if not isinstance(e, Const)]
    largest = functools.reduce(maximum, formulas or sizes, _ONE)
    last = kernel.body[-1] if kernel.body else None
    if isinstance(last, For) and last.kind == "parallel":
        largest = largest // maximum(_ONE, last.extent)
    return simplify_index(maximum(_ONE, largest))


_MICROKERNELS: dict[int, tuple[Kernel, Expr]] = {}


def _work_of(callee: Kernel) -> Expr:
    """Return the work of a call of `callee`, a microkernel: one of the few that `lowering.pipeline` keeps for good."""
    found = _MICROKERNELS.get(id(callee))
    if found is None or found[0] is not callee:
        found = _MICROKERNELS[id(callee)] = callee, Costs(callee).body(callee.body) + _CALL
    return found[1]


def _parts(of: Type) -> int:
    """Return how many of the widest vectors a value of type `of` takes."""
    return max(1, of.lanes * of.dtype.itemsize // _VECTOR)


def _operations(e: Expr) -> int:
    """Return the work of evaluating `e`. Addresses do not count: most are computed outside the loop."""
    total, stack = 0, [e]
    while stack:
        x = stack.pop()
        match x:
            case Const() | Var():
                continue
            case Load(buffer, index, _):
                total += _load(buffer, index, x.type)
                continue
            case Call(name, args):
                total += _function(name, x.type, len(args))
            case Binary("floordiv" | "mod", _, _) if x.type.dtype.is_integer and x.type is not INDEX:
                total += _DIVISION * x.type.lanes
            case Binary("div" | "floordiv" | "mod", _, _) | Unary("sqrt", _) if x.type is not INDEX:
                total += _DIVISION * _parts(x.type)
            case Splat():
                pass
            case _ if x.type.dtype is not INDEX.dtype:
                total += _OPERATION * _parts(x.type)
            case _:
                continue
        stack += children(x)
    return total


def _load(buffer: Buffer, index: tuple[Expr, ...], of: Type) -> int:
    if of.lanes > 1 and not (index and isinstance(index[-1], Ramp)):
        return _LANE * of.lanes
    return 0 if buffer.space == "register" else _ACCESS * _parts(of)


@functools.cache
def _function(name: str, of: Type, n_args: int) -> int:
    """Return the work of a mathematical function: of what it consists of, but for branches, which are rarely taken."""
    if name not in FUNCTIONS:
        return _FUNCTION * _parts(of)
    function = define(name, of)
    always = tuple(s for s in function.body if isinstance(s, Let))
    return sum(_operations(s.value) for s in always) + _operations(function.result)
