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
    name = f"f{d.bits}" if d.is_float and not d.is_half else f"i{d.bits}"
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
        return str(struct.unpack("<h", struct.pack("<e", value))[0])
    if d is bfloat16:
        return str(struct.unpack("<i", struct.pack("<f", value))[0] >> 16)
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


def fma(w: Writer, t: Type, a: str, b: str, c: str, *, has_fma: bool) -> str:
    """Emit ``a * b + c`` rounded once. Without the instruction LLVM would call libm."""
    if not has_fma:
        raise CompilerBug(f"this target has no fused multiply-add of {t}: split_fma should have run")
    ty = type_text(t)
    return w.inst(f"call {ty} @llvm.fma.{suffix(t)}({ty} {a}, {ty} {b}, {ty} {c})")
