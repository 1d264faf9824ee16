"""Parts of complex numbers, of real ones: real, imag, conj. There are no complex dtypes, so these are no operators."""

from __future__ import annotations

from jitflow.graph import Node, Operand
from jitflow.ops.cast import as_numbers
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
    return as_numbers(x, "real")


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
    return zeros_like(as_numbers(x, "imag"))


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
    return as_numbers(x, "conj")
