"""What the files of composite operators share: operators of floats that are written with other operators.

They stay nodes, so that graphs, dumps and the oracle show them; lowering expands them. Their numpy rules compute in
float64 and round once: what the composition should give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, int32, int64
from jitflow.ops.cast import check_kinds
from jitflow.ops.elementwise import unary_samples
from jitflow.ops.testdata import FLOATS, Array
from jitflow.types import TensorType


def in_double(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` computed in float64 and rounded to the dtype of its first input, without warnings."""

    def rule(*xs: Array, **attrs: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(fn(*(x.astype(np.float64) for x in xs), **attrs)).astype(xs[0].dtype)

    return rule


def infer_float(name: str) -> Callable[..., TensorType]:
    """Return the type rule of an elementwise function that takes floats."""

    def infer(x: TensorType, **_: Any) -> TensorType:
        check_kinds(name, x.dtype, "f")
        return x

    return infer


#: Samples of a function that takes floats.
float_samples = unary_samples(FLOATS, wrong=(bool_, int32, int64))
