"""Running folds along an axis: cumulative_sum, cumulative_prod, cumulative_max, cumulative_min, logcumsumexp.

Element k of the result is the fold of elements 0 .. k, one by one in this order: the order is part of the meaning. The
gradients are linear recurrences, ``y[k] = a[k] * y[k - 1] + b[k]``, run from the other end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, float32, float64, int32
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import Binary, Expr, as_index, compare, const_index
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op, located, make_constant
from jitflow.kernel import KernelBuilder, Memory
from jitflow.ops.axes import as_flag, check_axis, normalize_axis
from jitflow.ops.broadcast import broadcast_to, sum_dtype
from jitflow.ops.cast import as_dtype_of, as_float, as_numbers, check_kinds, checked_dtype
from jitflow.ops.compare import equal_op, greater_equal_op, less_equal_op, not_equal_op
from jitflow.ops.elementwise import add_op, multiply_op, subtract_op
from jitflow.ops.exponential import exp_op, log_op
from jitflow.ops.fold import FOLDS, identity_of
from jitflow.ops.logic import logical_not
from jitflow.ops.padding import pad_op
from jitflow.ops.selection import where_op
from jitflow.ops.slicing import slice_axes
from jitflow.ops.testdata import FLOATS, NUMBERS, SHAPES, Array, draw, edges
from jitflow.public import public
from jitflow.types import Dim, TensorType, shape_text, unify


def _padded(x: Node, axis: int, before: int, after: int, value: bool | int | float) -> Node:
    widths = tuple((before, after) if k == axis else (0, 0) for k in range(len(x.shape)))
    return pad_op(x, widths=widths, value=value)


def _shifted(x: Node, axis: int, by: int, value: bool | int | float) -> Node:
    """Return `x` moved by one place along `axis`, to higher subscripts if `by` is 1 and to lower ones if it is -1.

    `value` moves in at the end.
    """
    padded = _padded(x, axis, int(by > 0), int(by < 0), value)
    return slice_axes(padded, {axis: (int(by < 0), x.shape[axis], 1)})


def _place(k: Expr | int, n: Dim, reverse: bool) -> Expr:
    """Return the subscript of step `k` along an axis of size `n`, which is walked from its end if `reverse`."""
    return as_index(n) - 1 - as_index(k) if reverse else as_index(k)


# ---- scan


def _infer_scan(x: TensorType, *, op: str, axis: int, reverse: bool = False) -> TensorType:
    if op not in FOLDS:
        raise GraphError(f"scan: op must be one of {', '.join(FOLDS)}, got {op!r}")
    check_axis("scan", axis, x.shape)
    check_kinds("scan", x.dtype, "if")
    return x


def _kernel_scan(b: KernelBuilder, out: Memory, x: Memory, *, op: str, axis: int, reverse: bool = False) -> None:
    """Along the last axis a row keeps its total in a register; else its columns go along together."""
    shape = x.type.shape
    before, n, after = shape[:axis], shape[axis], shape[axis + 1 :]
    first = _place(0, n, reverse)
    with b.rows(*before, columns=after) as i, b.if_(compare("lt", const_index(0), as_index(n))):
        if after:
            with b.columns() as j:
                b.store(out, (*i, first, *j), x(*i, first, *j))
            with b.loop("k", as_index(n) - 1) as k, b.columns() as j:
                last, here = (*i, _place(k, n, reverse), *j), (*i, _place(k + 1, n, reverse), *j)
                b.store(out, here, Binary(op, out(*last), x(*here)))
        else:
            total = b.variable("total", x.type.dtype, x(*i, first))
            b.store(out, (*i, first), total.get())
            with b.loop("k", as_index(n) - 1) as k:
                here = (*i, _place(k + 1, n, reverse))
                total.set(Binary(op, total.get(), x(*here)))
                b.store(out, here, total.get())


def _numpy_scan(x: Array, *, op: str, axis: int, reverse: bool = False) -> Any:
    out = x.copy()
    lines, results = (np.moveaxis(a, axis, 0)[:: -1 if reverse else 1] for a in (x, out))
    for k in range(1, x.shape[axis]):
        results[k] = FOLDS[op](results[k - 1], lines[k])
    return out


def _vjp_scan(ct: Node, out: Node, x: Node, *, op: str, axis: int, reverse: bool = False) -> tuple[Node | None]:
    back = -1 if reverse else 1
    if op == "add":
        return (scan_op(ct, op="add", axis=axis, reverse=not reverse),)
    if op == "mul":
        # x[j] takes part in all products from j on. Without dividing by it, which may be zero: what comes before it,
        # times what follows, which is ct[j] + x[j+1] * (ct[j+1] + x[j+2] * ...).
        follows = recurrence_op(_shifted(x, axis, -back, 0), ct, axis=axis, reverse=not reverse)
        return (multiply_op(_shifted(out, axis, back, 1), follows),)
    # An extremum goes back to the element that set it: the last one, up to there, that was better than those before it.
    before = _shifted(out, axis, back, 0)
    no_better = (greater_equal_op if op == "max" else less_equal_op)(before, x)
    holds = where_op(not_equal_op(before, before), make_constant(True, bool_), no_better)
    is_later = _shifted(broadcast_to(make_constant(True, bool_), x.shape), axis, back, False)
    is_new = logical_not(where_op(is_later, holds, make_constant(False, bool_)))
    zero, one = make_constant(0, ct.dtype), make_constant(1, ct.dtype)
    goes_on = where_op(_shifted(is_new, axis, -back, True), zero, one)
    shares = recurrence_op(broadcast_to(goes_on, ct.shape), ct, axis=axis, reverse=not reverse)
    return (where_op(is_new, shares, zero),)


def _samples_scan(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in SHAPES:
        for axis in range(len(shape)):
            for op in FOLDS:
                yield Sample((draw(rng, float64, *shape),), {"op": op, "axis": axis, "reverse": op == "mul"})
    for op in FOLDS:
        x = draw(rng, float64, 5, 4)
        x[1, :2] = x[3, 1:] = 0  # products of none, one and two zeros; extrema that are met again
        yield Sample((x,), {"op": op, "axis": 0}, smooth=op in ("add", "mul"))
    for dtype in NUMBERS:
        for op in FOLDS:
            yield Sample((draw(rng, dtype, 3, 17),), {"op": op, "axis": 0}, smooth=False)
            yield Sample((edges(dtype),), {"op": op, "axis": 0, "reverse": dtype.bits == 32}, smooth=False)
    yield Sample((draw(rng, float32, 2),), {"op": "add", "axis": 1}, ShapeError, r"axis 1 is out of range for \(2,\)")
    yield Sample((draw(rng, float32, 2),), {"op": "or", "axis": 0}, GraphError, "op must be one of add, mul")
    yield Sample((draw(rng, bool_, 2),), {"op": "add", "axis": 0}, DTypeError, "not bool")


#: `reverse` folds from the end of the axis.
scan_op: OpDef = define_op(
    "scan",
    infer=_infer_scan,
    kernel=_kernel_scan,
    numpy=_numpy_scan,
    vjp=_vjp_scan,
    samples=_samples_scan,
    exact=True,
)


# ---- recurrence


def _infer_recurrence(a: TensorType, b: TensorType, *, axis: int, reverse: bool = False) -> TensorType:
    what = f"recurrence of {shape_text(a.shape)} and {shape_text(b.shape)}"
    if a.dtype is not b.dtype or not a.dtype.is_float:
        raise DTypeError(f"recurrence takes two tensors of one float dtype, not {a.dtype} and {b.dtype}")
    if a.rank != b.rank:
        raise ShapeError(f"{what}: both must have the same rank")
    check_axis("recurrence", axis, b.shape)
    pairs = enumerate(zip(a.shape, b.shape, strict=True))
    return TensorType(b.dtype, tuple(unify(n, m, f"{what}: axis {k}") for k, (n, m) in pairs))


def _kernel_recurrence(
    b: KernelBuilder, out: Memory, factor: Memory, term: Memory, *, axis: int, reverse: bool = False
) -> None:
    shape = out.type.shape
    before, n, after = shape[:axis], shape[axis], shape[axis + 1 :]
    first = _place(0, n, reverse)
    with b.rows(*before, columns=after) as i, b.if_(compare("lt", const_index(0), as_index(n))):
        if after:
            with b.columns() as j:
                b.store(out, (*i, first, *j), term(*i, first, *j))
            with b.loop("k", as_index(n) - 1) as k, b.columns() as j:
                last, here = (*i, _place(k, n, reverse), *j), (*i, _place(k + 1, n, reverse), *j)
                b.store(out, here, factor(*here) * out(*last) + term(*here))
        else:
            total = b.variable("total", out.type.dtype, term(*i, first))
            b.store(out, (*i, first), total.get())
            with b.loop("k", as_index(n) - 1) as k:
                here = (*i, _place(k + 1, n, reverse))
                total.set(factor(*here) * total.get() + term(*here))
                b.store(out, here, total.get())


def _numpy_recurrence(a: Array, b: Array, *, axis: int, reverse: bool = False) -> Any:
    out = b.copy()
    factors, terms, results = (np.moveaxis(m, axis, 0)[:: -1 if reverse else 1] for m in (a, b, out))
    for k in range(1, b.shape[axis]):
        results[k] = factors[k] * results[k - 1] + terms[k]
    return out


def _vjp_recurrence(
    ct: Node, out: Node, a: Node, b: Node, *, axis: int, reverse: bool = False
) -> tuple[Node | None, Node | None]:
    back = -1 if reverse else 1
    share = recurrence_op(_shifted(a, axis, -back, 0), ct, axis=axis, reverse=not reverse)
    return multiply_op(share, _shifted(out, axis, back, 0)), share


def _samples_recurrence(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in SHAPES:
        for axis in range(len(shape)):
            for reverse in (False, True):
                inputs = draw(rng, float64, *shape), draw(rng, float64, *shape)
                yield Sample(inputs, {"axis": axis, "reverse": reverse})
    for dtype in FLOATS:
        e = edges(dtype)
        yield Sample((np.roll(e, 5), e), {"axis": 0}, smooth=False)
        yield Sample((draw(rng, dtype, 5, 3), draw(rng, dtype, 5, 3)), {"axis": 0}, smooth=False)
    x, k = draw(rng, float32, 2, 3), draw(rng, int32, 2, 3)
    yield Sample((x, x), {"axis": 2}, ShapeError, r"recurrence: axis 2 is out of range for \(2, 3\)")
    yield Sample((x, x[:1]), {"axis": 0}, ShapeError, r"recurrence of \(2, 3\) and \(1, 3\): axis 0: 2 and 1 differ")
    yield Sample((x, x[0]), {"axis": 0}, ShapeError, "same rank")
    yield Sample((k, k), {"axis": 0}, DTypeError, "one float dtype, not int32 and int32")
    yield Sample((x, x.astype(np.float64)), {"axis": 0}, DTypeError, "not float32 and float64")


#: ``y[k] = a[k] * y[k - 1] + b[k]`` along `axis` from ``y[0] = b[0]``, each operation rounded; `reverse`: from the end.
recurrence_op: OpDef = define_op(
    "recurrence",
    infer=_infer_recurrence,
    kernel=_kernel_recurrence,
    numpy=_numpy_recurrence,
    vjp=_vjp_recurrence,
    samples=_samples_recurrence,
    exact=True,
)


# ---- logcumsumexp


def _infer_logcumsumexp(x: TensorType, *, axis: int) -> TensorType:
    check_kinds("logcumsumexp", x.dtype, "f")
    check_axis("logcumsumexp", axis, x.shape)
    return x


def _expand_logcumsumexp(x: Node, *, axis: int) -> Node:
    """Sums of exponentials relative to the greatest so far, scaled down whenever that grows: nothing overflows."""
    zero, least = make_constant(0, x.dtype), make_constant(-math.inf, x.dtype)
    top = scan_op(x, op="max", axis=axis)
    is_finite = equal_op(subtract_op(top, top), zero)  # false for infinities and NaN
    base = where_op(is_finite, top, zero)
    before = _shifted(top, axis, 1, -math.inf)
    shrink = where_op(equal_op(before, least), zero, exp_op(subtract_op(_shifted(base, axis, 1, 0), base)))
    total = recurrence_op(shrink, exp_op(subtract_op(x, base)), axis=axis)
    return add_op(base, log_op(total))


def _numpy_logcumsumexp(x: Array, *, axis: int) -> Any:
    if x.shape[axis] == 0:
        return x
    return np.logaddexp.accumulate(x.astype(np.float64), axis=axis).astype(x.dtype)


def _vjp_logcumsumexp(ct: Node, out: Node, x: Node, *, axis: int) -> tuple[Node]:
    """Each share is exp(x - out): summed from the end relative to the result there, which only grows."""
    zero, least = make_constant(0, ct.dtype), make_constant(-math.inf, ct.dtype)
    is_least = equal_op(out, least)
    step = where_op(is_least, zero, exp_op(subtract_op(out, _shifted(out, axis, -1, 0))))
    total = recurrence_op(step, ct, axis=axis, reverse=True)
    return (multiply_op(total, where_op(is_least, zero, exp_op(subtract_op(x, out)))),)


def _samples_logcumsumexp(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in SHAPES:
        for axis in range(len(shape)):
            yield Sample((draw(rng, float64, *shape),), {"axis": axis})
    for dtype in FLOATS:
        yield Sample((draw(rng, dtype, 3, 40),), {"axis": 1}, smooth=False)
        far = np.array([-np.inf, -np.inf, -60.0, -np.inf, 70.0, 71.0, -300.0, np.inf, 5.0, np.nan, 1.0], dtype.np)
        yield Sample((far,), {"axis": 0}, smooth=False)
        yield Sample((far[:7],), {"axis": 0}, smooth=False)
    yield Sample((draw(rng, int32, 2),), {"axis": 0}, DTypeError, "logcumsumexp takes floats, not int32")
    yield Sample((draw(rng, float32, 2),), {"axis": 1}, ShapeError, r"axis 1 is out of range for \(2,\)")


logcumsumexp_op: OpDef = define_op(
    "logcumsumexp",
    infer=_infer_logcumsumexp,
    expand=_expand_logcumsumexp,
    numpy=_numpy_logcumsumexp,
    vjp=_vjp_logcumsumexp,
    samples=_samples_logcumsumexp,
)


# ---- what users call


def _axis_of(x: Node, axis: int | None, what: str) -> int:
    rank = len(x.shape)
    if axis is None:
        if rank == 1:
            return 0
        raise located(ShapeError(f"{what}: axis is needed, since x has shape {shape_text(x.shape)}"))
    return normalize_axis(axis, rank, what)


def _accumulated(x: Node, dtype: Any, what: str) -> Node:
    """Return `x` in the dtype of its running sums: that of its sum, unless given."""
    if dtype is None:
        return as_dtype_of(x, sum_dtype(x.dtype))
    to = checked_dtype(dtype)
    if to.is_bool:
        raise located(DTypeError(f"{what}: the result cannot be bool"))
    return as_dtype_of(x, to)


def _extremes(x: Operand, op: str, axis: int | None) -> Node:
    name = f"cumulative_{op}"
    node = as_numbers(x, name)
    return scan_op(node, op=op, axis=_axis_of(node, axis, name))


def _summed(x: Operand, op: str, axis: int | None, dtype: Any, include_initial: bool, what: str) -> Node:
    """Return the running sums or products of `x`, behind that of no elements if `include_initial`."""
    node = as_node(x)
    k = _axis_of(node, axis, what)
    terms = _accumulated(node, dtype, what)
    out = scan_op(terms, op=op, axis=k)
    if not as_flag(include_initial, f"{what}: include_initial"):
        return out
    return _padded(out, k, 1, 0, identity_of(op, terms.dtype))


@public()
def cumulative_sum(x: Operand, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Node:
    """Return the running sums along `axis`: element k is the sum of elements 0 .. k, added in this order.

    Parameters
    ----------
    x
        Any tensor. Bool and signed integers are summed as int64, unsigned ones as uint64, and wrap around.
    axis
        The axis; it may be left out for a vector.
    dtype
        The dtype to add in and of the result.
    include_initial
        Whether a 0 comes first, so that the result has one element more along `axis`.

    Raises
    ------
    ShapeError
        If `axis` is missing for a tensor of another rank than 1.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cumulative_sum(jf.constant([1, 2, 3]), include_initial=True), {})
    array([0, 1, 3, 6])
    """
    return _summed(x, "add", axis, dtype, include_initial, "cumulative_sum")


@public()
def cumulative_prod(
    x: Operand, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Node:
    """Return the running products along `axis`: element k is the product of elements 0 .. k.

    Arguments as for `cumulative_sum`; the initial element is 1. The gradient is right at zeros too.

    Raises
    ------
    ShapeError
        If `axis` is missing for a tensor of another rank than 1.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cumulative_prod(jf.constant([1, 2, 3])), {})
    array([1, 2, 6])
    """
    return _summed(x, "mul", axis, dtype, include_initial, "cumulative_prod")


@public()
def cumulative_max(x: Operand, /, *, axis: int | None = None) -> Node:
    """Return the running maxima along `axis`: element k is the greatest of elements 0 .. k, NaN after a NaN.

    The gradient goes to the first of equal elements.

    Parameters
    ----------
    x
        A tensor of integers or floats.
    axis
        The axis; it may be left out for a vector.

    Raises
    ------
    DTypeError
        For a tensor of bool.
    ShapeError
        If `axis` is missing for a tensor of another rank than 1.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cumulative_max(jf.constant([1, 3, 2])), {})
    array([1, 3, 3])
    """
    return _extremes(x, "max", axis)


@public()
def cumulative_min(x: Operand, /, *, axis: int | None = None) -> Node:
    """Return the running minima along `axis`: element k is the least of elements 0 .. k, NaN after a NaN.

    Arguments as for `cumulative_max`.

    Raises
    ------
    DTypeError
        For a tensor of bool.
    ShapeError
        If `axis` is missing for a tensor of another rank than 1.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cumulative_min(jf.constant([2, 3, 1])), {})
    array([2, 2, 1])
    """
    return _extremes(x, "min", axis)


@public()
def logcumsumexp(x: Operand, /, *, axis: int | None = None) -> Node:
    """Return the logarithms of the running sums of ``exp(x)`` along `axis`, without overflow.

    Integers and bool are taken as float64; arguments as for `cumulative_max`.

    Raises
    ------
    ShapeError
        If `axis` is missing for a tensor of another rank than 1.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logcumsumexp(jf.constant([1000.0, -1000.0])), {})
    array([1000., 1000.])
    """
    node = as_float(x)
    return logcumsumexp_op(node, axis=_axis_of(node, axis, "logcumsumexp"))
