"""Scalar expressions: the one language for dimensions, subscripts and loop bodies.

An expression is a tree of records, each with a ``type``: a dtype and a number of lanes. Trees are compared by
structure; a ``Var`` and a ``Buffer`` by identity. The semantics, for every back end and interpreter:

- Integers wrap around in their width. ``index`` values are mathematical integers as far as rules are concerned; they
  are 64 bits wide once emitted, and guards on the feeds keep them in range.
- ``floordiv`` and ``mod`` round towards minus infinity; by zero both give 0; MIN // -1 is MIN.
- ``min``/``max`` propagate NaN; of two equal values (-0.0 and 0.0) they give the first operand.
- ``shl``/``shr`` by the width or more give 0 (or all sign bits, for ``shr`` of a signed value).
- Float arithmetic is IEEE, round to nearest even, never contracted; ``Fma`` rounds once. Of float16 and bfloat16 there
  is none: they are loaded, stored, selected and cast.
- ``Cast``: float to int truncates, saturates and sends NaN to 0; int to int wraps; anything to bool is ``!= 0``.
- ``Compare`` with NaN is false, except ``ne``.
- Both arms of ``Select`` may be evaluated, but a ``Load`` in an arm only touches memory where its arm is taken.
- A masked-off lane of a ``Load`` gives 0 and touches no memory. A load out of bounds is a bug of the compiler.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

from jitflow.dtypes import DType, bool_, by_short, index
from jitflow.errors import CompilerBug
from jitflow.record import record, set_slot


class Type:
    """A dtype with a number of lanes (1 is a scalar). One object per pair: compare with ``is``."""

    __slots__ = ("dtype", "lanes")

    def __init__(self, dtype: DType, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes

    def __repr__(self) -> str:
        return self.dtype.short if self.lanes == 1 else f"{self.dtype.short}x{self.lanes}"

    def with_lanes(self, lanes: int) -> Type:
        return type_of(self.dtype, lanes)

    def with_dtype(self, dtype: DType) -> Type:
        return type_of(dtype, self.lanes)


_TYPES: dict[tuple[DType, int], Type] = {}


def type_of(dtype: DType, lanes: int = 1) -> Type:
    """Return the one Type of `dtype` with `lanes`."""
    hit = _TYPES.get((dtype, lanes))
    if hit is None:
        hit = _TYPES.setdefault((dtype, lanes), Type(dtype, lanes))
    return hit


def parse_type(text: str) -> Type | None:
    """Return the type written `text` (``f32``, ``f32x16``), or None."""
    dtype = by_short(text)
    if dtype is not None:
        return type_of(dtype)
    short, x, lanes = text.rpartition("x")
    dtype = by_short(short)
    return type_of(dtype, int(lanes)) if x and dtype is not None and lanes.isdigit() else None


INDEX = type_of(index)
BOOL = type_of(bool_)

Scalar: TypeAlias = "Expr | int | float | bool"
_SERIALS = itertools.count()


class Expr:
    """Base of all expressions. Arithmetic operators build nodes; ``==`` compares structure."""

    __slots__ = ("_hash", "type")
    type: Type

    def __add__(self, other: Scalar) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: Scalar) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: Scalar) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: Scalar) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: Scalar) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: Scalar) -> Expr:
        return binary("mul", other, self)

    def __truediv__(self, other: Scalar) -> Expr:
        return binary("div", self, other)

    def __rtruediv__(self, other: Scalar) -> Expr:
        return binary("div", other, self)

    def __floordiv__(self, other: Scalar) -> Expr:
        return binary("floordiv", self, other)

    def __rfloordiv__(self, other: Scalar) -> Expr:
        return binary("floordiv", other, self)

    def __mod__(self, other: Scalar) -> Expr:
        return binary("mod", self, other)

    def __rmod__(self, other: Scalar) -> Expr:
        return binary("mod", other, self)

    def __and__(self, other: Scalar) -> Expr:
        return binary("and", self, other)

    def __or__(self, other: Scalar) -> Expr:
        return binary("or", self, other)

    def __xor__(self, other: Scalar) -> Expr:
        return binary("xor", self, other)

    def __lshift__(self, other: Scalar) -> Expr:
        return binary("shl", self, other)

    def __rshift__(self, other: Scalar) -> Expr:
        return binary("shr", self, other)

    def __neg__(self) -> Expr:
        return Unary("neg", self)

    def __invert__(self) -> Expr:
        return Unary("not", self)

    def __lt__(self, other: Scalar) -> Expr:
        return compare("lt", self, other)

    def __le__(self, other: Scalar) -> Expr:
        return compare("le", self, other)

    def __gt__(self, other: Scalar) -> Expr:
        return compare("gt", self, other)

    def __ge__(self, other: Scalar) -> Expr:
        return compare("ge", self, other)


def _bits(value: int | float | bool, dtype: DType) -> object:
    if dtype.is_float:
        return struct.pack("<d", value)
    return value


@record
class Const(Expr):
    """A literal. With lanes, every lane holds it. Equal only if the bits are (so -0.0 is not 0.0, and NaN is NaN)."""

    value: int | float | bool
    of: Type

    def __derive__(self) -> None:
        set_slot(self, "type", self.of)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Const)
            and self.of is other.of
            and _bits(self.value, self.of.dtype) == _bits(other.value, self.of.dtype)
        )

    def __hash__(self) -> int:
        return hash(("Const", _bits(self.value, self.of.dtype)))


class Var(Expr):
    """A name bound once: a dim, a loop variable, or the value of a ``Let``. Compared by identity.

    `name` is for display only. `floor` is a lower bound that always holds (0 for dims and loop variables), or None.
    """

    __slots__ = ("floor", "name", "serial")

    def __init__(self, name: str, type: Type = INDEX, floor: int | None = None) -> None:
        self.name, self.type, self.floor = name, type, floor
        #: Orders variables of one name by age, so that canonical forms do not depend on addresses.
        self.serial = next(_SERIALS)

    def __repr__(self) -> str:
        return f"Var({self.name!r})"

    # By identity, and in C: variables are the keys of almost every table of the compiler.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _children(self) -> tuple[Expr, ...]:
        return ()

    def _map_children(self, fn: Any) -> Expr:
        return self


class Buffer:
    """Memory that loops read and write: row-major, compared by identity.

    `space` is ``global`` (an argument of the kernel), ``stack``, ``register`` (indices are constants after
    ``unroll``), ``shared`` (a GPU block's) or ``scratch`` (a worker's part of the arena). `align` is the proven
    alignment of element 0 in bytes.
    """

    __slots__ = ("align", "dtype", "name", "shape", "space")

    def __init__(
        self, name: str, dtype: DType, shape: Sequence[Expr | int], space: str = "global", align: int | None = None
    ) -> None:
        self.name, self.dtype, self.space = name, dtype, space
        self.shape: tuple[Expr | int, ...] = tuple(shape)
        self.align = dtype.itemsize if align is None else align

    def __repr__(self) -> str:
        return f"Buffer({self.name!r}, {self.dtype.short}, {list(self.shape)}, {self.space})"


@record
class Load(Expr):
    """The element of `buffer` at `index`, one subscript per axis.

    A subscript with lanes makes a vector of elements; then `mask` (bool, same lanes) may switch lanes off.
    """

    buffer: Buffer
    index: tuple[Expr, ...]
    mask: Expr | None = None

    def __derive__(self) -> None:
        lanes = 1
        for i in self.index:
            if i.type.lanes > 1:
                lanes = i.type.lanes
        set_slot(self, "type", type_of(self.buffer.dtype, lanes))


@record
class Binary(Expr):
    """``a op b`` for two operands of one type; the result has that type. `op` is one of OPS."""

    op: str
    a: Expr
    b: Expr
    OPS: ClassVar = ("add", "sub", "mul", "div", "floordiv", "mod", "min", "max", "and", "or", "xor", "shl", "shr")

    def __derive__(self) -> None:
        set_slot(self, "type", self.a.type)


@record
class Unary(Expr):
    """``op a``; the result has the type of `a`. ``not`` is bitwise (logical on bool); ``round`` is to even."""

    op: str
    a: Expr
    OPS: ClassVar = ("neg", "not", "abs", "sqrt", "floor", "ceil", "trunc", "round")

    def __derive__(self) -> None:
        set_slot(self, "type", self.a.type)


@record
class Compare(Expr):
    """``a op b`` as bool, lane by lane. `op` is one of lt, le, gt, ge, eq, ne."""

    op: str
    a: Expr
    b: Expr
    OPS: ClassVar = ("lt", "le", "gt", "ge", "eq", "ne")

    def __derive__(self) -> None:
        set_slot(self, "type", self.a.type.with_dtype(bool_))


@record
class Select(Expr):
    """`a` where `cond` is true, else `b`; lane by lane. Guards the loads of its arms."""

    cond: Expr
    a: Expr
    b: Expr

    def __derive__(self) -> None:
        set_slot(self, "type", self.a.type)


@record
class Cast(Expr):
    """The number `a` in another dtype, by the rules at the top."""

    a: Expr
    to: DType

    def __derive__(self) -> None:
        set_slot(self, "type", self.a.type.with_dtype(self.to))


@record
class Bitcast(Expr):
    """The bits of `a` read as another dtype of the same width."""

    a: Expr
    to: DType

    def __derive__(self) -> None:
        set_slot(self, "type", self.a.type.with_dtype(self.to))


@record
class Call(Expr):
    """A pure function of its arguments: a vector-maths intrinsic (``exp``) or a target operation. Lane by lane."""

    name: str
    args: tuple[Expr, ...]
    of: Type

    def __derive__(self) -> None:
        set_slot(self, "type", self.of)


@record
class Fma(Expr):
    """``a * b + c`` rounded once."""

    a: Expr
    b: Expr
    c: Expr

    def __derive__(self) -> None:
        set_slot(self, "type", self.c.type)


@record
class Splat(Expr):
    """The scalar `a` in each of `lanes` lanes."""

    a: Expr
    lanes: int

    def __derive__(self) -> None:
        set_slot(self, "type", self.a.type.with_lanes(self.lanes))


@record
class Ramp(Expr):
    """``base, base + stride, base + 2*stride, ...`` in `lanes` lanes; `base` is a scalar."""

    base: Expr
    stride: int
    lanes: int

    def __derive__(self) -> None:
        set_slot(self, "type", self.base.type.with_lanes(self.lanes))


@record
class Shuffle(Expr):
    """Lanes picked from `a`: lane i of the result is lane ``lanes[i]`` of `a` (or a scalar, for one lane).

    With `b`, both are vectors of one type, and the lanes of `b` are counted on from those of `a`.
    """

    a: Expr
    lanes: tuple[int, ...]
    b: Expr | None = None

    def __derive__(self) -> None:
        set_slot(self, "type", self.a.type.with_lanes(len(self.lanes)))


@record
class Reduce(Expr):
    """`body` folded over `vars` = 0 .. `extents` - 1 by `op`; allowed only at the root of an element rule.

    `op`: ``add mul min max and or``, or ``argmin``/``argmax``, which give the (row-major) int64 position of the first
    best value, a NaN being best. Of no elements: 0, 1, the dtype's max, its min, true, false; argmin/argmax of none
    is refused by shape inference.

    **Order.** With ``lanes == 1`` elements are folded one by one in row-major order of `vars`. Otherwise the
    innermost variable k is dealt to `lanes` accumulators, element k to accumulator ``k % lanes``, each folded in
    increasing order from the identity; the accumulators are then halved (i with i + lanes/2, ...) to one value.
    ``contract`` marks an add of products: chains of Fma over increasing k, starting from 0.
    These orders are part of the meaning: every schedule keeps them.
    """

    op: str
    vars: tuple[Expr, ...]
    extents: tuple[Expr, ...]
    body: Expr
    lanes: int = 1
    contract: bool = False
    OPS: ClassVar = ("add", "mul", "min", "max", "and", "or", "argmin", "argmax")

    def __derive__(self) -> None:
        arg = self.op in ("argmin", "argmax")
        set_slot(self, "type", type_of(by_short("i64") or index) if arg else self.body.type)


def const(value: int | float | bool, type: Type | DType) -> Const:
    """Return the literal `value` in `type`, wrapped or rounded to what the type holds."""
    of = type if isinstance(type, Type) else type_of(type)
    kind = of.dtype.kind
    if kind == "f":
        return Const(round_to(float(value), of.dtype), of)
    if kind == "b":
        return Const(bool(value), of)
    if kind in "iu":
        return Const(wrap(int(value), of.dtype), of)
    return Const(int(value), of)


_SMALL = tuple(Const(i, INDEX) for i in range(-16, 257))


def const_index(value: int) -> Const:
    """Return `value` as an index."""
    return _SMALL[value + 16] if -16 <= value <= 256 else Const(value, INDEX)


def wrap(value: int, dtype: DType) -> int:
    """Return `value` wrapped around into integer type `dtype`."""
    bits = dtype.bits
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value


def round_to(value: float, dtype: DType) -> float:
    """Return the nearest value that float type `dtype` holds, of two the even one."""
    if dtype.bits == 64 or value == 0 or not math.isfinite(value):
        return value
    digits, least, limit = _FLOATS[dtype.short]
    # The distance of neighbours here: that of a number of `digits` bits, but nowhere less than the least subnormal.
    step = max(math.frexp(value)[1] - digits, least)
    size = math.ldexp(round(math.ldexp(abs(value), -step)), step) if abs(value) < limit else math.inf
    return math.copysign(size if size < limit else math.inf, value)


#: Per float type: binary digits, exponent of the least subnormal, the first power of two that is too large.
_FLOATS = {"f16": (11, -24, 2.0**16), "bf16": (8, -133, 2.0**128), "f32": (24, -149, 2.0**128)}


def lift(value: Scalar, like: Expr) -> Expr:
    """Return `value` as an expression of the type of `like` (an expression itself stays)."""
    if isinstance(value, Expr):
        return value
    return const(value, like.type)


def as_index(x: Scalar) -> Expr:
    """Return a dim or Python int as an index expression."""
    if isinstance(x, Expr):
        return x
    return const_index(int(x))


def _pair(a: Scalar, b: Scalar) -> tuple[Expr, Expr]:
    if isinstance(a, Expr):
        b = lift(b, a)
    elif isinstance(b, Expr):
        a = lift(a, b)
    else:
        raise CompilerBug("an expression needs at least one operand that is one")
    if a.type is not b.type:
        raise CompilerBug(f"operands of different types: {a.type} and {b.type}")
    return a, b


def binary(op: str, a: Scalar, b: Scalar) -> Expr:
    """Return ``a op b``, folding index arithmetic on literals and neutral elements."""
    x, y = _pair(a, b)
    if x.type is INDEX:
        folded = _fold_index(op, x, y)
        if folded is not None:
            return folded
    return Binary(op, x, y)


def _fold_index(op: str, a: Expr, b: Expr) -> Expr | None:
    if isinstance(b, Const):
        n = b.value
        if isinstance(a, Const):
            return const_index(_INDEX_OPS[op](a.value, n))
        if n == 0 and op in ("add", "sub"):
            return a
        if n == 1 and op in ("mul", "floordiv"):
            return a
        if (n == 0 and op == "mul") or (n == 1 and op == "mod"):
            return const_index(0)
    elif isinstance(a, Const):
        n = a.value
        if n == 0 and op == "add":
            return b
        if n == 1 and op == "mul":
            return b
        if n == 0 and op in ("mul", "floordiv", "mod"):
            return const_index(0)
    return None


_INDEX_OPS: dict[str, Any] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "min": min,
    "max": max,
}


def fold_index(op: str, a: int, b: int) -> int:
    """Return ``a op b`` of two known indices."""
    return int(_INDEX_OPS[op](a, b))


def compare(op: str, a: Scalar, b: Scalar) -> Expr:
    """Return the comparison ``a op b``."""
    x, y = _pair(a, b)
    if x.type is INDEX and isinstance(x, Const) and isinstance(y, Const):
        p, q = x.value, y.value
        return Const({"lt": p < q, "le": p <= q, "gt": p > q, "ge": p >= q, "eq": p == q, "ne": p != q}[op], BOOL)
    return Compare(op, x, y)


def eq(a: Scalar, b: Scalar) -> Expr:
    """Return ``a == b`` as an expression."""
    return compare("eq", a, b)


def ne(a: Scalar, b: Scalar) -> Expr:
    """Return ``a != b`` as an expression."""
    return compare("ne", a, b)


def minimum(a: Scalar, b: Scalar) -> Expr:
    """Return the lesser of `a` and `b` (NaN if either is)."""
    return binary("min", a, b)


def maximum(a: Scalar, b: Scalar) -> Expr:
    """Return the greater of `a` and `b` (NaN if either is)."""
    return binary("max", a, b)


def select(cond: Expr, a: Scalar, b: Scalar) -> Expr:
    """Return `a` where `cond`, else `b`."""
    x, y = _pair(a, b)
    if isinstance(cond, Const):
        return x if cond.value else y
    return Select(cond, x, y)


def cast(a: Expr, to: DType) -> Expr:
    """Return `a` in dtype `to`; nothing is built when it already is."""
    return a if a.type.dtype is to else Cast(a, to)


def call(name: str, *args: Expr, to: DType | None = None) -> Call:
    """Return a call of intrinsic `name`; its dtype is that of the first argument unless `to` is given."""
    of = args[0].type
    return Call(name, args, of if to is None else of.with_dtype(to))


def substitute(e: Expr, values: dict[Var, Expr]) -> Expr:
    """Return `e` with variables replaced. Nothing is captured, since a Var is bound once."""
    if isinstance(e, Var):
        return values.get(e, e)
    if isinstance(e, Const):
        return e
    if e.type is INDEX and isinstance(e, Binary):
        a, b = substitute(e.a, values), substitute(e.b, values)
        return e if a is e.a and b is e.b else binary(e.op, a, b)
    return e._map_children(lambda c: substitute(c, values))  # type: ignore[attr-defined, no-any-return]
