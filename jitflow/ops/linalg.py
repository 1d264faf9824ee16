"""Linear algebra that needs no factorisation: products of vectors and matrices as `einsum` and `matmul`, and norms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from string import ascii_letters
from typing import Any

import numpy as np

from jitflow.dtypes import as_dtype, float32, float64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.graph import Node, OpDef, Operand, Sample, define_op, located, make_constant
from jitflow.ops.axes import as_flag, as_int, as_matrices, as_number, normalize_axes, normalize_axis
from jitflow.ops.broadcast import broadcast_to, check_axes, kept_shape, reduce_over, reduce_sum_op, reduced_shape
from jitflow.ops.cast import as_dtype_of, as_float, as_numbers, cast_array, check_kinds, promoted
from jitflow.ops.compare import equal_op, not_equal_op
from jitflow.ops.einsum import einsum, einsum_op
from jitflow.ops.elementwise import abs_op, divide_op, multiply_op, subtract
from jitflow.ops.exponential import pow_op, sqrt_op
from jitflow.ops.matmul import product
from jitflow.ops.movement import moveaxis, reshape_to, roll
from jitflow.ops.reduce import max, min, sum
from jitflow.ops.selection import where_op
from jitflow.ops.testdata import FLOATS, Array, draw
from jitflow.public import public
from jitflow.types import TensorType, mul_dims, shape_text

# ---- products


@public("jitflow", "linalg")
def tensordot(x1: Operand, x2: Operand, /, *, axes: int | Sequence[Sequence[int]] = 2) -> Node:
    """Return the sum of products over `axes`; the other axes of `x1`, then those of `x2`, are the result's.

    Parameters
    ----------
    x1, x2
        Tensors, promoted to one dtype.
    axes
        How many of the last axes of `x1` to contract with as many of the first of `x2`; or two sequences of axes.

    Raises
    ------
    ShapeError
        If axes to contract differ in size or number, are not there, or are named twice.

    Examples
    --------
    >>> import jitflow as jf
    >>> a = jf.zeros((2, 3, 4))
    >>> jf.tensordot(a, a, axes=((0, 2), (0, 2))).shape
    (3, 3)
    """
    a, b = promoted(x1, x2)
    if isinstance(axes, (tuple, list)) and len(axes) == 2:
        left, right = (tuple(x) if isinstance(x, (tuple, list)) else (x,) for x in axes)
    elif isinstance(axes, int) and 0 <= axes <= a.type.rank and axes <= b.type.rank:
        left, right = tuple(range(len(a.shape) - axes, len(a.shape))), tuple(range(axes))
    else:
        raise located(ShapeError(f"tensordot: axes {axes!r} of {shape_text(a.shape)} and {shape_text(b.shape)}"))
    left = normalize_axes(left, len(a.shape), "tensordot")
    right = normalize_axes(right, len(b.shape), "tensordot")
    if len(left) != len(right):
        raise located(ShapeError(f"tensordot: {len(left)} axes of x1 cannot be contracted with {len(right)} of x2"))
    for j, k in zip(left, right, strict=True):
        if isinstance(a.shape[j], int) and isinstance(b.shape[k], int) and a.shape[j] != b.shape[k]:
            what = f"tensordot of {shape_text(a.shape)} and {shape_text(b.shape)}"
            raise located(ShapeError(f"{what}: axes {j} and {k} differ: {a.shape[j]} and {b.shape[k]}"))
    own = _letters(len(a.shape) + len(b.shape), "tensordot")
    first, second = own[: len(a.shape)], list(own[len(a.shape) :])
    for j, k in zip(left, right, strict=True):
        second[k] = first[j]
    result = [c for j, c in enumerate(first) if j not in left] + [c for k, c in enumerate(second) if k not in right]
    return einsum_op(a, b, equation=f"{first},{''.join(second)}->{''.join(result)}")


def _letters(count: int, what: str) -> str:
    if count > len(ascii_letters):
        raise located(ShapeError(f"{what}: more than {len(ascii_letters)} axes"))
    return ascii_letters[:count]


@public("jitflow", "linalg")
def vecdot(x1: Operand, x2: Operand, /, *, axis: int = -1) -> Node:
    """Return the sum of products along `axis`; the other axes broadcast.

    Parameters
    ----------
    x1, x2
        Tensors, promoted to one dtype.
    axis
        The axis, counted from the end (-1 is the last), as the other axes broadcast.

    Raises
    ------
    ShapeError
        If `axis` differs in size or is not there, or the others do not broadcast.
    StaticIndexError
        For an axis that is not there.
    DTypeError
        For an `axis` that is no int.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.vecdot(jf.constant([[1, 2], [3, 4]]), jf.constant([1, 1])), {})
    array([3, 7])
    """
    a, b = promoted(x1, x2)
    if as_int(axis, "vecdot: axis") >= 0 and a.type.rank != b.type.rank:
        raise located(ShapeError(f"vecdot: axis {axis} is not counted from the end, and the ranks differ"))
    a = moveaxis(a, normalize_axis(axis, a.type.rank, "vecdot"), -1)
    b = moveaxis(b, normalize_axis(axis, b.type.rank, "vecdot"), -1)
    if isinstance(a.shape[-1], int) and isinstance(b.shape[-1], int) and a.shape[-1] != b.shape[-1]:
        what = f"vecdot of {shape_text(a.shape)} and {shape_text(b.shape)}"
        raise located(ShapeError(f"{what}: axis {axis}: {a.shape[-1]} and {b.shape[-1]} differ"))
    return einsum("...a,...a->...", a, b)


@public("jitflow", "linalg")
def outer(x1: Operand, x2: Operand, /) -> Node:
    """Return every product of an element of vector `x1` with one of vector `x2`, as a matrix.

    Raises
    ------
    ShapeError
        Unless both have one axis.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.linalg.outer(jf.constant([1, 2]), jf.constant([3, 4])), {})
    array([[3, 4],
           [6, 8]])
    """
    a, b = promoted(x1, x2)
    if a.type.rank != 1 or b.type.rank != 1:
        raise located(ShapeError(f"outer takes two vectors, got {shape_text(a.shape)} and {shape_text(b.shape)}"))
    return einsum_op(a, b, equation="a,b->ab")


@public()
def inner(x1: Operand, x2: Operand, /) -> Node:
    """Return the sum of products over the last axes, for each of the other axes of `x1` with each of `x2`.

    A 0-d tensor multiplies the other.

    Raises
    ------
    ShapeError
        If the last axes differ.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.inner(jf.constant([1, 2]), jf.constant([[3, 4], [5, 6]])), {})
    array([11, 17])
    """
    a, b = promoted(x1, x2)
    if not a.shape or not b.shape:
        return product(a, b)
    return tensordot(a, b, axes=((-1,), (-1,)))


@public()
def dot(x1: Operand, x2: Operand, /) -> Node:
    """Return ``np.dot``: the sum of products over the last axis of `x1` and the last but one of `x2` (or its only one).

    Of matrices that is `matmul`; other axes do not broadcast but are paired each with each. A 0-d tensor multiplies.

    Raises
    ------
    ShapeError
        If the contracted axes differ.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.dot(jf.constant([[1, 2], [3, 4]]), jf.constant([1, 1])), {})
    array([3, 7])
    """
    a, b = promoted(x1, x2)
    if not a.shape or not b.shape:
        return product(a, b)
    return tensordot(a, b, axes=((-1,), (-1 if b.type.rank == 1 else -2,)))


@public()
def kron(x1: Operand, x2: Operand, /) -> Node:
    """Return the Kronecker product: `x2` times each element of `x1`, laid out as `x1` is.

    The tensor of lower rank gets axes of size 1 in front.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.kron(jf.constant([1, 10]), jf.constant([1, 2, 3])), {})
    array([ 1,  2,  3, 10, 20, 30])
    """
    a, b = promoted(x1, x2)
    rank = a.type.rank if a.type.rank > b.type.rank else b.type.rank
    first, second = ((1,) * (rank - x.type.rank) + x.shape for x in (a, b))
    left = reshape_to(a, tuple(d for n in first for d in (n, 1)))
    right = reshape_to(b, tuple(d for n in second for d in (1, n)))
    return reshape_to(product(left, right), tuple(mul_dims(n, m) for n, m in zip(first, second, strict=True)))


@public("linalg")
def cross(x1: Operand, x2: Operand, /, *, axis: int = -1) -> Node:
    """Return the cross product of vectors of three elements along `axis`; the other axes broadcast.

    Parameters
    ----------
    x1, x2
        Tensors of numbers, promoted to one dtype.
    axis
        The axis of size 3.

    Raises
    ------
    StaticIndexError
        If `axis` is not there.
    ShapeError
        If `axis` has another size, or the others do not broadcast.
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.linalg.cross(jf.constant([1, 0, 0]), jf.constant([0, 1, 0])), {})
    array([0, 0, 1])
    """
    a, b = (as_numbers(x, "cross") for x in promoted(x1, x2))
    what = f"cross of {shape_text(a.shape)} and {shape_text(b.shape)}"
    at = [normalize_axis(axis, x.type.rank, "cross") for x in (a, b)]
    for x, k in zip((a, b), at, strict=True):
        if x.shape[k] != 3:
            raise located(ShapeError(f"{what}: axis {axis} must have size 3"))
    if axis >= 0 and a.type.rank != b.type.rank:
        raise located(ShapeError(f"{what}: axis {axis} is not counted from the end, and the ranks differ"))

    def turned(x: Node, k: int, by: int) -> Node:
        return roll(x, -by, axis=k)

    forward = product(turned(a, at[0], 1), turned(b, at[1], 2))
    return subtract(forward, product(turned(a, at[0], 2), turned(b, at[1], 1)))


# ---- norms


def _infer_norm(x: TensorType, *, axes: tuple[int, ...], order: float) -> TensorType:
    check_axes("vector_norm", x, axes)
    check_kinds("vector_norm", x.dtype, "f")
    return TensorType(x.dtype, reduced_shape(x.shape, axes))


def _expand_norm(x: Node, *, axes: tuple[int, ...], order: float) -> Node:
    """Squares are summed for order 2; for others, powers of magnitudes. Neither is guarded against overflow."""
    if order == 2:
        return sqrt_op(_sum(multiply_op(x, x), axes))
    if order == 0:
        return _sum(as_dtype_of(not_equal_op(x, make_constant(0, x.dtype)), x.dtype), axes)
    magnitude = abs_op(x)
    if order == 1:
        return _sum(magnitude, axes)
    power = _sum(pow_op(magnitude, make_constant(order, x.dtype)), axes)
    return pow_op(power, make_constant(1 / order, x.dtype))


def _sum(x: Node, axes: tuple[int, ...]) -> Node:
    return reduce_over(reduce_sum_op, x, axes, False, "sum", dtype=x.dtype)


def _numpy_norm(x: Array, *, axes: tuple[int, ...], order: float) -> Any:
    dtype = as_dtype(x.dtype)
    magnitude = np.abs(x.astype(np.float64))
    with np.errstate(all="ignore"):
        if order == 0:
            out = np.sum(x != 0, axis=axes).astype(np.float64)
        else:
            out = np.sum(magnitude**order, axis=axes) ** (1 / order)
    return cast_array(np.asarray(out), dtype)


def _scale_norm(x: Array, *, axes: tuple[int, ...], order: float) -> Array:
    """The root multiplies the error of the sum: a rounding for each element, and some of its power.

    Nothing is known where the sum overflows in float32, though its root would not.
    """
    if order == 0:
        return np.asarray(1.0)
    count = np.asarray(np.prod([x.shape[a] for a in axes], initial=4))
    total = np.sum(np.abs(x) ** order, axis=axes)
    return np.where(total > float(np.finfo(np.float32).max) / 2, np.inf, total ** (1 / order) * count * (1 + 1 / order))


def _vjp_norm(ct: Node, out: Node, x: Node, *, axes: tuple[int, ...], order: float) -> tuple[Node | None]:
    """The derivative by x is ``sign(x) * (|x| / norm)**(order - 1)``, and 0 where the norm is."""
    if order == 0:
        return (None,)
    kept = kept_shape(x.shape, axes)
    norm = broadcast_to(reshape_to(out, kept), x.shape)
    zero, one = make_constant(0, x.dtype), make_constant(1, x.dtype)
    ratio = divide_op(x, where_op(equal_op(norm, zero), one, norm))
    if order != 2:
        size = abs_op(ratio)
        tame = where_op(equal_op(size, zero), one, size)
        ratio = where_op(
            equal_op(size, zero),
            zero,
            multiply_op(divide_op(ratio, tame), pow_op(tame, make_constant(order - 1, x.dtype))),
        )
    return (multiply_op(broadcast_to(reshape_to(ct, kept), x.shape), ratio),)


def _samples_norm(rng: np.random.Generator) -> Iterator[Sample]:
    for order in (2.0, 1.0, 0.0, 3.0, 0.5):
        for shape, axes in (((5,), (0,)), ((3, 4), (1,)), ((3, 4), (0,)), ((2, 3, 4), (0, 2)), ((2, 0), (1,))):
            yield Sample((draw(rng, float64, *shape),), {"axes": axes, "order": order}, smooth=order != 0)
        for dtype in FLOATS:
            yield Sample((draw(rng, dtype, 2, 67),), {"axes": (1,), "order": order}, smooth=False)
    # Where squares do not fit a half, and where the norm is zero.
    yield Sample((np.full((2, 40), 300, np.float16),), {"axes": (1,), "order": 2.0}, smooth=False)
    yield Sample((np.zeros((2, 3)),), {"axes": (1,), "order": 2.0}, smooth=False)
    yield Sample((np.array([np.nan, 1.0]),), {"axes": (0,), "order": 2.0}, smooth=False)
    x = draw(rng, float32, 2, 3)
    yield Sample((x,), {"axes": (2,), "order": 2.0}, ShapeError, r"vector_norm: axes \(2,\) are not")
    yield Sample((x.astype(np.int32),), {"axes": (1,), "order": 2.0}, DTypeError, "takes floats, not int32")


vector_norm_op: OpDef = define_op(
    "vector_norm",
    infer=_infer_norm,
    expand=_expand_norm,
    numpy=_numpy_norm,
    vjp=_vjp_norm,
    samples=_samples_norm,
    costly=True,
    ulp=2.0,
    scale=_scale_norm,
)


@public("linalg")
def vector_norm(
    x: Operand, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, ord: int | float = 2
) -> Node:
    """Return the norm of `x` over `axis`, taken as one vector: ``sum(|x|**ord)**(1/ord)``.

    Parameters
    ----------
    x
        Any tensor; bool and integers are taken as float64. float16 and bfloat16 are computed in float32.
    axis
        An axis, several, or None for all.
    keepdims
        Whether the reduced axes stay, with size 1.
    ord
        A number; ``inf`` and ``-inf`` give the greatest and the least magnitude, 0 the number of elements that are not.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice, or an infinite `ord` of no elements.
    GraphError
        If `ord` is no number.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.linalg.vector_norm(jf.constant([3.0, 4.0])), {})
    array(5.)
    """
    node = as_float(x)
    if isinstance(ord, bool) or not isinstance(ord, (int, float)) or math.isnan(ord):
        raise located(GraphError(f"vector_norm: ord must be a number, got {ord!r}"))
    if math.isinf(ord):
        return (max if ord > 0 else min)(abs_op(node), axis=axis, keepdims=keepdims)
    return reduce_over(vector_norm_op, node, axis, keepdims, "vector_norm", order=as_number(ord, "vector_norm: ord"))


@public("linalg")
def matrix_norm(x: Operand, /, *, keepdims: bool = False, ord: str | int | float = "fro") -> Node:
    """Return the norm of the matrices in the last two axes of `x`.

    Parameters
    ----------
    x
        A tensor of rank 2 or more; bool and integers are taken as float64.
    keepdims
        Whether the two axes stay, with size 1.
    ord
        ``"fro"``: the root of the sum of squares. 1, ``inf``: the greatest sum of magnitudes of a column, a row;
        -1, ``-inf``: the least.

    Raises
    ------
    ShapeError
        Below rank 2.
    GraphError
        For another `ord`: 2, -2 and ``"nuc"`` need singular values.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.linalg.matrix_norm(jf.constant([[3.0, 0.0], [0.0, 4.0]])), {})
    array(5.)
    """
    node = as_float(as_matrices(x, "matrix_norm"))
    if isinstance(ord, str) and ord == "fro":
        return vector_norm(node, axis=(-2, -1), keepdims=keepdims)
    number = math.nan if isinstance(ord, str) else as_number(ord, "matrix_norm: ord")
    if number not in (1, -1) and not math.isinf(number):
        raise located(GraphError(f"matrix_norm: ord {ord!r} is not supported; 'fro', 1, -1, inf and -inf are"))
    along, across = (-2, -1) if number in (1, -1) else (-1, -2)
    sums = sum(abs_op(node), axis=along, keepdims=True)
    best = (max if number > 0 else min)(sums, axis=across, keepdims=True)
    return best if as_flag(keepdims, "matrix_norm: keepdims") else reshape_to(best, node.shape[:-2])
