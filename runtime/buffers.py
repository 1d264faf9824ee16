"""Memory of a run: arenas leased and given back, feeds made into plain arrays, ``out=`` arrays checked.

- :class:`ArenaPool` owns the scratch memory of a session. Concurrent runs lease different arenas; arenas are kept
  between runs, because fresh pages cost more than most kernels.
- :func:`canonicalize` is the one place where a feed becomes an ndarray of the declared dtype that a program can read:
  C-contiguous, aligned, native byte order, no subclass. It never reinterprets and never narrows.
- :func:`check_out` is the same for arrays to write to; :func:`part_overlaps` deals with memory they share.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import DType, numpy_dtype
from jitflow.errors import ClosedError, FeedError, FeedTypeError, OutOfMemoryError, at_site
from jitflow.halves import nearest_half
from runtime.abi import ArenaSlot, ArraySpec, OutputSpec, ProgramSignature, Slot
from runtime.guarded import allocate_guarded, guarded_array

Array: TypeAlias = np.ndarray[Any, Any]

#: A cache line, and the widest vector that compiled code loads from an arena.
ALIGNMENT = 64
#: From here on an arena asks for 2 MiB pages: below, the page tables fit the TLB anyway.
HUGE_FROM = 4 << 20
HUGE_PAGE = 2 << 20
#: Bytes of pages that are asked for in one go: some milliseconds, after which Ctrl-C is noticed.
TOUCHED_AT_ONCE = 16 << 20


# ---------------------------------------------------------------------------------------------------------------------
# Arenas


class Arena:
    """A block of aligned memory, freed with the object."""

    __slots__ = ("_memory", "address", "nbytes")

    def __init__(self, nbytes: int, *, guard: bool = False) -> None:
        self._memory: object
        self._memory, self.address = allocate_guarded(nbytes, ALIGNMENT) if guard else _allocate(nbytes)
        self.nbytes = nbytes
        if nbytes >= HUGE_FROM and not guard:
            self._touch()

    def _touch(self) -> None:
        """Have the system clear every page now.

        A kernel that writes here and there would wait for nearly all of them between two looks at whether to stop.
        """
        pages = np.ctypeslib.as_array((ctypes.c_uint8 * self.nbytes).from_address(self.address))[:: mmap.PAGESIZE]
        step = TOUCHED_AT_ONCE // mmap.PAGESIZE
        for k in range(0, pages.size, step):
            pages[k : k + step] = 0

    def poison(self) -> None:
        """Fill the arena with bytes 0xFF: NaN in every float type, so that a value read before written shows."""
        ctypes.memset(self.address, 0xFF, self.nbytes)


def _allocate(nbytes: int) -> tuple[object, int]:
    """Return the owner and the aligned address of `nbytes` of memory."""
    try:
        if nbytes >= HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
            pages = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            # The kernel may be built without huge pages; the memory is as good, only slower.
            with contextlib.suppress(OSError):
                pages.madvise(mmap.MADV_HUGEPAGE)
            return pages, _align(ctypes.addressof(ctypes.c_char.from_buffer(pages)), HUGE_PAGE)
        memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    except (MemoryError, OSError, OverflowError, ValueError):
        raise OutOfMemoryError(f"no memory for {nbytes} bytes of intermediate results") from None
    return memory, _align(memory.ctypes.data, ALIGNMENT)


def aligned_array(shape: tuple[int, ...], dtype: DType, *, guard: bool = False) -> Array:
    """Return an uninitialized array that begins at a multiple of the alignment, in huge pages if it is large.

    With `guard` it ends at an inaccessible page.
    """
    if guard:
        return guarded_array(shape, dtype, ALIGNMENT)
    of = numpy_dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    memory, address = _allocate(nbytes)
    raw: Array = np.frombuffer(memory, np.uint8)  # type: ignore[call-overload]
    first = address - raw.__array_interface__["data"][0]
    return raw[first : first + nbytes].view(of).reshape(shape)


def _align(address: int, to: int) -> int:
    return -(-address // to) * to


def arena_size(nbytes: int) -> int:
    """Return how much to allocate for `nbytes`: the next of four steps between powers of two, at least a page.

    A slowly growing batch then allocates at most four times per doubling and wastes at most a quarter.
    """
    if nbytes <= 4096:
        return 4096
    step = 1 << ((nbytes - 1).bit_length() - 3)
    return _align(nbytes, step)


_pools: weakref.WeakSet[ArenaPool] = weakref.WeakSet()


class ArenaPool:
    """The arenas of one session. Safe to use from several threads.

    Compiled entries use the arena in ``slot`` (see :class:`runtime.abi.ArenaSlot`); everyone else takes it too when it
    is free and otherwise one of the others. With `poison` every lease hands out memory full of NaN, and nothing is
    left in the slot, so that compiled entries come here as well. With `guard` it is fresh besides, and ends at an
    inaccessible page; `last` is what was leased last.
    """

    def __init__(self, *, poison: bool = False, guard: bool = False) -> None:
        self.slot = ArenaSlot()
        self._poison, self._guard = poison or guard, guard
        self.last: Arena | None = None
        self._lock = threading.Lock()
        self._slot_arena: Arena | None = None
        self._free: list[Arena] = []
        self._closed = False
        _pools.add(self)

    @contextlib.contextmanager
    def lease(self, nbytes: int) -> Iterator[int | None]:
        """Give the address of at least `nbytes` of memory that is nobody else's meanwhile (None for 0 bytes).

        Raises OutOfMemoryError before anything ran, ClosedError once the pool is closed.
        """
        if nbytes == 0:
            self._check_open()
            yield None
            return
        arena, in_slot = self._take(nbytes)
        try:
            if self._poison:
                arena.poison()
            yield arena.address
        finally:
            self._give_back(arena, in_slot)

    def trim(self) -> int:
        """Free every arena that is not leased; return the number of bytes freed."""
        with self._lock:
            freed = self._free
            self._free = []
            if self._try_slot():
                if self._slot_arena is not None:
                    freed.append(self._slot_arena)
                self._fill_slot(None)
                self.slot.python_busy = 0
        return sum(arena.nbytes for arena in freed)

    def close(self) -> None:
        """Free all memory that is not leased, and the rest when it comes back. Later leases raise ClosedError."""
        with self._lock:
            self._closed = True
        self.trim()

    @property
    def nbytes(self) -> int:
        """The memory held, leased arenas outside the slot not counted."""
        with self._lock:
            slot = 0 if self._slot_arena is None else self._slot_arena.nbytes
            return slot + sum(arena.nbytes for arena in self._free)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the session is closed")

    def _take(self, nbytes: int) -> tuple[Arena, bool]:
        if self._guard:
            self._check_open()
            self.last = Arena(nbytes, guard=True)
            return self.last, False
        with self._lock:
            self._check_open()
            if not self._poison and self._try_slot():
                try:
                    if self._slot_arena is None or self._slot_arena.nbytes < nbytes:
                        # Free the old one first: both at once may not fit.
                        self._fill_slot(None)
                        self._fill_slot(Arena(arena_size(nbytes)))
                except BaseException:  # no memory, or Ctrl-C
                    self.slot.python_busy = 0
                    raise
                assert self._slot_arena is not None
                return self._slot_arena, True
            fitting = [arena for arena in self._free if arena.nbytes >= nbytes]
            if fitting:
                arena = min(fitting, key=lambda a: a.nbytes)
                self._free.remove(arena)
                return arena, False
            if self._free:
                self._free.remove(max(self._free, key=lambda a: a.nbytes))
        return Arena(arena_size(nbytes)), False

    def _give_back(self, arena: Arena, in_slot: bool) -> None:
        with self._lock:
            if in_slot:
                if self._closed:
                    self._fill_slot(None)
                self.slot.python_busy = 0
            elif not self._closed and not self._guard:
                self._free.append(arena)

    def _try_slot(self) -> bool:
        """Try to own the slot. The caller holds the lock, so only compiled entries compete."""
        slot = self.slot
        if slot.python_busy:
            return False
        slot.python_busy = 1
        if slot.native_busy:
            slot.python_busy = 0
            return False
        return True

    def _fill_slot(self, arena: Arena | None) -> None:
        """Put `arena` into the slot. The caller owns the slot."""
        self._slot_arena = arena
        self.slot.nbytes = 0 if arena is None else arena.nbytes
        self.slot.base = None if arena is None else arena.address

    def _forget_other_threads(self) -> None:
        """In a forked child: what other threads had leased is lost with them, and so are their locks."""
        self._lock = threading.Lock()
        self.slot.python_busy = self.slot.native_busy = 0


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool._forget_other_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# ---------------------------------------------------------------------------------------------------------------------
# Feeds

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
        return np.array(array, dtype=of, order="C", copy=True)
    except MemoryError:
        what = f"a contiguous copy of input {spec.name!r} of shape {array.shape}"
        message = f"no memory for {array.size * array.itemsize} bytes of {what}"
        raise OutOfMemoryError(at_site(message, spec.site)) from None


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
