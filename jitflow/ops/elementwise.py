"""Elementwise operators: how one is defined, and arithmetic and rounding.

The inputs of an operator here have one dtype, to which the operator's function promotes; shapes broadcast as numpy's
do, except that a symbolic dim never stretches. Element rules are scalar expressions and numpy rules compute the same
bits: integers wrap, division by an integer zero gives 0, float arithmetic is IEEE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, DType, bool_, float32, float64, int32, int64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import Binary, Expr, Unary, call, const, eq, select
from jitflow.graph import (
    Index,
    Node,
    OpDef,
    Operand,
    Reader,
    Sample,
    as_node,
    define_op,
)
from jitflow.ops.broadcast import aligned, unbroadcast
from jitflow.ops.cast import as_numbers, check_kinds, promoted, promoted_floats
from jitflow.ops.testdata import BROADCASTS, FLOATS, NUMBERS, Array, arrays, draw, edge_pairs, edges, is_thorough
from jitflow.public import public
from jitflow.types import TensorType, broadcast_shapes


def define_elementwise(
    name: str,
    rule: Callable[..., Expr],
    *,
    numpy: Callable[..., Any],
    kinds: str,
    samples: Callable[[np.random.Generator], Iterable[Sample]],
    vjp: Callable[..., tuple[Node | None, ...]] | None = None,
    result: DType | None = None,
    exact: bool = True,
    costly: bool = False,
    ulp: float | None = None,
    scale: Callable[..., Any] | None = None,
    storage: bool = False,
) -> OpDef:
    """Define the operator that applies `rule` to the elements of inputs of one dtype, which broadcast.

    `kinds` are the kinds of dtypes it takes (``b`` bool, ``i`` integers, ``f`` floats). `result` is the dtype of its
    results where it is not that of its inputs. IEEE operations are `exact`: numpy and compiled code round alike;
    others differ by at most `ulp` units in the last place: numpy's own functions are within 4, ours within 2. A
    `storage` operator takes float16 and bfloat16 as they are.
    """

    arity = rule.__code__.co_argcount

    def infer(*types: TensorType) -> TensorType:
        if len(types) != arity:
            raise GraphError(f"{name} takes {arity} inputs, got {len(types)}")
        dtype = types[0].dtype
        for t in types[1:]:
            if t.dtype is not dtype:
                raise DTypeError(f"{name}: inputs must have one dtype, got {' and '.join(str(t.dtype) for t in types)}")
        check_kinds(name, dtype, kinds)
        return TensorType(result or dtype, broadcast_shapes([t.shape for t in types], name))

    def element(index: Index, *xs: Reader) -> Expr:
        return rule(*(aligned(index, x) for x in xs))

    return define_op(
        name,
        infer=infer,
        element=element,
        numpy=quiet(numpy),
        vjp=vjp,
        samples=samples,
        exact=exact,
        costly=costly,
        ulp=ulp if ulp is not None else 0.0 if exact else 6.0,
        scale=scale,
        storage=storage,
    )


def quiet(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return numpy function `fn` without warnings: infinities and NaN are results, not accidents."""

    def rule(*xs: Array) -> Any:
        with np.errstate(all="ignore"):
            return fn(*xs)

    return rule


def in_double(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` computed in float64 and rounded to the dtype of its first input, without warnings."""

    def rule(*xs: Array, **attrs: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(fn(*(x.astype(np.float64) for x in xs), **attrs)).astype(xs[0].dtype)

    return rule


# ---- samples of families


def unary_samples(dtypes: tuple[DType, ...], wrong: tuple[DType, ...] = ()) -> Callable[..., Iterator[Sample]]:
    """Return `samples` for a function of one input: shapes, edge values, and a DTypeError for each dtype of `wrong`."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for x in arrays(rng, dtypes):
            yield Sample((x,))
        for dtype in dtypes:
            yield Sample((edges(dtype),), smooth=False)
        for dtype in wrong:
            yield Sample((edges(dtype),), raises=DTypeError, match=f"not {dtype}; convert with astype")

    return samples


def binary_samples(dtypes: tuple[DType, ...], wrong: tuple[DType, ...] = ()) -> Callable[..., Iterator[Sample]]:
    """Return `samples` for a function of two inputs: broadcasting, all pairs of edge values, and the errors."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for dtype in dtypes:
            for a, b in BROADCASTS if is_thorough(dtype, dtypes) else BROADCASTS[2:3]:
                yield Sample((draw(rng, dtype, *a), draw(rng, dtype, *b)))
            yield Sample(edge_pairs(dtype), smooth=False)
        for dtype in wrong:
            yield Sample((edges(dtype), edges(dtype)), raises=DTypeError, match=f"not {dtype}; convert with astype")
        x = draw(rng, dtypes[0], 3)
        yield Sample(
            (x, draw(rng, dtypes[0], 4)), raises=ShapeError, match=r"shapes \(3,\) and \(4,\) do not broadcast"
        )
        other = float32 if dtypes[0] is not float32 else float64
        yield Sample((x, draw(rng, other, 3)), raises=DTypeError, match=f"{dtypes[0]} and {other}")

    return samples


# ---- arithmetic


def _bool_or(op: str, on_bool: str) -> Callable[[Expr, Expr], Expr]:
    """Return the rule `op`, which on bool is the logical `on_bool`."""
    return lambda a, b: Binary(on_bool if a.type.dtype is bool_ else op, a, b)


add_op: OpDef = define_elementwise(
    "add",
    _bool_or("add", "or"),
    numpy=np.add,
    kinds="bif",
    vjp=lambda ct, out, x, y: (unbroadcast(ct, x.shape), unbroadcast(ct, y.shape)),
    samples=binary_samples(SUPPORTED),
)


@public()
def add(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 + x2`` elementwise. Integers wrap around; on bool it is logical or.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.add(jf.constant([1, 2]), 0.5), {})
    array([1.5, 2.5])
    """
    return add_op(*promoted(x1, x2))


subtract_op: OpDef = define_elementwise(
    "subtract",
    lambda a, b: a - b,
    numpy=np.subtract,
    kinds="if",
    vjp=lambda ct, out, x, y: (unbroadcast(ct, x.shape), unbroadcast(negative_op(ct), y.shape)),
    samples=binary_samples(NUMBERS, wrong=(bool_,)),
)


@public()
def subtract(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 - x2`` elementwise. Integers wrap around. Raises DTypeError for two bool tensors.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.subtract(jf.constant([1, 2]), 3), {})
    array([-2, -1])
    """
    return subtract_op(*promoted(x1, x2))


multiply_op: OpDef = define_elementwise(
    "multiply",
    _bool_or("mul", "and"),
    numpy=np.multiply,
    kinds="bif",
    vjp=lambda ct, out, x, y: (unbroadcast(multiply_op(ct, y), x.shape), unbroadcast(multiply_op(ct, x), y.shape)),
    samples=binary_samples(SUPPORTED),
)


@public()
def multiply(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 * x2`` elementwise. Integers wrap around; on bool it is logical and.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.multiply(jf.constant([1, 2]), jf.constant([[3], [4]])), {})
    array([[3, 6],
           [4, 8]])
    """
    return multiply_op(*promoted(x1, x2))


def _vjp_divide(ct: Node, out: Node, x: Node, y: Node) -> tuple[Node, Node]:
    dx = divide_op(ct, y)
    return unbroadcast(dx, x.shape), unbroadcast(negative_op(multiply_op(dx, out)), y.shape)


divide_op: OpDef = define_elementwise(
    "divide",
    lambda a, b: a / b,
    numpy=np.divide,
    kinds="f",
    vjp=_vjp_divide,
    samples=binary_samples(FLOATS, wrong=(bool_, int32, int64)),
)


@public()
def divide(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 / x2`` elementwise; integers and bool are divided as float64.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.divide(jf.constant([1, -1, 0]), 0), {})
    array([ inf, -inf,  nan])
    """
    return divide_op(*promoted_floats(x1, x2))


def _float_call(op: str, name: str) -> Callable[[Expr, Expr], Expr]:
    """Return the rule that is Binary `op` on integers and the intrinsic `name` on floats."""
    return lambda a, b: call(name, a, b) if a.type.dtype.is_float else Binary(op, a, b)


def no_gradient(count: int) -> Callable[..., tuple[None, ...]]:
    """Return the vjp of a piecewise constant function of `count` inputs: nothing flows back."""
    return lambda ct, out, *xs: (None,) * count


floor_divide_op: OpDef = define_elementwise(
    "floor_divide",
    _float_call("floordiv", "floordiv"),
    numpy=np.floor_divide,
    kinds="if",
    vjp=no_gradient(2),
    samples=binary_samples(NUMBERS, wrong=(bool_,)),
    costly=True,
)


@public()
def floor_divide(x1: Operand, x2: Operand, /) -> Node:
    """Return the quotient ``x1 // x2`` rounded towards minus infinity, elementwise.

    Integers: by zero gives 0, and the least value over -1 wraps to itself. Floats: with ``r = remainder(x1, x2)`` it is
    ``(x1 - r) / x2`` rounded to the nearest whole number; by zero it is ``x1 / x2``. A zero has the sign of
    ``x1 / x2``.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.floor_divide(jf.constant([7, -7, 7]), jf.constant([2, 2, 0])), {})
    array([ 3, -4,  0])
    """
    return floor_divide_op(*promoted(x1, x2))


remainder_op: OpDef = define_elementwise(
    "remainder",
    _float_call("mod", "floormod"),
    numpy=np.remainder,
    kinds="if",
    vjp=lambda ct, out, x, y: (
        unbroadcast(ct, x.shape),
        unbroadcast(negative_op(multiply_op(ct, floor_divide_op(x, y))), y.shape),
    ),
    samples=binary_samples(NUMBERS, wrong=(bool_,)),
    costly=True,
)


@public()
def remainder(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 % x2`` elementwise, with the sign of `x2`, as Python's ``%``.

    Integers: by zero gives 0. Floats: the exact remainder of the truncated quotient, plus `x2` if its sign is not that
    of `x2`; a zero has the sign of `x2`; by zero or of an infinity gives NaN.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.remainder(jf.constant([7.5, -7.5]), 2.0), {})
    array([1.5, 0.5])
    """
    return remainder_op(*promoted(x1, x2))


# ---- sign and rounding

negative_op: OpDef = define_elementwise(
    "negative",
    lambda a: -a,
    numpy=np.negative,
    kinds="if",
    vjp=lambda ct, out, x: (negative_op(ct),),
    samples=unary_samples(NUMBERS, wrong=(bool_,)),
)


@public()
def negative(x: Operand, /) -> Node:
    """Return ``-x`` elementwise; the least integer is its own negative.

    Raises
    ------
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.negative(jf.constant([1.0, 0.0])), {})
    array([-1., -0.])
    """
    return negative_op(as_node(x))


@public()
def positive(x: Operand, /) -> Node:
    """Return `x` itself.

    Raises
    ------
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.positive(jf.constant([1, -2])), {})
    array([ 1, -2])
    """
    return as_numbers(x, "positive")


abs_op: OpDef = define_elementwise(
    "abs",
    lambda a: a if a.type.dtype is bool_ else Unary("abs", a),
    numpy=np.abs,
    kinds="bif",
    vjp=lambda ct, out, x: (multiply_op(ct, sign_op(x)),),
    samples=unary_samples(SUPPORTED),
)


@public()
def abs(x: Operand, /) -> Node:
    """Return the absolute value elementwise; that of the least integer is itself. The derivative at 0 is 0.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.abs(jf.constant([-1.5, 2.0])), {})
    array([1.5, 2. ])
    """
    return abs_op(as_node(x))


def _sign(a: Expr) -> Expr:
    below = select(a < 0, const(-1, a.type), const(0, a.type))
    if a.type.dtype.is_float:
        below = select(a < 0, const(-1, a.type), select(eq(a, 0), const(0, a.type), a))
    return select(a > 0, const(1, a.type), below)


sign_op: OpDef = define_elementwise(
    "sign",
    _sign,
    numpy=np.sign,
    kinds="if",
    vjp=no_gradient(1),
    samples=unary_samples(NUMBERS, wrong=(bool_,)),
)


@public()
def sign(x: Operand, /) -> Node:
    """Return -1, 0 or 1 elementwise, in the dtype of `x`; 0.0 for both zeros, NaN for NaN.

    Raises
    ------
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sign(jf.constant([-2.5, 0.0, 3.0])), {})
    array([-1.,  0.,  1.])
    """
    return sign_op(as_node(x))


def _rounding(name: str, numpy: Callable[..., Any]) -> OpDef:
    return define_elementwise(
        name,
        lambda a: Unary(name, a),
        numpy=numpy,
        kinds="f",
        vjp=no_gradient(1),
        samples=unary_samples(FLOATS, wrong=(bool_, int32, int64)),
    )


floor_op = _rounding("floor", np.floor)
ceil_op = _rounding("ceil", np.ceil)
trunc_op = _rounding("trunc", np.trunc)
round_op = _rounding("round", np.rint)


def _rounded(op: OpDef, x: Operand) -> Node:
    """Return `x` rounded by `op`; integers and bool are whole already."""
    node = as_node(x)
    return op(node) if node.dtype.is_float else node


@public()
def floor(x: Operand, /) -> Node:
    """Return the greatest whole number not above `x`, elementwise, in the dtype of `x`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.floor(jf.constant([1.5, -1.5])), {})
    array([ 1., -2.])
    """
    return _rounded(floor_op, x)


@public()
def ceil(x: Operand, /) -> Node:
    """Return the least whole number not below `x`, elementwise, in the dtype of `x`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.ceil(jf.constant([1.5, -0.5])), {})
    array([ 2., -0.])
    """
    return _rounded(ceil_op, x)


@public()
def trunc(x: Operand, /) -> Node:
    """Return `x` without its fraction, elementwise, in the dtype of `x`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.trunc(jf.constant([1.5, -1.5])), {})
    array([ 1., -1.])
    """
    return _rounded(trunc_op, x)


@public()
def round(x: Operand, /) -> Node:
    """Return the nearest whole number, of two the even one, elementwise, in the dtype of `x`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.round(jf.constant([0.5, 1.5, 2.6])), {})
    array([0., 2., 3.])
    """
    return _rounded(round_op, x)
