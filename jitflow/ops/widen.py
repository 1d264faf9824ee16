"""An operator on float16 or bfloat16 as the same operator on float32: inputs, attributes and the dtype of the result.

The two are types to store numbers in. What computes on them (everything that is neither `movement` nor `storage`)
computes in float32 and rounds once, at the end: of a sum not every addition is rounded, nor every step of an `expand`
definition. A single addition, subtraction, multiplication, division or square root rounded to float32 first still
gives the nearest half, since 24 digits are at least 2 * 11 + 2 (Figueroa, "When is double rounding innocuous?").

The interpreter, the graph pass `widen` and the gradients all take the rule from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jitflow.dtypes import DType, float32
from jitflow.graph import Node, OpDef, make_node
from jitflow.ops.cast import as_dtype_of


def is_widened(node: Node) -> bool:
    """Tell whether `node` computes on float16 or bfloat16, or makes them otherwise than by moving or converting."""
    op = node.op
    if op.source or op.movement or op.storage:
        return False
    return node.dtype.is_half or any(x.dtype.is_half for x in node.inputs)


def widened_dtype(dtype: DType) -> DType:
    """Return the dtype in which values of `dtype` are computed."""
    return float32 if dtype.is_half else dtype


def widened_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return `attrs` with float32 in place of each half."""
    return {k: float32 if isinstance(v, DType) and v.is_half else v for k, v in attrs.items()}


def widened_input(x: Node) -> Node:
    """Return `x` in the dtype in which it takes part in computations."""
    return as_dtype_of(x, widened_dtype(x.dtype))


def widened_node(op: OpDef, inputs: tuple[Node, ...], attrs: Mapping[str, Any], dtype: DType) -> Node:
    """Return `op` on `inputs`, computed in float32 where they are halves, in `dtype`."""
    return as_dtype_of(make_node(op, [widened_input(x) for x in inputs], widened_attrs(attrs)), dtype)
