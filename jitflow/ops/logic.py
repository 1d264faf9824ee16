"""Logic on truth values and on bits: logical_and and kin, bitwise_and and kin, shifts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, float32, float64, int32
from jitflow.expr import Binary, Expr, const, select
from jitflow.graph import (
    Node,
    OpDef,
    Operand,
    as_node,
)
from jitflow.ops.cast import as_dtype_of, promoted
from jitflow.ops.elementwise import binary_samples, define_elementwise, no_gradient, unary_samples
from jitflow.ops.testdata import INTEGERS, Array
from jitflow.public import public

# ---- logic


def _logical(name: str, rule: Callable[..., Expr], numpy: Callable[..., Any]) -> OpDef:
    inputs = 1 if name == "logical_not" else 2
    make = unary_samples if inputs == 1 else binary_samples
    return define_elementwise(
        name,
        rule,
        numpy=numpy,
        kinds="b",
        vjp=no_gradient(inputs),
        samples=make((bool_,), wrong=(int32, float64)),
    )


logical_and_op = _logical("logical_and", lambda a, b: a & b, np.logical_and)
logical_or_op = _logical("logical_or", lambda a, b: a | b, np.logical_or)
logical_xor_op = _logical("logical_xor", lambda a, b: a ^ b, np.logical_xor)
logical_not_op = _logical("logical_not", lambda a: ~a, np.logical_not)


def as_truth(x: Operand) -> Node:
    """Return operand `x` as bool: whether it is not 0."""
    return as_dtype_of(as_node(x), bool_)


@public()
def logical_and(x1: Operand, x2: Operand, /) -> Node:
    """Return whether both are true (not zero), elementwise.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logical_and(jf.constant([True, False]), True), {})
    array([ True, False])
    """
    return logical_and_op(as_truth(x1), as_truth(x2))


@public()
def logical_or(x1: Operand, x2: Operand, /) -> Node:
    """Return whether either is true (not zero), elementwise.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logical_or(jf.constant([True, False]), False), {})
    array([ True, False])
    """
    return logical_or_op(as_truth(x1), as_truth(x2))


@public()
def logical_xor(x1: Operand, x2: Operand, /) -> Node:
    """Return whether exactly one is true (not zero), elementwise.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logical_xor(jf.constant([True, False]), True), {})
    array([False,  True])
    """
    return logical_xor_op(as_truth(x1), as_truth(x2))


@public()
def logical_not(x: Operand, /) -> Node:
    """Return whether `x` is false (zero), elementwise.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logical_not(jf.constant([True, False])), {})
    array([False,  True])
    """
    return logical_not_op(as_truth(x))


def _bitwise(name: str, rule: Callable[..., Expr], numpy: Callable[..., Any], kinds: str = "bi") -> OpDef:
    dtypes = (bool_, *INTEGERS) if "b" in kinds else INTEGERS
    wrong = (float32,) if "b" in kinds else (bool_, float32)
    inputs = 1 if name == "bitwise_invert" else 2
    make = unary_samples if inputs == 1 else binary_samples
    return define_elementwise(
        name, rule, numpy=numpy, kinds=kinds, vjp=no_gradient(inputs), samples=make(dtypes, wrong=wrong)
    )


def _shift(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the numpy shift with counts outside 0 .. width - 1 taken for the width: everything is shifted out."""

    def rule(x: Array, y: Array) -> Any:
        bits = x.dtype.itemsize * 8
        count = np.where((y < 0) | (y >= bits), bits, y).astype(x.dtype)
        return fn(x, count)

    return rule


def _shift_count(op: str) -> Callable[[Expr, Expr], Expr]:
    def rule(a: Expr, b: Expr) -> Expr:
        return Binary(op, a, select(b < 0, const(a.type.dtype.bits, a.type), b))

    return rule


bitwise_and_op = _bitwise("bitwise_and", lambda a, b: a & b, np.bitwise_and)
bitwise_or_op = _bitwise("bitwise_or", lambda a, b: a | b, np.bitwise_or)
bitwise_xor_op = _bitwise("bitwise_xor", lambda a, b: a ^ b, np.bitwise_xor)
bitwise_invert_op = _bitwise("bitwise_invert", lambda a: ~a, np.bitwise_not)
bitwise_left_shift_op = _bitwise("bitwise_left_shift", _shift_count("shl"), _shift(np.left_shift), "i")
bitwise_right_shift_op = _bitwise("bitwise_right_shift", _shift_count("shr"), _shift(np.right_shift), "i")


@public()
def bitwise_and(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 & x2`` elementwise, of bool or integers.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_and(jf.constant([6, 7]), 3), {})
    array([2, 3])
    """
    return bitwise_and_op(*promoted(x1, x2))


@public()
def bitwise_or(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 | x2`` elementwise, of bool or integers.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_or(jf.constant([6, 7]), 8), {})
    array([14, 15])
    """
    return bitwise_or_op(*promoted(x1, x2))


@public()
def bitwise_xor(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 ^ x2`` elementwise, of bool or integers.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_xor(jf.constant([6, 7]), 3), {})
    array([5, 4])
    """
    return bitwise_xor_op(*promoted(x1, x2))


@public()
def bitwise_invert(x: Operand, /) -> Node:
    """Return ``~x`` elementwise, of bool or integers.

    Raises
    ------
    DTypeError
        For floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_invert(jf.constant([0, -1])), {})
    array([-1,  0])
    """
    return bitwise_invert_op(as_node(x))


@public()
def bitwise_left_shift(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 << x2`` elementwise; 0 for a count that is negative or not below the width.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For bool and floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_left_shift(jf.constant([1, 3]), 2), {})
    array([ 4, 12])
    """
    return bitwise_left_shift_op(*promoted(x1, x2))


@public()
def bitwise_right_shift(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 >> x2`` elementwise, filled with the sign; nothing but the sign for a count outside the width.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For bool and floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_right_shift(jf.constant([12, -1]), 2), {})
    array([ 3, -1])
    """
    return bitwise_right_shift_op(*promoted(x1, x2))
