"""Tensor types: a dtype and a shape whose dims may be symbolic; broadcasting and equality of dims.

A dim is an ``int`` or a canonical index expression (`jitflow.simplify`) over named dims. Where a rule needs two dims to
be equal and that cannot be decided, it records a :class:`Guard`, checked at run time before anything is written.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jitflow.dtypes import DType
from jitflow.errors import LimitError, ShapeError
from jitflow.expr import INDEX, Binary, Const, Expr, Var, as_index, minimum
from jitflow.fork import after_fork_in_child
from jitflow.simplify import is_nonnegative, known_sign, same_index, simplify_index

Dim: TypeAlias = int | Expr
Shape: TypeAlias = tuple[Dim, ...]

#: More axes than numpy accepts (64) would only be usable half of the way.
MAX_RANK = 64
#: Sizes that follow from sizes (slices of slices) are formulas; over this, compiling them takes longer than running.
MAX_DIM_TERMS = 400
#: Element counts stay below this, so that byte sizes fit 64 bits.
MAX_ELEMENTS = 1 << 60

_DIMS: dict[str, Var] = {}
_LOCK = threading.Lock()
_fresh = iter(range(1 << 62))


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.Lock()


after_fork_in_child(_renew_lock)


class Guard(NamedTuple):
    """`left` must equal `right` at run time; `why` says what for, `is_index` that it is an index."""

    left: Dim
    right: Dim
    why: str
    is_index: bool = False


class TensorType(NamedTuple):
    """The static type of a tensor."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype.short}[{', '.join(dim_text(d) for d in self.shape)}]"


def named_dim(name: str) -> Var:
    """Return the symbolic dim called `name`: the same object everywhere."""
    hit = _DIMS.get(name)
    if hit is None:
        if not name.isidentifier():
            raise ShapeError(f"{name!r} cannot name a dim; a dim's name is an identifier such as 'batch'")
        with _LOCK:
            hit = _DIMS.setdefault(name, Var(name, INDEX, floor=0))
    return hit


def fresh_dim() -> Var:
    """Return a symbolic dim that equals no other."""
    name = f"_{next(_fresh)}"
    while name in _DIMS:  # someone has called a dim so
        name = f"_{next(_fresh)}"
    return named_dim(name)


def as_dim(d: Any) -> Dim:
    """Return `d` as a dim: a non-negative int, a name (one dim per name), None (a fresh dim), or an expression."""
    if isinstance(d, bool):
        raise ShapeError(f"{d!r} is no dim")
    if isinstance(d, int):
        if d < 0:
            raise ShapeError(f"a dim cannot be negative, got {d}")
        if d > MAX_ELEMENTS:
            raise ShapeError(f"dim {d} is too large: at most 2**60 elements")
        return d
    if isinstance(d, str):
        return named_dim(d)
    if d is None:
        return fresh_dim()
    if isinstance(d, SymDim):
        d = d.expr
    if isinstance(d, Expr) and d.type is INDEX:
        return as_dim(d.value) if isinstance(d, Const) else fold_dim(simplify_index(d))
    if hasattr(d, "__index__"):
        try:
            return as_dim(operator.index(d))
        except TypeError:  # an array of more than one number, or of floats
            pass
    raise ShapeError(f"{d!r} is no dim; use an int, a name, None or an expression of dims")


def as_shape(shape: Any) -> Shape:
    """Return `shape` (one dim or a sequence of them) as a checked Shape."""
    if isinstance(shape, (int, str, Expr, SymDim)) or shape is None:
        shape = (shape,)
    if hasattr(type(shape), "__array_namespace__") and not isinstance(shape, np.ndarray | np.generic):
        raise ShapeError(f"{shape!r} is no shape; use a tuple of dims")  # a Tensor of 2**40 rows has as many items
    try:
        items = tuple(shape)
    except TypeError:
        if not hasattr(shape, "__index__"):
            raise ShapeError(f"{shape!r} is no shape; use a tuple of dims") from None
        items = (shape,)
    return check_shape(tuple(as_dim(d) for d in items))


def check_shape(shape: Shape) -> Shape:
    """Return `shape` if its rank and its element count can be represented; ShapeError or LimitError otherwise."""
    if len(shape) > MAX_RANK:
        raise LimitError(f"rank {len(shape)} is over the limit of {MAX_RANK} axes")
    count = 1
    for d in shape:
        if isinstance(d, int):
            count *= max(d, 1)
    if count > MAX_ELEMENTS:
        raise ShapeError(f"shape {shape_text(shape)} has {count} elements, over the limit of 2**60")
    if guards_all():
        for d in shape:
            if not is_valid_dim(d):
                guard_zero(minimum(as_index(d), 0), f"dim {dim_text(d)} must not be negative")
    return shape


def fold_dim(d: Dim) -> Dim:
    """Return `d` with a literal as int; a dim proven negative is a ShapeError."""
    if isinstance(d, Const):
        d = int(d.value)
    if isinstance(d, int):
        if d < 0:
            raise ShapeError(f"a dim cannot be negative, got {d}")
        return d
    if _is_larger_than(d, MAX_DIM_TERMS):
        raise LimitError(f"the size of a dim has become a formula of over {MAX_DIM_TERMS} terms")
    if known_sign(d) == -1:
        raise ShapeError(f"a dim cannot be negative, got {dim_text(d)}")
    return d


def _is_larger_than(e: Expr, limit: int) -> bool:
    stack: list[Any] = [e]
    count = 0
    while stack and count <= limit:
        count += 1
        stack.extend(stack.pop()._children())
    return count > limit


def dim_of(e: Expr) -> Dim:
    """Return index expression `e` as a dim: a literal as int."""
    return int(e.value) if isinstance(e, Const) else e


def add_dims(*dims: Dim) -> Dim:
    """Return the sum of `dims`."""
    total: Dim = 0
    for d in dims:
        total = total + d if isinstance(total, int) and isinstance(d, int) else as_index(total) + d
    return total if isinstance(total, int) else fold_dim(simplify_index(total))


def mul_dims(*dims: Dim) -> Dim:
    """Return the product of `dims`."""
    number, product = 1, None
    for d in dims:
        if isinstance(d, int):
            number *= d
        else:
            product = d if product is None else product * d
    if product is None or number == 0:
        return number
    return fold_dim(simplify_index(product * number))


def element_count(shape: Iterable[Dim]) -> Dim:
    """Return the number of elements of `shape`."""
    return mul_dims(*shape)


def same_dim(a: Dim, b: Dim) -> bool | None:
    """Tell whether two dims are equal for all values (True), for none (False), or undecided (None)."""
    return same_index(a, b)


def same_shape(a: Shape, b: Shape) -> bool:
    """Tell whether two shapes are equal for all values of their dims."""
    return len(a) == len(b) and all(same_dim(x, y) is True for x, y in zip(a, b, strict=True))


# ---- guards

_collector = threading.local()


def begin_guards() -> list[Guard] | None:
    """Start collecting guards on this thread; return what was being collected, for :func:`end_guards`."""
    outer: list[Guard] | None = getattr(_collector, "guards", None)
    _collector.guards = []
    return outer


def end_guards(outer: list[Guard] | None) -> tuple[Guard, ...]:
    """Stop collecting, restore `outer`, and return the guards recorded since :func:`begin_guards`."""
    found: list[Guard] = _collector.guards
    _collector.guards = outer
    return tuple(found)


def unify(a: Dim, b: Dim, why: str, is_index: bool = False) -> Dim:
    """Return the dim that `a` and `b` both are; record a guard if that is undecided. ShapeError if they differ."""
    same = same_dim(a, b)
    if same is True:
        return a if isinstance(a, int) or not isinstance(b, int) else b
    if same is False:
        raise ShapeError(f"{why}: {dim_text(a)} and {dim_text(b)} differ")
    guards = getattr(_collector, "guards", None)
    if guards is not None:
        guards.append(Guard(a, b, why, is_index))
    # The literal says more than the name, and the older name is as good as the younger.
    return b if isinstance(b, int) else a


@contextmanager
def guarding_all() -> Iterator[None]:
    """Have rules guard, in this block, what the functions of operators see to: their attributes come from a text."""
    outer = guards_all()
    _collector.all = True
    try:
        yield
    finally:
        _collector.all = outer


def guards_all() -> bool:
    """Tell whether rules must not rely on what the functions of operators see to."""
    return getattr(_collector, "all", False)


def guard_zero(e: Expr, why: str) -> None:
    """Record that `e` must be zero at run time, unless that is proven; ShapeError if it never is."""
    unify(dim_of(simplify_index(e)), 0, why)


def broadcast_shapes(shapes: Sequence[Shape], what: str) -> Shape:
    """Return the shape that `shapes` broadcast to by numpy's rule.

    A dim stretches only if it is the literal 1: a symbolic dim never silently broadcasts. ShapeError names all shapes.
    """
    first = shapes[0]
    if all(s is first or s == first for s in shapes):
        return first
    rank = max(len(s) for s in shapes)
    out: list[Dim] = []
    for k in range(rank):
        dim: Dim = 1
        for s in shapes:
            at = k - (rank - len(s))
            if at < 0 or s[at] == 1:
                continue
            d = s[at]
            if dim == 1:
                dim = d
                continue
            same = same_dim(dim, d)
            if same is True:
                continue
            listed = " and ".join(shape_text(t) for t in shapes)
            if same is False:
                raise ShapeError(f"{what}: shapes {listed} do not broadcast")
            dim = unify(dim, d, f"{what}: axis {k - rank} of {listed}")
        out.append(dim)
    return check_shape(tuple(out))


# ---- what users see


class SymDim:
    """A symbolic dim as users meet it in ``x.shape``: arithmetic gives dims again, ``==`` compares.

    ``str(dim)`` is its name or formula. ``==`` is True for a dim that is equal for all values, and for the name itself.
    It has no value before a run, so ``int(dim)`` and ``bool(dim)`` raise TypeError.
    """

    __slots__ = ("expr",)

    def __init__(self, expr: Expr) -> None:
        self.expr = expr

    def __repr__(self) -> str:
        return dim_text(self.expr)

    def __hash__(self) -> int:
        return hash(dim_text(self.expr))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SymDim):
            return same_dim(self.expr, other.expr) is True
        if isinstance(other, str):
            return isinstance(self.expr, Var) and self.expr.name == other
        return False

    def __bool__(self) -> bool:
        raise TypeError(f"dim {self} is symbolic: it has no truth value before a run")

    def __int__(self) -> int:
        raise TypeError(f"dim {self} is symbolic: it has no value before a run")

    def _combine(self, op: str, other: Any, swap: bool = False) -> Any:
        try:
            b = as_index(other if isinstance(other, int) and not isinstance(other, bool) else as_dim(other))
        except ShapeError:
            return NotImplemented
        x, y = (b, self.expr) if swap else (self.expr, b)
        return public_dim(fold_dim(simplify_index(Binary(op, x, y))))

    def __add__(self, other: Any) -> Any:
        return self._combine("add", other)

    def __radd__(self, other: Any) -> Any:
        return self._combine("add", other, swap=True)

    def __sub__(self, other: Any) -> Any:
        return self._combine("sub", other)

    def __rsub__(self, other: Any) -> Any:
        return self._combine("sub", other, swap=True)

    def __mul__(self, other: Any) -> Any:
        return self._combine("mul", other)

    def __rmul__(self, other: Any) -> Any:
        return self._combine("mul", other, swap=True)

    def __floordiv__(self, other: Any) -> Any:
        return self._combine("floordiv", other)

    def __mod__(self, other: Any) -> Any:
        return self._combine("mod", other)


def public_dim(d: Dim) -> int | SymDim:
    """Return `d` as users see it."""
    return d if isinstance(d, int) else SymDim(d)


_SIGNS = {"add": " + ", "sub": " - ", "mul": "*", "floordiv": "//", "mod": "%"}
_STRENGTH = {"add": 1, "sub": 1, "mul": 2, "floordiv": 2, "mod": 2}


def dim_text(d: Dim) -> str:
    """Return `d` as text that a graph's parser reads back (``2*n + 1``)."""
    return str(d) if isinstance(d, int) else _expr_text(d, 0)


def _expr_text(e: Expr, outer: int) -> str:
    if isinstance(e, Const):
        return str(e.value)
    if isinstance(e, Var):
        return e.name
    if not isinstance(e, Binary):
        return repr(e)
    if e.op in ("min", "max"):
        return f"{e.op}({_expr_text(e.a, 0)}, {_expr_text(e.b, 0)})"
    mine = _STRENGTH[e.op]
    text = _expr_text(e.a, mine) + _SIGNS[e.op] + _expr_text(e.b, mine + 1)
    return f"({text})" if mine < outer else text


def shape_text(shape: Sequence[Dim]) -> str:
    """Return `shape` as a tuple's text: ``(batch, 64)``."""
    inner = ", ".join(dim_text(d) for d in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def is_valid_dim(d: Dim) -> bool:
    """Tell whether `d` is proven not to be negative."""
    return d >= 0 if isinstance(d, int) else is_nonnegative(d)
