"""jitflow: dataflow graphs in, machine code out.

Everything a user needs is a name of this package, of `jitflow.nn`, `jitflow.linalg` or `jitflow.random`.

Build a graph from `placeholder`, `variable`, `constant` and the functions of the array API standard, compile it with
`Session`, check it against the numpy oracle with `interpret` and `compare`, differentiate it with `gradients`.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jitflow import config, linalg, nn, random
from jitflow.autodiff import gradients
from jitflow.dtype_info import can_cast, finfo, iinfo, isdtype, result_type
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
    DataDependentShapeError,
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
from jitflow.graph_file import load, save
from jitflow.graph_text import Graph, graph_arrays, parse_graph, same_graph, show_graph
from jitflow.interp import interpret
from jitflow.namespace_info import array_namespace_info as __array_namespace_info__
from jitflow.sources import asarray, constant, from_dlpack, placeholder, variable
from jitflow.tensor import Tensor, functions_of

if TYPE_CHECKING:
    from jitflow.comparison import CompareReport, compare
    from jitflow.session import Session

__version__ = "0.1.0"
#: The version of the Python array API standard that the names of this package follow.
__array_api_version__ = "2024.12"

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

_FUNCTIONS = functions_of("jitflow")
globals().update(_FUNCTIONS)

__all__ = [
    "ClosedError",
    "CompareReport",
    "CompileError",
    "CompilerBug",
    "DType",
    "DTypeError",
    "DataDependentShapeError",
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
    "__array_api_version__",
    "__array_namespace_info__",
    "__version__",
    "asarray",
    "bfloat16",
    "bool",
    "bool_",
    "can_cast",
    "compare",
    "config",
    "constant",
    "e",
    "finfo",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "gradients",
    "graph_arrays",
    "iinfo",
    "inf",
    "int8",
    "int16",
    "int32",
    "int64",
    "interpret",
    "isdtype",
    "linalg",
    "load",
    "nan",
    "newaxis",
    "nn",
    "parse_graph",
    "pi",
    "placeholder",
    "random",
    "result_type",
    "same_graph",
    "save",
    "show_graph",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "variable",
    *_FUNCTIONS,
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
