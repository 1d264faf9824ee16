"""The dtype table: each element type with its numpy, text, LLVM and PTX spelling, and promotion between them.

Promotion is that of ``np.result_type`` with weak Python scalars (NEP 50); the one dtype numpy lacks,
bfloat16, joins float16 as float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jitflow.errors import DTypeError

try:
    from ml_dtypes import bfloat16 as _numpy_bfloat16
except ImportError:
    _numpy_bfloat16 = None


class DType:
    """One element type. There is a single object per type, so ``is`` works; ``==`` also accepts numpy's spellings.

    Attributes: `name` (numpy's word), `short` (the word of the IR texts), `kind` (``b`` bool, ``i`` signed,
    ``u`` unsigned, ``f`` floating, ``x`` index), `bits` (of the value), `itemsize` (bytes in memory).
    """

    __slots__ = ("bits", "itemsize", "kind", "llvm", "name", "np", "ptx", "short")

    def __init__(self, name: str, short: str, kind: str, bits: int, llvm: str, ptx: str) -> None:
        self.name, self.short, self.kind, self.bits = name, short, kind, bits
        self.itemsize = max(1, bits // 8)
        self.llvm, self.ptx = llvm, ptx
        # numpy itself has neither bfloat16 nor a type of indices; the latter are int64 wherever they become data.
        self.np: np.dtype[Any] | None = None
        if name == "bfloat16":
            self.np = None if _numpy_bfloat16 is None else np.dtype(_numpy_bfloat16)
        elif kind != "x":
            self.np = np.dtype(name)

    def __repr__(self) -> str:
        return f"jitflow.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, DType) or other is None or self.np is None:
            return False
        try:
            return np.dtype(other) == self.np  # type: ignore[call-overload, no-any-return]
        except TypeError:
            return False

    def __reduce__(self) -> Any:
        return (_by_name, (self.name,))

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The numpy dtype, by the name under which numpy looks for it: ``np.zeros(3, jf.float32)``."""
        return self.np

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_half(self) -> bool:
        """Whether it is float16 or bfloat16: types to store in, whose arithmetic is that of float32, rounded."""
        return self.kind == "f" and self.bits == 16

    @property
    def is_integer(self) -> bool:
        return self.kind in "iux"

    @property
    def is_signed(self) -> bool:
        return self.kind in "ifx"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    @property
    def min(self) -> int:
        """The least integer of an integer type."""
        return -(1 << (self.bits - 1)) if self.kind in "ix" else 0

    @property
    def max(self) -> int:
        """The greatest integer of an integer type."""
        return (1 << (self.bits - (self.kind in "ix"))) - 1


bool_ = DType("bool", "bool", "b", 1, "i1", "pred")
int8 = DType("int8", "i8", "i", 8, "i8", "s8")
int16 = DType("int16", "i16", "i", 16, "i16", "s16")
int32 = DType("int32", "i32", "i", 32, "i32", "s32")
int64 = DType("int64", "i64", "i", 64, "i64", "s64")
uint8 = DType("uint8", "u8", "u", 8, "i8", "u8")
uint16 = DType("uint16", "u16", "u", 16, "i16", "u16")
uint32 = DType("uint32", "u32", "u", 32, "i32", "u32")
uint64 = DType("uint64", "u64", "u", 64, "i64", "u64")
# Code moves these as bits: LLVM would compute with its own types of them, on some processors in library calls.
float16 = DType("float16", "f16", "f", 16, "i16", "f16")
bfloat16 = DType("bfloat16", "bf16", "f", 16, "i16", "bf16")
float32 = DType("float32", "f32", "f", 32, "float", "f32")
float64 = DType("float64", "f64", "f", 64, "double", "f64")
#: Dims and subscripts: mathematical integers as far as rules are concerned, 64 bits once emitted.
index = DType("index", "index", "x", 64, "i64", "s64")

ALL = (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64)
#: Characters in the longest text that may name a dtype; numpy's parser takes long for long ones.
LONGEST_NAME = 64
#: What placeholders, variables and constants accept.
SUPPORTED = ALL
_BY_NAME = {d.name: d for d in (*ALL, index)}
_BY_SHORT = {d.short: d for d in (*ALL, index)}


class FloatFormat(NamedTuple):
    """Binary digits, the leading one among them; exponents of the least and of the greatest normal number."""

    digits: int
    low: int
    high: int

    @property
    def largest(self) -> float:
        """The greatest finite number."""
        return (2.0 - 2.0 ** (1 - self.digits)) * 2.0**self.high


#: Known without numpy, which has no bfloat16.
FLOAT_FORMATS = {
    float16: FloatFormat(11, -14, 15),
    bfloat16: FloatFormat(8, -126, 127),
    float32: FloatFormat(24, -126, 127),
    float64: FloatFormat(53, -1022, 1023),
}


def _by_name(name: str) -> DType:
    return _BY_NAME[name]


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """Return the numpy dtype of arrays of `dtype`; that of bfloat16 comes with the package ml_dtypes.

    Raises DTypeError for bfloat16 without that package.
    """
    if dtype.np is None:
        raise DTypeError(f"arrays of {dtype.name} need the package ml_dtypes: pip install jitflow[bf16]")
    return dtype.np


def by_short(short: str) -> DType | None:
    """Return the dtype written `short` in IR texts (``f32``), or None."""
    return _BY_SHORT.get(short)


def as_dtype(x: Any) -> DType:
    """Return the dtype that `x` names: a DType, a numpy dtype or scalar type, a name, or a Python type.

    Raises DTypeError for everything jitflow has no type for.
    """
    if isinstance(x, DType):
        dtype = x
    else:
        if x is None:
            raise DTypeError("None is no dtype; name one, such as jitflow.float32")
        if isinstance(x, str) and x == bfloat16.name:
            return bfloat16
        if isinstance(x, str) and len(x) > LONGEST_NAME:
            raise DTypeError(f"a text of {len(x)} characters is no dtype; supported are {_names()}")
        try:
            given = np.dtype(x)
        except (TypeError, ValueError):  # the latter of what has a `dtype` that is none of numpy's
            raise DTypeError(f"{x!r} is no dtype; supported are {_names()}") from None
        found = _BY_NAME.get(given.name)
        if found is None or found.np is None:
            raise DTypeError(f"dtype {given.name} is not supported; supported are {_names()}")
        dtype = found
    if dtype not in SUPPORTED:
        raise DTypeError(f"dtype {dtype.name} is not supported; supported are {_names()}")
    return dtype


def _names() -> str:
    return ", ".join(d.name for d in SUPPORTED)


_PROMOTED: dict[tuple[DType, DType], DType] = {}


def promote(a: DType, b: DType) -> DType:
    """Return the dtype that holds both `a` and `b`, as ``np.result_type`` does."""
    if a is b:
        return a
    hit = _PROMOTED.get((a, b))
    if hit is None:
        hit = _PROMOTED[a, b] = _promote(a, b)
    return hit


def _promote(a: DType, b: DType) -> DType:
    if bfloat16 in (a, b):
        other = b if a is bfloat16 else a
        if other is float64:
            return float64
        if other in (bool_, int8, uint8):
            return bfloat16
        return float64 if other.is_integer and other.bits >= 32 else float32
    assert a.np is not None
    assert b.np is not None
    return _BY_NAME[np.result_type(a.np, b.np).name]


def promote_weak(dtype: DType, scalar: type) -> DType:
    """Return the dtype of an operation between `dtype` and a Python scalar of type bool, int or float (NEP 50)."""
    if scalar is bool:
        return dtype
    if scalar is int:
        return int64 if dtype.is_bool else dtype
    return dtype if dtype.is_float else float64


def float_of(dtype: DType) -> DType:
    """Return the dtype in which a float function of `dtype` is computed: itself, or float64 for bool and integers."""
    return dtype if dtype.is_float else float64
