"""Every operator, by module; importing this package fills `jitflow.graph.OPS`. Functions return nodes.

A file put into this folder is found without being named anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil

from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.cast import astype
from jitflow.ops.compare import (
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    clip,
    equal,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    not_equal,
    where,
)
from jitflow.ops.composite import gelu, layer_norm, log_softmax, relu, sigmoid, silu, softmax
from jitflow.ops.creation import arange, full, full_like, ones, ones_like, zeros, zeros_like
from jitflow.ops.elementwise import (
    abs,
    add,
    ceil,
    divide,
    floor,
    floor_divide,
    multiply,
    negative,
    positive,
    remainder,
    round,
    sign,
    subtract,
    trunc,
)
from jitflow.ops.exponential import exp, log, pow, sqrt, square
from jitflow.ops.index import getitem, take
from jitflow.ops.joining import concat, pad, stack
from jitflow.ops.linalg import matmul
from jitflow.ops.movement import (
    expand_dims,
    flip,
    matrix_transpose,
    moveaxis,
    permute_dims,
    reshape,
    roll,
    squeeze,
)
from jitflow.ops.reduce import all, any, argmax, argmin, max, mean, min, prod, std, sum, var
from jitflow.ops.trigonometric import cos, erf, sin, tanh

__all__ = [
    "abs",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "astype",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "broadcast_to",
    "ceil",
    "clip",
    "concat",
    "cos",
    "divide",
    "equal",
    "erf",
    "exp",
    "expand_dims",
    "flip",
    "floor",
    "floor_divide",
    "full",
    "full_like",
    "gelu",
    "getitem",
    "greater",
    "greater_equal",
    "isfinite",
    "isinf",
    "isnan",
    "layer_norm",
    "less",
    "less_equal",
    "log",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "matmul",
    "matrix_transpose",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "negative",
    "not_equal",
    "ones",
    "ones_like",
    "pad",
    "permute_dims",
    "positive",
    "pow",
    "prod",
    "relu",
    "remainder",
    "reshape",
    "roll",
    "round",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "take",
    "tanh",
    "trunc",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
