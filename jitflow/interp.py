"""Evaluate a graph node by node with the operators' numpy rules: the oracle.

It shares no code with lowering. Every result is checked against the inferred dtype and shape, so that a wrong
inference is found where it happens. Values are dropped after their last use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jitflow.errors import CompilerBug, JitflowError, OutOfMemoryError, at_site
from jitflow.expr import Var
from jitflow.feeds import Array, bind_feeds
from jitflow.graph import Node
from jitflow.ops.cast import cast_array
from jitflow.ops.widen import is_widened, widened_attrs, widened_dtype
from jitflow.simplify import evaluate_index
from jitflow.structure import flatten, rebuild


def interpret(fetches: Any, feeds: Mapping[Any, Any] | None = None) -> Any:
    """Return the values of `fetches`, computed by numpy.

    Parameters
    ----------
    fetches
        A tensor, or lists, tuples and dicts of tensors; the result has the same structure.
    feeds
        Arrays by tensor or name, for placeholders and for any other node, which is then not computed.

    Returns
    -------
    numpy.ndarray or a structure of them
        Fresh arrays; a 0-d tensor gives a 0-d array.

    Raises
    ------
    FeedError
        For feeds that do not fit the graph.
    IndexRangeError
        For an index outside its axis.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("n",))
    >>> jf.interpret({"twice": x + x}, {x: [1, 2]})
    {'twice': array([2., 4.], dtype=float32)}
    """
    return rebuild(fetches, iter(interpret_nodes(flatten(fetches), {} if feeds is None else feeds)))


def interpret_nodes(nodes: Sequence[Node], feeds: Mapping[Any, Any]) -> list[Array]:
    """Return the values of `nodes` as fresh arrays."""
    binding = bind_feeds(nodes, feeds)
    last_use = {x: node for node in binding.order for x in node.inputs if node not in binding.arrays}
    wanted = set(nodes)
    values: dict[Node, Array] = {}
    for node in binding.order:
        fed = binding.arrays.get(node)
        if fed is not None:
            values[node] = fed
            continue
        values[node] = evaluate(node, [values[x] for x in node.inputs], binding.dims)
        for x in dict.fromkeys(node.inputs):
            if last_use[x] is node and x not in wanted:
                del values[x]
    return [np.array(values[node], order="C") for node in nodes]


def evaluate(node: Node, inputs: Sequence[Array], dims: Mapping[Var, int]) -> Array:
    """Return the value of `node` for values of its inputs, by its numpy rule.

    Raises CompilerBug if the rule's result has not the dtype and shape that were inferred.
    """
    op = node.op
    if op.name == "variable":
        value: Array = node.attr("value").array
        return value
    if op.numpy is None:
        raise CompilerBug(at_site(f"operator {op.name!r} has no numpy rule", node.site))
    attrs = dict(node.attrs)
    if is_widened(node):
        attrs = widened_attrs(attrs)
        inputs = [cast_array(x, widened_dtype(n.dtype)) for x, n in zip(inputs, node.inputs, strict=True)]
    if op.needs_dims:
        attrs["dims"] = dims
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(op.numpy(*inputs, **attrs))
            if node.dtype.is_half and result.dtype != node.dtype.np:
                result = cast_array(result, node.dtype)
    except JitflowError as error:
        raise type(error)(at_site(str(error), node.site)) from None
    except MemoryError as error:
        raise OutOfMemoryError(at_site(f"{op.name}: {error}", node.site)) from None
    shape = tuple(evaluate_index(d, dims) for d in node.shape)
    if result.dtype != node.dtype.np or result.shape != shape:
        got = f"{result.dtype} of shape {result.shape}"
        raise CompilerBug(at_site(f"{op.name}: inferred {node.dtype} of shape {shape}, numpy gave {got}", node.site))
    return result
