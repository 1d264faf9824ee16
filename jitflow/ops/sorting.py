"""Sorting along an axis: sort, argsort, top_k, searchsorted.

Order: ascending, NaN after all numbers, -0.0 equal to 0.0. Descending is the reverse of that, NaN first. All sorts are
stable, in both directions: equal elements, and NaNs, keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import DType, bool_, float32, float64, index, int32, int64, uint8, uint16, uint32, uint64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import Bitcast, Expr, as_index, cast, compare, const, const_index, maximum, minimum, select
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op, located
from jitflow.kernel import KernelBuilder, Memory
from jitflow.ops.axes import as_flag, as_int, normalize_axis
from jitflow.ops.cast import as_dtype_of, check_kinds, promoted
from jitflow.ops.index import take, take_along_axis_op
from jitflow.ops.movement import moveaxis
from jitflow.ops.scattering import segment_sum_along_axis_op
from jitflow.ops.slicing import slice_axes
from jitflow.ops.testdata import NUMBERS, SHAPES, Array, draw, edges, is_thorough
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import Dim, TensorType, dim_text, shape_text, unify

_UNSIGNED = {d.bits: d for d in (uint8, uint16, uint32, uint64)}

#: Runs of at most so many elements are sorted by insertion, then merged.
RUN = 8
#: Lines of at least so many elements, by bytes of one, are sorted byte by byte: fewer steps than merging takes, but
#: counters of 256 buckets for each byte. Not float64, all of whose bytes tend to differ: then merging is as quick.
RADIX_FROM = {1: 64, 2: 192, 4: 512, 8: 1024}
#: The `k` greatest are kept in order while an axis is read; of more, sorting all is less work at the worst.
KEPT = 64


def _precedes(a: Expr, b: Expr, descending: bool) -> Expr:
    """Return whether `a` must come before `b` even if it stands after it."""
    better = compare("gt" if descending else "lt", a, b)
    if not a.type.dtype.is_float:
        return better
    last, first = (a, b) if descending else (b, a)
    return better | (compare("ne", last, last) & compare("eq", first, first))


# ---- a line of elements in working memory


class _Line:
    """Elements being sorted: `values`, which are compared, and if wanted `places`, where they came from, move along."""

    def __init__(self, b: KernelBuilder, size: Dim | Expr, dtype: DType, *, with_places: bool) -> None:
        self.b = b
        self.values = b.memory("values", dtype, size)
        self.places = b.memory("places", int64, size) if with_places else None

    def read(self, name: str, k: Expr) -> tuple[Expr, ...]:
        """Return the element at `k`, bound."""
        value = self.b.let(name, self.values(k))
        return (value,) if self.places is None else (value, self.b.let(f"{name}_place", self.places(k)))

    def write(self, k: Expr, element: tuple[Expr, ...]) -> None:
        self.b.store(self.values, (k,), element[0])
        if self.places is not None:
            self.b.store(self.places, (k,), element[1])


def _choose(cond: Expr, a: tuple[Expr, ...], b: tuple[Expr, ...]) -> tuple[Expr, ...]:
    return tuple(select(cond, x, y) for x, y in zip(a, b, strict=True))


def _insert(
    b: KernelBuilder, line: _Line, bounds: tuple[Expr, Expr], most: int, new: tuple[Expr, ...], descending: bool
) -> None:
    """Put `new` in its place among the sorted elements from `bounds` to before another, which is lost.

    They are at most `most`, which tells the compiler that this takes no time to speak of.
    """
    low, here = bounds
    at = b.variable("at", index, here)
    with b.if_(_precedes(new[0], b.let("lowest", line.values(low)), descending)):
        with b.loop("t", minimum(here - low, most)) as t:
            line.write(here - t, line.read("old", here - t - 1))
        at.set(low)
    with b.otherwise(), b.while_(_precedes(new[0], line.values(at.get() - 1), descending)):
        # It stops at `low` at the latest, whose element is known not to move.
        hole = b.let("hole", at.get())
        line.write(hole, line.read("old", hole - 1))
        at.set(hole - 1)
    line.write(b.let("hole", at.get()), new)


def _insertion_sort(b: KernelBuilder, line: _Line, low: Expr, high: Expr, most: int, descending: bool) -> None:
    """Sort elements `low` .. `high` - 1 of `line`, which are at most `most`."""
    with b.loop("q", minimum(high - low - 1, most)) as q:
        here = b.let("here", low + q + 1)
        _insert(b, line, (low, here), most, line.read("new", here), descending)


def _merge(
    b: KernelBuilder, line: _Line, source: Expr, target: Expr, bounds: tuple[Expr, Expr, Expr], descending: bool
) -> None:
    """Merge two sorted neighbours, whose lengths differ by one at most, from half `source` of `line` into `target`.

    The least elements are found from the front while the greatest are found from the back: as many steps as the
    shorter one is long need no test for its end, and the two searches do not wait for each other.
    """
    low, middle, high = bounds
    steps = b.let("steps", minimum(middle - low, high - middle))
    left = b.variable("left", index, low)
    right = b.variable("right", index, middle)
    last_left = b.variable("last_left", index, middle - 1)
    last_right = b.variable("last_right", index, high - 1)
    one, zero = const_index(1), const_index(0)
    with b.loop("s", steps) as s:
        i, j = b.let("i", left.get()), b.let("j", right.get())
        x, y = line.read("x", source + i), line.read("y", source + j)
        is_right = b.let("is_right", _precedes(y[0], x[0], descending))
        line.write(target + low + s, _choose(is_right, y, x))
        moved = b.let("moved", select(is_right, one, zero))
        left.set(i + 1 - moved)
        right.set(j + moved)
        i, j = b.let("i", last_left.get()), b.let("j", last_right.get())
        x, y = line.read("x", source + i), line.read("y", source + j)
        is_left = b.let("is_left", _precedes(y[0], x[0], descending))
        line.write(target + high - 1 - s, _choose(is_left, x, y))
        moved = b.let("moved", select(is_left, one, zero))
        last_left.set(i - moved)
        last_right.set(j - 1 + moved)
    with b.if_(compare("lt", steps * 2, high - low)):
        is_left = compare("le", left.get(), last_left.get())
        rest = b.let("rest", select(is_left, left.get(), right.get()))
        line.write(target + low + steps, line.read("x", source + rest))


def _key(x: Expr, descending: bool) -> Expr:
    """Return an unsigned number for element `x`, in whose order elements are sorted."""
    dtype = x.type.dtype
    unsigned = _UNSIGNED[dtype.bits]
    top = 1 << (dtype.bits - 1)
    key: Expr = cast(x, unsigned) if dtype.is_integer else Bitcast(x, unsigned)
    if dtype.kind == "i":
        key = key ^ top
    elif dtype.is_float:
        key = select(compare("ge", key, top), ~key, key | top)
        key = select(compare("eq", x, 0), const(top, unsigned), key)  # zeros of both signs
        key = select(compare("ne", x, x), const(2 * top - 1, unsigned), key)
    return ~key if descending else key


def _radix_sort(b: KernelBuilder, line: _Line, n: Expr, key_of: Callable[[Expr], Expr]) -> Expr:
    """Sort as `_merge_sort` does, by the bytes of the keys, the lowest first: each pass keeps what it finds in order.

    A byte in which all keys agree needs no pass.
    """
    dtype = line.values.type.dtype
    count = dtype.itemsize
    buckets = b.memory("buckets", int64, count * 256)
    with b.independent(count * 256) as (k,):
        b.store(buckets, (k,), 0)
    with b.loop("k", n) as k:
        key = b.let("key", key_of(line.values(k)))
        for place in range(count):
            byte = b.let("byte", cast((key >> (8 * place)) & 255, index))
            b.store(buckets, (byte + 256 * place,), buckets(byte + 256 * place) + 1)
    source = b.variable("source", index, 0)
    with b.loop("number", count) as number:
        shift = b.let("shift", cast(number * 8, _UNSIGNED[dtype.bits]))
        here = b.let("here", source.get())

        def bucket_of(value: Expr) -> Expr:
            return b.let("bucket", number * 256 + cast((key_of(value) >> shift) & 255, index))

        some = b.let("some", line.values(here))
        with b.if_(compare("lt", buckets(bucket_of(some)), cast(n, int64))):
            begin = b.variable("begin", int64, 0)
            with b.loop("k", 256) as k:
                size = b.let("size", buckets(number * 256 + k))
                b.store(buckets, (number * 256 + k,), begin.get())
                begin.set(begin.get() + size)
            with b.loop("k", n) as k:
                element = line.read("element", here + k)
                bucket = bucket_of(element[0])
                at = b.let("at", buckets(bucket))
                b.store(buckets, (bucket,), at + 1)
                line.write(n - here + cast(at, index), element)
            source.set(n - here)
    return b.let("sorted", source.get())


def _sorted(
    b: KernelBuilder, line: _Line, n: Expr, dtype: DType, descending: bool, key_of: Callable[[Expr], Expr]
) -> Expr:
    """Sort the first `n` of 2 * `n` elements of `line`, which stand for some of `dtype`; return where they begin then.

    `descending` is the order of the elements themselves, `key_of` gives their keys.
    """
    if dtype is float64:
        return _merge_sort(b, line, n, descending)
    begin = b.variable("begin", index, 0)
    with b.if_(compare("lt", n, const_index(RADIX_FROM[dtype.itemsize]))):
        begin.set(_merge_sort(b, line, n, descending))
    with b.otherwise():
        begin.set(_radix_sort(b, line, n, key_of))
    return b.let("sorted", begin.get())


def _parts(b: KernelBuilder, n: Expr, level: Expr) -> Callable[[Expr], Expr]:
    """Return where each of ``2**level`` almost equal parts of `n` elements begins: at ``n * number // 2**level``."""

    count = b.let("count", cast(const(1, int64) << level, index))
    # By a division, from which the compiler sees that parts are long where n is.
    least = b.let("least", n // count)
    rest = b.let("rest", n - least * count)
    # n * number might overflow.
    return lambda number: number * least + cast(cast(number * rest, int64) >> level, index)


def _merge_sort(b: KernelBuilder, line: _Line, n: Expr, descending: bool) -> Expr:
    """Sort the first `n` of 2 * `n` elements of `line`, and return where the result begins: at 0 or `n`.

    Runs of almost equal length are merged in pairs, level by level, from one half to the other: n log n steps whatever
    the order was.
    """
    level = b.variable("level", int64, 0)
    with b.while_(compare("lt", cast(const(RUN, int64) << level.get(), index), n)):
        level.set(level.get() + 1)
    one = const(1, int64)
    source = b.variable("source", index, 0)
    begins = _parts(b, n, b.let("height", level.get()))
    with b.loop("r", cast(one << level.get(), index)) as r:
        _insertion_sort(b, line, b.let("low", begins(r)), b.let("high", begins(r + 1)), RUN, descending)
    with b.while_(compare("gt", level.get(), const(0, int64))):
        here = b.let("here", source.get())
        there = b.let("there", n - here)
        begins = _parts(b, n, b.let("height", level.get()))
        level.set(level.get() - 1)
        with b.loop("p", cast(one << level.get(), index)) as p:
            low, middle, high = (b.let(name, begins(p * 2 + k)) for k, name in enumerate(("low", "middle", "high")))
            _merge(b, line, here, there, (low, middle, high), descending)
        source.set(there)
    return b.let("sorted", source.get())


# ---- sort and argsort, along the last axis


def _sorted_type(what: str, x: TensorType, dtype: DType | None = None) -> TensorType:
    if not x.rank:
        raise ShapeError(f"{what}: a 0-d tensor has no axis to sort along")
    check_kinds(what, x.dtype, "if")
    return TensorType(dtype or x.dtype, x.shape)


def _kernel_sort(b: KernelBuilder, out: Memory, x: Memory, *, descending: bool) -> None:
    *before, n = x.type.shape
    with b.rows(*before) as i:
        line = _Line(b, as_index(n) * 2, x.type.dtype, with_places=False)
        with b.independent(n) as (k,):
            b.store(line.values, (k,), x(*i, k))
        start = _sorted(b, line, as_index(n), x.type.dtype, descending, lambda value: _key(value, descending))
        with b.independent(n) as (k,):
            b.store(out, (*i, k), line.values(start + k))


def _kernel_argsort(b: KernelBuilder, out: Memory, x: Memory, *, descending: bool) -> None:
    *before, n = x.type.shape
    with b.rows(*before) as i:
        # The elements themselves are not wanted, so their keys are sorted, which take one comparison.
        line = _Line(b, as_index(n) * 2, _UNSIGNED[x.type.dtype.bits], with_places=True)
        assert line.places is not None
        with b.independent(n) as (k,):
            b.store(line.values, (k,), _key(b.let("value", x(*i, k)), descending))
            b.store(line.places, (k,), cast(k, int64))
        start = _sorted(b, line, as_index(n), x.type.dtype, False, lambda key: key)
        with b.independent(n) as (k,):
            b.store(out, (*i, k), line.places(start + k))


def _numpy_argsort(x: Array, *, descending: bool) -> Any:
    if not descending:
        return np.argsort(x, axis=-1, kind="stable")
    # Ascending from the other end: equal elements are then found in reverse, which the last step undoes.
    backwards = np.argsort(x[..., ::-1], axis=-1, kind="stable")
    return x.shape[-1] - 1 - backwards[..., ::-1]


def _samples_sort(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in SHAPES[1:]:
        for descending in (False, True):
            yield Sample((draw(rng, float64, *shape),), {"descending": descending})
    for dtype in NUMBERS:
        many = np.stack([rng.permutation(np.tile(edges(dtype), 3)) for _ in range(3)])
        for descending in (False, True) if is_thorough(dtype, NUMBERS) else (dtype.is_signed,):
            yield Sample((many,), {"descending": descending}, smooth=False)
    yield Sample((draw(rng, int32, 1000),), {"descending": False})
    yield Sample((draw(rng, float32),), {"descending": False}, ShapeError, "a 0-d tensor has no axis")
    yield Sample((draw(rng, float32, 3) > 0,), {"descending": False}, DTypeError, "not bool; convert")


def _infer_argsort(x: TensorType, *, descending: bool) -> TensorType:
    return _sorted_type("argsort", x, int64)


argsort_op: OpDef = define_op(
    "argsort",
    infer=_infer_argsort,
    kernel=_kernel_argsort,
    numpy=_numpy_argsort,
    vjp=lambda ct, out, x, *, descending: (None,),
    samples=_samples_sort,
    exact=True,
)


def _vjp_sort(ct: Node, out: Node, x: Node, *, descending: bool) -> tuple[Node]:
    axis = len(x.shape) - 1
    places = argsort_op(x, descending=descending)
    return (segment_sum_along_axis_op(ct, places, axis=axis, size=x.shape[axis]),)


def _infer_sort(x: TensorType, *, descending: bool) -> TensorType:
    return _sorted_type("sort", x)


sort_op: OpDef = define_op(
    "sort",
    infer=_infer_sort,
    kernel=_kernel_sort,
    numpy=lambda x, *, descending: np.take_along_axis(x, _numpy_argsort(x, descending=descending), axis=-1),
    vjp=_vjp_sort,
    samples=_samples_sort,
    exact=True,
)


def _along_last(x: Operand, axis: Any, what: str) -> tuple[Node, int]:
    """Return `x` with `axis` moved to the end, and where it was."""
    node = as_node(x)
    if not node.shape:
        raise located(ShapeError(f"{what}: a 0-d tensor has no axis to sort along"))
    k = normalize_axis(axis, len(node.shape), what)
    return moveaxis(node, k, -1) if k != len(node.shape) - 1 else node, k


def _back(x: Node, axis: int) -> Node:
    return moveaxis(x, -1, axis) if axis != len(x.shape) - 1 else x


def _comparable(x: Node) -> Node:
    """Return `x` in a dtype that is sorted as numbers: false before true."""
    return as_dtype_of(x, uint8) if x.dtype.is_bool else x


@public()
def sort(x: Operand, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Node:
    """Return the elements of `x` in ascending order along `axis`, NaN last.

    Parameters
    ----------
    x
        Any tensor with an axis. Of bool, False comes before True.
    axis
        The axis.
    descending
        Whether the order is reversed: the greatest first, NaN before it.
    stable
        Sorting is always stable, so that -0.0 and 0.0 keep their order; the argument is the standard's.

    Raises
    ------
    ShapeError
        For a 0-d tensor.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sort(jf.constant([3.0, float("nan"), 1.0])), {})
    array([ 1.,  3., nan])
    """
    moved, k = _along_last(x, axis, "sort")
    out = sort_op(_comparable(moved), descending=as_flag(descending, "sort: descending"))
    return _back(as_dtype_of(out, moved.dtype), k)


@public()
def argsort(x: Operand, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Node:
    """Return the positions along `axis`, as int64, of the elements of `x` in ascending order, NaN last.

    Equal elements are listed in their order, in both directions. Arguments as for `sort`.

    Raises
    ------
    ShapeError
        For a 0-d tensor.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.argsort(jf.constant([3, 1, 3, 2]), descending=True), {})
    array([0, 2, 3, 1])
    """
    moved, k = _along_last(x, axis, "argsort")
    order = as_flag(descending, "argsort: descending")
    return _back(argsort_op(_comparable(moved), descending=order), k)


# ---- top_k


def _infer_top_k(x: TensorType, *, k: int, largest: bool) -> TensorType:
    x = _sorted_type("top_k", x, int64)
    n = x.shape[-1]
    if k < 1:
        raise ShapeError(f"top_k: k must be positive, got {k}")
    if isinstance(n, int) and n < k:
        raise ShapeError(f"top_k: there are no {k} elements along an axis of size {n}")
    unify(simplify_index(maximum(as_index(n), k)), n, f"top_k: {k} elements along an axis of size {dim_text(n)}")
    return TensorType(int64, (*x.shape[:-1], k))


def _kernel_top_k(b: KernelBuilder, out: Memory, x: Memory, *, k: int, largest: bool) -> None:
    """Keep the best so far in order: an element is compared with the last of them, and mostly not kept."""
    *before, n = x.type.shape
    zero, last = const_index(0), const_index(k - 1)
    with b.rows(*before) as i:
        best = _Line(b, k, x.type.dtype, with_places=True)
        with b.loop("q", k) as q:
            best.write(q, (x(*i, q), cast(q, int64)))
        _insertion_sort(b, best, zero, const_index(k), k, largest)
        with b.loop("q", as_index(n) - k) as q:
            new = b.let("new", x(*i, q + k))
            with b.if_(_precedes(new, best.values(last), largest)):
                _insert(b, best, (zero, last), k, (new, b.let("place", cast(q + k, int64))), largest)
        assert best.places is not None
        with b.independent(k) as (q,):
            b.store(out, (*i, q), best.places(q))


def _samples_top_k(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, k in (((1,), 1), ((7,), 7), ((3, 5), 2), ((2, 0, 3), 1), ((0, 3), 2), ((2, 40), 9)):
        for largest in (False, True):
            yield Sample((draw(rng, float64, *shape),), {"k": k, "largest": largest})
    for dtype in NUMBERS:
        many = np.stack([rng.permutation(np.tile(edges(dtype), 3)) for _ in range(3)])
        for largest in (False, True) if is_thorough(dtype, NUMBERS) else (dtype.is_signed,):
            yield Sample((many,), {"k": 11, "largest": largest}, smooth=False)
    x = draw(rng, float32, 2, 3)
    yield Sample((x,), {"k": 4, "largest": True}, ShapeError, "no 4 elements along an axis of size 3")
    yield Sample((x,), {"k": 0, "largest": True}, ShapeError, "k must be positive, got 0")
    yield Sample((x > 0,), {"k": 1, "largest": True}, DTypeError, "not bool")


#: The positions of the first `k` elements of the sorted last axis.
top_k_op: OpDef = define_op(
    "top_k",
    infer=_infer_top_k,
    kernel=_kernel_top_k,
    numpy=lambda x, *, k, largest: _numpy_argsort(x, descending=largest)[..., :k],
    vjp=lambda ct, out, x, *, k, largest: (None,),
    samples=_samples_top_k,
    exact=True,
)


@public()
def top_k(x: Operand, k: int, /, *, axis: int = -1, largest: bool = True) -> tuple[Node, Node]:
    """Return the `k` greatest elements along `axis`, the greatest first, and their positions.

    Parameters
    ----------
    x
        Any tensor with an axis.
    k
        How many, a number known when the graph is built.
    axis
        The axis.
    largest
        False for the least elements, the least first. NaN counts as greater than every number.

    Returns
    -------
    tuple
        The elements and, as int64, their positions; of equal elements the first ones, in their order.

    Raises
    ------
    ShapeError
        If the axis has fewer than `k` elements, or for a 0-d tensor.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> values, places = jf.top_k(jf.constant([3, 1, 4, 1, 5]), 2)
    >>> jf.interpret([values, places], {})
    [array([5, 4]), array([4, 2])]
    """
    moved, at = _along_last(x, axis, "top_k")
    count, last = as_int(k, "top_k: k"), len(moved.shape) - 1
    down = as_flag(largest, "top_k: largest")
    keys = _comparable(moved)
    if 0 < count <= KEPT:
        places = top_k_op(keys, k=count, largest=down)
    else:
        n = moved.shape[last]
        if count < 0 or (isinstance(n, int) and n < count):
            raise located(ShapeError(f"top_k: there are no {count} elements along an axis of size {dim_text(n)}"))
        places = slice_axes(argsort_op(keys, descending=down), {last: (0, count, 1)})
    return _back(take_along_axis_op(moved, places, axis=last), at), _back(places, at)


# ---- searchsorted


def _infer_searchsorted(x1: TensorType, x2: TensorType, *, side: str) -> TensorType:
    if side not in ("left", "right"):
        raise GraphError(f"searchsorted: side must be 'left' or 'right', got {side!r}")
    if x1.rank != 1:
        raise ShapeError(f"searchsorted: x1 must have one axis, got shape {shape_text(x1.shape)}")
    if x1.dtype is not x2.dtype or x1.dtype.is_bool:
        raise DTypeError(f"searchsorted takes numbers of one dtype, not {x1.dtype} and {x2.dtype}")
    return TensorType(int64, x2.shape)


def _kernel_searchsorted(b: KernelBuilder, out: Memory, x1: Memory, x2: Memory, *, side: str) -> None:
    """Find the bits of each place, the highest first: the same steps for all elements, so vectors search together."""
    (n,), shape = x1.type.shape, x2.type.shape
    one = const(1, int64)
    with b.rows(*shape[:-1], columns=shape[-1:]) as i:
        if isinstance(n, int):
            bits: Expr = const_index(n.bit_length())
        else:
            count = b.variable("count", int64, 0)
            with b.while_(compare("le", one << count.get(), cast(as_index(n), int64))):
                count.set(count.get() + 1)
            bits = b.let("bits", cast(count.get(), index))
        with b.columns() as j:
            wanted = b.let("wanted", x2(*i, *j))
            place = b.variable("place", index, 0)
            with b.loop("s", bits) as s:
                next_ = b.let("next", place.get() + cast(one << cast(bits - 1 - s, int64), index))
                # All elements before the place come before `wanted`.
                here = x1(next_ - 1)
                comes = _precedes(here, wanted, False) if side == "left" else ~_precedes(wanted, here, False)
                is_before = select(compare("le", next_, as_index(n)), comes, const(False, bool_))
                place.set(select(b.let("is_before", is_before), next_, place.get()))
            b.store(out, (*i, *j), cast(place.get(), int64))


def _numpy_searchsorted(x1: Array, x2: Array, *, side: str) -> Array:
    """Search by the bits of the place, as the kernel states it: defined also where `x1` is not sorted.

    (Where it is, this is numpy's answer; where not, numpy's own depends on the order in which it happens to look.)
    """

    def precedes(a: Array, b: Array) -> Array:
        return np.asarray((a < b) | (a == a) & (b != b))

    n = len(x1)
    place: Array = np.zeros(x2.shape, np.int64)
    for s in reversed(range(n.bit_length())):
        next_ = place + (1 << s)
        here = x1[np.minimum(next_, n) - 1]
        comes = precedes(here, x2) if side == "left" else ~precedes(x2, here)
        place = np.asarray(np.where((next_ <= n) & comes, next_, place))
    return place


def _samples_searchsorted(rng: np.random.Generator) -> Iterator[Sample]:
    for side in ("left", "right"):
        for n, shape in ((0, (3,)), (1, ()), (9, (2, 5)), (40, (0, 2)), (7, (100,))):
            yield Sample((np.sort(draw(rng, float64, n)), draw(rng, float64, *shape)), {"side": side})
        for dtype in NUMBERS:
            e = edges(dtype)
            order = np.argsort(e.astype(np.float32) if dtype.is_half else e)  # numpy does not sort bfloat16
            yield Sample((np.repeat(e[order], 2), e), {"side": side}, smooth=False)
    x = draw(rng, float32, 3)
    yield Sample((x, x), {"side": "middle"}, GraphError, "side must be 'left' or 'right', got 'middle'")
    yield Sample((x[None], x), {"side": "left"}, ShapeError, r"x1 must have one axis, got shape \(1, 3\)")
    yield Sample((x, x.astype(np.float64)), {"side": "left"}, DTypeError, "one dtype, not float32 and float64")


searchsorted_op: OpDef = define_op(
    "searchsorted",
    infer=_infer_searchsorted,
    kernel=_kernel_searchsorted,
    numpy=_numpy_searchsorted,
    vjp=lambda ct, out, x1, x2, *, side: (None, None),
    samples=_samples_searchsorted,
    exact=True,
)


@public()
def searchsorted(x1: Operand, x2: Operand, /, *, side: str = "left", sorter: Operand | None = None) -> Node:
    """Return where each element of `x2` has to be put into sorted `x1` so that it stays sorted, as int64.

    Parameters
    ----------
    x1
        A vector in ascending order, NaN last. If it is not sorted, the positions have no meaning.
    x2
        Any tensor; the two are promoted to one dtype.
    side
        ``"left"``: before all equal elements; ``"right"``: after them.
    sorter
        Positions that sort `x1`, as from `argsort`, if it is not sorted itself.

    Raises
    ------
    GraphError
        For an unknown side.
    ShapeError
        If `x1` is no vector.
    IndexRangeError
        While the graph runs, if `sorter` has an index outside `x1`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.searchsorted(jf.constant([1, 3, 3, 7]), jf.constant([3, 8])), {})
    array([1, 4])
    """
    line, wanted = promoted(x1, x2)
    if sorter is not None:
        line = take(line, sorter)
    return searchsorted_op(_comparable(line), _comparable(wanted), side=side)
