"""Loop IR to text and back: `show` and `parse_kernel`, and `difference`, which compares up to renaming.

A file (suffix ``.loop``) holds kernels::

    kernel scale_rows(a: f32[n, 8] read, s: f32[n] read, out: f32[n, 8] align 64, n: index):
      # scaled = mul(a, s) at model.py:12
      parallel i in n:
        let f: f32 = s[i]
        vectorized j in 8:
          out[i, j] = max(a[i, j] * f, 0.0)

Grammar. Bodies are indented; ``#`` starts a comment, and the comment lines right under a header are the kernel's
notes. A line goes on while a parenthesis is open. ``{x}`` is repetition, ``[x]`` an option, ``x,*`` a list::

    kernel    = "kernel" NAME "(" param,* ")" ":" {note} {statement} {kernel}     kernels in the body are its callees
    param     = NAME ":" dtype "[" expr,* "]" {"read" | space | "align" INT}      "read": never written
              | NAME ":" "index"                                                  a dim
    space     = "global" | "stack" | "register" | "shared" | "scratch"
    statement = "let" NAME ":" type "=" expr
              | "alloc" NAME ":" dtype "[" expr,* "]" space ["align" INT]
              | ["stream"] access "=" expr
              | kind ["." ("x" | "y" | "z")] NAME "in" expr ":" body              kind: serial parallel vectorized
              | "while" expr ":" body                                                   unrolled block thread
              | "if" expr ":" body ["else" ":" body]
              | "barrier" | "pass"
              | "check_index" NAME "[" INT "]" expr "," expr ["if" expr]          ok, position, mask
              | "atomic" ("add" | "min" | "max") access "," expr
              | "call" NAME "(" (NAME ["+" expr]),* [";" expr,*] ")"              buffers with offsets; arguments
    access    = NAME "[" expr,* ["if" expr] "]"                                   "if": the mask
    expr      = Python's operators and precedences, comparisons unchained
              | literal [":" type] | NAME | access | "(" expr ")"
              | ("min" | "max") "(" expr "," expr ")"
              | ("abs" | "sqrt" | "floor" | "ceil" | "trunc" | "round") "(" expr ")"
              | dtype "(" expr ")" | "bitcast" "(" expr "," dtype ")"             casts
              | "select" "(" expr "," expr "," expr ")" | "fma" "(" expr "," expr "," expr ")"
              | "splat" "(" expr "," INT ")"                                      value, lanes
              | "ramp" "(" expr "," INT "," INT ")"                               base, stride, lanes
              | "shuffle" "(" expr {"," INT} ")"
              | "reduce" "(" op (NAME "in" expr),* ";" expr [";" "lanes" INT] [";" "contract"] ")"
              | NAME "(" expr,* ")" [":" type]                                    a call; by default of its first
    literal   = INT (index) | FLOAT (f32) | "true" | "false" | "nan" | "inf"           argument's type

``parse(show(x))`` equals `x` up to renaming, and ``show`` is a fixed point: names are kept as long as they are
identifiers and unique in the kernel; others get a number. Types are not checked here but by `lowering.verify`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from jitflow.dtypes import ALL, DType, by_short, float32, index
from jitflow.errors import CompilerBug, FormatError
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
    as_index,
    const,
    const_index,
    parse_type,
    round_to,
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
    Stmt,
    Store,
    While,
)

T = TypeVar("T")

#: Infix operators with their precedence; all associate to the left.
INFIX = {
    "or": ("|", 2),
    "xor": ("^", 3),
    "and": ("&", 4),
    "shl": ("<<", 5),
    "shr": (">>", 5),
    "add": ("+", 6),
    "sub": ("-", 6),
    "mul": ("*", 7),
    "div": ("/", 7),
    "floordiv": ("//", 7),
    "mod": ("%", 7),
}
_INFIX_OF = {symbol: (op, level) for op, (symbol, level) in INFIX.items()}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_COMPARE_OF = {symbol: op for op, symbol in COMPARE.items()}
_COMPARE_LEVEL, _UNARY_LEVEL = 1, 8

SPACES = ("global", "stack", "register", "shared", "scratch")
AXES = "xyz"
ATOMIC_OPS = ("add", "min", "max")
_UNARY_CALLS = tuple(op for op in Unary.OPS if op not in ("neg", "not"))
#: Words that stand for nodes when called; an intrinsic (`Call`) cannot have such a name.
BUILTINS = frozenset(
    {"min", "max", "bitcast", "select", "fma", "splat", "ramp", "shuffle", "reduce", *_UNARY_CALLS}
    | {d.short for d in (*ALL, index)}
)
_STARTERS = (
    "kernel",
    "let",
    "alloc",
    "stream",
    "while",
    "if",
    "else",
    "barrier",
    "pass",
    "check_index",
    "atomic",
    "call",
)
_KEYWORDS = frozenset({*_STARTERS, "in", "read", "align", "true", "false", "nan", "inf"})
_RESERVED = _KEYWORDS | BUILTINS | set(LOOP_KINDS) | set(SPACES)

#: Axis sizes of a buffer that a fragment uses without declaring it: large enough for any small test program.
_FREE_SHAPES = {0: (), 1: (4096,), 2: (64, 64), 3: (16, 16, 16)}
_WIDTH = 120


# Printing


def show(x: Kernel | Body | Stmt | Expr) -> str:
    """Return `x` as text: a kernel, a body, one statement or an expression."""
    p = _Printer()
    if isinstance(x, Expr):
        return p.expr(x)
    if isinstance(x, Kernel):
        p.kernel(x, "")
    else:
        p.body(x if isinstance(x, tuple) else (x,), "")
    return "\n".join(p.lines) + "\n"


class _Printer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[Var | Buffer, str] = {}
        self.taken: set[str] = set()

    def name(self, x: Var | Buffer) -> str:
        """Return the name of `x`: its own if that is an unused identifier, else numbered."""
        hit = self.names.get(x)
        if hit is not None:
            return hit
        base = re.sub(r"\W", "_", x.name, flags=re.ASCII) or "v"
        base = f"_{base}" if base[0].isdigit() else base
        name, i = base, 0
        while name in self.taken or name in _RESERVED:
            i += 1
            name = f"{base}_{i}"
        self.taken.add(name)
        self.names[x] = name
        return name

    # kernels and statements

    def kernel(self, k: Kernel, indent: str) -> None:
        for b in k.params:
            self.name(b)
        for v in k.dims:
            self.name(v)
        params = [self.param(b, b in k.reads) for b in k.params]
        params += [f"{self.name(v)}: {v.type}" for v in k.dims]
        header = f"{indent}kernel {k.name}({', '.join(params)}):"
        if len(header) > _WIDTH:
            header = f"{indent}kernel {k.name}(\n" + ",\n".join(f"{indent}    {p}" for p in params) + "):"
        self.lines.append(header)
        for note in k.notes:
            self.lines.append(f"{indent}  # {_escape(note)}")
        self.body(k.body, indent + "  ")
        for callee in k.callees:
            p = _Printer()
            p.lines = self.lines
            p.kernel(callee, indent + "  ")

    def param(self, b: Buffer, read: bool) -> str:
        words = [self.buffer(b)]
        if read:
            words.append("read")
        if b.space != "global":
            words.append(b.space)
        return " ".join(words + self.align(b))

    def buffer(self, b: Buffer) -> str:
        shape = ", ".join(self.expr(as_index(n)) for n in b.shape)
        return f"{self.name(b)}: {b.dtype.short}[{shape}]"

    def align(self, b: Buffer) -> list[str]:
        return [] if b.align == b.dtype.itemsize else [f"align {b.align}"]

    def body(self, body: Body, indent: str) -> None:
        for s in body:
            self.statement(s, indent)
        if not body:
            self.lines.append(f"{indent}pass")

    def statement(self, s: Stmt, indent: str) -> None:
        inner = indent + "  "
        match s:
            case Let(var, value):
                text = f"let {self.name(var)}: {var.type} = {self.expr(value)}"
            case Store(buffer, subscripts, value, mask, stream):
                text = f"{'stream ' if stream else ''}{self.access(buffer, subscripts, mask)} = {self.expr(value)}"
            case Alloc(buffer):
                text = " ".join(["alloc", self.buffer(buffer), buffer.space, *self.align(buffer)])
            case For(var, extent, body, kind, axis):
                suffix = f".{AXES[axis]}" if axis or kind in ("block", "thread") else ""
                # The extent is outside the scope of the variable, so it is printed (and names are given) first.
                bound = self.expr(extent)
                self.lines.append(f"{indent}{kind}{suffix} {self.name(var)} in {bound}:")
                return self.body(body, inner)
            case While(cond, body):
                self.lines.append(f"{indent}while {self.expr(cond)}:")
                return self.body(body, inner)
            case If(cond, then, otherwise):
                self.lines.append(f"{indent}if {self.expr(cond)}:")
                self.body(then, inner)
                if otherwise:
                    self.lines.append(f"{indent}else:")
                    self.body(otherwise, inner)
                return None
            case Barrier():
                text = "barrier"
            case CheckIndex(status, slot, ok, position, mask):
                where = "" if mask is None else f" if {self.expr(mask)}"
                text = f"check_index {self.name(status)}[{slot}] {self.expr(ok)}, {self.expr(position)}{where}"
            case Atomic(op, buffer, subscripts, value):
                text = f"atomic {op} {self.access(buffer, subscripts, None)}, {self.expr(value)}"
            case CallKernel(kernel, buffers, offsets, args):
                given = ", ".join(
                    self.name(b) if o == const_index(0) else f"{self.name(b)} + {self.expr(o)}"
                    for b, o in zip(buffers, offsets, strict=True)
                )
                rest = "; " + ", ".join(map(self.expr, args)) if args else ""
                text = f"call {kernel}({given}{rest})"
            case _:
                raise CompilerBug(f"the loop IR text has no form for {type(s).__name__}")
        self.lines.append(indent + text)
        return None

    # expressions

    def access(self, b: Buffer, subscripts: tuple[Expr, ...], mask: Expr | None) -> str:
        inside = ", ".join(map(self.expr, subscripts))
        if mask is not None:
            inside += f" if {self.expr(mask)}"
        return f"{self.name(b)}[{inside}]"

    def expr(self, e: Expr, level: int = 0) -> str:
        """Return `e` as text, in parentheses if it binds less tightly than `level`."""
        match e:
            case Const(value, of):
                return literal(value, of)
            case Var():
                return self.name(e)
            case Load(buffer, subscripts, mask):
                return self.access(buffer, subscripts, mask)
            case Binary(op, a, b) if op in INFIX:
                symbol, own = INFIX[op]
                return _wrap(f"{self.expr(a, own)} {symbol} {self.expr(b, own + 1)}", own, level)
            case Binary(op, a, b):
                return self.call(op, a, b)
            case Compare(op, a, b):
                # Comparisons do not chain, so both operands must bind more tightly.
                text = f"{self.expr(a, _COMPARE_LEVEL + 1)} {COMPARE[op]} {self.expr(b, _COMPARE_LEVEL + 1)}"
                return _wrap(text, _COMPARE_LEVEL, level)
            case Unary("neg" | "not" as op, a):
                sign = "-" if op == "neg" else "~"
                # "-1" is a literal; the negation of a literal needs parentheses.
                operand = f"({self.expr(a)})" if isinstance(a, Const) else self.expr(a, _UNARY_LEVEL)
                return _wrap(sign + operand, _UNARY_LEVEL, level)
            case Unary(op, a):
                return self.call(op, a)
            case Select(cond, a, b):
                return self.call("select", cond, a, b)
            case Cast(a, to):
                return self.call(to.short, a)
            case Bitcast(a, to):
                return f"bitcast({self.expr(a)}, {to.short})"
            case Call(name, args, of):
                suffix = "" if args and args[0].type is of else f":{of}"
                return self.call(name, *args) + suffix
            case Fma(a, b, c):
                return self.call("fma", a, b, c)
            case Splat(a, lanes):
                return f"splat({self.expr(a)}, {lanes})"
            case Ramp(base, stride, lanes):
                return f"ramp({self.expr(base)}, {stride}, {lanes})"
            case Shuffle(a, lanes):
                return f"shuffle({', '.join([self.expr(a), *map(str, lanes)])})"
            case Reduce(op, variables, extents, body, lanes, contract):
                bounds = [self.expr(n) for n in extents]
                over = ", ".join(f"{self.expr(v)} in {n}" for v, n in zip(variables, bounds, strict=True))
                rest = f"; lanes {lanes}" if lanes != 1 else ""
                rest += "; contract" if contract else ""
                return f"reduce({op} {over}; {self.expr(body)}{rest})"
            case _:
                raise CompilerBug(f"the loop IR text has no form for {type(e).__name__}")

    def call(self, name: str, *args: Expr) -> str:
        return f"{name}({', '.join(map(self.expr, args))})"


def _wrap(text: str, own: int, level: int) -> str:
    return f"({text})" if own < level else text


def literal(value: int | float | bool, of: Type) -> str:
    """Return a literal: an integer is an index, a number with a point an f32; other types are named."""
    dtype = of.dtype
    if dtype.is_bool:
        text = "true" if value else "false"
    elif dtype.is_float:
        text = _float_text(float(value), dtype)
    else:
        text = str(int(value))
    return text if of is INDEX or of is BOOL or of is type_of(float32) else f"{text}:{of}"


def _float_text(value: float, dtype: DType) -> str:
    if math.isnan(value):
        return "-nan" if math.copysign(1.0, value) < 0 else "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = repr(value)
    if dtype is float32:
        # The fewest digits that give the same f32, unless reading them as a double first would round twice.
        short = str(np.float32(value))
        text = short if round_to(float(short), dtype) == value else text
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def _escape(note: str) -> str:
    return note.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(note: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), note)


# Parsing


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
        if at.text in _RESERVED:
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
        if found is None and self.free and at.text not in _RESERVED:
            found = self.declare(at.text, Var(at.text, INDEX, floor=0))
        if found is None:
            self.fail(f"unknown name {at.text!r}", at)
        if isinstance(found, Buffer):
            self.fail(f"{at.text!r} is a buffer; it needs subscripts", at)
        return found

    def buffer(self, at: _Token, rank: int | None = None) -> Buffer:
        found = self.scope.get(at.text)
        if found is None and self.free and rank is not None and at.text not in _RESERVED:
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
        self.items(lambda: self.param(params, reads), (")",))
        self.expect(")")
        self.expect(":")
        self.end_line()
        notes: list[str] = []
        while self.row < len(self.lines) and self.lines[self.row].note is not None:
            notes.append(self.lines[self.row].note or "")
            self.row += 1
        body, callees = self.block(indent)
        self.scope, self.free = outer, free
        return Kernel(name, tuple(params), dims, body, frozenset(reads), tuple(notes), tuple(callees))

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

    def param(self, params: list[Buffer], reads: set[Buffer]) -> None:
        at = self.binder()
        self.expect(":")
        if self.peek().text != "[":
            self.type()
            return
        b, words = self.declaration(at, ("read", *SPACES))
        params.append(b)
        if "read" in words:
            reads.add(b)

    def declaration(self, at: _Token, allowed: tuple[str, ...]) -> tuple[Buffer, list[str]]:
        """Read dtype, shape and the words after them; bind the buffer."""
        dtype = self.dtype()
        self.expect("[")
        shape = tuple(n.value if isinstance(n, Const) else n for n in self.items(self.expr, ("]",)))
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
        var = Var(at.text, INDEX, floor=0)
        self.bind(at, var)
        body = self.colon_block(indent)
        del self.scope[at.text]
        return For(var, extent, body, kind, axis)

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
        left = self.infix(_COMPARE_LEVEL + 1)
        op = _COMPARE_OF.get(self.token.text)
        if op is None:
            return left
        self.take()
        right = self.infix(_COMPARE_LEVEL + 1)
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
            of = self.suffix() or (args[0].type if args else None)
            if of is None:
                self.fail(f"a call without arguments needs a type: {name}():f32", at)
            return Call(name, args, of)
        a = self.expr()
        e: Expr
        cast = by_short(name)
        if cast is not None:
            e = Cast(a, cast)
        elif name in _UNARY_CALLS:
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
            lanes = []
            while self.token.text == ",":
                lanes.append(self.next_integer())
            e = Shuffle(a, tuple(lanes))
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


# Comparing


def structurally_equal(a: Any, b: Any) -> bool:
    """Say whether two kernels, bodies, statements or expressions are equal up to renaming."""
    return difference(a, b) is None


def difference(a: Any, b: Any) -> str | None:
    """Return where `a` and `b` first differ, up to renaming of variables and buffers; None if they do not.

    Free variables and buffers correspond in order of appearance.
    """
    return _Comparison().differ(a, b, "")


class _Comparison:
    def __init__(self) -> None:
        self.pairs: dict[Any, Any] = {}
        self.reverse: dict[Any, Any] = {}

    def differ(self, a: Any, b: Any, path: str) -> str | None:
        if isinstance(a, (Var, Buffer)) and type(a) is type(b):
            return self.names(a, b, path)
        if isinstance(a, tuple) and isinstance(b, tuple):
            return self.sequences(a, b, path)
        if isinstance(a, Const) or type(a) is not type(b) or not hasattr(a, "__record_fields__"):
            return None if type(a) is type(b) and a == b else f"{path or 'here'}: {_brief(a)} against {_brief(b)}"
        for field in type(a).__record_fields__:
            p, q = getattr(a, field), getattr(b, field)
            if isinstance(p, frozenset):
                p, q = frozenset(self.pairs.get(x, x) for x in p), frozenset(q)
                found = None if p == q else f"{path}.{field}: {_names(a, field)} against {_names(b, field)}"
            else:
                found = self.differ(p, q, f"{path}.{field}" if path else field)
            if found is not None:
                return found
        return None

    def sequences(self, a: Sequence[Any], b: Sequence[Any], path: str) -> str | None:
        for i, (p, q) in enumerate(zip(a, b, strict=False)):
            found = self.differ(p, q, f"{path}[{i}]")
            if found is not None:
                return found
        if len(a) == len(b):
            return None
        longer, side = (a, "left") if len(a) > len(b) else (b, "right")
        return f"{path or 'here'}: only on the {side}: {_brief(longer[min(len(a), len(b))])}"

    def names(self, a: Any, b: Any, path: str) -> str | None:
        if a in self.pairs or b in self.reverse:
            same = self.pairs.get(a) is b and self.reverse.get(b) is a
            return None if same else f"{path}: {a.name} against {b.name}"
        self.pairs[a], self.reverse[b] = b, a
        if isinstance(a, Var):
            return None if a.type is b.type else f"{path}: {a.name} is {a.type} against {b.type}"
        found = self.differ(tuple(map(as_index, a.shape)), tuple(map(as_index, b.shape)), f"{path}.shape")
        if found is None and (a.dtype, a.space, a.align) != (b.dtype, b.space, b.align):
            found = f"{path}: {a!r} align {a.align} against {b!r} align {b.align}"
        return found


def _brief(x: Any) -> str:
    if isinstance(x, (Expr, Stmt)):
        text = show(x).rstrip("\n")
        first, _, rest = text.partition("\n")
        return f"`{first}{' ...' if rest else ''}`"
    return repr(x)


def _names(x: Any, field: str) -> str:
    return "{" + ", ".join(sorted(b.name for b in getattr(x, field))) + "}"
