"""Operators that only move elements: reshape, permute, slice, concatenate, pad, flip, roll.

Their element rules are index arithmetic, so that they cost nothing once fused. Where an element comes from one of
several places, the rule reads each in an arm of a ``Select`` on where the subscript lies.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import float32, float64, int32
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import Expr, Var, as_index, const, const_index, maximum, select
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, as_node, define_op, located, scalar_array
from jitflow.ops.axes import normalize_axes, normalize_axis, row_major
from jitflow.ops.cast import promoted
from jitflow.ops.testdata import Array, draw
from jitflow.simplify import evaluate_index, is_nonnegative, same_index, simplify_index
from jitflow.types import (
    Dim,
    Shape,
    TensorType,
    add_dims,
    as_shape,
    dim_text,
    element_count,
    fold_dim,
    mul_dims,
    same_dim,
    shape_text,
    unify,
)

Dims = Mapping[Var, int]


def known_shape(shape: Shape, dims: Dims) -> tuple[int, ...]:
    """Return `shape` for given values of the symbolic dims."""
    return tuple(d if isinstance(d, int) else evaluate_index(d, dims) for d in shape)


# ---- reshape


def _infer_reshape(x: TensorType, *, shape: Shape) -> TensorType:
    what = f"reshape of {shape_text(x.shape)} to {shape_text(shape)}"
    unify(element_count(x.shape), element_count(shape), what)
    return TensorType(x.dtype, shape)


def _element_reshape(index: Index, x: Reader, *, shape: Shape) -> Expr:
    """Read `x` where the element came from; only axes that were merged or split cost a product or a division."""
    source = x.type.shape
    if 0 in source or 0 in shape:
        return x(*(const_index(0) for _ in source))
    subscripts: list[Expr] = [const_index(0) for _ in source]
    for ins, outs in _matched_axes(source, shape):
        linear = row_major([index[k] for k in outs], tuple(shape[k] for k in outs))
        for place, k in enumerate(reversed(ins)):
            d = as_index(source[k])
            last = place == len(ins) - 1
            subscripts[k] = linear if last else linear % d
            linear = linear if last else linear // d
    return x(*subscripts)


def _matched_axes(source: Shape, target: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """Yield groups of axes of `source` and `target` that hold the same elements: their common refinement.

    Axes of literal size 1 hold nothing and are in no group.
    """
    ins = [k for k, d in enumerate(source) if d != 1]
    outs = [k for k, d in enumerate(target) if d != 1]
    left = _running_products([source[k] for k in ins])
    right = _running_products([target[k] for k in outs])
    i = j = 0
    for end_in, p in enumerate(left, 1):
        for end_out in range(j + 1, len(outs) + 1):
            if same_dim(p, right[end_out - 1]) is True:
                yield ins[i:end_in], outs[j:end_out]
                i, j = end_in, end_out
                break
    if i < len(ins):
        yield ins[i:], outs[j:]


def _running_products(dims: Sequence[Dim]) -> list[Dim]:
    out: list[Dim] = []
    for d in dims:
        out.append(mul_dims(out[-1], d) if out else d)
    return out


def _samples_reshape(rng: np.random.Generator) -> Iterator[Sample]:
    for before, after in (
        ((6,), (2, 3)),
        ((2, 3), (6,)),
        ((4, 3), (2, 6)),
        ((2, 3, 4), (2, 12)),
        ((2, 3, 4), (6, 4)),
        ((5,), (1, 5, 1)),
        ((1, 1), ()),
        ((), (1,)),
        ((0, 3), (3, 0, 2)),
        ((2, 15), (3, 2, 5)),
    ):
        yield Sample((draw(rng, float32, *before),), {"shape": after})
    yield Sample((draw(rng, float64, 2, 3),), {"shape": (7,)}, ShapeError, r"reshape of \(2, 3\) to \(7,\): 6 and 7")


reshape_op = define_op(
    "reshape",
    infer=_infer_reshape,
    element=_element_reshape,
    numpy=lambda x, *, shape, dims: x.reshape(known_shape(shape, dims)),
    vjp=lambda ct, out, x, *, shape: (_reshape_to(ct, x.shape),),
    samples=_samples_reshape,
    exact=True,
    movement=True,
)


def _reshape_to(x: Node, shape: Shape) -> Node:
    return x if x.shape == shape else reshape_op(x, shape=shape)


def reshape(x: Operand, /, shape: Any, *, copy: bool | None = None) -> Node:
    """Return the elements of `x`, in row-major order, in another shape.

    Parameters
    ----------
    x
        Any tensor.
    shape
        A dim or a tuple of dims. One of them may be -1: it follows from the number of elements.
    copy
        Accepted for the standard's sake; tensors are values.

    Raises
    ------
    ShapeError
        If the number of elements differs, or if -1 is used twice or leaves the dim undetermined.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.reshape(jf.placeholder("x", jf.float32, ("n", 6)), (-1, 2, 3)).shape
    (n, 2, 3)
    """
    node = as_node(x)
    items = list(shape) if isinstance(shape, (tuple, list)) else [shape]
    unknown = [k for k, d in enumerate(items) if not isinstance(d, (str, Expr)) and d is not None and _is_minus_one(d)]
    if not unknown:
        return _reshape_to(node, _located_shape(items))
    if len(unknown) > 1:
        raise located(ShapeError(f"reshape of {shape_text(node.shape)}: -1 stands for one dim only, got {items}"))
    rest = _located_shape([d for k, d in enumerate(items) if k not in unknown])
    items = list(rest)
    items.insert(unknown[0], _missing_dim(node.shape, rest))
    return _reshape_to(node, tuple(items))


def _is_minus_one(d: Any) -> bool:
    return hasattr(d, "__index__") and operator.index(d) == -1


def _located_shape(shape: Any) -> Shape:
    try:
        return as_shape(shape)
    except ShapeError as error:
        raise located(error) from None


def _missing_dim(shape: Shape, rest: Shape) -> Dim:
    """Return the dim that -1 stands for, so that `rest` and it have as many elements as `shape`."""
    total, known = element_count(shape), element_count(rest)
    if known == 0 or (isinstance(total, int) and isinstance(known, int) and total % known):
        what = f"reshape of {shape_text(shape)}"
        raise located(ShapeError(f"{what}: no dim for -1 gives as many elements next to {shape_text(rest)}"))
    return fold_dim(simplify_index(as_index(total) // as_index(known)))


def expand_dims(x: Operand, /, *, axis: int | tuple[int, ...] = 0) -> Node:
    """Return `x` with an axis of size 1 at place `axis` of the result (several places for a tuple).

    Raises StaticIndexError for a place outside the result's axes.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.expand_dims(jf.constant([1.0, 2.0]), axis=-1).shape
    (2, 1)
    """
    node = as_node(x)
    rank = len(node.shape) + (len(axis) if isinstance(axis, (tuple, list)) else 1)
    places = normalize_axes(axis, rank, "expand_dims")
    rest = iter(node.shape)
    return _reshape_to(node, tuple(1 if k in places else next(rest) for k in range(rank)))


def squeeze(x: Operand, /, axis: int | tuple[int, ...] | None = None) -> Node:
    """Return `x` without the axes `axis`, which must have size 1 (None: all axes that are known to).

    Raises ShapeError for an axis of another size. A symbolic axis is checked when the graph runs.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.squeeze(jf.constant([[1.0, 2.0]]), axis=0).shape
    (2,)
    """
    node = as_node(x)
    if axis is None:
        return _reshape_to(node, tuple(d for d in node.shape if d != 1))
    axes = normalize_axes(axis, len(node.shape), "squeeze")
    for k in axes:
        if same_dim(node.shape[k], 1) is False:
            what = f"squeeze: axis {k} of {shape_text(node.shape)}"
            raise located(ShapeError(f"{what} has size {dim_text(node.shape[k])}, not 1"))
    return _reshape_to(node, tuple(d for k, d in enumerate(node.shape) if k not in axes))


# ---- permute_dims


def _infer_permute(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    if sorted(axes) != list(range(x.rank)):
        raise ShapeError(f"permute_dims: axes {axes} are no permutation of the axes of {shape_text(x.shape)}")
    return TensorType(x.dtype, tuple(x.shape[a] for a in axes))


def _element_permute(index: Index, x: Reader, *, axes: tuple[int, ...]) -> Expr:
    subscripts = {a: index[k] for k, a in enumerate(axes)}
    return x(*(subscripts[k] for k in range(len(axes))))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _samples_permute(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in ((3, 5), (2, 3, 4), (), (0, 2)):
        x = draw(rng, float64, *shape)
        for axes in itertools.permutations(range(len(shape))):
            yield Sample((x,), {"axes": axes})
    for axes in ((0, 0), (0,), (0, 2)):
        yield Sample((draw(rng, float32, 2, 3),), {"axes": axes}, ShapeError, "permute_dims: axes .* no permutation")


permute_dims_op = define_op(
    "permute_dims",
    infer=_infer_permute,
    element=_element_permute,
    numpy=lambda x, *, axes: x.transpose(axes),
    vjp=lambda ct, out, x, *, axes: (permute_dims(ct, _inverse(axes)),),
    samples=_samples_permute,
    exact=True,
    movement=True,
)


def permute_dims(x: Operand, /, axes: Sequence[int]) -> Node:
    """Return `x` with its axes in the order `axes`: axis k of the result is axis ``axes[k]`` of `x`.

    Raises ShapeError unless `axes` names every axis once.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.permute_dims(jf.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    node = as_node(x)
    order = normalize_axes(tuple(axes), len(node.shape), "permute_dims")
    if order == tuple(range(len(node.shape))):
        return node
    return permute_dims_op(node, axes=order)


def matrix_transpose(x: Operand, /) -> Node:
    """Return `x` with its last two axes exchanged. Raises ShapeError below rank 2.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.matrix_transpose(jf.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """
    node = as_node(x)
    rank = len(node.shape)
    if rank < 2:
        raise located(ShapeError(f"matrix_transpose: at least two axes are needed, got {shape_text(node.shape)}"))
    return permute_dims(node, (*range(rank - 2), rank - 1, rank - 2))


def moveaxis(x: Operand, source: int | tuple[int, ...], destination: int | tuple[int, ...], /) -> Node:
    """Return `x` with axes `source` moved to places `destination`; the others keep their order.

    Raises StaticIndexError for axes that are not there, ShapeError if the two differ in length.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.moveaxis(jf.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    node = as_node(x)
    rank = len(node.shape)
    ins = normalize_axes(source, rank, "moveaxis")
    outs = normalize_axes(destination, rank, "moveaxis")
    if len(ins) != len(outs):
        raise located(ShapeError(f"moveaxis: {len(ins)} axes cannot go to {len(outs)} places"))
    rest = iter(k for k in range(rank) if k not in ins)
    to = dict(zip(outs, ins, strict=True))
    return permute_dims(node, tuple(to[k] if k in to else next(rest) for k in range(rank)))


# ---- slice and its transpose

Slices = tuple[Dim, ...]


def _infer_slice(x: TensorType, *, starts: Slices, sizes: Slices, steps: tuple[int, ...]) -> TensorType:
    """Check the slices; whether an element picked from a symbolic axis exists becomes a guard.

    Slices of unknown size come from `getitem`, which clamps them to the axis.
    """
    if not len(starts) == len(sizes) == len(steps) == x.rank:
        raise ShapeError(f"slice: one slice per axis of {shape_text(x.shape)} is needed")
    for axis, (start, size, step, n) in enumerate(zip(starts, sizes, steps, x.shape, strict=True)):
        if step == 0:
            raise ShapeError(f"slice: the step of axis {axis} is zero")
        if not isinstance(size, int) or size == 0:
            continue
        what = f"slice: axis {axis} of {shape_text(x.shape)} has no element"
        ends = (as_index(start), as_index(start) + (size - 1) * step)
        low, high = ends if step > 0 else ends[::-1]
        if is_nonnegative(-simplify_index(low) - 1) or is_nonnegative(simplify_index(high) - as_index(n)):
            raise ShapeError(f"{what} {dim_text(simplify_index(high if is_nonnegative(low) else low))}")
        unify(simplify_index(maximum(low, 0)), simplify_index(low), f"{what} {dim_text(low)}")
        unify(simplify_index(maximum(as_index(n), high + 1)), n, f"{what} {dim_text(simplify_index(high))}")
    return TensorType(x.dtype, sizes)


def _element_slice(index: Index, x: Reader, *, starts: Slices, sizes: Slices, steps: tuple[int, ...]) -> Expr:
    return x(*(as_index(start) + i * step for i, start, step in zip(index, starts, steps, strict=True)))


def _positions(
    starts: Slices, sizes: Slices, steps: tuple[int, ...], dims: Dims
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], ...]:
    """Return the positions that slices pick, by axis, ready to index an array."""
    picked = (
        start + np.arange(size, dtype=np.int64) * step
        for start, size, step in zip(known_shape(starts, dims), known_shape(sizes, dims), steps, strict=True)
    )
    return np.ix_(*picked)


def _numpy_slice(x: Array, *, starts: Slices, sizes: Slices, steps: tuple[int, ...], dims: Dims) -> Array:
    return np.asarray(x[_positions(starts, sizes, steps, dims)])


def _samples_slice(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, starts, sizes, steps in (
        ((7,), (2,), (3,), (1,)),
        ((7,), (6,), (4,), (-2,)),
        ((7,), (0,), (4,), (2,)),
        ((3, 5), (1, 4), (1, 5), (1, -1)),
        ((4, 6), (0, 1), (4, 0), (1, 3)),
        ((0, 2), (0, 0), (0, 2), (1, 1)),
        ((), (), (), ()),
    ):
        yield Sample((draw(rng, float64, *shape),), {"starts": starts, "sizes": sizes, "steps": steps})
    outside = r"slice: axis 0 of \(3,\) has no element"
    x = draw(rng, float32, 3)
    yield Sample((x,), {"starts": (1,), "sizes": (3,), "steps": (1,)}, ShapeError, outside + " 3")
    yield Sample((x,), {"starts": (1,), "sizes": (3,), "steps": (-1,)}, ShapeError, outside + " -1")
    yield Sample((x,), {"starts": (1,), "sizes": (2,), "steps": (0,)}, ShapeError, "step of axis 0 is zero")


slice_op: OpDef = define_op(
    "slice",
    infer=_infer_slice,
    element=_element_slice,
    numpy=_numpy_slice,
    vjp=lambda ct, out, x, *, starts, sizes, steps: (
        unslice_op(ct, shape=x.shape, starts=starts, steps=steps) if x.shape != ct.shape else ct,
    ),
    samples=_samples_slice,
    exact=True,
    movement=True,
)


def slice_axes(x: Node, slices: Mapping[int, tuple[Dim, Dim, int]]) -> Node:
    """Return `x` with axis k cut to the (start, size, step) of ``slices[k]``; other axes stay whole."""
    full = [slices.get(k, (0, n, 1)) for k, n in enumerate(x.shape)]
    if all(
        step == 1 and start == 0 and same_dim(size, n) for (start, size, step), n in zip(full, x.shape, strict=True)
    ):
        return x
    starts, sizes, steps = zip(*full, strict=True)
    return slice_op(x, starts=starts, sizes=sizes, steps=steps)


def _infer_unslice(x: TensorType, *, shape: Shape, starts: Slices, steps: tuple[int, ...]) -> TensorType:
    if not len(shape) == len(starts) == len(steps) == x.rank:
        raise ShapeError(f"unslice: one slice per axis of {shape_text(x.shape)} is needed")
    return TensorType(x.dtype, shape)


def _element_unslice(index: Index, x: Reader, *, shape: Shape, starts: Slices, steps: tuple[int, ...]) -> Expr:
    subscripts: list[Expr] = []
    inside: list[Expr] = []
    for i, start, step, n, size in zip(index, starts, steps, shape, x.type.shape, strict=True):
        distance = i - as_index(start) if step > 0 else as_index(start) - i
        place = distance // abs(step)
        subscripts.append(place)
        if start == 0 and step == 1 and same_dim(n, size):
            continue
        inside += [distance >= 0, place < as_index(size)]
        if abs(step) > 1:
            inside.append(_equal(distance % abs(step), 0))
    return _guarded(inside, x(*subscripts), const(0, x.type.dtype))


def _equal(a: Expr, b: int) -> Expr:
    # On indices: a <= b and a >= b would do, and eq() of two literals folds.
    return (a >= b) & (a <= b)


def _guarded(conditions: Iterable[Expr], value: Expr, otherwise: Expr) -> Expr:
    """Return `value` where all `conditions` hold, else `otherwise`. Literally true conditions vanish."""
    test: Expr | None = None
    for c in conditions:
        test = c if test is None else test & c
    return value if test is None else select(test, value, otherwise)


def _numpy_unslice(x: Array, *, shape: Shape, starts: Slices, steps: tuple[int, ...], dims: Dims) -> Array:
    out = np.zeros(known_shape(shape, dims), x.dtype)
    out[_positions(starts, x.shape, steps, dims)] = x
    return out


def _samples_unslice(rng: np.random.Generator) -> Iterator[Sample]:
    for size, shape, starts, steps in (
        ((3,), (7,), (2,), (1,)),
        ((4,), (7,), (6,), (-2,)),
        ((4,), (8,), (0,), (2,)),
        ((1, 5), (3, 5), (1, 4), (1, -1)),
        ((4, 0), (4, 6), (0, 1), (1, 3)),
        ((), (), (), ()),
    ):
        yield Sample((draw(rng, float64, *size),), {"shape": shape, "starts": starts, "steps": steps})
    yield Sample(
        (draw(rng, float32, 3),), {"shape": (3, 3), "starts": (0,), "steps": (1,)}, ShapeError, "one slice per axis"
    )


#: The transpose of `slice`: zeros of `shape`, with `x` at the places that the slice reads.
unslice_op: OpDef = define_op(
    "unslice",
    infer=_infer_unslice,
    element=_element_unslice,
    numpy=_numpy_unslice,
    vjp=lambda ct, out, x, *, shape, starts, steps: (slice_op(ct, starts=starts, sizes=x.shape, steps=steps),),
    samples=_samples_unslice,
    exact=True,
    movement=True,
)


# ---- concat and stack


def _infer_concat(*xs: TensorType, axis: int) -> TensorType:
    first = xs[0]
    what = f"concat of {' and '.join(shape_text(x.shape) for x in xs[:4])}{' ...' if len(xs) > 4 else ''}"
    if first.rank == 0:
        raise ShapeError(f"{what}: a 0-d tensor has no axis to join")
    shape = list(first.shape)
    for x in xs[1:]:
        if x.dtype is not first.dtype:
            raise DTypeError(f"{what}: dtypes {first.dtype} and {x.dtype} differ")
        if x.rank != first.rank:
            raise ShapeError(f"{what}: all must have the same rank")
        for k in range(first.rank):
            if k != axis:
                shape[k] = unify(shape[k], x.shape[k], f"{what}: axis {k}")
    shape[axis] = add_dims(*(x.shape[axis] for x in xs))
    return TensorType(first.dtype, tuple(shape))


def _element_concat(index: Index, *xs: Reader, axis: int) -> Expr:
    """Select by position, in a tree as deep as the logarithm of the number of inputs."""
    starts: list[Expr] = [const_index(0)]
    for x in xs:
        starts.append(simplify_index(starts[-1] + as_index(x.type.shape[axis])))
    parts = [k for k, x in enumerate(xs) if x.type.shape[axis] != 0] or [0]
    i = index[axis]

    def pick(low: int, high: int) -> Expr:
        if high - low == 1:
            k = parts[low]
            return xs[k](*index[:axis], i - starts[k], *index[axis + 1 :])
        middle = (low + high) // 2
        return select(i < starts[parts[middle]], pick(low, middle), pick(middle, high))

    return pick(0, len(parts))


def _vjp_concat(ct: Node, out: Node, *xs: Node, axis: int) -> tuple[Node, ...]:
    grads = []
    start: Dim = 0
    for x in xs:
        grads.append(slice_axes(ct, {axis: (start, x.shape[axis], 1)}))
        start = add_dims(start, x.shape[axis])
    return tuple(grads)


def _samples_concat(rng: np.random.Generator) -> Iterator[Sample]:
    for axis, shapes in (
        (0, ((3,), (2,))),
        (1, ((2, 1), (2, 3), (2, 2))),
        (0, ((0, 2), (1, 2), (0, 2))),
        (0, ((0,), (0,))),
        (0, ((4,),)),
        (0, ((1,),) * 9),
    ):
        yield Sample(tuple(draw(rng, float64, *s) for s in shapes), {"axis": axis})
    a = draw(rng, float32, 2, 3)
    yield Sample((a, draw(rng, float32, 3, 3)), {"axis": 1}, ShapeError, r"concat of \(2, 3\) and \(3, 3\): axis 0")
    yield Sample((a, draw(rng, float32, 3)), {"axis": 0}, ShapeError, "same rank")
    yield Sample((a, draw(rng, int32, 2, 3)), {"axis": 0}, DTypeError, "float32 and int32 differ")
    yield Sample((a[0, 0], a[0, 0]), {"axis": 0}, ShapeError, "0-d")


concat_op = define_op(
    "concat",
    infer=_infer_concat,
    element=_element_concat,
    numpy=lambda *xs, axis: np.concatenate(xs, axis),
    vjp=_vjp_concat,
    samples=_samples_concat,
    exact=True,
    movement=True,
)


def _sequence(xs: Any, what: str) -> tuple[Node, ...]:
    """Return the tensors of a tuple or list, promoted to one dtype."""
    if not isinstance(xs, (tuple, list)):
        raise located(DTypeError(f"{what}: a tuple or list of tensors is needed, got {type(xs).__name__}"))
    if not xs:
        raise located(ShapeError(f"{what}: at least one tensor is needed"))
    return promoted(*xs)


def concat(arrays: Sequence[Operand], /, *, axis: int | None = 0) -> Node:
    """Return tensors joined along `axis` (None: each flattened first), promoted to one dtype.

    Parameters
    ----------
    arrays
        A tuple or list of tensors that agree in all other axes.
    axis
        The axis to join; its size is the sum of theirs.

    Raises
    ------
    ShapeError
        If ranks or other axes differ, or there is nothing to join.

    Examples
    --------
    >>> import jitflow as jf
    >>> a, b = jf.placeholder("a", jf.float32, ("n",)), jf.placeholder("b", jf.float32, ("m",))
    >>> jf.concat([a, b]).shape
    (m + n,)
    """
    nodes = _sequence(arrays, "concat")
    if axis is None:
        nodes, axis = tuple(reshape(x, (-1,)) if 0 not in x.shape else _reshape_to(x, (0,)) for x in nodes), 0
    rank = len(nodes[0].shape)
    if rank:
        axis = normalize_axis(axis, rank, "concat")
    return nodes[0] if len(nodes) == 1 and rank else concat_op(*nodes, axis=axis)


def _infer_stack(*xs: TensorType, axis: int) -> TensorType:
    shape = list(xs[0].shape)
    for x in xs[1:]:
        if x.dtype is not xs[0].dtype:
            raise DTypeError(f"stack: dtypes {xs[0].dtype} and {x.dtype} differ")
        if x.rank != len(shape):
            raise ShapeError(f"stack: shapes {shape_text(shape)} and {shape_text(x.shape)} differ")
        what = f"stack of {shape_text(xs[0].shape)} and {shape_text(x.shape)}"
        shape = [unify(a, b, f"{what}: axis {k}") for k, (a, b) in enumerate(zip(shape, x.shape, strict=True))]
    return TensorType(xs[0].dtype, (*shape[:axis], len(xs), *shape[axis:]))


def _samples_stack(rng: np.random.Generator) -> Iterator[Sample]:
    for axis, count, shape in ((0, 2, (3,)), (1, 3, (3,)), (0, 4, ()), (2, 1, (2, 3)), (1, 2, (2, 0))):
        yield Sample(tuple(draw(rng, float64, *shape) for _ in range(count)), {"axis": axis})
    a, b = draw(rng, float64, 2), draw(rng, float64, 3)
    yield Sample((a, b), {"axis": 0}, ShapeError, r"stack of \(2,\) and \(3,\): axis 0")
    yield Sample((a, a.astype(np.int64)), {"axis": 0}, DTypeError, "float64 and int64 differ")


stack_op = define_op(
    "stack",
    infer=_infer_stack,
    expand=lambda *xs, axis: concat([expand_dims(x, axis=axis) for x in xs], axis=axis),
    numpy=lambda *xs, axis: np.stack(xs, axis),
    vjp=lambda ct, out, *xs, axis: tuple(
        _reshape_to(slice_axes(ct, {axis: (k, 1, 1)}), x.shape) for k, x in enumerate(xs)
    ),
    samples=_samples_stack,
    exact=True,
    movement=True,
)


def stack(arrays: Sequence[Operand], /, *, axis: int = 0) -> Node:
    """Return tensors of one shape joined along a new axis, promoted to one dtype.

    Raises ShapeError if their shapes differ, StaticIndexError for a place outside the result's axes.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.stack([jf.zeros((3,)), jf.ones((3,))], axis=-1).shape
    (3, 2)
    """
    nodes = _sequence(arrays, "stack")
    return stack_op(*nodes, axis=normalize_axis(axis, len(nodes[0].shape) + 1, "stack"))


# ---- flip and roll


def _element_flip(index: Index, x: Reader, *, axes: tuple[int, ...]) -> Expr:
    return x(
        *(as_index(n) - 1 - i if k in axes else i for k, (i, n) in enumerate(zip(index, x.type.shape, strict=True)))
    )


def _samples_flip(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axes in (((5,), (0,)), ((2, 3), (1,)), ((2, 3, 4), (0, 2)), ((0, 2), (0, 1)), ((), ())):
        yield Sample((draw(rng, float64, *shape),), {"axes": axes})


flip_op: OpDef = define_op(
    "flip",
    infer=lambda x, *, axes: x,
    element=_element_flip,
    numpy=lambda x, *, axes: np.flip(x, axes),
    vjp=lambda ct, out, x, *, axes: (flip_op(ct, axes=axes),),
    samples=_samples_flip,
    exact=True,
    movement=True,
)


def flip(x: Operand, /, *, axis: int | tuple[int, ...] | None = None) -> Node:
    """Return `x` with the order of elements along `axis` (None: every axis) reversed.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.flip(jf.constant([1, 2, 3])), {})
    array([3, 2, 1])
    """
    node = as_node(x)
    return flip_op(node, axes=tuple(sorted(normalize_axes(axis, len(node.shape), "flip"))))


def _infer_roll(x: TensorType, *, shifts: tuple[int, ...], axes: tuple[int, ...]) -> TensorType:
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    return x


def _element_roll(index: Index, x: Reader, *, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Expr:
    """Read each of the 2**k blocks that k shifted axes make in an arm of its own."""
    moved = []
    for k, (i, n) in enumerate(zip(index, x.type.shape, strict=True)):
        extent = as_index(n)
        shift = sum(s for s, a in zip(shifts, axes, strict=True) if a == k)
        by = as_index(shift) % extent if shift else const_index(0)
        moved.append((i, by, extent))

    def pick(subscripts: tuple[Expr, ...]) -> Expr:
        if len(subscripts) == len(moved):
            return x(*subscripts)
        i, by, extent = moved[len(subscripts)]
        if same_index(by, 0):
            return pick((*subscripts, i))
        return select(i < by, pick((*subscripts, i - by + extent)), pick((*subscripts, i - by)))

    return pick(())


def _samples_roll(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, shifts, axes in (
        ((5,), (2,), (0,)),
        ((5,), (-7,), (0,)),
        ((5,), (10,), (0,)),
        ((3, 4), (1, -1), (0, 1)),
        ((3, 4), (1, 1), (1, 1)),
        ((0,), (1,), (0,)),
        ((2, 0), (1,), (1,)),
    ):
        yield Sample((draw(rng, float64, *shape),), {"shifts": shifts, "axes": axes})
    yield Sample((draw(rng, float32, 3),), {"shifts": (1, 2), "axes": (0,)}, ShapeError, "2 shifts for 1 axes")


roll_op: OpDef = define_op(
    "roll",
    infer=_infer_roll,
    element=_element_roll,
    numpy=lambda x, *, shifts, axes: np.roll(x, shifts, axes),
    vjp=lambda ct, out, x, *, shifts, axes: (roll_op(ct, shifts=tuple(-s for s in shifts), axes=axes),),
    samples=_samples_roll,
    exact=True,
    movement=True,
)


def roll(x: Operand, /, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None) -> Node:
    """Return `x` with its elements moved by `shift` places along `axis`, those beyond the end coming in at the front.

    Parameters
    ----------
    x
        Any tensor.
    shift
        Places to move by, negative for backwards; a tuple goes with a tuple of axes.
    axis
        The axis, or several; None rolls the flattened tensor.

    Raises
    ------
    ShapeError
        If there are not as many shifts as axes.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.roll(jf.constant([1, 2, 3, 4]), 1), {})
    array([4, 1, 2, 3])
    """
    node = as_node(x)
    if axis is None:
        flat = node if len(node.shape) == 1 else _reshape_to(node, (element_count(node.shape),))
        return _reshape_to(roll(flat, shift, axis=0), node.shape)
    items = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(normalize_axis(a, len(node.shape), "roll") for a in items)
    given = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    shifts = tuple(operator.index(s) for s in given)
    return roll_op(node, shifts=shifts, axes=axes)


# ---- pad

Widths = tuple[tuple[Dim, Dim], ...]


def _infer_pad(x: TensorType, *, widths: Widths, value: bool | int | float) -> TensorType:
    if len(widths) != x.rank:
        raise ShapeError(f"pad: {len(widths)} pairs of widths for {shape_text(x.shape)}")
    return TensorType(x.dtype, tuple(add_dims(a, n, b) for (a, b), n in zip(widths, x.shape, strict=True)))


def _element_pad(index: Index, x: Reader, *, widths: Widths, value: bool | int | float) -> Expr:
    subscripts: list[Expr] = []
    inside: list[Expr] = []
    for i, n, (before, after) in zip(index, x.type.shape, widths, strict=True):
        place = i - as_index(before)
        subscripts.append(place)
        if before != 0:
            inside.append(place >= 0)
        if after != 0:
            inside.append(place < as_index(n))
    return _guarded(inside, x(*subscripts), const(value, x.type.dtype))


def _numpy_pad(x: Array, *, widths: Widths, value: bool | int | float, dims: Dims) -> Array:
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
    yield Sample((np.array([True, False]),), {"widths": ((1, 0),), "value": True})
    yield Sample((draw(rng, float64, 2, 2),), {"widths": ((1, 1),), "value": 0.0}, ShapeError, r"1 pairs .* \(2, 2\)")


pad_op = define_op(
    "pad",
    infer=_infer_pad,
    element=_element_pad,
    numpy=_numpy_pad,
    vjp=lambda ct, out, x, *, widths, value: (
        slice_axes(ct, {k: (a, n, 1) for k, ((a, _), n) in enumerate(zip(widths, x.shape, strict=True))}),
    ),
    samples=_samples_pad,
    exact=True,
    movement=True,
)


def pad(x: Operand, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Node:
    """Return `x` with elements added before and after each axis, as ``np.pad`` does.

    Parameters
    ----------
    x
        Any tensor.
    pad_width
        ``((before, after), ...)`` by axis; one pair for all axes; or one number for all sides. Dims may be symbolic.
    mode
        ``"constant"`` is the only one so far.
    constant_values
        The new elements: one Python scalar, converted to the dtype of `x`.

    Raises
    ------
    ShapeError
        If the widths do not fit the axes or one is negative.
    GraphError
        For another `mode`, or several constant values.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.pad(jf.constant([1, 2]), (1, 2), constant_values=9), {})
    array([9, 1, 2, 9, 9])
    """
    node = as_node(x)
    if mode != "constant":
        raise located(GraphError(f"pad: mode {mode!r} is not supported; 'constant' is"))
    if np.ndim(constant_values) != 0:
        raise located(GraphError(f"pad: constant_values must be one number, got {constant_values!r}"))
    widths = _pad_widths(pad_width, node.shape)
    if all(a == 0 and b == 0 for a, b in widths):
        return node
    value = np.asarray(constant_values).item()
    if not isinstance(value, (bool, int, float)):
        raise located(DTypeError(f"pad: constant_values must be a number, got {constant_values!r}"))
    converted = value if not node.dtype.is_integer or isinstance(value, int) else int(value)
    return pad_op(node, widths=widths, value=scalar_array(converted, node.dtype).item())


def _pad_widths(pad_width: Any, shape: Shape) -> Widths:
    """Return `pad_width` by axis, broadcast as numpy does."""
    rows = pad_width if isinstance(pad_width, (tuple, list)) else ((pad_width, pad_width),)
    if isinstance(pad_width, np.ndarray):
        rows = pad_width.tolist() if pad_width.ndim else ((pad_width.item(),) * 2,)
    if not any(isinstance(r, (tuple, list)) for r in rows):
        rows = (tuple(rows) * 2 if len(rows) == 1 else tuple(rows),)
    if len(rows) == 1:
        rows = tuple(rows) * len(shape)
    pairs = [tuple(r) if isinstance(r, (tuple, list)) else (r, r) for r in rows]
    pairs = [p * 2 if len(p) == 1 else p for p in pairs]
    if len(pairs) != len(shape) or any(len(p) != 2 for p in pairs):
        raise located(ShapeError(f"pad: pad_width {pad_width!r} does not fit the axes of {shape_text(shape)}"))
    try:
        before, after = (as_shape([p[side] for p in pairs]) for side in (0, 1))
    except ShapeError as error:
        raise located(ShapeError(f"pad: pad_width {pad_width!r}: {error}")) from None
    return tuple(zip(before, after, strict=True))
