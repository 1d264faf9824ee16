"""Arithmetic of `jitflow.expr` as LLVM instructions: operands and types (text) in, the result's name (text) out.

Every function takes a *writer*, something with ``inst(text) -> name`` that appends one instruction and names its
result. What LLVM leaves undefined (division by zero, wide shifts, conversions out of range) is guarded here, once.
"""

from __future__ import annotations

import math
import struct
from typing import Protocol

from jitflow.dtypes import DType, bfloat16, float16, float32, float64
from jitflow.errors import CompilerBug
from jitflow.expr import Type


class Writer(Protocol):
    """Where instructions go."""

    def inst(self, text: str) -> str:
        """Append ``%new = text`` and return ``%new``."""


def vector_text(element: str, lanes: int) -> str:
    """Return the LLVM type of `lanes` elements."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


_REGISTER: dict[Type, str] = {}


def type_text(t: Type) -> str:
    """Return the LLVM type that a value of type `t` has in registers (bool is i1)."""
    hit = _REGISTER.get(t)
    if hit is None:
        hit = _REGISTER[t] = vector_text(t.dtype.llvm, t.lanes)
    return hit


def memory_text(t: Type) -> str:
    """Return the LLVM type that a value of type `t` has in memory (bool is i8)."""
    return vector_text("i8", t.lanes) if t.dtype.is_bool else type_text(t)


def suffix(t: Type) -> str:
    """Return how overloaded intrinsics spell `t`: ``f32``, ``v16i8``."""
    d = t.dtype
    name = f"f{d.bits}" if d.is_float else f"i{d.bits}"
    if d is bfloat16:
        name = "bf16"
    return name if t.lanes == 1 else f"v{t.lanes}{name}"


def const_text(value: int | float | bool, t: Type) -> str:
    """Return the literal `value` as an operand of type `t`."""
    d = t.dtype
    if d.is_float:
        text = _float_text(float(value), d)
    elif d.is_bool:
        text = "true" if value else "false"
    else:
        text = str(int(value))
    return text if t.lanes == 1 else f"splat ({d.llvm} {text})"


def _float_text(value: float, d: DType) -> str:
    if d is float16:
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    if d is bfloat16:
        return f"0xR{struct.unpack('<I', struct.pack('<f', value))[0] >> 16:04X}"
    # LLVM writes a float as the double of the same value; a NaN needs its quiet bit to survive the narrowing.
    if math.isnan(value):
        return "0x7FF8000000000000" if math.copysign(1, value) > 0 else "0xFFF8000000000000"
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


_INT_OPS = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_BOOL_OPS = {"and": "and", "or": "or", "xor": "xor", "min": "and", "max": "or", "mul": "and", "add": "or"}
_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}


def binary(
    w: Writer,
    op: str,
    t: Type,
    a: str,
    b: str,
    *,
    a_value: int | float | bool | None = None,
    b_value: int | float | bool | None = None,
    nonnegative: bool = False,
) -> str:
    """Emit ``a op b``. `a_value`, `b_value`: the operand, where it is a literal; `nonnegative`: both are, proven."""
    d, ty = t.dtype, type_text(t)
    if d.is_bool:
        name = _BOOL_OPS.get(op)
    elif d.is_float:
        if op in ("min", "max"):
            return _float_extremum(w, op, t, a, b, a_value, b_value)
        name = _FLOAT_OPS.get(op)
    elif op in ("floordiv", "mod"):
        return _int_division(w, op, t, a, b, b_value, nonnegative)
    elif op in ("shl", "shr"):
        return _shift(w, op, t, a, b, b_value)
    elif op in ("min", "max"):
        sign = "s" if d.is_signed else "u"
        return w.inst(f"call {ty} @llvm.{sign}{op}.{suffix(t)}({ty} {a}, {ty} {b})")
    else:
        name = _INT_OPS.get(op)
    if name is None:
        raise CompilerBug(f"no {op} of {t}: a pass must have expanded it")
    return w.inst(f"{name} {ty} {a}, {b}")


def _float_extremum(
    w: Writer, op: str, t: Type, a: str, b: str, a_value: int | float | bool | None, b_value: int | float | bool | None
) -> str:
    """NaN if either is; of equal values the first.

    ``b < a ? b : a`` is exactly x86's minps(b, a): right except where b is NaN, so a literal b costs one instruction.
    """
    ty, cmp = type_text(t), vector_text("i1", t.lanes)
    less = "olt" if op == "min" else "ogt"
    a_known = a_value is not None and not math.isnan(a_value)
    b_known = b_value is not None and not math.isnan(b_value)
    if a_known and not b_known:
        if a_value == 0:
            first = w.inst(f"fcmp {'ole' if op == 'min' else 'oge'} {ty} {a}, {b}")
            return w.inst(f"select {cmp} {first}, {ty} {a}, {ty} {b}")
        # Equal to a non-zero literal means the same bits, so the machine's own min may pick the second.
        first = w.inst(f"fcmp {less} {ty} {a}, {b}")
        return w.inst(f"select {cmp} {first}, {ty} {a}, {ty} {b}")
    second = w.inst(f"fcmp {less} {ty} {b}, {a}")
    best = w.inst(f"select {cmp} {second}, {ty} {b}, {ty} {a}")
    if b_known:
        return best
    nan = w.inst(f"fcmp uno {ty} {b}, {b}")
    return w.inst(f"select {cmp} {nan}, {ty} {b}, {ty} {best}")


def _int_division(
    w: Writer, op: str, t: Type, a: str, b: str, b_value: int | float | bool | None, nonnegative: bool
) -> str:
    """Round towards minus infinity; by zero 0; MIN // -1 is MIN and MIN % -1 is 0. Never traps."""
    d, ty, cmp = t.dtype, type_text(t), vector_text("i1", t.lanes)
    zero, one = const_text(0, t), const_text(1, t)
    if b_value == 0:
        return zero
    if b_value is not None:
        n = int(b_value)
        if n > 0 and n & (n - 1) == 0:
            if op == "mod":
                return w.inst(f"and {ty} {a}, {const_text(n - 1, t)}")
            shift = "ashr" if d.is_signed and not nonnegative else "lshr"
            return w.inst(f"{shift} {ty} {a}, {const_text(n.bit_length() - 1, t)}")
        if n == -1:
            return zero if op == "mod" else w.inst(f"sub {ty} {zero}, {a}")
        if not d.is_signed or (nonnegative and n > 0):
            return w.inst(f"{'udiv' if op == 'floordiv' else 'urem'} {ty} {a}, {b}")
        return _floor_division(w, op, t, a, b)
    is_zero = w.inst(f"icmp eq {ty} {b}, {zero}")
    if not d.is_signed or nonnegative:
        safe = w.inst(f"select {cmp} {is_zero}, {ty} {one}, {ty} {b}")
        q = _quotient(w, t, a, safe)
        if op == "mod":
            product = w.inst(f"mul {ty} {q}, {safe}")
            q = w.inst(f"sub {ty} {a}, {product}")
        return w.inst(f"select {cmp} {is_zero}, {ty} {zero}, {ty} {q}")
    # By -1: divide by 1 instead and negate, so that MIN does not overflow.
    is_minus = w.inst(f"icmp eq {ty} {b}, {const_text(-1, t)}")
    special = w.inst(f"or {cmp} {is_zero}, {is_minus}")
    safe = w.inst(f"select {cmp} {special}, {ty} {one}, {ty} {b}")
    q = _floor_division(w, op, t, a, safe)
    if op == "mod":
        return w.inst(f"select {cmp} {special}, {ty} {zero}, {ty} {q}")
    negated = w.inst(f"sub {ty} {zero}, {a}")
    q = w.inst(f"select {cmp} {is_minus}, {ty} {negated}, {ty} {q}")
    return w.inst(f"select {cmp} {is_zero}, {ty} {zero}, {ty} {q}")


def _floor_division(w: Writer, op: str, t: Type, a: str, b: str) -> str:
    """Signed division for a divisor that is neither 0 nor -1 (nor 1 with another meaning)."""
    ty, cmp, zero = type_text(t), vector_text("i1", t.lanes), const_text(0, t)
    q = _quotient(w, t, a, b)
    product = w.inst(f"mul {ty} {q}, {b}")
    r = w.inst(f"sub {ty} {a}, {product}")
    inexact = w.inst(f"icmp ne {ty} {r}, {zero}")
    signs = w.inst(f"xor {ty} {r}, {b}")
    opposite = w.inst(f"icmp slt {ty} {signs}, {zero}")
    down = w.inst(f"and {cmp} {inexact}, {opposite}")
    if op == "floordiv":
        step = w.inst(f"sext {cmp} {down} to {ty}")
        return w.inst(f"add {ty} {q}, {step}")
    fix = w.inst(f"select {cmp} {down}, {ty} {b}, {ty} {zero}")
    return w.inst(f"add {ty} {r}, {fix}")


def _quotient(w: Writer, t: Type, a: str, b: str) -> str:
    """Divide, rounding towards zero.

    Processors have no vector division of integers. Up to 32 bits the float quotient, rounded, never reaches the next
    integer: it is off by 2^-21 / b at most, and the exact one stays 1 / b away.
    """
    d, ty = t.dtype, type_text(t)
    sign = "s" if d.is_signed else "u"
    if t.lanes == 1 or d.bits > 32 or not b.startswith("%"):
        return w.inst(f"{sign}div {ty} {a}, {b}")
    wide = t.with_dtype(float64 if d.bits == 32 else float32)
    x, y = (w.inst(f"{sign}itofp {ty} {v} to {type_text(wide)}") for v in (a, b))
    q = w.inst(f"fdiv {type_text(wide)} {x}, {y}")
    return w.inst(f"fpto{sign}i {type_text(wide)} {q} to {ty}")


def _shift(w: Writer, op: str, t: Type, a: str, b: str, b_value: int | float | bool | None) -> str:
    """A distance is read as unsigned, so that a negative one is too wide as well."""
    d, ty, cmp = t.dtype, type_text(t), vector_text("i1", t.lanes)
    name = "shl" if op == "shl" else "ashr" if d.is_signed else "lshr"
    if b_value is not None and 0 <= b_value < d.bits:
        return w.inst(f"{name} {ty} {a}, {b}")
    if name == "ashr":
        capped = w.inst(f"call {ty} @llvm.umin.{suffix(t)}({ty} {b}, {ty} {const_text(d.bits - 1, t)})")
        return w.inst(f"ashr {ty} {a}, {capped}")
    fits = w.inst(f"icmp ult {ty} {b}, {const_text(d.bits, t)}")
    shifted = w.inst(f"{name} {ty} {a}, {b}")
    return w.inst(f"select {cmp} {fits}, {ty} {shifted}, {ty} {const_text(0, t)}")


_ROUNDINGS = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "roundeven"}


def unary(w: Writer, op: str, t: Type, a: str) -> str:
    """Emit ``op a``."""
    d, ty = t.dtype, type_text(t)
    match op:
        case "neg" if d.is_float:
            return w.inst(f"fneg {ty} {a}")
        case "neg" if not d.is_bool:
            return w.inst(f"sub {ty} {const_text(0, t)}, {a}")
        case "not" if not d.is_float:
            return w.inst(f"xor {ty} {a}, {const_text(True if d.is_bool else -1, t)}")
        case "abs" if d.is_float:
            return w.inst(f"call {ty} @llvm.fabs.{suffix(t)}({ty} {a})")
        case "abs":
            return w.inst(f"call {ty} @llvm.abs.{suffix(t)}({ty} {a}, i1 false)") if d.kind in "ix" else a
        case "sqrt" if d.is_float:
            return w.inst(f"call {ty} @llvm.sqrt.{suffix(t)}({ty} {a})")
        case "floor" | "ceil" | "trunc" | "round":
            return w.inst(f"call {ty} @llvm.{_ROUNDINGS[op]}.{suffix(t)}({ty} {a})") if d.is_float else a
        case _:
            raise CompilerBug(f"no {op} of {t}")


_FCMP = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}


def compare(w: Writer, op: str, t: Type, a: str, b: str) -> str:
    """Emit the comparison of two operands of type `t`."""
    if t.dtype.is_float:
        return w.inst(f"fcmp {_FCMP[op]} {type_text(t)} {a}, {b}")
    sign = "" if op in ("eq", "ne") else "s" if t.dtype.is_signed else "u"
    return w.inst(f"icmp {sign}{op} {type_text(t)} {a}, {b}")


def select(w: Writer, cond: str, t: Type, a: str, b: str, *, cond_lanes: int) -> str:
    """Emit ``cond ? a : b``; a scalar condition may choose between vectors."""
    return w.inst(f"select {vector_text('i1', cond_lanes)} {cond}, {type_text(t)} {a}, {type_text(t)} {b}")


def cast(w: Writer, source: Type, to: DType, a: str) -> str:
    """Emit the conversion of `a` from type `source` to dtype `to`."""
    d, target = source.dtype, source.with_dtype(to)
    old, new = type_text(source), type_text(target)
    if d is to:
        return a
    if to.is_bool:
        if d.is_float:
            return w.inst(f"fcmp une {old} {a}, {const_text(0.0, source)}")
        return w.inst(f"icmp ne {old} {a}, {const_text(0, source)}")
    if d.is_bool:
        if to.is_float:
            return w.inst(f"uitofp {old} {a} to {new}")
        return w.inst(f"zext {old} {a} to {new}")
    if d.is_float and to.is_float:
        return _float_cast(w, source, target, a)
    if d.is_float:
        return _saturate(w, source, target, a)
    if to.is_float:
        return w.inst(f"{'sitofp' if d.is_signed else 'uitofp'} {old} {a} to {new}")
    if to.bits == d.bits:
        return a
    if to.bits < d.bits:
        return w.inst(f"trunc {old} {a} to {new}")
    return w.inst(f"{'sext' if d.is_signed else 'zext'} {old} {a} to {new}")


def _saturate(w: Writer, source: Type, target: Type, a: str) -> str:
    """Truncate a float to an integer; out of range the nearest one, NaN to 0.

    Not `llvm.fptosi.sat`: LLVM 22 takes vectors of that apart into single elements on x86. What the plain conversion
    leaves undefined is never selected.
    """
    to, old, new = target.dtype, type_text(source), type_text(target)
    cmp = vector_text("i1", source.lanes)
    plain = w.inst(f"fpto{'s' if to.is_signed else 'u'}i {old} {a} to {new}")
    over = w.inst(f"fcmp oge {old} {a}, {const_text(_bound(2.0 ** (to.bits - to.is_signed), source.dtype), source)}")
    high = w.inst(f"select {cmp} {over}, {new} {const_text(to.max, target)}, {new} {plain}")
    if not to.is_signed:
        some = w.inst(f"fcmp ogt {old} {a}, {const_text(0.0, source)}")
        return w.inst(f"select {cmp} {some}, {new} {high}, {new} {const_text(0, target)}")
    under = w.inst(f"fcmp ole {old} {a}, {const_text(_bound(-(2.0 ** (to.bits - 1)), source.dtype), source)}")
    low = w.inst(f"select {cmp} {under}, {new} {const_text(to.min, target)}, {new} {high}")
    nan = w.inst(f"fcmp uno {old} {a}, {a}")
    return w.inst(f"select {cmp} {nan}, {new} {const_text(0, target)}, {new} {low}")


def _bound(power: float, d: DType) -> float:
    """Return a power of two in `d`, infinite where float16 ends before it."""
    return math.copysign(math.inf, power) if d is float16 and abs(power) > 32768 else power


def _float_cast(w: Writer, source: Type, target: Type, a: str) -> str:
    """Nearest even. bfloat16 goes through integer code: LLVM's own narrowing flushes subnormals on some processors."""
    d, to = source.dtype, target.dtype
    if bfloat16 not in (d, to):
        return w.inst(f"{'fptrunc' if to.bits < d.bits else 'fpext'} {type_text(source)} {a} to {type_text(target)}")
    single = source.with_dtype(float32)
    i16, i32 = vector_text("i16", source.lanes), vector_text("i32", source.lanes)
    f32, bf16 = type_text(single), vector_text("bfloat", source.lanes)
    if d is bfloat16:
        bits = w.inst(f"bitcast {bf16} {a} to {i16}")
        wide = w.inst(f"zext {i16} {bits} to {i32}")
        high = w.inst(f"shl {i32} {wide}, {_splat(16, source.lanes)}")
        value = w.inst(f"bitcast {i32} {high} to {f32}")
        return value if to is float32 else cast(w, single, to, value)
    if d is float64:
        a = _narrow_to_odd(w, source, a)
    elif d is not float32:
        a = cast(w, source, float32, a)
    bits = w.inst(f"bitcast {f32} {a} to {i32}")
    high = w.inst(f"lshr {i32} {bits}, {_splat(16, source.lanes)}")
    odd = w.inst(f"and {i32} {high}, {_splat(1, source.lanes)}")
    half = w.inst(f"add {i32} {odd}, {_splat(0x7FFF, source.lanes)}")
    rounded = w.inst(f"add {i32} {bits}, {half}")
    quiet = w.inst(f"or {i32} {bits}, {_splat(0x400000, source.lanes)}")
    nan = w.inst(f"fcmp uno {f32} {a}, {a}")
    chosen = w.inst(f"select {vector_text('i1', source.lanes)} {nan}, {i32} {quiet}, {i32} {rounded}")
    top = w.inst(f"lshr {i32} {chosen}, {_splat(16, source.lanes)}")
    short = w.inst(f"trunc {i32} {top} to {i16}")
    return w.inst(f"bitcast {i16} {short} to {bf16}")


def _narrow_to_odd(w: Writer, source: Type, a: str) -> str:
    """f64 to f32, rounded so that a second rounding to 16 bits is right: an inexact even result moves to the odd
    neighbour on the side of the exact value."""
    lanes = source.lanes
    single = source.with_dtype(float32)
    f64, f32, i32, i1 = type_text(source), type_text(single), vector_text("i32", lanes), vector_text("i1", lanes)
    near = w.inst(f"fptrunc {f64} {a} to {f32}")
    back = w.inst(f"fpext {f32} {near} to {f64}")
    bits = w.inst(f"bitcast {f32} {near} to {i32}")
    size, exact = (w.inst(f"call {f64} @llvm.fabs.{suffix(source)}({f64} {x})") for x in (back, a))
    above = w.inst(f"fcmp ogt {f64} {size}, {exact}")
    below = w.inst(f"fcmp olt {f64} {size}, {exact}")
    odd = w.inst(f"and {i32} {bits}, {_splat(1, lanes)}")
    is_even = w.inst(f"icmp eq {i32} {odd}, {_splat(0, lanes)}")
    down = w.inst(f"and {i1} {is_even}, {above}")
    up = w.inst(f"and {i1} {is_even}, {below}")
    minus = w.inst(f"sext {i1} {down} to {i32}")
    plus = w.inst(f"zext {i1} {up} to {i32}")
    moved = w.inst(f"add {i32} {bits}, {minus}")
    moved = w.inst(f"add {i32} {moved}, {plus}")
    return w.inst(f"bitcast {i32} {moved} to {f32}")


def _splat(value: int, lanes: int) -> str:
    return str(value) if lanes == 1 else f"splat (i32 {value})"


def bitcast(w: Writer, source: Type, to: DType, a: str) -> str:
    """Emit the reading of the bits of `a` as dtype `to`."""
    old, new = type_text(source), type_text(source.with_dtype(to))
    return a if old == new else w.inst(f"bitcast {old} {a} to {new}")


def fma(w: Writer, t: Type, a: str, b: str, c: str, *, has_fma: bool) -> str:
    """Emit ``a * b + c`` rounded once. Without the instruction LLVM would call libm."""
    if not has_fma:
        raise CompilerBug(f"this target has no fused multiply-add of {t}: split_fma should have run")
    ty = type_text(t)
    return w.inst(f"call {ty} @llvm.fma.{suffix(t)}({ty} {a}, {ty} {b}, {ty} {c})")
