"""The operator that gives a tensor a name: the same values, to be fetched, fed and shown in dumps by that name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED
from jitflow.expr import Expr
from jitflow.graph import Index, Node, Operand, Reader, Sample, as_node, define_op
from jitflow.ops.testdata import edges
from jitflow.types import TensorType


def _infer(x: TensorType, *, name: str) -> TensorType:
    return x


def _numpy(x: np.ndarray[Any, Any], *, name: str) -> np.ndarray[Any, Any]:
    return x.copy()


def _element(index: Index, x: Reader, *, name: str) -> Expr:
    return x(*index)


def _vjp(ct: Node, out: Node, x: Node, *, name: str) -> tuple[Node]:
    return (ct,)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((rng.standard_normal((3, 5)).astype(np.float32),), {"name": "h"})
    yield Sample((np.array([np.nan, -0.0, np.inf]),), {"name": "a b"})
    yield Sample((np.array([], np.int32),), {"name": "empty"})
    yield Sample((np.array(True),), {"name": "flag"})
    for dtype in SUPPORTED:
        yield Sample((edges(dtype),), {"name": f"h_{dtype}"})


identity_op = define_op(
    "identity",
    infer=_infer,
    numpy=_numpy,
    element=_element,
    vjp=_vjp,
    samples=_samples,
    exact=True,
    movement=True,
)


def named(x: Operand, name: str) -> Node:
    """Return `x` under the name `name`."""
    return identity_op(as_node(x), name=name)
