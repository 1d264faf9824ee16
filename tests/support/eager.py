"""jitflow as an eager array library: every call builds a graph of its own, runs it and returns an :class:`Array`.

It is a namespace of the Python array API standard, made for test suites that know nothing of graphs: functions at the
top, `linalg`, dtypes, constants and `__array_namespace_info__`. Each Array given to a function becomes a placeholder of
its dtype and shape. Compiled sessions are kept by function, static arguments, dtypes and shapes; `interpreted()` runs
numpy's rules instead.

Outside of the library's own promises it lets data choose: masks may index, elements may be assigned, and ``bool(x)`` is
a fact, because values are known here.
"""

from __future__ import annotations

import functools
import operator
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import jitflow as jf
from jitflow.dtypes import ALL, DType, as_dtype
from jitflow.graph import toposort
from jitflow.tensor import Tensor

#: Sessions kept; more are dropped, oldest first.
MAX_SESSIONS = 1000

_sessions: dict[Any, tuple[Any, list[int], Any]] = {}
_interpret = False


@contextmanager
def interpreted() -> Iterator[None]:
    """Run the numpy rules instead of compiled code in this block."""
    global _interpret
    outer, _interpret = _interpret, True
    try:
        yield
    finally:
        _interpret = outer


# ---- calls


def _key(x: Any) -> Any:
    """Return what tells a call from another: of arrays dtype and shape, of the rest type and value."""
    if isinstance(x, Array):
        return ("array", x._value.dtype.name, x._value.shape)
    if isinstance(x, (list, tuple)):
        return (type(x).__name__, *map(_key, x))
    if isinstance(x, dict):
        return tuple((k, _key(v)) for k, v in x.items())
    if isinstance(x, slice):
        return ("slice", _key(x.start), _key(x.stop), _key(x.step))
    if isinstance(x, np.ndarray):
        return ("constant", x.dtype.name, x.shape, x.tobytes())
    return (type(x).__name__, repr(x))


def _arrays_in(x: Any) -> list[Array]:
    if isinstance(x, Array):
        return [x]
    if isinstance(x, slice):
        return _arrays_in((x.start, x.stop, x.step))
    items = x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple)) else ()
    return [a for item in items for a in _arrays_in(item)]


def _with_tensors(x: Any, tensors: Iterator[Tensor]) -> Any:
    """Return `x` with each Array replaced by the next of `tensors`."""
    if isinstance(x, Array):
        return next(tensors)
    if isinstance(x, slice):
        return slice(*(_with_tensors(v, tensors) for v in (x.start, x.stop, x.step)))
    if isinstance(x, dict):
        return {k: _with_tensors(v, tensors) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(_with_tensors(v, tensors) for v in x)
    return x


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return ``function(*args, **kwargs)``, a function of Tensors, for Arrays: computed at once."""
    arrays = _arrays_in((args, kwargs))
    key = (getattr(function, "__qualname__", repr(function)), id(function), _key(args), _key(kwargs))
    found = None if _interpret else _sessions.get(key)
    if found is None:
        placeholders = [jf.placeholder(None, a.dtype, a.shape) for a in arrays]
        tensors = iter(placeholders)
        built = function(*_with_tensors(args, tensors), **_with_tensors(kwargs, tensors))
        outputs = list(built) if isinstance(built, (list, tuple)) else [built]
        if not all(isinstance(t, Tensor) for t in outputs):
            return built  # a fact about dtypes
        reached = set(toposort([t.node for t in outputs]))
        used = [k for k, p in enumerate(placeholders) if p.node in reached]
        if _interpret:
            return _wrapped(jf.interpret(built, {placeholders[k]: arrays[k]._value for k in used}))
        session = jf.Session(outputs)
        # The function is kept too: its id, which is part of the key, must not be that of another one.
        found = session.function([placeholders[k] for k in used], built), used, function
        if len(_sessions) >= MAX_SESSIONS:
            del _sessions[next(iter(_sessions))]
        _sessions[key] = found
    run, used, _ = found
    return _wrapped(run(*(arrays[k]._value for k in used)))


def _wrapped(values: Any) -> Any:
    if isinstance(values, (list, tuple)):
        return type(values)(map(_wrapped, values))
    return Array(values)


# ---- arrays


def _method(function: Callable[..., Any], swap: bool = False) -> Callable[[Array, Any], Any]:
    def method(self: Array, other: Any) -> Any:
        if not isinstance(other, (Array, bool, int, float)):
            return NotImplemented
        return call(function, *((other, self) if swap else (self, other)))

    return method


def _in_place(function: Callable[..., Any]) -> Callable[[Array, Any], Any]:
    def method(self: Array, other: Any) -> Any:
        if not isinstance(other, (Array, bool, int, float)):
            return NotImplemented
        result = call(function, self, other)
        if result.dtype != self.dtype or result.shape != self.shape:
            raise TypeError(f"{self.dtype} of shape {self.shape} cannot hold {result.dtype} of shape {result.shape}")
        self._value = result._value
        return self

    return method


class Array:
    """An ndarray behind the operators of the array API standard, which are computed by jitflow."""

    __slots__ = ("_value",)
    __array_priority__ = 2000

    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def __repr__(self) -> str:
        return f"Array({self._value!r})"

    @property
    def dtype(self) -> DType:
        return as_dtype(self._value.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def ndim(self) -> int:
        return self._value.ndim

    @property
    def size(self) -> int:
        return self._value.size

    @property
    def device(self) -> str:
        return jf.__array_namespace_info__().default_device()

    @property
    def T(self) -> Array:
        if self.ndim != 2:
            raise ValueError(f"x.T needs two axes, got {self.ndim}")
        return call(_transposed, self)

    @property
    def mT(self) -> Array:
        return call(_transposed, self)

    def to_device(self, device: Any, /, *, stream: None = None) -> Array:
        jf.zeros(0).to_device(device, stream=stream)
        return self

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        jf.zeros(0).__array_namespace__(api_version=api_version)
        return sys.modules[__name__]

    __hash__ = None  # type: ignore[assignment]

    def __neg__(self) -> Array:
        return call(operator.neg, self)

    def __pos__(self) -> Array:
        return call(jf.positive, self)

    def __abs__(self) -> Array:
        return call(operator.abs, self)

    def __invert__(self) -> Array:
        return call(operator.invert, self)

    def _key_of(self, key: Any) -> Any:
        """Return `key` with masks as values: here they are known."""
        items = key if isinstance(key, tuple) else (key,)
        known = tuple(k._value if isinstance(k, Array) and k.dtype.is_bool else k for k in items)
        return known if isinstance(key, tuple) else known[0]

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, Array) and key.dtype.is_bool and not key.ndim:
            return self[None][: int(key)]  # a mask of no axes keeps all or nothing, along a new one
        return call(_getitem, self, self._key_of(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        """Put elements of `value` where `key` picks those of this array: a choice by mask between the two."""
        items = key if isinstance(key, tuple) else (key,)
        picked = tuple(k._value if isinstance(k, Array) else k for k in items)
        places = np.arange(self.size).reshape(self.shape)[picked]
        given = value if isinstance(value, Array) else asarray(value, dtype=self.dtype)
        source = np.zeros(self.size, np.int64)
        source[places.reshape(-1)] = np.arange(places.size)
        mask = np.zeros(self.size, bool)
        mask[places.reshape(-1)] = True
        self._value = call(_assigned, self, given, mask, source, places.shape)._value

    def _item(self, kind: Callable[[Any], Any]) -> Any:
        if self.size != 1 or self.ndim:
            raise TypeError(f"only an array without axes is a {kind.__name__}, got shape {self.shape}")
        return kind(self._value.item())

    def __bool__(self) -> bool:
        return self._item(bool)

    def __int__(self) -> int:
        return self._item(int)

    def __float__(self) -> float:
        return self._item(float)

    def __complex__(self) -> complex:
        return self._item(complex)

    def __index__(self) -> int:
        if not self.dtype.is_integer:
            raise TypeError(f"an array of {self.dtype} is no index")
        return self._item(int)

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Array]:
        return (self[k] for k in range(len(self)))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self._value, dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self._value.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._value.__dlpack_device__()


_OPERATORS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow, "matmul": operator.matmul,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor, "lshift": operator.lshift, "rshift": operator.rshift,
}  # fmt: skip
for _name, _function in _OPERATORS.items():
    setattr(Array, f"__{_name}__", _method(_function))
    setattr(Array, f"__r{_name}__", _method(_function, swap=True))
    setattr(Array, f"__i{_name}__", _in_place(_function))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Array, f"__{_name}__", _method(getattr(operator, _name)))


def _transposed(x: Tensor) -> Tensor:
    return x.mT


def _getitem(x: Tensor, key: Any) -> Tensor:
    return x[key]


def _assigned(x: Tensor, value: Tensor, mask: np.ndarray, source: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    flat = jf.reshape(jf.broadcast_to(jf.astype(value, x.dtype), shape), (-1,))
    if flat.shape == (0,):
        return x
    return jf.reshape(jf.where(mask, jf.take(flat, source, axis=0), jf.reshape(x, (-1,))), x.shape)


# ---- functions


def _eager(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def eager(*args: Any, **kwargs: Any) -> Any:
        return call(function, *args, **kwargs)

    return eager


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Array:
    """Return `obj` as an Array; one that is an Array already is shared unless `copy` is true."""
    if isinstance(obj, Array):
        if dtype is None or dtype == obj.dtype:
            return Array(obj._value.copy()) if copy else obj
        return call(jf.astype, obj, dtype)
    return Array(jf.interpret(jf.asarray(_plain(obj), dtype=dtype, device=device), {}))


def _plain(obj: Any) -> Any:
    if isinstance(obj, Array):
        return obj._value
    return type(obj)(map(_plain, obj)) if isinstance(obj, (list, tuple)) else obj


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Array:
    """Return a copy of an array of any library."""
    return Array(np.array(np.from_dlpack(x)))


def repeat(x: Array, repeats: Any, /, *, axis: int | None = None) -> Array:
    """Return each element of `x` as often as `repeats` says: a number, or an array of them, which is known here."""
    return call(jf.repeat, x, _plain(repeats), axis=axis)


def __array_namespace_info__() -> Any:
    return jf.__array_namespace_info__()


def _functions_of(module: Any) -> dict[str, Any]:
    found = {n: getattr(module, n) for n in module.__all__ if not n.startswith("_")}
    return {n: _eager(f) for n, f in found.items() if isinstance(f, types.FunctionType)}


#: What the namespace has besides the names above. Many of them are Python's too (``sum``, ``bool``), hence not globals.
_NAMES: dict[str, Any] = {
    **_functions_of(jf),
    **{d.name: d for d in ALL},
    "__array_api_version__": jf.__array_api_version__,
    "bool_": jf.bool_,
    "e": jf.e,
    "inf": jf.inf,
    "linalg": types.SimpleNamespace(**_functions_of(jf.linalg)),
    "nan": jf.nan,
    "newaxis": jf.newaxis,
    "pi": jf.pi,
}


def __getattr__(name: str) -> Any:
    try:
        return _NAMES[name]
    except KeyError:
        raise AttributeError(f"the array namespace has no {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*_NAMES, "Array", "asarray", "from_dlpack", "repeat", "__array_namespace_info__"})
