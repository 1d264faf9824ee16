"""Distributions: random bits of a key into uniform and normal numbers, bools, integers, categories and orders.

What only compares or scales bits is the same interpreted and compiled; `normal`, `exponential` and `categorical` take
logarithms, which are as exact as those are.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from jitflow.dtypes import FLOAT_FORMATS, DType, float64, int32, int64, uint64
from jitflow.errors import DTypeError, GraphError, OutOfBoundsError, ShapeError
from jitflow.graph import (
    Node,
    Operand,
    as_node,
    is_weak,
    located,
    make_constant,
    scalar_array,
)
from jitflow.ops.axes import as_flag, as_number, checked_shape, normalize_axis
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.cast import as_dtype_of, checked_dtype
from jitflow.ops.compare import greater_equal_op, less_op
from jitflow.ops.elementwise import add_op, multiply_op, negative_op
from jitflow.ops.exponential import log_op, sqrt_op
from jitflow.ops.index import take
from jitflow.ops.logic import bitwise_and_op, bitwise_right_shift_op
from jitflow.ops.movement import moveaxis, reshape_to
from jitflow.ops.philox import checked_key, draw_bits, u64
from jitflow.ops.reduce import argmax
from jitflow.ops.selection import where_op
from jitflow.ops.slicing import slice_axes
from jitflow.ops.sorting import argsort
from jitflow.ops.trigonometric import cos_op
from jitflow.ops.widen import widened_dtype, widened_input
from jitflow.public import public
from jitflow.types import Shape, SymDim, dim_text, element_count, same_dim, shape_text

# ---- uniform


def _float_dtype(dtype: Any, what: str) -> DType:
    to = checked_dtype(dtype)
    if not to.is_float:
        raise located(DTypeError(f"{what} gives floats, not {to}"))
    return to


def _fraction(key: Node, shape: Shape, dtype: DType, half: int = 0, word: int = 0) -> Node:
    """Return multiples of 2**-d in [0, 1), each as likely, d being the digits of `dtype`."""
    d = FLOAT_FORMATS[dtype].digits
    drawn = draw_bits(key, shape, uint64, half)
    top = bitwise_right_shift_op(drawn, u64(64 - d)) if dtype is float64 else _top_of_word(drawn, word, d)
    return multiply_op(_as_float(top, dtype), make_constant(2.0**-d, dtype))


def _top_of_word(drawn: Node, word: int, d: int) -> Node:
    """Return the upper `d` bits of 32-bit word 0 or 1 of a uint64."""
    if word:
        return bitwise_right_shift_op(drawn, u64(64 - d))
    return bitwise_right_shift_op(bitwise_and_op(drawn, u64(0xFFFFFFFF)), u64(32 - d))


def _as_float(top: Node, dtype: DType) -> Node:
    """Return a uint64 of few bits as a float; by way of int32, which more processors convert in vectors."""
    return as_dtype_of(top if dtype is float64 else as_dtype_of(top, int32), dtype)


def _open_fraction(key: Node, shape: Shape, dtype: DType, half: int = 0) -> Node:
    """Return odd multiples of 2**-d in (0, 1), neither end included, so that their logarithms are finite."""
    d = FLOAT_FORMATS[dtype].digits
    drawn = draw_bits(key, shape, uint64, half)
    top = bitwise_right_shift_op(drawn, u64(65 - d)) if dtype is float64 else _top_of_word(drawn, 0, d - 1)
    whole = _as_float(top, dtype)
    return multiply_op(add_op(whole, make_constant(0.5, dtype)), make_constant(2.0 ** (1 - d), dtype))


@public("random")
def uniform(key: Operand, shape: Any = (), *, low: float = 0.0, high: float = 1.0, dtype: Any = float64) -> Node:
    """Return numbers between `low` and `high`, never `high` itself.

    Between 0 and 1 these are the multiples of 2**-53 (float64), 2**-24 (float32), 2**-11 (float16) or 2**-8
    (bfloat16), each as likely. Otherwise they are ``low + u * (high - low)``, rounded, and kept below `high`.

    Parameters
    ----------
    key
        A key.
    shape
        A dim or a tuple of dims, which may be symbolic.
    low, high
        Finite Python numbers, `low` the lesser.
    dtype
        A floating dtype.

    Raises
    ------
    DTypeError
        If `key` is none, or for another dtype.
    GraphError
        Unless ``low < high`` in `dtype`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.random.uniform(jf.random.key(7), (3,), low=-1.0, dtype=jf.float32), {})
    array([ 0.90919423, -0.18607926, -0.98784983], dtype=float32)
    """
    to = _float_dtype(dtype, "uniform")
    fraction = _fraction(checked_key(key, "uniform"), checked_shape(shape), to)
    if low == 0 and high == 1:
        return fraction
    ends = [scalar_array(as_number(v, "uniform: low and high"), to) for v in (low, high)]
    if not (np.isfinite(ends).all() and ends[0] < ends[1]):
        raise located(GraphError(f"uniform: low must be less than high in {to}, got {low} and {high}"))
    first, last = (make_constant(e) for e in ends)
    span = make_constant(np.asarray(ends[1] - ends[0], to.np))
    below = make_constant(np.nextafter(ends[1], ends[0]))
    found = add_op(first, multiply_op(fraction, span))
    return where_op(greater_equal_op(found, last), below, found)


# ---- distributions


@public("random")
def normal(key: Operand, shape: Any = (), *, dtype: Any = float64) -> Node:
    """Return numbers of the normal distribution with mean 0 and standard deviation 1.

    By Box and Muller's transform: ``sqrt(-2 log(u)) * cos(2 pi v)`` of two uniform numbers. The greatest magnitude is
    5.8 (float32, and the halves, which are computed in it) or 8.5 (float64).

    Parameters
    ----------
    key
        A key.
    shape
        A dim or a tuple of dims, which may be symbolic.
    dtype
        A floating dtype.

    Raises
    ------
    DTypeError
        If `key` is none, or for another dtype.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.random.normal(jf.random.key(0), ("batch", 8), dtype=jf.float32).shape
    (batch, 8)
    """
    to = _float_dtype(dtype, "normal")
    drawn, sizes, of = checked_key(key, "normal"), checked_shape(shape), widened_dtype(to)
    u = _open_fraction(drawn, sizes, of)
    # Of float32 both come from one half of the bits, a word each; of float64 each takes a half.
    v = _fraction(drawn, sizes, of, half=1) if of is float64 else _fraction(drawn, sizes, of, word=1)
    radius = sqrt_op(multiply_op(log_op(u), make_constant(-2.0, of)))
    return as_dtype_of(multiply_op(radius, cos_op(multiply_op(v, make_constant(2 * math.pi, of)))), to)


@public("random")
def exponential(key: Operand, shape: Any = (), *, dtype: Any = float64) -> Node:
    """Return numbers of the exponential distribution with mean 1: ``-log(u)``. Arguments as for `normal`.

    Raises
    ------
    DTypeError
        If `key` is none, or for another dtype.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.random.exponential(jf.random.key(0), (4,)).dtype
    jitflow.float64
    """
    to = _float_dtype(dtype, "exponential")
    u = _open_fraction(checked_key(key, "exponential"), checked_shape(shape), widened_dtype(to))
    return as_dtype_of(negative_op(log_op(u)), to)


@public("random")
def bernoulli(key: Operand, p: Operand = 0.5, shape: Any = None) -> Node:
    """Return bools that are true with probability `p`.

    Parameters
    ----------
    key
        A key.
    p
        Probabilities: 0 or less is never, 1 or more always true, NaN never.
    shape
        A dim or a tuple of dims to which `p` broadcasts; by default the shape of `p`.

    Raises
    ------
    DTypeError
        If `key` is none, or `p` is not floating.
    ShapeError
        If `p` does not broadcast to `shape`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.random.bernoulli(jf.random.key(0), 0.5, (5,)), {})
    array([False,  True,  True,  True, False])
    """
    chances = make_constant(float(p), float64) if is_weak(p) else as_node(p)
    if not chances.dtype.is_float:
        raise located(DTypeError(f"bernoulli: probabilities are floats, not {chances.dtype}"))
    chances = widened_input(chances)
    sizes = chances.shape if shape is None else checked_shape(shape)
    fraction = _fraction(checked_key(key, "bernoulli"), sizes, chances.dtype)
    return less_op(fraction, broadcast_to(chances, sizes))


@public("random")
def randint(key: Operand, low: int, high: int, shape: Any = (), *, dtype: Any = int64) -> Node:
    """Return integers from `low` up to but without `high`.

    A number of 64 random bits (128, if there are more than 2**32 values) is multiplied by the number of values, and
    what overflows is the result: the probabilities of two values differ by at most 2**-64 (2**-128).

    Parameters
    ----------
    key
        A key.
    low, high
        Python ints.
    shape
        A dim or a tuple of dims, which may be symbolic.
    dtype
        An integer dtype that holds all of the values.

    Raises
    ------
    DTypeError
        If `key` is none, or for another dtype.
    GraphError
        Unless ``low < high``.
    OutOfBoundsError
        If `dtype` does not hold all of the values.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.random.randint(jf.random.key(0), 1, 7, (8,)), {})
    array([6, 3, 2, 3, 5, 1, 5, 1])
    """
    to = checked_dtype(dtype)
    if not to.is_integer:
        raise located(DTypeError(f"randint gives integers, not {to}"))
    try:
        first, last = operator.index(low), operator.index(high) - 1
    except TypeError:
        raise located(DTypeError(f"randint: low and high must be ints, got {low!r} and {high!r}")) from None
    if first > last:
        raise located(GraphError(f"randint: low must be less than high, got {low} and {high}"))
    if first < to.min or last > to.max:
        raise located(OutOfBoundsError(f"randint: no integers from {low} to {last} in {to}"))
    drawn, sizes, count = checked_key(key, "randint"), checked_shape(shape), last - first + 1
    found = draw_bits(drawn, sizes)
    if count <= 1 << 32:
        found = _upper_product(found, count)
    else:
        found = _scaled_wide(found, draw_bits(drawn, sizes, half=1), count)
    return as_dtype_of(add_op(found, u64(first % 2**64)), to)


def _word(x: Node, k: int) -> Node:
    """Return 32-bit word `k` of a uint64."""
    return bitwise_right_shift_op(x, u64(32)) if k else bitwise_and_op(x, u64(0xFFFFFFFF))


def _upper_product(x: Node, n: int) -> Node:
    """Return the upper 64 of the 128 bits of ``x * n``, for n up to 2**64."""
    if n == 1 << 64:
        return x
    low, high = u64(n & 0xFFFFFFFF), u64(n >> 32)
    if n <= 1 << 32:
        # Two products: (2**32 - 1) * 2**32 + (2**32 - 1) is the greatest sum.
        total = add_op(multiply_op(_word(x, 1), u64(n)), _word(multiply_op(_word(x, 0), u64(n)), 1))
        return _word(total, 1)
    parts = [[multiply_op(_word(x, j), n_k) for n_k in (low, high)] for j in (0, 1)]
    middle = add_op(add_op(_word(parts[0][0], 1), _word(parts[0][1], 0)), _word(parts[1][0], 0))
    carried = add_op(add_op(_word(parts[0][1], 1), _word(parts[1][0], 1)), _word(middle, 1))
    return add_op(parts[1][1], carried)


def _scaled_wide(upper: Node, lower: Node, n: int) -> Node:
    """Return the upper 64 of the 192 bits of ``(upper * 2**64 + lower) * n``."""
    whole = _upper_product(upper, n)
    if n == 1 << 64:
        return whole
    rest, part = multiply_op(upper, u64(n)), _upper_product(lower, n)
    return add_op(whole, as_dtype_of(less_op(add_op(rest, part), rest), uint64))


@public("random")
def categorical(key: Operand, logits: Operand, /, *, axis: int = -1, shape: Any = ()) -> Node:
    """Return positions along `axis`, each with a probability in proportion to the exponential of its logit.

    The greatest of the logits plus Gumbel noise, ``-log(-log(u))``, is at a position with just that probability.

    Parameters
    ----------
    key
        A key.
    logits
        A floating tensor of logarithms of weights; -inf is never chosen, unless all are.
    axis
        The axis of the categories.
    shape
        Axes to put in front: so many positions are drawn for each distribution.

    Returns
    -------
    Node
        int64 of `shape` and the shape of `logits` without `axis`.

    Raises
    ------
    DTypeError
        If `key` is none, or `logits` are not floating.
    StaticIndexError
        If `axis` is not there.
    ShapeError
        If it is empty, or `shape` is none.

    Examples
    --------
    >>> import jitflow as jf
    >>> logits = jf.constant([0.0, 2.0, -jf.inf])
    >>> jf.interpret(jf.random.categorical(jf.random.key(0), logits, shape=(6,)), {})
    array([0, 1, 0, 1, 1, 0])
    """
    node = as_node(logits)
    if not node.dtype.is_float:
        raise located(DTypeError(f"categorical: logits are floats, not {node.dtype}"))
    weights = moveaxis(widened_input(node), normalize_axis(axis, node.type.rank, "categorical"), -1)
    sizes = (*checked_shape(shape), *weights.shape)
    u = _open_fraction(checked_key(key, "categorical"), sizes, weights.dtype)
    noise = negative_op(log_op(negative_op(log_op(u))))
    return argmax(add_op(broadcast_to(weights, sizes), noise), axis=-1)


# ---- orders


@public("random")
def permutation(key: Operand, x: Any, /, *, axis: int = 0) -> Node:
    """Return `x` with its parts along `axis` in random order, or the numbers 0 ... x - 1 so.

    The order is that of 64 random bits for each part; equal ones, which are one pair among 2**64, keep their order.

    Parameters
    ----------
    key
        A key.
    x
        An int or a dim: so many numbers, as int64. Or a tensor, one axis of which is put in another order.
    axis
        That axis.

    Raises
    ------
    DTypeError
        If `key` is none.
    StaticIndexError
        If the axis is not there.
    ShapeError
        For a number of numbers that is negative.

    Examples
    --------
    >>> import jitflow as jf
    >>> order = jf.interpret(jf.random.permutation(jf.random.key(0), 5), {})
    >>> sorted(order.tolist())
    [0, 1, 2, 3, 4]
    """
    drawn = checked_key(key, "permutation")
    if isinstance(x, (int, str, SymDim)) and not isinstance(x, bool):
        (count,) = checked_shape((x,))
        return argsort(draw_bits(drawn, (count,)))
    node = as_node(x)
    k = normalize_axis(axis, len(node.shape), "permutation")
    return take(node, argsort(draw_bits(drawn, (node.shape[k],))), axis=k)


@public("random")
def choice(key: Operand, a: Any, shape: Any = (), /, *, replace: bool = True, p: Operand | None = None) -> Node:
    """Return random elements of vector `a`, or of the numbers 0 ... a - 1.

    Parameters
    ----------
    key
        A key.
    a
        A positive int, or a vector.
    shape
        A dim or a tuple of dims; without replacement, of no more elements than `a` has, and known.
    replace
        Whether an element may be chosen again.
    p
        The probability of each element, as floats; None: each is as likely. Only with replacement. They need not add
        up to 1.

    Raises
    ------
    DTypeError
        If `key` is none, or `p` is not floating.
    ShapeError
        If `a` is empty or no vector, `p` does not fit it, or it has too few elements.
    GraphError
        If `p` is given without replacement.

    Examples
    --------
    >>> import jitflow as jf
    >>> drawn = jf.random.choice(jf.random.key(0), jf.constant([3, 5]), (100,), p=jf.constant([0.0, 1.0]))
    >>> set(jf.interpret(drawn, {}).tolist())
    {5}
    """
    drawn, sizes = checked_key(key, "choice"), checked_shape(shape)
    is_number = isinstance(a, int) and not isinstance(a, bool)
    values = None if is_number else as_node(a)
    count = a if values is None else values.shape[0] if len(values.shape) == 1 else 0
    if not isinstance(count, int) or count < 1:
        got = a if values is None else shape_text(values.shape)
        raise located(ShapeError(f"choice: a positive int or a vector of known size is needed, got {got}"))
    if not as_flag(replace, "choice: replace"):
        if p is not None:
            raise located(GraphError("choice: probabilities p are for drawing with replacement"))
        wanted = element_count(sizes)
        if not isinstance(wanted, int) or wanted > count:
            what = f"{dim_text(wanted)} elements of {count}"
            raise located(ShapeError(f"choice: {what} cannot be chosen without replacement"))
        order = argsort(draw_bits(drawn, (count,)))
        found = reshape_to(slice_axes(order, {0: (0, wanted, 1)}), sizes)
    elif p is None:
        found = randint(drawn, 0, count, sizes)
    else:
        chances = as_node(p)
        if not chances.dtype.is_float:
            raise located(DTypeError(f"choice: probabilities are floats, not {chances.dtype}"))
        if len(chances.shape) != 1 or same_dim(chances.shape[0], count) is False:
            raise located(
                ShapeError(f"choice: {count} probabilities are needed, got shape {shape_text(chances.shape)}")
            )
        found = categorical(drawn, log_op(chances), shape=sizes)
    return found if values is None else take(values, found, axis=0)
