"""dropout: zeros in random places, as training uses them."""

from __future__ import annotations

from jitflow.dtypes import float32
from jitflow.errors import DTypeError, GraphError
from jitflow.graph import Node, Operand, located, make_constant
from jitflow.ops.cast import as_float
from jitflow.ops.elementwise import multiply_op
from jitflow.ops.random import bernoulli
from jitflow.ops.selection import where_op
from jitflow.public import public


@public("nn")
def dropout(x: Operand, rate: float, key: Operand, /) -> Node:
    """Return `x` with 0 in place of each element with probability `rate`, and the others over ``1 - rate``.

    So the mean stays. It is for training; in inference, leave it out.

    Parameters
    ----------
    x
        Any tensor; integers and bool are taken as float64.
    rate
        A Python number from 0 to below 1.
    key
        A key of `jitflow.random`: equal keys drop equal places.

    Raises
    ------
    GraphError
        For another rate.
    DTypeError
        If `key` is none, or the rate no number.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([1.0, 2.0, 3.0, 4.0])
    >>> jf.interpret(jf.nn.dropout(x, 0.0, jf.random.key(0)), {})
    array([1., 2., 3., 4.])
    """
    node = as_float(x)
    if not isinstance(rate, (int, float)):
        raise located(DTypeError(f"dropout: the rate must be a Python number, got {rate!r}"))
    if not 0 <= rate < 1:
        raise located(GraphError(f"dropout: the rate is a number from 0 to below 1, got {rate}"))
    # 24 bits decide: the rate is kept to 2**-24.
    keep = bernoulli(key, make_constant(1 - rate, float32), node.shape)
    scaled = multiply_op(node, make_constant(1 / (1 - rate), node.dtype))
    return where_op(keep, scaled, make_constant(0, node.dtype))
