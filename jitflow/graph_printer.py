"""Graphs to text, in the format that `jitflow.graph_text` describes; and sameness of graphs, which is that of texts."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from jitflow.dtypes import DType, as_dtype, by_short
from jitflow.errors import CompilerBug, DTypeError, GraphError
from jitflow.expr import INDEX, Expr, Var
from jitflow.graph import MAX_KEPT_BYTES, ArrayData, Node, OpDef, located, name_nodes, toposort
from jitflow.ops.axes import as_flag
from jitflow.simplify import free_vars, rebuild
from jitflow.structure import MAX_DEPTH
from jitflow.tensor import Tensor
from jitflow.types import TensorType, dim_text

VERSION = 1
#: Longer arrays are written as a digest: text is for reading.
MAX_INLINE = 16
#: What fresh dims are called.
FRESH = re.compile(r"_[0-9]+")
#: Words that are values.
WORDS = {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}
#: What no array can be called in a file.
METADATA = "__metadata__"
_RESERVED = frozenset({*WORDS, "min", "max", "dim"})
_KEYWORDS = frozenset({"graph", "return"})


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph that was parsed.

    Attributes
    ----------
    nodes : mapping of str to Tensor
        Every node by its label in the text, in the order of the text.
    fetches : mapping of str to Tensor
        What the text returns, by name, in order. In a nested structure, the name is the path: ``heads[0]``.
    outputs : Tensor, or list, tuple or dict of outputs
        What the text returns, in its structure: a Tensor for ``return y``, a dict for ``return loss=a, y=b``.
    """

    nodes: Mapping[str, Tensor]
    fetches: Mapping[str, Tensor]
    outputs: Any

    def __getitem__(self, label: str) -> Tensor:
        return self.nodes[label]


def show_graph(fetches: Any, *, sites: bool = True) -> str:
    """Return the graph of `fetches` as text that `parse_graph` reads back.

    Parameters
    ----------
    fetches : Tensor, or list, tuple or dict of fetches
        What the graph returns; the names of a dict are kept.
    sites : bool
        Whether each line ends with the place in the user's code that made the node.

    Raises
    ------
    GraphError
        If two nodes have one name, or a dict among `fetches` has keys that are no strings or integers.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("n", 3))
    >>> print(jf.show_graph({"y": jf.exp(x) * 2.0}, sites=False))
    graph 1:
      x: f32[n, 3] = placeholder(name="x")
      exp_0: f32[n, 3] = exp(x)
      constant_0: f32[] = constant(value=f32[]{2.0})
      multiply_0: f32[n, 3] = multiply(exp_0, constant_0)
      return y=multiply_0
    """
    as_flag(sites, "show_graph: sites")
    if isinstance(fetches, Graph):
        fetches = fetches.outputs if _is_nested(fetches.outputs) else fetches.fetches
    if _is_nested(fetches):
        return show_outputs(fetches, sites=sites)
    named = _named_fetches(fetches)
    return show_nodes(named, name_nodes(toposort(node for _, node in named)), sites=sites)


def show_nodes(named: Sequence[tuple[str | None, Node]], names: Mapping[Node, str], *, sites: bool = True) -> str:
    """Return the graph that gives the nodes of `named`, each under its name or, for None, under that in `names`."""
    order = toposort(node for _, node in named)
    labels = {node: label(names[node]) for node in order}
    returned = [labels[n] if name is None or name == names[n] else f"{label(name)}={labels[n]}" for name, n in named]
    return _text(order, labels, ", ".join(returned), sites=sites)


def show_outputs(outputs: Any, *, sites: bool = False, exact: bool = False) -> str:
    """Return the graph of `outputs`, a structure of tensors, as text that keeps the structure.

    With `exact`, arrays that hold a NaN other than the usual one are named by their digest however short they are, so
    that they read back bit for bit.
    """
    order = toposort(_fetched(x) for x in _leaves(outputs))
    names = name_nodes(order)
    labels = {node: label(names[node]) for node in order}
    return _text(order, labels, _structure_text(outputs, labels), sites=sites, exact=exact)


def _text(order: Sequence[Node], labels: Mapping[Node, str], returned: str, *, sites: bool, exact: bool = False) -> str:
    values = Values(exact)
    lines = [f"graph {VERSION}:"]
    for node in order:
        typed = values.type(node.type)
        comment = f"  # {node.site}".replace("\n", " ") if sites and node.site else ""
        lines.append(f"  {labels[node]}: {typed} = {node.op.name}({arguments_text(node, labels, values)}){comment}")
    lines.append(f"  return {returned}".rstrip())
    return "\n".join(lines) + "\n"


def graph_arrays(fetches: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays that the text of `fetches` only names, by digest: what `parse_graph` takes as `arrays`.

    Examples
    --------
    >>> import numpy as np, jitflow as jf
    >>> table = jf.constant(np.arange(1000.0))
    >>> jf.same_graph(jf.parse_graph(jf.show_graph(table), jf.graph_arrays(table)), table)
    True
    """
    return {array_digest(data): data.array for data in named_arrays(fetches).values()}


def named_arrays(outputs: Any, *, exact: bool = False) -> dict[str, ArrayData]:
    """Return the arrays that the text of `outputs` only names, each under the name of the node that has it."""
    if isinstance(outputs, Graph):
        outputs = outputs.outputs
    order = toposort(_fetched(x) for x in _leaves(outputs))
    names = name_nodes(order)
    found: dict[str, ArrayData] = {}
    for node in order:
        for key, value in node.attrs:
            if isinstance(value, ArrayData) and not _is_inline(value.array, exact):
                name = names[node] if key == "value" else f"{names[node]}.{key}"
                while name in found or name == METADATA:  # a node may be called `a.b`
                    name += "_"
                found[name] = value
    return found


def same_graph(a: Any, b: Any) -> bool:
    """Tell whether two graphs are the same up to the identity of sources and the names of fresh dims.

    Examples
    --------
    >>> import jitflow as jf
    >>> x, y = (jf.placeholder("x", jf.float32, ("n",)) for _ in range(2))
    >>> jf.same_graph(jf.exp(x), jf.exp(y)), jf.same_graph(jf.exp(x), jf.log(y))
    (True, False)
    """
    return show_graph(a, sites=False) == show_graph(b, sites=False)


def array_digest(array: np.ndarray[Any, Any] | ArrayData) -> str:
    """Return the name of `array` in texts: a hash of its dtype, shape and bits (`jitflow.graph_text`)."""
    if isinstance(array, ArrayData) and array.array.nbytes > MAX_KEPT_BYTES:
        bits = array.key[2]  # its hash already
        array = array.array
    else:
        array = array.array if isinstance(array, ArrayData) else np.ascontiguousarray(array).reshape(array.shape)
        bits = hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest()
    return hashlib.sha256(f"{array.dtype.name}{array.shape}".encode() + bits).hexdigest()[:32]


def _is_nested(fetches: Any) -> bool:
    items = fetches.values() if isinstance(fetches, Mapping) else fetches if isinstance(fetches, (list, tuple)) else ()
    return any(isinstance(x, (list, tuple, dict)) for x in items)


def _leaves(outputs: Any) -> list[Any]:
    """Return the tensors of `outputs` in the order of the text, which is that of the structure."""
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if not isinstance(outputs, (list, tuple)):
        return [outputs]
    found = []
    stack = [iter(outputs)]
    while stack:
        x = next(stack[-1], stack)
        if x is stack:
            stack.pop()
        elif isinstance(x, (list, tuple, dict)):
            if len(stack) > MAX_DEPTH:
                raise located(GraphError(f"outputs are nested deeper than {MAX_DEPTH} levels"))
            stack.append(iter(x.values() if isinstance(x, dict) else x))
        else:
            found.append(x)
    return found


def _structure_text(outputs: Any, labels: Mapping[Node, str]) -> str:
    if isinstance(outputs, dict):
        return "{" + ", ".join(f"{_key(k)}: {_structure_text(x, labels)}" for k, x in outputs.items()) + "}"
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        raise GraphError(f"a {type(outputs).__name__} cannot be read back from text; return a tuple or a dict")
    if isinstance(outputs, (list, tuple)):
        inner = ", ".join(_structure_text(x, labels) for x in outputs)
        if isinstance(outputs, list):
            return f"[{inner}]"
        return f"({inner},)" if len(outputs) == 1 else f"({inner})"
    return labels[_fetched(outputs)]


def _key(key: Any) -> str:
    if type(key) is int and abs(key) < 2**63:
        return str(key)
    if type(key) is not str:
        raise GraphError(f"the keys of outputs are strings or integers of 64 bits, not {key!r}")
    return json.dumps(key, ensure_ascii=False)


def _named_fetches(fetches: Any) -> list[tuple[str | None, Node]]:
    if isinstance(fetches, Mapping):
        return [(name, _fetched(x)) for name, x in fetches.items()]
    if isinstance(fetches, (Node, Tensor, np.ndarray)) or not isinstance(fetches, Iterable):
        fetches = (fetches,)
    return [(None, _fetched(x)) for x in fetches]


def _fetched(x: Any) -> Node:
    node = getattr(x, "node", x)
    if not isinstance(node, Node):
        raise located(DTypeError(f"a graph is shown from Tensors, got {type(x).__name__}"))
    return node


def arguments_text(node: Node, labels: Mapping[Node, str], values: Values) -> str:
    """Return what stands in brackets behind the operator of `node`: its inputs, and the attributes that are written."""
    parts = [labels[x] for x in node.inputs]
    parts += [f"{key}={values.text(value)}" for key, value in node.attrs if key not in _implied(node.op)]
    return ", ".join(parts)


def _implied(op: OpDef) -> tuple[str, ...]:
    """Return the attributes that are not written: an identity, and what the type says already."""
    return ("uid", "dtype", "shape") if op.name == "placeholder" else ("uid",)


class Values:
    """Values as one text writes them: fresh dims are numbered by appearance, names with a meaning here are quoted."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.numbers = count()
        self.dims: dict[Var, Expr] = {}

    def dim(self, d: int | Expr) -> str:
        if isinstance(d, int):
            return str(d)
        changed = False
        for var in sorted(free_vars(d), key=lambda v: v.serial):
            if var not in self.dims:
                self.dims[var] = self._renamed(var)
            changed = changed or self.dims[var] is not var
        return dim_text(rebuild(d, self.dims) if changed else d)

    def _renamed(self, var: Var) -> Var:
        if FRESH.fullmatch(var.name):
            return Var(f"_{next(self.numbers)}", INDEX, floor=0)
        if var.name in _RESERVED or by_short(var.name) is not None:
            return Var(f'dim("{var.name}")', INDEX, floor=0)
        return var

    def type(self, type: TensorType) -> str:
        return f"{type.dtype.short}[{', '.join(self.dim(d) for d in type.shape)}]"

    def text(self, value: Any) -> str:
        match value:
            case None:
                return "none"
            case bool():
                return "true" if value else "false"
            case int():
                return str(value)
            case float():
                return repr(value)
            case str():
                return json.dumps(value, ensure_ascii=False)
            case tuple():
                inner = ", ".join(self.text(v) for v in value)
                return f"({inner},)" if len(value) == 1 else f"({inner})"
            case DType():
                return value.short
            case Expr():
                return self.dim(value)
            case ArrayData():
                return self.array(value)
            case _:
                raise CompilerBug(f"an attribute of type {type(value).__name__} has no text")

    def array(self, data: ArrayData) -> str:
        array = data.array
        head = f"{as_dtype(array.dtype).short}[{', '.join(map(str, array.shape))}]"
        if not _is_inline(array, self.exact):
            return f"{head}@{array_digest(data)}"
        return head + "{" + ", ".join(_element_text(x) for x in array.ravel()) + "}"


def _is_inline(array: np.ndarray[Any, Any], exact: bool) -> bool:
    """Tell whether the elements of `array` stand in the text."""
    if array.size > MAX_INLINE:
        return False
    if not exact or not as_dtype(array.dtype).is_float:
        return True
    nan = np.array(math.nan, array.dtype).tobytes()
    return all(x == x or x.tobytes() == nan for x in array.ravel())


def label(name: str) -> str:
    """Return how a text writes the name of a node: quoted, unless it is a word without another meaning."""
    return name if name.isidentifier() and name not in _KEYWORDS else json.dumps(name, ensure_ascii=False)


def _element_text(x: np.generic) -> str:
    if isinstance(x, np.bool_):
        return "true" if x else "false"
    if isinstance(x, np.integer):
        return str(int(x))
    exact = repr(float(x))
    if not np.isfinite(x):
        return exact
    # The shortest digits of float32 are rounded to float64 first when read; say more where that would go astray.
    short = str(x)
    is_float = "." in short or "e" in short  # bfloat16 writes whole numbers without a point
    return short if is_float and type(x)(float(short)) == x else exact
