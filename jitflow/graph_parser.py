"""Text to graphs: recursive descent over the format that `jitflow.graph_text` describes. Builds nodes, runs no code."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple, NoReturn

import numpy as np

from jitflow.dtypes import DType, as_dtype, by_short
from jitflow.errors import FormatError, GraphError, JitflowError, LimitError
from jitflow.expr import Binary, Const, Expr, Var, as_index
from jitflow.graph import MAX_NODES, OPS, ArrayData, Node, OpDef, make_node, make_placeholder, make_variable
from jitflow.graph_printer import FRESH, VERSION, WORDS, Graph, array_digest
from jitflow.simplify import simplify_index
from jitflow.tensor import Tensor, as_tensor
from jitflow.types import TensorType, as_dim, as_shape, check_shape, fresh_dim, named_dim, same_shape

#: Parentheses within parentheses, and operators in one value: more would only test the patience of the parser.
MAX_NESTING = 64
MAX_OPERATORS = 128

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<float>[0-9]+\.[0-9]*(?:e[+-]?[0-9]+)?|[0-9]+e[+-]?[0-9]+)
    |(?P<int>[0-9]+)
    |(?P<name>[^\W\d]\w*)
    |(?P<digest>@[0-9a-f]{32}\b)
    |(?P<punct>//|[()\[\]{},:=+\-*%])
    |(?P<end>\#.*|$)
    |(?P<bad>.))""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


class _Line(NamedTuple):
    """A node as written, before its inputs are known."""

    label: str
    number: int
    op: OpDef
    type: TensorType | None
    inputs: tuple[str, ...]
    attrs: dict[str, Any]


def parse_graph(
    text: str, arrays: Mapping[str, np.ndarray[Any, Any]] | None = None, *, stand_ins: bool = False
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
    dims: dict[str, Var] = {}
    lines: dict[str, _Line] = {}
    returned: list[tuple[str, str, int]] | None = None
    rows = text.split("\n")
    if len(rows) > MAX_NODES:
        raise LimitError(f"the text has {len(rows)} lines, over the limit of {MAX_NODES} nodes")
    header = False
    for number, row in enumerate(rows, 1):
        p = _Parser(row, number, arrays or {}, dims, stand_ins)
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
                raise GraphError(f"two nodes are called {line.label!r}: line {other.number} and line {number}")
    if not header:
        raise FormatError("line 1, column 1: expected 'graph 1:', found nothing")
    if returned is None:
        raise FormatError(f"line {len(rows)}, column 1: the graph does not end with 'return'")
    nodes = _build(lines)
    fetches: dict[str, Tensor] = {}
    for name, label, number in returned:
        if label not in nodes:
            _dangling(label, lines, f"line {number}: 'return'")
        if fetches.setdefault(name, as_tensor(nodes[label])).node is not nodes[label]:
            raise GraphError(f"line {number}: two different nodes are returned as {name!r}")
    return Graph({label: as_tensor(nodes[label]) for label in lines}, fetches)


def _build(lines: Mapping[str, _Line]) -> dict[str, Node]:
    """Make the nodes of `lines`, inputs first, whatever order they are written in."""
    nodes: dict[str, Node] = {}
    for root in lines:
        path = [root]
        on_path = {root: 0}
        while path:
            line = lines[path[-1]]
            missing = next((x for x in line.inputs if x not in nodes), None) if line.label not in nodes else None
            if missing is None:
                if line.label not in nodes:
                    nodes[line.label] = _make(line, [nodes[x] for x in line.inputs])
                del on_path[path.pop()]
            elif missing not in lines:
                _dangling(missing, lines, f"line {line.number}: {line.label!r}")
            elif missing in on_path:
                cycle = " -> ".join([*path[on_path[missing] :], missing])
                raise GraphError(f"line {line.number}: the graph has a cycle: {cycle}")
            else:
                on_path[missing] = len(path)
                path.append(missing)
    return nodes


def _dangling(label: str, lines: Iterable[str], user: str) -> NoReturn:
    raise GraphError(f"{user} reads {label!r}, which is not defined{_did_you_mean(label, lines)}")


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _make(line: _Line, inputs: list[Node]) -> Node:
    attrs = dict(line.attrs)
    if line.op.name == "placeholder" and line.type is not None:
        attrs.update(dtype=line.type.dtype, shape=line.type.shape)
    _check_attrs(line, attrs)
    try:
        match line.op.name:
            case "placeholder":
                node = make_placeholder(attrs.get("name"), as_dtype(attrs["dtype"]), as_shape(attrs["shape"]))
            case "variable":
                node = make_variable(attrs.get("name"), attrs["value"].array)
            case _:
                node = make_node(line.op, inputs, attrs)
    except JitflowError as error:
        raise type(error)(f"line {line.number}: {str(error).splitlines()[0]}") from None
    except (TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
        # An attribute of a kind that the rule does not expect: the rules check what users can pass, not any text.
        raise FormatError(f"line {line.number}: {line.op.name} cannot have these attributes: {error}") from None
    if not isinstance(node.dtype, DType) or not all(isinstance(d, (int, Expr)) for d in node.shape):
        # Some rules copy an attribute into the type as it is.
        raise FormatError(f"line {line.number}: {line.op.name} cannot have these attributes")
    if line.type is not None and line.type != node.type and not _is_type(node, line.type):
        raise FormatError(f"line {line.number}: {line.label!r} is written {line.type!r} but is {node.type!r}")
    return node


def _is_type(node: Node, written: TensorType) -> bool:
    return written.dtype is node.dtype and same_shape(written.shape, node.shape)


def _check_attrs(line: _Line, attrs: Mapping[str, Any]) -> None:
    allowed, required = _attributes(line.op)
    for name in attrs:
        if name not in allowed:
            near = _did_you_mean(name, allowed)
            raise GraphError(f"line {line.number}: {line.op.name} has no attribute {name!r}{near}")
    for name in required:
        if name not in attrs:
            raise GraphError(f"line {line.number}: {line.op.name} needs attribute {name!r}")
    if not isinstance(attrs.get("name", ""), str):
        raise FormatError(f"line {line.number}: the name of a node is a string")
    arity = _arity(line.op)
    if arity is not None and arity != len(line.inputs):
        raise GraphError(f"line {line.number}: {line.op.name} takes {arity} inputs, got {len(line.inputs)}")


@cache
def _attributes(op: OpDef) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the attributes that `op` may have and of those that it must have."""
    parameters = inspect.signature(op.infer).parameters.values()
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    allowed = tuple(p.name for p in keywords)
    if op.name in ("placeholder", "variable"):
        allowed += ("name",)
    return allowed, tuple(p.name for p in keywords if p.default is p.empty)


@cache
def _arity(op: OpDef) -> int | None:
    parameters = inspect.signature(op.infer).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


class _Parser:
    """Recursive descent over the tokens of one line."""

    def __init__(
        self,
        row: str,
        number: int,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        dims: dict[str, Var],
        stand_ins: bool,
    ) -> None:
        self.number, self.arrays, self.dims, self.stand_ins = number, arrays, dims, stand_ins
        self.depth = self.operators = self.at = 0
        self.tokens = [
            _Token(m.lastgroup or "", m[m.lastgroup or 0], m.start(m.lastgroup or 0) + 1) for m in _TOKEN.finditer(row)
        ]
        self.token = self.tokens[0]
        if any(token.kind == "bad" for token in self.tokens):
            token = next(token for token in self.tokens if token.kind == "bad")
            self.fail(f"unexpected {token.text!r}", token)

    def advance(self) -> None:
        self.at += 1
        self.token = self.tokens[self.at]

    def at_end(self) -> bool:
        return self.token.kind == "end"

    def fail(self, message: str, token: _Token | None = None) -> NoReturn:
        raise FormatError(f"line {self.number}, column {(token or self.token).column}: {message}")

    def found(self) -> str:
        return "the end of the line" if self.at_end() else repr(self.token.text)

    def accept(self, text: str) -> bool:
        if self.token.text == text and self.token.kind in ("punct", "name"):
            self.advance()
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.found()}")

    def take(self, kind: str, what: str) -> str:
        if self.token.kind != kind:
            self.fail(f"expected {what}, found {self.found()}")
        text = self.token.text
        self.advance()
        return text

    def header(self) -> None:
        if not self.accept("graph"):
            self.fail(f"expected 'graph {VERSION}:', found {self.found()}")
        token = self.token
        if self.take("int", "a version number") != str(VERSION):
            self.fail(f"version {token.text} of the format is not known, only {VERSION}", token)
        self.expect(":")
        self.end()

    def end(self) -> None:
        if not self.at_end():
            self.fail(f"expected the end of the line, found {self.found()}")

    def string(self) -> str:
        token = self.token
        text = self.take("string", "a string")
        try:
            return str(json.loads(text))
        except ValueError:
            self.fail("this string has an escape that is not JSON's", token)

    def label(self) -> str:
        if self.token.kind == "string":
            return self.string()
        return self.take("name", "a label")

    def returned(self) -> list[tuple[str, str, int]]:
        out = []
        while not self.at_end():
            name = label = self.label()
            if self.accept("="):
                label = self.label()
            out.append((name, label, self.number))
            if not self.at_end():
                self.expect(",")
        return out

    def node(self) -> _Line:
        label = self.label()
        type = self.type() if self.accept(":") else None
        self.expect("=")
        token = self.token
        name = self.take("name", "an operator")
        op = OPS.get(name)
        if op is None:
            raise GraphError(
                f"line {self.number}, column {token.column}: unknown operator {name!r}{_did_you_mean(name, OPS)}"
            )
        self.expect("(")
        inputs: list[str] = []
        attrs: dict[str, Any] = {}
        while not self.accept(")"):
            token = self.token
            word = self.label()
            if self.accept("="):
                if word in attrs:
                    self.fail(f"attribute {word!r} is given twice", token)
                attrs[word] = self.value()
            elif attrs:
                self.fail("inputs come before attributes", token)
            else:
                inputs.append(word)
            if self.token.text != ")":
                self.expect(",")
        self.end()
        return _Line(label, self.number, op, type, tuple(inputs), attrs)

    def type(self) -> TensorType:
        token = self.token
        dtype = by_short(self.take("name", "a dtype"))
        if dtype is None:
            self.fail(f"{token.text!r} is no dtype", token)
        return TensorType(dtype, self.shape())

    def shape(self) -> tuple[int | Expr, ...]:
        token = self.token
        self.expect("[")
        items = self.values("]")
        try:
            return check_shape(tuple(as_dim(d) for d in items))
        except JitflowError as error:
            self.fail(str(error), token)

    def values(self, close: str) -> list[Any]:
        out = []
        while not self.accept(close):
            out.append(self.value())
            if self.token.text != close:
                self.expect(",")
        return out

    def value(self) -> Any:
        if self.depth == 0:
            self.operators = 0
        left = self.term()
        while self.token.kind == "punct" and self.token.text in ("+", "-"):
            left = self.combine("add" if self.token.text == "+" else "sub", left, self.term)
        return left

    def term(self) -> Any:
        left = self.factor()
        while self.token.kind == "punct" and self.token.text in ("*", "//", "%"):
            op = {"*": "mul", "//": "floordiv", "%": "mod"}[self.token.text]
            left = self.combine(op, left, self.factor)
        return left

    def combine(self, op: str, left: Any, right: Any) -> Any:
        token = self.token
        self.advance()
        return self.arithmetic(op, left, right(), token)

    def arithmetic(self, op: str, a: Any, b: Any, token: _Token) -> Any:
        """Return index arithmetic on two values in canonical form, which keeps it as shallow as it can be."""
        self.operators += 1
        if self.operators > MAX_OPERATORS:
            self.fail(f"more than {MAX_OPERATORS} operators in one value", token)
        for x in (a, b):
            if isinstance(x, bool) or not isinstance(x, (int, Expr)):
                self.fail("only integers and dims can be calculated with", token)
        e = simplify_index(Binary(op, as_index(a), as_index(b)))
        return e.value if isinstance(e, Const) else e

    def factor(self) -> Any:
        self.depth += 1
        if self.depth > MAX_NESTING:
            self.fail(f"nested deeper than {MAX_NESTING}")
        value = self._factor()
        self.depth -= 1
        return value

    def _factor(self) -> Any:
        token = self.token
        if self.accept("-"):
            value = self.factor()
            if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
                return -value
            return self.arithmetic("sub", 0, value, token)
        if self.accept("("):
            return self.parenthesized()
        if token.kind == "string":
            return self.string()
        if token.kind not in ("int", "float", "name"):
            self.fail(f"expected a value, found {self.found()}")
        self.advance()
        if token.kind == "name":
            return self.word(token)
        if token.kind == "float":
            return float(token.text)
        if len(token.text) > 20:
            self.fail("this number has too many digits", token)
        return int(token.text)

    def parenthesized(self) -> Any:
        items: list[Any] = []
        comma = False
        while not self.accept(")"):
            items.append(self.value())
            comma = self.token.text == ","
            if self.token.text != ")":
                self.expect(",")
        return items[0] if len(items) == 1 and not comma else tuple(items)

    def word(self, token: _Token) -> Any:
        name = token.text
        if name in WORDS:
            return WORDS[name]
        if name in ("min", "max"):
            self.expect("(")
            a = self.value()
            self.expect(",")
            b = self.value()
            self.expect(")")
            return self.arithmetic(name, a, b, token)
        if name == "dim":
            self.expect("(")
            name = self.string()
            self.expect(")")
            return self.dim(name, token)
        dtype = by_short(name)
        if dtype is None:
            return self.dim(name, token)
        return self.array(dtype, token) if self.token.text == "[" else dtype

    def dim(self, name: str, token: _Token) -> Var:
        if not name.isidentifier():
            self.fail(f"{name!r} cannot name a dim", token)
        if name not in self.dims:
            self.dims[name] = fresh_dim() if FRESH.fullmatch(name) else named_dim(name)
        return self.dims[name]

    def array(self, dtype: DType, token: _Token) -> ArrayData:
        shape = self.shape()
        if dtype.np is None or not all(isinstance(d, int) for d in shape):
            self.fail("an array has an element type and literal dims", token)
        sizes = tuple(int(d) for d in shape if isinstance(d, int))
        if self.token.kind == "digest":
            return ArrayData(self.named_array(dtype, sizes))
        self.expect("{")
        items = self.values("}")
        expected = int(np.prod(sizes, dtype=object)) if sizes else 1
        if len(items) != expected:
            self.fail(f"{expected} elements expected, found {len(items)}", token)
        kinds = {"b": bool, "f": float}.get(dtype.kind, int)
        if not all(type(x) is kinds for x in items):
            self.fail(f"the elements of this array must be {kinds.__name__}s", token)
        try:
            with np.errstate(all="ignore"):
                return ArrayData(np.array(items, dtype=dtype.np).reshape(sizes))
        except OverflowError:
            self.fail(f"an element does not fit {dtype.name}", token)

    def named_array(self, dtype: DType, sizes: tuple[int, ...]) -> np.ndarray[Any, Any]:
        token = self.token
        digest = self.take("digest", "a digest")[1:]
        array = self.arrays.get(digest)
        if array is None and self.stand_ins:
            # Not all equal, or rewriting would make other code of it than of most arrays.
            return (np.arange(int(np.prod(sizes))) % 2).astype(dtype.np).reshape(sizes)
        if array is None:
            self.fail(f"array {digest} is not in the table of arrays (jf.graph_arrays gives it)", token)
        if array.dtype != dtype.np or array.shape != sizes or array_digest(array) != digest:
            self.fail(f"the table's array {digest} is not the one that was written", token)
        return array
