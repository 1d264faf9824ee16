"""Named arrays to bytes in the layout of safetensors files, and back, without a second copy of them in memory.

The layout is that of https://github.com/huggingface/safetensors, which other tools read::

    8 bytes                 length H of the header, little-endian
    H bytes                 JSON: {NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [BEGIN, END]}, ...}
    the rest                the elements of all arrays, row-major and little-endian, at these offsets from here

Written are the arrays of the largest elements first, then by name, so that each is aligned; and the header is filled up
with spaces until the data begin at a multiple of 64 bytes of the file. Whoever reads a file trusts nothing in it: every
size is checked against the file's before memory is asked for, and the offsets must cover the data without a gap or an
overlap.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jitflow.dtypes import DType, as_dtype, numpy_dtype
from jitflow.dtypes import bool_ as bool_dtype
from jitflow.errors import FormatError, LimitError, OutOfMemoryError
from jitflow.graph import ArrayData
from jitflow.graph_printer import METADATA
from jitflow.types import MAX_ELEMENTS, MAX_RANK

#: Bytes of a header, and arrays in it.
MAX_HEADER = 1 << 25
MAX_TENSORS = 200_000
#: Data begin at a multiple of this.
ALIGNMENT = 64

_DTYPES = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
_WORDS = {name: word for word, name in _DTYPES.items()}
_LENGTH = struct.Struct("<Q")


class Layout(NamedTuple):
    """Arrays in the order in which they are written, and the bytes before them."""

    head: bytes
    arrays: tuple[np.ndarray[Any, Any], ...]


def lay_out(arrays: Mapping[str, ArrayData]) -> Layout:
    """Return what is written for `arrays`, at a multiple of 64 bytes of a file.

    Raises
    ------
    LimitError
        For more arrays, or longer names, than a header may hold.
    """
    if len(arrays) > MAX_TENSORS:
        raise LimitError(f"{len(arrays)} arrays are over the limit of {MAX_TENSORS} in one file")
    order = sorted(arrays, key=lambda name: (-arrays[name].array.itemsize, name))
    header = {}
    end = 0
    for name in order:
        array = arrays[name].array
        begin, end = end, end + array.nbytes
        word = _WORDS[as_dtype(array.dtype).name]
        header[name] = {"dtype": word, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise LimitError(f"the header of the arrays has {len(text)} bytes, over the limit of {MAX_HEADER}")
    return Layout(_LENGTH.pack(len(text)) + text, tuple(arrays[name].array for name in order))


def write_tensors(file: BinaryIO, layout: Layout) -> None:
    """Write `layout` to `file` where it stands."""
    file.write(layout.head)
    for array in layout.arrays:
        if array.size:
            file.write(_bytes_of(array))


def read_tensors(file: BinaryIO, start: int, end: int) -> dict[str, ArrayData]:
    """Return the arrays in bytes `start` to `end` of `file`, which stands at `start`.

    Raises
    ------
    FormatError
        For bytes that are not in this layout; with the offset in the file.
    LimitError
        For more arrays, or a longer header, than there may be.
    DTypeError
        For arrays of bfloat16 without the package ml_dtypes.
    OutOfMemoryError
        If there is no memory for the arrays.
    """
    length = bytearray(_LENGTH.size)
    if end - start < len(length):
        raise FormatError(f"byte {end}: the file ends where the length of a header is expected")
    _read_into(file, memoryview(length), start)
    (size,) = _LENGTH.unpack(length)
    start += _LENGTH.size
    # Nothing is asked for before it is known to be there: files of many empty bytes cost nothing to make.
    if size > end - start:
        raise FormatError(f"byte {start - _LENGTH.size}: a header of {size} bytes, but only {end - start} follow")
    if size > MAX_HEADER:
        raise LimitError(
            f"byte {start - _LENGTH.size}: a header of {size} bytes is over the limit of {MAX_HEADER} bytes"
        )
    header = bytearray(size)
    _read_into(file, memoryview(header), start)
    entries = _entries(bytes(header), start, end - start - size)
    at = start + size
    found = {}
    for entry in entries:
        found[entry.name] = _read_array(file, entry, at + entry.begin)
    return found


class _Entry(NamedTuple):
    name: str
    dtype: DType
    shape: tuple[int, ...]
    begin: int
    end: int


def _read_array(file: BinaryIO, entry: _Entry, at: int) -> ArrayData:
    try:
        array = np.empty(entry.shape, numpy_dtype(entry.dtype))
    except MemoryError:
        raise OutOfMemoryError(f"no memory for array {entry.name!r} of {entry.end - entry.begin} bytes") from None
    if array.size:
        data = _bytes_of(array)
        _read_into(file, data, at)
        # Code relies on it that true is 1.
        if entry.dtype is bool_dtype and np.frombuffer(data, np.uint8).max() > 1:
            raise FormatError(f"byte {at}: array {entry.name!r} of bool has elements other than 0 and 1")
    return ArrayData(array, owned=True)


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _read_into(file: BinaryIO, data: memoryview, at: int) -> None:
    done = 0
    while done < len(data):
        count = file.readinto(data[done:])  # type: ignore[attr-defined]
        if not count:
            raise FormatError(f"byte {at + done}: the file ends here; it was longer a moment ago")
        done += count


def _entries(header: bytes, at: int, size: int) -> list[_Entry]:
    """Return what `header`, which stands at byte `at`, says of `size` bytes of data, in their order."""
    parsed = _parse(header, at)
    if len(parsed) > MAX_TENSORS:
        raise LimitError(f"byte {at}: {len(parsed)} arrays are over the limit of {MAX_TENSORS}")
    metadata = parsed.pop(METADATA, {})
    if type(metadata) is not dict or not all(type(v) is str for v in metadata.values()):
        raise FormatError(f"byte {at}: {METADATA} must map strings to strings")
    entries = sorted((_entry(name, value, at) for name, value in parsed.items()), key=lambda e: (e.begin, e.end))
    covered = 0
    for e in entries:
        if e.begin != covered:
            what = "overlaps the array before it" if e.begin < covered else f"leaves {e.begin - covered} bytes unused"
            raise FormatError(f"byte {at}: array {e.name!r} at offset {e.begin} {what}")
        covered = e.end
    if covered != size:
        raise FormatError(f"byte {at}: the arrays end at offset {covered}, but there are {size} bytes of data")
    return entries


def _entry(name: str, value: Any, at: int) -> _Entry:
    def fail(problem: str) -> FormatError:
        return FormatError(f"byte {at}: array {name!r} {problem}")

    if not name.isprintable():
        raise fail("must have a name of one line of printable characters")
    if type(value) is not dict or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise fail("must have 'dtype', 'shape' and 'data_offsets', and nothing else")
    word, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if type(word) is not str or word not in _DTYPES:
        raise fail(f"has a dtype that is none of {', '.join(_DTYPES)}")
    if type(shape) is not list or not all(type(n) is int and 0 <= n <= MAX_ELEMENTS for n in shape):
        raise fail("has a shape that is no list of sizes")
    if len(shape) > MAX_RANK:
        raise LimitError(f"byte {at}: array {name!r} has {len(shape)} axes, over the limit of {MAX_RANK}")
    if type(offsets) is not list or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        raise fail("has offsets that are not two numbers")
    dtype = as_dtype(_DTYPES[word])
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise fail(f"of {dtype.name} and shape {tuple(shape)} cannot take {end - begin} bytes")
    if math.prod(max(n, 1) for n in shape) > MAX_ELEMENTS:
        raise fail("has more elements than there can be")
    return _Entry(name, dtype, tuple(shape), begin, end)


class _NotStrict(ValueError):
    """JSON that some readers take one way and others another."""


def _parse(header: bytes, at: int) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise FormatError(f"byte {at}: the header does not begin with '{{'")
    try:
        text = header.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"byte {at + error.start}: the header is no text") from None
    try:
        parsed = json.loads(
            text, object_pairs_hook=_unique, parse_float=_no_number, parse_constant=_no_number, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        offset = at + len(text[: error.pos].encode())
        raise FormatError(f"byte {offset}: the header is no JSON: {error.msg}") from None
    except _NotStrict as error:
        raise FormatError(f"byte {at}: the header has {error}") from None
    except RecursionError:
        raise FormatError(f"byte {at}: the header is nested too deeply") from None
    assert isinstance(parsed, dict)
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _NotStrict(f"key {key[:50]!r} twice")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise _NotStrict("a number of too many digits")
    return int(digits)


def _no_number(text: str) -> Any:
    raise _NotStrict(f"{text[:20]!r} where there are only integers")
