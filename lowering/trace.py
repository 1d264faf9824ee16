"""An operator's element rule at one index, into an expression over *demands* on its inputs; and many of them into Lets.

Element rules never call each other. A reader notes which input is wanted at which subscripts and hands back a fresh
variable; :func:`trace` returns the rule's expression over these variables, with the demands, each under the condition
(of the ``Select``s around it) in which it is needed. :func:`emit_values` follows demands, without recursion, until it
reaches memory or a value that is already known, and writes one ``Let`` per different demand, producers first.

Only conditions on subscripts guard a demand. A condition on data (``where``) does not: both of its arms are valid
everywhere, and loading them unconditionally is cheaper than masking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from jitflow.errors import CompilerBug
from jitflow.expr import (
    INDEX,
    Binary,
    Buffer,
    Call,
    Compare,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    compare,
    const,
    const_index,
    maximum,
    minimum,
    select,
    type_of,
)
from jitflow.graph import Index, Node, constant_op
from jitflow.record import map_children
from jitflow.simplify import Extents, free_vars, simplify_index
from jitflow.types import TensorType
from lowering.loop_ir import CheckIndex, Let, Stmt

Subscripts: TypeAlias = tuple[Expr, ...]
#: A node's element at subscripts: the unit that is demanded, computed and shared.
Element: TypeAlias = tuple[Node, Subscripts]


class Demand(NamedTuple):
    """`var` stands for the element of `node` at subscripts `at`, needed only where `cond` is true (None: always).

    `at` and `cond` may use the variables of earlier demands of the same trace (an index that is data).
    """

    var: Var
    node: Node
    at: Subscripts
    cond: Expr | None


class Traced(NamedTuple):
    """A rule's expression (for reductions, a ``Reduce``) over the variables of its demands."""

    expr: Expr
    demands: tuple[Demand, ...]


class _Recorder:
    """A Reader that notes demands; equal demands share a variable."""

    __slots__ = ("_found", "_node", "type")

    def __init__(self, node: Node, found: dict[Element, Var]) -> None:
        self._node, self._found = node, found
        self.type: TensorType = node.type

    def __call__(self, *subscripts: Expr) -> Expr:
        if len(subscripts) != self.type.rank:
            raise CompilerBug(f"{self._node!r} read with {len(subscripts)} subscripts")
        key = (self._node, tuple(simplify_index(s) for s in subscripts))
        var = self._found.get(key)
        if var is None:
            var = self._found[key] = Var(self._node.op.name, type_of(self.type.dtype))
        return var


def trace(node: Node, index: Subscripts) -> Traced:
    """Return what the element rule of `node` computes at `index`."""
    rule = node.op.element
    if rule is None:
        raise CompilerBug(f"operator {node.op.name!r} has no element rule")
    found: dict[Element, Var] = {}
    readers = [_Recorder(x, found) for x in node.inputs]
    expr = rule(Index(index, node.type), *readers, **dict(node.attrs))
    if expr.type.dtype is not node.dtype:
        raise CompilerBug(f"the element rule of {node.op.name!r} gives {expr.type}, not {node.dtype.short}")
    conds = _conditions(expr, found) if len(found) and _has_select(expr) else {}
    wanted = _wanted(expr, found)
    return Traced(expr, tuple(Demand(var, n, idx, conds.get(var)) for (n, idx), var in found.items() if var in wanted))


def _wanted(expr: Expr, found: Mapping[Element, Var]) -> set[Var]:
    """Return the variables that `expr` needs: not those in an arm that a literal condition has ruled out."""
    wanted = set(free_vars(expr))
    for (_, index), var in reversed(list(found.items())):
        if var in wanted:
            for s in index:
                wanted |= free_vars(s)
    return wanted


def _has_select(e: Any) -> bool:
    return isinstance(e, Select) or any(_has_select(c) for c in e._children())


def _conditions(expr: Expr, found: Mapping[Element, Var]) -> dict[Var, Expr | None]:
    """Return for each demanded variable the condition of the Selects around it; None if needed unconditionally."""
    data = set(found.values())
    conds: dict[Var, Expr | None] = {}

    def note(var: Var, cond: Expr | None) -> None:
        if var not in conds:
            conds[var] = cond
            return
        old = conds[var]
        conds[var] = None if cond is None or old is None else (old if old == cond else Binary("or", old, cond))

    stack: list[tuple[Any, Expr | None]] = [(expr, None)]
    while stack:
        e, cond = stack.pop()
        if isinstance(e, Var):
            if e in data:
                note(e, cond)
        elif isinstance(e, Select) and not (free_vars(e.cond) & data):
            stack.append((e.a, conjoin(cond, e.cond)))
            stack.append((e.b, conjoin(cond, negate(e.cond))))
        else:
            stack.extend((c, cond) for c in e._children())
    # What a subscript is computed from is needed wherever the element is (later demands may use earlier ones).
    for (_, index), var in reversed(list(found.items())):
        for s in index:
            for v in free_vars(s) & data:
                note(v, conds.get(var))
    return conds


def conjoin(a: Expr | None, b: Expr | None) -> Expr | None:
    """Return ``a and b``, None standing for true."""
    if a is None or b is None:
        return b if a is None else a
    return a if a == b else Binary("and", a, b)


_OPPOSITE = {"lt": "ge", "ge": "lt", "le": "gt", "gt": "le", "eq": "ne", "ne": "eq"}


def negate(cond: Expr) -> Expr:
    """Return ``not cond``; a comparison of integers is turned around (of floats that would be wrong at NaN)."""
    if isinstance(cond, Compare) and cond.a.type.dtype.is_integer:
        return Compare(_OPPOSITE[cond.op], cond.a, cond.b)
    return Unary("not", cond)


class Checks(NamedTuple):
    """Where fallible elements report: the kernel's status buffer, and the slot of each fallible node."""

    status: Buffer
    slots: Mapping[Node, int]


class Values(NamedTuple):
    """What :func:`emit_values` needs to know about a kernel.

    - `buffers`: nodes that are read from memory.
    - `extents`: exclusive bounds of the loop variables in scope.
    - `checks`: see :class:`Checks`; None where no member is fallible.
    - `address`: turns the subscripts of a node in memory into those of its buffer (a packed or row-local copy).
    """

    buffers: Mapping[Node, Buffer]
    extents: Extents
    checks: Checks | None = None
    address: Callable[[Node, Subscripts], Subscripts] | None = None


class _Frame:
    """An element whose demands are being worked through."""

    __slots__ = ("cond", "key", "rest", "traced", "values")

    def __init__(self, key: Element, cond: Expr | None, traced: Traced) -> None:
        self.key, self.cond, self.traced = key, cond, traced
        self.rest: Iterator[Demand] = iter(traced.demands)
        self.values: dict[Var, Expr] = {}


class Emitter:
    """Statements under construction: `statements` grows as elements are asked for with :meth:`value`.

    An element asked for twice is computed once. `known` seeds it with elements that have a value already: a
    reduction's result, an accumulator, a value computed by an outer body.
    """

    def __init__(self, values: Values, known: Mapping[Element, Expr] | None = None) -> None:
        self.values = values
        self.statements: list[Stmt] = []
        self._env: dict[Element, list[tuple[Expr | None, Expr]]] = {}
        for (node, index), value in (known or {}).items():
            self.know(node, index, value)

    def know(self, node: Node, index: Subscripts, value: Expr) -> None:
        """Note that the element of `node` at `index` has `value`."""
        self._env.setdefault((node, self.canonical(index)), []).append((None, value))

    def canonical(self, index: Subscripts) -> Subscripts:
        """Return `index` in the form in which elements are compared."""
        extents = self.values.extents
        return tuple(simplify_index(i, extents) for i in index)

    def let(self, name: str, value: Expr) -> Expr:
        """Bind `value` to a new variable and return that; literals and variables stay as they are."""
        return bind(self.statements, name, value)

    def reduce(self, node: Node, index: Subscripts, vars: Sequence[Expr], cond: Expr | None = None) -> tuple[Any, Expr]:
        """Return the ``Reduce`` of `node` at `index` and its body's value, with its variables replaced by `vars`.

        The body is needed only where `cond`; elsewhere its loads give 0. The statements that compute it are appended,
        so this is called inside the loops over `vars`.
        """
        traced = trace(node, self.canonical(index))
        renamed: dict[Var, Expr] = dict(zip(traced.expr.vars, vars, strict=True))  # type: ignore[attr-defined]
        for d in traced.demands:
            need = cond if d.cond is None else conjoin(cond, substitute_all(d.cond, renamed))
            idx = tuple(self._settle(substitute_all(i, renamed), node, cond) for i in d.at)
            renamed[d.var] = self.value(d.node, idx, need)
        body = substitute_all(traced.expr.body, renamed)  # type: ignore[attr-defined]
        return traced.expr, self._settle(body, node, cond)

    def value(self, node: Node, index: Subscripts, cond: Expr | None = None) -> Expr:
        """Return the value of `node` at `index` (needed only where `cond`), appending what computes it."""
        top = (node, self.canonical(index))
        found = self._find(top, cond)
        if found is None:
            found = self._from_memory(top, cond)
        if found is not None:
            return found
        stack = [_Frame(top, cond, trace(*top))]
        while True:
            frame = stack[-1]
            for d in frame.rest:
                extra = None if d.cond is None else substitute_all(d.cond, frame.values)
                need = conjoin(frame.cond, extra)
                owner = frame.key[0]
                # An index is checked wherever the rule is asked for, also where its own Select reads nothing.
                idx = tuple(self._settle(substitute_all(i, frame.values), owner, frame.cond) for i in d.at)
                key = (d.node, self.canonical(idx))
                value = self._find(key, need)
                if value is None:
                    value = self._from_memory(key, need)
                if value is None:
                    stack.append(_Frame(key, need, trace(*key)))
                    # The demand is looked up again once it is there.
                    frame.rest = _chain(d, frame.rest)
                    break
                frame.values[d.var] = value
            else:
                expr = self._settle(substitute_all(frame.traced.expr, frame.values), frame.key[0], frame.cond)
                value = self.let(frame.key[0].op.name, expr)
                self._env.setdefault(frame.key, []).append((frame.cond, value))
                stack.pop()
                if not stack:
                    return value

    def _find(self, key: Element, cond: Expr | None) -> Expr | None:
        for valid, value in self._env.get(key, ()):
            if valid is None or valid == cond:
                return value
        return None

    def _from_memory(self, key: Element, cond: Expr | None) -> Expr | None:
        """Return the element loaded, or as a literal, or None if it has to be computed."""
        node, index = key
        if node not in self.values.buffers:
            literal = literal_of(node)
            return None if literal is None else const(literal, node.dtype)
        address = self.values.address
        load: Expr = Load(self.values.buffers[node], index if address is None else address(node, index))
        if cond is not None:
            load = select(cond, load, const(0, load.type))
        value = self.let(_load_name(node), load)
        self._env.setdefault(key, []).append((cond, value))
        return value

    def _settle(self, e: Expr, node: Node, cond: Expr | None) -> Expr:
        """Return `e` with calls of ``check_index`` replaced by the checked, clamped index."""
        if isinstance(e, (Var, Const)):
            return e
        e = map_children(lambda c: self._settle(c, node, cond), e)
        if isinstance(e, Call) and e.name == "check_index":
            return self._check_index(e, node, cond)
        return e

    def _check_index(self, e: Call, node: Node, cond: Expr | None) -> Expr:
        given, extent, position = e.args
        if self.values.checks is None:
            raise CompilerBug(f"{node!r} is fallible, but its kernel has no status")
        return check_index(self.statements, self.values.checks, node, given, extent, position, cond)


def bind(statements: list[Stmt], name: str, value: Expr) -> Expr:
    """Append a ``Let`` of `value` and return its variable; literals and variables stay as they are."""
    if isinstance(value, (Const, Var)):
        return value
    var = Var(name, value.type)
    statements.append(Let(var, value))
    return var


def check_index(
    statements: list[Stmt],
    checks: Checks,
    node: Node,
    given: Expr,
    extent: Expr,
    position: Expr,
    cond: Expr | None,
) -> Expr:
    """Append the check of an index that is data (where `cond`), and return it wrapped around and clamped."""
    raw = bind(statements, "raw", given)
    zero = const_index(0)
    wrapped = bind(statements, "wrapped", select(compare("lt", raw, zero), raw + extent, raw))
    ok = Binary("and", compare("ge", wrapped, zero), compare("lt", wrapped, extent))
    statements.append(CheckIndex(checks.status, checks.slots[node], ok, position, cond))
    return bind(statements, "safe", maximum(minimum(wrapped, extent - 1), zero))


def literal_of(node: Node) -> int | float | bool | None:
    """Return the value of a constant of one element, which stands in the code itself; None for other nodes."""
    if node.op is not constant_op:
        return None
    array = node.attr("value").array
    return array.item() if array.size == 1 else None


def _chain(first: Demand, rest: Iterator[Demand]) -> Iterator[Demand]:
    yield first
    yield from rest


def _load_name(node: Node) -> str:
    return f"{node.name or node.op.name}"


def substitute_all(e: Expr, values: Mapping[Var, Expr]) -> Expr:
    """Return `e` with variables replaced; index arithmetic is folded on the way."""
    if not values:
        return e

    def go(x: Any) -> Any:
        if isinstance(x, Var):
            return values.get(x, x)
        if isinstance(x, Const):
            return x
        new = map_children(go, x)
        if new is not x and isinstance(new, Binary) and new.type is INDEX:
            return simplify_index(new)
        return new

    return go(e)  # type: ignore[no-any-return]


def flat_index(index: Subscripts, shape: Sequence[Expr | int], extents: Extents | None = None) -> Expr:
    """Return the row-major position of `index` in an array of `shape`, in canonical form."""
    position: Expr = const_index(0)
    for i, d in zip(index, shape, strict=True):
        position = position * d + i
    return simplify_index(position, extents)


def unflatten_index(position: Expr, shape: Sequence[Expr | int], extents: Extents | None = None) -> Subscripts:
    """Return the subscripts in `shape` of row-major `position`."""
    out: list[Expr] = []
    for d in reversed(shape[1:]):
        out.append(simplify_index(position % d, extents))
        position = simplify_index(position // d, extents)
    if shape:
        out.append(simplify_index(position, extents))
    return tuple(reversed(out))
