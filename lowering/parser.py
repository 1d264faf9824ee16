"""Text to loop IR: a recursive-descent parser of the format that `lowering.text` describes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

from jitflow.dtypes import DType, by_short, float32
from jitflow.errors import FormatError
from jitflow.expr import (
    BOOL,
    INDEX,
    Binary,
    Bitcast,
    Buffer,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Fma,
    Load,
    Ramp,
    Reduce,
    Select,
    Shuffle,
    Splat,
    Type,
    Unary,
    Var,
    const,
    const_index,
    parse_type,
    type_of,
)
from lowering.loop_ir import (
    LOOP_KINDS,
    Alloc,
    Atomic,
    Barrier,
    Body,
    CallKernel,
    CheckIndex,
    For,
    If,
    Kernel,
    Let,
    Prefetch,
    Stmt,
    Store,
    While,
)
from lowering.printer import (
    ATOMIC_OPS,
    AXES,
    BUILTINS,
    COMPARE,
    COMPARE_LEVEL,
    INFIX,
    RESERVED,
    SPACES,
    UNARY_CALLS,
    call_type,
)

T = TypeVar("T")

_INFIX_OF = {symbol: (op, level) for op, (symbol, level) in INFIX.items()}
_COMPARE_OF = {symbol: op for op, symbol in COMPARE.items()}

#: Axis sizes of a buffer that a fragment uses without declaring it: large enough for any small test program.
_FREE_SHAPES = {0: (), 1: (4096,), 2: (64, 64), 3: (16, 16, 16)}


def parse_kernel(text: str) -> Kernel:
    """Return the one kernel written in `text`. Raises FormatError with line and column."""
    kernels = parse_kernels(text)
    if len(kernels) != 1:
        raise FormatError(f"expected one kernel, found {len(kernels)}")
    return kernels[0]


def parse_kernels(text: str) -> tuple[Kernel, ...]:
    """Return the kernels written in `text`, one after another."""
    p = _Parser(text)
    out = []
    while p.at_line():
        out.append(p.kernel())
    return tuple(out)


def parse_body(text: str, buffers: Iterable[Buffer] | None = None, variables: Iterable[Var] = ()) -> Body:
    """Return the statements in `text`, which may use `buffers` and `variables`.

    Without `buffers` undeclared names are taken as in :func:`parse_fragment`.
    """
    p = _Parser(text, free=buffers is None)
    p.scope.update({b.name: b for b in buffers or ()})
    p.scope.update({v.name: v for v in variables})
    return p.whole_body()


def parse_fragment(text: str) -> Kernel:
    """Return a kernel, or statements without a header as the body of a kernel ``fragment``.

    Undeclared names of the statements become its parameters: an undeclared buffer is a large f32 array, read-only if
    nothing stores to it; an undeclared variable is a dim.
    """
    p = _Parser(text, free=True)
    if p.at_line() and p.token.text == "kernel":
        return parse_kernel(text)
    body = p.whole_body()
    params = tuple(x for x in p.found if isinstance(x, Buffer))
    dims = tuple(x for x in p.found if isinstance(x, Var))
    return Kernel("fragment", params, dims, body, frozenset(params) - p.written)


def _unescape(note: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), note)


class _Token:
    __slots__ = ("column", "kind", "line", "text")

    def __init__(self, kind: str, text: str, line: int, column: int) -> None:
        self.kind, self.text, self.line, self.column = kind, text, line, column


class _Line:
    __slots__ = ("indent", "note", "tokens")

    def __init__(self, indent: int, tokens: list[_Token], note: str | None) -> None:
        self.indent, self.tokens, self.note = indent, tokens, note


_TOKEN = re.compile(
    r"(?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)|(?P<int>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<op><<|>>|<=|>=|==|!=|//|[-+*/%&|^~<>()\[\],:;=.])|(?P<space>[ \t]+)|(?P<comment>#.*)|(?P<bad>.)",
    re.ASCII,
)


class _Parser:
    """One text being read: a cursor over lines and the tokens of the current line, and the names in scope."""

    def __init__(self, text: str, free: bool = False) -> None:
        self.source = text.split("\n")
        self.lines = self.split()
        self.row, self.column = 0, 0
        self.scope: dict[str, Var | Buffer] = {}
        self.free = free
        self.found: list[Var | Buffer] = []
        self.written: set[Buffer] = set()

    def split(self) -> list[_Line]:
        """Cut the text into logical lines of tokens; comment lines keep their text as a note."""
        lines: list[_Line] = []
        depth = 0
        for number, raw in enumerate(self.source, 1):
            tokens: list[_Token] = []
            note = None
            for m in _TOKEN.finditer(raw):
                kind = m.lastgroup or "bad"
                token = _Token(kind, m.group(), number, m.start() + 1)
                if kind == "bad":
                    self.fail(f"unexpected character {token.text!r}", token)
                if kind == "comment":
                    note = _unescape(token.text[1:].removeprefix(" "))
                elif kind != "space":
                    tokens.append(token)
            if depth and lines:
                lines[-1].tokens += tokens
            elif tokens or note is not None:
                lines.append(_Line(len(raw) - len(raw.lstrip()), tokens, None if tokens else note))
            depth = max(0, depth + sum((t.text in "([") - (t.text in ")]") for t in tokens))
        for line in lines:
            if line.tokens:
                last = line.tokens[-1]
                line.tokens.append(_Token("end", "end of line", last.line, last.column + len(last.text)))
        return lines

    def fail(self, message: str, at: _Token | None = None) -> NoReturn:
        at = at or self.token
        source = self.source[at.line - 1]
        raise FormatError(f"line {at.line}, column {at.column}: {message}\n  {source}\n  {' ' * (at.column - 1)}^")

    # the cursor

    @property
    def token(self) -> _Token:
        if self.row < len(self.lines) and self.lines[self.row].tokens:
            return self.lines[self.row].tokens[self.column]
        return _Token("end", "end of text", len(self.source), len(self.source[-1]) + 1)

    def at_line(self) -> bool:
        """Skip comment lines; say whether a line is left."""
        while self.row < len(self.lines) and not self.lines[self.row].tokens:
            self.row += 1
        return self.row < len(self.lines)

    def peek(self) -> _Token:
        """Return the token after the next one."""
        tokens = self.lines[self.row].tokens
        return tokens[min(self.column + 1, len(tokens) - 1)]

    def take(self) -> _Token:
        token = self.token
        if token.kind != "end":
            self.column += 1
        return token

    def accept(self, text: str) -> bool:
        if self.token.text == text and self.token.kind != "end":
            self.column += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.token.text!r}")

    def end_line(self) -> None:
        if self.token.kind != "end":
            self.fail(f"expected the end of the line, found {self.token.text!r}")
        self.row, self.column = self.row + 1, 0

    def identifier(self) -> str:
        if self.token.kind != "name":
            self.fail(f"expected a name, found {self.token.text!r}")
        return self.take().text

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        if self.token.kind != "int":
            self.fail(f"expected an integer, found {self.token.text!r}")
        return sign * int(self.take().text)

    def dtype(self) -> DType:
        at = self.token
        found = by_short(self.identifier())
        if found is None:
            self.fail(f"{at.text!r} is no dtype", at)
        return found

    def type(self) -> Type:
        at = self.token
        found = parse_type(self.identifier())
        if found is None:
            self.fail(f"{at.text!r} is no type", at)
        return found

    def items(self, one: Callable[[], T], stops: tuple[str, ...]) -> list[T]:
        """Return zero or more of `one` separated by commas, up to (not including) one of `stops`."""
        out: list[T] = []
        while self.token.text not in stops:
            if out:
                self.expect(",")
            out.append(one())
        return out

    # names

    def bind(self, at: _Token, x: Var | Buffer) -> None:
        if at.text in RESERVED:
            self.fail(f"{at.text!r} is a reserved word", at)
        if at.text in self.scope:
            self.fail(f"{at.text!r} is already bound", at)
        self.scope[at.text] = x

    def binder(self) -> _Token:
        at = self.token
        self.identifier()
        return at

    def variable(self, at: _Token) -> Var:
        found = self.scope.get(at.text)
        if found is None and self.free and at.text not in RESERVED:
            found = self.declare(at.text, Var(at.text, INDEX, floor=0))
        if found is None:
            self.fail(f"unknown name {at.text!r}", at)
        if isinstance(found, Buffer):
            self.fail(f"{at.text!r} is a buffer; it needs subscripts", at)
        return found

    def buffer(self, at: _Token, rank: int | None = None) -> Buffer:
        found = self.scope.get(at.text)
        if found is None and self.free and rank is not None and at.text not in RESERVED:
            found = self.declare(at.text, Buffer(at.text, float32, _FREE_SHAPES.get(rank, (8,) * rank)))
        if found is None:
            self.fail(f"unknown buffer {at.text!r}", at)
        if isinstance(found, Var):
            self.fail(f"{at.text!r} is no buffer", at)
        return found

    def declare(self, name: str, x: Any) -> Any:
        self.found.append(x)
        # An undeclared name means the same thing everywhere, also after the body that used it first.
        self.scope[name] = x
        return x

    # kernels and statements

    def whole_body(self) -> Body:
        body = self.statements(-1)[0] if self.at_line() else ()
        if self.at_line():
            self.fail("unexpected indentation")
        return body

    def kernel(self) -> Kernel:
        indent = self.lines[self.row].indent
        outer, self.scope = self.scope, {}
        free, self.free = self.free, False
        self.expect("kernel")
        name = self.identifier()
        self.expect("(")
        dims = self.dims()
        params: list[Buffer] = []
        reads: set[Buffer] = set()
        aliased: set[Buffer] = set()
        self.items(lambda: self.param(params, reads, aliased), (")",))
        self.expect(")")
        self.expect(":")
        self.end_line()
        notes: list[str] = []
        while self.row < len(self.lines) and self.lines[self.row].note is not None:
            notes.append(self.lines[self.row].note or "")
            self.row += 1
        body, callees = self.block(indent)
        self.scope, self.free = outer, free
        return Kernel(
            name, tuple(params), dims, body, frozenset(reads), tuple(notes), tuple(callees), frozenset(aliased)
        )

    def dims(self) -> tuple[Var, ...]:
        """Bind the dims of the header at the cursor, which the shapes before them use."""
        tokens = self.lines[self.row].tokens
        out: list[Var] = []
        for i in range(self.column, len(tokens) - 3):
            at, colon, of, after = tokens[i : i + 4]
            if at.kind == "name" and colon.text == ":" and after.text in (",", ")"):
                found = parse_type(of.text)
                if found is None:
                    self.fail(f"{of.text!r} is no type", of)
                out.append(Var(at.text, found, floor=0))
                self.bind(at, out[-1])
        return tuple(out)

    def param(self, params: list[Buffer], reads: set[Buffer], aliased: set[Buffer]) -> None:
        at = self.binder()
        self.expect(":")
        if self.peek().text != "[":
            self.type()
            return
        b, words = self.declaration(at, ("read", "aliased", *SPACES))
        params.append(b)
        if "read" in words:
            reads.add(b)
        if "aliased" in words:
            aliased.add(b)

    def declaration(self, at: _Token, allowed: tuple[str, ...]) -> tuple[Buffer, list[str]]:
        """Read dtype, shape and the words after them; bind the buffer."""
        dtype = self.dtype()
        self.expect("[")
        shape = tuple(n.value if isinstance(n, Const) and n.type is INDEX else n for n in self.items(self.expr, ("]",)))
        self.expect("]")
        words: list[str] = []
        align = None
        while self.token.kind == "name":
            if self.accept("align"):
                align = self.integer()
            elif self.token.text in allowed:
                words.append(self.take().text)
            else:
                self.fail(f"expected one of {', '.join(allowed)}, found {self.token.text!r}")
        space = next((w for w in words if w in SPACES), "global")
        b = Buffer(at.text, dtype, shape, space, align)  # type: ignore[arg-type]
        self.bind(at, b)
        return b, words

    def block(self, parent: int) -> tuple[Body, list[Kernel]]:
        """Read the body of a statement or kernel that is indented by `parent`."""
        if not self.at_line() or self.lines[self.row].indent <= parent:
            self.fail("expected an indented body (an empty one is written 'pass')")
        outer = self.scope
        self.scope = dict(outer)
        found = self.statements(parent)
        if self.free:
            outer.update({name: x for name, x in self.scope.items() if x in self.found})
        self.scope = outer
        return found

    def statements(self, parent: int) -> tuple[Body, list[Kernel]]:
        body: list[Stmt] = []
        callees: list[Kernel] = []
        indent = self.lines[self.row].indent
        while self.at_line() and self.lines[self.row].indent > parent:
            if self.lines[self.row].indent != indent:
                self.fail("unexpected indentation")
            if self.token.text == "kernel":
                callees.append(self.kernel())
            elif self.token.text == "pass":
                self.take()
                self.end_line()
            else:
                body.append(self.statement(indent))
        return tuple(body), callees

    def statement(self, indent: int) -> Stmt:
        word = self.token.text
        if word in LOOP_KINDS:
            return self.loop(indent)
        if word == "while":
            self.take()
            cond = self.expr()
            return While(cond, self.colon_block(indent))
        if word == "if":
            return self.branch(indent)
        s = self.simple(word)
        self.end_line()
        return s

    def colon_block(self, indent: int) -> Body:
        self.expect(":")
        self.end_line()
        return self.block(indent)[0]

    def loop(self, indent: int) -> Stmt:
        kind: Any = self.take().text
        axis = 0
        if self.accept("."):
            at = self.token
            axis = AXES.find(self.identifier())
            if axis < 0:
                self.fail(f"expected x, y or z, found {at.text!r}", at)
        at = self.binder()
        self.expect("in")
        extent = self.expr()
        poll = self.expr() if self.accept("poll") else None
        var = Var(at.text, INDEX, floor=0)
        self.bind(at, var)
        body = self.colon_block(indent)
        del self.scope[at.text]
        return For(var, extent, body, kind, axis, poll)

    def branch(self, indent: int) -> Stmt:
        self.take()
        cond = self.expr()
        then = self.colon_block(indent)
        otherwise: Body = ()
        if self.at_line() and self.lines[self.row].indent == indent and self.accept("else"):
            otherwise = self.colon_block(indent)
        return If(cond, then, otherwise)

    def simple(self, word: str) -> Stmt:
        """Read a statement of one line."""
        match word:
            case "let":
                return self.let()
            case "alloc":
                self.take()
                at = self.binder()
                self.expect(":")
                b, words = self.declaration(at, SPACES)
                if not words:
                    self.fail(f"expected one of {', '.join(SPACES)}")
                return Alloc(b)
            case "barrier":
                self.take()
                return Barrier()
            case "check_index":
                self.take()
                at = self.binder()
                self.expect("[")
                slot = self.integer()
                self.expect("]")
                ok = self.expr()
                self.expect(",")
                position = self.expr()
                return CheckIndex(self.buffer(at), slot, ok, position, self.expr() if self.accept("if") else None)
            case "atomic":
                self.take()
                if self.token.text not in ATOMIC_OPS:
                    self.fail(f"expected one of {', '.join(ATOMIC_OPS)}, found {self.token.text!r}")
                op = self.take().text
                buffer, subscripts, mask = self.access(self.binder(), write=True)
                if mask is not None:
                    self.fail("an atomic has no mask")
                self.expect(",")
                return Atomic(op, buffer, subscripts, self.expr())
            case "prefetch":
                self.take()
                far = self.accept("far")
                buffer, subscripts, mask = self.access(self.binder(), write=True)
                if mask is not None:
                    self.fail("a prefetch has no mask")
                return Prefetch(buffer, subscripts, far)
            case "call":
                return self.call_kernel()
            case _:
                stream = self.accept("stream")
                if self.token.kind != "name" or self.peek().text != "[":
                    self.fail(f"expected a statement, found {self.token.text!r}")
                buffer, subscripts, mask = self.access(self.binder(), write=True)
                self.expect("=")
                return Store(buffer, subscripts, self.expr(), mask, stream)

    def let(self) -> Stmt:
        self.take()
        at = self.binder()
        self.expect(":")
        of = self.type()
        self.expect("=")
        value = self.expr()
        var = Var(at.text, of)
        self.bind(at, var)
        return Let(var, value)

    def call_kernel(self) -> Stmt:
        self.take()
        name = self.identifier()
        self.expect("(")
        pairs = self.items(lambda: (self.binder(), self.expr() if self.accept("+") else const_index(0)), (")", ";"))
        args = self.items(self.expr, (")",)) if self.accept(";") else []
        self.expect(")")
        buffers = tuple(self.buffer(at) for at, _ in pairs)
        return CallKernel(name, buffers, tuple(o for _, o in pairs), tuple(args))

    # expressions

    def access(self, at: _Token, write: bool = False) -> tuple[Buffer, tuple[Expr, ...], Expr | None]:
        self.expect("[")
        subscripts = tuple(self.items(self.expr, ("]", "if")))
        mask = self.expr() if self.accept("if") else None
        self.expect("]")
        b = self.buffer(at, len(subscripts))
        if write:
            self.written.add(b)
        return b, subscripts, mask

    def expr(self) -> Expr:
        left = self.infix(COMPARE_LEVEL + 1)
        op = _COMPARE_OF.get(self.token.text)
        if op is None:
            return left
        self.take()
        right = self.infix(COMPARE_LEVEL + 1)
        if self.token.text in _COMPARE_OF:
            self.fail("comparisons do not chain; use parentheses")
        return Compare(op, left, right)

    def infix(self, level: int) -> Expr:
        left = self.prefix()
        while True:
            op, own = _INFIX_OF.get(self.token.text, ("", 0))
            if own < level:
                return left
            self.take()
            left = Binary(op, left, self.infix(own + 1))

    def prefix(self) -> Expr:
        if self.token.text == "-":
            self.take()
            if self.token.kind in ("int", "float") or self.token.text in ("nan", "inf"):
                return self.literal(negative=True)
            return Unary("neg", self.prefix())
        if self.accept("~"):
            return Unary("not", self.prefix())
        return self.primary()

    def primary(self) -> Expr:
        at = self.token
        if at.kind in ("int", "float") or at.text in ("true", "false", "nan", "inf"):
            return self.literal()
        if self.accept("("):
            e = self.expr()
            self.expect(")")
            return e
        if at.kind != "name":
            self.fail(f"expected an expression, found {at.text!r}")
        self.take()
        if self.token.text == "(":
            self.take()
            return self.function(at)
        if self.token.text == "[":
            return Load(*self.access(at))
        return self.variable(at)

    def suffix(self) -> Type | None:
        """Read the type after a literal or call, if there is one."""
        if self.token.text == ":" and self.peek().kind == "name":
            self.take()
            return self.type()
        return None

    def literal(self, negative: bool = False) -> Const:
        at = self.take()
        of = self.suffix()
        value: int | float | bool
        if at.kind == "int":
            value = -int(at.text) if negative else int(at.text)
            of = of or INDEX
        elif at.text in ("true", "false"):
            value, of = at.text == "true", of or BOOL
        else:
            value = -float(at.text) if negative else float(at.text)
            of = of or type_of(float32)
        fits = isinstance(value, bool) if of.dtype.is_bool else of.dtype.is_float or isinstance(value, int)
        if fits and of.dtype.is_integer and of is not INDEX:
            fits = not isinstance(value, bool) and of.dtype.min <= value <= of.dtype.max
        if not fits:
            self.fail(f"{at.text!r} is no {of}", at)
        return const_index(int(value)) if of is INDEX else const(value, of)

    def function(self, at: _Token) -> Expr:
        """Read the arguments of ``name(`` and the closing parenthesis."""
        name = at.text
        if name == "reduce":
            return self.reduce()
        if name not in BUILTINS:
            args = tuple(self.items(self.expr, (")",)))
            self.expect(")")
            of = self.suffix() or call_type(name, args)
            if of is None:
                self.fail(f"a call without arguments needs a type: {name}():f32", at)
            return Call(name, args, of)
        a = self.expr()
        e: Expr
        cast = by_short(name)
        if cast is not None:
            e = Cast(a, cast)
        elif name in UNARY_CALLS:
            e = Unary(name, a)
        elif name in ("min", "max"):
            e = Binary(name, a, self.next_expr())
        elif name == "select":
            e = Select(a, self.next_expr(), self.next_expr())
        elif name == "fma":
            e = Fma(a, self.next_expr(), self.next_expr())
        elif name == "bitcast":
            self.expect(",")
            e = Bitcast(a, self.dtype())
        elif name == "splat":
            e = Splat(a, self.next_integer())
        elif name == "ramp":
            e = Ramp(a, self.next_integer(), self.next_integer())
        else:
            b = self.expr() if self.accept(";") else None
            lanes = []
            while self.token.text == ",":
                lanes.append(self.next_integer())
            e = Shuffle(a, tuple(lanes), b)
        self.expect(")")
        return e

    def next_expr(self) -> Expr:
        self.expect(",")
        return self.expr()

    def next_integer(self) -> int:
        self.expect(",")
        return self.integer()

    def reduce(self) -> Expr:
        if self.token.text not in Reduce.OPS:
            self.fail(f"expected one of {', '.join(Reduce.OPS)}, found {self.token.text!r}")
        op = self.take().text
        bound: list[tuple[_Token, Expr]] = []

        def one() -> None:
            at = self.binder()
            self.expect("in")
            bound.append((at, self.expr()))

        self.items(one, (";",))
        self.expect(";")
        variables = tuple(Var(at.text, INDEX, floor=0) for at, _ in bound)
        for (at, _), v in zip(bound, variables, strict=True):
            self.bind(at, v)
        body = self.expr()
        lanes, contract = 1, False
        while self.accept(";"):
            if self.accept("lanes"):
                lanes = self.integer()
            else:
                self.expect("contract")
                contract = True
        self.expect(")")
        for at, _ in bound:
            del self.scope[at.text]
        return Reduce(op, variables, tuple(n for _, n in bound), body, lanes, contract)
