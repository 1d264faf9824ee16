"""Kernels of loop IR in, the text of one LLVM module out. Decides nothing: what is not in the IR does not happen.

A kernel becomes a function of this C shape (see :class:`KernelAbi`), parameters in this order:

    void NAME(buffers..., i64 dims..., [ptr scratch,] [ptr watch,] [i64 begin, i64 end])

`scratch` is there if the kernel allocates scratch buffers (of :func:`scratch_bytes` bytes, 64-byte aligned). `watch` is
there if a loop of it polls: null, or the address of a word with the address of a function that is asked whether to
stop (`runtime.abi.Watch`). Such a kernel returns an i1: whether it was stopped. `begin`, `end` are there if its
outermost loop is ``parallel``: one call then runs only these iterations of it, after the Lets and Allocs before the
loop. What differs between the CPU and a GPU goes through :class:`TargetOps`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from jitflow.dtypes import int64
from jitflow.errors import CompilerBug
from jitflow.expr import Buffer, Const, Expr, Type, Var, as_index, const_index, minimum, substitute, type_of
from jitflow.record import record
from jitflow.simplify import free_vars, simplify_index
from lowering import emit_arith
from lowering.difference import structurally_equal
from lowering.emit_arith import memory_text, suffix, type_text, vector_text
from lowering.emit_expr import ExprEmitter
from lowering.emit_index import Loop
from lowering.emit_lookup import lookup
from lowering.loop_ir import (
    Alloc,
    Atomic,
    Barrier,
    Body,
    CallKernel,
    CheckIndex,
    For,
    If,
    Kernel,
    Let,
    Prefetch,
    Stmt,
    Store,
    While,
    statements,
)
from lowering.printer import LOOKUP
from lowering.target import Target
from lowering.vecmath import define

SCRATCH_ALIGN = 64
#: Bytes of one stack frame above which rows must live in scratch: there is no guard-page probing in our code.
STACK_LIMIT = 16 << 10


@record
class KernelAbi:
    """How a kernel is called: `buffers`, `dims`, then, if it needs them, scratch, watch and the iterations to run."""

    name: str
    buffers: tuple[Buffer, ...]
    dims: tuple[Var, ...]
    has_scratch: bool
    polls: bool
    is_parallel: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        """The LLVM types of the parameters."""
        return (
            ("ptr",) * len(self.buffers)
            + ("i64",) * len(self.dims)
            + ("ptr",) * self.has_scratch
            + ("ptr",) * self.polls
            + ("i64", "i64") * self.is_parallel
        )

    @property
    def result(self) -> str:
        """The LLVM type of the result."""
        return "i1" if self.polls else "void"


def kernel_abi(kernel: Kernel) -> KernelAbi:
    """Return how `kernel` is called."""
    return KernelAbi(
        kernel.name,
        kernel.params,
        kernel.dims,
        has_scratch=bool(_scratch(kernel)),
        polls=any(isinstance(s, For) and _polls(s) for s in statements(kernel.body)),
        is_parallel=_parallel(kernel) is not None,
    )


def parallel_extent(kernel: Kernel) -> Expr | None:
    """Return the number of iterations of the outermost parallel loop as an expression of the dims, or None."""
    loop = _parallel(kernel)
    if loop is None:
        return None
    values: dict[Var, Expr] = {}
    for s in kernel.body:
        if isinstance(s, Let):
            values[s.var] = substitute(s.value, values)
    extent = simplify_index(substitute(loop.extent, values))
    if not free_vars(extent) <= set(kernel.dims):
        raise CompilerBug(f"the parallel extent of {kernel.name} is no expression of its dims")
    return extent


def parallel_chunk(kernel: Kernel) -> Expr | None:
    """Return how many iterations of the outermost parallel loop to run in one call; None for all of them."""
    loop = _parallel(kernel)
    return None if loop is None else loop.poll


def scratch_bytes(kernel: Kernel) -> Expr:
    """Return the bytes of scratch one running call of `kernel` needs, an expression of its dims."""
    return _scratch_layout(kernel)[1]


def _polls(s: For) -> bool:
    """Tell whether the code of loop `s` polls; for a parallel one the caller does."""
    return s.poll is not None and s.kind != "parallel"


def _parallel(kernel: Kernel) -> For | None:
    last = kernel.body[-1] if kernel.body else None
    return last if isinstance(last, For) and last.kind == "parallel" else None


def _scratch(kernel: Kernel) -> list[Buffer]:
    return [s.buffer for s in statements(kernel.body) if isinstance(s, Alloc) and s.buffer.space == "scratch"]


def _scratch_layout(kernel: Kernel) -> tuple[dict[Buffer, Expr], Expr]:
    offsets: dict[Buffer, Expr] = {}
    total: Expr = const_index(0)
    for buffer in _scratch(kernel):
        offsets[buffer] = total
        total = simplify_index(total + _padded_bytes(buffer))
    if not free_vars(total) <= set(kernel.dims):
        raise CompilerBug(f"a scratch buffer of {kernel.name} has a size that is no expression of its dims")
    return offsets, total


def _padded_bytes(buffer: Buffer) -> Expr:
    size: Expr = const_index(buffer.dtype.itemsize)
    for n in buffer.shape:
        size = size * as_index(n)
    return simplify_index((size + (SCRATCH_ALIGN - 1)) // SCRATCH_ALIGN * SCRATCH_ALIGN)


class TargetOps:
    """The operations that targets spell differently. This is the CPU's table; a GPU's overrides what it has."""

    def define(self, kernel: Kernel, abi: KernelAbi, linkage: str, attributes: str) -> str:
        """Return the head of the function, up to its opening brace."""
        parameters = [
            f"ptr{_promises(kernel, b)} align {b.align} {local(k, b.name)}" for k, b in enumerate(abi.buffers)
        ]
        parameters += [f"i64 {local(k + len(abi.buffers), d.name)}" for k, d in enumerate(abi.dims)]
        parameters += ["ptr noalias align 64 %scratch"] * abi.has_scratch
        parameters += ["ptr %watch"] * abi.polls
        parameters += ["i64 %begin", "i64 %end"] * abi.is_parallel
        return f"define {linkage}{abi.result} {symbol(kernel.name)}({', '.join(parameters)}) {attributes}#0 {{"

    def pointer_type(self, buffer: Buffer) -> str:
        """Return the type of pointers into `buffer`."""
        return "ptr"

    def spread(self, w: KernelEmitter, loop: For) -> tuple[str, str | None]:
        """Return the first value and the step of a ``block`` or ``thread`` loop; no step if it runs at most once."""
        raise CompilerBug(f"a {loop.kind} loop on a target without blocks")

    def barrier(self, w: KernelEmitter) -> None:
        """Emit a barrier of the block."""
        raise CompilerBug("a barrier on a target without blocks")

    def shared(self, w: KernelEmitter, buffer: Buffer) -> str:
        """Return the pointer to a shared buffer."""
        raise CompilerBug("a shared buffer on a target without blocks")

    def call(self, w: ExprEmitter, name: str, args: tuple[str, ...], types: tuple[Type, ...], of: Type) -> str | None:
        """Emit a call of a target operation, or return None if `name` is an ordinary function."""
        return None

    def attributes(self, target: Target) -> str:
        """Return the attributes of every function."""
        wide = f' "prefer-vector-width"="{target.vector_bits}" "min-legal-vector-width"="{target.vector_bits}"'
        return f"nounwind{wide if 'x86' in target.triple else ''}"


def _promises(kernel: Kernel, buffer: Buffer) -> str:
    """Return the attributes that say what else happens to the memory of a parameter while the kernel runs: nothing."""
    return "" if buffer in kernel.aliased else f" noalias{' readonly' * (buffer in kernel.reads)}"


CPU_OPS = TargetOps()

#: The number of the metadata that says: a branch is hardly ever taken.
_RARELY = 98

#: The function that asks whether to stop, and where a kernel goes when it is to.
POLL, _STOPPED = "preserve_mostcc i1 @watch.poll", "stopped"
_POLL_TEXT = f"""define internal {POLL}(ptr %watch) cold noinline nounwind {{
entry:
  %unwatched = icmp eq ptr %watch, null
  br i1 %unwatched, label %go, label %ask
ask:
  %look = load ptr, ptr %watch
  %answer = call i32 %look(ptr %watch)
  %stop = icmp ne i32 %answer, 0
  ret i1 %stop
go:
  ret i1 false
}}
"""
_REDUCE = {"any": "or", "all": "and"}
_MathsKey: TypeAlias = "tuple[str, Type]"


class Module:
    """Collects the functions of one LLVM module, each defined once."""

    def __init__(self, target: Target, ops: TargetOps) -> None:
        self.target, self.ops = target, ops
        self.functions: list[str] = []
        self._maths: dict[_MathsKey, str] = {}
        self._wanted: list[_MathsKey] = []
        self._kernels: dict[str, Kernel] = {}
        self._globals: dict[str, str] = {}

    def add(self, kernel: Kernel, linkage: str, attributes: str = "") -> None:
        """Define `kernel` and what it calls; the same kernel again is not defined twice."""
        known = self._kernels.get(kernel.name)
        if known is not None:
            if known is not kernel and not structurally_equal(known, kernel):
                raise CompilerBug(f"two kernels are called {kernel.name}")
            return
        self._kernels[kernel.name] = kernel
        for callee in kernel.callees:
            # Inlined, a microkernel would be copied to every call and lose its registers to the code around it.
            self.add(callee, "internal ", "noinline ")
        self.functions.append(KernelEmitter(self, kernel).emit(linkage, attributes))

    def call(self, w: ExprEmitter, name: str, args: tuple[str, ...], types: tuple[Type, ...], of: Type) -> str:
        """Emit the call of a pure function from `w`; remember to define it."""
        done = self.ops.call(w, name, args, types, of)
        if done is not None:
            return done
        if name in ("any", "all"):
            ty = type_text(types[0])
            return w.inst(f"call i1 @llvm.vector.reduce.{_REDUCE[name]}.{suffix(types[0])}({ty} {args[0]})")
        if name == LOOKUP:
            return lookup(w, self.target, args[:-1], args[-1], of, self._place)
        key = (name, of)
        if key not in self._maths:
            self._maths[key] = f"@maths.{name}.{of!r}"
            self._wanted.append(key)
        given = ", ".join(f"{type_text(t)} {a}" for t, a in zip(types, args, strict=True))
        return w.inst(f"call {type_text(of)} {self._maths[key]}({given})")

    def _place(self, constant: str) -> str:
        """Return the name of a global with this definition."""
        name = self._globals.get(constant)
        if name is None:
            name = self._globals[constant] = f"@constant.{len(self._globals)}"
            self.functions.append(f"{name} = {constant}\n")
        return name

    def define_maths(self) -> None:
        """Define the maths functions that were called, and those that they call."""
        while self._wanted:
            name, of = key = self._wanted.pop(0)
            function = define(name, of, fma=self.target.has_fma)
            w = KernelEmitter(self, Kernel(name, (), (), function.body))
            parameters = []
            for k, p in enumerate(function.params):
                w.bind(p, local(k, p.name))
                parameters.append(f"{type_text(p.type)} {local(k, p.name)}")
            w.body(function.body)
            w.line(f"ret {type_text(function.result.type)} {w.value(function.result)}")
            head = f"define internal {type_text(of)} {self._maths[key]}({', '.join(parameters)}) alwaysinline #0 {{"
            self.functions.append(f"{head}\nentry:\n{w.text()}\n}}\n")


class KernelEmitter(ExprEmitter):
    """Emits the statements of one kernel."""

    def __init__(self, module: Module, kernel: Kernel) -> None:
        super().__init__(module.target, module)
        self.ops = module.ops
        self.kernel = kernel
        self.abi = kernel_abi(kernel)
        self._stack_bytes = 0
        self._parallel = _parallel(kernel)
        self._offsets = _scratch_layout(kernel)[0]
        # Allocas stand at the top of the entry block, or they would grow the stack in every iteration.
        self._entry = self.chunks[0]
        self.regions[0].out = self.new_chunk()

    def pointer_type(self, buffer: Buffer) -> str:
        return self.ops.pointer_type(buffer)

    def emit(self, linkage: str, attributes: str) -> str:
        """Return the text of the function."""
        for k, b in enumerate(self.abi.buffers):
            self.pointers[b] = local(k, b.name)
        for k, d in enumerate(self.abi.dims):
            self.bind(d, local(k + len(self.abi.buffers), d.name))
        self.body(self.kernel.body)
        if "x86" in self.target.triple and any(isinstance(s, Store) and s.stream for s in statements(self.kernel.body)):
            # Streaming stores are not ordered with the store that says that this call is done.
            self.line("call void @llvm.x86.sse.sfence()")
        self.line(f"ret {'i1 false' if self.abi.polls else 'void'}")
        if self.abi.polls:
            self.place(_STOPPED)
            self.line("ret i1 true")
        notes = "".join(f"; {line}\n" for note in self.kernel.notes for line in note.splitlines())
        head = self.ops.define(self.kernel, self.abi, linkage, attributes)
        return f"{notes}{head}\nentry:\n{self.text()}\n}}\n"

    def body(self, body: Body) -> None:
        """Emit statements in order."""
        for s in body:
            self.statement(s)

    def statement(self, s: Stmt) -> None:
        """Emit one statement."""
        match s:
            case Let(var, value):
                known = var.type.lanes == 1 and var.type.dtype.kind == "x" and self.is_nonnegative(value)
                self.bind(var, self.value(value), nonnegative=known)
            case Store(buffer, subscripts, value, mask, stream):
                self.store(buffer, subscripts, value, mask, stream)
            case For():
                self._for(s)
            case While(cond, body):
                self._while(cond, body)
            case If():
                self._if(s)
            case Alloc(buffer):
                self._alloc(buffer)
            case Barrier():
                self.ops.barrier(self)
            case CheckIndex():
                self._check_index(s)
            case Atomic():
                self._atomic(s)
            case Prefetch(buffer, subscripts, far):
                pointer, _ = self.pointer(buffer, self.offset(buffer, subscripts)[0])
                # Arguments: for reading, how near of 0 to 3, data rather than code.
                of = self.pointer_type(buffer)
                to = "p0" if of == "ptr" else "p1"
                self.line(f"call void @llvm.prefetch.{to}({of} {pointer}, i32 0, i32 {2 if far else 3}, i32 1)")
            case CallKernel():
                self._call_kernel(s)
            case _:
                raise CompilerBug(f"no LLVM text for {s!r}")

    def _for(self, s: For) -> None:
        if s.kind == "vectorized":
            raise CompilerBug("a vectorized loop reached the emitter: vectorize leaves none")
        if s.kind == "parallel":
            if s is not self._parallel:
                raise CompilerBug("a parallel loop that is not the last, outermost statement of its kernel")
            self._loop(s, "%begin", "1", "%end", False)
        elif s.kind in ("block", "thread"):
            first, step = self.ops.spread(self, s)
            if step is None:
                self.enter()
                self.bind(s.var, first, nonnegative=True)
                self.body(s.body)
                self.leave()
            else:
                self._loop(s, first, step, self.index(s.extent), False)
        else:
            runs = isinstance(s.extent, Const) and s.extent.value > 0
            self._loop(s, "0", "1", self.index(s.extent), runs)

    def _loop(self, s: For, first: str, step: str, end: str, runs: bool) -> None:
        """Emit a loop that is tested at its end, behind a test that it runs at all unless that is known.

        One that polls runs to a `pause` first, and from there to the next one or to its end:

            loop:   ... br (next < pause), loop, at pause      at pause:  br (next < end), poll, loop.end
                                                               poll:      pause = ...; br stop, stopped, loop
        """
        # As index arithmetic, both go as far out of the loops around as they can.
        often, pause = "", ""
        if s.poll is not None and _polls(s):
            often, pause = self.index(s.poll), self.index(minimum(s.extent, s.poll))
        name = self.fresh("loop")
        innermost = not any(isinstance(x, (For, While)) for x in statements(s.body))
        loop = Loop(s.var, first, step, innermost)
        variable = local(name, s.var.name)
        before = self.label
        region = self.enter(loop)
        if runs:
            self.line(f"br label %{name}")
        else:
            some = self.inst(f"icmp slt i64 {first}, {end}")
            self.line(f"br i1 {some}, label %{name}, label %{name}.end")
        self.place(name)
        phis, region.out = region.out, self.new_chunk()
        self.bind(s.var, variable, nonnegative=True)
        self.body(s.body)
        self.line(f"br label %{name}.next")
        self.place(f"{name}.next")
        flags = " nuw nsw" if step == "1" else ""
        self.line(f"{variable}.next = add{flags} i64 {variable}, {step}")
        until = f"%{name}.pause" if often else end
        again = self.inst(f"icmp slt i64 {variable}.next, {until}")
        latches = [self.label]
        for derived, _, increment in loop.phis:
            self.line(f"{derived}.next = add i64 {derived}, {increment}")
        if not often:
            self.line(f"br i1 {again}, label %{name}, label %{name}.end")
        else:
            self.line(f"br i1 {again}, label %{name}, label %{name}.at.pause")
            self._poll(name, f"{variable}.next", often, end)
            latches.append(self.label)
            again_from = f"[ {until}, %{latches[0]} ], [ {until}.next, %{latches[1]} ]"
            phis.append(f"  {until} = phi i64 [ {pause}, %{before} ], {again_from}")
        for phi, start in ((variable, first), *((derived, start) for derived, start, _ in loop.phis)):
            again_from = ", ".join(f"[ {phi}.next, %{latch} ]" for latch in latches)
            phis.append(f"  {phi} = phi i64 [ {start}, %{before} ], {again_from}")
        self.leave()
        self.place(f"{name}.end")

    def _poll(self, name: str, position: str, often: str, end: str) -> None:
        """Emit what a loop does when it reaches its pause: go on to the next one unless it ends or is stopped here."""
        self.place(f"{name}.at.pause")
        more = self.inst(f"icmp slt i64 {position}, {end}")
        self.line(f"br i1 {more}, label %{name}.poll, label %{name}.end, !prof !{_RARELY}")
        self.place(f"{name}.poll")
        stop = self.inst(f"call {POLL}(ptr %watch)")
        later = self.inst(f"add i64 {position}, {often}")
        self.line(f"%{name}.pause.next = call i64 @llvm.smin.i64(i64 {end}, i64 {later})")
        self.line(f"br i1 {stop}, label %{_STOPPED}, label %{name}")

    def _while(self, cond: Expr, body: Body) -> None:
        name = self.fresh("while")
        self.enter()
        self.line(f"br label %{name}")
        self.place(name)
        test = self.value(cond)
        self.line(f"br i1 {test}, label %{name}.body, label %{name}.end")
        self.place(f"{name}.body")
        self.body(body)
        self.line(f"br label %{name}")
        self.leave()
        self.place(f"{name}.end")

    def _if(self, s: If) -> None:
        name = self.fresh("if")
        cond = self.value(s.cond)
        otherwise = f"{name}.else" if s.otherwise else f"{name}.end"
        self.enter()
        self.line(f"br i1 {cond}, label %{name}, label %{otherwise}")
        self.place(name)
        self.body(s.then)
        self.line(f"br label %{name}.end")
        if s.otherwise:
            self.other_arm()
            self.place(otherwise)
            self.body(s.otherwise)
            self.line(f"br label %{name}.end")
        self.leave()
        self.place(f"{name}.end")

    def _alloc(self, buffer: Buffer) -> None:
        if buffer.space == "shared":
            self.pointers[buffer] = self.ops.shared(self, buffer)
        elif buffer.space == "scratch":
            offset = self.index(self._offsets[buffer])
            # In the entry, where addresses hoisted out of loops can use it.
            self.pointers[buffer] = self.at(0, ("scratch", offset), f"getelementptr i8, ptr %scratch, i64 {offset}")
        else:
            self.pointers[buffer] = self._alloca(buffer)

    def _alloca(self, buffer: Buffer) -> str:
        count = 1
        for n in buffer.shape:
            size = simplify_index(as_index(n))
            if not isinstance(size, Const):
                raise CompilerBug(
                    f"the {buffer.space} buffer {buffer.name} has no constant size; it belongs in scratch"
                )
            count *= int(size.value)
        self._stack_bytes += count * buffer.dtype.itemsize
        if self._stack_bytes > STACK_LIMIT:
            raise CompilerBug(f"{self.kernel.name} would need {self._stack_bytes} bytes of stack; use scratch")
        name = local(self.fresh("a"), buffer.name)
        element = memory_text(type_of(buffer.dtype))
        self._entry.append(f"  {name} = alloca [{max(count, 1)} x {element}], align {max(64, buffer.align)}")
        return name

    def _check_index(self, s: CheckIndex) -> None:
        lanes = s.ok.type.lanes
        ok = self.value(s.ok)
        test = vector_text("i1", lanes)
        bad = self.inst(f"xor {test} {ok}, {'true' if lanes == 1 else 'splat (i1 true)'}")
        if s.mask is not None:
            bad = self.inst(f"and {test} {bad}, {self.value(s.mask)}")
        some = bad if lanes == 1 else self.inst(f"call i1 @llvm.vector.reduce.or.v{lanes}i1({test} {bad})")
        name = self.fresh("check")
        self.enter()
        self.line(f"br i1 {some}, label %{name}, label %{name}.end")
        self.place(name)
        position = self.value(s.position)
        if lanes > 1:
            wide = vector_text("i64", lanes)
            if s.position.type.lanes == 1:
                position = self.splat(position, s.position.type, lanes)
            position = self.inst(f"select {test} {bad}, {wide} {position}, {wide} splat (i64 {int64.max})")
            position = self.inst(f"call i64 @llvm.vector.reduce.smin.v{lanes}i64({wide} {position})")
        slot = self.inst(f"getelementptr i64, {self.pointer_type(s.status)} {self.base(s.status)}, i64 {s.slot}")
        self.inst(f"atomicrmw min {self.pointer_type(s.status)} {slot}, i64 {position} monotonic, align 8")
        self.line(f"br label %{name}.end")
        self.leave()
        self.place(f"{name}.end")

    def _atomic(self, s: Atomic) -> None:
        of = s.value.type
        if of.lanes > 1 or of.dtype.is_bool:
            raise CompilerBug(f"no atomic {s.op} of {of!r}")
        value = self.value(s.value)
        pointer, _ = self.pointer(s.buffer, self.offset(s.buffer, s.index)[0])
        ptr, ty = self.pointer_type(s.buffer), type_text(of)
        align = of.dtype.itemsize
        if not of.dtype.is_float or s.op == "add":
            name = {"add": "fadd" if of.dtype.is_float else "add"}.get(s.op, ("" if of.dtype.is_signed else "u") + s.op)
            self.inst(f"atomicrmw {name} {ptr} {pointer}, {ty} {value} monotonic, align {align}")
            return
        # atomicrmw fmin follows libm, which drops NaN: compare and swap with our own min instead.
        name, bits = self.fresh("swap"), f"i{8 * align}"
        first = self.inst(f"load atomic {bits}, {ptr} {pointer} monotonic, align {align}")
        before = self.label
        self.enter()
        self.line(f"br label %{name}")
        self.place(name)
        old = f"%{name}.old"
        self.line(f"{old} = phi {bits} [ {first}, %{before} ], [ %{name}.seen, %{name} ]")
        number = self.inst(f"bitcast {bits} {old} to {ty}")
        best = self.inst(f"bitcast {ty} {emit_arith.binary(self, s.op, of, number, value)} to {bits}")
        pair = self.inst(f"cmpxchg {ptr} {pointer}, {bits} {old}, {bits} {best} monotonic monotonic, align {align}")
        self.line(f"%{name}.seen = extractvalue {{ {bits}, i1 }} {pair}, 0")
        done = self.inst(f"extractvalue {{ {bits}, i1 }} {pair}, 1")
        self.line(f"br i1 {done}, label %{name}.end, label %{name}")
        self.leave()
        self.place(f"{name}.end")

    def _call_kernel(self, s: CallKernel) -> None:
        callee = next((k for k in self.kernel.callees if k.name == s.kernel), None)
        if callee is None:
            raise CompilerBug(f"{self.kernel.name} calls {s.kernel}, which is not among its callees")
        abi = kernel_abi(callee)
        if abi.has_scratch or abi.polls or abi.is_parallel:
            raise CompilerBug(f"the microkernel {callee.name} has scratch, polls or a parallel loop")
        if len(s.buffers) != len(abi.buffers) or len(s.args) != len(abi.dims):
            raise CompilerBug(f"a call of {callee.name} has the wrong number of arguments")
        given = []
        for buffer, offset in zip(s.buffers, s.offsets, strict=True):
            pointer, _ = self.pointer(buffer, self.lane_poly(offset)[0])
            given.append(f"{self.pointer_type(buffer)} {pointer}")
        given += [f"i64 {self.index(a)}" for a in s.args]
        self.line(f"call void {symbol(callee.name)}({', '.join(given)})")


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")


def symbol(name: str) -> str:
    """Return how a function called `name` is written in LLVM text."""
    return f"@{name}" if _PLAIN.match(name) else '@"' + name.replace("\\", "\\5C").replace('"', "\\22") + '"'


def local(key: object, name: str) -> str:
    """Return a readable name for a value: the letters of `name`, made unique by `key`."""
    # A leading digit would make it a number to LLVM, which also cuts names at 1024 letters: then they are not unique.
    return f"%{re.sub(r'^(?=[0-9])|[^A-Za-z0-9_]', '_', name[:60])}.{key}"


def emit_module(
    kernels: Sequence[Kernel],
    target: Target,
    *,
    extra: str = "",
    ops: TargetOps = CPU_OPS,
    exported: bool = False,
) -> str:
    """Return the LLVM module of `kernels` and, verbatim, `extra` (the plan's functions, which may call them).

    `exported` makes the kernels visible to the linker; otherwise only what `extra` defines is.
    """
    module = Module(target, ops)
    for kernel in kernels:
        module.add(kernel, "" if exported else "internal ")
    module.define_maths()
    head = f'target datalayout = "{target.layout}"\ntarget triple = "{target.triple}"\n'
    tail = f"attributes #0 = {{ {ops.attributes(target)} }}\n!99 = !{{i32 1}}\n"
    tail += f'!{_RARELY} = !{{!"branch_weights", i32 1, i32 1048576}}\n'
    functions = [*module.functions, *([extra] if extra else [])]
    if any(f"{POLL}(" in f for f in functions):
        functions.append(_POLL_TEXT)
    return "\n".join([head, *functions, tail])


def emit_kernel(kernel: Kernel, target: Target, *, ops: TargetOps = CPU_OPS) -> str:
    """Return the LLVM module of one kernel, visible to the linker."""
    return emit_module([kernel], target, ops=ops, exported=True)
