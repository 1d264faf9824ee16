"""numpy functions applied to Tensors into nodes: the tables behind ``np.exp(x)``, ``array * x``, ``np.stack([x, y])``.

A function of numpy that has a counterpart builds it, with numpy's own parameter names; any other raises TypeError with
advice, and so does every parameter that has no meaning here (``out``, ``where``, ``order``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jitflow.graph import Node, as_node
from jitflow.ops import (
    compare,
    creation,
    elementwise,
    exponential,
    index,
    joining,
    linalg,
    movement,
    padding,
    reduce,
    scan,
    trigonometric,
)
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.cast import astype
from jitflow.types import element_count, public_dim

#: numpy's ufuncs by name. What they compute is what the operator of that name here computes.
UFUNCS: dict[str, Callable[..., Node]] = {
    "add": elementwise.add,
    "subtract": elementwise.subtract,
    "multiply": elementwise.multiply,
    "divide": elementwise.divide,
    "floor_divide": elementwise.floor_divide,
    "remainder": elementwise.remainder,
    "power": exponential.pow,
    "float_power": lambda x, y: exponential.pow(astype(x, np.float64), astype(y, np.float64)),
    "negative": elementwise.negative,
    "positive": elementwise.positive,
    "absolute": elementwise.abs,
    "fabs": elementwise.abs,
    "sign": elementwise.sign,
    "floor": elementwise.floor,
    "ceil": elementwise.ceil,
    "trunc": elementwise.trunc,
    "rint": elementwise.round,
    "sqrt": exponential.sqrt,
    "square": exponential.square,
    "exp": exponential.exp,
    "log": exponential.log,
    "tanh": trigonometric.tanh,
    "sin": trigonometric.sin,
    "cos": trigonometric.cos,
    "maximum": compare.maximum,
    "minimum": compare.minimum,
    "equal": compare.equal,
    "not_equal": compare.not_equal,
    "less": compare.less,
    "less_equal": compare.less_equal,
    "greater": compare.greater,
    "greater_equal": compare.greater_equal,
    "logical_and": compare.logical_and,
    "logical_or": compare.logical_or,
    "logical_xor": compare.logical_xor,
    "logical_not": compare.logical_not,
    "bitwise_and": compare.bitwise_and,
    "bitwise_or": compare.bitwise_or,
    "bitwise_xor": compare.bitwise_xor,
    "invert": compare.bitwise_invert,
    "left_shift": compare.bitwise_left_shift,
    "right_shift": compare.bitwise_right_shift,
    "isnan": compare.isnan,
    "isinf": compare.isinf,
    "isfinite": compare.isfinite,
    "matmul": linalg.matmul,
}


def apply_ufunc(ufunc: np.ufunc, method: str, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Node:
    """Return the node of ``ufunc(*inputs, **kwargs)``."""
    name = ufunc.__name__
    if method == "accumulate" and name in ACCUMULATIONS:
        return _accumulate(name, *inputs, **kwargs)
    if method != "__call__":
        raise TypeError(f"np.{name}.{method} does not take Tensors: use jitflow's reductions, such as jf.sum")
    function = UFUNCS.get(name)
    if function is None:
        raise TypeError(f"np.{name} does not take Tensors: jitflow has no operator for it")
    for key, value in kwargs.items():
        if key == "out":
            raise TypeError(f"np.{name}: a Tensor cannot be written into an array (out=, or an operator such as +=)")
        if key == "dtype" and value is not None:
            return astype(function(*inputs), value)
        raise TypeError(f"np.{name} with Tensors has no parameter {key!r}")
    return function(*inputs)


#: Those whose `accumulate`, the running fold, has a counterpart.
ACCUMULATIONS: dict[str, Callable[..., Node]] = {
    "add": scan.cumulative_sum,
    "multiply": scan.cumulative_prod,
    "maximum": scan.cumulative_max,
    "minimum": scan.cumulative_min,
    "logaddexp": scan.logcumsumexp,
}


def _accumulate(name: str, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Node:
    _no_out(f"{name}.accumulate", out)
    x = as_node(array)
    return ACCUMULATIONS[name](x if dtype is None else astype(x, dtype), axis=axis)


def apply_function(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return what ``func(*args, **kwargs)`` means for Tensors: a node, or a fact about one such as its shape."""
    function = FUNCTIONS.get(func)
    if function is None:
        name = getattr(func, "__name__", repr(func))
        raise TypeError(
            f"np.{name} does not take Tensors: use jitflow's functions, or np.{name} on the result of a run"
        )
    return function(*args, **kwargs)


# ---- one function per function of numpy, with its parameters


def _no_out(name: str, out: Any) -> None:
    if out is not None:
        raise TypeError(f"np.{name}: a Tensor cannot be written into an array (out=)")


def _sum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Node:
    _no_out("sum", out)
    return reduce.sum(a, axis=axis, dtype=dtype, keepdims=keepdims)


def _prod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Node:
    _no_out("prod", out)
    return reduce.prod(a, axis=axis, dtype=dtype, keepdims=keepdims)


def _mean(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Node:
    _no_out("mean", out)
    return reduce.mean(a if dtype is None else astype(a, dtype), axis=axis, keepdims=keepdims)


def _var(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: bool = False) -> Node:
    _no_out("var", out)
    return reduce.var(a if dtype is None else astype(a, dtype), axis=axis, correction=ddof, keepdims=keepdims)


def _std(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: bool = False) -> Node:
    return exponential.sqrt(_var(a, axis, dtype, out, ddof, keepdims))


def _reduction(name: str, function: Callable[..., Node]) -> Callable[..., Node]:
    def reduction(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> Node:
        _no_out(name, out)
        return function(a, axis=axis, keepdims=keepdims)

    reduction.__qualname__ = name
    return reduction


def _reshape(a: Any, shape: Any = None, order: str = "C") -> Node:
    if order != "C":
        raise TypeError(f"np.reshape: Tensors have no memory order {order!r}")
    return movement.reshape(a, shape)


def _ravel(a: Any, order: str = "C") -> Node:
    return _reshape(a, (-1,), order)


def _transpose(a: Any, axes: Any = None) -> Node:
    node = as_node(a)
    return movement.permute_dims(node, range(node.type.rank)[::-1] if axes is None else axes)


def _swapaxes(a: Any, axis1: int, axis2: int) -> Node:
    node = as_node(a)
    order = list(range(node.type.rank))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return movement.permute_dims(node, order)


def _concatenate(arrays: Any, axis: int | None = 0, out: Any = None) -> Node:
    _no_out("concatenate", out)
    return joining.concat(list(arrays), axis=axis)


def _stack(arrays: Any, axis: int = 0, out: Any = None) -> Node:
    _no_out("stack", out)
    return joining.stack(list(arrays), axis=axis)


def _clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None) -> Node:
    _no_out("clip", out)
    return compare.clip(a, a_min if min is None else min, a_max if max is None else max)


def _take(a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: str = "raise") -> Node:
    _no_out("take", out)
    if mode != "raise":
        raise TypeError(f"np.take: mode {mode!r} has no meaning for Tensors; clip or wrap the indices")
    if axis is None:
        return index.take(movement.reshape(a, (-1,)), indices, axis=0)
    return index.take(a, indices, axis=axis)


def _running(name: str, function: Callable[..., Node]) -> Callable[..., Node]:
    def running(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> Node:
        _no_out(name, out)
        x = movement.reshape(a, (-1,)) if axis is None else a
        return function(x, axis=axis, dtype=dtype)

    running.__qualname__ = name
    return running


def _cumulative(name: str, function: Callable[..., Node]) -> Callable[..., Node]:
    def cumulative(
        x: Any, /, *, axis: int | None = None, dtype: Any = None, out: Any = None, include_initial: bool = False
    ) -> Node:
        _no_out(name, out)
        return function(x, axis=axis, dtype=dtype, include_initial=include_initial)

    cumulative.__qualname__ = name
    return cumulative


def _round(a: Any, decimals: int = 0, out: Any = None) -> Node:
    _no_out("round", out)
    if decimals:
        raise TypeError("np.round: Tensors are rounded to whole numbers only")
    return elementwise.round(a)


def _where(condition: Any, *branches: Any) -> Node:
    if len(branches) != 2:
        raise TypeError("np.where with Tensors takes a condition and two values; how many are true depends on the run")
    return compare.where(condition, *branches)


def _dot(a: Any, b: Any, out: Any = None) -> Node:
    _no_out("dot", out)
    x, y = as_node(a), as_node(b)
    if x.type.rank == 0 or y.type.rank == 0:
        return elementwise.multiply(a, b)
    if y.type.rank > 2:
        raise TypeError("np.dot with Tensors takes a second operand of at most two axes: use jf.matmul")
    return linalg.matmul(a, b)


def _like(function: Callable[..., Node]) -> Callable[..., Node]:
    def like(a: Any, *values: Any, dtype: Any = None) -> Node:
        return function(a, *values, dtype=dtype)

    like.__qualname__ = function.__name__
    return like


#: numpy's other functions. The keys are its function objects, so aliases need a row of their own.
FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.sum: _sum,
    np.prod: _prod,
    np.mean: _mean,
    np.var: _var,
    np.std: _std,
    np.max: _reduction("max", reduce.max),
    np.amax: _reduction("amax", reduce.max),
    np.min: _reduction("min", reduce.min),
    np.amin: _reduction("amin", reduce.min),
    np.any: _reduction("any", reduce.any),
    np.all: _reduction("all", reduce.all),
    np.argmax: _reduction("argmax", reduce.argmax),
    np.argmin: _reduction("argmin", reduce.argmin),
    np.cumsum: _running("cumsum", scan.cumulative_sum),
    np.cumprod: _running("cumprod", scan.cumulative_prod),
    np.cumulative_sum: _cumulative("cumulative_sum", scan.cumulative_sum),
    np.cumulative_prod: _cumulative("cumulative_prod", scan.cumulative_prod),
    np.reshape: _reshape,
    np.ravel: _ravel,
    np.transpose: _transpose,
    np.matrix_transpose: movement.matrix_transpose,
    np.swapaxes: _swapaxes,
    np.moveaxis: lambda a, source, destination: movement.moveaxis(a, source, destination),
    np.expand_dims: lambda a, axis: movement.expand_dims(a, axis=axis),
    np.squeeze: lambda a, axis=None: movement.squeeze(a, axis=axis),
    np.broadcast_to: lambda array, shape: broadcast_to(array, shape),
    np.concatenate: _concatenate,
    np.concat: _concatenate,
    np.stack: _stack,
    np.flip: lambda m, axis=None: movement.flip(m, axis=axis),
    np.roll: lambda a, shift, axis=None: movement.roll(a, shift, axis=axis),
    np.pad: padding.pad,
    np.clip: _clip,
    np.take: _take,
    np.where: _where,
    np.round: _round,
    np.around: _round,
    np.dot: _dot,
    np.zeros_like: _like(creation.zeros_like),
    np.ones_like: _like(creation.ones_like),
    np.full_like: _like(creation.full_like),
    np.shape: lambda a: tuple(public_dim(d) for d in as_node(a).shape),
    np.ndim: lambda a: as_node(a).type.rank,
    np.size: lambda a: public_dim(element_count(as_node(a).shape)),
}
