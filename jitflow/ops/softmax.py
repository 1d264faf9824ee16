"""softmax, log_softmax and logsumexp: exponentials along an axis, shifted by their greatest so that none overflows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import float32, float64
from jitflow.errors import DTypeError, ShapeError
from jitflow.graph import Node, OpDef, Operand, Sample, define_op
from jitflow.ops.axes import check_axis, normalize_axis
from jitflow.ops.broadcast import check_axes, kept_shape, reduce_over, reduce_sum_op, reduced_shape, spread
from jitflow.ops.cast import as_float, check_kinds
from jitflow.ops.compare import equal_op, isfinite
from jitflow.ops.elementwise import add_op, divide_op, in_double, multiply_op, subtract_op
from jitflow.ops.exponential import exp_op, log_op
from jitflow.ops.maths import number
from jitflow.ops.movement import reshape_op
from jitflow.ops.reduce import reduce_max_op
from jitflow.ops.selection import where_op
from jitflow.ops.testdata import FLOATS, SHAPES, Array, draw, edges
from jitflow.public import public
from jitflow.types import TensorType


def _infer_along(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, axis: int) -> TensorType:
        check_axis(name, axis, x.shape)
        check_kinds(name, x.dtype, "f")
        return x

    return infer


def _shifted(x: Node, axis: int) -> Node:
    """Return `x` less its greatest element along `axis`, so that exp cannot overflow."""
    greatest = reduce_max_op(x, axes=(axis,), allow_empty=True)
    return subtract_op(x, reshape_op(greatest, shape=kept_shape(x.shape, (axis,))))


def _total(x: Node, axis: int) -> Node:
    return reshape_op(reduce_sum_op(x, axes=(axis,), dtype=x.dtype), shape=kept_shape(x.shape, (axis,)))


def _expand_softmax(x: Node, *, axis: int) -> Node:
    """One division per row: the sum is at least 1, so its reciprocal is a normal number."""
    e = exp_op(_shifted(x, axis))
    return multiply_op(e, divide_op(number(1, x), _total(e, axis)))


def _expand_log_softmax(x: Node, *, axis: int) -> Node:
    s = _shifted(x, axis)
    return subtract_op(s, log_op(_total(exp_op(s), axis)))


def _numpy_softmax(x: Array, *, axis: int) -> Any:
    e = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=axis, keepdims=True)


def _numpy_log_softmax(x: Array, *, axis: int) -> Any:
    s = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    return s - np.log(np.exp(s).sum(axis=axis, keepdims=True))


def _vjp_softmax(ct: Node, out: Node, x: Node, *, axis: int) -> tuple[Node]:
    weighted = multiply_op(ct, out)
    return (subtract_op(weighted, multiply_op(out, _total(weighted, axis))),)


def _vjp_log_softmax(ct: Node, out: Node, x: Node, *, axis: int) -> tuple[Node]:
    return (subtract_op(ct, multiply_op(exp_op(out), _total(ct, axis))),)


def _samples_along(name: str) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape in SHAPES:
            for axis in range(len(shape)):
                if shape[axis]:
                    yield Sample((draw(rng, float64, *shape),), {"axis": axis})
        for dtype in FLOATS:
            yield Sample((draw(rng, dtype, 3, 67),), {"axis": 1})
            yield Sample((draw(rng, dtype, 4, 3) * 100,), {"axis": 0}, smooth=False)
            e = edges(dtype)
            rows = np.stack([e, np.where(np.isfinite(e), e, 0), np.full_like(e, -np.inf)])
            yield Sample((rows,), {"axis": 1}, smooth=False)
            yield Sample((np.array([[1.0, -np.inf], [np.inf, 0.0]], dtype.np),), {"axis": 1}, smooth=False)
        x = draw(rng, float32, 2, 3)
        yield Sample((x,), {"axis": 2}, ShapeError, rf"{name}: axis 2 is out of range for \(2, 3\)")
        yield Sample((x.astype(np.int32),), {"axis": 1}, DTypeError, f"{name} takes floats, not int32")

    return samples


softmax_op: OpDef = define_op(
    "softmax",
    infer=_infer_along("softmax"),
    expand=_expand_softmax,
    numpy=in_double(_numpy_softmax),
    vjp=_vjp_softmax,
    samples=_samples_along("softmax"),
    costly=True,
)

log_softmax_op: OpDef = define_op(
    "log_softmax",
    infer=_infer_along("log_softmax"),
    expand=_expand_log_softmax,
    numpy=in_double(_numpy_log_softmax),
    vjp=_vjp_log_softmax,
    samples=_samples_along("log_softmax"),
    costly=True,
)


def _along(op: OpDef, x: Operand, axis: int) -> Node:
    """Return `op` of `x` along `axis`; of nothing along an axis that is known to be empty."""
    node = as_float(x)
    k = normalize_axis(axis, len(node.shape), op.name)
    return node if node.shape[k] == 0 else op(node, axis=k)


@public("jitflow", "nn")
def softmax(x: Operand, /, axis: int = -1) -> Node:
    """Return ``exp(x) / sum(exp(x))`` along `axis`, computed without overflow.

    Parameters
    ----------
    x
        Any tensor; integers and bool are taken as float64.
    axis
        The axis along which the results add up to 1.

    Raises
    ------
    ShapeError
        For an axis that is not there.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.softmax(jf.constant([[0.0, 0.0], [-900.0, 900.0]])), {})
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    return _along(softmax_op, x, axis)


@public("jitflow", "nn")
def log_softmax(x: Operand, /, axis: int = -1) -> Node:
    """Return the logarithm of `softmax`, exact also where that is nearly 0. Arguments and errors as for `softmax`.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.log_softmax(jf.constant([-900.0, 900.0])), {})
    array([-1800.,     0.])
    """
    return _along(log_softmax_op, x, axis)


# ---- logsumexp


def _infer_logsumexp(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    check_axes("logsumexp", x, axes)
    check_kinds("logsumexp", x.dtype, "f")
    return TensorType(x.dtype, reduced_shape(x.shape, axes))


def _expand_logsumexp(x: Node, *, axes: tuple[int, ...]) -> Node:
    """The logarithm of the sum of ``exp(x - m)``, plus m: the greatest element, or 0 where that is not finite."""
    greatest = reduce_max_op(x, axes=axes, allow_empty=True)
    m = where_op(isfinite(greatest), greatest, number(0, x))
    shifted = subtract_op(x, reshape_op(m, shape=kept_shape(x.shape, axes)))
    return add_op(log_op(reduce_sum_op(exp_op(shifted), axes=axes, dtype=x.dtype)), m)


def _numpy_logsumexp(x: Array, *, axes: tuple[int, ...]) -> Any:
    """Add one element after the other by ``log(exp(a) + exp(b))``."""
    rows = np.moveaxis(x, axes, range(len(axes)))
    own, kept = rows.shape[: len(axes)], rows.shape[len(axes) :]
    return np.logaddexp.reduce(rows.reshape(math.prod(own), *kept), axis=0, initial=-np.inf)


def _vjp_logsumexp(ct: Node, out: Node, x: Node, *, axes: tuple[int, ...]) -> tuple[Node]:
    """The derivative is the softmax, 0 where every element is -inf."""
    floor = where_op(equal_op(out, number(-math.inf, x)), number(0, x), out)
    share = exp_op(subtract_op(x, spread(floor, x.shape, axes)))
    return (multiply_op(spread(ct, x.shape, axes), share),)


def _samples_logsumexp(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axes in (
        ((5,), (0,)),
        ((3, 4), (1,)),
        ((3, 4), (0,)),
        ((2, 3, 4), (0, 2)),
        ((2, 0), (1,)),
        ((0, 3), (1,)),
    ):
        yield Sample((draw(rng, float64, *shape),), {"axes": axes})
    for dtype in FLOATS:
        yield Sample((draw(rng, dtype, 3, 67),), {"axes": (1,)}, smooth=False)
        yield Sample((draw(rng, dtype, 4, 3) * 100,), {"axes": (0,)}, smooth=False)
        rows = [[1, -np.inf, 2], [-np.inf] * 3, [np.inf, 0, -np.inf], [np.nan, 0, 1]]
        yield Sample((np.array(rows, dtype.np),), {"axes": (1,)}, smooth=False)
    x = draw(rng, float32, 2, 3)
    yield Sample((x,), {"axes": (2,)}, ShapeError, r"logsumexp: axes \(2,\) are not")
    yield Sample((x.astype(np.int32),), {"axes": (1,)}, DTypeError, "logsumexp takes floats, not int32")


logsumexp_op: OpDef = define_op(
    "logsumexp",
    infer=_infer_logsumexp,
    expand=_expand_logsumexp,
    numpy=in_double(_numpy_logsumexp),
    vjp=_vjp_logsumexp,
    samples=_samples_logsumexp,
    costly=True,
)


@public("jitflow", "nn")
def logsumexp(x: Operand, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Node:
    """Return ``log(sum(exp(x)))`` over `axis`, without overflow; -inf for no elements.

    Parameters
    ----------
    x
        Any tensor; integers and bool are taken as float64.
    axis
        An axis, several, or None for all.
    keepdims
        Whether the reduced axes stay, with size 1.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logsumexp(jf.constant([-1000.0, 1000.0])), {})
    array(1000.)
    """
    return reduce_over(logsumexp_op, as_float(x), axis, keepdims, "logsumexp")
