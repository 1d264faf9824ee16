"""A loaded program in, a Python callable out: positional arrays, ``out=``, fresh results or those given.

There are two entries with one behaviour. :class:`PortableEntry` is Python and ctypes; it accepts every feed and knows
every error. The compiled entry (its code comes with the program, see `lowering.native`) takes the usual call in a
tenth of a microsecond and hands every other one to the portable entry. :func:`make_entry` chooses: the compiled one
where :func:`probe` finds that this interpreter and this numpy lay out their objects as that code assumes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import keyword
import math
import os
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from jitflow.errors import (
    ClosedError,
    CompileError,
    CompilerBug,
    FeedError,
    FeedIndexError,
    FeedTypeError,
    IndexRangeError,
    JitflowError,
    OutOfMemoryError,
    at_site,
)
from runtime import abi
from runtime.abi import EntryContext, OutputSpec, Process, ProgramSignature, ProgramState, Slot
from runtime.arenas import ArenaPool
from runtime.buffers import (
    Array,
    canonicalize,
    check_out,
    check_outs_apart,
    copy_array,
    is_plain,
    part_overlaps,
)
from runtime.cpu import LoadedCode
from runtime.threads import Team

Entry: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Structure:
    """How results are handed over: one array, a list or tuple of them, or a dict under `keys`."""

    kind: Literal["array", "list", "tuple", "dict"]
    keys: tuple[Hashable, ...] = ()


ARRAY, LIST, TUPLE = Structure("array"), Structure("list"), Structure("tuple")

_programs: weakref.WeakSet[LoadedProgram] = weakref.WeakSet()


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One run under way, and the thread it is in."""

    thread: int


class LoadedProgram:
    """A program in memory with the constants that it reads, and the team that helps to run it."""

    def __init__(
        self, signature: ProgramSignature, code: LoadedCode, consts: Sequence[Array] = (), team: Team | None = None
    ) -> None:
        for const in consts:
            if not is_plain(const):
                raise CompilerBug(f"a constant of {signature.run} is not contiguous, aligned and in native byte order")
        self.signature = signature
        self.code = code
        self.team, self.workers = team, 1 if team is None else team.helpers + 1
        self.consts = tuple(consts)
        self.measure = code.address(signature.measure)
        self.run = code.address(signature.run)
        self.const_table = _pointers(self.consts)
        self.state = ProgramState()
        self._lock = threading.Lock()
        self._running: list[_Run] = []
        _programs.add(self)

    @property
    def closed(self) -> bool:
        return bool(self.state.closed)

    def check_open(self) -> None:
        if self.state.closed:
            raise ClosedError("the session is closed")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Mark a run of this thread, for which :meth:`close` waits."""
        run = _Run(threading.get_ident())
        # Ctrl-C may raise between any two lines: what is put in is taken out.
        try:
            with self._lock:
                self.check_open()
                self._running.append(run)
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._running.remove(run)

    def close(self) -> None:
        """Refuse further runs, wait for those under way, let go of the constants.

        The code itself stays as long as an entry that leads to it.
        """
        me = threading.get_ident()
        with self._lock:
            self.state.closed = 1
            # A signal handler or a finaliser may close the session in the middle of a run of the same thread, which
            # must not wait for it.
            if any(run.thread == me for run in self._running) or (self.state.handling and me == _process.main_thread):
                return
        # Compiled entries do not notify anyone when they leave; runs are short and closing is rare.
        while self._running or self.state.native_running:
            time.sleep(0.0005)
        self.consts = ()

    def _forget_other_threads(self, was_main: bool) -> None:
        """In a forked child: nobody else is running any more."""
        self._lock = threading.Lock()
        self._running = [run for run in self._running if run.thread == threading.get_ident()]
        # The main thread may have forked in a signal handler, and goes back to its runs when that returns.
        self.state.handling *= was_main
        self.state.native_running = min(self.state.native_running, self.state.handling)


#: The thread that imports this is the main one, or knows which it is.
_process = Process(threading.main_thread().ident or 0)


def _after_fork_in_child() -> None:
    me = threading.get_ident()
    was_main = me == _process.main_thread
    _process.main_thread = me
    for program in list(_programs):
        program._forget_other_threads(was_main)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# ---------------------------------------------------------------------------------------------------------------------
# The portable entry

_MEASURE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_RUN = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 8)
#: Keeps the GIL, which the function gives away itself, and raises what the function has left as the current exception.
_RUN_WATCHED = ctypes.PYFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 7)


def _pointers(arrays: Sequence[Array]) -> ctypes.Array[ctypes.c_void_p]:
    """Return the table of the data pointers of `arrays`, which the caller keeps alive."""
    return (ctypes.c_void_p * max(len(arrays), 1))(*[a.__array_interface__["data"][0] for a in arrays])


class PortableEntry:
    """The entry that takes every feed, and says exactly what is wrong with those that it cannot take."""

    def __init__(self, program: LoadedProgram, structure: Structure, arena: ArenaPool, name: str = "function") -> None:
        n = len(program.signature.outputs)
        if (structure.kind == "array" and n != 1) or (structure.kind == "dict" and len(structure.keys) != n):
            raise CompilerBug(f"{n} outputs do not fit the structure {structure}")
        self.program = program
        self.structure = structure
        self.arena = arena
        self.__name__ = self.__qualname__ = name
        self.__doc__ = _describe(program.signature)
        self._measure = _MEASURE(program.measure)
        self._run, self._context = _run_of(program)

    def __repr__(self) -> str:
        return f"<jitflow function {self.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if kwargs:
            raise TypeError(f"{self.__name__}() got an unexpected keyword argument {next(iter(kwargs))!r}")
        inputs = self.program.signature.inputs
        if len(args) != len(inputs):
            takes = f"{len(inputs)} positional argument{'s' * (len(inputs) != 1)}"
            names = f" ({', '.join(x.name for x in inputs)})" if inputs else ""
            given = f"{len(args)} {'was' if len(args) == 1 else 'were'}"
            raise TypeError(f"{self.__name__}() takes {takes}{names} but {given} given")
        if out is not None:
            self.run_arrays(args, self._split(out))
            return out
        arrays = self.run_arrays(args)
        match self.structure.kind:
            case "array":
                return arrays[0]
            case "list":
                return arrays
            case "tuple":
                return tuple(arrays)
            case "dict":
                return dict(zip(self.structure.keys, arrays, strict=True))

    def run_arrays(self, inputs: Sequence[object], out: Sequence[object] | None = None) -> list[Array]:
        """Run once on `inputs`, any feeds, in the order of the signature; return the outputs, or the arrays of `out`.

        Nothing is written before every check has passed, and `out` only after the run has succeeded if it can fail.
        """
        signature = self.program.signature
        self.program.check_open()
        arrays = [canonicalize(x, spec, signature) for x, spec in zip(inputs, signature.inputs, strict=True)]
        dims = bind_dims(arrays, signature)
        sizes = (ctypes.c_int64 * signature.n_sizes)()
        failed = self._measure(dims, sizes, self.program.workers)
        if failed:
            raise _guard_error(failed - 1, arrays, signature)
        shapes = [
            tuple(sizes[at : at + y.rank])
            for y, at in zip(signature.outputs, signature.output_shape_offsets(), strict=True)
        ]
        targets: list[Array] | None = None
        if out is not None:
            targets = [check_out(a, y, shape) for a, y, shape in zip(out, signature.outputs, shapes, strict=True)]
            check_outs_apart(targets, signature.outputs)
        with self.program.running(), self.arena.lease(sizes[abi.SIZES_ARENA]) as scratch:
            results: list[Array] = []
            for k, (y, shape) in enumerate(zip(signature.outputs, shapes, strict=True)):
                in_place = targets is not None and not signature.writes_aside and is_plain(targets[k])
                results.append(targets[k] if targets is not None and in_place else self._make_output(y, shape))
            if targets is not None:
                arrays = part_overlaps(arrays, [r for r, t in zip(results, targets, strict=True) if r is t])
            status = (ctypes.c_int64 * max(signature.n_status, 1))()
            consts = self.program.const_table
            tables = (_pointers(arrays), _pointers(results), consts, scratch, dims, status)
            failed = self._run(*tables, *self._context)
            if failed:
                raise IndexRangeError(signature.checks[failed - 1].replace("{position}", str(status[failed - 1])))
            if targets is None:
                return results
            for target, result in zip(targets, results, strict=True):
                if result is not target:
                    copy_array(target, result)
            return targets

    def _make_output(self, spec: OutputSpec, shape: tuple[int, ...]) -> Array:
        try:
            return self.arena.result(shape, spec.dtype)
        except (MemoryError, ValueError):
            nbytes = math.prod(shape) * spec.dtype.itemsize
            message = f"output {spec.name!r} of shape {shape} needs {nbytes} bytes"
            raise OutOfMemoryError(at_site(message, spec.site)) from None

    def _split(self, out: object) -> Sequence[object]:
        """Return the arrays in `out`, which mirrors the structure of the results."""
        n = len(self.program.signature.outputs)
        match self.structure.kind:
            case "array":
                return [out]
            case "list" | "tuple" as kind:
                if type(out) is (list if kind == "list" else tuple) and len(out) == n:
                    return list(out)
                expected = f"a {kind} of {n} arrays"
            case "dict":
                if isinstance(out, dict) and out.keys() == set(self.structure.keys):
                    return [out[k] for k in self.structure.keys]
                expected = f"a dict with the keys {list(self.structure.keys)}"
        given = f"a {type(out).__name__}" + (f" of {len(out)}" if isinstance(out, (list, tuple, dict)) else "")
        raise FeedTypeError(f"out must be {expected}, as the results are, not {given}")


def _run_of(program: LoadedProgram) -> tuple[Any, tuple[ctypes.Array[EntryContext] | None, ...]]:
    """Return how to run `program`, and the last arguments for it: watched, where Python has the functions for it."""
    if program.signature.watched not in program.code or not hasattr(ctypes, "pythonapi"):
        return _RUN(program.run), (None, None)
    context = (EntryContext * 1)(EntryContext(**_program_words(program)))
    return _RUN_WATCHED(program.code.address(program.signature.watched)), (context,)


def bind_dims(arrays: Sequence[Array], signature: ProgramSignature) -> ctypes.Array[ctypes.c_int64]:
    """Return the dims with the slots that the shapes of `arrays` bind; FeedError if they contradict each other."""
    dims = (ctypes.c_int64 * max(signature.n_slots, 1))()
    bound_by: dict[int, tuple[str, int]] = {}
    for array, spec in zip(arrays, signature.inputs, strict=True):
        for axis, (size, declared) in enumerate(zip(array.shape, spec.shape, strict=True)):
            if not isinstance(declared, Slot):
                continue
            first, bound = bound_by.setdefault(declared.number, (spec.name, size))
            if size != bound:
                message = (
                    f"input {spec.name!r} takes {spec.dtype.name} of shape {signature.show_shape(spec.shape)}, "
                    f"got shape {array.shape}: axis {axis} is {size}, "
                    f"but {signature.slot_name(declared.number)} is {bound} in input {first!r}"
                )
                raise FeedError(at_site(message, spec.site))
            dims[declared.number] = size
    return dims


def _guard_error(guard: int, arrays: Sequence[Array], signature: ProgramSignature) -> JitflowError:
    shapes = ", ".join(f"{x.name!r} {a.shape}" for x, a in zip(signature.inputs, arrays, strict=True))
    if guard == len(signature.guards):
        return OutOfMemoryError(f"results or intermediate results need 2**63 bytes or more; given: {shapes}")
    # The place in the user's code stays at the end.
    message, at, site = signature.guards[guard].partition("\n  at ")
    error = FeedIndexError if guard in signature.index_guards else FeedError
    return error(f"{message}\n  given: {shapes}{at}{site}")


def _describe(signature: ProgramSignature) -> str:
    def show(name: str, dtype: object, shape: str) -> str:
        return f"    {name}: {dtype} {shape}"

    inputs = [show(x.name, x.dtype, signature.show_shape(x.shape)) for x in signature.inputs]
    outputs = [show(y.name, y.dtype, f"with {y.rank} axes") for y in signature.outputs]
    return "\n".join(["Run the compiled graph.", "", "Inputs:", *inputs, "Outputs:", *outputs])


# ---------------------------------------------------------------------------------------------------------------------
# The compiled entry


def make_entry(
    program: LoadedProgram,
    structure: Structure | Literal["array", "list", "tuple"],
    *,
    arena: ArenaPool,
    name: str = "function",
    native: bool | None = None,
) -> Entry:
    """Return the callable for `program`: the compiled entry if possible (with `native`, or else CompileError)."""
    if not isinstance(structure, Structure):
        structure = Structure(structure)
    portable = PortableEntry(program, structure, arena, name)
    if native is False:
        return portable
    reason, signature = probe(), program.signature
    if reason is None and any(s not in program.code for s in (signature.entry, signature.watched)):
        reason = "the program was compiled without one"
    dtypes = [x.dtype for x in signature.inputs] + [y.dtype for y in signature.outputs]
    if reason is None and not set(dtypes).issubset(abi.entry_dtypes()):
        reason = "numpy has no arrays of one of its dtypes"
    if reason is None and structure.kind == "dict":
        reason = "results in a dict are put together in Python"
    if reason is None:
        return _native_entry(portable)
    if native:
        raise CompileError(f"no compiled entry for {name}: {reason}")
    return portable


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FASTCALL_WITH_KEYWORDS = 0x80 | 0x02


class NativeContext(np.ndarray[Any, Any]):
    """``self`` of a compiled entry: the bytes of its EntryContext. `owned` lives as long as the entry does."""

    owned: tuple[object, ...]


def _native_entry(portable: PortableEntry) -> Entry:
    program = portable.program
    container = {"array": None, "list": list, "tuple": tuple}[portable.structure.kind]
    api = ctypes.pythonapi
    prefix = "PyTuple" if container is tuple else "PyList"
    out_name = sys.intern("out")
    words: dict[str, Any] = {
        **_program_words(program),
        "arena_slot": ctypes.addressof(portable.arena.slot),
        "fallback": id(portable),
        "container_type": None if container is None else id(container),
        "container_new": _address(getattr(api, f"{prefix}_New")),
        "container_size": _address(getattr(api, f"{prefix}_Size")),
        "container_get": _address(getattr(api, f"{prefix}_GetItem")),
        "container_set": _address(getattr(api, f"{prefix}_SetItem")),
        "none": id(None),
        "out_name": id(out_name),
        **_array_words(),
    }
    context = EntryContext(**words)
    name = portable.__name__.encode()
    doc = (_text_signature(portable) + (portable.__doc__ or "")).encode()
    method = _MethodDef(name, program.code.address(program.signature.entry), _FASTCALL_WITH_KEYWORDS, doc)
    receiver = _receiver(context)
    receiver.owned = (portable, program.code, method, name, doc, out_name)
    return _new_function(ctypes.byref(method), receiver, None)  # type: ignore[no-any-return]


def _receiver(context: EntryContext) -> NativeContext:
    receiver = np.frombuffer(memoryview(context).cast("B"), np.uint8).view(NativeContext)
    receiver.setflags(write=False)
    return receiver


def _program_words(program: LoadedProgram) -> dict[str, Any]:
    """Return the words of the context that say how to run `program`."""
    return {
        "measure": program.measure,
        "run": program.run,
        "watched": program.code.address(program.signature.watched),
        "consts": ctypes.addressof(program.const_table),
        "workers": program.workers,
        "team": None if program.team is None else ctypes.addressof(program.team),
        "program_state": ctypes.addressof(program.state),
        **_thread_words(),
    }


@functools.cache
def _thread_words() -> dict[str, int]:
    """Return the words with which a run gives up the GIL and looks for signals."""
    api = ctypes.pythonapi
    words = {
        "save_thread": _address(api.PyEval_SaveThread),
        "restore_thread": _address(api.PyEval_RestoreThread),
        "process": ctypes.addressof(_process),
        "thread_ident": _address(api.PyThread_get_thread_ident),
        "check_signals": _address(api.PyErr_CheckSignals),
    }
    if hasattr(time, "CLOCK_MONOTONIC"):
        words |= {"clock_gettime": _address(ctypes.CDLL(None).clock_gettime), "clock": time.CLOCK_MONOTONIC}
    return words


@functools.cache
def _array_words() -> dict[str, int]:
    """Return the words with which an entry handles objects."""
    api = ctypes.pythonapi
    words = {
        "ndarray_type": id(np.ndarray),
        "tuple_size": _address(api.PyTuple_Size),
        "tuple_get": _address(api.PyTuple_GetItem),
        "vectorcall": _address(api.PyObject_Vectorcall),
        "incref": _address(api.Py_IncRef),
        "decref": _address(api.Py_DecRef),
        "err_clear": _address(api.PyErr_Clear),
        "array_empty": _numpy_api()[_API_EMPTY],
        "copy_memory": _address(ctypes.memmove),
    }
    for dtype in abi.entry_dtypes():
        # numpy's built-in descriptors are single objects that live for ever.
        words[f"descr_{dtype.name}"] = id(np.empty(0, dtype.np).dtype)
    return words


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def _text_signature(portable: PortableEntry) -> str:
    """Return the line of the docstring from which `inspect.signature` reads the parameters, if it can."""
    names = [x.name for x in portable.program.signature.inputs]
    usable = [n for n in names if n.isidentifier() and not keyword.iskeyword(n) and n not in ("self", "out")]
    if usable != names or len(set(names)) != len(names) or not portable.__name__.isidentifier():
        return ""
    parameters = ["$self", *names, "/", "*", "out=None"]
    return f"{portable.__name__}({', '.join(parameters)})\n--\n\n"


# The table of numpy's C functions: its first entry gives the version of the layout, which fixes the other two.
_API_VERSION, _API_NDARRAY_TYPE, _API_EMPTY = 0, 2, 184


@functools.cache
def _numpy_api() -> ctypes.Array[ctypes.c_size_t]:
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    get = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))
    table = get(np._core._multiarray_umath._ARRAY_API, None)  # type: ignore[attr-defined]
    return (ctypes.c_size_t * (_API_EMPTY + 1)).from_address(table)


@functools.cache
def probe() -> str | None:
    """Say why compiled entries cannot be used in this process, or return None if they can.

    Everything they assume about the layout of objects is compared with objects whose contents are known, by reading
    inside the memory that those objects own. No assumption is used before it was checked, so a strange interpreter
    gets the portable entry instead of a crash.
    """
    if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
        return f"it is made for CPython 3.11 to 3.14, not {sys.implementation.name} {sys.version.split()[0]}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it needs the GIL"
    if ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return "it needs a 64-bit little-endian machine"
    if int(np.__version__.split(".")[0]) < 2:
        return f"it needs numpy 2, not {np.__version__}"
    if object.__basicsize__ != abi.ARRAY_DATA or np.ndarray.__basicsize__ < abi.ARRAY_FLAGS + 8:
        return f"objects have an unknown layout (headers of {object.__basicsize__} bytes)"
    for dtype in abi.entry_dtypes():
        wide = np.zeros((3, 4, 5), dtype.np)
        # Contiguous and not, writable and not, 0-d, empty, unaligned, offset into another array.
        views = [wide, wide[1:, :, ::2], wide.T, wide[0, 0, 0, ...], wide[:0], np.zeros(9, np.uint8)[1:].view()]
        views.append(np.frombuffer(bytes(8 * wide.itemsize), dtype.np))
        if wide.itemsize > 1:
            views.append(np.frombuffer(bytes(2 * wide.itemsize), dtype.np, count=1, offset=1))
        for array in views:
            wrong = _probe_array(array)
            if wrong:
                return f"numpy arrays have an unknown layout ({wrong} of {dtype.name})"
        if wide.dtype is not np.dtype(dtype.np):
            return f"numpy has several descriptors of {dtype.name}"
    table = _numpy_api()
    version = ctypes.PYFUNCTYPE(ctypes.c_uint)(table[_API_VERSION])()
    if version >> 24 != 2 or table[_API_NDARRAY_TYPE] != id(np.ndarray):
        return f"numpy has an unknown C interface (version {version:#x})"
    context = EntryContext()
    if _word(_receiver(context), abi.ARRAY_DATA) != ctypes.addressof(context):
        return "subclasses of ndarray have an unknown layout"
    return None


def _probe_array(array: Array) -> str | None:
    """Return the name of the first field of `array` that is not where compiled entries look for it."""
    if _word(array, abi.OBJECT_TYPE) != id(type(array)):
        return "the type"
    if _word(array, abi.ARRAY_DATA) != array.__array_interface__["data"][0]:
        return "the data"
    if ctypes.c_int32.from_address(id(array) + abi.ARRAY_NDIM).value != array.ndim:
        return "the rank"
    if _word(array, abi.ARRAY_DESCR) != id(array.dtype):
        return "the descriptor"
    flags = ctypes.c_uint32.from_address(id(array) + abi.ARRAY_FLAGS).value
    expected = (
        array.flags.c_contiguous * abi.FLAG_C_CONTIGUOUS
        + array.flags.aligned * abi.FLAG_ALIGNED
        + array.flags.writeable * abi.FLAG_WRITEABLE
    )
    if flags & (abi.FLAG_C_CONTIGUOUS | abi.FLAG_ALIGNED | abi.FLAG_WRITEABLE) != expected or flags != array.flags.num:
        return "the flags"
    # The dims are a second block of memory; their strides follow them. Only a pointer that also sits where the strides
    # would have to be (dims + rank) is followed.
    dims, strides = _word(array, abi.ARRAY_DIMS), _word(array, abi.ARRAY_DIMS + 8)
    if array.ndim and strides != dims + 8 * array.ndim:
        return "the dims"
    if array.ndim and tuple((ctypes.c_int64 * array.ndim).from_address(dims)) != array.shape:
        return "the dims"
    return None


def _word(x: object, offset: int) -> int:
    return ctypes.c_size_t.from_address(id(x) + offset).value


_new_function: Any = None
if sys.implementation.name == "cpython":
    _new_function = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
