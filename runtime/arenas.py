"""Memory of a run: arenas and large results, leased and given back, kept between runs.

Fresh pages cost more than most kernels: the system clears each before it hands it out. So what a run has used is kept
for the next one, until :meth:`ArenaPool.trim` or the end of the session.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import DType, numpy_dtype
from jitflow.errors import ClosedError, OutOfMemoryError
from runtime.abi import RECYCLE_FROM, ArenaSlot
from runtime.guarded import allocate_guarded, guarded_array

Array: TypeAlias = np.ndarray[Any, Any]

#: A cache line, and the widest vector that compiled code loads from an arena.
ALIGNMENT = 64
#: From here on an arena asks for 2 MiB pages: below, the page tables fit the TLB anyway.
HUGE_FROM = 4 << 20
HUGE_PAGE = 2 << 20
#: Bytes of pages that are asked for in one go: some milliseconds, after which Ctrl-C is noticed.
TOUCHED_AT_ONCE = 16 << 20
#: Results dropped by the caller that a pool keeps at most.
RECYCLED = 4


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


class _Dropped(weakref.ref[Any]):
    """Holds the arena of a result, and tells of its end: `callback` is then called with this object.

    The callback must not be Python code: a signal handler that ran in it (Ctrl-C) would raise where nobody listens. The
    result's memory holds this object, and so the arena, even when the interpreter ends before a run does.
    """

    __slots__ = ("arena",)
    arena: Arena

    def __new__(cls, memory: object, callback: Callable[[Any], object], arena: Arena) -> _Dropped:
        self = super().__new__(cls, memory, callback)
        self.arena = arena
        return self

    def __init__(self, memory: object, callback: Callable[[Any], object], arena: Arena) -> None:
        super().__init__(memory, callback)  # type: ignore[call-arg]


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
        #: The memory of results that are gone; a deque, since arrays may be freed at any moment, in any thread.
        self._dropped: deque[_Dropped] = deque(maxlen=RECYCLED)
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

    def result(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Return an uninitialized array that belongs to the caller.

        A large one may lie where a result of this session was that nobody holds any more: the system would take those
        pages away and clear as many others, which takes half as long as a copy. MemoryError if there is no memory.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < RECYCLE_FROM:
            return np.empty(shape, numpy_dtype(dtype))
        arena = self._take_dropped(nbytes) or Arena(nbytes)
        memory = (ctypes.c_uint8 * nbytes).from_address(arena.address)
        memory.dropped = _Dropped(memory, self._dropped.append, arena)  # type: ignore[attr-defined]
        raw: Array = np.frombuffer(memory, np.uint8)  # type: ignore[call-overload]
        return raw.view(numpy_dtype(dtype)).reshape(shape)

    def _take_dropped(self, nbytes: int) -> Arena | None:
        """Return memory of a dropped result that holds `nbytes` and is not much larger."""
        for _ in range(len(self._dropped)):
            try:
                dropped = self._dropped.popleft()
            except IndexError:  # another thread was faster
                return None
            if nbytes <= dropped.arena.nbytes <= nbytes + nbytes // 4:
                return dropped.arena
            self._dropped.append(dropped)
        return None

    def trim(self) -> int:
        """Free every arena that is not leased, and what results have left; return the number of bytes freed."""
        freed: list[Arena] = []
        while self._dropped:
            freed.append(self._dropped.popleft().arena)
        with self._lock:
            freed += self._free
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
            return slot + sum(arena.nbytes for arena in (*self._free, *(d.arena for d in self._dropped)))

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
