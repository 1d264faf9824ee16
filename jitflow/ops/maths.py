"""What the files of real functions share: how one is defined, and its samples.

The functions are vector-maths intrinsics, ``call(name, x)``, which lowering writes out. The oracle computes float32 in
float64 and rounds, which gives the nearest float32 but for rare ties; its float64 is numpy's, within 2 ULP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, int32, int64
from jitflow.expr import call
from jitflow.graph import Node, OpDef, Operand, Sample, make_constant
from jitflow.ops.cast import as_float, cast_array
from jitflow.ops.elementwise import define_elementwise, in_double, unary_samples
from jitflow.ops.testdata import FLOATS


def samples_between(
    low: float, high: float, smooth: tuple[float, float] | None = None
) -> Callable[[np.random.Generator], Iterator[Sample]]:
    """Return `samples` that add to those of any float function a range in which the function has something to do.

    Slopes are compared within `smooth`; by default where random numbers fall, or from 1/4 to 3 if `low` is not below 0.
    """
    common = unary_samples(FLOATS, wrong=(bool_, int32, int64))

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for sample in common(rng):
            # Central differences would leave the domain of log and sqrt near zero.
            is_smooth = low < 0 and smooth is None and sample.smooth
            yield Sample(sample.inputs, sample.attrs, sample.raises, sample.match, smooth=is_smooth)
        for dtype in FLOATS:
            yield Sample((cast_array(rng.uniform(*(smooth or (max(low, 0.25), 3.0)), 9), dtype),))
            yield Sample((cast_array(rng.uniform(low, high, 67), dtype),), smooth=False)

    return samples


def define_function(
    name: str,
    fn: Callable[..., Any],
    low: float,
    high: float,
    vjp: Callable[..., tuple[Node, ...]],
    smooth: tuple[float, float] | None = None,
) -> OpDef:
    """Define the operator of intrinsic `name` of one float input, with numpy function `fn` of float64 as its rule.

    Its samples add numbers between `low` and `high` to edge values, and compare slopes within `smooth`.
    """
    return define_elementwise(
        name,
        lambda a: call(name, a),
        numpy=in_double(fn),
        kinds="f",
        vjp=vjp,
        samples=samples_between(low, high, smooth),
        exact=False,
        costly=True,
    )


def apply_to_floats(op: OpDef, x: Operand) -> Node:
    """Apply `op` to `x`, which is cast to float64 if it holds integers or bool."""
    return op(as_float(x))


def number(value: float, like: Node) -> Node:
    """Return `value` as a constant of the dtype of `like`."""
    return make_constant(value, like.dtype)
