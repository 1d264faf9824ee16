"""Index arithmetic as LLVM text, each part placed as far out of the loops as its variables allow.

:class:`IndexEmitter` keeps a stack of *regions* (function entry, loop bodies, branches). While an inner region is
open, an outer one still accepts instructions at the point just before the inner one; index arithmetic is put into the
region of its innermost variable and remembered there. That hoists and shares addresses without another pass:

    out[i*m + j + 16] in loops i, j   →   in the body of i:  %p = getelementptr float, ptr %out, i64 %i_m
                                          in the body of j:  %q = getelementptr float, ptr %p, i64 %j
                                                             getelementptr float, ptr %q, i64 16

A product ``c * i`` with the variable of an innermost loop becomes a variable of that loop of its own, stepped by c.
Only pure index arithmetic moves; loads stay where they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

from jitflow.errors import CompilerBug
from jitflow.expr import (
    INDEX,
    Binary,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Var,
    type_of,
)
from jitflow.record import children, walk
from jitflow.simplify import Poly, multiply_polys, poly_of
from lowering import emit_arith
from lowering.emit_arith import memory_text


@dataclass
class Loop:
    """An open loop. Its phis are written when it closes, so that more of them can be asked for until then."""

    var: Var
    first: str
    step: str
    is_innermost: bool
    phis: list[tuple[str, str, str]] = field(default_factory=list)  # name, first value, step


@dataclass
class Region:
    """A stretch of code that is entered at one point. `out` is where instructions for it go at the moment."""

    out: list[str]
    cache: dict[object, str] = field(default_factory=dict)
    loop: Loop | None = None


class IndexEmitter:
    """Writes instructions and index expressions; see the module docstring.

    `names` holds the operand of each variable, `pointers` that of each buffer.
    """

    def __init__(self) -> None:
        self.names: dict[Var, str] = {}
        self.pointers: dict[Buffer, str] = {}
        self.chunks: list[list[str]] = []
        self.regions: list[Region] = [Region(self.new_chunk())]
        self.label = "entry"
        self._home: dict[Var, int] = {}
        self._nonnegative: set[Var] = set()
        self._strides: dict[Buffer, tuple[Poly, ...]] = {}
        self._count = 0

    # ---- writing

    def new_chunk(self) -> list[str]:
        """Start a new run of lines at the end of the text."""
        chunk: list[str] = []
        self.chunks.append(chunk)
        return chunk

    def fresh(self, prefix: str) -> str:
        """Return an unused name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def line(self, text: str) -> None:
        """Append an instruction without a result."""
        self.regions[-1].out.append("  " + text)

    def inst(self, text: str) -> str:
        """Append ``%new = text`` and return ``%new``."""
        self._count += 1
        name = f"%t{self._count}"
        self.regions[-1].out.append(f"  {name} = {text}")
        return name

    def place(self, label: str) -> None:
        """Start the block `label`."""
        self.regions[-1].out.append(f"{label}:")
        self.label = label

    def text(self) -> str:
        """Return everything written so far."""
        return "\n".join(line for chunk in self.chunks for line in chunk)

    def bind(self, var: Var, operand: str, *, nonnegative: bool = False) -> None:
        """Give `var` a value that was computed in the current region."""
        self.names[var] = operand
        self._home[var] = len(self.regions) - 1
        if nonnegative or (var.floor is not None and var.floor >= 0):
            self._nonnegative.add(var)

    def enter(self, loop: Loop | None = None) -> Region:
        """Open a region inside the current one. The branch that leads to it must be the next line."""
        outer, before = self.regions[-1], self.new_chunk()
        # From now on, what is hoisted lands in `before`, ahead of the branch.
        outer.out = before
        inner = Region(self.new_chunk(), loop=loop)
        self.regions.append(inner)
        return inner

    def other_arm(self) -> None:
        """Replace the innermost region by the next one that the same branch leads to."""
        self.regions[-1] = Region(self.new_chunk())

    def leave(self) -> None:
        """Close the innermost region; the next line continues the one around it."""
        self.regions.pop()
        self.regions[-1].out = self.new_chunk()

    # ---- indices

    def index(self, e: Expr | int) -> str:
        """Emit a scalar index expression and return its operand."""
        return self.sum(poly_of(e))

    def sum(self, p: Poly) -> str:
        """Emit polynomial `p`: its parts by region from the outside in, the literal last."""
        total, last = "", 0
        for depth, term in self.terms(p):
            total = self.at(depth, ("add", total, term), f"add i64 {total}, {term}") if total else term
            last = depth
        literal = p.get((), 0)
        if not total:
            return str(literal)
        return self.at(last, ("add", total, literal), f"add i64 {total}, {literal}") if literal else total

    def terms(self, p: Poly) -> list[tuple[int, str]]:
        """Emit the parts of `p` that are not literal, one sum per region it can be computed in, outermost first."""
        totals: dict[int, str] = {}
        for monomial, c in p.items():
            if monomial:
                depth, term = self._term(monomial, c)
                total = totals.get(depth)
                totals[depth] = self.at(depth, ("add", total, term), f"add i64 {total}, {term}") if total else term
        return sorted(totals.items())

    def at(self, depth: int, key: object, text: str) -> str:
        """Return the result of the pure instruction `text` in region `depth`; it is written there unless it was."""
        region = self.regions[depth]
        hit = region.cache.get(key)
        if hit is None:
            hit = region.cache[key] = "%" + self.fresh("x")
            region.out.append(f"  {hit} = {text}")
        return hit

    def _term(self, monomial: tuple[Expr, ...], c: int) -> tuple[int, str]:
        """Emit ``c * a * b * ...``; return its region and operand."""
        # Stable: factors of one region keep the canonical order of the monomial.
        atoms = sorted(((self.depth(a), a) for a in monomial), key=lambda t: t[0])
        top, last = atoms[-1]
        loop = self.regions[top].loop
        if loop is not None and loop.is_innermost and loop.var is last and (len(atoms) > 1 or c != 1):
            others = tuple(a for _, a in atoms[:-1])
            if not others or atoms[-2][0] < top:
                return top, self._stepped(loop, top, others, c)
        total = ""
        for depth, atom in atoms:
            operand = self._atom(atom, depth)
            total = self.at(depth, ("mul", total, operand), f"mul i64 {total}, {operand}") if total else operand
        return top, total if c == 1 else self.at(top, ("mul", total, c), f"mul i64 {total}, {c}")

    def _stepped(self, loop: Loop, depth: int, others: tuple[Expr, ...], c: int) -> str:
        """Return ``c * others * loop.var`` as a loop variable of its own."""
        cache = self.regions[depth].cache
        key = ("stepped", others, c)
        hit = cache.get(key)
        if hit is None:
            factor = self._term(others, c)[1] if others else str(c)
            first = "0" if loop.first == "0" else self._times(depth - 1, loop.first, factor)
            step = factor if loop.step == "1" else self._times(depth - 1, loop.step, factor)
            hit = cache[key] = "%" + self.fresh("s")
            loop.phis.append((hit, first, step))
        return hit

    def _times(self, depth: int, a: str, b: str) -> str:
        return self.at(depth, ("mul", a, b), f"mul i64 {a}, {b}")

    def _atom(self, atom: Expr, depth: int) -> str:
        """Emit a factor of a monomial in region `depth`."""
        if isinstance(atom, Var):
            return self.name(atom)
        if not is_movable(atom):
            return self._atom_value(atom)
        region = self.regions[depth]
        hit = region.cache.get(atom)
        if hit is None:
            here, self.regions = self.regions, self.regions[: depth + 1]
            hit = region.cache[atom] = self._atom_value(atom)
            self.regions = here
        return hit

    def _atom_value(self, atom: Expr) -> str:
        if not (isinstance(atom, Binary) and atom.type is INDEX):
            return self.value(atom)
        a, b = self.index(atom.a), self.index(atom.b)
        both = self.is_nonnegative(atom.a) and self.is_nonnegative(atom.b)
        return emit_arith.binary(
            self, atom.op, INDEX, a, b, a_value=literal(atom.a), b_value=literal(atom.b), nonnegative=both
        )

    def value(self, e: Expr) -> str:
        """Emit an expression that is no index arithmetic. Kernels can (`lowering.emit_expr`), plans have none."""
        raise CompilerBug(f"no LLVM text for {e!r} here")

    def name(self, var: Var) -> str:
        """Return the operand of `var`."""
        try:
            return self.names[var]
        except KeyError:
            raise CompilerBug(f"variable {var.name} is used outside its scope") from None

    def depth(self, e: Expr) -> int:
        """Return the region `e` can be computed in: that of its innermost variable, or this one if it cannot move."""
        if isinstance(e, Var):
            return self._home.get(e, 0)
        if isinstance(e, (Load, Select, Call)):
            return len(self.regions) - 1
        return max((self.depth(c) for c in children(e)), default=0)

    def is_nonnegative(self, e: Expr) -> bool:
        """Tell whether index expression `e` (or each of its lanes) is proven not to be negative."""
        match e:
            case Const(value, _):
                return value >= 0
            case Var():
                return e in self._nonnegative
            case Binary("add" | "mul" | "floordiv" | "min", a, b):
                return self.is_nonnegative(a) and self.is_nonnegative(b)
            case Binary("max", a, b):
                return self.is_nonnegative(a) or self.is_nonnegative(b)
            case Binary("mod", _, b):
                return self.is_nonnegative(b)
            case Cast(a, _):
                return a.type.dtype.is_integer and not a.type.dtype.is_signed and a.type.dtype.bits < 64
            case _:
                return False

    # ---- addresses

    def strides(self, buffer: Buffer) -> tuple[Poly, ...]:
        """Return the row-major strides of `buffer` in elements."""
        hit = self._strides.get(buffer)
        if hit is None:
            out: list[Poly] = []
            step = poly_of(1)
            for n in reversed(buffer.shape):
                out.append(step)
                step = multiply_polys(step, poly_of(n))
            hit = self._strides[buffer] = tuple(reversed(out))
        return hit

    def pointer(self, buffer: Buffer, p: Poly) -> tuple[str, int]:
        """Emit the address of flat element `p` of `buffer`; return it with its proven alignment in bytes."""
        element, of = memory_text(type_of(buffer.dtype)), self.pointer_type(buffer)
        ptr = self.base(buffer)
        for depth, term in self.terms(p):
            ptr = self.at(depth, ("ptr", ptr, term, element), f"getelementptr {element}, {of} {ptr}, i64 {term}")
        align = buffer.align
        for c in p.values():
            align = gcd(align, c * buffer.dtype.itemsize)
        start = p.get((), 0)
        return (self.inst(f"getelementptr {element}, {of} {ptr}, i64 {start}") if start else ptr), align

    def base(self, buffer: Buffer) -> str:
        """Return the pointer to element 0 of `buffer`."""
        try:
            return self.pointers[buffer]
        except KeyError:
            raise CompilerBug(f"buffer {buffer.name} is used outside its scope") from None

    def pointer_type(self, buffer: Buffer) -> str:
        """Return the type of pointers into `buffer`."""
        return "ptr"


def is_movable(e: Expr) -> bool:
    """Tell whether `e` may be computed earlier: it reads no memory and calls nothing."""
    return not any(isinstance(x, (Load, Select, Call)) for x in walk(e))


def literal(e: Expr) -> int | float | bool | None:
    """Return the value of a literal, else None."""
    return e.value if isinstance(e, Const) else None
