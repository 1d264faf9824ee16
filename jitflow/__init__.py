"""jitflow: dataflow graphs in, machine code out. Everything a user needs is a name of this package or of `jitflow.nn`.

Build a graph from `placeholder`, `variable`, `constant` and the functions of the array API standard, compile it with
`Session`, check it against the numpy oracle with `interpret` and `compare`, differentiate it with `gradients`.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jitflow import config, linalg, nn
from jitflow.autodiff import gradients
from jitflow.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from jitflow.dtypes import bool_ as bool
from jitflow.errors import (
    ClosedError,
    CompileError,
    CompilerBug,
    DeviceError,
    DTypeError,
    FeedError,
    FeedIndexError,
    FeedTypeError,
    ForkError,
    FormatError,
    GraphError,
    IndexRangeError,
    JitflowError,
    LimitError,
    OutOfBoundsError,
    OutOfMemoryError,
    ShapeError,
    StaticIndexError,
)
from jitflow.functions import (
    abs,
    add,
    all,
    any,
    arange,
    argmax,
    argmin,
    astype,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    broadcast_to,
    ceil,
    clip,
    concat,
    cos,
    cumulative_max,
    cumulative_min,
    cumulative_prod,
    cumulative_sum,
    divide,
    dot,
    einsum,
    equal,
    erf,
    exp,
    expand_dims,
    flip,
    floor,
    floor_divide,
    full,
    full_like,
    greater,
    greater_equal,
    inner,
    isfinite,
    isinf,
    isnan,
    kron,
    less,
    less_equal,
    log,
    logcumsumexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    matmul,
    matrix_transpose,
    max,
    maximum,
    mean,
    min,
    minimum,
    moveaxis,
    multiply,
    negative,
    not_equal,
    ones,
    ones_like,
    outer,
    pad,
    permute_dims,
    positive,
    pow,
    prod,
    remainder,
    reshape,
    roll,
    round,
    sign,
    sin,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    subtract,
    sum,
    take,
    tanh,
    tensordot,
    trunc,
    var,
    vecdot,
    where,
    zeros,
    zeros_like,
)
from jitflow.graph_file import load, save
from jitflow.graph_text import Graph, graph_arrays, parse_graph, same_graph, show_graph
from jitflow.interp import interpret
from jitflow.nn import gelu, layer_norm, log_softmax, relu, sigmoid, silu, softmax
from jitflow.tensor import Tensor, asarray, constant, placeholder, variable

if TYPE_CHECKING:
    from jitflow.comparison import CompareReport, compare
    from jitflow.session import Session

__version__ = "0.1.0"

e = 2.718281828459045
pi = 3.141592653589793
inf = float("inf")
nan = float("nan")
newaxis = None

#: Names that need the compiler, which imports this package: they are looked up when first used (see `__getattr__`).
_LATE = {
    "CompareReport": "jitflow.comparison",
    "Session": "jitflow.session",
    "compare": "jitflow.comparison",
}

__all__ = [
    "ClosedError",
    "CompareReport",
    "CompileError",
    "CompilerBug",
    "DType",
    "DTypeError",
    "DeviceError",
    "FeedError",
    "FeedIndexError",
    "FeedTypeError",
    "ForkError",
    "FormatError",
    "Graph",
    "GraphError",
    "IndexRangeError",
    "JitflowError",
    "LimitError",
    "OutOfBoundsError",
    "OutOfMemoryError",
    "Session",
    "ShapeError",
    "StaticIndexError",
    "Tensor",
    "__version__",
    "abs",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "asarray",
    "astype",
    "bfloat16",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "bool",
    "bool_",
    "broadcast_to",
    "ceil",
    "clip",
    "compare",
    "concat",
    "config",
    "constant",
    "cos",
    "cumulative_max",
    "cumulative_min",
    "cumulative_prod",
    "cumulative_sum",
    "divide",
    "dot",
    "e",
    "einsum",
    "equal",
    "erf",
    "exp",
    "expand_dims",
    "flip",
    "float16",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "full",
    "full_like",
    "gelu",
    "gradients",
    "graph_arrays",
    "greater",
    "greater_equal",
    "inf",
    "inner",
    "int8",
    "int16",
    "int32",
    "int64",
    "interpret",
    "isfinite",
    "isinf",
    "isnan",
    "kron",
    "layer_norm",
    "less",
    "less_equal",
    "linalg",
    "load",
    "log",
    "log_softmax",
    "logcumsumexp",
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
    "nan",
    "negative",
    "newaxis",
    "nn",
    "not_equal",
    "ones",
    "ones_like",
    "outer",
    "pad",
    "parse_graph",
    "permute_dims",
    "pi",
    "placeholder",
    "positive",
    "pow",
    "prod",
    "relu",
    "remainder",
    "reshape",
    "roll",
    "round",
    "same_graph",
    "save",
    "show_graph",
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
    "tensordot",
    "trunc",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "var",
    "variable",
    "vecdot",
    "where",
    "zeros",
    "zeros_like",
]


def _check_siblings() -> None:
    """Refuse to go on with packages of the same name that are not ours: `lowering` and `runtime` are generic names."""
    home = Path(__file__).resolve().parent.parent
    for name in ("lowering", "runtime"):
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec is not None else []
        if not places:
            raise ImportError(f"jitflow needs its package {name!r} next to it in {home}, where there is none")
        if Path(places[0]).resolve() != home / name:
            raise ImportError(
                f"jitflow needs its own package {name!r}, in {home}, but Python finds another one first: {places[0]}. "
                "Rename that one, or remove it from the path."
            )


_check_siblings()


def __getattr__(name: str) -> Any:
    # The one late import: the compiler imports `jitflow.graph`, which first runs this file, so this file cannot import
    # the compiler. With it here, `import lowering.build` works as the first import of a process.
    if name in _LATE:
        value = getattr(importlib.import_module(_LATE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'jitflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
