"""One line of graph text to what it says: recursive descent over the grammar that `jitflow.graph_text` describes.

Tokens are made as they are needed, every construct has a limit, and what is wrong is an error with its place.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from jitflow.dtypes import DType, by_short, numpy_dtype
from jitflow.errors import FormatError, GraphError, JitflowError, LimitError
from jitflow.expr import Binary, Const, Expr, Var, as_index
from jitflow.graph import OPS, ArrayData, OpDef
from jitflow.graph_printer import FRESH, VERSION, WORDS, array_digest
from jitflow.simplify import poly_of, simplify_index
from jitflow.structure import MAX_DEPTH
from jitflow.types import MAX_DIM_TERMS, TensorType, as_dim, check_shape, fresh_dim, named_dim

#: Parentheses within parentheses, and operators in one value: more would only test the patience of the parser.
MAX_NESTING = 64
MAX_OPERATORS = 128
#: Characters in one line (a node with 10^5 inputs has fewer), and in one number (17 digits are exact).
MAX_LINE = 1 << 22
MAX_DIGITS = 40
#: Bytes made up for an array that is not there.
MAX_STAND_IN = 1 << 32

#: Line and column (None: all of the line) as text, to begin the message of an error.
Place: TypeAlias = Callable[[int, int | None], str]

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


def line_and_column(line: int, column: int | None) -> str:
    """Return the place of an error in a text."""
    return f"line {line}" if column is None else f"line {line}, column {column}"


@dataclass(frozen=True, eq=False)
class Source:
    """What the lines of one text share."""

    arrays: Mapping[str, np.ndarray[Any, Any] | ArrayData]
    stand_ins: bool
    place: Place
    dims: dict[str, Var] = field(default_factory=dict)


class Line(NamedTuple):
    """A node as written, before its inputs are known."""

    label: str
    number: int
    op: OpDef
    type: TensorType | None
    inputs: tuple[str, ...]
    attrs: dict[str, Any]


class Returned(NamedTuple):
    """What a text returns: labels by name, in order, and in their structure."""

    named: list[tuple[str, str]]
    structure: Any
    number: int


class LineParser:
    """Recursive descent over the tokens of one line, which are made as they are needed."""

    def __init__(self, row: str, number: int, source: Source) -> None:
        self.number, self.source = number, source
        self.depth = self.operators = 0
        self.rest = _TOKEN.finditer(row)
        self.advance()

    def advance(self) -> None:
        m = next(self.rest)
        kind = m.lastgroup or ""
        self.token = _Token(kind, m[kind], m.start(kind) + 1)
        if kind == "bad":
            self.fail(f"unexpected {self.token.text!r}")

    def at_end(self) -> bool:
        return self.token.kind == "end"

    def fail(self, message: str, token: _Token | None = None) -> NoReturn:
        raise FormatError(f"{self.source.place(self.number, (token or self.token).column)}: {message}")

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
            self.fail(f"version {token.text[:MAX_DIGITS]} of the format is not known, only {VERSION}", token)
        self.expect(":")
        self.end()

    def end(self) -> None:
        if not self.at_end():
            self.fail(f"expected the end of the line, found {self.found()}")

    def string(self) -> str:
        token = self.token
        text = self.take("string", "a string")
        try:
            value = str(json.loads(text))
        except ValueError:
            self.fail("this string has an escape that is not JSON's", token)
        if any("\ud800" <= c <= "\udfff" for c in value):
            self.fail("this string has half of a character", token)
        return value

    def label(self) -> str:
        if self.token.kind == "string":
            return self.string()
        return self.take("name", "a label")

    def returned(self) -> Returned:
        if self.token.kind == "punct" and self.token.text in "([{":
            named: dict[str, str] = {}
            structure = self.structure((), named)
            self.end()
            return Returned(list(named.items()), structure, self.number)
        pairs = []
        explicit = False
        while not self.at_end():
            name = label = self.label()
            if self.accept("="):
                explicit = True
                label = self.label()
            pairs.append((name, label))
            if not self.at_end():
                self.expect(",")
        single = len(pairs) == 1 and not explicit
        return Returned(pairs, pairs[0][1] if single else dict(pairs), self.number)

    def structure(self, path: tuple[int | str, ...], named: dict[str, str]) -> Any:
        """Return a list, tuple or dict of labels as it is written, and put the labels in `named` by their paths."""
        if len(path) > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH}")
        if self.token.kind != "punct":
            label = self.label()
            name = _path_text(path, label)
            while named.setdefault(name, label) != label:
                name += "'"
            return label
        if self.accept("["):
            return self.items("]", path, named)[0]
        if self.accept("{"):
            return self.entries(path, named)
        token = self.token
        self.expect("(")
        items, comma = self.items(")", path, named)
        if len(items) == 1 and not comma:
            self.fail("a tuple of one needs a comma", token)
        return tuple(items)

    def items(self, close: str, path: tuple[int | str, ...], named: dict[str, str]) -> tuple[list[Any], bool]:
        """Return what comes before `close`, and whether a comma ends it."""
        found: list[Any] = []
        comma = False
        while not self.accept(close):
            found.append(self.structure((*path, len(found)), named))
            comma = self.token.text == ","
            if self.token.text != close:
                self.expect(",")
        return found, comma

    def entries(self, path: tuple[int | str, ...], named: dict[str, str]) -> dict[int | str, Any]:
        found: dict[int | str, Any] = {}
        while not self.accept("}"):
            token = self.token
            key = self.string() if token.kind == "string" else self.integer()
            if key in found:
                self.fail(f"key {key!r} is given twice", token)
            self.expect(":")
            found[key] = self.structure((*path, key), named)
            if self.token.text != "}":
                self.expect(",")
        return found

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        token = self.token
        digits = self.take("int", "a string or an integer")
        if len(digits) > 19 or int(digits) >= 2**63:
            self.fail("this number has too many digits", token)
        return sign * int(digits)

    def node(self) -> Line:
        label = self.label()
        type = self.type() if self.accept(":") else None
        self.expect("=")
        token = self.token
        name = self.take("name", "an operator")
        op = OPS.get(name)
        if op is None:
            where = self.source.place(self.number, token.column)
            raise GraphError(f"{where}: unknown operator {name!r}{did_you_mean(name, OPS)}")
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
        return Line(label, self.number, op, type, tuple(inputs), attrs)

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
        for d in items:
            if d is None or isinstance(d, str):
                self.fail(f"{'none' if d is None else repr(d)} is no dim; a fresh one is called _0, _1, ...", token)
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
        if op == "mul" and len(poly_of(a)) * len(poly_of(b)) > MAX_DIM_TERMS:
            self.too_large(token)
        e = simplify_index(Binary(op, as_index(a), as_index(b)))
        # Formulas share their parts, so that a short text can stand for a huge one.
        pending: Any = [e]
        for count, x in enumerate(_subexpressions(pending)):
            if count > MAX_DIM_TERMS:
                self.too_large(token)
            if isinstance(x, Const) and not -(2**63) <= x.value < 2**63:
                self.fail("this number does not fit 64 bits", token)
        return e.value if isinstance(e, Const) else e

    def too_large(self, token: _Token) -> NoReturn:
        where = self.source.place(self.number, token.column)
        raise LimitError(f"{where}: this is a formula of over {MAX_DIM_TERMS} terms")

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
        if len(token.text) > (20 if token.kind == "int" else MAX_DIGITS):
            self.fail("this number has too many digits", token)
        if token.kind == "int":
            return int(token.text)
        number = float(token.text)
        if math.isinf(number):
            self.fail("this number does not fit float64", token)
        return number

    def parenthesized(self) -> Any:
        items: list[Any] = []
        comma = False
        before = self.operators
        while not self.accept(")"):
            items.append(self.value())
            comma = self.token.text == ","
            if comma:
                self.operators = before  # a limit for each item
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
        dims = self.source.dims
        if name not in dims:
            dims[name] = fresh_dim() if FRESH.fullmatch(name) else named_dim(name)
        return dims[name]

    def array(self, dtype: DType, token: _Token) -> ArrayData:
        shape = self.shape()
        if dtype.kind == "x" or not all(isinstance(d, int) for d in shape):
            self.fail("an array has an element type and literal dims", token)
        sizes = tuple(int(d) for d in shape if isinstance(d, int))
        if self.token.kind == "digest":
            return self.named_array(dtype, sizes)
        self.expect("{")
        items = self.values("}")
        if len(items) != math.prod(sizes):
            self.fail(f"{math.prod(sizes)} elements expected, found {len(items)}", token)
        kinds = {"b": bool, "f": float}.get(dtype.kind, int)
        if not all(type(x) is kinds for x in items):
            self.fail(f"the elements of this array must be {kinds.__name__}s", token)
        if kinds is int and not all(dtype.min <= x <= dtype.max for x in items):
            self.fail(f"an element does not fit {dtype.name}", token)
        with np.errstate(all="ignore"):
            array = np.array(items, dtype=numpy_dtype(dtype)).reshape(sizes)
        if kinds is float and not np.array_equal(np.isinf(array.reshape(-1)), np.isinf(np.array(items, np.float64))):
            self.fail(f"an element does not fit {dtype.name}", token)
        return ArrayData(array)

    def named_array(self, dtype: DType, sizes: tuple[int, ...]) -> ArrayData:
        token = self.token
        digest = self.take("digest", "a digest")[1:]
        found = self.source.arrays.get(digest)
        if found is None and self.source.stand_ins:
            return ArrayData(_stand_in(dtype, sizes), owned=True)
        if found is None:
            self.fail(f"array {digest} is not in the table of arrays (jf.graph_arrays gives it)", token)
        data = found if isinstance(found, ArrayData) else ArrayData(found)
        array = data.array
        if array.dtype != numpy_dtype(dtype) or array.shape != sizes or array_digest(data) != digest:
            self.fail(f"the table's array {digest} is not the one that was written", token)
        return data


def _subexpressions(pending: list[Any]) -> Iterator[Any]:
    while pending:
        x = pending.pop()
        yield x
        pending.extend(x._children())


def _path_text(path: tuple[int | str, ...], label: str) -> str:
    """Return a name for the output at `path`: a key of the dict, its label in a list, ``heads[0]`` further inside."""
    if len(path) == 1:
        return path[0] if isinstance(path[0], str) else label
    first, *rest = path
    return (first if isinstance(first, str) else f"[{first}]") + "".join(f"[{json.dumps(k)}]" for k in rest)


def _stand_in(dtype: DType, sizes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return an array for one that is not given: not all equal, as rewriting makes other code of such."""
    size = math.prod(sizes)
    if size * dtype.itemsize > MAX_STAND_IN:
        raise LimitError(
            f"an array that is not given has {size * dtype.itemsize} bytes, over the limit of {MAX_STAND_IN}"
        )
    array = np.zeros(size, numpy_dtype(dtype))
    array[1::2] = 1
    return array.reshape(sizes)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a hint for the end of a message: the nearest of `words` to the unknown `word`, if one is near."""
    known = list(words)
    # Nearness takes time in proportion to both lengths; a word of a thousand letters is no misspelling.
    near = difflib.get_close_matches(word, known, 1) if len(word) < 100 and len(known) < 10_000 else []
    return f"; did you mean {near[0]!r}?" if near else ""
