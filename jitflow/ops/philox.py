"""Philox4x32-10, a counter-based generator: keys, what is made of keys, and random bits.

A key is a 0-d uint64 tensor. Element p, in row-major order, of what a key gives is made of the 128 bits that Philox has
for the counter (p, purpose): nothing is drawn one after the other, so a result depends on key, shape and dtype alone,
not on threads, fusion or what else is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import DType, int64, uint8, uint16, uint32, uint64
from jitflow.errors import DTypeError, GraphError, ShapeError
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
    located,
    make_constant,
)
from jitflow.ops.axes import Dims, checked_shape, known_shape, row_major
from jitflow.ops.broadcast import aligned
from jitflow.ops.cast import as_dtype_of, cast_array, checked_dtype
from jitflow.ops.creation import arange_op
from jitflow.ops.indexing import getitem
from jitflow.ops.joining import stack
from jitflow.ops.logic import bitwise_left_shift_op, bitwise_or_op, bitwise_right_shift_op
from jitflow.ops.testdata import Array
from jitflow.public import public
from jitflow.types import Shape, TensorType, broadcast_shapes

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


def u64(value: int) -> Node:
    """Return `value` as a uint64 constant."""
    return make_constant(value, uint64)


def _packed(words: Node, count: int, what: str) -> list[Node]:
    """Return the uint64s that pairs of uint32s along the last axis, of size `count`, make."""
    if words.dtype is not uint32 or not words.shape or words.shape[-1] != count:
        raise located(DTypeError(f"philox: a {what} is uint32 of shape (..., {count}), got {words.type!r}"))
    parts = [as_dtype_of(getitem(words, (..., k)), uint64) for k in range(count)]
    upper = [bitwise_left_shift_op(w, u64(32)) for w in parts[1::2]]
    return [bitwise_or_op(w, u) for w, u in zip(parts[::2], upper, strict=True)]


@public("random")
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
    words = [as_dtype_of(w, uint32) for h in halves for w in (h, bitwise_right_shift_op(h, u64(32)))]
    return stack(words, axis=-1)


# ---- keys


@public("random")
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
        return u64(seed % 2**64)
    node = as_node(seed)
    if not node.dtype.is_integer or node.shape:
        raise located(DTypeError(f"key: a seed is an int or a 0-d tensor of integers, got {node.type!r}"))
    return as_dtype_of(node, uint64)


def checked_key(given: Operand, what: str) -> Node:
    """Return a key as a node; DTypeError if it is none."""
    node = as_node(given)
    if node.dtype is not uint64 or node.shape:
        raise located(DTypeError(f"{what}: a key is a 0-d uint64 tensor, as key(seed) gives, got {node.type!r}"))
    return node


@public("random")
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
    parent = checked_key(key, "split")
    (count,) = checked_shape((n,))
    return philox_low_op(arange_op(start=0, step=1, size=count, dtype=uint64), u64(_SPLIT), parent)


@public("random")
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
    parent = checked_key(key, "fold_in")
    node = u64(data % 2**64) if isinstance(data, int) and not isinstance(data, bool) else as_node(data)
    if not node.dtype.is_integer:
        raise located(DTypeError(f"fold_in: data are integers, got {node.dtype}"))
    return philox_low_op(as_dtype_of(node, uint64), u64(_FOLD), parent)


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


def draw_bits(key: Node, shape: Shape, dtype: DType = uint64, half: int = 0) -> Node:
    """Return the bits of `key` for each element of `shape`: of the first or the second half of its 128."""
    return random_bits_op(key, shape=shape, dtype=dtype, half=half)


@public("random")
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
    return draw_bits(checked_key(key, "bits"), checked_shape(shape), checked_dtype(dtype))
