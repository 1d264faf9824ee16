"""Random numbers as functions of an explicit key: bits of Philox4x32-10, and distributions made of them.

A key is a 0-d uint64 tensor. Element p, in row-major order, of what a key gives is made of the 128 bits that Philox has
for the counter (p, purpose): nothing is drawn one after the other, so a result depends on key, shape and dtype alone,
not on threads, fusion or what else is drawn. Bits, and all that only compares or scales them, are the same interpreted
and compiled; `normal`, `exponential` and `categorical` take logarithms, which are as exact as those are.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import DType, as_dtype, float32, float64, int32, int64, uint8, uint16, uint32, uint64
from jitflow.errors import DTypeError, GraphError, OutOfBoundsError, ShapeError
from jitflow.expr import Expr, call, cast, const
from jitflow.graph import (
    Index,
    Node,
    OpDef,
    Operand,
    Reader,
    Sample,
    as_node,
    define_op,
    is_weak,
    located,
    make_constant,
    scalar_array,
)
from jitflow.ops.axes import Dims, as_flag, as_number, checked_shape, known_shape, normalize_axis, row_major
from jitflow.ops.broadcast import aligned, broadcast_to
from jitflow.ops.cast import as_dtype_of, cast_array
from jitflow.ops.compare import (
    bitwise_and_op,
    bitwise_left_shift_op,
    bitwise_or_op,
    bitwise_right_shift_op,
    greater_equal_op,
    less_op,
    where_op,
)
from jitflow.ops.creation import arange_op
from jitflow.ops.elementwise import add_op, multiply_op, negative_op
from jitflow.ops.exponential import log_op, sqrt_op
from jitflow.ops.index import take
from jitflow.ops.indexing import getitem
from jitflow.ops.joining import stack
from jitflow.ops.movement import moveaxis, reshape_to
from jitflow.ops.reduce import argmax
from jitflow.ops.slicing import slice_axes
from jitflow.ops.sorting import argsort
from jitflow.ops.testdata import Array
from jitflow.ops.trigonometric import cos_op
from jitflow.types import Shape, SymDim, TensorType, broadcast_shapes, dim_text, element_count, same_dim, shape_text

# ---- Philox

#: What the upper half of the counter says the bits are for, so that no two purposes share any.
_BITS, _SPLIT, _FOLD = range(3)

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_HALF, _WORD = np.uint64(32), np.uint64(0xFFFFFFFF)


def philox_words(low: Array, high: Array, key: Array) -> tuple[Array, Array, Array, Array]:
    """Return the four words of Philox4x32-10 for a counter of four words and a key of two, two in each uint64."""
    left, right = (low & _WORD, low >> _HALF), (high & _WORD, high >> _HALF)
    words = [*left, *right]
    keys = [key & _WORD, key >> _HALF]
    for step in range(10):
        if step:
            keys = [(k + w) & _WORD for k, w in zip(keys, _WEYL, strict=True)]
        products = [words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]]
        upper, lower = [p >> _HALF for p in products], [p & _WORD for p in products]
        words = [upper[1] ^ words[1] ^ keys[0], lower[1], upper[0] ^ words[3] ^ keys[1], lower[0]]
    return words[0], words[1], words[2], words[3]


def philox_half(low: Array, high: Array, key: Array, *, first: int) -> Array:
    """Return words `first` and ``first + 1`` of Philox as one uint64."""
    words = philox_words(*np.broadcast_arrays(low, high, key))
    return np.asarray(words[first] | words[first + 1] << _HALF)


def _samples_philox(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*shape: int) -> Array:
        return rng.integers(0, 2**64, shape, dtype=np.uint64)

    for shape in ((), (5,), (2, 37), (0,)):
        yield Sample((draw(*shape), draw(*shape), draw(*shape)))
    yield Sample((draw(4, 1), draw(3), draw()))
    extremes = np.array([0, 1, 2**32 - 1, 2**32, 2**64 - 1], np.uint64)
    yield Sample((extremes, extremes[::-1].copy(), np.roll(extremes, 2)))
    yield Sample((draw(2), draw(3), draw()), raises=ShapeError, match="do not broadcast")
    yield Sample((np.zeros(2, np.uint32),) * 3, raises=DTypeError, match="takes uint64, not uint32")


def _define_philox(name: str, first: int) -> OpDef:
    def infer(*types: TensorType) -> TensorType:
        for t in types:
            if t.dtype is not uint64:
                raise DTypeError(f"{name} takes uint64, not {t.dtype}; convert with astype")
        return TensorType(uint64, broadcast_shapes([t.shape for t in types], name))

    return define_op(
        name,
        infer=infer,
        element=lambda index, low, high, key: call(
            name, aligned(index, low), aligned(index, high), aligned(index, key)
        ),
        numpy=lambda low, high, key: philox_half(low, high, key, first=first),
        vjp=lambda ct, out, *inputs: (None, None, None),
        samples=_samples_philox,
        exact=True,
        costly=True,
    )


#: Words 0 and 1, and words 2 and 3, of Philox4x32-10 of counter words 0 and 1, counter words 2 and 3, and a key.
philox_low_op = _define_philox("philox_low", 0)
philox_high_op = _define_philox("philox_high", 2)


def _u64(value: int) -> Node:
    return make_constant(value, uint64)


def _packed(words: Node, count: int, what: str) -> list[Node]:
    """Return the uint64s that pairs of uint32s along the last axis, of size `count`, make."""
    if words.dtype is not uint32 or not words.shape or words.shape[-1] != count:
        raise located(DTypeError(f"philox: a {what} is uint32 of shape (..., {count}), got {words.type!r}"))
    parts = [as_dtype_of(getitem(words, (..., k)), uint64) for k in range(count)]
    upper = [bitwise_left_shift_op(w, _u64(32)) for w in parts[1::2]]
    return [bitwise_or_op(w, u) for w, u in zip(parts[::2], upper, strict=True)]


def philox(counter: Operand, key: Operand, /) -> Node:
    """Return the output of Philox4x32-10, the counter-based generator that everything here is made of.

    Parameters
    ----------
    counter
        A uint32 tensor of shape (..., 4).
    key
        A uint32 tensor of shape (..., 2); the other axes broadcast.

    Returns
    -------
    Node
        uint32 of shape (..., 4): 128 random bits for each counter and key.

    Raises
    ------
    DTypeError
        For another dtype, or last axes of another size.

    Examples
    --------
    >>> import jitflow as jf
    >>> zeros = jf.zeros((4,), dtype=jf.uint32)
    >>> [hex(word) for word in jf.interpret(jf.random.philox(zeros, zeros[:2]), {})]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    low, high = _packed(as_node(counter), 4, "counter")
    (packed,) = _packed(as_node(key), 2, "key")
    halves = [op(low, high, packed) for op in (philox_low_op, philox_high_op)]
    words = [as_dtype_of(w, uint32) for h in halves for w in (h, bitwise_right_shift_op(h, _u64(32)))]
    return stack(words, axis=-1)


# ---- keys


def key(seed: int | Operand, /) -> Node:
    """Return the key that `seed` names: what every function here draws from.

    Equal keys give equal numbers. Draw twice from one key only where that is meant, and make new keys by `split` or
    `fold_in`. A key is a 0-d uint64 tensor, so that it can be a placeholder and fed anew in each run.

    Parameters
    ----------
    seed
        A Python int, taken modulo 2**64, or a 0-d tensor of integers.

    Raises
    ------
    DTypeError
        For something else.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.random.bits(jf.random.key(0)), {}) == 0x6627E8D5  # the first published vector of Philox
    np.True_
    """
    if isinstance(seed, int) and not isinstance(seed, bool):
        return _u64(seed % 2**64)
    node = as_node(seed)
    if not node.dtype.is_integer or node.shape:
        raise located(DTypeError(f"key: a seed is an int or a 0-d tensor of integers, got {node.type!r}"))
    return as_dtype_of(node, uint64)


def _checked_key(given: Operand, what: str) -> Node:
    node = as_node(given)
    if node.dtype is not uint64 or node.shape:
        raise located(DTypeError(f"{what}: a key is a 0-d uint64 tensor, as key(seed) gives, got {node.type!r}"))
    return node


def split(key: Operand, n: Any = 2, /) -> Node:
    """Return `n` new keys, a vector, whose numbers have nothing to do with each other or with those of `key`.

    Parameters
    ----------
    key
        A key.
    n
        How many: an int or a dim.

    Raises
    ------
    DTypeError
        If `key` is none.
    ShapeError
        If `n` is no dim.

    Examples
    --------
    >>> import jitflow as jf
    >>> a, b = jf.random.split(jf.random.key(0))
    >>> a.shape, a.dtype
    ((), jitflow.uint64)
    """
    parent = _checked_key(key, "split")
    (count,) = checked_shape((n,))
    return philox_low_op(arange_op(start=0, step=1, size=count, dtype=uint64), _u64(_SPLIT), parent)


def fold_in(key: Operand, data: Operand, /) -> Node:
    """Return a new key made of `key` and the integers `data`: a step number, or the index of a layer.

    Parameters
    ----------
    key
        A key.
    data
        An int or a tensor of integers, taken modulo 2**64. The result has a key for each.

    Raises
    ------
    DTypeError
        If `key` is none, or `data` are no integers.

    Examples
    --------
    >>> import jitflow as jf
    >>> step = jf.placeholder("step", jf.int64, ())
    >>> jf.random.fold_in(jf.random.key(0), step).shape
    ()
    """
    parent = _checked_key(key, "fold_in")
    node = _u64(data % 2**64) if isinstance(data, int) and not isinstance(data, bool) else as_node(data)
    if not node.dtype.is_integer:
        raise located(DTypeError(f"fold_in: data are integers, got {node.dtype}"))
    return philox_low_op(as_dtype_of(node, uint64), _u64(_FOLD), parent)


# ---- bits


def _infer_bits(key: TensorType, *, shape: Shape, dtype: DType, half: int) -> TensorType:
    if key.dtype is not uint64 or key.shape:
        raise DTypeError(f"random_bits: a key is a 0-d uint64 tensor, as key(seed) gives, got {key!r}")
    if dtype not in _BIT_TYPES:
        raise DTypeError(f"random_bits are unsigned integers, not {dtype}")
    if half not in (0, 1):
        raise GraphError(f"random_bits: half must be 0 or 1, got {half}")
    return TensorType(dtype, shape)


def _element_bits(index: Index, key: Reader, *, shape: Shape, dtype: DType, half: int) -> Expr:
    position = cast(row_major(index, shape), uint64)
    of = position.type
    bits = call(_HALVES[half].name, position, const(_BITS, of), key())
    return cast(bits, dtype)


def _numpy_bits(key: Array, *, shape: Shape, dtype: DType, half: int, dims: Dims) -> Array:
    sizes = known_shape(shape, dims)
    positions = np.arange(math.prod(sizes), dtype=np.uint64).reshape(sizes)
    return cast_array(philox_half(positions, np.asarray(_BITS, np.uint64), key, first=2 * half), dtype)


def _samples_bits(rng: np.random.Generator) -> Iterator[Sample]:
    seed = np.array(2**63 + 12345, np.uint64)
    for shape in ((), (1,), (0, 3), (3, 5), (2, 3, 11)):
        yield Sample((seed,), {"shape": shape, "dtype": uint64, "half": 0})
    for dtype in _BIT_TYPES:
        yield Sample((seed,), {"shape": (37,), "dtype": dtype, "half": 1})
    attrs = {"shape": (3,), "dtype": uint32, "half": 0}
    yield Sample((seed.astype(np.int64),), attrs, DTypeError, "a key is a 0-d uint64 tensor")
    yield Sample((seed.reshape(1),), attrs, DTypeError, "a key is a 0-d uint64 tensor")
    yield Sample((seed,), attrs | {"dtype": int64}, DTypeError, "random_bits are unsigned integers, not int64")


_BIT_TYPES = (uint8, uint16, uint32, uint64)
_HALVES = (philox_low_op, philox_high_op)

#: The low bits of the first or second half of the bits of each element's counter.
random_bits_op: OpDef = define_op(
    "random_bits",
    infer=_infer_bits,
    element=_element_bits,
    numpy=_numpy_bits,
    vjp=lambda ct, out, key, **_: (None,),
    samples=_samples_bits,
    exact=True,
    costly=True,
)


def _bits(key: Node, shape: Shape, dtype: DType = uint64, half: int = 0) -> Node:
    return random_bits_op(key, shape=shape, dtype=dtype, half=half)


def bits(key: Operand, shape: Any = (), *, dtype: Any = uint32) -> Node:
    """Return random bits: every value of an unsigned integer is as likely.

    Parameters
    ----------
    key
        A key.
    shape
        A dim or a tuple of dims, which may be symbolic.
    dtype
        uint8, uint16, uint32 or uint64.

    Raises
    ------
    DTypeError
        If `key` is none, or for another dtype.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.random.bits(jf.random.key(0), ("n", 3)).shape
    (n, 3)
    """
    return _bits(_checked_key(key, "bits"), checked_shape(shape), _dtype(dtype))


def _dtype(dtype: Any) -> DType:
    try:
        return as_dtype(dtype)
    except DTypeError as error:
        raise located(error) from None


def _float_dtype(dtype: Any, what: str) -> DType:
    to = _dtype(dtype)
    if not to.is_float:
        raise located(DTypeError(f"{what} gives floats, not {to}"))
    return to


# ---- uniform

#: Bits of the significand: uniform numbers are multiples of two to the minus this.
_DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


def _fraction(key: Node, shape: Shape, dtype: DType, half: int = 0, word: int = 0) -> Node:
    """Return multiples of 2**-d in [0, 1), each as likely, d being the digits of `dtype`."""
    d = _DIGITS[dtype.name]
    drawn = _bits(key, shape, uint64, half)
    top = bitwise_right_shift_op(drawn, _u64(64 - d)) if dtype is float64 else _top_of_word(drawn, word, d)
    return multiply_op(_as_float(top, dtype), make_constant(2.0**-d, dtype))


def _top_of_word(drawn: Node, word: int, d: int) -> Node:
    """Return the upper `d` bits of 32-bit word 0 or 1 of a uint64."""
    if word:
        return bitwise_right_shift_op(drawn, _u64(64 - d))
    return bitwise_right_shift_op(bitwise_and_op(drawn, _u64(0xFFFFFFFF)), _u64(32 - d))


def _as_float(top: Node, dtype: DType) -> Node:
    """Return a uint64 of few bits as a float; by way of int32, which more processors convert in vectors."""
    return as_dtype_of(top if dtype is float64 else as_dtype_of(top, int32), dtype)


def _open_fraction(key: Node, shape: Shape, dtype: DType, half: int = 0) -> Node:
    """Return odd multiples of 2**-d in (0, 1), neither end included, so that their logarithms are finite."""
    d = _DIGITS[dtype.name]
    drawn = _bits(key, shape, uint64, half)
    top = bitwise_right_shift_op(drawn, _u64(65 - d)) if dtype is float64 else _top_of_word(drawn, 0, d - 1)
    whole = _as_float(top, dtype)
    return multiply_op(add_op(whole, make_constant(0.5, dtype)), make_constant(2.0 ** (1 - d), dtype))


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
    OutOfBoundsError
        Unless ``low < high`` in `dtype`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.random.uniform(jf.random.key(7), (3,), low=-1.0, dtype=jf.float32), {})
    array([ 0.90919423, -0.18607926, -0.98784983], dtype=float32)
    """
    to = _float_dtype(dtype, "uniform")
    fraction = _fraction(_checked_key(key, "uniform"), checked_shape(shape), to)
    if low == 0 and high == 1:
        return fraction
    ends = [scalar_array(as_number(v, "uniform: low and high"), to) for v in (low, high)]
    if not (np.isfinite(ends).all() and ends[0] < ends[1]):
        raise located(OutOfBoundsError(f"uniform: low must be less than high in {to}, got {low} and {high}"))
    first, last = (make_constant(e) for e in ends)
    span = make_constant(np.asarray(ends[1] - ends[0], to.np))
    below = make_constant(np.nextafter(ends[1], ends[0]))
    found = add_op(first, multiply_op(fraction, span))
    return where_op(greater_equal_op(found, last), below, found)


# ---- distributions


def _computed_in(dtype: DType) -> DType:
    """Return the dtype in which a distribution of `dtype` is computed, before it is rounded once."""
    return float32 if dtype.is_half else dtype


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
    drawn, sizes, of = _checked_key(key, "normal"), checked_shape(shape), _computed_in(to)
    u = _open_fraction(drawn, sizes, of)
    # Of float32 both come from one half of the bits, a word each; of float64 each takes a half.
    v = _fraction(drawn, sizes, of, half=1) if of is float64 else _fraction(drawn, sizes, of, word=1)
    radius = sqrt_op(multiply_op(log_op(u), make_constant(-2.0, of)))
    return as_dtype_of(multiply_op(radius, cos_op(multiply_op(v, make_constant(2 * math.pi, of)))), to)


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
    u = _open_fraction(_checked_key(key, "exponential"), checked_shape(shape), _computed_in(to))
    return as_dtype_of(negative_op(log_op(u)), to)


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
    chances = as_dtype_of(chances, _computed_in(chances.dtype))
    sizes = chances.shape if shape is None else checked_shape(shape)
    fraction = _fraction(_checked_key(key, "bernoulli"), sizes, chances.dtype)
    return less_op(fraction, broadcast_to(chances, sizes))


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
    OutOfBoundsError
        If there is no value, or one that `dtype` does not hold.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.random.randint(jf.random.key(0), 1, 7, (8,)), {})
    array([6, 3, 2, 3, 5, 1, 5, 1])
    """
    to = _dtype(dtype)
    if not to.is_integer:
        raise located(DTypeError(f"randint gives integers, not {to}"))
    try:
        first, last = operator.index(low), operator.index(high) - 1
    except TypeError:
        raise located(DTypeError(f"randint: low and high must be ints, got {low!r} and {high!r}")) from None
    if not to.min <= first <= last <= to.max:
        raise located(OutOfBoundsError(f"randint: no integers from {low} to {last} in {to}"))
    drawn, sizes, count = _checked_key(key, "randint"), checked_shape(shape), last - first + 1
    found = _bits(drawn, sizes)
    if count <= 1 << 32:
        found = _upper_product(found, count)
    else:
        found = _scaled_wide(found, _bits(drawn, sizes, half=1), count)
    return as_dtype_of(add_op(found, _u64(first % 2**64)), to)


def _word(x: Node, k: int) -> Node:
    """Return 32-bit word `k` of a uint64."""
    return bitwise_right_shift_op(x, _u64(32)) if k else bitwise_and_op(x, _u64(0xFFFFFFFF))


def _upper_product(x: Node, n: int) -> Node:
    """Return the upper 64 of the 128 bits of ``x * n``, for n up to 2**64."""
    if n == 1 << 64:
        return x
    low, high = _u64(n & 0xFFFFFFFF), _u64(n >> 32)
    if n <= 1 << 32:
        # Two products: (2**32 - 1) * 2**32 + (2**32 - 1) is the greatest sum.
        total = add_op(multiply_op(_word(x, 1), _u64(n)), _word(multiply_op(_word(x, 0), _u64(n)), 1))
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
    rest, part = multiply_op(upper, _u64(n)), _upper_product(lower, n)
    return add_op(whole, as_dtype_of(less_op(add_op(rest, part), rest), uint64))


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
    weights = moveaxis(
        as_dtype_of(node, _computed_in(node.dtype)), normalize_axis(axis, node.type.rank, "categorical"), -1
    )
    sizes = (*checked_shape(shape), *weights.shape)
    u = _open_fraction(_checked_key(key, "categorical"), sizes, weights.dtype)
    noise = negative_op(log_op(negative_op(log_op(u))))
    return argmax(add_op(broadcast_to(weights, sizes), noise), axis=-1)


# ---- orders


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
    drawn = _checked_key(key, "permutation")
    if isinstance(x, (int, str, SymDim)) and not isinstance(x, bool):
        (count,) = checked_shape((x,))
        return argsort(_bits(drawn, (count,)))
    node = as_node(x)
    k = normalize_axis(axis, len(node.shape), "permutation")
    return take(node, argsort(_bits(drawn, (node.shape[k],))), axis=k)


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
    drawn, sizes = _checked_key(key, "choice"), checked_shape(shape)
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
        order = argsort(_bits(drawn, (count,)))
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
