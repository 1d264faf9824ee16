"""Graphs to text, in the format that `jitflow.graph_text` describes; and sameness of graphs, which is that of texts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from jitflow.dtypes import DType, as_dtype, by_short
from jitflow.errors import CompilerBug
from jitflow.expr import INDEX, Expr, Var
from jitflow.graph import ArrayData, Node, OpDef, name_nodes, toposort
from jitflow.simplify import free_vars, rebuild
from jitflow.tensor import Tensor
from jitflow.types import TensorType, dim_text

VERSION = 1
#: Longer arrays are written as a digest: text is for reading.
MAX_INLINE = 16
#: What fresh dims are called.
FRESH = re.compile(r"_[0-9]+")
#: Words that are values.
WORDS = {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}
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
        What the text returns, by name, in order.
    """

    nodes: Mapping[str, Tensor]
    fetches: Mapping[str, Tensor]

    def __getitem__(self, label: str) -> Tensor:
        return self.nodes[label]


def show_graph(fetches: Any, *, sites: bool = True) -> str:
    """Return the graph of `fetches` as text that `parse_graph` reads back.

    Parameters
    ----------
    fetches : Tensor, sequence of Tensors, or dict of str to Tensor
        What the graph returns; the names of a dict are kept.
    sites : bool
        Whether each line ends with the place in the user's code that made the node.

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
    named = _named_fetches(fetches)
    return show_nodes(named, name_nodes(toposort(node for _, node in named)), sites=sites)


def show_nodes(named: Sequence[tuple[str | None, Node]], names: Mapping[Node, str], *, sites: bool = True) -> str:
    """Return the graph that gives the nodes of `named`, each under its name or, for None, under that in `names`."""
    order = toposort(node for _, node in named)
    labels = {node: _label(names[node]) for node in order}
    dims = _DimNames()
    lines = [f"graph {VERSION}:"]
    for node in order:
        typed = _type_text(node.type, dims)
        parts = [labels[x] for x in node.inputs]
        parts += [f"{key}={_value_text(value, dims)}" for key, value in node.attrs if key not in _implied(node.op)]
        comment = f"  # {node.site}".replace("\n", " ") if sites and node.site else ""
        lines.append(f"  {labels[node]}: {typed} = {node.op.name}({', '.join(parts)}){comment}")
    returned = [labels[n] if name is None or name == names[n] else f"{_label(name)}={labels[n]}" for name, n in named]
    lines.append(f"  return {', '.join(returned)}".rstrip())
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
    found: dict[str, np.ndarray[Any, Any]] = {}
    for node in toposort(node for _, node in _named_fetches(fetches)):
        for _, value in node.attrs:
            if isinstance(value, ArrayData) and value.array.size > MAX_INLINE:
                found[array_digest(value.array)] = value.array
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


def array_digest(array: np.ndarray[Any, Any]) -> str:
    """Return the name of `array` in texts: a hash of its dtype, shape and bits."""
    head = f"{array.dtype.name}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()[:32]


def _named_fetches(fetches: Any) -> list[tuple[str | None, Node]]:
    if isinstance(fetches, Graph):
        fetches = fetches.fetches
    if isinstance(fetches, Mapping):
        return [(name, _fetched(x)) for name, x in fetches.items()]
    if isinstance(fetches, (Node, Tensor)) or not isinstance(fetches, Iterable):
        fetches = (fetches,)
    return [(None, _fetched(x)) for x in fetches]


def _fetched(x: Any) -> Node:
    node = getattr(x, "node", x)
    if not isinstance(node, Node):
        raise TypeError(f"a graph is shown from Tensors, got {type(x).__name__}")
    return node


def _implied(op: OpDef) -> tuple[str, ...]:
    """Return the attributes that are not written: an identity, and what the type says already."""
    return ("uid", "dtype", "shape") if op.name == "placeholder" else ("uid",)


class _DimNames:
    """The names of dims in one text: fresh ones numbered by appearance, ones that mean something else quoted."""

    def __init__(self) -> None:
        self.numbers = count()
        self.values: dict[Var, Expr] = {}

    def text(self, d: int | Expr) -> str:
        if isinstance(d, int):
            return str(d)
        changed = False
        for var in sorted(free_vars(d), key=lambda v: v.serial):
            if var not in self.values:
                self.values[var] = self._renamed(var)
            changed = changed or self.values[var] is not var
        return dim_text(rebuild(d, self.values) if changed else d)

    def _renamed(self, var: Var) -> Var:
        if FRESH.fullmatch(var.name):
            return Var(f"_{next(self.numbers)}", INDEX, floor=0)
        if var.name in _RESERVED or by_short(var.name) is not None:
            return Var(f'dim("{var.name}")', INDEX, floor=0)
        return var


def _label(name: str) -> str:
    return name if name.isidentifier() and name not in _KEYWORDS else json.dumps(name, ensure_ascii=False)


def _type_text(type: TensorType, dims: _DimNames) -> str:
    return f"{type.dtype.short}[{', '.join(dims.text(d) for d in type.shape)}]"


def _value_text(value: Any, dims: _DimNames) -> str:
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
            inner = ", ".join(_value_text(v, dims) for v in value)
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        case DType():
            return value.short
        case Expr():
            return dims.text(value)
        case ArrayData():
            return _array_text(value.array)
        case _:
            raise CompilerBug(f"an attribute of type {type(value).__name__} has no text")


def _array_text(array: np.ndarray[Any, Any]) -> str:
    head = f"{as_dtype(array.dtype).short}[{', '.join(map(str, array.shape))}]"
    if array.size > MAX_INLINE:
        return f"{head}@{array_digest(array)}"
    return head + "{" + ", ".join(_element_text(x) for x in array.ravel()) + "}"


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
    return short if type(x)(float(short)) == x else exact
