"""The calling conventions as data: what programs take and return, and the memory that they share with Python.

A *program* is native code with two C functions, named by its :class:`ProgramSignature`:

``i32 measure(ptr dims, ptr sizes, i64 workers)``
    `dims` are i64 slots. The caller fills the first ``n_bound`` from the shapes of the inputs; the program may fill
    others that follow from them. It checks every guard, writes to `sizes` the bytes of arena it needs when so many
    workers run it, an estimate of its work in nanoseconds, then the shapes of the outputs one after another, and
    returns 0, or 1 + g when guard `g` failed. The guard after the last one stands for a number of bytes that 63 bits
    do not hold.
``i32 run(ptr inputs, ptr outputs, ptr consts, ptr arena, ptr dims, ptr status, ptr watch, ptr team)``
    `inputs`, `outputs` and `consts` are tables of data pointers: C-contiguous, aligned to their element, native byte
    order; outputs overlap nothing else. The arena is 64-byte aligned, or null when no byte of it is needed. `status`
    are i64 slots in which fallible kernels leave their smallest bad position. `watch` is null or a :class:`Watch`,
    which a long run asks every millisecond or so whether to stop. `team` is null or a :class:`runtime.threads.Team`
    that helps. Returns 0, or 1 + k when slot `k` reports a bad position, or :data:`STOPPED`; the outputs are then
    undefined.
``i32 run.watched(ptr inputs, ptr outputs, ptr consts, ptr arena, ptr dims, ptr status, ptr context)``
    The same for a caller that holds the GIL: it is free during the run, and in the main thread Python's signal handlers
    run now and then. If one of them raises, it returns STOPPED with the exception set. `context` is an
    :class:`EntryContext`.

The *entry* is the Python-facing native function of a program (`lowering.native` emits it, `runtime.entry` makes it
callable). It reads everything it must know about this process from the :class:`EntryContext` behind its ``self``, so
its code holds no address and can be kept in a file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

from jitflow.dtypes import ALL, DType
from jitflow.errors import CompilerBug


@dataclass(frozen=True, slots=True)
class Slot:
    """A size that is known when the program is called: ``dims[number]``."""

    number: int


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One input. The first place where a slot occurs, over the inputs in order, binds it; later ones must be equal."""

    name: str
    dtype: DType
    shape: tuple[int | Slot, ...]
    site: str | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output. Its shape is computed by the program."""

    name: str
    dtype: DType
    rank: int
    site: str | None = None


@dataclass(frozen=True, slots=True)
class ProgramSignature:
    """All that a caller must know about a program.

    `guards` holds the message of each guard, `checks` that of each status slot, in which ``{position}`` stands for
    the bad position found. `slot_names` says what to call a slot in messages, and `index_guards` are the numbers of the
    guards that stand for an index in its axis. `fails_early`: a run that fails has not written to its outputs.
    `shares`: there are loops that workers may share.
    """

    measure: str
    run: str
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[OutputSpec, ...]
    n_slots: int = 0
    n_status: int = 0
    guards: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    slot_names: tuple[str, ...] = ()
    index_guards: tuple[int, ...] = ()
    fails_early: bool = False
    shares: bool = False

    def __post_init__(self) -> None:
        bound = self.bound_slots()
        if set(bound) != set(range(len(bound))):
            raise CompilerBug(f"the inputs of {self.run} bind the slots {bound}, not the first {len(bound)}")
        if len(bound) > self.n_slots or len(self.slot_names) not in (0, self.n_slots):
            raise CompilerBug(f"{self.run} has {self.n_slots} slots, but binds {bound} and names {self.slot_names}")
        if len(self.checks) != self.n_status:
            raise CompilerBug(f"{self.run} has {self.n_status} status slots and {len(self.checks)} messages for them")

    def bound_slots(self) -> list[int]:
        """Return the slots that the inputs bind, in the order in which they do."""
        return list(dict.fromkeys(d.number for x in self.inputs for d in x.shape if isinstance(d, Slot)))

    @property
    def writes_aside(self) -> bool:
        """Whether results go to fresh arrays first, so that those the caller gives are untouched where a run fails."""
        return self.n_status > 0 and not self.fails_early

    @property
    def n_sizes(self) -> int:
        """The number of words that ``measure`` writes."""
        return SIZES_SHAPES + sum(y.rank for y in self.outputs)

    @property
    def watched(self) -> str:
        """The symbol of the function that runs the program without the GIL and looks for signals."""
        return f"{self.run}.watched"

    @property
    def entry(self) -> str:
        """The symbol of the compiled Python entry, if the program comes with one."""
        return f"{self.run}.entry"

    def output_shape_offsets(self) -> Iterator[int]:
        """Yield where in the sizes the shape of each output begins."""
        offset = SIZES_SHAPES
        for y in self.outputs:
            yield offset
            offset += y.rank

    def slot_name(self, number: int) -> str:
        return self.slot_names[number] if self.slot_names else f"d{number}"

    def show_shape(self, shape: tuple[int | Slot, ...]) -> str:
        """Return a declared shape as messages show it: ``(batch, 64)``."""
        dims = [self.slot_name(d.number) if isinstance(d, Slot) else str(d) for d in shape]
        return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"


#: Words of the sizes that `measure` writes.
SIZES_ARENA, SIZES_WORK, SIZES_SHAPES = 0, 1, 2

#: Above this estimate of work (ns) the GIL is released around a run: giving it up and taking it back costs 40 ns when
#: nobody else wants it and up to a switch interval when somebody does.
GIL_RELEASE_WORK = 10_000


#: Memory of so many bytes the C library takes from the system and gives back at once (glibc's greatest
#: M_MMAP_THRESHOLD): for results from here on `runtime.arenas` keeps it when the caller drops them.
RECYCLE_FROM = 32 << 20

#: What `run` returns when it was told to stop.
STOPPED = -1


class Watch(ctypes.Structure):
    """What a run asks whether to stop: `look` is called with the address of the watch; a result but 0 means stop.

    The other words belong to `look`. This is the one of ``run.watched``: what it needs, the thread state that it has
    put aside, and when it last looked for signals, in nanoseconds.
    """

    _fields_ = (
        ("look", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
        ("thread", ctypes.c_void_p),
        ("last", ctypes.c_int64),
    )


#: Signals are looked for so many nanoseconds apart: taking the GIL may mean to wait for who has it (5 ms).
SIGNAL_INTERVAL = 25_000_000


class ArenaSlot(ctypes.Structure):
    """The arena that a session lends to its compiled entries.

    Each side sets its own `busy` word and then looks at the other's; whoever finds the other's set steps back and takes
    the slower way. Both do so while they hold the GIL, which makes every single access atomic.
    """

    _fields_ = (
        ("base", ctypes.c_void_p),
        ("nbytes", ctypes.c_int64),
        ("python_busy", ctypes.c_int64),
        ("native_busy", ctypes.c_int64),
    )


class ProgramState(ctypes.Structure):
    """Whether a program was closed, how many compiled entries are inside it without the GIL, and in how many runs of
    the main thread a signal handler is at work right now: that many lie below it on its stack.
    """

    _fields_ = (("closed", ctypes.c_int64), ("native_running", ctypes.c_int64), ("handling", ctypes.c_int64))


class Process(ctypes.Structure):
    """What changes when the process forks: the identity of its main thread, the only one that handles signals."""

    _fields_ = (("main_thread", ctypes.c_uint64),)


def entry_dtypes() -> tuple[DType, ...]:
    """Return the dtypes whose numpy descriptors this process has; the words of the others stay zero."""
    return tuple(d for d in ALL if d.np is not None)


CONTEXT_WORDS = (
    # the program and its owner
    "measure",
    "run",
    "watched",
    "consts",
    "workers",  # a number
    "team",  # 0 for one worker
    "arena_slot",
    "program_state",
    # what the entry falls back to, and the structure of its result
    "fallback",
    "container_type",  # list, tuple, or 0 for a bare array
    "container_new",
    "container_size",
    "container_get",
    "container_set",
    # objects
    "none",
    "out_name",
    "ndarray_type",
    # CPython and numpy functions
    "tuple_size",
    "tuple_get",
    "vectorcall",
    "incref",
    "decref",
    "err_clear",
    "save_thread",
    "restore_thread",
    "array_empty",
    "copy_memory",
    # what a long run needs to look for signals
    "process",
    "thread_ident",
    "check_signals",
    "clock_gettime",  # 0 where there is none
    "clock",  # its first argument: the monotonic clock
    *(f"descr_{d.name}" for d in ALL),
)


class EntryContext(ctypes.Structure):
    """Everything of this process that a compiled entry uses: addresses only, all set before it is first called."""

    _fields_ = tuple((word, ctypes.c_void_p) for word in CONTEXT_WORDS)


def offset_of(struct: type[ctypes.Structure], field: str) -> int:
    """Return the byte offset of `field`: for the code that reads what ctypes has written."""
    return int(getattr(struct, field).offset)


#: Where CPython (64 bit, with a GIL) and numpy 2 keep what the entry reads, as byte offsets into the object. The first
#: two words of every object are its reference count and its type; `runtime.entry.probe` compares all of them with
#: objects whose contents it knows before any entry is called.
OBJECT_TYPE = 8
ARRAY_DATA, ARRAY_NDIM, ARRAY_DIMS, ARRAY_DESCR, ARRAY_FLAGS = 16, 24, 32, 56, 64

#: Bits of an array's flags.
FLAG_C_CONTIGUOUS, FLAG_ALIGNED, FLAG_WRITEABLE, FLAG_WARN_ON_WRITE = 0x1, 0x100, 0x400, 0x80000000
