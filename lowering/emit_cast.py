"""Conversions of `jitflow.expr` between dtypes as LLVM instructions, by the rules of ``Cast``.

float16 and bfloat16 are converted from and to float32 only; whatever else becomes one of them is rounded to float32
first, *to odd* (an inexact result gets its last bit set), so that the second rounding finds what a single one would
have (Boldo and Melquiond, "When double rounding is odd"). Where a processor cannot convert float16, integer code does;
LLVM would call a library that is not there. bfloat16 is always integer code: LLVM's own narrowing flushes subnormals
on some processors.
"""

from __future__ import annotations

from jitflow.dtypes import DType, bfloat16, float16, float32, float64, int32
from jitflow.expr import Type, type_of
from lowering.emit_arith import Writer, const_text, suffix, type_text, vector_text


def cast(w: Writer, source: Type, to: DType, a: str, *, has_f16: bool) -> str:
    """Emit the conversion of `a` from type `source` to dtype `to`; `has_f16`: the target converts float16 itself."""
    d = source.dtype
    if d is to:
        return a
    if d.is_half:
        return cast(w, source.with_dtype(float32), to, _from_half(w, source, a, has_f16), has_f16=has_f16)
    if to.is_half:
        single = _to_single(w, source, a, has_f16)
        return _to_bfloat(w, single, source.lanes) if to is bfloat16 else _to_half(w, single, source.lanes, has_f16)
    old, new = type_text(source), type_text(source.with_dtype(to))
    if to.is_bool:
        if d.is_float:
            return w.inst(f"fcmp une {old} {a}, {const_text(0.0, source)}")
        return w.inst(f"icmp ne {old} {a}, {const_text(0, source)}")
    if d.is_bool:
        return w.inst(f"{'uitofp' if to.is_float else 'zext'} {old} {a} to {new}")
    if d.is_float and to.is_float:
        return w.inst(f"{'fptrunc' if to.bits < d.bits else 'fpext'} {old} {a} to {new}")
    if d.is_float:
        return _saturate(w, source, source.with_dtype(to), a)
    if to.is_float:
        return w.inst(f"{'sitofp' if d.is_signed else 'uitofp'} {old} {a} to {new}")
    if to.bits == d.bits:
        return a
    if to.bits < d.bits:
        return w.inst(f"trunc {old} {a} to {new}")
    return w.inst(f"{'sext' if d.is_signed else 'zext'} {old} {a} to {new}")


def bitcast(w: Writer, source: Type, to: DType, a: str) -> str:
    """Emit the reading of the bits of `a` as dtype `to`."""
    old, new = type_text(source), type_text(source.with_dtype(to))
    return a if old == new else w.inst(f"bitcast {old} {a} to {new}")


def _saturate(w: Writer, source: Type, target: Type, a: str) -> str:
    """Truncate a float to an integer; out of range the nearest one, NaN to 0.

    Not `llvm.fptosi.sat`: LLVM 22 takes vectors of that apart into single elements on x86. What the plain conversion
    leaves undefined is never selected.
    """
    to, old, new = target.dtype, type_text(source), type_text(target)
    cmp = vector_text("i1", source.lanes)
    plain = w.inst(f"fpto{'s' if to.is_signed else 'u'}i {old} {a} to {new}")
    over = w.inst(f"fcmp oge {old} {a}, {const_text(2.0 ** (to.bits - to.is_signed), source)}")
    high = w.inst(f"select {cmp} {over}, {new} {const_text(to.max, target)}, {new} {plain}")
    if not to.is_signed:
        some = w.inst(f"fcmp ogt {old} {a}, {const_text(0.0, source)}")
        return w.inst(f"select {cmp} {some}, {new} {high}, {new} {const_text(0, target)}")
    under = w.inst(f"fcmp ole {old} {a}, {const_text(-(2.0 ** (to.bits - 1)), source)}")
    low = w.inst(f"select {cmp} {under}, {new} {const_text(to.min, target)}, {new} {high}")
    nan = w.inst(f"fcmp uno {old} {a}, {a}")
    return w.inst(f"select {cmp} {nan}, {new} {const_text(0, target)}, {new} {low}")


# ---- float16 and bfloat16


def _to_single(w: Writer, source: Type, a: str, has_f16: bool) -> str:
    """Return any number but a half as float32, to odd where it is inexact."""
    d = source.dtype
    if d is float32:
        return a
    if d is float64:
        return _narrow_to_odd(w, source, a)
    if d.is_bool or d.bits <= 16:
        return cast(w, source, float32, a, has_f16=has_f16)
    if d.bits == 64:
        a = _shorten_to_odd(w, source, a)
    double = cast(w, source, float64, a, has_f16=has_f16)
    return _narrow_to_odd(w, source.with_dtype(float64), double)


def _shorten_to_odd(w: Writer, source: Type, a: str) -> str:
    """Return 64-bit integers, those above 32 bits rounded to odd multiples of 4096, all of which float64 holds."""
    ty, cmp = type_text(source), vector_text("i1", source.lanes)

    def literal(value: int) -> str:
        return const_text(value, source)

    rest = w.inst(f"and {ty} {a}, {literal(4095)}")
    some = w.inst(f"icmp ne {ty} {rest}, {literal(0)}")
    sticky = w.inst(f"select {cmp} {some}, {ty} {literal(4096)}, {ty} {literal(0)}")
    cut = w.inst(f"and {ty} {a}, {literal(-4096 if source.dtype.is_signed else 2**64 - 4096)}")
    odd = w.inst(f"or {ty} {cut}, {sticky}")
    if source.dtype.is_signed:
        moved = w.inst(f"add {ty} {a}, {literal(2**32)}")
        large = w.inst(f"icmp ugt {ty} {moved}, {literal(2**33)}")
    else:
        large = w.inst(f"icmp ugt {ty} {a}, {literal(2**32)}")
    return w.inst(f"select {cmp} {large}, {ty} {odd}, {ty} {a}")


def _narrow_to_odd(w: Writer, source: Type, a: str) -> str:
    """Return float64 as float32: an inexact result with an even last bit moves towards the exact value, by one bit."""
    lanes = source.lanes
    f64, f32 = type_text(source), type_text(source.with_dtype(float32))
    i32, i1 = vector_text("i32", lanes), vector_text("i1", lanes)
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


def _from_half(w: Writer, source: Type, a: str, has_f16: bool) -> str:
    """Return float16 or bfloat16 as float32, which holds them all."""
    lanes = source.lanes
    f32, i16, i32 = vector_text("float", lanes), vector_text("i16", lanes), vector_text("i32", lanes)
    if source.dtype is float16 and has_f16:
        half = vector_text("half", lanes)
        number = w.inst(f"bitcast {i16} {a} to {half}")
        return w.inst(f"fpext {half} {number} to {f32}")
    bits = w.inst(f"zext {i16} {a} to {i32}")
    if source.dtype is bfloat16:
        high = w.inst(f"shl {i32} {bits}, {_splat(16, lanes)}")
        return w.inst(f"bitcast {i32} {high} to {f32}")
    size = w.inst(f"and {i32} {bits}, {_splat(0x7FFF, lanes)}")
    placed = w.inst(f"shl {i32} {size}, {_splat(13, lanes)}")
    # The exponents of the two types differ by 112; a product makes normal numbers of subnormal ones as well.
    small = w.inst(f"bitcast {i32} {placed} to {f32}")
    scaled = w.inst(f"fmul {f32} {small}, {const_text(2.0**112, source.with_dtype(float32))}")
    finite = w.inst(f"bitcast {f32} {scaled} to {i32}")
    special = w.inst(f"or {i32} {placed}, {_splat(0x7F800000, lanes)}")
    is_special = w.inst(f"icmp uge {i32} {size}, {_splat(0x7C00, lanes)}")
    value = w.inst(f"select {vector_text('i1', lanes)} {is_special}, {i32} {special}, {i32} {finite}")
    sign = w.inst(f"xor {i32} {bits}, {size}")
    top = w.inst(f"shl {i32} {sign}, {_splat(16, lanes)}")
    signed = w.inst(f"or {i32} {value}, {top}")
    return w.inst(f"bitcast {i32} {signed} to {f32}")


def _to_half(w: Writer, a: str, lanes: int, has_f16: bool) -> str:
    """Return float32 as the nearest float16."""
    f32, i16 = vector_text("float", lanes), vector_text("i16", lanes)
    if has_f16:
        half = vector_text("half", lanes)
        number = w.inst(f"fptrunc {f32} {a} to {half}")
        return w.inst(f"bitcast {half} {number} to {i16}")
    i1, i32 = vector_text("i1", lanes), vector_text("i32", lanes)
    bits = w.inst(f"bitcast {f32} {a} to {i32}")
    size = w.inst(f"and {i32} {bits}, {_splat(0x7FFFFFFF, lanes)}")
    # Normal results: the exponent is 112 less, and the 13 bits that go round the rest to even.
    odd = w.inst(f"lshr {i32} {size}, {_splat(13, lanes)}")
    odd = w.inst(f"and {i32} {odd}, {_splat(1, lanes)}")
    moved = w.inst(f"add {i32} {size}, {_splat(0xFFF - (112 << 23), lanes)}")
    moved = w.inst(f"add {i32} {moved}, {odd}")
    normal = w.inst(f"lshr {i32} {moved}, {_splat(13, lanes)}")
    # Subnormal results are multiples of 2**-24, and so are the last bits of floats around 0.5.
    magnitude = w.inst(f"bitcast {i32} {size} to {f32}")
    aligned = w.inst(f"fadd {f32} {magnitude}, {const_text(0.5, type_of(float32, lanes))}")
    aligned = w.inst(f"bitcast {f32} {aligned} to {i32}")
    subnormal = w.inst(f"sub {i32} {aligned}, {_splat(126 << 23, lanes)}")
    is_small = w.inst(f"icmp ult {i32} {size}, {_splat(113 << 23, lanes)}")
    finite = w.inst(f"select {i1} {is_small}, {i32} {subnormal}, {i32} {normal}")
    is_nan = w.inst(f"icmp ugt {i32} {size}, {_splat(0x7F800000, lanes)}")
    special = w.inst(f"select {i1} {is_nan}, {i32} {_splat(0x7E00, lanes)}, {i32} {_splat(0x7C00, lanes)}")
    is_large = w.inst(f"icmp uge {i32} {size}, {_splat((127 + 16) << 23, lanes)}")
    value = w.inst(f"select {i1} {is_large}, {i32} {special}, {i32} {finite}")
    sign = w.inst(f"lshr {i32} {bits}, {_splat(16, lanes)}")
    sign = w.inst(f"and {i32} {sign}, {_splat(0x8000, lanes)}")
    signed = w.inst(f"or {i32} {value}, {sign}")
    return w.inst(f"trunc {i32} {signed} to {i16}")


def _to_bfloat(w: Writer, a: str, lanes: int) -> str:
    """Return float32 as the nearest bfloat16: its upper half, rounded to even."""
    f32, i16, i32 = vector_text("float", lanes), vector_text("i16", lanes), vector_text("i32", lanes)
    bits = w.inst(f"bitcast {f32} {a} to {i32}")
    high = w.inst(f"lshr {i32} {bits}, {_splat(16, lanes)}")
    odd = w.inst(f"and {i32} {high}, {_splat(1, lanes)}")
    half = w.inst(f"add {i32} {odd}, {_splat(0x7FFF, lanes)}")
    rounded = w.inst(f"add {i32} {bits}, {half}")
    quiet = w.inst(f"or {i32} {bits}, {_splat(0x400000, lanes)}")
    nan = w.inst(f"fcmp uno {f32} {a}, {a}")
    chosen = w.inst(f"select {vector_text('i1', lanes)} {nan}, {i32} {quiet}, {i32} {rounded}")
    top = w.inst(f"lshr {i32} {chosen}, {_splat(16, lanes)}")
    return w.inst(f"trunc {i32} {top} to {i16}")


def _splat(value: int, lanes: int) -> str:
    return const_text(value, type_of(int32, lanes))
