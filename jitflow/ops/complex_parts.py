"""Parts of complex numbers, of real ones: real, imag, conj. There are no complex dtypes, so these are no operators."""

from __future__ import annotations

from jitflow.errors import DTypeError
from jitflow.graph import Node, Operand, as_node, located
from jitflow.ops.creation import zeros_like
from jitflow.public import public


@public()
def real(x: Operand, /) -> Node:
    """Return the real part of `x`, which is `x` itself.

    Raises
    ------
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.real(jf.constant([1.5, -2.0])), {})
    array([ 1.5, -2. ])
    """
    return _number(x, "real")


@public()
def imag(x: Operand, /) -> Node:
    """Return the imaginary part of `x`: zeros of its dtype and shape.

    Raises
    ------
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.imag(jf.constant([1.5, -2.0])), {})
    array([0., 0.])
    """
    return zeros_like(_number(x, "imag"))


@public()
def conj(x: Operand, /) -> Node:
    """Return the complex conjugate of `x`, which is `x` itself.

    Raises
    ------
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.conj(jf.constant([1.5, -2.0])), {})
    array([ 1.5, -2. ])
    """
    return _number(x, "conj")


def _number(x: Operand, what: str) -> Node:
    node = as_node(x)
    if node.dtype.is_bool:
        raise located(DTypeError(f"{what} takes integers and floats, not bool; convert with astype"))
    return node
