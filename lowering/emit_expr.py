"""Scalar and vector expressions, loads and stores as LLVM text.

:class:`ExprEmitter` adds to the index arithmetic of `lowering.emit_index` everything else an expression can hold. It
decides nothing: vectors, masks and their widths are in the IR. A vector whose subscripts are ``base + lane`` is one
load, ``base - lane`` one load and a reversal, ``base`` a broadcast, everything else a gather. A load in an arm of a
``Select`` is guarded: by a branch where the condition is a scalar, by a mask where it has lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from jitflow.dtypes import bool_, index, int32, uint8
from jitflow.errors import CompilerBug
from jitflow.expr import (
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
    type_of,
)
from jitflow.record import walk
from jitflow.simplify import Poly, add_polys, multiply_polys, poly_of
from lowering import emit_arith, emit_cast
from lowering.emit_arith import const_text, memory_text, suffix, type_text, vector_text
from lowering.emit_index import IndexEmitter, literal
from lowering.target import Target

#: Stands for the number of the lane in the polynomial of a vector of indices.
LANE = Var("lane", INDEX, 0)
#: Vectors of indices that are no linear form of the lane number, each with the variable that stands for it.
Parts: TypeAlias = "tuple[tuple[Var, Expr], ...]"


#: Up to this distance between lanes, loading everything in between and shuffling beats a gather.
MAX_SPREAD = 4
#: Bytes of a cache line: of every processor that is compiled for.
CACHE_LINE = 64
#: Quotients of small numbers by a literal are products shifted by so many bits: 16 by 16 bits fit 32.
_SHIFT = 16


class Functions(Protocol):
    """Where calls of pure functions go: the module notes which of them it must define."""

    def call(self, w: ExprEmitter, name: str, args: tuple[str, ...], types: tuple[Type, ...], of: Type) -> str:
        """Emit a call and return the operand of its result."""


class ExprEmitter(IndexEmitter):
    """Emits expressions, loads and stores; see the module docstring."""

    def __init__(self, target: Target, functions: Functions) -> None:
        super().__init__()
        self.target = target
        self.functions = functions
        # The lanes that are on (operand, how many) in the arms of vector selects around this point.
        self._guards: list[tuple[str, int]] = []
        self._polys: dict[Expr, tuple[Poly, Parts]] = {}

    # ---- values

    def value(self, e: Expr) -> str:
        """Emit `e` and return its operand."""
        match e:
            case Const(number, of):
                return const_text(number, of)
            case Var():
                return self.name(e)
            case Binary() if e.type is INDEX:
                return self.index(e)
            case Binary() | Ramp() if e.type.dtype is index:
                return self._index_vector(e)
            case Binary(op, a, b):
                x, y = self.value(a), self.value(b)
                return emit_arith.binary(self, op, e.type, x, y, a_value=_splat_value(a), b_value=_splat_value(b))
            case Unary(op, a):
                return emit_arith.unary(self, op, e.type, self.value(a))
            case Compare(op, a, b):
                return self._compare(op, a, b)
            case Select():
                return self._select(e)
            case Cast(a, to):
                return emit_cast.cast(self, a.type, to, self.value(a), has_f16=self.target.has_f16)
            case Bitcast(a, to):
                return emit_cast.bitcast(self, a.type, to, self.value(a))
            case Fma(a, b, c):
                x, y, z = self.value(a), self.value(b), self.value(c)
                return emit_arith.fma(self, e.type, x, y, z, has_fma=self.target.has_fma)
            case Call("lead", (Load(buffer, subscripts),), _):
                return self._lead(buffer, subscripts)
            case Call(name, args, of):
                operands = tuple(self.value(a) for a in args)
                return self.functions.call(self, name, operands, tuple(a.type for a in args), of)
            case Load():
                return self._load(e)
            case Splat(a, lanes):
                return self.splat(self.value(a), a.type, lanes)
            case Ramp(base, stride, lanes):
                wide = self.splat(self.value(base), base.type, lanes)
                steps = ", ".join(f"{base.type.dtype.llvm} {stride * k}" for k in range(lanes))
                return self.inst(f"add {type_text(e.type)} {wide}, <{steps}>")
            case Shuffle(a, picks, None):
                return self._shuffle(self.value(a), a.type, picks)
            case Shuffle(a, picks, Expr() as b):
                return self._shuffle_two(self.value(a), self.value(b), a.type, picks)
            case Reduce():
                raise CompilerBug("a Reduce reached the emitter: build turns it into loops")
            case _:
                raise CompilerBug(f"no LLVM text for {e!r}")

    def splat(self, operand: str, scalar: Type, lanes: int) -> str:
        """Return `operand` in every lane."""
        ty, wide = type_text(scalar), type_text(scalar.with_lanes(lanes))
        if lanes == 1 or operand.startswith(("splat", "<")):
            return operand
        if operand[0] != "%":
            return f"splat ({ty} {operand})"
        one = self.inst(f"insertelement {wide} poison, {ty} {operand}, i64 0")
        return self.inst(f"shufflevector {wide} {one}, {wide} poison, <{lanes} x i32> zeroinitializer")

    def _shuffle(self, operand: str, of: Type, picks: tuple[int, ...]) -> str:
        ty = type_text(of)
        if len(picks) == 1:
            return operand if of.lanes == 1 else self.inst(f"extractelement {ty} {operand}, i64 {picks[0]}")
        if of.lanes == 1:
            return self.splat(operand, of, len(picks))
        lanes = ", ".join(f"i32 {k}" for k in picks)
        return self.inst(f"shufflevector {ty} {operand}, {ty} poison, <{len(picks)} x i32> <{lanes}>")

    def _shuffle_two(self, a: str, b: str, of: Type, picks: tuple[int, ...]) -> str:
        ty, order = type_text(of), ", ".join(f"i32 {k}" for k in picks)
        found = self.inst(f"shufflevector {ty} {a}, {ty} {b}, <{len(picks)} x i32> <{order}>")
        one = f"<1 x {type_text(type_of(of.dtype))}>"
        return found if len(picks) > 1 else self.inst(f"extractelement {one} {found}, i64 0")

    def _select(self, e: Select) -> str:
        cond = e.cond.a if isinstance(e.cond, Splat) else e.cond
        lanes = cond.type.lanes
        if not (has_load(e.a) or has_load(e.b)):
            a, b = self.value(e.a), self.value(e.b)
            return emit_arith.select(self, self.value(cond), e.type, a, b, cond_lanes=lanes)
        if lanes == 1:
            return self.branch(self.value(cond), e.type, lambda: self.value(e.a), lambda: self.value(e.b))
        # Lane by lane: both arms are computed, each load under the mask of its own arm.
        test, mask = self.value(cond), vector_text("i1", lanes)
        a = self._guarded(test, lanes, e.a)
        if isinstance(e.a, Load) and e.b == const(0, e.type):
            return a  # lanes of a masked load that are off are zero already
        inverse = self.inst(f"xor {mask} {test}, splat (i1 true)") if has_load(e.b) else ""
        b = self._guarded(inverse, lanes, e.b)
        return emit_arith.select(self, test, e.type, a, b, cond_lanes=lanes)

    def _guarded(self, test: str, lanes: int, e: Expr) -> str:
        if not has_load(e):
            return self.value(e)
        if self._guards:
            test = self.inst(f"and {vector_text('i1', lanes)} {self._guards[-1][0]}, {test}")
        self._guards.append((test, lanes))
        result = self.value(e)
        self._guards.pop()
        return result

    def branch(self, cond: str, of: Type, then: Callable[[], str], otherwise: Callable[[], str]) -> str:
        """Emit a branch on scalar `cond` whose two arms each give a value; return the value."""
        end = self.fresh("join")
        self.enter()
        self.line(f"br i1 {cond}, label %{end}.yes, label %{end}.no")
        self.place(f"{end}.yes")
        a, from_a = then(), self.label
        self.line(f"br label %{end}")
        self.other_arm()
        self.place(f"{end}.no")
        b, from_b = otherwise(), self.label
        self.line(f"br label %{end}")
        self.leave()
        self.place(end)
        return self.inst(f"phi {type_text(of)} [ {a}, %{from_a} ], [ {b}, %{from_b} ]")

    # ---- vectors of indices

    def lane_poly(self, e: Expr) -> tuple[Poly, Parts]:
        """Return `e` as a polynomial of scalars, LANE and stand-ins for parts that are neither; and these parts."""
        hit = self._polys.get(e)
        if hit is None:
            parts: list[tuple[Var, Expr]] = []
            hit = self._polys[e] = (self._lane_poly(e, parts), tuple(parts))
        return hit

    def _lane_poly(self, e: Expr, parts: list[tuple[Var, Expr]]) -> Poly:
        match e:
            case _ if e.type.lanes == 1:
                return poly_of(e)
            case Const(number, _):
                return poly_of(int(number))
            case Splat(a, _):
                return poly_of(a)
            case Ramp(base, stride, _):
                return add_polys(poly_of(base), {(LANE,): 1}, stride)
            case Binary("add" | "sub", a, b):
                return add_polys(self._lane_poly(a, parts), self._lane_poly(b, parts), 1 if e.op == "add" else -1)
            case Binary("mul", a, b):
                return multiply_polys(self._lane_poly(a, parts), self._lane_poly(b, parts))
            case _:
                parts.append((Var("part", INDEX), e))
                return {(parts[-1][0],): 1}

    def _index_vector(self, e: Expr) -> str:
        p, parts = self.lane_poly(e)
        if not parts and _is_ramp(p):
            return self._ramp(p, e.type.lanes)
        if not isinstance(e, Binary):
            return self.value(e)
        if e.op in ("floordiv", "mod"):
            divided = self._divided_ramp(e.op, e.a, _splat_value(e.b), e.type.lanes)
            if divided is not None:
                return divided
        a, b = self._index_operand(e.a), self._index_operand(e.b)
        both = self._is_nonnegative_vector(e.a) and self._is_nonnegative_vector(e.b)
        return emit_arith.binary(
            self, e.op, e.type, a, b, a_value=_splat_value(e.a), b_value=_splat_value(e.b), nonnegative=both
        )

    def _divided_ramp(self, op: str, a: Expr, divisor: int | float | bool | None, lanes: int) -> str | None:
        """Emit ``a op divisor`` of evenly spaced indices: one scalar division for lane 0, and steps from there.

        Processors have no vector division of 64 bits, and an element of a repeated or reshaped axis needs one. With
        ``base = q * divisor + r`` lane k is ``q + (r + k * stride) // divisor``, and this is small: 0 or 1 if all
        lanes together step by less than the divisor, else a product and a shift. None for what is not of this form.
        """
        p, parts = self.lane_poly(a)
        stride = p.get((LANE,), 0)
        if not isinstance(divisor, int) or divisor < 3 or divisor & (divisor - 1) == 0 or stride < 0:
            return None
        if parts or not _is_ramp(p) or not self._is_nonnegative_vector(a):
            return None
        most = divisor - 1 + stride * (lanes - 1)
        factor = (1 << _SHIFT) // divisor + 1
        if most >= 1 << 31:
            return None
        small = range(most + 1)
        if most >= 2 * divisor and (most >= 1 << _SHIFT or any(k * factor >> _SHIFT != k // divisor for k in small)):
            return None
        wide, narrow, bits = f"<{lanes} x i64>", f"<{lanes} x i32>", f"<{lanes} x i1>"
        base = self.sum({m: c for m, c in p.items() if LANE not in m})
        quotient = self.inst(f"udiv i64 {base}, {divisor}")
        product = self.inst(f"mul i64 {quotient}, {divisor}")
        rest = self.inst(f"trunc i64 {self.inst(f'sub i64 {base}, {product}')} to i32")
        steps = f"<{', '.join(f'i32 {stride * k}' for k in range(lanes))}>"
        spread = self.splat(rest, type_of(int32), lanes)
        t = self.inst(f"add {narrow} {spread}, {steps}")
        if most < 2 * divisor:
            over = self.inst(f"icmp uge {narrow} {t}, splat (i32 {divisor})")
            own = self.inst(f"zext {bits} {over} to {narrow}")
        else:
            scaled = self.inst(f"mul {narrow} {t}, splat (i32 {factor})")
            own = self.inst(f"lshr {narrow} {scaled}, splat (i32 {_SHIFT})")
        if op == "mod":
            back = self.inst(f"mul {narrow} {own}, splat (i32 {divisor})")
            return self.inst(f"zext {narrow} {self.inst(f'sub {narrow} {t}, {back}')} to {wide}")
        first = self.splat(quotient, INDEX, lanes)
        return self.inst(f"add {wide} {first}, {self.inst(f'zext {narrow} {own} to {wide}')}")

    def _index_operand(self, e: Expr) -> str:
        return self._index_vector(e) if isinstance(e, (Binary, Ramp)) else self.value(e)

    def _is_nonnegative_vector(self, e: Expr) -> bool:
        match e:
            case Splat(a, _):
                return self.is_nonnegative(a)
            case Ramp(base, stride, _):
                return stride >= 0 and self.is_nonnegative(base)
            case Binary("add" | "mul" | "floordiv" | "min", a, b):
                return self._is_nonnegative_vector(a) and self._is_nonnegative_vector(b)
            case Binary("mod", _, b):
                return self._is_nonnegative_vector(b)
            case _:
                return self.is_nonnegative(e)

    def _ramp(self, p: Poly, lanes: int) -> str:
        """Emit ``scalar part + LANE * literal`` for every lane."""
        stride = p.get((LANE,), 0)
        base = self.sum({m: c for m, c in p.items() if LANE not in m})
        steps = f"<{', '.join(f'i64 {stride * k}' for k in range(lanes))}>"
        if stride and base == "0":
            return steps
        wide = self.splat(base, INDEX, lanes)
        return self.inst(f"add <{lanes} x i64> {wide}, {steps}") if stride else wide

    def _compare(self, op: str, a: Expr, b: Expr) -> str:
        if a.type.lanes > 1 and a.type.dtype is index and op not in ("eq", "ne"):
            p, parts = self.lane_poly(Binary("sub", a, b))
            stride = p.get((LANE,), 0)
            if not parts and _is_ramp(p) and abs(stride) <= 1:
                return self._compare_lanes(op, {m: c for m, c in p.items() if LANE not in m}, stride, a.type.lanes)
        return emit_arith.compare(self, op, a.type, self.value(a), self.value(b))

    def _compare_lanes(self, op: str, p: Poly, stride: int, lanes: int) -> str:
        """Emit ``p + stride * LANE op 0``: the number of lanes that pass is a scalar; clamp it and compare with the
        lane numbers in the narrowest form that fills a register."""
        if stride == 0:
            return self.splat(emit_arith.compare(self, op, INDEX, self.sum(p), "0"), type_of(bool_), lanes)
        # lane < -p (lt), lane < 1 - p (le) and their complements; with -1: lane > p is not lane < p + 1.
        minus = {m: -c for m, c in p.items()}
        if stride == 1:
            count, on_below = (minus if op in ("lt", "ge") else _plus_one(minus)), op in ("lt", "le")
        else:
            count, on_below = (p if op in ("le", "gt") else _plus_one(p)), op in ("gt", "ge")
        bits = max(8, min(64, self.target.vector_bits // lanes))
        total = self.sum(count)
        if total[0] == "%":
            total = self.inst(f"call i64 @llvm.smax.i64(i64 {total}, i64 0)")
            total = self.inst(f"call i64 @llvm.smin.i64(i64 {total}, i64 {lanes})")
            if bits < 64:
                total = self.inst(f"trunc i64 {total} to i{bits}")
            ty = f"<{lanes} x i{bits}>"
            one = self.inst(f"insertelement {ty} poison, i{bits} {total}, i64 0")
            wide = self.inst(f"shufflevector {ty} {one}, {ty} poison, <{lanes} x i32> zeroinitializer")
            numbers = ", ".join(f"i{bits} {k}" for k in range(lanes))
            return self.inst(f"icmp {'ugt' if on_below else 'ule'} {ty} {wide}, <{numbers}>")
        known = min(lanes, max(0, int(total)))
        return f"<{', '.join('i1 true' if (k < known) == on_below else 'i1 false' for k in range(lanes))}>"

    # ---- memory

    def offset(self, buffer: Buffer, subscripts: tuple[Expr, ...]) -> tuple[Poly, Parts]:
        """Return the flat element number as a polynomial of scalars and LANE, with its other vector parts."""
        total: Poly = {}
        parts: Parts = ()
        for subscript, stride in zip(subscripts, self.strides(buffer), strict=True):
            p, more = self.lane_poly(subscript)
            total = add_polys(total, multiply_polys(p, stride))
            parts += more
        return total, parts

    def _lead(self, buffer: Buffer, subscripts: tuple[Expr, ...]) -> str:
        """Emit how many elements after this one the next cache line begins."""
        pointer, _ = self.pointer(buffer, self.offset(buffer, subscripts)[0])
        address = self.inst(f"ptrtoint {self.pointer_type(buffer)} {pointer} to i64")
        left = self.inst(f"and i64 {self.inst(f'sub i64 0, {address}')}, {CACHE_LINE - 1}")
        return self.inst(f"lshr i64 {left}, {buffer.dtype.itemsize.bit_length() - 1}")

    def _mask(self, buffer: Buffer, mask: Expr | None, lanes: int) -> str | None:
        """Return the lanes that may touch memory, by `mask` and the guards around; None for all of them."""
        own = None if mask is None or _splat_value(mask) is True else self.value(mask)
        # A masked access would keep a register buffer in memory.
        guard = self._guards[-1][0] if self._guards and buffer.space != "register" else None
        if own is None or guard is None:
            return own or guard
        return self.inst(f"and {vector_text('i1', lanes)} {own}, {guard}")

    def _load(self, e: Load) -> str:
        p, parts = self.offset(e.buffer, e.index)
        lanes, scalar = e.type.lanes, type_of(e.buffer.dtype)
        if lanes == 1:
            guarded = self._guards and e.buffer.space != "register"
            guard = self._any(*self._guards[-1]) if guarded else None
            return self._load_if(guard, e.buffer, p, scalar)
        mask = self._mask(e.buffer, e.mask, lanes)
        stride = p.get((LANE,), 0)
        if mask is None and not parts and _is_ramp(p) and 2 <= abs(stride) <= MAX_SPREAD:
            return self._from_memory(self._load_spread(e, p, stride), e.type)
        if parts or not _is_ramp(p) or stride not in (-1, 0, 1):
            return self._from_memory(self._gather(e, p, parts, mask), e.type)
        if stride == 0:
            one = self._load_if(None if mask is None else self._any(mask, lanes), e.buffer, p, scalar)
            wide = self.splat(one, scalar, lanes)
            if mask is None:
                return wide
            return emit_arith.select(self, mask, e.type, wide, const_text(0, e.type), cond_lanes=lanes)
        start = _first_lane(p, stride, lanes)
        pointer, align = self.pointer(e.buffer, start)
        if stride == -1 and mask is not None:
            mask = self._reversed(mask, type_of(bool_, lanes))
        memory, of = memory_text(e.type), self.pointer_type(e.buffer)
        if mask is None:
            found = self.inst(f"load {memory}, {of} {pointer}, align {align}")
        else:
            found = self.inst(
                f"call {memory} @llvm.masked.load.{_memory_suffix(e.type)}.{_space(of)}({of} {pointer}, i32 {align}, "
                f"<{lanes} x i1> {mask}, {memory} zeroinitializer)"
            )
        if stride == -1:
            found = self._reversed(found, _memory_type(e.type))
        return self._from_memory(found, e.type)

    def _load_spread(self, e: Load, p: Poly, stride: int) -> str:
        """Load every `stride`-th element: everything between the first and the last, then shuffle.

        Nothing beyond the last is read. A gather takes as many steps as it has lanes.
        """
        lanes, memory, of = e.type.lanes, memory_text(e.type), self.pointer_type(e.buffer)
        step, span = abs(stride), (lanes - 1) * abs(stride) + 1
        first = {m: c for m, c in p.items() if m != (LANE,)}
        if stride < 0:
            first[()] = first.get((), 0) - (span - 1)
        wanted = [k * step for k in range(lanes)]
        found, have = "poison", [-1] * lanes
        for begin in [*range(0, span - lanes, lanes), span - lanes]:
            pointer, align = self.pointer(e.buffer, {**first, (): first.get((), 0) + begin})
            piece = self.inst(f"load {memory}, {of} {pointer}, align {align}")
            picks = []
            for k, at in enumerate(wanted):
                if have[k] < 0 and begin <= at < begin + lanes:
                    have[k] = k
                    picks.append(lanes + at - begin)
                else:
                    picks.append(have[k])
            order = ", ".join("i32 poison" if k < 0 else f"i32 {k}" for k in picks)
            found = self.inst(f"shufflevector {memory} {found}, {memory} {piece}, <{lanes} x i32> <{order}>")
        return self._reversed(found, _memory_type(e.type)) if stride < 0 else found

    def _any(self, mask: str, lanes: int) -> str:
        return self.inst(f"call i1 @llvm.vector.reduce.or.v{lanes}i1(<{lanes} x i1> {mask})")

    def _load_if(self, cond: str | None, buffer: Buffer, p: Poly, scalar: Type) -> str:
        """Emit a scalar load, behind a branch if there is a condition (then 0 where it is false)."""

        def load() -> str:
            pointer, align = self.pointer(buffer, p)
            found = self.inst(f"load {memory_text(scalar)}, {self.pointer_type(buffer)} {pointer}, align {align}")
            return self._from_memory(found, scalar)

        return load() if cond is None else self.branch(cond, scalar, load, lambda: const_text(0, scalar))

    def _reversed(self, operand: str, of: Type) -> str:
        return self._shuffle(operand, of, tuple(range(of.lanes - 1, -1, -1)))

    def _gather(self, e: Load, p: Poly, parts: Parts, mask: str | None) -> str:
        pointers, align = self._pointers(e.buffer, p, parts, e.type.lanes)
        memory, lanes = memory_text(e.type), e.type.lanes
        space = _space(self.pointer_type(e.buffer))
        return self.inst(
            f"call {memory} @llvm.masked.gather.{_memory_suffix(e.type)}.v{lanes}{space}(<{lanes} x "
            f"{self.pointer_type(e.buffer)}> {pointers}, i32 {align}, <{lanes} x i1> {mask or 'splat (i1 true)'}, "
            f"{memory} zeroinitializer)"
        )

    def _pointers(self, buffer: Buffer, p: Poly, parts: Parts, lanes: int) -> tuple[str, int]:
        """Emit one address per lane: the scalar part as one pointer, the rest as a vector of offsets."""
        common = {m: c for m, c in p.items() if not any(isinstance(a, Var) and _is_lane(a, parts) for a in m)}
        base, _ = self.pointer(buffer, common)
        total = ""
        values = {stand_in: self._index_operand(x) for stand_in, x in parts}
        values[LANE] = f"<{', '.join(f'i64 {k}' for k in range(lanes))}>"
        wide = vector_text("i64", lanes)
        for m, c in p.items():
            if m in common:
                continue
            scalars = tuple(a for a in m if a not in values)
            product = self.splat(self.sum({scalars: c}), INDEX, lanes)
            for a in m:
                if isinstance(a, Var) and a in values:
                    product = (
                        self.inst(f"mul {wide} {product}, {values[a]}") if product != "splat (i64 1)" else values[a]
                    )
            total = self.inst(f"add {wide} {total}, {product}") if total else product
        element = memory_text(type_of(buffer.dtype))
        pointers = self.inst(f"getelementptr {element}, {self.pointer_type(buffer)} {base}, {wide} {total}")
        return pointers, buffer.dtype.itemsize

    def store(self, buffer: Buffer, subscripts: tuple[Expr, ...], value: Expr, mask: Expr | None, stream: bool) -> None:
        """Emit the store of `value`; with `stream` it bypasses the caches, and a vector is aligned to its size."""
        of = value.type
        operand = self._to_memory(self.value(value), of)
        p, parts = self.offset(buffer, subscripts)
        memory, lanes, ptr = memory_text(of), of.lanes, self.pointer_type(buffer)
        on = self._mask(buffer, mask, lanes)
        hint = ", !nontemporal !99" if stream else ""
        stride = p.get((LANE,), 0)
        if lanes == 1:
            pointer, align = self.pointer(buffer, p)
            self.line(f"store {memory} {operand}, {ptr} {pointer}, align {align}{hint}")
            return
        if not parts and _is_ramp(p) and stride == 0:
            raise CompilerBug(f"all lanes of a store to {buffer.name} go to one element")
        if parts or not _is_ramp(p) or stride not in (-1, 1):
            pointers, align = self._pointers(buffer, p, parts, lanes)
            self.line(
                f"call void @llvm.masked.scatter.{_memory_suffix(of)}.v{lanes}{_space(ptr)}({memory} {operand}, "
                f"<{lanes} x {ptr}> {pointers}, i32 {align}, <{lanes} x i1> {on or 'splat (i1 true)'})"
            )
            return
        pointer, align = self.pointer(buffer, _first_lane(p, stride, lanes))
        if stream:
            align = max(align, lanes * buffer.dtype.itemsize)
        if stride == -1:
            operand = self._reversed(operand, _memory_type(of))
            on = None if on is None else self._reversed(on, type_of(bool_, lanes))
        if on is None:
            self.line(f"store {memory} {operand}, {ptr} {pointer}, align {align}{hint}")
        else:
            self.line(
                f"call void @llvm.masked.store.{_memory_suffix(of)}.{_space(ptr)}({memory} {operand}, {ptr} {pointer}, "
                f"i32 {align}, <{lanes} x i1> {on})"
            )

    def _from_memory(self, operand: str, of: Type) -> str:
        """Turn bytes into bools; everything else is in memory as in registers."""
        if not of.dtype.is_bool:
            return operand
        return self.inst(f"icmp ne {memory_text(of)} {operand}, {'0' if of.lanes == 1 else 'zeroinitializer'}")

    def _to_memory(self, operand: str, of: Type) -> str:
        return self.inst(f"zext {type_text(of)} {operand} to {memory_text(of)}") if of.dtype.is_bool else operand


def has_load(e: Expr) -> bool:
    """Tell whether `e` reads memory that a condition may have to guard. Registers are always there."""
    return any(isinstance(x, Load) and x.buffer.space != "register" for x in walk(e))


def _splat_value(e: Expr) -> int | float | bool | None:
    """Return the literal that is in every lane of `e`, or None."""
    return literal(e.a) if isinstance(e, Splat) else literal(e)


def _is_ramp(p: Poly) -> bool:
    """Tell whether LANE occurs in `p` only with a literal factor."""
    return all(LANE not in m or m == (LANE,) for m in p)


def _is_lane(a: Var, parts: Parts) -> bool:
    return a is LANE or any(a is stand_in for stand_in, _ in parts)


def _plus_one(p: Poly) -> Poly:
    return {**p, (): p.get((), 0) + 1}


def _first_lane(p: Poly, stride: int, lanes: int) -> Poly:
    """Return the lowest element that a vector of stride 1 or -1 touches."""
    out = {m: c for m, c in p.items() if m != (LANE,)}
    if stride == -1:
        out[()] = out.get((), 0) - (lanes - 1)
    return out


def _memory_type(of: Type) -> Type:
    """Return a type whose register form is the memory form of `of`."""
    return type_of(uint8, of.lanes) if of.dtype.is_bool else of


def _memory_suffix(of: Type) -> str:
    return suffix(_memory_type(of))


def _space(pointer_type: str) -> str:
    """Return how intrinsics spell a pointer type: ``p0``, ``p3``."""
    return "p" + ("".join(ch for ch in pointer_type if ch.isdigit()) or "0")
