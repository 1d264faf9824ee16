"""A compiled fetch set as plain data, and as bytes: what a session must have to run it without compiling anything.

A :class:`Bundle` is object code with signatures, and a recipe for the constants: which arrays of the graph go where,
and what the *init programs* make of them once, when a session starts (weights packed for products, constant
expressions). It refers to the graph by number only, and holds no array of it.

Bytes: the length of a head in four bytes, the head, then everything that is bytes already, in order and without gaps.
The head is JSON: null, true, false, integers, strings; lists for tuples; ``{"dtype": "f32"}``; ``{"bytes": n}`` for the
next `n` bytes behind the head; and ``{"NAME": {field: value, ...}}`` for an instance of one of :data:`RECORDS`. A
reader makes nothing but these, and only if the fields are those of the class, all of them, with values of the declared
types.
"""

from __future__ import annotations

import functools
import json
import math
import struct
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

from jitflow.dtypes import DType, by_short
from jitflow.errors import FormatError, JitflowError
from runtime.abi import ArraySpec, OutputSpec, ProgramSignature, Slot


@dataclass(frozen=True, slots=True)
class Given:
    """The array of source node `number` of the graph."""

    number: int


@dataclass(frozen=True, slots=True)
class Stored:
    """An array that rewriting the graph has made of small constants."""

    dtype: DType
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 0 or len(self.data) != math.prod(self.shape) * self.dtype.itemsize:
            raise FormatError(f"{len(self.data)} bytes are no array of {self.dtype} and shape {self.shape}")


@dataclass(frozen=True, slots=True)
class Made:
    """The array that is output `output` of init program `program` of the bundle."""

    program: int
    output: int


Const: TypeAlias = Given | Stored | Made


@dataclass(frozen=True, slots=True)
class Kept:
    """An output of an init program, which the session keeps.

    If it is constant `source` of that program in another `layout`, it serves every program that wants the same.
    """

    shape: tuple[int, ...]
    source: int | None = None
    layout: str = ""


@dataclass(frozen=True, slots=True)
class Executable:
    """A program as object code. `kept` are the outputs of an init program; for others it is empty."""

    code: bytes
    signature: ProgramSignature
    consts: tuple[Const, ...]
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Bundle:
    """Init programs in the order in which to run them, the `main` program, and which output each fetch is."""

    inits: tuple[Executable, ...]
    main: Executable
    results: tuple[int, ...]

    def __post_init__(self) -> None:
        for number, program in enumerate((*self.inits, self.main)):
            before = self.inits[:number]
            made = [c for c in program.consts if isinstance(c, Made)]
            sources = [k.source for k in program.kept if k.source is not None]
            if (
                len(program.kept) != (len(program.signature.outputs) if number < len(self.inits) else 0)
                or any(not 0 <= c.program < len(before) for c in made)
                or any(not 0 <= c.output < len(before[c.program].kept) for c in made)
                or any(not 0 <= k < len(program.consts) for k in sources)
            ):
                raise FormatError(f"program {number} of the bundle refers to what is not there")
        if any(not 0 <= k < len(self.main.signature.outputs) for k in self.results):
            raise FormatError(f"the results {self.results} are no outputs of the bundle")


#: What bytes can hold besides plain values.
RECORDS: dict[str, type[Any]] = {
    c.__name__: c
    for c in (Bundle, Executable, Given, Stored, Made, Kept, ProgramSignature, ArraySpec, OutputSpec, Slot)
}

#: Tells whether a value is of a field's type.
Check: TypeAlias = Callable[[Any], bool]

_LENGTH = struct.Struct("<I")


def to_bytes(bundle: Bundle) -> bytes:
    """Return `bundle` as bytes: the same for equal bundles."""
    blobs: list[bytes] = []
    head = json.dumps(_plain(bundle, blobs), ensure_ascii=True, separators=(",", ":")).encode()
    return b"".join((_LENGTH.pack(len(head)), head, *blobs))


def from_bytes(data: bytes) -> Bundle:
    """Return the bundle that `data` holds. Raises FormatError for anything that :func:`to_bytes` does not write."""
    if len(data) < _LENGTH.size:
        raise FormatError(f"a bundle of {len(data)} bytes has no head")
    at = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if at > len(data):
        raise FormatError(f"the head of the bundle ends at byte {at}, the bundle at byte {len(data)}")
    try:
        found, end = _Reader(data, at).read(json.loads(data[_LENGTH.size : at]))
    except RecursionError:
        raise FormatError("the head of the bundle is nested too deeply") from None
    except ValueError as error:  # no JSON, no text; FormatError is one, too
        raise FormatError(f"the head of the bundle cannot be read: {error}") from None
    if end != len(data) or not isinstance(found, Bundle):
        raise FormatError(f"the bundle ends at byte {end} of {len(data)}")
    return found


def _plain(x: Any, blobs: list[bytes]) -> Any:
    if x is None or isinstance(x, (bool, int, str)):
        return x
    if isinstance(x, tuple):
        return [_plain(y, blobs) for y in x]
    if isinstance(x, DType):
        return {"dtype": x.short}
    if isinstance(x, bytes):
        blobs.append(x)
        return {"bytes": len(x)}
    if RECORDS.get(type(x).__name__) is not type(x) or not is_dataclass(x):
        raise FormatError(f"a bundle cannot hold a {type(x).__name__}")
    return {type(x).__name__: {f.name: _plain(getattr(x, f.name), blobs) for f in fields(x)}}


class _Reader:
    """Makes values of what JSON has given; `at` is where the next bytes are."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def read(self, x: Any) -> tuple[Any, int]:
        """Return the value of `x`, and the first byte behind those that belong to it."""
        return self._value(x), self.at

    def _value(self, x: Any) -> Any:
        if x is None or isinstance(x, (bool, int, str)):
            return x
        if isinstance(x, list):
            return tuple([self._value(y) for y in x])
        if not isinstance(x, dict) or len(x) != 1:
            raise FormatError(f"{str(x)[:80]!r} stands for nothing")
        ((kind, inner),) = x.items()
        if kind == "dtype":
            return self._dtype(inner)
        if kind == "bytes":
            return self._bytes(inner)
        return self._record(kind, inner)

    def _dtype(self, name: Any) -> DType:
        found = by_short(name) if isinstance(name, str) else None
        if found is None:
            raise FormatError(f"{name!r} is no dtype")
        return found

    def _bytes(self, count: Any) -> bytes:
        if type(count) is not int or not 0 <= count <= len(self.data) - self.at:
            raise FormatError(f"{count!r} bytes from byte {self.at} are not there")
        self.at += count
        return self.data[self.at - count : self.at]

    def _record(self, kind: str, inner: Any) -> Any:
        record = RECORDS.get(kind)
        if record is None or not isinstance(inner, dict):
            raise FormatError(f"{kind!r} is no record")
        checks = _checks(kind)
        if inner.keys() != checks.keys():
            raise FormatError(f"{kind} has the fields {', '.join(checks)}, not {', '.join(inner)}")
        values = {name: self._value(value) for name, value in inner.items()}
        for name, value in values.items():
            if not checks[name](value):
                raise FormatError(f"{kind}.{name} cannot be {str(value)[:80]}")
        try:
            return record(**values)
        except JitflowError as error:  # fields that contradict each other
            raise FormatError(str(error)) from None


@functools.cache
def _checks(kind: str) -> dict[str, Check]:
    """Return what each field of a record must be, by its name."""
    return {name: _check(hint) for name, hint in typing.get_type_hints(RECORDS[kind]).items()}


def _check(hint: Any) -> Check:
    """Return what tells whether a value is of the annotated type: a class, a union, or a tuple of any length."""
    if typing.get_origin(hint) is tuple:
        fits = _check(typing.get_args(hint)[0])
        return lambda value: type(value) is tuple and all(map(fits, value))
    classes = typing.get_args(hint) or (hint,)
    return lambda value: type(value) in classes
