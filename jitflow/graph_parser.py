"""Text to graphs, in the format that `jitflow.graph_text` describes: lines are parsed, then made nodes, inputs first.

Texts may come from anybody. Every construct has a limit, attributes must be of the kind that their operator declares,
and whatever is wrong is an error of the family, with its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NoReturn

import numpy as np

from jitflow.dtypes import DType, as_dtype
from jitflow.errors import DTypeError, FormatError, GraphError, JitflowError, LimitError
from jitflow.expr import Expr
from jitflow.graph import MAX_NODES, ArrayData, Node, OpDef, located, make_node, make_placeholder, make_variable, sited
from jitflow.graph_attrs import attributes_of, is_of_kind, kind_text
from jitflow.graph_line import MAX_LINE, Line, LineParser, Place, Returned, Source, did_you_mean, line_and_column
from jitflow.graph_printer import VERSION, Graph
from jitflow.tensor import Tensor, as_tensor
from jitflow.types import TensorType, as_shape, guarding_all, same_shape


def parse_graph(
    text: str,
    arrays: Mapping[str, np.ndarray[Any, Any] | ArrayData] | None = None,
    *,
    stand_ins: bool = False,
) -> Graph:
    """Return the graph written in `text`.

    Parameters
    ----------
    text : str
        As `show_graph` writes it. Lines may come in any order, and types may be left out where they can be inferred.
    arrays : mapping of str to array, optional
        The arrays that the text names by digest (`graph_arrays`).
    stand_ins : bool
        Make up the arrays that are not given: enough to look at the code of the graph, not to run it.

    Raises
    ------
    FormatError
        For text that is not a graph; with line and column.
    GraphError
        For an unknown operator or attribute, a missing or duplicate node, or a cycle.
    ShapeError, DTypeError
        For nodes that do not fit each other, as when a graph is built.
    LimitError
        For more lines or longer ones, or larger dims, than there may be.

    Examples
    --------
    >>> import jitflow as jf
    >>> text = '''graph 1:
    ...   x: f32[n] = placeholder(name="x")
    ...   y = exp(x)
    ...   return y
    ... '''
    >>> jf.parse_graph(text).fetches["y"]
    Tensor(exp, float32, (n,))
    """
    if not isinstance(text, str):
        raise located(DTypeError(f"parse_graph takes text, got {type(text).__name__}"))
    if not isinstance(arrays or {}, Mapping):
        raise located(DTypeError(f"parse_graph: arrays must be a dict from digests, got {type(arrays).__name__}"))
    return parse_text(text, Source(arrays or {}, stand_ins, line_and_column))


def parse_text(text: str, source: Source, site: Callable[[int], str] | None = None) -> Graph:
    """Return the graph written in `text`; `site` says for a line what its node names as the place that made it."""
    place = source.place
    lines: dict[str, Line] = {}
    returned: Returned | None = None
    rows = text.split("\n")
    if len(rows) > MAX_NODES:
        raise LimitError(f"the text has {len(rows)} lines, over the limit of {MAX_NODES} nodes")
    header = False
    for number, row in enumerate(rows, 1):
        if len(row) > MAX_LINE:
            raise LimitError(f"{place(number, None)}: {len(row)} characters, over the limit of {MAX_LINE} in one line")
        p = LineParser(row, number, source)
        if p.at_end():
            continue
        if not header:
            p.header()
            header = True
        elif returned is not None:
            p.fail("nothing may follow 'return'")
        elif p.accept("return"):
            returned = p.returned()
        else:
            line = p.node()
            other = lines.setdefault(line.label, line)
            if other is not line:
                raise GraphError(
                    f"two nodes are called {line.label!r}: {place(other.number, None)} and {place(number, None)}"
                )
    if not header:
        raise FormatError(f"{place(1, 1)}: expected 'graph {VERSION}:', found nothing")
    if returned is None:
        raise FormatError(f"{place(len(rows), 1)}: the graph does not end with 'return'")
    with guarding_all():
        nodes = _build(lines, place, site)
    tensors = {label: as_tensor(nodes[label]) for label in lines}
    fetches: dict[str, Tensor] = {}
    where = place(returned.number, None)
    for name, label in returned.named:
        if label not in tensors:
            _dangling(label, lines, f"{where}: 'return'")
        if fetches.setdefault(name, tensors[label]) is not tensors[label]:
            raise GraphError(f"{where}: two different nodes are returned as {name!r}")
    return Graph(tensors, fetches, _structure(returned.structure, tensors))


def _structure(labels: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return a structure of labels as one of tensors."""
    match labels:
        case list():
            return [_structure(x, tensors) for x in labels]
        case tuple():
            return tuple(_structure(x, tensors) for x in labels)
        case dict():
            return {k: _structure(x, tensors) for k, x in labels.items()}
        case _:
            return tensors[labels]


def _build(lines: Mapping[str, Line], place: Place, site: Callable[[int], str] | None) -> dict[str, Node]:
    """Make the nodes of `lines`, inputs first, whatever order they are written in."""
    nodes: dict[str, Node] = {}
    for root in lines:
        path = [(lines[root], iter(lines[root].inputs))] if root not in nodes else []
        on_path = {root: 0}
        while path:
            line, rest = path[-1]
            missing = next((x for x in rest if x not in nodes), None)
            if missing is None:
                inputs = [nodes[x] for x in line.inputs]
                if site is None:
                    nodes[line.label] = _make(line, inputs, place)
                else:
                    with sited(site(line.number)):
                        nodes[line.label] = _make(line, inputs, place)
                path.pop()
                del on_path[line.label]
            elif missing not in lines:
                _dangling(missing, lines, f"{place(line.number, None)}: {line.label!r}")
            elif missing in on_path:
                cycle = " -> ".join([*(at.label for at, _ in path[on_path[missing] :]), missing])
                raise GraphError(f"{place(line.number, None)}: the graph has a cycle: {cycle}")
            else:
                on_path[missing] = len(path)
                path.append((lines[missing], iter(lines[missing].inputs)))
    return nodes


def _dangling(label: str, lines: Iterable[str], user: str) -> NoReturn:
    raise GraphError(f"{user} reads {label!r}, which is not defined{did_you_mean(label, lines)}")


def _make(line: Line, inputs: list[Node], place: Place) -> Node:
    attrs = dict(line.attrs)
    if line.op.name == "placeholder" and line.type is not None:
        attrs.update(dtype=line.type.dtype, shape=line.type.shape)
    _check_attrs(line, attrs, place)
    try:
        match line.op.name:
            case "placeholder":
                node = make_placeholder(attrs.get("name"), as_dtype(attrs["dtype"]), as_shape(attrs["shape"]))
            case "variable":
                node = make_variable(attrs.get("name"), attrs["value"])
            case _:
                node = make_node(line.op, inputs, attrs)
    except JitflowError as error:
        raise type(error)(f"{place(line.number, None)}: {str(error).splitlines()[0]}") from None
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, AssertionError) as error:
        # An attribute of a value that the rule does not expect: the rules check what users can pass, not any text.
        problem = f"{line.op.name} cannot have these attributes: {error}"
        raise FormatError(f"{place(line.number, None)}: {problem}") from None
    if not (isinstance(node.dtype, DType) and node.dtype.kind != "x") or not all(map(_is_size, node.shape)):
        problem = f"{line.op.name} cannot have these attributes: the result would be no tensor"
        raise FormatError(f"{place(line.number, None)}: {problem}")
    if line.type is not None and line.type != node.type and not _is_type(node, line.type):
        problem = f"{line.label!r} is written {line.type!r} but is {node.type!r}"
        raise FormatError(f"{place(line.number, None)}: {problem}")
    return node


def _is_size(d: Any) -> bool:
    return isinstance(d, Expr) or (type(d) is int and d >= 0)


def _is_type(node: Node, written: TensorType) -> bool:
    return written.dtype is node.dtype and same_shape(written.shape, node.shape)


def _check_attrs(line: Line, attrs: Mapping[str, Any], place: Place) -> None:
    known = attributes_of(line.op)
    where, op = line.number, line.op.name
    for name, value in attrs.items():
        if name not in known:
            near = did_you_mean(name, known)
            raise GraphError(f"{place(where, None)}: {op} has no attribute {name!r}{near}")
        if not is_of_kind(value, known[name].kind):
            kind = kind_text(known[name].kind)
            raise FormatError(f"{place(where, None)}: attribute {name!r} of {op} must be {kind}")
    for name, attribute in known.items():
        if attribute.required and name not in attrs:
            raise GraphError(f"{place(where, None)}: {op} needs attribute {name!r}")
    arity = _arity(line.op)
    if arity is not None and arity != len(line.inputs):
        raise GraphError(f"{place(where, None)}: {op} takes {arity} inputs, got {len(line.inputs)}")


@cache
def _arity(op: OpDef) -> int | None:
    """Return how many inputs `op` takes, or None for any number: what the first of its rules says that names them."""
    for rule, others in ((op.infer, 0), (op.element, 1), (op.expand, 0)):
        if rule is not None:
            parameters = inspect.signature(rule).parameters.values()
            if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
                named = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
                return named - others  # an element rule is given the index first
    return None
