"""Loop IR to text, in the format that `lowering.text` describes.

Also the tables of operators and reserved words that the parser shares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from jitflow.dtypes import ALL, DType, float32, index
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
    const_index,
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
    Prefetch,
    Stmt,
    Store,
    While,
)

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
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
COMPARE_LEVEL, UNARY_LEVEL = 1, 8

SPACES = ("global", "stack", "register", "shared", "scratch")
AXES = "xyz"
ATOMIC_OPS = ("add", "min", "max")
UNARY_CALLS = tuple(op for op in Unary.OPS if op not in ("neg", "not"))
#: Target operations that make one bool of a vector of bools.
MASK_CALLS = ("any", "all")
#: The call that gives the elements from one of an array (a ``Load`` that reads nothing) to the next cache line.
LEAD = "lead"
#: ``lookup(c0, ..., c15, i)`` is, lane by lane, the constant whose number is in the four low bits of i32 `i`.
LOOKUP, ENTRIES = "lookup", 16
_DTYPES = frozenset(d.short for d in (*ALL, index))
#: Words that stand for nodes when called; an intrinsic (`Call`) cannot have such a name, a variable may.
BUILTINS = _DTYPES | {"min", "max", "bitcast", "select", "fma", "splat", "ramp", "shuffle", "reduce", *UNARY_CALLS}
_STATEMENTS = (
    "let",
    "alloc",
    "stream",
    "while",
    "if",
    "else",
    "barrier",
    "pass",
    "poll",
    "check_index",
    "atomic",
    "prefetch",
    "call",
)
_KEYWORDS = frozenset({"kernel", *_STATEMENTS, "in", "read", "aliased", "align", "true", "false", "nan", "inf"})
RESERVED = _KEYWORDS | _DTYPES | set(LOOP_KINDS) | set(SPACES)

_WIDTH = 120


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
        while name in self.taken or name in RESERVED:
            i += 1
            name = f"{re.sub(r'_[0-9]+$', '', base)}_{i}"
        self.taken.add(name)
        self.names[x] = name
        return name

    # kernels and statements

    def kernel(self, k: Kernel, indent: str) -> None:
        for b in k.params:
            self.name(b)
        for v in k.dims:
            self.name(v)
        params = [self.param(b, k) for b in k.params]
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

    def param(self, b: Buffer, k: Kernel) -> str:
        words = [self.buffer(b)]
        if b in k.reads:
            words.append("read")
        if b in k.aliased:
            words.append("aliased")
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
            case For(var, extent, body, kind, axis, poll):
                suffix = f".{AXES[axis]}" if axis or kind in ("block", "thread") else ""
                # The extent is outside the scope of the variable, so it is printed (and names are given) first.
                bound = self.expr(extent)
                if poll is not None:
                    bound += f" poll {self.expr(poll)}"
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
            case Prefetch(buffer, subscripts, far):
                text = f"prefetch {'far ' if far else ''}{self.access(buffer, subscripts, None)}"
            case CallKernel(kernel, buffers, offsets, args):
                given = ", ".join(
                    self.name(b) if o == const_index(0) else f"{self.name(b)} + {self.expr(o)}"
                    for b, o in zip(buffers, offsets, strict=True)
                )
                rest = "; " + ", ".join(map(self.expr, args)) if args else ""
                text = f"call {kernel}({given}{rest})"
            case _:
                # No valid text, but a printer for debugging must not fail.
                text = f"<{type(s).__name__}>"
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
                text = f"{self.expr(a, COMPARE_LEVEL + 1)} {COMPARE.get(op, op)} {self.expr(b, COMPARE_LEVEL + 1)}"
                return _wrap(text, COMPARE_LEVEL, level)
            case Unary("neg" | "not" as op, a):
                sign = "-" if op == "neg" else "~"
                # "-1" is a literal; the negation of a literal needs parentheses.
                is_literal = op == "neg" and isinstance(a, Const)
                operand = f"({self.expr(a)})" if is_literal else self.expr(a, UNARY_LEVEL)
                return _wrap(sign + operand, UNARY_LEVEL, level)
            case Unary(op, a):
                return self.call(op, a)
            case Select(cond, a, b):
                return self.call("select", cond, a, b)
            case Cast(a, to):
                return self.call(to.short, a)
            case Bitcast(a, to):
                return f"bitcast({self.expr(a)}, {to.short})"
            case Call(name, args, of):
                suffix = "" if of is call_type(name, args) else f":{of}"
                return self.call(name, *args) + suffix
            case Fma(a, b, c):
                return self.call("fma", a, b, c)
            case Splat(a, lanes):
                return f"splat({self.expr(a)}, {lanes})"
            case Ramp(base, stride, lanes):
                return f"ramp({self.expr(base)}, {stride}, {lanes})"
            case Shuffle(a, lanes, b):
                vectors = [self.expr(a)] if b is None else [self.expr(a), self.expr(b)]
                return f"shuffle({'; '.join(vectors)}{''.join(f', {k}' for k in lanes)})"
            case Reduce(op, variables, extents, body, lanes, contract):
                bounds = [self.expr(n) for n in extents]
                over = ", ".join(f"{self.expr(v)} in {n}" for v, n in zip(variables, bounds, strict=True))
                rest = f"; lanes {lanes}" if lanes != 1 else ""
                rest += "; contract" if contract else ""
                return f"reduce({op} {over}; {self.expr(body)}{rest})"
            case _:
                return f"<{type(e).__name__}>"

    def call(self, name: str, *args: Expr) -> str:
        return f"{name}({', '.join(map(self.expr, args))})"


def call_type(name: str, args: Sequence[Expr]) -> Type | None:
    """Return the type of a call that the text does not name."""
    if name in MASK_CALLS:
        return BOOL
    if name == LEAD:
        return INDEX
    return args[0].type if args else None


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
