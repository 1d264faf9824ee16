"""Feeds made into plain arrays, ``out=`` arrays checked: whatever a caller gives passes here before a program sees it.

- :func:`canonicalize` is the one place where a feed becomes an ndarray of the declared dtype that a program can read:
  C-contiguous, aligned, native byte order, no subclass. It never reinterprets and never narrows.
- :func:`check_out` is the same for arrays to write to; :func:`part_overlaps` deals with memory they share.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import numpy_dtype
from jitflow.errors import FeedError, FeedTypeError, OutOfMemoryError, at_site
from jitflow.halves import nearest_half
from runtime.abi import ArraySpec, OutputSpec, ProgramSignature, Slot

Array: TypeAlias = np.ndarray[Any, Any]

#: Bytes from which on an array that is turned is copied in blocks of so many lines and elements of each: of sizes up
#: to 1024 these were the fastest, for 1, 4 and 8 bytes an element.
BLOCKED_FROM = 64 << 10
BLOCK_ACROSS, BLOCK_ALONG = 256, 64

_CONTAINERS = (list, tuple)
_PYTHON_SCALARS = (bool, int, float)
#: Which declared kinds (see `DType.kind`) each Python scalar type converts to: bool < int < float, as in NEP 50.
_WEAK_KINDS = {bool: "biuf", int: "iuf", float: "f"}


def canonicalize(value: object, spec: ArraySpec, signature: ProgramSignature) -> Array:
    """Return `value` as a base ndarray that a program can read in place: the array itself, if it is one already.

    - An ndarray, numpy scalar, buffer or object with ``__array__`` must have exactly the declared dtype; a layout
      that programs cannot read (strides, alignment, byte order) is copied.
    - Python scalars, and lists of them, convert to a dtype of their kind or a wider one, if it can hold them.
    - Everything else raises FeedTypeError: masked arrays (the mask would be lost), text, None, ragged lists, and
      objects that only offer an ``__array_interface__``, which is a bare address.

    Sizes bound to a slot are not compared here: see `runtime.entry`.
    """
    if type(value) is np.ndarray:
        array: Array = value
    elif isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise _no_array(value, spec, "fill or drop the masked elements first")
        array = np.asarray(value)
    elif isinstance(value, np.generic):
        array = np.asarray(value)
    elif isinstance(value, (*_PYTHON_SCALARS, *_CONTAINERS)):
        return _from_python(value, spec, signature)
    else:
        array = _from_foreign(value, spec)
    _check_dtype(array, spec, signature)
    check_shape(array, spec, signature)
    return _in_place(array, spec)


def _in_place(array: Array, spec: ArraySpec) -> Array:
    """Return `array`, whose values are of the dtype of `spec`, or a copy if programs cannot read its memory."""
    # numpy says of swapped bfloat16 that they are native; but they are not equal to the native ones.
    flags, of = array.flags, numpy_dtype(spec.dtype)
    if flags.c_contiguous and flags.aligned and array.dtype == of:
        return array
    try:
        copied = np.empty(array.shape, of)
    except MemoryError:
        what = f"a contiguous copy of input {spec.name!r} of shape {array.shape}"
        message = f"no memory for {array.size * array.itemsize} bytes of {what}"
        raise OutOfMemoryError(at_site(message, spec.site)) from None
    copy_array(copied, array)
    return copied


def copy_array(target: Array, source: Array) -> None:
    """Copy `source` to `target`, of the same shape and kind but any layout.

    One that is turned against the other is copied in blocks, of which every line touched stays in the first cache:
    numpy goes through `target` row by row, which takes up to ten times as long.
    """
    across, along = _unit_axis(source), _unit_axis(target)
    if across == along or min(across, along) < 0 or target.nbytes < BLOCKED_FROM:
        np.copyto(target, source)
        return
    block: list[slice] = [slice(None)] * target.ndim
    for i in range(0, target.shape[across], BLOCK_ACROSS):
        block[across] = slice(i, i + BLOCK_ACROSS)
        for j in range(0, target.shape[along], BLOCK_ALONG):
            block[along] = slice(j, j + BLOCK_ALONG)
            np.copyto(target[tuple(block)], source[tuple(block)])


def _unit_axis(array: Array) -> int:
    """Return the axis along which neighbours are nearest in memory, but not the same; -1 if there is none."""
    lines = enumerate(zip(array.strides, array.shape, strict=True))
    steps = [(abs(stride), k) for k, (stride, n) in lines if n > 1 and stride]
    return min(steps)[1] if steps else -1


def _from_foreign(value: object, spec: ArraySpec) -> Array:
    """Return the array that an object of another library stands for."""
    if isinstance(value, (str, bytes, type(None))):
        raise _no_array(value, spec)
    convert = getattr(type(value), "__array__", None)
    if convert is not None:
        # Called directly: np.asarray would look at __array_interface__ first and believe any address in it.
        array = convert(value)
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            raise _no_array(value, spec, f"its __array__ gave {_a(type(array))}")
        return np.asarray(array)
    try:
        view = memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        raise _no_array(value, spec, "pass numpy.asarray of it if that is what you mean") from None
    return np.asarray(view)


def _from_python(value: object, spec: ArraySpec, signature: ProgramSignature) -> Array:
    """Return the array of a Python scalar or of nested lists and tuples."""
    kinds = _leaf_types(value, spec)
    dtype = spec.dtype
    if any(issubclass(t, (np.generic, np.ndarray)) for t in kinds):
        # Elements that carry a dtype keep it, in a list as well: [np.float64(0.1)] is no float32.
        try:
            array = np.array(value)
        except ValueError:
            raise _no_array(value, spec, "its rows differ in shape") from None
        _check_dtype(array, spec, signature)
        check_shape(array, spec, signature)
        return _in_place(array, spec)
    for weak in (float, int, bool):
        if dtype.kind not in _WEAK_KINDS[weak] and any(_scalar_type(t) is weak for t in kinds):
            message = f"{_declared(spec, signature)}, got Python values of type {weak.__name__}"
            raise FeedError(at_site(message, spec.site))
    try:
        with np.errstate(over="ignore"):
            if dtype.is_half:
                array = nearest_half(np.array(value, np.float64), numpy_dtype(dtype))
            else:
                array = np.array(value, dtype=numpy_dtype(dtype))
    except OverflowError as error:
        raise _out_of_range(value, spec) from error
    except ValueError:
        raise _no_array(value, spec, "its rows differ in length") from None
    if dtype.is_float and not np.isfinite(array).all() and not _same_specials(value, array):
        raise _out_of_range(value, spec)
    check_shape(array, spec, signature)
    return array


def _scalar_type(t: type) -> type:
    """Return which of bool, int and float `t` is, or is derived from (bool itself is derived from int)."""
    return next(weak for weak in _PYTHON_SCALARS if issubclass(t, weak))


def _leaf_types(value: object, spec: ArraySpec) -> set[type]:
    """Return the types of the scalars in nested lists; raise for those that are no numbers."""
    # Level by level, so that no nesting is too deep, and a list that holds itself ends at the rank of the input.
    level: list[Any] = [value]
    leaves: set[type] = set()
    for _ in range(len(spec.shape) + 1):
        types = set(map(type, level))
        if not any(issubclass(t, _CONTAINERS) for t in types):
            break
        leaves |= {t for t in types if not issubclass(t, _CONTAINERS)}
        level = list(itertools.chain.from_iterable(x for x in level if isinstance(x, _CONTAINERS)))
    leaves |= set(map(type, level))
    for t in leaves:
        if issubclass(t, _CONTAINERS):
            raise _no_array(value, spec, f"it is nested deeper than {len(spec.shape)} axes")
        if t is not np.ndarray and not issubclass(t, (np.generic, *_PYTHON_SCALARS)):
            raise _no_array(value, spec, f"it holds {_a(t)}")
    return leaves


def _same_specials(value: object, array: Array) -> bool:
    """Say whether every Inf of `array` was one in `value` too, and is no large number that did not fit."""
    return bool((np.isinf(np.array(value, dtype=np.float64)) == np.isinf(array)).all())


def _check_dtype(array: Array, spec: ArraySpec, signature: ProgramSignature) -> None:
    expected, given = numpy_dtype(spec.dtype), array.dtype
    if given == expected or (given.kind == expected.kind and given.newbyteorder("=") == expected):
        return
    raise FeedError(
        at_site(
            f"{_declared(spec, signature)}, got {given} of shape {array.shape}; convert it explicitly, "
            f"for instance by .astype({spec.dtype.name!r})",
            spec.site,
        )
    )


def check_shape(array: Array, spec: ArraySpec, signature: ProgramSignature) -> None:
    """Compare rank and constant sizes of `array` with the declared ones."""
    if array.ndim != len(spec.shape):
        raise FeedError(
            at_site(
                f"{_declared(spec, signature)}, got shape {array.shape}: {len(spec.shape)} axes, not {array.ndim}",
                spec.site,
            )
        )
    for axis, (size, declared) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if not isinstance(declared, Slot) and size != declared:
            raise FeedError(
                at_site(
                    f"{_declared(spec, signature)}, got shape {array.shape}: axis {axis} is {size}, not {declared}",
                    spec.site,
                )
            )


def _declared(spec: ArraySpec, signature: ProgramSignature) -> str:
    return f"input {spec.name!r} takes {spec.dtype.name} of shape {signature.show_shape(spec.shape)}"


def _a(t: type) -> str:
    name = t.__name__ if t.__module__ == "builtins" else f"{t.__module__}.{t.__qualname__}"
    return f"an object of type {name}"


def _no_array(value: object, spec: ArraySpec, hint: str = "") -> FeedTypeError:
    message = f"input {spec.name!r} takes an array of {spec.dtype.name}, not {_a(type(value))}"
    return FeedTypeError(at_site(f"{message}: {hint}" if hint else message, spec.site))


def _out_of_range(value: object, spec: ArraySpec) -> FeedError:
    short = isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 256)
    shown = f"{value!r} is" if short else "some values are"
    return FeedError(at_site(f"input {spec.name!r} takes {spec.dtype.name}: {shown} out of its range", spec.site))


# ---------------------------------------------------------------------------------------------------------------------
# Arrays to write to


def check_out(array: object, spec: OutputSpec, shape: tuple[int, ...]) -> Array:
    """Return the base ndarray of an ``out=`` array after checking that the output may be written there.

    Strides and alignment are free: what a program cannot write in place is copied at the end. Raises FeedError.
    """
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        message = f"out for {spec.name!r} must be a numpy array, not {_a(type(array))}"
        raise FeedTypeError(at_site(message, spec.site))
    # A subclass may say anything about its shape: the base array over the same memory is what counts.
    base = np.asarray(array)
    if base.dtype != numpy_dtype(spec.dtype) or base.shape != shape:
        expected, given = f"{spec.dtype.name} of shape {shape}", f"{base.dtype} of shape {base.shape}"
        raise FeedError(at_site(f"out for {spec.name!r} must be {expected}, got {given}", spec.site))
    if not base.flags.writeable:
        raise FeedError(at_site(f"out for {spec.name!r} is read-only", spec.site))
    if _may_overlap_itself(base):
        message = f"out for {spec.name!r} overlaps itself: strides {base.strides} for shape {shape}"
        raise FeedError(at_site(message, spec.site))
    return base


def is_plain(array: Array) -> bool:
    """Say whether a program can read or write the memory of `array` as it is."""
    return array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative


def _may_overlap_itself(array: Array) -> bool:
    """Say whether two elements of `array` may share a byte; exact for what slicing and transposing can make."""
    if array.size <= 1 or array.flags.c_contiguous:
        return False
    covered = array.itemsize
    for stride, size in sorted((abs(st), n) for st, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < covered:
            return True
        covered += stride * (size - 1)
    return False


def check_outs_apart(outs: list[Array], specs: tuple[OutputSpec, ...]) -> None:
    """Raise FeedError if two of the ``out=`` arrays share memory."""
    for (a, first), (b, second) in itertools.combinations(zip(outs, specs, strict=True), 2):
        if _share_memory(a, b):
            raise FeedError(at_site(f"out for {first.name!r} and out for {second.name!r} overlap", second.site))


def part_overlaps(inputs: list[Array], outs: list[Array]) -> list[Array]:
    """Return `inputs` with a copy in place of each that lies in memory to be written."""
    return [x.copy() if any(np.may_share_memory(x, y) for y in outs) else x for x in inputs]


def _share_memory(a: Array, b: Array) -> bool:
    # The exact question is NP-hard; up to this much work it is answered for all layouts one meets.
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
