"""ProgramSignature in, LLVM text of what stands between Python and the program out.

:func:`emit_watched` gives the function that runs the program without the GIL and looks for signals meanwhile;
:func:`emit_entry` the entry, which CPython calls directly.

The entry is a ``METH_FASTCALL | METH_KEYWORDS`` function ``(self, args, nargs, kwnames)``. It does what
`runtime.entry.PortableEntry` does, for the usual call only: exact ndarrays of the declared dtypes that lie plainly in
memory, ``out=`` absent or just as plain. For everything else – another type, a mismatch, an arena that is too small or
taken, an error reported by the program – it calls that portable entry with the arguments it was given, which repeats
all checks at leisure and raises the exact error. So nothing here makes an exception.

    arguments -> checked, sizes bound -> measure -> outputs made or checked -> run -> result
         \\________________\\______________\\___________\\____________\\___-> fallback(same arguments)

The texts use no symbol but their own and have no address in them: what belongs to the process comes from the
`runtime.abi.EntryContext`, which the entry finds behind ``self``. They hold only definitions, so they may be compiled
alone or be appended to the module of their program.
"""

from __future__ import annotations

import ctypes

from jitflow.dtypes import DType
from lowering.plan_llvm import DEFAULT_MXCSR
from runtime import abi
from runtime.abi import (
    ArenaSlot,
    EntryContext,
    OutputSpec,
    Process,
    ProgramSignature,
    ProgramState,
    Slot,
    Watch,
    offset_of,
)

#: More arrays than this, and the time to check them matters less than the stack and code they need.
MAX_ARRAYS = 128
#: More words than this on the stack of the entry, and the portable entry is used (8 KiB, half of what a frame may be).
MAX_STACK_WORDS = 1024
#: ``out=`` needs every output compared with every input; beyond so many pairs that is left to the portable entry.
MAX_PAIRS = 128

_PLAIN = abi.FLAG_C_CONTIGUOUS | abi.FLAG_ALIGNED
_WRITABLE = _PLAIN | abi.FLAG_WRITEABLE


def can_emit(signature: ProgramSignature) -> bool:
    """Say whether `signature` is within what an entry can do."""
    dtypes = [x.dtype for x in signature.inputs] + [y.dtype for y in signature.outputs]
    words = 3 * len(dtypes) + signature.n_slots + signature.n_sizes + signature.n_status
    return len(dtypes) <= MAX_ARRAYS and words <= MAX_STACK_WORDS and all(d in abi.entry_dtypes() for d in dtypes)


def emit_entry(signature: ProgramSignature) -> str:
    """Return the definition of ``@"{signature.entry}"``. Needs :func:`can_emit`."""
    return _Entry(signature).emit()


def emit_watched(signature: ProgramSignature, *, x86: bool) -> str:
    """Return the definition of ``@"{signature.watched}"`` and of the two functions it uses; see `runtime.abi`.

    It needs no more than a :class:`runtime.abi.EntryContext`: the portable entry calls it as well.
    """
    return "\n".join([_emit_clock(signature), _emit_look(signature, x86), _emit_watched(signature)])


def _emit_clock(signature: ProgramSignature) -> str:
    """Return the function that tells the time in nanoseconds; 0 on a system without the clock."""
    w = _Writer()
    w.do("%time = alloca [2 x i64], align 16")
    gettime = w.context("clock_gettime")
    w.require(w.let(f"icmp ne ptr {gettime}, null"), "none")
    number = w.let(f"ptrtoint ptr {w.context('clock')} to i32")
    w.do(f"call i32 {gettime}(i32 {number}, ptr %time)")
    seconds = w.let(f"mul i64 {w.load('i64', '%time')}, 1000000000")
    now = w.let(f"add i64 {seconds}, {w.load('i64', '%time', 8)}")
    w.do(f"ret i64 {now}")
    w.label("none")
    w.do("ret i64 0")
    return w.function(f'internal i64 @"{signature.run}.clock"(ptr %context)')


def _emit_look(signature: ProgramSignature, x86: bool) -> str:
    """Return the function that runs Python's signal handlers; it returns something else than 0 if one has raised."""
    w = _Writer()
    if x86:
        w.do("%default = alloca i32")
        w.do(f"store i32 {DEFAULT_MXCSR}, ptr %default")
    w.do(f"%context = load ptr, ptr {w.at('%watch', offset_of(Watch, 'context'))}")
    clock = f'call i64 @"{signature.run}.clock"(ptr %context)'
    now = w.let(clock)
    gap = w.let(f"sub i64 {now}, {w.load('i64', '%watch', offset_of(Watch, 'last'))}")
    is_due = w.let(f"icmp uge i64 {gap}, {abi.SIGNAL_INTERVAL}")
    is_timeless = w.equal("i64", now, 0)
    w.require(w.let(f"or i1 {is_due}, {is_timeless}"), "early")
    w.call("void", "restore_thread", f"ptr {w.load('ptr', '%watch', offset_of(Watch, 'thread'))}")
    handling = w.at(w.context("program_state"), offset_of(ProgramState, "handling"))
    w.store("i64", w.let(f"add i64 {w.load('i64', handling)}, 1"), handling)
    answer = w.call("i32", "check_signals")
    w.store("i64", w.let(f"sub i64 {w.load('i64', handling)}, 1"), handling)
    w.store("ptr", w.call("ptr", "save_thread"), "%watch", offset_of(Watch, "thread"))
    w.store("i64", w.let(clock), "%watch", offset_of(Watch, "last"))
    if x86:
        # A handler may have changed it.
        w.do("call void @llvm.x86.sse.ldmxcsr(ptr %default)")
    w.do(f"ret i32 {answer}")
    w.label("early")
    w.do("ret i32 0")
    return w.function(f'internal i32 @"{signature.run}.look"(ptr %watch)')


def _emit_watched(signature: ProgramSignature) -> str:
    w = _Writer()
    w.do(f"%watch = alloca [{ctypes.sizeof(Watch)} x i8], align 16")
    w.store("ptr", f'@"{signature.run}.look"', "%watch", offset_of(Watch, "look"))
    w.store("ptr", "%context", "%watch", offset_of(Watch, "context"))
    w.store("i64", w.let(f'call i64 @"{signature.run}.clock"(ptr %context)'), "%watch", offset_of(Watch, "last"))
    # Python handles signals in the main thread only.
    main = w.load("i64", w.context("process"), offset_of(Process, "main_thread"))
    is_main = w.equal("i64", w.call("i64", "thread_ident"), main)
    lent = w.let(f"select i1 {is_main}, ptr %watch, ptr null")
    w.store("ptr", w.call("ptr", "save_thread"), "%watch", offset_of(Watch, "thread"))
    tables = "ptr %inputs, ptr %outputs, ptr %consts, ptr %arena, ptr %dims, ptr %status"
    code = w.call("i32", "run", tables, f"ptr {lent}", f"ptr {w.context('team')}")
    w.call("void", "restore_thread", f"ptr {w.load('ptr', '%watch', offset_of(Watch, 'thread'))}")
    w.do(f"ret i32 {code}")
    return w.function(f'i32 @"{signature.watched}"({tables}, ptr %context)')


class _Writer:
    """The text of a function, growing line by line. Needs ``%context``, the address of an EntryContext."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    # -- text ----------------------------------------------------------------------------------------------------------

    def let(self, value: str) -> str:
        self.count += 1
        self.lines.append(f"  %v{self.count} = {value}")
        return f"%v{self.count}"

    def do(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def at(self, base: str, offset: int) -> str:
        return self.let(f"getelementptr i8, ptr {base}, i64 {offset}") if offset else base

    def load(self, type_: str, base: str, offset: int = 0) -> str:
        return self.let(f"load {type_}, ptr {self.at(base, offset)}")

    def store(self, type_: str, value: str, base: str, offset: int = 0) -> None:
        self.do(f"store {type_} {value}, ptr {self.at(base, offset)}")

    def context(self, word: str) -> str:
        return self.load("ptr", "%context", offset_of(EntryContext, word))

    def descr(self, dtype: DType) -> str:
        return self.context(f"descr_{dtype.name}")

    def both(self, *conditions: str) -> str:
        result = conditions[0]
        for c in conditions[1:]:
            result = self.let(f"and i1 {result}, {c}")
        return result

    def require(self, condition: str, otherwise: str) -> None:
        """Go on if `condition` holds, else jump to the label `otherwise`."""
        self.count += 1
        self.do(f"br i1 {condition}, label %l{self.count}, label %{otherwise}")
        self.label(f"l{self.count}")

    def equal(self, type_: str, a: str, b: str | int) -> str:
        return self.let(f"icmp eq {type_} {a}, {b}")

    def call(self, type_: str, word: str, *args: str) -> str:
        """Call the function at `word` of the context; return its result, if it has one."""
        call = f"call {type_} {self.context(word)}({', '.join(args)})"
        if type_ == "void":
            self.do(call)
            return ""
        return self.let(call)

    def function(self, head: str) -> str:
        """Return the definition of the function with this head."""
        # Without optimisation it compiles in a third of the time (2 ms for an entry) and takes 2 ns more per call.
        body = "\n".join(self.lines)
        return f"define {head} nounwind noinline optnone {{\n{body}\n}}\n"


class _Entry(_Writer):
    """The text of an entry. Labels: see the picture in :meth:`emit`."""

    def __init__(self, signature: ProgramSignature) -> None:
        super().__init__()
        self.signature = signature

    def emit(self) -> str:
        """Emit the blocks in the order of a usual call; those that it never reaches come last.

        ``decline`` falls back when nothing is owned yet; ``drop`` gives up the arrays in %owned and %given first.
        """
        s = self.signature
        out_by_copy = s.writes_aside
        self._reserve_stack()
        self._parse_keywords()
        self._check_inputs()
        arena = self._measure()
        for k in range(len(s.outputs)):
            self.store("ptr", "null", "%owned", 8 * k)
            self.store("ptr", "null", "%given", 8 * k)
        self.do("%is.fresh = icmp eq ptr %out, null")
        self.do("br i1 %is.fresh, label %fresh, label %into")
        self.label("into")
        self._take_out()
        self._check_out(apart_from_inputs=not out_by_copy)
        self.do(f"br label %{'fresh' if out_by_copy else 'ready'}")
        self.label("fresh")
        self._make_outputs()
        self.do("br label %ready")
        self.label("ready")
        self._run(arena)
        self.do("br i1 %is.fresh, label %wrap, label %written")
        self.label("written")
        if out_by_copy:
            self._copy_to_given()
        self._drop_references()
        self.call("void", "incref", "ptr %out")
        self.do("ret ptr %out")
        self.label("wrap")
        self._wrap_outputs()
        self._unusual_ends()
        return self.function(f'ptr @"{s.entry}"(ptr %self, ptr %args, i64 %nargs, ptr %kwnames)')

    def _reserve_stack(self) -> None:
        s = self.signature
        for name, type_, count in (
            ("inputs", "ptr", len(s.inputs)),
            ("outputs", "ptr", len(s.outputs)),
            ("owned", "ptr", len(s.outputs)),
            ("given", "ptr", len(s.outputs)),
            ("dims", "i64", s.n_slots),
            ("sizes", "i64", s.n_sizes),
            ("status", "i64", s.n_status),
            ("out.arg", "ptr", 1),
        ):
            self.do(f"%{name} = alloca [{max(count, 1)} x {type_}], align 16")
        self.do(f"%context.at = getelementptr i8, ptr %self, i64 {abi.ARRAY_DATA}")
        self.do("%context = load ptr, ptr %context.at")

    def _parse_keywords(self) -> None:
        """Count the arguments, and set %out to the array or container given as ``out=``, or to null."""
        n = len(self.signature.inputs)
        self.require(self.equal("i64", "%nargs", n), "decline")
        self.store("ptr", "null", "%out.arg")
        self.do(f"br i1 {self.equal('ptr', '%kwnames', 'null')}, label %positional, label %keywords")
        self.label("keywords")
        self.require(self.equal("i64", self.call("i64", "tuple_size", "ptr %kwnames"), 1), "decline")
        name = self.call("ptr", "tuple_get", "ptr %kwnames", "i64 0")
        # Keywords written in a call are interned; other spellings of the same text take the slow way.
        self.require(self.equal("ptr", name, self.context("out_name")), "decline")
        value = self.load("ptr", "%args", 8 * n)
        is_none = self.equal("ptr", value, self.context("none"))
        self.store("ptr", self.let(f"select i1 {is_none}, ptr null, ptr {value}"), "%out.arg")
        self.do("br label %positional")
        self.label("positional")
        self.do("%out = load ptr, ptr %out.arg")

    def _check_array(self, array: str, dtype: DType, rank: int, flags: int, otherwise: str) -> str:
        """Require a plain ndarray of `dtype` and `rank`; return the address of its dims (unusable for rank 0)."""
        # Only an ndarray is known to be as long as the fields read next.
        type_ = self.load("ptr", array, abi.OBJECT_TYPE)
        self.require(self.equal("ptr", type_, self.context("ndarray_type")), otherwise)
        descr = self.equal("ptr", self.load("ptr", array, abi.ARRAY_DESCR), self.descr(dtype))
        ndim = self.equal("i32", self.load("i32", array, abi.ARRAY_NDIM), rank)
        # numpy keeps C_CONTIGUOUS true to the strides, and lets axes of size 0 and 1 have any.
        bits = self.let(f"and i32 {self.load('i32', array, abi.ARRAY_FLAGS)}, {flags | abi.FLAG_WARN_ON_WRITE}")
        self.require(self.both(descr, ndim, self.equal("i32", bits, flags)), otherwise)
        return self.load("ptr", array, abi.ARRAY_DIMS) if rank else "null"

    def _check_inputs(self) -> None:
        """Require inputs that fit, fill %inputs and the bound part of %dims."""
        bound: dict[int, str] = {}
        for k, spec in enumerate(self.signature.inputs):
            array = self.load("ptr", "%args", 8 * k)
            dims = self._check_array(array, spec.dtype, len(spec.shape), _PLAIN, "decline")
            fits = []
            for axis, size in enumerate(spec.shape):
                given = self.load("i64", dims, 8 * axis)
                if not isinstance(size, Slot):
                    fits.append(self.equal("i64", given, size))
                elif size.number in bound:
                    fits.append(self.equal("i64", given, bound[size.number]))
                else:
                    bound[size.number] = given
                    self.store("i64", given, "%dims", 8 * size.number)
            if fits:
                self.require(self.both(*fits), "decline")
            self.store("ptr", self.load("ptr", array, abi.ARRAY_DATA), "%inputs", 8 * k)

    def _measure(self) -> str:
        """Call the program's `measure`; return the bytes of arena it needs."""
        workers = self.load("i64", "%context", offset_of(EntryContext, "workers"))
        failed = self.call("i32", "measure", "ptr %dims", "ptr %sizes", f"i64 {workers}")
        self.require(self.equal("i32", failed, 0), "decline")
        return self.load("i64", "%sizes", 8 * abi.SIZES_ARENA)

    def _take_out(self) -> None:
        """Fill %given with a reference to each array in %out. (References: a list may change while the GIL is free.)"""
        outputs = self.signature.outputs
        container = self.context("container_type")
        if len(outputs) == 1:
            self.do(f"br i1 {self.equal('ptr', container, 'null')}, label %into.array, label %into.container")
            self.label("into.array")
            self.store("ptr", "%out", "%given")
            self.call("void", "incref", "ptr %out")
            self.do("br label %taken")
            self.label("into.container")
        type_ = self.load("ptr", "%out", abi.OBJECT_TYPE)
        self.require(self.equal("ptr", type_, container), "drop")
        size = self.call("i64", "container_size", "ptr %out")
        self.require(self.equal("i64", size, len(outputs)), "drop")
        for k in range(len(outputs)):
            item = self.call("ptr", "container_get", "ptr %out", f"i64 {k}")
            self.store("ptr", item, "%given", 8 * k)
            self.call("void", "incref", f"ptr {item}")
        self.do("br label %taken")
        self.label("taken")

    def _check_out(self, apart_from_inputs: bool) -> None:
        """Require arrays in %given that the outputs may be written to, and fill %outputs with their memory."""
        s = self.signature
        n_pairs = len(s.outputs) * (len(s.outputs) - 1) // 2 + apart_from_inputs * len(s.outputs) * len(s.inputs)
        if n_pairs > MAX_PAIRS:
            self.require("false", "drop")
        written: list[tuple[str, str]] = []
        for k, (spec, shape) in enumerate(zip(s.outputs, s.output_shape_offsets(), strict=True)):
            array = self.load("ptr", "%given", 8 * k)
            dims = self._check_array(array, spec.dtype, spec.rank, _WRITABLE, "drop")
            nbytes = str(spec.dtype.itemsize)
            for axis in range(spec.rank):
                size = self.load("i64", "%sizes", 8 * (shape + axis))
                self.require(self.equal("i64", self.load("i64", dims, 8 * axis), size), "drop")
                nbytes = self.let(f"mul i64 {nbytes}, {size}")
            data = self.load("ptr", array, abi.ARRAY_DATA)
            for other in written:
                self._require_apart((data, nbytes), other)
            written.append((data, nbytes))
            self.store("ptr", data, "%outputs", 8 * k)
        if apart_from_inputs:
            for k, source in enumerate(s.inputs):
                nbytes = str(source.dtype.itemsize)
                for d in source.shape:
                    factor = self.load("i64", "%dims", 8 * d.number) if isinstance(d, Slot) else str(d)
                    nbytes = self.let(f"mul i64 {nbytes}, {factor}")
                data = self.load("ptr", "%inputs", 8 * k)
                for other in written:
                    self._require_apart((data, nbytes), other)

    def _require_apart(self, a: tuple[str, str], b: tuple[str, str]) -> None:
        """Require that two ranges of memory (start, bytes) have nothing in common."""
        (a_start, a_bytes), (b_start, b_bytes) = a, b
        a_end = self.let(f"getelementptr i8, ptr {a_start}, i64 {a_bytes}")
        b_end = self.let(f"getelementptr i8, ptr {b_start}, i64 {b_bytes}")
        a_first = self.let(f"icmp ule ptr {a_end}, {b_start}")
        b_first = self.let(f"icmp ule ptr {b_end}, {a_start}")
        self.require(self.let(f"or i1 {a_first}, {b_first}"), "drop")

    def _make_outputs(self) -> None:
        """Allocate the outputs: fill %owned with the arrays and %outputs with their memory.

        Large ones are left to the portable entry, which knows where earlier results were.
        """
        s = self.signature
        for k, (spec, shape) in enumerate(zip(s.outputs, s.output_shape_offsets(), strict=True)):
            nbytes = self._nbytes_of(spec, shape)
            self.require(self.let(f"icmp ult i64 {nbytes}, {abi.RECYCLE_FROM}"), "drop")
            descr = self.descr(spec.dtype)
            # PyArray_Empty keeps the reference to the descriptor, even when it fails.
            self.call("void", "incref", f"ptr {descr}")
            dims = self.at("%sizes", 8 * shape)
            array = self.call("ptr", "array_empty", f"i32 {spec.rank}", f"ptr {dims}", f"ptr {descr}", "i32 0")
            self.require(self.let(f"icmp ne ptr {array}, null"), "failed")
            self.store("ptr", array, "%owned", 8 * k)
            self.store("ptr", self.load("ptr", array, abi.ARRAY_DATA), "%outputs", 8 * k)

    def _nbytes_of(self, spec: OutputSpec, shape: int) -> str:
        """Return the bytes of an output whose shape begins at word `shape` of the sizes (`measure` knows they fit)."""
        nbytes = str(spec.dtype.itemsize)
        for axis in range(spec.rank):
            nbytes = self.let(f"mul i64 {nbytes}, {self.load('i64', '%sizes', 8 * (shape + axis))}")
        return nbytes

    def _run(self, arena: str) -> None:
        """Run the program, without the GIL if it is long.

        Between looking at the words shared with Python and setting ours the GIL is held, so nobody comes between.
        """
        slot, state = self.context("arena_slot"), self.context("program_state")
        closed = self.load("i64", state, offset_of(ProgramState, "closed"))
        needs_arena = self.let(f"icmp ne i64 {arena}, 0")
        python_busy = self.load("i64", slot, offset_of(ArenaSlot, "python_busy"))
        native_busy = self.load("i64", slot, offset_of(ArenaSlot, "native_busy"))
        available = self.load("i64", slot, offset_of(ArenaSlot, "nbytes"))
        # Looked at only now: making the outputs may have run Python code (finalisers), which may have changed them.
        busy = self.let(f"or i64 {python_busy}, {native_busy}")
        is_free = self.both(self.equal("i64", busy, 0), self.let(f"icmp ule i64 {arena}, {available}"))
        is_fine = self.let(f"select i1 {needs_arena}, i1 {is_free}, i1 true")
        self.require(self.both(self.equal("i64", closed, 0), is_fine), "drop")
        base = self.load("ptr", slot, offset_of(ArenaSlot, "base"))
        lent = self.let(f"select i1 {needs_arena}, ptr {base}, ptr null")
        tables = f"ptr %inputs, ptr %outputs, ptr {self.context('consts')}, ptr {lent}, ptr %dims, ptr %status"
        work = self.load("i64", "%sizes", 8 * abi.SIZES_WORK)
        is_long = self.let(f"icmp sgt i64 {work}, {abi.GIL_RELEASE_WORK}")
        self.do(f"br i1 {is_long}, label %long, label %short")
        self.label("short")
        # Nothing that short needs to be interrupted.
        self.do(f"%short.failed = call i32 {self.context('run')}({tables}, ptr null, ptr null)")
        self.do("br label %ran")
        self.label("long")
        busy_at = self.at(slot, offset_of(ArenaSlot, "native_busy"))
        running_at = self.at(state, offset_of(ProgramState, "native_running"))
        # The slot is marked only by the run that uses it: another one may be using it right now.
        mark = self.let(f"zext i1 {needs_arena} to i64")
        self.store("i64", self.let(f"or i64 {self.load('i64', busy_at)}, {mark}"), busy_at)
        self.store("i64", self.let(f"add i64 {self.load('i64', running_at)}, 1"), running_at)
        self.do(f"%long.failed = call i32 {self.context('watched')}({tables}, ptr %context)")
        self.store("i64", self.let(f"sub i64 {self.load('i64', running_at)}, 1"), running_at)
        kept = self.let(f"xor i64 {mark}, -1")
        self.store("i64", self.let(f"and i64 {self.load('i64', busy_at)}, {kept}"), busy_at)
        self.do("br label %ran")
        self.label("ran")
        self.do("%failed.with = phi i32 [ %short.failed, %short ], [ %long.failed, %long ]")
        self.require(self.equal("i32", "%failed.with", 0), "unfinished")

    def _copy_to_given(self) -> None:
        s = self.signature
        for k, (spec, shape) in enumerate(zip(s.outputs, s.output_shape_offsets(), strict=True)):
            nbytes = self._nbytes_of(spec, shape)
            target = self.load("ptr", self.load("ptr", "%given", 8 * k), abi.ARRAY_DATA)
            source = self.load("ptr", "%outputs", 8 * k)
            self.call("ptr", "copy_memory", f"ptr {target}", f"ptr {source}", f"i64 {nbytes}")

    def _drop_references(self) -> None:
        for table in ("%owned", "%given"):
            for k in range(len(self.signature.outputs)):
                self.call("void", "decref", f"ptr {self.load('ptr', table, 8 * k)}")

    def _wrap_outputs(self) -> None:
        """Return the fresh outputs: alone, or in a new container, to which their references go."""
        n = len(self.signature.outputs)
        if n == 1:
            container = self.context("container_type")
            self.do(f"br i1 {self.equal('ptr', container, 'null')}, label %bare, label %contain")
            self.label("bare")
            self.do(f"ret ptr {self.load('ptr', '%owned')}")
            self.label("contain")
        result = self.call("ptr", "container_new", f"i64 {n}")
        self.require(self.let(f"icmp ne ptr {result}, null"), "lost")
        for k in range(n):
            item = self.load("ptr", "%owned", 8 * k)
            self.call("i32", "container_set", f"ptr {result}", f"i64 {k}", f"ptr {item}")
        self.do(f"ret ptr {result}")

    def _unusual_ends(self) -> None:
        self.label("unfinished")
        self.do(f"br i1 {self.equal('i32', '%failed.with', abi.STOPPED)}, label %lost, label %drop")
        # The run has succeeded or was interrupted, and must not be repeated; the exception is already set.
        self.label("lost")
        self._drop_references()
        self.do("ret ptr null")
        self.label("failed")
        self.call("void", "err_clear")
        self.do("br label %drop")
        self.label("drop")
        self._drop_references()
        self.do("br label %decline")
        self.label("decline")
        vectorcall, fallback = self.context("vectorcall"), self.context("fallback")
        self.do(f"%fallen.back = tail call ptr {vectorcall}(ptr {fallback}, ptr %args, i64 %nargs, ptr %kwnames)")
        self.do("ret ptr %fallen.back")
