"""pad: constants, or a tensor's own elements, added before and after each axis.

Constants are a choice between the tensor and a literal by where the subscript lies. The modes that repeat the tensor's
own elements (edge, reflect, symmetric, wrap) read it at a folded subscript, for pads of any width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import SUPPORTED, DType, float64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import Expr, as_index, const, maximum, minimum
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, as_node, define_op, located, scalar_array
from jitflow.ops.axes import Dims, known_shape
from jitflow.ops.broadcast import reduce_sum_op
from jitflow.ops.creation import guard_not_negative
from jitflow.ops.elementwise import add_op
from jitflow.ops.movement import flip_op, reshape_to
from jitflow.ops.slicing import guarded, slice_axes
from jitflow.ops.testdata import Array, draw
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import Dim, Shape, TensorType, add_dims, as_shape, dim_of, shape_text, unify

Number: TypeAlias = bool | int | float
Widths: TypeAlias = tuple[tuple[Dim, Dim], ...]

#: The modes of `pad` besides "constant".
MODES = ("edge", "reflect", "symmetric", "wrap")


def _padded(x: TensorType, widths: Widths) -> TensorType:
    if len(widths) != x.rank:
        raise ShapeError(f"pad: {len(widths)} pairs of widths for {shape_text(x.shape)}")
    for width in dict.fromkeys(width for pair in widths for width in pair):
        guard_not_negative(width, "pad")
    return TensorType(x.dtype, tuple(add_dims(a, n, b) for (a, b), n in zip(widths, x.shape, strict=True)))


# ---- constants


def _infer_pad(x: TensorType, *, widths: Widths, value: Number) -> TensorType:
    if isinstance(value, float) and not x.dtype.is_float:
        raise DTypeError(f"pad: {value} is no {x.dtype}")
    scalar_array(value, x.dtype)
    return _padded(x, widths)


def _element_pad(index: Index, x: Reader, *, widths: Widths, value: Number) -> Expr:
    subscripts: list[Expr] = []
    inside: list[Expr] = []
    for i, n, (before, after) in zip(index, x.type.shape, widths, strict=True):
        place = i - as_index(before)
        subscripts.append(place)
        if before != 0:
            inside.append(place >= 0)
        if after != 0:
            inside.append(place < as_index(n))
    return guarded(inside, x(*subscripts), const(value, x.type.dtype))


def _numpy_pad(x: Array, *, widths: Widths, value: Number, dims: Dims) -> Array:
    pairs = [known_shape(pair, dims) for pair in widths]
    out = np.full([a + n + b for n, (a, b) in zip(x.shape, pairs, strict=True)], value, x.dtype)
    out[tuple(np.s_[a : a + n] for n, (a, _) in zip(x.shape, pairs, strict=True))] = x
    return out


def _samples_pad(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, widths, value in (
        ((3,), ((1, 2),), 0.0),
        ((3,), ((0, 2),), -0.0),
        ((2, 3), ((1, 0), (0, 0)), 1.5),
        ((0, 2), ((1, 1), (2, 0)), 2.0),
        ((), (), 1.0),
        ((3,), ((0, 0),), 1.0),
        ((2,), ((1, 1),), float("nan")),
    ):
        yield Sample((draw(rng, float64, *shape),), {"widths": widths, "value": value})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 2, 3),), {"widths": ((1, 0), (0, 2)), "value": 1.0 if dtype.is_float else 1})
    yield Sample((draw(rng, float64, 2, 2),), {"widths": ((1, 1),), "value": 0.0}, ShapeError, r"1 pairs .* \(2, 2\)")


def _vjp_pad(ct: Node, out: Node, x: Node, *, widths: Widths, value: Number) -> tuple[Node]:
    return (slice_axes(ct, {k: (a, n, 1) for k, ((a, _), n) in enumerate(zip(widths, x.shape, strict=True))}),)


pad_op = define_op(
    "pad",
    infer=_infer_pad,
    element=_element_pad,
    numpy=_numpy_pad,
    vjp=_vjp_pad,
    samples=_samples_pad,
    exact=True,
    movement=True,
)


# ---- the tensor's own elements


def _infer_extend(x: TensorType, *, widths: Widths, mode: str) -> TensorType:
    if mode not in MODES:
        raise GraphError(f"pad: unknown mode {mode!r}; modes are 'constant', {', '.join(map(repr, MODES))}")
    out = _padded(x, widths)
    for axis, (n, pair) in enumerate(zip(x.shape, widths, strict=True)):
        if pair == (0, 0):
            continue
        what = f"pad: mode {mode!r} has nothing to repeat along axis {axis} of {shape_text(x.shape)}"
        if n == 0:
            raise ShapeError(f"{what}, which is empty")
        unify(dim_of(simplify_index(maximum(as_index(n), 1))), n, what)
    return out


def _folded(i: Expr, extent: Expr, before: Dim, mode: str) -> Expr:
    """Return the subscript that position `i` of an extended axis repeats."""
    place = i - as_index(before)
    if mode == "edge":
        return minimum(maximum(place, 0), extent - 1)
    if mode == "wrap":
        return place % extent
    # There and back again: the far half of a period counts down. "reflect" repeats neither end, so that an axis of one
    # element, which has nothing but ends, makes a period of its own.
    if mode == "symmetric":
        j = place % (extent * 2)
        return minimum(j, extent * 2 - 1 - j)
    j = place % maximum(extent * 2 - 2, 1)
    return minimum(j, extent * 2 - 2 - j)


def _element_extend(index: Index, x: Reader, *, widths: Widths, mode: str) -> Expr:
    """Read at the folded subscripts; along the last axis the middle has an arm of its own, which folds nothing."""
    subscripts = [
        i if pair == (0, 0) else _folded(i, as_index(n), pair[0], mode)
        for i, n, pair in zip(index, x.type.shape, widths, strict=True)
    ]
    if not widths or widths[-1] == (0, 0):
        return x(*subscripts)
    before, after = widths[-1]
    place = index[-1] - as_index(before)
    inside = [] if before == 0 else [place >= 0]
    inside += [] if after == 0 else [place < as_index(x.type.shape[-1])]
    return guarded(inside, x(*subscripts[:-1], place), x(*subscripts))


def _numpy_extend(x: Array, *, widths: Widths, mode: str, dims: Dims) -> Array:
    """Return what ``np.pad`` does, which knows no bfloat16: positions are padded, and elements taken there."""
    for axis, pair in enumerate(widths):
        before, after = known_shape(pair, dims)
        if before or after:
            x = x.take(np.pad(np.arange(x.shape[axis]), (before, after), mode=mode), axis)  # type: ignore[call-overload]
    return x


def _vjp_extend(ct: Node, out: Node, x: Node, *, widths: Widths, mode: str) -> tuple[Node]:
    """Add what came from the same element, one axis after the other."""
    for axis, pair in enumerate(widths):
        if pair != (0, 0):
            fold = _fold_edge if mode == "edge" else _fold_period
            ct = fold(ct, axis, x.shape[axis], pair, mode)
    return (ct,)


def _fold_edge(ct: Node, axis: int, n: Dim, pair: tuple[Dim, Dim], mode: str) -> Node:
    before, after = pair
    middle = slice_axes(ct, {axis: (before, n, 1)})
    for start, size, at_end in ((0, before, False), (add_dims(before, n), after, True)):
        total = _sum_of(slice_axes(ct, {axis: (start, size, 1)}), axis)
        rest = dim_of(simplify_index(as_index(n) - 1))
        middle = add_op(middle, _among_zeros(total, axis, (rest, 0) if at_end else (0, rest)))
    return middle


def _sum_of(x: Node, axis: int) -> Node:
    total = reduce_sum_op(x, axes=(axis,), dtype=x.dtype)
    return reshape_to(total, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))


def _among_zeros(x: Node, axis: int, pair: tuple[Dim, Dim]) -> Node:
    widths = tuple(pair if k == axis else (0, 0) for k in range(len(x.shape)))
    return pad_op(x, widths=widths, value=scalar_array(0, x.dtype).item())


def _fold_period(ct: Node, axis: int, n: Dim, pair: tuple[Dim, Dim], mode: str) -> Node:
    """Fill up to whole periods, add these up, and fold the way back onto the way there."""
    extent, before, after = as_index(n), as_index(pair[0]), as_index(pair[1])
    period = {"wrap": extent, "symmetric": extent * 2, "reflect": maximum(extent * 2 - 2, 1)}[mode]
    front = (before + period - 1) // period * period
    count = front + (extent + after + period - 1) // period * period
    missing = _dim(front - before), _dim(count - front - extent - after)
    whole = _among_zeros(ct, axis, missing)
    rows, size = _dim(count // period), _dim(period)
    stacked = reshape_to(whole, (*ct.shape[:axis], rows, size, *ct.shape[axis + 1 :]))
    total = reduce_sum_op(stacked, axes=(axis,), dtype=ct.dtype)
    if mode == "wrap":
        return total
    there = slice_axes(total, {axis: (0, n, 1)})
    # The way back is shorter by the ends that "reflect" does not repeat.
    skipped = 0 if mode == "symmetric" else 1
    length = _dim(maximum(extent - 2 * skipped, 0))
    back = flip_op(slice_axes(total, {axis: (n, length, 1)}), axes=(axis,))
    sides = (0, 0) if not skipped else (1, _dim(extent - 1 - as_index(length)))
    return add_op(there, _among_zeros(back, axis, sides))


def _dim(e: Expr) -> Dim:
    return dim_of(simplify_index(e))


def _samples_extend(rng: np.random.Generator) -> Iterator[Sample]:
    for mode in MODES:
        for n, pair in ((4, (2, 1)), (3, (7, 8)), (1, (2, 3)), (2, (0, 5)), (5, (4, 0)), (3, (0, 0))):
            yield Sample((draw(rng, float64, n),), {"widths": (pair,), "mode": mode})
        yield Sample((draw(rng, float64, 2, 0, 3),), {"widths": ((1, 2), (0, 0), (2, 2)), "mode": mode})
        yield Sample((draw(rng, float64, 2, 3),), {"widths": ((1, 2), (3, 0)), "mode": mode})
        yield Sample((draw(rng, float64),), {"widths": (), "mode": mode})
        empty = f"pad: mode '{mode}' has nothing to repeat along axis 0"
        yield Sample((draw(rng, float64, 0, 2),), {"widths": ((1, 0), (0, 0)), "mode": mode}, ShapeError, empty)
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3),), {"widths": ((2, 2),), "mode": "reflect"})
    yield Sample((draw(rng, float64, 2),), {"widths": ((1, 1),), "mode": "mean"}, GraphError, "unknown mode 'mean'")


extend_op: OpDef = define_op(
    "extend",
    infer=_infer_extend,
    element=_element_extend,
    numpy=_numpy_extend,
    vjp=_vjp_extend,
    samples=_samples_extend,
    exact=True,
    movement=True,
)


# ---- as users call it


@public()
def pad(x: Operand, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Node:
    """Return `x` with elements added before and after each axis, as ``np.pad`` does.

    Parameters
    ----------
    x
        Any tensor.
    pad_width
        ``((before, after), ...)`` by axis; one pair for all axes; or one number for all sides. Dims may be symbolic.
    mode
        ``"constant"``: `constant_values`. ``"edge"``: the outermost element. ``"wrap"``: the elements from the other
        end. ``"symmetric"``, ``"reflect"``: the elements mirrored, with and without the outermost one. Pads may be
        wider than the axis.
    constant_values
        The new elements: one Python scalar, or by axis and side as `pad_width`, converted to the dtype of `x`. In a
        corner the last axis counts.

    Raises
    ------
    ShapeError
        If the widths do not fit the axes, one is negative, or an empty axis is to be extended by its own elements. (A
        symbolic axis that turns out empty is a FeedError of the run.)
    GraphError
        For an unknown `mode`.
    DTypeError
        If `constant_values` are no numbers.
    OutOfBoundsError
        For an integer that the dtype of `x` cannot hold.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([1, 2, 3])
    >>> jf.interpret(jf.pad(x, (1, 2), constant_values=9), {})
    array([9, 1, 2, 3, 9, 9])
    >>> jf.interpret(jf.pad(x, 2, mode="reflect"), {})
    array([3, 2, 1, 2, 3, 2, 1])
    """
    node = as_node(x)
    widths = _pad_widths(pad_width, node.shape)
    if mode == "constant":
        values = _pad_values(constant_values, node.dtype, len(node.shape))
        return _pad_sides(node, widths, values)
    if all(pair == (0, 0) for pair in widths) and mode in MODES:
        return node
    return extend_op(node, widths=widths, mode=mode)


def _pad_sides(x: Node, widths: Widths, values: Sequence[tuple[Number, Number]]) -> Node:
    """Return `x` padded by constants: at once if they are all the same, else one side after the other."""
    sides = [(w, v) for pair, two in zip(widths, values, strict=True) for w, v in zip(pair, two, strict=True)]
    used = {scalar_array(v, x.dtype).tobytes(): v for w, v in sides if w != 0}
    if not used:
        return x
    if len(used) == 1:
        return pad_op(x, widths=widths, value=used.popitem()[1])
    for axis, ((before, after), (first, last)) in enumerate(zip(widths, values, strict=True)):
        for pair, value in (((before, 0), first), ((0, after), last)):
            if pair != (0, 0):
                around = tuple(pair if k == axis else (0, 0) for k in range(len(widths)))
                x = pad_op(x, widths=around, value=value)
    return x


def _by_side(given: Any, rank: int) -> list[list[Any]] | None:
    """Return `given` as a pair per axis, broadcast as numpy does; None if it does not fit."""
    rows = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(rows, (tuple, list)):
        return [[rows, rows] for _ in range(rank)]
    if not any(isinstance(r, (tuple, list)) for r in rows):
        # One pair for all axes; or one number.
        rows = [list(rows) * 2 if len(rows) == 1 else list(rows)]
    pairs = [list(r) if isinstance(r, (tuple, list)) else [r, r] for r in rows]
    pairs = [p * 2 if len(p) == 1 else p for p in pairs]
    if len(pairs) == 1:
        pairs = pairs * rank
    return pairs if len(pairs) == rank and all(len(p) == 2 for p in pairs) else None


def _pad_widths(pad_width: Any, shape: Shape) -> Widths:
    pairs = _by_side(pad_width, len(shape))
    if pairs is None:
        raise located(ShapeError(f"pad: pad_width {pad_width!r} does not fit the axes of {shape_text(shape)}"))
    try:
        before, after = (as_shape([p[side] for p in pairs]) for side in (0, 1))
    except ShapeError as error:
        raise located(ShapeError(f"pad: pad_width {pad_width!r}: {error}")) from None
    return tuple(zip(before, after, strict=True))


def _pad_values(given: Any, dtype: DType, rank: int) -> list[tuple[Number, Number]]:
    pairs = _by_side(given, rank)
    if pairs is None:
        raise located(ShapeError(f"pad: constant_values {given!r} do not fit {rank} axes"))
    return [(_pad_value(a, dtype), _pad_value(b, dtype)) for a, b in pairs]


def _pad_value(given: Any, dtype: DType) -> Number:
    """Return constant `given` as Python's number that `dtype` holds."""
    value = given.item() if isinstance(given, (np.generic, np.ndarray)) and given.size == 1 else given
    if not isinstance(value, (bool, int, float)):
        raise located(DTypeError(f"pad: constant_values must be numbers, got {given!r}"))
    if dtype.is_integer and isinstance(value, float):
        if not np.isfinite(value):
            raise located(DTypeError(f"pad: constant value {value} cannot be {dtype}"))
        value = int(value)
    held: Number = scalar_array(value, dtype).item()
    return held
