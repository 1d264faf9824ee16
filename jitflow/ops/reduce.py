"""Reductions: sum, prod, max, min, any, all, argmax, argmin, and mean and var made of sums.

The primitive nodes take ascending `axes` and drop them; ``keepdims`` and the merging of trailing axes into one run are
done by the functions. The order of folding is fixed by the node's types (`jitflow.ops.fold`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import DType, as_dtype, bool_, float32, float64, int32, int64
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import as_index
from jitflow.expr import maximum as larger
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op, located, make_constant
from jitflow.ops.axes import Axis, as_number, normalize_axes, normalize_axis
from jitflow.ops.broadcast import (
    check_axes,
    kept_shape,
    reduce_element,
    reduce_over,
    reduce_samples,
    reduce_sum_op,
    reduced_shape,
    spread,
    sum_dtype,
)
from jitflow.ops.cast import as_dtype_of, as_float, cast_array, check_kinds, checked_dtype
from jitflow.ops.compare import equal_op
from jitflow.ops.creation import dim_size
from jitflow.ops.elementwise import divide_op, in_double, multiply_op, subtract_op
from jitflow.ops.exponential import sqrt
from jitflow.ops.fold import ordered_fold
from jitflow.ops.movement import reshape_op
from jitflow.ops.selection import maximum, where_op
from jitflow.ops.testdata import FLOATS, NUMBERS, Array, draw
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import TensorType, element_count, shape_text, unify

Axes: TypeAlias = tuple[int, ...]


def _result_dtype(x: Node, dtype: Any, what: str) -> DType:
    """Return the dtype of a sum or product of `x`: `dtype`, or the usual one."""
    if dtype is None:
        return sum_dtype(x.dtype)
    to = checked_dtype(dtype)
    if to.is_bool:
        raise located(DTypeError(f"{what}: the result cannot be bool; use any or all"))
    return to


@public()
def sum(x: Operand, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Node:
    """Return the sum over `axis`.

    Parameters
    ----------
    x
        Any tensor. Bool and integers are summed as int64, unsigned ones as uint64; these wrap around.
    axis
        An axis, several, or None for all.
    dtype
        The dtype to add in and of the result. A float16 or bfloat16 result is added in float32 and rounded at the end.
    keepdims
        Whether the summed axes stay, with size 1.

    Returns
    -------
    Node
        The sums; 0 for no elements. Floats are added in a fixed order, from 0.0.

    Raises
    ------
    ShapeError
        For an axis that is not there or is named twice.
    StaticIndexError
        For an axis that is not there.
    DTypeError
        For a dtype that jitflow has not, or bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sum(jf.constant([[1, 2], [3, 4]]), axis=0), {})
    array([4, 6])
    """
    node = as_node(x)
    return reduce_over(reduce_sum_op, node, axis, keepdims, "sum", dtype=_result_dtype(node, dtype, "sum"))


# ---- prod


def _infer_prod(x: TensorType, *, axes: Axes, dtype: DType) -> TensorType:
    check_axes("reduce_prod", x, axes)
    if dtype.is_bool:
        raise DTypeError("reduce_prod: a product of bool is a number; ask for dtype int64, or use all")
    return TensorType(dtype, reduced_shape(x.shape, axes))


def _vjp_prod(ct: Node, out: Node, x: Node, *, axes: Axes, dtype: DType) -> tuple[Node | None]:
    """Return ct times the product of the others, also where an element is zero."""
    if not (x.dtype.is_float and dtype.is_float):
        return (None,)
    y = as_dtype_of(x, dtype)
    zero, one = make_constant(0, dtype), make_constant(1, dtype)
    is_zero = equal_op(y, zero)
    filled = where_op(is_zero, one, y)
    others = spread(reduce_prod_op(filled, axes=axes, dtype=dtype), x.shape, axes)
    zeros = spread(reduce_sum_op(is_zero, axes=axes, dtype=int64), x.shape, axes)
    no_zero = equal_op(zeros, make_constant(0, int64))
    only_zero = equal_op(zeros, make_constant(1, int64))
    slope = where_op(no_zero, divide_op(others, filled), where_op(only_zero, where_op(is_zero, others, zero), zero))
    return (as_dtype_of(multiply_op(spread(ct, x.shape, axes), slope), x.dtype),)


def _samples_prod(rng: np.random.Generator) -> Iterator[Sample]:
    for x, axes in reduce_samples(rng, NUMBERS):
        yield Sample((x,), {"axes": axes, "dtype": sum_dtype(as_dtype(x.dtype))}, smooth=x.size < 20)
    yield Sample((np.array([[True, False, True]]),), {"axes": (1,), "dtype": int64})
    yield Sample((np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 1.0]]),), {"axes": (1,), "dtype": float64})
    yield Sample((draw(rng, float32, 2),), {"axes": (1,), "dtype": float32}, ShapeError, "reduce_prod: axes")


reduce_prod_op: OpDef = define_op(
    "reduce_prod",
    infer=_infer_prod,
    element=lambda index, x, *, axes, dtype: reduce_element("mul", index, x, axes, dtype),
    numpy=lambda x, *, axes, dtype: ordered_fold("mul", cast_array(x, dtype), axes, dtype),
    vjp=_vjp_prod,
    samples=_samples_prod,
)


@public()
def prod(x: Operand, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Node:
    """Return the product over `axis`; 1 for no elements. Arguments and errors as for `sum`.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice.
    DTypeError
        For a dtype that jitflow has not, or bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.prod(jf.constant([[1, 2], [3, 4]]), axis=0), {})
    array([3, 8])
    """
    node = as_node(x)
    return reduce_over(reduce_prod_op, node, axis, keepdims, "prod", dtype=_result_dtype(node, dtype, "prod"))


# ---- max, min


def _check_not_empty(what: str, x: TensorType, axes: Axes) -> None:
    """Refuse to reduce nothing; for a symbolic axis record a guard that it is not empty."""
    if 0 in [x.shape[a] for a in axes]:
        raise ShapeError(f"{what} of no elements: shape {shape_text(x.shape)} over axes {axes}")
    for a in axes:
        n = x.shape[a]
        if not isinstance(n, int):
            unify(simplify_index(larger(as_index(n), 1)), n, f"{what} of no elements over axis {a}")


def _extremum(name: str, op: str) -> OpDef:
    # Composites that have a result for no elements (softmax) ask for the identity instead: `allow_empty`.
    def infer(x: TensorType, *, axes: Axes, allow_empty: bool = False) -> TensorType:
        check_axes(name, x, axes)
        check_kinds(name, x.dtype, "if")
        if not allow_empty:
            _check_not_empty(name, x, axes)
        return TensorType(x.dtype, reduced_shape(x.shape, axes))

    def vjp(ct: Node, out: Node, x: Node, *, axes: Axes, allow_empty: bool = False) -> tuple[Node]:
        best = as_dtype_of(equal_op(x, spread(out, x.shape, axes)), ct.dtype)
        share = divide_op(ct, reduce_sum_op(best, axes=axes, dtype=ct.dtype))
        return (multiply_op(best, spread(share, x.shape, axes)),)

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for x, axes in reduce_samples(rng, NUMBERS, empty=False):
            yield Sample((x,), {"axes": axes}, smooth=not (x == 0).any())
        for dtype in FLOATS:
            x = draw(rng, dtype, 2, 100)
            x[0, 70], x[1, 0] = np.nan, -np.inf
            yield Sample((x,), {"axes": (1,)}, smooth=False)
            # Zeros of both signs: which one is found depends on the order of the fold.
            zeros = cast_array(np.where(draw(rng, bool_, 5, 150), 0.0, -0.0), dtype)
            yield Sample((zeros,), {"axes": (1,)}, smooth=False)
            yield Sample((zeros,), {"axes": (0,)}, smooth=False)
        yield Sample((draw(rng, float32, 2, 0),), {"axes": (1,)}, ShapeError, f"{name} of no elements")
        yield Sample((draw(rng, bool_, 2),), {"axes": (0,)}, DTypeError, f"{name} takes integers and floats")
        yield Sample((draw(rng, float32, 2),), {"axes": (1,)}, ShapeError, f"{name}: axes")

    return define_op(
        name,
        infer=infer,
        element=lambda index, x, *, axes, allow_empty=False: reduce_element(op, index, x, axes, x.type.dtype),
        numpy=lambda x, *, axes, allow_empty=False: ordered_fold(op, x, axes, as_dtype(x.dtype)),
        vjp=vjp,
        samples=samples,
        exact=True,
    )


reduce_max_op = _extremum("reduce_max", "max")
reduce_min_op = _extremum("reduce_min", "min")


def _extreme(op: OpDef, on_bool: OpDef, x: Operand, axis: Axis, keepdims: bool, what: str) -> Node:
    """Return the extremum of `x` over `axis`; of bool it is a question of any or all."""
    node = as_node(x)
    axes = normalize_axes(axis, len(node.shape), what)
    if 0 in [node.shape[a] for a in axes]:
        raise located(ShapeError(f"{what} of no elements: shape {shape_text(node.shape)} over axes {axes}"))
    return reduce_over(on_bool if node.dtype.is_bool else op, node, axis, keepdims, what)


@public()
def max(x: Operand, /, *, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return the greatest element over `axis`; NaN if there is one. The derivative is shared among equal ones.

    Parameters
    ----------
    x
        Any tensor.
    axis
        An axis, several, or None for all.
    keepdims
        Whether the reduced axes stay, with size 1.

    Raises
    ------
    ShapeError
        For an axis that is not there, or of size 0. (A symbolic axis that turns out empty is a FeedError of the run.)
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.max(jf.constant([[1, 5], [3, 4]]), axis=1), {})
    array([5, 4])
    """
    return _extreme(reduce_max_op, reduce_any_op, x, axis, keepdims, "max")


@public()
def min(x: Operand, /, *, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return the least element over `axis`; NaN if there is one. Arguments and errors as for `max`.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice, or of size 0. (A symbolic axis that turns out empty is a FeedError of
        the run.)

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.min(jf.constant([[1, 5], [3, 4]]), axis=1), {})
    array([1, 3])
    """
    return _extreme(reduce_min_op, reduce_all_op, x, axis, keepdims, "min")


# ---- any, all


def _quantifier(name: str, op: str, numpy: Callable[..., Any]) -> OpDef:
    def infer(x: TensorType, *, axes: Axes) -> TensorType:
        check_axes(name, x, axes)
        check_kinds(name, x.dtype, "b")
        return TensorType(bool_, reduced_shape(x.shape, axes))

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for x, axes in reduce_samples(rng, (bool_,)):
            yield Sample((x > 0,), {"axes": axes})
        for fill in (False, True):
            yield Sample((np.full((3, 41), fill),), {"axes": (1,)})
        yield Sample((draw(rng, int32, 2),), {"axes": (0,)}, DTypeError, f"{name} takes bool, not int32")
        yield Sample((draw(rng, bool_, 2),), {"axes": (1,)}, ShapeError, f"{name}: axes")

    return define_op(
        name,
        infer=infer,
        element=lambda index, x, *, axes: reduce_element(op, index, x, axes, bool_),
        numpy=lambda x, *, axes: numpy(x, axis=axes),
        vjp=lambda ct, out, x, *, axes: (None,),
        samples=samples,
        exact=True,
    )


reduce_any_op = _quantifier("reduce_any", "or", np.any)
reduce_all_op = _quantifier("reduce_all", "and", np.all)


@public()
def any(x: Operand, /, *, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return whether any element over `axis` is true (not zero); False for no elements. Arguments as for `max`.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.any(jf.constant([[True, False], [False, False]]), axis=1), {})
    array([ True, False])
    """
    return reduce_over(reduce_any_op, as_dtype_of(as_node(x), bool_), axis, keepdims, "any")


@public()
def all(x: Operand, /, *, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return whether every element over `axis` is true (not zero); True for no elements. Arguments as for `max`.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.all(jf.constant([[True, False], [True, True]]), axis=1), {})
    array([False,  True])
    """
    return reduce_over(reduce_all_op, as_dtype_of(as_node(x), bool_), axis, keepdims, "all")


# ---- argmax, argmin


def _position_of(name: str, numpy: Callable[..., Any]) -> OpDef:
    def infer(x: TensorType, *, axes: Axes) -> TensorType:
        check_axes(name, x, axes)
        check_kinds(name, x.dtype, "if")
        _check_not_empty(name, x, axes)
        return TensorType(int64, reduced_shape(x.shape, axes))

    def rule(x: Array, *, axes: Axes) -> Any:
        kept = tuple(k for k in range(x.ndim) if k not in axes)
        rows = x.transpose(kept + axes)
        size = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
        return numpy(rows.reshape(*rows.shape[: len(kept)], size), axis=-1)

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for x, axes in reduce_samples(rng, NUMBERS, empty=False):
            yield Sample((x,), {"axes": axes})
        x = draw(rng, float32, 3, 100)
        x[0, 70] = x[0, 3] = np.nan
        x[1] = -np.inf
        x[2, 90] = np.nan
        yield Sample((x,), {"axes": (1,)})
        yield Sample((np.ascontiguousarray(x.T),), {"axes": (0,)})
        yield Sample((np.array([1, 3, 3, 0, 0]),), {"axes": (0,)})
        yield Sample((draw(rng, float32, 0),), {"axes": (0,)}, ShapeError, f"{name} of no elements")
        yield Sample((draw(rng, bool_, 2),), {"axes": (0,)}, DTypeError, f"{name} takes integers and floats")

    return define_op(
        name,
        infer=infer,
        element=lambda index, x, *, axes: reduce_element(name, index, x, axes, x.type.dtype),
        numpy=rule,
        vjp=lambda ct, out, x, *, axes: (None,),
        samples=samples,
        exact=True,
    )


argmax_op = _position_of("argmax", np.argmax)
argmin_op = _position_of("argmin", np.argmin)


def _position(op: OpDef, x: Operand, axis: int | None, keepdims: bool) -> Node:
    node = as_node(x)
    if axis is not None:
        axis = normalize_axis(axis, len(node.shape), op.name)
    if node.dtype.is_bool:
        node = as_dtype_of(node, int32)
    return reduce_over(op, node, axis, keepdims, op.name)


@public()
def argmax(x: Operand, /, *, axis: int | None = None, keepdims: bool = False) -> Node:
    """Return the position of the greatest element along `axis` as int64: the first of equal ones, NaN being greatest.

    Parameters
    ----------
    x
        Any tensor.
    axis
        The axis; None for the position in the flattened tensor.
    keepdims
        Whether the axis stays, with size 1.

    Raises
    ------
    ShapeError
        For an axis that is not there, or of size 0 (FeedError if a symbolic one turns out so).
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.argmax(jf.constant([[1, 5], [4, 3]]), axis=1), {})
    array([1, 0])
    """
    return _position(argmax_op, x, axis, keepdims)


@public()
def argmin(x: Operand, /, *, axis: int | None = None, keepdims: bool = False) -> Node:
    """Return the position of the least element along `axis` as int64: the first of equal ones, NaN being least.

    Arguments and errors as for `argmax`.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        If there are no elements.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.argmin(jf.constant([[1, 5], [4, 3]]), axis=1), {})
    array([0, 1])
    """
    return _position(argmin_op, x, axis, keepdims)


# ---- mean, var


def _infer_moment(name: str, x: TensorType, axes: Axes) -> TensorType:
    check_axes(name, x, axes)
    check_kinds(name, x.dtype, "f")
    return TensorType(x.dtype, reduced_shape(x.shape, axes))


def _infer_mean(x: TensorType, *, axes: Axes) -> TensorType:
    return _infer_moment("mean", x, axes)


def _infer_var(x: TensorType, *, axes: Axes, correction: float) -> TensorType:
    return _infer_moment("var", x, axes)


def _count(x: Node, axes: Axes) -> Node:
    return dim_size(element_count([x.shape[a] for a in axes]), x.dtype)


def _samples_mean(**attrs: Any) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for x, axes in reduce_samples(rng, ()):
            yield Sample((x,), {"axes": axes, **attrs})
        for dtype in FLOATS:
            x = draw(rng, dtype, 3, 67)
            yield Sample((x,), {"axes": (1,), **attrs})
            yield Sample((np.stack([x[0], x[1]]) + 1000,), {"axes": (1,), **attrs}, smooth=False)
            x = x.copy()
            x[0, 5], x[1, 66] = np.nan, np.inf
            yield Sample((x,), {"axes": (1,), **attrs}, smooth=False)
        yield Sample((draw(rng, int32, 2),), {"axes": (0,), **attrs}, DTypeError, "takes floats, not int32")
        yield Sample((draw(rng, float32, 2),), {"axes": (1,), **attrs}, ShapeError, r"axes \(1,\) are not")

    return samples


mean_op: OpDef = define_op(
    "mean",
    infer=_infer_mean,
    expand=lambda x, *, axes: divide_op(reduce_sum_op(x, axes=axes, dtype=x.dtype), _count(x, axes)),
    numpy=in_double(lambda x, *, axes: np.sum(x, axis=axes) / np.prod([x.shape[a] for a in axes])),
    vjp=lambda ct, out, x, *, axes: (spread(divide_op(ct, _count(x, axes)), x.shape, axes),),
    samples=_samples_mean(),
)


@public()
def mean(x: Operand, /, *, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return the mean over `axis`, of bool and integers as float64; NaN for no elements. Arguments as for `max`.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.mean(jf.constant([[1.0, 2.0], [3.0, 4.0]]), axis=0), {})
    array([2., 3.])
    """
    return reduce_over(mean_op, as_float(x), axis, keepdims, "mean")


def _degrees(x: Node, axes: Axes, correction: float) -> Node:
    """Return the number of elements less `correction`, but not below zero."""
    count = _count(x, axes)
    if not correction:
        return count
    return maximum(subtract_op(count, make_constant(correction, x.dtype)), 0.0)


def _expand_var(x: Node, *, axes: Axes, correction: float) -> Node:
    """Two passes: the mean, then the mean square of the deviations, which loses nothing to cancellation."""
    deviation = subtract_op(x, reshape_op(mean_op(x, axes=axes), shape=kept_shape(x.shape, axes)))
    squares = reduce_sum_op(multiply_op(deviation, deviation), axes=axes, dtype=x.dtype)
    return divide_op(squares, _degrees(x, axes, correction))


def _numpy_var(x: Array, *, axes: Axes, correction: float) -> Any:
    count = np.float64(np.prod([x.shape[a] for a in axes]))
    deviation = x - np.sum(x, axis=axes, keepdims=True) / count
    return np.sum(deviation * deviation, axis=axes) / np.maximum(count - correction, 0)


def _vjp_var(ct: Node, out: Node, x: Node, *, axes: Axes, correction: float) -> tuple[Node]:
    deviation = subtract_op(x, reshape_op(mean_op(x, axes=axes), shape=kept_shape(x.shape, axes)))
    scale = divide_op(multiply_op(ct, make_constant(2, ct.dtype)), _degrees(x, axes, correction))
    return (multiply_op(spread(scale, x.shape, axes), deviation),)


var_op: OpDef = define_op(
    "var",
    infer=_infer_var,
    expand=_expand_var,
    numpy=in_double(_numpy_var),
    vjp=_vjp_var,
    samples=lambda rng: (s for c in (0.0, 1.0) for s in _samples_mean(correction=c)(rng)),
)


@public()
def var(x: Operand, /, *, axis: Axis = None, correction: int | float = 0.0, keepdims: bool = False) -> Node:
    """Return the variance over `axis`: the sum of squared deviations from the mean, over the count less `correction`.

    Parameters
    ----------
    x
        Any tensor; bool and integers are taken as float64.
    axis
        An axis, several, or None for all.
    correction
        0 for the population's variance, 1 for the sample's.
    keepdims
        Whether the reduced axes stay, with size 1.

    Raises
    ------
    ShapeError
        For an axis that is not there or is named twice.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.var(jf.constant([1.0, 2.0, 3.0]), correction=1), {})
    array(1.)
    """
    return reduce_over(var_op, as_float(x), axis, keepdims, "var", correction=as_number(correction, "var: correction"))


@public()
def std(x: Operand, /, *, axis: Axis = None, correction: int | float = 0.0, keepdims: bool = False) -> Node:
    """Return the standard deviation over `axis`: the root of `var`, whose arguments and errors it has.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.std(jf.constant([1.0, 2.0, 3.0]), correction=1), {})
    array(1.)
    """
    return sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))
