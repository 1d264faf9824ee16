"""Questions about dtypes, as in the array API standard: dtypes, tensors or arrays in, facts out.

``finfo``, ``iinfo``, ``isdtype``, ``can_cast`` and ``result_type``. Everything is known without any array of the dtype,
so bfloat16 can be asked about without the package ml_dtypes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from jitflow.dtypes import FLOAT_FORMATS, DType, as_dtype, bool_, float64, int64, promote, promote_weak
from jitflow.errors import DTypeError, JitflowError
from jitflow.graph import located

P = ParamSpec("P")
R = TypeVar("R")


def _with_site(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` with errors that end with the caller's line."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except JitflowError as error:
            raise located(error) from None

    return called


@dataclass(frozen=True, slots=True)
class FloatInfo:
    """What a floating dtype can hold: see `finfo`."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    smallest_subnormal: float
    dtype: DType


@dataclass(frozen=True, slots=True)
class IntegerInfo:
    """What an integer dtype can hold: see `iinfo`."""

    bits: int
    max: int
    min: int
    dtype: DType


#: The kinds of the standard, each with the letters of `DType.kind` it stands for.
KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "",
    "numeric": "iuf",
}


def _dtype_of(x: Any) -> DType:
    """Return the dtype that `x` has, if it is a tensor or array, or else names."""
    return as_dtype(x if isinstance(x, (DType, type)) else getattr(x, "dtype", x))


@_with_site
def finfo(type: Any, /) -> FloatInfo:
    """Return the limits of a floating dtype.

    Parameters
    ----------
    type : dtype or Tensor or array
        A floating dtype, or something that has one.

    Returns
    -------
    FloatInfo
        ``bits``, ``eps`` (from 1 to the next number), ``max``, ``min``, ``smallest_normal``, ``smallest_subnormal`` and
        ``dtype``; the numbers are Python floats.

    Raises
    ------
    DTypeError
        If the dtype is not floating.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.finfo(jf.bfloat16).eps, jf.finfo(jf.float16).max
    (0.0078125, 65504.0)
    """
    dtype = _dtype_of(type)
    if not dtype.is_float:
        raise DTypeError(f"finfo takes floating dtypes, not {dtype}; iinfo takes integers")
    known = FLOAT_FORMATS[dtype]
    eps, least = 2.0 ** (1 - known.digits), 2.0**known.low
    return FloatInfo(dtype.bits, eps, known.largest, -known.largest, least, least * eps, dtype)


@_with_site
def iinfo(type: Any, /) -> IntegerInfo:
    """Return the limits of an integer dtype.

    Parameters
    ----------
    type : dtype or Tensor or array
        An integer dtype, or something that has one.

    Returns
    -------
    IntegerInfo
        ``bits``, ``max``, ``min`` and ``dtype``.

    Raises
    ------
    DTypeError
        If the dtype is not an integer one.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.iinfo(jf.uint8).max
    255
    """
    dtype = _dtype_of(type)
    if not dtype.is_integer:
        raise DTypeError(f"iinfo takes integer dtypes, not {dtype}; finfo takes floats")
    return IntegerInfo(dtype.bits, dtype.max, dtype.min, dtype)


@_with_site
def isdtype(dtype: Any, kind: Any) -> bool:
    """Tell whether `dtype` is of a kind.

    Parameters
    ----------
    dtype : dtype
        The dtype asked about.
    kind : str, dtype or tuple of them
        ``"bool"``, ``"signed integer"``, ``"unsigned integer"``, ``"integral"``, ``"real floating"``,
        ``"complex floating"`` (there are none), ``"numeric"``, or a dtype; of a tuple any.

    Raises
    ------
    DTypeError
        For an unknown kind.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.isdtype(jf.int8, "integral"), jf.isdtype(jf.int8, (jf.int16, "real floating"))
    (True, False)
    """
    of = as_dtype(dtype)
    if isinstance(kind, tuple):
        return any(isdtype(of, k) for k in kind)
    if isinstance(kind, str):
        if kind not in KINDS:
            raise DTypeError(f"isdtype: {kind!r} is no kind of dtypes; there are {', '.join(map(repr, KINDS))}")
        return of.kind in KINDS[kind]
    return of is as_dtype(kind)


@_with_site
def can_cast(from_: Any, to: Any, /) -> bool:
    """Tell whether promotion would turn a dtype into another, so that `to` holds what `from_` does.

    Parameters
    ----------
    from_ : dtype or Tensor or array
        What would be converted.
    to : dtype
        The dtype wanted.

    Raises
    ------
    DTypeError
        If one of them is no dtype of jitflow.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.can_cast(jf.int32, jf.float64), jf.can_cast(jf.int32, jf.float32)
    (True, False)
    """
    target = as_dtype(to)
    return promote(_dtype_of(from_), target) is target


@_with_site
def result_type(*arrays_and_dtypes: Any) -> DType:
    """Return the dtype to which tensors, arrays, dtypes and Python scalars promote together.

    Parameters
    ----------
    *arrays_and_dtypes : Tensor, array, dtype, bool, int or float
        Python scalars are weak: they only say of which kind the result is at least.

    Raises
    ------
    DTypeError
        If nothing is given, or something that has no dtype of jitflow.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.result_type(jf.int8, jf.uint8), jf.result_type(jf.float16, 2.5), jf.result_type(jf.bfloat16, jf.float16)
    (jitflow.int16, jitflow.float16, jitflow.float32)
    """
    if not arrays_and_dtypes:
        raise DTypeError("result_type needs at least one dtype, tensor or number")
    scalars = {_WEAK[type(x)] for x in arrays_and_dtypes if type(x) in _WEAK}
    found = [_dtype_of(x) for x in arrays_and_dtypes if type(x) not in _WEAK]
    if not found:
        return max(scalars, key=_WEAK_ORDER.index)
    dtype = found[0]
    for other in found[1:]:
        dtype = promote(dtype, other)
    for x in arrays_and_dtypes:
        if type(x) in _WEAK:
            dtype = promote_weak(dtype, type(x))
    return dtype


#: What Python scalars are where nothing else is given.
_WEAK = {bool: bool_, int: int64, float: float64}
_WEAK_ORDER = (bool_, int64, float64)
