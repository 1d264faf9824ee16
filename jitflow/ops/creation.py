"""Tensors made from attributes alone: full and its kin, arange, and the size of a dim. Shapes may be symbolic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import SUPPORTED, DType, as_dtype, bool_, float32, float64, int32, int64, uint8
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import Expr, as_index, cast, const, maximum, wrap
from jitflow.graph import (
    ArrayData,
    Index,
    Node,
    OpDef,
    Operand,
    Sample,
    as_node,
    define_op,
    is_weak,
    located,
    make_constant,
    scalar_array,
    within,
)
from jitflow.ops.axes import Dims, check_device, checked_shape, known_shape
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.cast import astype, cast_array, checked_dtype
from jitflow.ops.testdata import NUMBERS, Array, edges
from jitflow.public import public
from jitflow.simplify import evaluate_index, simplify_index
from jitflow.types import (
    Dim,
    Shape,
    SymDim,
    TensorType,
    as_dim,
    dim_text,
    fold_dim,
    is_valid_dim,
    unify,
)

Number: TypeAlias = int | float


def guard_not_negative(d: Dim, what: str) -> None:
    """Record that dim `d` must not turn out negative, unless that is proven."""
    if not is_valid_dim(d):
        unify(simplify_index(maximum(as_index(d), 0)), d, f"{what}: dim {dim_text(d)} must not be negative")


# ---- full


def _infer_full(*, shape: Shape, value: ArrayData) -> TensorType:
    if value.array.ndim != 0:
        raise ShapeError(f"full: the value is a scalar, not of shape {value.array.shape}")
    for d in shape:
        guard_not_negative(d, "full")
    return TensorType(as_dtype(value.array.dtype), shape)


def _element_full(index: Index, *, shape: Shape, value: ArrayData) -> Expr:
    return const(value.array.item(), index.type.dtype)


def _samples_full(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in ((), (3,), (0, 2), (2, 3)):
        for value in (True, np.int32(-7), np.int64(2**62 + 1), np.float32(1.5), -0.0, np.nan, np.float32(1e-45)):
            yield Sample((), {"shape": shape, "value": ArrayData(np.asarray(value))})
    for dtype in SUPPORTED:
        for value in edges(dtype)[-1:]:
            yield Sample((), {"shape": (5,), "value": ArrayData(np.asarray(value))})


full_op: OpDef = define_op(
    "full",
    infer=_infer_full,
    element=_element_full,
    numpy=lambda *, shape, value, dims: np.full(known_shape(shape, dims), value.array),
    vjp=lambda ct, out, **_: (),
    samples=_samples_full,
    exact=True,
    storage=True,
)


@public()
def full(shape: Any, fill_value: Operand, *, dtype: Any = None, device: Any = None) -> Node:
    """Return a tensor of `shape` whose elements are all `fill_value`.

    Parameters
    ----------
    shape
        A dim or a tuple of dims, which may be symbolic.
    fill_value
        A Python scalar, or a 0-d tensor.
    dtype
        The dtype; by default float64, int64 or bool, as the value is.
    device
        Accepted for the standard's sake: None or "session", since the session that runs a graph chooses the device.

    Raises
    ------
    ShapeError
        For a negative dim.
    OutOfBoundsError
        For an integer that `dtype` cannot hold.
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.full((2,), 7), {})
    array([7, 7])
    """
    check_device(device, "full")
    wanted = checked_shape(shape)
    to = None if dtype is None else checked_dtype(dtype)
    if not is_weak(fill_value):
        node = as_node(fill_value)
        with within("full"):
            return broadcast_to(node if to is None else astype(node, to), wanted)
    value = scalar_array(fill_value, to) if to is not None else np.asarray(as_python_array(fill_value))
    return full_op(shape=wanted, value=ArrayData(value))


def as_python_array(value: bool | int | float) -> Array:
    """Return a Python scalar as bool, int64 or float64."""
    dtype = bool_ if isinstance(value, bool) else int64 if isinstance(value, int) else float64
    return scalar_array(value, dtype)


@public()
def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Node:
    """Return zeros of `shape` and `dtype` (float64 by default).

    Raises
    ------
    ShapeError
        For a negative dim.
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device` than None and "session".

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.zeros((2,)), {})
    array([0., 0.])
    """
    check_device(device, "zeros")
    return full(shape, 0, dtype=float64 if dtype is None else dtype)


@public()
def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Node:
    """Return ones of `shape` and `dtype` (float64 by default).

    Raises
    ------
    ShapeError
        For a negative dim.
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device` than None and "session".

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.ones((2,), dtype=jf.int32), {})
    array([1, 1], dtype=int32)
    """
    check_device(device, "ones")
    return full(shape, 1, dtype=float64 if dtype is None else dtype)


@public()
def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Node:
    """Return zeros of `shape` and `dtype` (float64 by default): a graph has no values that nobody has set.

    Raises
    ------
    ShapeError
        For a negative dim.
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device` than None and "session".

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.empty((2, 3), dtype=jf.int8)
    Tensor(full, int8, (2, 3))
    """
    check_device(device, "empty")
    return zeros(shape, dtype=dtype)


@public()
def full_like(x: Operand, /, fill_value: Operand, *, dtype: Any = None, device: Any = None) -> Node:
    """Return a tensor like `x` in shape and dtype (unless `dtype` is given) whose elements are all `fill_value`.

    Raises
    ------
    OutOfBoundsError
        For an integer that the dtype cannot hold.
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device` than None and "session".
    ShapeError
        For a `fill_value` with axes that do not broadcast to those of `x`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.full_like(jf.constant([1, 2]), 7), {})
    array([7, 7])
    """
    node = as_node(x)
    return full(node.shape, fill_value, dtype=node.dtype if dtype is None else dtype, device=device)


@public()
def zeros_like(x: Operand, /, *, dtype: Any = None, device: Any = None) -> Node:
    """Return zeros like `x` in shape and dtype (unless `dtype` is given).

    Raises
    ------
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device` than None and "session".

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.zeros_like(jf.constant([1, 2])), {})
    array([0, 0])
    """
    return full_like(x, 0, dtype=dtype, device=device)


@public()
def ones_like(x: Operand, /, *, dtype: Any = None, device: Any = None) -> Node:
    """Return ones like `x` in shape and dtype (unless `dtype` is given).

    Raises
    ------
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device` than None and "session".

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.ones_like(jf.constant([1.5, 2.5])), {})
    array([1., 1.])
    """
    return full_like(x, 1, dtype=dtype, device=device)


@public()
def empty_like(x: Operand, /, *, dtype: Any = None, device: Any = None) -> Node:
    """Return zeros like `x` in shape and dtype (unless `dtype` is given): no value is left unset in a graph.

    Raises
    ------
    DTypeError
        If jitflow has no such dtype.
    DeviceError
        For another `device` than None and "session".

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.empty_like(jf.constant([1.5, 2.5])), {})
    array([0., 0.])
    """
    return zeros_like(x, dtype=dtype, device=device)


# ---- arange


def _infer_arange(*, start: Number, step: Number, size: Dim, dtype: DType) -> TensorType:
    guard_not_negative(size, "arange")
    if dtype.is_bool:
        raise DTypeError("arange makes integers or floats, not bool")
    if not dtype.is_float and not (isinstance(start, int) and isinstance(step, int)):
        raise DTypeError(f"arange: {start} and {step} are not both of {dtype}")
    scalar_array(start, dtype)
    return TensorType(dtype, (size,))


def _element_arange(index: Index, *, start: Number, step: Number, size: Dim, dtype: DType) -> Expr:
    """Return ``start + i * step`` in `dtype`: a product and a sum, each rounded."""
    return const(start, dtype) + cast(index[0], dtype) * const(step, dtype)


def _numpy_arange(*, start: Number, step: Number, size: Dim, dtype: DType, dims: Dims) -> Array:
    assert dtype.np is not None
    n = size if isinstance(size, int) else evaluate_index(size, dims)
    # A step down is a large one up, for integers without a sign.
    down = wrap(int(step), dtype) if dtype.is_integer else step
    first, by = scalar_array(start, dtype), scalar_array(down, dtype)
    with np.errstate(all="ignore"):
        return np.asarray(first + np.arange(n, dtype=np.int64).astype(dtype.np) * by)


def _samples_arange(rng: np.random.Generator) -> Iterator[Sample]:
    for start, step, size, dtype in (
        (0, 1, 5, int64),
        (3, -2, 4, int32),
        (0, 1, 0, int64),
        (7, 0, 3, int64),
        (-5, 2**40, 3, int64),
        (250, -50, 6, uint8),
        (0.0, 0.1, 11, float64),
        (0.0, 0.1, 11, float32),
        (1.5, -0.25, 7, float32),
    ):
        yield Sample((), {"start": start, "step": step, "size": size, "dtype": dtype})
    for dtype in NUMBERS:
        yield Sample((), {"start": 3, "step": 2, "size": 67, "dtype": dtype})


arange_op: OpDef = define_op(
    "arange",
    infer=_infer_arange,
    element=_element_arange,
    numpy=_numpy_arange,
    vjp=lambda ct, out, **_: (),
    samples=_samples_arange,
    exact=True,
)


@public()
def arange(
    start: Number | SymDim,
    /,
    stop: Number | SymDim | None = None,
    step: Number = 1,
    *,
    dtype: Any = None,
    device: Any = None,
) -> Node:
    """Return ``start, start + step, ...`` up to but without `stop`, as a vector.

    Parameters
    ----------
    start
        The first element; the only argument is `stop`, and then `start` is 0.
    stop
        The end, which is not reached. A dim, such as ``x.shape[0]``, makes a vector of symbolic length.
    step
        The distance of neighbours, not 0. Element i is ``start + i*step``, each operation rounded to `dtype`.
    dtype
        By default int64, or float64 if any argument is a float.
    device
        Accepted for the standard's sake: None or "session", since the session that runs a graph chooses the device.

    Raises
    ------
    ShapeError
        If `step` is 0, or an argument is not finite, or is a dim where a number is needed.
    OutOfBoundsError
        For elements that `dtype` cannot hold.
    DTypeError
        For dtype bool, or one that jitflow has not.
    DeviceError
        For another `device`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.arange(1, 7, 2), {})
    array([1, 3, 5])
    >>> jf.arange(jf.placeholder("x", jf.float32, ("n",)).shape[0]).shape
    (n,)
    """
    check_device(device, "arange")
    if stop is None:
        start, stop = 0, start
    if not isinstance(step, (int, float)) or step == 0 or not math.isfinite(step):
        raise located(ShapeError(f"arange: step must be a finite number other than 0, got {step!r}"))
    if not (isinstance(start, (int, float)) and isinstance(stop, (int, float))):
        return _symbolic_arange(start, stop, step, dtype)
    if not (math.isfinite(start) and math.isfinite(stop)):
        raise located(ShapeError(f"arange: start and stop must be finite, got {start} and {stop}"))
    is_whole = all(isinstance(v, int) for v in (start, stop, step))
    to = checked_dtype(dtype) if dtype is not None else int64 if is_whole else float64
    if to.is_bool:
        raise located(DTypeError("arange makes integers or floats, not bool"))
    size = max(int(-((start - stop) // step) if is_whole else math.ceil((stop - start) / step)), 0)
    checked_shape(size)
    first = _in(to, start)
    # As in numpy, the first two elements say what the step is in integers.
    by = _in(to, step) if to.is_float else _in(to, start + step) - first
    for k in {0, size - 1} if size else ():
        scalar_array(first + k * by, to)
    return arange_op(start=first, step=by, size=size, dtype=to)


def _in(dtype: DType, value: Number) -> Number:
    """Return `value` as Python's number of the kind of `dtype`."""
    return float(value) if dtype.is_float else int(value)


def _symbolic_arange(start: Any, stop: Any, step: Number, dtype: Any) -> Node:
    """Return the arange of a length that depends on dims: step 1 or another whole number, `start` a number."""
    if not (isinstance(start, int) and isinstance(step, int)):
        raise located(ShapeError("arange: with a symbolic stop, start and step must be Python ints"))
    try:
        end = as_index(as_dim(stop))
    except ShapeError as error:
        raise located(error) from None
    length = simplify_index(
        (end - start + (step - 1)) // step if step > 0 else (as_index(start) - end - step - 1) // -step
    )
    size = fold_dim(simplify_index(maximum(length, 0)))
    to = checked_dtype(dtype) if dtype is not None else int64
    return arange_op(start=_in(to, start), step=_in(to, step), size=size, dtype=to)


# ---- dim_size


def _infer_dim_size(*, size: Dim, dtype: DType) -> TensorType:
    return TensorType(dtype, ())


def _numpy_dim_size(*, size: Dim, dtype: DType, dims: Dims) -> Array:
    # As any cast of integers: a size that does not fit wraps.
    return cast_array(np.asarray(size if isinstance(size, int) else evaluate_index(size, dims), np.int64), dtype)


def _samples_dim_size(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in NUMBERS:
        for size in (0, 5, 100) if dtype.bits < 32 else (0, 5, 2**24 + 1):
            yield Sample((), {"size": size, "dtype": dtype})


dim_size_op: OpDef = define_op(
    "dim_size",
    infer=_infer_dim_size,
    element=lambda index, *, size, dtype: cast(as_index(size), dtype),
    numpy=_numpy_dim_size,
    vjp=lambda ct, out, **_: (),
    samples=_samples_dim_size,
    exact=True,
)


def dim_size(size: Dim, dtype: DType) -> Node:
    """Return dim `size` as a 0-d tensor; a literal becomes a constant."""
    return make_constant(size, dtype) if isinstance(size, int) else dim_size_op(size=size, dtype=dtype)
