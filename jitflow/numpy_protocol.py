"""numpy functions applied to Tensors into nodes: what is behind ``np.exp(x)``, ``array * x``, ``np.stack([x, y])``.

A function of numpy that has a counterpart builds it, with numpy's own parameter names; any other raises TypeError with
advice, and so does every parameter that has no meaning here (``out``, ``where``, ``order``). The ufuncs are here, the
other functions in `jitflow.numpy_functions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jitflow.graph import Node, as_node
from jitflow.numpy_functions import FUNCTIONS, no_out
from jitflow.ops import (
    compare,
    complex_parts,
    elementwise,
    exponential,
    floatbits,
    logic,
    nan_handling,
    scan,
    selection,
    trigonometric,
)
from jitflow.ops.cast import astype
from jitflow.ops.matmul import matmul

#: numpy's ufuncs by name. What they compute is what the operator of that name here computes.
UFUNCS: dict[str, Callable[..., Node]] = {
    "add": elementwise.add,
    "subtract": elementwise.subtract,
    "multiply": elementwise.multiply,
    "divide": elementwise.divide,
    "floor_divide": elementwise.floor_divide,
    "remainder": elementwise.remainder,
    "power": exponential.pow,
    "float_power": lambda x, y: exponential.pow(astype(x, np.float64), astype(y, np.float64)),
    "negative": elementwise.negative,
    "positive": elementwise.positive,
    "conjugate": complex_parts.conj,
    "absolute": elementwise.abs,
    "fabs": elementwise.abs,
    "sign": elementwise.sign,
    "floor": elementwise.floor,
    "ceil": elementwise.ceil,
    "trunc": elementwise.trunc,
    "rint": elementwise.round,
    "sqrt": exponential.sqrt,
    "square": exponential.square,
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "log": exponential.log,
    "log1p": exponential.log1p,
    "log2": exponential.log2,
    "log10": exponential.log10,
    "logaddexp": exponential.logaddexp,
    "cbrt": exponential.cbrt,
    "hypot": exponential.hypot,
    "tanh": trigonometric.tanh,
    "sin": trigonometric.sin,
    "cos": trigonometric.cos,
    "tan": trigonometric.tan,
    "arcsin": trigonometric.asin,
    "arccos": trigonometric.acos,
    "arctan": trigonometric.atan,
    "arctan2": trigonometric.atan2,
    "sinh": trigonometric.sinh,
    "cosh": trigonometric.cosh,
    "arcsinh": trigonometric.asinh,
    "arccosh": trigonometric.acosh,
    "arctanh": trigonometric.atanh,
    "copysign": floatbits.copysign,
    "nextafter": floatbits.nextafter,
    "signbit": floatbits.signbit,
    "maximum": selection.maximum,
    "minimum": selection.minimum,
    "fmax": nan_handling.fmax,
    "fmin": nan_handling.fmin,
    "equal": compare.equal,
    "not_equal": compare.not_equal,
    "less": compare.less,
    "less_equal": compare.less_equal,
    "greater": compare.greater,
    "greater_equal": compare.greater_equal,
    "logical_and": logic.logical_and,
    "logical_or": logic.logical_or,
    "logical_xor": logic.logical_xor,
    "logical_not": logic.logical_not,
    "bitwise_and": logic.bitwise_and,
    "bitwise_or": logic.bitwise_or,
    "bitwise_xor": logic.bitwise_xor,
    "invert": logic.bitwise_invert,
    "left_shift": logic.bitwise_left_shift,
    "right_shift": logic.bitwise_right_shift,
    "isnan": compare.isnan,
    "isinf": compare.isinf,
    "isfinite": compare.isfinite,
    "matmul": matmul,
}


def apply_ufunc(ufunc: np.ufunc, method: str, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Node:
    """Return the node of ``ufunc(*inputs, **kwargs)``."""
    name = ufunc.__name__
    if method == "accumulate" and name in ACCUMULATIONS:
        return _accumulate(name, *inputs, **kwargs)
    if method != "__call__":
        raise TypeError(f"np.{name}.{method} does not take Tensors: use jitflow's reductions, such as jf.sum")
    function = UFUNCS.get(name)
    if function is None:
        raise TypeError(f"np.{name} does not take Tensors: jitflow has no operator for it")
    for key, value in kwargs.items():
        if key == "out":
            raise TypeError(f"np.{name}: a Tensor cannot be written into an array (out=, or an operator such as +=)")
        if key == "dtype" and value is not None:
            return astype(function(*inputs), value)
        raise TypeError(f"np.{name} with Tensors has no parameter {key!r}")
    return function(*inputs)


#: Those whose `accumulate`, the running fold, has a counterpart.
ACCUMULATIONS: dict[str, Callable[..., Node]] = {
    "add": scan.cumulative_sum,
    "multiply": scan.cumulative_prod,
    "maximum": scan.cumulative_max,
    "minimum": scan.cumulative_min,
    "logaddexp": scan.logcumsumexp,
}


def _accumulate(name: str, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Node:
    no_out(f"{name}.accumulate", out)
    x = as_node(array)
    return ACCUMULATIONS[name](x if dtype is None else astype(x, dtype), axis=axis)


def apply_function(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return what ``func(*args, **kwargs)`` means for Tensors: a node, or a fact about one such as its shape."""
    function = FUNCTIONS.get(func)
    if function is None:
        name = getattr(func, "__name__", repr(func))
        raise TypeError(
            f"np.{name} does not take Tensors: use jitflow's functions, or np.{name} on the result of a run"
        )
    return function(*args, **kwargs)
