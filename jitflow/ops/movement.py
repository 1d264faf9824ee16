"""Operators that give the elements of one tensor other places: reshape, permute_dims, flip, roll and what they make.

Their element rules are index arithmetic, so that they cost nothing once fused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, float32, float64
from jitflow.errors import DTypeError, LimitError, ShapeError
from jitflow.expr import Expr, as_index, const_index, select
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, as_node, define_op, located
from jitflow.ops.axes import as_int, as_matrices, checked_shape, known_shape, normalize_axes, normalize_axis, row_major
from jitflow.ops.testdata import draw
from jitflow.public import public
from jitflow.simplify import same_index, simplify_index
from jitflow.types import (
    MAX_ELEMENTS,
    Dim,
    Shape,
    TensorType,
    dim_text,
    element_count,
    fold_dim,
    mul_dims,
    same_dim,
    shape_text,
    unify,
)

# ---- reshape


def _infer_reshape(x: TensorType, *, shape: Shape) -> TensorType:
    before, after = element_count(x.shape), element_count(shape)
    if before != after:
        unify(before, after, f"reshape of {shape_text(x.shape)} to {shape_text(shape)}")
    return TensorType(x.dtype, shape)


def _element_reshape(index: Index, x: Reader, *, shape: Shape) -> Expr:
    """Read `x` where the element came from; only axes that were merged or split cost a product or a division."""
    source = x.type.shape
    if 0 in source or 0 in shape:
        return x(*(const_index(0) for _ in source))
    subscripts: list[Expr] = [const_index(0) for _ in source]
    for ins, outs in _matched_axes(source, shape):
        linear = row_major([index[k] for k in outs], tuple(shape[k] for k in outs))
        for k, subscript in zip(ins, unravel(linear, [source[k] for k in ins]), strict=True):
            subscripts[k] = subscript
    return x(*subscripts)


def unravel(linear: Expr, sizes: Sequence[Dim]) -> list[Expr]:
    """Return the subscripts of element `linear`, in row-major order, of axes of `sizes`; at least one."""
    subscripts: list[Expr] = []
    for d in map(as_index, reversed(sizes[1:])):
        subscripts.append(linear % d)
        linear = linear // d
    return [linear, *reversed(subscripts)]


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
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 6, 35),), {"shape": (14, 15)})
    yield Sample((draw(rng, float64, 2, 3),), {"shape": (7,)}, ShapeError, r"reshape of \(2, 3\) to \(7,\): 6 and 7")


reshape_op = define_op(
    "reshape",
    infer=_infer_reshape,
    element=_element_reshape,
    numpy=lambda x, *, shape, dims: x.reshape(known_shape(shape, dims)),
    vjp=lambda ct, out, x, *, shape: (reshape_to(ct, x.shape),),
    samples=_samples_reshape,
    exact=True,
    movement=True,
)


def reshape_to(x: Node, shape: Shape) -> Node:
    """Return `x` in a `shape` that has been checked."""
    return x if x.shape == shape else reshape_op(x, shape=shape)


@public()
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
    several = isinstance(shape, (tuple, list)) or (isinstance(shape, np.ndarray) and shape.ndim > 0)
    items = list(shape) if several else [shape]
    unknown = [k for k, d in enumerate(items) if isinstance(d, (int, np.integer)) and d == -1]
    if not unknown:
        return reshape_to(node, checked_shape(items))
    if len(unknown) > 1:
        raise located(ShapeError(f"reshape of {shape_text(node.shape)}: -1 stands for one dim only, got {items}"))
    rest = checked_shape([d for k, d in enumerate(items) if k not in unknown])
    items = list(rest)
    items.insert(unknown[0], _missing_dim(node.shape, rest))
    return reshape_to(node, tuple(items))


def _missing_dim(shape: Shape, rest: Shape) -> Dim:
    """Return the dim that -1 stands for, so that `rest` and it have as many elements as `shape`."""
    total, known = element_count(shape), element_count(rest)
    if known == 0 or (isinstance(total, int) and isinstance(known, int) and total % known):
        what = f"reshape of {shape_text(shape)}"
        raise located(ShapeError(f"{what}: no dim for -1 gives as many elements next to {shape_text(rest)}"))
    return fold_dim(simplify_index(as_index(total) // as_index(known)))


@public()
def expand_dims(x: Operand, /, axis: int | tuple[int, ...]) -> Node:
    """Return `x` with an axis of size 1 at place `axis` of the result (several places for a tuple).

    Raises
    ------
    StaticIndexError
        For a place outside the result's axes.
    ShapeError
        For a place named twice.
    DTypeError
        For an `axis` that is no int.

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
    return reshape_to(node, tuple(1 if k in places else next(rest) for k in range(rank)))


@public()
def squeeze(x: Operand, /, axis: int | tuple[int, ...] | None = None) -> Node:
    """Return `x` without the axes `axis`, which must have size 1 (None: all axes that are known to).

    Raises
    ------
    ShapeError
        For an axis of another size. (A symbolic axis that turns out to have one is a FeedError of the run.)
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.squeeze(jf.constant([[1.0, 2.0]]), axis=0).shape
    (2,)
    """
    node = as_node(x)
    if axis is None:
        return reshape_to(node, tuple(d for d in node.shape if d != 1))
    axes = normalize_axes(axis, len(node.shape), "squeeze")
    for k in axes:
        if same_dim(node.shape[k], 1) is False:
            what = f"squeeze: axis {k} of {shape_text(node.shape)}"
            raise located(ShapeError(f"{what} has size {dim_text(node.shape[k])}, not 1"))
    return reshape_to(node, tuple(d for k, d in enumerate(node.shape) if k not in axes))


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
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3, 37, 2),), {"axes": (1, 2, 0)})
    for axes in ((0, 0), (0,), (0, 2)):
        yield Sample((draw(rng, float32, 2, 3),), {"axes": axes}, ShapeError, "permute_dims: axes .* no permutation")


permute_dims_op: OpDef = define_op(
    "permute_dims",
    infer=_infer_permute,
    element=_element_permute,
    numpy=lambda x, *, axes: x.transpose(axes),
    vjp=lambda ct, out, x, *, axes: (permute_dims_op(ct, axes=_inverse(axes)),),
    samples=_samples_permute,
    exact=True,
    movement=True,
)


@public()
def permute_dims(x: Operand, /, axes: Sequence[int]) -> Node:
    """Return `x` with its axes in the order `axes`: axis k of the result is axis ``axes[k]`` of `x`.

    Raises
    ------
    ShapeError
        Unless `axes` names every axis once.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.permute_dims(jf.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    node = as_node(x)
    try:
        given = tuple(axes)
    except TypeError:
        raise located(DTypeError(f"permute_dims: axes must be a tuple of ints, got {axes!r}")) from None
    order = normalize_axes(given, len(node.shape), "permute_dims")
    if order == tuple(range(len(node.shape))):
        return node
    return permute_dims_op(node, axes=order)


@public("jitflow", "linalg")
def matrix_transpose(x: Operand, /) -> Node:
    """Return `x` with its last two axes exchanged.

    Raises
    ------
    ShapeError
        If there are fewer than two axes.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.matrix_transpose(jf.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """
    node = as_matrices(x, "matrix_transpose")
    rank = len(node.shape)
    return permute_dims(node, (*range(rank - 2), rank - 1, rank - 2))


@public()
def moveaxis(x: Operand, source: int | tuple[int, ...], destination: int | tuple[int, ...], /) -> Node:
    """Return `x` with axes `source` moved to places `destination`; the others keep their order.

    Raises
    ------
    StaticIndexError
        For axes that are not there.
    ShapeError
        If the two differ in length or name an axis twice.

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


# ---- flip and roll


def _infer_flip(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    if len(set(axes)) != len(axes) or not all(0 <= a < x.rank for a in axes):
        raise ShapeError(f"flip: axes {axes} are not distinct axes of {shape_text(x.shape)}")
    return x


def _element_flip(index: Index, x: Reader, *, axes: tuple[int, ...]) -> Expr:
    return x(
        *(as_index(n) - 1 - i if k in axes else i for k, (i, n) in enumerate(zip(index, x.type.shape, strict=True)))
    )


def _samples_flip(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axes in (((5,), (0,)), ((2, 3), (1,)), ((2, 3, 4), (0, 2)), ((0, 2), (0, 1)), ((), ())):
        yield Sample((draw(rng, float64, *shape),), {"axes": axes})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3, 77),), {"axes": (0, 1)})


flip_op: OpDef = define_op(
    "flip",
    infer=_infer_flip,
    element=_element_flip,
    numpy=lambda x, *, axes: np.flip(x, axes),
    vjp=lambda ct, out, x, *, axes: (flip_op(ct, axes=axes),),
    samples=_samples_flip,
    exact=True,
    movement=True,
)


@public()
def flip(x: Operand, /, *, axis: int | tuple[int, ...] | None = None) -> Node:
    """Return `x` with the order of elements along `axis` (None: every axis) reversed.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis named twice.

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
    if not all(0 <= a < x.rank for a in axes):
        raise ShapeError(f"roll: axes {axes} are not axes of {shape_text(x.shape)}")
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
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3, 77),), {"shifts": (1, 40), "axes": (0, 1)})
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


@public()
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
    StaticIndexError
        For an axis that is not there.
    DTypeError
        For a shift that is no int.
    LimitError
        For a shift beyond 2**60.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.roll(jf.constant([1, 2, 3, 4]), 1), {})
    array([4, 1, 2, 3])
    """
    node = as_node(x)
    if axis is None:
        flat = node if len(node.shape) == 1 else reshape_to(node, (element_count(node.shape),))
        return reshape_to(roll(flat, shift, axis=0), node.shape)
    items = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(normalize_axis(a, len(node.shape), "roll") for a in items)
    given = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    shifts = tuple(as_int(s, "roll: a shift") for s in given)
    if any(abs(s) > MAX_ELEMENTS for s in shifts):
        raise located(LimitError(f"roll: shifts {shifts} are beyond 2**60"))
    return roll_op(node, shifts=shifts, axes=axes)
